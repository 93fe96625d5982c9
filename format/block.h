/* Block: what one flush makes durable. Starts on a page (4096), ends on one, lies inside one WAL
 * extent. Integers little-endian.
 *
 *    0 u32 magic "WBLK"    4 u16 version 1    6 u16 0
 *    8 u64 head_hash: XXH3, seed salt ^ lsn, of bytes 16 .. end of the placements
 *   16 u8[16] store uuid  32 u64 incarnation 40 u64 lsn (this block's first byte)
 *   48 u64 prev_hash: head_hash of the block before (0: first of its incarnation)
 *   56 u64 durable_lsn: everything below was flushed before this block was written
 *   64 u32 block_bytes (multiple of 4096)
 *   68 u32 body_bytes (the rest of the block is zeros)
 *   72 u64 place of the extent that follows this one (none: all ones)
 *   80 u32 n_frames       84 u32 n_prev      88 u32 n_placements
 *   92 u32 flags: 1 closing (written when idle), 2 opening (its prev entries name every group)
 *   96 i64 written, ms
 *  104 u64 lsn of the block before (none: all ones)           112 zeros to 128
 *  128 directory, n_frames of 48 bytes:
 *        0 u64 group       8 u64 epoch       16 u64 entry
 *       24 u32 pos in the block (multiple of 8)               28 u32 bytes
 *       32 u32 n_offsets (sum over its items, saturating)     36 u32 0
 *       40 u64 XXH3 of the frame
 *      then n_prev of 24 bytes, what the block before held:
 *        0 u64 group       8 u64 last entry  16 u32 n_offsets  20 u32 0
 *      then n_placements of 40 bytes, where this node put direct batches: first one for each direct
 *      item of the frames, in their order,
 *        0 u64 shard       8 u64 base_offset 16 u64 segment
 *       24 u64 pos of the batch in the segment                32 u32 its bytes 36 u32 0
 *      then one for each extent that these batches touch,
 *        0 u64 0           8 u64 place       16 u64 segment
 *       24 u64 the segment's pos that is the extent's byte 4096
 *       32 u32 log2 of its bytes             36 u32 0
 *      then the frames in order, each at its pos, with zeros between.
 *
 * The head hash covers every frame's hash, so one pass over the bytes checks all. The prev entries
 * make rot in one block name the groups that it hit, although the block cannot be read. */
#ifndef WEIR_FORMAT_BLOCK_H
#define WEIR_FORMAT_BLOCK_H

#include <stdint.h>

#include "base/err.h"
#include "format/extent.h"

enum {
    BLOCK_HEAD_BYTES = 128,
    BLOCK_DIR_BYTES = 48,
    BLOCK_PREV_BYTES = 24,
    BLOCK_PLACEMENT_BYTES = 40,
    BLOCK_CLOSING = 1,
    BLOCK_OPENING = 2
};

struct block_head {
    struct uuid store;
    uint64_t hash;
    uint64_t incarnation, lsn, prev_hash, durable_lsn;
    uint32_t block_bytes, body_bytes;
    uint64_t next_place;
    uint32_t n_frames, n_prev, n_placements, flags;
    int64_t written;
    uint64_t prev_lsn;
};

struct block_dir {
    uint64_t group, epoch, entry;
    uint32_t pos, bytes, n_offsets;
    uint64_t hash;
};

struct block_prev {
    uint64_t group, last_entry;
    uint32_t n_offsets;
};

/* Of a direct batch, or (shard 0) of an extent: then base is its place and bytes its log2. */
struct block_placement {
    uint64_t shard, base, segment, pos;
    uint32_t bytes;
};

/* Where the frames begin. */
uint32_t block_frames_pos(uint32_t n_frames, uint32_t n_prev, uint32_t n_placements);
void block_dir_write(const struct block_dir *d, uint8_t *mem, uint32_t i);
void block_prev_write(const struct block_prev *p, uint8_t *mem, uint32_t n_frames, uint32_t i);
void block_placement_write(const struct block_placement *p, uint8_t *mem, uint32_t n_frames,
                           uint32_t n_prev, uint32_t i);
/* Writes the header last: hashes everything before the frames; fills h->hash. */
void block_head_write(struct block_head *h, uint64_t salt, uint8_t *mem);

/* Reads a header with its directory: E_CORRUPT unless magic, sizes (block within left) and head
 * hash hold. Store and incarnation must be these; the LSN is read from the block itself and used for
 * the seed. A block of another version is none: the superblock's version speaks for the WAL. */
int block_head_read(struct block_head *h, const struct uuid *store, uint64_t incarnation,
                    uint64_t salt, const uint8_t *mem, uint64_t left) MUST_USE;
void block_dir_read(struct block_dir *d, const uint8_t *mem, uint32_t i);
void block_prev_read(struct block_prev *p, const uint8_t *mem, uint32_t n_frames, uint32_t i);
void block_placement_read(struct block_placement *p, const struct block_head *h, const uint8_t *mem,
                          uint32_t i);
/* Checks every frame against its hash, and the zeros between and behind. E_CORRUPT. */
int block_body_check(const struct block_head *h, const uint8_t *mem) MUST_USE;

#endif
