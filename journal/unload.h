/* Loaded shards leave memory when nobody needs them: a clock hand goes over the table of a store, and
 * takes out what has had no handle for a whole round and is in rows as it is in memory. shard_open
 * makes the same shard again.
 *
 * The hand moves only while there is something that it may take: it is set going by the reference
 * that leaves a shard to the table alone. A round takes conf.unload_ms, so a shard goes one or two
 * of them after its last use. */
#ifndef WEIR_JOURNAL_UNLOAD_H
#define WEIR_JOURNAL_UNLOAD_H

#include "journal/core.h"

/* From now on shards are unloaded; until then, as in recovery and inspection, none is. Keeper. */
void unload_begin(struct store *st);
/* No more. Keeper. */
void unload_end(struct store *st);
/* A shard is about to be the table's alone. The caller still has a reference. Any thread. */
void unload_wanted(struct store *st);

#endif
