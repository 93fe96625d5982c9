#include "tests/sim/rot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/block.h"
#include "format/frame.h"
#include "format/row.h"
#include "format/super.h"
#include "journal/core.h"
#include "journal/recover.h"
#include "journal/slab.h"
#include "journal/walscan.h"

/* A look at the store between two lives. */
struct look {
    const struct model *m;
    struct dev *dev;
    struct rows *rows;
    struct dev_file *super_file;
    struct super super;
    struct slabs slabs;
};

static void look_close(struct look *l)
{
    slabs_close(&l->slabs);
    dev_close(l->dev, l->super_file);
    rows_close(l->rows);
    dev_sim_free(l->dev);
}

static bool look_open(struct look *l, struct jrn_sim *js, const struct model *m)
{
    int rc;

    *l = (struct look){ .m = m };
    if (dev_sim_new(&l->dev, js->sim, js->disk) < 0 || rows_sim_open(&l->rows, js->store) < 0)
        model_fail(m, "no device to look at");
    rc = recover_super(l->dev, &l->super_file, &l->super, NULL);
    if (rc >= 0)
        rc = slabs_open(&l->slabs, l->dev, &l->super.store, NULL);
    if (rc < 0)
        look_close(l);
    return rc >= 0;
}

static void flip(const struct model *m, struct jrn_sim *js, uint32_t slab, uint64_t pos)
{
    char name[32];

    snprintf(name, sizeof name, "slab-%06" PRIu32, slab);
    if (sim_disk_rot(js->disk, name, pos) < 0)
        model_fail(m, "%s has no byte %" PRIu64 " to rot", name, pos);
}

/* --- the WAL --- */

struct found_block {
    uint32_t slab;
    uint64_t pos, lsn;
    uint32_t bytes;
    bool full; /* it holds frames */
};
struct found {
    struct found_block *blocks, *extents;
    unsigned n_blocks, n_extents;
    uint32_t slab;
};

static void found_add(struct found_block **list, unsigned *n, struct found_block b)
{
    *list = mem_grow(*list, (*n + 1) * sizeof **list);
    (*list)[(*n)++] = b;
}

static int found_extent(void *ctx, const struct walscan_extent *x)
{
    struct found *f = ctx;

    f->slab = place_slab(x->place);
    found_add(
        &f->extents, &f->n_extents,
        (struct found_block){ f->slab, place_pos(x->place), x->first_lsn, PAGE_BYTES, false });
    return 0;
}

static int found_block(void *ctx, const struct block_head *h, const uint8_t *mem, uint64_t pos)
{
    struct found *f = ctx;

    found_add(&f->blocks, &f->n_blocks,
              (struct found_block){ f->slab, pos, h->lsn, h->block_bytes, h->n_frames > 0 });
    return 0;
}

static int found_rot(void *ctx, uint64_t lsn, uint64_t end_lsn, uint64_t place)
{
    return E_CORRUPT; /* one damage at a time */
}

static bool wal_look(struct look *l, struct found *f)
{
    static const struct walscan_calls calls = { .extent = found_extent,
                                                .block = found_block,
                                                .rot = found_rot };
    struct walscan_end end;

    *f = (struct found){ 0 };
    return walscan_run(l->dev, &l->slabs, &l->super, &calls, f, &end, NULL) >= 0;
}

static struct model_shard *shard_of(struct model *m, uint64_t id)
{
    for (unsigned i = 0; i < m->n_shards; i++)
        if (m->shards[i].id == id)
            return &m->shards[i];
    return NULL;
}

/* What the rows say; they may be ahead of the superblock. */
static uint64_t destaged_lsn(struct look *l, uint64_t group)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    struct row_group row = { 0 };
    size_t bytes;

    if (rows_get(l->rows, key, row_key(key, ROW_GROUP, group), &mem, &bytes) < 0)
        return 0;
    if (row_group_read(&row, mem, bytes) < 0)
        row.destaged_lsn = 0;
    free(mem);
    return row.destaged_lsn;
}

/* What the block holds may be lost. */
static void block_lose(struct look *l, struct model *m, const uint8_t *mem, uint64_t lsn_end,
                       struct rot_report *report)
{
    uint32_t n_frames = (uint32_t)mem[80] | (uint32_t)mem[81] << 8;

    for (uint32_t i = 0; i < n_frames; i++) {
        struct block_dir d;
        struct frame_head f;

        block_dir_read(&d, mem, i);
        if (frame_head_read(&f, mem + d.pos, d.bytes) < 0)
            model_fail(m, "a valid block holds a bad frame");
        if (destaged_lsn(l, d.group) >= lsn_end)
            report->certain = false;
        if (report->n_groups < ROT_GROUPS_MAX)
            report->groups[report->n_groups++] = d.group;
        for (uint32_t k = 0; k < f.n_items; k++) {
            struct frame_item item;
            struct model_shard *s;

            frame_item_read(&item, mem + d.pos, k);
            s = shard_of(m, item.shard);
            if (s)
                model_lose(s, item.base_offset, item.base_offset + item.n_offsets);
            else
                report->catalogue = true;
        }
    }
}

static bool block_has_catalogue(const uint8_t *mem)
{
    uint32_t n_frames = (uint32_t)mem[80] | (uint32_t)mem[81] << 8;
    struct block_dir d;

    for (uint32_t i = 0; i < n_frames; i++) {
        block_dir_read(&d, mem, i);
        if (d.group == GROUP_CATALOGUE)
            return true;
    }
    return false;
}

/* The last block with something in it: an orderly close has written one behind it that says so. */
static unsigned last_full(const struct found *f)
{
    unsigned at = f->n_blocks - 1;

    while (at > 0 && !f->blocks[at].full)
        at--;
    return at;
}

bool rot_wal_block(struct jrn_sim *js, struct rng *r, struct model *m, bool orderly,
                   struct rot_report *report)
{
    struct look l;
    struct found f;
    bool done = false;

    if (!look_open(&l, js, m))
        return false;
    /* The last block of all could as well be a torn tail. */
    if (wal_look(&l, &f) && f.n_blocks > 1) {
        const struct found_block *b =
            &f.blocks[orderly ? last_full(&f) : rng_below(r, f.n_blocks - 1)];
        struct buf *mem = buf_new_aligned(b->bytes);
        struct dev_file *file = slabs_file(&l.slabs, place_of(b->slab, 1), UNIT_LOG2);

        if (file && dev_read(l.dev, file, b->pos, mem->mem, b->bytes) >= 0 &&
            !(rows_replay_lsn(l.rows) < l.super.ckpt_lsn && block_has_catalogue(mem->mem))) {
            report->certain = rows_replay_lsn(l.rows) >= l.super.ckpt_lsn;
            report->end_lsn = b->lsn + b->bytes;
            block_lose(&l, m, mem->mem, b->lsn + b->bytes, report);
            flip(m, js, b->slab, b->pos + rng_below(r, b->bytes));
            done = true;
        }
        buf_unref(mem);
    }
    free(f.blocks);
    free(f.extents);
    look_close(&l);
    return done;
}

/* --- direct batches --- */

/* A batch that a block says to lie in an open segment. */
struct found_direct {
    struct frame_item item;
    struct block_placement at;
    uint64_t group;
    unsigned n;
};

static void directs_look(const struct block_head *h, const uint8_t *mem, struct rng *r,
                         struct found_direct *f)
{
    uint32_t k = 0;

    for (uint32_t i = 0; i < h->n_frames; i++) {
        struct frame_head head;
        struct block_dir d;

        block_dir_read(&d, mem, i);
        if (frame_head_read(&head, mem + d.pos, d.bytes) < 0)
            return;
        for (uint32_t j = 0; j < head.n_items; j++) {
            struct frame_item item;

            frame_item_read(&item, mem + d.pos, j);
            if (item.kind != ITEM_DIRECT)
                continue;
            if (rng_below(r, ++f->n) == 0) {
                f->item = item;
                f->group = d.group;
                block_placement_read(&f->at, h, mem, k);
            }
            k++;
        }
    }
}

/* Where byte pos of the batch's segment lies, by the block's last placements; false when the extent there
 * is not the segment's any more. */
static bool direct_place(struct look *l, const struct block_head *h, const uint8_t *mem,
                         uint64_t segment, uint64_t pos, uint32_t *slab, uint64_t *at)
{
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    bool ours = false;

    for (uint32_t i = h->n_placements; !ours && i-- > 0;) {
        struct block_placement p;
        struct extent_head x;
        struct dev_file *file;

        block_placement_read(&p, h, mem, i);
        if (p.shard != 0)
            break;
        if (p.segment != segment || pos < p.pos || pos - p.pos >= seg_extent_room(p.bytes))
            continue;
        file = slabs_file(&l->slabs, p.base, p.bytes);
        ours = file && dev_read(l->dev, file, place_pos(p.base), page->mem, PAGE_BYTES) >= 0 &&
               extent_head_read(&x, page->mem) >= 0 && x.kind == EXTENT_SEGMENT &&
               x.segment == segment;
        *slab = place_slab(p.base);
        *at = place_pos(p.base) + PAGE_BYTES + (pos - p.pos);
    }
    buf_unref(page);
    return ours;
}

static bool direct_rot(struct look *l, struct jrn_sim *js, struct rng *r, struct model *m,
                       const struct found_block *b, const uint8_t *mem)
{
    struct found_direct f = { .n = 0 };
    struct model_shard *s;
    struct block_head h;
    uint32_t slab;
    uint64_t at;

    for (uint32_t i = 0; i < l->super.n; i++) {
        const struct super_incarnation *x = &l->super.list[i];

        if (block_head_read(&h, &l->super.store, x->incarnation, x->salt, mem, b->bytes) >= 0)
            directs_look(&h, mem, r, &f);
        if (f.n > 0)
            break;
    }
    if (f.n == 0 || destaged_lsn(l, f.group) > b->lsn)
        return false;
    s = shard_of(m, f.item.shard);
    if (!s ||
        !direct_place(l, &h, mem, f.at.segment, f.at.pos + rng_below(r, f.item.bytes), &slab, &at))
        return false;
    model_lose(s, f.item.base_offset, f.item.base_offset + f.item.n_offsets);
    flip(m, js, slab, at);
    return true;
}

bool rot_direct(struct jrn_sim *js, struct rng *r, struct model *m)
{
    struct look l;
    struct found f;
    bool done = false;

    if (!look_open(&l, js, m))
        return false;
    /* That the last block of all was flushed is not proven. */
    if (wal_look(&l, &f) && f.n_blocks > 1) {
        unsigned first = (unsigned)rng_below(r, f.n_blocks - 1);

        for (unsigned i = first; !done && i < f.n_blocks - 1; i++) {
            const struct found_block *b = &f.blocks[i];
            struct buf *mem = buf_new_aligned(b->bytes);
            struct dev_file *file = slabs_file(&l.slabs, place_of(b->slab, 1), UNIT_LOG2);

            if (file && dev_read(l.dev, file, b->pos, mem->mem, b->bytes) >= 0)
                done = direct_rot(&l, js, r, m, b, mem->mem);
            buf_unref(mem);
        }
    }
    free(f.blocks);
    free(f.extents);
    look_close(&l);
    return done;
}

bool rot_wal_head(struct jrn_sim *js, struct rng *r, const struct model *m)
{
    struct look l;
    struct found f;
    bool done = false;

    if (!look_open(&l, js, m))
        return false;
    /* The last extent may hold nothing that tells a lost header from one that was never written. */
    if (wal_look(&l, &f) && f.n_extents > 1) {
        const struct found_block *x = &f.extents[rng_below(r, f.n_extents - 1)];

        flip(m, js, x->slab, x->pos + rng_below(r, PAGE_BYTES));
        done = true;
    }
    free(f.blocks);
    free(f.extents);
    look_close(&l);
    return done;
}

/* --- segments --- */

struct found_run {
    struct row_segment segment;
    uint64_t id, shard, base;
    struct row_run run;
    unsigned n;
    struct rng *r;
    struct rows *rows;
};

static int run_found(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct found_run *f = ctx;
    uint64_t shard, base;

    if (((const uint8_t *)key)[0] != ROW_RUN || !row_key_parse(key, key_bytes, &shard, &base))
        return 1;
    if (shard == SHARD_CATALOGUE || rng_below(f->r, ++f->n) != 0)
        return 0;
    if (row_run_read(&f->run, value, value_bytes) < 0)
        return E_CORRUPT;
    f->shard = shard;
    f->base = base;
    return 0;
}

/* A run of a segment that is there for certain: the row store may be behind, but the place then says otherwise. */
static bool some_run(struct look *l, struct rng *r, struct found_run *f)
{
    uint8_t key[ROW_KEY_MAX] = { ROW_RUN }, *mem;
    size_t bytes;
    int rc;

    *f = (struct found_run){ .r = r, .rows = l->rows };
    if (rows_scan(l->rows, key, 1, false, run_found, f) < 0 || f->n == 0)
        return false;
    f->id = f->run.segment;
    if (rows_get(l->rows, key, row_key(key, ROW_SEGMENT, f->id), &mem, &bytes) < 0)
        return false;
    rc = row_segment_read(&f->segment, mem, bytes);
    free(mem);
    return rc >= 0;
}

/* Where logical byte pos of the segment lies; false when the extent there is not the segment's any more. */
static bool segment_place(struct look *l, const struct found_run *f, uint64_t pos, uint32_t *slab,
                          uint64_t *at)
{
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    struct extent_head h;
    unsigned i = 0;
    struct dev_file *file;
    bool ours;

    while (i < f->segment.n_extents && pos >= seg_extent_room(f->segment.extents[i].log2))
        pos -= seg_extent_room(f->segment.extents[i++].log2);
    if (i == f->segment.n_extents) {
        buf_unref(page);
        return false;
    }
    file = slabs_file(&l->slabs, f->segment.extents[i].place, f->segment.extents[i].log2);
    *slab = place_slab(f->segment.extents[i].place);
    *at = place_pos(f->segment.extents[i].place) + PAGE_BYTES + pos;
    ours = file && dev_read(l->dev, file, *at - pos - PAGE_BYTES, page->mem, PAGE_BYTES) >= 0 &&
           extent_head_read(&h, page->mem) >= 0 && h.kind == EXTENT_SEGMENT && h.segment == f->id;
    buf_unref(page);
    return ours;
}

bool rot_segment_data(struct jrn_sim *js, struct rng *r, struct model *m, uint64_t *segment)
{
    struct look l;
    struct found_run f;
    struct model_shard *s;
    uint32_t slab;
    uint64_t at;
    bool done = false;

    if (!look_open(&l, js, m))
        return false;
    if (some_run(&l, r, &f) && (s = shard_of(m, f.shard)) != NULL &&
        segment_place(&l, &f, f.run.pos + rng_below(r, f.run.bytes), &slab, &at)) {
        model_lose(s, f.base, f.run.end);
        flip(m, js, slab, at);
        *segment = f.id;
        done = true;
    }
    look_close(&l);
    return done;
}

bool rot_segment_rest(struct jrn_sim *js, struct rng *r, const struct model *m, uint64_t *segment)
{
    struct look l;
    struct found_run f;
    uint32_t slab;
    uint64_t at;
    bool done = false;

    if (!look_open(&l, js, m))
        return false;
    if (some_run(&l, r, &f) &&
        segment_place(&l, &f, f.segment.index_pos + rng_below(r, f.segment.index_bytes), &slab,
                      &at)) {
        if (rng_chance(r, 1, 4)) { /* the first extent's header instead */
            slab = place_slab(f.segment.extents[0].place);
            at = place_pos(f.segment.extents[0].place) + rng_below(r, PAGE_BYTES);
        }
        *segment = f.id;
        flip(m, js, slab, at);
        done = true;
    }
    look_close(&l);
    return done;
}

bool rot_super(struct jrn_sim *js, struct rng *r, const struct model *m)
{
    uint64_t copy = rng_below(r, SUPER_COPIES);

    return sim_disk_rot(js->disk, "superblock", copy * SUPER_BYTES + rng_below(r, SUPER_BYTES)) >=
           0;
}
