/* What reading and finding by time share: where a shard's bytes are found. */
#ifndef WEIR_JOURNAL_READ_INT_H
#define WEIR_JOURNAL_READ_INT_H

#include "journal/core.h"

/* A run of the live WAL, or a direct batch of an open segment: where it lies is pinned, or slice is
 * set. */
struct cold_entry {
    struct index_entry entry; /* its direct is not to be followed */
    struct index_direct direct;
    struct wal_extent *extent;
    struct segment *seg;
    struct slice slice;
};

/* Pins where an entry's bytes lie; false: they are not there any more. Home. */
bool read_pin(struct store *st, const struct index_entry *n, struct cold_entry *c);
/* Gives the pin and the slice back. Any thread. */
void read_unpin(struct store *st, struct cold_entry *c);
/* The bytes of an entry, if they are among the recent ones: *slice with a reference. Home. */
bool read_cached(struct shard *s, const struct index_entry *n, struct slice *slice);
/* Reads the bytes of a pinned entry: *buf is new (one reference), and they are at *mem. Blocks.
 * E_LOST: they are damaged, or others. */
int read_wal_run(struct store *st, const struct cold_entry *c, struct buf **buf,
                 const uint8_t **mem) MUST_USE;
/* The run of an index that holds the shard's offset base, or, when none does, NULL. */
const struct seg_run *read_index_run(const struct seg_index *x, uint64_t shard, uint64_t base);

#endif
