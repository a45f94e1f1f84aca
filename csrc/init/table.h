#ifndef VIGIL_TABLE_H
#define VIGIL_TABLE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../protocol.h"
#include "../slot.h"

/* cffi: begin */
#define TABLE_RUNS 4096         /* most runs at once: 1 MiB of slots, 3 MiB of table, touched only as far as they are used */
#define TABLE_PARKED 4352       /* most parked descriptors: one log for each run, and 256 */
#define TABLE_NONE 0xffffffff

/* What control has not been told yet: one bit each, sent in this order when its socket takes it. */
enum owed { OWE_STARTED = 1, OWE_FAILED = 2, OWE_STOPPING = 4, OWE_EXITED = 8, OWE_GONE = 16 };

/* How far the stop of a run is. */
enum stop_phase {
    STOP_NONE = 0,
    STOP_SIGNALLED,             /* stop signal sent; at `timer` comes SIGKILL */
    STOP_EMPTYING,              /* SIGKILL to all that is left; at `timer` PID 1 goes on without */
    STOP_DRAINING,              /* nothing left; logger takes what is in the pipes; at `timer` PID 1 goes on without */
    STOP_DONE
};

struct run {
    uint32_t generation;        /* 0: never used */
    uint32_t state;             /* vg_run_state; 0: free */
    uint32_t kind, flags, owed;
    uint32_t phase;             /* stop_phase */
    uint64_t token;
    int32_t keeper, leader;     /* keeper: 0 once reaped */
    bool heir;                  /* the keeper was killed: PID 1 itself ends what is left */
    bool told_tree;             /* the rest of the tree has been sent the stop signal */
    uint32_t quiet_rounds, found;   /* heir: rounds in a row that found nothing; what this round has found */
    uint32_t stop_signal, stop_cause;
    uint32_t component, rank;
    uint64_t kill_delay_ms, forward_mask;
    uint64_t deadline;          /* of the run itself, CLOCK_MONOTONIC ns; VG_FOREVER: none */
    uint64_t timer;             /* of the stop's phase; VG_FOREVER: none */
    uint64_t look;              /* next look at a busy keeper, or next heir's round; VG_FOREVER: none */
    uint32_t beat, beat_misses;
    uint32_t request;           /* number of the newest request in the slot */
    uint64_t to_main, to_group, to_tree;   /* signals not yet handed to the keeper */
    uint64_t started_real_ns, exited_real_ns;
    int32_t code, status, error;
    uint32_t step, log_mode, note_size;
    struct vg_usage usage;
    uint8_t note[256];
    char name[136];
};

struct parked { int32_t fd; char name[168]; };   /* fd -1: free */

bool table_make(uint32_t runs);            /* boot only */
struct run *table_take(void);              /* a free run with a new generation, or NULL: full */
struct run *table_find(struct vg_run id);  /* NULL: no such run */
struct run *table_with(uint64_t token);    /* the live or unreleased run of that token; NULL: none */
struct run *table_at(uint32_t slot);       /* any entry below table_end() */
uint32_t table_end(void);                  /* one more than the highest slot ever used */
uint32_t table_runs(void);                 /* how many runs fit */
uint32_t table_slot(const struct run *run);
void table_free(struct run *run);

int parked_put(const char *name, int fd);  /* takes fd over; swaps and closes the old one; 0, or errno */
int parked_drop(const char *name);         /* 0, or errno */
int parked_fd(const char *name);           /* the descriptor, or -1 */
struct parked *parked_at(uint32_t index);  /* any entry below parked_end() */
uint32_t parked_end(void);
/* cffi: end */

struct vg_run table_id(const struct run *run);
struct slot *table_shared(const struct run *run);   /* what PID 1 and its keeper share */
#endif
