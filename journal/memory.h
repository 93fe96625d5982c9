/* Shards of kind MEMORY: each a ring of batches in memory, bounded by the shard's retention_bytes,
 * all together by journal_conf.memory_bytes.
 *
 * Batches are copied, stamped, into chunks that readers share; nothing of them reaches the WAL. What does is
 * the offset below which offsets may be given: the start in the shard's row. It is moved ahead of need, by
 * MEMORY_RESERVE, and after a restart the shard is empty and begins there, so no offset is ever given
 * twice. Home loop of the group, where nothing else is said. */
#ifndef WEIR_JOURNAL_MEMORY_H
#define WEIR_JOURNAL_MEMORY_H

#include "journal/core.h"

enum { MEMORY_RESERVE = 1 << 20, MEMORY_DEFAULT_BYTES = 16 << 20 };

/* The store's, once opened; max_bytes: what all rings may hold. */
struct memories *memories_new(struct store *st, uint64_t max_bytes);
/* All shards must be gone. NULL is allowed. */
void memories_free(struct memories *t);
/* No more timers: the store closes. Keeper. */
void memories_stop(struct memories *t);
/* Bytes of the chunks of all rings. Any thread. */
uint64_t memories_bytes(struct memories *t);

/* The ring of a shard that is being loaded; its next offset is where the reserved ones end. */
struct memory *memory_new(struct shard *s);
/* Any thread, when nobody has the shard any more. NULL is allowed. */
void memory_free(struct memory *m);
/* Takes the bounds from the shard's policy, which has changed. Any thread. */
void memory_policy(struct shard *s);

/* Checks, numbers, keeps and answers an append; or keeps it waiting for offsets. */
void memory_append(struct append *a);
/* Forgets what is below start. */
void memory_trim(struct shard *s, uint64_t start);
/* The shard was deleted: forgets all, answers what waits. */
void memory_deleted(struct shard *s);
/* Lets what is too old go; readers call it first. */
void memory_expire(struct shard *s);

/* The number of batches, and of the first one that ends above offset. */
uint32_t memory_count(const struct shard *s);
uint32_t memory_find(const struct shard *s, uint64_t offset);
/* One kept batch; its bytes are borrowed from buf. */
struct memory_batch {
    struct buf *buf;
    uint32_t at, bytes;
    uint64_t base;
    uint32_t n_offsets;
    int64_t max_ts;
};
const struct memory_batch *memory_at(const struct shard *s, uint32_t i);
/* Batches *i .. that lie back to back in one chunk, as one slice without a reference of its own; moves *i past
 * them. *i < memory_count(s). */
struct slice memory_slice(const struct shard *s, uint32_t *i);

#endif
