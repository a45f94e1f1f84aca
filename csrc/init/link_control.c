/*
 * link_control - the protocol with control, as a table.
 *
 * Owns: how far a SNAPSHOT is, the one answer that waits for room, the decision how vigild ends.
 * Calls: chan, table, spawn, stop, pipes, helper, say.
 * On failure: nonsense drops control, never a service. What cannot be done is answered REFUSED. Nothing is queued: while an answer waits
 * for room in the socket no further message is read; everything else that is owed is a bit in the table.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "chan.h"
#include "helper.h"
#include "link.h"
#include "pipes.h"
#include "say.h"
#include "sig.h"
#include "spawn.h"
#include "stop.h"
#include "table.h"

#ifndef VIGIL_VERSION
#define VIGIL_VERSION "0.0.0"
#endif

#define PHASE_NEW 1u
#define PHASE_ATTACHED 2u
#define MESSAGES_A_TURN 64          /* a control that floods us must not keep us from reaping */
#define MESSAGES_OF_DEAD 4096       /* more than its socket holds; who else has its end must not keep us here either */

struct link_decision link_decision;

enum snapshot { SNAPSHOT_NONE = 0, SNAPSHOT_WELCOME, SNAPSHOT_RUNS, SNAPSHOT_PARKED, SNAPSHOT_DONE };

static enum snapshot snapshot;
static uint32_t snapshot_at;
static uint64_t signalled;
static bool answer_waits;
static union { struct vg_head head; struct vg_refused refused; struct vg_spawn_failed failed; } answer;
static bool version_refused;

#define HEAD(type, number) {.size = sizeof(struct type), .kind = (number)}
static const struct vg_run no_run = {VG_NO_SLOT, 0};

void link_decide(uint32_t code, uint32_t action) {
    if (!link_decision.made) link_decision = (struct link_decision){true, code, action};
    else if (link_decision.action == VG_RESTART && action == VG_EXIT) link_decision = (struct link_decision){true, code, action};
    control.start_at = VG_FOREVER;      /* where it is not there it is not needed any more */
    stop_whole(helper_setting.stop_budget_ms);
}

/* ---- from control ---- */

static void refuse(uint32_t kind, struct vg_run run, uint64_t token, int error) {
    answer.refused = (struct vg_refused){.head = HEAD(vg_refused, VG_REFUSED), .run = run, .token = token, .kind = kind, .error = error};
    answer_waits = true;
}

static void on_hello(struct chan_message *message) {
    struct vg_hello hello;
    memcpy(&hello, message->words, sizeof hello);
    if (hello.version != VG_PROTOCOL) {
        say(VG_ERROR, "vigil.init", "control speaks version %u of the protocol, this vigild speaks %u: install both from one release", hello.version, (unsigned)VG_PROTOCOL);
        version_refused = true;
        return;
    }
    helper_setting.log_format = hello.log_format == VG_FORMAT_JSON ? VG_FORMAT_JSON : VG_FORMAT_TEXT;
    helper_setting.log_level = hello.log_level;
    helper_setting.watchdog_ms = hello.watchdog_ms ? hello.watchdog_ms : 10000;
    helper_setting.stop_budget_ms = hello.stop_budget_ms < SPAWN_DELAY_MOST_MS ? hello.stop_budget_ms : SPAWN_DELAY_MOST_MS;
    helper_setting.forward_stall_ms = hello.forward_stall_ms;
    say_configure(helper_setting.log_format, helper_setting.log_level);
    link_logger_settings();
    control.greeted = true;
    control.misses = 0;
    snapshot = SNAPSHOT_WELCOME;
    snapshot_at = 0;
}

static void on_spawn(struct chan_message *message) {
    struct vg_spawn spawn;
    uint32_t step = VG_STEP_NONE;
    memcpy(&spawn, message->words, sizeof spawn);
    int error = 0;
    if (stop_is_whole()) { step = VG_STEP_STOPPING; error = ECANCELED; }
    else error = spawn_start(message, &step);
    if (!error) return;
    if (step == VG_STEP_NONE) { refuse(VG_SPAWN, no_run, spawn.token, error); return; }
    answer.failed = (struct vg_spawn_failed){.head = HEAD(vg_spawn_failed, VG_SPAWN_FAILED), .run = no_run, .token = spawn.token, .step = step, .error = error};
    answer_waits = true;
}

static void on_update(struct chan_message *message) {
    struct vg_update_run update;
    memcpy(&update, message->words, sizeof update);
    struct run *run = table_find(update.run);
    if (!run) { refuse(VG_UPDATE, update.run, 0, ESRCH); return; }
    if (update.set & VG_UPDATE_STOP && (update.stop_signal < 1 || update.stop_signal > 64 || (update.kill_delay_ms != VG_FOREVER && update.kill_delay_ms > SPAWN_DELAY_MOST_MS))) { refuse(VG_UPDATE, update.run, run->token, EINVAL); return; }
    if (update.set & VG_UPDATE_LOG && update.log_mode != VG_LOG_ENABLED && update.log_mode != VG_LOG_DISABLED) { refuse(VG_UPDATE, update.run, run->token, EINVAL); return; }
    if (update.set & VG_UPDATE_STOP) {
        struct slot *slot = table_shared(run);
        run->stop_signal = slot->stop_signal = update.stop_signal;
        run->kill_delay_ms = slot->kill_delay_ms = update.kill_delay_ms;
    }
    if (update.set & VG_UPDATE_ORDER) { run->component = update.component; run->rank = update.rank; }
    if (update.set & VG_UPDATE_FORWARD) run->forward_mask = update.forward_mask;
    struct pipes *pipes = update.set & VG_UPDATE_LOG ? pipes_find(update.run) : NULL;
    if (pipes && !pipes->ended) {
        run->log_mode = pipes->log_mode = update.log_mode;
        pipes->owed |= PIPES_STDOUT | PIPES_STDERR;
    }
}

static void on_signal(struct chan_message *message) {
    struct vg_signal signal;
    memcpy(&signal, message->words, sizeof signal);
    struct run *run = table_find(signal.run);
    int error = run ? stop_signal(run, signal.signal, signal.target) : ESRCH;
    if (error) refuse(VG_SIGNAL, signal.run, run ? run->token : 0, error);
}

static void on_stop(struct chan_message *message) {
    struct vg_stop stop;
    memcpy(&stop, message->words, sizeof stop);
    struct run *run = stop.run.slot == VG_NO_SLOT ? table_with(stop.token) : table_find(stop.run);
    if (!run) { refuse(VG_STOP, stop.run, stop.token, ESRCH); return; }
    stop_begin(run, VG_STOP_ASKED);
}

static void on_release(struct chan_message *message) {
    struct vg_release release;
    memcpy(&release, message->words, sizeof release);
    struct run *run = table_find(release.run);
    if (!run || run->state < VG_RUN_EXITED) { refuse(VG_RELEASE, release.run, run ? run->token : 0, run ? EBUSY : ESRCH); return; }
    run->flags |= VG_IS_RELEASED;
    stop_settle(run);
}

static bool sensible_name(const char *name, size_t size) {
    size_t n = strnlen(name, size);
    if (n == 0 || n > VG_PARK_MAX || n == size) return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] <= ' ' || name[i] > '~') return false;
    return true;
}

/* What vigild itself parks is not control's to change. */
static bool own_name(const char *name) { return strcmp(name, "log/vigild") == 0 || strncmp(name, "notify/", 7) == 0; }

static void on_park(struct chan_message *message) {
    struct vg_park park;
    memcpy(&park, message->words, sizeof park);
    int error = !sensible_name(park.name, sizeof park.name) ? EINVAL : own_name(park.name) ? EPERM : 0;
    if (!error) {
        int fd = chan_take_fd(message, 0);
        error = parked_put(park.name, fd);
        if (error) (void)close(fd);
    }
    if (error) refuse(VG_PARK, no_run, 0, error);
}

static void on_unpark(struct chan_message *message) {
    struct vg_park park;
    memcpy(&park, message->words, sizeof park);
    int error = !sensible_name(park.name, sizeof park.name) ? EINVAL : own_name(park.name) ? EPERM : 0;
    for (uint32_t i = 0; i < pipes_top() && !error; i++) {
        const struct pipes *pipes = pipes_at(i);
        if (pipes->run.slot != VG_NO_SLOT && strncmp(park.name, "log/", 4) == 0 && strcmp(park.name + 4, pipes->log) == 0) error = EBUSY;
    }
    if (!error) error = parked_drop(park.name);
    if (error) refuse(VG_UNPARK, no_run, 0, error);
}

static void on_ready(struct chan_message *message) {
    (void)message;
    control.ready = control.ever_ready = true;
}

static void on_pong(struct chan_message *message) {
    struct vg_plain pong;
    memcpy(&pong, message->words, sizeof pong);
    helper_answered(&control, pong.value);
}

static void on_shutdown(struct chan_message *message) {
    struct vg_shutdown_now shutdown;
    memcpy(&shutdown, message->words, sizeof shutdown);
    if (shutdown.code > 255 || shutdown.action > VG_RESTART) { refuse(VG_SHUTDOWN, no_run, 0, EINVAL); return; }
    if (!link_decision.made) link_decide(shutdown.code, shutdown.action);
}

static void on_reexec(struct chan_message *message) {
    (void)message;
    refuse(VG_REEXEC, no_run, 0, ENOSYS);
}

static const struct chan_rule rules[] = {
    {VG_HELLO, PHASE_NEW, sizeof(struct vg_hello), 0, 0},
    {VG_SPAWN, PHASE_ATTACHED, sizeof(struct vg_spawn), 1, 5},
    {VG_UPDATE, PHASE_ATTACHED, sizeof(struct vg_update_run), 0, 0},
    {VG_SIGNAL, PHASE_ATTACHED, sizeof(struct vg_signal), 0, 0},
    {VG_STOP, PHASE_ATTACHED, sizeof(struct vg_stop), 0, 0},
    {VG_RELEASE, PHASE_ATTACHED, sizeof(struct vg_release), 0, 0},
    {VG_PARK, PHASE_ATTACHED, sizeof(struct vg_park), 1, 1},
    {VG_UNPARK, PHASE_ATTACHED, sizeof(struct vg_park), 0, 0},
    {VG_READY, PHASE_ATTACHED, sizeof(struct vg_plain), 0, 0},
    {VG_PONG, PHASE_ATTACHED, sizeof(struct vg_plain), 0, 0},
    {VG_SHUTDOWN, PHASE_ATTACHED, sizeof(struct vg_shutdown_now), 0, 0},
    {VG_REEXEC, PHASE_ATTACHED, sizeof(struct vg_plain), 0, 0},
};
#define RULES ((int)(sizeof rules / sizeof *rules))
static void (*const handlers[RULES])(struct chan_message *) = {
    on_hello, on_spawn, on_update, on_signal, on_stop, on_release, on_park, on_unpark, on_ready, on_pong, on_shutdown, on_reexec,
};

void link_control_receive(bool all) {
    static struct chan_message message;
    for (int i = 0; control.link >= 0 && (all ? i < MESSAGES_OF_DEAD : (i < MESSAGES_A_TURN && !answer_waits && !control.ending && !control.closed)); i++) {
        int got = chan_receive(control.link, &message);
        if (got == CHAN_EMPTY) return;
        if (got == CHAN_CLOSED) {
            if (!all) helper_closed(&control);
            return;
        }
        int rule = got == CHAN_MESSAGE ? chan_check(rules, RULES, &message, control.greeted ? PHASE_ATTACHED : PHASE_NEW) : -1;
        if (rule < 0) {
            struct vg_head head = {0, 0, 0};
            if (got == CHAN_MESSAGE) memcpy(&head, message.words, sizeof head);
            say(VG_ERROR, "vigil.init", "control sent nonsense: kind %u, %u bytes, %d descriptors%s", head.kind, message.size, (int)message.count, control.greeted ? "" : ", before HELLO");
            chan_drop(&message);
            if (!all) helper_drop(&control, "a message that makes no sense");
            return;
        }
        handlers[rule](&message);
        chan_drop(&message);
        if (version_refused) {
            version_refused = false;
            if (!all) helper_drop(&control, "another version of the protocol");
            return;
        }
    }
}

/* ---- to control: each returns chan_send's result ---- */

static int send_welcome(void) {
    struct vg_welcome welcome = {
        .head = HEAD(vg_welcome, VG_WELCOME), .version = VG_PROTOCOL, .pid = (uint32_t)getpid(), .runs_max = table_runs(),
        .flags = (control.ever_greeted ? VG_AGAIN : 0u) | (helper_boot.restarted ? VG_RESTARTED : 0u) | (getpid() == 1 ? VG_IS_PID1 : 0u)
               | (access("/proc/self/stat", R_OK) != 0 ? VG_NO_PROC : 0u) | (isatty(2) ? VG_STDERR_TTY : 0u),
        .control_restarts = control.restarts, .logger_restarts = logger.restarts, .nofile_soft = spawn_setting.nofile_soft,
        .nofile_hard = spawn_setting.nofile_hard, .start_real_ns = helper_boot.start_real_ns, .control_real_ns = control.start_real_ns,
    };
    (void)say_text(welcome.program, sizeof welcome.program, "%s", VIGIL_VERSION);
    return chan_send(control.link, &welcome, NULL, 0);
}

static int send_run(struct run *run) {
    struct vg_snapshot item = {
        .head = HEAD(vg_snapshot, VG_SNAPSHOT), .run = table_id(run), .token = run->token, .kind = run->kind, .state = run->state,
        .flags = run->flags, .pid = run->leader, .started_real_ns = run->started_real_ns, .exited_real_ns = run->exited_real_ns,
        .code = run->code, .status = run->status, .step = run->step, .error = run->error, .usage = run->usage, .log_mode = run->log_mode,
        .note_size = run->note_size,
    };
    memcpy(item.note, run->note, sizeof item.note);
    int sent = chan_send(control.link, &item, NULL, 0);
    if (sent == CHAN_MESSAGE) run->owed = 0;        /* all that was owed stands in it */
    return sent;
}

/* The rest of a SNAPSHOT. No event is sent before its end: what happens meanwhile stands in the items still to come, or follows. */
static int send_snapshot(void) {
    int sent = CHAN_MESSAGE;
    while (sent == CHAN_MESSAGE && snapshot != SNAPSHOT_DONE) {
        if (snapshot == SNAPSHOT_WELCOME) {
            sent = send_welcome();
            if (sent == CHAN_MESSAGE) { snapshot = SNAPSHOT_RUNS; snapshot_at = 0; }
        } else if (snapshot == SNAPSHOT_RUNS) {
            if (snapshot_at == table_end()) { snapshot = SNAPSHOT_PARKED; snapshot_at = 0; continue; }
            struct run *run = table_at(snapshot_at);
            if (run->flags & VG_IS_RELEASED && (run->state == VG_RUN_GONE || run->state == VG_RUN_FAILED)) {
                run->owed = 0;      /* over, and released by the last control: nothing to be told */
                stop_settle(run);
            }
            if (run->state) sent = send_run(run);
            if (sent == CHAN_MESSAGE) snapshot_at++;
        } else if (snapshot_at < parked_end()) {
            const struct parked *parked = parked_at(snapshot_at);
            if (parked->fd >= 0) {
                struct vg_park item = {.head = HEAD(vg_park, VG_SNAPSHOT_PARKED)};
                memcpy(item.name, parked->name, sizeof item.name);
                sent = chan_send(control.link, &item, &parked->fd, 1);
            }
            if (sent == CHAN_MESSAGE) snapshot_at++;
        } else {
            struct vg_plain end = {.head = HEAD(vg_plain, VG_SNAPSHOT_END)};
            sent = chan_send(control.link, &end, NULL, 0);
            if (sent == CHAN_MESSAGE) {
                snapshot = SNAPSHOT_DONE;
                control.ever_greeted = true;
            }
        }
    }
    return sent;
}

static int send_owed(struct run *run) {
    int sent = CHAN_MESSAGE;
    if (run->owed & OWE_STARTED) {
        struct vg_started m = {.head = HEAD(vg_started, VG_STARTED), .run = table_id(run), .token = run->token, .pid = run->leader, .keeper = run->keeper, .started_real_ns = run->started_real_ns};
        sent = chan_send(control.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) run->owed &= ~(uint32_t)OWE_STARTED;
    }
    if (sent == CHAN_MESSAGE && run->owed & OWE_FAILED) {
        struct vg_spawn_failed m = {.head = HEAD(vg_spawn_failed, VG_SPAWN_FAILED), .run = table_id(run), .token = run->token, .step = run->step, .error = run->error};
        sent = chan_send(control.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) run->owed &= ~(uint32_t)OWE_FAILED;
    }
    if (sent == CHAN_MESSAGE && run->owed & OWE_STOPPING) {
        struct vg_stopping m = {.head = HEAD(vg_stopping, VG_STOPPING), .run = table_id(run), .token = run->token, .cause = run->stop_cause};
        sent = chan_send(control.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) run->owed &= ~(uint32_t)OWE_STOPPING;
    }
    if (sent == CHAN_MESSAGE && run->owed & OWE_EXITED) {
        struct vg_exited m = {.head = HEAD(vg_exited, VG_EXITED), .run = table_id(run), .token = run->token, .code = run->code, .status = run->status, .flags = run->flags, .exited_real_ns = run->exited_real_ns, .usage = run->usage};
        sent = chan_send(control.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) run->owed &= ~(uint32_t)OWE_EXITED;
    }
    if (sent == CHAN_MESSAGE && run->owed & OWE_GONE) {
        struct vg_gone m = {.head = HEAD(vg_gone, VG_GONE), .run = table_id(run), .token = run->token, .flags = run->flags};
        sent = chan_send(control.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) run->owed &= ~(uint32_t)OWE_GONE;
    }
    return sent;
}

static int send_all(void) {
    int sent = CHAN_MESSAGE;
    if (snapshot != SNAPSHOT_DONE) sent = send_snapshot();
    for (uint32_t i = 0; i < table_end() && sent == CHAN_MESSAGE; i++) {
        struct run *run = table_at(i);
        if (!run->state || !run->owed) continue;
        sent = send_owed(run);
        if (sent == CHAN_MESSAGE) stop_settle(run);
    }
    if (sent == CHAN_MESSAGE && answer_waits) {
        sent = chan_send(control.link, &answer, NULL, 0);
        if (sent == CHAN_MESSAGE) answer_waits = false;
    }
    if (sent == CHAN_MESSAGE && signalled) {
        struct vg_signalled m = {.head = HEAD(vg_signalled, VG_SIGNALLED), .mask = signalled};
        sent = chan_send(control.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) signalled = 0;
    }
    if (sent == CHAN_MESSAGE && control.ask) {
        struct vg_plain m = {.head = HEAD(vg_plain, VG_PING), .value = control.question};
        sent = chan_send(control.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) { control.ask = false; control.asked = true; }
    }
    return sent;
}

void link_control_send(void) {
    if (control.link < 0 || !control.greeted || control.closed) return;
    int sent = send_all();
    helper_sent(&control, sent, !answer_waits);
}

bool link_control_owes(void) {
    if (control.link < 0 || !control.greeted || control.closed || control.ending) return false;
    bool owes = answer_waits || snapshot != SNAPSHOT_DONE;
    for (uint32_t i = 0; i < table_end() && !owes; i++) owes = table_at(i)->state && table_at(i)->owed;
    return owes;
}

void link_control_closed(void) {
    snapshot = SNAPSHOT_NONE;
    answer_waits = false;
    signalled = 0;
}

void link_control_signals(uint64_t mask) {
    if (control.greeted) signalled |= mask;
}
