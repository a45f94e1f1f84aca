#ifndef VIGIL_SPAWN_H
#define VIGIL_SPAWN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "chan.h"
#include "table.h"

/* What every start needs, found out at boot. */
struct spawn_setting {
    int wake;                       /* eventfd shared by all keepers */
    int null;                       /* /dev/null, read and write */
    bool orphanable;                /* vigild is not PID 1 */
    uint64_t nofile_soft, nofile_hard;      /* as vigild found them */
    int32_t oom_score_adj;          /* likewise; INT32_MIN: leave it alone */
    char *title;                    /* memory of vigild's own argv */
    size_t title_size;
};
extern struct spawn_setting spawn_setting;

/* A SPAWN message: 0 and the run is in the table; else an errno with *step (the start failed, nothing kept), or with *step VG_STEP_NONE (refused: it makes no sense). */
int spawn_start(struct chan_message *message, uint32_t *step);
#endif
