/* One request on its way: what a handler gets and how it answers.
 *
 * A handler runs on the connection's loop. It answers once, there and then or later, always on
 * r->loop: kafka_answer, kafka_answer_none or kafka_refuse. Until it has, r and all that it
 * points to stay, even when the client is gone; afterwards r may be gone too, unless held.
 * Answers leave in the order of the requests, whatever order they come in. */
#ifndef WEIR_GATEWAYS_KAFKA_REQUEST_H
#define WEIR_GATEWAYS_KAFKA_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/loop.h"
#include "gateways/kafka/arena.h"
#include "gateways/kafka/codec.h"
#include "gateways/kafka/schema.h"

struct kafka;
struct kafka_api;
struct kafka_session;

struct kafka_request {
    struct kafka *kafka;
    struct loop *loop;
    const struct kafka_api *api;
    struct kafka_form form; /* of request and answer */
    int32_t correlation_id;
    struct kafka_str client_id;
    const void *body; /* struct kafka_NAME_request of this API */
    struct buf *buf;  /* that strings, bytes and records point into */
    struct kafka_arena arena;
    void *own; /* the handler's */
    /* The handler's: the client is gone or the door stops; answer soon, with anything. At most
     * once, only before the answer. NULL: the answer comes soon anyway. */
    void (*gone)(struct kafka_request *r);

    /* session.c's own */
    struct kafka_session *session;
    struct kafka_request *next; /* requests of the session in order; later in the free list */
    struct slice *out;          /* the encoded answer */
    unsigned n_out;
    uint32_t out_bytes;
    uint64_t bytes;    /* of the request, and what it grew by */
    uint64_t promised; /* bytes that its answer may hold: see kafka_promise */
    unsigned holds;
    bool answered;
    bool sent;
};

/* Encodes response (a struct kafka_NAME_response of r's API, borrowed) and sends it when its
 * turn has come. */
void kafka_answer(struct kafka_request *r, const void *response);
/* No answer at all, as for Produce with acks 0. */
void kafka_answer_none(struct kafka_request *r);
/* Closes the connection instead of answering: for what the protocol has no error for. */
void kafka_refuse(struct kafka_request *r);

/* Keeps r and its arena past its answer, until dropped. */
void kafka_request_hold(struct kafka_request *r);
void kafka_request_drop(struct kafka_request *r);

/* While any is set the session's next request is not looked at: for what must not be overtaken. */
void kafka_session_block(struct kafka_request *r);
void kafka_session_unblock(struct kafka_request *r);

/* r holds so many bytes more until it ends: counted as if the client had sent them. */
void kafka_request_grew(struct kafka_request *r, uint64_t bytes);

/* Says how large r's answer may become, so that a client cannot ask for more than it reads. */
void kafka_promise(struct kafka_request *r, uint64_t bytes);

/* "127.0.0.1", without the port, as a string in r's arena. */
struct kafka_str kafka_client_host(struct kafka_request *r);
/* How this client reaches us: advertised, or the address it came to. */
struct kafka_str kafka_own_host(struct kafka_request *r);
int32_t kafka_own_port(struct kafka_request *r);

/* An array in r's arena, zeroed. When it is out of memory (the bound is generous) the request
 * is refused: answers NULL, return. */
void *kafka_take(struct kafka_request *r, size_t n, size_t size);
/* The answer of r's API with its defaults, or NULL as above. */
void *kafka_response_new(struct kafka_request *r);
/* n inner structs with their defaults, or NULL as above (n 0 gives a place of no bytes). */
void *kafka_response_array(struct kafka_request *r, const struct schema *s, size_t n);
#define KAFKA_ANSWERS(r, name, n)                                                                  \
    ((struct kafka_##name *)kafka_response_array((r), &kafka_##name##_schema, (size_t)(n)))

#endif
