#ifndef VIGIL_SAY_H
#define VIGIL_SAY_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "../protocol.h"

/* Format into a buffer of `size` bytes, always NUL-terminated, cut where it does not fit; the length is returned.
 * Understands %s %.*s %c %d %i %u %x with the lengths l, ll and z, and %%. */
size_t say_text(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
size_t say_vtext(char *to, size_t size, const char *format, va_list rest) __attribute__((format(printf, 3, 0)));

/* One line of diagnostics. Never blocks: what the pipe does not take is counted, and the count is said with the next line that fits. */
void say(enum vg_level level, const char *target, const char *format, ...) __attribute__((format(printf, 3, 4)));

void say_configure(uint32_t format, uint32_t level);   /* VG_FORMAT_TEXT or VG_FORMAT_JSON; vg_level */
void say_into(int fd);      /* a pipe whose write end is O_NONBLOCK; -1: standard error itself, polled first */
int say_fd(void);           /* what say_into was given */
void say_bytes(const char *bytes, size_t length);      /* to standard error as they are, as far as it takes them at once */

uint64_t say_real_ns(void);         /* CLOCK_REALTIME */
uint64_t say_now_ns(void);          /* CLOCK_MONOTONIC */
#endif
