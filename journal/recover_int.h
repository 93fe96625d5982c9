/* What the files of recovery share: recover.c (superblock, frames, settling), recover_rows.c (rows and
 * segments), recover_shards.c (the shards that the WAL names), recover_rebuild.c (rows that are lost). */
#ifndef WEIR_JOURNAL_RECOVER_INT_H
#define WEIR_JOURNAL_RECOVER_INT_H

#include "format/frame.h"
#include "journal/recover.h"

/* An open segment that the live WAL names. */
struct recover_open {
    uint64_t segment, group;
    uint64_t lsn;   /* of a block that names it */
    uint64_t end;   /* of what was written to it */
    uint64_t bytes; /* in it, of batches and their headers */
    struct seg_extent *extents;
    unsigned n_extents;
};

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
    uint64_t
        *known_entries; /* of each group: what the rows say to be destaged, when the scan began */
    struct recover_open *opens;
    unsigned n_opens;
    /* the block being applied */
    const struct block_head *head;
    const uint8_t *block;
    uint32_t placement; /* of its next direct item */
    bool holes;         /* some were found: todo has their rows */
};

/* recover_open.c: where the block being applied put its next direct item. */
int recover_open_item(struct recovery *r, struct jrn_group *g, const struct frame_item *item,
                      struct index_direct *at);
/* The block's items are applied: its last placements say in which extents those batches are. */
int recover_open_extents(struct recovery *r);
/* Rows are final: marks the extents of those segments that are still open, ahead of all others. */
void recover_open_mark(struct recovery *r);
/* And makes them known. */
void recover_open_publish(struct recovery *r);
void recover_open_free(struct recovery *r);

/* recover_shards.c: the shard as the WAL read so far makes it, without any row of it; the table holds
 * it. Its group is the one that it was met in. */
struct shard *recover_shard(struct recovery *r, struct jrn_group *g, uint64_t id);
/* The whole WAL is read and rows are final: brings every shard in line with its rows, finds the holes
 * between what they say and what the WAL has, takes out those that are deleted. */
int recover_shards_settle(struct recovery *r);
/* Offsets [start, end) are lost: the catalogue is to be told. */
void recover_hole_add(struct recovery *r, uint64_t shard, uint64_t start, uint64_t end);

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
