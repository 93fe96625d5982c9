/* Opening a view: the store as a start would find it, also while a server goes on. */
#include "journal/inspect_int.h"
#include "journal/store_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/block.h"
#include "journal/group.h"
#include "journal/io/dev.h"
#include "journal/shard.h"

enum { TRIES = 10, ROWS_TRIES = 4, ROWS_CACHE = 8 << 20 };

/* --- opening ------------------------------------------------------------------------------------
 * */

int inspect_super_now(struct dev *dev, struct super *s, struct err *e)
{
    struct dev_file *file = NULL;
    int rc;

    *s = (struct super){ 0 };
    rc = recover_super(dev, &file, s, e);
    dev_close(dev, file);
    return rc;
}

static void store_drop(struct store *st)
{
    store_shards_free(st);
    segments_fini(&st->segments);
    wal_fini(&st->wal);
    slabs_close(&st->slabs);
    pthread_mutex_destroy(&st->shards_lock);
    free(st);
}

/* Ends one try; the folder itself stays open. */
static void view_drop(struct inspect *in)
{
    if (in->st)
        store_drop(in->st);
    in->st = NULL;
    recover_todo_free(&in->todo);
    rows_close(in->rows);
    rows_close(in->base);
    in->rows = in->base = NULL;
}

void inspect_close(struct inspect *in)
{
    if (!in)
        return;
    view_drop(in);
    if (in->loop)
        loop_event_free(in->loop);
    dev_aio_close(in->dev);
    free(in);
}

/* A journal as journal_open makes it up to recovery, less all that serves. */
static struct store *store_bare(struct inspect *in)
{
    struct store *st = mem_new(sizeof *st);

    st->env = (struct journal_env){ .loops = &in->loop, .n_loops = 1, .commit_loop = in->loop };
    st->keeper = in->loop;
    st->dev = in->dev;
    st->rows = in->rows;
    st->super = in->super;
    st->wal_log2 = in->super.wal_extent_log2;
    pthread_mutex_init(&st->shards_lock, NULL);
    st->n_groups = in->super.n_groups > GROUP_DATA ? in->super.n_groups : GROUP_DATA + 1;
    st->groups = mem_new(st->n_groups * sizeof(*st->groups));
    for (unsigned i = 0; i < st->n_groups; i++)
        st->groups[i] = group_new(st, i, i < GROUP_DATA ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA);
    wal_init(&st->wal, &st->slabs, st->wal_log2);
    segments_init(&st->segments, st->dev, &st->slabs);
    return st;
}

/* The folder, and a loop that nothing runs: what every view begins with. */
static int folder_open(struct inspect *in, const char *path, struct err *e)
{
    int rc = dev_aio_open(&in->dev, path,
                          &(struct dev_aio_conf){ .read_threads = 1, .read_only = true }, e);

    return rc < 0 ? rc : loop_event_new(&in->loop, 0, e);
}

/* A store over the superblock and rows as they are now, its slabs open, and nothing read yet. */
static int store_found(struct inspect *in, struct err *e)
{
    in->st = store_bare(in);
    return slabs_open(&in->st->slabs, in->dev, &in->super.store, e);
}

/* Rows that cannot be read are made again from the catalogue, as a start would; verify tells of
 * them. */
static int rows_open(struct inspect *in, const char *path, struct err *e)
{
    size_t bytes = strlen(path) + sizeof "/rows";
    char *folder;
    struct err why = { 0 };
    int rc;

    if (in->rows_damaged) /* seen by an earlier try */
        return 0;
    folder = mem_new(bytes);
    snprintf(folder, bytes, "%s/rows", path);
    rc = rows_rocksdb_open(&in->base, folder, ROWS_CACHE, true, &why);
    free(folder);
    in->rows_damaged = rc == E_CORRUPT;
    if (rc < 0 && rc != E_NOTFOUND && rc != E_CORRUPT)
        return err_set(e, rc, "%s", why.text);
    return 0;
}

/* Rows first, then the superblock: it must not name a later checkpoint than the rows stand for, or
 * the rows are looked at again. Rows
 * that stay behind are old, and recovery does what it does with old rows. */
static int rows_and_super(struct inspect *in, const char *path, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; i < ROWS_TRIES; i++) {
        rows_close(in->base);
        in->base = NULL;
        rc = rows_open(in, path, e);
        if (rc >= 0)
            rc = inspect_super_now(in->dev, &in->super, e);
        if (rc < 0 || !in->base || rows_replay_lsn(in->base) >= in->super.ckpt_lsn)
            break;
    }
    in->rows_lost = rc >= 0 && (!in->base || rows_replay_lsn(in->base) < in->super.ckpt_lsn);
    return rc < 0 ? rc : rows_mem_open(&in->rows, in->base);
}

static struct super_incarnation *last_incarnation(struct super *s)
{
    return s->n ? &s->list[s->n - 1] : NULL;
}

/* Fixes where the log ends, so that a later walk meets only what was durable before it began. */
static void end_fix(struct inspect *in, struct super *s)
{
    struct super_incarnation *last = last_incarnation(s);

    if (!last || last->end_lsn != LSN_OPEN)
        return;
    last->end_lsn = in->end.lsn;
    last->end_hash = in->end.hash;
}

/* Beside a server an extent is read piece by piece while it grows: a block that was not there yet
 * when its piece was read, with a later one behind it, looks like rot. Not with an end that was
 * seen by an earlier walk, all below which was there before this one began. That walk must come after
 * the rows were read: they say where shards end, and what lies there may be newer than the end that an
 * earlier try has seen. */
static int end_find(struct inspect *in, struct err *e)
{
    static const struct walscan_calls none = { 0 };
    int rc = walscan_run(in->dev, &in->st->slabs, &in->super, &none, NULL, &in->end, e);

    if (rc >= 0)
        end_fix(in, &in->st->super);
    return rc < 0 ? rc : 0;
}

/* The lowest LSN of what recovery found lost in this very scan; LSN_OPEN: nothing. */
static uint64_t lost_from(const struct store *st)
{
    uint64_t lsn = LSN_OPEN;

    for (unsigned i = 0; i < st->n_groups; i++)
        for (unsigned k = 0; k < st->groups[i]->n_losses; k++)
            if (!st->groups[i]->losses[k].recorded && st->groups[i]->losses[k].lsn < lsn)
                lsn = st->groups[i]->losses[k].lsn;
    return lsn;
}

enum verdict { VIEW_GOOD = 1, VIEW_AGAIN = 2 };

/* Whether the view may be trusted. What looks damaged counts only if the end was fixed before, and
 * the checkpoint had not
 * passed it when all had been read. */
static int view_judge(struct inspect *in, bool fixed, int rc, const struct err *why, struct err *e)
{
    struct super now;
    uint64_t lost = in->st ? lost_from(in->st) : LSN_OPEN;
    bool moved, suspicious = rc < 0 || lost != LSN_OPEN || in->todo.rows.n > 0;
    int again = inspect_super_now(in->dev, &now, e);

    if (again < 0)
        return again;
    moved = now.ckpt_lsn != in->super.ckpt_lsn || now.starts != in->super.starts;
    if (now.starts != in->super.starts || (rc >= 0 && now.ckpt_lsn > in->end.lsn))
        return VIEW_AGAIN;
    /* One that was named here and has gone since: its runs are not in this view. */
    if (rc >= 0 && in->todo.n_taken > 0)
        return VIEW_AGAIN;
    if (!suspicious)
        return VIEW_GOOD;
    if (!fixed || (rc < 0 && moved) || (rc >= 0 && now.ckpt_lsn > lost))
        return VIEW_AGAIN;
    return rc < 0 ? err_set(e, rc, "%s", why->text) : VIEW_GOOD;
}

/* Whether the page at mem begins a block that was meant to follow: what an extent held before says
 * another LSN. */
static bool is_next_block(const struct inspect *in, const uint8_t *mem, uint64_t incarnation)
{
    struct rd r = rd_of(mem, BLOCK_HEAD_BYTES);
    const uint8_t *magic = rd_bytes(&r, 4);

    rd_bytes(&r, 12);
    return memcmp(magic, "WBLK", 4) == 0 &&
           memcmp(rd_bytes(&r, 16), &in->super.store, sizeof in->super.store) == 0 &&
           rd_u64le(&r) == incarnation && rd_u64le(&r) == in->end.lsn;
}

/* Looks at what lies behind the last block: torn if a block was begun there and is not whole. */
static int tail_look(struct inspect *in)
{
    struct wal *w = &in->st->wal;
    const struct wal_extent *x = w->n ? w->list[w->n - 1] : NULL;
    uint64_t size = (uint64_t)1 << w->log2, pos;
    struct block_head h;
    struct buf *b;
    int rc;

    in->end.torn = false;
    pos = x ? PAGE_BYTES + (in->end.lsn - x->first_lsn) : size;
    if (pos >= size)
        return 0;
    b = buf_new_aligned(size - pos);
    if (!b)
        return E_NOMEM;
    rc = dev_read(in->dev, slabs_file(&in->st->slabs, x->place, w->log2), place_pos(x->place) + pos,
                  b->mem, (uint32_t)(size - pos));
    if (rc >= 0 && is_next_block(in, b->mem, x->incarnation))
        in->end.torn = block_head_read(&h, &in->super.store, x->incarnation, x->salt, b->mem,
                                       size - pos) < 0 ||
                       block_body_check(&h, b->mem) < 0;
    buf_unref(b);
    return rc;
}

static int view_steps(struct inspect *in, const char *path, bool fixed, struct err *e)
{
    struct err why = { 0 };
    int rc = rows_and_super(in, path, e);

    if (rc < 0)
        return rc;
    rc = store_found(in, &why);
    if (rc >= 0 && fixed)
        rc = end_find(in, &why);
    if (rc >= 0)
        rc = recover_run(in->st, &in->end, &in->todo, &why);
    if (rc >= 0)
        rc = tail_look(in);
    rc = view_judge(in, fixed, rc, &why, e);
    if (rc == VIEW_GOOD) {
        end_fix(in, &in->super);
        rc = rows_write(in->rows, &in->todo.rows, 0) < 0 ? E_IO : VIEW_GOOD;
    }
    return rc;
}

static int pass_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    return 0;
}

/* RocksDB checks what is read: here that is all, so that no question meets damage half way. Rows that
 * are damaged are left out, and made anew in the view. */
static int view_try(struct inspect *in, const char *path, bool fixed, struct err *e)
{
    int rc = view_steps(in, path, fixed, e);

    if (rc == VIEW_GOOD && in->base && rows_scan(in->base, "", 0, false, pass_row, NULL) < 0)
        rc = E_CORRUPT;
    if (in->base && atomic_load(&in->base->damaged) && !in->rows_damaged) {
        in->rows_damaged = true;
        rc = VIEW_AGAIN;
    }
    return rc;
}

int inspect_open(struct inspect **out, const char *path, struct err *e)
{
    struct inspect *in = mem_new(sizeof *in);
    int rc = folder_open(in, path, e);

    for (unsigned i = 0; rc >= 0 && rc != VIEW_GOOD && i < TRIES; i++) {
        view_drop(in);
        rc = view_try(in, path, i > 0, e);
    }
    if (rc == VIEW_AGAIN)
        rc = err_set(e, E_BUSY, "%s: the store changes faster than it can be read", path);
    if (rc < 0) {
        inspect_close(in);
        return rc;
    }
    *out = in;
    return 0;
}

int inspect_open_bare(struct inspect **out, const char *path, struct err *e)
{
    struct inspect *in = mem_new(sizeof *in);
    int rc = folder_open(in, path, e);

    if (rc >= 0)
        rc = inspect_super_now(in->dev, &in->super, e);
    if (rc >= 0)
        rc = rows_mem_open(&in->rows, NULL);
    if (rc >= 0)
        rc = store_found(in, e);
    if (rc >= 0)
        rc = end_find(in, e);
    if (rc < 0) {
        inspect_close(in);
        return rc;
    }
    end_fix(in, &in->super);
    *out = in;
    return 0;
}

/* --- rows made anew ---------------------------------------------------------------------------- */

static int rebuild_steps(struct inspect *in, const char *path, const char *into, struct err *e)
{
    int rc = folder_open(in, path, e);

    if (rc >= 0)
        rc = inspect_super_now(in->dev, &in->super, e);
    if (rc >= 0)
        rc = rows_rocksdb_open(&in->rows, into, ROWS_CACHE, false, e);
    if (rc >= 0)
        rc = store_found(in, e);
    if (rc >= 0) /* an empty RocksDB stands for nothing: recovery makes it all */
        rc = recover_run(in->st, &in->end, &in->todo, e);
    if (rc >= 0)
        rc = rows_flush(in->rows);
    return rc;
}

int inspect_rebuild_rows(const char *path, const char *into, struct err *e)
{
    struct inspect *in = mem_new(sizeof *in);
    int rc = rebuild_steps(in, path, into, e);

    inspect_close(in);
    return rc < 0 ? err_set(e, rc, "%s: making the rows anew: %s", path,
                            e && e->code ? e->text : err_text(rc))
                  : 0;
}
