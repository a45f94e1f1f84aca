/*
 * pipes - the log pipes, made by PID 1, and the notification sockets, made by control: read by logger only.
 *
 * Owns: the read ends of all log pipes and the sockets, until logger says that it has taken what was in them.
 * Calls: nothing of vigil.
 * On failure: a run whose pipes cannot be made is not started (its SPAWN fails with this step and errno).
 *
 * A new pipe per run: a crash in mid-line must not glue two runs together. A new socket per run: what comes out of it is about that run,
 * whenever it is read, and a READY of the last run can make no other ready. Pipes, never sockets: open("/dev/stdout") fails on those.
 * The size stays the default: larger ones use up the user's budget, and later pipes would get 8 KiB.
 */
#include "pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "table.h"

#define PIPES (2 * TABLE_RUNS)
#define RESERVED 8                      /* entries that no run takes: lives of control, diagnostics */

static struct pipes *table;
static uint32_t top, held, most;        /* held: descriptors that runs have here; most: that they may have */

/* A run's entry may wait for logger while its slot is used again, but not without end: without logger runs that come and go would use up all
 * descriptors, and then logger could not be started. Three descriptors a run, the fourth is its log: so half a table of runs may wait, or
 * every run may have a socket. */
bool pipes_make(uint32_t runs) {
    most = 3 * runs;
    void *memory = mmap(NULL, PIPES * sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    (void)madvise(memory, PIPES * sizeof *table, MADV_DONTFORK);
    table = memory;
    return true;
}

static bool of_run(struct vg_run run) { return run.slot < TABLE_RUNS; }

static struct pipes *take(struct vg_run run, const char *log, const char *prefix, uint32_t log_mode, uint32_t forward_format) {
    uint32_t i = 0;
    while (i < top && table[i].run.slot != VG_NO_SLOT) i++;
    if (i >= (of_run(run) ? PIPES - RESERVED : PIPES)) { errno = EAGAIN; return NULL; }
    if (i == top) top++;
    struct pipes *pipes = &table[i];
    memset(pipes, 0, sizeof *pipes);
    pipes->run = run;
    pipes->fd[0] = pipes->fd[1] = pipes->fd[2] = -1;
    pipes->log_mode = log_mode;
    pipes->forward_format = forward_format;
    memcpy(pipes->log, log, strnlen(log, VG_NAME_MAX));
    memcpy(pipes->prefix, prefix, strnlen(prefix, VG_PREFIX_MAX));
    return pipes;
}

struct pipes *pipes_open(struct vg_run run, const char *log, const char *prefix, uint32_t log_mode, uint32_t forward_format, uint32_t uid, int ends[2]) {
    int made[2][2] = {{-1, -1}, {-1, -1}};
    if (of_run(run) && held + 2 > most) { errno = EAGAIN; return NULL; }
    struct pipes *pipes = take(run, log, prefix, log_mode, forward_format);
    if (!pipes) return NULL;
    for (int i = 0; i < 2; i++) {
        if (pipe2(made[i], O_CLOEXEC) != 0) goto failed;
        /* Both ends are one inode: without this nginx and others get EACCES when they reopen /dev/stdout. Not fatal where it is not allowed. */
        if (uid != UINT32_MAX && fchown(made[i][1], uid, (gid_t)-1) != 0) errno = 0;
    }
    for (int i = 0; i < 2; i++) {
        pipes->fd[i] = made[i][0];
        ends[i] = made[i][1];
    }
    pipes->owed = PIPES_STDOUT | PIPES_STDERR;
    if (of_run(run)) held += 2;
    return pipes;
failed:;
    int error = errno;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            if (made[i][j] >= 0) (void)close(made[i][j]);
    pipes_close(pipes);
    errno = error;
    return NULL;
}

struct pipes *pipes_open_one(struct vg_run run, const char *log, int *end) {
    int made[2];
    struct pipes *pipes = take(run, log, "", VG_LOG_ENABLED, VG_FORMAT_RAW);
    if (!pipes) return NULL;
    if (pipe2(made, O_CLOEXEC | O_NONBLOCK) != 0) {
        pipes_close(pipes);
        return NULL;
    }
    pipes->fd[1] = made[0];
    pipes->owed = PIPES_STDERR;
    *end = made[1];
    return pipes;
}

int pipes_notify(struct vg_run run, int fd, const char *name, uint32_t uid, uint64_t tag) {
    if (held + 1 > most) return EAGAIN;
    struct pipes *pipes = pipes_find(run);
    if (!pipes) pipes = take(run, "", "", VG_LOG_NONE, VG_FORMAT_TEXT);
    if (!pipes) return errno;
    memcpy(pipes->name, name, strnlen(name, VG_NAME_MAX));
    pipes->fd[2] = fd;
    pipes->uid = uid;
    pipes->tag = tag;
    pipes->owed |= PIPES_NOTIFY;
    held++;
    return 0;
}

struct pipes *pipes_find(struct vg_run run) {
    for (uint32_t i = 0; i < top; i++)
        if (table[i].run.slot == run.slot && table[i].run.generation == run.generation && run.slot != VG_NO_SLOT) return &table[i];
    return NULL;
}

void pipes_end(struct vg_run run) {
    struct pipes *pipes = pipes_find(run);
    if (!pipes || pipes->ended) return;
    pipes->ended = true;
    pipes->owed |= PIPES_FORGET;
}

void pipes_close(struct pipes *pipes) {
    for (int i = 0; i < 3; i++) {
        if (pipes->fd[i] < 0) continue;
        (void)close(pipes->fd[i]);
        if (of_run(pipes->run)) held--;
    }
    pipes->run.slot = VG_NO_SLOT;
    while (top > 0 && table[top - 1].run.slot == VG_NO_SLOT) top--;
}

struct pipes *pipes_at(uint32_t index) { return &table[index]; }
uint32_t pipes_top(void) { return top; }

void pipes_tell_again(void) {
    for (uint32_t i = 0; i < top; i++) {
        if (table[i].run.slot == VG_NO_SLOT) continue;
        table[i].owed = (table[i].fd[0] >= 0 ? PIPES_STDOUT : 0u) | (table[i].fd[1] >= 0 ? PIPES_STDERR : 0u) | (table[i].fd[2] >= 0 ? PIPES_NOTIFY : 0u)
                      | (table[i].ended ? PIPES_FORGET : 0u);
    }
}
