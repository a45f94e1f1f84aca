/*
 * board.c - reads the board of notifications (csrc/notice.h) while logger writes it, without locks.
 *
 * Owns its own memory. Says nothing; NULL and errno where the descriptor is no board, or memory lacks.
 */
#include "ext.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { TRIES = 1000 };              /* one write of a notice takes less; if it takes more, logger was killed in it */

struct ext_board {
    const struct vg_board *header;
    const struct vg_notice *notices;
    uint64_t seen[VG_BOARD_NOTICES];    /* `told` of each when it was last reported */
};

ext_board *ext_board_open(int fd)
{
    ext_board *board;
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    char *memory;

    if (seals < 0 || fstat(fd, &status) < 0)
        return NULL;
    if (!(seals & F_SEAL_SHRINK) || status.st_size != (off_t)VG_BOARD_SIZE) {
        errno = EINVAL;
        return NULL;
    }
    board = calloc(1, sizeof *board);
    if (!board)
        return NULL;
    memory = mmap(NULL, VG_BOARD_SIZE, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        int error = errno;

        free(board);
        errno = error;
        return NULL;
    }
    board->header = (const struct vg_board *)(void *)memory;
    board->notices = (const struct vg_notice *)(void *)(memory + VG_BOARD_FIRST);
    if (board->header->magic != VG_BOARD_MAGIC || board->header->version != VG_BOARD_VERSION) {
        ext_board_close(board);
        errno = EINVAL;
        return NULL;
    }
    return board;
}

void ext_board_close(ext_board *board)
{
    if (!board)
        return;
    (void)munmap((void *)(uintptr_t)board->header, VG_BOARD_SIZE);
    free(board);
}

uint64_t ext_board_drained(const ext_board *board)
{
    return __atomic_load_n(&board->header->drained_ns, __ATOMIC_ACQUIRE);
}

static bool copy(const struct vg_notice *from, struct vg_notice *to)
{
    for (int at = 0; at < TRIES; at++) {
        uint64_t version = __atomic_load_n(&from->version, __ATOMIC_ACQUIRE);

        if (version & 1)
            continue;
        memcpy(to, from, sizeof *to);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&from->version, __ATOMIC_RELAXED) == version) {
            if (to->text_size > VG_STATUS_MAX)
                to->text_size = VG_STATUS_MAX;
            return true;
        }
    }
    return false;
}

int ext_board_read(const ext_board *board, uint32_t slot, uint32_t generation, struct vg_notice *to)
{
    if (slot >= VG_BOARD_NOTICES || generation == 0)
        return 0;
    if (!copy(&board->notices[slot], to))
        return -1;
    return to->generation == generation;
}

int ext_board_next(ext_board *board, uint32_t *slot, struct vg_notice *to)
{
    uint32_t top = __atomic_load_n(&board->header->top, __ATOMIC_ACQUIRE);

    for (; *slot < top && *slot < VG_BOARD_NOTICES; ++*slot) {
        /* What is being written is reported another time. */
        if (__atomic_load_n(&board->notices[*slot].told, __ATOMIC_RELAXED) == board->seen[*slot] || !copy(&board->notices[*slot], to))
            continue;
        board->seen[*slot] = to->told;
        if (to->told)
            return 1;
    }
    return 0;
}
