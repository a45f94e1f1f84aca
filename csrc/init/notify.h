/*
 * notify.h - what services say of themselves: sd_notify sockets, in logger (format of the board: csrc/notice.h).
 */
#ifndef VIGIL_INIT_NOTIFY_H
#define VIGIL_INIT_NOTIFY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "../notice.h"
#include "../protocol.h"

/* Part of J: the datagram that is being taken. The kernel writes `control` and `text` before the process can die, so that the next logger
 * finds the datagram there. */
struct notify_intent {
    uint32_t state;             /* 1: being taken; stored last */
    uint32_t told;              /* that senders cannot be looked at has been said */
    uint64_t next, seq;         /* of the next datagram, of this one */
    uint64_t real_ns, now_ns;
    struct vg_run run;
    uint64_t tag;
    uint32_t uid, padding;
    uint64_t taken, forged, senseless;  /* of its notice, before it */
    char name[136];
    uint64_t control[CMSG_SPACE(sizeof(struct ucred)) / sizeof(uint64_t)];
    char text[VG_NOTIFY_MAX + 8];
};

int notify_board_create(void);      /* PID 1, at boot: a descriptor, or -1 and errno */

/* In logger. `poller`: an epoll that is to report readable sockets as tag + index. Finishes what a predecessor had begun. */
bool notify_open(struct notify_intent *intent, int board, int wake, int poller, uint64_t tag);
void notify_add(struct vg_run run, int fd, const char *name, uint32_t uid, uint64_t tag);      /* takes the descriptor; again: nothing */
uint32_t notify_take(uint32_t index);       /* some datagrams of a readable socket: how many bytes */
void notify_forget(struct vg_run run);      /* the run is over: what is in its socket is taken, then it is closed */
/* At the end of a turn that began at `now` and looked at all sockets, or not: control is woken if it has something to look at. */
void notify_turn(uint64_t now, bool looked_at_all);
#endif
