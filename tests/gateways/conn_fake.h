/* A connection in memory: what a test sends arrives at the door, what the door writes can be
 * read back. */
#ifndef WEIR_TESTS_GATEWAYS_CONN_FAKE_H
#define WEIR_TESTS_GATEWAYS_CONN_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateways/net/conn.h"

struct conn_fake {
    struct conn conn; /* what the door sees */
    struct task deliver_task, close_task;
    uint8_t *in; /* sent by the test, not taken by the door yet */
    size_t in_bytes;
    uint8_t *out; /* written by the door, not taken by the test yet */
    size_t out_bytes;
    size_t stuck_bytes; /* of them, queued: the peer does not read */
    uint32_t want;
    unsigned n_writes;
    bool deliver_posted;
    bool paused;
    bool stuck;     /* the peer does not read */
    bool closing;   /* somebody closed it */
    bool closed;    /* and the door was told */
    bool refused;   /* at accept */
    bool piecemeal; /* at most one byte more at a time */
};

/* Opens a connection to the door, on loop. */
struct conn_fake *conn_fake_new(const struct conn_door *door, struct loop *loop);
/* The peer sends; arrives in a later turn of the loop. */
void conn_fake_send(struct conn_fake *f, const void *mem, size_t bytes);
/* The peer goes away. */
void conn_fake_hang_up(struct conn_fake *f);
/* The peer stops reading; off: it reads all. */
void conn_fake_stick(struct conn_fake *f, bool on);
/* Takes one whole message (size i32 and body) off the answers: body to free(), NULL when none
 * is whole. */
uint8_t *conn_fake_take(struct conn_fake *f, size_t *bytes);
/* After closed. */
void conn_fake_free(struct conn_fake *f);

#endif
