#ifndef VIGIL_HELPER_H
#define VIGIL_HELPER_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "loop.h"
#include "../protocol.h"

/* A helper process: control or logger. Everything of one life is forgotten at its end but the counts and the waits. */
struct helper {
    const char *name;
    enum loop_source source;
    pid_t pid;                  /* 0: not running */
    int link;                   /* our end; -1 */
    bool greeted;               /* control: HELLO came; logger: from its start on */
    bool ready, ever_ready, ever_greeted;
    bool ending;                /* asked to end, or being killed: no PING any more */
    bool write_waits;           /* its socket is full */
    bool short_of;              /* the last start failed, which has been said */
    bool closed;                /* it closed its end: it is exiting, or will be killed */
    uint32_t lives;
    uint32_t restarts;          /* lives that ended before they should, in this boot of the plan */
    uint64_t start_at;          /* when to start it (again); VG_FOREVER: not at all */
    uint32_t wait_ms;           /* the next wait after a life that did not get READY */
    uint64_t kill_at;           /* SIGKILL then */
    uint64_t tick;              /* next look */
    uint32_t misses;            /* looks in a row without an answer: PID 1's own awake time, not the clock's */
    bool asked, ask;            /* a PING is out; a PING is to be sent */
    uint64_t question;
    uint64_t start_real_ns;
};
extern struct helper control, logger;

/* What HELLO set, for PID 1 and for every later logger. */
struct helper_setting { uint32_t log_format, log_level, watchdog_ms; uint64_t stop_budget_ms, forward_stall_ms; };
extern struct helper_setting helper_setting;

/* Found out at boot. */
struct helper_boot {
    char **argv;                /* of control */
    char **environment;         /* of control: ours and VIGIL_LINK */
    const char *directory;      /* where vigild was started */
    char *title;
    size_t title_size;
    int sink[2], journal, pipe_read[2], pipe_write[2], ring, board, wake;
    bool orphanable, restarted; /* vigild is not PID 1; after `vigild restart` */
    uint64_t start_real_ns;     /* of vigild */
};
extern struct helper_boot helper_boot;

bool helper_make_logs(void);                /* logger's J, private pipes, the ring of `vigild` and the board of notifications; again: new ones instead */
void helper_turn(uint64_t now);             /* starts, watches, kills what is due */
void helper_end(struct helper *helper, int signal, uint64_t grace_ms);      /* signal now, SIGKILL after the grace */
void helper_drop(struct helper *helper, const char *why);                   /* it sent nonsense: killed, and started again */
void helper_closed(struct helper *helper);                                  /* it closed its end: dying, most likely; if not, killed soon */
void helper_sent(struct helper *helper, int result, bool readable);         /* chan_send's result of all that was to be sent; readable: it is to be read from */
void helper_over(struct helper *helper, bool restart);                      /* reaped: its link is closed, the next life is planned */
void helper_answered(struct helper *helper, uint64_t value);                /* PONG */
#endif
