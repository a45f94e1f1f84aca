#ifndef VIGIL_REAP_H
#define VIGIL_REAP_H
#include <sys/types.h>

/* Called for a dead child that is neither a keeper nor an orphan, before it is reaped. code and status as in siginfo. */
typedef void reap_helper(pid_t pid, int code, int status);

void reap_turn(const pid_t *helpers, int count, reap_helper *ended);   /* all that is dead, and what keepers have written */
#endif
