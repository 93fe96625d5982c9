/* The start of a shard moves up: by a trim, or ahead of a MEMORY shard's offsets. */
#include "journal/catalogue.h"

#include <stdlib.h>

#include "journal/memory.h"
#include "journal/shard.h"
#include "journal/store.h"

struct trim_update {
    struct catalogue_update u;
    struct shard_trim *t;
    struct shard *s;
    uint64_t start;
    struct row_shard row;
};

static void trim_done_run(struct task *t)
{
    struct shard_trim *hop = (struct shard_trim *)t;

    hop->fn(hop);
}

static void trim_answer(struct shard_trim *t, struct shard *s, int rc)
{
    t->rc = rc;
    t->start = atomic_load(&s->start);
    t->task.run = trim_done_run;
    loop_post(t->loop, &t->task);
    atomic_fetch_sub(&s->st->busy, 1);
    shard_unref(s);
}

static int trim_read(struct catalogue_update *u)
{
    struct trim_update *t = (struct trim_update *)u;
    int rc = catalogue_shard_row(u->st, t->s->id, &t->row);

    return rc == E_NOTFOUND ? E_DELETED : rc;
}

static int trim_prepare(struct catalogue_update *u)
{
    struct trim_update *t = (struct trim_update *)u;

    if (t->start <= t->row.start)
        return 1;
    t->row.start = t->start;
    catalogue_shard_row_put(&u->rows, t->s->id, &t->row);
    return 0;
}

struct trimmed_task {
    struct task task;
    struct shard *shard;
    uint64_t start;
    struct shard_trim *trim;
};

static void trimmed_home(struct task *task)
{
    struct trimmed_task *hop = (struct trimmed_task *)task;

    shard_mark_trimmed(hop->shard, hop->start);
    if (hop->trim)
        trim_answer(hop->trim, hop->shard, 0);
    else
        shard_unref(hop->shard);
    free(hop);
}

/* Takes over a reference on s. */
static void trimmed_hop(struct shard *s, uint64_t start, struct shard_trim *trim)
{
    struct trimmed_task *hop = mem_new(sizeof *hop);

    hop->task.run = trimmed_home;
    hop->shard = s;
    hop->start = start;
    hop->trim = trim;
    loop_post(s->group->loop, &hop->task);
}

static void trim_applied(struct catalogue_update *u)
{
    struct trim_update *t = (struct trim_update *)u;

    if (u->rc < 0) {
        trim_answer(t->t, t->s, u->rc);
    } else {
        catalogue_reap(u->st, t->s->id, t->start);
        trimmed_hop(t->s, t->start, t->t);
    }
    free(t);
}

void catalogue_trimmed(struct store *st, uint64_t shard, uint64_t start)
{
    struct shard *s = shard_find(st, shard);

    catalogue_reap(st, shard, start);
    if (s)
        trimmed_hop(s, start, NULL);
}

static void trim_submit(struct store *st, void *arg)
{
    struct trim_update *t = arg;

    catalogue_submit(st->catalogue, &t->u);
}

static void trim_home(struct task *task)
{
    struct shard_trim *t = (struct shard_trim *)task;
    struct shard *s = t->shard;
    struct trim_update *u;
    uint64_t end = atomic_load(&s->end);

    if (t->start > end)
        t->start = end;
    if (atomic_load(&s->deleted) || atomic_load(&s->st->closing)) {
        trim_answer(t, s, atomic_load(&s->deleted) ? E_DELETED : E_CLOSED);
        return;
    }
    if (s->memory)
        memory_trim(s, t->start);
    if (t->start <= atomic_load(&s->start)) {
        trim_answer(t, s, 0);
        return;
    }
    u = mem_new(sizeof *u);
    u->t = t;
    u->s = s;
    u->start = t->start;
    u->u.read = trim_read;
    u->u.prepare = trim_prepare;
    u->u.applied = trim_applied;
    store_on_keeper(s->st, trim_submit, u);
}

void shard_trim(struct shard *s, struct shard_trim *t)
{
    atomic_fetch_add(&s->st->busy, 1);
    t->shard = shard_ref(s);
    t->task.run = trim_home;
    loop_post(s->group->loop, &t->task);
}

/* --- offsets for MEMORY shards: a trim of the row ahead of the shard --- */

struct reserve_update {
    struct trim_update t;
    struct catalogue_reserve *r;
};

static void reserve_home(struct task *task)
{
    struct catalogue_reserve *r = (struct catalogue_reserve *)task;

    r->fn(r);
}

static void reserve_applied(struct catalogue_update *u)
{
    struct catalogue_reserve *r = ((struct reserve_update *)u)->r;

    r->rc = u->rc;
    r->task.run = reserve_home;
    loop_post(r->shard->group->loop, &r->task);
    free(u);
}

static void reserve_submit(struct store *st, void *arg)
{
    struct reserve_update *u = arg;

    u->t.u.st = st;
    u->t.u.rc = E_CLOSED;
    if (atomic_load(&st->closing))
        reserve_applied(&u->t.u);
    else
        catalogue_submit(st->catalogue, &u->t.u);
}

void catalogue_reserve(struct catalogue_reserve *r)
{
    struct reserve_update *u = mem_new(sizeof *u);

    u->r = r;
    u->t.s = r->shard;
    u->t.start = r->until;
    u->t.u.read = trim_read;
    u->t.u.prepare = trim_prepare;
    u->t.u.applied = reserve_applied;
    store_on_keeper(r->shard->st, reserve_submit, u);
}
