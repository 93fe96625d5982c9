/* Batches as log compaction leaves them: without some of their records, or empty.
 *
 * A batch never goes: its offsets must still be somebody's, or they would look like lost ones. What
 * is left of one without records is an *empty batch*: a header alone (61 bytes, codec none, record
 * count 0) over the same offsets, with largest timestamp -1. Where its producer must still be known
 * it keeps producer id, epoch and sequence; else it has none, and empty batches without a producer
 * that follow one another become one. Readers of the Kafka protocol step over empty batches. */
#ifndef WEIR_FORMAT_BATCH_KEEP_H
#define WEIR_FORMAT_BATCH_KEEP_H

#include "format/batch.h"

enum batch_kept { BATCH_KEPT_ALL, BATCH_KEPT_SOME, BATCH_KEPT_NONE };

/* Asks keep for each record of the checked batch at mem. SOME: *out is the batch without the others,
 * one reference: records are copied as they are, and so are base offset, last offset delta, base
 * timestamp, codec, producer and epoch; the largest timestamp is that of what is left. ALL, NONE:
 * *out is NULL. E_CORRUPT, E_TOOBIG (of max_body): it cannot be opened. */
int batch_keep(const void *mem, size_t bytes, size_t max_body,
               bool (*keep)(void *ctx, const struct batch_record *r), void *ctx,
               struct buf **out) MUST_USE;

/* Writes an empty batch for n_offsets (at most 2^31) from `like` on; mem: BATCH_HEAD_BYTES. */
void batch_empty_write(const struct batch_head *like, uint32_t n_offsets, bool producer, void *mem);

/* True when a record of the validated batch at mem has no key: compaction would take it at once, and a
 * compacted topic refuses it (INVALID_RECORD). A compressed batch is not opened: false. */
bool batch_lacks_keys(const void *mem, size_t bytes);

/* True for an empty batch that nobody needs but for its offsets. */
static inline bool batch_is_filler(const struct batch_head *h)
{
    return h->record_count == 0 && h->producer_id < 0 && !(h->attributes & BATCH_ATTR_CONTROL);
}

#endif
