/*
 * chan - one end of a SOCK_SEQPACKET link.
 *
 * Owns: nothing but the messages it is handed.
 * Calls: nothing of vigil.
 * On failure: a truncated or misshapen message is CHAN_BAD, and whatever descriptors came with it are closed.
 */
#include "chan.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void chan_drop(struct chan_message *message) {
    for (int i = 0; i < message->count; i++)
        if (message->fds[i] >= 0) (void)close(message->fds[i]);
    message->count = 0;
}

int chan_take_fd(struct chan_message *message, int index) {
    if (index < 0 || index >= message->count) return -1;
    int fd = message->fds[index];
    message->fds[index] = -1;
    return fd;
}

/* musl's CMSG_NXTHDR converts signs inside; that warning is not about us. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
static struct cmsghdr *next_part(struct msghdr *header, struct cmsghdr *part) {
    return CMSG_NXTHDR(header, part);
}
#pragma GCC diagnostic pop

int chan_receive(int fd, struct chan_message *message) {
    union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int) * 16)]; } control;
    struct iovec part = {message->words, sizeof message->words};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = -1;
    message->count = 0;
    message->size = 0;
    /* ECONNRESET is told once, before what is still to be read, when the peer died with something of ours unread: no end yet. */
    for (int attempt = 0; attempt < 8; attempt++) {
        n = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n >= 0 || (errno != EINTR && errno != ECONNRESET)) break;
    }
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? CHAN_EMPTY : CHAN_CLOSED;
    int bad = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = next_part(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) { bad = 1; continue; }
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int received;
            memcpy(&received, CMSG_DATA(c) + i * sizeof(int), sizeof received);
            if (message->count < CHAN_FDS) message->fds[message->count++] = received;
            else { (void)close(received); bad = 1; }
        }
    }
    if (n == 0 && !bad && message->count == 0) return CHAN_CLOSED;
    if (header.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) bad = 1;
    struct vg_head head;
    if ((size_t)n < sizeof head) bad = 1;
    if (!bad) {
        memcpy(&head, message->words, sizeof head);
        if (head.size != (size_t)n) bad = 1;
    }
    if (bad) {
        chan_drop(message);
        return CHAN_BAD;
    }
    message->size = (uint32_t)n;
    return CHAN_MESSAGE;
}

int chan_send(int fd, const void *bytes, const int *fds, int count) {
    struct vg_head head;
    memcpy(&head, bytes, sizeof head);
    union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int) * CHAN_FDS)]; } control;
    struct iovec part = {(void *)(uintptr_t)bytes, head.size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = control.bytes;
        header.msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *c = &control.head;
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)count);
    }
    ssize_t n;
    do n = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
    if (n >= 0) return CHAN_MESSAGE;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return CHAN_EMPTY;
    /* ETOOMANYREFS: too many descriptors in flight; ENOBUFS, ENOMEM: no memory now. They pass, but while they last the socket polls as writable. */
    return errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS ? CHAN_SHORT : CHAN_CLOSED;
}

int chan_check(const struct chan_rule *rules, int count, const struct chan_message *message, uint32_t phase) {
    struct vg_head head;
    memcpy(&head, message->words, sizeof head);
    for (int i = 0; i < count; i++) {
        if (rules[i].kind != head.kind) continue;
        int shape = rules[i].size == message->size && message->count >= rules[i].fds_least && message->count <= rules[i].fds_most;
        return shape && rules[i].phases & phase ? i : -1;
    }
    return -1;
}
