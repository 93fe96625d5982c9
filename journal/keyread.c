/* Reading a shard of kind ROCKSDB by key (journal.h: shard_get, shard_scan): the index says at which offsets the
 * records are, and they are read from the shard as any reader would. */
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/group.h"
#include "journal/io/rows_int.h"
#include "journal/keyindex.h"
#include "journal/shard.h"

enum {
    BODY_MAX = 256 << 20,
    TRIES_MAX = 8 /* a record that its index row names may be gone before it is read */
};

struct wanted {
    uint64_t offset; /* UINT64_MAX: no longer there */
    uint32_t name_bytes;
    uint8_t *name;
};

/* What a scan's answer keeps. */
struct scan_mem {
    uint8_t *next;
    struct batch_record *records;
    void **blocks; /* a record's bytes each */
};

struct lookup {
    struct read_done read; /* first */
    struct keyindex_wait wait;
    struct task task;
    struct work work;
    struct shard *shard;   /* a reference */
    struct shard_get *get; /* one of these two */
    struct shard_scan *scan;
    struct wanted *list; /* in key order */
    uint32_t n, at;      /* list[n] is there, too, when there is more */
    bool more;
    bool again; /* only list[at] is looked up */
    bool missing;
    uint64_t gone; /* where the index said that list[at] is, and it was not */
    unsigned tries;
    uint64_t bytes;
    struct batch_record *records;
    void **blocks;
    uint32_t n_records;
    int rc;
};

/* --- answering --- */

static void blocks_free(void **blocks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        free(blocks[i]);
    free(blocks);
}

void shard_get_release(struct shard_get *g)
{
    free(g->mem);
    g->mem = NULL;
}

void shard_scan_release(struct shard_scan *c)
{
    struct scan_mem *m = c->mem;

    if (m) {
        blocks_free(m->blocks, c->n);
        free(m->records);
        free(m->next);
        free(m);
    }
    c->mem = NULL;
    c->records = NULL;
    c->next = NULL;
    c->n = 0;
}

static void get_done_run(struct task *t)
{
    struct shard_get *g = (struct shard_get *)t;

    g->fn(g);
}

static void scan_done_run(struct task *t)
{
    struct shard_scan *c = (struct shard_scan *)t;

    c->fn(c);
}

static void get_answer(struct lookup *l, int rc)
{
    struct shard_get *g = l->get;

    if (rc >= 0 && l->n_records == 0)
        rc = E_NOTFOUND;
    g->rc = rc < 0 ? rc : 0;
    if (rc >= 0) {
        g->record = l->records[0];
        g->mem = l->blocks[0];
        l->n_records = 0; /* the answer has it now */
    }
    g->task.run = get_done_run;
    loop_post(g->loop, &g->task);
}

static void scan_answer(struct lookup *l, int rc)
{
    struct shard_scan *c = l->scan;
    struct scan_mem *m;

    c->rc = rc < 0 ? rc : 0;
    if (rc >= 0) {
        m = mem_new(sizeof *m);
        m->blocks = l->blocks;
        m->records = l->records;
        c->mem = m;
        c->records = l->records;
        c->n = l->n_records;
        if (l->at < l->n || l->more) {
            m->next = l->list[l->at].name;
            l->list[l->at].name = NULL;
            c->next = m->next;
            c->next_bytes = l->list[l->at].name_bytes;
        }
        l->blocks = NULL;
        l->records = NULL;
        l->n_records = 0;
    }
    c->task.run = scan_done_run;
    loop_post(c->loop, &c->task);
}

static void answer(struct lookup *l, int rc)
{
    struct store *st = l->shard->st;

    if (rc < 0 && atomic_load(&l->shard->deleted))
        rc = E_DELETED;
    if (l->get)
        get_answer(l, rc);
    else
        scan_answer(l, rc);
    blocks_free(l->blocks, l->n_records);
    free(l->records);
    for (uint32_t i = 0; i < l->n + l->more; i++)
        free(l->list[i].name);
    free(l->list);
    shard_unref(l->shard);
    free(l);
    atomic_fetch_sub(&st->busy, 1);
}

/* --- 1: what the index says; on a pool thread --- */

static void wanted_add(struct lookup *l, const void *name, size_t bytes, uint64_t offset)
{
    struct wanted *w;

    if ((l->n & (l->n - 1)) == 0)
        l->list = mem_grow(l->list, (l->n ? l->n * 2 : 1) * sizeof *l->list);
    w = &l->list[l->n++];
    *w = (struct wanted){ .offset = offset, .name_bytes = (uint32_t)bytes };
    w->name = mem_new(bytes + 1);
    memcpy(w->name, name, bytes);
}

static int name_offset(struct lookup *l, const void *name, size_t bytes, uint64_t *offset)
{
    uint8_t key[ROW_NAME_KEY_MAX], *mem;
    size_t n;
    int rc =
        rows_get(l->shard->st->rows, key, row_key_name(key, l->shard->id, name, bytes), &mem, &n);

    if (rc < 0)
        return rc;
    rc = row_u64_read(offset, mem, n);
    free(mem);
    return rc;
}

static int scan_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct lookup *l = ctx;
    const uint8_t *name = (const uint8_t *)key + 9;
    uint64_t offset;

    if (!row_key_is_name(key, key_bytes, l->shard->id) || key_bytes - 9 < l->scan->prefix_bytes ||
        (l->scan->prefix_bytes && memcmp(name, l->scan->prefix, l->scan->prefix_bytes) != 0))
        return 1;
    if (row_u64_read(&offset, value, value_bytes) < 0)
        return E_CORRUPT;
    wanted_add(l, name, key_bytes - 9, offset);
    l->more = l->n > l->scan->limit;
    return l->more;
}

static int find_scan(struct lookup *l)
{
    const struct shard_scan *c = l->scan;
    uint8_t key[ROW_NAME_KEY_MAX], name[ROW_NAME_MAX];
    const void *from = c->from;
    size_t bytes = c->from_bytes, n;
    int rc;

    if (from && bytes > ROW_NAME_MAX) { /* a key; shorter ones may be a name, as `next` gives it */
        bytes = row_index_name(name, from, bytes);
        from = name;
    }
    if (!from || rows_compare(from, bytes, c->prefix, c->prefix_bytes) < 0) {
        from = c->prefix;
        bytes = c->prefix_bytes;
    }
    n = row_key_name(key, l->shard->id, from, bytes);
    rc = rows_scan(l->shard->st->rows, key, n, false, scan_row, l);
    if (l->more)
        l->n--; /* the last one only says where to go on */
    return rc < 0 ? rc : 0;
}

static void find_run(struct work *work)
{
    struct lookup *l = (struct lookup *)((char *)work - offsetof(struct lookup, work));

    if (l->again) {
        struct wanted *w = &l->list[l->at];

        l->rc = name_offset(l, w->name, w->name_bytes, &w->offset);
        /* A name may outlive its record: where the tombstone that followed was compacted away before
         * the index had read it. Had a later record taken its place the index would say so now. */
        if (l->rc == E_NOTFOUND || (l->rc >= 0 && w->offset == l->gone)) {
            w->offset = UINT64_MAX;
            l->rc = 0;
        }
    } else if (l->get) {
        uint8_t name[ROW_NAME_MAX];
        size_t n = row_index_name(name, l->get->key, l->get->key_bytes);
        uint64_t offset;

        l->rc = name_offset(l, name, n, &offset);
        if (l->rc >= 0)
            wanted_add(l, name, n, offset);
    } else {
        l->rc = find_scan(l);
    }
}

/* --- 2: their batches, one after the other --- */

static void next(struct lookup *l);

static void found(struct work *work)
{
    struct lookup *l = (struct lookup *)((char *)work - offsetof(struct lookup, work));

    if (l->rc < 0)
        answer(l, l->rc);
    else
        next(l);
}

static void find(struct lookup *l)
{
    l->work = (struct work){ .run = find_run, .done = found, .loop = l->shard->group->loop };
    pool_submit(l->shard->st->env.read_pool, &l->work);
}

static void index_ready(struct keyindex_wait *w, int rc)
{
    struct lookup *l = (struct lookup *)((char *)w - offsetof(struct lookup, wait));

    if (rc < 0)
        answer(l, rc);
    else
        find(l);
}

static void find_when_ready(struct lookup *l)
{
    l->wait.fn = index_ready;
#ifdef WEIR_MUTANT_KEYS_STALE
    find(l);
    return;
#endif
    if (keyindex_wait(l->shard, &l->wait))
        find(l);
}

static const void *copied(uint8_t **at, const void *mem, size_t bytes)
{
    uint8_t *to = *at;

    if (bytes)
        memcpy(to, mem, bytes);
    *at += bytes;
    return to;
}

static void record_add(struct lookup *l, const struct batch_record *r)
{
    size_t key = (size_t)r->key_bytes, value = (size_t)r->value_bytes;
    uint8_t *block = mem_new(key + value + r->headers_bytes + 1), *at = block;
    struct batch_record *to;

    if ((l->n_records & (l->n_records - 1)) == 0) {
        uint32_t cap = l->n_records ? l->n_records * 2 : 1;

        l->records = mem_grow(l->records, cap * sizeof *l->records);
        l->blocks = mem_grow(l->blocks, cap * sizeof *l->blocks);
    }
    to = &l->records[l->n_records];
    *to = *r;
    to->key = copied(&at, r->key, key);
    to->value = copied(&at, r->value, value);
    to->headers = copied(&at, r->headers, r->headers_bytes);
    l->blocks[l->n_records++] = block;
    l->bytes += key + value;
}

/* Whether r is the record that the index means, not what has come to lie at its place. */
static bool is_wanted(const struct wanted *w, const struct batch_record *r)
{
    uint8_t name[ROW_NAME_MAX];

    return (uint64_t)r->offset == w->offset && r->key && r->value &&
           row_index_name(name, r->key, (size_t)r->key_bytes) == w->name_bytes &&
           memcmp(name, w->name, w->name_bytes) == 0;
}

static bool enough(const struct lookup *l)
{
    return l->at == l->n || (l->scan && l->n_records > 0 && l->bytes >= l->scan->max_bytes);
}

/* Takes list[at] from its batch, and those after it that follow there. */
static void take_run(struct work *work)
{
    struct lookup *l = (struct lookup *)((char *)work - offsetof(struct lookup, work));
    uint32_t first = l->at;
    struct batch_iter it;
    struct batch_record r;

    l->rc = batch_iter_open(&it, l->read.slices[0].mem, l->read.slices[0].len, BODY_MAX);
    if (l->rc < 0)
        return;
    while (!enough(l) && (l->rc = batch_iter_next(&it, &r)) == 1) {
        if (!is_wanted(&l->list[l->at], &r))
            continue;
        /* Two long keys may share a name: it is the other one's. */
        if (!l->get || (l->get->key_bytes == (uint32_t)r.key_bytes &&
                        memcmp(l->get->key, r.key, l->get->key_bytes) == 0))
            record_add(l, &r);
        l->at++;
    }
    batch_iter_close(&it);
    l->missing = l->at == first;
}

static void taken(struct work *work)
{
    struct lookup *l = (struct lookup *)((char *)work - offsetof(struct lookup, work));

    read_done_release(&l->read);
    if (l->rc < 0) {
        answer(l, l->rc);
    } else if (l->missing) {
        l->again = true;
        l->gone = l->list[l->at].offset;
        if (++l->tries > TRIES_MAX)
            answer(l, E_CORRUPT);
        else
            find_when_ready(l);
    } else {
        l->tries = 0;
        next(l);
    }
}

static void was_read(struct read_done *d)
{
    struct lookup *l = (struct lookup *)d;

    if (d->rc == E_RANGE && d->from < shard_start(l->shard)) {
        l->at++; /* trimmed meanwhile, perhaps since d->start was looked at */
        next(l);
    } else if (d->rc < 0 || d->bytes == 0) {
        /* Nothing where the index says that something is: what was there is lost. */
        answer(l, d->rc == E_RANGE || d->rc >= 0 ? E_LOST : d->rc);
    } else {
        l->work = (struct work){ .run = take_run, .done = taken, .loop = l->shard->group->loop };
        pool_submit(l->shard->st->env.read_pool, &l->work);
    }
}

static void next(struct lookup *l)
{
    struct shard *s = l->shard;
    uint64_t start = atomic_load(&s->start);

    while (l->at < l->n && (l->list[l->at].offset < start || l->list[l->at].offset == UINT64_MAX))
        l->at++;
    if (enough(l)) {
        answer(l, 0);
        return;
    }
    l->read = (struct read_done){ .fn = was_read,
                                  .loop = s->group->loop,
                                  .from = l->list[l->at].offset,
                                  .max_bytes = 1,
                                  .at_least_one = true };
    shard_read(s, &l->read);
}

/* --- the calls --- */

static void lookup_home(struct task *t)
{
    struct lookup *l = (struct lookup *)((char *)t - offsetof(struct lookup, task));
    struct shard *s = l->shard;

    ASSERT_HOME(s->group->loop);
    if (atomic_load(&s->deleted))
        answer(l, E_DELETED);
    else if (!s->keys)
        answer(l, E_UNSUPPORTED);
    else if (l->rc < 0)
        answer(l, l->rc);
    else if (group_tail_loss(s->group, s))
        answer(l, E_LOST); /* a later record of any key may be among what is lost */
    else
        find_when_ready(l);
}

static void lookup_start(struct shard *s, struct lookup *l)
{
    atomic_fetch_add(&s->st->busy, 1);
    l->shard = shard_ref(s);
    l->task.run = lookup_home;
    loop_post(s->group->loop, &l->task);
}

void shard_get(struct shard *s, struct shard_get *g)
{
    struct lookup *l = mem_new(sizeof *l);

    g->mem = NULL;
    l->get = g;
    lookup_start(s, l);
}

void shard_scan(struct shard *s, struct shard_scan *c)
{
    struct lookup *l = mem_new(sizeof *l);

    c->records = NULL;
    c->n = 0;
    c->next = NULL;
    c->mem = NULL;
    l->scan = c;
    if (c->limit < 1 || c->limit > SHARD_SCAN_MAX || c->prefix_bytes > ROW_NAME_PLAIN)
        l->rc = E_INVALID;
    lookup_start(s, l);
}
