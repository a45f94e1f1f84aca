/*
 * loop - one epoll, one timerfd: the only place where PID 1 waits.
 *
 * Owns: the epoll and timer descriptors, which descriptor each source has.
 * Calls: nothing of vigil.
 * On failure: an epoll_wait that fails for another reason than a signal returns "everything", so that a turn looks at all sources.
 */
#include "loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../protocol.h"

static int epoll = -1, timer = -1;
static int watched[LOOP_SOURCES] = {-1, -1, -1, -1, -1};
static uint32_t asked[LOOP_SOURCES];
static uint64_t earliest = VG_FOREVER, armed = VG_FOREVER;

bool loop_make(void) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return epoll >= 0 && timer >= 0 && loop_watch(LOOP_TIMER, timer, true, false);
}

bool loop_watch(enum loop_source source, int fd, bool readable, bool writable) {
    uint32_t events = (readable ? (uint32_t)EPOLLIN : 0u) | (writable ? (uint32_t)EPOLLOUT : 0u);
    if (!events) { loop_forget(source); return true; }
    if (watched[source] == fd && asked[source] == events) return true;
    struct epoll_event event = {.events = events, .data = {.u32 = (uint32_t)source}};
    int how = watched[source] == fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(epoll, how, fd, &event) != 0) return false;
    watched[source] = fd;
    asked[source] = events;
    return true;
}

void loop_forget(enum loop_source source) {
    if (watched[source] < 0) return;
    (void)epoll_ctl(epoll, EPOLL_CTL_DEL, watched[source], NULL);
    watched[source] = -1;
    asked[source] = 0;
}

void loop_at(uint64_t ns) {
    if (ns < earliest) earliest = ns;
}

uint32_t loop_wait(void) {
    if (earliest != armed) {
        struct itimerspec when = {{0, 0}, {0, 0}};
        if (earliest != VG_FOREVER) {
            uint64_t ns = earliest ? earliest : 1;      /* zero would disarm it */
            when.it_value.tv_sec = (time_t)(ns / 1000000000u);
            when.it_value.tv_nsec = (long)(ns % 1000000000u);
        }
        if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) == 0) armed = earliest;
    }
    earliest = VG_FOREVER;
    struct epoll_event events[LOOP_SOURCES];
    int n;
    do n = epoll_wait(epoll, events, LOOP_SOURCES, -1); while (n < 0 && errno == EINTR);
    if (n < 0) return (1u << LOOP_SOURCES) - 1;
    uint32_t woken = 0;
    for (int i = 0; i < n; i++) woken |= 1u << events[i].data.u32;
    if (woken & (1u << LOOP_TIMER)) {
        uint64_t expirations;
        if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) woken = (1u << LOOP_SOURCES) - 1;
        armed = VG_FOREVER;
    }
    return woken;
}
