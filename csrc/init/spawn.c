/*
 * spawn - from a SPAWN message to a keeper.
 *
 * Owns: what every start needs (spawn_setting).
 * Calls: table, pipes, keeper, chan.
 * On failure: nothing is left open and the table is as before; the caller answers with step and errno.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper.h"
#include "pipes.h"
#include "say.h"

_Static_assert(TABLE_RUNS <= 1 << 16, "a slot fits a tag");

struct spawn_setting spawn_setting = {.wake = -1, .null = -1, .oom_score_adj = INT32_MIN, .tag = KEEPER_TAG};

#define FLAGS (VG_EPHEMERAL | VG_CTTY | VG_SET_USER | VG_SET_UMASK | VG_SET_NICE | VG_SET_OOM | VG_STDIN_INHERIT | VG_FD_0 | VG_FD_1 | VG_FD_2 | VG_NOTIFY)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct blob {
    void *memory;
    size_t size;
    const uint32_t *groups;
    const struct vg_limit *limits;
    const char *name, *log, *prefix, *directory, *argv;
};

static int sensible(const struct vg_spawn *spawn, int fds) {
    int wanted = 1 + !!(spawn->flags & VG_FD_0) + !!(spawn->flags & VG_FD_1) + !!(spawn->flags & VG_FD_2) + !!(spawn->flags & VG_NOTIFY);
    if (spawn->flags & ~(uint32_t)FLAGS || fds != wanted) return EINVAL;
    if (spawn->kind < VG_SERVICE || spawn->kind > VG_SESSION) return EINVAL;
    if (spawn->kind == VG_SESSION || spawn->flags & VG_CTTY || spawn->capabilities || spawn->no_new_privs) return ENOSYS;
    if (spawn->stop_signal < 1 || spawn->stop_signal > 64 || spawn->log_mode > VG_LOG_PASSTHROUGH || spawn->forward_format > VG_FORMAT_RAW) return EINVAL;
    if (spawn->argc < 1 || spawn->note_size > VG_NOTE_MAX || spawn->blob_size > VG_BLOB_MAX) return EINVAL;
    if (spawn->groups > 65536 || spawn->limits > 64 || spawn->argc > VG_BLOB_MAX || spawn->envc > VG_BLOB_MAX) return EINVAL;
    if (spawn->kill_delay_ms != VG_FOREVER && spawn->kill_delay_ms > SPAWN_DELAY_MOST_MS) return EINVAL;
    return 0;
}

/* Maps the blob and finds its parts; every string must end within it. */
static int open_blob(int fd, const struct vg_spawn *spawn, struct blob *blob) {
    struct stat stat;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS) return EINVAL;
    if (fstat(fd, &stat) != 0 || stat.st_size < (off_t)spawn->blob_size || spawn->blob_size == 0) return EINVAL;
    size_t groups = ((size_t)spawn->groups * 4 + 7) & ~(size_t)7, limits = (size_t)spawn->limits * sizeof(struct vg_limit);
    if (groups + limits >= spawn->blob_size) return EINVAL;
    blob->size = spawn->blob_size;
    blob->memory = mmap(NULL, blob->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (blob->memory == MAP_FAILED) return errno;
    char *base = blob->memory;
    blob->groups = (const uint32_t *)blob->memory;
    blob->limits = (const struct vg_limit *)(void *)(base + groups);
    const char *at = base + groups + limits, *end = base + blob->size;
    uint64_t strings = 4ULL + spawn->argc + spawn->envc;
    for (uint32_t i = 0; i < spawn->limits; i++)
        if (blob->limits[i].resource == RLIMIT_LOCKS) goto bad;     /* it holds the tag of the run */
    const char **parts[] = {&blob->name, &blob->log, &blob->prefix, &blob->directory, &blob->argv};
    for (uint64_t i = 0; i < strings; i++) {
        const char *zero = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
        if (!zero) goto bad;
        if (i < 5) *parts[i] = at;
        at = zero + 1;
    }
    if (strlen(blob->name) > VG_NAME_MAX || !*blob->name || strlen(blob->log) > VG_NAME_MAX || strlen(blob->prefix) > VG_PREFIX_MAX || *blob->directory != '/') goto bad;
    return 0;
bad:
    (void)munmap(blob->memory, blob->size);
    return EINVAL;
}

/* Whatever it is, logger could read it; but only such a socket tells who sent what. */
static bool notifies(int fd) {
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0
        && domain == AF_UNIX && type == SOCK_DGRAM;
}

uint64_t spawn_tag(const struct run *run) {
    return spawn_setting.tag | (uint64_t)(run->generation & 0x3fffffff) << 16 | table_slot(run);
}

int spawn_start(struct chan_message *message, uint32_t *step) {
    struct vg_spawn spawn;
    struct blob blob = {.memory = NULL};
    int ends[2] = {-1, -1}, error;
    struct run *run = NULL;
    struct pipes *pipes = NULL;
    char log[VG_PARK_MAX + 1];

    memcpy(&spawn, message->words, sizeof spawn);
    *step = VG_STEP_NONE;
    error = sensible(&spawn, message->count);
    int socket = spawn.flags & VG_NOTIFY ? message->count - 1 : -1;     /* its place in the message */
    if (!error && socket >= 0 && !notifies(message->fds[socket])) error = EINVAL;
    if (!error) error = open_blob(message->fds[0], &spawn, &blob);
    if (error) return error;
    bool captured = spawn.log_mode == VG_LOG_ENABLED || spawn.log_mode == VG_LOG_DISABLED;
    say_text(log, sizeof log, "log/%s", blob.log);
    if (captured && (!*blob.log || parked_fd(log) < 0)) { error = ENOENT; goto out; }
    run = table_take();
    if (!run) { error = ENOSPC; goto out; }

    struct keeper_job job = {
        .slot = table_shared(run), .tag = spawn_tag(run), .wake = spawn_setting.wake,
        .stdio = {spawn_setting.null, spawn_setting.null, spawn_setting.null}, .null = spawn_setting.null, .parent = getpid(),
        .orphanable = spawn_setting.orphanable, .spawn = &spawn, .groups = blob.groups, .limits = blob.limits, .name = blob.name,
        .directory = blob.directory, .strings = blob.argv, .blob = blob.memory, .blob_size = blob.size,
        .nofile_soft = spawn_setting.nofile_soft, .nofile_hard = spawn_setting.nofile_hard, .title = spawn_setting.title,
        .title_size = spawn_setting.title_size, .oom_score_adj = spawn_setting.oom_score_adj,
    };
    if (captured) {
        pipes = pipes_open(table_id(run), blob.log, blob.prefix, spawn.log_mode, spawn.forward_format,
                           spawn.flags & VG_SET_USER ? spawn.uid : UINT32_MAX, ends);
        if (!pipes) { error = errno; *step = VG_STEP_PIPE; goto out; }
        job.stdio[1] = ends[0];
        job.stdio[2] = ends[1];
    } else if (spawn.log_mode == VG_LOG_PASSTHROUGH) {
        job.stdio[1] = 1;
        job.stdio[2] = 2;
    }
    if (socket >= 0) {
        error = pipes_notify(table_id(run), message->fds[socket], blob.name, spawn.flags & VG_SET_USER ? spawn.uid : geteuid(), job.tag);
        if (error) { *step = VG_STEP_PIPE; goto out; }
        (void)chan_take_fd(message, socket);
        pipes = pipes_find(table_id(run));
    }
    if (spawn.flags & VG_STDIN_INHERIT) job.stdio[0] = 0;
    for (int i = 0, next = 1; i < 3; i++)
        if (spawn.flags & ((uint32_t)VG_FD_0 << i)) job.stdio[i] = message->fds[next++];

    run->kind = spawn.kind;
    run->token = spawn.token;
    run->stop_signal = spawn.stop_signal;
    run->component = spawn.component;
    run->rank = spawn.rank;
    run->kill_delay_ms = spawn.kill_delay_ms;
    run->forward_mask = spawn.forward_mask;
    run->deadline = spawn.deadline_ns;
    run->log_mode = spawn.log_mode;
    run->flags = spawn.flags & VG_EPHEMERAL ? VG_IS_EPHEMERAL : 0;
    run->note_size = spawn.note_size;
    memcpy(run->note, spawn.note, sizeof run->note);
    memcpy(run->name, blob.name, strlen(blob.name) + 1);
    job.slot->stop_signal = spawn.stop_signal;
    job.slot->kill_delay_ms = spawn.kill_delay_ms;
    run->started_real_ns = say_real_ns();

    pid_t keeper = fork();
    if (keeper == 0) keeper_run(&job);
    if (keeper < 0) { error = errno; *step = VG_STEP_FORK; goto out; }
    run->keeper = keeper;
    run->state = VG_RUN_STARTING;
out:
    if (ends[0] >= 0) (void)close(ends[0]);
    if (ends[1] >= 0) (void)close(ends[1]);
    if (error && pipes) pipes_close(pipes);
    if (error && run) table_free(run);
    (void)munmap(blob.memory, blob.size);
    return error;
}
