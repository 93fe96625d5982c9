/* Frame: one entry of a group's log, the same bytes on every node that has it. Integers
 * little-endian.
 *
 *    0 u32 magic "WFRM"    4 u16 version 1
 *    6 u16 flags (1: the chain restarts here, prev_hash is 0; 2: its segment ends with this frame)
 *    8 u64 group          16 u64 epoch       24 u64 entry (from 1, dense across epochs)
 *   32 u64 prev_hash: XXH3 of the group's previous frame (0: there is none)
 *   40 u64 lac: last entry known to be committed when this one was made
 *   48 i64 append_time, ms since 1970
 *   56 u32 n_items        60 u32 bytes of the whole frame
 *   64 u64 first entry of the segment that it is in (0: written before the log said so)
 *   72 u64 bytes of the batches, direct ones too, that this segment has in the frames before
 *   80 items of 40 bytes:
 *        0 u64 shard       8 u64 base_offset 16 u32 n_offsets
 *       20 u32 bytes of the batch            24 u8 kind (0 inline batch, 1 direct batch)
 *       25 zeros to 32    32 u64 XXH3 of the batch (direct only, else 0)
 *   then, in the order of the items and back to back: of an inline item the batch, stamped; of a
 *   direct one the first 61 bytes of it, stamped (its header), so that who reads the log knows its
 *   times and sequences without its payload; then zeros to a multiple of 8.
 *
 * A frame's hash is XXH3 over all its bytes, seed 0. It is not stored in the frame: the next frame
 * and the block carry it. */
#ifndef WEIR_FORMAT_FRAME_H
#define WEIR_FORMAT_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    FRAME_HEAD_BYTES = 80,
    FRAME_ITEM_BYTES = 40,
    FRAME_ALIGN = 8,
    FRAME_RESTART = 1,
    FRAME_CUT = 2
};

enum frame_item_kind { ITEM_INLINE = 0, ITEM_DIRECT = 1 };

struct frame_item {
    uint64_t shard;
    uint64_t base_offset;
    uint32_t n_offsets;
    uint32_t bytes;
    uint8_t kind;
    uint64_t xxh3;
};

/* Where a group's log stands in its present segment: a run of entries that the log itself ends. */
struct frame_segment {
    uint64_t first; /* entry; 0: unknown */
    uint64_t bytes; /* of its batches so far */
};

struct frame_head {
    uint16_t flags;
    uint64_t group, epoch, entry, prev_hash, lac;
    int64_t append_time;
    uint32_t n_items;
    uint32_t bytes;
    struct frame_segment segment; /* before this frame */
};

/* Bytes of a frame with that many items and bytes of bodies behind them. */
size_t frame_bytes(uint32_t n_items, uint64_t body_bytes);
/* Bytes that an item has behind the items: its batch, or the batch's header. */
uint32_t frame_item_body(const struct frame_item *item);
/* Writes the header at mem. */
void frame_head_write(const struct frame_head *h, uint8_t *mem);
/* Writes item i of the frame at mem. */
void frame_item_write(const struct frame_item *item, uint8_t *mem, uint32_t i);
/* Reads and checks header and items' total against left; 0, E_CORRUPT, E_VERSION. */
int frame_head_read(struct frame_head *h, const uint8_t *mem, size_t left) MUST_USE;
/* Item i; the frame must have passed frame_head_read. */
void frame_item_read(struct frame_item *item, const uint8_t *mem, uint32_t i);

#endif
