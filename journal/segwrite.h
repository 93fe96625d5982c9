/* Writing a sealed segment: batches come in (shard, offset) order, then everything is written and
 * flushed at once. Sealing an open one is the same: what was written to it directly is only named,
 * and the rest goes behind it. Pool threads. */
#ifndef WEIR_JOURNAL_SEGWRITE_H
#define WEIR_JOURNAL_SEGWRITE_H

#include "journal/core.h"

/* Zeroed is closed. */
struct segwrite {
    struct store *st;
    uint64_t group, segment;
    struct seg_builder builder;
    struct buf *data;
    struct row_segment row; /* n_extents > n_open: extents are taken */
    unsigned n_open;        /* extents that it has had while it was open */
    uint64_t direct_bytes;  /* what of it was written directly */
    uint64_t start;         /* data begins at this byte of the segment, a page */
    uint64_t base;    /* what is in memory begins at this one, a page: before it all is written */
    bool in_pieces;   /* it is written whenever memory is full */
    unsigned n_heads; /* extents whose header was written ahead of what is put there */
    bool copy;        /* of older ones: for counting */
    int rc;           /* of what was written so */
    struct sum128_state *identity;
};

/* What of the log a segment is made of from older ones: as they are together. */
struct segwrite_origin {
    uint64_t first_entry, last_entry;
    uint64_t segment_first; /* 0: one of them belongs to no segment of the log */
    bool any, several, ends;
};
/* They may overlap, and come in any order. */
void segwrite_origin_add(struct segwrite_origin *o, const struct row_segment *row);

/* max_bytes: of all batches, and SEG_RUN_HEAD_BYTES for each run; when there may be more, up to any
 * size, set in_pieces behind it, and max_bytes must be large enough for one batch and a page. E_NOMEM. */
int segwrite_open(struct segwrite *w, struct store *st, uint64_t group, uint64_t segment,
                  uint64_t max_bytes) MUST_USE;
/* Behind segwrite_open, before any batch: it is the open segment with these extents, of which the first
 * direct_bytes are in use. */
void segwrite_begin_open(struct segwrite *w, const struct seg_extent *extents, unsigned n_extents,
                         uint64_t direct_bytes);
/* Names a batch that lies at pos already. */
void segwrite_add_direct(struct segwrite *w, uint64_t shard, const struct batch_head *h,
                         uint64_t pos, uint64_t xxh3);
/* Copies one batch of shard to the end. */
void segwrite_add(struct segwrite *w, uint64_t shard, const struct batch_head *h,
                  const uint8_t *mem);
/* Takes extents, writes data, index and footer, flushes. w->row is then the segment's row.
 * E_NOSPACE, E_IO. */
int segwrite_finish(struct segwrite *w, uint64_t first_entry, uint64_t last_entry) MUST_USE;
/* The same with what o says of entries and segments. */
int segwrite_finish_of(struct segwrite *w, const struct segwrite_origin *o) MUST_USE;
/* Gives the extents back: the segment was never named. */
void segwrite_undo(struct segwrite *w);
void segwrite_close(struct segwrite *w);

/* Puts the finished segment into the table, with all of it alive. Keeper. */
struct segment *segwrite_enter(const struct segwrite *w);
/* The catalogue did not take what names the entered segment, if there is one: rc < 0. Refused before that was
 * written, nobody ever knew of it, and its space comes back; after a failure of the device nobody knows whether it
 * is recorded, and its space stays taken. Keeper. */
void segwrite_refused(const struct segwrite *w, int rc);

#endif
