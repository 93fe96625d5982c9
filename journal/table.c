#include "journal/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "journal/io/rows_int.h"

enum { DROP_ROWS = 2048 };

struct jrn_table {
    struct store *st;
    uint8_t prefix[TABLE_PREFIX_MAX]; /* of its rows t */
    size_t prefix_bytes;
};

/* --- keys --- */

/* The key of a row of the table; key: TABLE_ROW_KEY_MAX bytes. */
static size_t table_key(const struct jrn_table *t, uint8_t *key, enum row_table letter,
                        const void *rest, size_t bytes)
{
    memcpy(key, t->prefix, t->prefix_bytes);
    key[0] = (uint8_t)letter;
    if (bytes)
        memcpy(key + t->prefix_bytes, rest, bytes);
    return t->prefix_bytes + bytes;
}

static size_t offset_key(const struct jrn_table *t, uint8_t *key, uint64_t shard)
{
    uint8_t number[8];

    put_u64be(number, shard);
    return table_key(t, key, ROW_TABLE_OFFSET, number, sizeof number);
}

static bool is_of_table(const struct jrn_table *t, const void *key, size_t bytes,
                        enum row_table letter)
{
    const uint8_t *k = key;

    return bytes >= t->prefix_bytes && k[0] == (uint8_t)letter &&
           memcmp(k + 1, t->prefix + 1, t->prefix_bytes - 1) == 0;
}

int jrn_table_open(struct jrn_table **out, struct journal *j, const char *name)
{
    size_t n = strlen(name);
    struct jrn_table *t;

    if (n < 1 || n > JRN_TABLE_NAME_MAX)
        return E_INVALID;
    t = mem_new(sizeof *t);
    t->st = journal_store(j);
    t->prefix[0] = ROW_TABLE;
    t->prefix[1] = (uint8_t)n;
    memcpy(t->prefix + 2, name, n);
    t->prefix_bytes = 2 + n;
    *out = t;
    return 0;
}

void jrn_table_close(struct jrn_table *t)
{
    free(t);
}

/* --- what changes rows: in turn with all other work on them, by the keeper --- */

struct table_change {
    struct rows_work w; /* first */
    struct jrn_table *t;
    struct jrn_table_done *done;
    struct rows_batch rows;
    enum row_table dropping;
    uint8_t from[TABLE_ROW_KEY_MAX]; /* where a drop goes on */
    size_t from_bytes;
    unsigned seen;
    bool more;
    int rc;
};

static void done_run(struct task *task)
{
    struct jrn_table_done *d = (struct jrn_table_done *)task;

    d->fn(d);
}

static void done_post(struct jrn_table *t, struct jrn_table_done *d, int rc)
{
    d->rc = rc < 0 ? rc : 0;
    d->task.run = done_run;
    loop_post(d->loop, &d->task);
    atomic_fetch_sub(&t->st->busy, 1);
}

static void change_end(struct table_change *c, int rc)
{
    rows_batch_free(&c->rows);
    done_post(c->t, c->done, rc);
    free(c);
}

static void write_run(struct rows_work *w)
{
    w->rc = rows_write(w->st->rows, &((struct table_change *)w)->rows, 0);
}

static void write_done(struct rows_work *w)
{
    change_end((struct table_change *)w, w->rc);
}

static void change_submit(struct store *st, void *arg)
{
    struct table_change *c = arg;

    if (c->rc >= 0 && atomic_load(&st->closing))
        c->rc = E_CLOSED;
    if (c->rc < 0)
        change_end(c, c->rc);
    else
        store_rows_do(st, &c->w);
}

static struct table_change *change_new(struct jrn_table *t, struct jrn_table_done *done)
{
    struct table_change *c = mem_new(sizeof *c);

    atomic_fetch_add(&t->st->busy, 1);
    c->t = t;
    c->done = done;
    return c;
}

static int change_row(struct table_change *c, const struct jrn_table_row *r)
{
    uint8_t key[TABLE_ROW_KEY_MAX];
    size_t n;

    if (r->key_bytes < 1 || r->key_bytes > JRN_TABLE_KEY_MAX ||
        r->value_bytes > JRN_TABLE_VALUE_MAX)
        return E_INVALID;
    n = table_key(c->t, key, ROW_TABLE, r->key, r->key_bytes);
    if (r->value)
        rows_batch_put(&c->rows, key, n, r->value, r->value_bytes);
    else
        rows_batch_delete(&c->rows, key, n);
    return 0;
}

void jrn_table_write(struct jrn_table *t, const struct jrn_table_row *rows, unsigned n,
                     uint64_t shard, uint64_t offset, struct jrn_table_done *done)
{
    struct table_change *c = change_new(t, done);
    uint8_t key[TABLE_ROW_KEY_MAX], value[ROW_VALUE_MAX];

    for (unsigned i = 0; c->rc >= 0 && i < n; i++)
        c->rc = change_row(c, &rows[i]);
    rows_batch_put(&c->rows, key, offset_key(t, key, shard), value, row_u64_write(offset, value));
    c->w.run = write_run;
    c->w.done = write_done;
    store_on_keeper(t->st, change_submit, c);
}

static int drop_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct table_change *c = ctx;

    if (!is_of_table(c->t, key, key_bytes, c->dropping))
        return 1;
    if (c->seen++ == DROP_ROWS) {
        memcpy(c->from, key, key_bytes);
        c->from_bytes = key_bytes;
        c->more = true;
        return 1;
    }
    rows_batch_delete(&c->rows, key, key_bytes);
    return 0;
}

/* Some rows a time, deleted one by one: a range's tombstone would cost every later scan. */
static void drop_run(struct rows_work *w)
{
    struct table_change *c = (struct table_change *)w;

    c->more = false;
    c->seen = 0;
    w->rc = rows_scan(w->st->rows, c->from, c->from_bytes, false, drop_row, c);
    if (w->rc >= 0 && c->rows.n > 0)
        w->rc = rows_write(w->st->rows, &c->rows, 0);
    rows_batch_free(&c->rows);
}

static void drop_done(struct rows_work *w)
{
    struct table_change *c = (struct table_change *)w;

    if (w->rc >= 0 && !c->more && c->dropping == ROW_TABLE_OFFSET) {
        c->dropping = ROW_TABLE;
        c->from_bytes = table_key(c->t, c->from, ROW_TABLE, NULL, 0);
        c->more = true;
    }
    if (w->rc < 0 || !c->more)
        change_end(c, w->rc);
    else
        change_submit(w->st, c);
}

void jrn_table_drop(struct jrn_table *t, struct jrn_table_done *done)
{
    struct table_change *c = change_new(t, done);

    c->dropping = ROW_TABLE_OFFSET;
    c->from_bytes = table_key(t, c->from, ROW_TABLE_OFFSET, NULL, 0);
    c->w.run = drop_run;
    c->w.done = drop_done;
    store_on_keeper(t->st, change_submit, c);
}

/* --- what only looks: on a pool thread --- */

struct table_look {
    struct work work; /* first */
    struct jrn_table *t;
    struct jrn_table_done *done; /* one of these two */
    struct jrn_table_read *read;
    uint8_t from[TABLE_ROW_KEY_MAX];
    size_t from_bytes;
    uint8_t prefix[TABLE_ROW_KEY_MAX];
    size_t prefix_bytes;
    uint32_t limit;
    int rc;
};

static struct table_look *look_new(struct jrn_table *t, void (*run)(struct work *),
                                   void (*done)(struct work *), struct loop *loop)
{
    struct table_look *l = mem_new(sizeof *l);

    atomic_fetch_add(&t->st->busy, 1);
    l->t = t;
    l->work = (struct work){ .run = run, .done = done, .loop = loop };
    return l;
}

static void offset_run(struct work *w)
{
    struct table_look *l = (struct table_look *)w;
    uint8_t *mem;
    size_t bytes;

    l->rc = rows_get(l->t->st->rows, l->from, l->from_bytes, &mem, &bytes);
    if (l->rc < 0)
        return;
    l->rc = row_u64_read(&l->done->offset, mem, bytes);
    free(mem);
}

static void offset_done(struct work *w)
{
    struct table_look *l = (struct table_look *)w;
    struct jrn_table_done *done = l->done;

    atomic_fetch_sub(&l->t->st->busy, 1);
    done->rc = l->rc < 0 && l->rc != E_NOTFOUND ? l->rc : 0;
    free(l);
    done->fn(done);
}

void jrn_table_offset(struct jrn_table *t, uint64_t shard, struct jrn_table_done *done)
{
    struct table_look *l = look_new(t, offset_run, offset_done, done->loop);

    l->done = done;
    done->offset = 0;
    l->from_bytes = offset_key(t, l->from, shard);
    pool_submit(t->st->env.read_pool, &l->work);
}

/* A row's key and value in one piece of memory, which its key points to. */
static void row_add(struct jrn_table_read *r, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    uint8_t *mem = mem_new(key_bytes + value_bytes + 1);

    if ((r->n & (r->n - 1)) == 0)
        r->rows = mem_grow(r->rows, (r->n ? r->n * 2 : 1) * sizeof *r->rows);
    memcpy(mem, key, key_bytes);
    if (value_bytes)
        memcpy(mem + key_bytes, value, value_bytes);
    r->rows[r->n++] = (struct jrn_table_row){ .key = mem,
                                              .key_bytes = (uint32_t)key_bytes,
                                              .value = mem + key_bytes,
                                              .value_bytes = (uint32_t)value_bytes };
}

void jrn_table_read_release(struct jrn_table_read *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        free((void *)(uintptr_t)r->rows[i].key);
    free(r->rows);
    r->rows = NULL;
    r->n = 0;
}

static int look_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct table_look *l = ctx;
    size_t head = l->t->prefix_bytes;

    if (key_bytes < l->prefix_bytes || memcmp(key, l->prefix, l->prefix_bytes) != 0)
        return 1;
    if (l->read->n == l->limit) {
        l->read->more = true;
        return 1;
    }
    row_add(l->read, (const uint8_t *)key + head, key_bytes - head, value, value_bytes);
    return 0;
}

static void scan_run(struct work *w)
{
    struct table_look *l = (struct table_look *)w;

    if (l->rc >= 0)
        l->rc = rows_scan(l->t->st->rows, l->from, l->from_bytes, false, look_row, l);
}

static void get_run(struct work *w)
{
    struct table_look *l = (struct table_look *)w;
    size_t head = l->t->prefix_bytes, bytes;
    uint8_t *mem;

    if (l->rc >= 0)
        l->rc = rows_get(l->t->st->rows, l->from, l->from_bytes, &mem, &bytes);
    if (l->rc < 0)
        return;
    row_add(l->read, l->from + head, l->from_bytes - head, mem, bytes);
    free(mem);
}

static void look_done(struct work *w)
{
    struct table_look *l = (struct table_look *)w;
    struct jrn_table_read *r = l->read;

    atomic_fetch_sub(&l->t->st->busy, 1);
    r->rc = l->rc < 0 ? l->rc : 0;
    if (r->rc < 0)
        jrn_table_read_release(r);
    free(l);
    r->fn(r);
}

static struct table_look *read_new(struct jrn_table *t, struct jrn_table_read *r,
                                   void (*run)(struct work *))
{
    struct table_look *l = look_new(t, run, look_done, r->loop);

    r->rows = NULL;
    r->n = 0;
    r->more = false;
    l->read = r;
    return l;
}

void jrn_table_get(struct jrn_table *t, const void *key, uint32_t key_bytes,
                   struct jrn_table_read *r)
{
    struct table_look *l = read_new(t, r, get_run);

    if (key_bytes < 1 || key_bytes > JRN_TABLE_KEY_MAX)
        l->rc = E_INVALID;
    else
        l->from_bytes = table_key(t, l->from, ROW_TABLE, key, key_bytes);
    pool_submit(t->st->env.read_pool, &l->work);
}

void jrn_table_scan(struct jrn_table *t, const void *prefix, uint32_t prefix_bytes,
                    const void *from, uint32_t from_bytes, uint32_t limit, struct jrn_table_read *r)
{
    struct table_look *l = read_new(t, r, scan_run);

    l->limit = limit;
    if (prefix_bytes > JRN_TABLE_KEY_MAX || (from && from_bytes > JRN_TABLE_KEY_MAX)) {
        l->rc = E_INVALID;
    } else {
        l->prefix_bytes = table_key(t, l->prefix, ROW_TABLE, prefix, prefix_bytes);
        l->from_bytes = from ? table_key(t, l->from, ROW_TABLE, from, from_bytes) : 0;
        if (rows_compare(l->from, l->from_bytes, l->prefix, l->prefix_bytes) < 0) {
            memcpy(l->from, l->prefix, l->prefix_bytes);
            l->from_bytes = l->prefix_bytes;
        }
    }
    pool_submit(t->st->env.read_pool, &l->work);
}
