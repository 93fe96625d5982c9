/* What rows say of a sealed segment: that it is there, where its runs lie, and how much of it is alive.
 * Whoever writes one (destage, rewriting, log compaction) puts them; a run belongs to the segment that
 * its row names. */
#ifndef WEIR_JOURNAL_SEGMENT_ROWS_H
#define WEIR_JOURNAL_SEGMENT_ROWS_H

#include "journal/core.h"

/* The segment's own row. */
void segment_row_put(uint64_t segment, const struct row_segment *row, struct rows_batch *rows);
/* Those of its runs, and of its live bytes. */
void segment_run_rows(uint64_t segment, const struct seg_index *x, struct rows_batch *rows);

/* A run that the rows still place in `from`; neither was trimmed away nor written anew elsewhere. */
struct segment_alive {
    struct segment *from;
    struct seg_run run;
};
/* Those of all n segments, which are pinned or at rest, in (shard, offset) order. *list is the caller's
 * to free, after an error, too. E_NOMEM, E_IO, E_CORRUPT. Blocks. */
int segment_alive_runs(struct store *st, struct segment *const *segments, unsigned n,
                       struct segment_alive **list, uint32_t *n_list) MUST_USE;

#endif
