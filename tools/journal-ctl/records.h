/* Records inside stored batches: printing them, and finding them by time. */
#ifndef WEIR_TOOLS_JOURNAL_CTL_RECORDS_H
#define WEIR_TOOLS_JOURNAL_CTL_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/inspect.h"
#include "tools/journal-ctl/emit.h"

/* Printable text of any bytes, new: \\ \n \r \t and \xNN stand for what is not; NULL for null. max:
 * bytes shown (0: all). */
char *records_escape(const uint8_t *mem, int64_t bytes, size_t max);

/* "none", "gzip", ... */
const char *records_codec(uint16_t attributes);

/* Calls fn for each record of one whole batch that passed its CRC. fn ends the walk with non-zero.
 * E_CORRUPT: it does not decode. */
int records_each(const uint8_t *mem, size_t bytes,
                 int (*fn)(void *ctx, const struct batch_head *h, const struct batch_record *r),
                 void *ctx) MUST_USE;

struct records_found {
    bool found;
    uint64_t offset;
    int64_t timestamp;
};
/* The first record of the shard from start on whose timestamp is at or after time. */
int records_at_time(struct inspect *in, uint64_t shard, uint64_t start, int64_t time,
                    struct records_found *out) MUST_USE;
/* The first one with the largest timestamp. */
int records_max_time(struct inspect *in, uint64_t shard, uint64_t start,
                     struct records_found *out) MUST_USE;

#endif
