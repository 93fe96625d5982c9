/* Updates over several devices: all or nothing, through any crash.
 *
 * One update at a time. Its rows, its shards of device 0 and an intent for each other device that it
 * touches (format/intent.h) are one batch of device 0's catalogue: once that is durable, so is the
 * update. Then each device makes its part, and its intent is removed before the next update begins: a
 * part may be made again, but never behind a later change of the same shard. A start makes good every
 * intent it finds before any shard of those devices is opened. */
#ifndef WEIR_JOURNAL_INTENT_H
#define WEIR_JOURNAL_INTENT_H

#include "journal/store.h"

struct intents;

/* Stores by number, two or more; borrowed. */
struct intents *intents_new(struct store *const *stores, unsigned n);
void intents_free(struct intents *x);
/* Reads what device 0's rows say is owed. Blocks; before the loops run. */
int intents_load(struct intents *x, struct err *e) MUST_USE;
/* Begins to make it good. */
void intents_start(struct intents *x);
/* As journal_update; every shard's device is below n. Any thread. */
void intents_update(struct intents *x, const struct jrn_change *changes, unsigned n,
                    struct jrn_update *done);
/* Nothing is owed from before the start. Any thread, now. */
bool intents_redone(struct intents *x);
/* As store_shard_open, once nothing is owed that could make or delete the shard. Any thread. */
void intents_shard_open(struct intents *x, uint64_t id, struct shard_open *done);
/* Updates that are not begun are answered E_CLOSED from now on; the stores wait for the one under
 * way. Any thread. */
void intents_close(struct intents *x);

#endif
