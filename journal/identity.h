/* Identities of the log's segments: what two nodes, or one before and after it has moved things about,
 * compare. A segment's is over its live batches with records as of now, wherever the pieces of it lie
 * (docs/decisions/segment-identity.md). Blocks; at rest, or on a view. */
#ifndef WEIR_JOURNAL_IDENTITY_H
#define WEIR_JOURNAL_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "format/sum.h"

struct store;

struct identity {
    uint64_t group, first; /* entry that it begins with */
    uint64_t last;         /* entry of its last piece */
    bool ended;   /* the log has ended it, and destage has passed that: nothing more comes */
    bool several; /* space was short, and pieces of several segments became one: all of them */
    unsigned n_pieces;
    uint64_t n_batches; /* alive, with records */
    uint64_t bytes;
    struct sum128 sum;
};

/* Calls fn for each segment that has pieces here, by group and entry; fn returns 0 to go on. Reads
 * all that is alive in them but what was written directly. Pieces of a time before the log cut
 * segments belong to none. group: only this one; UINT64_MAX: all. entry: only the segment that holds it;
 * 0: all. sums: without it nothing is read but indexes, and n_batches, bytes and sum stay zero.
 * E_CORRUPT, E_IO. */
int identity_each(struct store *st, uint64_t group, uint64_t entry, bool sums,
                  int (*fn)(void *ctx, const struct identity *x), void *ctx) MUST_USE;

#endif
