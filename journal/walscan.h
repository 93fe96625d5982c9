/* Walks the live WAL from the checkpoint on, block by block, and tells torn from rotten.
 *
 * A bad block at x is rot when a later valid block of the same incarnation exists (it was only
 * written because x had been flushed), or when
 * the superblock says that this incarnation went on past x; otherwise it is the torn tail, and the
 * log ends there. The last block is torn, too, when a batch that it put into a segment is not there:
 * of blocks that were flushed for certain nothing but the WAL is read. Writes nothing. */
#ifndef WEIR_JOURNAL_WALSCAN_H
#define WEIR_JOURNAL_WALSCAN_H

#include <stdint.h>

#include "format/block.h"
#include "format/super.h"
#include "journal/io/dev.h"
#include "journal/slab.h"

struct walscan_extent {
    uint64_t place, incarnation, salt, first_lsn;
    bool head_damaged;
};

/* All may be NULL; below 0 ends the scan with that code. */
struct walscan_calls {
    int (*extent)(void *ctx, const struct walscan_extent *x);
    /* The extent ends here; called before the next one, and at the end of an incarnation. */
    int (*extent_end)(void *ctx, uint64_t end_lsn);
    /* A valid block; mem is its bytes until the call returns; pos: its byte in the slab file. */
    int (*block)(void *ctx, const struct block_head *h, const uint8_t *mem, uint64_t pos);
    /* The bytes [lsn, end_lsn) cannot be read although they were durable. */
    int (*rot)(void *ctx, uint64_t lsn, uint64_t end_lsn, uint64_t place);
};

struct walscan_end {
    uint64_t lsn;        /* where the last incarnation ends */
    uint64_t hash;       /* head hash of its last block; 0: it has none */
    uint64_t last_place; /* of its last extent; PLACE_NONE: it has none */
    uint64_t blocks, bytes;
    bool torn; /* something was cut */
};

int walscan_run(struct dev *dev, struct slabs *slabs, const struct super *super,
                const struct walscan_calls *calls, void *ctx, struct walscan_end *end,
                struct err *e) MUST_USE;

#endif
