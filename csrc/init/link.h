#ifndef VIGIL_LINK_H
#define VIGIL_LINK_H
#include <stdbool.h>
#include <stdint.h>

/* What the whole of vigild is to do: decided here by SHUTDOWN, in main by a signal or by control's end. */
struct link_decision { bool made; uint32_t code, action; };
extern struct link_decision link_decision;
void link_decide(uint32_t code, uint32_t action);   /* the first code stays; an exit wins over a restart under way, with 0 */

void link_control_receive(bool all);        /* messages of control; all: it is dead, whatever is left */
void link_control_send(void);               /* what is owed to it, as far as its socket takes it */
bool link_control_owes(void);               /* something waits for room in its socket */
void link_control_closed(void);             /* its link is gone: what was owed to it is told to the next in a SNAPSHOT */
void link_control_signals(uint64_t mask);   /* signals that came to vigild */

void link_logger_receive(void);
void link_logger_send(void);
void link_logger_closed(void);
void link_logger_settings(void);            /* they changed: tell it */
void link_logger_finish(void);              /* forward all, then say so */
bool link_logger_finished(void);
void link_logger_begin(void);              /* `vigild restart`: nothing is finished any more */
#endif
