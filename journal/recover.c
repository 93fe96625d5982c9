#include "journal/recover_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "format/frame.h"
#include "journal/catalogue.h"
#include "journal/destage.h"
#include "journal/devices.h"
#include "journal/group.h"
#include "journal/io/rows_int.h"
#include "journal/shard.h"

/* --- the superblock --- */

static int super_pick(struct dev *dev, struct dev_file *f, struct super *best)
{
    struct buf *b = buf_new_aligned(SUPER_BYTES);
    struct super *one = mem_new(sizeof *one);
    int rc = E_CORRUPT, newer = 0;

    for (unsigned i = 0; b && i < SUPER_COPIES; i++) {
        int r = dev_read(dev, f, (uint64_t)i * SUPER_BYTES, b->mem, SUPER_BYTES);

        if (r >= 0)
            r = super_read(one, b->mem);
        /* Copies are written in pairs: one alone that names another version is damaged. */
        if (r == E_VERSION && ++newer == 2)
            rc = E_VERSION;
        if (r < 0 || rc == E_VERSION || (rc >= 0 && one->generation <= best->generation))
            continue;
        *best = *one;
        rc = 0;
    }
    free(one);
    buf_unref(b);
    return rc;
}

int recover_super(struct dev *dev, struct dev_file **file, struct super *s, struct err *e)
{
    int rc = dev_open(dev, "superblock", file, e);

    if (rc < 0)
        return rc;
    rc = (*file)->bytes < SUPER_COPIES * SUPER_BYTES ? E_CORRUPT : super_pick(dev, *file, s);
    if (rc == E_VERSION)
        return err_set(e, rc, "superblock: this folder was written by a newer version of Weir");
    return rc < 0 ? err_set(e, rc, "superblock: no valid copy among %d", SUPER_COPIES) : 0;
}

/* --- groups that rot has hit --- */

static void loss_add(struct recovery *r, struct jrn_group *g, uint64_t lsn, uint64_t end_lsn,
                     uint64_t max_offsets)
{
    struct group_loss *l;

    for (unsigned i = 0; i < g->n_losses; i++)
        if (g->losses[i].lsn == lsn)
            return;
    g->losses = mem_grow(g->losses, (g->n_losses + 1) * sizeof *g->losses);
    l = &g->losses[g->n_losses++];
    *l = (struct group_loss){ .lsn = lsn, .end_lsn = end_lsn, .max_offsets = max_offsets };
    /* What was lost may have used entries, too: go on above all of them, with a new chain. */
    g->last_entry += (end_lsn - lsn) / PAGE_BYTES + 1;
    g->restart = true;
    LOG_ERROR("wal.rot", F_INT("group", g->id), F_LSN(lsn), F_INT("end_lsn", end_lsn));
}

static uint64_t offsets_bound(uint64_t bytes)
{
    return (bytes / BATCH_HEAD_BYTES + 1) * (uint64_t)BATCH_MAX_RECORDS;
}

static int on_rot(void *ctx, uint64_t lsn, uint64_t end_lsn, uint64_t place)
{
    struct recovery *r = ctx;

    LOG_ERROR("wal.damaged", F_LSN(lsn), F_INT("end_lsn", end_lsn),
              F_INT("slab", place_slab(place)), F_INT("pos", place_pos(place)));
    for (unsigned i = 0; i < r->st->n_groups; i++) {
        /* Rows may be ahead of the superblock: what they have destaged is not needed here. The catalogue's own batches are in the rows
         * only where a checkpoint says so: the record of a destage may itself have been replayed. */
        if (end_lsn <= r->st->groups[i]->destaged_lsn &&
            (i != GROUP_CATALOGUE || end_lsn <= rows_replay_lsn(r->st->rows))) {
            r->st->groups[i]->last_hash = 0; /* its chain is taken up behind the damage */
            continue;
        }
        if (!r->suspects[i])
            r->suspects[i] = lsn;
        r->suspect_end[i] = end_lsn;
    }
    r->after_rot = true;
    r->rot_lsn = lsn;
    r->rot_end = end_lsn;
    return 0;
}

static void suspect_clear(struct recovery *r, unsigned i)
{
    r->suspects[i] = 0;
}

static void suspect_hit(struct recovery *r, unsigned i, uint64_t max_offsets)
{
    loss_add(r, r->st->groups[i], r->suspects[i], r->suspect_end[i], max_offsets);
    r->suspects[i] = 0;
}

/* The first block after rot tells what the one before it held: groups that it names with more than
 * we have were hit; when only that one
 * block was lost, all others were not. The opening block of an incarnation names every group. */
static void prev_statements(struct recovery *r, const struct block_head *h, const uint8_t *mem)
{
    bool one_lost = r->after_rot && h->prev_lsn == r->rot_lsn;
    bool all = (h->flags & BLOCK_OPENING) != 0;

    for (uint32_t i = 0; i < h->n_prev; i++) {
        struct block_prev p;
        struct jrn_group *g;

        block_prev_read(&p, mem, h->n_frames, i);
        g = p.group < r->st->n_groups ? r->st->groups[p.group] : NULL;
        if (!g || !r->suspects[p.group])
            continue;
        /* A group with nothing in the live WAL may have a number that only its row knows. */
        if (p.last_entry > g->last_entry && p.last_entry > r->known_entries[p.group]) {
            suspect_hit(r, (unsigned)p.group,
                        one_lost && p.n_offsets != UINT32_MAX
                            ? p.n_offsets
                            : offsets_bound(r->suspect_end[p.group] - r->suspects[p.group]));
            g->last_entry = p.last_entry;
        } else {
            suspect_clear(r, (unsigned)p.group);
        }
    }
    for (unsigned i = 0; (one_lost || all) && i < r->st->n_groups; i++)
        if (r->suspects[i] == r->rot_lsn || all)
            suspect_clear(r, i);
    r->after_rot = false;
}

/* --- frames --- */

/* Deletions and trims that were replayed: what segments hold of those shards is reaped once we
 * serve. */
static void note_shard_change(struct recovery *r, const struct rows_change *c)
{
    struct recover_todo *t = r->todo;
    struct row_shard row;
    uint64_t shard;

    if (c->key[0] != ROW_SHARD || !row_key_parse(c->key, c->key_bytes, &shard, NULL))
        return;
    if (c->op == ROWS_DELETE) {
        t->deleted = mem_grow(t->deleted, (t->n_deleted + 1) * sizeof *t->deleted);
        t->deleted[t->n_deleted++] = shard;
    } else if (row_shard_read(&row, c->value, c->value_bytes) >= 0 && row.start > 0) {
        t->trimmed = mem_grow(t->trimmed, (t->n_trimmed + 1) * sizeof *t->trimmed);
        t->trimmed[t->n_trimmed][0] = shard;
        t->trimmed[t->n_trimmed++][1] = row.start;
    }
}

/* Rows may be ahead of the log: then a record that is replayed says less of a group than they do. What was destaged stays so, also where
 * the log has lost the record that said it. */
static void group_keep(struct recovery *r, const struct rows_change *c, struct rows_batch *keep)
{
    struct row_group now, before;
    uint8_t *mem;
    size_t bytes;

#ifdef WEIR_MUTANT_GROUP_BACK
    return;
#endif
    if (c->key[0] != ROW_GROUP || c->op == ROWS_DELETE ||
        rows_get(r->st->rows, c->key, c->key_bytes, &mem, &bytes) < 0)
        return;
    if (row_group_read(&now, c->value, c->value_bytes) >= 0 &&
        row_group_read(&before, mem, bytes) >= 0 && before.destaged_lsn > now.destaged_lsn)
        rows_batch_put(keep, c->key, c->key_bytes, mem, bytes);
    free(mem);
}

int recover_catalogue_item(struct recovery *r, const uint8_t *mem, size_t bytes)
{
    struct rows_batch rows = { 0 }, keep = { 0 };
    struct rows_change c;
    size_t at = 0;
    int rc = catalogue_batch_rows(mem, bytes, &rows);

    while (rc >= 0 && rows_batch_next(&rows, &at, &c)) {
        note_shard_change(r, &c);
        group_keep(r, &c, &keep);
    }
    rows_batch_append(&rows, &keep);
    if (rc >= 0)
        rc = rows_write(r->st->rows, &rows, 0);
    rows_batch_free(&rows);
    rows_batch_free(&keep);
    return rc;
}

/* One run: items first .. (before end) of one shard, lying back to back at lsn; or one direct item,
 * with its header there. */
static int run_apply(struct recovery *r, struct jrn_group *g, struct shard *s, int64_t time,
                     const uint8_t *frame, uint32_t first, uint32_t end, const uint8_t *mem,
                     uint64_t lsn, struct index_direct *direct)
{
    struct index_entry n = { .lsn = lsn, .max_ts = INT64_MIN, .direct = direct };
    struct frame_item item;

    frame_item_read(&item, frame, first);
    n.base = item.base_offset;
    for (uint32_t i = first; i < end; i++) {
        struct batch_head h;

        frame_item_read(&item, frame, i);
        if (item.base_offset != n.base + n.n_offsets ||
            batch_head_read(&h, mem + n.bytes, item.bytes) < 0 || h.bytes != item.bytes)
            return E_CORRUPT;
        producer_note(&s->producers, &h, item.base_offset, time);
        n.n_offsets += item.n_offsets;
        n.bytes += item.bytes;
        if (h.max_timestamp > n.max_ts)
            n.max_ts = h.max_timestamp;
    }
    s->last_lsn = lsn;
    if (!direct)
        n.xxh3 = sum_xxh3(mem, n.bytes, 0);
    index_add(&s->index, &n);
    group_dirty(g, s);
    return 0;
}

static int items_apply(struct recovery *r, struct jrn_group *g, const struct frame_head *f,
                       const uint8_t *frame, uint64_t lsn)
{
    uint32_t at = FRAME_HEAD_BYTES + f->n_items * FRAME_ITEM_BYTES, i = 0;
    int rc = 0;

    while (rc >= 0 && i < f->n_items) {
        struct frame_item item, next;
        struct index_direct direct;
        uint32_t first = i, bytes = 0;
        bool is_direct;

        frame_item_read(&item, frame, i);
        is_direct = item.kind == ITEM_DIRECT;
        if (is_direct) {
            rc = recover_open_item(r, g, &item, &direct);
            bytes = frame_item_body(&item);
            i++;
        }
        for (; i < f->n_items && !is_direct; i++) {
            frame_item_read(&next, frame, i);
            if (next.shard != item.shard || next.kind != ITEM_INLINE)
                break;
            if (item.shard == SHARD_CATALOGUE) {
                rc = recover_catalogue_item(r, frame + at + bytes, next.bytes);
                if (rc < 0)
                    return rc;
            }
            bytes += next.bytes;
        }
        if (rc >= 0)
            rc = run_apply(r, g, recover_shard(r, g, item.shard), f->append_time, frame, first, i,
                           frame + at, lsn + at, is_direct ? &direct : NULL);
        at += bytes;
    }
    return rc;
}

/* Where the group's log stands behind this frame. One that was written before the log said so goes
 * on with what is known. */
static void segment_follow(struct recovery *r, struct jrn_group *g, const struct frame_head *f,
                           const uint8_t *frame)
{
    if (f->segment.first)
        g->segment = f->segment;
    else if (!g->segment.first)
        g->segment.first = f->entry;
    for (uint32_t i = 0; i < f->n_items; i++) {
        struct frame_item item;

        frame_item_read(&item, frame, i);
        g->segment.bytes += item.bytes;
    }
#ifdef WEIR_MUTANT_CUT_FORGOTTEN
    return;
#endif
    if (!(f->flags & FRAME_CUT))
        return;
    g->segment = (struct frame_segment){ .first = f->entry + 1 };
    wal_cut(&r->st->wal, g->id, f->entry, r->head->lsn + r->head->block_bytes);
}

static int frame_apply(struct recovery *r, const struct block_dir *d, const uint8_t *frame,
                       uint64_t lsn)
{
    struct frame_head f;
    struct jrn_group *g = store_group(r->st, d->group);
    int rc = frame_head_read(&f, frame, d->bytes);

    if (rc < 0)
        return rc;
    if (!g || f.group != d->group || f.entry != d->entry)
        return E_CORRUPT;
    if (f.epoch > g->epoch)
        g->epoch = f.epoch;
    if (r->suspects[d->group]) {
        if (f.entry == g->last_entry + 1 && f.prev_hash == g->last_hash)
            suspect_clear(r, (unsigned)d->group);
        else
            suspect_hit(r, (unsigned)d->group,
                        offsets_bound(r->suspect_end[d->group] - r->suspects[d->group]));
    } else if (g->last_entry && g->last_hash && !(f.flags & FRAME_RESTART) && !g->restart &&
               (f.entry != g->last_entry + 1 || f.prev_hash != g->last_hash)) {
        return E_CORRUPT;
    }
    g->last_entry = f.entry;
    g->last_hash = d->hash;
    g->restart = false;
    segment_follow(r, g, &f, frame);
    return items_apply(r, g, &f, frame, lsn);
}

static int on_block(void *ctx, const struct block_head *h, const uint8_t *mem, uint64_t pos)
{
    struct recovery *r = ctx;
    int rc = 0;

    r->head = h;
    r->block = mem;
    r->placement = 0;
    prev_statements(r, h, mem);
    for (uint32_t i = 0; rc >= 0 && i < h->n_frames; i++) {
        struct block_dir d;

        block_dir_read(&d, mem, i);
        rc = frame_apply(r, &d, mem + d.pos, h->lsn + d.pos);
        if (rc < 0)
            LOG_ERROR("wal.frame_refused", F_LSN(h->lsn), F_INT("group", d.group),
                      F_INT("entry", d.entry), F_ERR(rc));
    }
    return rc < 0 ? rc : recover_open_extents(r);
}

static int on_extent(void *ctx, const struct walscan_extent *x)
{
    struct recovery *r = ctx;

    if (x->head_damaged)
        LOG_ERROR("wal.extent_head_damaged", F_LSN(x->first_lsn),
                  F_INT("slab", place_slab(x->place)), F_INT("pos", place_pos(x->place)));
    wal_add(&r->st->wal, x->place, x->incarnation, x->salt, x->first_lsn);
    r->st->wal.list[r->st->wal.n - 1]->head_damaged = x->head_damaged;
    r->extent_lsn = x->first_lsn;
    return slabs_mark(&r->st->slabs, x->place, r->st->wal_log2);
}

static int on_extent_end(void *ctx, uint64_t end_lsn)
{
    struct recovery *r = ctx;
    struct store *st = r->st;
    struct wal_mark *marks = mem_new(st->n_groups * sizeof *marks);

    for (unsigned i = 0; i < st->n_groups; i++)
        /* Behind rot the chain is not known: hash 0. The log is then taken up at the next frame, whatever it follows. */
        marks[i] =
            (struct wal_mark){ i, st->groups[i]->last_entry,
                               r->suspects[i] || st->groups[i]->restart ? 0
                                                                        : st->groups[i]->last_hash,
                               st->groups[i]->segment };
    wal_end(&st->wal, end_lsn, marks, st->n_groups);
    return 0;
}

/* --- after the scan --- */

static int max_shard_load(struct store *st)
{
    uint8_t key = ROW_MAX_SHARD, *mem;
    uint64_t max = SHARD_FIRST_USER - 1;
    size_t bytes;
    int rc = rows_get(st->rows, &key, 1, &mem, &bytes);

    if (rc >= 0) {
        rc = row_u64_read(&max, mem, bytes);
        free(mem);
    }
    atomic_store(&st->max_shard, max);
    return rc == E_NOTFOUND ? 0 : rc;
}

static bool operator_accepts(const struct store *st, uint64_t group)
{
    for (unsigned i = 0; i < st->conf.n_accept_loss; i++)
        if (st->conf.accept_loss[i] == ((uint64_t)st->super.device << DEVICE_SHIFT | group))
            return true;
    return false;
}

static void loss_row(struct recovery *r, struct jrn_group *g, const struct group_loss *l)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    struct row_loss row = { .accepted = l->accepted,
                            .end_lsn = l->end_lsn,
                            .max_offsets = l->max_offsets };

    rows_batch_put(&r->todo->rows, key, row_key2(key, ROW_LOSS, g->id, l->lsn), value,
                   row_loss_write(&row, value));
}

/* The shard in memory; NULL when it does not exist (deleted, or about to be). */
static int shard_at(struct recovery *r, uint64_t id, struct shard **out)
{
    struct shard *s = shard_find(r->st, id);
    int rc = 0;

    if (!s) {
        rc = shard_load(r->st, id, &s);
        if (rc >= 0)
            s = shard_publish(s);
    }
    *out = rc < 0 ? NULL : s;
    if (s)
        shard_unref(s); /* the table holds it */
    return rc == E_NOTFOUND ? 0 : rc;
}

struct accept_scan {
    struct recovery *r;
    struct jrn_group *g;
    const struct group_loss *loss;
};

/* A shard of an accepted group goes on above every offset that may have been used. */
static int accept_shard(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    struct accept_scan *a = ctx;
    struct row_shard row;
    struct shard *s;
    uint64_t id;
    int rc;

    if (((const uint8_t *)key)[0] != ROW_SHARD || !row_key_parse(key, key_bytes, &id, NULL))
        return 1;
    if (row_shard_read(&row, value, value_bytes) < 0)
        return E_CORRUPT;
    if (row.group != a->g->id || row.kind == SHARD_MEMORY) /* it had nothing in the log */
        return 0;
    rc = shard_at(a->r, id, &s);
    if (rc < 0 || !s || s->last_lsn >= a->loss->end_lsn)
        return rc < 0 ? rc : 0;
    recover_hole_add(a->r, id, s->next, s->next + a->loss->max_offsets);
    s->next += a->loss->max_offsets;
    atomic_store(&s->end, s->next);
    group_dirty(a->g, s);
    return 0;
}

static int losses_settle(struct recovery *r, struct jrn_group *g)
{
    bool accept = operator_accepts(r->st, g->id), open = false;
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < g->n_losses; i++) {
        struct group_loss *l = &g->losses[i];

        if (!l->accepted && accept) {
            struct accept_scan a = { r, g, l };

            rc = recover_table_scan(r->st, ROW_SHARD, accept_shard, &a);
            l->accepted = true;
            l->recorded = false;
            LOG_WARN("wal.loss_accepted", F_INT("group", g->id), F_LSN(l->lsn));
        }
        if (!l->recorded)
            loss_row(r, g, l);
        open = open || !l->accepted;
    }
    if (open)
        LOG_ERROR("group.read_only",
                  F_INT("group", (uint64_t)r->st->super.device << DEVICE_SHIFT | g->id),
                  F_STR("why", "stored entries are damaged; see journal-ctl verify, and "
                               "journal.accept_loss"));
    atomic_store(&g->read_only, open);
    return rc;
}

static int catalogue_shard_open(struct store *st)
{
    struct shard *s = shard_make(st, SHARD_CATALOGUE);
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;
    int rc;

    s->group = st->groups[GROUP_CATALOGUE];
    rc = rows_get(st->rows, key, row_key(key, ROW_END, SHARD_CATALOGUE), &mem, &bytes);
    if (rc >= 0) {
        uint64_t end = 0;

        rc = row_u64_read(&end, mem, bytes);
        free(mem);
        s->next = end;
        atomic_store(&s->end, end);
    }
    st->catalogue_shard = shard_publish(s);
    return rc == E_NOTFOUND ? 0 : rc;
}

static const struct walscan_calls calls = { on_extent, on_extent_end, on_block, on_rot };

static int scan(struct recovery *r, struct walscan_end *end)
{
    struct store *st = r->st;
    int rc;

    for (unsigned i = 0; i < st->n_groups; i++) {
        st->groups[i]->last_entry = st->groups[i]->destaged_entry;
        st->groups[i]->last_hash = st->groups[i]->destaged_hash;
        st->groups[i]->segment = st->groups[i]->destaged_segment;
    }
    rc = walscan_run(st->dev, &st->slabs, &st->super, &calls, r, end, r->e);
    for (unsigned i = 0; rc >= 0 && i < st->n_groups; i++)
        if (r->suspects[i])
            suspect_hit(r, i, offsets_bound(r->suspect_end[i] - r->suspects[i]));
    return rc;
}

/* The group rows say where the logs stood at the checkpoint only if they were written by it: a
 * later one may have been flushed ahead, and
 * after a rebuild the latest is still in the WAL. */
static int groups_at_checkpoint(struct recovery *r)
{
    struct store *st = r->st;
    int rc = recover_table_scan(st, ROW_GROUP, recover_group_row, r);

    for (unsigned i = 0; rc >= 0 && i < st->n_groups; i++) {
        struct jrn_group *g = st->groups[i];

        r->known_entries[i] = g->destaged_entry;
        if (g->destaged_lsn != st->super.ckpt_lsn) {
            g->destaged_entry = 0; /* unknown: the chain is taken up at the first frame seen */
            g->destaged_hash = 0;
            g->destaged_segment = (struct frame_segment){ 0 };
        }
    }
    return rc;
}

/* Extents that end before the first frame of a group that was seen say of it what its row says. */
static void marks_settle(struct store *st, const struct jrn_group *g)
{
    for (unsigned i = 0; i < st->wal.n; i++)
        for (unsigned k = 0; k < st->wal.list[i]->n_marks; k++) {
            struct wal_mark *m = &st->wal.list[i]->marks[k];

            if (m->group != g->id)
                continue;
            if (m->last_entry < g->destaged_entry || !m->segment.first)
                m->segment = g->destaged_segment;
            if (m->last_entry < g->destaged_entry) {
                m->last_entry = g->destaged_entry;
                m->last_hash = g->destaged_hash;
            }
        }
}

/* A group with nothing in the live WAL goes on from where its row says that it stood. */
static void groups_after_scan(struct store *st)
{
    for (unsigned i = 0; i < st->n_groups; i++) {
        struct jrn_group *g = st->groups[i];

        if (g->last_entry < g->destaged_entry) {
            g->last_entry = g->destaged_entry;
            g->last_hash = g->destaged_hash;
            g->segment = g->destaged_segment;
        }
        if (!g->segment.first)
            g->segment.first = g->last_entry + 1;
        if (!g->destaged_segment.first)
            g->destaged_segment.first = g->destaged_entry + 1;
        marks_settle(st, g);
        g->durable_entry = g->last_entry;
    }
}

/* What the rows say to be destaged was durable. A log that ends before it has lost its end (a flush that
 * lied, pages that were read as they once were). What is written now must lie above that, or it would
 * be taken for destaged. */
static void end_settle(struct recovery *r, struct walscan_end *end)
{
    struct store *st = r->st;
    uint64_t known = rows_replay_lsn(st->rows);

    for (unsigned i = 0; i < st->n_groups; i++)
        if (st->groups[i]->destaged_lsn > known)
            known = st->groups[i]->destaged_lsn;
    if (end->lsn >= known)
        return;
    LOG_ERROR("wal.ends_early", F_LSN(end->lsn), F_INT("end_lsn", known));
    for (unsigned i = 0; i < st->n_groups; i++) {
        st->groups[i]->last_entry += (known - end->lsn) / PAGE_BYTES + 1;
        st->groups[i]->restart = true;
        st->groups[i]->durable_entry = st->groups[i]->last_entry;
    }
    end->lsn = known;
}

static int recover_steps(struct recovery *r, struct walscan_end *end)
{
    struct store *st = r->st;
    int rc = 0;

    if (rows_replay_lsn(st->rows) < st->super.ckpt_lsn)
        rc = recover_rows_rebuild(r);
    if (rc >= 0)
        rc = catalogue_shard_open(st);
    if (rc >= 0)
        rc = groups_at_checkpoint(r);
    if (rc >= 0)
        rc = scan(r, end);
    if (rc >= 0)
        rc = recover_table_scan(st, ROW_GROUP, recover_group_row, r);
    if (rc >= 0) {
        groups_after_scan(st);
        end_settle(r, end);
    }
    if (rc >= 0)
        rc = recover_table_scan(st, ROW_LOSS, recover_loss_row, r);
    if (rc >= 0)
        rc = recover_table_scan(st, ROW_SEGMENT, recover_segment_row, r);
    if (rc >= 0)
        rc = recover_segments_fill(r);
    if (rc >= 0) {
        recover_open_mark(r);
        recover_segments_mark(r);
        recover_open_publish(r);
    }
    if (rc >= 0)
        rc = recover_shards_settle(r);
    if (rc >= 0)
        rc = max_shard_load(st);
    for (unsigned i = 0; rc >= 0 && i < st->n_groups; i++)
        rc = losses_settle(r, st->groups[i]);
    if (rc >= 0 && rows_replay_lsn(st->rows) < st->super.ckpt_lsn) {
        struct rows_batch none = { 0 };

        rc = rows_write(st->rows, &none, st->super.ckpt_lsn); /* rebuilt: they stand for it now */
    }
    return rc;
}

int recover_run(struct store *st, struct walscan_end *end, struct recover_todo *todo, struct err *e)
{
    struct recovery r = { .st = st, .todo = todo, .e = e };
    struct err local = { 0 };
    int rc;

    if (!e)
        r.e = &local;
    r.suspects = mem_new(st->n_groups * sizeof *r.suspects);
    r.suspect_end = mem_new(st->n_groups * sizeof *r.suspect_end);
    r.known_entries = mem_new(st->n_groups * sizeof *r.known_entries);
    rc = recover_steps(&r, end);
    free(r.suspects);
    free(r.suspect_end);
    free(r.known_entries);
    recover_open_free(&r);
    if (rc < 0 && r.e->code >= 0)
        err_set(r.e, rc, "recovery: %s", err_text(rc));
    return rc;
}

void recover_todo_free(struct recover_todo *t)
{
    rows_batch_free(&t->rows);
    free(t->deleted);
    free(t->trimmed);
    free(t->dead_segments);
    *t = (struct recover_todo){ 0 };
}
