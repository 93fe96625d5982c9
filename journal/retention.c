#include "journal/retention.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/shard.h"

enum {
    STEP_SEGMENTS = 16, /* looked into at once */
    STEP_SHARDS = 64,   /* whose policies have changed, at once */
    TRIMS_MAX = 256,    /* in one batch of the catalogue */
    AGAIN_MS = 600000   /* what has expired behind a run that has not is looked at again */
};

struct retention_trim {
    uint64_t shard, start;
    bool holds; /* filled in while it is recorded */
    struct row_shard row;
};

/* A segment is to be looked into at ms. */
struct retention_look {
    uint64_t segment;
    int64_t ms;
};

struct retention {
    struct store *st;
    struct loop_timer timer;
    bool running, again;
    bool known;      /* the groups' least retentions are: what was there at the start was read */
    uint64_t *asked; /* shards whose policies have changed */
    unsigned n_asked, cap_asked;
    /* the present step; the pool's while it works */
    struct work work;
    int64_t now;
    struct segment *segs[STEP_SEGMENTS]; /* pinned */
    int64_t look_ms[STEP_SEGMENTS];
    unsigned n_segs;
    uint64_t shards[STEP_SHARDS];
    unsigned n_shards;
    int64_t *least; /* per group; when not known yet */
    bool *limited;
    struct retention_trim *trims;
    unsigned n_trims, n_recorded;
    struct retention_look *looks;
    unsigned n_looks;
    int rc;
};

struct retention *retention_new(struct store *st)
{
    struct retention *r = mem_new(sizeof *r);

    r->st = st;
    r->least = mem_new(st->n_groups * sizeof *r->least);
    r->limited = mem_new(st->n_groups * sizeof *r->limited);
    return r;
}

void retention_free(struct retention *r)
{
    if (!r)
        return;
    free(r->asked);
    free(r->least);
    free(r->limited);
    free(r->trims);
    free(r->looks);
    free(r);
}

bool retention_idle(const struct retention *r)
{
    return !r->running;
}

static int64_t time_add(int64_t t, int64_t ms)
{
    return t > INT64_MAX - 1 - ms ? INT64_MAX - 1 : t + ms;
}

/* --- 2: on a pool thread: what may go --- */

/* What is asked of one shard, and found. */
struct scan {
    struct retention *r;
    uint64_t shard;
    struct row_shard row;
    bool expires, limited, all; /* all: every run's segment is to be told when it expires */
    uint64_t bytes;             /* of runs from the start on */
    uint64_t start;             /* the new one */
    bool stays;                 /* a run does, and so do all behind it */
};

static int64_t run_time(struct retention *r, const struct row_run *run)
{
    struct segment *seg;
    int64_t t = run->max_ts;

    if (t >= 0)
        return t;
    seg = segment_pin(&r->st->segments, run->segment);
    if (!seg)
        return r->now;
    t = seg->row.created;
    segment_unpin(&r->st->segments, seg);
    return t;
}

static bool expired(const struct retention *r, const struct scan *s, int64_t time)
{
    return time_add(time, s->row.policy.retention_ms) < r->now;
}

/* When a run must be looked at that has this time, and stays. */
static int64_t look_at(const struct retention *r, const struct scan *s, int64_t time)
{
    return expired(r, s, time) ? r->now + AGAIN_MS : time_add(time, s->row.policy.retention_ms) + 1;
}

static void look_add(struct retention *r, uint64_t segment, int64_t ms)
{
    r->looks = mem_grow(r->looks, (r->n_looks + 1) * sizeof *r->looks);
    r->looks[r->n_looks++] = (struct retention_look){ segment, ms };
}

static bool run_row(const struct scan *s, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes, struct row_run *run, int *rc)
{
    uint64_t base;

    *rc = 1;
    if (!row_key_of(key, key_bytes, ROW_RUN, s->shard, &base))
        return false;
    *rc = row_run_read(run, value, value_bytes) < 0 ? E_CORRUPT : 0;
    return *rc == 0 && run->end > s->row.start;
}

static int sum_run(void *ctx, const void *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    struct scan *s = ctx;
    struct row_run run;
    int rc;

    if (run_row(s, key, key_bytes, value, value_bytes, &run, &rc))
        s->bytes += run.bytes;
    return rc;
}

/* Moves the start over the run, or ends where nothing more may go. */
static int go_over_run(void *ctx, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct scan *s = ctx;
    struct row_run run;
    int64_t time;
    bool goes;
    int rc;

    if (!run_row(s, key, key_bytes, value, value_bytes, &run, &rc))
        return rc;
    time = run_time(s->r, &run);
    goes = (s->expires && expired(s->r, s, time)) ||
           (s->limited && s->bytes - run.bytes >= (uint64_t)s->row.policy.retention_bytes);
    s->stays = s->stays || !goes;
    if (!s->stays) {
        s->start = run.end;
        s->bytes -= run.bytes;
        return 0;
    }
    if (s->expires && s->all)
        look_add(s->r, run.segment, look_at(s->r, s, time));
    return s->all ? 0 : 1;
}

static int scan_runs(struct scan *s, int (*fn)(void *, const void *, size_t, const void *, size_t))
{
    uint8_t key[ROW_KEY_MAX];
    int rc = rows_scan(s->r->st->rows, key, row_key(key, ROW_RUN, s->shard), false, fn, s);

    return rc < 0 ? rc : 0;
}

static void trim_add(struct retention *r, uint64_t shard, uint64_t start)
{
    r->trims = mem_grow(r->trims, (r->n_trims + 1) * sizeof *r->trims);
    r->trims[r->n_trims++] = (struct retention_trim){ .shard = shard, .start = start };
}

/* 0 also when there is no such shard, or nothing of it ever goes. */
static int scan_shard(struct scan *s)
{
    const struct row_policy *p = &s->row.policy;
    int rc = catalogue_shard_row(s->r->st, s->shard, &s->row);

    if (rc < 0)
        return rc == E_NOTFOUND ? 0 : rc;
    s->expires = p->flags & SHARD_EXPIRES;
    s->limited = p->flags & SHARD_LIMITED;
    s->start = s->row.start;
    if ((!s->expires && !s->limited) || s->row.kind == SHARD_MEMORY)
        return 0;
    rc = scan_runs(s, sum_run);
    if (rc >= 0)
        rc = scan_runs(s, go_over_run);
    if (rc >= 0 && s->start > s->row.start)
        trim_add(s->r, s->shard, s->start);
    return rc;
}

/* Every shard in it, and when to look into it again. */
static int segment_scan(struct retention *r, unsigned at)
{
    const struct seg_index *x;
    struct scan s = { .r = r };
    int rc = segment_index(&r->st->segments, r->segs[at], &x);

    r->look_ms[at] = INT64_MAX;
    for (uint32_t i = 0; rc >= 0 && i < x->n_runs; i++) {
        const struct seg_run *run = &x->runs[i];
        int64_t time = run->max_ts >= 0 ? run->max_ts : r->segs[at]->row.created, ms;

        if (run->shard != s.shard) {
            s = (struct scan){ .r = r, .shard = run->shard };
            rc = scan_shard(&s);
        }
        if (rc < 0 || !s.expires || run->end <= s.start)
            continue;
        ms = look_at(r, &s, time);
        if (ms < r->look_ms[at])
            r->look_ms[at] = ms;
    }
    if (rc < 0) /* one that cannot be read is for verify to tell */
        r->look_ms[at] = r->now + AGAIN_MS;
    return rc == E_CORRUPT ? 0 : rc;
}

static int group_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct retention *r = ctx;
    struct row_shard row;

    if (((const uint8_t *)key)[0] != ROW_SHARD || atomic_load(&r->st->closing))
        return 1;
    if (row_shard_read(&row, value, value_bytes) < 0 || row.group >= r->st->n_groups)
        return E_CORRUPT;
    if (row.kind == SHARD_MEMORY)
        return 0;
    if ((row.policy.flags & SHARD_EXPIRES) && row.policy.retention_ms < r->least[row.group])
        r->least[row.group] = row.policy.retention_ms;
    r->limited[row.group] = r->limited[row.group] || (row.policy.flags & SHARD_LIMITED);
    return 0;
}

/* What the shards of each group ask for, once after a start. */
static int groups_scan(struct retention *r)
{
    uint8_t key = ROW_SHARD;
    int rc;

    for (unsigned i = 0; i < r->st->n_groups; i++) {
        r->least[i] = INT64_MAX;
        r->limited[i] = false;
    }
    rc = rows_scan(r->st->rows, &key, 1, false, group_row, r);
    return rc < 0 ? rc : 0;
}

static void step_run(struct work *w)
{
    struct retention *r = (struct retention *)((char *)w - offsetof(struct retention, work));

    r->rc = r->known ? 0 : groups_scan(r);
    for (unsigned i = 0; r->rc >= 0 && i < r->n_segs; i++)
        r->rc = segment_scan(r, i);
    for (unsigned i = 0; r->rc >= 0 && i < r->n_shards; i++) {
        struct scan s = { .r = r, .shard = r->shards[i], .all = true };

        r->rc = scan_shard(&s);
    }
}

/* --- 3: the catalogue records the trims --- */

struct retention_update {
    struct catalogue_update u;
    struct retention *r;
    struct retention_trim *list;
    unsigned n;
};

static void step_next(struct retention *r);
static void record_next(struct retention *r);

static int trims_read(struct catalogue_update *u)
{
    struct retention_update *t = (struct retention_update *)u;

    for (unsigned i = 0; i < t->n; i++) {
        struct retention_trim *n = &t->list[i];
        int rc = catalogue_shard_row(u->st, n->shard, &n->row);

        if (rc < 0 && rc != E_NOTFOUND)
            return rc;
        n->holds = rc >= 0 && n->row.start < n->start;
    }
    return 0;
}

static int trims_prepare(struct catalogue_update *u)
{
    struct retention_update *t = (struct retention_update *)u;
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    bool any = false;

    for (unsigned i = 0; i < t->n; i++) {
        struct retention_trim *n = &t->list[i];

        if (!n->holds)
            continue;
        n->row.start = n->start;
        rows_batch_put(&u->rows, key, row_key(key, ROW_SHARD, n->shard), value,
                       row_shard_write(&n->row, value));
        any = true;
    }
    return any ? 0 : 1;
}

static void step_end(struct retention *r, int rc);

static void trims_applied(struct catalogue_update *u)
{
    struct retention_update *t = (struct retention_update *)u;
    struct retention *r = t->r;
    int rc = u->rc;

    for (unsigned i = 0; rc >= 0 && i < t->n; i++)
        if (t->list[i].holds)
            catalogue_trimmed(u->st, t->list[i].shard, t->list[i].start);
    free(t);
    if (rc < 0)
        step_end(r, rc);
    else
        record_next(r);
}

static void record_next(struct retention *r)
{
    struct retention_update *t;
    unsigned left = r->n_trims - r->n_recorded;

    if (left == 0) {
        step_end(r, 0);
        return;
    }
    t = mem_new(sizeof *t);
    t->r = r;
    t->list = r->trims + r->n_recorded;
    t->n = left < TRIMS_MAX ? left : TRIMS_MAX;
    r->n_recorded += t->n;
    t->u.read = trims_read;
    t->u.prepare = trims_prepare;
    t->u.applied = trims_applied;
    catalogue_submit(r->st->catalogue, &t->u);
}

/* --- 1: what to look into; the keeper --- */

static void groups_known(struct retention *r)
{
    for (unsigned i = 0; i < r->st->n_groups; i++) {
        struct jrn_group *g = r->st->groups[i];

        if (r->least[i] < g->least_retention_ms)
            g->least_retention_ms = r->least[i];
        g->any_limited = g->any_limited || r->limited[i];
    }
    r->known = true;
}

static void looks_apply(struct retention *r)
{
    for (unsigned i = 0; i < r->n_segs; i++)
        r->segs[i]->look_ms = r->look_ms[i];
    for (unsigned i = 0; i < r->n_looks; i++) {
        struct segment *seg = segment_pin(&r->st->segments, r->looks[i].segment);

        if (!seg)
            continue;
        if (seg->look_ms > r->looks[i].ms)
            seg->look_ms = r->looks[i].ms;
        segment_unpin(&r->st->segments, seg);
    }
}

static void step_done(struct work *w)
{
    struct retention *r = (struct retention *)((char *)w - offsetof(struct retention, work));

    if (r->rc < 0) {
        step_end(r, r->rc);
        return;
    }
    if (!r->known)
        groups_known(r);
    looks_apply(r);
    record_next(r);
}

static void pass_end(struct retention *r)
{
    bool again = r->again;

    r->running = r->again = false;
    if (again && !atomic_load(&r->st->closing) && !atomic_load(&r->st->failed))
        retention_urgent(r->st);
}

static void step_end(struct retention *r, int rc)
{
    for (unsigned i = 0; i < r->n_segs; i++)
        segment_unpin(&r->st->segments, r->segs[i]);
    r->n_segs = r->n_shards = r->n_trims = r->n_recorded = r->n_looks = 0;
    if (rc < 0) {
        if (rc != E_CLOSED && rc != E_DEVICE)
            LOG_WARN("retention.failed", F_ERR(rc));
        r->again = false; /* at the next turn of the timer */
        pass_end(r);
        return;
    }
    step_next(r);
}

static bool segment_due(const struct retention *r, const struct segment *seg)
{
    const struct jrn_group *g = store_group(r->st, seg->row.group);

    if (!g || seg->dropping || seg->live == 0)
        return false;
    if (seg->fresh && g->any_limited)
        return true;
    if (seg->look_ms)
        return seg->look_ms <= r->now;
    if (g->least_retention_ms == INT64_MAX)
        return false;
    return seg->row.min_ts < 0 || time_add(seg->row.min_ts, g->least_retention_ms) < r->now;
}

static void segments_pick(struct retention *r)
{
    struct segments *t = &r->st->segments;
    uint64_t pos = 0;
    void *value;

    pthread_mutex_lock(&t->lock);
    while (r->n_segs < STEP_SEGMENTS && hash_next(&t->by_id, &pos, NULL, &value)) {
        struct segment *seg = value;

        if (!segment_due(r, seg))
            continue;
        seg->fresh = false;
        seg->pins++;
        r->segs[r->n_segs++] = seg;
    }
    pthread_mutex_unlock(&t->lock);
}

static void shards_pick(struct retention *r)
{
    while (r->n_shards < STEP_SHARDS && r->n_asked > 0)
        r->shards[r->n_shards++] = r->asked[--r->n_asked];
}

static void step_next(struct retention *r)
{
    struct store *st = r->st;

    if (atomic_load(&st->closing) || atomic_load(&st->failed)) {
        pass_end(r);
        return;
    }
    r->now = loop_wall_ms(st->keeper);
    if (r->known) {
        segments_pick(r);
        shards_pick(r);
        if (r->n_segs == 0 && r->n_shards == 0) {
            pass_end(r);
            return;
        }
    }
    r->work = (struct work){ .run = step_run, .done = step_done, .loop = st->keeper };
    pool_submit(st->env.pool, &r->work);
}

void retention_urgent(struct store *st)
{
    struct retention *r = st->retention;

    r->again = r->running;
    if (r->running || atomic_load(&st->closing) || atomic_load(&st->failed))
        return;
    r->running = true;
    step_next(r);
}

/* --- when --- */

bool retention_wal_aged(struct store *st)
{
    uint64_t open_lsn;
    bool aged = wal_aged(&st->wal, loop_now_us(st->keeper), (uint64_t)st->conf.wal_age_ms * 1000,
                         &open_lsn);

    if (open_lsn)
        committer_roll_aged(st->committer, open_lsn);
    return aged;
}

static void tick(struct loop_timer *t)
{
    struct retention *r = (struct retention *)((char *)t - offsetof(struct retention, timer));
    struct store *st = r->st;

    if (atomic_load(&st->closing) || atomic_load(&st->failed))
        return;
    if (!r->running)
        retention_urgent(st);
    store_space_check(st); /* destages what is past its age */
    loop_timer_set(st->keeper, &r->timer, (uint64_t)st->conf.retention_check_ms * 1000);
}

void retention_start(struct store *st)
{
    st->retention->timer.fire = tick;
    loop_timer_set(st->keeper, &st->retention->timer, (uint64_t)st->conf.retention_check_ms * 1000);
}

void retention_stop(struct store *st)
{
    loop_timer_stop(&st->retention->timer);
}

void retention_policy(struct store *st, uint64_t group, const struct shard_policy *p)
{
    struct jrn_group *g = store_group(st, group);

    if ((p->flags & SHARD_EXPIRES) && p->retention_ms < g->least_retention_ms)
        g->least_retention_ms = p->retention_ms;
    g->any_limited = g->any_limited || (p->flags & SHARD_LIMITED);
}

void retention_shard(struct store *st, uint64_t shard)
{
    struct retention *r = st->retention;

    if (r->n_asked == r->cap_asked) {
        r->cap_asked = r->cap_asked ? r->cap_asked * 2 : 64;
        r->asked = mem_grow(r->asked, r->cap_asked * sizeof *r->asked);
    }
    r->asked[r->n_asked++] = shard;
    retention_urgent(st);
}

void retention_sealed(struct store *st, struct segment *seg)
{
    const struct jrn_group *g = store_group(st, seg->row.group);

    seg->fresh = true;
    if (g && g->any_limited)
        retention_urgent(st);
}
