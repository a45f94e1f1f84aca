#ifndef VIGIL_CHAN_H
#define VIGIL_CHAN_H
#include <stdint.h>
#include "../protocol.h"

/* cffi: begin */
#define CHAN_FDS 5              /* a SPAWN brings its blob, three descriptors and a socket; nothing brings more */

enum chan_result { CHAN_SHORT = -3, CHAN_BAD = -2, CHAN_CLOSED = -1, CHAN_EMPTY = 0, CHAN_MESSAGE = 1 };

struct chan_message {
    uint64_t words[128];        /* VG_MESSAGE_MAX bytes, aligned for every struct of the wire */
    uint32_t size;
    int32_t fds[5];             /* owned by whoever has the message; -1 where taken or none */
    int32_t count;
};

/* One row of a link's protocol. Phases are the link's own numbers, a bit each. */
struct chan_rule { uint32_t kind, phases, size; int32_t fds_least, fds_most; };

int chan_receive(int fd, struct chan_message *message);         /* chan_result; never waits */
int chan_send(int fd, const void *message, const int *fds, int count);      /* CHAN_MESSAGE: sent; CHAN_EMPTY: no room now; CHAN_SHORT: the system is short of something, and no event tells the end of it; CHAN_CLOSED */
int chan_check(const struct chan_rule *rules, int count, const struct chan_message *message, uint32_t phase);   /* index of the rule, or -1 */
int chan_take_fd(struct chan_message *message, int index);      /* the caller owns it now */
void chan_drop(struct chan_message *message);                   /* closes what was not taken */
/* cffi: end */
#endif
