#include "journal/catalogue.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/compact.h"
#include "journal/io/rows_int.h"
#include "journal/keyindex.h"
#include "journal/memory.h"
#include "journal/retention.h"
#include "journal/shard.h"
#include "journal/store.h"

#define REAP_AS_ROW (UINT64_MAX - 1)

enum { APP_KEY_MAX = 1023, APP_VALUE_MAX = 1 << 20, RECORDS_MAX_BYTES = 64 << 20 };

struct catalogue {
    struct store *st;
    struct catalogue_update *first, **end;
    struct catalogue_update *running;
};

struct catalogue *catalogue_new(struct store *st)
{
    struct catalogue *c = mem_new(sizeof *c);

    c->st = st;
    c->end = &c->first;
    return c;
}

void catalogue_free(struct catalogue *c)
{
    free(c);
}

bool catalogue_idle(const struct catalogue *c)
{
    return !c->running && !c->first;
}

/* --- one update at a time --- */

static void next_update(struct catalogue *c);

static void update_end(struct catalogue_update *u, int rc)
{
    struct catalogue *c = u->st->catalogue;

    u->rc = rc;
    c->running = NULL;
    rows_batch_free(&u->rows);
    u->applied(u);
    next_update(c);
}

static void rows_written(struct rows_work *w)
{
    update_end((struct catalogue_update *)w, w->rc);
}

static void rows_write_run(struct rows_work *w)
{
    struct catalogue_update *u = (struct catalogue_update *)w;

    w->rc = u->derive ? u->derive(u) : 0;
    if (w->rc >= 0)
        w->rc = rows_write(w->st->rows, &u->rows, 0);
}

static void update_appended(struct append_done *d)
{
    struct catalogue_update *u =
        (struct catalogue_update *)((char *)d - offsetof(struct catalogue_update, appended));

    if (d->rc < 0) {
        update_end(u, d->rc);
        return;
    }
    u->rows_work.run = rows_write_run;
    u->rows_work.done = rows_written;
    store_rows_do(u->st, &u->rows_work);
}

static bool is_catalogue_table(const struct rows_change *c)
{
    return c->key_bytes > 0 && c->key[0] >= 'A' && c->key[0] <= 'Z' && c->op != ROWS_DELETE_RANGE;
}

/* The records of an update; *out NULL when it has none. */
static int records_make(struct catalogue_update *u, struct buf **out)
{
    struct batch_builder b = { 0 };
    struct rows_change c;
    size_t at = 0;
    int64_t now = loop_wall_ms(u->st->keeper);
    int rc = 0;

    *out = NULL;
    while (rows_batch_next(&u->rows, &at, &c)) {
        struct batch_new_record r = { .timestamp = now,
                                      .key = c.key,
                                      .key_bytes = c.key_bytes,
                                      .value = c.op == ROWS_PUT ? c.value : NULL,
                                      .value_bytes = c.op == ROWS_PUT ? c.value_bytes : 0 };

#ifdef WEIR_MUTANT_TRIM_NOT_RECORDED
        struct row_shard trimmed;

        if (c.key[0] == ROW_SHARD && c.op == ROWS_PUT &&
            row_shard_read(&trimmed, c.value, c.value_bytes) >= 0 && trimmed.start > 0)
            continue;
#endif
        if (is_catalogue_table(&c))
            batch_builder_add(&b, &r);
    }
    if (b.n > 0)
        rc = batch_builder_finish(&b, CODEC_NONE, out);
    batch_builder_free(&b);
    return rc;
}

static void update_prepare(struct catalogue *c, struct catalogue_update *u)
{
    struct buf *batch;
    int rc = u->prepare ? u->prepare(u) : 0;

    if (rc == 0)
        rc = records_make(u, &batch);
    if (rc != 0) {
        update_end(u, rc < 0 ? rc : 0);
        return;
    }
    u->appended.fn = update_appended;
    u->appended.loop = c->st->keeper;
    if (!batch) { /* only derived rows */
        u->appended.rc = 0;
        update_appended(&u->appended);
        return;
    }
    shard_append(c->st->catalogue_shard, batch, 0, batch->len, ACK_LEADER_DURABLE, &u->appended);
    buf_unref(batch);
}

/* What it gives is the update's, not a failure of the rows. */
static void rows_read_run(struct rows_work *w)
{
    struct catalogue_update *u = (struct catalogue_update *)w;

    u->rc = u->read(u);
}

static void rows_read_done(struct rows_work *w)
{
    struct catalogue_update *u = (struct catalogue_update *)w;

    if (u->rc < 0)
        update_end(u, u->rc);
    else
        update_prepare(u->st->catalogue, u);
}

static void update_start(struct catalogue *c, struct catalogue_update *u)
{
    if (!u->read) {
        update_prepare(c, u);
        return;
    }
    u->rows_work.run = rows_read_run;
    u->rows_work.done = rows_read_done;
    store_rows_do(c->st, &u->rows_work);
}

static void next_update(struct catalogue *c)
{
    struct catalogue_update *u = c->first;

    if (c->running || !u)
        return;
    c->first = u->next;
    if (!c->first)
        c->end = &c->first;
    c->running = u;
    update_start(c, u);
}

void catalogue_submit(struct catalogue *c, struct catalogue_update *u)
{
    ASSERT_HOME(c->st->keeper);
    u->st = c->st;
    u->next = NULL;
    *c->end = u;
    c->end = &u->next;
    next_update(c);
}

int catalogue_batch_rows(const void *mem, size_t bytes, struct rows_batch *rows)
{
    struct batch_iter it;
    struct batch_record r;
    int rc = batch_iter_open(&it, mem, bytes, RECORDS_MAX_BYTES);

    if (rc < 0)
        return rc;
    while ((rc = batch_iter_next(&it, &r)) == 1) {
        if (r.key_bytes <= 0 || r.key_bytes > ROWS_KEY_MAX_BYTES) {
            rc = E_CORRUPT;
            break;
        }
        if (r.value)
            rows_batch_put(rows, r.key, (size_t)r.key_bytes, r.value, (size_t)r.value_bytes);
        else
            rows_batch_delete(rows, r.key, (size_t)r.key_bytes);
    }
    batch_iter_close(&it);
    return rc;
}

/* --- what doors change --- */

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

int catalogue_shard_row(struct store *st, uint64_t shard, struct row_shard *row)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;
    int rc = rows_get(st->rows, key, row_key(key, ROW_SHARD, shard), &mem, &bytes);

    if (rc < 0)
        return rc;
    rc = row_shard_read(row, mem, bytes);
    free(mem);
    return rc;
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

static void shard_row_put(struct rows_batch *rows, uint64_t shard, const struct row_shard *row)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    rows_batch_put(rows, key, row_key(key, ROW_SHARD, shard), value, row_shard_write(row, value));
}

static void created_row(struct door_update *d, const struct jrn_change *c)
{
    struct store *st = d->u.st;
    struct row_shard row = { .kind = (uint8_t)c->kind,
                             .class = (uint8_t)c->class,
                             .group = catalogue_group_for(st, c->class, &c->policy, c->shard),
                             .created = loop_wall_ms(st->keeper) };

    shard_policy_write(&c->policy, &row.policy);
    shard_row_put(&d->u.rows, c->shard, &row);
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
    shard_row_put(&d->u.rows, d->changes[i].shard, &d->found[i]);
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

static void deleted_home(struct task *t);

struct shard_task {
    struct task task;
    struct shard *shard;
    uint64_t start;
    struct shard_trim *trim;
};

static void deleted_home(struct task *t)
{
    struct shard_task *hop = (struct shard_task *)t;

    shard_mark_deleted(hop->shard);
    shard_unref(hop->shard);
    free(hop);
}

static void shard_deleted(struct store *st, uint64_t id)
{
    struct shard *s = shard_find(st, id);

    if (s) {
        struct shard_task *hop = mem_new(sizeof *hop);

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

/* --- trim --- */

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
    shard_row_put(&u->rows, t->s->id, &t->row);
    return 0;
}

static void trimmed_home(struct task *task)
{
    struct shard_task *hop = (struct shard_task *)task;

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
    struct shard_task *hop = mem_new(sizeof *hop);

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

/* --- giving space back --- */

struct reap {
    struct rows_work w;
    bool keyed; /* the shard has an index of keys, of which something goes */
    uint64_t shard, start;
    struct rows_batch rows;
    struct reaped {
        uint64_t segment, bytes;
    } * list;
    unsigned n;
};

static void reaped_add(struct reap *r, uint64_t segment, uint64_t bytes)
{
    for (unsigned i = r->n; i-- > 0;) {
        if (r->list[i].segment == segment) {
            r->list[i].bytes += bytes;
            return;
        }
    }
    r->list = mem_grow(r->list, (r->n + 1) * sizeof *r->list);
    r->list[r->n++] = (struct reaped){ segment, bytes };
}

static int reap_run_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    struct reap *r = ctx;
    struct row_run run;
    uint64_t shard, base;

    if (((const uint8_t *)key)[0] != ROW_RUN || !row_key_parse(key, key_bytes, &shard, &base) ||
        shard != r->shard || base >= r->start)
        return 1;
    if (row_run_read(&run, value, value_bytes) < 0)
        return E_CORRUPT;
    if (run.end <= r->start) {
        rows_batch_delete(&r->rows, key, key_bytes);
        reaped_add(r, run.segment, run.bytes);
    }
    return 0;
}

struct reap_table {
    struct reap *r;
    enum row_table table;
};

static int reap_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct reap_table *t = ctx;
    uint64_t shard;

    if (((const uint8_t *)key)[0] != t->table || !row_key_parse(key, key_bytes, &shard, NULL) ||
        shard != t->r->shard)
        return 1;
    rows_batch_delete(&t->r->rows, key, key_bytes);
    return 0;
}

/* Deletes a shard's rows of one table, one by one: a range's tombstone would cost every later scan. */
static int reap_all(struct reap *r, enum row_table table)
{
    struct reap_table t = { r, table };
    uint8_t key[ROW_KEY_MAX];
    int rc = rows_scan(r->w.st->rows, key, row_key(key, table, r->shard), false, reap_row, &t);

    return rc < 0 ? rc : 0;
}

/* Subtracts from the segments' live bytes; the keeper is the only writer of them, and waits for us.
 * */
static void live_rows(struct reap *r)
{
    for (unsigned i = 0; i < r->n; i++) {
        struct segment *seg = segment_pin(&r->w.st->segments, r->list[i].segment);
        uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

        if (!seg)
            continue;
        seg->live -= r->list[i].bytes < seg->live ? r->list[i].bytes : seg->live;
        rows_batch_put(&r->rows, key, row_key(key, ROW_LIVE, seg->id), value,
                       row_u64_write(seg->live, value));
        segment_unpin(&r->w.st->segments, seg);
    }
}

/* What the shard's row says now: its start, or that there is no such shard any more. */
static int reap_start(struct reap *r)
{
    struct row_shard row;
    int rc = catalogue_shard_row(r->w.st, r->shard, &row);

    if (rc >= 0 || rc == E_NOTFOUND)
        r->start = rc < 0 ? UINT64_MAX : row.start;
    return rc == E_NOTFOUND ? 0 : rc;
}

static void reap_run(struct rows_work *w)
{
    struct reap *r = (struct reap *)w;
    bool late = r->start == REAP_AS_ROW; /* its names went when it was trimmed or deleted */
    uint8_t key[ROW_KEY_MAX];

    if (late && (w->rc = reap_start(r)) < 0)
        return;
    w->rc = rows_scan(w->st->rows, key, row_key(key, ROW_RUN, r->shard), false, reap_run_row, r);
    if (w->rc < 0)
        return;
    live_rows(r);
    if (r->start == UINT64_MAX) {
        w->rc = reap_all(r, ROW_PRODUCER);
        if (w->rc >= 0)
            w->rc = reap_all(r, ROW_END);
        if (w->rc < 0)
            return;
    }
    w->rc = rows_write(w->st->rows, &r->rows, 0);
    r->keyed = !late && keyindex_is_there(w->st, r->shard);
}

struct drop_update {
    struct catalogue_update u;
    uint64_t segment;
};

void catalogue_grave(struct store *st, uint64_t segment)
{
    struct grave *g = mem_new(sizeof *g);

    g->segment = segment;
    g->due_us = loop_now_us(st->keeper) + (uint64_t)st->conf.delete_grace_ms * 1000;
    *st->graves_end = g;
    st->graves_end = &g->next;
}

static void segment_dropped(struct catalogue_update *u)
{
    struct drop_update *d = (struct drop_update *)u;
    struct store *st = u->st;

    if (u->rc >= 0) {
        catalogue_grave(st, d->segment);
        LOG_INFO("segment.deleted", F_INT("segment", d->segment));
        store_space_check(st);
    }
    free(d);
}

/* A segment with nothing alive in it goes: by a record first, then after the grace. */
static int drop_prepare(struct catalogue_update *u)
{
    struct drop_update *d = (struct drop_update *)u;
    struct segment *seg = segment_pin(&u->st->segments, d->segment);
    uint8_t key[ROW_KEY_MAX];
    bool dead = seg && seg->live == 0 && !seg->dropping;

    if (seg) {
        seg->dropping = true;
        segment_unpin(&u->st->segments, seg);
    }
    if (!dead)
        return E_NOTFOUND;
    rows_batch_delete(&u->rows, key, row_key(key, ROW_SEGMENT, d->segment));
    rows_batch_delete(&u->rows, key, row_key(key, ROW_LIVE, d->segment));
    return 0;
}

void catalogue_drop_segment(struct store *st, uint64_t segment)
{
    struct drop_update *d = mem_new(sizeof *d);

    d->segment = segment;
    d->u.prepare = drop_prepare;
    d->u.applied = segment_dropped;
    catalogue_submit(st->catalogue, &d->u);
}

static void reap_done(struct rows_work *w)
{
    struct reap *r = (struct reap *)w;

    for (unsigned i = 0; w->rc >= 0 && i < r->n; i++) {
        struct segment *seg = segment_pin(&w->st->segments, r->list[i].segment);
        bool dead = seg && seg->live == 0;

        if (seg)
            segment_unpin(&w->st->segments, seg);
        if (dead)
            catalogue_drop_segment(w->st, r->list[i].segment);
    }
    if (r->keyed)
        keyindex_sweep(w->st, r->shard, r->start);
    rows_batch_free(&r->rows);
    free(r->list);
    free(r);
}

void catalogue_reap(struct store *st, uint64_t shard, uint64_t start)
{
    struct reap *r = mem_new(sizeof *r);

    r->shard = shard;
    r->start = start;
    r->w.run = reap_run;
    r->w.done = reap_done;
    store_rows_do(st, &r->w);
}

void catalogue_reap_late(struct store *st, const struct seg_index *x)
{
    uint64_t last = 0;

    for (uint32_t i = 0; i < x->n_runs; i++) {
        uint64_t id = x->runs[i].shard;
        struct shard *s;

        if (id == last)
            continue;
        last = id;
        if (id == SHARD_CATALOGUE)
            continue;
        s = shard_find(st, id);
        if (!s || atomic_load(&s->deleted) || atomic_load(&s->start) > x->runs[i].base)
            catalogue_reap(st, id, REAP_AS_ROW);
        shard_unref(s);
    }
}

void catalogue_bury(struct store *st, bool urgent)
{
    uint64_t now = loop_now_us(st->keeper);

    while (st->graves && (urgent || st->graves->due_us <= now)) {
        struct grave *g = st->graves;

        st->graves = g->next;
        if (!st->graves)
            st->graves_end = &st->graves;
        segments_remove(&st->segments, g->segment, true);
        free(g);
    }
    if (st->graves && !atomic_load(&st->closing))
        loop_timer_set(st->keeper, &st->grave_timer, st->graves->due_us - now);
}
