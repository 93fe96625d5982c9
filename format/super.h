/* Superblock: who the store is and where recovery begins. File "superblock", four copies of 16 KiB,
 * copy i at byte i * 16384. Written two at a time: generation g goes to copies 2 * (g % 2) and
 * 2 * (g % 2) + 1, so that the other two are whole whatever happens. The valid copy with the highest
 * generation holds. Whoever writes one writes the next right after it, so that all four copies then
 * say the same. Integers little-endian. Its version is the store's, too: it is raised before
 * anything is written that an older reader would take for damage (docs/format.md).
 *
 *    0 u32 magic "WSUP"    4 u16 version 2    6 u16 0         8 u64 xxh3 of bytes 16..16383, seed: the version
 *      (version 1: seed 0; otherwise the same)
 *   16 u8[16] store uuid  32 u64 generation  40 u64 starts (incarnations handed out)
 *   48 u64 ckpt_lsn (replay begins here)
 *   56 u64 first catalogue offset that a rebuild must see
 *   64 u32 log2 of a WAL extent's bytes      68 u32 number of entries below
 *   72 i64 created, ms    80 u32 number of groups             84 u32 first of the groups by
 *      policy class (those below it were made before there were classes; 0: there are none)
 *   88 u64 the catalogue's end offset at the checkpoint, at least
 *   96 u8[16] set: the uuid of the store that is device 0 of the set (device 0: its own; a store of
 *      its own, and every one of version 1: zeros)
 *  112 u16 number of this device in the set   114 u16 devices in the set when this was written (0: 1;
 *      what device 0 says holds)
 *  116 zeros to 128, then entries of 64 bytes, oldest first: the incarnations that live WAL
 *      belongs to:
 *        0 u64 incarnation 8 u64 salt        16 u64 first_lsn
 *       24 u64 end_lsn (all ones: the open one)
 *       32 u64 head hash of its last block (0: it has none)
 *       40 u64 place of its first live extent                 48 zeros to 64 */
#ifndef WEIR_FORMAT_SUPER_H
#define WEIR_FORMAT_SUPER_H

#include <stdbool.h>
#include <stdint.h>

#include "format/extent.h"

enum {
    SUPER_BYTES = 16384,
    SUPER_COPIES = 4,
    SUPER_MAX_INCARNATIONS = 240,
    SUPER_MAX_DEVICES = 15
};

#define LSN_OPEN UINT64_MAX

struct super_incarnation {
    uint64_t incarnation, salt, first_lsn, end_lsn, end_hash, place;
};

struct super {
    struct uuid store;
    uint64_t generation;
    uint64_t starts;
    uint64_t ckpt_lsn;
    uint64_t catalogue_start;
    uint32_t wal_extent_log2;
    int64_t created;
    uint32_t n_groups, policy_groups;
    uint64_t catalogue_end;
    struct uuid set;    /* zeros: it stands alone */
    uint16_t device;    /* below n_devices */
    uint16_t n_devices; /* 1 or more, once read; 0 is written as it is */
    uint32_t n;
    struct super_incarnation list[SUPER_MAX_INCARNATIONS];
};

/* mem: SUPER_BYTES. */
void super_write(const struct super *s, uint8_t *mem);
/* E_CORRUPT; E_VERSION. */
int super_read(struct super *s, const uint8_t *mem) MUST_USE;
/* Whether what super_read took from mem is all that is there: the bytes outside the sum, too, are as
 * they were written, by this version or an older one. again: SUPER_BYTES, overwritten. */
bool super_is_whole(const struct super *s, const uint8_t *mem, uint8_t *again);

#endif
