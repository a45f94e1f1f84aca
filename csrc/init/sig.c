/*
 * sig - signals to PID 1.
 *
 * Owns: the signalfd. Every signal is blocked from the first instruction of main on and read from there.
 * Calls: nothing of vigil.
 * On failure: a signalfd that cannot be read counts as "no signal"; SIGCHLD is not needed for reaping (every turn reaps).
 */
#include "sig.h"

#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int descriptor = -1;

/* A fault of our own must end us with a core, not spin in the fault: these stay unblocked. */
static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};

static void everything_but_faults(sigset_t *set) {
    (void)sigfillset(set);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) (void)sigdelset(set, faults[i]);
}

void sig_block(void) {
    sigset_t set;
    everything_but_faults(&set);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
    /* An inherited SIG_IGN for SIGCHLD would make the kernel reap for us and lose every exit status; ignored signals never reach a signalfd. */
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++)
        if (s != SIGKILL && s != SIGSTOP) (void)sigaction(s, &action, NULL);
}

int sig_open(void) {
    sigset_t set;
    everything_but_faults(&set);
    descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return descriptor;
}

uint64_t sig_take(void) {
    uint64_t taken = 0;
    struct signalfd_siginfo info[16];
    /* Bounded: real-time signals queue up, and whoever sends them without end must not keep us here. The rest rings again. */
    for (int round = 0; round < 64; round++) {
        ssize_t n = read(descriptor, info, sizeof info);
        if (n <= 0) break;
        for (size_t i = 0; i < (size_t)n / sizeof *info; i++)
            if (info[i].ssi_signo >= 1 && info[i].ssi_signo <= 64) taken |= SIG_BIT(info[i].ssi_signo);
    }
    return taken;
}

void sig_clean(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++)
        if (s != SIGKILL && s != SIGSTOP) (void)sigaction(s, &action, NULL);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

uint64_t sig_forwardable(void) {
    uint64_t mask = ~0ULL;
    static const int ours[] = {SIGKILL, SIGSTOP, SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGPIPE, SIGTTIN, SIGTTOU,
                               SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) mask &= ~SIG_BIT(ours[i]);
    return mask;
}
