/* A listener: accepts connections on one loop and hands them to all loops in turn, so that few
 * connections spread as evenly as many. */
#ifndef WEIR_GATEWAYS_NET_LISTENER_H
#define WEIR_GATEWAYS_NET_LISTENER_H

#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "gateways/net/conn.h"

struct net_listener;

struct net_listener_conf {
    const char *host; /* a name or an address; every address of a name is listened on */
    uint16_t port;    /* 0: a free one */
    unsigned backlog;
    uint32_t max_connections; /* more are closed as they come */
    uint32_t idle_close_ms;   /* without traffic for so long: closed */
};

/* Binds and listens; nobody is accepted yet. loops are borrowed and must outlive the listener.
 * E_SYSTEM, E_LOCKED (the port is taken), with a sentence. Blocks for names. */
int net_listener_open(struct net_listener **out, const struct net_listener_conf *conf,
                      struct loop **loops, unsigned n_loops, struct conn_door door,
                      struct err *e) MUST_USE;
/* The port in use. */
uint16_t net_listener_port(const struct net_listener *l);
/* Begins to accept. Any thread, once. */
void net_listener_start(struct net_listener *l);
/* Connections open now. Any thread. */
uint32_t net_listener_count(const struct net_listener *l);

struct net_listener_stop {
    struct task task; /* ours */
    void (*fn)(struct net_listener_stop *s);
    struct loop *loop;
    struct net_listener *listener; /* ours */
};
/* Stops accepting and closes the ports; connections live on. Any thread, once. */
void net_listener_stop(struct net_listener *l, struct net_listener_stop *done);
/* After stop has answered: drops what connections are left, and runs done when the last one's
 * closed has run. Any thread, once. */
void net_listener_end(struct net_listener *l, struct net_listener_stop *done);
/* After end has answered, or when it was never started. */
void net_listener_free(struct net_listener *l);

/* Raises the process's limit on open files as far as allowed, and gives how many of `wanted`
 * connections fit beside the files that the server needs itself. */
uint32_t net_listener_fit(uint32_t wanted);

#endif
