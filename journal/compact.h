/* Log compaction: of each key of a compacted shard the latest record stays.
 *
 * A round takes some dirty shards of one group. First it reads what is new in them (from the offset
 * up to which they are clean on) and notes which offset is the latest of each key. Then it reads all
 * that segments hold of them, one segment of the log after another, and writes what loses something
 * into a new piece of that one, alone: without the records that a later one below the round's end
 * (`to`) has superseded, and without the tombstones (null values) whose time is over. When space is
 * short a piece may be of several segments, as rewriting's (rewrite.h). The catalogue records it
 * and how far the round has come (row C) in one batch; from then on the new segment's runs count,
 * and the older segments' are dead: of several runs over the same offsets the one in the segment
 * with the highest number holds. What becomes of the older segments is rewriting's affair (rewrite.h;
 * never at the same time).
 *
 * Offsets never change: where batches were, empty ones are left (format/batch_keep.h), which also
 * keep producers known. Records without a key go as soon as they are below `to`, as in Kafka.
 * Control batches, batches of transactions and what cannot be opened stay as they are, and supersede
 * nothing.
 *
 * A tombstone stays until delete_retention_ms after it was first in a clean part. That time is not
 * kept for each: the row has one `horizon`, an offset, and when all below it had been cleaned; when
 * the time is over the next round drops the tombstones below it and takes its own end as the next
 * horizon. So a tombstone goes between one and two retentions (and a round) after its cleaning. What
 * survives follows from the records and the rows C alone. */
#ifndef WEIR_JOURNAL_COMPACT_H
#define WEIR_JOURNAL_COMPACT_H

#include "journal/core.h"

struct compact;

struct compact *compact_new(struct store *st);
void compact_free(struct compact *c);
/* Looks for compacted shards after a while, and then again and again. Keeper, once. */
void compact_start(struct store *st);
void compact_stop(struct store *st);
/* A shard was made, or has a new policy. Keeper. */
void compact_policy(struct store *st, uint64_t shard, unsigned flags);
/* A shard was deleted, by a record. Keeper. */
void compact_forget(struct store *st, uint64_t shard);
/* The runs of a segment were sealed: its compacted shards may be dirty enough now. Keeper. */
void compact_sealed(struct store *st, const struct seg_index *x);
/* Begins a round with shards that are due, if they are dirty enough (half of what they hold).
 * urgent: space is short, any dirt will do. Keeper. */
void compact_consider(struct store *st, bool urgent);
bool compact_idle(const struct compact *c);

#endif
