/*
 * logger_step.c - kills a logger after exactly so many of its main thread's instructions.
 *
 * logger_step PID STEPS      stops it, prints "stopped", waits for a line on stdin, lets it execute STEPS instructions (a system call
 *                            is one), sends SIGKILL; prints "killed"
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    pid_t pid;
    long steps;
    int status;

    if (argc != 3)
        return 2;
    pid = (pid_t)strtol(argv[1], NULL, 10);
    steps = strtol(argv[2], NULL, 10);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0) {
        perror("ptrace");
        return 1;
    }
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
        return 1;
    puts("stopped");
    fflush(stdout);
    if (getchar() == EOF)
        return 1;
    for (long done = 0; done < steps; done++) {
        int signal_number = status >> 8 & 0xff;

        if (ptrace(PTRACE_SINGLESTEP, pid, 0, done && signal_number != SIGTRAP && signal_number != SIGSTOP ? signal_number : 0) < 0)
            break;
        if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
            break;
    }
    kill(pid, SIGKILL);
    puts("killed");
    return 0;
}
