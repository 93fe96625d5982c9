/* One device's store: superblock, slabs, WAL, groups, shards, rows. The engine behind journal.h, which
 * is a set of these; what its functions say there holds here for one device. */
#ifndef WEIR_JOURNAL_STORE_H
#define WEIR_JOURNAL_STORE_H

#include "journal/core.h"

int store_open(struct store **out, const struct journal_env *env, const struct journal_conf *conf,
               struct err *e) MUST_USE;
void store_close(struct store *st, struct journal_close *done);

uint64_t store_backlog(const struct store *st);
enum jrn_state store_state(const struct store *st);
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
void store_shard_open(struct store *st, uint64_t id, struct shard_open *done);

#endif
