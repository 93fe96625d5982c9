/* What the files of verifying share: one pass over a view, and its findings. */
#ifndef WEIR_JOURNAL_INSPECT_VERIFY_INT_H
#define WEIR_JOURNAL_INSPECT_VERIFY_INT_H

#include "journal/inspect_int.h"

struct used {
    uint64_t place;
    uint32_t log2;
    uint64_t segment; /* 0: the WAL */
};

struct pass {
    struct dev *dev;
    struct inspect *in;
    struct inspect_report *report;
    struct super super;
    struct buf *page;
    struct used *used;
    unsigned n_used;
};

/* Adds one batch to what identifies a segment; in the order of its index. */
struct sum128_state;
void inspect_verify_identity(struct sum128_state *identity, const struct row_segment *row,
                             uint64_t shard, const uint8_t *mem, uint32_t bytes);
/* A new finding, to be completed by the caller. Past a bound the last one is used again: enough is
 * known by then. */
struct inspect_damage *inspect_verify_damage(struct pass *p, enum inspect_part part,
                                             const char *file, uint64_t byte, uint64_t bytes,
                                             const char *fmt, ...) PRINTF_LIKE(6, 7);
/* Notes that an extent is in use; segment 0: by the WAL. */
void inspect_verify_used(struct pass *p, uint64_t place, uint32_t log2, uint64_t segment);
/* Reads the header page at a place. NULL: it is sound and as it would be written; else what is
 * wrong. */
const char *inspect_verify_head(struct pass *p, uint64_t place, uint32_t log2,
                                struct extent_head *h);

/* All segments, or only one: E_NOTFOUND. */
int inspect_verify_segments(struct pass *p, uint64_t only) MUST_USE;
/* The catalogue against the rows, and the rows of runs against the indexes. */
int inspect_verify_rows(struct pass *p) MUST_USE;

#endif
