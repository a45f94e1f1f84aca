/*
 * ext.h - what Python loads: readers of logs, and of the board of notifications. A reader merges any number of logs in the order of seq and
 * writes entries as text, many per call. Single-threaded: each reader, log and board is used by one thread at a time.
 */
#ifndef VIGIL_EXT_H
#define VIGIL_EXT_H
#include <stddef.h>
#include <stdint.h>

#include "../notice.h"
#include "../ring.h"

/* cffi: begin */
/* A new log: a sealed memfd, or -1 and errno. */
int ring_create(const char *name, uint64_t lines, uint64_t bytes);

typedef struct ext_log ext_log;
typedef struct ext_reader ext_reader;

enum ext_format {
    EXT_NDJSON = 0,             /* {entry}, one a line */
    EXT_SSE_JSON,               /* id: BOOT-SEQ, data: {entry} */
    EXT_SSE_TEXT,               /* id: BOOT-SEQ, data: [service] message */
    EXT_ENTRIES                 /* as EXT_NDJSON, without a word about lines that were missed */
};

/* Where a reader begins in a log. */
enum ext_from {
    EXT_FROM_START = 0,         /* the oldest line that is shown */
    EXT_FROM_END,               /* what comes from now on */
    EXT_FROM_LAST,              /* value: how many of its last lines */
    EXT_FROM_SEQ,               /* value: after that seq */
    EXT_FROM_TIME,              /* value: CLOCK_REALTIME in ns, inclusive */
    EXT_FROM_PLACE              /* value: a position, line: its index (ext_place) */
};

/* How far a reader is in one log. */
struct ext_place { uint64_t at, line; };

#define EXT_ROOM 147456         /* least size of a buffer for ext_reader_read: any entry fits */

ext_log *ext_log_open(int fd, const char *name);                /* NULL and errno; the descriptor may be closed */
void ext_log_close(ext_log *log);                               /* readers that have it keep it until they are freed */
uint64_t ext_log_last_seq(const ext_log *log);
uint64_t ext_log_lines(const ext_log *log);                     /* ever kept */
uint64_t ext_log_gone(ext_log *log, uint64_t seq);              /* how many lines after that seq are overwritten, at most */
uint64_t ext_log_after(ext_log *log, uint64_t seq, uint64_t limit);        /* how many there are after it, up to `limit` */

ext_reader *ext_reader_new(int format, const char *boot);       /* boot: for event ids; empty: none. NULL: no memory */
void ext_reader_free(ext_reader *reader);
int ext_reader_add(ext_reader *reader, ext_log *log, int from, uint64_t value, uint64_t line);     /* its number from 0, or -1: no memory */
/* Lines of that log from this index on are another reader's: neither read nor, when overwritten, counted. */
void ext_reader_end(ext_reader *reader, int number, uint64_t line);
int ext_reader_remove(ext_reader *reader, ext_log *log);        /* its number; the last log gets that number. -1: it is not there */
/* Everything captured so far may be read from now on, and nothing after it until the next mark. Returns the last seq. */
uint64_t ext_reader_mark(ext_reader *reader);
void ext_reader_limit(ext_reader *reader, uint64_t seq);        /* the same, up to a mark of another reader */
void ext_reader_keep(ext_reader *reader, uint64_t lines);       /* after a mark: only the last so many entries up to it */
void ext_reader_lost(ext_reader *reader, uint64_t lines);       /* so many were lost before: told before the next entry */
/* Renders on; the bytes written, 0: nothing is left up to the mark. `size` is at least EXT_ROOM. */
size_t ext_reader_read(ext_reader *reader, char *to, size_t size);
uint64_t ext_reader_seq(const ext_reader *reader);              /* of the last entry read, 0 before the first */
uint64_t ext_reader_missed(const ext_reader *reader);           /* lines it ever missed because they were overwritten before it came */
int ext_reader_places(const ext_reader *reader, struct ext_place *to);      /* one per log, in the order of their numbers; how many */

typedef struct ext_board ext_board;

ext_board *ext_board_open(int fd);                              /* NULL and errno; the descriptor may be closed */
void ext_board_close(ext_board *board);
uint64_t ext_board_drained(const ext_board *board);             /* CLOCK_MONOTONIC: whatever was sent by then is on the board */
int ext_board_read(const ext_board *board, uint32_t slot, uint32_t generation, struct vg_notice *to);     /* 1: copied; 0: nothing of that run; -1: being written, or logger died writing it */
/* The next notice from `*slot` on that says something new since it was reported here: 1, with its slot and a copy. 0: there is none. */
int ext_board_next(ext_board *board, uint32_t *slot, struct vg_notice *to);
/* cffi: end */
#endif
