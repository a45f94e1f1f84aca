#ifndef VIGIL_PIPES_H
#define VIGIL_PIPES_H
#include <stdbool.h>
#include <stdint.h>
#include "../protocol.h"

/* What logger has not been told yet. */
enum pipes_owed { PIPES_STDOUT = 1, PIPES_STDERR = 2, PIPES_NOTIFY = 4, PIPES_FORGET = 8 };

/* The log pipes of one run and its notification socket; the log pipes of a life of control, or of PID 1's own diagnostics. They outlive the
 * run: until logger has taken all. */
struct pipes {
    struct vg_run run;          /* slot VG_NO_SLOT: free entry */
    int32_t fd[3];              /* read ends, socket; -1: none */
    uint32_t owed, log_mode, forward_format;
    uint32_t uid;               /* for the socket: whose notifications are believed */
    uint64_t tag;
    bool ended;                 /* the run is gone: FORGET is to be sent, DRAINED is awaited */
    char log[136], prefix[192], name[136];     /* name: the run's */
};

bool pipes_make(uint32_t runs);                         /* boot only; runs: how many fit the table */
/* New pipes for a run; their write ends come back in `ends` (close-on-exec, `uid` may reopen them where it is not UINT32_MAX).
 * NULL and errno where they cannot be made. */
struct pipes *pipes_open(struct vg_run run, const char *log, const char *prefix, uint32_t log_mode, uint32_t forward_format, uint32_t uid, int ends[2]);
/* Takes over the socket on which the run notifies; it has pipes, or gets an entry for the socket alone. 0, or errno: it is not taken. */
int pipes_notify(struct vg_run run, int fd, const char *name, uint32_t uid, uint64_t tag);
struct pipes *pipes_open_one(struct vg_run run, const char *log, int *end);   /* one pipe, stream 2, write end O_NONBLOCK: diagnostics */
struct pipes *pipes_find(struct vg_run run);
void pipes_end(struct vg_run run);                      /* the run is gone: logger is to take the rest */
void pipes_close(struct pipes *pipes);                  /* logger has taken all, or nothing was ever in them */
struct pipes *pipes_at(uint32_t index);                 /* below pipes_top() */
uint32_t pipes_top(void);
void pipes_tell_again(void);                            /* a new logger knows none of them */
#endif
