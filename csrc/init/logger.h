/*
 * logger.h - the process that owns every captured stream: pipes to logs to the container's stdout and stderr.
 */
#ifndef VIGIL_INIT_LOGGER_H
#define VIGIL_INIT_LOGGER_H
#include <stddef.h>
#include <stdint.h>

/* What PID 1 made at boot and keeps over logger's lives. */
struct logger_boot {
    int link;                   /* logger's end of the SEQPACKET socketpair */
    int journal;                /* J: memfd of logger_journal_size() bytes (ftruncate: most of it is never touched), zero at first */
    int pipe_read[2], pipe_write[2];    /* P of stdout and of stderr, write ends O_NONBLOCK; nobody else ever touches them */
    int sink[2];                /* vigild's own descriptors 1 and 2; -1: closed */
    int ring;                   /* the log `vigild` */
    int board, wake;            /* of notifications: the board, and the eventfd that wakes control */
    uint64_t stall_ms;          /* --forward-stall */
};

size_t logger_journal_size(void);
/* In the forked child: all signals blocked with default dispositions, no descriptors but these and say's. */
_Noreturn void logger_run(const struct logger_boot *boot);
#endif
