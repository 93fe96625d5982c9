/* A connection as a door sees it: bytes in, slices out. net/ (sockets) and the simulator stand
 * behind it.
 *
 * A connection lives on one home loop; every function here is called there, every callback runs
 * there. */
#ifndef WEIR_GATEWAYS_NET_CONN_H
#define WEIR_GATEWAYS_NET_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/loop.h"

struct conn;

/* Of bytes queued: drained runs when, after there were more than the high mark, there are fewer
 * than the low one. */
enum { CONN_HIGH_MARK = 256 << 10, CONN_LOW_MARK = 64 << 10 };

/* What a door gives for each connection. */
struct conn_handler {
    /* Bytes arrived. Reads them from in (mem, bytes) and returns how many it has used; the rest is
     * kept and given again, longer, with the
     * next arrival. Below 0: close. To take a large message without copying, see want. */
    int64_t (*data)(struct conn *c, void *user, struct buf *in, uint32_t at, uint32_t bytes);
    /* Written bytes have left: fewer than the low mark are queued again, after conn_queued was
     * above the high mark. */
    void (*drained)(struct conn *c, void *user);
    /* The peer is gone or the connection was closed; the last callback. The door frees user when
     * nothing of its own is pending. */
    void (*closed)(struct conn *c, void *user);
};

struct conn_ops {
    void (*write)(struct conn *c, const struct slice *slices, unsigned n);
    void (*pause)(struct conn *c, bool pause);
    void (*close)(struct conn *c);
    size_t (*queued)(struct conn *c);
    void (*want)(struct conn *c, uint32_t bytes);
};

struct conn {
    const struct conn_ops *ops;
    struct loop *loop;
    const struct conn_handler *handler;
    void *user;
    char peer[64];  /* "127.0.0.1:40000" */
    char local[64]; /* our address as the peer reached it, without port */
    uint16_t local_port;
};

/* Queues slices for sending, in order; takes over one reference of each buffer. After conn_close it
 * only gives the references back. */
static inline void conn_write(struct conn *c, const struct slice *slices, unsigned n)
{
    c->ops->write(c, slices, n);
}
/* Stops or resumes reading from the peer. Resuming gives bytes already received (if any) again
 * through data, later, not inside the call. */
static inline void conn_pause(struct conn *c, bool pause)
{
    c->ops->pause(c, pause);
}
/* Closes once what is queued has been sent, or has failed to for 5 s; closed runs later, once, not
 * inside the call. */
static inline void conn_close(struct conn *c)
{
    c->ops->close(c);
}
/* Bytes queued and not yet sent. */
static inline size_t conn_queued(struct conn *c)
{
    return c->ops->queued(c);
}
/* The message now arriving will need `bytes` in one piece: makes the buffer that large, so that
 * data gets it whole. The door checks its
 * limit first. */
static inline void conn_want(struct conn *c, uint32_t bytes)
{
    c->ops->want(c, bytes);
}

/* How a listener hands connections to a door. */
struct conn_door {
    const struct conn_handler *handler;
    /* A new connection; returns user for it (NULL: refuse). On c's loop. */
    void *(*accept)(struct conn *c, void *door);
    void *door;
};

#endif
