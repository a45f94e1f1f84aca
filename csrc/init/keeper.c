/*
 * keeper - the whole life of a keeper: the parent of one run and of all that the run leaves behind.
 *
 * Owns: its child (the leader of the run) and every orphan of it (it is their subreaper). Only this process reaps and signals them, so
 * no pid it uses can be somebody else's.
 * Calls: sig, and what is in keeper.h for PID 1 too.
 * On failure: what went wrong before execve stands in the slot as step and errno; afterwards nothing can fail that it does not retry. A
 * keeper that is killed has an heir: PID 1.
 *
 * waitid answering ECHILD is the proof that nothing is left: fork attaches and death reparents under one lock, so no moment exists with a
 * living descendant and no child.
 */
#include "keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "say.h"
#include "sig.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

#define QUICK_ROUNDS 4              /* enough for ordinary trees */
#define FREEZE_PASSES 10            /* bounded by passes, never by time: a bomb slows the clock, not the count */
#define STALL_MS 40                 /* no child died for that long: freeze again */
#define STALL_MAX_MS 1000           /* what is left is in state D: look less often */
#define PIDS_UNKNOWN 4194304        /* pid_max at most, where /proc cannot tell */
#define PIDS_USUAL 32768

static struct keeper_job job;
static struct slot *slot;
static bool leader_reaped, orphaned;
static uint64_t group_sent;         /* signals that the leader's group has had */
static uint32_t answered;
static uint64_t reaped;             /* children so far: progress */
static sigset_t wakers;

static void wake(void) {
    uint64_t one = 1;
    while (write(job.wake, &one, sizeof one) < 0 && errno == EINTR) {}
}

/* ---- what PID 1 uses too ---- */

int keeper_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

void keeper_close_all_but(const int *keep, int count) {
    unsigned from = 0;
    bool ranges = true;
    for (int i = 0; i <= count && ranges; i++) {
        unsigned to = i < count ? (unsigned)keep[i] : ~0u;
        if (i < count && keep[i] < 0) continue;
        if (to > from || i == count) ranges = syscall(SYS_close_range, from, i < count ? to - 1 : ~0u, 0) == 0;
        from = to + 1;
    }
    if (ranges) return;
    /* ENOSYS or EPERM: one by one, as far as a descriptor of ours can be. */
    struct rlimit limit = {1024, 1024};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    int end = limit.rlim_cur < 1048576 ? (int)limit.rlim_cur : 1048576;
    for (int fd = 0, k = 0; fd < end; fd++) {
        while (k < count && keep[k] < fd) k++;
        if (k >= count || keep[k] != fd) (void)close(fd);
    }
}

/* The whole of a small file below /proc; -1 where it cannot be read. */
static ssize_t slurp(const char *path, char *to, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    size_t at = 0;
    for (;;) {
        ssize_t n = read(fd, to + at, size - 1 - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            (void)close(fd);
            if (n < 0) return -1;
            break;
        }
        at += (size_t)n;
        if (at == size - 1) { (void)close(fd); break; }
    }
    to[at] = 0;
    return (ssize_t)at;
}

static const char *number(const char *at, int64_t *value) {
    bool negative = *at == '-';
    if (negative) at++;
    *value = 0;
    while (*at >= '0' && *at <= '9') *value = *value * 10 + (*at++ - '0');
    if (negative) *value = -*value;
    return at;
}

bool keeper_stat(pid_t pid, struct keeper_stat *stat) {
    char path[40], text[512];
    say_text(path, sizeof path, "/proc/%d/stat", (int)pid);
    ssize_t n = slurp(path, text, sizeof text);
    if (n <= 0) return false;
    const char *end = strrchr(text, ')');       /* the name may hold anything, blanks and brackets too */
    if (!end || end[1] != ' ' || !end[2] || end[3] != ' ') return false;
    int64_t parent;
    (void)number(end + 4, &parent);
    stat->state = end[2];
    stat->parent = (pid_t)parent;
    return true;
}

bool keeper_each_child(pid_t parent, keeper_child *each, void *context) {
    char path[64], text[4096];
    say_text(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    int64_t value = 0;
    bool within = false, done;
    for (;;) {
        ssize_t n = read(fd, text, sizeof text);
        if (n < 0 && errno == EINTR) continue;
        for (ssize_t i = 0; i < n; i++) {
            if (text[i] >= '0' && text[i] <= '9') { value = value * 10 + (text[i] - '0'); within = true; continue; }
            if (within) each((pid_t)value, context);
            value = 0;
            within = false;
        }
        done = n == 0;
        if (n <= 0) break;
    }
    (void)close(fd);
    return done;
}

uint64_t keeper_tag(pid_t pid) {
    char path[40], text[4096];
    say_text(path, sizeof path, "/proc/%d/limits", (int)pid);
    if (slurp(path, text, sizeof text) <= 0) return 0;
    const char *at = strstr(text, "Max file locks");
    if (!at) return 0;
    at += strlen("Max file locks");
    while (*at == ' ') at++;
    int64_t value = 0;
    (void)number(at, &value);
    return (uint64_t)value;
}

/* ---- the child, between vfork and execve: it borrows our memory, so it only stores what we read afterwards ---- */

static _Noreturn void failed(uint32_t step) {
    slot->error = errno;
    slot->step = step;
    _exit(127);
}

static bool write_number(const char *path, int32_t value) {
    char text[16];
    size_t n = say_text(text, sizeof text, "%d", (int)value);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool done = write(fd, text, n) == (ssize_t)n;
    int error = errno;
    (void)close(fd);
    errno = error;
    return done;
}

/* glibc's setrlimit takes an enum of its own, musl's an int. */
#ifdef __GLIBC__
#define RESOURCE(number) ((__rlimit_resource_t)(number))
#else
#define RESOURCE(number) ((int)(number))
#endif

/* For descriptors the kernel has an end that no right lifts: unlimited means as many as that. */
static rlim_t open_files(uint64_t wanted) {
    char text[32];
    int64_t most = 0;
    if (wanted != RLIM_INFINITY) return (rlim_t)wanted;
    if (slurp("/proc/sys/fs/nr_open", text, sizeof text) > 0) (void)number(text, &most);
    return most > 0 ? (rlim_t)most : 1048576;
}

static void set_limits(void) {
    struct rlimit limit = {(rlim_t)job.nofile_soft, (rlim_t)job.nofile_hard};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) failed(VG_STEP_LIMIT);
    /* The tag by which an heir finds what has left the session. Lowering is always allowed. */
    limit = (struct rlimit){(rlim_t)job.tag, (rlim_t)job.tag};
    (void)setrlimit(RLIMIT_LOCKS, &limit);
    for (uint32_t i = 0; i < job.spawn->limits; i++) {
        limit = (struct rlimit){(rlim_t)job.limits[i].soft, (rlim_t)job.limits[i].hard};
        if (job.limits[i].resource == RLIMIT_NOFILE) limit = (struct rlimit){open_files(job.limits[i].soft), open_files(job.limits[i].hard)};
        if (setrlimit(RESOURCE(job.limits[i].resource), &limit) != 0) failed(VG_STEP_LIMIT);
    }
}

static void set_user(void) {
    const struct vg_spawn *spawn = job.spawn;
    if (syscall(SYS_setgroups, (size_t)spawn->groups, job.groups) != 0) {
        /* An ordinary user may not set groups, and need not where it stays who it is. */
        if (errno != EPERM || spawn->uid != geteuid() || spawn->gid != getegid()) failed(VG_STEP_GROUPS);
    }
    if (syscall(SYS_setresgid, spawn->gid, spawn->gid, spawn->gid) != 0) failed(VG_STEP_GID);
    uid_t before = geteuid();
    if (syscall(SYS_setresuid, spawn->uid, spawn->uid, spawn->uid) != 0) failed(VG_STEP_UID);
    /* The kernel takes capabilities only from who was root. Those that vigild has as an ordinary user (CAP_SETUID, or it could not be here)
     * are its own: with them the service could make itself root. */
    if (spawn->uid != before) (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static void execute(char **argv, char **environment) {
    static char path[4096];
    const char *file = argv[0];
    if (strchr(file, '/') || !*file) {
        (void)execve(file, argv, environment);
        if (errno == ENOENT && *file && access(file, F_OK) == 0) { errno = ENOENT; failed(VG_STEP_INTERPRETER); }
        if (!*file) errno = ENOENT;
        return;
    }
    const char *search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (char **e = environment; *e; e++)
        if (strncmp(*e, "PATH=", 5) == 0) search = *e + 5;
    int error = ENOENT;
    for (;;) {
        const char *colon = strchr(search, ':');
        size_t length = colon ? (size_t)(colon - search) : strlen(search);
        if (length + strlen(file) + 2 <= sizeof path) {
            if (length) say_text(path, sizeof path, "%.*s/%s", (int)length, search, file);
            else say_text(path, sizeof path, "%s", file);
            (void)execve(path, argv, environment);
            if (errno == ENOENT && access(path, F_OK) == 0) { errno = ENOENT; failed(VG_STEP_INTERPRETER); }
            if (errno == EACCES) error = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR) return;
        }
        if (!colon) break;
        search = colon + 1;
    }
    errno = error;
}

static _Noreturn void child(pid_t keeper, char **argv, char **environment) {
    const struct vg_spawn *spawn = job.spawn;
    /* The keeper may be killed at any time. Dead before we came to run: the slot may be another run's already, nothing is written. Dead later:
     * not started, and whoever has seen `leader` waits for us. */
    if (getppid() != keeper) _exit(127);
    atomic_store_explicit(&slot->leader, (int32_t)syscall(SYS_getpid), memory_order_release);
    if (getppid() != keeper) { errno = EAGAIN; failed(VG_STEP_KEEPER); }
    if (setsid() < 0) failed(VG_STEP_SESSION);
    for (int i = 0; i < 3; i++)
        if (job.stdio[i] != i && dup2(job.stdio[i], i) < 0) failed(VG_STEP_STDIO);
    if (spawn->flags & VG_SET_OOM) {
        if (!write_number("/proc/self/oom_score_adj", spawn->oom_score_adj)) failed(VG_STEP_OOM);
    } else if (job.oom_score_adj != INT32_MIN) {
        (void)write_number("/proc/self/oom_score_adj", job.oom_score_adj);
    }
    set_limits();       /* after what needs a descriptor, of which the limits may leave none; before nice, whose bound is one of them */
    if (spawn->flags & VG_SET_NICE && setpriority(PRIO_PROCESS, 0, spawn->nice) != 0) failed(VG_STEP_NICE);
    if (spawn->flags & VG_SET_USER) set_user();
    if (spawn->flags & VG_SET_UMASK) (void)umask((mode_t)spawn->umask);
    if (chdir(job.directory) != 0) failed(VG_STEP_CHDIR);
    sig_clean();
    execute(argv, environment);
    failed(VG_STEP_EXEC);
}

/* ---- the tree ---- */

struct process { pid_t pid, parent; char state; bool ours; };

#define PROCESSES 262144        /* mapped, touched only as far as there are processes */

static struct process *tree;
static int tree_count;

static bool tree_map(void) {
    if (tree) return true;
    tree = mmap(NULL, PROCESSES * sizeof *tree, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (tree == MAP_FAILED) tree = NULL;
    return tree != NULL;
}

static void tree_unmap(void) {
    if (tree) (void)munmap(tree, PROCESSES * sizeof *tree);
    tree = NULL;
}

static struct process *tree_find(pid_t pid) {
    int low = 0, high = tree_count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (tree[middle].pid == pid) return &tree[middle];
        if (tree[middle].pid < pid) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* Every process of this namespace, ours marked; /proc lists them by ascending pid. False where there is no /proc. */
static bool tree_read(void) {
    struct { uint64_t ino; int64_t off; unsigned short size; unsigned char type; char name[]; } *entry;
    _Alignas(8) char buffer[8192];
    int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    pid_t self = getpid();
    tree_count = 0;
    for (;;) {
        long n = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
        if (n <= 0) break;
        for (long at = 0; at < n; at += entry->size) {
            entry = (void *)(buffer + at);
            if (entry->name[0] < '1' || entry->name[0] > '9' || tree_count == PROCESSES) continue;
            int64_t pid;
            struct keeper_stat stat;
            if (*number(entry->name, &pid) || !keeper_stat((pid_t)pid, &stat)) continue;
            if (tree_count && tree[tree_count - 1].pid >= (pid_t)pid) continue;
            tree[tree_count++] = (struct process){(pid_t)pid, stat.parent, stat.state, false};
        }
    }
    (void)close(fd);
    for (bool again = true; again;) {
        again = false;
        for (int i = 0; i < tree_count; i++) {
            if (tree[i].ours) continue;
            const struct process *parent = tree[i].parent == self ? NULL : tree_find(tree[i].parent);
            if (tree[i].parent != self && (!parent || !parent->ours)) continue;
            tree[i].ours = again = true;
        }
    }
    return tree_find(self) != NULL;     /* hidepid or another namespace's /proc: as good as none */
}

/* A direct child's pid is safe: only we reap. A deeper one is held by a pidfd while we look whether it is still what we saw. */
static void tree_signal(const struct process *process, int signal) {
    if (process->parent == getpid()) {
        (void)kill(process->pid, signal);
        return;
    }
    int fd = keeper_pidfd_open(process->pid);
    if (fd < 0) return;         /* gone, or no pidfds here: it becomes ours when its parent dies */
    struct keeper_stat now;
    if (keeper_stat(process->pid, &now)) {
        const struct process *parent = tree_find(now.parent);
        if (now.parent == getpid() || (parent && parent->ours)) (void)syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
    }
    (void)close(fd);
}

static struct { pid_t pid[4096]; int count; } children;

static void note_child(pid_t pid, void *context) {
    (void)context;
    if (children.count < (int)(sizeof children.pid / sizeof *children.pid)) children.pid[children.count++] = pid;
}

/* A child's number found by asking for each: answers for children only, needs no rights and no /proc. */
static void children_by_asking(pid_t end) {
    for (pid_t pid = 2; pid < end; pid++) {
        siginfo_t info;
        if (pid % 8192 == 0) atomic_fetch_add(&slot->beat, 1);      /* four million take seconds on a busy machine */
        if (syscall(SYS_waitid, P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT, NULL) == 0) note_child(pid, NULL);
    }
}

/* Our children, as many as fit: who kills them comes again. */
static void find_children(pid_t end) {
    children.count = 0;
    if (!keeper_each_child(getpid(), note_child, NULL)) {
        children.count = 0;
        children_by_asking(end);
    }
}

/* `all` in vain rounds only: where there is no /proc that asks for four million numbers, and trees mostly have low ones. */
static void kill_children(bool all) {
    find_children(all ? PIDS_UNKNOWN : PIDS_USUAL);
    for (int i = 0; i < children.count; i++) (void)kill(children.pid[i], SIGKILL);
}

/* ---- reaping, requests, the end ---- */

static _Noreturn void gone(void) {
    atomic_store_explicit(&slot->state, SLOT_GONE, memory_order_release);
    wake();
    _exit(0);
}

/* Reaps all that is dead; true: nothing is left. The leader's status is stored before it is reaped, so it is known whoever dies. */
static bool reap(void) {
    for (;;) {
        siginfo_t info;
        struct rusage usage;
        info.si_pid = 0;
        if (syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL, &usage) != 0) {
            if (errno == EINTR) continue;
            return errno == ECHILD;
        }
        if (info.si_pid == 0) return false;
        if (info.si_pid == atomic_load(&slot->leader) && !leader_reaped) {
            slot->code = info.si_code;
            slot->status = info.si_status;
            slot->user_us = (uint64_t)usage.ru_utime.tv_sec * 1000000u + (uint64_t)usage.ru_utime.tv_usec;
            slot->system_us = (uint64_t)usage.ru_stime.tv_sec * 1000000u + (uint64_t)usage.ru_stime.tv_usec;
            slot->max_rss_kb = (uint64_t)usage.ru_maxrss;
            slot->exited_real_ns = say_real_ns();
            atomic_store_explicit(&slot->state, SLOT_DEAD, memory_order_release);
            wake();
            leader_reaped = true;
        }
        if (syscall(SYS_waitid, P_PID, info.si_pid, &info, WEXITED | WNOHANG | __WALL, NULL) == 0) reaped++;
    }
}

static bool is_noted(pid_t pid) {
    for (int i = 0; i < children.count; i++)
        if (children.pid[i] == pid) return true;
    return false;
}

/* All that is left: our children first, whom hidepid does not hide from us, then what /proc shows below them. */
static void signal_tree(uint64_t mask) {
    pid_t leader = atomic_load(&slot->leader);
    bool mapped = tree != NULL;         /* by empty, which goes on with it */
    find_children(PIDS_UNKNOWN);
    for (int i = 0; i < children.count; i++) {
        uint64_t had = getpgid(children.pid[i]) == leader ? group_sent : 0;
        for (int s = 1; s <= 64; s++)
            if (mask & ~had & SIG_BIT(s)) (void)kill(children.pid[i], s);
    }
    if (tree_map() && tree_read()) {
        for (int i = 0; i < tree_count; i++) {
            if (!tree[i].ours || tree[i].state == 'Z' || is_noted(tree[i].pid)) continue;
            uint64_t had = getpgid(tree[i].pid) == leader ? group_sent : 0;
            for (int s = 1; s <= 64; s++)
                if (mask & ~had & SIG_BIT(s)) tree_signal(&tree[i], s);
        }
    }
    if (!mapped) tree_unmap();
}

static void requests(void) {
    uint32_t request = atomic_load_explicit(&slot->request, memory_order_acquire);
    if (request == answered) return;
    pid_t leader = atomic_load(&slot->leader);
    uint64_t to_main = atomic_load(&slot->to_main), to_group = atomic_load(&slot->to_group), to_tree = atomic_load(&slot->to_tree);
    for (int s = 1; s <= 64; s++)
        if (to_main & SIG_BIT(s) && !leader_reaped) (void)kill(leader, s);
    if (to_group && !leader_reaped) {
        for (int s = 1; s <= 64; s++)
            if (to_group & SIG_BIT(s)) (void)kill(-leader, s);
        group_sent |= to_group;
    }
    if (to_tree) signal_tree(to_tree);
    answered = request;
    atomic_store_explicit(&slot->answered, request, memory_order_release);
    wake();
}

/* Waits for one of our signals, `ms` at most (negative: for ever). */
static void pause_for(int64_t ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    siginfo_t info;
    int got = ms < 0 ? sigwaitinfo(&wakers, &info) : sigtimedwait(&wakers, &info, &time);
    if (got == VG_ORPHANED && getppid() != job.parent) orphaned = true;
}

static void freeze_and_kill(void) {
    for (int pass = 0, still = 0; pass < FREEZE_PASSES && (still < 1 || pass < 2); pass++) {
        int stopped = 0;
        if (!tree_read()) return;
        for (int i = 0; i < tree_count; i++) {
            if (!tree[i].ours || (tree[i].state != 'R' && tree[i].state != 'S')) continue;
            tree_signal(&tree[i], SIGSTOP);
            stopped++;
        }
        still = stopped ? 0 : still + 1;
        atomic_fetch_add(&slot->beat, 1);
    }
    for (int i = 0; i < tree_count; i++)
        if (tree[i].ours && tree[i].state != 'Z') tree_signal(&tree[i], SIGKILL);
}

/* Kills all that is left, until nothing is. */
static _Noreturn void empty(void) {
    bool vain = false;
    for (int round = 0; round < QUICK_ROUNDS; round++) {
        uint64_t count = reaped;
        atomic_fetch_add(&slot->beat, 1);
        kill_children(vain);
        if (reap()) gone();
        requests();
        pause_for(2);
        if (reap()) gone();
        vain = reaped == count;
    }
    /* 500 runnable processes, each a session (autogroup), would leave us 1/500 of the CPU. */
    (void)sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
    bool proc = tree_map();
    int64_t patience = STALL_MS;
    for (;;) {
        if (proc) freeze_and_kill();
        uint64_t before = reaped;
        if (reap()) gone();
        for (int64_t idle = 0; idle < patience;) {
            uint64_t count = reaped;
            atomic_fetch_add(&slot->beat, 1);
            kill_children(idle > 0);
            if (reap()) gone();
            requests();
            int64_t step = patience > STALL_MS ? patience / 4 : 5;
            pause_for(step);
            if (reap()) gone();
            idle = reaped != count ? 0 : idle + step;
        }
        patience = reaped != before ? STALL_MS : patience * 2 < STALL_MAX_MS ? patience * 2 : STALL_MAX_MS;
    }
}

/* vigild is not PID 1 and died under us: the service is stopped as its plan says, by us alone. */
static _Noreturn void finish_alone(void) {
    uint64_t end = slot->kill_delay_ms == VG_FOREVER ? VG_FOREVER : say_now_ns() + slot->kill_delay_ms * 1000000u;
    bool told = false;
    if (!leader_reaped && slot->stop_signal) {
        (void)kill(-atomic_load(&slot->leader), (int)slot->stop_signal);
        (void)kill(-atomic_load(&slot->leader), SIGCONT);
        group_sent |= SIG_BIT(slot->stop_signal);
    }
    for (;;) {
        if (reap()) _exit(0);
        if (leader_reaped && !told && slot->stop_signal) {
            told = true;
            signal_tree(SIG_BIT(slot->stop_signal) | SIG_BIT(SIGCONT));
            continue;
        }
        uint64_t now = say_now_ns();
        if (now >= end) empty();
        pause_for(end == VG_FOREVER ? 1000 : (int64_t)((end - now) / 1000000u) + 1);
    }
}

static void set_title(void) {
    char title[200];
    say_text(title, sizeof title, "vigild: keeper of %s", job.name);
    size_t n = strlen(title) < job.title_size ? strlen(title) : job.title_size - 1;
    memset(job.title, 0, job.title_size);
    memcpy(job.title, title, n);
}

static _Noreturn void give_up(uint32_t step, int error) {
    slot->error = error;
    slot->step = step;
    atomic_store_explicit(&slot->state, SLOT_FAILED, memory_order_release);
    wake();
    _exit(0);
}

_Noreturn void keeper_run(const struct keeper_job *given) {
    job = *given;
    slot = job.slot;
    (void)setsid();
    (void)prctl(PR_SET_NAME, "vigil-keeper");
    if (job.title_size) set_title();
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) give_up(VG_STEP_KEEPER, errno);
    if (job.orphanable) {
        (void)prctl(PR_SET_PDEATHSIG, VG_ORPHANED);
        orphaned = getppid() != job.parent;
        if (orphaned) _exit(0);
    }
    (void)sigemptyset(&wakers);
    (void)sigaddset(&wakers, SIGCHLD);
    (void)sigaddset(&wakers, VG_POKE);
    (void)sigaddset(&wakers, VG_ORPHANED);

    int keep[5] = {job.stdio[0], job.stdio[1], job.stdio[2], job.null, job.wake};
    for (int i = 1; i < 5; i++)
        for (int j = i; j > 0 && keep[j - 1] > keep[j]; j--) { int swap = keep[j]; keep[j] = keep[j - 1]; keep[j - 1] = swap; }
    keeper_close_all_but(keep, 5);

    const struct vg_spawn *spawn = job.spawn;
    size_t pointers = ((size_t)spawn->argc + spawn->envc + 2) * sizeof(char *);
    const char **vector = mmap(NULL, pointers, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vector == MAP_FAILED) give_up(VG_STEP_VFORK, errno);
    const char *text = job.strings;
    for (uint32_t i = 0; i < spawn->argc; i++, text += strlen(text) + 1) vector[i] = text;
    for (uint32_t i = 0; i < spawn->envc; i++, text += strlen(text) + 1) vector[spawn->argc + 1 + i] = text;

    pid_t self = getpid();
    atomic_store_explicit(&slot->state, SLOT_BORN, memory_order_release);
    pid_t pid = vfork();
    if (pid == 0) child(self, (char **)(void *)vector, (char **)(void *)(vector + spawn->argc + 1));
    if (pid < 0) give_up(VG_STEP_VFORK, errno);
    if (slot->step != VG_STEP_NONE) {
        while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) {}
        give_up(slot->step, slot->error);
    }
    (void)prctl(PR_SET_DUMPABLE, 0);
    keeper_close_all_but(&job.wake, 1);
    (void)munmap(vector, pointers);
    (void)munmap(job.blob, job.blob_size);
    atomic_store_explicit(&slot->state, SLOT_STARTED, memory_order_release);
    wake();
    for (;;) {
        if (reap()) gone();
        requests();
        if (atomic_load_explicit(&slot->empty, memory_order_acquire)) empty();
        if (orphaned) finish_alone();
        pause_for(-1);
    }
}
