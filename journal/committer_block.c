/* Laying out a block: which appends are in it, their order, frames, placements. */
#include <stdlib.h>
#include <string.h>

#include "format/batch.h"
#include "format/frame.h"
#include "journal/committer_int.h"

static void group_begin(struct committer *c, struct jrn_group *g)
{
    if (g->in_block_end)
        return;
    g->in_block = NULL;
    g->in_block_end = &g->in_block;
    g->n_in_block = 0;
    g->bytes_in_block = g->bytes_all = 0;
    c->in_block = mem_grow(c->in_block, (c->n_in_block + 1) * sizeof(*c->in_block));
    c->in_block[c->n_in_block++] = g;
}

/* What a block holds, or would. */
struct content {
    uint64_t items, body_bytes, direct, direct_bytes;
    unsigned n_groups;
};

static uint64_t block_bytes(const struct committer *c, const struct content *n)
{
    uint64_t body = block_frames_pos(n->n_groups, c->n_prev, 0) + n->items * FRAME_ITEM_BYTES +
                    n->body_bytes + n->n_groups * (uint64_t)(FRAME_HEAD_BYTES + FRAME_ALIGN * 2);

    if (n->direct > 0)
        body += BLOCK_PLACEMENT_BYTES *
                committer_direct_placements(c, n->direct, n->direct_bytes, n->n_groups);
    return (body + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

uint64_t committer_empty_block(const struct committer *c)
{
    return block_bytes(c, &(struct content){ 0 });
}

/* The frame holds of a direct batch its header alone. */
static uint32_t body_bytes(const struct append *a)
{
    return a->direct ? BATCH_HEAD_BYTES : a->bytes;
}

static struct content content_with(const struct committer *c, const struct content *now,
                                   const struct append *a)
{
    struct content n = *now;

    n.n_groups = c->n_in_block + (a->group->in_block_end ? 0 : 1);
    n.items++;
    n.body_bytes += body_bytes(a);
    n.direct += a->direct;
    n.direct_bytes += a->direct ? a->bytes : 0;
    return n;
}

/* Whether the block stays within its bounds. */
static bool content_fits(const struct committer *c, const struct content *n)
{
    return block_bytes(c, n) <= c->st->conf.block_max && n->items <= MAX_ITEMS &&
           (n->direct <= 1 || n->direct_bytes <= committer_direct_max(c));
}

uint64_t committer_gather(struct committer *c)
{
    struct content now = { 0 };

    while (c->taken) {
        struct append *a = c->taken;
        struct jrn_group *g = a->group;
        struct content with = now;

        if (a->batch)
            with = content_with(c, &now, a);
        if (a->batch && now.items > 0 && !content_fits(c, &with))
            break;
        c->taken = a->next;
        a->next = NULL;
        if (!a->batch) {
            *c->barriers_end = a;
            c->barriers_end = &a->next;
            continue;
        }
        group_begin(c, g);
        *g->in_block_end = a;
        g->in_block_end = &a->next;
        g->n_in_block++;
        g->bytes_in_block += body_bytes(a);
        g->bytes_all += a->bytes;
        now = with;
    }
    if (!c->taken)
        c->taken_end = &c->taken;
    c->n_direct = (uint32_t)now.direct;
    c->direct_bytes = now.direct_bytes;
    return now.items ? block_bytes(c, &now) : 0;
}

static int by_shard(const void *x, const void *y)
{
    const struct append *a = *(struct append *const *)x, *b = *(struct append *const *)y;

    if (a->shard_id != b->shard_id)
        return a->shard_id < b->shard_id ? -1 : 1;
    return a->base_offset < b->base_offset ? -1 : a->base_offset > b->base_offset;
}

/* Puts the group's part in (shard, offset) order, so that what one frame holds of a shard is one
 * run. */
static void sort_group(struct committer *c, struct jrn_group *g)
{
    uint32_t n = 0;
    bool sorted = true;

    for (struct append *a = g->in_block; a; a = a->next) {
        c->order[n++] = a;
        if (n > 1 && by_shard(&c->order[n - 2], &c->order[n - 1]) > 0)
            sorted = false;
    }
    if (sorted)
        return;
    qsort(c->order, n, sizeof(*c->order), by_shard);
    g->in_block = c->order[0];
    for (uint32_t i = 0; i < n; i++)
        c->order[i]->next = i + 1 < n ? c->order[i + 1] : NULL;
}

static uint32_t add_saturating(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* One item of the frame at mem. */
static void item_make(const struct append *a, uint8_t *mem, uint32_t i)
{
    struct frame_item item = { .shard = a->shard_id,
                               .base_offset = a->base_offset,
                               .n_offsets = a->n_offsets,
                               .bytes = a->bytes,
                               .kind = a->direct ? ITEM_DIRECT : ITEM_INLINE,
                               .xxh3 = a->direct ? a->xxh3 : 0 };

    frame_item_write(&item, mem, i);
}

/* The frame of that entry is in the group's present segment, and perhaps its last: that follows from
 * the log alone, whatever lane its batches take. */
static bool segment_advance(struct jrn_group *g, uint64_t entry)
{
    const struct journal_conf *conf = &g->st->conf;
    bool cut;

#ifdef WEIR_MUTANT_CUT_BY_LANE
    g->bytes_all = g->bytes_in_block;
#endif
    g->segment.bytes += g->bytes_all;
    cut = g->segment.bytes >= conf->segment_bytes ||
          (conf->segment_entries && entry - g->segment.first + 1 >= conf->segment_entries);
    if (cut)
        g->segment = (struct frame_segment){ .first = entry + 1 };
    return cut;
}

/* The bodies of a run, from first to before end, at `at` of the block; its hash while its bytes are in
 * this core's cache. Gives where they end. */
static uint32_t run_make(const struct committer *c, struct append *first, const struct append *end,
                         uint8_t *mem, uint32_t at)
{
    uint32_t start = at;

    for (struct append *a = first; a != end; a = a->next) {
        memcpy(mem + at, a->batch->mem + a->at, body_bytes(a));
        batch_stamp(mem + at, (int64_t)a->base_offset, (int32_t)a->group->epoch);
        a->lsn = c->lsn + at;
        at += body_bytes(a);
    }
    if (!first->direct)
        first->xxh3 = sum_xxh3(mem + start, at - start, 0);
    return at;
}

/* Writes one group's frame at pos of the block and its row of the directory. */
static void frame_make(struct committer *c, struct jrn_group *g, struct block_dir *d, uint8_t *mem,
                       uint32_t pos)
{
    struct frame_head h = {
        .flags = g->restart ? FRAME_RESTART : 0,
        .group = g->id,
        .epoch = g->epoch,
        .entry = g->last_entry + 1,
        .prev_hash = g->restart ? 0 : g->last_hash,
        .lac = g->durable_entry,
        .append_time = c->block_time,
        .n_items = g->n_in_block,
        .bytes = (uint32_t)frame_bytes(g->n_in_block, g->bytes_in_block),
        .segment = g->segment,
    };
    uint32_t at = pos + FRAME_HEAD_BYTES + h.n_items * FRAME_ITEM_BYTES, i = 0, offsets = 0;

    g->cut = segment_advance(g, h.entry);
    h.flags |= g->cut ? FRAME_CUT : 0;
    frame_head_write(&h, mem + pos);
    for (struct append *a = g->in_block, *end; a; a = end) {
        end = append_run_end(a);
        at = run_make(c, a, end, mem, at);
        for (const struct append *in = a; in != end; in = in->next) {
            item_make(in, mem + pos, i++);
            offsets = add_saturating(offsets, in->n_offsets);
        }
    }
    memset(mem + at, 0, pos + h.bytes - at);
    *d = (struct block_dir){ .group = g->id,
                             .epoch = g->epoch,
                             .entry = h.entry,
                             .pos = pos,
                             .bytes = h.bytes,
                             .n_offsets = offsets,
                             .hash = sum_xxh3(mem + pos, h.bytes, 0) };
    c->extent_data = c->extent_data || g->id != GROUP_CATALOGUE;
    g->last_entry = h.entry;
    g->last_hash = d->hash;
    g->restart = false;
}

/* Where the direct batches went, in the order of their items; behind them the extents. */
static void placements_make(struct committer *c, uint8_t *mem, uint32_t n_frames, uint32_t n_prev)
{
    uint32_t k = 0;

    for (unsigned i = 0; i < c->n_in_block; i++) {
        for (const struct append *a = c->in_block[i]->in_block; a; a = a->next) {
            struct block_placement p = { a->shard_id, a->base_offset, a->segment, a->pos,
                                         a->bytes };

            if (a->direct)
                block_placement_write(&p, mem, n_frames, n_prev, k++);
        }
    }
    ASSERT(k == c->n_direct);
    for (unsigned i = 0; i < c->n_touched; i++)
        block_placement_write(&c->touched[i], mem, n_frames, n_prev, k++);
}

void committer_block_make(struct committer *c, uint64_t room, uint32_t flags)
{
    struct buf *b = buf_new_aligned(room);
    struct block_head h = { .store = c->st->super.store,
                            .incarnation = c->incarnation,
                            .lsn = c->lsn,
                            .prev_hash = c->prev_hash,
                            .prev_lsn = c->prev_lsn,
                            .durable_lsn = c->durable_lsn,
                            .next_place = c->next_place,
                            .n_frames = c->n_in_block,
                            .n_prev = c->n_prev,
                            .n_placements = c->n_direct + c->n_touched,
                            .flags = flags,
                            .written = c->block_time };
    uint32_t start = block_frames_pos(h.n_frames, h.n_prev, h.n_placements), pos;

    ASSERT(b); /* one block is in flight: this is a few MiB at most */
    for (uint32_t i = 0; i < c->n_prev; i++)
        block_prev_write(&c->prev[i], b->mem, h.n_frames, i);
    pos = (start + FRAME_ALIGN - 1) / FRAME_ALIGN * FRAME_ALIGN;
    memset(b->mem + start, 0, pos - start);
    c->n_prev = 0;
    c->block_batches = 0;
    for (unsigned i = 0; i < c->n_in_block; i++) {
        struct jrn_group *g = c->in_block[i];
        struct block_dir d;

        sort_group(c, g);
        frame_make(c, g, &d, b->mem, pos);
        c->block_batches += g->n_in_block;
        block_dir_write(&d, b->mem, i);
        if (c->n_prev < MAX_PREV)
            c->prev[c->n_prev++] = (struct block_prev){ g->id, d.entry, d.n_offsets };
        pos += d.bytes;
    }
    placements_make(c, b->mem, h.n_frames, h.n_prev);
    h.body_bytes = pos;
    h.block_bytes = (pos + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    ASSERT(h.block_bytes <= b->cap);
    memset(b->mem + pos, 0, h.block_bytes - pos);
    block_head_write(&h, c->salt, b->mem);
    b->len = h.block_bytes;
    c->prev_hash = h.hash;
    c->prev_lsn = h.lsn;
    c->block = b;
    c->block_lsn = c->lsn;
    c->lsn += h.block_bytes;
    for (unsigned i = 0; i < c->n_in_block; i++) {
        const struct jrn_group *g = c->in_block[i];

        if (!g->cut)
            continue;
        wal_cut(&c->st->wal, g->id, g->last_entry, c->lsn);
        committer_direct_cut(c, g);
    }
}

void committer_ungather(struct committer *c)
{
    struct append *all = NULL, **end = &all;

    for (unsigned i = 0; i < c->n_in_block; i++) {
        struct jrn_group *g = c->in_block[i];

        *end = g->in_block;
        end = g->in_block_end;
        g->in_block = NULL;
        g->in_block_end = NULL;
    }
    c->n_in_block = 0;
    c->n_direct = 0;
    c->direct_bytes = 0;
    if (c->barriers) {
        *end = c->barriers;
        end = c->barriers_end;
        c->barriers = NULL;
        c->barriers_end = &c->barriers;
    }
    if (!all)
        return;
    *end = c->taken;
    if (!c->taken)
        c->taken_end = end;
    c->taken = all;
}
