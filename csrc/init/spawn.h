#ifndef VIGIL_SPAWN_H
#define VIGIL_SPAWN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "chan.h"
#include "table.h"

#define SPAWN_DELAY_MOST_MS (1000ULL * 86400 * 3650)     /* ten years: a delay that still can be added to a time */

/* What every start needs, found out at boot. */
struct spawn_setting {
    int wake;                       /* eventfd shared by all keepers */
    int null;                       /* /dev/null, read and write */
    bool orphanable;                /* vigild is not PID 1 */
    uint64_t nofile_soft, nofile_hard;      /* as vigild found them */
    int32_t oom_score_adj;          /* likewise; INT32_MIN: leave it alone */
    uint64_t tag;                   /* KEEPER_TAG, or less where vigild has a tag itself */
    char *title;                    /* memory of vigild's own argv */
    size_t title_size;
};
extern struct spawn_setting spawn_setting;

uint64_t spawn_tag(const struct run *run);      /* what all of its processes inherit */
/* A SPAWN message: 0 and the run is in the table; else an errno with *step (the start failed, nothing kept), or with *step VG_STEP_NONE (refused: it makes no sense). */
int spawn_start(struct chan_message *message, uint32_t *step);
#endif
