#include "journal/shard.h"
#include "journal/store.h"

#include <stdlib.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/devices.h"
#include "journal/group.h"
#include "journal/stats.h"
#include "journal/keyindex.h"
#include "journal/memory.h"
#include "journal/unload.h"

/* --- the table of loaded shards, and handles --- */

/* Under the lock. */
static struct shard *table_get(struct store *st, uint64_t id)
{
    struct shard *s = hash_get(&st->shards, id);

    if (s) {
        s->used = true;
        atomic_fetch_add(&s->refs, 1);
    }
    return s;
}

struct shard *shard_find(struct store *st, uint64_t id)
{
    struct shard *s;

    pthread_mutex_lock(&st->shards_lock);
    s = table_get(st, id);
    pthread_mutex_unlock(&st->shards_lock);
    return s;
}

struct shard *shard_publish(struct shard *s)
{
    struct store *st = s->st;
    struct shard *first;

    pthread_mutex_lock(&st->shards_lock);
    first = table_get(st, s->id);
    if (!first) {
        hash_put(&st->shards, s->id, s);
        first = table_get(st, s->id);
    }
    pthread_mutex_unlock(&st->shards_lock);
    if (first != s)
        shard_unref(s);
    return first;
}

void shard_withdraw(struct shard *s)
{
    struct store *st = s->st;
    bool was;

    pthread_mutex_lock(&st->shards_lock);
    was = hash_get(&st->shards, s->id) == s;
    if (was)
        hash_take(&st->shards, s->id);
    pthread_mutex_unlock(&st->shards_lock);
    if (was)
        shard_unref(s);
}

struct shard *shard_ref(struct shard *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void shard_unref(struct shard *s)
{
    unsigned refs = s ? atomic_load(&s->refs) : 0;

    if (!s)
        return;
    do {
        if (refs == 2) /* now: with the reference gone the store may be, too */
            unload_wanted(s->st);
    } while (!atomic_compare_exchange_weak(&s->refs, &refs, refs - 1));
    if (refs != 1)
        return;
    ASSERT(!s->waits);
    memory_free(s->memory);
    keyindex_free(s->keys);
    index_free(&s->index);
    producers_free(&s->producers);
    free(s);
}

uint64_t shard_id(const struct shard *s)
{
    return s->id;
}
uint64_t shard_group(const struct shard *s)
{
    return (uint64_t)s->st->super.device << DEVICE_SHIFT | s->group->id;
}
enum shard_kind shard_kind(const struct shard *s)
{
    return (enum shard_kind)s->kind;
}
bool shard_is_volatile(const struct shard *s)
{
    return s->kind == SHARD_MEMORY;
}
int32_t shard_epoch(const struct shard *s)
{
    return (int32_t)s->group->epoch;
}
uint64_t shard_start(const struct shard *s)
{
    return atomic_load(&((struct shard *)(uintptr_t)s)->start);
}
uint64_t shard_end(const struct shard *s)
{
    return atomic_load(&((struct shard *)(uintptr_t)s)->end);
}

/* --- policy --- */

void shard_policy_read(struct shard_policy *p, const struct row_policy *row)
{
    *p = (struct shard_policy){ .flags = row->flags,
                                .retention_ms = row->retention_ms,
                                .retention_bytes = row->retention_bytes,
                                .min_compaction_lag_ms = row->min_compaction_lag_ms,
                                .delete_retention_ms = row->delete_retention_ms };
}

void shard_policy_write(const struct shard_policy *p, struct row_policy *row)
{
    *row = (struct row_policy){ .flags = p->flags,
                                .retention_ms = p->retention_ms,
                                .retention_bytes = p->retention_bytes,
                                .min_compaction_lag_ms = p->min_compaction_lag_ms,
                                .delete_retention_ms = p->delete_retention_ms };
}

void shard_policy_load(struct shard *s, const struct row_shard *row)
{
    pthread_mutex_lock(&s->st->shards_lock);
    if (!s->policy_changed)
        shard_policy_read(&s->policy, &row->policy);
    pthread_mutex_unlock(&s->st->shards_lock);
    if (s->memory)
        memory_policy(s);
}

void shard_policy_set(struct shard *s, const struct shard_policy *p)
{
    pthread_mutex_lock(&s->st->shards_lock);
    s->policy = *p;
    s->policy_changed = true;
    pthread_mutex_unlock(&s->st->shards_lock);
    if (s->memory)
        memory_policy(s);
}

void shard_policy(const struct shard *s, struct shard_policy *out)
{
    pthread_mutex_lock(&s->st->shards_lock);
    *out = s->policy;
    pthread_mutex_unlock(&s->st->shards_lock);
}

/* --- loading --- */

static int row_u64(struct rows *rows, const uint8_t *key, size_t key_bytes, uint64_t *v)
{
    uint8_t *mem;
    size_t bytes;
    int rc = rows_get(rows, key, key_bytes, &mem, &bytes);

    if (rc < 0)
        return rc;
    rc = row_u64_read(v, mem, bytes);
    free(mem);
    return rc;
}

struct load {
    struct shard *s;
    uint64_t next;
    int64_t expired; /* producers older than this are forgotten */
};

static int load_hole(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct load *l = ctx;
    uint64_t start, end;

    if (!row_key_of(key, key_bytes, ROW_HOLE, l->s->id, &start))
        return 1;
    if (row_u64_read(&end, value, value_bytes) < 0)
        return E_CORRUPT;
    if (end > l->next)
        l->next = end;
    return 0;
}

static int load_producer(void *ctx, const void *key, size_t key_bytes, const void *value,
                         size_t value_bytes)
{
    struct load *l = ctx;
    struct row_producer p;
    uint64_t id;

    if (!row_key_of(key, key_bytes, ROW_PRODUCER, l->s->id, &id))
        return 1;
    if (row_producer_read(&p, value, value_bytes) < 0)
        return E_CORRUPT;
    if (p.n > 0 && p.batch[p.n - 1].time >= l->expired)
        for (unsigned i = 0; i < p.n; i++)
            producer_note_raw(&l->s->producers, (int64_t)id, p.epoch, &p.batch[i]);
    return 0;
}

static int load_rest(struct shard *s, uint64_t start)
{
    struct store *st = s->st;
    struct load l = { .s = s, .expired = loop_wall_ms(st->keeper) - PRODUCER_EXPIRE_MS };
    uint8_t key[ROW_KEY_MAX];
    int rc = row_u64(st->rows, key, row_key(key, ROW_END, s->id), &l.next);

    if (rc < 0 && rc != E_NOTFOUND)
        return rc;
    if (l.next < start)
        l.next = start;
    rc = 0;
    if (!atomic_load(&st->no_holes))
        rc = rows_scan(st->rows, key, row_key2(key, ROW_HOLE, s->id, 0), false, load_hole, &l);
    if (rc >= 0)
        rc = rows_scan(st->rows, key, row_key2(key, ROW_PRODUCER, s->id, 0), false, load_producer,
                       &l);
    s->next = l.next;
    atomic_store(&s->start, start);
    atomic_store(&s->end, l.next);
    return rc < 0 ? rc : 0;
}

/* What its kind needs beside the log. */
int shard_load_kind(struct shard *s)
{
    switch ((enum shard_kind)s->kind) {
    case SHARD_SEGMENT:
        return 0;
    case SHARD_MEMORY:
        if (s->st->memories) /* inspection has none */
            s->memory = memory_new(s);
        return 0;
    case SHARD_ROCKSDB:
        return keyindex_load(s);
    }
    return E_VERSION;
}

struct shard *shard_make(struct store *st, uint64_t id)
{
    struct shard *s = mem_new_aligned(sizeof *s, CACHE_LINE);

    s->st = st;
    s->id = id;
    s->rows_end = UINT64_MAX;
    atomic_store(&s->refs, 1);
    return s;
}

int shard_load(struct store *st, uint64_t id, struct shard **out)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    struct row_shard row;
    struct shard *s;
    size_t bytes;
    int rc = rows_get(st->rows, key, row_key(key, ROW_SHARD, id), &mem, &bytes);

    if (rc < 0)
        return rc;
    rc = row_shard_read(&row, mem, bytes);
    free(mem);
    if (rc < 0)
        return rc;
    s = shard_make(st, id);
    s->kind = row.kind;
    s->created = row.created;
    shard_policy_read(&s->policy, &row.policy);
    s->group = store_group(st, row.group);
    rc = s->group ? load_rest(s, row.start) : E_CORRUPT;
    if (rc >= 0)
        rc = shard_load_kind(s);
    if (rc < 0)
        shard_unref(s);
    else
        *out = s;
    return rc;
}

/* --- shard_open --- */

/* Those that want one shard while it is being loaded wait for that load: a second one could end after the
 * shard has been changed and unloaded again, and bring back what it was. */
struct open_work {
    struct work work;
    struct shard_open *o;
    struct open_work *next; /* waits, too */
    struct shard *s;
    int rc;
};

static void open_done_run(struct task *t)
{
    struct shard_open *o = (struct shard_open *)t;

    o->fn(o);
}

/* From here on the shard is found in the table. Gives those that wait. */
static struct open_work *open_loaded(struct open_work *ow)
{
    struct store *st = ow->o->store;

    pthread_mutex_lock(&st->shards_lock);
    hash_take(&st->loading, ow->o->id);
    if (ow->rc >= 0) {
        ASSERT(!hash_get(&st->shards, ow->s->id));
        hash_put(&st->shards, ow->s->id, ow->s);
        table_get(st, ow->s->id);
    }
    pthread_mutex_unlock(&st->shards_lock);
    return ow->next;
}

/* Takes what retention has trimmed and what has been set while the shard was loaded. */
static int row_look_again(struct shard *s, const uint8_t *mem, size_t bytes)
{
    struct row_shard row;
    unsigned long long start = atomic_load(&s->start);
    int rc = row_shard_read(&row, mem, bytes);

    if (rc < 0)
        return rc;
    shard_policy_load(s, &row);
    if (s->kind == SHARD_MEMORY) /* the row's start is where offsets end that may be given */
        return 0;
    while (start < row.start && !atomic_compare_exchange_weak(&s->start, &start, row.start))
        ;
    return 0;
}

/* A deletion, a trim and a new policy write the row first and then look for a loaded shard, so one of
 * the two sees the other. */
static void open_look_again(struct open_work *ow)
{
    struct shard_open *o = ow->o;
    uint8_t key[ROW_KEY_MAX], *mem = NULL;
    size_t bytes;

    ow->rc = rows_get(o->store->rows, key, row_key(key, ROW_SHARD, o->id), &mem, &bytes);
    if (ow->rc >= 0)
        ow->rc = row_look_again(ow->s, mem, bytes);
    free(mem);
    if (ow->rc == E_NOTFOUND) {
        atomic_store(&ow->s->deleted, true);
        shard_withdraw(ow->s);
    }
}

static void open_answer(struct open_work *ow, struct shard *s, int rc)
{
    struct shard_open *o = ow->o;
    struct store *st = o->store;

    o->rc = rc < 0 ? rc : 0;
    o->shard = rc < 0 ? NULL : shard_ref(s);
    loop_post(o->loop, &o->task);
    free(ow);
    atomic_fetch_sub(&st->busy, 1);
}

static void open_run(struct work *w)
{
    struct open_work *ow = (struct open_work *)w, *others;
    struct shard_open *o = ow->o;

    ow->rc = shard_load(o->store, o->id, &ow->s);
    others = open_loaded(ow);
    if (ow->rc >= 0)
        open_look_again(ow);
    while (others) {
        struct open_work *next = others->next;

        open_answer(others, ow->s, ow->rc);
        others = next;
    }
}

static void open_finish(struct work *w)
{
    struct open_work *ow = (struct open_work *)w;
    struct shard *s = ow->s;

    open_answer(ow, s, ow->rc);
    shard_unref(s);
}

/* What of an open is to be done by the caller. Once another's load has it, it may be answered already. */
enum open_todo { OPEN_IS_LOADED, OPEN_WAITS, OPEN_LOADS };

static enum open_todo open_look(struct store *st, struct shard_open *o, struct open_work **out)
{
    struct open_work *ow, *first;

    o->shard = table_get(st, o->id);
    if (o->shard)
        return OPEN_IS_LOADED;
    ow = *out = mem_new(sizeof *ow);
    ow->o = o;
    atomic_fetch_add(&st->busy, 1);
    first = hash_get(&st->loading, o->id);
    if (!first) {
        hash_put(&st->loading, o->id, ow);
        return OPEN_LOADS;
    }
    ow->next = first->next;
    first->next = ow;
    return OPEN_WAITS;
}

void store_shard_open(struct store *st, uint64_t id, struct shard_open *o)
{
    struct open_work *ow = NULL;
    enum open_todo todo;

    o->store = st;
    o->id = id;
    o->rc = 0;
    o->task.run = open_done_run;
    pthread_mutex_lock(&st->shards_lock);
    todo = open_look(st, o, &ow);
    pthread_mutex_unlock(&st->shards_lock);
    if (todo == OPEN_IS_LOADED) {
        loop_post(o->loop, &o->task);
    } else if (todo == OPEN_LOADS) {
        ow->work = (struct work){ .run = open_run, .done = open_finish, .loop = o->loop };
        pool_submit(st->env.pool, &ow->work);
    }
}

/* --- appending --- */

void append_done_run(struct task *t)
{
    struct append_done *d = (struct append_done *)t;

    d->fn(d);
}

static int append_allowed(struct append *a)
{
    struct shard *s = a->shard;
    struct store *st = s->st;

    if (atomic_load(&s->deleted))
        return E_DELETED;
    if (atomic_load(&st->failed))
        return E_DEVICE;
    /* Nothing can be destaged while the catalogue takes no record: appends would wait for ever once the WAL is full. */
    if (atomic_load(&s->group->read_only) || atomic_load(&st->groups[GROUP_CATALOGUE]->read_only))
        return E_READONLY;
    if (s->group->class == SHARD_CLASS_DATA && atomic_load(&st->space) == SPACE_FULL)
        return E_NOSPACE;
    return 0;
}

/* Answers at once where the level does not ask for durability; the append goes on without its done.
 * */
static void answer_early(struct append *a)
{
    struct append_done *d = a->done;

    if (!d || a->ack >= ACK_LEADER_DURABLE)
        return;
    a->done = NULL;
    d->rc = 0;
    d->base_offset = a->base_offset;
    d->append_time = loop_wall_ms(a->shard->group->loop);
    d->duplicate = a->duplicate;
    d->task.run = append_done_run;
    loop_post(d->loop, &d->task);
}

void shard_append_home(struct append *a)
{
    struct shard *s = a->shard;
    struct jrn_group *g = s->group;
    struct batch_head h;
    uint64_t offset;
    int rc = append_allowed(a);

    ASSERT_HOME(g->loop);
    if (s->kind == SHARD_MEMORY && s->memory) {
        memory_append(a);
        return;
    }
    if (rc >= 0 && g->class == SHARD_CLASS_DATA &&
        (group_throttled(g, a) || g->held || atomic_load(&s->st->space) == SPACE_WAIT)) {
        if (atomic_load(&s->st->closing)) {
            append_end(a, E_CLOSED, 0);
            return;
        }
        a->next = NULL; /* in turn: what came earlier may be held too */
        *g->held_end = a;
        g->held_end = &a->next;
        if (!a->was_held)
            metric_add(&s->st->stats->append_held, 1);
        a->was_held = true;
        return;
    }
    if (rc >= 0)
        rc = batch_head_read(&h, a->batch->mem + a->at, a->bytes);
    if (rc >= 0)
        rc = producer_check(&s->producers, &h, &offset);
    if (rc < 0) {
        if (rc == E_NOSPACE && batch_head_read(&h, a->batch->mem + a->at, a->bytes) >= 0)
            producer_refused(&s->producers, &h);
        append_end(a, rc, 0);
        return;
    }
    if (rc == 1) {
        /* The original may still be in flight: the answer goes through the committer, behind it. */
        a->duplicate = true;
        a->base_offset = offset;
#ifdef WEIR_MUTANT_DUPLICATE_EARLY
        append_end(a, 0, 0);
        return;
#endif
        buf_unref(a->batch);
        a->batch = NULL;
        atomic_fetch_sub(&s->st->backlog, a->bytes);
        a->bytes = 0;
    } else {
        a->base_offset = s->next;
        a->n_offsets = (uint32_t)h.last_offset_delta + 1;
        a->max_ts = h.max_timestamp;
        s->next += a->n_offsets;
        if (h.producer_id >= 0) /* else it is not noted, and the clock need not be asked */
            producer_note(&s->producers, &h, a->base_offset, loop_wall_ms(g->loop));
    }
    answer_early(a);
    group_stage(g, a);
}

static void append_task(struct task *t)
{
    shard_append_home((struct append *)t);
}

static int append_sizes(const struct shard *s, const struct buf *batch, uint32_t at, uint32_t bytes)
{
    struct batch_head h;

    if (bytes > s->st->conf.batch_max)
        return E_TOOBIG;
    if (at > batch->len || bytes > batch->len - at ||
        batch_head_read(&h, batch->mem + at, bytes) < 0 || h.bytes != bytes ||
        h.last_offset_delta < 0)
        return E_INVALID;
    return 0;
}

void shard_append(struct shard *s, struct buf *batch, uint32_t at, uint32_t bytes, enum ack ack,
                  struct append_done *done)
{
    bool on_heap = !done || ack < ACK_LEADER_DURABLE; /* done goes its own way soon */
    struct append *a = on_heap ? mem_new(sizeof *a) : (struct append *)done->room;
    int rc;

    __builtin_prefetch(&s->index); /* beside the first line, not after it */
    rc = append_sizes(s, batch, at, bytes);
    *a = (struct append){ .task.run = append_task,
                          .shard = shard_ref(s),
                          .group = s->group,
                          .shard_id = s->id,
                          .batch = buf_ref(batch),
                          .at = at,
                          .bytes = bytes,
                          .ack = ack,
                          .done = done,
                          .began_us = loop_now_us(s->group->loop),
                          .on_heap = on_heap };
    atomic_fetch_add(&s->st->backlog, bytes);
    atomic_fetch_add(&s->st->busy, 1);
    if (rc >= 0 && atomic_load(&s->st->closing) && s->group->id != GROUP_CATALOGUE)
        rc = E_CLOSED;
    if (rc < 0)
        append_end(a, rc, 0);
    else
        loop_post(s->group->loop, &a->task);
}

/* --- waiting --- */

enum { WAIT_NEW, WAIT_LISTED, WAIT_ENDED };

static void wait_done_run(struct task *t)
{
    struct shard_wait *w = (struct shard_wait *)t;

    w->fn(w);
}

static void wait_end(struct shard_wait *w, int rc)
{
    w->state = WAIT_ENDED;
    w->rc = rc;
    w->task.run = wait_done_run;
    loop_post(w->loop, &w->task);
}

static void wait_unlist(struct shard *s, struct shard_wait *w)
{
    if (w->prev)
        w->prev->next = w->next;
    else
        s->waits = w->next;
    if (w->next)
        w->next->prev = w->prev;
}

void shard_wake(struct shard *s, int rc)
{
    uint64_t end = atomic_load(&s->end);
    struct shard_wait *w = s->waits;

    while (w) {
        struct shard_wait *next = w->next;

        if (rc < 0 || end > w->past) {
            wait_unlist(s, w);
            wait_end(w, rc);
        }
        w = next;
    }
}

static void wait_home(struct task *t)
{
    struct shard_wait *w = (struct shard_wait *)t;
    struct shard *s = w->shard;

    if (atomic_load(&s->deleted)) {
        wait_end(w, E_DELETED);
    } else if (atomic_load(&s->end) > w->past) {
        wait_end(w, 0);
    } else {
        w->state = WAIT_LISTED;
        w->prev = NULL;
        w->next = s->waits;
        if (s->waits)
            s->waits->prev = w;
        s->waits = w;
    }
}

void shard_wait(struct shard *s, uint64_t past, struct shard_wait *w)
{
    w->shard = s;
    w->past = past;
    w->state = WAIT_NEW;
    w->task.run = wait_home;
    loop_post(s->group->loop, &w->task);
}

/* A cancel carries its own reference and finds the wait by address: it may have ended, and its
 * memory be gone, meanwhile. */
struct wait_cancel {
    struct task task;
    struct shard *shard;
    struct shard_wait *wait;
};

static void cancel_home(struct task *t)
{
    struct wait_cancel *c = (struct wait_cancel *)t;

    for (struct shard_wait *w = c->shard->waits; w; w = w->next) {
        if (w == c->wait) {
            wait_unlist(c->shard, w);
            wait_end(w, E_CANCELLED);
            break;
        }
    }
    shard_unref(c->shard);
    free(c);
}

void shard_wait_cancel(struct shard_wait *w)
{
    struct wait_cancel *c = mem_new(sizeof *c);

    c->task.run = cancel_home;
    c->shard = shard_ref(w->shard);
    c->wait = w;
    loop_post(w->shard->group->loop, &c->task);
}

/* --- changes that the catalogue has made durable --- */

void shard_mark_deleted(struct shard *s)
{
    ASSERT_HOME(s->group->loop);
    atomic_store(&s->deleted, true);
    index_free(&s->index);
    if (s->memory)
        memory_deleted(s);
    if (s->keys)
        keyindex_deleted(s);
    shard_wake(s, E_DELETED);
    shard_withdraw(s);
}

void shard_mark_trimmed(struct shard *s, uint64_t start)
{
    ASSERT_HOME(s->group->loop);
    if (start > atomic_load(&s->start))
        atomic_store(&s->start, start);
    index_drop_offset(&s->index, start);
}
