/* Open loops: each request is begun when it is due, whatever became of those before it, and is timed
 * from that moment. What a writer that waits for its answers would not see, a queue, shows here. */
#ifndef WEIR_BENCH_PACED_H
#define WEIR_BENCH_PACED_H

#include "bench/measure.h"
#include "bench/raw_io.h"
#include "bench/store.h"

struct paced {
    double rate; /* requests a second, evenly spread */
    double seconds;
};

/* So long the loop of appends sleeps at least, in seconds: to wake for each of 150,000 a second it would
 * take one of two cores from what it measures. Those due meanwhile go out together, late by half of this
 * on the average, which counts. */
#define PACED_TICK 100e-6

/* How many requests there are, at least one. */
size_t paced_count(const struct paced *p);
/* When request i is due, of a run that began then. */
double paced_due(const struct paced *p, double began, size_t i);
/* Sleeps until then, and for `least` seconds; late ones come at once, one after the other. When it was
 * due. */
double paced_wait(const struct paced *p, double began, size_t i, double least);
/* The calling thread sleeps to the microsecond from here on. */
void paced_wake_in_time(void);

/* Appends batch, each to a random one of n shards, answered on the loops in turn. The seconds of each
 * are added to out. */
void paced_appends(const struct paced *p, struct bench_store *s, struct shard *const *shards,
                   unsigned n, struct buf *batch, struct measure_samples *out);
/* Writes of so many bytes with fdatasync, one at a time. */
void paced_raw(const struct paced *p, struct raw_file *f, uint32_t bytes,
               struct measure_samples *out);

#endif
