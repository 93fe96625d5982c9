/* One device's store: superblock, slabs, WAL, groups, shards, rows. The engine behind journal.h, which
 * is a set of these; what its functions say there holds here for one device. */
#ifndef WEIR_JOURNAL_STORE_H
#define WEIR_JOURNAL_STORE_H

#include "journal/core.h"

/* A store's part in the set of devices (journal/devices.h). */
struct store_member {
    uint16_t number, n_devices;
    struct uuid set;   /* device 0's store; unless number is 0 */
    struct uuid store; /* its own; given back by store_make */
};

/* Makes an empty store on an empty device: the superblock file appears whole or not at all. Blocks. */
int store_make(const struct journal_env *env, const struct journal_conf *conf,
               struct store_member *m, struct err *e) MUST_USE;
/* Opens a store that is there, in steps, so that one that cannot be read does not cost the others an
 * incarnation, and with it an extent, at each try: store_open recovers and makes what it found durable;
 * store_enter begins the next incarnation; both block. Then store_begin lets it do what recovery
 * has left, on its loops; or store_abandon frees it before they run. env->more is not looked at. */
int store_open(struct store **out, const struct journal_env *env, const struct journal_conf *conf,
               const struct store_member *m, struct err *e) MUST_USE;
int store_enter(struct store *st, struct err *e) MUST_USE;
void store_begin(struct store *st);
void store_abandon(struct store *st);
void store_close(struct store *st, struct journal_close *done);

uint64_t store_backlog(const struct store *st);
enum jrn_state store_state(const struct store *st);
/* Bytes that it may still take. Any thread, now. */
uint64_t store_room(const struct store *st);
void store_info(const struct store *st, struct jrn_device_info *info);
uint64_t store_start(const struct store *st);
uint64_t store_max_shard(struct store *st);
/* The epoch of every group; -1: they differ. */
int32_t store_epoch(const struct store *st);
void store_update(struct store *st, const struct jrn_change *changes, unsigned n,
                  struct jrn_update *done);
int store_rows_scan(struct store *st, const void *prefix, size_t prefix_bytes,
                    int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                              size_t value_bytes),
                    void *ctx) MUST_USE;
/* A part of a larger update: puts `rows` (may be NULL; taken, then zeroed) into the same batch. again:
 * it may have been made before, so that what exists is made, what is missing deleted. A closing store
 * takes these, as long as the caller counts in st->busy. */
void store_update_part(struct store *st, const struct jrn_change *changes, unsigned n,
                       struct rows_batch *rows, bool again, struct jrn_update *done);
void store_shard_open(struct store *st, uint64_t id, struct shard_open *done);

#endif
