/* Verifying rows: the catalogue is replayed beside them, and the indexes of segments name the runs
 * that they must have. */
#include "journal/inspect_verify_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/catalogue.h"
#include "journal/io/rows_int.h"

struct replay {
    struct pass *p;
    struct rows *rows;
    uint64_t next;
    bool damaged; /* or gone: nothing follows from it */
};

/* Live WAL that the checkpoint has passed since cannot be asked any more. */
static bool replay_gone(struct replay *r, uint64_t lsn)
{
    struct super now;

    return lsn && inspect_super_now(r->p->dev, &now, NULL) >= 0 &&
           (now.ckpt_lsn > lsn || now.starts != r->p->super.starts);
}

static int replay_batch(void *ctx, const struct inspect_batch *b)
{
    struct replay *r = ctx;
    struct rows_batch rows = { 0 };
    uint64_t base = (uint64_t)b->head.base_offset;
    int rc = b->ok ? 0 : E_CORRUPT;

    if (rc >= 0 && base < r->next)
        return 0;
    if (rc >= 0 && base == r->next)
        rc = catalogue_batch_rows(b->mem, b->bytes, &rows);
    if ((rc < 0 || base != r->next) && replay_gone(r, b->lsn)) {
        r->damaged = true;
        rows_batch_free(&rows);
        return 1;
    }
    if (rc < 0 || base != r->next) {
        inspect_verify_damage(r->p, INSPECT_ROWS, b->at.file, b->at.byte, b->bytes,
                              "catalogue offset %" PRIu64 " is damaged or missing", r->next)
            ->segment = b->segment;
        r->damaged = true;
        rows_batch_free(&rows);
        return 1;
    }
    r->next = base + (uint64_t)b->head.last_offset_delta + 1;
    rc = rows_write(r->rows, &rows, 0);
    rows_batch_free(&rows);
    return rc < 0 ? rc : 0;
}

static int replay_run(void *ctx, const struct inspect_run *run)
{
    struct replay *r = ctx;
    int rc = inspect_run_batches(r->p->in, SHARD_CATALOGUE, run, replay_batch, r);

    if (rc == E_CORRUPT && replay_gone(r, run->lsn)) {
        r->damaged = true;
        rc = 1;
    } else if (rc == E_CORRUPT) {
        inspect_verify_damage(
            r->p, INSPECT_ROWS, "rows", 0, 0,
            "catalogue offset %" PRIu64 ": the place that the rows name is not there", r->next);
        r->damaged = true;
        rc = 1;
    }
    return rc;
}

struct compare {
    struct pass *p;
    struct rows *other;
    const char *what;
    bool count;
};

static void row_name(const uint8_t *key, size_t bytes, char *name, size_t room)
{
    uint64_t a = 0, b = 0;

    if (key[0] == ROW_APP)
        snprintf(name, room, "row of a door beginning with '%c'", bytes > 1 ? key[1] : '?');
    else if (row_key_parse(key, bytes, &a, &b))
        snprintf(name, room, "row %c %" PRIu64 " %" PRIu64, key[0], a, b);
    else
        snprintf(name, room, "row %c", key[0]);
}

/* One row that must be the same on the other side. */
static int compare_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct compare *c = ctx;
    const uint8_t *k = key;
    uint8_t *mem = NULL;
    size_t bytes = 0;
    char name[64];
    int rc;

    if (key_bytes == 0 || k[0] < 'A' || k[0] > 'Z')
        return key_bytes && k[0] > 'Z';
    if (c->count)
        c->p->report->rows++;
    rc = rows_get(c->other, key, key_bytes, &mem, &bytes);
    if (rc < 0 && rc != E_NOTFOUND)
        return rc;
    if (rc < 0 || bytes != value_bytes || memcmp(mem, value, bytes) != 0) {
        row_name(k, key_bytes, name, sizeof name);
        inspect_verify_damage(c->p, INSPECT_ROWS, "rows", 0, 0, "%s: %s", name,
                              rc < 0 ? c->what : "it is not what the catalogue says");
    }
    free(mem);
    return 0;
}

/* The catalogue from its first record on gives the rows that are there, no more and no fewer. */
static int catalogue_check(struct pass *p)
{
    struct replay r = { .p = p, .next = p->in->super.catalogue_start };
    struct compare there = { p, NULL, "the catalogue does not have it", true };
    struct compare back = { p, p->in->rows, "the catalogue has it, the rows do not", false };
    int rc = rows_mem_open(&r.rows, NULL);

    there.other = r.rows;
    if (rc >= 0)
        rc = inspect_runs(p->in, SHARD_CATALOGUE, replay_run, &r);
    if (rc >= 0 && !r.damaged)
        rc = rows_write(r.rows, &p->in->todo.rows, 0); /* what the view itself has added */
    if (rc >= 0 && !r.damaged)
        rc = rows_scan(p->in->rows, "A", 1, false, compare_row, &there);
    if (rc >= 0 && !r.damaged)
        rc = rows_scan(r.rows, "A", 1, false, compare_row, &back);
    rows_close(r.rows);
    return rc < 0 ? rc : 0;
}

/* Whether a run's shard is there and reaches into the run. */
static int run_is_alive(struct pass *p, uint64_t shard, uint64_t end, bool *alive)
{
    struct row_shard row = { 0 };
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;
    int rc;

    *alive = shard == SHARD_CATALOGUE;
    if (*alive)
        return 0;
    rc = rows_get(p->in->rows, key, row_key(key, ROW_SHARD, shard), &mem, &bytes);
    if (rc < 0)
        return rc == E_NOTFOUND ? 0 : rc;
    *alive = row_shard_read(&row, mem, bytes) >= 0 && end > row.start;
    free(mem);
    return 0;
}

static bool run_matches(const struct row_run *row, uint64_t segment, const struct seg_run *n)
{
    return row->segment == segment && row->end == n->end && row->pos == n->pos &&
           row->bytes == n->bytes && row->xxh3 == n->xxh3 && row->max_ts == n->max_ts &&
           row->first_sparse == n->first_sparse && row->n_sparse == n->n_sparse &&
           row->n_batches == n->n_batches;
}

/* Log compaction has written the run anew: the one in the segment with the highest number holds. */
struct newer {
    uint64_t shard, base, segment;
    bool is;
};

static int newer_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct newer *n = ctx;
    struct row_run row;
    uint64_t base;

    if (row_key_of(key, key_bytes, ROW_RUN, n->shard, &base) &&
        row_run_read(&row, value, value_bytes) >= 0)
        n->is = row.end > n->base && row.segment > n->segment;
    return 1;
}

static int run_is_newest(struct pass *p, uint64_t segment, const struct seg_run *run, bool *newest)
{
    struct newer n = { run->shard, run->base, segment, false };
    uint8_t key[ROW_KEY_MAX];
    int rc = rows_scan(p->in->rows, key, row_key2(key, ROW_RUN, run->shard, run->base), true,
                       newer_row, &n);

    *newest = !n.is;
    return rc < 0 ? rc : 0;
}

struct runs_seen {
    struct pass *p;
    uint64_t in_indexes, in_rows; /* those that are alive */
};

/* A live run of an index and its row. */
static int index_run_check(struct runs_seen *seen, uint64_t id, const struct seg_run *n)
{
    uint8_t key[ROW_KEY_MAX], *mem = NULL;
    struct row_run row;
    size_t bytes;
    bool same;
    int rc =
        rows_get(seen->p->in->rows, key, row_key2(key, ROW_RUN, n->shard, n->base), &mem, &bytes);

    if (rc < 0 && rc != E_NOTFOUND)
        return rc;
    same = rc >= 0 && row_run_read(&row, mem, bytes) >= 0 && run_matches(&row, id, n);
    free(mem);
    seen->in_indexes++;
    if (!same)
        inspect_verify_damage(
            seen->p, INSPECT_ROWS, "rows", 0, 0,
            "shard %" PRIu64 " offset %" PRIu64 ": %s the index of segment %" PRIu64 " says",
            n->shard, n->base, rc < 0 ? "no row of the run that" : "the row of the run is not what",
            id)
            ->segment = id;
    return 0;
}

static int index_rows_check(struct runs_seen *seen, struct segment *seg)
{
    struct segments *t = &seen->p->in->st->segments;
    const struct seg_index *x;
    int rc;

    if (seg->open)
        return 0;
    seg = segment_pin(t, seg->id);
    rc = segment_index(t, seg, &x);
    for (uint32_t i = 0; rc >= 0 && i < x->n_runs; i++) {
        bool alive;

        rc = run_is_alive(seen->p, x->runs[i].shard, x->runs[i].end, &alive);
        if (rc >= 0 && alive && x->runs[i].shard != SHARD_CATALOGUE)
            rc = run_is_newest(seen->p, seg->id, &x->runs[i], &alive);
        if (rc >= 0 && alive)
            rc = index_run_check(seen, seg->id, &x->runs[i]);
    }
    segment_unpin(t, seg);
    return rc;
}

/* What is trimmed or deleted may have rows that are still to be taken away. */
static int run_row_check(void *ctx, const void *key, size_t key_bytes, const void *value,
                         size_t value_bytes)
{
    struct runs_seen *seen = ctx;
    struct row_run row;
    uint64_t shard, base;
    bool alive;
    int rc;

    if (((const uint8_t *)key)[0] != ROW_RUN)
        return 1;
    seen->p->report->rows++;
    if (!row_key_parse(key, key_bytes, &shard, &base) ||
        row_run_read(&row, value, value_bytes) < 0) {
        inspect_verify_damage(seen->p, INSPECT_ROWS, "rows", 0, 0,
                              "the row of a run makes no sense");
        return 0;
    }
    rc = run_is_alive(seen->p, shard, row.end, &alive);
    if (rc < 0 || !alive)
        return rc;
    seen->in_rows++;
    if (!hash_get(&seen->p->in->st->segments.by_id, row.segment))
        inspect_verify_damage(seen->p, INSPECT_ROWS, "rows", 0, 0,
                              "shard %" PRIu64 " offset %" PRIu64 ": its row names segment %" PRIu64
                              ", which is not there",
                              shard, base, row.segment)
            ->segment = row.segment;
    return 0;
}

/* Every live run of an index has its row, and there are no more of them than that. */
static int runs_check(struct pass *p)
{
    struct runs_seen seen = { .p = p };
    uint8_t first = ROW_RUN;
    uint64_t pos = 0;
    void *value;
    int rc = rows_scan(p->in->rows, &first, 1, false, run_row_check, &seen);

    while (rc >= 0 && hash_next(&p->in->st->segments.by_id, &pos, NULL, &value))
        rc = index_rows_check(&seen, value);
    if (rc >= 0 && seen.in_rows > seen.in_indexes)
        inspect_verify_damage(p, INSPECT_ROWS, "rows", 0, 0,
                              "%" PRIu64 " rows of runs, but the indexes have only %" PRIu64,
                              seen.in_rows, seen.in_indexes);
    return rc;
}

int inspect_verify_rows(struct pass *p)
{
    int rc;

    if (p->in->rows_damaged)
        inspect_verify_damage(p, INSPECT_ROWS, "rows", 0, 0, "RocksDB cannot be read");
    rc = catalogue_check(p);
    if (rc >= 0)
        rc = runs_check(p);
    if (rc == E_CORRUPT) { /* RocksDB's own checksums */
        inspect_verify_damage(p, INSPECT_ROWS, "rows", 0, 0, "stored rows fail their checksum");
        rc = 0;
    }
    return rc < 0 ? rc : 0;
}
