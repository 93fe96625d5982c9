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

/* Appends batch, each to a random one of n shards, answered on the loops in turn. The seconds of each
 * are added to out. */
void paced_appends(const struct paced *p, struct bench_store *s, struct shard *const *shards,
                   unsigned n, struct buf *batch, struct measure_samples *out);
/* Writes of so many bytes with fdatasync, one at a time. */
void paced_raw(const struct paced *p, struct raw_file *f, uint32_t bytes,
               struct measure_samples *out);

#endif
