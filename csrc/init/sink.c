/*
 * sink.c - from the logs to the container's stdout and stderr.
 *
 * Owns the private pipes P, the intents in J, and one thread per distinct sink, which alone touches the sink itself and, while it has
 * a batch, P. A batch is rendered into the intent, written into P in writes of whole lines of at most a page, and spliced from P to
 * the sink until P is empty; each step leaves in J and P what a successor needs to go on. Sinks that cannot be spliced to are
 * written to: files opened with O_APPEND with their size noted before (exact while nobody else appends), others line by line (one
 * line in doubt if logger is killed). Never splices from a log: pages would go by reference, and change on their way.
 *
 * Says through say() when stdout begins to stand still, when lines were dropped because a sink stood still, and when it falls back to write.
 */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../entry.h"
#include "say.h"

static const char target[] = "vigil.logger";
static const uint64_t second = 1000000000, never = UINT64_MAX;

enum { DRAINED_ALL = 1, READER_GONE, SPLICE_REFUSED };   /* sink.result */

/* The lanes that may have something for the batch being made, smallest seq first. */
struct candidate { uint64_t seq, at, limit; uint32_t lane; int32_t entry; };

static struct candidate heap[LANES_MAX];
static uint32_t heap_size;
static char rendered[ENTRY_JSON_MAX];

static struct kept_lane *kept(const struct sink *sink, uint32_t lane)
{
    return &sink->logs[lane / 2].kept->lane[lane % 2];
}

static void set_state(struct sink_intent *intent, uint32_t state)
{
    __atomic_store_n(&intent->state, state, __ATOMIC_SEQ_CST);
}

/* Bytes in P. Only while no splice from it can be blocked. */
static uint32_t in_pipe(const struct sink *sink)
{
    int count = 0;

    return ioctl(sink->pipe_read, FIONREAD, &count) < 0 || count < 0 ? 0 : (uint32_t)count;
}

void sink_mark(struct sink *sink, uint32_t lane)
{
    sink->pending[lane / 64] |= UINT64_C(1) << lane % 64;
}

static void unmark(struct sink *sink, uint32_t lane)
{
    sink->pending[lane / 64] &= ~(UINT64_C(1) << lane % 64);
}

/* --- The thread ----------------------------------------------------------------------------------------------------------- */

static void signal_main(const struct sink *sink)
{
    uint64_t one = 1;

    while (write(sink->done, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void note_progress(struct sink *sink)
{
    __atomic_add_fetch(&sink->progress, 1, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&sink->tell, 0, __ATOMIC_SEQ_CST))
        signal_main(sink);
}

/* After a failed call: whether it is to be tried again. Waits a little, or until the sink takes something. */
static bool wait_for_sink(struct sink *sink, int error)
{
    struct pollfd entry = { .fd = sink->fd, .events = POLLOUT };

    switch (error) {
    case EINTR:
        return true;
    case EAGAIN:                    /* somebody made our stdout O_NONBLOCK; it is theirs too, so it is left as it is */
        poll(&entry, 1, 1000);
        return true;
    case EPIPE:
    case ECONNRESET:
    case EBADF:
        return false;
    default:                        /* no space, I/O error: like a reader that takes nothing */
        poll(NULL, 0, 200);
        return true;
    }
}

static uint32_t drain_by_splice(struct sink *sink)
{
    uint32_t left;

    while ((left = in_pipe(sink)) > 0) {
        ssize_t moved = splice(sink->pipe_read, NULL, sink->fd, NULL, left < sink->step ? left : sink->step, 0);

        if (moved > 0)
            note_progress(sink);
        else if (moved == 0 || errno == EINVAL || errno == ENOSYS || errno == EPERM)
            return SPLICE_REFUSED;
        else if (!wait_for_sink(sink, errno))
            return READER_GONE;
    }
    return DRAINED_ALL;
}

/* Writes the batch from `done` on; line by line where `whole` is false, so that a death leaves one line in doubt and not the batch. */
static uint32_t drain_by_write(struct sink *sink, bool whole)
{
    struct sink_intent *intent = sink->intent;

    while (intent->done < intent->size) {
        const unsigned char *from = intent->text + intent->done, *newline;
        size_t length = intent->size - intent->done;
        ssize_t written;

        newline = whole ? NULL : memchr(from, '\n', length);
        if (newline)
            length = (size_t)(newline - from) + 1;
        written = write(sink->fd, from, length);
        if (written > 0) {
            __atomic_store_n(&intent->done, intent->done + (uint32_t)written, __ATOMIC_RELEASE);
            note_progress(sink);
        } else if (!wait_for_sink(sink, written == 0 ? EIO : errno)) {
            return READER_GONE;
        }
    }
    return DRAINED_ALL;
}

static void *run(void *argument)
{
    struct sink *sink = argument;
    uint64_t word;

    for (;;) {
        uint32_t result;

        if (read(sink->wake, &word, sizeof word) != (ssize_t)sizeof word)
            continue;
        switch (sink->intent->state) {
        case INTENT_DRAIN: result = drain_by_splice(sink); break;
        case INTENT_APPEND: result = drain_by_write(sink, true); break;
        default: result = drain_by_write(sink, false); break;
        }
        __atomic_store_n(&sink->result, result, __ATOMIC_RELEASE);
        signal_main(sink);
    }
    return NULL;
}

static void wake(struct sink *sink, uint64_t now)
{
    uint64_t one = 1;

    sink->busy = true;
    sink->seen_at = now;
    while (write(sink->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* --- The end of a batch ----------------------------------------------------------------------------------------------------- */

static bool lane_exists(const struct sink *sink, uint32_t lane)
{
    return lane < LANES_MAX && sink->logs[lane / 2].kept && sink->logs[lane / 2].kept->used;
}

/* The batch is over: every store is the same when it is done again. */
static void commit(struct sink *sink, bool dropped)
{
    struct sink_intent *intent = sink->intent;

    for (uint32_t at = 0; at < intent->count && at < SINK_NEXT_MAX; at++) {
        const struct lane_next *next = &intent->next[at];
        struct kept_lane *lane;

        if (!lane_exists(sink, next->lane))
            continue;
        lane = kept(sink, next->lane);
        if (dropped)
            lane->dropped = next->dropped;
        lane->next_nth = next->nth;
        lane->next = next->next;
    }
    intent->open = intent->next_open;
    if (dropped) {
        intent->open.lane = intent->open.skip = 0;
        intent->open.cut = 1;
        sink->unsaid = true;
    }
    set_state(intent, INTENT_IDLE);
}

static void empty_pipe(struct sink *sink)
{
    uint32_t left;

    while ((left = in_pipe(sink)) > 0)
        if (read(sink->pipe_read, rendered, left < sizeof rendered ? left : sizeof rendered) <= 0 && errno != EINTR)
            break;
}

static void drop_batch(struct sink *sink)
{
    set_state(sink->intent, INTENT_DROP);
    empty_pipe(sink);
    commit(sink, true);
}

static void apply_skip(struct sink *sink)
{
    struct sink_intent *intent = sink->intent;

    if (lane_exists(sink, intent->skip.lane)) {
        struct kept_lane *lane = kept(sink, intent->skip.lane);

        lane->dropped = intent->skip.dropped;
        lane->next_nth = intent->skip.nth;
        lane->next = intent->skip.next;
        if (intent->open.lane == intent->skip.lane + 1)
            intent->open = (struct open_line){ .cut = 1 };
    }
    set_state(intent, INTENT_IDLE);
    sink->unsaid = true;
}

/* What was to be forwarded next is overwritten: goes on with the oldest line there is, and counts exactly. */
static void skip_lapped(struct sink *sink, uint32_t number)
{
    struct sink_intent *intent = sink->intent;
    struct log *log = &sink->logs[number / 2];
    struct kept_lane *lane = kept(sink, number);
    const uint8_t want = (uint8_t)(VG_RECORD_FORWARD | (number % 2 ? VG_RECORD_STDERR : 0));
    uint64_t at = log->ring.header->tail, head = log->ring.header->head, nth = lane->nth;

    while (at < head) {
        const struct vg_record *record = ring_record(&log->ring, at);

        if ((record->flags & (VG_RECORD_FORWARD | VG_RECORD_STDERR)) == want) {
            nth = vg_record_nth(record) | (lane->nth & ~VG_NTH_MASK);
            if (nth > lane->nth)
                nth -= VG_NTH_MASK + 1;
            break;
        }
        at += vg_record_size(record->length);
    }
    intent->skip = (struct lane_next){ .lane = number, .next = at, .nth = nth, .dropped = lane->dropped + (nth - lane->next_nth) };
    set_state(intent, INTENT_SKIP);
    apply_skip(sink);
}

/* --- Making a batch --------------------------------------------------------------------------------------------------------- */

struct batch {
    struct sink *sink;
    struct open_line open;
    uint32_t size, count, lines;
    uint32_t pages, page_start, line_end;   /* pages before the one that is being filled; where it begins; after its last newline */
};

static bool smaller(const struct candidate *a, const struct candidate *b)
{
    return a->seq < b->seq;
}

static void sift_down(uint32_t at)
{
    struct candidate moved = heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= heap_size)
            break;
        if (child + 1 < heap_size && smaller(&heap[child + 1], &heap[child]))
            child++;
        if (!smaller(&heap[child], &moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void push(struct candidate candidate)
{
    uint32_t at = heap_size++;

    while (at && smaller(&candidate, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = candidate;
}

static struct candidate pop(void)
{
    struct candidate first = heap[0];

    if (--heap_size) {
        heap[0] = heap[heap_size];
        sift_down(0);
    }
    return first;
}

/* Goes to the lane's first record from *at on that is to be forwarded; false: there is none below limit. */
static bool find(const struct log *log, uint32_t lane, uint64_t *at, uint64_t limit, uint64_t *seq)
{
    const uint8_t want = (uint8_t)(VG_RECORD_FORWARD | (lane % 2 ? VG_RECORD_STDERR : 0));
    const unsigned char *place = ring_at(&log->ring, *at);

    while (*at < limit) {
        const struct vg_record *record = (const struct vg_record *)(const void *)place;
        uint64_t size;

        if ((record->flags & (VG_RECORD_FORWARD | VG_RECORD_STDERR)) == want) {
            *seq = record->seq;
            return true;
        }
        size = vg_record_size(record->length);
        *at += size;
        place += size;
    }
    return false;
}

/* Whether parts of a long line become one line again on the sink. */
static bool joins(const struct log *log)
{
    return log->kept->format != VG_FORMAT_JSON;
}

/* Puts a lane that has something to forward into the heap. A long line waits until it is complete, unless it has waited for a
 * second or fills half of its log: others must not wait for its end, and it must not be cut by them. */
static void consider(struct sink *sink, uint32_t number, uint64_t now)
{
    struct log *log = &sink->logs[number / 2];
    struct kept_lane *lane;
    struct candidate candidate = { .lane = number, .entry = -1 };
    uint64_t head;

    if (!log->kept || !log->ring.header) {
        unmark(sink, number);
        return;
    }
    lane = kept(sink, number);
    head = log->ring.header->head;
    if (lane->next < log->ring.header->tail)
        skip_lapped(sink, number);
    candidate.at = lane->next;
    candidate.limit = head;
    if (!find(log, number, &candidate.at, head, &candidate.seq)) {
        lane->next = head;          /* the rest of its log is not for this lane; one word, and IDLE */
        unmark(sink, number);
        log->waiting[number % 2] = 0;
        return;
    }
    if (joins(log) && sink->intent->open.lane != number + 1) {
        uint64_t whole = log->whole[number % 2];

        if (candidate.at >= whole) {
            uint64_t *since = &log->waiting[number % 2];

            if (!*since)
                *since = now;
            if (now - *since < second && head - lane->next <= log->ring.capacity / 2) {
                if (*since + second < sink->look_at)
                    sink->look_at = *since + second;
                return;
            }
        } else {
            log->waiting[number % 2] = 0;
            candidate.limit = whole;
        }
    }
    push(candidate);
}

/* Whether `length` more bytes fit in the batch's pages, and if so where they end. `ends`: with a newline. */
static bool pack(struct batch *batch, uint32_t length, bool ends)
{
    uint32_t end = batch->size + length, start = batch->page_start, line_end = batch->line_end, pages = batch->pages;

    while (end - start > SINK_PAGE) {   /* as fill() will cut it: after the last newline that fits, else in mid-line */
        start = line_end > start ? line_end : start + SINK_PAGE;
        if (++pages >= batch->sink->pages)
            return false;
    }
    batch->page_start = start;
    batch->pages = pages;
    batch->line_end = ends ? end : line_end;
    batch->size = end;
    return true;
}

/* Writes a record as it goes out. Returns its length; *ends: with a newline. */
static uint32_t render(const struct log *log, const struct vg_record *record, bool starts, char *to, bool *ends)
{
    const unsigned char *message = (const unsigned char *)(record + 1);
    char *at = to;

    *ends = true;
    if (log->kept->format == VG_FORMAT_JSON) {
        at = entry_json(at, record, message, log->kept->name);
    } else {
        if (starts && log->kept->format == VG_FORMAT_TIMESTAMP) {
            at = entry_time(at, record->real_ns);
            *at++ = ' ';
        }
        if (starts && log->kept->format != VG_FORMAT_RAW) {
            memcpy(at, log->kept->prefix, log->prefix_size);
            at += log->prefix_size;
        }
        memcpy(at, message, record->length);
        at += record->length;
        *ends = !(record->flags & VG_RECORD_PARTIAL);
    }
    if (*ends)
        *at++ = '\n';
    return (uint32_t)(at - to);
}

/* Adds what fits of the candidate's record. False: the batch is full. */
static bool add(struct batch *batch, struct candidate *candidate)
{
    struct sink *sink = batch->sink;
    struct sink_intent *intent = sink->intent;
    struct log *log = &sink->logs[candidate->lane / 2];
    const struct vg_record *record = ring_record(&log->ring, candidate->at);
    bool mine = batch->open.lane == candidate->lane + 1, ends;
    uint32_t length, skip = mine ? batch->open.skip : 0;
    size_t most = log->kept->format == VG_FORMAT_JSON ? 6 * ((size_t)record->length + 128) + 256 : record->length + log->prefix_size + 32u;
    bool direct = !skip && batch->size + most <= SINK_TEXT_MAX;
    char *text = direct ? (char *)intent->text + batch->size : rendered;
    struct lane_next *next;

    if (candidate->entry < 0) {
        if (batch->count == SINK_NEXT_MAX)
            return false;
        candidate->entry = (int32_t)batch->count;
    }
    length = render(log, record, !mine || (skip && !batch->open.joined), text, &ends);
    if (skip > length)
        skip = length;
    if (!pack(batch, length - skip, ends)) {
        uint32_t room = sink->pages * SINK_PAGE;

        if (batch->lines || batch->size || length - skip <= room)
            return false;
        /* Longer than P: a part of it, and the rest in the next batch. */
        if (!direct)
            memmove(intent->text, rendered + skip, room);
        batch->size = room;
        batch->open = (struct open_line){ .lane = candidate->lane + 1, .skip = skip + room, .joined = skip ? batch->open.joined : mine };
        next = &intent->next[candidate->entry];
        *next = (struct lane_next){ .lane = candidate->lane, .next = candidate->at, .nth = kept(sink, candidate->lane)->next_nth,
                                    .dropped = kept(sink, candidate->lane)->dropped };
        batch->count++;
        return false;
    }
    if (!direct)
        memcpy(intent->text + batch->size - (length - skip), rendered + skip, length - skip);
    batch->lines++;
    batch->open = (struct open_line){ .lane = ends ? 0 : candidate->lane + 1 };
    candidate->at += vg_record_size(record->length);
    next = &intent->next[candidate->entry];
    if ((uint32_t)candidate->entry == batch->count)
        batch->count++;
    next->lane = candidate->lane;
    next->next = candidate->at;
    next->nth = kept(sink, candidate->lane)->next_nth + ((vg_record_nth(record) + 1 - kept(sink, candidate->lane)->next_nth) & VG_NTH_MASK);
    next->dropped = kept(sink, candidate->lane)->dropped + (next->nth - kept(sink, candidate->lane)->next_nth);
    return true;
}

/* Takes the open line's lane out of the heap; false: it is not there. */
static bool take_lane(uint32_t lane, struct candidate *to)
{
    for (uint32_t at = 0; at < heap_size; at++)
        if (heap[at].lane == lane) {
            *to = heap[at];
            heap[at] = heap[--heap_size];
            for (uint32_t root = heap_size / 2; root-- > 0;)
                sift_down(root);
            return true;
        }
    return false;
}

/* Renders lines of all lanes in the order of seq into the intent. */
static void make(struct batch *batch, uint64_t now)
{
    struct sink *sink = batch->sink;
    struct sink_intent *intent = sink->intent;
    struct candidate current;

    heap_size = 0;
    for (uint32_t word = 0; word < LANES_MAX / 64; word++)
        for (uint64_t bits = sink->pending[word]; bits; bits &= bits - 1)
            consider(sink, word * 64 + (uint32_t)__builtin_ctzll(bits), now);
    batch->open = intent->open;     /* skip_lapped may have changed it */
    while (heap_size) {
        bool full = false;

        if (!batch->open.lane || !take_lane(batch->open.lane - 1, &current)) {
            if (batch->open.lane) {     /* it does not go on yet, and others are not to wait for it */
                batch->open = (struct open_line){ .cut = 1 };
            }
            current = pop();
        }
        if (batch->open.cut) {
            intent->text[batch->size] = '\n';
            if (!pack(batch, 1, true))
                return;
            batch->open = (struct open_line){ .lane = 0 };
        }
        /* A lane goes on as long as it has the smallest seq, or a line that has begun. */
        for (;;) {
            if (!add(batch, &current)) {
                full = true;
                break;
            }
            if (!find(&sink->logs[current.lane / 2], current.lane, &current.at, current.limit, &current.seq))
                break;
            if (!batch->open.lane && heap_size && smaller(&heap[0], &current)) {
                push(current);
                break;
            }
        }
        if (full)
            return;
    }
}

/* --- Sending it ------------------------------------------------------------------------------------------------------------- */

/* Writes the batch into P from where it stands on. The same cuts as pack() counted with. */
static void fill(struct sink *sink, uint64_t now)
{
    struct sink_intent *intent = sink->intent;
    uint32_t at = in_pipe(sink);

    while (at < intent->size) {
        uint32_t length = intent->size - at;
        ssize_t written;

        if (length > SINK_PAGE) {
            const unsigned char *newline = memrchr(intent->text + at, '\n', SINK_PAGE);

            length = newline ? (uint32_t)(newline - (intent->text + at)) + 1 : SINK_PAGE;
        }
        written = write(sink->pipe_write, intent->text + at, length);
        if (written > 0) {
            at += (uint32_t)written;
        } else if (errno != EINTR) {    /* cannot be: an empty pipe takes as many writes as it has pages */
            say(VG_ERROR, target, "cannot fill the pipe to %s: %s", sink->name, written < 0 && errno == EAGAIN ? "it is full" : "write failed");
            sink->look_at = now + second;
            return;
        }
    }
    set_state(intent, INTENT_DRAIN);
    wake(sink, now);
}

static void begin(struct sink *sink, const struct batch *batch, uint64_t now)
{
    struct sink_intent *intent = sink->intent;
    struct stat status;

    intent->size = batch->size;
    intent->count = batch->count;
    intent->next_open = batch->open;
    intent->done = 0;
    if (sink->mode == SINK_SPLICE) {
        set_state(intent, INTENT_FILL);
        fill(sink, now);
        return;
    }
    if (sink->mode == SINK_APPEND && fstat(sink->fd, &status) == 0) {
        intent->file_size = (uint64_t)status.st_size;
        set_state(intent, INTENT_APPEND);
    } else {
        set_state(intent, INTENT_WRITE);
    }
    wake(sink, now);
}

/* The sink cannot be spliced to after all (somebody set O_APPEND, or an old kernel): what is left of the batch is written. */
static void fall_back(struct sink *sink, uint64_t now)
{
    struct sink_intent *intent = sink->intent;

    if (!intent->told)
        say(VG_WARN, target, "cannot splice to %s: lines are written one by one, and one may be lost or doubled if logger is killed", sink->name);
    intent->told = 1;
    sink->mode = SINK_WRITE;
    intent->done = intent->size - in_pipe(sink);
    set_state(intent, INTENT_WRITE);
    empty_pipe(sink);
    wake(sink, now);
}

static bool own(const struct sink *sink, uint32_t lane)
{
    return lane_exists(sink, lane) && (sink->streams >> lane % 2 & 1);
}

uint64_t sink_behind(const struct sink *sink)
{
    uint64_t count = 0;

    for (uint32_t number = 0; number < LANES_MAX; number++)
        if (own(sink, number))
            count += kept(sink, number)->nth - kept(sink, number)->next_nth;
    return count;
}

void sink_name_behind(const struct sink *sink, char *to, size_t size, bool said)
{
    size_t length = 0;
    uint32_t more = 0;

    to[0] = 0;
    for (uint32_t number = 0; number < LANES_MAX; number += 2) {
        uint64_t count = 0;

        for (uint32_t lane = number; lane < number + 2; lane++)
            if (own(sink, lane)) {
                const struct kept_lane *values = kept(sink, lane);

                count += said ? values->dropped - values->said : values->nth - values->next_nth;
            }
        if (!count)
            continue;
        if (length + 180 > size)
            more++;
        else
            length += say_text(to + length, size - length, "%s%s %llu", length ? ", " : "", sink->logs[number / 2].kept->name,
                               (unsigned long long)count);
    }
    if (more)
        say_text(to + length, size - length, " and %u more", more);
}

/* One line, once the sink moves again. */
static void say_dropped(struct sink *sink)
{
    char names[800];
    uint64_t count = 0;

    sink->unsaid = false;
    for (uint32_t number = 0; number < LANES_MAX; number++)
        if (own(sink, number))
            count += kept(sink, number)->dropped - kept(sink, number)->said;
    if (!count)
        return;
    sink_name_behind(sink, names, sizeof names, true);
    say(VG_WARN, target, "%s stood still, %llu lines were not forwarded: %s", sink->name, (unsigned long long)count, names);
    for (uint32_t number = 0; number < LANES_MAX; number++)
        if (own(sink, number))
            kept(sink, number)->said = kept(sink, number)->dropped;
}

/* --- What the main loop calls ------------------------------------------------------------------------------------------------ */

bool sink_open(struct sink *sink)
{
    static const size_t stack = 65536;
    struct stat status;
    pthread_attr_t attributes;
    pthread_t thread;
    int flags = sink->fd < 0 ? -1 : fcntl(sink->fd, F_GETFL), size, error;
    long page = sysconf(_SC_PAGESIZE);

    sink->look_at = never;
    sink->unsaid = true;            /* a predecessor may have died before it said so */
    sink->wake = sink->done = -1;
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || fstat(sink->fd, &status) < 0) {
        sink->mode = SINK_NONE;
        return true;
    }
    sink->mode = S_ISREG(status.st_mode) && flags & O_APPEND ? SINK_APPEND : SINK_SPLICE;
    if (sink->mode == SINK_APPEND && !sink->intent->told) {
        sink->intent->told = 1;
        say(VG_INFO, target, "%s is a file opened for appending: exact as long as only vigild writes to it", sink->name);
    }
    size = fcntl(sink->pipe_write, F_GETPIPE_SZ);
    sink->pages = size < page ? 1 : (uint32_t)(size / page);
    if (sink->pages > SINK_PAGES_MAX)
        sink->pages = SINK_PAGES_MAX;
    /* A terminal or socket blocks inside a splice: small steps, so that progress is seen. */
    sink->step = S_ISFIFO(status.st_mode) || S_ISREG(status.st_mode) ? SINK_TEXT_MAX : SINK_PAGE;
    sink->wake = eventfd(0, EFD_CLOEXEC);
    sink->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sink->wake < 0 || sink->done < 0)
        return false;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &attributes, run, sink);
    pthread_attr_destroy(&attributes);
    errno = error;
    return error == 0;
}

void sink_recover(struct sink *sink, uint64_t now)
{
    struct sink_intent *intent = sink->intent;
    struct stat status;

    if (sink->mode == SINK_NONE)
        return;
    switch (intent->state) {
    case INTENT_FILL:
        fill(sink, now);
        break;
    case INTENT_APPEND:
        if (fstat(sink->fd, &status) == 0 && (uint64_t)status.st_size > intent->file_size + intent->done) {
            uint64_t out = (uint64_t)status.st_size - intent->file_size;

            intent->done = out < intent->size ? (uint32_t)out : intent->size;
        }
        wake(sink, now);
        break;
    case INTENT_WRITE:
        empty_pipe(sink);
        wake(sink, now);
        break;
    case INTENT_DRAIN:
        wake(sink, now);
        break;
    case INTENT_DROP:
        drop_batch(sink);
        break;
    case INTENT_SKIP:
        apply_skip(sink);
        break;
    default:
        break;
    }
}

#define ONLY_STDOUT 1u

static void see_progress(struct sink *sink, uint64_t now)
{
    uint64_t progress = __atomic_load_n(&sink->progress, __ATOMIC_SEQ_CST);

    if (progress != sink->seen) {
        sink->seen = progress;
        sink->seen_at = now;
        sink->stalled = false;
    } else if (!sink->stalled && now - sink->seen_at >= sink->stall_ns) {
        sink->stalled = true;
        __atomic_store_n(&sink->tell, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&sink->progress, __ATOMIC_SEQ_CST) != progress)
            sink->stalled = false;
        else if (sink->streams == ONLY_STDOUT)      /* of itself the way of diagnostics could only say it when it moves again */
            say(VG_WARN, target, "%s takes nothing: services go on, and what they write is only kept (vigil logs) until it moves", sink->name);
    }
}

/* Somebody else appends to the file too: its size does not tell exactly any more what is out, so little is put at stake. */
static void look_for_others(struct sink *sink)
{
    struct stat status;

    if (fstat(sink->fd, &status) == 0 && (uint64_t)status.st_size > sink->intent->file_size + sink->intent->size)
        sink->pages = 1;
}

void sink_done(struct sink *sink, uint64_t now)
{
    uint64_t word;
    uint32_t result;

    while (read(sink->done, &word, sizeof word) < 0 && errno == EINTR)
        ;
    result = __atomic_exchange_n(&sink->result, 0, __ATOMIC_ACQ_REL);
    if (!result) {
        if (sink->busy)
            see_progress(sink, now);
        return;
    }
    sink->busy = false;
    sink->stalled = false;
    switch (result) {
    case READER_GONE:
        drop_batch(sink);
        sink->closed = true;
        sink->look_at = now + second;
        break;
    case SPLICE_REFUSED:
        fall_back(sink, now);
        break;
    default:
        if (sink->intent->state == INTENT_APPEND)
            look_for_others(sink);
        commit(sink, false);
        if (sink->unsaid)
            say_dropped(sink);
        break;
    }
}

/* Whether a sink whose reader had gone has one again: a FIFO may. */
static bool reader_is_back(const struct sink *sink)
{
    struct pollfd entry = { .fd = sink->fd, .events = POLLOUT };

    return poll(&entry, 1, 0) == 0 || !(entry.revents & (POLLERR | POLLHUP | POLLNVAL));
}

void sink_turn(struct sink *sink, uint64_t now)
{
    struct batch batch = { .sink = sink };

    if (sink->mode == SINK_NONE)
        return;
    if (sink->busy) {
        see_progress(sink, now);
        return;
    }
    if (sink->closed) {
        if (now < sink->look_at)
            return;
        if (!reader_is_back(sink)) {
            sink->look_at = now + second;
            return;
        }
        sink->closed = false;
    }
    sink->look_at = never;
    if (sink->intent->state == INTENT_FILL) {
        fill(sink, now);
        return;
    }
    make(&batch, now);
    if (batch.size)
        begin(sink, &batch, now);
    else if (sink->unsaid)
        say_dropped(sink);
}

static bool any_pending(const struct sink *sink)
{
    for (uint32_t word = 0; word < LANES_MAX / 64; word++)
        if (sink->pending[word])
            return true;
    return false;
}

uint64_t sink_deadline(const struct sink *sink)
{
    if (sink->mode == SINK_NONE || (sink->closed && !any_pending(sink)))
        return never;
    if (sink->busy)
        return sink->stalled ? never : sink->seen_at + sink->stall_ns;
    return sink->look_at;
}

bool sink_idle(const struct sink *sink)
{
    return !sink->busy && sink->intent->state == INTENT_IDLE && !any_pending(sink);
}

bool sink_moves(const struct sink *sink)
{
    return sink->mode != SINK_NONE && !sink->closed && !sink->stalled;
}
