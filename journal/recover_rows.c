#include "journal/recover_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "format/frame.h"
#include "journal/catalogue.h"
#include "journal/segment_rows.h"
#include "journal/io/dev.h"
#include "journal/live.h"
#include "journal/shard.h"

/* --- rows --- */

int recover_table_scan(struct store *st, enum row_table table,
                       int (*fn)(void *, const void *, size_t, const void *, size_t), void *ctx)
{
    uint8_t key = (uint8_t)table;
    int rc = rows_scan(st->rows, &key, 1, false, fn, ctx);

    return rc < 0 ? rc : 0;
}

int recover_group_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                      size_t value_bytes)
{
    struct recovery *r = ctx;
    struct row_group row;
    struct jrn_group *g;
    uint64_t id;

    if (((const uint8_t *)key)[0] != ROW_GROUP || !row_key_parse(key, key_bytes, &id, NULL))
        return 1;
    g = store_group(r->st, id);
    if (!g || row_group_read(&row, value, value_bytes) < 0)
        return E_CORRUPT;
    g->destaged_lsn = row.destaged_lsn;
    g->destaged_entry = row.last_entry;
    g->destaged_hash = row.last_hash;
    g->destaged_segment = row.segment;
    if (!row.segment.first)
        g->destaged_segment = (struct frame_segment){ .first = row.last_entry + 1 };
    return 0;
}

int recover_loss_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct recovery *r = ctx;
    struct row_loss row;
    struct jrn_group *g;
    uint64_t id, lsn;
    unsigned n = 0;

    if (((const uint8_t *)key)[0] != ROW_LOSS || !row_key_parse(key, key_bytes, &id, &lsn))
        return 1;
    g = store_group(r->st, id);
    if (!g || row_loss_read(&row, value, value_bytes) < 0)
        return E_CORRUPT;
    while (n < g->n_losses && g->losses[n].lsn != lsn)
        n++;
    if (n == g->n_losses) {
        g->losses = mem_grow(g->losses, (n + 1) * sizeof *g->losses);
        g->losses[g->n_losses++] = (struct group_loss){ .lsn = lsn };
    }
    g->losses[n].end_lsn = row.end_lsn;
    g->losses[n].max_offsets = row.max_offsets;
    g->losses[n].accepted = row.accepted;
    g->losses[n].recorded = true;
    return 0;
}

int recover_segment_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    struct recovery *r = ctx;
    struct row_segment *row;
    struct segment *seg;
    uint8_t live_key[ROW_KEY_MAX], *mem;
    uint64_t id;
    size_t bytes;
    int rc;

    if (((const uint8_t *)key)[0] != ROW_SEGMENT || !row_key_parse(key, key_bytes, &id, NULL))
        return 1;
    row = mem_new(sizeof *row);
    rc = row_segment_read(row, value, value_bytes);
    if (rc >= 0) {
        seg = segments_add(&r->st->segments, id, row);
        seg->live = UINT64_MAX; /* not known yet */
        rc = rows_get(r->st->rows, live_key, row_key(live_key, ROW_LIVE, id), &mem, &bytes);
        if (rc >= 0) {
            rc = row_u64_read(&seg->live, mem, bytes);
            free(mem);
        }
    }
    free(row);
    return rc < 0 && rc != E_NOTFOUND ? rc : 0;
}

struct run_filter {
    struct recovery *r;
    uint64_t last, start;
    bool exists;
};

/* Whether a run's shard still exists and has not been trimmed past it. */
static bool run_alive(struct run_filter *f, const struct seg_run *run)
{
    if (run->shard == SHARD_CATALOGUE)
        return true;
    if (run->shard != f->last) {
        uint8_t key[ROW_KEY_MAX], *mem;
        struct row_shard row;
        size_t bytes;

        f->last = run->shard;
        f->exists =
            rows_get(f->r->st->rows, key, row_key(key, ROW_SHARD, run->shard), &mem, &bytes) >= 0;
        if (f->exists) {
            f->exists = row_shard_read(&row, mem, bytes) >= 0;
            f->start = row.start;
            free(mem);
        }
    }
    return f->exists && run->end > f->start;
}

static void producer_rows(struct recovery *r, const struct seg_index *x, uint64_t shard,
                          struct rows_batch *rows)
{
    struct producers p = { 0 };

    for (uint32_t i = 0; i < x->n_producers; i++) {
        const struct seg_producer *n = &x->producers[i];
        struct row_producer_batch b = { n->base, n->max_ts, n->base_sequence, n->last_sequence };
        uint8_t key[ROW_KEY_MAX], *mem;
        struct row_producer before;
        size_t bytes;

        if (n->shard != shard)
            continue;
        if (!hash_get(&p.by_id, (uint64_t)n->producer) &&
            rows_get(r->st->rows, key, row_key2(key, ROW_PRODUCER, shard, (uint64_t)n->producer),
                     &mem, &bytes) >= 0) {
            if (row_producer_read(&before, mem, bytes) >= 0)
                for (unsigned k = 0; k < before.n; k++)
                    producer_note_raw(&p, n->producer, before.epoch, &before.batch[k]);
            free(mem);
        }
        /* Expiry counts from when we saw it; after a rebuild that is now. */
        b.time = loop_wall_ms(r->st->keeper);
        /* One merged from others may hold later batches than the next in line. */
        producer_insert_raw(&p, n->producer, n->epoch, &b);
    }
    producers_save(&p, shard, UINT64_MAX, rows);
    producers_free(&p);
}

static void end_row(struct recovery *r, const struct seg_run *run, struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX], *mem;
    uint64_t end = 0;
    size_t bytes;

    if (rows_get(r->st->rows, key, row_key(key, ROW_END, run->shard), &mem, &bytes) >= 0) {
        if (row_u64_read(&end, mem, bytes) < 0)
            end = 0;
        free(mem);
    }
    if (run->end > end)
        rows_batch_put(rows, key, row_key(key, ROW_END, run->shard), value,
                       row_u64_write(run->end, value));
}

/* Of several runs over the same offsets the one in the segment with the highest number holds: a
 * segment that was made of older ones (rewritten, compacted) has their runs, and their own are dead,
 * or are not there any more. */
struct overlap {
    struct recovery *r;
    const struct seg_run *run;
    uint64_t segment;
    uint64_t from; /* base of the first row that may overlap */
    struct rows_batch *rows;
    bool dead; /* a newer one is there */
};

static void overlap_live(struct overlap *o, const struct row_run *old)
{
    struct segment *seg = hash_get(&o->r->st->segments.by_id, old->segment);

    if (seg && seg->live != UINT64_MAX) /* gone, or not filled yet */
        live_subtract_one(seg, old->bytes, o->rows);
}

/* Finds the row before the run. */
static int overlap_before(void *ctx, const void *key, size_t key_bytes, const void *value,
                          size_t value_bytes)
{
    struct overlap *o = ctx;
    uint64_t base;

    if (row_key_of(key, key_bytes, ROW_RUN, o->run->shard, &base))
        o->from = base;
    return 1;
}

static int overlap_newer(void *ctx, const void *key, size_t key_bytes, const void *value,
                         size_t value_bytes)
{
    struct overlap *o = ctx;
    struct row_run other;
    uint64_t base;

    if (!row_key_of(key, key_bytes, ROW_RUN, o->run->shard, &base) || base >= o->run->end)
        return 1;
    if (row_run_read(&other, value, value_bytes) < 0)
        return E_CORRUPT;
    o->dead = other.end > o->run->base && other.segment > o->segment;
    return o->dead;
}

static int overlap_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct overlap *o = ctx;
    struct row_run old;
    uint64_t base;

    if (!row_key_of(key, key_bytes, ROW_RUN, o->run->shard, &base) || base >= o->run->end)
        return 1;
    if (row_run_read(&old, value, value_bytes) < 0)
        return E_CORRUPT;
    if (old.end <= o->run->base)
        return 0;
    rows_batch_delete(o->rows, key, key_bytes);
    if (old.segment != o->segment)
        overlap_live(o, &old);
    return 0;
}

/* Takes the rows of what the run stands for away; 1: it is dead itself. */
static int overlaps_delete(struct recovery *r, const struct segment *seg, const struct seg_run *run,
                           struct rows_batch *rows)
{
    struct overlap o = { r, run, seg->id, run->base, rows, false };
    uint8_t key[ROW_KEY_MAX];
    size_t bytes = row_key2(key, ROW_RUN, run->shard, run->base);
    int rc = rows_scan(r->st->rows, key, bytes, true, overlap_before, &o);

    bytes = row_key2(key, ROW_RUN, run->shard, o.from);
    if (rc >= 0)
        rc = rows_scan(r->st->rows, key, bytes, false, overlap_newer, &o);
    if (rc >= 0 && !o.dead)
        rc = rows_scan(r->st->rows, key, bytes, false, overlap_row, &o);
    return rc < 0 ? rc : o.dead;
}

/* Makes the derived rows of one segment from its index. */
static int segment_rows(struct recovery *r, struct segment *seg, const struct seg_index *x)
{
    struct run_filter f = { .r = r };
    struct seg_index alive = { .segment = seg->id };
    struct rows_batch rows = { 0 };
    uint64_t shard = 0;
    int rc = 0;

    alive.runs = mem_new((x->n_runs + 1) * sizeof *alive.runs);
    seg->live = 0;
    for (uint32_t i = 0; rc >= 0 && i < x->n_runs; i++) {
        if (!run_alive(&f, &x->runs[i]))
            continue;
        rc = overlaps_delete(r, seg, &x->runs[i], &rows);
        if (rc != 0)
            continue;
        alive.runs[alive.n_runs++] = x->runs[i];
        seg->live += x->runs[i].bytes;
        end_row(r, &x->runs[i], &rows);
        if (x->runs[i].shard != shard)
            producer_rows(r, x, x->runs[i].shard, &rows);
        shard = x->runs[i].shard;
    }
    segment_run_rows(seg->id, &alive, &rows);
    if (rc >= 0)
        rc = rows_write(r->st->rows, &rows, 0);
    free(alive.runs);
    rows_batch_free(&rows);
    return rc;
}

static int by_entry(const void *a, const void *b)
{
    const struct segment *x = *(struct segment *const *)a, *y = *(struct segment *const *)b;

    /* By the last: one that was written to directly may name a first that an older one has. */
    return x->row.last_entry < y->row.last_entry ? -1 : x->row.last_entry > y->row.last_entry;
}

/* Whether an extent of the segment belongs to somebody else by now. Beside a server, one that has
 * been deleted since looks so. */
static bool segment_is_taken(struct recovery *r, const struct segment *seg)
{
    struct store *st = r->st;
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    bool taken = false;

    for (unsigned i = 0; page && !taken && i < seg->row.n_extents; i++) {
        const struct seg_extent *x = &seg->row.extents[i];
        struct dev_file *file = slabs_file(&st->slabs, x->place, x->log2);
        struct extent_head h;

        taken = file && dev_read(st->dev, file, place_pos(x->place), page->mem, PAGE_BYTES) >= 0 &&
                extent_head_read(&h, page->mem) >= 0 &&
                (h.kind != EXTENT_SEGMENT || h.segment != seg->id);
    }
    buf_unref(page);
    return taken;
}

static int segment_fill(struct recovery *r, struct segment *seg)
{
    const struct seg_index *x;
    int rc = segment_index(&r->st->segments, seg, &x);

    if (rc >= 0)
        return segment_rows(r, seg, x);
    if (rc != E_CORRUPT)
        return rc;
    r->todo->n_taken += segment_is_taken(r, seg);
    LOG_ERROR("segment.index_lost", F_INT("segment", seg->id), F_ERR(rc));
    return 0;
}

/* Loads the index of every segment that the rows know nothing of (its record was replayed, or the
 * rows were lost), oldest first, so
 * that producers end with their latest batches. */
int recover_segments_fill(struct recovery *r)
{
    size_t n = 0, count = r->st->segments.by_id.count;
    struct segment **list = mem_new((count + 1) * sizeof(*list));
    uint64_t pos = 0;
    void *value;
    int rc = 0;

    while (hash_next(&r->st->segments.by_id, &pos, NULL, &value))
        if (((struct segment *)value)->live == UINT64_MAX)
            list[n++] = value;
    qsort(list, n, sizeof(*list), by_entry);
    for (size_t i = 0; rc >= 0 && i < n; i++)
        rc = segment_fill(r, list[i]);
    free(list);
    return rc;
}

static int newest_first(const void *a, const void *b)
{
    const struct segment *x = *(struct segment *const *)a, *y = *(struct segment *const *)b;

    return x->id > y->id ? -1 : x->id < y->id;
}

/* Marks a segment's extents; on a conflict takes its own marks back. */
static int segment_mark(struct recovery *r, const struct row_segment *row)
{
    for (unsigned i = 0; i < row->n_extents; i++) {
        if (slabs_mark(&r->st->slabs, row->extents[i].place, row->extents[i].log2) >= 0)
            continue;
        while (i-- > 0)
            slabs_give(&r->st->slabs, row->extents[i].place, row->extents[i].log2);
        return E_CORRUPT;
    }
    return 0;
}

/* Marks what segments lie in. When rot has taken the record of a segment's deletion its extents may
 * have gone to another since: the newer owner is right, and the older segment is as gone as its
 * record said. */
void recover_segments_mark(struct recovery *r)
{
    struct segments *t = &r->st->segments;
    struct segment **list = mem_new((t->by_id.count + 1) * sizeof(*list));
    struct recover_todo *todo = r->todo;
    uint64_t pos = 0;
    size_t n = 0;
    void *value;

    while (hash_next(&t->by_id, &pos, NULL, &value))
        list[n++] = value;
    qsort(list, n, sizeof(*list), newest_first);
    for (size_t i = 0; i < n; i++) {
        struct segment *seg = list[i];

        if (segment_mark(r, &seg->row) < 0) {
            LOG_ERROR("segment.overwritten", F_INT("segment", seg->id),
                      F_INT("group", seg->row.group));
            segments_remove(t, seg->id, false);
        } else if (seg->live == 0) {
            todo->dead_segments =
                mem_grow(todo->dead_segments, (todo->n_dead + 1) * sizeof(uint64_t));
            todo->dead_segments[todo->n_dead++] = seg->id;
        }
    }
    free(list);
}
