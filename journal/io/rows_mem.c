/* Rows in memory: an ordered array, alone or as an overlay over a base that is only read.
 *
 * Over a base, a deleted key stays in the array as a tombstone that hides the base's row. A clear
 * hides the whole base. */
#include "journal/io/rows_int.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct mem_row {
    uint8_t *mem; /* key, then value */
    uint32_t key_bytes;
    uint32_t value_bytes;
    bool dead; /* a tombstone; only over a base */
};

struct rows_mem {
    struct rows rows;
    struct rows *base;     /* NULL: none, or hidden by a clear */
    pthread_rwlock_t lock; /* all below; and base, which a clear changes */
    struct mem_row *row;   /* in order of their keys */
    size_t n;
    size_t cap;
    uint64_t replay_lsn;
    bool lsn_named; /* replay_lsn is ours, no longer the base's */
};

static struct rows_mem *rows_mem_of(struct rows *r)
{
    return (struct rows_mem *)r;
}

/* The first place whose key is >= key (or, with past, > key); n when there is none. */
static size_t rows_mem_find(const struct rows_mem *m, const void *key, size_t key_bytes, bool past)
{
    size_t low = 0, high = m->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = rows_compare(m->row[mid].mem, m->row[mid].key_bytes, key, key_bytes);

        if (order < 0 || (past && order == 0))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool rows_mem_is(const struct rows_mem *m, size_t i, const void *key, size_t key_bytes)
{
    return i < m->n && rows_compare(m->row[i].mem, m->row[i].key_bytes, key, key_bytes) == 0;
}

static void rows_mem_set(struct rows_mem *m, const struct rows_change *c, bool dead)
{
    size_t i = rows_mem_find(m, c->key, c->key_bytes, false);
    size_t value_bytes = dead ? 0 : c->value_bytes;
    struct mem_row row = {
        .mem = mem_new(c->key_bytes + value_bytes + 1), /* never of 0 bytes */
        .key_bytes = (uint32_t)c->key_bytes,
        .value_bytes = (uint32_t)value_bytes,
        .dead = dead,
    };

    if (c->key_bytes)
        memcpy(row.mem, c->key, c->key_bytes);
    if (value_bytes)
        memcpy(row.mem + c->key_bytes, c->value, value_bytes);
    if (rows_mem_is(m, i, c->key, c->key_bytes)) {
        free(m->row[i].mem);
        m->row[i] = row;
        return;
    }
    if (m->n == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 64;
        m->row = mem_grow(m->row, m->cap * sizeof m->row[0]);
    }
    memmove(m->row + i + 1, m->row + i, (m->n - i) * sizeof m->row[0]);
    m->row[i] = row;
    m->n++;
}

/* Drops the rows at [from, to) from the array. */
static void rows_mem_cut(struct rows_mem *m, size_t from, size_t to)
{
    if (from >= to)
        return;
    for (size_t i = from; i < to; i++)
        free(m->row[i].mem);
    memmove(m->row + from, m->row + to, (m->n - to) * sizeof m->row[0]);
    m->n -= to - from;
}

static void rows_mem_delete(struct rows_mem *m, const struct rows_change *c)
{
    size_t i;

    if (m->base) {
        rows_mem_set(m, c, true);
        return;
    }
    i = rows_mem_find(m, c->key, c->key_bytes, false);
    if (rows_mem_is(m, i, c->key, c->key_bytes))
        rows_mem_cut(m, i, i + 1);
}

static void rows_mem_apply(struct rows_mem *m, const struct rows_batch *b)
{
    struct rows_change c;
    size_t at = 0;

    while (rows_batch_next(b, &at, &c)) {
        if (c.op == ROWS_PUT)
            rows_mem_set(m, &c, false);
        else if (c.op == ROWS_DELETE)
            rows_mem_delete(m, &c);
        else /* the base's rows in it have deletes of their own: rows_mem_expand */
            rows_mem_cut(m, rows_mem_find(m, c.key, c.key_bytes, false),
                         rows_mem_find(m, c.value, c.value_bytes, false));
    }
}

struct expand {
    struct rows_batch *out;
    const struct rows_change *range;
};

static int rows_mem_expand_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                               size_t value_bytes)
{
    struct expand *x = ctx;

    if (rows_compare(key, key_bytes, x->range->value, x->range->value_bytes) >= 0)
        return 1;
    rows_batch_delete(x->out, key, key_bytes);
    return 0;
}

/* Copies b, each range followed by a delete of each row that the base has in it. All that can fail
 * happens here, so that a write is whole or not at all. */
static int rows_mem_expand(struct rows_mem *m, const struct rows_batch *b, struct rows_batch *out)
{
    struct rows_change c;
    size_t at = 0;

    while (rows_batch_next(b, &at, &c)) {
        struct expand x = { .out = out, .range = &c };
        int rc;

        if (c.op == ROWS_PUT)
            rows_batch_put(out, c.key, c.key_bytes, c.value, c.value_bytes);
        else if (c.op == ROWS_DELETE)
            rows_batch_delete(out, c.key, c.key_bytes);
        else {
            rows_batch_delete_range(out, c.key, c.key_bytes, c.value, c.value_bytes);
            rc = rows_scan(m->base, c.key, c.key_bytes, false, rows_mem_expand_row, &x);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static uint64_t rows_mem_lsn(const struct rows_mem *m)
{
    return m->lsn_named || !m->base ? m->replay_lsn : rows_replay_lsn(m->base);
}

static int rows_mem_write(struct rows *r, const struct rows_batch *b, uint64_t replay_lsn)
{
    struct rows_mem *m = rows_mem_of(r);
    struct rows_batch whole = { 0 };
    int rc = 0;

    pthread_rwlock_wrlock(&m->lock);
    ASSERT(replay_lsn == 0 || replay_lsn >= rows_mem_lsn(m));
    if (m->base)
        rc = rows_mem_expand(m, b, &whole);
    if (rc < 0)
        goto out;
    rows_mem_apply(m, m->base ? &whole : b);
    if (replay_lsn) {
        m->replay_lsn = replay_lsn;
        m->lsn_named = true;
    }
out:
    pthread_rwlock_unlock(&m->lock);
    rows_batch_free(&whole);
    return rc;
}

static int rows_mem_get(struct rows *r, const void *key, size_t key_bytes, uint8_t **value,
                        size_t *value_bytes)
{
    struct rows_mem *m = rows_mem_of(r);
    int rc = E_NOTFOUND;
    size_t i;

    pthread_rwlock_rdlock(&m->lock);
    i = rows_mem_find(m, key, key_bytes, false);
    if (rows_mem_is(m, i, key, key_bytes)) {
        const struct mem_row *row = &m->row[i];

        if (!row->dead) {
            *value = mem_new(row->value_bytes + 1u);
            memcpy(*value, row->mem + row->key_bytes, row->value_bytes);
            *value_bytes = row->value_bytes;
            rc = 0;
        }
    } else if (m->base) {
        rc = rows_get(m->base, key, key_bytes, value, value_bytes);
    }
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int rows_mem_flush(struct rows *r)
{
    return 0; /* nothing outlives us */
}

static uint64_t rows_mem_replay_lsn(struct rows *r)
{
    struct rows_mem *m = rows_mem_of(r);
    uint64_t lsn;

    pthread_rwlock_rdlock(&m->lock);
    lsn = rows_mem_lsn(m);
    pthread_rwlock_unlock(&m->lock);
    return lsn;
}

/* A merge of the array and the base, in either direction. */
struct merge {
    struct rows_mem *m;
    size_t at; /* the array's next row; backwards: one past it */
    bool backwards;
    int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value, size_t value_bytes);
    void *ctx;
};

static const struct mem_row *rows_mem_merge_peek(const struct merge *g)
{
    if (g->backwards)
        return g->at ? &g->m->row[g->at - 1] : NULL;
    return g->at < g->m->n ? &g->m->row[g->at] : NULL;
}

static int rows_mem_merge_emit(struct merge *g, const struct mem_row *row)
{
    if (g->backwards)
        g->at--;
    else
        g->at++;
    if (row->dead)
        return 0;
    return g->fn(g->ctx, row->mem, row->key_bytes, row->mem + row->key_bytes, row->value_bytes);
}

/* A row of the base: first the array's rows before it; then it, unless the array has that key. */
static int rows_mem_merge_base(void *ctx, const void *key, size_t key_bytes, const void *value,
                               size_t value_bytes)
{
    struct merge *g = ctx;
    const struct mem_row *row;
    int rc;

    while ((row = rows_mem_merge_peek(g))) {
        int order = rows_compare(row->mem, row->key_bytes, key, key_bytes);

        if (g->backwards ? order < 0 : order > 0)
            break;
        rc = rows_mem_merge_emit(g, row);
        if (rc || order == 0)
            return rc;
    }
    return g->fn(g->ctx, key, key_bytes, value, value_bytes);
}

static int rows_mem_scan(struct rows *r, const void *from, size_t from_bytes, bool backwards,
                         int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                                   size_t value_bytes),
                         void *ctx)
{
    struct rows_mem *m = rows_mem_of(r);
    struct merge g = { .m = m, .backwards = backwards, .fn = fn, .ctx = ctx };
    const struct mem_row *row;
    int rc = 0;

    /* Held across fn, which may read these rows again: glibc's read locks nest. */
    pthread_rwlock_rdlock(&m->lock);
    g.at = rows_mem_find(m, from, from_bytes, backwards);
    if (m->base)
        rc = rows_scan(m->base, from, from_bytes, backwards, rows_mem_merge_base, &g);
    while (rc == 0 && (row = rows_mem_merge_peek(&g)))
        rc = rows_mem_merge_emit(&g, row);
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int rows_mem_clear(struct rows *r)
{
    struct rows_mem *m = rows_mem_of(r);

    pthread_rwlock_wrlock(&m->lock);
    rows_mem_cut(m, 0, m->n);
    m->base = NULL;
    m->replay_lsn = 0;
    m->lsn_named = true;
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

static void rows_mem_close(struct rows *r)
{
    struct rows_mem *m = rows_mem_of(r);

    rows_mem_cut(m, 0, m->n);
    free(m->row);
    pthread_rwlock_destroy(&m->lock);
    free(m);
}

static const struct rows_ops rows_mem_ops = {
    .get = rows_mem_get,
    .write = rows_mem_write,
    .flush = rows_mem_flush,
    .replay_lsn = rows_mem_replay_lsn,
    .scan = rows_mem_scan,
    .clear = rows_mem_clear,
    .close = rows_mem_close,
};

int rows_mem_open(struct rows **out, struct rows *base)
{
    struct rows_mem *m = mem_new(sizeof *m);

    m->rows.ops = &rows_mem_ops;
    m->base = base;
    pthread_rwlock_init(&m->lock, NULL);
    *out = &m->rows;
    return 0;
}
