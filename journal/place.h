/* Which device a new shard goes to: each gets shards in proportion to the room that it has, so that
 * equal ones get them in turn. */
#ifndef WEIR_JOURNAL_PLACE_H
#define WEIR_JOURNAL_PLACE_H

#include "journal/core.h"

struct place {
    struct store *const *stores; /* by number */
    unsigned n;
    pthread_mutex_t lock; /* the rest */
    int64_t credit[JRN_DEVICES_MAX];
    uint64_t next[JRN_DEVICES_MAX]; /* ids */
};

void place_init(struct place *p, struct store *const *stores, unsigned n);
void place_fini(struct place *p);
/* A new id; see journal_shard_new. Any thread. */
uint64_t place_shard(struct place *p, enum shard_class class);

#endif
