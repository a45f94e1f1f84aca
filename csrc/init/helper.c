/*
 * helper - control and logger: how they are started, watched and started again.
 *
 * Owns: the two processes, PID 1's end of their links, the descriptors that outlive logger's lives.
 * Calls: loop, pipes, chan, keeper (closing descriptors), sig, say, ring, logger (whose main is entered in the forked child).
 * On failure: a helper that cannot be started is tried again after the same wait; it doubles up to 30 s as long as no life gets READY.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chan.h"
#include "keeper.h"
#include "logger.h"
#include "notify.h"
#include "pipes.h"
#include "ring.h"
#include "say.h"
#include "sig.h"
#include "spawn.h"
#include "table.h"

#define MS 1000000ULL
#define FIRST_WAIT_MS 100
#define LONGEST_WAIT_MS 30000
#define HELLO_TICKS 60              /* of CONTROL_TICK_MS: from exec to HELLO */
#define CONTROL_TICK_MS 1000
#define LOGGER_TICK_MS 500
#define LOGGER_LIMIT_MS 2000
#define CLOSED_GRACE_MS 1000        /* between the end of its link and its own: a process that exits closes its descriptors first */
#define SHORT_WAIT_MS 50            /* between two tries to send what the system had no room for */
#define ABORT_GRACE_MS 1000         /* between SIGABRT (a traceback) and SIGKILL */

struct helper control = {.name = "control", .source = LOOP_CONTROL, .link = -1, .kill_at = VG_FOREVER, .wait_ms = FIRST_WAIT_MS};
struct helper logger = {.name = "logger", .source = LOOP_LOGGER, .link = -1, .kill_at = VG_FOREVER, .wait_ms = FIRST_WAIT_MS};
struct helper_setting helper_setting = {.log_format = VG_FORMAT_TEXT, .log_level = VG_INFO, .watchdog_ms = 10000, .forward_stall_ms = 5000};
struct helper_boot helper_boot = {.journal = -1, .ring = -1, .board = -1, .wake = -1, .pipe_read = {-1, -1}, .pipe_write = {-1, -1}};

#define VIGILD_LOG_LINES 1000
#define VIGILD_LOG_BYTES 1048576

static void replace(int *at, int fd) {
    if (*at >= 0) (void)close(*at);
    *at = fd;
}

bool helper_make_logs(void) {
    int journal = memfd_create("vigil-logger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (journal < 0 || ftruncate(journal, (off_t)logger_journal_size()) != 0) return false;
    replace(&helper_boot.journal, journal);
    for (int i = 0; i < 2; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) return false;
        if (fcntl(ends[1], F_SETFL, O_NONBLOCK) != 0) return false;
        replace(&helper_boot.pipe_read[i], ends[0]);
        replace(&helper_boot.pipe_write[i], ends[1]);
    }
    int ring = ring_create("vigild", VIGILD_LOG_LINES, VIGILD_LOG_BYTES);
    if (ring < 0 || parked_put("log/vigild", ring) != 0) return false;
    helper_boot.ring = ring;
    /* Parked: so control finds the board, and the eventfd by which logger wakes it, in its SNAPSHOT. */
    int board = notify_board_create();
    if (board < 0 || parked_put("notify/board", board) != 0) return false;
    helper_boot.board = board;
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0 || parked_put("notify/wake", wake) != 0) return false;
    helper_boot.wake = wake;
    return true;
}

static void ascending(int *list, int count) {
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && list[j - 1] > list[j]; j--) { int swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap; }
}

static void rename_self(const char *name) {
    (void)prctl(PR_SET_NAME, name);
    if (helper_boot.title_size == 0) return;
    memset(helper_boot.title, 0, helper_boot.title_size);
    (void)say_text(helper_boot.title, helper_boot.title_size, "%s", name);
}

static _Noreturn void run_logger(int link, pid_t parent) {
    (void)setsid();
    rename_self("vigil-logger");
    if (helper_boot.orphanable) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
    }
    int keep[] = {helper_boot.sink[0], helper_boot.sink[1], link, helper_boot.journal, helper_boot.pipe_read[0], helper_boot.pipe_read[1],
                  helper_boot.pipe_write[0], helper_boot.pipe_write[1], helper_boot.ring, helper_boot.board, helper_boot.wake, say_fd()};
    int count = (int)(sizeof keep / sizeof *keep);
    ascending(keep, count);
    keeper_close_all_but(keep, count);
    struct logger_boot boot = {
        .link = link, .journal = helper_boot.journal, .ring = helper_boot.ring, .board = helper_boot.board, .wake = helper_boot.wake, .stall_ms = helper_setting.forward_stall_ms,
        .pipe_read = {helper_boot.pipe_read[0], helper_boot.pipe_read[1]}, .pipe_write = {helper_boot.pipe_write[0], helper_boot.pipe_write[1]},
        .sink = {helper_boot.sink[0], helper_boot.sink[1]},
    };
    logger_run(&boot);
}

static _Noreturn void run_control(int link, int output, int errors, pid_t parent) {
    (void)setsid();
    if (helper_boot.orphanable) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) _exit(1);
    }
    /* Upwards first: none of the three may be overwritten before it was copied. */
    int high_link = fcntl(link, F_DUPFD_CLOEXEC, 10), high_output = fcntl(output, F_DUPFD_CLOEXEC, 10), high_errors = fcntl(errors, F_DUPFD_CLOEXEC, 10);
    if (dup2(spawn_setting.null, 0) < 0 || dup2(high_output, 1) < 0 || dup2(high_errors, 2) < 0 || dup2(high_link, VG_LINK_FD) < 0) _exit(1);
    int keep[] = {0, 1, 2, VG_LINK_FD};
    keeper_close_all_but(keep, 4);
    say_into(-1);
    if (chdir(helper_boot.directory) != 0) (void)chdir("/");
    sig_clean();
    (void)execve(helper_boot.argv[0], helper_boot.argv, helper_boot.environment);
    say(VG_ERROR, "vigil.init", "cannot execute %s: %s", helper_boot.argv[0], strerror(errno));
    _exit(1);
}

static void start(struct helper *helper, uint64_t now) {
    int ends[2] = {-1, -1}, outputs[2] = {-1, -1};
    struct vg_run life = {VG_SLOT_CONTROL, control.lives + 1};
    struct pipes *pipes = NULL;
    helper->start_at = now + helper->wait_ms * MS;      /* where the following fails */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) goto failed;
    if (helper == &control) {
        pipes = pipes_open(life, "vigild", "", VG_LOG_ENABLED, VG_FORMAT_RAW, UINT32_MAX, outputs);
        if (!pipes) goto failed;
    }
    pid_t self = getpid(), pid = fork();
    if (pid == 0) {
        if (helper == &control) run_control(ends[1], outputs[0], outputs[1], self);
        run_logger(ends[1], self);
    }
    if (pid < 0) goto failed;
    (void)close(ends[1]);
    for (int i = 0; i < 2; i++)
        if (outputs[i] >= 0) (void)close(outputs[i]);
    helper->pid = pid;
    helper->link = ends[0];
    helper->lives++;
    helper->greeted = helper == &logger;
    helper->ready = helper->ending = helper->asked = helper->ask = helper->write_waits = helper->closed = false;
    helper->short_of = false;
    helper->misses = 0;
    helper->tick = now + (helper == &control ? CONTROL_TICK_MS : LOGGER_TICK_MS) * MS;
    helper->kill_at = helper->start_at = VG_FOREVER;
    helper->start_real_ns = say_real_ns();
    if (!loop_watch(helper->source, helper->link, true, false)) helper_drop(helper, "its link cannot be watched");
    return;
failed:;
    int error = errno;
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0) (void)close(ends[i]);
        if (outputs[i] >= 0) (void)close(outputs[i]);
    }
    if (pipes) pipes_close(pipes);
    /* Only lives that did not get READY double the wait: the machine is short of something, and services wait for logger. */
    if (!helper->short_of) say(VG_ERROR, "vigil.init", "cannot start %s: %s; trying every %u ms", helper->name, strerror(error), helper->wait_ms);
    helper->short_of = true;
}

void helper_end(struct helper *helper, int signal, uint64_t grace_ms) {
    if (!helper->pid || helper->ending) return;
    helper->ending = true;
    loop_forget(helper->source);        /* it is not read any more until it is dead: what waits there must not wake us again and again */
    helper->kill_at = say_now_ns() + grace_ms * MS;
    (void)kill(helper->pid, signal);
}

void helper_drop(struct helper *helper, const char *why) {
    if (helper->ending || !helper->pid) return;
    say(VG_ERROR, "vigil.init", "%s is killed and started again: %s", helper->name, why);
    helper_end(helper, SIGKILL, 0);
}

void helper_sent(struct helper *helper, int result, bool readable) {
    if (result == CHAN_CLOSED) { helper_closed(helper); return; }
    helper->write_waits = result == CHAN_EMPTY;
    if (result == CHAN_SHORT) loop_at(say_now_ns() + SHORT_WAIT_MS * MS);
    (void)loop_watch(helper->source, helper->link, readable && !helper->ending, helper->write_waits);
}

void helper_closed(struct helper *helper) {
    if (helper->closed) return;
    loop_forget(helper->source);
    helper->closed = true;
    uint64_t end = say_now_ns() + CLOSED_GRACE_MS * MS;
    if (end < helper->kill_at) helper->kill_at = end;
}

void helper_answered(struct helper *helper, uint64_t value) {
    if (!helper->asked || value != helper->question) return;
    helper->asked = false;
    helper->misses = 0;
}

/* One look at a helper that runs. A freeze of everything makes one look late, and counts as one. */
static void watch(struct helper *helper, uint64_t now) {
    uint64_t every = helper == &control ? CONTROL_TICK_MS : LOGGER_TICK_MS;
    uint64_t limit = helper == &control ? helper_setting.watchdog_ms : LOGGER_LIMIT_MS;
    if (now < helper->tick) return;
    helper->tick = now + every * MS;
    if (helper->ending || helper->closed) return;
    if (!helper->greeted) {
        if (++helper->misses >= HELLO_TICKS) helper_drop(helper, "no HELLO for 60 s");
        return;
    }
    if (helper->asked || helper->ask) {
        if (++helper->misses * every < limit) return;
        say(VG_ERROR, "vigil.init", "%s is hung: no answer for %lu ms", helper->name, (unsigned long)limit);
        if (helper == &control) helper_end(helper, SIGABRT, ABORT_GRACE_MS);
        else helper_end(helper, SIGKILL, 0);
        return;
    }
    helper->ask = true;
    helper->question = now;
}

void helper_over(struct helper *helper, bool restart) {
    loop_forget(helper->source);
    if (helper->link >= 0) (void)close(helper->link);
    helper->link = -1;
    helper->pid = 0;
    helper->kill_at = VG_FOREVER;
    helper->greeted = helper->asked = helper->ask = false;
    helper->start_at = VG_FOREVER;
    if (restart) {
        helper->restarts++;
        uint64_t wait = helper == &logger && helper->ready ? 0 : helper->ready ? FIRST_WAIT_MS : helper->wait_ms;
        if (helper->ready) helper->wait_ms = FIRST_WAIT_MS;
        else helper->wait_ms = helper->wait_ms * 2 < LONGEST_WAIT_MS ? helper->wait_ms * 2 : LONGEST_WAIT_MS;
        helper->start_at = say_now_ns() + wait * MS;
    }
    helper->ready = helper->ending = false;
}

void helper_turn(uint64_t now) {
    struct helper *both[2] = {&logger, &control};
    for (int i = 0; i < 2; i++) {
        struct helper *helper = both[i];
        if (!helper->pid && now >= helper->start_at) start(helper, now);
        if (helper->pid) {
            watch(helper, now);
            if (now >= helper->kill_at) {
                if (!helper->ending) say(VG_ERROR, "vigil.init", "%s closed its link and goes on: it is killed", helper->name);
                (void)kill(helper->pid, SIGKILL);
                helper->kill_at = VG_FOREVER;
            }
            loop_at(helper->tick);
            loop_at(helper->kill_at);
        } else {
            loop_at(helper->start_at);
        }
    }
}
