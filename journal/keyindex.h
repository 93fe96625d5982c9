/* The index of the keys of one shard of kind ROCKSDB: rows k, name -> offset of the latest record, and
 * row x, the offset below which they stand (format/row.h).
 *
 * It is derived: what lies between x and the high watermark is read from the shard, in order, and each
 * step writes its names with the new x at once. So whatever was lost of the rows, the same reading makes it
 * again: after each commit for the new batches, from the shard's start when all rows are gone. One step at a
 * time; batches are opened on the pool. Home loop of the group, where nothing else is said. */
#ifndef WEIR_JOURNAL_KEYINDEX_H
#define WEIR_JOURNAL_KEYINDEX_H

#include "journal/core.h"

/* Gives a shard that is being loaded its s->keys, from row x; blocks. */
int keyindex_load(struct shard *s) MUST_USE;
/* Any thread, when nobody has the shard any more. NULL is allowed. */
void keyindex_free(struct keyindex *k);
/* There may be records that the index does not have: it goes after them. */
void keyindex_behind(struct shard *s);
/* The shard was deleted: ends all waits. */
void keyindex_deleted(struct shard *s);

struct keyindex_wait {
    struct keyindex_wait *next;
    uint64_t target;
    void (*fn)(struct keyindex_wait *w, int rc); /* home */
};
/* True: the index has everything below the high watermark; else fn runs once it has what is below it
 * now (0), or cannot have it; this may be at once. */
bool keyindex_wait(struct shard *s, struct keyindex_wait *w);

/* Whether the shard has rows here; blocks. Pool. */
bool keyindex_is_there(struct store *st, uint64_t shard);
/* Removes the names whose record is below start, a few at a time between other work on rows; start
 * UINT64_MAX: all of them and row x, for a deleted shard. Keeper. */
void keyindex_sweep(struct store *st, uint64_t shard, uint64_t start);
/* Goes on with what a crash has left of deleted shards, and with indexes that are to be made again. Keeper, once
 * after the start. */
void keyindex_resume(struct store *st);

#endif
