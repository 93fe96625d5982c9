/* Retention: what a shard's policy no longer keeps goes, oldest first, by time and by bytes.
 *
 * Driven from segments, so that it costs nothing for a shard at rest: a sealed segment is looked
 * into when the first of its runs may have expired, or, for what is kept by bytes, when it has been
 * sealed. A shard is then trimmed at the end of a run, many shards in one batch of the catalogue,
 * and what lies below goes the way of every trim. Only runs in sealed segments go: the live WAL is
 * destaged at a certain age, so that quiet data is sealed, too. A run has expired when its largest
 * timestamp is older than the shard's retention_ms (one without timestamps counts from when its
 * segment was sealed) and all runs before it have.
 *
 * One pass at a time, on a timer, by the keeper; rows and indexes are read on pool threads. */
#ifndef WEIR_JOURNAL_RETENTION_H
#define WEIR_JOURNAL_RETENTION_H

#include "journal/core.h"

struct retention *retention_new(struct store *st);
/* NULL is allowed. */
void retention_free(struct retention *r);
/* Begins to look, every retention_check_ms. Keeper, as all below. */
void retention_start(struct store *st);
/* No more looks; one under way ends soon. */
void retention_stop(struct store *st);
bool retention_idle(const struct retention *r);

/* A shard of the group has this policy from now on. */
void retention_policy(struct store *st, uint64_t group, const struct shard_policy *p);
/* The shard's policy has changed: looks at all that it has, soon. */
void retention_shard(struct store *st, uint64_t shard);
/* The segment has just been sealed. */
void retention_sealed(struct store *st, struct segment *seg);
/* Space is short: looks at once. */
void retention_urgent(struct store *st);
/* Whether there is closed WAL past its age; lets the committer leave an open extent that is. */
bool retention_wal_aged(struct store *st);

#endif
