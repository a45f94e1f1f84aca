#ifndef VIGIL_LOOP_H
#define VIGIL_LOOP_H
#include <stdbool.h>
#include <stdint.h>

/* What woke PID 1: one bit each. */
enum loop_source { LOOP_SIGNALS = 0, LOOP_KEEPERS, LOOP_TIMER, LOOP_CONTROL, LOOP_LOGGER, LOOP_SOURCES };

bool loop_make(void);                                   /* boot only */
bool loop_watch(enum loop_source source, int fd, bool readable, bool writable);   /* again: changes it; neither: forgets it, its hang-up too */
void loop_forget(enum loop_source source);              /* before its descriptor is closed */
void loop_at(uint64_t ns);                              /* CLOCK_MONOTONIC: wake up then; VG_FOREVER: never; the earliest of a turn counts */
uint32_t loop_wait(void);                               /* bits of the sources that woke it; the deadlines of the last turn are forgotten */
#endif
