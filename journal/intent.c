#include "journal/intent.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/intent.h"
#include "journal/catalogue.h"
#include "journal/devices.h"
#include "journal/io/rows_int.h"

/* Of one intent's changes, so that its row stays far below what a row may hold. */
enum { CHANGES_MAX = 8192 };

/* A part of an update that one device is owed, and the row that says so. */
struct part {
    struct jrn_update done; /* first */
    struct multi *multi;
    struct part *next;
    unsigned device;
    uint64_t serial;
    struct jrn_change *changes;
    unsigned n;
    bool made;
};

/* An update, or what a start found to be made good. */
struct multi {
    struct jrn_update first;   /* device 0's batch */
    struct jrn_update removal; /* of the intents */
    struct task task;
    struct intents *x;
    struct multi *next;
    bool found;              /* at the start: to be made good */
    struct jrn_update *done; /* NULL: answered, or found */
    struct jrn_change *changes;
    unsigned n;
    uint8_t *mem; /* keys and values of changes */
    struct part *parts, **parts_end;
    unsigned waiting;
};

struct intents {
    struct store *const *stores;
    unsigned n;
    struct loop *keeper;
    atomic_bool closing;
    pthread_mutex_t lock; /* of held */
    bool redone;          /* under lock */
    struct shard_open *held;
    /* keeper */
    struct multi *first, **end;
    bool running;
    uint64_t serial; /* of the next intent */
    bool owed[JRN_DEVICES_MAX];
    bool stuck; /* an intent could not be removed: nothing may pass it */
};

struct intents *intents_new(struct store *const *stores, unsigned n)
{
    struct intents *x = mem_new(sizeof *x);

    x->stores = stores;
    x->n = n;
    x->keeper = stores[0]->keeper;
    x->end = &x->first;
    x->serial = 1;
    pthread_mutex_init(&x->lock, NULL);
    return x;
}

static void multi_free(struct multi *m)
{
    while (m->parts) {
        struct part *p = m->parts;

        m->parts = p->next;
        free(p->changes);
        free(p);
    }
    free(m->changes);
    free(m->mem);
    free(m);
}

void intents_free(struct intents *x)
{
    if (!x)
        return;
    while (x->first) { /* never started */
        struct multi *m = x->first;

        x->first = m->next;
        multi_free(m);
    }
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* Every store waits with its close while an update is under way. */
static void stores_busy(struct intents *x, int by)
{
    for (unsigned i = 0; i < x->n; i++)
        atomic_fetch_add(&x->stores[i]->busy, (unsigned)by);
}

/* --- shards are opened once nothing is owed --- */

static void held_release(struct intents *x)
{
    struct shard_open *o;

    pthread_mutex_lock(&x->lock);
    x->redone = true;
    o = x->held;
    x->held = NULL;
    pthread_mutex_unlock(&x->lock);
    while (o) {
        struct shard_open *next = o->impl;

        o->impl = NULL;
        store_shard_open(x->stores[device_of(o->id)], o->id, o);
        o = next;
    }
}

bool intents_redone(struct intents *x)
{
    bool redone;

    pthread_mutex_lock(&x->lock);
    redone = x->redone;
    pthread_mutex_unlock(&x->lock);
    return redone;
}

void intents_shard_open(struct intents *x, uint64_t id, struct shard_open *o)
{
    bool hold;

    pthread_mutex_lock(&x->lock);
    hold = !x->redone;
    if (hold) {
        o->id = id;
        o->impl = x->held;
        x->held = o;
    }
    pthread_mutex_unlock(&x->lock);
    if (!hold)
        store_shard_open(x->stores[device_of(id)], id, o);
}

/* --- one update at a time --- */

static void next_multi(struct intents *x);

static void update_done_run(struct task *t)
{
    struct jrn_update *u = (struct jrn_update *)t;

    u->fn(u);
}

static void multi_answer(struct multi *m, int rc)
{
    struct jrn_update *done = m->done;

    if (!done)
        return;
    m->done = NULL;
    done->rc = rc;
    done->task.run = update_done_run;
    loop_post(done->loop, &done->task);
}

static void multi_end(struct multi *m, int rc)
{
    struct intents *x = m->x;

    multi_answer(m, rc);
    if (m->found)
        held_release(x);
    multi_free(m);
    x->running = false;
    next_multi(x);
    stores_busy(x, -1);
}

/* --- the parts --- */

static void intents_removed(struct jrn_update *u)
{
    struct multi *m = (struct multi *)((char *)u - offsetof(struct multi, removal));

    if (u->rc < 0)
        m->x->stuck = true;
    multi_end(m, 0);
}

/* The intents of parts that are made go; what is still owed stays for the next start. */
static void parts_made(struct multi *m)
{
    struct rows_batch rows = { 0 };
    uint8_t key[ROW_KEY_MAX];

    multi_answer(m, 0);
    for (struct part *p = m->parts; p; p = p->next)
        if (p->made)
            rows_batch_delete(&rows, key, row_key2(key, ROW_INTENT, p->serial, p->device));
    m->removal.fn = intents_removed;
    m->removal.loop = m->x->keeper;
    store_update_part(m->x->stores[0], NULL, 0, &rows, false, &m->removal);
}

static void part_done(struct jrn_update *u)
{
    struct part *p = (struct part *)u;
    struct multi *m = p->multi;

    p->made = u->rc >= 0;
    if (!p->made) {
        m->x->owed[p->device] = true;
        LOG_ERROR("update.owed", F_INT("device", p->device), F_ERR(u->rc),
                  F_STR("meaning", "its part of an update is made at the next start"));
    }
    if (--m->waiting == 0)
        parts_made(m);
}

static void parts_start(struct multi *m)
{
    for (struct part *p = m->parts; p; p = p->next)
        m->waiting++;
    for (struct part *p = m->parts, *next; p; p = next) {
        next = p->next;
        p->done.fn = part_done;
        p->done.loop = m->x->keeper;
        store_update_part(m->x->stores[p->device], p->changes, p->n, NULL, true, &p->done);
    }
}

static void part_add(struct part *p, const struct jrn_change *c)
{
    if ((p->n & (p->n - 1)) == 0) /* 0 or a power of two: full */
        p->changes = mem_grow(p->changes, (p->n ? 2 * p->n : 1) * sizeof *p->changes);
    p->changes[p->n++] = *c;
}

static struct part *part_new(struct multi *m, unsigned device, uint64_t serial)
{
    struct part *p = mem_new(sizeof *p);

    p->multi = m;
    p->device = device;
    p->serial = serial;
    *m->parts_end = p;
    m->parts_end = &p->next;
    return p;
}

/* --- an update begins --- */

static bool is_row(const struct jrn_change *c)
{
    return c->op == JRN_ROW_PUT || c->op == JRN_ROW_DELETE;
}

static unsigned change_device(const struct jrn_change *c)
{
    return is_row(c) ? 0 : device_of(c->shard);
}

static int device_check(const struct intents *x, unsigned device)
{
    struct store *st = x->stores[device];

    if (x->stuck || x->owed[device] || atomic_load(&st->failed))
        return E_DEVICE;
    return atomic_load(&st->groups[GROUP_CATALOGUE]->read_only) ? E_READONLY : 0;
}

/* What a part must not meet later. The other checks are the catalogue's, of each device. */
static int changes_check(const struct intents *x, const struct multi *m)
{
    uint64_t max[JRN_DEVICES_MAX];
    int rc = device_check(x, 0);

    for (unsigned i = 0; i < x->n; i++)
        max[i] = atomic_load(&x->stores[i]->max_shard);
    for (unsigned i = 0; rc >= 0 && i < m->n; i++) {
        const struct jrn_change *c = &m->changes[i];
        unsigned device = change_device(c);

        rc = catalogue_change_check(c);
        if (rc >= 0)
            rc = device_check(x, device);
        if (rc < 0 || c->op != JRN_SHARD_CREATE)
            continue;
        if (c->shard <= max[device])
            return E_EXISTS;
    }
    return rc;
}

static struct intent_change intent_of(const struct jrn_change *c)
{
    struct intent_change v = { .kind = (uint8_t)c->kind,
                               .class = (uint8_t)c->class,
                               .shard = c->shard };

    v.op = c->op == JRN_SHARD_CREATE   ? INTENT_CREATE
           : c->op == JRN_SHARD_DELETE ? INTENT_DELETE
                                       : INTENT_POLICY;
    v.policy = (struct row_policy){ .flags = c->policy.flags,
                                    .retention_ms = c->policy.retention_ms,
                                    .retention_bytes = c->policy.retention_bytes,
                                    .min_compaction_lag_ms = c->policy.min_compaction_lag_ms,
                                    .delete_retention_ms = c->policy.delete_retention_ms };
    /* Zeros all over say the same as no policy. */
    v.has_policy = memcmp(&v.policy, &(struct row_policy){ 0 }, sizeof v.policy) != 0;
    return v;
}

static struct jrn_change change_of(const struct intent_change *v)
{
    static const enum jrn_change_op ops[] = { [INTENT_CREATE] = JRN_SHARD_CREATE,
                                              [INTENT_DELETE] = JRN_SHARD_DELETE,
                                              [INTENT_POLICY] = JRN_SHARD_POLICY };

    return (
        struct jrn_change){ .op = ops[v->op],
                            .shard = v->shard,
                            .kind = v->kind,
                            .class = v->class,
                            .policy = { .flags = v->policy.flags,
                                        .retention_ms = v->policy.retention_ms,
                                        .retention_bytes = v->policy.retention_bytes,
                                        .min_compaction_lag_ms = v->policy.min_compaction_lag_ms,
                                        .delete_retention_ms = v->policy.delete_retention_ms } };
}

static void part_row(struct rows_batch *rows, const struct part *p)
{
    size_t room = INTENT_HEAD_BYTES + (size_t)p->n * (INTENT_CHANGE_BYTES + INTENT_POLICY_BYTES);
    uint8_t key[ROW_KEY_MAX], *mem = mem_new(room);
    struct wr w = wr_of(mem, room);

    intent_head_write(&w, p->n);
    for (unsigned i = 0; i < p->n; i++) {
        struct intent_change v = intent_of(&p->changes[i]);

        intent_change_write(&w, &v);
    }
    ASSERT(wr_ok(&w));
    rows_batch_put(rows, key, row_key2(key, ROW_INTENT, p->serial, p->device), mem, wr_used(&w));
    free(mem);
}

/* Moves what other devices are to do into parts; what stays in changes is device 0's. */
static void parts_split(struct multi *m)
{
    struct part *open[JRN_DEVICES_MAX] = { 0 };
    unsigned n = 0;

    for (unsigned i = 0; i < m->n; i++) {
        unsigned device = change_device(&m->changes[i]);
        struct part **p = &open[device];

        if (device == 0) {
            m->changes[n++] = m->changes[i];
            continue;
        }
        if (!*p || (*p)->n == CHANGES_MAX)
            *p = part_new(m, device, m->x->serial++);
        part_add(*p, &m->changes[i]);
    }
    m->n = n;
}

static void first_done(struct jrn_update *u)
{
    struct multi *m = (struct multi *)u;

    if (u->rc < 0)
        multi_end(m, u->rc);
    else
        parts_start(m);
}

/* An update of one device alone needs no intent. */
static void alone_done(struct jrn_update *u)
{
    multi_end((struct multi *)u, u->rc);
}

static void multi_begin(struct multi *m)
{
    struct intents *x = m->x;
    struct rows_batch rows = { 0 };
    unsigned device = m->n ? change_device(&m->changes[0]) : 0;
    bool alone = true;
    int rc = atomic_load(&x->closing) ? E_CLOSED : changes_check(x, m);

    if (rc < 0) {
        multi_end(m, rc);
        return;
    }
    for (unsigned i = 0; i < m->n; i++)
        alone = alone && change_device(&m->changes[i]) == device;
    m->first.loop = x->keeper;
    m->first.fn = alone ? alone_done : first_done;
    if (!alone) {
        parts_split(m);
        for (struct part *p = m->parts; p; p = p->next)
            part_row(&rows, p);
    }
    store_update_part(x->stores[alone ? device : 0], m->changes, m->n, &rows, false, &m->first);
}

static void next_multi(struct intents *x)
{
    struct multi *m = x->first;

    if (x->running || !m)
        return;
    x->first = m->next;
    if (!x->first)
        x->end = &x->first;
    x->running = true;
    if (m->found)
        parts_start(m);
    else
        multi_begin(m);
}

static void multi_queue(struct multi *m)
{
    *m->x->end = m;
    m->x->end = &m->next;
}

static void update_task(struct task *t)
{
    struct multi *m = (struct multi *)((char *)t - offsetof(struct multi, task));

    multi_queue(m);
    next_multi(m->x);
}

static struct multi *multi_new(struct intents *x)
{
    struct multi *m = mem_new(sizeof *m);

    m->x = x;
    m->parts_end = &m->parts;
    return m;
}

void intents_update(struct intents *x, const struct jrn_change *changes, unsigned n,
                    struct jrn_update *done)
{
    struct multi *m = multi_new(x);

    m->changes = catalogue_changes_copy(changes, n, &m->mem);
    m->n = n;
    m->done = done;
    m->task.run = update_task;
    stores_busy(x, 1);
    loop_post(x->keeper, &m->task);
}

void intents_close(struct intents *x)
{
    atomic_store(&x->closing, true);
}

/* --- at the start --- */

struct loading {
    struct intents *x;
    struct multi *multi;
};

static int intent_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                      size_t value_bytes)
{
    struct loading *l = ctx;
    struct rd r = rd_of(value, value_bytes);
    uint64_t serial, device;
    struct part *p;
    uint32_t n;
    int rc;

    if (((const uint8_t *)key)[0] != ROW_INTENT)
        return 1;
    if (!row_key_parse(key, key_bytes, &serial, &device) || device == 0 || device >= l->x->n)
        return E_CORRUPT;
    rc = intent_head_read(&r, &n);
    if (rc < 0 || n > CHANGES_MAX)
        return rc < 0 ? rc : E_CORRUPT;
    if (serial >= l->x->serial)
        l->x->serial = serial + 1;
    p = part_new(l->multi, (unsigned)device, serial);
    for (uint32_t i = 0; i < n; i++) {
        struct intent_change v;
        struct jrn_change c;

        rc = intent_change_read(&r, &v);
        if (rc < 0 || device_of(v.shard) != device)
            return rc < 0 ? rc : E_CORRUPT;
        c = change_of(&v);
        part_add(p, &c);
    }
    return 0;
}

int intents_load(struct intents *x, struct err *e)
{
    struct loading l = { x, multi_new(x) };
    uint8_t table = ROW_INTENT;
    int rc = rows_scan(x->stores[0]->rows, &table, 1, false, intent_row, &l);

    if (rc < 0) {
        multi_free(l.multi);
        return err_set(e, rc, "reading what an update still owes a device: %s", err_text(rc));
    }
    l.multi->found = true;
    x->redone = !l.multi->parts;
#ifdef WEIR_MUTANT_INTENT_NOT_REDONE
    x->redone = true;
#endif
    if (x->redone)
        multi_free(l.multi);
    else
        multi_queue(l.multi);
    return 0;
}

static void start_task(struct task *t)
{
    struct multi *m = (struct multi *)((char *)t - offsetof(struct multi, task));
    unsigned n = 0;

    for (struct part *p = m->parts; p; p = p->next)
        n++;
    LOG_WARN("update.made_good", F_INT("parts", n));
    next_multi(m->x);
}

void intents_start(struct intents *x)
{
    if (!x->first)
        return;
    stores_busy(x, 1);
    x->first->task.run = start_task;
    loop_post(x->keeper, &x->first->task);
}
