/* Indexes of keys after the rows were made anew: each shard of kind ROCKSDB gets its own again in the background,
 * one after another, so that a lost RocksDB is whole again without anybody asking for a key. Who asks
 * meanwhile waits for that shard alone (keyindex.h).
 *
 * A row x of shard 0 says that this is to be done; it goes when all are done. So it does not matter who has made
 * the rows, nor how many lives it takes. */
#ifndef WEIR_JOURNAL_KEYREMAKE_H
#define WEIR_JOURNAL_KEYREMAKE_H

#include "journal/core.h"

enum { KEYREMAKE_SHARD = 0 }; /* no shard has this number */

/* For rows that are being made anew. Blocks. */
int keyremake_mark(struct rows *rows) MUST_USE;
/* The row is there. Keeper, once after the start. */
void keyremake_start(struct store *st);

#endif
