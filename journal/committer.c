#include "journal/committer.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "format/block.h"
#include "format/frame.h"
#include "journal/group.h"
#include "journal/io/dev.h"
#include "journal/stats.h"

enum { MAX_PREV = 4096, MAX_ITEMS = 65536, COMMIT_SPREAD = 3 };

struct committer {
    struct store *st;
    struct loop *loop;
    /* any thread, under lock */
    pthread_mutex_t lock;
    struct append *queue, **queue_end;
    bool wake_posted, gone;
    bool starved;      /* no extent will come any more */
    uint64_t given[4]; /* extents the keeper has given */
    unsigned n_given;
    /* committer */
    struct task wake;
    struct append *taken, **taken_end; /* out of the queue, not yet in a block */
    bool in_flight;
    uint64_t incarnation, salt, extent_no;
    uint64_t place, next_place, prev_place;
    uint64_t extent_lsn; /* first LSN of the present extent */
    uint64_t lsn;        /* where the next block goes */
    uint64_t durable_lsn;
    uint64_t prev_hash, prev_lsn; /* of the block before */
    bool extent_new;              /* its header is not written yet */
    bool closing_written;
    uint64_t before_incarnation, before_end_lsn, before_end_hash;
    struct block_prev *prev; /* what the last block held */
    uint32_t n_prev;
    struct jrn_group **in_block; /* groups with something in the block being made */
    unsigned n_in_block;
    struct append *barriers, **barriers_end;
    struct append **order; /* scratch for sorting a frame */
    /* in flight */
    struct dev_req req;
    struct dev_io io[2];
    struct dev_file *sync[2];
    struct buf *block, *head_page;
    uint64_t block_lsn;
    int64_t block_time;
    uint64_t block_began_us;
    uint32_t block_batches;
    struct loop_timer idle;
    struct task close;
    struct loop *close_loop;
    struct task *close_asked;
    struct task *close_task; /* committer */
};

static void wake_run(struct task *t);
static void pump(struct committer *c);
static void idle_fire(struct loop_timer *t);
static void written(struct dev_req *r);

struct committer *committer_new(struct store *st)
{
    struct committer *c = mem_new(sizeof *c);

    c->st = st;
    c->loop = st->env.commit_loop;
    pthread_mutex_init(&c->lock, NULL);
    c->queue_end = &c->queue;
    c->taken_end = &c->taken;
    c->barriers_end = &c->barriers;
    c->wake.run = wake_run;
    c->idle.fire = idle_fire;
    c->place = c->next_place = PLACE_NONE;
    c->prev = mem_new(MAX_PREV * sizeof *c->prev);
    c->order = mem_new(MAX_ITEMS * sizeof(*c->order));
    return c;
}

void committer_free(struct committer *c)
{
    if (!c)
        return;
    ASSERT(!c->in_flight && !c->queue && !c->taken);
    pthread_mutex_destroy(&c->lock);
    free(c->in_block);
    free(c->prev);
    free(c->order);
    free(c);
}

unsigned committer_spare(struct committer *c)
{
    unsigned n;

    pthread_mutex_lock(&c->lock);
    n = c->n_given + (c->next_place != PLACE_NONE);
    pthread_mutex_unlock(&c->lock);
    return n;
}

void committer_push(struct committer *c, struct append *first, struct append **end)
{
    bool wake;

    pthread_mutex_lock(&c->lock);
    *c->queue_end = first;
    c->queue_end = end;
    wake = !c->wake_posted;
    c->wake_posted = true;
    pthread_mutex_unlock(&c->lock);
    if (wake)
        loop_post(c->loop, &c->wake);
}

static void wake(struct committer *c)
{
    bool post;

    pthread_mutex_lock(&c->lock);
    post = !c->wake_posted && !c->gone;
    c->wake_posted = c->wake_posted || post;
    pthread_mutex_unlock(&c->lock);
    if (post)
        loop_post(c->loop, &c->wake);
}

/* --- extents --- */

void committer_feed(struct committer *c)
{
    struct store *st = c->st;
    uint64_t place;
    bool hungry;

    pthread_mutex_lock(&c->lock);
    hungry = c->n_given == 0;
    pthread_mutex_unlock(&c->lock);
    /* Once the close is on its way, nothing may wake the committer: it is freed soon. */
    if (!hungry || c->close_asked || slabs_take(&st->slabs, st->wal_log2, &place) < 0)
        return;
    pthread_mutex_lock(&c->lock);
    c->given[c->n_given++] = place;
    pthread_mutex_unlock(&c->lock);
    wake(c);
}

void committer_starve(struct committer *c)
{
    bool tell;

    pthread_mutex_lock(&c->lock);
    tell = !c->starved && c->n_given == 0;
    c->starved = c->starved || tell;
    pthread_mutex_unlock(&c->lock);
    if (tell)
        wake(c);
}

static bool is_starved(struct committer *c)
{
    bool starved;

    pthread_mutex_lock(&c->lock);
    starved = c->starved && c->n_given == 0;
    pthread_mutex_unlock(&c->lock);
    return starved;
}

static void space_check(struct store *st, void *arg)
{
    store_space_check(st);
}

static uint64_t extent_left(const struct committer *c)
{
    return wal_room(&c->st->wal) - (c->lsn - c->extent_lsn);
}

/* Where each group's log stands, for destage to record when the extent is left behind. */
static struct wal_mark *marks_now(struct committer *c, unsigned *n)
{
    struct store *st = c->st;
    struct wal_mark *marks = mem_new(st->n_groups * sizeof *marks);

    *n = st->n_groups;
    for (unsigned i = 0; i < st->n_groups; i++)
        marks[i] = (struct wal_mark){ st->groups[i]->id, st->groups[i]->last_entry,
                                      st->groups[i]->restart ? 0 : st->groups[i]->last_hash };
    return marks;
}

/* Goes on to the next extent; false when the one after it is not known yet. */
static bool extent_next(struct committer *c)
{
    uint64_t after = PLACE_NONE;
    struct wal_mark *marks;
    unsigned n;

    pthread_mutex_lock(&c->lock);
    if (c->n_given > 0)
        after = c->given[--c->n_given];
    pthread_mutex_unlock(&c->lock);
    if (after == PLACE_NONE) {
        store_on_keeper(c->st, space_check, c);
        return false;
    }
    marks = marks_now(c, &n);
    wal_end(&c->st->wal, c->lsn, marks, n);
    c->prev_place = c->place;
    c->place = c->next_place;
    c->next_place = after;
    c->extent_no++;
    c->extent_lsn = c->lsn;
    c->extent_new = true;
    wal_add(&c->st->wal, c->place, c->incarnation, c->salt, c->lsn);
    store_on_keeper(c->st, space_check,
                    c); /* one extent is always wanted in hand, and destage may be due */
    return true;
}

static void extent_head_make(struct committer *c, uint8_t *page)
{
    struct extent_head h = {
        .kind = EXTENT_WAL,
        .store = c->st->super.store,
        .place = c->place,
        .log2 = c->st->wal_log2,
        .incarnation = c->incarnation,
        .salt = c->salt,
        .number = c->extent_no,
        .first_lsn = c->extent_lsn,
        .prev_hash = c->prev_hash,
        .prev_place = c->prev_place,
        .next_place = c->next_place,
        .before_incarnation = c->before_incarnation,
        .before_end_lsn = c->before_end_lsn,
        .before_end_hash = c->before_end_hash,
    };

    extent_head_write(&h, page);
}

/* --- making a block --- */

static void take_queue(struct committer *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->queue) {
        *c->taken_end = c->queue;
        c->taken_end = c->queue_end;
        c->queue = NULL;
        c->queue_end = &c->queue;
    }
    pthread_mutex_unlock(&c->lock);
}

static void group_begin(struct committer *c, struct jrn_group *g)
{
    if (g->in_block_end)
        return;
    g->in_block = NULL;
    g->in_block_end = &g->in_block;
    g->n_in_block = 0;
    g->bytes_in_block = 0;
    c->in_block = mem_grow(c->in_block, (c->n_in_block + 1) * sizeof(*c->in_block));
    c->in_block[c->n_in_block++] = g;
}

/* Bytes that the block would have with what is in it now plus one item of `bytes`. */
static uint64_t block_bytes_with(const struct committer *c, uint64_t items, uint64_t bytes,
                                 unsigned n_groups)
{
    uint64_t body = block_frames_pos(n_groups, c->n_prev, 0) + items * FRAME_ITEM_BYTES + bytes +
                    n_groups * (uint64_t)(FRAME_HEAD_BYTES + FRAME_ALIGN * 2);

    return (body + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* Moves appends from taken into the groups' parts of the block, up to block_max (one batch at
 * least). Returns the bytes that the
 * block may need at most; 0: nothing to write. */
static uint64_t gather(struct committer *c)
{
    uint64_t bytes = 0, items = 0, need = 0;

    while (c->taken) {
        struct append *a = c->taken;
        struct jrn_group *g = a->shard->group;
        unsigned n_groups = c->n_in_block + (g->in_block_end ? 0 : 1);
        uint64_t with = block_bytes_with(c, items + 1, bytes + a->bytes, n_groups);

        if (a->batch && items > 0 && (with > c->st->conf.block_max || items == MAX_ITEMS))
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
        g->bytes_in_block += a->bytes;
        items++;
        bytes += a->bytes;
        need = with;
    }
    if (!c->taken)
        c->taken_end = &c->taken;
    return need;
}

static int by_shard(const void *x, const void *y)
{
    const struct append *a = *(struct append *const *)x, *b = *(struct append *const *)y;

    if (a->shard->id != b->shard->id)
        return a->shard->id < b->shard->id ? -1 : 1;
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
    };
    uint32_t at = pos + FRAME_HEAD_BYTES + h.n_items * FRAME_ITEM_BYTES, i = 0, offsets = 0;

    frame_head_write(&h, mem + pos);
    for (struct append *a = g->in_block; a; a = a->next, i++) {
        struct frame_item item = { .shard = a->shard->id,
                                   .base_offset = a->base_offset,
                                   .n_offsets = a->n_offsets,
                                   .bytes = a->bytes,
                                   .kind = ITEM_INLINE };

        frame_item_write(&item, mem + pos, i);
        memcpy(mem + at, a->batch->mem + a->at, a->bytes);
        batch_stamp(mem + at, (int64_t)a->base_offset, (int32_t)g->epoch);
        a->lsn = c->lsn + at;
        at += a->bytes;
        offsets = add_saturating(offsets, a->n_offsets);
    }
    memset(mem + at, 0, pos + h.bytes - at);
    *d = (struct block_dir){ .group = g->id,
                             .epoch = g->epoch,
                             .entry = h.entry,
                             .pos = pos,
                             .bytes = h.bytes,
                             .n_offsets = offsets,
                             .hash = sum_xxh3(mem + pos, h.bytes, 0) };
    g->last_entry = h.entry;
    g->last_hash = d->hash;
    g->restart = false;
}

/* Lays the block out in c->block: frames of the gathered groups (none: a closing block). */
static void block_make(struct committer *c, uint64_t room, uint32_t flags)
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
                            .flags = flags,
                            .written = c->block_time };
    uint32_t start = block_frames_pos(h.n_frames, h.n_prev, 0), pos;

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
}

/* Fills the request: the extent's header when it is new, the block, one flush. */
static void request_make(struct committer *c)
{
    uint64_t base = place_pos(c->place);
    struct dev_file *file = slabs_file(&c->st->slabs, c->place, c->st->wal_log2);
    unsigned n = 0;

    if (c->extent_new) {
        c->head_page = buf_new_aligned(PAGE_BYTES);
        ASSERT(c->head_page);
        extent_head_make(c, c->head_page->mem);
        c->io[n++] = (struct dev_io){ file, base, c->head_page->mem, PAGE_BYTES, true };
        c->extent_new = false;
    }
    c->io[n++] = (struct dev_io){ file, base + PAGE_BYTES + (c->block_lsn - c->extent_lsn),
                                  c->block->mem, c->block->len, true };
    c->sync[0] = file;
    c->req = (struct dev_req){
        .loop = c->loop, .done = written, .io = c->io, .n_io = n, .sync = c->sync, .n_sync = 1
    };
#ifdef WEIR_MUTANT_NO_SYNC
    c->req.n_sync = 0;
#endif
}

/* --- answering --- */

static void result_post(struct jrn_group *g, struct buf *block, uint64_t lsn, struct append *first,
                        int64_t time, int rc)
{
    struct commit_result *r = mem_new(sizeof *r);

    r->task.run = group_committed;
    r->group = g;
    r->block = block ? buf_ref(block) : NULL;
    r->lsn = lsn;
    r->first = first;
    r->append_time = time;
    r->rc = rc;
#ifdef WEIR_MUTANT_ACK_ORDER
    /* Every third block's answer waits until the one after it has gone out. */
    static struct commit_result *late;
    static unsigned turn;
    struct commit_result *before = late;

    late = NULL;
    if (!before && first && ++turn % 3 == 0 && !atomic_load(&g->st->closing)) {
        late = r;
        return;
    }
    loop_post(g->loop, &r->task);
    if (before)
        loop_post(before->group->loop, &before->task);
    return;
#endif
    loop_post(g->loop, &r->task);
}

/* Barriers are answered after the frames that came before them: their group's result was posted
 * first. */
static void answer_barriers(struct committer *c, int rc)
{
    struct append *a = c->barriers;

    c->barriers = NULL;
    c->barriers_end = &c->barriers;
    while (a) {
        struct append *next = a->next;

        a->next = NULL;
        result_post(a->shard->group, NULL, 0, a, 0, rc);
        a = next;
    }
}

static void answer(struct committer *c, int rc)
{
    for (unsigned i = 0; i < c->n_in_block; i++) {
        struct jrn_group *g = c->in_block[i];

        if (rc >= 0)
            g->durable_entry = g->last_entry;
        result_post(g, c->block, c->block_lsn, g->in_block, c->block_time, rc);
        g->in_block = NULL;
        g->in_block_end = NULL;
    }
    c->n_in_block = 0;
    answer_barriers(c, rc);
}

static void fail_all(struct committer *c, int rc)
{
    take_queue(c);
    while (c->taken) {
        struct append *a = c->taken;

        c->taken = a->next;
        a->next = NULL;
        result_post(a->shard->group, NULL, 0, a, 0, rc);
    }
    c->taken_end = &c->taken;
    answer_barriers(c, rc);
}

static void closed(struct committer *c)
{
    struct task *t = c->close_task;

    if (t && !c->in_flight) {
        loop_timer_stop(&c->idle);
        c->close_task = NULL;
        /* The keeper may still look at free space: that wakes nobody any more. */
        pthread_mutex_lock(&c->lock);
        c->gone = true;
        pthread_mutex_unlock(&c->lock);
        loop_post(c->close_loop, t); /* c may be freed from here on */
    }
}

static void written(struct dev_req *r)
{
    struct committer *c = (struct committer *)((char *)r - offsetof(struct committer, req));
    struct buf *block = c->block;

    c->in_flight = false;
    if (r->rc < 0)
        store_fail(c->st, "wal.write_failed", r->rc);
    else
        c->durable_lsn = c->lsn;
    stats_block(c->st, c->block_began_us, block->len, c->block_batches);
#ifndef WEIR_BREAK_EARLY_ACK
    answer(c, r->rc < 0 ? E_DEVICE : 0);
#endif
    c->block = NULL;
    buf_unref(block);
    buf_unref(c->head_page);
    c->head_page = NULL;
    pump(c);
}

static void submit(struct committer *c)
{
    request_make(c);
    c->in_flight = true;
    c->block_began_us = loop_now_us(c->loop);
    loop_timer_stop(&c->idle);
#ifdef WEIR_BREAK_EARLY_ACK
    answer(c, 0);
#endif
    dev_submit(c->st->dev, &c->req, DEV_COMMIT);
}

static void idle_begin(struct committer *c)
{
    if (!c->closing_written && !c->close_task)
        loop_timer_set(c->loop, &c->idle, (uint64_t)c->st->conf.idle_close_ms * 1000);
}

/* A block with nothing in it: it says that all before it is durable. */
static bool closing_block(struct committer *c)
{
    uint64_t need = block_bytes_with(c, 0, 0, 0);

#ifdef WEIR_MUTANT_NO_CLOSING_BLOCK
    return false;
#endif
    if (extent_left(c) < need && !extent_next(c))
        return false;
    c->block_time = loop_wall_ms(c->loop);
    block_make(c, need, BLOCK_CLOSING);
    c->closing_written = true;
    submit(c);
    return true;
}

static void idle_fire(struct loop_timer *t)
{
    struct committer *c = (struct committer *)((char *)t - offsetof(struct committer, idle));

    if (!c->in_flight && !c->taken && !c->closing_written && !atomic_load(&c->st->failed))
        closing_block(c);
}

/* What was gathered but cannot be written now, for want of an extent, goes back in front. */
static void ungather(struct committer *c)
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

static void nothing_to_write(struct committer *c)
{
    answer_barriers(c, 0);
    if (c->close_task && !c->closing_written) {
        if (!closing_block(c))
            c->closing_written = true; /* no extent left: the close goes on without */
    } else if (!c->close_task) {
        idle_begin(c);
    }
    closed(c);
}

static void wake_run(struct task *t)
{
    struct committer *c = (struct committer *)((char *)t - offsetof(struct committer, wake));

    pthread_mutex_lock(&c->lock);
    c->wake_posted = false;
    pthread_mutex_unlock(&c->lock);
    pump(c);
}

/* The next step, whatever it is: called when something was pushed, given, or written. */
static void pump(struct committer *c)
{
    uint64_t need;

    if (c->in_flight || c->gone)
        return;
    if (atomic_load(&c->st->failed)) {
        fail_all(c, E_DEVICE);
        closed(c);
        return;
    }
    take_queue(c);
    need = gather(c);
    if (need == 0) {
        nothing_to_write(c);
        return;
    }
    if (extent_left(c) < need && !extent_next(c)) {
        ungather(c);
        if (c->close_task || is_starved(c)) {
            fail_all(c, E_CLOSED);
            c->closing_written = c->closing_written || c->close_task;
            closed(c);
        }
        return;
    }
    c->block_time = loop_wall_ms(c->loop);
    block_make(c, need, 0);
    c->closing_written = false;
    submit(c);
}

static void close_run(struct task *t)
{
    struct committer *c = (struct committer *)((char *)t - offsetof(struct committer, close));

    c->close_task = c->close_asked;
    pump(c);
}

void committer_close(struct committer *c, struct loop *loop, struct task *t)
{
    c->close_loop = loop;
    c->close_asked = t;
    c->close.run = close_run;
    loop_post(c->loop, &c->close);
}

/* --- opening --- */

int committer_open(struct committer *c, const struct committer_start *s, struct err *e)
{
    struct store *st = c->st;
    int rc = 0;

    c->incarnation = s->incarnation;
    c->salt = s->salt;
    c->lsn = c->extent_lsn = c->durable_lsn = s->first_lsn;
    c->place = s->place;
    c->next_place = s->next_place;
    c->prev_place = s->prev_place;
    c->before_incarnation = s->before_incarnation;
    c->before_end_lsn = s->before_end_lsn;
    c->before_end_hash = s->before_end_hash;
    c->extent_new = true;
    c->closing_written = true;
    c->prev_lsn = UINT64_MAX;
    for (unsigned i = 0; i < st->n_groups && c->n_prev < MAX_PREV; i++)
        c->prev[c->n_prev++] =
            (struct block_prev){ st->groups[i]->id, st->groups[i]->last_entry, 0 };
    c->block_time = loop_wall_ms(c->loop);
    wal_add(&st->wal, c->place, c->incarnation, c->salt, c->lsn);
    block_make(c, block_bytes_with(c, 0, 0, 0), BLOCK_OPENING);
    request_make(c);
    for (unsigned i = 0; rc >= 0 && i < c->req.n_io; i++)
        rc = dev_write(st->dev, c->io[i].file, c->io[i].pos, c->io[i].mem, c->io[i].bytes);
    if (rc >= 0)
        rc = dev_sync(st->dev, c->sync[0]);
    if (rc >= 0)
        c->durable_lsn = c->lsn;
    buf_unref(c->block);
    buf_unref(c->head_page);
    c->block = c->head_page = NULL;
    return rc < 0 ? err_set(e, rc, "writing the WAL's opening block: %s", err_text(rc)) : 0;
}
