/* Destage: moves what the oldest WAL extents hold into sealed segments, one per group, moves the
 * checkpoint past them, frees them.
 *
 * One round at a time, by the keeper: groups say what they have there; a pool thread reads the
 * extents, checks every batch, and
 * writes segments with index and footer; the catalogue records them; rows are flushed with the new
 * replay LSN; the superblock names
 * it; memory lets go; and only then the extents are free. A crash anywhere leaves either the old
 * checkpoint with its WAL, or the
 * new one. */
#ifndef WEIR_JOURNAL_DESTAGE_H
#define WEIR_JOURNAL_DESTAGE_H

#include "journal/core.h"

struct destage;

struct destage *destage_new(struct store *st);
void destage_free(struct destage *d);
/* Begins a round when the closed WAL is past its budget, or `anything` is closed at all. Keeper. */
void destage_consider(struct store *st, bool anything);
bool destage_idle(const struct destage *d);

/* Writes the superblock of *s with its next two generations, so into all four copies; blocks. Pool
 * threads, one caller at a time, or at open. */
int super_store(struct dev *dev, struct dev_file *file, struct super *s) MUST_USE;

#endif
