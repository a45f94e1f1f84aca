/*
 * notice.h - the format of the board: what services said of themselves (sd_notify), for its one writer (logger) and its reader (csrc/ext).
 *
 * The board is a memfd, sealed against growing and shrinking, that PID 1 makes and keeps: a header page, then one vg_notice for each slot
 * of the table of runs. It is a state, not a list of messages: each thing that can be said has its own place, with who said it last and
 * when. So its size is fixed however much is said, nothing pushes out a READY, and it does not matter how long nobody reads.
 *
 * `version` is odd while logger writes: who reads copies, and looks at it again (vg_notice_copy in csrc/ext). All times of a mark are
 * those at which logger took the datagram; seq increases with each datagram that is taken, over all runs.
 */
#ifndef VIGIL_NOTICE_H
#define VIGIL_NOTICE_H
#include <stdint.h>

/* cffi: begin */
#define VG_BOARD_MAGIC 0x647261626c676976   /* "viglbard" */
#define VG_BOARD_VERSION 1
#define VG_BOARD_FIRST 4096     /* where the first notice is */
#define VG_BOARD_NOTICES 4096   /* one for each slot */
#define VG_STATUS_MAX 512       /* bytes of a status text; a longer one is cut */
#define VG_NOTIFY_MAX 4096      /* bytes of a datagram; a longer one is dropped */

struct vg_board {
    uint64_t magic;
    uint32_t version;
    uint32_t top;               /* one more than the highest slot that ever had a socket */
    uint64_t drained_ns;        /* CLOCK_MONOTONIC: whatever had been sent by then is on the board */
};

/* When something was said last, and by whom. seq 0: never. */
struct vg_mark { uint64_t seq, real_ns, now_ns; int32_t pid; uint32_t uid; };

struct vg_notice {
    uint64_t version;
    uint32_t generation;        /* of the run in this slot that it is about */
    uint32_t text_size;
    uint64_t told;              /* seq of the last datagram that control is to look at; WATCHDOG=1 is none */
    uint64_t taken;             /* datagrams of this run's socket that were believed */
    uint64_t forged;            /* that were sent by somebody else */
    uint64_t senseless;         /* empty, too long, or with a NUL */
    struct vg_mark ready;       /* READY=1, the first */
    struct vg_mark ready_again; /* and the last */
    struct vg_mark reloading, stopping;
    struct vg_mark status;      /* STATUS=, in `text` */
    struct vg_mark watchdog;    /* WATCHDOG=1 */
    struct vg_mark trigger;     /* WATCHDOG=trigger: it calls itself sick */
    struct vg_mark period;      /* WATCHDOG_USEC=, in `period_usec` */
    struct vg_mark extend;      /* EXTEND_TIMEOUT_USEC=, in `extend_usec` */
    uint64_t period_usec, extend_usec;
    char text[512];
    uint64_t reserved[20];
};
/* cffi: end */

#define VG_BOARD_SIZE (VG_BOARD_FIRST + VG_BOARD_NOTICES * sizeof(struct vg_notice))
_Static_assert(sizeof(struct vg_notice) == 1024, "a notice is a quarter of a page");
_Static_assert(sizeof(((struct vg_notice *)0)->text) == VG_STATUS_MAX, "a status fits");
#endif
