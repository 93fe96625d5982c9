/* Clients of the simulated Kafka door: connections in memory, requests on their way, answers taken
 * in order.
 *
 * A call is one request that wants an answer. Its fn runs once: with the decoded answer, or with
 * NULL when the connection is gone; then the call is freed. */
#ifndef WEIR_TESTS_GATEWAYS_KAFKA_SIM_CLIENT_H
#define WEIR_TESTS_GATEWAYS_KAFKA_SIM_CLIENT_H

#include "gateways/kafka/codec.h"
#include "tests/gateways/conn_fake.h"

struct kafka_sim;
struct sim_call;

typedef void sim_call_fn(struct kafka_sim *w, struct sim_call *call, const void *answer);

struct sim_call {
    struct sim_call *next;
    sim_call_fn *fn;
    int16_t key, version;
    int32_t id;
    unsigned slot;    /* the client that sent it */
    uint64_t sent_us; /* virtual time */
};

struct door_client {
    struct conn_fake *conn; /* NULL: not connected */
    struct sim_call *head, *tail;
    unsigned n_calls;
    unsigned slot;
    uint32_t conn_no; /* every connection of the run has its own */
    uint32_t send_no;
    int32_t next_id;
    bool silent; /* a request without an answer was sent: the server may close for its sake */
    bool hung_up;
};

void door_client_open(struct kafka_sim *w, struct door_client *c, struct loop *loop);
/* Sends a struct kafka_NAME_request. call (heap memory, fn set) NULL: no answer is wanted. */
void door_client_send(struct kafka_sim *w, struct door_client *c, struct sim_call *call,
                      int16_t key, int16_t version, const void *request);
/* Takes what has been answered. A connection that was closed is let go, with its calls. */
void door_client_poll(struct kafka_sim *w, struct door_client *c);
/* Goes away without a word. Calls end at once: nothing sent reaches the door any more. */
void door_client_hang_up(struct kafka_sim *w, struct door_client *c);

#endif
