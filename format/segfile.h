/* A sealed segment as it lies on a node, in the bytes of its extents without their header pages.
 * Integers little-endian.
 *
 * data:   runs. A segment without direct batches has them sorted by (shard, offset), back to back from
 *         byte 0 to data_bytes. One that was written to directly has first, from byte 0 to
 *         direct_bytes, what came so: pieces that begin on a page, each runs of one batch back to
 *         back, and behind them zeros or other bytes that are no run's header; in them may be runs
 *         that the index does not name any more. Then, from sorted_pos (a page) to data_bytes, the
 *         others, sorted. Then zeros to a page. A run is a header of 40 bytes and the batches
 *         (RecordBatch v2) of one shard whose offsets follow one another:
 *    0 u32 magic "WRUN"    4 u32 n_batches    8 u64 shard    16 u64 base offset
 *   24 u64 bytes of the batches              32 u64 xxh3 of bytes 0..31, seed: the segment
 *
 * index:  at index_pos, whole pages:
 *    0 u32 magic "WIDX"    4 u16 version 2 (or 1)            6 u16 0
 *    8 u64 xxh3 of bytes 16..index_bytes, seed: the version (0 in version 1)
 *   16 u64 segment        24 u32 n_runs      28 u32 n_sparse
 *   32 u32 n_producers    36 u32 0           40 zeros to 64
 *   runs of 72 bytes, in (shard, base) order (their pos is then in any order):
 *      0 u64 shard         8 u64 base offset 16 u64 end offset
 *     24 u64 pos (of its first batch)        32 u64 bytes
 *     40 u32 n_batches    44 u32 n_sparse    48 u32 number of its first sparse entry    52 u32 0
 *     56 i64 largest timestamp               64 u64 XXH3 of its bytes
 *   sparse entries of 24 bytes, one per 32 KiB or batch, whichever is more, from each run's first
 *   batch on; a stretch goes from one up to the next, or to the run's end:
 *      0 u64 offset        8 u32 pos in the run
 *     12 u32 lower half of the XXH3 of the stretch's bytes (version 1: 0)
 *     16 i64 largest timestamp in the stretch
 *   producer entries of 48 bytes: the last batches (up to 5) of each (shard, producer) in the
 *   segment, in offset order:
 *      0 u64 shard         8 i64 producer id 16 u64 base offset    24 i64 largest timestamp
 *     32 i32 base sequence                   36 i32 last sequence
 *     40 i16 producer epoch                  42 zeros to 48
 *   then zeros to a page.
 *
 * footer: the last page of the last extent:
 *    0 u32 magic "WFTR"    4 u16 version 2 (or 1)            6 u16 0
 *    8 u64 xxh3 of bytes 16..4095, seed: the version (0 in version 1)
 *   16 u8[16] store uuid  32 u64 group       40 u64 segment
 *   48 u64 first entry    56 u64 last entry (of the group's log that it holds)
 *   64 u64 data_bytes     72 u64 index_pos   80 u64 index_bytes
 *   88 u64 n_batches      96 u64 n_offsets
 *  104 i64 smallest base timestamp          112 i64 largest timestamp
 *  120 u8[16] identity   136 i64 created, ms
 *  144 u32 n_extents     148 u32 0
 *  152 extents of 16 bytes: 0 u64 place  8 u32 log2 bytes  12 u32 0;  then zeros
 * 3992 u64 direct_bytes (0: none)           4000 u64 sorted_pos           (version 1: zeros)
 * 4008 u64 first entry of the log's segment (frame.h) that these entries are in; 0: not known
 * 4016 u32 flags: 1 that segment ends with the last entry, 2 the entries are of several segments,
 *      of which it is the first
 *
 * Identity: XXH3-128 (canonical form) over, for each batch that the index names, in (shard, offset)
 * order, the shard id (u64 little-endian) and XXH3 of the batch's bytes (u64 little-endian, seed 0).
 * It does not depend on how the batches are cut into runs or extents, nor on where they lie. In
 * version 1: the shard id and the batch's bytes. */
#ifndef WEIR_FORMAT_SEGFILE_H
#define WEIR_FORMAT_SEGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/extent.h"
#include "format/sum.h"

enum {
    SEG_INDEX_HEAD_BYTES = 64,
    SEG_RUN_HEAD_BYTES = 40,
    SEG_RUN_BYTES = 72,
    SEG_SPARSE_BYTES = 24,
    SEG_PRODUCER_BYTES = 48,
    SEG_SPARSE_EVERY = 32 * 1024,
    SEG_MAX_EXTENTS = 240,
    SEG_INDEX_VERSION = 2,  /* what is written; 1 is read, too */
    SEG_FOOTER_VERSION = 2, /* what is written; 1 is read, too */
    SEG_ENDS = 1,           /* flags */
    SEG_SEVERAL = 2
};

struct seg_run {
    uint64_t shard, base, end, pos, bytes;
    uint32_t n_batches, n_sparse, first_sparse;
    int64_t max_ts;
    uint64_t xxh3;
};
struct seg_sparse {
    uint64_t offset;
    uint32_t pos;
    uint32_t sum; /* of its stretch */
    int64_t max_ts;
};
struct seg_producer {
    uint64_t shard;
    int64_t producer;
    uint64_t base;
    int64_t max_ts;
    int32_t base_sequence, last_sequence;
    int16_t epoch;
};
struct seg_extent {
    uint64_t place;
    uint32_t log2;
};

struct seg_index {
    uint64_t segment;
    uint16_t version; /* as read; 0 to write the newest */
    struct seg_run *runs;
    uint32_t n_runs;
    struct seg_sparse *sparse;
    uint32_t n_sparse;
    struct seg_producer *producers;
    uint32_t n_producers;
};

/* Whole pages that the index takes. */
size_t seg_index_bytes(uint32_t n_runs, uint32_t n_sparse, uint32_t n_producers);
/* mem: seg_index_bytes of it, written whole. */
void seg_index_write(const struct seg_index *x, uint8_t *mem);
/* Parses into new arrays; free with seg_index_free. E_CORRUPT, E_VERSION. Checks the sum, counts,
 * order and bounds. */
int seg_index_read(struct seg_index *x, const uint8_t *mem, size_t bytes) MUST_USE;
void seg_index_free(struct seg_index *x);
/* Bytes of all its runs: what is alive in a segment that has just been written. */
uint64_t seg_index_live(const struct seg_index *x);

/* Fills in the sums of run i and of its stretches; mem: the run's bytes. */
void seg_run_sum(struct seg_index *x, uint32_t i, const uint8_t *mem);
/* Bytes of the k-th stretch of a run. */
static inline uint64_t seg_stretch_bytes(const struct seg_index *x, const struct seg_run *run,
                                         uint32_t k)
{
    const struct seg_sparse *n = &x->sparse[run->first_sparse + k];

    return (k + 1 < run->n_sparse ? n[1].pos : run->bytes) - n->pos;
}
/* False: mem is not what was written there, however sound its batches are: a write that was lost or
 * went astray leaves another's. In an index of version 1 that can be told only of a run that is one
 * stretch. */
bool seg_stretch_is(const struct seg_index *x, const struct seg_run *run, uint32_t k,
                    const uint8_t *mem);

/* The header in front of a run's batches; mem: SEG_RUN_HEAD_BYTES. Only shard, base, bytes and
 * n_batches are in it. */
void seg_run_head_write(const struct seg_run *run, uint64_t segment, uint8_t *mem);
int seg_run_head_read(struct seg_run *run, uint64_t segment, const uint8_t *mem,
                      uint64_t left) MUST_USE;

struct seg_footer {
    uint16_t version; /* as read; 0 to write the newest */
    struct uuid store;
    uint64_t group, segment, first_entry, last_entry;
    uint64_t data_bytes, index_pos, index_bytes, n_batches, n_offsets;
    int64_t min_ts, max_ts;
    struct sum128 identity;
    int64_t created;
    uint32_t n_extents;
    struct seg_extent extents[SEG_MAX_EXTENTS];
    uint64_t direct_bytes, sorted_pos;
    uint64_t segment_first;
    uint32_t flags;
};
void seg_footer_write(const struct seg_footer *f, uint8_t *page);
int seg_footer_read(struct seg_footer *f, const uint8_t *page) MUST_USE;

/* Bytes of batches that an extent can hold. */
static inline uint64_t seg_extent_room(uint32_t log2)
{
    return ((uint64_t)1 << log2) - PAGE_BYTES;
}

#endif
