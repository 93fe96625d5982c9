/* What offsets.c (records, loading), offsets_row.c (rows in memory) and offsets_log.c (the queue
 * and its appends) share. */
#ifndef WEIR_GATEWAYS_KAFKA_OFFSETS_INT_H
#define WEIR_GATEWAYS_KAFKA_OFFSETS_INT_H

#include "gateways/kafka/offsets.h"

#include "base/hash.h"
#include "base/strmap.h"
#include "format/batch.h"
#include "journal/journal.h"

/* Bytes of a committed offset's key and value beside the text in them. */
enum { KEY_FIXED = 2 + 2 + 2 + 4, VALUE_FIXED = 1 + 8 + 4 + 8 + OFFSETS_TOPIC_ID_BYTES + 2 };

/* Kinds of records: see the head of offsets.c. */
enum { KIND_OFFSET = 1, KIND_PRODUCER_IDS = 2, KIND_BEGIN = 3, KIND_END = 4 };

struct owner_topic {
    char *name;
    int32_t name_bytes;
    struct hash rows; /* partition -> row */
    struct owner *owner;
};

/* A group that has rows. */
struct owner {
    char *name;
    int32_t name_bytes;
    struct strmap topics;
    uint64_t n_rows;
    int64_t used_ms; /* members were seen then; at least the start of this process */
};

struct row {
    struct row *prev, *next; /* all rows */
    struct owner_topic *topic;
    char *metadata;
    int64_t offset;
    int64_t time;
    int32_t metadata_bytes; /* -1: null */
    int32_t partition;
    int32_t leader_epoch;
    uint8_t topic_id[OFFSETS_TOPIC_ID_BYTES];
};

enum what { COMMIT, REMOVE, REMOVE_GROUP, REMOVE_TOPIC, RESERVE };

/* What the batch on its way holds, and so what to do when it is durable. */
enum flight { NOTHING, CHANGES, DELETIONS, SNAPSHOT_BEGIN, SNAPSHOT_ROWS, SNAPSHOT_END };

enum { OFFSETS_PRODUCER_BLOCK = 1000 /* producer ids reserved by one record */ };

struct offsets {
    struct offsets_env env;
    struct offsets_conf conf;
    int state; /* 0: loaded; else what everybody is told */

    struct strmap owners;
    struct row *first, *last;
    uint64_t n_rows;
    int64_t next_id;      /* producer id to give next */
    int64_t reserved_end; /* first id that is not reserved */

    struct offsets_commit *queue, **queue_end;
    struct producer_id_done *ids, **ids_end; /* waiting for a block */
    struct offsets_commit reserve;           /* its place in the queue */
    bool reserving;
    struct task turn;
    bool turn_posted;

    enum flight flight;
    struct offsets_commit
        *flying; /* CHANGES: those in the batch; DELETIONS: the one, or NULL for expired rows */
    int64_t flying_reserve; /* the new reserved_end, or 0 */
    struct append_done append;
    struct batch_builder batch; /* the pool's while packing */
    struct work packing;
    struct buf *packed;
    int packed_rc;

    struct row **doomed; /* DELETIONS, and expired rows that wait for theirs */
    uint64_t n_doomed, cap_doomed;
    bool doomed_more; /* the change under way has rows beyond these */

    enum flight snapshot; /* what its next batch is; NOTHING: none under way */
    bool snapshot_yields; /* the queue's turn is next */
    struct row *snapshot_at;
    uint64_t snapshot_rows;
    uint64_t snapshot_from; /* offset of the begin record */
    uint64_t since;         /* records since the last snapshot began */
    struct shard_trim trim;
    bool trimming;

    struct loop_timer expire;
    struct row *expire_at;
    bool expiring;

    struct read_done read;
    struct offsets_load *load;
    uint64_t load_end;
    bool load_has_end;
    uint64_t load_trim; /* the last whole snapshot began here */
    struct offsets_close *close;
    struct offsets_stats stats;
};

/* --- offsets_row.c --- */

char *offsets_bytes_own(struct group_bytes b);
struct owner *offsets_owner_find(const struct offsets *o, struct group_bytes group);
struct row *offsets_row_find(const struct offsets *o, struct group_bytes group,
                             struct group_bytes topic, int32_t partition);
void offsets_row_put(struct offsets *o, struct group_bytes group, const struct offset_entry *e,
                     int64_t time);
void offsets_row_drop(struct offsets *o, struct row *r);
struct offset_row offsets_row_view(const struct row *r);

/* --- offsets.c: records into o->batch --- */

void offsets_write_entry(struct offsets *o, struct group_bytes group, const struct offset_entry *e,
                         int64_t time, bool remove);
void offsets_write_row(struct offsets *o, const struct row *r, bool remove);
/* A record of a kind that has no more in its key, and n (1 or 2) numbers in its value. */
void offsets_write_numbers(struct offsets *o, uint8_t kind, unsigned n, uint64_t a, uint64_t b);

/* --- offsets_log.c --- */

void offsets_trim_to(struct offsets *o, uint64_t to);
void offsets_expire_later(struct offsets *o);
void offsets_expire_fire(struct loop_timer *t);
/* Answers a close when nothing is under way any more. */
void offsets_close_if_idle(struct offsets *o);

#endif
