/* What doors change: shards, their policies, rows of their own. */
#include "journal/catalogue.h"

#include <stdlib.h>
#include <string.h>

#include "journal/compact.h"
#include "journal/retention.h"
#include "journal/shard.h"
#include "journal/store.h"

enum { APP_KEY_MAX = 1023, APP_VALUE_MAX = 1 << 20 };

/* 0: kept for ever .. POLICY_CLASSES - 1: compacted. */
static unsigned policy_class(const struct shard_policy *p)
{
    static const int64_t hours[] = { 1, 24, 7 * 24, 30 * 24 };
    unsigned i = 0;

    if (p->flags & SHARD_COMPACTED)
        return POLICY_CLASSES - 1;
    if (!(p->flags & (SHARD_EXPIRES | SHARD_LIMITED)))
        return 0;
    if (!(p->flags & SHARD_EXPIRES)) /* by bytes alone: some day */
        return POLICY_CLASSES - 2;
    while (i < 4 && p->retention_ms > hours[i] * 3600 * 1000)
        i++;
    return 1 + i;
}

uint64_t catalogue_group_for(const struct store *st, enum shard_class class,
                             const struct shard_policy *policy, uint64_t shard)
{
    uint64_t first = st->super.policy_groups, turns = (st->n_groups - first) / POLICY_CLASSES;

    if (class == SHARD_CLASS_INTERNAL)
        return GROUP_INTERNAL;
    return first + policy_class(policy) + POLICY_CLASSES * (shard % turns);
}

struct door_update {
    struct catalogue_update u;
    struct task task;
    struct jrn_update *done;
    struct jrn_change *changes; /* keys and values are copies in mem */
    unsigned n;
    struct row_shard *found; /* of each change of policy: the row before */
    uint8_t *mem;
    uint64_t max_shard;
    struct rows_batch more; /* rows of a larger update */
    bool part, again;       /* store_update_part */
};

static bool policy_ok(const struct shard_policy *p)
{
    return !(p->flags & ~(unsigned)(SHARD_EXPIRES | SHARD_LIMITED | SHARD_COMPACTED)) &&
           p->retention_ms >= 0 && p->retention_bytes >= 0 && p->min_compaction_lag_ms >= 0 &&
           p->delete_retention_ms >= 0;
}

int catalogue_change_check(const struct jrn_change *c)
{
    switch (c->op) {
    case JRN_SHARD_CREATE:
        return c->shard >= SHARD_FIRST_USER && c->kind <= SHARD_ROCKSDB && policy_ok(&c->policy) &&
                       (c->class == SHARD_CLASS_DATA || c->class == SHARD_CLASS_INTERNAL)
                   ? 0
                   : E_INVALID;
    case JRN_SHARD_DELETE:
        return c->shard >= SHARD_FIRST_USER ? 0 : E_INVALID;
    case JRN_SHARD_POLICY:
        return c->shard >= SHARD_FIRST_USER && policy_ok(&c->policy) ? 0 : E_INVALID;
    case JRN_ROW_PUT:
    case JRN_ROW_DELETE:
        return c->key_bytes >= 1 && c->key_bytes <= APP_KEY_MAX && c->value_bytes <= APP_VALUE_MAX
                   ? 0
                   : E_INVALID;
    }
    return E_INVALID;
}

static void created_row(struct door_update *d, const struct jrn_change *c)
{
    struct store *st = d->u.st;
    struct row_shard row = { .kind = (uint8_t)c->kind,
                             .class = (uint8_t)c->class,
                             .group = catalogue_group_for(st, c->class, &c->policy, c->shard),
                             .created = loop_wall_ms(st->keeper) };

    shard_policy_write(&c->policy, &row.policy);
    catalogue_shard_row_put(&d->u.rows, c->shard, &row);
}

/* What the kind asks of every policy. */
static void policy_fit(struct jrn_change *c, unsigned kind)
{
    if (kind == SHARD_ROCKSDB)
        c->policy.flags |= SHARD_COMPACTED;
}

static int door_read(struct catalogue_update *u)
{
    struct door_update *d = (struct door_update *)u;
    int rc = 0;

    d->found = mem_new(d->n * sizeof *d->found);
    for (unsigned i = 0; rc >= 0 && i < d->n; i++) {
        struct jrn_change *c = &d->changes[i];

        if (c->op != JRN_SHARD_POLICY)
            continue;
        rc = catalogue_shard_row(u->st, c->shard, &d->found[i]);
        if (rc == E_NOTFOUND && d->again) { /* deleted since */
            c->shard = 0;
            rc = 0;
        }
    }
    return rc;
}

/* All else stays as the row has it: the start of a MEMORY shard's lies above the shard's own. */
static void policy_row(struct door_update *d, unsigned i)
{
    policy_fit(&d->changes[i], d->found[i].kind);
    shard_policy_write(&d->changes[i].policy, &d->found[i].policy);
    catalogue_shard_row_put(&d->u.rows, d->changes[i].shard, &d->found[i]);
}

static void app_row(struct rows_batch *rows, const struct jrn_change *c)
{
    uint8_t key[APP_KEY_MAX + 1];

    key[0] = ROW_APP;
    memcpy(key + 1, c->key, c->key_bytes);
    if (c->op == JRN_ROW_PUT)
        rows_batch_put(rows, key, c->key_bytes + 1, c->value, c->value_bytes);
    else
        rows_batch_delete(rows, key, c->key_bytes + 1);
}

static int door_prepare(struct catalogue_update *u)
{
    struct door_update *d = (struct door_update *)u;
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    uint64_t max = atomic_load(&u->st->max_shard);

    d->max_shard = max;
    for (unsigned i = 0; i < d->n; i++) {
        struct jrn_change *c = &d->changes[i];
        int rc = c->op == JRN_SHARD_POLICY && c->shard == 0 ? 1 : catalogue_change_check(c);

        if (rc < 0)
            return rc;
        if (rc == 1)
            continue;
        if (c->op == JRN_SHARD_CREATE) {
            policy_fit(c, c->kind);
            if (c->shard <= max && d->again)
                continue;
            if (c->shard <= max)
                return E_EXISTS;
            if (c->shard > d->max_shard)
                d->max_shard = c->shard;
            created_row(d, c);
        } else if (c->op == JRN_SHARD_POLICY) {
            policy_row(d, i);
        } else if (c->op == JRN_SHARD_DELETE) {
            rows_batch_delete(&u->rows, key, row_key(key, ROW_SHARD, c->shard));
            rows_batch_delete(&u->rows, key, row_key(key, ROW_CLEANED, c->shard));
        } else {
            app_row(&u->rows, c);
        }
    }
    if (d->max_shard > max) {
        key[0] = ROW_MAX_SHARD;
        rows_batch_put(&u->rows, key, 1, value, row_u64_write(d->max_shard, value));
    }
    rows_batch_append(&u->rows, &d->more);
    return u->rows.n ? 0 : 1;
}

struct deleted_task {
    struct task task;
    struct shard *shard;
};

static void deleted_home(struct task *t)
{
    struct deleted_task *hop = (struct deleted_task *)t;

    shard_mark_deleted(hop->shard);
    shard_unref(hop->shard);
    free(hop);
}

static void shard_deleted(struct store *st, uint64_t id)
{
    struct shard *s = shard_find(st, id);

    if (s) {
        struct deleted_task *hop = mem_new(sizeof *hop);

        /* From now on for everybody; the home loop does the rest. */
        atomic_store(&s->deleted, true);
        hop->task.run = deleted_home;
        hop->shard = s;
        loop_post(s->group->loop, &hop->task);
    }
    compact_forget(st, id);
    catalogue_reap(st, id, UINT64_MAX);
}

/* From now on for the loaded shard, if it is, and for retention (a MEMORY shard has its own). */
static void policy_applied(struct store *st, const struct jrn_change *c,
                           const struct row_shard *found)
{
    struct shard *s = shard_find(st, c->shard);

    if (s)
        shard_policy_set(s, &c->policy);
    shard_unref(s);
    if (found->kind == SHARD_MEMORY)
        return;
    retention_policy(st, found->group, &c->policy);
    retention_shard(st, c->shard);
    compact_policy(st, c->shard, c->policy.flags);
}

static void created(struct store *st, const struct jrn_change *c)
{
    retention_policy(st, catalogue_group_for(st, c->class, &c->policy, c->shard), &c->policy);
    compact_policy(st, c->shard, c->policy.flags);
}

static void change_applied(struct door_update *d, unsigned i)
{
    const struct jrn_change *c = &d->changes[i];
    struct store *st = d->u.st;

    if (c->op == JRN_SHARD_DELETE)
        shard_deleted(st, c->shard);
    else if (c->op == JRN_SHARD_POLICY && c->shard)
        policy_applied(st, c, &d->found[i]);
    else if (c->op == JRN_SHARD_CREATE && c->kind != SHARD_MEMORY)
        created(st, c);
}

static void update_done_run(struct task *t)
{
    struct jrn_update *u = (struct jrn_update *)t;

    u->fn(u);
}

static void door_applied(struct catalogue_update *u)
{
    struct door_update *d = (struct door_update *)u;
    struct jrn_update *done = d->done;

    if (u->rc >= 0) {
        if (d->max_shard > atomic_load(&u->st->max_shard))
            atomic_store(&u->st->max_shard, d->max_shard);
        for (unsigned i = 0; i < d->n; i++)
            change_applied(d, i);
    }
    done->rc = u->rc;
    done->task.run = update_done_run;
    loop_post(done->loop, &done->task);
    atomic_fetch_sub(&u->st->busy, 1);
    rows_batch_free(&d->more);
    free(d->changes);
    free(d->found);
    free(d->mem);
    free(d);
}

static void door_submit(struct store *st, void *arg)
{
    struct door_update *d = arg;

    d->u.st = st;
    if (atomic_load(&st->closing) && !d->part) {
        d->u.rc = E_CLOSED;
        door_applied(&d->u);
        return;
    }
    catalogue_submit(st->catalogue, &d->u);
}

struct jrn_change *catalogue_changes_copy(const struct jrn_change *changes, unsigned n,
                                          uint8_t **mem)
{
    struct jrn_change *copy = mem_new((n + 1) * sizeof *copy);
    size_t bytes = 1, at = 0;

    for (unsigned i = 0; i < n; i++)
        bytes += (size_t)changes[i].key_bytes + changes[i].value_bytes;
    *mem = mem_new(bytes);
    for (unsigned i = 0; i < n; i++) {
        struct jrn_change *c = &copy[i];

        *c = changes[i];
        if (c->key_bytes)
            memcpy(*mem + at, c->key, c->key_bytes);
        c->key = *mem + at;
        at += c->key_bytes;
        if (c->value_bytes)
            memcpy(*mem + at, c->value, c->value_bytes);
        c->value = *mem + at;
        at += c->value_bytes;
    }
    return copy;
}

static struct door_update *door_new(struct store *st, const struct jrn_change *changes, unsigned n,
                                    struct jrn_update *done)
{
    struct door_update *d = mem_new(sizeof *d);

    atomic_fetch_add(&st->busy, 1);
    d->changes = catalogue_changes_copy(changes, n, &d->mem);
    d->n = n;
    d->done = done;
    for (unsigned i = 0; i < n; i++)
        if (changes[i].op == JRN_SHARD_POLICY)
            d->u.read = door_read;
    d->u.prepare = door_prepare;
    d->u.applied = door_applied;
    return d;
}

void store_update(struct store *st, const struct jrn_change *changes, unsigned n,
                  struct jrn_update *done)
{
    store_on_keeper(st, door_submit, door_new(st, changes, n, done));
}

void store_update_part(struct store *st, const struct jrn_change *changes, unsigned n,
                       struct rows_batch *rows, bool again, struct jrn_update *done)
{
    struct door_update *d = door_new(st, changes, n, done);

    d->part = true;
    d->again = again;
    if (rows) {
        d->more = *rows;
        *rows = (struct rows_batch){ 0 };
    }
    store_on_keeper(st, door_submit, d);
}
