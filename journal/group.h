/* A group on its home loop: staging what was appended, and taking in what was committed. */
#ifndef WEIR_JOURNAL_GROUP_H
#define WEIR_JOURNAL_GROUP_H

#include "journal/core.h"

struct jrn_group *group_new(struct store *st, uint64_t id, enum shard_class class);
void group_free(struct jrn_group *g);
/* Takes a checked append into the present frame; it goes to the committer at the end of this turn.
 * Home. */
void group_stage(struct jrn_group *g, struct append *a);
/* A block is durable, or failed. Runs as a task on home; frees r. */
void group_committed(struct task *t);
/* Space has changed: tries held appends again. Any thread. */
void group_kick(struct jrn_group *g);
/* True while a must still wait because space is short; then the group looks again in time. Home. */
bool group_throttled(struct jrn_group *g, struct append *a);
/* Marks shard as having changes that rows do not have. Home. */
void group_dirty(struct jrn_group *g, struct shard *s);
/* The unaccepted loss that may have hit offsets past what is known of shard s; NULL. Home. */
const struct group_loss *group_tail_loss(struct jrn_group *g, const struct shard *s);
/* Ends an append: posts its done, gives everything back. Home. */
void append_end(struct append *a, int rc, int64_t append_time);

#endif
