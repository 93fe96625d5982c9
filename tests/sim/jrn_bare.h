/* The journal's lower modules without a journal: a simulated device, slabs, the table of segments,
 * and as much of struct store as they look at. */
#ifndef WEIR_TESTS_SIM_JRN_BARE_H
#define WEIR_TESTS_SIM_JRN_BARE_H

#include "journal/core.h"
#include "tests/sim/dev_sim.h"

struct jrn_bare {
    struct sim *sim;
    struct sim_disk *disk;
    struct store *st; /* dev, slabs, segments, super.store, wal_log2, keeper */
};

/* capacity: bytes of the disk, 0: no limit. No slab exists yet; sizes of slabs are 1 MiB to
 * 4 MiB, and WAL extents are of 128 KiB, until the test says otherwise. */
void jrn_bare_init(struct jrn_bare *b, uint64_t seed, uint64_t capacity);
void jrn_bare_fini(struct jrn_bare *b);
/* Closes device, slabs and segments, and opens them again over the same disk; what slabs_open
 * says. crash: power is cut between. */
int jrn_bare_reopen(struct jrn_bare *b, bool crash, struct err *e) MUST_USE;

/* Batches in (shard, offset) order, as they lie in a segment. */
struct bare_batch {
    uint64_t shard, base;
    uint32_t n_offsets;
    int64_t max_ts;
    struct buf *buf; /* stamped with base */
};
struct bare_batches {
    struct bare_batch *list;
    unsigned n;
    uint64_t bytes;
};
/* n_shards from shard 16 on, each with per_shard batches of up to max_value bytes, with a gap in
 * their offsets now and then; timestamps rise and fall; some have a producer. */
void bare_batches_draw(struct bare_batches *m, struct rng *r, unsigned n_shards, unsigned per_shard,
                       uint32_t max_value);
void bare_batches_free(struct bare_batches *m);

struct segwrite;
/* Writes them as a segment (entries 1 to 9 of group 2) and leaves w open, finished or not: gives
 * what segwrite_finish said. */
int jrn_bare_segment(struct jrn_bare *b, uint64_t segment, const struct bare_batches *m,
                     struct segwrite *w) MUST_USE;
/* Leaves free only every second unit of what is free now, so that extents are of one unit each. */
void jrn_bare_scatter(struct jrn_bare *b);

#endif
