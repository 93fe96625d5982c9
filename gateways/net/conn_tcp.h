/* Connections over sockets, behind conn.h.
 *
 * A home is one loop's connections of one listener: they share its read buffers, its timer for idle
 * ones, and one task that sends, at the end of a turn, all that was written in it. */
#ifndef WEIR_GATEWAYS_NET_CONN_TCP_H
#define WEIR_GATEWAYS_NET_CONN_TCP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "gateways/net/conn.h"
#include "gateways/net/inbox.h"

struct conn_tcp;

struct conn_tcp_home {
    struct loop *loop;
    struct conn_door door;
    uint64_t idle_us;
    /* A connection is gone, its memory too. Home. */
    void (*gone)(struct conn_tcp_home *h);
    void *ctx; /* gone's */

    /* home */
    struct conn_tcp *oldest, *newest; /* by their last traffic */
    struct conn_tcp *to_flush;
    struct task flush;
    bool flush_posted;
    bool ended;
    struct loop_timer idle;
    struct net_rooms rooms;
};

/* Fills *h. idle_ms: a connection without traffic for so long is closed. Any thread, before the
 * first connection. */
void conn_tcp_home_init(struct conn_tcp_home *h, struct loop *loop, struct conn_door door,
                        uint32_t idle_ms, void (*gone)(struct conn_tcp_home *h), void *ctx);
/* Drops all connections without sending what is queued, and refuses new ones. Their closed and then
 * gone run later. Home. */
void conn_tcp_home_end(struct conn_tcp_home *h);
/* When all connections are gone. Home, or when the loop does not run. */
void conn_tcp_home_fini(struct conn_tcp_home *h);

/* Takes over a connected socket that does not block, and asks the door. gone will run once for it,
 * perhaps inside the call. Home. */
void conn_tcp_open(struct conn_tcp_home *h, int fd, const struct sockaddr_storage *peer);

/* "127.0.0.1:9092", "[::1]:9092"; an IPv4 address in IPv6's clothes as IPv4. Gives the port. */
uint16_t conn_tcp_address(char *out, size_t bytes, const struct sockaddr_storage *sa,
                          bool with_port);

#endif
