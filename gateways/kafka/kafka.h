/* The Kafka door: what the server (tools/weir-server) and the simulator call. */
#ifndef WEIR_GATEWAYS_KAFKA_KAFKA_H
#define WEIR_GATEWAYS_KAFKA_KAFKA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "gateways/net/conn.h"

struct journal;
struct kafka;

/* Borrowed; must outlive the door. */
struct kafka_env {
    struct journal *journal;
    struct loop **loops; /* connections arrive on any of these */
    unsigned n_loops;
    struct pool *pool; /* for what blocks */
    uint64_t seed;     /* topic ids, member ids */
};

/* Zero means the default in brackets. Strings are copied. */
struct kafka_conf {
    const char
        *advertised_host;     /* what Metadata names; NULL: the address the client reached us by */
    uint16_t advertised_port; /* 0: the port the client reached us by */
    int32_t node_id;          /* [1] */
    const char *cluster_id;   /* [the store's] */
    int32_t default_partitions; /* of topics created without a number [1] */
    bool no_auto_create;        /* Metadata does not create topics */
    uint32_t
        request_max;    /* largest request, bytes [100 MiB, as Kafka's socket.request.max.bytes] */
    uint32_t batch_max; /* largest batch, bytes [1048588, as Kafka's message.max.bytes] */
    uint32_t fetch_max; /* largest fetch answer, bytes [55 MiB, as Kafka's fetch.max.bytes] */
    uint32_t
        conn_pending_max; /* unanswered produce bytes of one connection past which it is not read [16 MiB] */
    uint32_t partitions_max;           /* of one topic [10000] */
    uint32_t group_rebalance_delay_ms; /* first rebalance of an empty group waits this long [0] */
    uint32_t session_min_ms, session_max_ms; /* [6000], [1800000] */
    uint32_t offsets_snapshot_every; /* records of the offsets shard between snapshots [10000] */
    uint32_t offsets_retention_ms;   /* [7 days], after a group became empty */
    /* What new topics keep where they do not say so themselves: below 0 for ever, without limit. */
    int64_t retention_ms;       /* [7 days] */
    int64_t retention_bytes;    /* [-1] */
    const char *cleanup_policy; /* "delete" or "compact" [delete] */
    /* Codec of the batches that the door builds itself: "none", "lz4", "zstd" [lz4] */
    const char *server_batches;
    uint32_t recode_here; /* bytes of a request's batches that a loop may recode [64 KiB] */
};

struct kafka_start {
    struct task task; /* ours */
    void (*fn)(struct kafka_start *s);
    struct loop *loop;
    int rc;
    struct err err;
    void *impl; /* ours */
};
struct kafka_stop {
    struct task task; /* ours */
    void (*fn)(struct kafka_stop *s);
    struct loop *loop;
    void *impl; /* ours */
};

/* Makes a door that does not serve yet. */
int kafka_new(struct kafka **out, const struct kafka_env *env, const struct kafka_conf *conf,
              struct err *e) MUST_USE;
/* Loads topics, committed offsets and the producer id counter; then connections may be given to it.
 * Any loop. */
void kafka_start(struct kafka *k, struct kafka_start *done);
/* What a listener needs. */
struct conn_door kafka_door(struct kafka *k);
/* Closes all connections, ends waits, gives shard handles back, then runs done. New connections are
 * refused from then on. */
void kafka_stop(struct kafka *k, struct kafka_stop *done);
/* After stop has answered. */
void kafka_free(struct kafka *k);

#endif
