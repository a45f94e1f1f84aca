/*
 * lines.h - the splitter: text as it came out of a pipe becomes records of a log. Pure: it reads what `lines_in` points to, writes
 * records at `head` and the rest at `rest`, and tells where things stand now. Done twice with the same input it writes the same bytes.
 */
#ifndef VIGIL_INIT_LINES_H
#define VIGIL_INIT_LINES_H
#include <stddef.h>

#include "ring.h"

/* cffi: begin */
#define LINES_HELD_MAX 16385    /* of an unterminated line: the longest message, and a CR whose LF may still come */

struct lines_in {
    struct ring *ring;
    uint64_t head, line, seq, nth;      /* the next record's position, index in its log, seq, and index among those to be forwarded */
    uint64_t real_ns;
    uint32_t flags;                     /* VG_RECORD_STDERR, VG_RECORD_FORWARD */
    uint32_t end;                       /* nothing follows: what is unterminated becomes a line */
    const unsigned char *held;          /* the unterminated line so far; never contains a newline */
    const unsigned char *text;
    unsigned char *rest;                /* LINES_HELD_MAX bytes for the unterminated line from now on; not `held` */
    uint32_t held_length;
    uint32_t text_length;
};

struct lines_out {
    uint64_t head, line, seq, nth;
    uint64_t whole;                     /* position after the last record that ended a line; 0: none did */
    uint32_t rest_length;
    uint32_t padding;
};

void lines_split(const struct lines_in *in, struct lines_out *out);
/* cffi: end */

/* Bytes of log that `text` more bytes after `held` ones may take at most: every byte may be an empty line. */
static inline uint64_t lines_bound(uint64_t held, uint64_t text)
{
    return text * sizeof(struct vg_record) + held + 4 * sizeof(struct vg_record);
}
#endif
