/* journal-ctl stat */
#include <stdio.h>

#include "tools/journal-ctl/ctl.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct emit_column store_columns[] = {
    { "starts", EMIT_NUMBER, false },           { "created", EMIT_TIME, false },
    { "shards", EMIT_NUMBER, false },           { "shards_with_holes", EMIT_NUMBER, false },
    { "shards_read_only", EMIT_NUMBER, false }, { "records", EMIT_NUMBER, false },
    { "groups", EMIT_NUMBER, false },           { "rows", EMIT_NUMBER, false },
    { "rows_bytes", EMIT_BYTES, false },        { "rows_lost", EMIT_BOOL, false },
};
/* amplification: bytes of extents in use over bytes of batches that can be read, in percent. */
static const struct emit_column device_columns[] = {
    { "device", EMIT_NUMBER, false },
    { "slabs", EMIT_NUMBER, false },
    { "space", EMIT_BYTES, false },
    { "free", EMIT_BYTES, false },
    { "wal_space", EMIT_BYTES, false },
    { "segment_live", EMIT_BYTES, false },
    { "segment_dead", EMIT_BYTES, false },
    { "other", EMIT_BYTES, false },
    { "segments", EMIT_NUMBER, false },
    { "wal_extents", EMIT_NUMBER, false },
    { "wal_blocks", EMIT_NUMBER, false },
    { "wal_bytes", EMIT_BYTES, false },
    { "checkpoint_lsn", EMIT_NUMBER, true },
    { "end_lsn", EMIT_NUMBER, true },
    { "amplification_percent", EMIT_NUMBER, false },
};

struct stat_sums {
    uint64_t shards, holes, read_only, records, wal_live;
    uint64_t segments, segment_space, segment_live;
    uint64_t extents, blocks, block_bytes;
    uint64_t rows, rows_bytes;
};

static int sum_shard(void *ctx, const struct inspect_shard *s)
{
    struct stat_sums *sums = ctx;

    sums->shards += !s->catalogue;
    sums->holes += s->n_holes > 0;
    sums->read_only += s->read_only;
    sums->records += s->catalogue ? 0 : s->end - s->start - s->lost;
    sums->wal_live += s->wal_bytes;
    return 0;
}

static int sum_segment(void *ctx, const struct inspect_segment *s)
{
    struct stat_sums *sums = ctx;

    sums->segments++;
    sums->segment_space += s->space;
    sums->segment_live += s->live;
    return 0;
}

static int sum_extent(void *ctx, const struct inspect_extent *x)
{
    ((struct stat_sums *)ctx)->extents++;
    return 0;
}

static int sum_block(void *ctx, const struct block_head *h, const uint8_t *mem,
                     const struct inspect_place *at)
{
    ((struct stat_sums *)ctx)->blocks++;
    ((struct stat_sums *)ctx)->block_bytes += h->block_bytes;
    return 0;
}

static int sum_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    ((struct stat_sums *)ctx)->rows++;
    ((struct stat_sums *)ctx)->rows_bytes += key_bytes + value_bytes;
    return 0;
}

static int sums_make(struct ctl *c, struct stat_sums *sums, struct err *e)
{
    static const struct inspect_wal wal = { sum_extent, sum_block, NULL };
    int rc = inspect_shards(c->in, sum_shard, sums);

    if (rc >= 0)
        rc = inspect_segments(c->in, sum_segment, sums);
    if (rc >= 0)
        rc = inspect_wal(c->in, &wal, sums, e);
    if (rc >= 0)
        rc = inspect_rows_all(c->in, sum_row, sums);
    return rc;
}

int cmd_stat(struct ctl *c, struct err *e)
{
    struct stat_sums s = { 0 };
    struct inspect_info info;
    uint64_t wal_space, used, live;
    int rc = sums_make(c, &s, e);

    if (rc < 0)
        return rc;
    inspect_info(c->in, &info);
    wal_space = s.extents * info.wal_extent;
    used = info.space - info.space_free;
    live = s.segment_live + s.wal_live;
    emit_section(c->emit, "store", store_columns, COUNT(store_columns), true);
    EMIT_ROW(c->emit, C_U64(info.starts), C_I64(info.created), C_U64(s.shards), C_U64(s.holes),
             C_U64(s.read_only), C_U64(s.records), C_U64(info.n_groups), C_U64(s.rows),
             C_U64(s.rows_bytes), C_BOOL(info.rows_lost));
    emit_section(c->emit, "devices", device_columns, COUNT(device_columns), false);
    EMIT_ROW(c->emit, C_U64(0), C_U64(info.n_slabs), C_U64(info.space), C_U64(info.space_free),
             C_U64(wal_space), C_U64(s.segment_live), C_U64(s.segment_space - s.segment_live),
             C_U64(used > wal_space + s.segment_space ? used - wal_space - s.segment_space : 0),
             C_U64(s.segments), C_U64(s.extents), C_U64(s.blocks), C_U64(s.block_bytes),
             C_U64(info.ckpt_lsn), C_U64(info.end_lsn), live ? C_U64(used * 100 / live) : C_NONE);
    return 0;
}
