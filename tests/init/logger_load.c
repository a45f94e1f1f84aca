/*
 * logger_load.c - what the tests of logger write, and how they look at what came out.
 *
 * logger_load write TAG LINES          writes lines 0, 1, ... of TAG to stdout, cut anywhere; stops after LINES of them, or at the end
 *                                      of the line it is in when SIGTERM comes; their number goes to stderr
 * logger_load write TAG LINES long     with lines of up to 300 KB among them
 * logger_load check BYTES_PER_SECOND [stray]   reads forwarded lines from stdin (0: as fast as it can) and checks that each tag's come
 *                                      once, whole and in order; at the end "TAG LINES" for each tag. stray: other lines may be between
 * logger_load ring FD TAG              the same for what a log has kept: "FIRST AFTER_LAST"; the lines between are unbroken
 *
 * Line N of a tag is "TAG N " and a payload that both determine: its length, its bytes (NUL and invalid UTF-8 among them), its CR LF.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../csrc/init/ring.h"

enum { LONGEST = 300000, TAGS = 256, BUFFER = 4 << 20 };

static volatile sig_atomic_t stop;

static void on_term(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

static uint64_t mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

/* Line `number` of `tag` without its end; *end: "\n" or "\r\n". */
static size_t make(char *to, unsigned tag, uint64_t number, bool with_long, const char **end)
{
    uint64_t seed = mix(tag * UINT64_C(1000003) + number), pattern[8];
    size_t head = (size_t)sprintf(to, "%u %" PRIu64 " ", tag, number), length;

    *end = seed % 50 == 1 ? "\r\n" : "\n";
    if (with_long && seed % 1499 == 2)
        length = 16000 + mix(seed) % (LONGEST - 17000);
    else if (seed % 13 == 3)
        length = mix(seed) % 3980;
    else
        length = mix(seed) % 140;
    for (int at = 0; at < 8; at++) {
        pattern[at] = mix(seed + (uint64_t)at);
        if (seed % 17 != 4)
            pattern[at] = (pattern[at] & UINT64_C(0x1f1f1f1f1f1f1f1f)) + UINT64_C(0x4040404040404040);
    }
    for (int at = 0; at < 64; at++)
        if (((unsigned char *)pattern)[at] == '\n' || ((unsigned char *)pattern)[at] == '\r')
            ((unsigned char *)pattern)[at] = 0;
    for (size_t at = 0; at < length; at += sizeof pattern)
        memcpy(to + head + at, pattern, length - at < sizeof pattern ? length - at : sizeof pattern);
    return head + length;
}

static int write_lines(unsigned tag, uint64_t lines, bool with_long)
{
    static char buffer[BUFFER];
    size_t size = 0, at = 0;
    uint64_t number = 0, random = mix(tag);

    signal(SIGTERM, on_term);
    while (number < lines || size > at) {
        size_t burst;
        ssize_t written;

        if (at == size)
            at = size = 0;
        random = mix(random);
        burst = random % 3 == 0 ? 65536 : random % 3 == 1 ? 4000 : random % 500 + 1;
        while (size - at < burst && number < lines && size + 2 * LONGEST < sizeof buffer) {
            const char *end;

            size += make(buffer + size, tag, number++, with_long, &end);
            size += (size_t)sprintf(buffer + size, "%s", end);
            if (stop)
                lines = number;
        }
        if (burst > size - at)
            burst = size - at;
        written = write(STDOUT_FILENO, buffer + at, burst);
        if (written > 0)
            at += (size_t)written;
        else if (errno != EINTR)
            return 1;
        if (size + 2 * LONGEST >= sizeof buffer) {
            memmove(buffer, buffer + at, size - at);
            size -= at;
            at = 0;
        }
    }
    fprintf(stderr, "%" PRIu64 "\n", number);
    return 0;
}

static uint64_t expected[TAGS];
static int complaints;

static void complain(const char *what, const char *line, size_t length, uint64_t want)
{
    if (++complaints <= 20)
        fprintf(stderr, "%s (%zu bytes, wanted %" PRIu64 "): %.*s\n", what, length, want, (int)(length < 100 ? length : 100), line);
}

/* "[NAME] TAG N payload" */
static void check_line(const char *line, size_t length, bool stray)
{
    static char want[LONGEST + 100];
    const char *end, *text = memchr(line, ']', length < 20 ? length : 20);
    unsigned tag;
    uint64_t number;
    size_t size;
    char head[64];

    if (length && line[0] == '[' && text && text + 2 <= line + length) {
        text += 2;
        snprintf(head, sizeof head, "%.*s", (int)(line + length - text < 60 ? line + length - text : 60), text);
        if (sscanf(head, "%u %" SCNu64 " ", &tag, &number) == 2 && tag < TAGS) {
            if (number != expected[tag])
                complain("not the next line", line, length, expected[tag]);
            size = make(want, tag, number, true, &end);
            if (size != (size_t)(line + length - text) || memcmp(want, text, size))
                size = make(want, tag, number, false, &end);
            if (size != (size_t)(line + length - text) || memcmp(want, text, size))
                complain("not what was written", line, length, size);
            expected[tag] = number + 1;
            return;
        }
    }
    if (!stray)
        complain("not a line of ours", line, length, 0);
}

static int check(uint64_t rate, bool stray)
{
    static char buffer[BUFFER];
    size_t size = 0;
    struct timespec start, now;
    uint64_t total = 0;

    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        char *line = buffer, *newline;
        size_t most = rate ? (rate / 200 < sizeof buffer - size ? rate / 200 : sizeof buffer - size) : sizeof buffer - size;
        ssize_t got = read(STDIN_FILENO, buffer + size, most);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)       /* EIO: the other end of the terminal is closed */
            break;
        size += (size_t)got;
        total += (uint64_t)got;
        while ((newline = memchr(line, '\n', size - (size_t)(line - buffer)))) {
            check_line(line, (size_t)(newline - line), stray);
            line = newline + 1;
        }
        size -= (size_t)(line - buffer);
        memmove(buffer, line, size);
        if (size == sizeof buffer) {
            complain("no end of line", buffer, size, 0);
            break;
        }
        while (rate) {
            double passed;

            clock_gettime(CLOCK_MONOTONIC, &now);
            passed = (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9;
            if ((double)total <= passed * (double)rate)
                break;
            poll(NULL, 0, 2);
        }
    }
    if (size)
        complain("no newline at the end", buffer, size, 0);
    for (unsigned tag = 0; tag < TAGS; tag++)
        if (expected[tag])
            printf("%u %" PRIu64 "\n", tag, expected[tag]);
    return complaints != 0;
}

static int check_ring(int fd, unsigned tag)
{
    static char want[LONGEST + 100], line[LONGEST + VG_LINE_MAX];
    struct ring ring;
    uint64_t at, next = UINT64_MAX, first = 0, index = 0, seq = 0, seen = 0;
    size_t size = 0;
    bool whole = false;
    const char *end;

    if (ring_open(&ring, fd, 0) < 0) {
        perror("ring_open");
        return 2;
    }
    for (at = ring.header->tail; at < ring.header->head;) {
        const struct vg_record *record = ring_record(&ring, at);
        const char *message = (const char *)(record + 1);
        unsigned found;
        uint64_t number;

        if (seen++ && (record->line != index + 1 || record->seq <= seq))
            complain("index or seq out of order", message, record->length, index + 1);
        index = record->line;
        seq = record->seq;
        if (size + record->length > sizeof line) {
            complain("line too long", message, record->length, 0);
            break;
        }
        memcpy(line + size, message, record->length);
        size += record->length;
        at += vg_record_size(record->length);
        if (record->flags & VG_RECORD_PARTIAL) {
            if (record->length != VG_LINE_MAX)
                complain("short partial record", message, record->length, 0);
            continue;
        }
        line[size] = 0;
        if (sscanf(line, "%u %" SCNu64 " ", &found, &number) == 2 && found == tag) {
            size_t length = make(want, tag, number, true, &end);

            if (length != size || memcmp(want, line, size))
                length = make(want, tag, number, false, &end);
            if (length != size || memcmp(want, line, size))
                complain("not what was written", line, size, length);
            if (whole && number != next)
                complain("a gap in the log", line, size, next);
            if (!whole)
                first = number;
            next = number + 1;
            whole = true;
        } else if (whole) {
            complain("not a line of ours", line, size, 0);
        }           /* else the end of a long line whose beginning was lapped */
        size = 0;
    }
    if (ring.header->last_seq != seq || ring.header->lines != index + 1)
        complain("the header does not tell what is there", "", 0, seq);
    printf("%" PRIu64 " %" PRIu64 "\n", first, next);
    return complaints != 0;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && !strcmp(argv[1], "write"))
        return write_lines((unsigned)strtoul(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), argc > 4);
    if (argc >= 3 && !strcmp(argv[1], "check"))
        return check(strtoull(argv[2], NULL, 10), argc > 3);
    if (argc == 4 && !strcmp(argv[1], "ring"))
        return check_ring((int)strtol(argv[2], NULL, 10), (unsigned)strtoul(argv[3], NULL, 10));
    return 2;
}
