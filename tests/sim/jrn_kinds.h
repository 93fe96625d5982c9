/* More calls on a simulated journal (jrn_calls.h), for shards of every kind and for tables: each runs the
 * simulator until its answer is there. */
#ifndef WEIR_TESTS_SIM_JRN_KINDS_H
#define WEIR_TESTS_SIM_JRN_KINDS_H

#include "tests/sim/jrn_calls.h"

/* A batch of records with keys; codec: enum batch_codec. */
struct buf *kind_batch(const struct batch_new_record *records, unsigned n, int codec);
/* One record of two strings; value NULL: a tombstone. */
struct buf *kind_record(const char *key, const char *value);

int kind_create(struct jrn_sim *js, uint64_t shard, enum shard_kind kind,
                const struct shard_policy *policy);
/* The answer's times and offsets; found false when there is none. */
int kind_find_time(struct jrn_sim *js, struct shard *s, int64_t time, bool *found, uint64_t *offset,
                   int64_t *ts);
/* A wait begun and, when it is not answered within a second, cancelled. Its rc. */
int kind_wait(struct jrn_sim *js, struct shard *s, uint64_t past);
/* Fills *g, to be released. */
int kind_get(struct jrn_sim *js, struct shard *s, const void *key, size_t key_bytes,
             struct shard_get *g);
/* The value as a string of 63 bytes at most: "" and the code when there is none. */
const char *kind_value(struct jrn_sim *js, struct shard *s, const char *key, int *rc);
/* c has prefix, from, limit and max_bytes; to be released. */
int kind_scan(struct jrn_sim *js, struct shard *s, struct shard_scan *c);

int kind_table_write(struct jrn_sim *js, struct jrn_table *t, const struct jrn_table_row *rows,
                     unsigned n, uint64_t shard, uint64_t offset);
int kind_table_offset(struct jrn_sim *js, struct jrn_table *t, uint64_t shard, uint64_t *offset);
int kind_table_drop(struct jrn_sim *js, struct jrn_table *t);
int kind_table_get(struct jrn_sim *js, struct jrn_table *t, const char *key,
                   struct jrn_table_read *r);
int kind_table_scan(struct jrn_sim *js, struct jrn_table *t, const char *prefix, const char *from,
                    uint32_t limit, struct jrn_table_read *r);

#endif
