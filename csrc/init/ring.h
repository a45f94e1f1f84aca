/*
 * ring.h - making, mapping and trimming a log (format: csrc/ring.h). Shared by logger, which writes, PID 1, which makes the log
 * `vigild`, and csrc/ext, which makes all others and reads. Says nothing itself: -1 and errno.
 */
#ifndef VIGIL_INIT_RING_H
#define VIGIL_INIT_RING_H
#include "../ring.h"

/* cffi: begin */
struct ring {
    struct vg_ring_header *header;
    unsigned char *data;        /* mapped twice in a row */
    uint64_t capacity, lines_max;   /* copies: a header that changes later cannot lead anywhere */
    uint64_t id, inode, page;
    int fd;                     /* -1: not kept (a reader's) */
    int writable;
};

int ring_create(const char *name, uint64_t lines, uint64_t bytes);
int ring_open(struct ring *ring, int fd, int writable);
void ring_close(struct ring *ring);
void ring_make_room(struct ring *ring, uint64_t end);
void ring_trim(struct ring *ring, uint64_t floor);
uint64_t ring_loose(const struct ring *ring);
void ring_give_back(struct ring *ring);
/* cffi: end */

/* Where `position` lies; at least capacity bytes from there are contiguous. */
static inline unsigned char *ring_at(const struct ring *ring, uint64_t position)
{
    return ring->data + position % ring->capacity;
}

static inline const struct vg_record *ring_record(const struct ring *ring, uint64_t position)
{
    return (const struct vg_record *)(const void *)ring_at(ring, position);
}
#endif
