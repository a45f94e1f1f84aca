/*
 * logger_alone.c - logger without PID 1: the test is PID 1, and hands over what PID 1 would, as descriptor numbers.
 *
 * logger_alone LINK JOURNAL READ0 WRITE0 READ1 WRITE1 SINK0 SINK1 RING STALL_MS DIAGNOSTICS BOARD WAKE [no-splice | no-splice-in]
 * logger_alone size                prints logger_journal_size()
 * logger_alone ring NAME LINES BYTES LINK    makes a log and sends its descriptor over LINK; board LINK: the board of notifications
 *
 * no-splice: every splice() fails with EINVAL, as on a kernel or under a filter that does not have it. no-splice-in: those into J.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../csrc/init/chan.h"
#include "../../csrc/init/logger.h"
#include "../../csrc/init/notify.h"
#include "../../csrc/init/ring.h"
#include "../../csrc/init/say.h"

static void forbid_splice(int into)
{
    struct sock_filter all[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_splice, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_filter some[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_splice, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)into, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { into < 0 ? sizeof all / sizeof all[0] : sizeof some / sizeof some[0], into < 0 ? all : some };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
        perror("seccomp");
        exit(2);
    }
}

static int number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

int main(int argc, char **argv)
{
    struct logger_boot boot;
    sigset_t all;

    if (argc == 2 && !strcmp(argv[1], "size")) {
        printf("%zu\n", logger_journal_size());
        return 0;
    }
    if (argc == 6 && !strcmp(argv[1], "ring")) {
        struct vg_head head = { sizeof head, 1, 0 };
        int fd = ring_create(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));

        return fd < 0 || chan_send(number(argv[5]), &head, &fd, 1) != CHAN_MESSAGE;
    }
    if (argc == 3 && !strcmp(argv[1], "board")) {
        struct vg_head head = { sizeof head, 1, 0 };
        int fd = notify_board_create();

        return fd < 0 || chan_send(number(argv[2]), &head, &fd, 1) != CHAN_MESSAGE;
    }
    if (argc < 14)
        return 2;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    boot = (struct logger_boot){
        .link = number(argv[1]), .journal = number(argv[2]), .pipe_read = { number(argv[3]), number(argv[5]) },
        .pipe_write = { number(argv[4]), number(argv[6]) }, .sink = { number(argv[7]), number(argv[8]) }, .ring = number(argv[9]),
        .stall_ms = strtoull(argv[10], NULL, 10), .board = number(argv[12]), .wake = number(argv[13]),
    };
    say_into(number(argv[11]));
    if (argc > 14)
        forbid_splice(strcmp(argv[14], "no-splice") ? boot.journal : -1);
    logger_run(&boot);
}
