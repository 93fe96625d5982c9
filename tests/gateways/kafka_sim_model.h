/* What clients of the simulated Kafka door know: topics, what was sent to each partition and what
 * came of it, committed offsets. It names what a server that keeps its word can answer.
 *
 * Every batch ever sent is told apart by its base timestamp, so that one that is met again
 * (compressed or not) is known, and compared byte for byte. A batch has at most one offset, for
 * ever: that is "once" for an idempotent producer, and for one that never repeats. */
#ifndef WEIR_TESTS_GATEWAYS_KAFKA_SIM_MODEL_H
#define WEIR_TESTS_GATEWAYS_KAFKA_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/rng.h"
#include "format/batch.h"
#include "gateways/kafka/schema.h"

struct kafka_sim;

enum {
    SIM_NAMES = 5,
    SIM_PARTITIONS = 4,
    SIM_PRODUCERS = 3,
    SIM_GROUPS = 2,
    SIM_QUEUE = 5, /* unanswered batches of an idempotent producer and partition */
    SIM_RECORDS = 12,
    SIM_TIME_STEP = 16, /* between batches in time: more than the records of one */
    SIM_AS_SENT = 1 << CODEC_COUNT
};
#define SIM_FIRST_TIME INT64_C(1700000000000) /* the simulator's clock begins there, too */

struct sim_part;

struct sim_batch {
    uint32_t no;
    struct buf *bytes;
    struct sim_part *part;
    unsigned n_records;
    int64_t base_time;
    int64_t offset;   /* -1: not known */
    int64_t producer; /* id; -1: none */
    int32_t sequence;
    bool zstd;
    bool acked;
    bool gone; /* it cannot be there */
    bool in_flight;
    unsigned slot; /* where it is in flight */
    unsigned sends;
    uint32_t conn_no, send_no; /* where it was sent first */
};

/* A producer's unanswered batches for one partition, oldest first. */
struct sim_queue {
    struct sim_batch *at[SIM_QUEUE];
    unsigned n;
    int32_t next;
};

/* Values count up, so that "this one or a later one" can be told. -1: none. */
struct sim_commit {
    int64_t acked, sent;
    unsigned in_flight, slot;
};

struct sim_part {
    struct sim_topic *topic;
    int32_t index;
    int64_t end;      /* offsets below were acked or read: they stay given */
    int64_t start;    /* what is below is gone for certain */
    int64_t trim;     /* the furthest that DeleteRecords was asked for and may have been */
    unsigned n_trims; /* asked for, and not answered */
    struct sim_batch **log;
    unsigned n_log, cap_log;
    struct sim_queue queues[SIM_PRODUCERS];
    struct sim_commit commits[SIM_GROUPS];
};

/* One life of a name. */
struct sim_topic {
    struct sim_topic *next;
    unsigned name;
    struct kafka_uuid id;
    bool id_known;
    bool deleting; /* asked for, perhaps done */
    bool deleted;
    unsigned codecs;      /* that batches may have got: bits of enum batch_codec, and SIM_AS_SENT */
    int64_t retention_ms; /* the shortest that was ever asked for; -1: all is kept */
    int32_t n_parts;
    struct sim_part parts[SIM_PARTITIONS];
};

enum sim_change { SIM_NONE, SIM_CREATE, SIM_DELETE, SIM_GROW };

struct sim_name {
    char text[8];
    struct sim_topic *now;   /* NULL: there is none */
    enum sim_change pending; /* asked and not answered, or answered with who knows what */
    bool unsure;             /* the second: until the next start tells */
    int32_t asked;           /* partitions */
    unsigned asked_codecs;   /* as in sim_topic */
    unsigned version;        /* counts changes */
    unsigned in_flight;      /* requests that name it, on connections that live */
};

struct sim_model {
    struct sim_name names[SIM_NAMES];
    struct sim_topic *topics; /* all, the newest first */
    struct sim_batch **batches;
    uint32_t n_batches, cap_batches;
    int64_t *producers; /* ids given */
    unsigned n_producers, cap_producers;
};

void sim_model_init(struct sim_model *m);
void sim_model_fini(struct sim_model *m);

struct sim_topic *sim_model_topic_new(struct sim_model *m, unsigned name, int32_t n_parts,
                                      unsigned codecs);
/* The id that the server gives for t: the same as before, and no other topic's. */
void sim_model_topic_id(struct kafka_sim *w, struct sim_topic *t, const struct kafka_uuid *id);
/* A producer id was given: never before. */
void sim_model_producer(struct kafka_sim *w, int64_t id);

/* A new batch for the partition. */
struct sim_batch *sim_model_batch(struct sim_model *m, struct rng *r, struct sim_part *p,
                                  int64_t producer, int32_t sequence, uint32_t max_bytes);
/* The k'th record's timestamp. */
int64_t sim_batch_time(const struct sim_batch *b, unsigned k);
/* The batch was acked or read at this offset. */
void sim_model_placed(struct kafka_sim *w, struct sim_batch *b, int64_t offset);
/* Looks at one batch that came from the partition; gives its offset's end. */
int64_t sim_model_seen(struct kafka_sim *w, struct sim_part *p, const uint8_t *mem, size_t left,
                       uint32_t *bytes, int64_t *base);
/* The partition begins here: it has never begun later, and what is gone had been asked for or was old
 * enough. */
void sim_model_start(struct kafka_sim *w, struct sim_part *p, int64_t start);
/* No further start can be met now. */
int64_t sim_model_start_max(const struct sim_part *p);
/* The partition was read whole, from one offset to end: everything that must be there was met. */
void sim_model_whole(struct kafka_sim *w, struct sim_part *p, int64_t from, int64_t end);
/* The process is gone: what was not found afterwards cannot come any more, unless it is sent
 * again. */
void sim_model_settle(struct sim_part *p, struct sim_model *m);
/* The first record at or after time (or with the largest timestamp, for SHARD_TIME_MAX) in a
 * partition that is known whole; false: none. */
bool sim_model_time(const struct sim_part *p, int64_t time, int64_t *offset, int64_t *ts);

#endif
