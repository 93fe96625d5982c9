/* Idempotent producers of one shard: the last five batches of each, by which a repeat is known.
 *
 * What is remembered follows from the batches themselves; rows carry it over what was destaged.
 * Home loop of the group.
 * Rules: Kafka's ProducerStateManager as its clients rely on it: a new producer may begin anywhere;
 * a new epoch begins at 0; sequences
 * wrap from 2^31 - 1 to 0. */
#ifndef WEIR_JOURNAL_PRODUCER_H
#define WEIR_JOURNAL_PRODUCER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "format/batch.h"
#include "format/row.h"

enum { PRODUCER_EXPIRE_MS = 24 * 3600 * 1000 };

struct producers {
    struct hash by_id;  /* producer id -> struct producer, producer.c */
    uint32_t n_refused; /* known by a refusal only (producer_refused): not in rows */
};

/* 0: new, go on; 1: a repeat, *offset is the first one's; E_SEQUENCE, E_DUPLICATE,
 * E_PRODUCER_EPOCH. Batches without producer: 0. */
int producer_check(struct producers *p, const struct batch_head *h, uint64_t *offset) MUST_USE;
/* A batch was refused, and may be taken when it is sent again: until then nothing later of its
 * producer may, not even of one that is new here. Else the repeat would come too late, be told that
 * it is old, and its client would take it for written. */
void producer_refused(struct producers *p, const struct batch_head *h);
/* Remembers a batch that was given offset; harmless when it is remembered already. */
void producer_note(struct producers *p, const struct batch_head *h, uint64_t offset, int64_t now);
/* The same from a segment's or a row's data. */
void producer_note_raw(struct producers *p, int64_t id, int16_t epoch,
                       const struct row_producer_batch *b);
/* The same, but one older than what is remembered takes its place among it; for segments, which do not
 * come in the order of any one shard. */
void producer_insert_raw(struct producers *p, int64_t id, int16_t epoch,
                         const struct row_producer_batch *b);
/* A row of one whose later batches may be remembered already: as if the row had been there first, and
 * with what is remembered and it lacks. */
void producer_note_under(struct producers *p, int64_t id, const struct row_producer *r);
/* The last sequence of a batch. */
int32_t producer_last_sequence(int32_t base, int32_t n_records);
/* Walks the producers that have something below end: the last five batches there of each. *pos begins
 * at 0; false at the end. */
bool producers_next(const struct producers *p, uint64_t end, uint64_t *pos, uint64_t *id,
                    struct row_producer *r);
/* Adds rows 'p' of shard for what lies below end (durable): what is above must not be remembered,
 * it may never have happened. */
struct rows_batch;
void producers_save(const struct producers *p, uint64_t shard, uint64_t end,
                    struct rows_batch *rows);
void producers_free(struct producers *p);

#endif
