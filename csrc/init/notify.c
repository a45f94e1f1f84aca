/*
 * notify.c - what services say of themselves: takes every datagram at once, believes the right ones, keeps them on the board.
 *
 * Owns the sockets' descriptors and the board. Calls keeper (the tag of a process), say. A socket is a run's own: control makes it,
 * SPAWN brings it, PID 1 keeps it like the run's pipes. So whatever comes out of it is about that run and no other, whenever it is read.
 *
 * Always drained, whatever stdout does and whoever reads: the eleventh unread datagram would block its sender. Killed at any
 * instruction, its successor goes on without a datagram lost or counted twice: the kernel writes text and credentials straight into
 * J, where they were zero before, and cannot die in between. What follows starts from saved values and can be done twice.
 *
 * Descriptors that come along (FDSTORE=1, BARRIER=1) never become ours: there is no room for them, so the kernel closes them as it hands
 * over the datagram, which is what systemd-notify waits for.
 */
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "keeper.h"
#include "say.h"

enum {
    SOCKETS_MAX = 8192,         /* of live runs, and of those that are over and not taken to their end */
    TAKEN_A_TURN = 16,          /* of one socket: more than it holds by default */
    TAKEN_AT_END = 256,         /* who else has the socket must not keep a run from ending */
    COMPLAINTS = 64,
    SEALS = F_SEAL_GROW | F_SEAL_SHRINK
};

static const char target[] = "vigil.logger";
static const uint64_t minute = UINT64_C(60000000000);

struct socket {
    int fd;                     /* -1: free */
    struct vg_run run;
    uint32_t uid;
    uint64_t tag;
    char name[136];
};

/* What was said lately, of which service: once a minute is enough. */
struct complaint { const char *what; char name[136]; uint64_t at, since; };

static struct notify_intent *intent;
static struct vg_board *board;
static struct vg_notice *notices;
static struct socket sockets[SOCKETS_MAX];
static struct complaint complaints[COMPLAINTS];
static uint32_t sockets_top;
static uint64_t tag_base;
static int poller = -1, wake = -1;
static bool news, behind;       /* control is to be woken; a socket was not read to its end in this turn */

int notify_board_create(void)
{
    struct vg_board header = { .magic = VG_BOARD_MAGIC, .version = VG_BOARD_VERSION };
    int fd = memfd_create("vigil-notify", MFD_CLOEXEC | MFD_ALLOW_SEALING), error;

    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)VG_BOARD_SIZE) == 0 && pwrite(fd, &header, sizeof header, 0) == (ssize_t)sizeof header
        && fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) == 0)
        return fd;
    error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

/* --- What is said of it ------------------------------------------------------------------------------------------------------ */

/* Once per service and minute; the count is of those that were not said since. */
static void complain(const char *what, const char *name, int pid, uint32_t uid)
{
    struct complaint *place = &complaints[0];
    uint64_t now = say_now_ns();

    for (int at = 0; at < COMPLAINTS; at++) {
        struct complaint *seen = &complaints[at];

        if (seen->what == what && !strcmp(seen->name, name)) {
            if (now < seen->at + minute) {
                seen->since++;
                return;
            }
            place = seen;
            break;
        }
        if (seen->at < place->at)
            place = seen;
    }
    if (place->what != what || strcmp(place->name, name)) {
        *place = (struct complaint){ .what = what };
        memcpy(place->name, name, strnlen(name, sizeof place->name - 1));
    }
    if (place->since)
        say(VG_WARN, target, "%s: pid %d (uid %u) %s (and %llu more since this was said last)", name, pid, uid, what, (unsigned long long)place->since);
    else
        say(VG_WARN, target, "%s: pid %d (uid %u) %s", name, pid, uid, what);
    place->at = now;
    place->since = 0;
}

static const char forged[] = "sent it a notification without being one of its processes: dropped";
static const char senseless[] = "sent a notification that is empty, longer than 4096 bytes, or has a NUL in it: dropped";
static const char main_pid[] = "named another main process (MAINPID=): ignored, the process that was started stays the main one";

/* --- Whom to believe --------------------------------------------------------------------------------------------------------- */

/*
 * A sender that lives, or is not reaped yet, is one of the run's processes if it has the tag that all of them inherit (keeper.h), which
 * says slot and generation: neither another service nor an earlier run has the same. prlimit() tells it without /proc where sender and
 * logger are one user or we have CAP_SYS_RESOURCE; else /proc/PID/limits does, which everybody may read.
 *
 * One that is dead already (systemd-notify exits at once) has left only what the kernel noted when it sent: pid and uid. Then the uid
 * must be the service's, or root. That is as much as can be had, and enough: who has the service's uid could as well send from within it,
 * by ptrace, and need not be quick to die for that. The same holds for one that cannot be looked at (no /proc, or hidepid).
 *
 * The pid of a dead sender may be somebody else's by now only after all numbers were used once, in the milliseconds until it is read.
 */
static bool believed(const struct ucred *sender)
{
    struct rlimit limit;
    struct keeper_stat stat;

    if (sender->pid <= 0)       /* of another namespace, where none of our runs is */
        return false;
    if (syscall(SYS_prlimit64, sender->pid, RLIMIT_LOCKS, NULL, &limit) == 0)
        return limit.rlim_cur == intent->tag || limit.rlim_max == intent->tag;
    if (errno != ESRCH) {
        if (keeper_tag(sender->pid) == intent->tag)
            return true;
        if (keeper_stat(sender->pid, &stat))    /* it is still there: what was read is true */
            return false;
        if (!intent->told && (kill(sender->pid, 0) == 0 || errno == EPERM)) {
            intent->told = 1;
            say(VG_WARN, target, "cannot see who sends notifications here (no /proc, or hidepid): whoever has a service's uid is believed");
        }
    }
    return sender->uid == intent->uid || sender->uid == 0;
}

/* --- The board --------------------------------------------------------------------------------------------------------------- */

static void begin(struct vg_notice *notice)
{
    __atomic_store_n(&notice->version, notice->version | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void end(struct vg_notice *notice)
{
    __atomic_store_n(&notice->version, (notice->version | 1) + 1, __ATOMIC_RELEASE);
}

static bool number(const char *text, size_t size, uint64_t *value)
{
    *value = 0;
    if (size == 0 || size > 19)
        return false;
    for (size_t at = 0; at < size; at++) {
        if (text[at] < '0' || text[at] > '9')
            return false;
        *value = *value * 10 + (uint64_t)(text[at] - '0');
    }
    return true;
}

static bool is(const char *line, size_t size, const char *wanted)
{
    return size == strlen(wanted) && !memcmp(line, wanted, size);
}

/* What follows KEY= in a line; NULL: it is another key's. */
static const char *value_of(const char *line, size_t size, const char *key, size_t *rest)
{
    size_t length = strlen(key);

    if (size < length || memcmp(line, key, length))
        return NULL;
    *rest = size - length;
    return line + length;
}

static void take_status(struct vg_notice *notice, const struct vg_mark *mark, const char *text, size_t size, bool again)
{
    if (size > VG_STATUS_MAX)   /* never in the middle of a character */
        for (size = VG_STATUS_MAX; size && ((unsigned char)text[size] & 0xc0) == 0x80; size--) {}
    if (again || !notice->status.seq || size != notice->text_size || memcmp(text, notice->text, size))
        notice->told = mark->seq;
    memcpy(notice->text, text, size);
    notice->text_size = (uint32_t)size;
    notice->status = *mark;
}

/* `again`: a predecessor was killed while it wrote this very line. */
static void take_line(struct vg_notice *notice, const struct vg_mark *mark, const char *line, size_t size, bool again)
{
    const char *value;
    uint64_t count;
    size_t rest;

    if (is(line, size, "WATCHDOG=1")) {
        notice->watchdog = *mark;
        return;                 /* nobody is woken for it: control looks when the time is up */
    }
    if ((value = value_of(line, size, "STATUS=", &rest))) {
        take_status(notice, mark, value, rest, again);
        return;
    }
    if (is(line, size, "READY=1")) {
        if (!notice->ready.seq || notice->ready.seq == mark->seq)
            notice->ready = *mark;
        notice->ready_again = *mark;
    } else if (is(line, size, "RELOADING=1")) {
        notice->reloading = *mark;
    } else if (is(line, size, "STOPPING=1")) {
        notice->stopping = *mark;
    } else if (is(line, size, "WATCHDOG=trigger")) {
        notice->trigger = *mark;
    } else if ((value = value_of(line, size, "WATCHDOG_USEC=", &rest)) && number(value, rest, &count)) {
        notice->period_usec = count;
        notice->period = *mark;
    } else if ((value = value_of(line, size, "EXTEND_TIMEOUT_USEC=", &rest)) && number(value, rest, &count)) {
        notice->extend_usec = count;
        notice->extend = *mark;
    } else {
        if (value_of(line, size, "MAINPID=", &rest))
            complain(main_pid, intent->name, mark->pid, mark->uid);
        return;                 /* what we do not know is left alone: every program sends something else beside */
    }
    notice->told = mark->seq;
}

/* How much came: trailing NULs count for nothing, so that no length has to be remembered. */
static size_t text_size(void)
{
    size_t size = sizeof intent->text;

    _Static_assert(sizeof intent->text % sizeof(uint64_t) == 0, "whole words");
    for (; size; size -= sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, intent->text + size - sizeof word, sizeof word);
        if (word)
            break;
    }
    while (size && !intent->text[size - 1])
        size--;
    return size;
}

/* The second half of taking a datagram: what is in J goes to the board. Done again by a successor it comes to the same. False: none came. */
static bool absorb(void)
{
    struct vg_notice *notice = &notices[intent->run.slot % VG_BOARD_NOTICES];
    struct vg_mark mark = { .seq = intent->seq, .real_ns = intent->real_ns, .now_ns = intent->now_ns };
    struct cmsghdr head;
    struct ucred sender;
    size_t size = text_size();
    bool again, good = size > 0 && size <= VG_NOTIFY_MAX && !memchr(intent->text, 0, size);

    memcpy(&head, intent->control, sizeof head);
    memcpy(&sender, (const char *)intent->control + CMSG_LEN(0), sizeof sender);
    if (head.cmsg_len == 0) {
        __atomic_store_n(&intent->state, 0, __ATOMIC_SEQ_CST);
        return false;
    }
    mark.pid = sender.pid;
    mark.uid = sender.uid;
    if (notice->generation == intent->run.generation) {
        bool mine = believed(&sender);
        const char *line = intent->text, *last = intent->text + size;

        if (!mine)
            complain(forged, intent->name, sender.pid, sender.uid);
        else if (!good)
            complain(senseless, intent->name, sender.pid, sender.uid);
        again = notice->version & 1;
        begin(notice);
        notice->taken = intent->taken + (mine && good);
        notice->forged = intent->forged + !mine;
        notice->senseless = intent->senseless + (mine && !good);
        while (mine && good && line < last) {
            const char *next = memchr(line, '\n', (size_t)(last - line));

            take_line(notice, &mark, line, (size_t)((next ? next : last) - line), again);
            line = next ? next + 1 : last;
        }
        news |= notice->told == mark.seq;
        end(notice);
    }
    __atomic_store_n(&intent->next, mark.seq + 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&intent->state, 0, __ATOMIC_SEQ_CST);
    return true;
}

/* --- Sockets ----------------------------------------------------------------------------------------------------------------- */

/* One datagram: its bytes and one; 0: none is there; -1: the socket cannot be read. */
static int64_t take(const struct socket *socket)
{
    const struct vg_notice *notice = &notices[socket->run.slot];
    struct iovec part = { intent->text, sizeof intent->text };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = intent->control, .msg_controllen = sizeof intent->control };
    ssize_t size;

    memset(intent->text, 0, sizeof intent->text);
    memset(intent->control, 0, sizeof intent->control);
    memcpy(intent->name, socket->name, sizeof intent->name);
    intent->run = socket->run;
    intent->tag = socket->tag;
    intent->uid = socket->uid;
    intent->taken = notice->taken;
    intent->forged = notice->forged;
    intent->senseless = notice->senseless;
    intent->seq = intent->next;
    intent->real_ns = say_real_ns();
    intent->now_ns = say_now_ns();
    __atomic_store_n(&intent->state, 1, __ATOMIC_SEQ_CST);
    size = recvmsg(socket->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0) {
        int error = errno;

        __atomic_store_n(&intent->state, 0, __ATOMIC_SEQ_CST);
        return error == EAGAIN || error == EINTR ? 0 : -1;
    }
    if (absorb())
        return size + 1;
    errno = EPROTO;             /* cannot be: whatever comes out of such a socket has a sender */
    return -1;
}

/* Up to so many: the bytes taken. */
static uint32_t drain(struct socket *socket, int most)
{
    uint32_t bytes = 0;

    for (int count = 0; count < most; count++) {
        int64_t taken = take(socket);

        if (taken < 0) {
            say(VG_ERROR, target, "cannot read the notifications of %s: errno %d", socket->name, errno);
            (void)epoll_ctl(poller, EPOLL_CTL_DEL, socket->fd, NULL);
        }
        if (taken <= 0)
            return bytes;
        bytes += (uint32_t)taken;
    }
    behind = true;
    return bytes;
}

uint32_t notify_take(uint32_t index)
{
    return index < sockets_top && sockets[index].fd >= 0 ? drain(&sockets[index], TAKEN_A_TURN) : 0;
}

static struct socket *find(struct vg_run run)
{
    for (uint32_t at = 0; at < sockets_top; at++)
        if (sockets[at].fd >= 0 && sockets[at].run.slot == run.slot && sockets[at].run.generation == run.generation)
            return &sockets[at];
    return NULL;
}

void notify_add(struct vg_run run, int fd, const char *name, uint32_t uid, uint64_t tag)
{
    struct epoll_event event = { .events = EPOLLIN };
    struct vg_notice *notice;
    struct socket *socket;
    uint32_t at = 0;
    int yes = 1;

    if (run.slot >= VG_BOARD_NOTICES || find(run)) {
        (void)close(fd);
        return;
    }
    while (at < sockets_top && sockets[at].fd >= 0)
        at++;
    if (at == SOCKETS_MAX) {    /* cannot be: PID 1 has not so many */
        say(VG_ERROR, target, "cannot take the notifications of %s: %d sockets are in use", name, SOCKETS_MAX);
        (void)close(fd);
        return;
    }
    /* A new logger may be told of a run that is over after the one that has its slot now: that one's notice stays, and nobody asks for the
     * other's. Torn: a predecessor was killed while it made the notice, and nothing was taken yet. */
    notice = &notices[run.slot];
    if ((int32_t)(run.generation - notice->generation) > 0 || notice->version & 1) {
        begin(notice);
        memset((char *)notice + sizeof notice->version, 0, sizeof *notice - sizeof notice->version);
        notice->generation = run.generation;
        end(notice);
    }
    if (run.slot >= board->top)
        __atomic_store_n(&board->top, run.slot + 1, __ATOMIC_RELEASE);
    (void)setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes);
    socket = &sockets[at];
    *socket = (struct socket){ .fd = fd, .run = run, .uid = uid, .tag = tag };
    memcpy(socket->name, name, strnlen(name, sizeof socket->name - 1));
    if (at == sockets_top)
        sockets_top++;
    event.data.u64 = tag_base + at;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        say(VG_ERROR, target, "cannot watch the notifications of %s: errno %d", name, errno);
}

void notify_forget(struct vg_run run)
{
    struct socket *socket = find(run);

    if (!socket)
        return;
    (void)drain(socket, TAKEN_AT_END);
    (void)close(socket->fd);
    socket->fd = -1;
    while (sockets_top && sockets[sockets_top - 1].fd < 0)
        sockets_top--;
}

void notify_turn(uint64_t now, bool looked_at_all)
{
    uint64_t one = 1;

    if (news && write(wake, &one, sizeof one) < 0)
        errno = 0;              /* its counter is full: it is awake */
    news = false;
    if (looked_at_all && !behind)
        __atomic_store_n(&board->drained_ns, now, __ATOMIC_RELEASE);
    behind = false;
}

bool notify_open(struct notify_intent *given, int board_fd, int wake_fd, int poller_fd, uint64_t tag)
{
    char *memory = mmap(NULL, VG_BOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, board_fd, 0);

    if (memory == MAP_FAILED)
        return false;
    board = (struct vg_board *)(void *)memory;
    notices = (struct vg_notice *)(void *)(memory + VG_BOARD_FIRST);
    intent = given;
    wake = wake_fd;
    poller = poller_fd;
    tag_base = tag;
    if (!intent->next) {
        memset(intent->text, 0, sizeof intent->text);       /* what taking one needs is there before it begins */
        intent->next = 1;
    }
    if (intent->state)
        (void)absorb();
    news = true;                /* whom a predecessor was about to wake is not known */
    return true;
}
