/*
 * protocol.h - the wire between PID 1 and its two helpers, control (Python) and logger (C).
 *
 * The only definition of it: C includes this file, and cffi parses the part between the two "cffi" marks for Python. One
 * SOCK_SEQPACKET socketpair per helper; one message is one datagram: a struct that begins with vg_head (whose size is the
 * struct's own size, exactly) and, where the table below says so, descriptors in SCM_RIGHTS. All integers are in host order, all
 * times on CLOCK_MONOTONIC unless named "real". Bytes named reserved are zero when sent and ignored when read.
 *
 * A message of unknown kind, of another size than its struct, with other descriptors than the table allows, or (from control)
 * before HELLO is a bug of its sender: PID 1 drops that helper and starts it again. What is well formed but cannot be done is
 * answered VG_REFUSED and changes nothing.
 *
 *   from control     descriptors               answer
 *   HELLO                                      WELCOME, SNAPSHOT..., SNAPSHOT_PARKED..., SNAPSHOT_END (or the link is closed: version)
 *   SPAWN            blob[, stdin, stdout, stderr as VG_FD_* says][, notify]   STARTED or SPAWN_FAILED or REFUSED
 *   UPDATE, SIGNAL, STOP, RELEASE              nothing, or REFUSED
 *   PARK             one                       nothing, or REFUSED
 *   UNPARK                                     nothing, or REFUSED
 *   READY, PONG                                nothing
 *   SHUTDOWN                                   STOPPING, EXITED, GONE of every run, then SIGTERM to control
 *   REEXEC                                     REFUSED (ENOSYS)
 *
 *   to logger        descriptors               answer
 *   STREAM           pipe's read end[, ring], or a notification socket; of no run ({VG_NO_SLOT, 0}): a ring alone, to a new logger, for what was not forwarded yet
 *   STREAMS_END                                LOGGER_READY (once a life)
 *   FORGET                                     DRAINED
 *   SETTINGS, FINISH                           FINISH: DRAINED of run {VG_NO_SLOT, 0} once everything kept is forwarded
 *   PING                                       PONG
 */
#ifndef VIGIL_PROTOCOL_H
#define VIGIL_PROTOCOL_H
#include <stdint.h>

/* cffi: begin */
#define VG_PROTOCOL 2
#define VG_NAME_MAX 128         /* bytes of a service's or log's name, without the NUL */
#define VG_PARK_MAX 160         /* bytes of a parked descriptor's name, without the NUL */
#define VG_NOTE_MAX 256         /* bytes of a run's note */
#define VG_PREFIX_MAX 191       /* bytes of the prefix of a forwarded line, without the NUL */
#define VG_MESSAGE_MAX 1024     /* no message is longer */
#define VG_NO_SLOT 0xffffffff   /* "no run" */
#define VG_SLOT_CONTROL 0xfffffffe   /* STREAM, FORGET: output of a life of control; generation counts the lives */
#define VG_SLOT_DIAGNOSTICS 0xfffffffd   /* STREAM: what PID 1 and logger say */
#define VG_BLOB_MAX 8388608     /* bytes of a SPAWN's blob: more than any execve accepts (6 MiB) */
#define VG_FOREVER 0xffffffffffffffff   /* a delay or deadline that never comes */
#define VG_STREAM_NOTIFY 3      /* STREAM.stream: the run's notification socket */
#define VG_LINK_FD 3            /* where control finds its end; VIGIL_LINK=3 in its environment says so */

enum vg_kind {
    VG_HELLO = 1, VG_SPAWN, VG_UPDATE, VG_SIGNAL, VG_STOP, VG_RELEASE, VG_PARK, VG_UNPARK,
    VG_READY, VG_PONG, VG_SHUTDOWN, VG_REEXEC,
    VG_WELCOME = 32, VG_SNAPSHOT, VG_SNAPSHOT_PARKED, VG_SNAPSHOT_END, VG_STARTED, VG_SPAWN_FAILED, VG_REFUSED,
    VG_EXITED, VG_STOPPING, VG_GONE, VG_SIGNALLED, VG_PING,
    VG_STREAM = 64, VG_STREAMS_END, VG_FORGET, VG_SETTINGS, VG_FINISH,
    VG_LOGGER_READY = 80, VG_DRAINED, VG_STATS
};

/* What a run is for. */
enum vg_run_kind { VG_SERVICE = 1, VG_PROBE, VG_SESSION };

/* SPAWN.flags */
enum vg_spawn_flag {
    VG_EPHEMERAL = 1,           /* its tree is killed when control goes */
    VG_CTTY = 2,                /* descriptor 0 becomes its controlling terminal (refused with ENOSYS until sessions exist) */
    VG_SET_USER = 4,            /* uid, gid and the blob's groups are set; else the child keeps vigild's */
    VG_SET_UMASK = 8,
    VG_SET_NICE = 16,
    VG_SET_OOM = 32,            /* else the child gets the score vigild was started with */
    VG_STDIN_INHERIT = 64,      /* descriptor 0 is vigild's own; else /dev/null (or the one that came) */
    VG_FD_0 = 256, VG_FD_1 = 512, VG_FD_2 = 1024,    /* that descriptor came with the message, in this order after the blob */
    VG_NOTIFY = 2048            /* after those came the datagram socket on which the run notifies (sd_notify); logger reads it */
};

/* What becomes of the output of a run (descriptors 1 and 2 that did not come with SPAWN). */
enum vg_log_mode {
    VG_LOG_NONE = 0,            /* /dev/null */
    VG_LOG_ENABLED,             /* captured, kept and forwarded */
    VG_LOG_DISABLED,            /* captured and kept */
    VG_LOG_PASSTHROUGH          /* vigild's own stdout and stderr */
};

/* How logger renders a forwarded line: prefix + line; time, blank, prefix + line; one ndjson entry (the prefix is not used). */
enum vg_format { VG_FORMAT_TEXT = 0, VG_FORMAT_TIMESTAMP, VG_FORMAT_JSON, VG_FORMAT_RAW };

enum vg_level { VG_DEBUG = 0, VG_INFO, VG_WARN, VG_ERROR };

/* SIGNAL.target, STOP.target */
enum vg_target { VG_MAIN = 1, VG_GROUP, VG_TREE };

/* Which step of a start failed: the value of SPAWN_FAILED.step. Names for people are in vigil/shim. */
enum vg_step {
    VG_STEP_NONE = 0,
    VG_STEP_STOPPING,           /* vigild is stopping: nothing is started any more */
    VG_STEP_PIPE,               /* log pipes */
    VG_STEP_FORK,               /* the keeper could not be forked */
    VG_STEP_KEEPER,             /* the keeper died before its child began: not started, try again */
    VG_STEP_VFORK,              /* the keeper could not fork */
    VG_STEP_SESSION, VG_STEP_STDIO, VG_STEP_CTTY, VG_STEP_LIMIT, VG_STEP_NICE, VG_STEP_OOM, VG_STEP_GROUPS, VG_STEP_GID,
    VG_STEP_UID, VG_STEP_CHDIR, VG_STEP_EXEC,
    VG_STEP_INTERPRETER         /* the file is there, but the interpreter it names is not */
};

/* Where a run is. Order matters: later states come later. */
enum vg_run_state {
    VG_RUN_STARTING = 1,        /* keeper forked, command not executed yet */
    VG_RUN_RUNNING,             /* command executed */
    VG_RUN_EXITED,              /* main process ended, something of its tree may be left */
    VG_RUN_FAILED,              /* command could not be executed: step and error say why */
    VG_RUN_GONE                 /* nothing is left; (a failed run is gone too, in state FAILED) */
};

/* SNAPSHOT.flags, EXITED.flags, GONE.flags */
enum vg_run_flag {
    VG_IS_STOPPING = 1,         /* a stop was begun, by STOP, by a whole stop, or because its main process ended */
    VG_IS_RELEASED = 2,
    VG_IS_ESCALATED = 4,        /* SIGKILL was sent */
    VG_IS_KEEPER_LOST = 8,      /* its keeper was killed; what was left of the run was killed with it */
    VG_IS_LEFT_OVER = 16,       /* 10 s after SIGKILL something was still there (state D); vigild went on */
    VG_IS_ASKED = 32,           /* the stop was asked for (STOP, deadline, whole stop): not the main process's own end */
    VG_IS_OVERDUE = 64,         /* the run's deadline passed */
    VG_IS_EPHEMERAL = 128
};

enum vg_stop_cause { VG_STOP_ASKED = 1, VG_STOP_WHOLE, VG_STOP_ENDED, VG_STOP_DEADLINE, VG_STOP_ORPHANED };

/* WELCOME.flags */
enum vg_welcome_flag {
    VG_AGAIN = 1,               /* an earlier control attached in this boot of the plan */
    VG_RESTARTED = 2,           /* `vigild restart`: start from scratch with the identities only */
    VG_IS_PID1 = 4,
    VG_NO_PROC = 8,             /* /proc is missing: only direct children of a keeper can be found */
    VG_STDERR_TTY = 16          /* vigild's stderr is a terminal */
};

enum vg_shutdown { VG_EXIT = 0, VG_RESTART };

/* UPDATE.set */
enum vg_update { VG_UPDATE_STOP = 1, VG_UPDATE_ORDER = 2, VG_UPDATE_FORWARD = 4, VG_UPDATE_LOG = 8 };

struct vg_head { uint32_t size; uint16_t kind; uint16_t reserved; };

/* A run is slot and generation, never a bare pid. {VG_NO_SLOT, 0} is no run. */
struct vg_run { uint32_t slot; uint32_t generation; };

struct vg_hello {
    struct vg_head head;
    uint32_t version;           /* VG_PROTOCOL */
    uint32_t capabilities;      /* none yet: 0 */
    uint32_t log_format;        /* of PID 1's and logger's own diagnostics: VG_FORMAT_TEXT or VG_FORMAT_JSON */
    uint32_t log_level;         /* vg_level */
    uint32_t watchdog_ms;       /* no PONG for that long: control is hung; 0 is the default, 10,000 */
    uint32_t forward_format;    /* vg_format */
    uint64_t stop_budget_ms;    /* of a whole stop; 0 is none */
    uint64_t forward_stall_ms;
    uint64_t reserved[6];
};

struct vg_welcome {
    struct vg_head head;
    uint32_t version;
    uint32_t flags;             /* vg_welcome_flag */
    uint32_t pid;               /* vigild's */
    uint32_t runs_max;          /* how many runs the table holds */
    uint32_t control_restarts, logger_restarts;
    uint64_t nofile_soft, nofile_hard;   /* what children get unless SPAWN says otherwise */
    uint64_t start_real_ns;     /* when vigild started, and when this control was executed */
    uint64_t control_real_ns;
    char program[32];           /* version of vigild's own program, NUL-terminated */
    uint64_t reserved[6];
};

struct vg_spawn {
    struct vg_head head;
    uint64_t token;             /* never used twice in a boot */
    uint32_t kind;              /* vg_run_kind */
    uint32_t flags;             /* vg_spawn_flag */
    uint32_t uid, gid;
    uint32_t umask;
    int32_t nice, oom_score_adj;
    uint32_t stop_signal;
    uint64_t kill_delay_ms;     /* VG_FOREVER: never */
    uint32_t component, rank;   /* order of a whole stop: in a component the highest rank first */
    uint64_t forward_mask;      /* bit S-1: signal S sent to vigild is forwarded to the main process */
    uint64_t deadline_ns;       /* CLOCK_MONOTONIC; then the tree is killed. VG_FOREVER: none */
    uint32_t log_mode;          /* vg_log_mode */
    uint32_t forward_format;    /* vg_format, for this run's lines */
    uint32_t groups, limits, argc, envc;   /* how many of each are in the blob */
    uint32_t blob_size;         /* bytes of the blob that count */
    uint32_t note_size;
    uint64_t capabilities, no_new_privs;   /* kept zero today; anything else is refused with ENOSYS */
    uint8_t note[256];          /* opaque, given back in SNAPSHOT */
    uint64_t reserved[8];
};
/*
 * The blob is a memfd sealed against shrinking, growing and writing: uint32_t groups[groups], padded to 8 bytes; struct vg_limit
 * limits[limits]; then NUL-terminated strings one after the other: name, log, prefix, working directory, argv[argc], environment[envc].
 * "log" names the parked ring as log/LOG; empty where log_mode captures nothing. argv[0] with no slash is looked up in the PATH of
 * that environment.
 */
struct vg_limit { uint32_t resource; uint32_t reserved; uint64_t soft, hard; };

struct vg_update_run {
    struct vg_head head;
    struct vg_run run;
    uint32_t set;               /* vg_update: which of the following count */
    uint32_t stop_signal;
    uint64_t kill_delay_ms;
    uint32_t component, rank;
    uint64_t forward_mask;
    uint32_t log_mode;          /* VG_LOG_ENABLED or VG_LOG_DISABLED, for a captured run */
    uint32_t padding;
    uint64_t reserved[4];
};

struct vg_signal { struct vg_head head; struct vg_run run; uint32_t signal, target; };
/* target: where the stop signal goes first: VG_GROUP. run {VG_NO_SLOT, 0}: the run that this token was given to, since an exec that hangs has no STARTED */
struct vg_stop { struct vg_head head; struct vg_run run; uint32_t target, reserved; uint64_t token; };
struct vg_release { struct vg_head head; struct vg_run run; };
struct vg_park { struct vg_head head; char name[168]; };      /* PARK, UNPARK, SNAPSHOT_PARKED */
struct vg_plain { struct vg_head head; uint64_t value; };     /* READY, PONG, REEXEC, SNAPSHOT_END, PING, STREAMS_END, FINISH, LOGGER_READY */
struct vg_shutdown_now { struct vg_head head; uint32_t code, action; };    /* code 0 to 255; vg_shutdown */

struct vg_usage { uint64_t user_us, system_us; uint64_t max_rss_kb; };

struct vg_snapshot {
    struct vg_head head;
    struct vg_run run;
    uint64_t token;
    uint32_t kind, state, flags;   /* vg_run_kind, vg_run_state, vg_run_flag */
    int32_t pid;                /* main process; 0 before it exists */
    uint64_t started_real_ns, exited_real_ns;
    int32_t code, status;       /* as in EXITED */
    uint32_t step; int32_t error;   /* as in SPAWN_FAILED */
    struct vg_usage usage;
    uint32_t log_mode, note_size;
    uint8_t note[256];
};

struct vg_started { struct vg_head head; struct vg_run run; uint64_t token; int32_t pid, keeper; uint64_t started_real_ns; };

/* run.slot == VG_NO_SLOT: nothing is kept, the token is free of consequence. Otherwise the run is kept until RELEASE. */
struct vg_spawn_failed { struct vg_head head; struct vg_run run; uint64_t token; uint32_t step; int32_t error; };

struct vg_refused { struct vg_head head; struct vg_run run; uint64_t token; uint32_t kind; int32_t error; };

struct vg_exited {
    struct vg_head head;
    struct vg_run run;
    uint64_t token;
    int32_t code;               /* siginfo's si_code: CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3 */
    int32_t status;             /* exit code, or signal */
    uint32_t flags, reserved;   /* vg_run_flag */
    uint64_t exited_real_ns;
    struct vg_usage usage;
};

struct vg_stopping { struct vg_head head; struct vg_run run; uint64_t token; uint32_t cause, reserved; };   /* vg_stop_cause */
struct vg_gone { struct vg_head head; struct vg_run run; uint64_t token; uint32_t flags, reserved; };
struct vg_signalled { struct vg_head head; uint64_t mask; };  /* bit S-1: signal S arrived at vigild since the last such message */

struct vg_stream {
    struct vg_head head;
    struct vg_run run;
    uint32_t stream;            /* 1 stdout, 2 stderr, or VG_STREAM_NOTIFY */
    uint32_t log_mode;          /* sent again for a known run and stream: only this changes */
    uint32_t forward_format;
    uint32_t has_ring;          /* a second descriptor: the ring */
    char log[136];              /* name of the service, as in entries */
    char prefix[192];           /* before a forwarded line in text formats, "[web] " */
    uint32_t uid, reserved;     /* of a notification socket: the run's user, */
    uint64_t tag;               /* and what all of its processes inherit as RLIMIT_LOCKS */
};
struct vg_forget { struct vg_head head; struct vg_run run; };  /* FORGET, DRAINED */
struct vg_settings { struct vg_head head; uint32_t log_format, log_level; uint64_t forward_stall_ms; };
struct vg_stats { struct vg_head head; uint64_t value[8]; };
/* cffi: end */

_Static_assert(sizeof(struct vg_spawn) <= VG_MESSAGE_MAX, "SPAWN fits a message");
_Static_assert(sizeof(struct vg_snapshot) <= VG_MESSAGE_MAX, "SNAPSHOT fits a message");
_Static_assert(sizeof(struct vg_spawn) % 8 == 0 && sizeof(struct vg_stream) % 8 == 0, "no padding at the end");
#endif
