#include "format/row.h"

#include <string.h>

#include "base/rd.h"
#include "format/sum.h"

enum {
    ROW_VERSION = 1,
    ROW_GROUP_VERSION = 2,
    ROW_SHARD_POLICY_VERSION = 2,
    ROW_SEGMENT_VERSION = 3 /* its footer has version 2 */
};

size_t row_key(uint8_t *key, enum row_table table, uint64_t a)
{
    key[0] = (uint8_t)table;
    put_u64be(key + 1, a);
    return 9;
}

size_t row_key2(uint8_t *key, enum row_table table, uint64_t a, uint64_t b)
{
    row_key(key, table, a);
    put_u64be(key + 9, b);
    return 17;
}

bool row_key_parse(const void *key, size_t bytes, uint64_t *a, uint64_t *b)
{
    const uint8_t *k = key;

    if (bytes != 9 && bytes != 17)
        return false;
    *a = get_u64be(k + 1);
    if (b)
        *b = bytes == 17 ? get_u64be(k + 9) : 0;
    return true;
}

bool row_key_of(const void *key, size_t bytes, enum row_table table, uint64_t a, uint64_t *b)
{
    uint64_t first;

    return ((const uint8_t *)key)[0] == (uint8_t)table && row_key_parse(key, bytes, &first, b) &&
           first == a;
}

size_t row_index_name(uint8_t *name, const void *key, size_t bytes)
{
    struct sum128_state *state;
    struct sum128 sum;

    if (bytes <= ROW_NAME_PLAIN) {
        if (bytes)
            memcpy(name, key, bytes);
        return bytes;
    }
    state = sum128_new();
    sum128_add(state, key, bytes);
    sum = sum128_end(state);
    memcpy(name, key, ROW_NAME_PLAIN);
    memcpy(name + ROW_NAME_PLAIN, sum.bytes, sizeof sum.bytes);
    return ROW_NAME_MAX;
}

size_t row_key_name(uint8_t *key, uint64_t shard, const void *name, size_t bytes)
{
    ASSERT(bytes <= ROW_NAME_MAX);
    row_key(key, ROW_NAME, shard);
    if (bytes)
        memcpy(key + 9, name, bytes);
    return 9 + bytes;
}

bool row_key_is_name(const void *key, size_t bytes, uint64_t shard)
{
    const uint8_t *k = key;

    return bytes >= 9 && bytes <= ROW_NAME_KEY_MAX && k[0] == ROW_NAME && get_u64be(k + 1) == shard;
}

static struct wr begin(uint8_t *mem)
{
    struct wr w = wr_of(mem, ROW_VALUE_MAX);

    wr_u8(&w, ROW_VERSION);
    return w;
}

static size_t end(const struct wr *w)
{
    ASSERT(wr_ok(w));
    return wr_used(w);
}

static int open_value(struct rd *r, const void *mem, size_t bytes)
{
    uint8_t version;

    *r = rd_of(mem, bytes);
    version = rd_u8(r);
    return !rd_ok(r) || version == 0 ? E_CORRUPT : version > ROW_VERSION ? E_VERSION : 0;
}

static int close_value(const struct rd *r)
{
    return rd_ok(r) && rd_left(r) == 0 ? 0 : E_CORRUPT;
}

size_t row_group_write(const struct row_group *v, uint8_t *mem)
{
    struct wr w = wr_of(mem, ROW_VALUE_MAX);

    wr_u8(&w, v->segment.first ? ROW_GROUP_VERSION : ROW_VERSION);
    wr_u8(&w, v->class);
    wr_u16le(&w, 0);
    wr_u64le(&w, v->destaged_lsn);
    wr_u64le(&w, v->last_entry);
    wr_u64le(&w, v->last_hash);
    if (v->segment.first) {
        wr_u64le(&w, v->segment.first);
        wr_u64le(&w, v->segment.bytes);
    }
    return end(&w);
}

int row_group_read(struct row_group *v, const void *mem, size_t bytes)
{
    struct rd r = rd_of(mem, bytes);
    uint8_t version = rd_u8(&r);

    if (!rd_ok(&r) || version == 0)
        return E_CORRUPT;
    if (version > ROW_GROUP_VERSION)
        return E_VERSION;
    v->class = rd_u8(&r);
    rd_u16le(&r);
    v->destaged_lsn = rd_u64le(&r);
    v->last_entry = rd_u64le(&r);
    v->last_hash = rd_u64le(&r);
    v->segment = (struct frame_segment){ 0 };
    if (version == ROW_GROUP_VERSION) {
        v->segment.first = rd_u64le(&r);
        v->segment.bytes = rd_u64le(&r);
        if (v->segment.first == 0)
            return E_CORRUPT; /* one that does not say is written in version 1 */
    }
    return close_value(&r);
}

size_t row_shard_write(const struct row_shard *v, uint8_t *mem)
{
    struct wr w = wr_of(mem, ROW_VALUE_MAX);

    wr_u8(&w, v->policy.flags ? ROW_SHARD_POLICY_VERSION : ROW_VERSION);
    wr_u8(&w, v->kind);
    wr_u8(&w, v->class);
    wr_u8(&w, 0);
    wr_u64le(&w, v->group);
    wr_u64le(&w, v->start);
    wr_u64le(&w, (uint64_t)v->created);
    if (v->policy.flags) {
        wr_u32le(&w, v->policy.flags);
        wr_u32le(&w, 0);
        wr_u64le(&w, (uint64_t)v->policy.retention_ms);
        wr_u64le(&w, (uint64_t)v->policy.retention_bytes);
        wr_u64le(&w, (uint64_t)v->policy.min_compaction_lag_ms);
        wr_u64le(&w, (uint64_t)v->policy.delete_retention_ms);
    }
    return end(&w);
}

int row_shard_read(struct row_shard *v, const void *mem, size_t bytes)
{
    struct rd r = rd_of(mem, bytes);
    uint8_t version = rd_u8(&r);

    if (!rd_ok(&r) || version == 0)
        return E_CORRUPT;
    if (version > ROW_SHARD_POLICY_VERSION)
        return E_VERSION;
    v->policy = (struct row_policy){ 0 };
    v->kind = rd_u8(&r);
    v->class = rd_u8(&r);
    rd_u8(&r);
    v->group = rd_u64le(&r);
    v->start = rd_u64le(&r);
    v->created = (int64_t)rd_u64le(&r);
    if (version == ROW_SHARD_POLICY_VERSION) {
        v->policy.flags = rd_u32le(&r);
        rd_u32le(&r);
        v->policy.retention_ms = (int64_t)rd_u64le(&r);
        v->policy.retention_bytes = (int64_t)rd_u64le(&r);
        v->policy.min_compaction_lag_ms = (int64_t)rd_u64le(&r);
        v->policy.delete_retention_ms = (int64_t)rd_u64le(&r);
        if (v->policy.flags == 0)
            return E_CORRUPT; /* without a policy it is written in version 1 */
    }
    return close_value(&r);
}

size_t row_segment_write(const struct row_segment *v, uint8_t *mem)
{
    struct wr w = wr_of(mem, ROW_VALUE_MAX);
    uint8_t version = v->version ? v->version : SEG_FOOTER_VERSION;

    if (v->segment_first)
        version = ROW_SEGMENT_VERSION;
    wr_u8(&w, version);
    wr_u8(&w, v->segment_first ? v->flags : 0);
    wr_u16le(&w, v->n_extents);
    wr_u64le(&w, v->group);
    wr_u64le(&w, v->first_entry);
    wr_u64le(&w, v->last_entry);
    wr_u64le(&w, v->data_bytes);
    wr_u64le(&w, v->index_pos);
    wr_u64le(&w, v->index_bytes);
    wr_u64le(&w, v->n_batches);
    wr_u64le(&w, (uint64_t)v->min_ts);
    wr_u64le(&w, (uint64_t)v->max_ts);
    wr_bytes(&w, v->identity.bytes, sizeof v->identity.bytes);
    wr_u64le(&w, (uint64_t)v->created);
    if (version > 1) {
        wr_u64le(&w, v->direct_bytes);
        wr_u64le(&w, v->sorted_pos);
    }
    if (v->segment_first)
        wr_u64le(&w, v->segment_first);
    for (unsigned i = 0; i < v->n_extents; i++) {
        wr_u64le(&w, v->extents[i].place);
        wr_u32le(&w, v->extents[i].log2);
    }
    return end(&w);
}

int row_segment_read(struct row_segment *v, const void *mem, size_t bytes)
{
    struct rd r = rd_of(mem, bytes);
    const uint8_t *identity;
    uint8_t version = rd_u8(&r);

    if (!rd_ok(&r) || version == 0)
        return E_CORRUPT;
    if (version > ROW_SEGMENT_VERSION)
        return E_VERSION;
    v->version = version < ROW_SEGMENT_VERSION ? version : SEG_FOOTER_VERSION;
    v->flags = rd_u8(&r);
    v->n_extents = rd_u16le(&r);
    v->group = rd_u64le(&r);
    v->first_entry = rd_u64le(&r);
    v->last_entry = rd_u64le(&r);
    v->data_bytes = rd_u64le(&r);
    v->index_pos = rd_u64le(&r);
    v->index_bytes = rd_u64le(&r);
    v->n_batches = rd_u64le(&r);
    v->min_ts = (int64_t)rd_u64le(&r);
    v->max_ts = (int64_t)rd_u64le(&r);
    identity = rd_bytes(&r, sizeof v->identity.bytes);
    v->created = (int64_t)rd_u64le(&r);
    v->direct_bytes = v->version > 1 ? rd_u64le(&r) : 0;
    v->sorted_pos = v->version > 1 ? rd_u64le(&r) : 0;
    v->segment_first = version == ROW_SEGMENT_VERSION ? rd_u64le(&r) : 0;
    if (!rd_ok(&r) || v->n_extents > SEG_MAX_EXTENTS ||
        (version == ROW_SEGMENT_VERSION) != (v->segment_first != 0))
        return E_CORRUPT;
    if (v->segment_first == 0)
        v->flags = 0;
    memcpy(v->identity.bytes, identity, sizeof v->identity.bytes);
    for (unsigned i = 0; i < v->n_extents; i++) {
        v->extents[i].place = rd_u64le(&r);
        v->extents[i].log2 = rd_u32le(&r);
    }
    return close_value(&r);
}

size_t row_loss_write(const struct row_loss *v, uint8_t *mem)
{
    struct wr w = begin(mem);

    wr_u8(&w, v->accepted);
    wr_u16le(&w, 0);
    wr_u32le(&w, 0);
    wr_u64le(&w, v->end_lsn);
    wr_u64le(&w, v->max_offsets);
    return end(&w);
}

int row_loss_read(struct row_loss *v, const void *mem, size_t bytes)
{
    struct rd r;
    int rc = open_value(&r, mem, bytes);

    if (rc < 0)
        return rc;
    v->accepted = rd_u8(&r) != 0;
    rd_bytes(&r, 6);
    v->end_lsn = rd_u64le(&r);
    v->max_offsets = rd_u64le(&r);
    return close_value(&r);
}

size_t row_cleaned_write(const struct row_cleaned *v, uint8_t *mem)
{
    struct wr w = begin(mem);

    wr_pad(&w, 8);
    wr_u64le(&w, v->cleaned);
    wr_u64le(&w, v->to);
    wr_u64le(&w, v->done);
    wr_u64le(&w, v->drop_below);
    wr_u64le(&w, v->horizon);
    wr_u64le(&w, (uint64_t)v->horizon_time);
    wr_u64le(&w, (uint64_t)v->time);
    wr_u64le(&w, v->tombstones);
    return end(&w);
}

int row_cleaned_read(struct row_cleaned *v, const void *mem, size_t bytes)
{
    struct rd r;
    int rc = open_value(&r, mem, bytes);

    if (rc < 0)
        return rc;
    rd_bytes(&r, 7);
    v->cleaned = rd_u64le(&r);
    v->to = rd_u64le(&r);
    v->done = rd_u64le(&r);
    v->drop_below = rd_u64le(&r);
    v->horizon = rd_u64le(&r);
    v->horizon_time = (int64_t)rd_u64le(&r);
    v->time = (int64_t)rd_u64le(&r);
    v->tombstones = rd_u64le(&r);
    return close_value(&r);
}

size_t row_run_write(const struct row_run *v, uint8_t *mem)
{
    struct wr w = begin(mem);

    wr_pad(&w, 4);
    wr_u32le(&w, v->n_sparse);
    wr_u64le(&w, v->segment);
    wr_u64le(&w, v->end);
    wr_u64le(&w, v->pos);
    wr_u64le(&w, v->bytes);
    wr_u64le(&w, (uint64_t)v->max_ts);
    wr_u32le(&w, v->first_sparse);
    wr_u32le(&w, v->n_batches);
    wr_u64le(&w, v->xxh3);
    return end(&w);
}

int row_run_read(struct row_run *v, const void *mem, size_t bytes)
{
    struct rd r;
    int rc = open_value(&r, mem, bytes);

    if (rc < 0)
        return rc;
    rd_bytes(&r, 3);
    v->n_sparse = rd_u32le(&r);
    v->segment = rd_u64le(&r);
    v->end = rd_u64le(&r);
    v->pos = rd_u64le(&r);
    v->bytes = rd_u64le(&r);
    v->max_ts = (int64_t)rd_u64le(&r);
    v->first_sparse = rd_u32le(&r);
    v->n_batches = rd_u32le(&r);
    v->xxh3 = rd_u64le(&r);
    return close_value(&r);
}

size_t row_producer_write(const struct row_producer *v, uint8_t *mem)
{
    struct wr w = begin(mem);

    wr_u8(&w, v->n);
    wr_u16le(&w, (uint16_t)v->epoch);
    wr_u32le(&w, 0);
    for (unsigned i = 0; i < v->n; i++) {
        wr_u64le(&w, v->batch[i].base);
        wr_u64le(&w, (uint64_t)v->batch[i].time);
        wr_u32le(&w, (uint32_t)v->batch[i].base_sequence);
        wr_u32le(&w, (uint32_t)v->batch[i].last_sequence);
    }
    return end(&w);
}

int row_producer_read(struct row_producer *v, const void *mem, size_t bytes)
{
    struct rd r;
    int rc = open_value(&r, mem, bytes);

    if (rc < 0)
        return rc;
    v->n = rd_u8(&r);
    v->epoch = (int16_t)rd_u16le(&r);
    rd_u32le(&r);
    if (v->n == 0 || v->n > ROW_PRODUCER_BATCHES)
        return E_CORRUPT;
    for (unsigned i = 0; i < v->n; i++) {
        v->batch[i].base = rd_u64le(&r);
        v->batch[i].time = (int64_t)rd_u64le(&r);
        v->batch[i].base_sequence = (int32_t)rd_u32le(&r);
        v->batch[i].last_sequence = (int32_t)rd_u32le(&r);
    }
    return close_value(&r);
}

size_t row_u64_write(uint64_t v, uint8_t *mem)
{
    struct wr w = begin(mem);

    wr_pad(&w, 8);
    wr_u64le(&w, v);
    return end(&w);
}

int row_u64_read(uint64_t *v, const void *mem, size_t bytes)
{
    struct rd r;
    int rc = open_value(&r, mem, bytes);

    if (rc < 0)
        return rc;
    rd_bytes(&r, 7);
    *v = rd_u64le(&r);
    return close_value(&r);
}
