/* What a connection has still to send: slices in order, sent as many to a system call as fit. */
#ifndef WEIR_GATEWAYS_NET_OUTBOX_H
#define WEIR_GATEWAYS_NET_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* Zeroed is empty. */
struct net_outbox {
    struct slice *slices; /* [head, n) are queued */
    uint32_t head;
    uint32_t n;
    uint32_t cap;
    size_t bytes; /* queued and not yet sent */
};

/* Takes over one reference of each buffer. */
void net_outbox_push(struct net_outbox *o, const struct slice *slices, unsigned n);

enum net_outbox_sent { NET_OUTBOX_EMPTY, NET_OUTBOX_FULL_SOCKET, NET_OUTBOX_MORE };
/* Sends to a socket that does not block. MORE: the turn's share was sent, and there is more. E_IO:
 * the peer is gone. */
int net_outbox_send(struct net_outbox *o, int fd) MUST_USE;

/* Gives all references back; empty again. */
void net_outbox_fini(struct net_outbox *o);

#endif
