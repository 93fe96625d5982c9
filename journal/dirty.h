/* A group's shards that have something that rows do not have: entries in the live WAL, or an end. In
 * lists by the extent of WAL that a shard's first entry lies in, so that a round of destage looks at
 * those that it moves, however many others there are. Home loop of the group. */
#ifndef WEIR_JOURNAL_DIRTY_H
#define WEIR_JOURNAL_DIRTY_H

#include <stdint.h>

struct shard;

/* Zeroed but for log2 is empty. */
struct dirty {
    uint32_t log2;         /* of the bytes of WAL that one list stands for */
    struct shard **list;   /* a ring of them, made when it is needed; linked by dirty_next */
    struct shard *without; /* those without entries */
    uint64_t from;         /* the first list that may hold one: LSN >> log2 */
};

/* Puts a shard into the list that its index asks for. The reference stays the caller's affair. */
void dirty_add(struct dirty *d, struct shard *s);
/* Calls fn for every shard that may have an entry below end_lsn, and for those that were put in without
 * any. One that lost its entries meanwhile stays where it was. */
void dirty_each(struct dirty *d, uint64_t end_lsn, void (*fn)(void *ctx, struct shard *s),
                void *ctx);
/* Takes all those out, as one list. UINT64_MAX: all there are. */
struct shard *dirty_take(struct dirty *d, uint64_t end_lsn);
void dirty_free(struct dirty *d);

#endif
