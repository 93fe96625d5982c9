/* The map topic|partition -> shard, for every door: names, ids, settings, and the way to the
 * shards' handles.
 *
 * A topic is a row of the journal, written in the same update as its shards (formats at the
 * head of topics_row.c). Changes happen one after another per name, on one home loop; look-ups
 * are made on any loop, now. A topic that is found stays good while it is referenced, also when
 * it is deleted or grown meanwhile; then its shards answer E_DELETED, or a newer one has more
 * partitions. */
#ifndef WEIR_GATEWAYS_TOPICS_TOPICS_H
#define WEIR_GATEWAYS_TOPICS_TOPICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "journal/journal.h"

struct topics;

enum {
    TOPIC_NAME_MAX = 249,
    TOPIC_ID_BYTES = 16,
    TOPIC_PARTITIONS_MAX = 100000, /* what a row can hold; doors may allow fewer */
    TOPIC_SETTINGS_MAX = 1000,
    TOPIC_CODEC_PRODUCER = -1 /* batches stay as they were sent */
};

struct topic_setting {
    char *name;
    char *value;
};

/* Read only, and small: there may be a million partitions. The shards' handles are the journal's to
 * find (topic_shard); none is kept here. */
struct topic {
    atomic_uint refs;
    uint8_t id[TOPIC_ID_BYTES];
    char name[TOPIC_NAME_MAX + 1];
    unsigned name_bytes;
    int64_t created_ms;
    uint32_t n_partitions;
    uint64_t *shards; /* one a partition */
    unsigned n_settings, n_defaults;
    struct topic_setting *settings;
    /* What stood where no setting did when the topic was made: a server whose defaults change does
     * not change its topics. None: the topic is older than policies, and keeps everything. */
    struct topic_setting *defaults;
    /* From the settings, for those who append: max.message.bytes (UINT32_MAX: none), whether
     * message.timestamp.type is LogAppendTime, whether the topic is compacted (then its records
     * must have keys), and compression.type (enum batch_codec, or TOPIC_CODEC_PRODUCER). */
    uint32_t message_max;
    bool append_time;
    bool compacted;
    int8_t codec;
};

/* 1..249 of [a-zA-Z0-9._-], and not "." or "..". */
bool topic_name_ok(const char *name, size_t bytes);

/* ---- life ------------------------------------------------------------------------------------ */

/* Borrowed; must outlive the map. */
struct topics_env {
    struct journal *journal;
    struct loop *home;
    struct pool *pool;
    uint64_t seed; /* ids; mixed with the journal's start, so that one seed serves many starts */
};
struct topics *topics_new(const struct topics_env *env);

struct topics_start {
    struct task task; /* ours */
    void (*fn)(struct topics_start *s);
    struct loop *loop;
    int rc;
    struct err err;
};
/* Reads the rows; then the map may be used. Once; any loop. */
void topics_start(struct topics *ts, struct topics_start *done);
/* No change may be under way, no topic referenced from outside. */
void topics_free(struct topics *ts);

/* 16 random bytes made when the store was new. After start. */
const uint8_t *topics_store_id(const struct topics *ts);

/* ---- looking up: any thread, now ------------------------------------------------------------- */

/* A reference, or NULL. */
struct topic *topics_find(struct topics *ts, const char *name, size_t bytes);
struct topic *topics_find_id(struct topics *ts, const uint8_t *id);
/* All, by name; *n references in an array to free(). */
struct topic **topics_list(struct topics *ts, size_t *n);
struct topic *topic_ref(struct topic *t);
/* NULL is allowed. */
void topic_unref(struct topic *t);
/* The setting's value, or NULL. */
const char *topic_setting(const struct topic *t, const char *name);
/* The same of any list. */
const char *topic_setting_in(const struct topic_setting *list, unsigned n, const char *name);

/* ---- handles --------------------------------------------------------------------------------- */

/* A handle on the partition's shard if it is in memory; else NULL: open it. Any thread, cheap. */
struct shard *topic_shard(struct topics *ts, const struct topic *t, uint32_t partition);

/* The leader epoch of a partition, opened or not; -1: it is not known. Any thread, now. */
int32_t topic_epoch(struct topics *ts, const struct topic *t, uint32_t partition);

struct topic_open {
    void (*fn)(struct topic_open *o);
    struct loop *loop;
    int rc;
    struct shard *shard; /* a handle, when rc is 0: shard_unref */
    struct topic *topic; /* held until fn has run */
    uint32_t partition;
    void *impl; /* ours */
};
/* Opens the shard of o->partition of o->topic. Fill fn, loop, topic, partition. Any loop; fn runs
 * on o->loop. */
void topic_open(struct topics *ts, struct topic_open *o);

/* ---- changes --------------------------------------------------------------------------------- */

struct topics_change {
    struct task task; /* ours */
    void (*fn)(struct topics_change *c);
    struct loop *loop;

    /* asked; borrowed until fn runs */
    const char *name;
    size_t name_bytes;
    uint32_t n_partitions; /* create: how many; grow: the new total */
    const struct topic_setting *settings;
    unsigned n_settings;
    const struct topic_setting *defaults; /* create */
    unsigned n_defaults;
    enum shard_kind kind; /* create, grow: of the new shards */
    struct shard_policy policy;
    /* grow (or NULL) and alter: called on the home loop with the topic as it is; fills in the rest
     * of what is asked, for alter the settings as they shall be. Below 0 ends the change. */
    int (*edit)(struct topics_change *c, const struct topic *now);

    int rc;
    /* create, grow, alter: the new one; create with E_EXISTS: the one there. A reference, to be given
     * back. */
    struct topic *topic;

    /* ours */
    struct topics *topics;
    struct topics_change *next;
    void (*run)(struct topics_change *c);
    void *impl;
};
/* E_EXISTS (also when another creation of that name won), E_INVALID (name, no partitions),
 * E_TOOBIG (too many), or what journal_update gives. A name that another one meets when '.' is
 * read as '_' is only warned of. */
void topics_create(struct topics *ts, struct topics_change *c);
/* Deletes the row and the shards. E_NOTFOUND. */
void topics_delete(struct topics *ts, struct topics_change *c);
/* Gives the topic other settings, and its shards c->policy. E_NOTFOUND, E_TOOBIG, what edit gives. */
void topics_alter(struct topics *ts, struct topics_change *c);
/* Adds partitions. E_NOTFOUND; E_INVALID when there are as many already. */
void topics_grow(struct topics *ts, struct topics_change *c);

/* Called on the home loop after a topic was deleted; one door may ask for it. */
void topics_on_delete(struct topics *ts, void (*fn)(void *ctx, const struct topic *t), void *ctx);

struct topics_internal {
    struct task task; /* ours */
    void (*fn)(struct topics_internal *q);
    struct loop *loop;
    const char *name; /* 1..249 bytes, borrowed */
    int rc;
    uint64_t shard;
    struct topics *topics; /* ours */
    void *impl;            /* ours */
};
/* The shard (class INTERNAL) that keeps the server's own state of this name; made when there
 * is none. Not a topic. After start, one at a time per name. */
void topics_internal_shard(struct topics *ts, struct topics_internal *q);

#endif
