/*
 * sink.h - from the logs to the container's stdout and stderr.
 *
 * A lane is one stream of one log: lane 2*log is its stdout, 2*log+1 its stderr. A sink takes the lanes of one stream, or of both
 * where stdout and stderr are the same file. What must outlive logger lies in J: the kept_ and _intent structs here.
 */
#ifndef VIGIL_INIT_SINK_H
#define VIGIL_INIT_SINK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../protocol.h"
#include "ring.h"

enum {
    LOGS_MAX = 2048,                /* services whose lines are still to be captured or forwarded */
    LANES_MAX = 2 * LOGS_MAX,
    SINK_PAGE = 4096,               /* PIPE_BUF: what one write puts into a pipe whole */
    SINK_PAGES_MAX = 32,            /* of one batch */
    SINK_TEXT_MAX = SINK_PAGES_MAX * SINK_PAGE,
    SINK_NEXT_MAX = 512             /* lanes of one batch */
};

/* What J keeps of a lane. Positions are the log's; nth counts the lane's records that are to be forwarded. */
struct kept_lane {
    uint64_t next;                  /* from here on nothing is forwarded yet */
    uint64_t next_nth;              /* nth of the first that is not */
    uint64_t nth;                   /* of the next to be captured */
    uint64_t dropped;               /* not forwarded, never will be */
    uint64_t said;                  /* how many of these were said */
};

struct kept_log {
    uint32_t used;
    uint32_t format;                /* vg_format */
    uint64_t id, inode;             /* of its ring */
    struct kept_lane lane[2];
    char name[136], prefix[192];
};

/* A line that has begun on the sink and is not yet ended there. */
struct open_line {
    uint32_t lane;                  /* lane + 1; 0: none */
    uint32_t skip;                  /* rendered bytes of the lane's next record that are out already */
    uint32_t cut;                   /* what is out there lacks its newline and will not go on */
    uint32_t joined;                /* with skip: that record was rendered as the continuation of a line */
};

struct lane_next { uint32_t lane, padding; uint64_t next, nth, dropped; };

enum intent_state { INTENT_IDLE = 0, INTENT_FILL, INTENT_DRAIN, INTENT_APPEND, INTENT_WRITE, INTENT_DROP, INTENT_SKIP };

/* What a sink is about to do, in J. The state word is stored last. */
struct sink_intent {
    uint32_t state;                 /* intent_state */
    uint32_t size;                  /* bytes of the batch */
    uint32_t done;                  /* APPEND, WRITE: bytes that are out */
    uint32_t count;                 /* of next[] */
    uint32_t told, padding;         /* said once a boot: that it is written to, or how */
    uint64_t file_size;             /* APPEND: of the file before the batch */
    struct open_line open, next_open;
    struct lane_next skip;
    struct lane_next next[SINK_NEXT_MAX];
    unsigned char text[SINK_TEXT_MAX] __attribute__((aligned(4096)));
};

/* A log as this life of logger has it. */
struct log {
    struct ring ring;
    struct kept_log *kept;          /* NULL: free */
    uint32_t streams;               /* how many still feed it */
    uint32_t ending;                /* how many of these only give what is left */
    uint64_t whole[2];              /* a line that is not complete begins here, or at its head */
    uint64_t waiting[2];            /* since when it waits to be complete; 0: it does not */
    uint32_t prefix_size;
    bool blocked;                   /* one of its streams waits for its lines to be forwarded */
};

enum sink_mode { SINK_SPLICE = 1, SINK_APPEND, SINK_WRITE, SINK_NONE };

struct sink {
    const char *name;               /* stdout, stderr */
    int fd;                         /* -1: there is none */
    int pipe_read, pipe_write;      /* P */
    int wake, done;                 /* eventfds, to its thread and back */
    enum sink_mode mode;
    uint32_t streams;               /* whose lanes are its own: bit 0 stdout, bit 1 stderr */
    uint32_t pages;                 /* of a batch */
    uint32_t step;                  /* bytes of one splice */
    struct sink_intent *intent;
    struct log *logs;
    uint64_t stall_ns;
    bool busy;                      /* its thread has the batch, and P */
    bool closed;                    /* its reader is gone */
    bool stalled;                   /* it took nothing for stall_ns */
    bool unsaid;                    /* something was dropped and not said */
    uint32_t result;                /* of the thread; 0: not at the end of the batch */
    uint32_t tell;                  /* the thread is to signal its next progress */
    uint64_t progress;              /* counts what went out; the thread's */
    uint64_t seen, seen_at;         /* the last progress that was seen, and when */
    uint64_t look_at;               /* when something is to be tried again; UINT64_MAX: never */
    uint64_t pending[LANES_MAX / 64];   /* lanes that may have something to forward */
};

/* name, fd, P, streams, intent, logs and stall_ns are set. False and errno: no thread. */
bool sink_open(struct sink *sink);
void sink_mark(struct sink *sink, uint32_t lane);           /* there may be lines in it */
void sink_recover(struct sink *sink, uint64_t now);         /* once a life: finishes what its predecessor had begun */
void sink_done(struct sink *sink, uint64_t now);            /* `done` is readable */
void sink_turn(struct sink *sink, uint64_t now);            /* the next batch if there is one; looks after stalls */
uint64_t sink_deadline(const struct sink *sink);            /* when sink_turn is to be called at the latest; UINT64_MAX: never */
uint64_t sink_behind(const struct sink *sink);              /* records captured for it, and not out */
bool sink_idle(const struct sink *sink);                    /* nothing is under way, and nothing is to be forwarded */
bool sink_moves(const struct sink *sink);                   /* lines may wait for it */
/* "web 17, db 4": what lacks, per service, as far as it fits; said: since it was last said, else all that is behind. */
void sink_name_behind(const struct sink *sink, char *to, size_t size, bool said);
#endif
