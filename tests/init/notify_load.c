/*
 * notify_load.c - a service that notifies, by the wire format itself: a datagram of lines to NOTIFY_SOCKET.
 *
 * Its words are done one after the other:
 *   send TEXT       a datagram; \n, \0 and \\ as in C
 *   child TEXT      the same from a child that has ended when this one goes on
 *   as UID          from now on as that user
 *   size N          a datagram of N bytes
 *   fds COUNT       COUNT datagrams FDSTORE=1, with four descriptors each
 *   barrier         BARRIER=1, with a pipe's end; returns when it is closed at the other side
 *   flood N GAP     N datagrams, GAP us apart, or fewer where SIGTERM comes: STATUS=1 and so on, between them keepalives
 *   say TEXT        a line to stdout
 *   stay            until a signal comes
 * At the end, and when `stay` ends, it prints the longest time that a datagram took, in us, and how many were sent.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static socklen_t address_size;
static long longest, sent;
static volatile sig_atomic_t flooding, ended;

static long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void finish(int number)
{
    if (number && flooding) {
        ended = 1;
        return;
    }
    printf("longest %ld, sent %ld\n", longest, sent);
    fflush(stdout);
    _exit(0);
}

static void datagram(const char *text, size_t size, const int *fds, int count)
{
    union { struct cmsghdr head; char bytes[CMSG_SPACE(4 * sizeof(int))]; } control;
    struct iovec part = { (void *)(size_t)text, size };
    struct msghdr header = { .msg_name = &address, .msg_namelen = address_size, .msg_iov = &part, .msg_iovlen = 1 };
    int to = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    long before = now(), took;

    if (count) {
        memset(&control, 0, sizeof control);
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(&control.head), fds, (size_t)count * sizeof(int));
    }
    while (sendmsg(to, &header, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) {
            printf("cannot send: %s\n", strerror(errno));
            fflush(stdout);
            break;
        }
    sent++;
    took = now() - before;
    longest = took > longest ? took : longest;
    close(to);
}

static size_t unescape(char *text)
{
    size_t size = 0;

    for (const char *from = text; *from; from++) {
        if (*from == '\\' && from[1]) {
            from++;
            text[size++] = *from == 'n' ? '\n' : *from == '0' ? '\0' : *from;
        } else {
            text[size++] = *from;
        }
    }
    return size;
}

static void flood(long count, long gap)
{
    long begin = now(), status = 0;
    char text[64];

    flooding = 1;
    for (long at = 0; at < count && !ended; at++) {
        struct timespec rest = { .tv_nsec = 0 };
        long early = begin + at * gap - now();
        int size = at % 2 ? snprintf(text, sizeof text, "WATCHDOG=1\n") : snprintf(text, sizeof text, "STATUS=%ld\n", ++status);

        if (early > 0) {
            rest.tv_sec = early / 1000000;
            rest.tv_nsec = early % 1000000 * 1000;
            nanosleep(&rest, NULL);
        }
        datagram(text, (size_t)size, NULL, 0);
    }
    flooding = 0;
    if (ended)
        finish(0);
}

static void barrier(void)
{
    struct pollfd wait = { .events = 0 };
    int ends[2];

    if (pipe(ends) < 0)
        exit(2);
    wait.fd = ends[0];
    datagram("BARRIER=1", 9, &ends[1], 1);
    close(ends[1]);
    printf(poll(&wait, 1, 20000) == 1 && wait.revents & POLLHUP ? "passed\n" : "no barrier\n");
    fflush(stdout);
    close(ends[0]);
}

static void keep_fds(long count)
{
    int fds[4] = { 0, 0, 0, 0 };

    for (long at = 0; at < count; at++)
        datagram("FDSTORE=1\nFDNAME=x", 18, fds, 4);
}

int main(int argc, char **argv)
{
    const char *to = getenv("NOTIFY_SOCKET");
    struct sigaction end = { .sa_handler = finish };

    if (!to || strlen(to) >= sizeof address.sun_path)
        return 2;
    memcpy(address.sun_path, to, strlen(to));
    address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(to));
    if (*to == '@')
        address.sun_path[0] = 0;
    sigaction(SIGTERM, &end, NULL);
    for (int at = 1; at < argc; at++) {
        const char *word = argv[at];

        if (!strcmp(word, "send")) {
            size_t size = unescape(argv[++at]);

            datagram(argv[at], size, NULL, 0);
        } else if (!strcmp(word, "child")) {
            size_t size = unescape(argv[++at]);
            pid_t pid = fork();

            if (pid == 0) {
                datagram(argv[at], size, NULL, 0);
                _exit(0);
            }
            waitpid(pid, NULL, 0);
        } else if (!strcmp(word, "as")) {
            if (setuid((uid_t)atol(argv[++at])) < 0)
                return 2;
        } else if (!strcmp(word, "size")) {
            size_t size = (size_t)atol(argv[++at]);
            char *text = malloc(size + 1);

            memset(text, 'x', size + 1);
            datagram(text, size, NULL, 0);
            free(text);
        } else if (!strcmp(word, "fds")) {
            keep_fds(atol(argv[++at]));
        } else if (!strcmp(word, "barrier")) {
            barrier();
        } else if (!strcmp(word, "flood")) {
            flood(atol(argv[at + 1]), atol(argv[at + 2]));
            at += 2;
        } else if (!strcmp(word, "say")) {
            puts(argv[++at]);
            fflush(stdout);
        } else if (!strcmp(word, "stay")) {
            for (;;)
                pause();
        } else {
            return 2;
        }
    }
    finish(0);
}
