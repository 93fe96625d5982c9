/* What the files of recovery share: recover.c (superblock, frames, settling), recover_rows.c (rows and
 * segments), recover_rebuild.c (rows that are lost). */
#ifndef WEIR_JOURNAL_RECOVER_INT_H
#define WEIR_JOURNAL_RECOVER_INT_H

#include "journal/recover.h"

struct recovery {
    struct store *st;
    struct recover_todo *todo;
    struct err *e;
    /* rot just passed: what the next block says of it */
    bool after_rot;
    uint64_t rot_lsn, rot_end;
    uint64_t *suspects; /* per group: LSN from which its entries may be missing; 0: none */
    uint64_t *suspect_end;
    uint64_t extent_lsn;
    struct dev_file *synced; /* the WAL's file that was flushed last */
};

/* recover.c: flushes what the WAL extent at place lies in. */
int recover_extent_sync(struct recovery *r, uint64_t place);
/* recover.c: applies one stored catalogue batch to the rows. */
int recover_catalogue_item(struct recovery *r, const uint8_t *mem, size_t bytes);

/* recover_rows.c: walks one table; the row functions fill memory, ctx is the recovery. */
int recover_table_scan(struct store *st, enum row_table table,
                       int (*fn)(void *, const void *, size_t, const void *, size_t), void *ctx);
int recover_group_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                      size_t value_bytes);
int recover_loss_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes);
int recover_segment_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes);
/* Makes the derived rows of every segment that the rows know nothing of, from its index. */
int recover_segments_fill(struct recovery *r);
/* Marks what segments lie in. */
void recover_segments_mark(struct recovery *r);

/* recover_rebuild.c: the rows are lost: makes them from catalogue, segments and WAL. */
int recover_rows_rebuild(struct recovery *r);

#endif
