/* What one journal has promised so far, kept beside it: every batch sent, what was answered, what readers saw. The workload tells
 * it everything and it ends the program, with the seed, at the first thing that breaks a promise.
 *
 * The promises (architecture.md has the reasons): an answered durable append is there, once, in order of submission, at its offset,
 * byte for byte; what a reader has seen stays; offsets are dense; start and end never go back; an append without an answer may be
 * there or not, whole; trims and deletions hold; rows are those of the answered updates and of a prefix of the others. */
#ifndef WEIR_TESTS_SIM_MODEL_H
#define WEIR_TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/rng.h"
#include "format/batch.h"
#include "journal/journal.h"

enum {
    MODEL_SHARDS_MAX = 48,
    MODEL_PRODUCERS = 2, /* idempotent ones per shard */
    MODEL_KEYS = 6,      /* rows of the doors */
    MODEL_RECORDS_MAX = 6,
    MODEL_RECORD_KEYS = 6, /* "key0" ...: of records */
    MODEL_LAST = 5,        /* batches per producer that must be known again */
    MODEL_CHANGES_MAX = 5
};

struct model_shard;

/* One batch that was handed to the journal. */
struct sent {
    uint64_t id;
    uint64_t serial; /* order of submission */
    struct model_shard *shard;
    struct buf *buf;
    unsigned n_records;
    int64_t ts[MODEL_RECORDS_MAX];
    int key[MODEL_RECORDS_MAX]; /* -1: none */
    bool tombstone[MODEL_RECORDS_MAX];
    int producer; /* -1: none */
    int64_t producer_id;
    int16_t epoch;
    int32_t sequence;
    bool durable; /* acked so, or seen by a reader */
    bool gone;    /* a recovery came up without it, or it was refused: it must never be seen */
    bool refused; /* unless it is sent again */
    bool
        stale; /* sent in a life that is over, and not met since: nothing follows from its answer */
    bool offset_known; /* answered at all */
    uint64_t offset;
};

struct model_producer {
    int64_t id;
    int16_t epoch;
    int32_t next; /* sequence */
    unsigned in_flight;
    bool unsure;                   /* an answer was an error: go on with a new epoch */
    struct sent *last[MODEL_LAST]; /* accepted, oldest first */
    unsigned n_last;
    bool older; /* there was one before last[0] in this epoch */
};

enum model_exists { SHARD_NOT_YET, SHARD_LIVE, SHARD_DELETED };

struct model_range {
    uint64_t start, end;
};

struct model_shard {
    uint64_t id;
    enum shard_class class;
    enum shard_kind kind;
    bool keyed;               /* its records say whose they are: it may be compacted */
    bool compacted;           /* that was asked for, once at least */
    uint64_t to_seen;         /* rounds of log compaction came so far at most */
    enum model_exists exists; /* by answered updates */
    bool deleting;            /* a deletion has been asked for */
    struct shard *handle;     /* in this life */
    uint64_t group;
    uint64_t start_min;            /* trims answered */
    uint64_t start_max;            /* trims asked for */
    uint64_t end_seen;             /* by readers and durable acks */
    struct shard_policy policy;    /* by answered updates */
    int64_t least_ms, least_bytes; /* that was ever asked for; INT64_MAX: never */
    uint64_t sent_bytes;           /* of all batches ever sent to it */
    uint64_t handed;               /* above every offset ever given to a batch */
    struct sent **log;             /* durable, in offset order */
    unsigned n_log, cap_log;
    struct model_producer producers[MODEL_PRODUCERS];
    struct model_range *lost; /* offsets that damage may have taken */
    unsigned n_lost;
};

enum model_op { MODEL_CREATE, MODEL_DELETE, MODEL_POLICY, MODEL_PUT, MODEL_UNPUT };
struct model_change {
    enum model_op op;
    unsigned at; /* shard's or key's number */
    uint64_t value;
    struct shard_policy policy;
};
/* An update that is not answered, or whose answer does not say whether it holds. */
struct model_update {
    struct model_change changes[MODEL_CHANGES_MAX];
    unsigned n;
    bool unknown;
};

struct model {
    uint64_t seed;
    uint64_t now_us; /* for messages */
    struct model_shard shards[MODEL_SHARDS_MAX];
    unsigned n_shards;
    uint64_t rows[MODEL_KEYS];     /* 0: not there */
    struct model_update **updates; /* in order */
    unsigned n_updates;
    struct hash by_bytes;
    struct sent **all;
    unsigned n_all, cap_all;
    uint64_t serial;
    int64_t next_producer;
    uint32_t scale; /* of batches; 1 to 4 */
};

void model_init(struct model *m, uint64_t seed);
void model_fini(struct model *m);
/* A promise is broken: says which, and how to run this again, and ends the process. */
_Noreturn void model_fail(const struct model *m, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* --- batches --- */

/* A new batch, made of random records; takes over nothing, the model keeps it. sequence below 0: not idempotent. */
struct sent *model_send(struct model *m, struct model_shard *s, struct rng *r, int producer,
                        int32_t sequence, int16_t epoch);
/* Submitted (again): its place in the order. */
void model_submitted(struct model *m, struct sent *x);
/* A batch was answered well at offset. durable: the level asked for says so. */
void model_acked(struct model *m, struct sent *x, uint64_t offset, bool durable, bool duplicate);
/* A reader of s was given the batch at mem. Returns what it is; NULL: nothing, an empty one of a compacted shard. */
struct sent *model_seen(struct model *m, struct model_shard *s, const uint8_t *mem,
                        const struct batch_head *h);
/* A producer's batch was accepted, for the first time. */
void model_accepted(struct model_shard *s, struct sent *x);
/* True when damage may have taken offset. */
bool model_may_be_lost(const struct model_shard *s, uint64_t offset);
void model_lose(struct model_shard *s, uint64_t start, uint64_t end);
/* The log's entry that holds offset or, when none does, the first after it; n_log when there is none. */
unsigned model_find(const struct model_shard *s, uint64_t offset);

/* Retention may have moved the start as far as what was ever asked for allows, at wall clock `now` (the
 * highest seen) and up to `end`: raises start_max. */
void model_expire(struct model_shard *s, int64_t now, uint64_t end);
/* The latest record of a key from start on, in the log: its batch, and which record it is. NULL: none. */
const struct sent *model_latest(const struct model_shard *s, int key, uint64_t start,
                                unsigned *record);

/* --- lives --- */

/* The shard was read whole after a recovery: what is not in its log never happened. */
void model_settle(struct model *m, struct model_shard *s, uint64_t start);
/* Readers and acks say that the end is at least this. */
void model_end(struct model *m, struct model_shard *s, uint64_t end);

/* --- updates --- */

struct model_update *model_update_new(struct model *m);
/* Its answer. Frees it where the answer is certain. */
void model_update_answered(struct model *m, struct model_update *u, int rc);
/* What was found, policies only of what exists: takes on the prefix of unanswered updates that explains it, or fails. */
void model_match(struct model *m, const uint64_t *rows, const bool *exists,
                 const struct shard_policy *policies);

#endif
