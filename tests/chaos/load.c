/*
 * load - the two ends of the line under test, in C so that they cost less than what they test.
 *
 *   load write RATE PATH    writes numbered lines to stdout, RATE bytes a second, in bursts; SIGUSR1: stops writing and stores how
 *                           many lines it wrote at PATH; ends by SIGTERM
 *   load check PATH N       reads what was forwarded of services s00 to sN-1 on stdin and compares every byte; PATH is shared: bytes
 *                           and lines taken so far, and faults; at the end of input it prints the lines of each service
 *
 * Line n is known whole from n: "n pad", so a line that is torn, lost, doubled or out of order shows.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SERVICES 64
#define LINE 512

struct shared { volatile uint64_t bytes, lines, faults; };

static volatile sig_atomic_t pausing;

static void on_pause(int signal) { (void)signal; pausing = 1; }

static size_t line(char *to, uint64_t n) {
    size_t pad = (size_t)((n * 7919) % 180), at = (size_t)sprintf(to, "%llu ", (unsigned long long)n);
    memset(to + at, 'a' + (char)(n % 26), pad);
    to[at + pad] = '\n';
    return at + pad + 1;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put(const char *from, size_t size) {
    while (size > 0) {
        ssize_t n = write(1, from, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) exit(3);
        from += n;
        size -= (size_t)n;
    }
}

static int run_write(double rate, const char *path) {
    static char burst[1 << 16];
    uint64_t n = 0;
    double began = now(), sent = 0;
    unsigned dice = (unsigned)getpid();
    struct sigaction action = {.sa_handler = on_pause};
    sigaction(SIGUSR1, &action, NULL);
    while (!pausing) {
        size_t size = 0, want = 1 + (size_t)(rand_r(&dice) % 16384);
        while (size < want) size += line(burst + size, n++);
        put(burst, size);
        sent += (double)size;
        double ahead = sent / rate - (now() - began);
        if (ahead < -0.05) began = now() - sent / rate;      /* held up: do not catch up in one burst for ever */
        if (ahead > 0.0005) {
            struct timespec pause = {(time_t)ahead, (long)((ahead - (double)(time_t)ahead) * 1e9)};
            nanosleep(&pause, NULL);
        }
    }
    char text[40], other[512];
    snprintf(other, sizeof other, "%s.new", path);
    int fd = open(other, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int size = sprintf(text, "%llu\n", (unsigned long long)n);
    if (fd < 0 || write(fd, text, (size_t)size) != size || close(fd) != 0 || rename(other, path) != 0) return 4;
    for (;;) pause();
}

static int run_check(const char *path, unsigned services) {
    static char buffer[1 << 20], wanted[LINE + 16];
    static uint64_t next[SERVICES];
    int fd = open(path, O_RDWR);
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || shared == MAP_FAILED) return 4;
    size_t have = 0;
    for (;;) {
        ssize_t n = read(0, buffer + have, sizeof buffer - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        have += (size_t)n;
        size_t at = 0;
        for (;;) {
            char *end = memchr(buffer + at, '\n', have - at);
            if (!end) break;
            size_t length = (size_t)(end - buffer) - at + 1;
            const char *text = buffer + at;
            unsigned service = length > 6 && text[0] == '[' && text[1] == 's' ? (unsigned)(text[2] - '0') * 10 + (unsigned)(text[3] - '0') : SERVICES;
            if (service < services) {
                memcpy(wanted, text, 6);
                size_t size = 6 + line(wanted + 6, next[service]);
                if (size != length || memcmp(wanted, text, size) != 0) {
                    if (shared->faults++ < 20) fprintf(stderr, "wanted: %.*s\ngot:    %.*s\n", (int)(size < 60 ? size - 1 : 60), wanted, (int)(length < 60 ? length - 1 : 60), text);
                    if (length > 6) next[service] = strtoull(text + 6, NULL, 10);
                }
                next[service]++;
                shared->lines++;
            }
            at += length;
        }
        memmove(buffer, buffer + at, have - at);
        have -= at;
        __atomic_add_fetch(&shared->bytes, (uint64_t)n, __ATOMIC_RELEASE);
        if (have == sizeof buffer) return 5;
    }
    if (have) { fprintf(stderr, "no newline at the end: %.*s\n", (int)(have < 60 ? have : 60), buffer); shared->faults++; }
    for (unsigned i = 0; i < services; i++) printf("%llu\n", (unsigned long long)next[i]);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "write") == 0) return run_write(strtod(argv[2], NULL), argv[3]);
    if (argc == 4 && strcmp(argv[1], "check") == 0) return run_check(argv[2], (unsigned)atoi(argv[3]));
    return 2;
}
