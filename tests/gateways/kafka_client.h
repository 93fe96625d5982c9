/* A Kafka server in a simulated process, and clients of it that speak through structs. */
#ifndef WEIR_TESTS_GATEWAYS_KAFKA_CLIENT_H
#define WEIR_TESTS_GATEWAYS_KAFKA_CLIENT_H

#include "base/buf.h"
#include "gateways/kafka/codec.h"
#include "gateways/kafka/kafka.h"
#include "gateways/kafka/schema.h"
#include "tests/gateways/conn_fake.h"
#include "tests/gateways/journal_fake.h"
#include "tests/sim/loop_sim.h"

struct kafka_server {
    struct sim *sim;
    struct journal *journal;
    struct kafka *kafka;
    struct conn_door door;
    struct kafka_conf conf;
    unsigned n_loops;
    struct loop *loops[4];
    bool done; /* the last start or stop has answered */
    int rc;
};

/* Starts on a new journal. conf may be NULL. */
void kafka_server_start(struct kafka_server *s, const struct kafka_conf *conf);
/* Stops the door and starts a new one on what the journal keeps. No client may be open. */
void kafka_server_restart(struct kafka_server *s);
/* Stops; checks that every handle and wait was given back, and that no buffer is left. */
void kafka_server_stop(struct kafka_server *s);
/* Runs what is to run now; the clock moves at most by ms. */
void kafka_server_run(struct kafka_server *s, unsigned ms);

struct kafka_client {
    struct kafka_server *server;
    struct conn_fake *conn;
    int32_t next_id;
    int32_t answered_id; /* of the last answer taken */
    int16_t tag_bytes;   /* header tags of the last answer: 1 when flexible */
    struct kafka_arena arena;
};

/* Connects to loop number `loop`. */
void kafka_client_open(struct kafka_client *c, struct kafka_server *s, unsigned loop);
/* Sends a struct kafka_NAME_request; returns its correlation id. */
int32_t kafka_client_send(struct kafka_client *c, int16_t key, int16_t version,
                          const void *request);
/* Takes the next answer, as one to (key, version), without waiting: a struct
 * kafka_NAME_response good until close, or NULL. */
void *kafka_client_take(struct kafka_client *c, int16_t key, int16_t version);
/* Sends, runs until the answer is there (or the connection closed, or 10 minutes went by: NULL). */
void *kafka_client_call(struct kafka_client *c, int16_t key, int16_t version, const void *request);
bool kafka_client_closed(const struct kafka_client *c);
void kafka_client_close(struct kafka_client *c);

/* A new message with its defaults, in the client's arena. */
#define KAFKA_ASK(client, name) KAFKA_NEW(&(client)->arena, name, 1)

/* One batch of n records whose values are `bytes` long and whose timestamps count up from
 * time; to buf_unref. producer -1: none. */
struct buf *kafka_batch(unsigned n, unsigned bytes, int64_t time, int64_t producer, int16_t epoch,
                        int32_t sequence);

#endif
