/*
 * stop - how runs end: one by one, or all in order.
 *
 * Owns: the phases and timers of each run's stop, the state of the whole stop.
 * Calls: table, loop, pipes, keeper (the signal that wakes one), spawn (its tags), say.
 * On failure: a keeper that does not answer is killed, and PID 1 is its heir; what does not die of SIGKILL in 10 s is named and left.
 *
 * All signals of a run travel through its keeper: it alone reaps, so it alone knows that a pid is still the process meant.
 */
#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keeper.h"
#include "loop.h"
#include "pipes.h"
#include "say.h"
#include "sig.h"
#include "spawn.h"

#define MS 1000000ULL
#define LEFT_OVER_MS 10000          /* after SIGKILL */
#define DRAIN_MS 250                /* for logger to take what is in the pipes */
#define LOOK_MS 1000                /* at a keeper that is emptying */
#define SILENT_LOOKS 3

static struct { bool active, hurried, killed; uint64_t hurry_at, kill_at; } whole = {.hurry_at = VG_FOREVER, .kill_at = VG_FOREVER};

static bool alive(const struct run *run) { return run->state >= VG_RUN_STARTING && run->state <= VG_RUN_EXITED; }

static uint64_t after(uint64_t delay_ms) { return delay_ms == VG_FOREVER ? VG_FOREVER : say_now_ns() + delay_ms * MS; }

static void poke(const struct run *run) {
    if (run->keeper > 0) (void)kill(run->keeper, VG_POKE);      /* our child, not reaped yet: the pid is its own */
}

/* Hands over what is to be signalled, once the keeper has dealt with the last request. */
static void hand_over(struct run *run) {
    if (!run->to_main && !run->to_group && !run->to_tree) return;
    struct slot *slot = table_shared(run);
    if (!run->keeper || run->heir) { run->to_main = run->to_group = run->to_tree = 0; return; }
    if (atomic_load_explicit(&slot->answered, memory_order_acquire) != run->request) return;
    atomic_store(&slot->to_main, run->to_main);
    atomic_store(&slot->to_group, run->to_group);
    atomic_store(&slot->to_tree, run->to_tree);
    run->to_main = run->to_group = run->to_tree = 0;
    atomic_store_explicit(&slot->request, ++run->request, memory_order_release);
    poke(run);
}

static void tell_tree(struct run *run) {
    if (run->told_tree) return;
    run->told_tree = true;
    run->to_tree |= SIG_BIT(run->stop_signal) | SIG_BIT(SIGCONT);
}

static void mark_stopping(struct run *run, uint32_t cause) {
    if (cause != VG_STOP_ENDED) run->flags |= VG_IS_ASKED;
    if (run->flags & VG_IS_STOPPING) return;
    run->flags |= VG_IS_STOPPING;
    run->stop_cause = cause;
    if (cause != VG_STOP_ENDED) run->owed |= OWE_STOPPING;
}

void stop_begin(struct run *run, uint32_t cause) {
    if (!alive(run) || run->flags & VG_IS_ASKED) return;
    bool under_way = run->phase != STOP_NONE;
    mark_stopping(run, cause);
    if (under_way) return;
    run->phase = STOP_SIGNALLED;
    run->timer = after(run->kill_delay_ms);
    if (run->state == VG_RUN_STARTING) run->look = after(LOOK_MS);      /* its keeper hears nothing before the command is executed, which may hang */
    run->to_group |= SIG_BIT(run->stop_signal) | SIG_BIT(SIGCONT);
}

void stop_empty(struct run *run, uint32_t cause) {
    if (!alive(run)) return;
    mark_stopping(run, cause);
    if (run->phase >= STOP_EMPTYING) return;
    run->phase = STOP_EMPTYING;
    run->flags |= VG_IS_ESCALATED;
    run->timer = after(LEFT_OVER_MS);
    run->look = after(LOOK_MS);
    struct slot *slot = table_shared(run);
    run->beat = atomic_load(&slot->beat);
    run->beat_misses = 0;
    atomic_store_explicit(&slot->empty, 1, memory_order_release);
    poke(run);
}

int stop_signal(struct run *run, uint32_t signal, uint32_t target) {
    if (signal < 1 || signal > 64) return EINVAL;
    if (!alive(run) || (run->state == VG_RUN_EXITED && target != VG_TREE)) return ESRCH;
    switch (target) {
    case VG_MAIN: run->to_main |= SIG_BIT(signal); return 0;
    case VG_GROUP: run->to_group |= SIG_BIT(signal); return 0;
    case VG_TREE: run->to_tree |= SIG_BIT(signal); return 0;
    default: return EINVAL;
    }
}

void stop_forward(uint64_t mask) {
    for (uint32_t i = 0; i < table_end(); i++) {
        struct run *run = table_at(i);
        if (run->state == VG_RUN_RUNNING && run->kind == VG_SERVICE) run->to_main |= mask & run->forward_mask;
    }
}

void stop_orphans(void) {
    for (uint32_t i = 0; i < table_end(); i++) {
        struct run *run = table_at(i);
        if (run->state && run->flags & VG_IS_EPHEMERAL) stop_empty(run, VG_STOP_ORPHANED);
    }
}

/* ---- what becomes of a run ---- */

void stop_exited(struct run *run) {
    run->state = VG_RUN_EXITED;
    run->owed |= OWE_EXITED;
    if (run->phase >= STOP_EMPTYING) return;
    if (run->phase == STOP_NONE) {
        mark_stopping(run, VG_STOP_ENDED);
        run->phase = STOP_SIGNALLED;
        run->timer = after(run->kill_delay_ms);
    }
    tell_tree(run);
}

static void done(struct run *run) {
    run->phase = STOP_DONE;
    run->state = VG_RUN_GONE;
    run->timer = run->deadline = run->look = VG_FOREVER;
    run->owed |= OWE_GONE;
    if (whole.active) loop_at(0);       /* the next rank need not wait for another event */
}

void stop_emptied(struct run *run) {
    if (run->phase >= STOP_DRAINING) return;
    run->phase = STOP_DRAINING;
    run->timer = after(DRAIN_MS);
    run->deadline = run->look = VG_FOREVER;
    pipes_end(table_id(run));
    if (!pipes_find(table_id(run))) done(run);
}

void stop_drained(struct vg_run id) {
    struct pipes *pipes = pipes_find(id);
    if (pipes && pipes->ended) pipes_close(pipes);
    struct run *run = table_find(id);
    if (run && run->phase == STOP_DRAINING) done(run);
}

void stop_failed(struct run *run, uint32_t step, int error) {
    run->state = VG_RUN_FAILED;
    run->phase = STOP_DONE;
    run->step = step;
    run->error = error;
    run->timer = run->deadline = run->look = VG_FOREVER;
    run->owed = (run->owed & ~(uint32_t)OWE_STOPPING) | OWE_FAILED;
    pipes_end(table_id(run));
}

void stop_settle(struct run *run) {
    if (run->flags & VG_IS_RELEASED && !run->owed && (run->state == VG_RUN_GONE || run->state == VG_RUN_FAILED)) table_free(run);
}

/* ---- the whole stop ---- */

void stop_whole(uint64_t budget_ms) {
    if (whole.active) return;
    whole.active = true;
    if (budget_ms == 0) return;
    whole.hurry_at = after(budget_ms - budget_ms / 4);
    whole.kill_at = after(budget_ms);
}

bool stop_is_whole(void) { return whole.active; }

bool stop_is_over(void) {
    for (uint32_t i = 0; i < table_end(); i++)
        if (alive(table_at(i))) return false;
    return true;
}

void stop_hurry(void) { whole.hurried = true; }
void stop_kill(void) { whole.killed = true; }

void stop_whole_again(void) {
    whole.active = whole.hurried = whole.killed = false;
    whole.hurry_at = whole.kill_at = VG_FOREVER;
}

/* Highest rank of what is still alive, for each component: open addressing, mapped for the moment it is needed. */
struct highest { uint32_t component, rank, used; };

static struct highest *highest_of(struct highest *table, uint32_t size, uint32_t component) {
    uint32_t at = (component * 2654435761u) & (size - 1);
    while (table[at].used && table[at].component != component) at = (at + 1) & (size - 1);
    return &table[at];
}

static void next_ranks(void) {
    uint32_t size = 64;
    while (size < 2 * table_end()) size *= 2;
    struct highest *table = mmap(NULL, size * sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) { whole.hurried = true; return; }      /* no memory to order by: a stop without order is better than none */
    for (uint32_t i = 0; i < table_end(); i++) {
        const struct run *run = table_at(i);
        if (!alive(run) || run->kind != VG_SERVICE) continue;
        struct highest *highest = highest_of(table, size, run->component);
        if (!highest->used || run->rank > highest->rank) *highest = (struct highest){run->component, run->rank, 1};
    }
    for (uint32_t i = 0; i < table_end(); i++) {
        struct run *run = table_at(i);
        if (!alive(run)) continue;
        if (run->kind != VG_SERVICE) stop_begin(run, VG_STOP_WHOLE);
        else if (run->rank == highest_of(table, size, run->component)->rank) stop_begin(run, VG_STOP_WHOLE);
    }
    (void)munmap(table, size * sizeof *table);
}

static void whole_turn(uint64_t now) {
    if (now >= whole.hurry_at) { whole.hurried = true; whole.hurry_at = VG_FOREVER; }
    if (now >= whole.kill_at) { whole.killed = true; whole.kill_at = VG_FOREVER; }
    if (!whole.hurried && !whole.killed) next_ranks();
    for (uint32_t i = 0; i < table_end() && (whole.hurried || whole.killed); i++) {
        if (whole.killed) stop_empty(table_at(i), VG_STOP_WHOLE);
        else stop_begin(table_at(i), VG_STOP_WHOLE);
    }
    loop_at(whole.hurry_at);
    loop_at(whole.kill_at);
}

/* ---- the heir of a killed keeper ---- */

static struct run *heirs[TABLE_RUNS];      /* whose round it is */
static uint32_t heirs_count;

/* Whose child of ours this is, by tag, session or number; NULL: of none in `heirs`. */
static struct run *inherited(pid_t pid) {
    uint64_t tag = keeper_tag(pid);
    if (tag >> KEEPER_TAG_BITS == spawn_setting.tag >> KEEPER_TAG_BITS && (tag & 0xffff) < table_end()) {
        struct run *run = table_at((uint32_t)(tag & 0xffff));
        if (run->state && run->heir && spawn_tag(run) == tag) return run;
    }
    pid_t session = getsid(pid);
    for (uint32_t i = 0; i < heirs_count; i++) {
        pid_t leader = atomic_load(&table_shared(heirs[i])->leader);
        if (leader > 1 && (session == leader || (pid == leader && heirs[i]->state < VG_RUN_EXITED))) return heirs[i];
    }
    return NULL;
}

static void kill_inherited(pid_t pid, void *context) {
    (void)context;
    struct run *run = inherited(pid);
    if (!run) return;
    (void)kill(pid, SIGKILL);
    run->found++;
}

/* One round for all whose turn it is: kills every child of ours that is theirs. /proc is read once, however many keepers were killed. */
static void heirs_round(uint64_t now) {
    heirs_count = 0;
    for (uint32_t i = 0; i < table_end(); i++) {
        struct run *run = table_at(i);
        if (!run->state || !run->heir || now < run->look) continue;
        run->found = 0;
        heirs[heirs_count++] = run;
    }
    if (heirs_count == 0) return;
    bool proc = keeper_each_child(getpid(), kill_inherited, NULL);
    for (uint32_t i = 0; i < heirs_count; i++) {
        struct run *run = heirs[i];
        pid_t leader = atomic_load(&table_shared(run)->leader);
        /* No /proc: the leader and its group are all that can be found. The group's number is not used again while it has members. */
        if (!proc && leader > 1 && (kill(-leader, SIGKILL) == 0 || run->state < VG_RUN_EXITED)) {
            if (run->state < VG_RUN_EXITED) (void)kill(leader, SIGKILL);
            run->found++;
        }
        run->quiet_rounds = run->found ? 0 : run->quiet_rounds + 1;
        run->look = now + 3 * MS;
        if (run->quiet_rounds >= 2 && run->state == VG_RUN_EXITED) stop_emptied(run);
    }
}

/* ---- each turn ---- */

struct names { char text[120]; size_t at; const struct run *run; };

static void name_left(pid_t pid, void *context) {
    struct names *names = context;
    if (names->run->heir && inherited(pid) != names->run) return;
    names->at += say_text(names->text + names->at, sizeof names->text - names->at, " %d", (int)pid);
}

static void left_over(struct run *run) {
    struct names names = {.text = "", .run = run};
    heirs[0] = run;
    heirs_count = 1;
    (void)keeper_each_child(run->heir ? getpid() : run->keeper, name_left, &names);
    run->flags |= VG_IS_LEFT_OVER;
    say(VG_ERROR, "vigil.init", "%s: processes are left 10 s after SIGKILL (state D: the kernel holds them); going on without them%s%s", run->name, names.at ? ":" : "", names.text);
    if (run->state != VG_RUN_EXITED) {
        run->code = 2;      /* CLD_KILLED: what it will be reported as, since nobody can wait for it */
        run->status = SIGKILL;
        run->exited_real_ns = say_real_ns();
        stop_exited(run);
    }
    stop_emptied(run);
}

static void look_at_keeper(struct run *run, uint64_t now) {
    run->look = now + LOOK_MS * MS;
    if (run->phase == STOP_SIGNALLED) {
        /* An exec that hangs has no one who could be polite: its kill delay, infinite too, is not waited for. */
        if (run->state != VG_RUN_STARTING) { run->look = VG_FOREVER; run->beat_misses = 0; }
        else if (++run->beat_misses >= SILENT_LOOKS) stop_empty(run, run->stop_cause);
        return;
    }
    uint32_t beat = atomic_load(&table_shared(run)->beat);
    run->beat_misses = beat == run->beat ? run->beat_misses + 1 : 0;
    run->beat = beat;
    if (run->beat_misses >= SILENT_LOOKS && run->keeper > 0) {
        say(VG_WARN, "vigil.init", "%s: its keeper does not answer and is killed; vigild ends the run itself", run->name);
        (void)kill(run->keeper, SIGKILL);
    }
}

static void run_turn(struct run *run, uint64_t now) {
    if (now >= run->deadline) {
        run->deadline = VG_FOREVER;
        run->flags |= VG_IS_OVERDUE;
        stop_empty(run, VG_STOP_DEADLINE);
    }
    if (now >= run->timer) {
        run->timer = VG_FOREVER;
        if (run->phase == STOP_SIGNALLED) stop_empty(run, run->stop_cause);
        else if (run->phase == STOP_EMPTYING) left_over(run);
        else if (run->phase == STOP_DRAINING) done(run);
    }
    if (now >= run->look && !run->heir) look_at_keeper(run, now);
    hand_over(run);
    loop_at(run->deadline);
    loop_at(run->timer);
    loop_at(run->look);
}

void stop_turn(uint64_t now) {
    if (whole.active) whole_turn(now);
    heirs_round(now);
    for (uint32_t i = 0; i < table_end(); i++)
        if (table_at(i)->state) run_turn(table_at(i), now);
}
