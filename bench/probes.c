/*
 * probes.c - the processes that the benchmarks start; one program, told by its first argument what to be.
 *
 *   launch FD COMMAND...     PID 1 of a new PID namespace executes COMMAND. Writes "p<its pid as seen here>" and, right before exec,
 *                            "t<CLOCK_MONOTONIC ns>" to FD, waits for it, and exits as it did.
 *   stamp FIFO NAME          writes "NAME <CLOCK_MONOTONIC ns>" into FIFO at its first instruction, and stays until it is killed.
 *   again FIFO NAME          the same, and exits with 1 at once.
 *   write LINES BLOCK        writes numbered lines of 100 bytes to stdout, BLOCK of them a write, and stays.
 *   pace RATE                writes the same lines, so many a second, one by one on time.
 *   follow SOCKET N SECONDS  asks the API at SOCKET N times for what is followed as ndjson. Says "ready" once all are answered, then reads
 *                            for so long and says "<lines of all> <lines of the one that got fewest>". Numbered lines must follow one
 *                            another, for each, but for those that it was told it missed; else it says so and exits with 1.
 *   sink LINES               reads stdin until line number LINES; prints nanoseconds from first to last byte to stderr. Every numbered
 *                            line must come once and in order, whatever prefix it has; else it says so and exits with 1.
 *
 * Each prints "cannot X: why" and exits with 2 when it cannot do its work.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE 100            /* bytes of a line, with its newline */
#define MARK "@line "       /* begins what "write" writes; the number follows in nine digits */

static uint64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
    exit(2);
}

static void put(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t done = write(fd, data, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            die("write");
        data += done;
        size -= (size_t)done;
    }
}

static int launch(int argc, char **argv)
{
    char text[64];
    int report, status;
    pid_t child;

    if (argc < 4)
        return 2;
    report = atoi(argv[2]);
    if (fcntl(report, F_SETFD, FD_CLOEXEC) < 0)
        die("use the report's descriptor");
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
        die("make a PID namespace");
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
            die("mount /proc");
        put(report, text, (size_t)snprintf(text, sizeof text, "t%" PRIu64 "\n", now()));
        execvp(argv[3], argv + 3);
        die("execute the supervisor");
    }
    put(report, text, (size_t)snprintf(text, sizeof text, "p%d\n", (int)child));
    close(report);
    signal(SIGTERM, SIG_IGN);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            die("wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int stamp(uint64_t at, int argc, char **argv)
{
    char text[200];
    int fd, size;

    if (argc != 4)
        return 2;
    /* For reading too: opening a FIFO for writing only would wait for a reader. */
    fd = open(argv[2], O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die("open the FIFO");
    size = snprintf(text, sizeof text, "%s %" PRIu64 "\n", argv[3], at);
    put(fd, text, (size_t)size);
    if (argv[1][0] == 'a')
        return 1;
    close(fd);
    for (;;)
        pause();
}

static void number_line(char *line, unsigned long number)
{
    memset(line, 'x', LINE - 1);
    line[snprintf(line, LINE, MARK "%09lu", number)] = ' ';
    line[LINE - 1] = '\n';
}

static int write_lines(int argc, char **argv)
{
    unsigned long lines, block, number = 0;
    char *buffer;

    if (argc != 4)
        return 2;
    lines = strtoul(argv[2], NULL, 10);
    block = strtoul(argv[3], NULL, 10);
    buffer = malloc(block * LINE + 1);
    if (buffer == NULL)
        die("get memory");
    while (number < lines) {
        size_t size = 0;
        for (unsigned long i = 0; i < block && number < lines; i++, number++) {
            number_line(buffer + size, number);
            size += LINE;
        }
        put(STDOUT_FILENO, buffer, size);
    }
    for (;;)
        pause();
}

static int pace(int argc, char **argv)
{
    char line[LINE];
    unsigned long number = 0;
    uint64_t began = now(), every;

    if (argc != 3)
        return 2;
    every = 1000000000u / strtoul(argv[2], NULL, 10);
    for (;; number++) {
        uint64_t due = began + number * every, at = now();
        struct timespec rest = {0, 0};
        if (at < due) {
            rest.tv_nsec = (long)((due - at) % 1000000000u);
            rest.tv_sec = (time_t)((due - at) / 1000000000u);
            nanosleep(&rest, NULL);
        }
        number_line(line, number);
        put(STDOUT_FILENO, line, LINE);
    }
}

struct follower {
    int fd;
    char *held;             /* the beginning of a line that goes on */
    size_t size;
    bool answered;          /* the head of the answer has come */
    unsigned long lines, next;
};

#define HELD 1024           /* any line that is expected fits */

/* Take a line of a follower: an entry, the head of the answer, or what frames its chunks. */
static int follow_line(struct follower *follower, const char *line, size_t size)
{
    static const char lagged[] = "{\"lagged\":";
    const char *mark = memmem(line, size, MARK, sizeof MARK - 1);
    unsigned long number;

    if (mark == NULL) {
        if (size > sizeof lagged && memcmp(line, lagged, sizeof lagged - 1) == 0)
            follower->next += strtoul(line + sizeof lagged - 1, NULL, 10);
        return 0;
    }
    number = strtoul(mark + sizeof MARK - 1, NULL, 10);
    if (follower->lines > 0 && number != follower->next) {
        fprintf(stderr, "line %lu came where %lu was due\n", number, follower->next);
        return 1;
    }
    follower->next = number + 1;
    follower->lines++;
    return 0;
}

static int follow_read(struct follower *follower)
{
    static char buffer[1 << 18];
    ssize_t got;
    char *at = buffer, *end, *newline;

    memcpy(buffer, follower->held, follower->size);
    got = read(follower->fd, buffer + follower->size, sizeof buffer - follower->size);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (got <= 0)
        die("read what is followed");
    end = buffer + follower->size + got;
    follower->answered = true;
    while ((newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if (follow_line(follower, at, (size_t)(newline - at)))
            return 1;
        at = newline + 1;
    }
    follower->size = (size_t)(end - at);
    if (follower->size > HELD) {
        fprintf(stderr, "a line without end came\n");
        return 1;
    }
    memcpy(follower->held, at, follower->size);
    return 0;
}

static int follow(int argc, char **argv)
{
    static const char ask[] = "GET /v1/logs/follow?format=ndjson HTTP/1.1\r\nHost: bench\r\n\r\n";
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct follower *followers;
    int loop = epoll_create1(EPOLL_CLOEXEC), count, answered = 0;
    unsigned long sum = 0, least = ULONG_MAX;
    uint64_t end = 0, seconds;

    if (argc != 5 || strlen(argv[2]) >= sizeof name.sun_path)
        return 2;
    memcpy(name.sun_path, argv[2], strlen(argv[2]));
    count = atoi(argv[3]);
    seconds = strtoul(argv[4], NULL, 10);
    followers = calloc((size_t)count, sizeof *followers);
    if (followers == NULL || loop < 0)
        die("begin");
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &followers[i]};
        followers[i].held = malloc(HELD);
        followers[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (followers[i].held == NULL || followers[i].fd < 0)
            die("make a socket");
        if (connect(followers[i].fd, (struct sockaddr *)&name, sizeof name) < 0)
            die("connect");
        put(followers[i].fd, ask, sizeof ask - 1);
        if (epoll_ctl(loop, EPOLL_CTL_ADD, followers[i].fd, &event) < 0)
            die("watch a socket");
    }
    while (end == 0 || now() < end) {
        struct epoll_event events[64];
        int ready = epoll_wait(loop, events, 64, 100);
        for (int i = 0; i < ready; i++) {
            struct follower *follower = events[i].data.ptr;
            bool before = follower->answered;
            if (follow_read(follower))
                return 1;
            answered += !before && follower->answered;
        }
        if (end == 0 && answered == count) {
            end = now() + seconds * 1000000000u;
            for (int i = 0; i < count; i++)
                followers[i].lines = 0;
            puts("ready");
            fflush(stdout);
        }
    }
    for (int i = 0; i < count; i++) {
        sum += followers[i].lines;
        least = followers[i].lines < least ? followers[i].lines : least;
    }
    printf("%lu %lu\n", sum, count > 0 ? least : 0);
    return 0;
}

/* Check the lines of data[0, size), all complete. */
static int check(const char *data, size_t size, unsigned long *next)
{
    const char *end = data + size;
    while (data < end) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        const char *line = newline - (LINE - 1);
        if (line >= data && memcmp(line, MARK, sizeof MARK - 1) == 0) {
            unsigned long number = strtoul(line + sizeof MARK - 1, NULL, 10);
            if (number != *next) {
                fprintf(stderr, "line %lu came where %lu was due\n", number, *next);
                return 1;
            }
            *next += 1;
        }
        data = newline + 1;
    }
    return 0;
}

static int sink(int argc, char **argv)
{
    static char buffer[1 << 20];
    size_t held = 0;
    uint64_t first = 0;
    unsigned long lines, next = 0;

    if (argc != 3)
        return 2;
    lines = strtoul(argv[2], NULL, 10);
    while (next < lines) {
        ssize_t got = read(STDIN_FILENO, buffer + held, sizeof buffer - held);
        const char *last;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die("read");
        if (got == 0) {
            fprintf(stderr, "the end came after %lu lines\n", next);
            return 1;
        }
        if (first == 0)
            first = now();
        held += (size_t)got;
        last = memrchr(buffer, '\n', held);
        if (last == NULL && held == sizeof buffer) {
            fprintf(stderr, "a line without end came\n");
            return 1;
        }
        if (last != NULL) {
            size_t size = (size_t)(last + 1 - buffer);
            if (check(buffer, size, &next))
                return 1;
            memmove(buffer, buffer + size, held - size);
            held -= size;
        }
    }
    fprintf(stderr, "%" PRIu64 "\n", now() - first);
    /* Who writes goes on undisturbed until the end. */
    while (read(STDIN_FILENO, buffer, sizeof buffer) > 0)
        ;
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t at = now();
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "launch") == 0)
        return launch(argc, argv);
    if (strcmp(what, "stamp") == 0 || strcmp(what, "again") == 0)
        return stamp(at, argc, argv);
    if (strcmp(what, "write") == 0)
        return write_lines(argc, argv);
    if (strcmp(what, "pace") == 0)
        return pace(argc, argv);
    if (strcmp(what, "follow") == 0)
        return follow(argc, argv);
    if (strcmp(what, "sink") == 0)
        return sink(argc, argv);
    fprintf(stderr, "usage: probes launch|stamp|again|write|pace|follow|sink ...\n");
    return 2;
}
