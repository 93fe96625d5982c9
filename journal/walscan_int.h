/* What walscan.c and walscan_payload.c share. */
#ifndef WEIR_JOURNAL_WALSCAN_INT_H
#define WEIR_JOURNAL_WALSCAN_INT_H

#include "journal/walscan.h"

/* Reads every batch that a valid block (at mem) put into a segment. 1: all are there, as their hashes
 * say; 0: not so, or the block does not say where; below 0: they cannot be read. */
int walscan_payloads(struct dev *dev, struct slabs *slabs, const struct block_head *h,
                     const uint8_t *mem) MUST_USE;

#endif
