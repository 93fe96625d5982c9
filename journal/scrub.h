/* The scrub: reads everything that is stored and at rest, in cycles, and checks every sum in it, so
 * that rot is known while there is still time to act: superblock and slab headers, closed extents of
 * the WAL, sealed segments (headers, index, every batch and run, footer).
 *
 * It reads on a pool thread, in pieces of up to a MiB, no faster than conf.scrub_bytes_per_s,
 * and gives way while many appends are waiting (never for more than a second). Damage is told once,
 * with an ERROR line that names file, byte and length, and counted (stats.h); nothing is changed:
 * reads of such a range answer E_LOST by themselves, and journal-ctl mends what can be mended. */
#ifndef WEIR_JOURNAL_SCRUB_H
#define WEIR_JOURNAL_SCRUB_H

#include "journal/core.h"

struct scrub;

struct scrub *scrub_new(struct store *st);
void scrub_free(struct scrub *s);
/* The first cycle begins a sixtieth of conf.scrub_interval_ms from now. Nothing when the rate is 0.
 * Keeper. */
void scrub_start(struct scrub *s);
/* Ends at the next step's end. Keeper. */
void scrub_stop(struct scrub *s);
/* No work of its is under way. */
bool scrub_idle(const struct scrub *s);

#endif
