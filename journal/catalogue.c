#include "journal/catalogue.h"

#include <stdlib.h>

#include "format/batch.h"
#include "journal/io/rows_int.h"
#include "journal/shard.h"
#include "journal/store.h"

enum { RECORDS_MAX_BYTES = 64 << 20 };

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

/* --- the row of a shard --- */

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

int catalogue_cleaned_row(struct store *st, uint64_t shard, struct row_cleaned *row)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;
    int rc = rows_get(st->rows, key, row_key(key, ROW_CLEANED, shard), &mem, &bytes);

    *row = (struct row_cleaned){ 0 };
    if (rc < 0)
        return rc == E_NOTFOUND ? 0 : rc;
    rc = row_cleaned_read(row, mem, bytes);
    free(mem);
    return rc;
}

void catalogue_shard_row_put(struct rows_batch *rows, uint64_t shard, const struct row_shard *row)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    rows_batch_put(rows, key, row_key(key, ROW_SHARD, shard), value, row_shard_write(row, value));
}
