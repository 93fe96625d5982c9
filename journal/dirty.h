/* A group's shards that have something that rows do not have: entries in the live WAL, or an end. In
 * lists by the extent of WAL that a shard's first entry lies in, so that a round of destage looks at
 * those that it moves, however many others there are. Home loop of the group. */
#ifndef WEIR_JOURNAL_DIRTY_H
#define WEIR_JOURNAL_DIRTY_H

#include <stdbool.h>
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
/* Where a walk over them is. */
struct dirty_walk {
    uint64_t end_lsn;
    bool begun;
    uint64_t list, end; /* lists yet to come */
};
/* Calls fn for some of the shards that may have an entry below w->end_lsn, or were put in
 * without any: whole lists. False: that was all. One that lost its entries meanwhile stays where it was.
 * Between two calls shards may be added; nothing is taken. */
bool dirty_some(struct dirty *d, struct dirty_walk *w, void (*fn)(void *ctx, struct shard *s),
                void *ctx);
/* Takes all those out, as one list. UINT64_MAX: all there are. */
struct shard *dirty_take(struct dirty *d, uint64_t end_lsn);
/* The one behind s in a list, or NULL; what is looked at of it is on its way from memory. */
struct shard *dirty_following(const struct shard *s);
void dirty_free(struct dirty *d);

#endif
