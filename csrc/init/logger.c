/*
 * logger.c - captures every stream, keeps its lines, has them forwarded.
 *
 * Owns J (the memfd whose struct is `journal` below), the read ends of all log pipes, the notification sockets of services, and every log
 * while something feeds it or is still to be forwarded. Killed at any instruction, its successor goes on without a byte lost or doubled: an intake is splice() from
 * the pipe to J with the offset in J, so that the kernel itself notes what was taken, and then a split that starts from saved values
 * and can be done twice. Every store is in program order, the state word last.
 *
 * Calls lines (the split), ring, sink (the way out), notify (those sockets), chan (the link). Says through say() what cannot be captured or forwarded.
 * Blocks nowhere but in epoll_wait. Where it cannot go on at all it says why and exits with 1; PID 1 starts another.
 */
#include "logger.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../protocol.h"
#include "chan.h"
#include "lines.h"
#include "notify.h"
#include "say.h"
#include "sink.h"

enum {
    STREAMS_MAX = 4096,             /* two of each run that has not been taken to its end */
    STAGE_SIZE = 65536,             /* of one intake: what a pipe holds by default */
    HELD_ROOM = 20480,              /* LINES_HELD_MAX in whole pages */
    CANARY = 16,
    NO_LOG = 0xffffffff,
    GIVE_UP_MS = 2000,              /* at the end, without progress */
    PACE_NS = 200000,               /* turns that take little and come faster than this are spaced so */
    PACE_BYTES = 16384,             /* little */
    GIVE_BACK_AT = 131072           /* bytes behind the tail of a log that are worth a system call at once */
};

static const char target[] = "vigil.logger";
static const uint64_t second = 1000000000, never = UINT64_MAX, journal_magic = UINT64_C(0x314c414e52554f4a);

enum intake_state { INTAKE_IDLE = 0, INTAKE_OPEN, INTAKE_READ };

struct kept_stream {
    uint32_t used, stream;          /* 1 stdout, 2 stderr */
    struct vg_run run;
    uint32_t log;
    uint32_t held_which, held_length;   /* the unterminated line: which of the two buffers, and how much of it */
    uint32_t padding;
};

struct journal {
    uint64_t magic;
    uint32_t state;                 /* intake_state; stored last */
    uint32_t stream;                /* whose intake it is */
    uint64_t head, line, seq, nth, real_ns;     /* where it starts from */
    uint32_t held_which, held_length;
    uint32_t flags, end;
    int64_t off;                    /* written by the kernel: where the stage ends */
    uint32_t read_size, told;       /* INTAKE_READ: how much is read, and what its last bytes were before; that it is read was said */
    unsigned char canary[CANARY];
    uint64_t next_seq;
    uint32_t logs_top, streams_top; /* entries from there on were never used, and have no pages */
    struct sink_intent sink[2];
    struct notify_intent notify;
    struct kept_log log[LOGS_MAX];
    struct kept_stream streams[STREAMS_MAX];
    unsigned char stage[STAGE_SIZE] __attribute__((aligned(4096)));
    unsigned char held[STREAMS_MAX][2][HELD_ROOM] __attribute__((aligned(4096)));
};

/* A stream as this life has it; same index as in J. */
struct stream {
    int fd;                         /* -1: not held in this life */
    bool watched, ended;            /* in epoll; all its writers are gone */
    bool ending, silent;            /* only `left` more bytes are taken; without a DRAINED at the end */
    bool touched;                   /* its buffers in J have pages */
    uint32_t left;
    uint32_t log_mode;
};

static struct logger_boot boot;
static struct journal *journal;
static struct log logs[LOGS_MAX];
static struct stream streams[STREAMS_MAX];
static struct sink sinks[2];
static struct sink *sink_of[2];     /* of stdout, of stderr: the same where these are the same file */
static uint32_t own_log = NO_LOG, blocked_count, ending_count;
static struct vg_run drained[STREAMS_MAX];  /* DRAINED that the link has not taken yet */
static uint32_t drained_first, drained_count;
static uint64_t pong_value, sweep_at = UINT64_MAX, finish_at;
static int poller = -1;
static uint32_t turn_taken;         /* bytes that this turn took from pipes and sockets */
static bool pong_owed, link_full, held_back, by_read, finishing, finished, gave_up[2];

/* Tags of epoll events: a stream's index, one of these, or TAG_NOTIFY and a socket's index. */
enum { TAG_LINK = 0x10000, TAG_SINK = 0x10001, TAG_NOTIFY = 0x20000 };

size_t logger_journal_size(void)
{
    return sizeof(struct journal);
}

static _Noreturn void die(const char *what)
{
    say(VG_ERROR, target, "logger cannot go on: %s: errno %d", what, errno);
    _exit(1);
}

/* --- Streams and epoll ------------------------------------------------------------------------------------------------------- */

static void watch(uint32_t index, bool on)
{
    struct stream *stream = &streams[index];
    struct epoll_event event = { .events = EPOLLIN, .data = { .u64 = index } };

    if (stream->watched == on || stream->fd < 0)
        return;
    if (epoll_ctl(poller, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, stream->fd, &event) == 0)
        stream->watched = on;
    else if (on)
        say(VG_ERROR, target, "cannot watch a log pipe: errno %d", errno);
}

static bool may_watch(const struct stream *stream, uint32_t index)
{
    uint32_t log = journal->streams[index].log;

    return stream->fd >= 0 && !stream->ended && !stream->ending && !held_back && (log == NO_LOG || !logs[log].blocked);
}

/* --- Logs ------------------------------------------------------------------------------------------------------------------- */

/* From where on a log's records must stay. */
static uint64_t floor_of(const struct log *log)
{
    uint64_t least = log->ring.header->head;

    for (int lane = 0; lane < 2; lane++)
        if (sink_moves(sink_of[lane]) && log->kept->lane[lane].next < least)
            least = log->kept->lane[lane].next;
    return least;
}

/* How much may be taken from a pipe without lapping what is still to be forwarded. */
static uint32_t room(const struct log *log, uint32_t held)
{
    uint64_t used = log->ring.header->head - floor_of(log), fixed = lines_bound(held, 0);
    uint64_t free = used < log->ring.capacity ? log->ring.capacity - used : 0;

    free = free > fixed ? (free - fixed) / sizeof(struct vg_record) : 0;
    return free < STAGE_SIZE ? (uint32_t)free : STAGE_SIZE;
}

/* Less room than that is not worth an intake. */
static uint32_t least_room(const struct log *log)
{
    return log->ring.capacity / 128 < 4096 ? (uint32_t)(log->ring.capacity / 128) : 4096;
}

static void settle(struct log *log)
{
    uint64_t loose;

    ring_trim(&log->ring, floor_of(log));
    loose = ring_loose(&log->ring);
    if (loose >= GIVE_BACK_AT)
        ring_give_back(&log->ring);
    else if (loose >= log->ring.page && sweep_at == never)
        sweep_at = say_now_ns() + second;
}

static void block(uint32_t number)
{
    if (logs[number].blocked)
        return;
    logs[number].blocked = true;
    blocked_count++;
    for (uint32_t index = 0; index < journal->streams_top; index++)
        if (streams[index].fd >= 0 && journal->streams[index].log == number)
            watch(index, false);
}

/* A log that nothing feeds, all of whose lines are out, is let go: it comes again with the next run of its service. */
static void release_log(uint32_t number)
{
    struct log *log = &logs[number];

    if (!log->kept || log->streams || number == own_log || held_back)
        return;
    if (log->ring.header)
        for (int lane = 0; lane < 2; lane++)
            if ((log->kept->lane[lane].next < log->ring.header->head && sink_of[lane]->mode != SINK_NONE) || log->kept->lane[lane].dropped != log->kept->lane[lane].said)
                return;
    for (int at = 0; at < 2; at++) {    /* a batch that is under way, or a line that has begun, names its lane */
        const struct sink_intent *intent = sinks[at].intent;

        if (intent && (intent->open.lane + 1) / 2 == number + 1)
            return;
        if (intent && intent->state != INTENT_IDLE)
            for (uint32_t entry = 0; entry < intent->count; entry++)
                if (intent->next[entry].lane / 2 == number)
                    return;
    }
    if (log->blocked)
        blocked_count--;
    ring_close(&log->ring);
    __atomic_store_n(&log->kept->used, 0, __ATOMIC_SEQ_CST);
    memset(log, 0, sizeof *log);
    log->ring.fd = -1;
}

static void copy_text(char *to, size_t size, const char *from)
{
    size_t length = strnlen(from, size - 1);

    memcpy(to, from, length);
    memset(to + length, 0, size - length);
}

static void describe(struct log *log, const char *name, const char *prefix, uint32_t format)
{
    if (format != log->kept->format)
        log->kept->format = format;
    if (strncmp(name, log->kept->name, sizeof log->kept->name))
        copy_text(log->kept->name, sizeof log->kept->name, name);
    if (strncmp(prefix, log->kept->prefix, sizeof log->kept->prefix))
        copy_text(log->kept->prefix, sizeof log->kept->prefix, prefix);
    log->prefix_size = (uint32_t)strnlen(log->kept->prefix, sizeof log->kept->prefix - 1);
}

/* The log of that ring, known or new; NO_LOG: it cannot be used. Takes the descriptor. */
static uint32_t find_log(int fd, const char *name, const char *prefix, uint32_t format)
{
    struct ring ring;
    uint32_t number, unused = NO_LOG;
    struct kept_log *kept;

    if (ring_open(&ring, fd, 1) < 0) {
        say(VG_ERROR, target, "cannot use the log of %s: errno %d", name, errno);
        close(fd);
        return NO_LOG;
    }
    for (number = 0; number < LOGS_MAX; number++) {
        kept = &journal->log[number];
        if (number >= journal->logs_top || !kept->used) {
            if (unused == NO_LOG)
                unused = number;
            if (number >= journal->logs_top)
                break;
        } else if (kept->inode == ring.inode && kept->id == ring.id) {
            break;
        }
    }
    if (number >= journal->logs_top)
        number = unused;
    if (number == NO_LOG) {
        say(VG_ERROR, target, "cannot keep the output of %s: %d logs are in use", name, LOGS_MAX);
        ring_close(&ring);
        return NO_LOG;
    }
    if (logs[number].kept && logs[number].ring.header) {
        ring_close(&ring);
        describe(&logs[number], name, prefix, format);
        return number;
    }
    kept = &journal->log[number];
    if (number >= journal->logs_top || !kept->used) {
        memset(kept, 0, sizeof *kept);
        kept->inode = ring.inode;
        kept->id = ring.id;
        for (int lane = 0; lane < 2; lane++)
            kept->lane[lane].next = ring.header->head;
    }
    for (int lane = 0; lane < 2; lane++)
        if (kept->lane[lane].next > ring.header->head && journal->state == INTAKE_IDLE)
            kept->lane[lane].next = ring.header->head;
    logs[number].kept = kept;
    logs[number].ring = ring;
    describe(&logs[number], name, prefix, format);
    logs[number].whole[0] = logs[number].whole[1] = ring.header->head;
    if (number >= journal->logs_top)
        journal->logs_top = number + 1;
    __atomic_store_n(&kept->used, 1, __ATOMIC_SEQ_CST);
    return number;
}

/* --- Intake ----------------------------------------------------------------------------------------------------------------- */

/* The second half of an intake: what is in the stage becomes records. Done again by a successor it writes the same. */
static void absorb(void)
{
    struct kept_stream *kept = &journal->streams[journal->stream];
    struct log *log = &logs[kept->log];
    unsigned char (*held)[HELD_ROOM] = journal->held[journal->stream];
    int64_t taken = journal->off - (int64_t)offsetof(struct journal, stage);
    uint32_t other = !journal->held_which, lane = kept->stream - 1;
    struct kept_lane *lanes = log->kept->lane;
    struct lines_out out;
    struct lines_in in = {
        .ring = &log->ring, .head = journal->head, .line = journal->line, .seq = journal->seq, .nth = journal->nth,
        .real_ns = journal->real_ns, .flags = journal->flags, .end = journal->end,
        .held = held[journal->held_which], .held_length = journal->held_length, .rest = held[other],
        .text = journal->stage, .text_length = taken > 0 && taken <= STAGE_SIZE ? (uint32_t)taken : 0,
    };

    lines_split(&in, &out);
    streams[journal->stream].touched |= out.rest_length > 0;
    kept->held_which = other;
    kept->held_length = out.rest_length;
    lanes[lane].nth = out.nth;
    journal->next_seq = out.seq;
    /* A lane that was up to date and gets nothing stays up to date. */
    for (uint32_t at = 0; at < 2; at++)
        if ((at != lane || !(journal->flags & VG_RECORD_FORWARD)) && lanes[at].next >= journal->head)
            lanes[at].next = out.head;
    if (out.head != journal->head) {
        __atomic_store_n(&log->ring.header->head, out.head, __ATOMIC_RELEASE);
        __atomic_store_n(&log->ring.header->lines, out.line, __ATOMIC_RELEASE);
        __atomic_store_n(&log->ring.header->last_seq, out.seq - 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&journal->state, INTAKE_IDLE, __ATOMIC_SEQ_CST);
    if (out.whole)
        log->whole[lane] = out.whole;
    if (out.head != journal->head && journal->flags & VG_RECORD_FORWARD)
        sink_mark(sink_of[lane], kept->log * 2 + lane);
}

/* Notes where an intake starts from, and opens it. */
static void open_intake(uint32_t index, bool end, uint32_t state)
{
    struct kept_stream *kept = &journal->streams[index];
    struct log *log = &logs[kept->log];

    journal->stream = index;
    journal->head = log->ring.header->head;
    journal->line = log->ring.header->lines;
    journal->seq = journal->next_seq;
    journal->nth = log->kept->lane[kept->stream - 1].nth;
    journal->held_which = kept->held_which;
    journal->held_length = kept->held_length;
    journal->flags = (kept->stream == 2 ? (uint32_t)VG_RECORD_STDERR : 0) | (streams[index].log_mode == VG_LOG_DISABLED ? 0 : (uint32_t)VG_RECORD_FORWARD);
    journal->end = end;
    journal->real_ns = say_real_ns();
    journal->off = (int64_t)offsetof(struct journal, stage);
    __atomic_store_n(&journal->state, state, __ATOMIC_SEQ_CST);
}

/* Without a splice into J: reads exactly what is there, over bytes that tell whether it was read. */
static ssize_t intake_by_read(uint32_t index, uint32_t length)
{
    uint32_t canary;
    ssize_t size;
    int count = 0;

    if (ioctl(streams[index].fd, FIONREAD, &count) < 0)
        return -1;
    if (count == 0) {
        struct pollfd entry = { .fd = streams[index].fd, .events = POLLIN };

        if (poll(&entry, 1, 0) > 0 && !(entry.revents & POLLIN) && entry.revents & POLLHUP)
            return 0;
        errno = EAGAIN;
        return -1;
    }
    if ((uint32_t)count < length)
        length = (uint32_t)count;
    canary = length < CANARY ? length : CANARY;
    if (getrandom(journal->canary, canary, GRND_NONBLOCK) != (ssize_t)canary)
        memset(journal->canary, (int)(journal->next_seq * 131 + 7), canary);
    memset(journal->stage, 0, length);      /* every page is there: the read cannot fail half way */
    memcpy(journal->stage + length - canary, journal->canary, canary);
    journal->read_size = length;
    open_intake(index, false, INTAKE_READ);
    size = read(streams[index].fd, journal->stage, length);
    if (size < 0)
        size = 0;
    journal->off += size;
    __atomic_store_n(&journal->state, INTAKE_OPEN, __ATOMIC_SEQ_CST);
    absorb();
    return size;
}

/* Takes up to `most` bytes: their number; 0: all writers are gone; -1: nothing is there now (or the pipe cannot be read). */
static ssize_t intake(uint32_t index, uint32_t most)
{
    struct stream *stream = &streams[index];
    ssize_t moved;

    if (journal->streams[index].log == NO_LOG) {    /* no log could be had for it: its service must not block for that */
        int count = 0;

        if (ioctl(stream->fd, FIONREAD, &count) < 0 || count == 0) {
            errno = EAGAIN;
            return -1;
        }
        return read(stream->fd, journal->stage, (uint32_t)count < most ? (uint32_t)count : most);
    }
    if (by_read)
        return intake_by_read(index, most);
    open_intake(index, false, INTAKE_OPEN);
    do
        moved = splice(stream->fd, NULL, boot.journal, &journal->off, most, SPLICE_F_NONBLOCK);
    while (moved < 0 && errno == EINTR && journal->off == (int64_t)offsetof(struct journal, stage));
    if (journal->off == (int64_t)offsetof(struct journal, stage)) {
        int error = errno;

        __atomic_store_n(&journal->state, INTAKE_IDLE, __ATOMIC_SEQ_CST);
        errno = error;
        return moved;
    }
    absorb();
    return moved;
}

/* What is unterminated becomes a line: nothing more will come. */
static void end_line(uint32_t index)
{
    if (journal->streams[index].log == NO_LOG || !journal->streams[index].held_length)
        return;
    open_intake(index, true, INTAKE_OPEN);
    absorb();
}

static void let_pages_go(uint32_t index)
{
    if (streams[index].touched && !journal->streams[index].held_length) {
        if (fallocate(boot.journal, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(offsetof(struct journal, held) + index * sizeof journal->held[0]), (off_t)sizeof journal->held[0]) == 0)
            streams[index].touched = false;
    }
}

/* --- The end of a stream ----------------------------------------------------------------------------------------------------- */

static void flush_link(void);

static void owe_drained(struct vg_run run)
{
    if (drained_count == STREAMS_MAX)
        return;     /* cannot be: there are not so many runs */
    drained[(drained_first + drained_count++) % STREAMS_MAX] = run;
    flush_link();
}

static bool same_run(struct vg_run a, struct vg_run b)
{
    return a.slot == b.slot && a.generation == b.generation;
}

static void forget_stream(uint32_t index)
{
    struct stream *stream = &streams[index];
    uint32_t log = journal->streams[index].log;
    struct vg_run run = journal->streams[index].run;
    bool silent = stream->silent;

    watch(index, false);
    close(stream->fd);
    let_pages_go(index);
    *stream = (struct stream){ .fd = -1 };
    __atomic_store_n(&journal->streams[index].used, 0, __ATOMIC_SEQ_CST);
    ending_count--;
    if (log != NO_LOG) {
        logs[log].streams--;
        logs[log].ending--;
        release_log(log);
    }
    if (silent)
        return;
    for (uint32_t other = 0; other < journal->streams_top; other++)
        if (streams[other].fd >= 0 && same_run(journal->streams[other].run, run))
            return;
    owe_drained(run);
}

/* Takes what a stream that ends still gives; true: it is gone. */
static bool finish_stream(uint32_t index)
{
    struct stream *stream = &streams[index];
    struct kept_stream *kept = &journal->streams[index];

    for (;;) {
        struct log *log = kept->log == NO_LOG ? NULL : &logs[kept->log];
        uint32_t most = STAGE_SIZE;
        ssize_t taken;

        if (log) {
            most = room(log, kept->held_length);
            if (most < least_room(log)) {
                block(kept->log);
                return false;
            }
        }
        if (!stream->left)
            break;
        taken = intake(index, stream->left < most ? stream->left : most);
        if (taken <= 0)
            break;
        stream->left -= (uint32_t)taken < stream->left ? (uint32_t)taken : stream->left;
        if (log)
            settle(log);
    }
    end_line(index);
    if (kept->log != NO_LOG)
        settle(&logs[kept->log]);
    forget_stream(index);
    return true;
}

/* A run is over, but something of it may hold the pipe for ever: only what is in it now is taken. */
static void begin_end(uint32_t index, bool silent)
{
    struct stream *stream = &streams[index];
    int count = 0;

    if (stream->ending)
        return;
    stream->left = ioctl(stream->fd, FIONREAD, &count) == 0 && count > 0 ? (uint32_t)count : 0;
    stream->ending = true;
    stream->silent = silent;
    ending_count++;
    if (journal->streams[index].log != NO_LOG)
        logs[journal->streams[index].log].ending++;
    watch(index, false);
}

/* Reads on from the logs whose lines have been forwarded, or need not be: first what ends, so that a run's end comes before its
 * successor's beginning. */
static void unblock(void)
{
    if (!blocked_count)
        return;
    for (uint32_t number = 0; number < journal->logs_top; number++) {
        struct log *log = &logs[number];

        if (!log->kept || !log->blocked || !log->ring.header)
            continue;
        if (room(log, LINES_HELD_MAX) < least_room(log))
            continue;
        log->blocked = false;
        blocked_count--;
        for (uint32_t index = 0; index < journal->streams_top && log->ending && !log->blocked; index++)
            if (streams[index].fd >= 0 && streams[index].ending && journal->streams[index].log == number)
                finish_stream(index);
        if (!log->kept || log->blocked)
            continue;
        for (uint32_t index = 0; index < journal->streams_top; index++)
            if (journal->streams[index].log == number && may_watch(&streams[index], index))
                watch(index, true);
    }
}

/* A stream is readable. */
static void take(uint32_t index)
{
    struct stream *stream = &streams[index];
    struct kept_stream *kept = &journal->streams[index];
    uint32_t most = STAGE_SIZE;
    ssize_t taken;

    if (!stream->watched)
        return;     /* an earlier event of this turn changed it */
    if (kept->log != NO_LOG) {
        most = room(&logs[kept->log], kept->held_length);
        if (most < least_room(&logs[kept->log])) {
            block(kept->log);
            return;
        }
    }
    taken = intake(index, most);
    if (taken < 0 && errno == EAGAIN)
        return;
    turn_taken += taken > 0 ? (uint32_t)taken : 0;
    if (taken < 0)
        say(VG_ERROR, target, "cannot read the output of %s: errno %d", kept->log == NO_LOG ? "a run" : logs[kept->log].kept->name, errno);
    if (taken <= 0) {
        stream->ended = true;
        watch(index, false);
        if (taken == 0)
            end_line(index);
    }
    if (kept->log != NO_LOG)
        settle(&logs[kept->log]);
}

/* --- The link ---------------------------------------------------------------------------------------------------------------- */

static void watch_link(bool full)
{
    struct epoll_event event = { .events = full ? EPOLLIN | EPOLLOUT : EPOLLIN, .data = { .u64 = TAG_LINK } };

    if (full != link_full && epoll_ctl(poller, EPOLL_CTL_MOD, boot.link, &event) == 0)
        link_full = full;
}

static void flush_link(void)
{
    while (pong_owed) {
        struct vg_plain pong = { { sizeof pong, VG_PONG, 0 }, pong_value };

        if (chan_send(boot.link, &pong, NULL, 0) != CHAN_MESSAGE) {
            watch_link(true);
            return;
        }
        pong_owed = false;
    }
    while (drained_count) {
        struct vg_forget answer = { { sizeof answer, VG_DRAINED, 0 }, drained[drained_first] };

        if (chan_send(boot.link, &answer, NULL, 0) != CHAN_MESSAGE) {
            watch_link(true);
            return;
        }
        drained_first = (drained_first + 1) % STREAMS_MAX;
        drained_count--;
    }
    watch_link(false);
}

/* A log that no run feeds now; told to a new logger, since lines of it may still have to be forwarded. Others need no attention. */
static void add_log(struct chan_message *message)
{
    struct vg_ring_header header;
    struct stat status;

    if (message->count < 1 || fstat(message->fds[0], &status) < 0
        || pread(message->fds[0], &header, sizeof header, 0) != (ssize_t)sizeof header)
        return;
    for (uint32_t number = 0; number < journal->logs_top; number++) {
        const struct kept_log *kept = &journal->log[number];

        if (kept->used && kept->inode == (uint64_t)status.st_ino && kept->id == header.id) {
            find_log(chan_take_fd(message, 0), kept->name, kept->prefix, kept->format);
            return;
        }
    }
}

static void add_stream(struct chan_message *message)
{
    struct vg_stream copy, *told = &copy;
    uint32_t index, unused = STREAMS_MAX, log = NO_LOG;
    struct kept_stream *kept;
    struct stream *stream;

    memcpy(told, message->words, sizeof *told);
    told->log[sizeof told->log - 1] = told->prefix[sizeof told->prefix - 1] = 0;
    if (told->run.slot == VG_NO_SLOT) {
        add_log(message);
        return;
    }
    if (told->stream == VG_STREAM_NOTIFY) {
        if (message->count > 0 && message->fds[0] >= 0)
            notify_add(told->run, chan_take_fd(message, 0), told->log, told->uid, told->tag);
        return;
    }
    if (told->stream != 1 && told->stream != 2)
        return;
    for (index = 0; index < journal->streams_top; index++) {
        kept = &journal->streams[index];
        if (!kept->used && streams[index].fd < 0) {
            if (unused == STREAMS_MAX)
                unused = index;
        } else if (kept->used && kept->stream == told->stream && same_run(kept->run, told->run)) {
            break;
        }
    }
    if (index < journal->streams_top && streams[index].fd >= 0) {
        streams[index].log_mode = told->log_mode;
        return;
    }
    if (message->count < 1 || message->fds[0] < 0)
        return;
    if (told->has_ring && message->count > 1)
        log = find_log(chan_take_fd(message, 1), told->log, told->prefix, told->forward_format);
    if (log == NO_LOG)
        say(VG_ERROR, target, "the output of %s is thrown away: it has no log", told->log);
    if (index == journal->streams_top) {
        if (unused == STREAMS_MAX)
            unused = journal->streams_top;
        if (unused == STREAMS_MAX) {
            say(VG_ERROR, target, "cannot capture the output of %s: %d streams are in use", told->log, STREAMS_MAX);
            return;
        }
        index = unused;
        kept = &journal->streams[index];
        *kept = (struct kept_stream){ .stream = told->stream, .run = told->run, .log = log };
        if (index >= journal->streams_top)
            journal->streams_top = index + 1;
        __atomic_store_n(&kept->used, 1, __ATOMIC_SEQ_CST);
    }
    kept = &journal->streams[index];
    if (kept->log != log) {         /* another ring than before: a line that had begun cannot go on there */
        kept->held_length = 0;
        kept->log = log;
    }
    stream = &streams[index];
    *stream = (struct stream){ .fd = chan_take_fd(message, 0), .log_mode = told->log_mode, .touched = kept->held_length > 0 };
    if (log != NO_LOG)
        logs[log].streams++;
    if (may_watch(stream, index))
        watch(index, true);
}

static void forget_run(struct vg_run run)
{
    bool found = false;

    notify_forget(run);
    for (uint32_t index = 0; index < journal->streams_top; index++)
        if (streams[index].fd >= 0 && same_run(journal->streams[index].run, run)) {
            found = true;
            if (streams[index].ending)
                streams[index].silent = false;
            begin_end(index, false);
        }
    if (!found) {
        owe_drained(run);
        return;
    }
    if (held_back)
        return;
    for (uint32_t index = 0; index < journal->streams_top; index++)
        if (streams[index].fd >= 0 && streams[index].ending && same_run(journal->streams[index].run, run)
            && (journal->streams[index].log == NO_LOG || !logs[journal->streams[index].log].blocked))
            finish_stream(index);
}

/* --- Recovery ---------------------------------------------------------------------------------------------------------------- */

/* Where the last complete line of a lane ends. */
static void find_whole(struct log *log)
{
    struct kept_lane *lanes = log->kept->lane;
    uint64_t head = log->ring.header->head, at = lanes[0].next < lanes[1].next ? lanes[0].next : lanes[1].next;

    log->whole[0] = log->whole[1] = at;
    if (at < log->ring.header->tail)
        at = log->ring.header->tail;
    while (at < head) {
        const struct vg_record *record = ring_record(&log->ring, at);

        at += vg_record_size(record->length);
        if (!(record->flags & VG_RECORD_PARTIAL))
            log->whole[record->flags & VG_RECORD_STDERR ? 1 : 0] = at;
    }
}

/* Whether splice() into J works here and tells how far it came. Uses the stage: only while no intake is open. */
static bool splice_works(void)
{
    int ends[2];
    bool works;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    journal->off = (int64_t)offsetof(struct journal, stage);
    works = write(ends[1], "", 1) == 1 && splice(ends[0], NULL, boot.journal, &journal->off, 1, SPLICE_F_NONBLOCK) == 1
        && journal->off == (int64_t)offsetof(struct journal, stage) + 1;
    close(ends[0]);
    close(ends[1]);
    return works;
}

/* Chooses how output is taken in this life. */
static void choose_intake(void)
{
    by_read = !splice_works();
    if (by_read && !journal->told) {
        journal->told = 1;
        say(VG_WARN, target, "cannot splice into memory here: output is read, and up to a line may be lost or doubled if logger is killed");
    }
}

/* All streams are here: finishes what a predecessor had begun, and begins. */
static void recover(void)
{
    struct vg_plain ready = { { sizeof ready, VG_LOGGER_READY, 0 }, 0 };

    if (journal->state != INTAKE_IDLE) {
        uint32_t log = journal->stream < journal->streams_top ? journal->streams[journal->stream].log : NO_LOG;

        if (journal->state == INTAKE_READ) {
            uint32_t size = journal->read_size, canary = size < CANARY ? size : CANARY;

            if (size && size <= STAGE_SIZE && memcmp(journal->stage + size - canary, journal->canary, canary))
                journal->off = (int64_t)offsetof(struct journal, stage) + size;
            __atomic_store_n(&journal->state, INTAKE_OPEN, __ATOMIC_SEQ_CST);
        }
        if (log < LOGS_MAX && logs[log].kept && logs[log].ring.header) {
            absorb();
        } else {
            say(VG_ERROR, target, "what was being read when logger died is lost: its log is gone");
            __atomic_store_n(&journal->state, INTAKE_IDLE, __ATOMIC_SEQ_CST);
        }
    }
    choose_intake();
    held_back = false;
    for (uint32_t index = 0; index < journal->streams_top; index++) {
        struct kept_stream *kept = &journal->streams[index];

        if (!kept->used || streams[index].fd >= 0)
            continue;
        if (kept->held_length && kept->log != NO_LOG && logs[kept->log].ring.header)
            end_line(index);
        __atomic_store_n(&kept->used, 0, __ATOMIC_SEQ_CST);
    }
    for (uint32_t number = 0; number < journal->logs_top; number++) {
        struct log *log = &logs[number];

        if (!log->kept)
            continue;
        if (!log->ring.header) {
            uint64_t lost = 0;

            for (int lane = 0; lane < 2; lane++)
                lost += log->kept->lane[lane].nth - log->kept->lane[lane].next_nth;
            if (lost)
                say(VG_WARN, target, "%llu lines of %s were not forwarded: its log is gone", (unsigned long long)lost, log->kept->name);
            __atomic_store_n(&log->kept->used, 0, __ATOMIC_SEQ_CST);
            log->kept = NULL;
            continue;
        }
        find_whole(log);
        for (uint32_t lane = 0; lane < 2; lane++)
            if (log->kept->lane[lane].next < log->ring.header->head)
                sink_mark(sink_of[lane], number * 2 + lane);
        settle(log);
        release_log(number);
    }
    for (uint32_t index = 0; index < journal->streams_top; index++)
        if (streams[index].fd >= 0 && streams[index].ending)
            finish_stream(index);
        else if (may_watch(&streams[index], index))
            watch(index, true);
    while (chan_send(boot.link, &ready, NULL, 0) == CHAN_EMPTY) {
        struct pollfd entry = { .fd = boot.link, .events = POLLOUT };

        poll(&entry, 1, 100);
    }
}

/* --- Messages, the end, the loop ---------------------------------------------------------------------------------------------- */

static void begin_finish(uint64_t now)
{
    if (finishing)
        return;
    finishing = true;
    finish_at = now;
    say_into(-1);       /* nobody may come to read the pipe of diagnostics any more: straight to stderr, if it takes it */
    for (uint32_t index = 0; index < journal->streams_top; index++)
        if (streams[index].fd >= 0 && journal->streams[index].run.slot != VG_SLOT_DIAGNOSTICS) {
            begin_end(index, true);
            if (journal->streams[index].log == NO_LOG || !logs[journal->streams[index].log].blocked)
                finish_stream(index);
        }
}

static bool diagnostics_wait(void)
{
    for (uint32_t index = 0; index < journal->streams_top; index++) {
        int count = 0;

        if (streams[index].fd >= 0 && journal->streams[index].run.slot == VG_SLOT_DIAGNOSTICS && !streams[index].ended
            && ioctl(streams[index].fd, FIONREAD, &count) == 0 && count > 0)
            return true;
    }
    return false;
}

/* FINISH: everything kept is forwarded, but a sink that takes nothing for two seconds is given up; the count goes to stderr. */
static void look_at_finish(uint64_t now)
{
    char names[800];
    bool done = !ending_count && !diagnostics_wait();

    for (int at = 0; at < 2; at++) {
        struct sink *sink = sink_of[at];
        uint64_t since = sink->seen_at > finish_at ? sink->seen_at : finish_at, behind;

        if ((at == 1 && sink == sink_of[0]) || sink->mode == SINK_NONE || sink_idle(sink) || gave_up[at])
            continue;
        if (!sink->closed && now < since + GIVE_UP_MS * 1000000u) {
            done = false;
            continue;
        }
        gave_up[at] = true;
        sink->stalled = true;       /* what is left in the pipes is captured all the same */
        behind = sink_behind(sink);
        sink_name_behind(sink, names, sizeof names, false);
        if (behind)
            say(VG_WARN, target, "at the end %s took nothing for 2 s, %llu lines were not forwarded: %s", sink->name, (unsigned long long)behind, names);
        done = false;               /* that line may still go out to the other sink */
    }
    if (done) {
        finished = true;
        owe_drained((struct vg_run){ VG_NO_SLOT, 0 });
    }
}

static uint64_t finish_deadline(void)
{
    uint64_t least = never;

    for (int at = 0; at < 2; at++) {
        const struct sink *sink = sink_of[at];
        uint64_t at_least = (sink->seen_at > finish_at ? sink->seen_at : finish_at) + GIVE_UP_MS * 1000000u;

        if (finishing && !finished && !gave_up[at] && sink->mode != SINK_NONE && !sink_idle(sink) && at_least < least)
            least = at_least;
    }
    return least;
}

static void handle_link(void)
{
    struct chan_message message;
    struct vg_head head;
    struct vg_settings settings;
    struct vg_forget forget;
    struct vg_plain plain;

    for (int count = 0; count < 64; count++) {
        switch (chan_receive(boot.link, &message)) {
        case CHAN_MESSAGE:
            break;
        case CHAN_EMPTY:
            return;
        case CHAN_CLOSED:
            _exit(0);               /* PID 1 is gone, or does not want us any more */
        default:
            chan_drop(&message);
            continue;
        }
        memcpy(&head, message.words, sizeof head);
        memcpy(&settings, message.words, sizeof settings);
        memcpy(&forget, message.words, sizeof forget);
        memcpy(&plain, message.words, sizeof plain);
        if (head.kind == VG_STREAM && head.size == sizeof(struct vg_stream)) {
            add_stream(&message);
        } else if (head.kind == VG_STREAMS_END) {
            if (held_back)
                recover();
        } else if (head.kind == VG_FORGET && head.size == sizeof forget) {
            forget_run(forget.run);
        } else if (head.kind == VG_SETTINGS && head.size == sizeof settings) {
            say_configure(settings.log_format, settings.log_level);
            for (int at = 0; at < 2; at++)
                sinks[at].stall_ns = settings.forward_stall_ms * 1000000u;
        } else if (head.kind == VG_FINISH) {
            begin_finish(say_now_ns());
        } else if (head.kind == VG_PING && head.size == sizeof plain) {
            pong_value = plain.value;
            pong_owed = true;
            flush_link();
        } else {
            say(VG_ERROR, target, "message %u of %u bytes is not known to logger", head.kind, head.size);
        }
        chan_drop(&message);
    }
}

static void sweep(void)
{
    sweep_at = never;
    for (uint32_t number = 0; number < journal->logs_top; number++)
        if (logs[number].kept && logs[number].ring.header)
            ring_give_back(&logs[number].ring);
    for (uint32_t index = 0; index < journal->streams_top; index++)
        let_pages_go(index);
}

static void set_up(void)
{
    static const char *const names[2] = { "stdout", "stderr" };
    struct stat status[2];
    struct epoll_event event = { .events = EPOLLIN, .data = { .u64 = TAG_LINK } };
    uint64_t now = say_now_ns();
    bool same;

    prctl(PR_SET_NAME, "vigil-logger");
    journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE, MAP_SHARED, boot.journal, 0);
    if (journal == MAP_FAILED)
        die("cannot map the journal of the logs");
    if (journal->magic != journal_magic) {
        /* What an intake needs is there before it begins: no page can lack in the middle. */
        memset(journal->stage, 0, sizeof journal->stage);
        journal->next_seq = 1;
        __atomic_store_n(&journal->magic, journal_magic, __ATOMIC_SEQ_CST);
    }
    for (uint32_t index = 0; index < STREAMS_MAX; index++)
        streams[index].fd = -1;
    for (uint32_t number = 0; number < journal->logs_top; number++)
        if (journal->log[number].used) {
            logs[number].kept = &journal->log[number];
            logs[number].ring.fd = -1;
        }
    held_back = true;
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, boot.link, &event) < 0)
        die("cannot poll");
    if (!notify_open(&journal->notify, boot.board, boot.wake, poller, TAG_NOTIFY))
        die("cannot map the board of notifications");
    /* The same file: one way there, else the half of one line could end up inside the other. */
    same = boot.sink[0] >= 0 && boot.sink[1] >= 0 && fstat(boot.sink[0], &status[0]) == 0 && fstat(boot.sink[1], &status[1]) == 0
        && status[0].st_dev == status[1].st_dev && status[0].st_ino == status[1].st_ino;
    for (int at = 0; at < 2; at++) {
        struct sink *sink = &sinks[at];

        sink_of[at] = same ? &sinks[0] : sink;
        *sink = (struct sink){
            .name = names[at], .fd = same && at ? -1 : boot.sink[at], .pipe_read = boot.pipe_read[at], .pipe_write = boot.pipe_write[at],
            .streams = same ? 3u : 1u << at, .intent = &journal->sink[at], .logs = logs, .stall_ns = boot.stall_ms * 1000000u, .done = -1,
        };
        if (!sink_open(sink))
            die("cannot start the thread of a sink");
        event.data.u64 = TAG_SINK + (uint64_t)at;
        if (sink->done >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, sink->done, &event) < 0)
            die("cannot poll");
        sink_recover(sink, now);
    }
    own_log = find_log(boot.ring, "vigild", "", VG_FORMAT_RAW);
}

static int timeout(uint64_t now)
{
    uint64_t least = sweep_at, other;

    if (!held_back)
        for (int at = 0; at < 2; at++)
            if ((other = sink_deadline(&sinks[at])) < least)
                least = other;
    if ((other = finish_deadline()) < least)
        least = other;
    if (least == never)
        return -1;
    if (least <= now)
        return 0;
    other = (least - now + 999999) / 1000000;
    return other > 60000 ? 60000 : (int)other;
}

static void after_batch(struct sink *sink, uint64_t now)
{
    bool was_busy = sink->busy;

    sink_done(sink, now);
    if (!was_busy || sink->busy || held_back)
        return;
    for (uint32_t at = 0; at < sink->intent->count; at++) {
        uint32_t number = sink->intent->next[at].lane / 2;

        if (number < LOGS_MAX && logs[number].kept && logs[number].ring.header) {
            settle(&logs[number]);
            release_log(number);
        }
    }
}

/*
 * A service that writes line by line would wake us for each of them, and the turn costs more than the line. When turns that took little
 * follow one another that fast, the pipes are left alone for a moment (never longer than PACE_NS; the link and the sinks are not), so
 * that the next turn takes many lines. A single line is never held up: there is no turn right before it.
 */
static uint64_t pace(uint64_t now, uint64_t before)
{
    struct pollfd others[3] = { { .fd = boot.link, .events = POLLIN }, { .fd = sinks[0].done, .events = POLLIN }, { .fd = sinks[1].done, .events = POLLIN } };
    struct timespec moment = { .tv_nsec = PACE_NS };

    if (!turn_taken)
        return before;
    if (turn_taken < PACE_BYTES && now - before < PACE_NS) {
        (void)ppoll(others, 3, &moment, NULL);
        now = say_now_ns();
    }
    turn_taken = 0;
    return now;
}

_Noreturn void logger_run(const struct logger_boot *given)
{
    struct epoll_event events[64];
    uint64_t taken_at = 0;

    boot = *given;
    set_up();
    (void)prctl(PR_SET_TIMERSLACK, 1000UL);
    for (;;) {
        uint64_t now = say_now_ns();
        int count;

        taken_at = pace(now, taken_at);
        count = epoll_wait(poller, events, (int)(sizeof events / sizeof events[0]), timeout(now));

        if (count < 0 && errno != EINTR)
            die("cannot poll");
        now = say_now_ns();
        for (int at = 0; at < count; at++) {
            uint64_t tag = events[at].data.u64;

            if (tag == TAG_LINK) {
                if (link_full)
                    flush_link();
                handle_link();
            } else if (tag >= TAG_NOTIFY) {
                turn_taken += notify_take((uint32_t)tag - TAG_NOTIFY);
            } else if (tag >= TAG_SINK) {
                after_batch(&sinks[tag - TAG_SINK], now);
            } else {
                take((uint32_t)tag);
            }
        }
        /* All sockets are known once all streams are; epoll tells of so many at a time. */
        notify_turn(now, !held_back && count < (int)(sizeof events / sizeof events[0]));
        if (held_back)
            continue;
        for (int at = 0; at < 2; at++)
            sink_turn(&sinks[at], now);
        unblock();
        if (finishing && !finished)
            look_at_finish(now);
        if (now >= sweep_at)
            sweep();
    }
}
