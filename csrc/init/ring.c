/*
 * ring.c - making, mapping and trimming a log.
 *
 * Owns nothing but what its callers hand it; calls memfd_create, mmap and fallocate. A failure is -1 and errno (EINVAL: not a log of
 * ours, or not sealed).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SEALS = F_SEAL_GROW | F_SEAL_SHRINK };

static const uint64_t capacity_max = UINT64_C(1) << 36, lines_limit = UINT64_C(1) << 40;

/* A new log that keeps up to `lines` lines in up to `bytes` bytes (rounded up to VG_RING_UNIT): a descriptor, or -1 and errno. */
int ring_create(const char *name, uint64_t lines, uint64_t bytes)
{
    struct vg_ring_header header;
    struct timespec now;
    uint64_t capacity = bytes < VG_RING_MIN ? VG_RING_MIN : (bytes + VG_RING_UNIT - 1) / VG_RING_UNIT * VG_RING_UNIT;
    int fd, error;

    if (bytes > capacity_max || lines > lines_limit) {
        errno = EINVAL;
        return -1;
    }
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    memset(&header, 0, sizeof header);
    clock_gettime(CLOCK_REALTIME, &now);
    header.magic = VG_RING_MAGIC;
    header.version = VG_RING_VERSION;
    header.lines_max = lines ? lines : 1;
    header.capacity = capacity;
    header.id = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (ftruncate(fd, (off_t)(VG_RING_DATA + capacity)) < 0 || pwrite(fd, &header, sizeof header, 0) != (ssize_t)sizeof header
        || fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0) {
        error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* Maps a log. A writer keeps `fd` as its own; a reader may close it. Refuses whatever is not sealed, or not as long as it says. */
int ring_open(struct ring *ring, int fd, int writable)
{
    struct vg_ring_header header;
    struct stat status;
    unsigned char *place;
    int seals = fcntl(fd, F_GET_SEALS), protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    size_t size;

    memset(ring, 0, sizeof *ring);
    ring->fd = -1;
    if (seals < 0 || fstat(fd, &status) < 0)
        return -1;
    if ((seals & SEALS) != SEALS || pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header
        || header.magic != VG_RING_MAGIC || header.version != VG_RING_VERSION || header.capacity < VG_RING_MIN
        || header.capacity > capacity_max || header.capacity % VG_RING_UNIT || header.lines_max < 1
        || header.lines_max > lines_limit || status.st_size != (off_t)(VG_RING_DATA + header.capacity)
        || header.tail > header.head || header.head - header.tail > header.capacity || header.head % 8 || header.tail % 8) {
        errno = EINVAL;
        return -1;
    }
    size = (size_t)(VG_RING_DATA + header.capacity);
    place = mmap(NULL, size + (size_t)header.capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED)
        return -1;
    if (mmap(place, size, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED
        || mmap(place + size, (size_t)header.capacity, protection, MAP_SHARED | MAP_FIXED, fd, VG_RING_DATA) == MAP_FAILED) {
        int error = errno;

        munmap(place, size + (size_t)header.capacity);
        errno = error;
        return -1;
    }
    ring->header = (struct vg_ring_header *)(void *)place;
    ring->data = place + VG_RING_DATA;
    ring->capacity = header.capacity;
    ring->lines_max = header.lines_max;
    ring->id = header.id;
    ring->inode = (uint64_t)status.st_ino;
    ring->page = (uint64_t)sysconf(_SC_PAGESIZE);
    ring->fd = writable ? fd : -1;
    ring->writable = writable;
    return 0;
}

void ring_close(struct ring *ring)
{
    if (ring->header)
        munmap(ring->header, (size_t)(VG_RING_DATA + 2 * ring->capacity));
    if (ring->fd >= 0)
        close(ring->fd);
    memset(ring, 0, sizeof *ring);
    ring->fd = -1;
}

/* Readers that copy from behind the new tail learn of it before a byte there changes. */
static void move_tail(struct ring *ring, uint64_t tail)
{
    __atomic_store_n(&ring->header->tail, tail, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

/* Lets the oldest records go until everything up to position `end` can be written. */
void ring_make_room(struct ring *ring, uint64_t end)
{
    uint64_t tail = ring->header->tail, oldest = end > ring->capacity ? end - ring->capacity : 0, again;

    if (oldest <= tail && oldest <= ring->header->given_back)
        return;
    while (tail < oldest)
        tail += vg_record_size(ring_record(ring, tail)->length);
    if (tail != ring->header->tail)
        move_tail(ring, tail);
    again = (oldest + ring->page - 1) / ring->page * ring->page;
    if (again > ring->header->given_back)   /* these pages are written again: they are not to be punched any more */
        ring->header->given_back = again;
}

/* Lets the oldest records go until lines_max are left, but none from position `floor` on. */
void ring_trim(struct ring *ring, uint64_t floor)
{
    uint64_t tail = ring->header->tail, before = tail, lines = ring->header->lines;
    const unsigned char *at = ring_at(ring, tail);

    while (tail < floor) {
        const struct vg_record *record = (const struct vg_record *)(const void *)at;
        uint64_t size;

        if (lines - record->line <= ring->lines_max)
            break;
        size = vg_record_size(record->length);
        tail += size;
        at += size;
    }
    if (tail != before)
        move_tail(ring, tail);
}

/* Bytes behind the tail whose pages could be given back. */
uint64_t ring_loose(const struct ring *ring)
{
    uint64_t from = ring->header->given_back, tail = ring->header->tail;

    return tail > from ? tail - from : 0;
}

/* Gives the pages behind the tail back to the system. Only while nothing is half written. */
void ring_give_back(struct ring *ring)
{
    uint64_t page = ring->page, from = ring->header->given_back, end;

    from = (from + page - 1) / page * page;
    end = ring->header->tail / page * page;
    if (from >= end)
        return;
    if (ring->header->head > ring->capacity + from)   /* cannot be: make_room keeps given_back ahead of what is written again */
        return;
    while (from < end) {
        uint64_t start = from % ring->capacity, length = end - from;

        if (length > ring->capacity - start)
            length = ring->capacity - start;
        if (fallocate(ring->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(VG_RING_DATA + start), (off_t)length) < 0)
            return;   /* it costs memory, nothing else */
        from += length;
        ring->header->given_back = from;
    }
}
