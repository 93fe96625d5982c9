#include "format/intent.h"

enum { INTENT_VERSION = 1 };

void intent_head_write(struct wr *w, uint32_t n)
{
    wr_u8(w, INTENT_VERSION);
    wr_u8(w, 0);
    wr_u16le(w, 0);
    wr_u32le(w, n);
}

void intent_change_write(struct wr *w, const struct intent_change *c)
{
    wr_u8(w, (uint8_t)c->op);
    wr_u8(w, c->kind);
    wr_u8(w, c->class);
    wr_u8(w, c->has_policy);
    wr_u64le(w, c->shard);
    if (!c->has_policy)
        return;
    wr_u32le(w, c->policy.flags);
    wr_u64le(w, (uint64_t)c->policy.retention_ms);
    wr_u64le(w, (uint64_t)c->policy.retention_bytes);
    wr_u64le(w, (uint64_t)c->policy.min_compaction_lag_ms);
    wr_u64le(w, (uint64_t)c->policy.delete_retention_ms);
}

int intent_head_read(struct rd *r, uint32_t *n)
{
    uint8_t version = rd_u8(r);

    rd_bytes(r, 3);
    *n = rd_u32le(r);
    if (!rd_ok(r) || version == 0)
        return E_CORRUPT;
    if (version > INTENT_VERSION)
        return E_VERSION;
    return *n <= rd_left(r) / INTENT_CHANGE_BYTES ? 0 : E_CORRUPT;
}

int intent_change_read(struct rd *r, struct intent_change *c)
{
    uint8_t op = rd_u8(r);
    uint8_t has;

    *c = (struct intent_change){ .op = op };
    c->kind = rd_u8(r);
    c->class = rd_u8(r);
    has = rd_u8(r);
    c->shard = rd_u64le(r);
    c->has_policy = has == 1;
    if (c->has_policy) {
        c->policy.flags = rd_u32le(r);
        c->policy.retention_ms = (int64_t)rd_u64le(r);
        c->policy.retention_bytes = (int64_t)rd_u64le(r);
        c->policy.min_compaction_lag_ms = (int64_t)rd_u64le(r);
        c->policy.delete_retention_ms = (int64_t)rd_u64le(r);
    }
    return rd_ok(r) && has <= 1 && op >= INTENT_CREATE && op <= INTENT_POLICY ? 0 : E_CORRUPT;
}
