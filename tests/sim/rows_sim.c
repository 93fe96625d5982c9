#include "tests/sim/rows_sim.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "journal/io/rows_int.h"

/* A row owns its bytes: the key, then the value. */
struct row {
    uint32_t key_bytes;
    uint32_t value_bytes;
    uint8_t mem[];
};

/* How to take one change back: put `row` in again, or remove the row of its key. */
struct undo {
    struct row *row;
    bool was_there;
};

struct undo_batch {
    size_t first;        /* its undos are from here to the next batch's */
    uint64_t replay_lsn; /* before it */
};

struct sim_rows_store {
    struct sim_disk *disk;
    struct row **rows; /* in order of the key */
    size_t n_rows;
    size_t cap_rows;
    uint64_t replay_lsn;
    struct undo *undos;
    size_t n_undos;
    size_t cap_undos;
    struct undo_batch *batches; /* since the last flush */
    unsigned n_batches;
    size_t cap_batches;
    uint64_t life;
    uint64_t serial; /* batches ever written */
    struct sim_rows_counts counts;
};

struct rows_sim {
    struct rows rows;
    struct sim_rows_store *store;
    uint64_t life;
};

static struct row *row_new(const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct row *row = mem_new(sizeof *row + key_bytes + value_bytes);

    row->key_bytes = (uint32_t)key_bytes;
    row->value_bytes = (uint32_t)value_bytes;
    if (key_bytes)
        memcpy(row->mem, key, key_bytes);
    if (value_bytes)
        memcpy(row->mem + key_bytes, value, value_bytes);
    return row;
}

/* The place of the first row whose key is at or after key. */
static size_t rows_find(const struct sim_rows_store *s, const void *key, size_t key_bytes)
{
    size_t low = 0, high = s->n_rows;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct row *row = s->rows[mid];

        if (rows_compare(row->mem, row->key_bytes, key, key_bytes) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool rows_is(const struct sim_rows_store *s, size_t at, const void *key, size_t key_bytes)
{
    return at < s->n_rows &&
           !rows_compare(s->rows[at]->mem, s->rows[at]->key_bytes, key, key_bytes);
}

static void *array_room(void *array, size_t n, size_t *cap, size_t bytes)
{
    if (n < *cap)
        return array;
    *cap = *cap ? 2 * *cap : 32;
    return mem_grow(array, *cap * bytes);
}

static void rows_insert(struct sim_rows_store *s, size_t at, struct row *row)
{
    s->rows = array_room(s->rows, s->n_rows, &s->cap_rows, sizeof *s->rows);
    memmove(s->rows + at + 1, s->rows + at, (s->n_rows - at) * sizeof *s->rows);
    s->rows[at] = row;
    s->n_rows++;
}

static void rows_take(struct sim_rows_store *s, size_t at, size_t n)
{
    memmove(s->rows + at, s->rows + at + n, (s->n_rows - at - n) * sizeof *s->rows);
    s->n_rows -= n;
}

/* --- changes, and how to take them back --- */

static void undo_add(struct sim_rows_store *s, struct row *row, bool was_there)
{
    s->undos = array_room(s->undos, s->n_undos, &s->cap_undos, sizeof *s->undos);
    s->undos[s->n_undos++] = (struct undo){ row, was_there };
}

static void undo_begin(struct sim_rows_store *s)
{
    s->serial++;
    s->batches = array_room(s->batches, s->n_batches, &s->cap_batches, sizeof *s->batches);
    s->batches[s->n_batches++] = (struct undo_batch){ s->n_undos, s->replay_lsn };
}

static void undo_one(struct sim_rows_store *s, const struct undo *u)
{
    size_t at = rows_find(s, u->row->mem, u->row->key_bytes);

    if (rows_is(s, at, u->row->mem, u->row->key_bytes)) {
        free(s->rows[at]);
        rows_take(s, at, 1);
    }
    if (u->was_there)
        rows_insert(s, at, u->row);
    else
        free(u->row);
}

/* Takes back the newest batch. */
static void undo_batch(struct sim_rows_store *s)
{
    const struct undo_batch *b = &s->batches[--s->n_batches];

    while (s->n_undos > b->first)
        undo_one(s, &s->undos[--s->n_undos]);
    s->replay_lsn = b->replay_lsn;
}

/* What is left is durable. */
static void undo_forget(struct sim_rows_store *s)
{
    while (s->n_undos)
        free(s->undos[--s->n_undos].row);
    s->n_batches = 0;
}

static void change_put(struct sim_rows_store *s, const struct rows_change *c)
{
    size_t at = rows_find(s, c->key, c->key_bytes);
    struct row *row = row_new(c->key, c->key_bytes, c->value, c->value_bytes);

    if (rows_is(s, at, c->key, c->key_bytes)) {
        undo_add(s, s->rows[at], true);
        s->rows[at] = row;
    } else {
        undo_add(s, row_new(c->key, c->key_bytes, NULL, 0), false);
        rows_insert(s, at, row);
    }
}

static void change_delete(struct sim_rows_store *s, size_t from, size_t to)
{
    if (from >= to)
        return;
    for (size_t i = from; i < to; i++)
        undo_add(s, s->rows[i], true);
    rows_take(s, from, to - from);
}

static void change_apply(struct sim_rows_store *s, const struct rows_change *c)
{
    size_t at = rows_find(s, c->key, c->key_bytes);

    if (c->op == ROWS_PUT)
        change_put(s, c);
    else if (c->op == ROWS_DELETE)
        change_delete(s, at, at + rows_is(s, at, c->key, c->key_bytes));
    else
        change_delete(s, at, rows_find(s, c->value, c->value_bytes));
}

/* --- rows.h --- */

/* The store, or NULL when this handle's life is over. */
static struct sim_rows_store *store_of(struct rows *r)
{
    struct rows_sim *rs = (struct rows_sim *)r;

    return rs->life == rs->store->life ? rs->store : NULL;
}

/* The same for what needs power. */
static struct sim_rows_store *store_use(struct rows *r)
{
    struct sim_rows_store *s = store_of(r);

    return s && s->disk && sim_disk_use(s->disk) != SIM_POWER_ON ? NULL : s;
}

static int rows_sim_get(struct rows *r, const void *key, size_t key_bytes, uint8_t **value,
                        size_t *value_bytes)
{
    struct sim_rows_store *s = store_of(r);
    const struct row *row;
    size_t at;

    if (!s)
        return E_IO;
    at = rows_find(s, key, key_bytes);
    if (!rows_is(s, at, key, key_bytes))
        return E_NOTFOUND;
    row = s->rows[at];
    *value = mem_new(row->value_bytes + 1);
    memcpy(*value, row->mem + row->key_bytes, row->value_bytes);
    *value_bytes = row->value_bytes;
    return 0;
}

static int rows_sim_write(struct rows *r, const struct rows_batch *b, uint64_t replay_lsn)
{
    struct sim_rows_store *s = store_use(r);
    struct rows_change c;
    size_t at = 0;

    if (!s)
        return E_IO;
    ASSERT(!replay_lsn || replay_lsn >= s->replay_lsn);
    undo_begin(s);
    while (rows_batch_next(b, &at, &c))
        change_apply(s, &c);
    if (replay_lsn)
        s->replay_lsn = replay_lsn;
    s->counts.writes++;
    return 0;
}

static int rows_sim_flush(struct rows *r)
{
    struct sim_rows_store *s = store_use(r);

    if (!s)
        return E_IO;
    undo_forget(s);
    s->counts.flushes++;
    return 0;
}

static uint64_t rows_sim_replay_lsn(struct rows *r)
{
    struct sim_rows_store *s = store_of(r);

    return s ? s->replay_lsn : 0;
}

static int scan_one(const struct row *row,
                    int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                              size_t value_bytes),
                    void *ctx)
{
    return fn(ctx, row->mem, row->key_bytes, row->mem + row->key_bytes, row->value_bytes);
}

static int rows_sim_scan(struct rows *r, const void *from, size_t from_bytes, bool backwards,
                         int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                                   size_t value_bytes),
                         void *ctx)
{
    struct sim_rows_store *s = store_of(r);
    size_t at;
    int rc = 0;

    if (!s)
        return E_IO;
    at = rows_find(s, from, from_bytes);
    if (!backwards) {
        while (!rc && at < s->n_rows)
            rc = scan_one(s->rows[at++], fn, ctx);
        return rc;
    }
    at += rows_is(s, at, from, from_bytes);
    while (!rc && at > 0)
        rc = scan_one(s->rows[--at], fn, ctx);
    return rc;
}

static int rows_sim_clear(struct rows *r)
{
    struct sim_rows_store *s = store_use(r);

    if (!s)
        return E_IO;
    undo_begin(s);
    change_delete(s, 0, s->n_rows);
    s->replay_lsn = 0;
    return 0;
}

static void rows_sim_close(struct rows *r)
{
    free(r);
}

static const struct rows_ops rows_sim_ops = {
    .get = rows_sim_get,
    .write = rows_sim_write,
    .flush = rows_sim_flush,
    .replay_lsn = rows_sim_replay_lsn,
    .scan = rows_sim_scan,
    .clear = rows_sim_clear,
    .close = rows_sim_close,
};

int rows_sim_open(struct rows **out, struct sim_rows_store *s)
{
    struct rows_sim *rs = mem_new(sizeof *rs);

    *rs = (struct rows_sim){ .rows.ops = &rows_sim_ops, .store = s, .life = s->life };
    *out = &rs->rows;
    return 0;
}

/* --- the store --- */

struct sim_rows_store *sim_rows_store_new(struct sim_disk *disk)
{
    struct sim_rows_store *s = mem_new(sizeof *s);

    s->disk = disk;
    return s;
}

static void store_empty(struct sim_rows_store *s)
{
    undo_forget(s);
    while (s->n_rows)
        free(s->rows[--s->n_rows]);
    s->replay_lsn = 0;
}

void sim_rows_store_free(struct sim_rows_store *s)
{
    if (!s)
        return;
    store_empty(s);
    free(s->rows);
    free(s->undos);
    free(s->batches);
    free(s);
}

void sim_rows_crash(struct sim_rows_store *s, struct rng *r, bool lost)
{
    unsigned keep = (unsigned)rng_below(r, s->n_batches + 1);

    s->life++;
    s->counts.crashes++;
    s->counts.lost_batches += s->n_batches - keep;
    while (s->n_batches > keep)
        undo_batch(s);
    undo_forget(s);
    if (!lost)
        return;
    s->counts.lost_stores++;
    store_empty(s);
}

static struct row *row_copy(const struct row *r)
{
    return row_new(r->mem, r->key_bytes, r->mem + r->key_bytes, r->value_bytes);
}

struct sim_rows_store *sim_rows_store_copy(const struct sim_rows_store *s, struct sim_disk *disk,
                                           unsigned keep)
{
    struct sim_rows_store *to = sim_rows_store_new(disk);

    for (size_t i = 0; i < s->n_rows; i++)
        rows_insert(to, i, row_copy(s->rows[i]));
    for (size_t i = 0; i < s->n_undos; i++)
        undo_add(to, row_copy(s->undos[i].row), s->undos[i].was_there);
    for (unsigned i = 0; i < s->n_batches; i++) {
        to->batches = array_room(to->batches, to->n_batches, &to->cap_batches, sizeof *to->batches);
        to->batches[to->n_batches++] = s->batches[i];
    }
    to->replay_lsn = s->replay_lsn;
    to->serial = s->serial;
    while (to->n_batches > keep) {
        undo_batch(to);
        to->serial--;
    }
    undo_forget(to);
    return to;
}

uint64_t sim_rows_serial(const struct sim_rows_store *s)
{
    return s->serial;
}

unsigned sim_rows_unflushed(const struct sim_rows_store *s)
{
    return s->n_batches;
}

const struct sim_rows_counts *sim_rows_counts(const struct sim_rows_store *s)
{
    return &s->counts;
}
