/* Between the parts of a store: its life and the keeper's work (store.c), opening (store_open.c). */
#ifndef WEIR_JOURNAL_STORE_INT_H
#define WEIR_JOURNAL_STORE_INT_H

#include "journal/store.h"

/* One of which nothing is open yet. */
struct store *store_new(const struct journal_env *env, const struct journal_conf *conf);
/* Its groups, its table of shards, and what shards have in memory. */
void store_shards_free(struct store *st);
/* However far its opening came; nothing of it may be running. */
void store_free(struct store *st);

#endif
