/*
 * say - bounded printing without stdio or memory allocation, for PID 1, keepers and logger.
 *
 * Owns: the descriptor that diagnostics go to, their format and level, the count of lines dropped.
 * Calls: nothing of vigil.
 * On failure: a line that cannot be written at once is counted and forgotten; nothing here waits.
 */
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int diagnostics = -1;
static uint32_t line_format = VG_FORMAT_TEXT;
static uint32_t lowest = VG_INFO;
static uint64_t dropped;

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t say_real_ns(void) { return clock_ns(CLOCK_REALTIME); }
uint64_t say_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

struct out { char *to; size_t size, at; };

static void put(struct out *out, char c) {
    if (out->at + 1 < out->size) out->to[out->at++] = c;
}

static void put_text(struct out *out, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) put(out, text[i]);
}

static void put_number(struct out *out, uint64_t value, unsigned base, unsigned width, char fill) {
    char digits[24];
    unsigned n = 0;
    do { digits[n++] = "0123456789abcdef"[value % base]; value /= base; } while (value);
    while (width > n && width < sizeof digits) { put(out, fill); width--; }
    while (n) put(out, digits[--n]);
}

size_t say_vtext(char *to, size_t size, const char *format, va_list rest) {
    struct out out = {to, size, 0};
    if (size == 0) return 0;
    for (const char *f = format; *f; f++) {
        if (*f != '%') { put(&out, *f); continue; }
        f++;
        unsigned width = 0, longs = 0;
        char fill = ' ';
        bool sized = false;
        size_t precision = SIZE_MAX;
        if (*f == '0') { fill = '0'; f++; }
        while (*f >= '0' && *f <= '9') width = width * 10 + (unsigned)(*f++ - '0');
        if (f[0] == '.' && f[1] == '*') { int p = va_arg(rest, int); precision = p < 0 ? 0 : (size_t)p; f += 2; }
        while (*f == 'l') { longs++; f++; }
        if (*f == 'z') { sized = true; f++; }
        switch (*f) {
        case 's': {
            const char *text = va_arg(rest, const char *);
            if (!text) text = "(none)";
            size_t length = 0;
            while (length < precision && text[length]) length++;
            put_text(&out, text, length);
            break;
        }
        case 'c': put(&out, (char)va_arg(rest, int)); break;
        case 'd': case 'i': {
            int64_t value = sized ? (int64_t)va_arg(rest, ssize_t) : longs > 1 ? va_arg(rest, long long) : longs ? va_arg(rest, long) : va_arg(rest, int);
            if (value < 0) put(&out, '-');
            put_number(&out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, width, fill);
            break;
        }
        case 'u': case 'x': {
            uint64_t value = sized ? va_arg(rest, size_t) : longs > 1 ? va_arg(rest, unsigned long long) : longs ? va_arg(rest, unsigned long) : va_arg(rest, unsigned);
            put_number(&out, value, *f == 'x' ? 16 : 10, width, fill);
            break;
        }
        case '%': put(&out, '%'); break;
        default: put(&out, '?'); if (!*f) f--; break;
        }
    }
    out.to[out.at] = 0;
    return out.at;
}

size_t say_text(char *to, size_t size, const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    size_t n = say_vtext(to, size, format, rest);
    va_end(rest);
    return n;
}

void say_configure(uint32_t format, uint32_t level) {
    line_format = format;
    lowest = level;
}

void say_into(int fd) { diagnostics = fd; }
int say_fd(void) { return diagnostics; }

/* 2026-03-21T12:00:00.123456Z; days to a date by the proleptic Gregorian calendar (libc's gmtime may read files and allocate). */
static size_t stamp(char *to, size_t size) {
    uint64_t ns = say_real_ns(), seconds = ns / 1000000000u;
    uint64_t days = seconds / 86400 + 719468, rest = seconds % 86400;
    uint64_t era = days / 146097, day_of_era = days % 146097;
    uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t shifted = (5 * day_of_year + 2) / 153;      /* months from March on */
    uint64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
    uint64_t year = year_of_era + era * 400 + (month <= 2);
    return say_text(to, size, "%04lu-%02lu-%02luT%02lu:%02lu:%02lu.%06luZ", year, month, day_of_year - (153 * shifted + 2) / 5 + 1,
                    rest / 3600, rest / 60 % 60, rest % 60, ns % 1000000000u / 1000);
}

static const char *level_name(enum vg_level level) {
    switch (level) {
    case VG_DEBUG: return "DEBUG";
    case VG_INFO: return "INFO";
    case VG_WARN: return "WARN";
    case VG_ERROR: return "ERROR";
    }
    return "ERROR";
}

static void put_json(struct out *out, const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') { put(out, '\\'); put(out, (char)c); }
        else if (c < 32 || c >= 127) { put_text(out, "\\u00", 4); put_number(out, c, 16, 2, '0'); }
        else put(out, (char)c);
    }
}

/* Standard error, which is nobody's to make non-blocking. At most PIPE_BUF bytes: a pipe that polls as writable takes so many at once. A
 * terminal may poll as writable and have room for less: it is opened anew, which makes a description of our own. */
static bool write_error(const char *bytes, size_t length) {
    struct pollfd look = {.fd = 2, .events = POLLOUT};
    if (poll(&look, 1, 0) != 1 || !(look.revents & POLLOUT)) return false;
    int own = isatty(2) ? open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
    ssize_t n;
    do n = write(own < 0 ? 2 : own, bytes, length); while (n < 0 && errno == EINTR);
    if (own >= 0) (void)close(own);
    return n == (ssize_t)length;
}

/* True where the whole line was taken. A line is shorter than PIPE_BUF, so it is whole or not there. */
static bool write_line(const char *line, size_t length) {
    if (diagnostics < 0) return write_error(line, length);
    ssize_t n;
    do n = write(diagnostics, line, length); while (n < 0 && errno == EINTR);
    return n == (ssize_t)length;
}

void say_bytes(const char *bytes, size_t length) {
    for (size_t at = 0, part; at < length; at += part) {
        part = length - at < PIPE_BUF ? length - at : PIPE_BUF;
        if (!write_error(bytes + at, part)) return;
    }
}

static void say_line(enum vg_level level, const char *target, const char *message) {
    char line[1400], when[40];
    struct out out = {line, sizeof line - 4, 0};
    stamp(when, sizeof when);
    if (line_format == VG_FORMAT_JSON) {
        put_text(&out, "{\"timestamp\":\"", 14);
        put_text(&out, when, strlen(when));
        put_text(&out, "\",\"level\":\"", 11);
        put_text(&out, level_name(level), strlen(level_name(level)));
        put_text(&out, "\",\"target\":\"", 12);
        put_text(&out, target, strlen(target));
        put_text(&out, "\",\"message\":\"", 13);
        put_json(&out, message);
        line[out.at++] = '"';
        line[out.at++] = '}';
    } else {
        put_text(&out, when, strlen(when));
        put(&out, ' ');
        put_text(&out, level_name(level), strlen(level_name(level)));
        put(&out, ' ');
        put_text(&out, target, strlen(target));
        put(&out, ' ');
        for (; *message; message++) put(&out, *message == '\n' ? ' ' : *message);
    }
    line[out.at++] = '\n';
    if (!write_line(line, out.at)) dropped++;
}

void say(enum vg_level level, const char *target, const char *format, ...) {
    if ((uint32_t)level < lowest) return;
    int saved = errno;
    char message[1000];
    if (dropped) {
        uint64_t before = dropped;
        say_text(message, sizeof message, "%llu lines of diagnostics were dropped: nobody took them", (unsigned long long)before);
        dropped = 0;
        say_line(VG_WARN, "vigil.init", message);
        if (dropped) dropped = before;
    }
    va_list rest;
    va_start(rest, format);
    say_vtext(message, sizeof message, format, rest);
    va_end(rest);
    say_line(level, target, message);
    errno = saved;
}
