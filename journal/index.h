/* Where a shard's batches lie in the live WAL: one entry per run, which is what one frame holds of
 * the shard. In memory only:
 * recovery makes it again from the WAL, destage empties it from the front. Home loop of the group.
 * */
#ifndef WEIR_JOURNAL_INDEX_H
#define WEIR_JOURNAL_INDEX_H

#include <stdint.h>

/* Where a batch lies that is not in the WAL but in its group's open segment. */
struct index_direct {
    uint64_t segment, pos, xxh3;
};

struct index_entry {
    uint64_t base; /* first offset */
    uint64_t lsn;  /* of the run's first byte; of a direct batch's header */
    uint32_t n_offsets;
    uint32_t bytes;
    int64_t max_ts;
    uint64_t
        xxh3; /* of the run's bytes; inline: a block that was lost or went astray is known by it */
    struct index_direct *direct; /* of one batch alone; NULL: inline. The index's own */
};

struct index {
    struct index_entry *list; /* in offset order, and in LSN order */
    uint32_t first, end, cap; /* used: list[first .. end) */
};

static inline uint32_t index_count(const struct index *x)
{
    return x->end - x->first;
}
static inline const struct index_entry *index_at(const struct index *x, uint32_t i)
{
    return &x->list[x->first + i];
}

/* Asks for the lines that index_add will look at. */
static inline void index_prefetch(const struct index *x)
{
    if (!x->end)
        return;
    __builtin_prefetch(&x->list[x->end - 1]);
    __builtin_prefetch(&x->list[x->end], 1);
}
/* A copy of *n->direct is taken. */
void index_add(struct index *x, const struct index_entry *n);
/* The entry that holds offset or, when none does, the first one after it; index_count when there is
 * none. */
uint32_t index_find(const struct index *x, uint64_t offset);
/* The first entry whose LSN is lsn or more; index_count when there is none. */
uint32_t index_find_lsn(const struct index *x, uint64_t lsn);
/* Drops the entries whose LSN is below lsn. Returns how many. */
uint32_t index_drop_lsn(struct index *x, uint64_t lsn);
/* Drops the entries that end at or below offset. Returns how many. */
uint32_t index_drop_offset(struct index *x, uint64_t offset);
void index_free(struct index *x);

#endif
