/* The least that a log with group commit does: no records, no shards, no memory moved. Requests come as
 * in an open loop (paced.h); a thread writes those that are due as one block, with one fdatasync, and
 * takes the next; beside it, all bytes are written a second time, a MiB at a time, evenly spread, as
 * destage must. Its tail is the machine's: whoever stores as much with two copies can be as good at best.
 *
 * Ends the program when something fails. */
#ifndef WEIR_BENCH_LEAST_H
#define WEIR_BENCH_LEAST_H

#include "bench/paced.h"

struct least {
    struct raw_file *log, *copy; /* other files; the largest write of each: LEAST_BLOCK_MAX */
    uint32_t bytes;              /* of a request */
};

enum { LEAST_BLOCK_MAX = 1 << 20 };

/* The seconds of each request, from when it was due, are added to out. */
void least_run(const struct paced *p, const struct least *l, struct measure_samples *out);

#endif
