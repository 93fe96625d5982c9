/* A journal in memory, for tests of the doors: journal/journal.h without disk, in one thread,
 * on any loops.
 *
 * Answers are posted on the callers' loops, never given inside the call. What was appended and
 * not held back survives journal_fake_restart, which stands for a stop and a new start. */
#ifndef WEIR_TESTS_GATEWAYS_JOURNAL_FAKE_H
#define WEIR_TESTS_GATEWAYS_JOURNAL_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/journal.h"

struct journal *journal_fake_new(void);
/* Frees it; asserts that no handle and no wait is left. */
void journal_fake_free(struct journal *j);
/* The next start: higher epoch; appends held back are lost, as by a crash. */
void journal_fake_restart(struct journal *j);

/* While on, appends wait (they have no offset yet, nobody sees them); off lets them go, in
 * order. */
void journal_fake_hold(struct journal *j, bool on);
/* The next n appends answer rc. */
void journal_fake_fail_appends(struct journal *j, int rc, unsigned n);
/* The next n updates answer rc and change nothing. */
void journal_fake_fail_updates(struct journal *j, int rc, unsigned n);
/* Every read answers rc; 0: as usual. */
void journal_fake_fail_reads(struct journal *j, int rc);
void journal_fake_set_backlogged(struct journal *j, bool on);
/* Drops what is beyond end: as if a shard's log had been cut there. For sweeps over prefixes. */
void journal_fake_cut(struct journal *j, uint64_t shard, uint64_t end);

unsigned journal_fake_handles(const struct journal *j);
unsigned journal_fake_waits(const struct journal *j);
unsigned journal_fake_held(const struct journal *j);
unsigned journal_fake_updates(const struct journal *j);

#endif
