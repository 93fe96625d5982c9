/* What journal_fake.c gives to journal_fake_keys.c. */
#ifndef WEIR_TESTS_GATEWAYS_JOURNAL_FAKE_INT_H
#define WEIR_TESTS_GATEWAYS_JOURNAL_FAKE_INT_H

#include "tests/gateways/journal_fake.h"

/* Rows beside those of the doors (their keys begin with another byte), read with journal_rows_scan.
 * value NULL: the row goes. */
void journal_fake_row(struct journal *j, const void *key, uint32_t key_bytes, const void *value,
                      uint32_t value_bytes);
/* Calls fn for each record from the start on, in order. E_DELETED. */
int journal_fake_records(struct shard *s, void (*fn)(void *ctx, const struct batch_record *r),
                         void *ctx);

#endif
