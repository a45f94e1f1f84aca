#ifndef VIGIL_STOP_H
#define VIGIL_STOP_H
#include <stdbool.h>
#include <stdint.h>
#include "table.h"

void stop_begin(struct run *run, uint32_t cause);           /* stop signal now, SIGKILL at the kill delay; a stop under way goes on as it is */
void stop_empty(struct run *run, uint32_t cause);           /* SIGKILL to all of it now */
int stop_signal(struct run *run, uint32_t signal, uint32_t target);   /* 0, or errno */
void stop_forward(uint64_t mask);                           /* signals that came to vigild, to those that want them */
void stop_orphans(void);                                    /* control is gone: its ephemeral runs are killed */

void stop_exited(struct run *run);                          /* the main process ended; code and status are in the run */
void stop_emptied(struct run *run);                         /* nothing of it is left */
void stop_failed(struct run *run, uint32_t step, int error);/* its command was not executed */
void stop_drained(struct vg_run id);                        /* logger has taken what was in its pipes */
void stop_settle(struct run *run);                          /* forget it where it is over, told and released */

/* The whole stop: per component of the order the highest rank first. */
void stop_whole(uint64_t budget_ms);                        /* 0: no budget; begins once */
bool stop_is_whole(void);
bool stop_is_over(void);                                    /* no run is left */
void stop_hurry(void);                                      /* all that remain get their stop signal */
void stop_kill(void);                                       /* all that remain are killed */
void stop_whole_again(void);                                /* `vigild restart`: ready for the next one */

void stop_turn(uint64_t now);                               /* deadlines, requests to keepers; sets the loop's next wake-up */
#endif
