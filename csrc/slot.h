/*
 * slot.h - what PID 1 and a keeper share: one slot of a memfd mapped by both.
 *
 * Each field has one writer. PID 1 writes its part, raises `request` last and sends the keeper VG_POKE; a keeper writes its part,
 * `state` last, and adds to the shared eventfd. Append-only for ever: old keepers outlive upgrades of PID 1, so a field keeps its place
 * and meaning, and `version` tells which fields a keeper knows.
 */
#ifndef VIGIL_SLOT_H
#define VIGIL_SLOT_H
#include <stdatomic.h>
#include <stdint.h>

#define SLOT_VERSION 1
#define SLOT_SIZE 256

enum slot_state {
    SLOT_FREE = 0,
    SLOT_BORN,          /* keeper runs, child not executed yet */
    SLOT_STARTED,       /* execve done */
    SLOT_FAILED,        /* step and error say why; keeper is about to exit */
    SLOT_DEAD,          /* leader ended: code, status and usage are valid */
    SLOT_GONE           /* waitid said ECHILD: nothing is left; keeper is about to exit */
};

struct slot {
    /* written by PID 1 */
    uint32_t version, generation;
    _Atomic uint32_t request;           /* number of the newest request */
    _Atomic uint32_t empty;             /* 1: kill everything that is left, until nothing is */
    _Atomic uint64_t to_main, to_group, to_tree;   /* request: bit S-1, signal S goes to main process, its group, what is left of the tree */
    uint64_t kill_delay_ms;             /* for a keeper whose vigild died */
    uint32_t stop_signal;
    uint32_t padding;
    uint64_t spare_pid1[6];
    /* written by the keeper (leader, step and error by its child before execve, whose memory is the same) */
    _Atomic uint32_t state;             /* slot_state */
    _Atomic int32_t leader;
    _Atomic uint32_t answered;          /* number of the last request dealt with */
    _Atomic uint32_t beat;              /* counts rounds of emptying: a keeper that is busy is not a silent one */
    uint32_t step;
    int32_t error;
    int32_t code, status;               /* as in vg_exited */
    uint64_t user_us, system_us, max_rss_kb;
    uint64_t exited_real_ns;
    uint64_t spare_keeper[8];
};

_Static_assert(sizeof(struct slot) <= SLOT_SIZE, "a slot fits its place");
#endif
