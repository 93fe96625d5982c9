/* The catalogue: the shard in which every change of a shard, segment, group, hole, loss or door's
 * row is a record.
 *
 * One update at a time: a batch with all its records is appended; when it is durable the rows are
 * written (a view); then memory
 * follows and the update is answered. Replaying the records over older rows gives the same rows.
 * Keeper. */
#ifndef WEIR_JOURNAL_CATALOGUE_H
#define WEIR_JOURNAL_CATALOGUE_H

#include "journal/core.h"

struct catalogue_update {
    struct rows_work rows_work; /* the catalogue's */
    struct append_done appended;
    struct catalogue_update *next;
    /* Changes of the view. Those of the catalogue's tables (upper-case letters) are also its
     * records. */
    struct rows_batch rows;
    /* Runs on a pool thread when its turn has come, ahead of prepare: for what prepare must know of
     * the rows, as all updates before have left them. Below 0 ends it. NULL: none. */
    int (*read)(struct catalogue_update *u);
    /* Runs when its turn has come, may fill rows; below 0 ends it, 1: nothing to do. NULL: none. */
    int (*prepare)(struct catalogue_update *u);
    /* Runs on the pool once its records are durable, right before rows are written, and nobody else
     * writes them: may add changes of the view that follow from rows as they then are. NULL: none. */
    int (*derive)(struct catalogue_update *u);
    /* Runs once it is applied (rc 0) or has failed. Frees u. */
    void (*applied)(struct catalogue_update *u);
    struct store *st;
    int rc;
};

/* More offsets for a MEMORY shard: those below until may be given once it is answered well. */
struct catalogue_reserve {
    struct task task;                        /* the catalogue's */
    void (*fn)(struct catalogue_reserve *r); /* on the shard's home loop */
    struct shard *shard;
    uint64_t until;
    int rc;
};
/* Writes until as the start of the shard's row, from which the shard goes on after a restart. Any
 * loop. */
void catalogue_reserve(struct catalogue_reserve *r);

struct catalogue *catalogue_new(struct store *st);
void catalogue_free(struct catalogue *c);
void catalogue_submit(struct catalogue *c, struct catalogue_update *u);
/* True when nothing is under way. */
bool catalogue_idle(const struct catalogue *c);

/* Gives back what segments hold of a shard below `start` (all of it: UINT64_MAX, for a deleted
 * shard). */
void catalogue_reap(struct store *st, uint64_t shard, uint64_t start);
/* A trim of this shard is applied: gives back what lies below `start`, tells the loaded shard. */
void catalogue_trimmed(struct store *st, uint64_t shard, uint64_t start);
/* For a segment that has just been named: what it holds of shards deleted or trimmed meanwhile is
 * dead from the start. */
void catalogue_reap_late(struct store *st, const struct seg_index *x);
/* Deletes a segment in which nothing is alive, by a record. */
void catalogue_drop_segment(struct store *st, uint64_t segment);
/* A segment whose deletion is recorded: its extents wait for the grace. */
void catalogue_grave(struct store *st, uint64_t segment);
/* Frees deleted segments whose grace has ended; all of them when urgent. */
void catalogue_bury(struct store *st, bool urgent);

/* What one change must be, whatever is there: 0 or E_INVALID. */
int catalogue_change_check(const struct jrn_change *c) MUST_USE;
/* Copies changes, their keys and values into *mem. Both are to be freed. */
struct jrn_change *catalogue_changes_copy(const struct jrn_change *changes, unsigned n,
                                          uint8_t **mem);
/* Walks the records of one stored catalogue batch into a set of row changes. E_CORRUPT. */
int catalogue_batch_rows(const void *mem, size_t bytes, struct rows_batch *rows) MUST_USE;
/* The group in which a new shard is put: of the policy's class, so that what a segment holds goes
 * at about the same time. It stays there when its policy changes. */
uint64_t catalogue_group_for(const struct store *st, enum shard_class class,
                             const struct shard_policy *policy, uint64_t shard);
/* A shard's row as it stands. Blocks. E_NOTFOUND. */
int catalogue_shard_row(struct store *st, uint64_t shard, struct row_shard *row) MUST_USE;
/* How far a shard is compacted; zeroed when nothing says so. Blocks. */
int catalogue_cleaned_row(struct store *st, uint64_t shard, struct row_cleaned *row) MUST_USE;
void catalogue_shard_row_put(struct rows_batch *rows, uint64_t shard, const struct row_shard *row);

#endif
