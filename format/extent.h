/* Slabs and extents: how a large prewritten file is cut up. Integers little-endian.
 *
 * A slab file holds units of 64 KiB. Unit 0 begins with the slab header; an extent is a run of 2^k
 * units (k <= 14) that begins at a multiple of its size and whose first page (4096 bytes) is the
 * extent header. A place names an extent: slab number << 32 | first unit.
 *
 * Slab header, one page at byte 0:
 *    0 u32 magic "WSLB"    4 u16 version 1    6 u16 0         8 u64 xxh3 of bytes 16..4095
 *   16 u8[16] store uuid  32 u32 slab number 36 u32 0        40 u64 bytes of the file
 *   48 zeros
 *
 * Extent header, one page at the extent's first byte:
 *    0 u32 magic "WEXT"    4 u16 version 1    6 u16 kind (1 WAL, 2 segment)
 *    8 u64 xxh3 of bytes 16..4095
 *   16 u8[16] store uuid  32 u64 place       40 u32 log2 of its bytes        44 u32 0
 *   WAL:
 *   48 u64 incarnation    56 u64 salt
 *   64 u64 number of this extent within the incarnation, from 0
 *   72 u64 first_lsn (the LSN of byte 4096)
 *   80 u64 head hash of the block before (0: none in this incarnation)
 *   88 u64 place of the extent before (none: all ones; also across incarnations)
 *   96 u64 place of the extent that follows this one, reserved already (none: all ones)
 *  104 u64 the incarnation before (0: none)
 *  112 u64 the LSN where it ended           120 u64 head hash of its last block
 *   Segment:
 *   48 u64 group          56 u64 segment
 *   64 u32 number of this extent in the segment, from 0       68 u32 number of extents
 *   72 u64 the segment's byte that is this extent's byte 4096
 *   the rest zeros. */
#ifndef WEIR_FORMAT_EXTENT_H
#define WEIR_FORMAT_EXTENT_H

#include <stdint.h>

#include "base/err.h"

enum { PAGE_BYTES = 4096, UNIT_BYTES = 64 * 1024, UNIT_LOG2 = 16, EXTENT_MAX_LOG2 = 30 };

#define PLACE_NONE UINT64_MAX

static inline uint64_t place_of(uint32_t slab, uint32_t unit)
{
    return (uint64_t)slab << 32 | unit;
}
static inline uint32_t place_slab(uint64_t place)
{
    return (uint32_t)(place >> 32);
}
/* The byte of the slab file where the extent begins. */
static inline uint64_t place_pos(uint64_t place)
{
    return (place & 0xffffffff) * UNIT_BYTES;
}

struct uuid {
    uint8_t bytes[16];
};

struct slab_head {
    struct uuid store;
    uint32_t number;
    uint64_t bytes;
};
/* page: PAGE_BYTES. */
void slab_head_write(const struct slab_head *h, uint8_t *page);
/* E_CORRUPT; E_VERSION: a newer one. */
int slab_head_read(struct slab_head *h, const uint8_t *page) MUST_USE;

enum extent_kind { EXTENT_WAL = 1, EXTENT_SEGMENT = 2 };

struct extent_head {
    enum extent_kind kind;
    struct uuid store;
    uint64_t place;
    uint32_t log2;
    /* WAL */
    uint64_t incarnation, salt, number, first_lsn, prev_hash;
    uint64_t prev_place, next_place;
    uint64_t before_incarnation, before_end_lsn, before_end_hash;
    /* segment */
    uint64_t group, segment;
    uint32_t index, n_extents;
    uint64_t pos;
};
void extent_head_write(const struct extent_head *h, uint8_t *page);
/* E_CORRUPT; E_VERSION. Whether the place and the store are the expected ones is the caller's to
 * check. */
int extent_head_read(struct extent_head *h, const uint8_t *page) MUST_USE;

/* True when all bytes are zero. */
int bytes_are_zero(const uint8_t *mem, uint64_t bytes);

#endif
