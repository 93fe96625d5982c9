#include "journal/compact_int.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/live.h"
#include "journal/rewrite.h"
#include "journal/segment_rows.h"
#include "journal/space.h"
#include "journal/stats.h"

struct compact {
    struct store *st;
    bool running;
    bool awake;      /* the first look is due */
    bool known;      /* it has been taken: due has every compacted shard */
    struct hash due; /* compacted shard -> when to look at it, ms and 1 */
    uint64_t next_due;
    uint64_t next_urgent; /* ms; a device that stays full must not keep us busy */
    struct loop_timer timer;
    struct compact_round *round;
};

/* Until something is sealed, in ms; twice that: even when it is urgent. */
static const uint64_t far_away = INT32_MAX;

struct compact_update {
    struct catalogue_update u;
    struct compact_round *r;
    struct live_loss dead; /* what the new runs stand for */
};

/* --- who is due --- */

static uint64_t now_ms(const struct compact *c)
{
    return loop_now_us(c->st->keeper) / 1000;
}

/* Sets the timer for what is due next, if anything is and no round is under way. */
static void timer_arm(struct compact *c)
{
    uint64_t now = now_ms(c), wait = c->st->conf.compact_check_ms;

    if (c->running || atomic_load(&c->st->closing) || atomic_load(&c->st->failed))
        return;
    if (c->known && c->next_due >= now + far_away / 2)
        return;
    if (c->known && c->next_due > now + wait)
        wait = c->next_due - now;
    loop_timer_set(c->st->keeper, &c->timer, wait * 1000);
}

static void due_set(struct compact *c, uint64_t shard, uint64_t when)
{
    hash_put(&c->due, shard, (void *)(uintptr_t)(when + 1));
    if (when < c->next_due) {
        c->next_due = when;
        timer_arm(c);
    }
}

/* The earlier of what it has and when. */
static void due_by(struct compact *c, uint64_t shard, uint64_t when)
{
    uint64_t has = (uintptr_t)hash_get(&c->due, shard);

    if (has > when + 1) /* not there: deleted or no longer compacted */
        due_set(c, shard, when);
}

void compact_policy(struct store *st, uint64_t shard, unsigned flags)
{
    struct compact *c = st->compact;

    if (flags & SHARD_COMPACTED)
        due_set(c, shard, now_ms(c));
}

void compact_forget(struct store *st, uint64_t shard)
{
    struct compact *c = st->compact;

    hash_take(&c->due, shard);
    for (unsigned i = 0; c->round && i < c->round->n; i++)
        if (c->round->shards[i].id == shard)
            c->round->shards[i].gone = true;
}

void compact_sealed(struct store *st, const struct seg_index *x)
{
    struct compact *c = st->compact;

    for (uint32_t i = 0; c->due.count > 0 && i < x->n_runs; i++)
        if (i == 0 || x->runs[i].shard != x->runs[i - 1].shard)
            due_by(c, x->runs[i].shard, now_ms(c));
}

struct compact *compact_new(struct store *st)
{
    struct compact *c = mem_new(sizeof *c);

    c->st = st;
    c->next_due = UINT64_MAX;
    return c;
}

void compact_free(struct compact *c)
{
    if (c)
        hash_free(&c->due);
    free(c);
}

bool compact_idle(const struct compact *c)
{
    return !c->running;
}

/* --- the first look: which shards are compacted --- */

struct first_look {
    struct work work;
    struct store *st;
    uint64_t *list;
    size_t n, cap;
    int rc;
};

static int look_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct first_look *l = ctx;
    struct row_shard row;
    uint64_t shard;

    if (((const uint8_t *)key)[0] != ROW_SHARD || !row_key_parse(key, key_bytes, &shard, NULL) ||
        atomic_load(&l->st->closing))
        return 1;
    if (row_shard_read(&row, value, value_bytes) < 0 || !(row.policy.flags & SHARD_COMPACTED))
        return 0;
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->list = mem_grow(l->list, l->cap * sizeof *l->list);
    }
    l->list[l->n++] = shard;
    return 0;
}

static void look_run(struct work *w)
{
    struct first_look *l = (struct first_look *)w;
    uint8_t table = ROW_SHARD;

    l->rc = rows_scan(l->st->rows, &table, 1, false, look_row, l);
}

/* One that was deleted meanwhile is found missing when its turn comes. */
static void look_done(struct work *w)
{
    struct first_look *l = (struct first_look *)w;
    struct compact *c = l->st->compact;

    for (size_t i = 0; i < l->n; i++)
        if (!hash_get(&c->due, l->list[i]))
            due_set(c, l->list[i], now_ms(c));
    if (l->rc < 0)
        LOG_WARN("compact.rows", F_ERR(l->rc));
    c->known = l->rc >= 0;
    c->awake = false;
    c->running = false;
    free(l->list);
    free(l);
    timer_arm(c);
    compact_consider(c->st, false);
}

static void look(struct compact *c)
{
    struct first_look *l = mem_new(sizeof *l);

    c->running = true;
    l->st = c->st;
    l->work = (struct work){ .run = look_run, .done = look_done, .loop = c->st->keeper };
    pool_submit(c->st->env.pool, &l->work);
}

/* --- 3: the end of a round --- */

static void round_free(struct compact *c)
{
    struct compact_round *r = c->round;

    segwrite_close(&r->out);
    keymap_free(&r->map);
    free(r);
    c->round = NULL;
    c->running = false;
}

static void round_end(struct compact *c, int rc)
{
    struct compact_round *r = c->round;
    uint64_t now = now_ms(c);

    if (rc >= 0) {
        metric_add(&c->st->stats->compact_rounds, 1);
        LOG_DEBUG("compact.done", F_INT("group", r->group));
    }
    for (unsigned i = 0; i < r->n; i++) {
        const struct compact_shard *s = &r->shards[i];
        int64_t wait = rc < 0 || s->damaged ? c->st->conf.compact_check_ms : s->wait_ms;

        if (s->gone || wait == COMPACT_FORGET)
            hash_take(&c->due, s->id);
        else if (!s->damaged && wait != COMPACT_WHEN_SEALED)
            due_by(c, s->id, now + (uint64_t)wait);
    }
    round_free(c);
    timer_arm(c);
    store_space_check(c->st);
}

static void round_failed(struct compact *c, int rc)
{
    metric_add(&c->st->stats->compact_failed, 1);
    LOG_WARN("compact.failed", F_INT("group", c->round->group), F_ERR(rc));
    round_end(c, rc);
}

/* --- 2: the catalogue takes the piece on --- */

static void piece_start(struct compact *c);

/* A piece takes a unit at least, and gives back nothing yet: what is left is seen before the next. */
static void piece_next(struct compact *c)
{
    store_space_check(c->st);
    piece_start(c);
}

static int piece_prepare(struct catalogue_update *u)
{
    struct compact_round *r = ((struct compact_update *)u)->r;
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    struct segment *seg;

    for (unsigned i = 0; i < r->n; i++)
        if (r->shards[i].moved && !r->shards[i].gone)
            rows_batch_put(&u->rows, key, row_key(key, ROW_CLEANED, r->shards[i].id), value,
                           row_cleaned_write(&r->shards[i].now, value));
    if (r->out.row.n_extents == 0)
        return 0;
    segment_row_put(r->out.segment, &r->out.row, &u->rows);
    /* Known before the rows name it: a reader may follow them at once. */
    seg = segwrite_enter(&r->out);
    seg->settled = seg->live;
    return 0;
}

/* The rows of the runs that the new segment's stand for go. What was reaped since has none. */
static int old_runs_delete(struct compact_update *cu, const struct compact_shard *s)
{
    struct compact_run *list;
    uint8_t key[ROW_KEY_MAX];
    unsigned n;
    int rc = compact_runs(cu->r->st, s->id,
                          &(struct compact_want){ .from = s->from, .below = s->to }, &list, &n);

    for (unsigned i = 0; rc >= 0 && i < n; i++) {
        rows_batch_delete(&cu->u.rows, key, row_key2(key, ROW_RUN, s->id, list[i].base));
        live_lose(&cu->dead, list[i].row.segment, list[i].row.bytes);
    }
    free(list);
    return rc;
}

static int piece_derive(struct catalogue_update *u)
{
    struct compact_update *cu = (struct compact_update *)u;
    struct compact_round *r = cu->r;
    int rc = 0;

    if (r->out.row.n_extents == 0)
        return 0;
    for (unsigned i = 0; rc >= 0 && i < r->n; i++)
        if (r->shards[i].from < r->shards[i].to)
            rc = old_runs_delete(cu, &r->shards[i]);
    if (rc >= 0)
        live_subtract(&cu->dead, r->st, &u->rows);
    if (rc >= 0)
        segment_run_rows(r->out.segment, &r->out.builder.index, &u->rows);
    return rc;
}

static void piece_told(const struct compact_update *cu)
{
    const struct compact_round *r = cu->r;
    uint64_t before = live_lost_bytes(&cu->dead);

    if (r->out.row.n_extents == 0)
        return;
    metric_add(&r->st->stats->compact_before, before);
    metric_add(&r->st->stats->compact_after, r->out.row.data_bytes);
    LOG_INFO("segment.compacted", F_INT("group", r->group), F_INT("into", r->out.segment),
             F_INT("before", before), F_BYTES(r->out.row.data_bytes));
}

static void piece_applied(struct catalogue_update *u)
{
    struct compact_update *cu = (struct compact_update *)u;
    struct compact_round *r = cu->r;
    struct compact *c = u->st->compact;
    int rc = u->rc;

    if (rc >= 0) {
        piece_told(cu);
        live_drop_empty(&cu->dead, r->st);
        if (r->out.row.n_extents > 0)
            catalogue_reap_late(r->st, &r->out.builder.index);
    }
    segwrite_refused(&r->out, rc);
    live_loss_free(&cu->dead);
    free(cu);
    segwrite_close(&r->out);
    r->out.row.n_extents = 0;
    if (rc < 0)
        round_failed(c, rc);
    else if (r->over)
        round_end(c, 0);
    else
        piece_next(c);
}

/* --- 1: a piece, on a pool thread --- */

static void piece_run(struct work *w)
{
    struct compact_round *r = (struct compact_round *)w;

    r->rc = r->prepared ? 0 : compact_plan(r);
    r->prepared = true;
    if (r->rc >= 0)
        r->rc = compact_copy(r);
}

/* Progress without anything lost is told with what comes after it. */
static bool worth_recording(const struct compact_round *r)
{
    for (unsigned i = 0; i < r->n; i++)
        if (r->shards[i].moved && r->shards[i].through)
            return true;
    return r->out.row.n_extents > 0;
}

static void piece_done(struct work *w)
{
    struct compact_round *r = (struct compact_round *)w;
    struct compact *c = r->st->compact;
    struct compact_update *cu;

    if (r->rc < 0) {
        if (r->rc == E_IO)
            store_fail(r->st, "compact.device", r->rc);
        segwrite_undo(&r->out);
        segwrite_close(&r->out);
        round_failed(c, r->rc);
    } else if (worth_recording(r)) {
        cu = mem_new(sizeof *cu);
        cu->r = r;
        cu->u.prepare = piece_prepare;
        cu->u.derive = piece_derive;
        cu->u.applied = piece_applied;
        catalogue_submit(r->st->catalogue, &cu->u);
    } else if (r->over) {
        round_end(c, 0);
    } else {
        piece_start(c);
    }
}

static void piece_start(struct compact *c)
{
    struct compact_round *r = c->round;

#ifdef WEIR_MUTANT_COMPACT_EARLY_NUMBER
    r->segment = store_new_segment(c->st);
#endif
    r->across = space_is_short(c->st->meter);
    r->work = (struct work){ .run = piece_run, .done = piece_done, .loop = c->st->keeper };
    pool_submit(c->st->env.pool, &r->work);
}

static int by_id(const void *a, const void *b)
{
    const struct compact_shard *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

/* Takes the shards that are due (urgent: any that have changed), at most a round's, and finds when
 * the next are. */
static void round_fill(struct compact *c, struct compact_round *r)
{
    uint64_t pos = 0, shard, now = now_ms(c), next = UINT64_MAX;
    void *value;

    while (hash_next(&c->due, &pos, &shard, &value)) {
        uint64_t due = (uintptr_t)value - 1;

        if (r->n < COMPACT_SHARDS && due <= (r->urgent ? now + far_away : now)) {
            r->shards[r->n++] = (struct compact_shard){ .id = shard };
            due = now + far_away * (r->urgent ? 2 : 1);
            hash_put(&c->due, shard, (void *)(uintptr_t)(due + 1));
        }
        if (due < next)
            next = due;
    }
    c->next_due = next;
    qsort(r->shards, r->n, sizeof r->shards[0], by_id); /* as a segment has them */
}

void compact_consider(struct store *st, bool urgent)
{
    struct compact *c = st->compact;
    struct compact_round *r;
    uint64_t seed[2];

    if (c->running || !rewrite_idle(st->rewrite) || atomic_load(&st->failed) ||
        atomic_load(&st->closing))
        return;
    if (!c->known) {
        if (c->awake || urgent)
            look(c);
        return;
    }
    urgent = urgent && now_ms(c) >= c->next_urgent;
    /* What it writes comes first, and what it frees later. */
    if (!urgent && (c->next_due > now_ms(c) || atomic_load(&st->space) != SPACE_OK))
        return;
    if (urgent)
        c->next_urgent = now_ms(c) + st->conf.compact_check_ms / 16 + 1;
    r = mem_new(sizeof *r);
    r->st = st;
    r->urgent = urgent;
    r->time = loop_wall_ms(st->keeper);
    round_fill(c, r);
    if (r->n == 0) {
        free(r);
        return;
    }
    seed[0] = rng_u64(&st->rng);
    seed[1] = rng_u64(&st->rng);
    keymap_init(&r->map, st->conf.compact_map_bytes, seed);
    c->running = true;
    c->round = r;
    LOG_DEBUG("compact.begin", F_INT("shards", r->n), F_INT("urgent", urgent));
    piece_start(c);
}

static void timer_fire(struct loop_timer *t)
{
    struct compact *c = (struct compact *)((char *)t - offsetof(struct compact, timer));

    c->awake = true;
    compact_consider(c->st, false);
    timer_arm(c); /* rewriting may have been in the way */
}

void compact_start(struct store *st)
{
    struct compact *c = st->compact;

    c->timer.fire = timer_fire;
    timer_arm(c);
}

void compact_stop(struct store *st)
{
    loop_timer_stop(&st->compact->timer);
}
