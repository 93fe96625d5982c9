#include "gateways/net/outbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    IOV_MAX_SLICES = 64,
    TURN_BYTES = 4 << 20, /* after so many the loop's other connections get their turn */
    KEEP_SLICES = 8       /* an idle connection keeps no more than this */
};

/* Sent slices at the front are dropped before the array grows. */
static void make_room(struct net_outbox *o, unsigned n)
{
    if (o->n + n <= o->cap)
        return;
    if (o->head >= o->cap / 2 && o->head > 0) {
        o->n -= o->head;
        memmove(o->slices, o->slices + o->head, o->n * sizeof *o->slices);
        o->head = 0;
    }
    if (o->n + n > o->cap) {
        o->cap = o->cap ? o->cap : KEEP_SLICES;
        while (o->cap < o->n + n)
            o->cap *= 2;
        o->slices = mem_grow(o->slices, o->cap * sizeof *o->slices);
    }
}

void net_outbox_push(struct net_outbox *o, const struct slice *slices, unsigned n)
{
    make_room(o, n);
    for (unsigned i = 0; i < n; i++) {
        if (slices[i].len == 0) {
            buf_unref(slices[i].buf);
            continue;
        }
        o->slices[o->n++] = slices[i];
        o->bytes += slices[i].len;
    }
}

static void rewind_empty(struct net_outbox *o)
{
    o->head = o->n = 0;
    if (o->cap > KEEP_SLICES) {
        free(o->slices);
        o->slices = NULL;
        o->cap = 0;
    }
}

/* Drops what has left. */
static void sent(struct net_outbox *o, size_t bytes)
{
    o->bytes -= bytes;
    while (bytes > 0) {
        struct slice *s = &o->slices[o->head];

        if (bytes < s->len) {
            s->mem += bytes;
            s->len -= (uint32_t)bytes;
            return;
        }
        bytes -= s->len;
        buf_unref(s->buf);
        o->head++;
    }
    if (o->head == o->n)
        rewind_empty(o);
}

static ssize_t send_some(const struct net_outbox *o, int fd)
{
    struct iovec iov[IOV_MAX_SLICES];
    struct msghdr msg = { .msg_iov = iov };

    for (uint32_t i = o->head; i < o->n && msg.msg_iovlen < IOV_MAX_SLICES; i++)
        iov[msg.msg_iovlen++] = (struct iovec){ .iov_base = (void *)(uintptr_t)o->slices[i].mem,
                                                .iov_len = o->slices[i].len };
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int net_outbox_send(struct net_outbox *o, int fd)
{
    size_t share = TURN_BYTES;

    while (o->bytes > 0) {
        ssize_t n = send_some(o, fd);

        if (n < 0 && errno == EINTR)
            continue;
        /* Short of kernel memory is as good as full: the socket tells when it goes on. */
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS))
            return NET_OUTBOX_FULL_SOCKET;
        if (n < 0)
            return E_IO;
        sent(o, (size_t)n);
        if ((size_t)n >= share)
            return o->bytes ? NET_OUTBOX_MORE : NET_OUTBOX_EMPTY;
        share -= (size_t)n;
    }
    return NET_OUTBOX_EMPTY;
}

void net_outbox_fini(struct net_outbox *o)
{
    for (uint32_t i = o->head; i < o->n; i++)
        buf_unref(o->slices[i].buf);
    free(o->slices);
    *o = (struct net_outbox){ 0 };
}
