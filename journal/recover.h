/* Recovery: from superblock, slabs, rows and live WAL to the journal's memory. Writes to the rows
 * only (in inspection those are an
 * overlay), never to the device, whose WAL it flushes, so that dying in the middle and running again gives the same. */
#ifndef WEIR_JOURNAL_RECOVER_H
#define WEIR_JOURNAL_RECOVER_H

#include "journal/core.h"
#include "journal/walscan.h"

/* Something that recovery found and that the catalogue should be told once it can be written. */
struct recover_todo {
    struct rows_batch rows; /* holes and losses */
    uint64_t *
        deleted; /* shards whose deletion was replayed: what segments hold of them is to be reaped */
    unsigned n_deleted;
    uint64_t (*trimmed)[2]; /* shard, start */
    unsigned n_trimmed;
    unsigned n_taken; /* recorded segments of which an extent belongs to another: for views */
    uint64_t *dead_segments;
    unsigned n_dead;
};

/* Finds the newest valid superblock: E_NOTFOUND when there is no such file, E_CORRUPT, E_VERSION.
 * */
int recover_super(struct dev *dev, struct dev_file **file, struct super *s, struct err *e) MUST_USE;
/* All the rest. st has env, conf, dev, rows, super, slabs (open, nothing marked), and its modules
 * initialised. */
int recover_run(struct store *st, struct walscan_end *end, struct recover_todo *todo,
                struct err *e) MUST_USE;
void recover_todo_free(struct recover_todo *t);

#endif
