#ifndef VIGIL_SIG_H
#define VIGIL_SIG_H
#include <stdbool.h>
#include <stdint.h>

#define SIG_BIT(signal) (1ULL << ((signal) - 1))

void sig_block(void);           /* first thing in main: every signal but those that a fault of ours raises is held back */
int sig_open(void);             /* boot: the signalfd; -1 and errno */
uint64_t sig_take(void);        /* all signals that have arrived, a bit each (SIGCHLD included); -1 counted as none */
void sig_clean(void);           /* in a child before execve: default dispositions, nothing blocked */
uint64_t sig_forwardable(void); /* signals that may be forwarded to services */
#endif
