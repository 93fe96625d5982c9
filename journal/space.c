#include "journal/space.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/compact.h"
#include "journal/destage.h"
#include "journal/group.h"
#include "journal/retention.h"
#include "journal/rewrite.h"
#include "journal/store.h"

enum {
    RESERVE_EXTENTS =
        3, /* kept free so that trims, deletions, destage and checkpoints can always finish */
    RETRY_US = 200 * 1000,
    LOOK_US = 1000 * 1000, /* the file system is asked again */
    /* Without destage: the large buffers are not needed soon. Late, for first touching memory again is
     * dear, most of all in a virtual machine. */
    TRIM_AFTER_US = 30 * 1000 * 1000,
    THOUSAND = 1000,
    BACK = 20, /* thousandths below its mark where a level ends */
    THROTTLE_LEAST_US = 1000,
    THROTTLE_MOST_US = 500 * 1000
};

/* How full it is, by the watermarks. */
enum space_level { LEVEL_OK, LEVEL_URGENT, LEVEL_THROTTLE, LEVEL_REFUSE };

struct space {
    struct store *st;
    struct loop_timer timer; /* keeper, as far as the lock */
    struct loop_timer trim_timer;
    bool growing, looking;
    bool grow_refused;
    uint64_t grow_again_us; /* when refused: not before */
    uint64_t look_again_us;
    enum space_level level;
    bool urgent;          /* by the level, or nothing grows that must */
    pthread_mutex_t lock; /* the rest */
    uint64_t limit;
    struct jrn_device_info kinds;
};

/* Work of the pool. */
struct space_work {
    struct work work;
    struct space *s;
    int rc;
    struct err e;
};

struct space *space_new(struct store *st)
{
    struct space *s = mem_new(sizeof *s);

    s->st = st;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void space_free(struct space *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

bool space_busy(const struct space *s)
{
    return s->growing || s->looking;
}

bool space_is_short(const struct space *s)
{
    return s->urgent;
}

void space_stop(struct space *s)
{
    loop_timer_stop(&s->timer);
    loop_timer_stop(&s->trim_timer);
}

/* --- what there is --- */

int space_look(struct space *s)
{
    struct slabs *slabs = &s->st->slabs;
    struct dev_space fs;
    uint64_t total, free_bytes, limit;
    int rc = dev_space(s->st->dev, &fs);

    if (rc < 0)
        return rc;
    slabs_space(slabs, &total, &free_bytes);
    limit = total + (fs.free > slabs->space_floor ? fs.free - slabs->space_floor : 0);
    if (slabs->space_max && limit > slabs->space_max)
        limit = slabs->space_max;
    pthread_mutex_lock(&s->lock);
    s->limit = limit > total ? limit : total;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static uint64_t space_limit(struct space *s)
{
    uint64_t limit;

    pthread_mutex_lock(&s->lock);
    limit = s->limit;
    pthread_mutex_unlock(&s->lock);
    return limit;
}

static uint64_t space_used(struct space *s, uint64_t *total)
{
    uint64_t free_bytes;

    slabs_space(&s->st->slabs, total, &free_bytes);
    return *total - free_bytes;
}

uint64_t space_room(struct space *s)
{
    uint64_t total, used = space_used(s, &total), limit = space_limit(s);

    return limit > used ? limit - used : 0;
}

static unsigned fullness(struct space *s, uint64_t in_hand)
{
    uint64_t total, used = space_used(s, &total) - in_hand, limit = space_limit(s);

    if (limit < total)
        limit = total;
    return limit ? (unsigned)((double)used / (double)limit * THOUSAND) : THOUSAND;
}

void space_info(struct space *s, struct jrn_device_info *info)
{
    pthread_mutex_lock(&s->lock);
    *info = s->kinds;
    info->limit = s->limit;
    pthread_mutex_unlock(&s->lock);
    slabs_space(&s->st->slabs, &info->total, &info->free);
    if (info->limit < info->total)
        info->limit = info->total;
    info->fullness = fullness(s, 0);
    info->throttle_us = atomic_load(&s->st->throttle_us);
}

static uint64_t graves_space(struct store *st)
{
    uint64_t bytes = 0;

    for (const struct grave *g = st->graves; g; g = g->next) {
        struct segment *seg = segment_pin(&st->segments, g->segment);

        if (!seg)
            continue;
        bytes += segment_space(&seg->row);
        segment_unpin(&st->segments, seg);
    }
    return bytes;
}

/* What the used bytes are. Keeper. */
static void kinds_count(struct space *s)
{
    struct store *st = s->st;
    struct jrn_device_info k = { 0 };
    uint64_t pos = 0, all = 0;
    void *value;

    k.wal = (uint64_t)(wal_live(&st->wal).n_extents + committer_spare(st->committer))
            << st->wal_log2;
    k.grave = graves_space(st);
    pthread_mutex_lock(&st->segments.lock);
    while (hash_next(&st->segments.by_id, &pos, NULL, &value)) {
        const struct segment *seg = value;

        all += segment_space(&seg->row);
        k.segment_live += seg->live;
    }
    pthread_mutex_unlock(&st->segments.lock);
    k.segment_dead = all - k.segment_live - k.grave;
    pthread_mutex_lock(&s->lock);
    s->kinds = k;
    pthread_mutex_unlock(&s->lock);
}

/* --- growing --- */

static void work_start(struct space *s, bool *flag, void (*run)(struct work *),
                       void (*done)(struct work *))
{
    struct space_work *w = mem_new(sizeof *w);

    w->s = s;
    w->work = (struct work){ .run = run, .done = done, .loop = s->st->keeper };
    *flag = true;
    pool_submit(s->st->env.pool, &w->work);
}

static void grow_run(struct work *work)
{
    struct space_work *w = (struct space_work *)work;
    struct store *st = w->s->st;

    w->rc = slabs_grow(&st->slabs, (uint64_t)1 << st->wal_log2, &w->e);
    if (space_look(w->s) < 0)
        LOG_DEBUG("space.not_known", F_INT("device", st->super.device));
}

static void grow_done(struct work *work)
{
    struct space_work *w = (struct space_work *)work;
    struct space *s = w->s;
    struct store *st = s->st;

    s->growing = false;
    if (w->rc < 0) {
        if (!s->grow_refused)
            LOG_WARN("slab.not_grown", F_STR("why", w->e.text));
        s->grow_again_us = loop_now_us(st->keeper) + RETRY_US;
        if (w->rc != E_NOSPACE)
            store_fail(st, "slab.grow", w->rc);
    }
    s->grow_refused = w->rc < 0;
    free(w);
    store_space_check(st);
}

static bool ended(const struct store *st)
{
    return atomic_load(&st->closing) || atomic_load(&st->failed);
}

static void grow_start(struct space *s)
{
    if (s->growing || ended(s->st) ||
        (s->grow_refused && loop_now_us(s->st->keeper) < s->grow_again_us))
        return;
    LOG_DEBUG("slab.grow", F_INT("device", s->st->super.device));
    work_start(s, &s->growing, grow_run, grow_done);
}

static void look_run(struct work *work)
{
    struct space_work *w = (struct space_work *)work;

    w->rc = space_look(w->s);
}

static void look_done(struct work *work)
{
    struct space_work *w = (struct space_work *)work;
    struct space *s = w->s;

    s->looking = false;
    s->look_again_us = loop_now_us(s->st->keeper) + LOOK_US;
    if (w->rc < 0)
        LOG_DEBUG("space.not_known", F_INT("device", s->st->super.device), F_ERR(w->rc));
    free(w);
    kinds_count(s);
    store_space_check(s->st);
}

static void look_start(struct space *s)
{
    if (!s->looking && !ended(s->st) && loop_now_us(s->st->keeper) >= s->look_again_us)
        work_start(s, &s->looking, look_run, look_done);
}

/* --- levels --- */

static unsigned mark_of(const struct store *st, enum space_level level)
{
    switch (level) {
    case LEVEL_URGENT:
        return st->conf.space_urgent * 10;
    case LEVEL_THROTTLE:
        return st->conf.space_throttle * 10;
    case LEVEL_REFUSE:
        return st->conf.space_refuse * 10;
    default:
        return 0;
    }
}

/* The level that full thousandths are, where a level that holds ends only BACK below its mark. */
static enum space_level level_next(const struct space *s, unsigned full)
{
    enum space_level level = LEVEL_OK;

    for (enum space_level l = LEVEL_URGENT; l <= LEVEL_REFUSE; l++)
        if (full >= mark_of(s->st, l) - (l <= s->level ? BACK : 0))
            level = l;
    return level;
}

/* The delay grows with the square of how far it is between throttling and refusing. */
static uint32_t throttle_next(const struct space *s, unsigned full)
{
    unsigned from = mark_of(s->st, LEVEL_THROTTLE) - BACK, to = mark_of(s->st, LEVEL_REFUSE);
    uint64_t part = full > from ? full - from : 0, all = to > from ? to - from : 1;

    if (s->level < LEVEL_THROTTLE)
        return 0;
    if (part > all)
        part = all;
    return (uint32_t)(THROTTLE_LEAST_US +
                      (THROTTLE_MOST_US - THROTTLE_LEAST_US) * part * part / (all * all));
}

static void groups_kick(struct store *st)
{
    for (unsigned i = 0; i < st->n_groups; i++)
        group_kick(st->groups[i]);
}

static void level_set(struct space *s)
{
    static const char *const names[] = { "ok", "urgent", "throttle", "refuse" };
    struct store *st = s->st;
    /* What is in hand for large batches is given back at the first mark: counted, it would bring the
     * level up, be given back, and be taken again. */
    uint64_t in_hand = (uint64_t)committer_spare_direct(st->committer) << st->wal_log2;
    unsigned full = fullness(s, in_hand);
    enum space_level before = s->level;
    uint32_t throttled = atomic_load(&st->throttle_us), us;

    s->level = level_next(s, full);
    us = throttle_next(s, full);
    atomic_store(&st->throttle_us, us);
    if (s->level != before)
        LOG_AT_(s->level > before ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "device.space",
                F_INT("device", st->super.device), F_STR("level", names[s->level]),
                F_INT("thousandths", full));
    if (throttled && !us)
        groups_kick(st);
}

static void state_set(struct store *st, enum space_state state)
{
    enum space_state before = (enum space_state)atomic_exchange(&st->space, state);

    if (before == state)
        return;
    if (state == SPACE_FULL)
        LOG_ERROR(
            "device.full", F_INT("device", st->super.device),
            F_STR("meaning", "appends are refused until topics are deleted or space is added"));
    else if (before == SPACE_FULL)
        LOG_INFO("device.has_space_again", F_INT("device", st->super.device),
                 F_INT("state", state));
    if (state != SPACE_WAIT)
        groups_kick(st);
}

static void timer_fire(struct loop_timer *t)
{
    store_space_check(((struct space *)((char *)t - offsetof(struct space, timer)))->st);
}

static void trim_fire(struct loop_timer *t)
{
    buf_trim();
}

/* What must be free in slabs that exist. */
static uint64_t need_of(struct store *st, const struct wal_live *live)
{
    uint64_t extent = (uint64_t)1 << st->wal_log2;
    /* Destage must be able to write all that is live once more, and then some. */
    uint64_t need = (uint64_t)live->n_extents * extent + RESERVE_EXTENTS * extent;

    /* Each round writes a segment for each group with something in it, and one more where the log
     * cuts one, of a unit at least. */
    need += (uint64_t)(live->n_extents / 2 + 1) * atomic_load(&st->groups_used) * UNIT_BYTES;
    need += (uint64_t)live->n_cuts * UNIT_BYTES;
    /* Once full, it takes two extents more to be called otherwise: no flapping while space comes
     * back. */
    if (atomic_load(&st->space) == SPACE_FULL)
        need += 2 * extent;
    return need;
}

/* Extents that may be taken for open segments, so that they themselves make neither space tight nor a
 * mark be met: they would be given back, taken again, and so on, and appends refused in between. */
static uint64_t direct_room(struct space *s, uint64_t free_bytes, uint64_t need)
{
    struct store *st = s->st;
    uint64_t extent = (uint64_t)1 << st->wal_log2, total, used = space_used(s, &total), limit, room;

    limit = space_limit(s);
    limit = (limit > total ? limit : total) / THOUSAND * mark_of(st, LEVEL_URGENT);
    room = limit > used ? (limit - used - 1) / extent : 0;
    /* One more than is needed stays free. */
    free_bytes = free_bytes > need + extent ? (free_bytes - need - extent) / extent : 0;
    return free_bytes < room ? free_bytes : room;
}

/* Everything that may give space back. */
static void space_urge(struct space *s, bool tight)
{
    struct store *st = s->st;
    bool short_of = tight && s->grow_refused, urgent = short_of || s->level >= LEVEL_URGENT;

    s->urgent = urgent;
    catalogue_bury(st, tight || s->level >= LEVEL_THROTTLE);
    destage_consider(st, urgent || retention_wal_aged(st));
    if (!destage_idle(st->destage) && !atomic_load(&st->closing)) {
        s->trim_timer.fire = trim_fire;
        loop_timer_set(st->keeper, &s->trim_timer, TRIM_AFTER_US);
    }
    rewrite_consider(st, urgent);
    compact_consider(st, urgent);
    if ((urgent || tight) && !ended(st))
        st->retention_urgent(st);
}

void store_space_check(struct store *st)
{
    struct space *s = st->meter;
    uint64_t extent = (uint64_t)1 << st->wal_log2, total, free_bytes, need;
    struct wal_live live;
    bool tight, behind, hungry, full;

    ASSERT_HOME(st->keeper);
    committer_feed(st->committer);
    /* Enough may be free, and none of it a whole extent: somebody must look again, or the appends
     * that wait for one wait for ever. */
    hungry = committer_spare(st->committer) < 2;
    if (hungry && atomic_load(&st->failed))
        committer_starve(st->committer); /* nothing will grow any more: it answers what it holds */
    slabs_space(&st->slabs, &total, &free_bytes);
    live = wal_live(&st->wal);
    need = need_of(st, &live);
    tight = free_bytes < need || !slabs_has_whole(&st->slabs, RESERVE_EXTENTS);
    /* Destage that cannot keep up holds the producers: the live WAL is what a restart must read. */
    behind = live.closed_bytes > 2 * st->conf.wal_budget + 4 * extent;
    /* Ahead of need: a new slab takes a while to be written. Enough may be free, and too little of it
     * in whole extents: that is need, too. */
    if (tight || (hungry && !slabs_has_whole(&st->slabs, 1)) ||
        (free_bytes < need + need / 4 + 2 * extent && !s->grow_refused))
        grow_start(s);
    level_set(s);
    full = s->level == LEVEL_REFUSE || (tight && s->grow_refused);
    state_set(st, full ? SPACE_FULL : tight || behind ? SPACE_WAIT : SPACE_OK);
    /* Beside what the WAL needs: without one, large batches go inline. */
    if (tight || s->level >= LEVEL_URGENT)
        committer_return_direct(st->committer);
    else
        committer_feed_direct(st->committer, direct_room(s, free_bytes, need));
    if (((tight && s->grow_refused) || s->level >= LEVEL_THROTTLE) && live.open_direct > 0)
        committer_roll(st->committer);
    space_urge(s, tight);
    look_start(s);
    if ((tight || hungry || s->level >= LEVEL_THROTTLE) && !atomic_load(&st->closing)) {
        s->timer.fire = timer_fire;
        loop_timer_set(st->keeper, &s->timer, RETRY_US);
    }
}
