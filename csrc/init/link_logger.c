/*
 * link_logger - the protocol with logger, as a table.
 *
 * Owns: what logger has been told.
 * Calls: chan, table, pipes, stop, helper, say.
 * On failure: nonsense drops logger; the pipes stay, and the next one gets them all again.
 */
#include <stddef.h>
#include <string.h>

#include "chan.h"
#include "helper.h"
#include "link.h"
#include "pipes.h"
#include "say.h"
#include "stop.h"
#include "table.h"

#define HEAD(type, number) {.size = sizeof(struct type), .kind = (number)}
#define MESSAGES_A_TURN 256

static bool settings_owed = true, streams_ended, finish_owed, finish_sent, finished;
static uint32_t logs_told;          /* parked descriptors below this have been looked at for this logger */

static const struct chan_rule rules[] = {
    {VG_LOGGER_READY, 1, sizeof(struct vg_plain), 0, 0},
    {VG_DRAINED, 1, sizeof(struct vg_forget), 0, 0},
    {VG_STATS, 1, sizeof(struct vg_stats), 0, 0},
    {VG_PONG, 1, sizeof(struct vg_plain), 0, 0},
};

static void handle(const struct chan_message *message) {
    struct vg_head head;
    memcpy(&head, message->words, sizeof head);
    if (head.kind == VG_LOGGER_READY) {
        logger.ready = logger.ever_ready = true;
    } else if (head.kind == VG_PONG) {
        struct vg_plain pong;
        memcpy(&pong, message->words, sizeof pong);
        helper_answered(&logger, pong.value);
    } else if (head.kind == VG_DRAINED) {
        struct vg_forget drained;
        memcpy(&drained, message->words, sizeof drained);
        if (drained.run.slot == VG_NO_SLOT) finished = finish_sent;
        else stop_drained(drained.run);
    }
}

void link_logger_receive(void) {
    static struct chan_message message;
    for (int i = 0; logger.link >= 0 && i < MESSAGES_A_TURN && !logger.ending && !logger.closed; i++) {
        int got = chan_receive(logger.link, &message);
        if (got == CHAN_EMPTY) return;
        if (got == CHAN_CLOSED) {
            helper_closed(&logger);
            return;
        }
        if (got == CHAN_MESSAGE && chan_check(rules, (int)(sizeof rules / sizeof *rules), &message, 1) >= 0) {
            handle(&message);
            chan_drop(&message);
            continue;
        }
        chan_drop(&message);
        helper_drop(&logger, "a message that makes no sense");
        return;
    }
}

static int send_stream(struct pipes *pipes, uint32_t stream) {
    char name[VG_PARK_MAX + 1];
    struct vg_stream m = {.head = HEAD(vg_stream, VG_STREAM), .run = pipes->run, .stream = stream, .log_mode = pipes->log_mode, .forward_format = pipes->forward_format};
    memcpy(m.log, pipes->log, sizeof m.log);
    memcpy(m.prefix, pipes->prefix, sizeof m.prefix);
    (void)say_text(name, sizeof name, "log/%s", pipes->log);
    int fds[2] = {pipes->fd[stream - 1], parked_fd(name)};
    m.has_ring = fds[1] >= 0;
    return chan_send(logger.link, &m, fds, m.has_ring ? 2 : 1);
}

static int send_notify(const struct pipes *pipes) {
    struct vg_stream m = {.head = HEAD(vg_stream, VG_STREAM), .run = pipes->run, .stream = VG_STREAM_NOTIFY, .uid = pipes->uid, .tag = pipes->tag};
    memcpy(m.log, pipes->name, sizeof m.log);
    return chan_send(logger.link, &m, &pipes->fd[2], 1);
}

/* A new logger is told of every log: its predecessor may not have forwarded all lines of runs that are over. */
static int send_log(const struct parked *parked) {
    struct vg_stream m = {.head = HEAD(vg_stream, VG_STREAM), .run = {VG_NO_SLOT, 0}, .has_ring = 1};
    if (parked->fd < 0 || strncmp(parked->name, "log/", 4) != 0) return CHAN_MESSAGE;
    (void)say_text(m.log, sizeof m.log, "%s", parked->name + 4);
    return chan_send(logger.link, &m, &parked->fd, 1);
}

static int send_pipes(struct pipes *pipes) {
    int sent = CHAN_MESSAGE;
    for (uint32_t stream = 1; stream <= 2 && sent == CHAN_MESSAGE; stream++) {
        uint32_t bit = stream == 1 ? PIPES_STDOUT : PIPES_STDERR;
        if (!(pipes->owed & bit)) continue;
        if (pipes->fd[stream - 1] >= 0) sent = send_stream(pipes, stream);
        if (sent == CHAN_MESSAGE) pipes->owed &= ~bit;
    }
    if (sent == CHAN_MESSAGE && pipes->owed & PIPES_NOTIFY) {
        sent = send_notify(pipes);
        if (sent == CHAN_MESSAGE) pipes->owed &= ~(uint32_t)PIPES_NOTIFY;
    }
    if (sent == CHAN_MESSAGE && pipes->owed & PIPES_FORGET) {
        struct vg_forget m = {.head = HEAD(vg_forget, VG_FORGET), .run = pipes->run};
        sent = chan_send(logger.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) pipes->owed &= ~(uint32_t)PIPES_FORGET;
    }
    return sent;
}

static int send_plain(uint32_t kind, uint64_t value) {
    struct vg_plain m = {.head = {.size = sizeof m, .kind = (uint16_t)kind}, .value = value};
    return chan_send(logger.link, &m, NULL, 0);
}

static int send_all(void) {
    int sent = CHAN_MESSAGE;
    if (settings_owed) {
        struct vg_settings m = {.head = HEAD(vg_settings, VG_SETTINGS), .log_format = helper_setting.log_format, .log_level = helper_setting.log_level, .forward_stall_ms = helper_setting.forward_stall_ms};
        sent = chan_send(logger.link, &m, NULL, 0);
        if (sent == CHAN_MESSAGE) settings_owed = false;
    }
    for (uint32_t i = 0; i < pipes_top() && sent == CHAN_MESSAGE; i++)
        if (pipes_at(i)->run.slot != VG_NO_SLOT && pipes_at(i)->owed) sent = send_pipes(pipes_at(i));
    for (; sent == CHAN_MESSAGE && !streams_ended && logs_told < parked_end(); logs_told += sent == CHAN_MESSAGE) sent = send_log(parked_at(logs_told));
    if (sent == CHAN_MESSAGE && !streams_ended) {
        sent = send_plain(VG_STREAMS_END, 0);
        streams_ended = sent == CHAN_MESSAGE;
    }
    if (sent == CHAN_MESSAGE && logger.ask) {
        sent = send_plain(VG_PING, logger.question);
        if (sent == CHAN_MESSAGE) { logger.ask = false; logger.asked = true; }
    }
    if (sent == CHAN_MESSAGE && finish_owed && !finish_sent) {
        sent = send_plain(VG_FINISH, 0);
        finish_sent = sent == CHAN_MESSAGE;
    }
    return sent;
}

void link_logger_send(void) {
    if (logger.link < 0 || logger.ending || logger.closed) return;
    helper_sent(&logger, send_all(), true);
}

void link_logger_closed(void) {
    settings_owed = true;
    streams_ended = finish_sent = false;
    logs_told = 0;
    pipes_tell_again();
}

void link_logger_settings(void) { settings_owed = true; }

void link_logger_finish(void) { finish_owed = true; }

bool link_logger_finished(void) { return finished; }

void link_logger_begin(void) { finish_owed = finished = false; }
