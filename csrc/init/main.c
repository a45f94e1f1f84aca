/*
 * main - vigild: boot, then one loop until the container ends.
 *
 * Owns: the stages of the whole (running, stopping, ending control, ending logger, over).
 * Calls: everything.
 * On failure: up to the marked line what is missing is said and ends vigild with 1; after it nothing ends vigild but the end of its work.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helper.h"
#include "keeper.h"
#include "link.h"
#include "loop.h"
#include "pipes.h"
#include "reap.h"
#include "say.h"
#include "sig.h"
#include "spawn.h"
#include "stop.h"
#include "table.h"

#define MS 1000000ULL
#define CONTROL_GRACE_MS 2000       /* to flush what it has */
#define TOLD_MS 1000                /* for control to take word of the last exits, before it is ended */
#define LOGGER_GRACE_MS 30000       /* logger itself gives up after 2 s without progress; this is for a logger that does not */
#define NOFILE_MOST 1048576
#define ARGUMENTS_MOST 4096
#define EXIT_START_FAILED 1

enum stage { STAGE_RUNNING, STAGE_STOPPING, STAGE_CONTROL_ENDS, STAGE_LOGGER_ENDS, STAGE_AGAIN, STAGE_OVER };

static enum stage stage;
static int wake_fd = -1, signal_fd = -1, diagnostics_fd = -1;
static unsigned terminations;       /* SIGTERM, SIGINT, SIGQUIT so far */
static uint64_t stage_end = VG_FOREVER;
static bool control_failed;         /* it ended before it was ever READY, and its code is ours */

/* ---- boot ---- */

static _Noreturn void cannot(const char *what) {
    say_into(-1);
    say(VG_ERROR, "vigil.init", "cannot %s: %s", what, strerror(errno));
    _exit(EXIT_START_FAILED);
}

/* Descriptors 0 to 2 exist, whatever they are; no other that was inherited stays. */
static void open_standard(int null) {
    for (int fd = 0; fd < 3; fd++) {
        bool open = fcntl(fd, F_GETFD) >= 0;
        if (!open && null != fd) (void)dup2(null, fd);
        if (fd > 0) helper_boot.sink[fd - 1] = open && null != fd ? fd : -1;
    }
}

static void set_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) cannot("read the limit of open files");
    spawn_setting.nofile_soft = limit.rlim_cur;
    spawn_setting.nofile_hard = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max > NOFILE_MOST ? NOFILE_MOST : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    struct rlimit tag;
    if (getrlimit(RLIMIT_LOCKS, &tag) == 0 && tag.rlim_max != RLIM_INFINITY)
        while (spawn_setting.tag > 1ULL << KEEPER_TAG_BITS && spawn_setting.tag + (1ULL << KEEPER_TAG_BITS) > tag.rlim_max) spawn_setting.tag /= 2;
    /* A run takes four: two pipes, a log, and its notification socket or what waits for logger (pipes): (limit - 64) / 4 runs fit. */
    uint64_t fit = limit.rlim_cur > 128 ? (limit.rlim_cur - 64) / 4 : 16;
    if (!table_make(fit > TABLE_RUNS ? TABLE_RUNS : (uint32_t)fit)) cannot("map the table");
}

/* The kernel's choice of victim must not be one of us. Children get the score back that we found. */
static void protect(void) {
    char text[16];
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n > 0) {
        text[n] = 0;
        int32_t score = (int32_t)strtol(text, NULL, 10);
        if (write(fd, "-1000", 5) == 5) spawn_setting.oom_score_adj = score;
    }
    (void)close(fd);
}

static void find_title(char **argv) {
    char *end = argv[0];
    for (char **a = argv; *a; a++)
        if (*a == end) end = *a + strlen(*a) + 1;
    for (char **e = environ; *e; e++)
        if (*e == end) end = *e + strlen(*e) + 1;
    spawn_setting.title = helper_boot.title = argv[0];
    spawn_setting.title_size = helper_boot.title_size = (size_t)(end - argv[0]);
}

/* Where the first line of a script names its interpreter. */
static bool interpreter_of(const char *script, char *to, size_t size) {
    int fd = open(script, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, to, size - 1);
    (void)close(fd);
    if (n < 4 || to[0] != '#' || to[1] != '!') return false;
    to[n] = 0;
    char *begin = to + 2, *end;
    while (*begin == ' ') begin++;
    for (end = begin; *end && *end != '\n' && *end != ' '; end++) {}
    if (*begin != '/' || !*end) return false;
    *end = 0;
    memmove(to, begin, (size_t)(end - begin) + 1);
    return access(to, X_OK) == 0;
}

static bool python_denied;          /* there is one, but not for us */

static bool python_beside(const char *directory, char *to) {
    char path[PATH_MAX];
    say_text(to, PATH_MAX, "%s/python3", directory);
    if (access(to, X_OK) == 0) return true;
    if (errno == EACCES) python_denied = true;
    say_text(path, sizeof path, "%s/vigil", directory);
    return interpreter_of(path, to, PATH_MAX);
}

/* VIGIL_PYTHON, else python3 beside vigild, else the interpreter of vigil beside vigild; of a link beside what it points to, then beside itself. */
static const char *find_python(void) {
    static char python[PATH_MAX], own[2 * PATH_MAX], real[PATH_MAX];
    const char *given = getenv("VIGIL_PYTHON");
    if (given && *given) {
        if (access(given, X_OK) != 0) cannot("execute the Python that VIGIL_PYTHON names");
        return given;
    }
    const char *called = (const char *)getauxval(AT_EXECFN);
    if (!called) called = "";
    if (*called == '/') say_text(own, sizeof own, "%s", called);
    else say_text(own, sizeof own, "%s/%s", helper_boot.directory, called);
    /* A link to vigild may stand among strangers: /usr/local/bin has a python3 too. (A link to its folder is what an upgrade moves.) */
    struct stat info;
    char *slash;
    if (lstat(own, &info) == 0 && S_ISLNK(info.st_mode) && realpath(own, real)) {
        slash = strrchr(real, '/');
        *slash = 0;
        if (python_beside(real, python)) return python;
    }
    slash = strrchr(own, '/');
    if (slash) *slash = 0;
    if (python_beside(own, python)) return python;
    say_into(-1);
    if (python_denied) {
        say(VG_ERROR, "vigil.init", "cannot execute %s/python3 as uid %u: %s (it, or what it links to, is not for this user); set VIGIL_PYTHON to an interpreter that has vigil installed",
            own, (unsigned)geteuid(), strerror(EACCES));
        _exit(EXIT_START_FAILED);
    }
    say(VG_ERROR, "vigil.init", "cannot find Python: there is neither python3 nor vigil beside vigild in %s; set VIGIL_PYTHON to the interpreter that has vigil installed", own);
    _exit(EXIT_START_FAILED);
}

static void prepare_control(int argc, char **argv) {
    static char directory[PATH_MAX];
    static char *arguments[ARGUMENTS_MOST + 8];
    helper_boot.directory = getcwd(directory, sizeof directory) ? directory : "/";
    const char *fixed[] = {find_python(), "-E", "-P", "-m", "vigil.daemon"};
    size_t n = 0;
    if (argc > ARGUMENTS_MOST) { errno = E2BIG; cannot("pass on the arguments"); }
    for (; n < sizeof fixed / sizeof *fixed; n++) arguments[n] = (char *)(uintptr_t)fixed[n];
    for (int i = 1; i < argc; i++) arguments[n++] = argv[i];
    arguments[n] = NULL;
    helper_boot.argv = arguments;

    size_t count = 0;
    while (environ[count]) count++;
    char **environment = mmap(NULL, (count + 2) * sizeof *environment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (environment == MAP_FAILED) cannot("map the environment");
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "VIGIL_LINK=", 11) != 0) environment[kept++] = environ[i];
    static char link[] = "VIGIL_LINK=3";
    environment[kept] = link;
    helper_boot.environment = environment;
}

static bool open_diagnostics(void) {
    int end, before = diagnostics_fd;
    if (!pipes_open_one((struct vg_run){VG_SLOT_DIAGNOSTICS, 1}, "vigild", &end)) return false;
    say_into(end);
    diagnostics_fd = end;
    if (before >= 0) (void)close(before);
    return true;
}

static void boot(int argc, char **argv) {
    helper_boot.start_real_ns = say_real_ns();
    helper_boot.orphanable = spawn_setting.orphanable = getpid() != 1;
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) cannot("become the reaper of orphans");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) null = memfd_create("vigil-null", MFD_CLOEXEC);      /* an image without /dev: at its end from the start */
    if (null < 0) cannot("open /dev/null");
    open_standard(null);
    if (null < 3) {
        int higher = fcntl(null, F_DUPFD_CLOEXEC, 3);
        if (higher < 0) cannot("keep /dev/null");
        (void)fcntl(null, F_SETFD, 0);
        null = higher;
    }
    int keep[] = {0, 1, 2, null};
    keeper_close_all_but(keep, 4);
    spawn_setting.null = null;
    signal_fd = sig_open();
    if (signal_fd < 0) cannot("open the signalfd");
    set_limits();
    find_title(argv);
    prepare_control(argc, argv);
    (void)prctl(PR_SET_NAME, "vigild");
    (void)chdir("/");
    protect();
    wake_fd = spawn_setting.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0) cannot("make the eventfd of keepers");
    if (!loop_make() || !loop_watch(LOOP_SIGNALS, signal_fd, true, false) || !loop_watch(LOOP_KEEPERS, wake_fd, true, false)) cannot("make the event loop");
    if (!pipes_make(table_runs())) cannot("map the table of pipes");
    if (!helper_make_logs()) cannot("make the log of vigild");
    if (!open_diagnostics()) cannot("make the pipe of diagnostics");
}

/* ---- the loop ---- */

static const char *signal_name(int signal) {
    return signal == SIGTERM ? "SIGTERM" : signal == SIGINT ? "SIGINT" : "SIGQUIT";
}

static void on_signals(uint64_t mask) {
    static const int endings[] = {SIGTERM, SIGINT, SIGQUIT};
    mask &= ~(SIG_BIT(SIGCHLD) | SIG_BIT(SIGPIPE));
    if (!mask) return;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (!(mask & SIG_BIT(endings[i]))) continue;
        terminations++;
        if (terminations == 1) say(VG_INFO, "vigil.init", "%s: stopping", signal_name(endings[i]));
        if (terminations == 2) { say(VG_WARN, "vigil.init", "%s again: all services get their stop signal now", signal_name(endings[i])); stop_hurry(); }
        if (terminations >= 3) { say(VG_WARN, "vigil.init", "%s once more: everything is killed", signal_name(endings[i])); stop_kill(); }
        link_decide(0, VG_EXIT);
    }
    stop_forward(mask & sig_forwardable());
    link_control_signals(mask);
}

static void control_over(int code, int status) {
    link_control_receive(true);
    bool expected = control.ending && stage >= STAGE_CONTROL_ENDS;
    bool first = !control.ever_ready;
    if (!expected) {
        if (code == CLD_EXITED && (first && status == 0)) {}
        else if (code == CLD_EXITED) say(first ? VG_DEBUG : VG_ERROR, "vigil.init", "control exited with code %d", status);
        else say(VG_ERROR, "vigil.init", "control was killed by signal %d", status);
    }
    pipes_end((struct vg_run){VG_SLOT_CONTROL, control.lives});
    link_control_closed();
    stop_orphans();
    if (first && stage == STAGE_RUNNING && stop_is_over() && !link_decision.made) {
        control_failed = true;
        link_decide(code == CLD_EXITED ? (uint32_t)status & 255 : EXIT_START_FAILED, VG_EXIT);
    }
    helper_over(&control, stage <= STAGE_RUNNING && !link_decision.made);
}

static void on_helper(pid_t pid, int code, int status) {
    if (pid == control.pid) {
        control_over(code, status);
        return;
    }
    if (stage < STAGE_AGAIN) say(VG_ERROR, "vigil.init", code == CLD_EXITED ? "logger exited with code %d" : "logger was killed by signal %d", status);
    link_logger_closed();
    helper_over(&logger, stage < STAGE_AGAIN);
}

static void reap(void) {
    pid_t helpers[2] = {control.pid ? control.pid : -1, logger.pid ? logger.pid : -1};
    reap_turn(helpers, 2, on_helper);
}

/* What PID 1 said and nobody took. */
static void flush_diagnostics(void) {
    struct pipes *pipes = pipes_find((struct vg_run){VG_SLOT_DIAGNOSTICS, 1});
    char text[4096];
    if (!pipes) return;
    ssize_t n = read(pipes->fd[1], text, sizeof text);
    if (n > 0) say_bytes(text, (size_t)n);
}

/* `vigild restart`: all is gone; logs, counters and the tables of logger go too, listeners, certificate and journal stay. */
static void begin_again(void) {
    for (uint32_t i = pipes_top(); i > 0; i--)
        if (i <= pipes_top() && pipes_at(i - 1)->run.slot != VG_NO_SLOT) pipes_close(pipes_at(i - 1));
    for (uint32_t i = 0; i < table_end(); i++) table_free(table_at(i));
    for (uint32_t i = 0; i < parked_end(); i++) {
        const struct parked *parked = parked_at(i);
        if (parked->fd >= 0 && (strncmp(parked->name, "log/", 4) == 0 || strcmp(parked->name, "counters") == 0)) (void)parked_drop(parked->name);
    }
    stop_whole_again();
    link_logger_begin();
    link_decision.made = false;
    control.ever_ready = control.ever_greeted = false;
    control.restarts = logger.restarts = 0;
    helper_boot.restarted = true;
    stage = STAGE_RUNNING;
    stage_end = VG_FOREVER;
    if (!helper_make_logs() || !open_diagnostics()) {
        /* No memory or descriptors for logs: an end that the container's owner sees is better than a vigild that captures nothing. */
        say(VG_ERROR, "vigil.init", "cannot make new logs for the restart: %s; exiting with 1", strerror(errno));
        link_decide(EXIT_START_FAILED, VG_EXIT);
        stage = STAGE_OVER;
        return;
    }
    control.start_at = logger.start_at = 0;
    helper_turn(say_now_ns());
    link_logger_send();
}

static void next_stage(uint64_t now) {
    if (stage == STAGE_RUNNING && stop_is_whole()) stage = STAGE_STOPPING;
    if (stage == STAGE_STOPPING && stop_is_over() && stage_end == VG_FOREVER) stage_end = now + TOLD_MS * MS;
    if (stage == STAGE_STOPPING && stop_is_over() && (!link_control_owes() || now >= stage_end || terminations > 2)) {
        stage = STAGE_CONTROL_ENDS;
        control.start_at = VG_FOREVER;
        helper_end(&control, SIGTERM, CONTROL_GRACE_MS);
    }
    if (stage == STAGE_CONTROL_ENDS && !control.pid) {
        stage = STAGE_LOGGER_ENDS;
        stage_end = now + LOGGER_GRACE_MS * MS;
        for (uint32_t i = 0; i < pipes_top(); i++)
            if (pipes_at(i)->run.slot < VG_SLOT_DIAGNOSTICS) pipes_end(pipes_at(i)->run);
        if (link_decision.action == VG_EXIT && !control_failed) say(VG_INFO, "vigil.init", "stopped; exit code %u", link_decision.code);
        pipes_end((struct vg_run){VG_SLOT_DIAGNOSTICS, 1});
        say_into(-1);
        link_logger_finish();
    }
    if (stage == STAGE_LOGGER_ENDS && (link_logger_finished() || now >= stage_end || terminations > 3)) {
        stage = STAGE_AGAIN;
        if (!link_logger_finished()) flush_diagnostics();
        helper_end(&logger, SIGKILL, 0);
        logger.start_at = VG_FOREVER;
    }
    if (stage == STAGE_AGAIN && !logger.pid) {
        if (link_decision.action == VG_RESTART) begin_again();
        else stage = STAGE_OVER;
    }
    if (stage == STAGE_STOPPING || stage == STAGE_LOGGER_ENDS) loop_at(stage_end);
}

static void turn(uint32_t woken) {
    /* Bells first, then what they rang for: one that were silenced after the look would leave what came in between until the next. */
    uint64_t signals = woken & (1u << LOOP_SIGNALS) ? sig_take() : 0, count;
    if (woken & (1u << LOOP_KEEPERS) && read(wake_fd, &count, sizeof count) < 0) errno = 0;
    reap();
    on_signals(signals);
    link_control_receive(false);
    link_logger_receive();
    uint64_t now = say_now_ns();
    helper_turn(now);
    stop_turn(now);
    link_control_send();
    link_logger_send();
    next_stage(now);
    link_logger_send();     /* a stage that began may owe it something */
}

int main(int argc, char **argv) {
    sig_block();
    boot(argc, argv);
    control.start_at = logger.start_at = 0;
    /* ---- from here on nothing ends vigild but the end of its work ---- */
    helper_turn(say_now_ns());
    stop_turn(say_now_ns());
    link_logger_send();
    for (;;) {
        turn(loop_wait());
        if (stage == STAGE_OVER) _exit((int)link_decision.code);
    }
}
