#include "format/segfile.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rd.h"

enum {
    INDEX_MAGIC = 0x58444957,  /* "WIDX" */
    FOOTER_MAGIC = 0x52544657, /* "WFTR" */
    RUN_MAGIC = 0x4e555257,    /* "WRUN" */
    INDEX_VERSION = SEG_INDEX_VERSION,
    FOOTER_VERSION = SEG_FOOTER_VERSION,
    FOOTER_DIRECT = 152 + 16 * SEG_MAX_EXTENTS,
    SUM_START = 16
};

size_t seg_index_bytes(uint32_t n_runs, uint32_t n_sparse, uint32_t n_producers)
{
    size_t bytes = SEG_INDEX_HEAD_BYTES + (size_t)n_runs * SEG_RUN_BYTES +
                   (size_t)n_sparse * SEG_SPARSE_BYTES + (size_t)n_producers * SEG_PRODUCER_BYTES;

    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* From version 2 on the version seeds the sum: a flipped bit in it is damage, too. */
static uint64_t sum_of(const uint8_t *mem, size_t bytes, uint16_t version)
{
    return sum_xxh3(mem + SUM_START, bytes - SUM_START, version > 1 ? version : 0);
}

static void sum_put(uint8_t *mem, size_t bytes, uint16_t version)
{
    struct wr w = wr_of(mem + 8, 8);

    wr_u64le(&w, sum_of(mem, bytes, version));
}

static void run_write(struct wr *w, const struct seg_run *r)
{
    wr_u64le(w, r->shard);
    wr_u64le(w, r->base);
    wr_u64le(w, r->end);
    wr_u64le(w, r->pos);
    wr_u64le(w, r->bytes);
    wr_u32le(w, r->n_batches);
    wr_u32le(w, r->n_sparse);
    wr_u32le(w, r->first_sparse);
    wr_u32le(w, 0);
    wr_u64le(w, (uint64_t)r->max_ts);
    wr_u64le(w, r->xxh3);
}

static void producer_write(struct wr *w, const struct seg_producer *p)
{
    wr_u64le(w, p->shard);
    wr_u64le(w, (uint64_t)p->producer);
    wr_u64le(w, p->base);
    wr_u64le(w, (uint64_t)p->max_ts);
    wr_u32le(w, (uint32_t)p->base_sequence);
    wr_u32le(w, (uint32_t)p->last_sequence);
    wr_u16le(w, (uint16_t)p->epoch);
    wr_pad(w, 8);
}

void seg_index_write(const struct seg_index *x, uint8_t *mem)
{
    size_t bytes = seg_index_bytes(x->n_runs, x->n_sparse, x->n_producers);
    uint16_t version = x->version ? x->version : INDEX_VERSION;
    struct wr w = wr_of(mem, bytes);

    wr_u32le(&w, INDEX_MAGIC);
    wr_u16le(&w, version);
    wr_u16le(&w, 0);
    wr_u64le(&w, 0);
    wr_u64le(&w, x->segment);
    wr_u32le(&w, x->n_runs);
    wr_u32le(&w, x->n_sparse);
    wr_u32le(&w, x->n_producers);
    wr_pad(&w, SEG_INDEX_HEAD_BYTES);
    for (uint32_t i = 0; i < x->n_runs; i++)
        run_write(&w, &x->runs[i]);
    for (uint32_t i = 0; i < x->n_sparse; i++) {
        wr_u64le(&w, x->sparse[i].offset);
        wr_u32le(&w, x->sparse[i].pos);
        wr_u32le(&w, version > 1 ? x->sparse[i].sum : 0);
        wr_u64le(&w, (uint64_t)x->sparse[i].max_ts);
    }
    for (uint32_t i = 0; i < x->n_producers; i++)
        producer_write(&w, &x->producers[i]);
    wr_pad(&w, PAGE_BYTES);
    ASSERT(wr_ok(&w) && wr_used(&w) == bytes);
    sum_put(mem, bytes, version);
}

static void runs_read(struct seg_index *x, struct rd *r)
{
    for (uint32_t i = 0; i < x->n_runs; i++) {
        struct seg_run *n = &x->runs[i];

        n->shard = rd_u64le(r);
        n->base = rd_u64le(r);
        n->end = rd_u64le(r);
        n->pos = rd_u64le(r);
        n->bytes = rd_u64le(r);
        n->n_batches = rd_u32le(r);
        n->n_sparse = rd_u32le(r);
        n->first_sparse = rd_u32le(r);
        rd_u32le(r);
        n->max_ts = (int64_t)rd_u64le(r);
        n->xxh3 = rd_u64le(r);
    }
}

static void sparse_read(struct seg_index *x, struct rd *r)
{
    for (uint32_t i = 0; i < x->n_sparse; i++) {
        x->sparse[i].offset = rd_u64le(r);
        x->sparse[i].pos = rd_u32le(r);
        x->sparse[i].sum = rd_u32le(r);
        x->sparse[i].max_ts = (int64_t)rd_u64le(r);
    }
}

static void producers_read(struct seg_index *x, struct rd *r)
{
    for (uint32_t i = 0; i < x->n_producers; i++) {
        struct seg_producer *p = &x->producers[i];

        p->shard = rd_u64le(r);
        p->producer = (int64_t)rd_u64le(r);
        p->base = rd_u64le(r);
        p->max_ts = (int64_t)rd_u64le(r);
        p->base_sequence = (int32_t)rd_u32le(r);
        p->last_sequence = (int32_t)rd_u32le(r);
        p->epoch = (int16_t)rd_u16le(r);
        rd_bytes(r, 6);
    }
}

static bool stretches_make_sense(const struct seg_sparse *list, const struct seg_run *run)
{
    for (uint32_t k = 0; k < run->n_sparse; k++)
        if (list[k].pos >= run->bytes ||
            (k == 0 ? list[k].pos > 0 : list[k].pos <= list[k - 1].pos))
            return false;
    return true;
}

static bool runs_make_sense(const struct seg_index *x)
{
    for (uint32_t i = 0; i < x->n_runs; i++) {
        const struct seg_run *n = &x->runs[i], *before = i ? n - 1 : NULL;

        if (n->base >= n->end || n->n_sparse == 0 || n->first_sparse > x->n_sparse ||
            n->n_sparse > x->n_sparse - n->first_sparse || n->bytes == 0 ||
            n->bytes > UINT64_MAX - n->pos)
            return false;
        if (before &&
            (before->shard > n->shard || (before->shard == n->shard && before->end > n->base)))
            return false;
        if (!stretches_make_sense(&x->sparse[n->first_sparse], n))
            return false;
    }
    return true;
}

static int index_head_read(struct seg_index *x, struct rd *r, const uint8_t *mem, size_t bytes)
{
    uint32_t magic = rd_u32le(r);
    uint16_t version = rd_u16le(r), reserved = rd_u16le(r);
    uint64_t sum;

    sum = rd_u64le(r);
    x->segment = rd_u64le(r);
    x->n_runs = rd_u32le(r);
    x->n_sparse = rd_u32le(r);
    x->n_producers = rd_u32le(r);
    rd_bytes(r, SEG_INDEX_HEAD_BYTES - 36);
    if (!rd_ok(r) || magic != INDEX_MAGIC || sum != sum_of(mem, bytes, version))
        return E_CORRUPT;
    if (version == 0 || version > INDEX_VERSION)
        return version > INDEX_VERSION ? E_VERSION : E_CORRUPT;
    x->version = version;
    return reserved == 0 && seg_index_bytes(x->n_runs, x->n_sparse, x->n_producers) == bytes
               ? 0
               : E_CORRUPT;
}

int seg_index_read(struct seg_index *x, const uint8_t *mem, size_t bytes)
{
    struct rd r = rd_of(mem, bytes);
    int rc;

    *x = (struct seg_index){ 0 };
    rc = index_head_read(x, &r, mem, bytes);
    if (rc < 0)
        return rc;
    x->runs = mem_new((size_t)x->n_runs * sizeof *x->runs + 1);
    x->sparse = mem_new((size_t)x->n_sparse * sizeof *x->sparse + 1);
    x->producers = mem_new((size_t)x->n_producers * sizeof *x->producers + 1);
    runs_read(x, &r);
    sparse_read(x, &r);
    producers_read(x, &r);
    if (rd_ok(&r) && runs_make_sense(x))
        return 0;
    seg_index_free(x);
    return E_CORRUPT;
}

uint64_t seg_index_live(const struct seg_index *x)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < x->n_runs; i++)
        bytes += x->runs[i].bytes;
    return bytes;
}

void seg_index_free(struct seg_index *x)
{
    free(x->runs);
    free(x->sparse);
    free(x->producers);
    *x = (struct seg_index){ 0 };
}

void seg_run_sum(struct seg_index *x, uint32_t i, const uint8_t *mem)
{
    struct seg_run *run = &x->runs[i];

    run->xxh3 = sum_xxh3(mem, run->bytes, 0);
    for (uint32_t k = 0; k < run->n_sparse; k++) {
        struct seg_sparse *n = &x->sparse[run->first_sparse + k];

        n->sum = (uint32_t)(run->n_sparse == 1
                                ? run->xxh3
                                : sum_xxh3(mem + n->pos, seg_stretch_bytes(x, run, k), 0));
    }
}

bool seg_stretch_is(const struct seg_index *x, const struct seg_run *run, uint32_t k,
                    const uint8_t *mem)
{
    uint64_t sum;

#ifdef WEIR_MUTANT_STRANGE_STRETCH
    return true;
#endif
    if (x->version == 1 && run->n_sparse > 1)
        return true;
    sum = sum_xxh3(mem, seg_stretch_bytes(x, run, k), 0);
    return run->n_sparse == 1 ? sum == run->xxh3
                              : (uint32_t)sum == x->sparse[run->first_sparse + k].sum;
}

void seg_run_head_write(const struct seg_run *run, uint64_t segment, uint8_t *mem)
{
    struct wr w = wr_of(mem, SEG_RUN_HEAD_BYTES);

    wr_u32le(&w, RUN_MAGIC);
    wr_u32le(&w, run->n_batches);
    wr_u64le(&w, run->shard);
    wr_u64le(&w, run->base);
    wr_u64le(&w, run->bytes);
    wr_u64le(&w, sum_xxh3(mem, 32, segment));
}

int seg_run_head_read(struct seg_run *run, uint64_t segment, const uint8_t *mem, uint64_t left)
{
    struct rd r = rd_of(mem, left);
    uint32_t magic = rd_u32le(&r);

    *run = (struct seg_run){ 0 };
    run->n_batches = rd_u32le(&r);
    run->shard = rd_u64le(&r);
    run->base = rd_u64le(&r);
    run->bytes = rd_u64le(&r);
    return rd_u64le(&r) == (rd_ok(&r) ? sum_xxh3(mem, 32, segment) : 0) && rd_ok(&r) &&
                   magic == RUN_MAGIC && run->bytes <= rd_left(&r)
               ? 0
               : E_CORRUPT;
}

void seg_footer_write(const struct seg_footer *f, uint8_t *page)
{
    struct wr w = wr_of(page, PAGE_BYTES);
    uint16_t version = f->version ? f->version : FOOTER_VERSION;

    ASSERT(f->n_extents <= SEG_MAX_EXTENTS);
    memset(page, 0, PAGE_BYTES);
    wr_u32le(&w, FOOTER_MAGIC);
    wr_u16le(&w, version);
    wr_u16le(&w, 0);
    wr_u64le(&w, 0);
    wr_bytes(&w, f->store.bytes, sizeof f->store.bytes);
    wr_u64le(&w, f->group);
    wr_u64le(&w, f->segment);
    wr_u64le(&w, f->first_entry);
    wr_u64le(&w, f->last_entry);
    wr_u64le(&w, f->data_bytes);
    wr_u64le(&w, f->index_pos);
    wr_u64le(&w, f->index_bytes);
    wr_u64le(&w, f->n_batches);
    wr_u64le(&w, f->n_offsets);
    wr_u64le(&w, (uint64_t)f->min_ts);
    wr_u64le(&w, (uint64_t)f->max_ts);
    wr_bytes(&w, f->identity.bytes, sizeof f->identity.bytes);
    wr_u64le(&w, (uint64_t)f->created);
    wr_u32le(&w, f->n_extents);
    wr_u32le(&w, 0);
    for (uint32_t i = 0; i < f->n_extents; i++) {
        wr_u64le(&w, f->extents[i].place);
        wr_u32le(&w, f->extents[i].log2);
        wr_u32le(&w, 0);
    }
    w = wr_of(page + FOOTER_DIRECT, 28);
    wr_u64le(&w, f->direct_bytes);
    wr_u64le(&w, f->sorted_pos);
    wr_u64le(&w, f->segment_first);
    wr_u32le(&w, f->flags);
    ASSERT(wr_ok(&w));
    w = wr_of(page + 8, 8);
    wr_u64le(&w, sum_of(page, PAGE_BYTES, version));
}

int seg_footer_read(struct seg_footer *f, const uint8_t *page)
{
    struct rd r = rd_of(page, PAGE_BYTES);
    uint32_t magic = rd_u32le(&r);
    uint16_t version = rd_u16le(&r), reserved = rd_u16le(&r);

    if (magic != FOOTER_MAGIC || rd_u64le(&r) != sum_of(page, PAGE_BYTES, version))
        return E_CORRUPT;
    if (version == 0 || version > FOOTER_VERSION)
        return version > FOOTER_VERSION ? E_VERSION : E_CORRUPT;
    f->version = version;
    memcpy(f->store.bytes, rd_bytes(&r, sizeof f->store.bytes), sizeof f->store.bytes);
    f->group = rd_u64le(&r);
    f->segment = rd_u64le(&r);
    f->first_entry = rd_u64le(&r);
    f->last_entry = rd_u64le(&r);
    f->data_bytes = rd_u64le(&r);
    f->index_pos = rd_u64le(&r);
    f->index_bytes = rd_u64le(&r);
    f->n_batches = rd_u64le(&r);
    f->n_offsets = rd_u64le(&r);
    f->min_ts = (int64_t)rd_u64le(&r);
    f->max_ts = (int64_t)rd_u64le(&r);
    memcpy(f->identity.bytes, rd_bytes(&r, sizeof f->identity.bytes), sizeof f->identity.bytes);
    f->created = (int64_t)rd_u64le(&r);
    f->n_extents = rd_u32le(&r);
    rd_u32le(&r);
    if (reserved != 0 || f->n_extents == 0 || f->n_extents > SEG_MAX_EXTENTS)
        return E_CORRUPT;
    for (uint32_t i = 0; i < f->n_extents; i++) {
        f->extents[i].place = rd_u64le(&r);
        f->extents[i].log2 = rd_u32le(&r);
        rd_u32le(&r);
        if (f->extents[i].log2 < UNIT_LOG2 || f->extents[i].log2 > EXTENT_MAX_LOG2)
            return E_CORRUPT;
    }
    r = rd_of(page + FOOTER_DIRECT, 28);
    f->direct_bytes = rd_u64le(&r);
    f->sorted_pos = rd_u64le(&r);
    f->segment_first = rd_u64le(&r);
    f->flags = rd_u32le(&r);
    return f->index_pos % PAGE_BYTES == 0 && f->data_bytes <= f->index_pos &&
                   f->sorted_pos % PAGE_BYTES == 0 && f->sorted_pos <= f->data_bytes &&
                   f->direct_bytes <= f->sorted_pos
               ? 0
               : E_CORRUPT;
}
