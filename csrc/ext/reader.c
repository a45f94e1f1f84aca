/*
 * reader.c - readers of logs: from where, merged, rendered.
 *
 * Owns its own memory. Calls ring_open of csrc/init/ring.c. Logs are written meanwhile by logger, without locks: what was rendered
 * from a record that is no longer there is thrown away. Says nothing; where memory lacks NULL or -1.
 */
#include "ext.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../entry.h"
#include "../init/ring.h"

struct ext_log {
    struct ring ring;
    int holders;
    char name[192];
};

struct cursor {
    ext_log *log;
    uint64_t at, line;              /* the next record's position, and its index */
    uint64_t seq;                   /* its seq, while it is in the heap */
    uint64_t end;                   /* index of the first line that is not read */
};

struct ext_reader {
    struct cursor *cursors;
    uint32_t *heap;                 /* numbers of cursors that have something up to the limit, smallest seq first */
    uint32_t count, size, heap_size;
    int format;
    uint64_t limit, seq, missed, unsaid;
    char boot[96];
};

ext_log *ext_log_open(int fd, const char *name)
{
    ext_log *log = calloc(1, sizeof *log);

    if (!log)
        return NULL;
    if (ring_open(&log->ring, fd, 0) < 0) {
        int error = errno;

        free(log);
        errno = error;
        return NULL;
    }
    log->holders = 1;
    strncpy(log->name, name, sizeof log->name - 1);
    return log;
}

void ext_log_close(ext_log *log)
{
    if (log && --log->holders == 0) {
        ring_close(&log->ring);
        free(log);
    }
}

uint64_t ext_log_last_seq(const ext_log *log)
{
    return vg_ring_word(&log->ring.header->last_seq);
}

uint64_t ext_log_lines(const ext_log *log)
{
    return vg_ring_word(&log->ring.header->lines);
}

/* The record at the cursor, or the oldest there is where that is gone. False: there is none. */
static bool load(ext_reader *reader, struct cursor *cursor, struct vg_record *record)
{
    const struct vg_ring_header *header = cursor->log->ring.header;

    for (;;) {
        uint64_t tail;

        if (cursor->at >= vg_ring_word(&header->head))
            return false;
        memcpy(record, ring_at(&cursor->log->ring, cursor->at), sizeof *record);
        if (vg_ring_still(header, cursor->at)) {
            uint64_t next = record->line < cursor->end ? record->line : cursor->end;

            if (next > cursor->line && reader) {
                reader->missed += next - cursor->line;
                reader->unsaid += next - cursor->line;
            }
            cursor->line = record->line;
            return record->line < cursor->end && record->length <= VG_LINE_MAX;
        }
        tail = vg_ring_word(&header->tail);
        cursor->at = tail > cursor->at ? tail : cursor->at;
    }
}

static void step(struct cursor *cursor, const struct vg_record *record)
{
    cursor->at += vg_record_size(record->length);
    cursor->line++;
}

/* Puts the cursor where `from` says. */
static void place(struct cursor *cursor, int from, uint64_t value, uint64_t line)
{
    const struct ring *ring = &cursor->log->ring;
    uint64_t lines = vg_ring_word(&ring->header->lines), first = lines > ring->lines_max ? lines - ring->lines_max : 0;
    struct vg_record record;

    if (from == EXT_FROM_PLACE) {
        cursor->at = value;
        cursor->line = line;
        return;
    }
    if (from == EXT_FROM_LAST && value < lines && lines - value > first)
        first = lines - value;
    cursor->at = vg_ring_word(&ring->header->tail);
    cursor->line = 0;
    while (load(NULL, cursor, &record)) {
        if (from == EXT_FROM_END || record.line < first || (from == EXT_FROM_SEQ && record.seq <= value)
            || (from == EXT_FROM_TIME && record.real_ns < value))
            step(cursor, &record);
        else
            break;
    }
}

uint64_t ext_log_gone(ext_log *log, uint64_t seq)
{
    struct cursor cursor = { .log = log, .end = UINT64_MAX };
    struct vg_record record;

    place(&cursor, EXT_FROM_START, 0, 0);
    if (!load(NULL, &cursor, &record) || record.seq <= seq)     /* where that one is there, all that came after it are */
        return 0;
    return cursor.line < record.seq - seq - 1 ? cursor.line : record.seq - seq - 1;
}

uint64_t ext_log_after(ext_log *log, uint64_t seq, uint64_t limit)
{
    struct cursor cursor = { .log = log, .end = UINT64_MAX };
    struct vg_record record;
    uint64_t count = 0;

    place(&cursor, EXT_FROM_SEQ, seq, 0);
    for (; load(NULL, &cursor, &record) && record.seq <= limit; count++)
        step(&cursor, &record);
    return count;
}

ext_reader *ext_reader_new(int format, const char *boot)
{
    ext_reader *reader = calloc(1, sizeof *reader);

    if (!reader)
        return NULL;
    reader->format = format;
    strncpy(reader->boot, boot, sizeof reader->boot - 1);
    return reader;
}

void ext_reader_free(ext_reader *reader)
{
    if (!reader)
        return;
    for (uint32_t at = 0; at < reader->count; at++)
        ext_log_close(reader->cursors[at].log);
    free(reader->cursors);
    free(reader->heap);
    free(reader);
}

int ext_reader_add(ext_reader *reader, ext_log *log, int from, uint64_t value, uint64_t line)
{
    struct cursor *cursor;

    if (reader->count == reader->size) {
        uint32_t size = reader->size ? 2 * reader->size : 8;
        struct cursor *cursors = realloc(reader->cursors, size * sizeof *cursors);
        uint32_t *heap;

        if (!cursors)
            return -1;
        reader->cursors = cursors;
        heap = realloc(reader->heap, size * sizeof *heap);
        if (!heap)
            return -1;
        reader->heap = heap;
        reader->size = size;
    }
    cursor = &reader->cursors[reader->count];
    *cursor = (struct cursor){ .log = log, .end = UINT64_MAX };
    log->holders++;
    place(cursor, from, value, line);
    reader->heap_size = 0;          /* until the next mark */
    return (int)reader->count++;
}

void ext_reader_end(ext_reader *reader, int number, uint64_t line)
{
    if (number >= 0 && (uint32_t)number < reader->count)
        reader->cursors[number].end = line;
}

int ext_reader_remove(ext_reader *reader, ext_log *log)
{
    for (uint32_t at = 0; at < reader->count; at++)
        if (reader->cursors[at].log == log) {
            reader->cursors[at] = reader->cursors[--reader->count];
            reader->heap_size = 0;
            ext_log_close(log);
            return (int)at;
        }
    return -1;
}

/* --- Merging ---------------------------------------------------------------------------------------------------------------- */

static bool before(const ext_reader *reader, uint32_t a, uint32_t b)
{
    return reader->cursors[a].seq < reader->cursors[b].seq;
}

static void sift_down(ext_reader *reader, uint32_t at)
{
    uint32_t moved = reader->heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= reader->heap_size)
            break;
        if (child + 1 < reader->heap_size && before(reader, reader->heap[child + 1], reader->heap[child]))
            child++;
        if (!before(reader, reader->heap[child], moved))
            break;
        reader->heap[at] = reader->heap[child];
        at = child;
    }
    reader->heap[at] = moved;
}

/* The cursor at the top of the heap may have moved on: puts it where it belongs, or takes it out. */
static void renew_top(ext_reader *reader)
{
    struct cursor *cursor = &reader->cursors[reader->heap[0]];
    struct vg_record record;

    if (load(reader, cursor, &record) && record.seq <= reader->limit)
        cursor->seq = record.seq;
    else
        reader->heap[0] = reader->heap[--reader->heap_size];
    if (reader->heap_size)
        sift_down(reader, 0);
}

void ext_reader_limit(ext_reader *reader, uint64_t seq)
{
    struct vg_record record;

    reader->limit = seq;
    reader->heap_size = 0;
    for (uint32_t at = 0; at < reader->count; at++) {
        struct cursor *cursor = &reader->cursors[at];

        if (cursor->at >= vg_ring_word(&cursor->log->ring.header->head))
            continue;
        if (load(reader, cursor, &record) && record.seq <= seq) {
            cursor->seq = record.seq;
            reader->heap[reader->heap_size++] = at;
        }
    }
    for (uint32_t root = reader->heap_size / 2; root-- > 0;)
        sift_down(reader, root);
}

uint64_t ext_reader_mark(ext_reader *reader)
{
    uint64_t last = reader->limit;

    /* Whoever sees a log's last_seq sees all that was captured before it, in every log. */
    for (uint32_t at = 0; at < reader->count; at++) {
        uint64_t seq = vg_ring_word(&reader->cursors[at].log->ring.header->last_seq);

        if (seq > last)
            last = seq;
    }
    ext_reader_limit(reader, last);
    return last;
}

void ext_reader_keep(ext_reader *reader, uint64_t lines)
{
    uint64_t total = 0;
    struct vg_record record;

    for (uint32_t at = 0; at < reader->heap_size; at++) {
        struct cursor ahead = reader->cursors[reader->heap[at]];

        while (load(NULL, &ahead, &record) && record.seq <= reader->limit) {
            total++;
            step(&ahead, &record);
        }
    }
    while (total > lines && reader->heap_size) {
        struct cursor *cursor = &reader->cursors[reader->heap[0]];

        if (load(NULL, cursor, &record) && record.seq <= reader->limit)
            step(cursor, &record);
        total--;
        renew_top(reader);
    }
    reader->missed = reader->unsaid = 0;    /* what was overwritten meanwhile was not asked for either */
}

void ext_reader_lost(ext_reader *reader, uint64_t lines)
{
    reader->missed += lines;
    reader->unsaid += lines;
}

/* --- Rendering -------------------------------------------------------------------------------------------------------------- */

/* The data of a text event: UTF-8, and a CR, which would end the field, begins another one (a client sees a newline). */
static char *text_of(char *to, const unsigned char *text, size_t length)
{
    while (length) {
        size_t size = entry_sequence(text, length);

        if (*text == '\r') {
            to = entry_words(to, "\ndata: ");
            size = 1;
        } else if (size) {
            memcpy(to, text, size);
            to += size;
        } else {
            to = entry_words(to, "\xef\xbf\xbd");
            size = 1;
        }
        text += size;
        length -= size;
    }
    return to;
}

static char *lagged(const ext_reader *reader, char *to)
{
    if (reader->format == EXT_ENTRIES)
        return to;
    to = entry_words(to, reader->format == EXT_NDJSON ? "{\"lagged\":" : ": lagged ");
    to = entry_number(to, reader->unsaid);
    return entry_words(to, reader->format == EXT_NDJSON ? "}\n" : "\n\n");
}

static char *render(const ext_reader *reader, const ext_log *log, const struct vg_record *record, const unsigned char *message, char *to)
{
    if (reader->format == EXT_NDJSON || reader->format == EXT_ENTRIES) {
        to = entry_json(to, record, message, log->name);
        *to++ = '\n';
        return to;
    }
    if (*reader->boot) {
        to = entry_words(to, "id: ");
        to = entry_words(to, reader->boot);
        *to++ = '-';
        to = entry_number(to, record->seq);
        *to++ = '\n';
    }
    to = entry_words(to, "data: ");
    if (reader->format == EXT_SSE_JSON) {
        to = entry_json(to, record, message, log->name);
    } else {
        *to++ = '[';
        to = entry_words(to, log->name);
        *to++ = ']';
        *to++ = ' ';
        to = text_of(to, message, record->length);
    }
    return entry_words(to, "\n\n");
}

size_t ext_reader_read(ext_reader *reader, char *to, size_t size)
{
    char *at = to;

    while (reader->heap_size) {
        struct cursor *cursor = &reader->cursors[reader->heap[0]];
        const struct ring *ring = &cursor->log->ring;
        struct vg_record record;
        uint64_t expected = cursor->seq;
        char *start;

        if (!load(reader, cursor, &record) || record.seq != expected) {    /* it was overwritten since the mark */
            renew_top(reader);
            continue;
        }
        if (size - (size_t)(at - to) < 7u * record.length + 2048u)
            break;
        start = at;
        if (reader->unsaid)
            at = lagged(reader, at);
        at = render(reader, cursor->log, &record, ring_at(ring, cursor->at) + sizeof record, at);
        if (!vg_ring_still(ring->header, cursor->at)) {
            at = start;
            renew_top(reader);
            continue;
        }
        reader->unsaid = 0;
        reader->seq = record.seq;
        step(cursor, &record);
        renew_top(reader);
    }
    if (!reader->heap_size && reader->unsaid && size - (size_t)(at - to) >= 64) {   /* all there was is gone, up to the limit */
        at = lagged(reader, at);
        reader->unsaid = 0;
    }
    return (size_t)(at - to);
}

uint64_t ext_reader_seq(const ext_reader *reader)
{
    return reader->seq;
}

uint64_t ext_reader_missed(const ext_reader *reader)
{
    return reader->missed;
}

int ext_reader_places(const ext_reader *reader, struct ext_place *to)
{
    for (uint32_t at = 0; at < reader->count; at++)
        to[at] = (struct ext_place){ reader->cursors[at].at, reader->cursors[at].line };
    return (int)reader->count;
}
