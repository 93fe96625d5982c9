#include "journal/committer_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "journal/group.h"
#include "journal/stats.h"

static void wake_run(struct task *t);
static void pump(struct committer *c);
static void idle_fire(struct loop_timer *t);
static void delay_fire(struct loop_timer *t);
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
    c->delay.fire = delay_fire;
    c->place = c->next_place = PLACE_NONE;
    c->prev = mem_new(MAX_PREV * sizeof *c->prev);
    c->order = mem_new(MAX_ITEMS * sizeof(*c->order));
    c->direct_want = st->direct_from == UINT32_MAX ? 0 : 2;
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
    free(c->io);
    free(c->sync);
    committer_direct_free(c);
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

unsigned committer_spare_direct(struct committer *c)
{
    unsigned n;

    pthread_mutex_lock(&c->lock);
    n = c->n_direct_given;
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
    uint64_t place, near = PLACE_NONE;
    bool hungry;

    pthread_mutex_lock(&c->lock);
    hungry = c->n_given == 0;
    pthread_mutex_unlock(&c->lock);
    /* Where there is room for open segments beside it, too: one flush then does for both. */
    if (st->direct_from != UINT32_MAX)
        near = slabs_roomiest(&st->slabs);
    /* Once the close is on its way, nothing may wake the committer: it is freed soon. */
    if (!hungry || c->close_asked || slabs_take_near(&st->slabs, st->wal_log2, near, &place) < 0)
        return;
    pthread_mutex_lock(&c->lock);
    c->given[c->n_given++] = place;
    pthread_mutex_unlock(&c->lock);
    wake(c);
}

void committer_feed_direct(struct committer *c, uint64_t most)
{
    struct store *st = c->st;
    uint64_t place;

    while (most-- > 0 && !c->close_asked) {
        bool more;

        pthread_mutex_lock(&c->lock);
        more = c->n_direct_given < c->direct_want;
        pthread_mutex_unlock(&c->lock);
        if (!more ||
            slabs_take_near(&st->slabs, st->wal_log2, wal_last_place(&st->wal), &place) < 0)
            break;
        pthread_mutex_lock(&c->lock);
        c->direct_given[c->n_direct_given++] = place;
        pthread_mutex_unlock(&c->lock);
        if (!slabs_has_whole(&st->slabs, c->direct_want + 3))
            break;
    }
}

void committer_return_direct(struct committer *c)
{
    uint64_t place;

    do {
        pthread_mutex_lock(&c->lock);
        place = c->n_direct_given > 0 && !c->close_asked ? c->direct_given[--c->n_direct_given]
                                                         : PLACE_NONE;
        pthread_mutex_unlock(&c->lock);
        if (place != PLACE_NONE)
            slabs_give(&c->st->slabs, place, c->st->wal_log2);
    } while (place != PLACE_NONE);
}

void committer_roll(struct committer *c)
{
    bool tell;

    pthread_mutex_lock(&c->lock);
    tell = !c->roll_asked && !c->close_asked;
    c->roll_asked = c->roll_asked || tell;
    pthread_mutex_unlock(&c->lock);
    if (tell)
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

void committer_roll_aged(struct committer *c, uint64_t lsn)
{
    pthread_mutex_lock(&c->lock);
    c->roll_lsn = lsn;
    pthread_mutex_unlock(&c->lock);
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

/* Where each group's log stands, for destage to record when the extent is left behind. */
static struct wal_mark *marks_now(struct committer *c, unsigned *n)
{
    struct store *st = c->st;
    struct wal_mark *marks = mem_new(st->n_groups * sizeof *marks);

    *n = st->n_groups;
    for (unsigned i = 0; i < st->n_groups; i++)
        marks[i] = (struct wal_mark){ st->groups[i]->id, st->groups[i]->last_entry,
                                      st->groups[i]->restart ? 0 : st->groups[i]->last_hash,
                                      st->groups[i]->segment };
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
    committer_direct_renew(c);
    c->extent_data = false;
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

void committer_io_add(struct committer *c, struct dev_file *file, uint64_t pos, void *mem,
                      uint32_t bytes)
{
    unsigned i = 0;

    if (c->n_io == c->cap_io) {
        c->cap_io = c->cap_io ? c->cap_io * 2 : 16;
        c->io = mem_grow(c->io, c->cap_io * sizeof *c->io);
    }
    c->io[c->n_io++] = (struct dev_io){ file, pos, mem, bytes, true };
    while (i < c->n_sync && c->sync[i] != file)
        i++;
#ifdef WEIR_MUTANT_DIRECT_NOT_SYNCED
    if (c->n_sync > 0)
        return; /* only the WAL's slab, which is added first */
#endif
    if (i < c->n_sync)
        return;
    if (c->n_sync == c->cap_sync) {
        c->cap_sync = c->cap_sync ? c->cap_sync * 2 : 4;
        c->sync = mem_grow(c->sync, c->cap_sync * sizeof(*c->sync));
    }
    c->sync[c->n_sync++] = file;
}

/* Fills the request: the extent's header when it is new, the block, what goes to open segments; one
 * flush for each file. */
static void request_make(struct committer *c)
{
    uint64_t base = place_pos(c->place);
    struct dev_file *file = slabs_file(&c->st->slabs, c->place, c->st->wal_log2);

    c->n_io = c->n_sync = 0;
    atomic_fetch_add(&c->st->bytes.wal, c->block->len + (c->extent_new ? PAGE_BYTES : 0));
    if (c->extent_new) {
        c->head_page = buf_new_aligned(PAGE_BYTES);
        ASSERT(c->head_page);
        extent_head_make(c, c->head_page->mem);
        committer_io_add(c, file, base, c->head_page->mem, PAGE_BYTES);
        c->extent_new = false;
    }
    committer_io_add(c, file, base + PAGE_BYTES + (c->block_lsn - c->extent_lsn), c->block->mem,
                     c->block->len);
    committer_direct_request(c);
    c->req = (struct dev_req){ .loop = c->loop,
                               .done = written,
                               .io = c->io,
                               .n_io = c->n_io,
                               .sync = c->sync,
                               .n_sync = c->n_sync };
#ifdef WEIR_MUTANT_NO_SYNC
    c->req.n_sync = 0;
#endif
}

/* --- answering --- */

static void result_post(struct jrn_group *g, struct buf *block, uint64_t lsn, struct append *first,
                        int64_t time, int rc)
{
    struct commit_result *r = atomic_exchange(&g->spare_result, NULL);

    if (!r)
        r = mem_new(sizeof *r);
    *r = (struct commit_result){ .task.run = group_committed,
                                 .group = g,
                                 .block = block ? buf_ref(block) : NULL,
                                 .lsn = lsn,
                                 .first = first,
                                 .append_time = time,
                                 .rc = rc };
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
        result_post(a->group, NULL, 0, a, 0, rc);
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
        result_post(a->group, NULL, 0, a, 0, rc);
    }
    c->taken_end = &c->taken;
    answer_barriers(c, rc);
}

static void closed(struct committer *c)
{
    struct task *t = c->close_task;

    if (t && !c->in_flight) {
        loop_timer_stop(&c->idle);
        loop_timer_stop(&c->delay);
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
    committer_direct_done(c, r->rc >= 0);
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
    uint64_t need = committer_empty_block(c);

#ifdef WEIR_MUTANT_NO_CLOSING_BLOCK
    return false;
#endif
    if (committer_extent_left(c) < need && !extent_next(c))
        return false;
    c->block_time = loop_wall_ms(c->loop);
    committer_block_make(c, need, BLOCK_CLOSING);
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

static bool roll_is_asked(struct committer *c)
{
    bool asked;

    pthread_mutex_lock(&c->lock);
    /* Without the catalogue's own frames an idle store comes to rest: a destage writes such frames. */
    asked = c->roll_asked || (c->roll_lsn == c->extent_lsn && c->extent_data && !c->close_task);
    c->roll_lsn = 0;
    pthread_mutex_unlock(&c->lock);
    return asked;
}

/* Ends the present extent, when there is another, though it has room: what its blocks put into open
 * segments can then be sealed, or given back. */
static void roll(struct committer *c)
{
    if (c->extent_new || !extent_next(c))
        return;
    pthread_mutex_lock(&c->lock);
    c->roll_asked = false;
    pthread_mutex_unlock(&c->lock);
}

/* Gathers a block for which there is room. Gives what it needs at most; 0: nothing is there, or
 * (*stuck) there is no extent for it. */
static uint64_t next_block(struct committer *c, bool *stuck)
{
    uint64_t need;

    *stuck = false;
    while ((need = committer_gather(c)) > 0) {
        *stuck = committer_extent_left(c) < need && !extent_next(c);
        if (!*stuck && committer_direct_place(c))
            break;
        committer_ungather(c);
        if (*stuck)
            return 0;
    }
    return need;
}

static void delay_fire(struct loop_timer *t)
{
    struct committer *c = (struct committer *)((char *)t - offsetof(struct committer, delay));

    wake_run(&c->wake);
}

/* Whether the next commit is too early, as conf.commit_delay_us has it. Whoever pushes meanwhile wakes
 * nobody: that would cost what the delay saves. */
static bool delayed(struct committer *c)
{
    uint64_t due = c->block_began_us + c->st->conf.commit_delay_us, now;
    bool waits;

    if (!c->st->conf.commit_delay_us || c->close_task)
        return false;
    now = loop_now_us(c->loop);
    if (now >= due)
        return false;
    pthread_mutex_lock(&c->lock);
    waits = c->queue || c->taken;
    c->wake_posted = c->wake_posted || waits;
    pthread_mutex_unlock(&c->lock);
    if (waits)
        loop_timer_set(c->loop, &c->delay, due - now);
    return waits;
}

/* The next step, whatever it is: called when something was pushed, given, or written. */
static void pump(struct committer *c)
{
    uint64_t need;
    bool stuck, rolled = false;

    if (c->in_flight || c->gone)
        return;
    if (atomic_load(&c->st->failed)) {
        fail_all(c, E_DEVICE);
        closed(c);
        return;
    }
    if (delayed(c))
        return;
    if (roll_is_asked(c)) {
        roll(c);
        rolled = c->extent_new;
    }
    take_queue(c);
    need = next_block(c, &stuck);
    if (need == 0 && !stuck) {
        /* An extent that was begun early is written to at once: the log must lead there. */
        if (!rolled || c->close_task || !closing_block(c))
            nothing_to_write(c);
        return;
    }
    if (stuck) {
        if (c->close_task || is_starved(c)) {
            fail_all(c, E_CLOSED);
            c->closing_written = c->closing_written || c->close_task;
            closed(c);
        }
        return;
    }
    c->block_time = loop_wall_ms(c->loop);
    committer_block_make(c, need, 0);
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
    committer_block_make(c, committer_empty_block(c), BLOCK_OPENING);
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
