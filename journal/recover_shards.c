/* The shards that the live WAL names. While it is read they are made of it alone: to look each of them
 * up in the rows, one by one, would take longer than reading a full WAL. Then the tables are walked
 * once, beside the list of those shards, and each is brought in line with its rows. */
#include <stdlib.h>

#include "base/logger.h"
#include "journal/io/rows.h"
#include "journal/recover_int.h"
#include "journal/shard.h"

/* A walk steps over so many rows of other shards before it looks for the next place by key. */
enum { WALK_SKIP_MAX = 64, WALK_AGAIN = 2 };

/* --- while the WAL is read --- */

struct shard *recover_shard(struct recovery *r, struct jrn_group *g, uint64_t id)
{
    struct store *st = r->st;
    struct shard *s = hash_get(&st->shards, id); /* nobody else has the store yet */

    if (!s) {
        s = shard_make(st, id);
        s->group = g;
        hash_put(&st->shards, id, s);
    }
    return s;
}

void recover_hole_add(struct recovery *r, uint64_t shard, uint64_t start, uint64_t end)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    r->holes = true;
    atomic_store(&r->st->no_holes, false);
    rows_batch_put(&r->todo->rows, key, row_key2(key, ROW_HOLE, shard, start), value,
                   row_u64_write(end, value));
}

/* --- afterwards: the rows, table by table --- */

struct settle_shard {
    struct shard *s;
    uint64_t start, end; /* as rows have them; end: 0 when they have none */
    uint64_t holes_end;
    bool exists;
};

struct settle {
    struct recovery *r;
    struct settle_shard *list; /* by id */
    size_t n;
    int64_t expired; /* producers older than this are forgotten */
    /* the walk */
    enum row_table table;
    int (*row)(struct settle *w, struct settle_shard *t, uint64_t second, const void *value,
               size_t bytes);
    size_t at;
    unsigned skipped;
};

static int by_id(const void *a, const void *b)
{
    const struct settle_shard *x = a, *y = b;

    return x->s->id < y->s->id ? -1 : x->s->id > y->s->id;
}

static void settle_list(struct settle *w)
{
    struct hash *h = &w->r->st->shards;
    uint64_t pos = 0;
    void *value;

    w->list = mem_new((h->count + 1) * sizeof *w->list);
    while (hash_next(h, &pos, NULL, &value))
        w->list[w->n++].s = value;
    qsort(w->list, w->n, sizeof *w->list, by_id);
}

static int walk_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct settle *w = ctx;
    uint64_t shard, second;

    if (((const uint8_t *)key)[0] != (uint8_t)w->table ||
        !row_key_parse(key, key_bytes, &shard, &second))
        return 1;
    while (w->at < w->n && w->list[w->at].s->id < shard)
        w->at++;
    if (w->at == w->n)
        return 1;
    if (w->list[w->at].s->id != shard)
        return ++w->skipped > WALK_SKIP_MAX ? WALK_AGAIN : 0;
    w->skipped = 0;
    return w->row(w, &w->list[w->at], second, value, value_bytes);
}

/* Calls row for each row that the table has of a listed shard. */
static int walk(struct settle *w, enum row_table table,
                int (*row)(struct settle *w, struct settle_shard *t, uint64_t second,
                           const void *value, size_t bytes))
{
    uint8_t key[ROW_KEY_MAX];
    int rc = WALK_AGAIN;

    w->table = table;
    w->row = row;
    w->at = 0;
    while (rc == WALK_AGAIN && w->at < w->n) {
        w->skipped = 0;
        rc = rows_scan(w->r->st->rows, key, row_key(key, table, w->list[w->at].s->id), false,
                       walk_row, w);
    }
    return rc < 0 ? rc : 0;
}

static int settle_row(struct settle *w, struct settle_shard *t, uint64_t second, const void *value,
                      size_t bytes)
{
    struct shard *s = t->s;
    struct row_shard row;
    int rc = row_shard_read(&row, value, bytes);

    if (rc < 0)
        return rc;
    if (row.group != s->group->id)
        return E_CORRUPT;
    s->kind = row.kind;
    s->created = row.created;
    shard_policy_load(s, &row);
    t->start = row.start;
    t->exists = true;
    return 0;
}

static int settle_end_row(struct settle *w, struct settle_shard *t, uint64_t second,
                          const void *value, size_t bytes)
{
    return row_u64_read(&t->end, value, bytes);
}

static int settle_hole_row(struct settle *w, struct settle_shard *t, uint64_t second,
                           const void *value, size_t bytes)
{
    uint64_t end;
    int rc = row_u64_read(&end, value, bytes);

    if (rc >= 0 && end > t->holes_end)
        t->holes_end = end;
    return rc;
}

static int settle_producer_row(struct settle *w, struct settle_shard *t, uint64_t id,
                               const void *value, size_t bytes)
{
    struct row_producer p;
    int rc = row_producer_read(&p, value, bytes);

    if (rc >= 0 && p.n > 0 && p.batch[p.n - 1].time >= w->expired)
        producer_note_under(&t->s->producers, (int64_t)id, &p);
    return rc;
}

/* --- and each shard --- */

/* Offsets are dense: where a run of the WAL begins behind what comes before it, the rest is lost. */
static void settle_holes(struct settle *w, struct settle_shard *t)
{
    struct shard *s = t->s;
    uint64_t next = t->end > t->start ? t->end : t->start;

    for (uint32_t i = 0; i < index_count(&s->index); i++) {
        const struct index_entry *n = index_at(&s->index, i);

        if (n->base > next) {
            recover_hole_add(w->r, s->id, next, n->base);
            LOG_WARN("shard.hole", F_INT("shard", s->id), F_INT("start", next),
                     F_INT("end", n->base));
        }
        if (n->base + n->n_offsets > next)
            next = n->base + n->n_offsets;
    }
    /* The offsets in holes that are known are used up, too. */
    s->next = next > t->holes_end ? next : t->holes_end;
    atomic_store(&s->start, t->start);
    atomic_store(&s->end, s->next);
}

static int settle_shard(struct settle *w, struct settle_shard *t)
{
    struct shard *s = t->s;

    if (!t->exists && s->id != SHARD_CATALOGUE) { /* which has no row of its own */
        atomic_store(&s->deleted, true);
        index_free(&s->index);
        hash_take(&w->r->st->shards, s->id);
        shard_unref(s);
        return 0;
    }
    settle_holes(w, t);
    index_drop_lsn(&s->index, s->group->destaged_lsn);
    index_drop_offset(&s->index, t->start);
    return shard_load_kind(s);
}

/* Whether the rows have holes at all. */
static int hole_seen(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    *(bool *)ctx = ((const uint8_t *)key)[0] == ROW_HOLE;
    return 1;
}

int recover_shards_settle(struct recovery *r)
{
    struct settle w = { .r = r, .expired = loop_wall_ms(r->st->keeper) - PRODUCER_EXPIRE_MS };
    bool holes = false;
    int rc;

    settle_list(&w);
    rc = walk(&w, ROW_SHARD, settle_row);
    if (rc >= 0)
        rc = walk(&w, ROW_END, settle_end_row);
    if (rc >= 0)
        rc = walk(&w, ROW_PRODUCER, settle_producer_row);
    if (rc >= 0)
        rc = recover_table_scan(r->st, ROW_HOLE, hole_seen, &holes);
    if (rc >= 0 && holes)
        rc = walk(&w, ROW_HOLE, settle_hole_row);
    for (size_t i = 0; rc >= 0 && i < w.n; i++)
        rc = settle_shard(&w, &w.list[i]);
    free(w.list);
    atomic_store(&r->st->no_holes, rc >= 0 && !holes && !r->holes);
    return rc < 0 ? rc : 0;
}
