/*
 * reap - the only place of PID 1 that waits for processes, and that reads what keepers wrote.
 *
 * Owns: nothing; brings the table up to date.
 * Calls: table, loop, stop, say.
 * On failure: a child nobody knows (an orphan of `docker exec`, of a run whose keeper was killed) is reaped like the others.
 */
#include "reap.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop.h"
#include "say.h"
#include "stop.h"
#include "table.h"

#define REAPED_A_TURN 65536     /* who forks faster than we reap must not keep us from everything else: the next turn follows at once */

static void exited(struct run *run, int32_t code, int32_t status, struct vg_usage usage, uint64_t real_ns) {
    run->code = code;
    run->status = status;
    run->usage = usage;
    run->exited_real_ns = real_ns;
    if (run->heir) run->flags |= VG_IS_KEEPER_LOST;
    stop_exited(run);
}

/* What the keeper of this run has written since the last look. */
static void look(struct run *run) {
    struct slot *slot = table_shared(run);
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (run->state == VG_RUN_STARTING && state == SLOT_FAILED) {
        stop_failed(run, slot->step, slot->error);
        return;
    }
    if (run->state == VG_RUN_STARTING && state >= SLOT_STARTED) {
        run->state = VG_RUN_RUNNING;
        run->leader = atomic_load(&slot->leader);
        run->owed |= OWE_STARTED;
    }
    if (run->state == VG_RUN_RUNNING && state >= SLOT_DEAD)
        exited(run, slot->code, slot->status, (struct vg_usage){slot->user_us, slot->system_us, slot->max_rss_kb}, slot->exited_real_ns);
}

/* A keeper ended: with it the run is gone, not before, so that nothing at all of it is left. Where it had not said that nothing is left, PID 1 is its heir: all its children are ours since that instant. */
static void keeper_ended(struct run *run) {
    struct slot *slot = table_shared(run);
    look(run);
    run->keeper = 0;
    if (run->state == VG_RUN_EXITED && atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_GONE) stop_emptied(run);
    if (run->state == VG_RUN_FAILED || run->state == 0 || run->phase >= STOP_DRAINING) return;
    run->heir = true;
    run->flags |= VG_IS_KEEPER_LOST;
    if (run->state == VG_RUN_STARTING) {
        run->leader = atomic_load(&slot->leader);
        if (run->leader == 0) { stop_failed(run, VG_STEP_KEEPER, EAGAIN); return; }
        if (slot->step != VG_STEP_NONE) { stop_failed(run, slot->step, slot->error); return; }
        run->state = VG_RUN_RUNNING;
        run->owed |= OWE_STARTED;
    }
    say(VG_ERROR, "vigil.init", "%s: its keeper was killed; what is left of it is killed too", run->name);
    stop_empty(run, VG_STOP_ENDED);
    run->look = 0;
}

/* True: pid was the leader of a run whose keeper is dead; its status was not stored by anybody yet. */
static void leader_ended(pid_t pid, const siginfo_t *info, const struct rusage *usage) {
    for (uint32_t i = 0; i < table_end(); i++) {
        struct run *run = table_at(i);
        struct slot *slot = table_shared(run);
        if (run->state < VG_RUN_STARTING || run->state > VG_RUN_RUNNING) continue;
        if (atomic_load(&slot->leader) != pid || atomic_load(&slot->state) >= SLOT_DEAD) continue;
        if (run->state == VG_RUN_STARTING) {
            if (slot->step != VG_STEP_NONE) return;         /* it never executed: its keeper's end tells */
            run->state = VG_RUN_RUNNING;
            run->leader = pid;
            run->owed |= OWE_STARTED;
        }
        run->heir = true;       /* we could only wait for it because its keeper is dead, reaped or not */
        exited(run, info->si_code, info->si_status,
               (struct vg_usage){(uint64_t)usage->ru_utime.tv_sec * 1000000u + (uint64_t)usage->ru_utime.tv_usec,
                                 (uint64_t)usage->ru_stime.tv_sec * 1000000u + (uint64_t)usage->ru_stime.tv_usec, (uint64_t)usage->ru_maxrss},
               say_real_ns());
        return;
    }
}

static struct run *keeper_of(pid_t pid) {
    for (uint32_t i = 0; i < table_end(); i++)
        if (table_at(i)->keeper == pid) return table_at(i);
    return NULL;
}

void reap_turn(const pid_t *helpers, int count, reap_helper *ended) {
    for (int reaped = 0;; reaped++) {
        siginfo_t info;
        struct rusage usage;
        if (reaped == REAPED_A_TURN) { loop_at(0); break; }
        info.si_pid = 0;
        if (syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL, &usage) != 0) {
            if (errno == EINTR) continue;
            break;
        }
        pid_t pid = info.si_pid;
        if (pid == 0) break;
        struct run *run = keeper_of(pid);
        bool helper = false;
        for (int i = 0; i < count; i++) helper = helper || helpers[i] == pid;
        if (helper) ended(pid, info.si_code, info.si_status);
        else if (!run) leader_ended(pid, &info, &usage);
        (void)syscall(SYS_waitid, P_PID, pid, &info, WEXITED | WNOHANG | __WALL, NULL);
        if (run) keeper_ended(run);
    }
    for (uint32_t i = 0; i < table_end(); i++)
        if (table_at(i)->state >= VG_RUN_STARTING && table_at(i)->state <= VG_RUN_EXITED) look(table_at(i));
}
