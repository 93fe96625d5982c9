#include "journal/scrub.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/sum.h"
#include "journal/scrub_int.h"
#include "journal/stats.h"

enum {
    KNOWN_MAX = 4096, /* places told and remembered; what is found past them is only counted */
    PAUSE_US = 50 * 1000,
    PAUSES_MAX = 20,  /* between two steps: a busy store is read on, too */
    LOADED_SHARE = 8, /* of pending_max: past it appends come first */
    FIRST_SHARE = 60, /* of the interval, before the first cycle */
    STEPS_PER_S = 20, /* at the full rate, as long as pieces are neither tiny nor huge */
    PIECE_MIN = 4096,
    PIECE_MAX = 1 << 20
};

/* A place that was told, and the last cycle that met it. */
struct known {
    uint64_t key, cycle;
};

struct scrub {
    struct store *st;
    bool started, stopped, in_step;
    struct loop_timer timer;
    unsigned pauses;
    struct scrub_item *items; /* of this cycle */
    unsigned n_items, at;
    uint64_t cycle, cycle_began_us, step_began_us;
    uint64_t bytes, done; /* of this cycle, about */
    struct scrub_check check;
    struct work work;           /* a step on the pool; */
    struct rows_work rows_work; /* the superblock's, which only work on rows writes */
    struct known known[KNOWN_MAX];
    unsigned n_known;
    uint64_t found; /* in this cycle */
};

static void fire(struct loop_timer *t);

struct scrub *scrub_new(struct store *st)
{
    struct scrub *s = mem_new(sizeof *s);

    s->st = st;
    s->timer.fire = fire;
    return s;
}

void scrub_free(struct scrub *s)
{
    if (!s)
        return;
    ASSERT(!s->in_step);
    scrub_check_end(&s->check);
    free(s->items);
    free(s);
}

bool scrub_idle(const struct scrub *s)
{
    return !s->in_step;
}

static void wait_us(struct scrub *s, uint64_t us)
{
    if (!s->stopped)
        loop_timer_set(s->st->keeper, &s->timer, us ? us : 1);
}

void scrub_start(struct scrub *s)
{
    if (s->st->conf.scrub_bytes_per_s == 0 || s->started)
        return;
    s->started = true;
    wait_us(s, s->st->conf.scrub_interval_ms * 1000 / FIRST_SHARE);
}

void scrub_stop(struct scrub *s)
{
    s->stopped = true;
    loop_timer_stop(&s->timer);
}

/* --- findings --- */

static const char *kind_name(enum scrub_kind kind)
{
    return kind == SCRUB_SUPER  ? "superblock"
           : kind == SCRUB_SLAB ? "slab"
           : kind == SCRUB_WAL  ? "wal"
                                : "segment";
}

/* True when it was told before. */
static bool is_known(struct scrub *s, const struct scrub_finding *f)
{
    uint64_t place[3] = { f->byte, f->id, f->kind };
    uint64_t key = sum_xxh3(place, sizeof place, sum_xxh3(f->file, strlen(f->file), 0));

    for (unsigned i = 0; i < s->n_known; i++) {
        if (s->known[i].key == key) {
            s->known[i].cycle = s->cycle;
            return true;
        }
    }
    if (s->n_known < KNOWN_MAX)
        s->known[s->n_known++] = (struct known){ key, s->cycle };
    return false;
}

static void findings_tell(struct scrub *s)
{
    for (unsigned i = 0; i < s->check.n_found; i++) {
        const struct scrub_finding *f = &s->check.found[i];

        s->found++;
        if (is_known(s, f))
            continue;
        metric_add(&s->st->stats->scrub_found, 1);
        LOG_ERROR("scrub.damage", F_STR("in", kind_name(f->kind)), F_INT("id", f->id),
                  F_LSN(f->lsn), F_STR("file", f->file), F_INT("byte", f->byte), F_BYTES(f->bytes),
                  F_STR("what", f->what));
    }
    s->check.n_found = 0;
}

/* Forgets places that this cycle has not met: they are gone, or mended. */
static void known_prune(struct scrub *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->n_known; i++)
        if (s->known[i].cycle == s->cycle)
            s->known[n++] = s->known[i];
    s->n_known = n;
}

/* --- a cycle --- */

static void item_add(struct scrub *s, enum scrub_kind kind, uint64_t id, uint64_t bytes)
{
    s->items = mem_grow(s->items, (s->n_items + 1) * sizeof *s->items);
    s->items[s->n_items++] = (struct scrub_item){ kind, id, bytes };
    s->bytes += bytes;
}

static void items_collect(struct scrub *s)
{
    struct store *st = s->st;
    uint64_t pos = 0, id;
    void *value;

    item_add(s, SCRUB_SUPER, 0, SUPER_COPIES * SUPER_BYTES);
    pthread_mutex_lock(&st->slabs.lock);
    for (unsigned i = 0; i < st->slabs.n; i++)
        item_add(s, SCRUB_SLAB, st->slabs.list[i].number, PAGE_BYTES);
    pthread_mutex_unlock(&st->slabs.lock);
    pthread_mutex_lock(&st->wal.lock);
    for (unsigned i = 0; i < st->wal.n; i++)
        if (st->wal.list[i]->end_lsn != LSN_OPEN)
            item_add(s, SCRUB_WAL, st->wal.list[i]->first_lsn,
                     st->wal.list[i]->end_lsn - st->wal.list[i]->first_lsn);
    pthread_mutex_unlock(&st->wal.lock);
    pthread_mutex_lock(&st->segments.lock);
    while (hash_next(&st->segments.by_id, &pos, &id, &value)) {
        const struct segment *seg = value;

        if (!seg->open) /* it has no index and no footer yet, and is not done being written */
            item_add(s, SCRUB_SEGMENT, id, seg->row.index_pos);
    }
    pthread_mutex_unlock(&st->segments.lock);
}

static void cycle_begin(struct scrub *s)
{
    free(s->items);
    s->items = NULL;
    s->n_items = s->at = 0;
    s->bytes = s->done = s->found = 0;
    s->cycle++;
    s->cycle_began_us = loop_now_us(s->st->keeper);
    items_collect(s);
}

static void cycle_end(struct scrub *s)
{
    struct stats *stats = s->st->stats;
    uint64_t took = loop_now_us(s->st->keeper) - s->cycle_began_us;
    uint64_t every = s->st->conf.scrub_interval_ms * 1000;

    known_prune(s);
    metric_add(&stats->scrub_cycles, 1);
    metric_set(&stats->scrub_damaged, (int64_t)s->found);
    metric_set(&stats->scrub_cycle_us, (int64_t)took);
    metric_set(&stats->scrub_done_permille, 1000);
    LOG_AT_(s->found ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "scrub.cycle", F_BYTES(s->done),
            F_INT("damaged", s->found), F_INT("ms", took / 1000));
    free(s->items);
    s->items = NULL;
    s->n_items = s->at = 0;
    buf_trim(); /* the large buffers are not needed soon */
    wait_us(s, took < every ? every - took : PAUSE_US);
}

/* --- steps --- */

/* So long that the bytes of the step were read no faster than they may be. */
static uint64_t pace_us(const struct scrub *s, uint64_t read)
{
    uint64_t due = read * 1000000 / s->st->conf.scrub_bytes_per_s;
    uint64_t took = loop_now_us(s->st->keeper) - s->step_began_us;

    return due > took ? due - took : 1;
}

static void step_end(struct scrub *s)
{
    struct stats *stats = s->st->stats;
    uint64_t read = s->check.read;

    s->in_step = false;
    s->done += read;
    metric_add(&stats->scrub_bytes, read);
    metric_set(&stats->scrub_done_permille,
               (int64_t)(s->done < s->bytes ? s->done * 1000 / s->bytes : 1000));
    findings_tell(s);
    if (s->check.done) {
        scrub_check_end(&s->check);
        s->at++;
    }
    wait_us(s, pace_us(s, read));
}

static void step_run(struct work *w)
{
    scrub_check_step(&((struct scrub *)((char *)w - offsetof(struct scrub, work)))->check);
}

static void step_done(struct work *w)
{
    step_end((struct scrub *)((char *)w - offsetof(struct scrub, work)));
}

static void super_run(struct rows_work *w)
{
    scrub_check_step(&((struct scrub *)((char *)w - offsetof(struct scrub, rows_work)))->check);
}

static void super_done(struct rows_work *w)
{
    step_end((struct scrub *)((char *)w - offsetof(struct scrub, rows_work)));
}

static uint64_t piece(const struct store *st)
{
    uint64_t bytes = st->conf.scrub_bytes_per_s / STEPS_PER_S;

    return bytes < PIECE_MIN ? PIECE_MIN : bytes > PIECE_MAX ? PIECE_MAX : bytes;
}

static void step(struct scrub *s)
{
    struct store *st = s->st;

    if (s->check.st == NULL)
        scrub_check_begin(&s->check, st, &s->items[s->at], piece(st));
    s->in_step = true;
    s->step_began_us = loop_now_us(st->keeper);
    if (s->check.item.kind == SCRUB_SUPER) {
        s->rows_work = (struct rows_work){ .run = super_run, .done = super_done };
        store_rows_do(st, &s->rows_work);
    } else {
        s->work = (struct work){ .run = step_run, .done = step_done, .loop = st->keeper };
        pool_submit(st->env.pool, &s->work);
    }
}

static bool is_loaded(const struct store *st)
{
    struct store *m = (struct store *)(uintptr_t)st;

    return atomic_load(&m->backlog) > m->conf.pending_max / LOADED_SHARE ||
           atomic_load(&m->space) == SPACE_WAIT;
}

static void fire(struct loop_timer *t)
{
    struct scrub *s = (struct scrub *)((char *)t - offsetof(struct scrub, timer));
    struct store *st = s->st;

    ASSERT_HOME(st->keeper);
    if (s->stopped || atomic_load(&st->closing) || atomic_load(&st->failed))
        return;
    if (is_loaded(st) && s->pauses++ < PAUSES_MAX) {
        metric_add(&st->stats->scrub_paused, 1);
        wait_us(s, PAUSE_US);
        return;
    }
    s->pauses = 0;
    if (!s->items)
        cycle_begin(s);
    if (s->at < s->n_items)
        step(s);
    else
        cycle_end(s);
}
