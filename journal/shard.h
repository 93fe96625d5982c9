/* A shard on its group's home loop, beside what journal.h says of it. */
#ifndef WEIR_JOURNAL_SHARD_H
#define WEIR_JOURNAL_SHARD_H

#include "journal/core.h"

/* Makes the shard's memory from its rows; blocks. E_NOTFOUND. The result is not in the table yet.
 * */
int shard_load(struct store *st, uint64_t id, struct shard **out) MUST_USE;
/* An empty one without group, in no table, with one reference. */
struct shard *shard_make(struct store *st, uint64_t id);
/* Makes what its kind needs beside the log, from the rows; blocks. */
int shard_load_kind(struct shard *s) MUST_USE;
/* The loaded shard with a reference, or NULL. Any thread. */
struct shard *shard_find(struct store *st, uint64_t id);
/* Puts a loaded shard into the table (which takes a reference), or gives the one that was there
 * first. Any thread. */
struct shard *shard_publish(struct shard *s);
/* Takes it out of the table. Any thread. */
void shard_withdraw(struct shard *s);
/* Between the API's policy and the row's. */
void shard_policy_read(struct shard_policy *p, const struct row_policy *row);
void shard_policy_write(const struct shard_policy *p, struct row_policy *row);
/* Takes the policy of a row, unless it was changed since the shard was loaded. Any thread. */
void shard_policy_load(struct shard *s, const struct row_shard *row);
/* The policy has changed, durably. Any thread. */
void shard_policy_set(struct shard *s, const struct shard_policy *p);
/* Checks, numbers and stages an append. Home. Ends it when a check fails. */
void shard_append_home(struct append *a);
/* Answers waits whose offset has come (rc 0), or all of them with rc below 0. Home. */
void shard_wake(struct shard *s, int rc);
/* Deleted: answers waits, forgets batches. Home. */
void shard_mark_deleted(struct shard *s);
/* The start has moved, durably. Home. */
void shard_mark_trimmed(struct shard *s, uint64_t start);
void append_done_run(struct task *t);

#endif
