/* Committed offsets and the producer id counter: rows in memory, kept as records of one internal
 * shard (format: offsets.c).
 *
 * All on one home loop, but for what says otherwise. One append is on its way at a time; what
 * arrives meanwhile shares the next one. Memory follows the log: a row changes when its record
 * is durable, never before, and not at all when the append fails. */
#ifndef WEIR_GATEWAYS_KAFKA_OFFSETS_H
#define WEIR_GATEWAYS_KAFKA_OFFSETS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "format/batch.h"
#include "gateways/kafka/consumer_group.h"
#include "gateways/kafka/producer_ids.h"

struct offsets;
struct shard;

enum {
    OFFSETS_METADATA_MAX =
        4096, /* bytes of one row's metadata, as Kafka's offset.metadata.max.bytes */
    OFFSETS_COMMIT_MAX = 1 << 20, /* bytes of one commit's records */
    OFFSETS_TOPIC_ID_BYTES = 16
};

/* Borrowed; must outlive it. */
struct offsets_env {
    struct loop *home;
    struct shard *shard; /* the caller keeps it referenced until offsets_close has answered */
    /* Has the group members? Its offsets do not expire while it has. NULL: never. */
    bool (*in_use)(void *ctx, struct group_bytes group);
    void *ctx;
    struct pool *pool; /* packs large batches. NULL: the loop does */
};
/* Zero means the default in brackets. */
struct offsets_conf {
    /* records between snapshots, or as many as there are rows if that is more [10000] */
    uint32_t snapshot_every;
    /* of a row after its last commit or its group's last member [7 days] */
    uint32_t retention_ms;
    uint32_t expire_every_ms; /* how often rows are looked at [10 min] */
    uint32_t rows_max;        /* [4,000,000] */
    enum batch_codec codec;   /* of batches from BATCH_PACK_FROM on [none] */
};

struct offsets *offsets_new(const struct offsets_env *env, const struct offsets_conf *conf);

struct offsets_load {
    void (*fn)(struct offsets_load *l);
    int rc;
    struct err err;
};
/* Reads the shard from its start; fn runs once on home. Anything else answers E_BUSY before.
 * When it fails (E_LOST, E_CORRUPT, E_VERSION, ...) everything answers that error from then on:
 * no offset may be told, and no producer id given, that might be wrong. */
void offsets_load(struct offsets *o, struct offsets_load *l);

struct offsets_close {
    struct task task; /* ours */
    void (*fn)(struct offsets_close *c);
    struct loop *loop;
};
/* Answers what waits with E_CLOSED, lets the append, read or trim under way end, then runs fn. */
void offsets_close(struct offsets *o, struct offsets_close *c);
/* After close, or when never loaded. */
void offsets_free(struct offsets *o);

/* ---- changes --------------------------------------------------------------------------------- */

struct offset_entry {
    struct group_bytes topic;
    int32_t partition;
    uint8_t topic_id[OFFSETS_TOPIC_ID_BYTES];
    int64_t offset;
    int32_t leader_epoch; /* -1: not known */
    struct group_bytes metadata;
};

/* What is asked is borrowed until fn runs. */
struct offsets_commit {
    struct task task; /* ours */
    void (*fn)(struct offsets_commit *c);
    struct loop *loop;
    struct group_bytes group;
    const struct offset_entry *entries;
    unsigned n;
    int rc;

    /* ours */
    struct offsets_commit *next;
    int what;
    int64_t time;
};
/* Sets rows, all or none. E_TOOBIG: more than OFFSETS_COMMIT_MAX or a metadata above its limit.
 * E_NOSPACE: too many rows, or what shard_append gives. */
void offsets_commit(struct offsets *o, struct offsets_commit *c);
/* Deletes the rows named by topic and partition; it is no error when one is not there. */
void offsets_remove(struct offsets *o, struct offsets_commit *c);
/* Deletes all rows of the group; entries are not looked at. */
void offsets_remove_group(struct offsets *o, struct offsets_commit *c);
/* Deletes the rows of a topic that is gone, in all groups, in time. */
void offsets_topic_deleted(struct offsets *o, struct group_bytes topic);

/* ---- looking up ------------------------------------------------------------------------------ */

/* 0 when loaded, else why look-ups and changes are refused. */
int offsets_state(const struct offsets *o);

/* Borrowed until control returns to the loop. */
struct offset_row {
    struct group_bytes topic;
    int32_t partition;
    const uint8_t *topic_id;
    int64_t offset;
    int32_t leader_epoch;
    struct group_bytes metadata;
    int64_t commit_time; /* ms since 1970 */
};
bool offsets_find(struct offsets *o, struct group_bytes group, struct group_bytes topic,
                  int32_t partition, struct offset_row *out);
bool offsets_has_group(struct offsets *o, struct group_bytes group);
/* Rows of one group, those of a topic together; and all groups that have rows. In no other
 * order. */
void offsets_each(struct offsets *o, struct group_bytes group,
                  void (*fn)(void *ctx, const struct offset_row *r), void *ctx);
void offsets_each_group(struct offsets *o, void (*fn)(void *ctx, struct group_bytes group),
                        void *ctx);

struct offsets_stats {
    uint64_t rows;
    uint64_t appends;
    uint64_t records;   /* written, also by snapshots */
    uint64_t snapshots; /* that ended */
    uint64_t expired;   /* rows */
    int64_t next_producer_id;
};
struct offsets_stats offsets_stats(const struct offsets *o);

#endif
