/* What is alive in segments: bytes of runs that are deleted, trimmed away or written anew elsewhere are
 * subtracted, the row of what is left (ROW_LIVE) follows, and a segment in which nothing is left goes.
 * The keeper, or who works for it while it waits: nobody else changes these figures. */
#ifndef WEIR_JOURNAL_LIVE_H
#define WEIR_JOURNAL_LIVE_H

#include <stdint.h>

struct rows_batch;
struct segment;
struct store;

/* What one update takes from segments. Zeroed is nothing. */
struct live_loss {
    struct live_lost {
        uint64_t segment, bytes;
    } * list; /* each segment once */
    unsigned n;
};
void live_lose(struct live_loss *l, uint64_t segment, uint64_t bytes);
uint64_t live_lost_bytes(const struct live_loss *l);
/* Subtracts it, once, and adds the rows of what is left. Segments that are gone are passed over. */
void live_subtract(const struct live_loss *l, struct store *st, struct rows_batch *rows);
/* Once that is applied: segments in which nothing is alive are dropped. Keeper. */
void live_drop_empty(const struct live_loss *l, struct store *st);
void live_loss_free(struct live_loss *l);

/* The same of one segment, at once. */
void live_subtract_one(struct segment *seg, uint64_t bytes, struct rows_batch *rows);

#endif
