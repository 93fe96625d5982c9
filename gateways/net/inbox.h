/* Where received bytes land.
 *
 * A connection that waits holds no buffer. Bytes are received into a room: a buffer of the loop's,
 * one for each size of read, which its connections fill one after the other. A message that came
 * whole is handed on from there without a copy, and keeps the room's buffer alive while the door
 * holds slices of it; what is written into is only ever the part that nobody was given. Only what
 * is left of a message that came in part becomes the connection's own buffer. */
#ifndef WEIR_GATEWAYS_NET_INBOX_H
#define WEIR_GATEWAYS_NET_INBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum { NET_ROOM_SIZES = 4 };

/* A loop's buffers; home. Zeroed is empty. */
struct net_rooms {
    struct net_room {
        struct buf *buf;
        uint32_t at; /* the first byte that nobody was given */
    } room[NET_ROOM_SIZES];
};

/* A connection's; zeroed is empty. */
struct net_inbox {
    struct buf *own;  /* NULL: nothing is left over */
    uint32_t at, end; /* [at, end) of own is left over */
    uint32_t want;    /* the present message's whole size, 0: not known */
    bool wanted;      /* want was set since the last arrival */
    uint8_t size;     /* of reads; the index of a room */
    uint8_t n_small;  /* reads in a row that filled little */
};

/* Bytes for the door: all that is left over, and what came now. */
struct net_arrival {
    struct buf *buf;
    uint32_t at;
    uint32_t bytes;
    uint32_t fresh; /* how many of them came now */
};

/* Receives once. Bytes received; 0: the peer has closed; E_BUSY: nothing there yet; E_IO: the peer
 * is gone; E_NOMEM. */
int64_t net_inbox_recv(struct net_inbox *in, struct net_rooms *rooms, int fd,
                       struct net_arrival *a) MUST_USE;
/* What is left over, again. */
struct net_arrival net_inbox_again(const struct net_inbox *in);
/* The door has used the first `used` bytes of a; the rest is kept. E_NOMEM. */
int net_inbox_used(struct net_inbox *in, struct net_rooms *rooms, const struct net_arrival *a,
                   uint32_t used) MUST_USE;
/* See conn_want. */
void net_inbox_want(struct net_inbox *in, uint32_t bytes);
static inline uint32_t net_inbox_left(const struct net_inbox *in)
{
    return in->end - in->at;
}

void net_inbox_fini(struct net_inbox *in);
void net_rooms_fini(struct net_rooms *rooms);

#endif
