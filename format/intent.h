/* Intent: what an update over several devices still owes one of them. A row of device 0's catalogue,
 * made in the batch that holds the update's own rows, removed when the device has its part; a start
 * that finds one does it again. Integers little-endian.
 *
 * Key: 'I', serial u64 (big-endian: the order of the updates), device u64 (big-endian).
 * Value: u8 1, u8[3] 0, u32 number of changes, then those, 12 bytes each or 48:
 *   0 u8 operation (1 create, 2 delete, 3 policy)   1 u8 kind   2 u8 class
 *   3 u8 1: a policy follows, else 0                 4 u64 shard
 *   12 u32 flags  16 i64 retention ms  24 i64 retention bytes  32 i64 least compaction lag ms
 *   40 i64 delete retention ms */
#ifndef WEIR_FORMAT_INTENT_H
#define WEIR_FORMAT_INTENT_H

#include "base/rd.h"
#include "format/row.h"

enum { INTENT_HEAD_BYTES = 8, INTENT_CHANGE_BYTES = 12, INTENT_POLICY_BYTES = 36 };

enum intent_op { INTENT_CREATE = 1, INTENT_DELETE = 2, INTENT_POLICY = 3 };

struct intent_change {
    enum intent_op op;
    uint8_t kind, class;
    bool has_policy;
    uint64_t shard;
    struct row_policy policy; /* zeros without one */
};

void intent_head_write(struct wr *w, uint32_t n);
/* At most INTENT_CHANGE_BYTES + INTENT_POLICY_BYTES. */
void intent_change_write(struct wr *w, const struct intent_change *c);
/* *n changes must follow to the end. E_CORRUPT, E_VERSION. */
int intent_head_read(struct rd *r, uint32_t *n) MUST_USE;
int intent_change_read(struct rd *r, struct intent_change *c) MUST_USE;

#endif
