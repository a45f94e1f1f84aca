/*
 * ring.h - the format of a log, for its one writer (logger) and its many readers (csrc/ext).
 *
 * A log is a memfd, sealed against growing and shrinking: a header page, then from VG_RING_DATA on `capacity` bytes that are mapped
 * twice in a row, so that whatever begins in the first mapping is contiguous. Positions only grow; position p lives at p % capacity.
 * Records follow one another without gaps, each a vg_record and its message, padded to 8 bytes.
 *
 * The writer's order, which a reader may rely on: `tail` moves before anything behind it is overwritten or given back; records are
 * complete before `head` moves past them; `lines`, then `last_seq`, follow `head`. Whoever sees last_seq = S therefore sees, in every
 * log, all records up to S: the logs of a boot are written one intake after the other, in the order of seq.
 *
 * Readers take no lock: copy a record, then look at `tail` again (vg_ring_still). A record carries its index in this log, so a reader
 * that was lapped knows exactly how many lines it missed.
 */
#ifndef VIGIL_RING_H
#define VIGIL_RING_H
#include <stdbool.h>
#include <stdint.h>

/* cffi: begin */
#define VG_RING_MAGIC 0x676f6c6c69676976   /* "vigillog" */
#define VG_RING_VERSION 1
#define VG_RING_DATA 65536      /* where the records begin: the largest page size there is */
#define VG_RING_UNIT 65536      /* capacity is a multiple of this */
#define VG_RING_MIN 131072      /* and not less than this: room for several of the longest lines */
#define VG_LINE_MAX 16384       /* bytes of a message; a longer line is several records */

enum vg_record_flag {
    VG_RECORD_STDERR = 1,       /* else stdout */
    VG_RECORD_PARTIAL = 2,      /* the line goes on in the next record of this stream */
    VG_RECORD_FORWARD = 4       /* to be forwarded to vigild's own stdout or stderr */
};

struct vg_ring_header {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;
    uint64_t lines_max;         /* how many lines readers are shown */
    uint64_t capacity;          /* bytes of records */
    uint64_t id;                /* when it was made, CLOCK_REALTIME: tells logs apart that had the same inode */
    uint64_t padding[3];
    uint64_t head;              /* where the next record begins */
    uint64_t tail;              /* where the oldest record begins; equal to head: none */
    uint64_t lines;             /* records ever written */
    uint64_t last_seq;          /* seq of the last record, 0 before the first */
    uint64_t given_back;        /* the writer's own: pages up to here are punched or written again */
};

struct vg_record {
    uint64_t seq;               /* unique over all logs of a boot, increasing */
    uint64_t line;              /* index in this log, from 0 */
    uint64_t real_ns;           /* CLOCK_REALTIME when it was captured */
    uint16_t length;            /* bytes of the message that follows */
    uint8_t flags;              /* vg_record_flag */
    uint8_t nth_high;           /* how many records of this log and stream were to be forwarded before this one, 40 bits */
    uint32_t nth_low;
};
/* cffi: end */

_Static_assert(sizeof(struct vg_record) == 32, "a record's head is four words");

#define VG_NTH_MASK ((UINT64_C(1) << 40) - 1)

/* Bytes a record of that message takes. */
static inline uint64_t vg_record_size(uint64_t length)
{
    return sizeof(struct vg_record) + ((length + 7) & ~UINT64_C(7));
}

static inline uint64_t vg_record_nth(const struct vg_record *record)
{
    return ((uint64_t)record->nth_high << 32) | record->nth_low;
}

static inline uint64_t vg_ring_word(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Whether what was copied from `position` is what was written there: ask after copying. */
static inline bool vg_ring_still(const struct vg_ring_header *header, uint64_t position)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&header->tail, __ATOMIC_RELAXED) <= position;
}
#endif
