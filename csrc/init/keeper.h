#ifndef VIGIL_KEEPER_H
#define VIGIL_KEEPER_H
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "../protocol.h"
#include "../slot.h"

#define VG_POKE SIGUSR1             /* PID 1 to keeper: look at the slot */
#define VG_ORPHANED SIGUSR2         /* kernel to keeper: vigild died under it (where vigild is not PID 1) */
#define KEEPER_TAG (1ULL << 62)     /* RLIMIT_LOCKS of a child: this, its generation and its slot (the kernel does not use that limit). Half of it, or
                                     * half of that, where vigild itself has a tag: what is vigild's own must not look like one of its runs. */
#define KEEPER_TAG_BITS 46

/* All that a keeper needs; on the stack of the forking function. Pointers go into the mapped blob. */
struct keeper_job {
    struct slot *slot;
    uint64_t tag;
    int wake;                       /* the eventfd shared by all keepers */
    int stdio[3];                   /* what becomes descriptors 0, 1 and 2 */
    int null;                       /* /dev/null */
    pid_t parent;                   /* vigild */
    bool orphanable;                /* vigild is not PID 1 of this namespace: it may die under us */
    const struct vg_spawn *spawn;
    const uint32_t *groups;
    const struct vg_limit *limits;
    const char *name, *directory, *strings;   /* strings: first of argv */
    void *blob;                     /* the mapping they point into, given back once the child has executed */
    size_t blob_size;
    uint64_t nofile_soft, nofile_hard;
    char *title;                    /* the memory of vigild's own argv, to be overwritten */
    size_t title_size;
    int32_t oom_score_adj;          /* vigild's own at its start; INT32_MIN: leave it alone */
};

_Noreturn void keeper_run(const struct keeper_job *job);      /* in the forked process */

/* Walking /proc, shared with PID 1 where it is the heir of a killed keeper. */
struct keeper_stat { pid_t parent; char state; };
bool keeper_stat(pid_t pid, struct keeper_stat *stat);
typedef void keeper_child(pid_t pid, void *context);
bool keeper_each_child(pid_t parent, keeper_child *each, void *context);     /* of a process with one thread; false where /proc cannot tell */
uint64_t keeper_tag(pid_t pid);                               /* the tag in /proc/PID/limits; 0: none */
void keeper_close_all_but(const int *keep, int count);        /* ascending, -1 ignored */
int keeper_pidfd_open(pid_t pid);
#endif
