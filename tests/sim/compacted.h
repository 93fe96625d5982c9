/* What log compaction may take from a shard of the model, and what it must leave: the latest record of each key, whatever lies at or
 * above what a round has reached, all of it in order and byte for byte, and nobody's offsets but as empty batches. */
#ifndef WEIR_TESTS_SIM_COMPACTED_H
#define WEIR_TESTS_SIM_COMPACTED_H

#include "format/row.h"
#include "tests/sim/workload_int.h"

/* The batch that mem is what is left of. NULL: of none (an empty one that stands for offsets alone). Ends the process when it is not
 * what compaction may make of any that was sent. */
struct sent *compacted_origin(struct model *m, struct model_shard *s, const uint8_t *mem,
                              const struct batch_head *h);

/* Offsets in [from, to) of which nobody knows what they held: of a batch that no reader met while it was there. */
bool compacted_unknown(const struct model_shard *s, uint64_t from, uint64_t to);
/* False: every record of the batch may have gone for a later one. Else *max_ts is the latest time of those that cannot have: what is left
 * of the batch is as late at least. */
bool compacted_leaves(const struct model_shard *s, const struct sent *x, int64_t *max_ts);

/* Reading a shard whole: begin, each batch that is met, check. Free `there`. */
struct compacted_seen {
    uint64_t start, end;
    uint64_t alive;         /* below it retention may have been faster */
    uint8_t *there;         /* of each offset: it has a record */
    struct row_cleaned row; /* before the reading */
};
void compacted_begin(struct workload *w, struct model_shard *s, struct compacted_seen *seen);
void compacted_see(struct compacted_seen *seen, const uint8_t *mem, const struct batch_head *h);
/* What must be there is. clean: what may go below the last plan is gone, too. */
void compacted_check(struct workload *w, struct model_shard *s, struct compacted_seen *seen,
                     bool clean);
/* A time was looked for at rest; fails when the answer is not one that a compacted shard may give. */
void compacted_check_time(struct workload *w, struct model_shard *s, const struct find_time *f);

#endif
