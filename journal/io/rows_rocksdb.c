/* Rows in RocksDB, through its C API.
 *
 * Its own log is off: a row is durable when the memtable that holds it is flushed, and the WAL of
 * the journal gives back the rest. The replay LSN is a row of its own, written in the batch that it
 * goes with, so that any flush, ours or RocksDB's, leaves rows and LSN that belong together. */
#include "journal/io/rows_int.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "base/rd.h"

enum {
    OPEN_TRIES = 5, /* read_only: the server may drop a file that we were about to open */
    OPEN_FILES_MAX = 256,
    ASIDE_MAX = 1000,
    BLOOM_BITS = 10,
    LEVEL0_FILES = 8,
    METADATA_BLOCK_BYTES = 4096,
    INFO_LOG_WARN = 2, /* of RocksDB's levels */
};

static const char lsn_key[] = "\0replay_lsn";
enum { LSN_KEY_BYTES = sizeof lsn_key - 1, LSN_BYTES = 8 };

struct rows_rocksdb {
    struct rows rows;
    char *path;
    bool read_only;
    pthread_rwlock_t lock; /* db: a clear, alone, replaces it */
    rocksdb_t *db;         /* NULL: a clear failed half way */
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;
    rocksdb_readoptions_t *scan;
    rocksdb_writeoptions_t *write;
    rocksdb_flushoptions_t *flush;
    atomic_uint_least64_t replay_lsn; /* as in the row */
};

static struct rows_rocksdb *rows_rocksdb_of(struct rows *r)
{
    return (struct rows_rocksdb *)r;
}

static bool rows_rocksdb_is_lsn(const void *key, size_t key_bytes)
{
    return rows_compare(key, key_bytes, lsn_key, LSN_KEY_BYTES) == 0;
}

/* --- errors: RocksDB gives a sentence that begins with the kind --- */

static bool rows_rocksdb_says(const char *error, const char *words)
{
    return strstr(error, words) != NULL;
}

static int rows_rocksdb_code(const char *error)
{
    if (rows_rocksdb_says(error, "No space left") || rows_rocksdb_says(error, "quota exceeded"))
        return E_NOSPACE;
    if (rows_rocksdb_says(error, "lock hold by") || rows_rocksdb_says(error, "While lock file"))
        return E_LOCKED;
    if (strncmp(error, "Corruption", 10) == 0)
        return E_CORRUPT;
    return E_IO;
}

/* A folder without CURRENT holds no database. */
static bool rows_rocksdb_exists(const char *path)
{
    size_t bytes = strlen(path) + sizeof "/CURRENT";
    char *current = mem_new(bytes);
    bool exists;

    snprintf(current, bytes, "%s/CURRENT", path);
    exists = access(current, F_OK) == 0;
    free(current);
    return exists;
}

/* Whether an open failed for what the folder holds. A file missing from a database is damage, too;
 * a full disk, a lock or a permission is not. */
static bool rows_rocksdb_damaged(const struct rows_rocksdb *s, const char *error)
{
    if (rows_rocksdb_says(error, "No such file or directory"))
        return rows_rocksdb_exists(s->path);
    return rows_rocksdb_code(error) == E_CORRUPT || strncmp(error, "Not implemented", 15) == 0 ||
           strncmp(error, "Invalid argument", 16) == 0;
}

/* The name of the mark that says that stored rows were found damaged while the store was open. */
static char *rows_rocksdb_mark(const struct rows_rocksdb *s)
{
    size_t bytes = strlen(s->path) + sizeof "/DAMAGED";
    char *mark = mem_new(bytes);

    snprintf(mark, bytes, "%s/DAMAGED", s->path);
    return mark;
}

static bool rows_rocksdb_is_marked(const struct rows_rocksdb *s)
{
    char *mark = rows_rocksdb_mark(s);
    bool is = access(mark, F_OK) == 0;

    free(mark);
    return is;
}

/* RocksDB reads only what is asked for, so that damage may show at any time: the next open must not
 * go on with it. */
static void rows_rocksdb_set_mark(const struct rows_rocksdb *s, bool damaged)
{
    char *mark = rows_rocksdb_mark(s);
    int fd = damaged ? open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd >= 0) {
        fsync(fd);
        close(fd);
    } else if (!damaged) {
        unlink(mark);
    }
    free(mark);
}

/* Logs what RocksDB says, frees it and gives its code; 0 for NULL. */
static int rows_rocksdb_failed(struct rows_rocksdb *s, const char *call, char *error)
{
    int code;

    if (!error)
        return 0;
    code = rows_rocksdb_code(error);
    if (code == E_CORRUPT && !atomic_exchange(&s->rows.damaged, true) && !s->read_only)
        rows_rocksdb_set_mark(s, true);
    LOG_WARN("rows.failed", F_STR("path", s->path), F_STR("call", call), F_STR("reason", error));
    rocksdb_free(error);
    return code;
}

/* --- options --- */

static rocksdb_options_t *rows_rocksdb_options(uint64_t cache_bytes, rocksdb_cache_t *cache,
                                               bool read_only)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();

    rocksdb_options_set_create_if_missing(o, !read_only);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_atomic_flush(o, 1);
    /* Half for memtables, half for blocks. A memtable is switched well before the half is full. */
    rocksdb_options_set_db_write_buffer_size(o, cache_bytes / 2);
    rocksdb_options_set_write_buffer_size(o, cache_bytes / 4);
    /* Each compaction of level 0 writes all of level 1 anew: with few files that took a core, where
     * rows came by the hundred thousand a second. */
    rocksdb_options_set_level0_file_num_compaction_trigger(o, LEVEL0_FILES);
    /* Beside a server all files are opened at once: one that it then deletes stays readable. */
    rocksdb_options_set_max_open_files(o, read_only ? -1 : OPEN_FILES_MAX);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_compression(o, rocksdb_lz4_compression);
    rocksdb_options_set_info_log_level(o, INFO_LOG_WARN);
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_max_log_file_size(o, 1 << 20);
    rocksdb_options_set_max_manifest_file_size(o, 4 << 20);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);

    rocksdb_block_based_options_set_block_cache(table, cache);
    /* Indexes and filters are in the cache's bound, too, and so in pieces: a whole filter of a large
     * file is larger than a part of the cache, and would be read and summed for every look-up. */
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
    rocksdb_block_based_options_set_index_type(
        table, rocksdb_block_based_table_index_type_two_level_index_search);
    rocksdb_block_based_options_set_partition_filters(table, 1);
    rocksdb_block_based_options_set_metadata_block_size(table, METADATA_BLOCK_BYTES);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(table, 1);
    rocksdb_block_based_options_set_filter_policy(
        table, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS)); /* takes it */
    rocksdb_options_set_block_based_table_factory(o, table);        /* copies it */
    rocksdb_block_based_options_destroy(table);
    return o;
}

static struct rows_rocksdb *rows_rocksdb_new(const char *path, uint64_t cache_bytes, bool read_only)
{
    struct rows_rocksdb *s = mem_new(sizeof *s);

    s->path = mem_str(path);
    s->read_only = read_only;
    pthread_rwlock_init(&s->lock, NULL);
    s->cache = rocksdb_cache_create_lru(cache_bytes / 2);
    s->options = rows_rocksdb_options(cache_bytes, s->cache, read_only);
    s->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(s->read, 1);
    s->scan = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(s->scan, 1);
    rocksdb_readoptions_set_fill_cache(s->scan, 0); /* a table's scan must not push out the rest */
    s->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(s->write, 1);
    s->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(s->flush, 1);
    return s;
}

static void rows_rocksdb_close(struct rows *r)
{
    struct rows_rocksdb *s = rows_rocksdb_of(r);

    if (s->db)
        rocksdb_close(s->db);
    rocksdb_flushoptions_destroy(s->flush);
    rocksdb_writeoptions_destroy(s->write);
    rocksdb_readoptions_destroy(s->scan);
    rocksdb_readoptions_destroy(s->read);
    rocksdb_options_destroy(s->options);
    rocksdb_cache_destroy(s->cache);
    pthread_rwlock_destroy(&s->lock);
    free(s->path);
    free(s);
}

/* --- rows --- */

static int rows_rocksdb_get_any(struct rows_rocksdb *s, const void *key, size_t key_bytes,
                                uint8_t **value, size_t *value_bytes)
{
    char *error = NULL;
    rocksdb_pinnableslice_t *slice;
    const char *mem;

    if (!s->db)
        return E_IO;
    slice = rocksdb_get_pinned(s->db, s->read, key, key_bytes, &error);
    if (error)
        return rows_rocksdb_failed(s, "get", error);
    if (!slice)
        return E_NOTFOUND;
    mem = rocksdb_pinnableslice_value(slice, value_bytes);
    *value = mem_new(*value_bytes + 1);
    memcpy(*value, mem, *value_bytes);
    rocksdb_pinnableslice_destroy(slice);
    return 0;
}

static int rows_rocksdb_get(struct rows *r, const void *key, size_t key_bytes, uint8_t **value,
                            size_t *value_bytes)
{
    struct rows_rocksdb *s = rows_rocksdb_of(r);
    int rc;

    if (rows_rocksdb_is_lsn(key, key_bytes))
        return E_NOTFOUND;
    pthread_rwlock_rdlock(&s->lock);
    rc = rows_rocksdb_get_any(s, key, key_bytes, value, value_bytes);
    pthread_rwlock_unlock(&s->lock);
    return rc;
}

static void rows_rocksdb_put(rocksdb_writebatch_t *out, const struct rows_change *c)
{
    const char *key = (const char *)c->key, *value = (const char *)c->value;

    ASSERT(c->op == ROWS_DELETE_RANGE || !rows_rocksdb_is_lsn(key, c->key_bytes));
    if (c->op == ROWS_PUT)
        rocksdb_writebatch_put(out, key, c->key_bytes, value, c->value_bytes);
    else if (c->op == ROWS_DELETE)
        rocksdb_writebatch_delete(out, key, c->key_bytes);
    else if (rows_compare(key, c->key_bytes, value, c->value_bytes) < 0)
        rocksdb_writebatch_delete_range(out, key, c->key_bytes, value, c->value_bytes);
    /* else: an empty range, which RocksDB may refuse */
}

/* Changes of one key stay in their order. */
static int rows_rocksdb_by_key(const void *a, const void *b)
{
    const struct rows_change *x = a, *y = b;
    int order = rows_compare(x->key, x->key_bytes, y->key, y->key_bytes);

    return order ? order : x->key < y->key ? -1 : x->key > y->key;
}

/* A memtable takes keys in their order many times faster than here and there. */
static void rows_rocksdb_fill(rocksdb_writebatch_t *out, const struct rows_batch *b)
{
    struct rows_change *list = mem_new((b->n + 1) * sizeof *list);
    bool ranges = false;
    size_t at = 0;
    unsigned n = 0;

    while (rows_batch_next(b, &at, &list[n])) {
        ranges = ranges || list[n].op == ROWS_DELETE_RANGE;
        n++;
    }
    if (!ranges) /* which are about all keys between */
        qsort(list, n, sizeof *list, rows_rocksdb_by_key);
    for (unsigned i = 0; i < n; i++)
        rows_rocksdb_put(out, &list[i]);
    free(list);
}

static int rows_rocksdb_write(struct rows *r, const struct rows_batch *b, uint64_t replay_lsn)
{
    struct rows_rocksdb *s = rows_rocksdb_of(r);
    uint64_t lsn = replay_lsn ? replay_lsn : atomic_load(&s->replay_lsn);
    rocksdb_writebatch_t *batch;
    char *error = NULL;
    int rc = E_IO;

    ASSERT(!s->read_only && lsn >= atomic_load(&s->replay_lsn));
    batch = rocksdb_writebatch_create();
    rows_rocksdb_fill(batch, b);
    if (lsn) { /* each time, and last: a deleted range may have covered it */
        uint8_t mem[LSN_BYTES];
        struct wr w = wr_of(mem, sizeof mem);

        wr_u64le(&w, lsn);
        rocksdb_writebatch_put(batch, lsn_key, LSN_KEY_BYTES, (char *)mem, sizeof mem);
    }
    pthread_rwlock_rdlock(&s->lock);
    if (s->db) {
        rocksdb_write(s->db, s->write, batch, &error);
        rc = rows_rocksdb_failed(s, "write", error);
    }
    pthread_rwlock_unlock(&s->lock);
    rocksdb_writebatch_destroy(batch);
    if (rc == 0)
        atomic_store(&s->replay_lsn, lsn);
    return rc;
}

static int rows_rocksdb_flush(struct rows *r)
{
    struct rows_rocksdb *s = rows_rocksdb_of(r);
    char *error = NULL;
    int rc = E_IO;

    ASSERT(!s->read_only);
    pthread_rwlock_rdlock(&s->lock);
    if (s->db) {
        rocksdb_flush(s->db, s->flush, &error);
        rc = rows_rocksdb_failed(s, "flush", error);
    }
    pthread_rwlock_unlock(&s->lock);
    return rc;
}

static uint64_t rows_rocksdb_replay_lsn(struct rows *r)
{
    return atomic_load(&rows_rocksdb_of(r)->replay_lsn);
}

static int rows_rocksdb_walk(struct rows_rocksdb *s, rocksdb_iterator_t *it, bool backwards,
                             int (*fn)(void *ctx, const void *key, size_t key_bytes,
                                       const void *value, size_t value_bytes),
                             void *ctx)
{
    char *error = NULL;
    int rc = 0;

    while (rc == 0 && rocksdb_iter_valid(it)) {
        size_t key_bytes, value_bytes;
        const char *key = rocksdb_iter_key(it, &key_bytes);
        const char *value = rocksdb_iter_value(it, &value_bytes);

        if (!rows_rocksdb_is_lsn(key, key_bytes))
            rc = fn(ctx, key, key_bytes, value, value_bytes);
        if (rc)
            return rc;
        if (backwards)
            rocksdb_iter_prev(it);
        else
            rocksdb_iter_next(it);
    }
    rocksdb_iter_get_error(it, &error); /* invalid may mean the end, or damage */
    return rows_rocksdb_failed(s, "scan", error);
}

static int rows_rocksdb_scan(struct rows *r, const void *from, size_t from_bytes, bool backwards,
                             int (*fn)(void *ctx, const void *key, size_t key_bytes,
                                       const void *value, size_t value_bytes),
                             void *ctx)
{
    struct rows_rocksdb *s = rows_rocksdb_of(r);
    const char *at = from_bytes ? from : "";
    rocksdb_iterator_t *it;
    int rc = E_IO;

    pthread_rwlock_rdlock(&s->lock); /* fn may read: glibc's read locks nest */
    if (s->db) {
        it = rocksdb_create_iterator(s->db, from_bytes > 1 ? s->read : s->scan);
        if (backwards)
            rocksdb_iter_seek_for_prev(it, at, from_bytes);
        else
            rocksdb_iter_seek(it, at, from_bytes);
        rc = rows_rocksdb_walk(s, it, backwards, fn, ctx);
        rocksdb_iter_destroy(it);
    }
    pthread_rwlock_unlock(&s->lock);
    return rc;
}

/* --- open, damage, clear --- */

static int rows_rocksdb_read_lsn(struct rows_rocksdb *s)
{
    size_t bytes = 0;
    uint8_t *mem = NULL;
    struct rd rd;
    uint64_t lsn;
    int rc = rows_rocksdb_get_any(s, lsn_key, LSN_KEY_BYTES, &mem, &bytes);

    atomic_store(&s->replay_lsn, 0);
    if (rc == E_NOTFOUND)
        return 0;
    if (rc < 0)
        return rc;
    rd = rd_of(mem, bytes);
    lsn = rd_u64le(&rd);
    if (!rd_ok(&rd) || rd_left(&rd))
        rc = E_CORRUPT;
    else
        atomic_store(&s->replay_lsn, lsn);
    free(mem);
    return rc;
}

/* Moves what is at path to path.damaged-N, N the first that is free. */
static int rows_rocksdb_set_aside(const struct rows_rocksdb *s, const char *reason, struct err *e)
{
    size_t bytes = strlen(s->path) + 32;
    char *aside = mem_new(bytes);
    int rc = E_IO;

    for (unsigned n = 1; n < ASIDE_MAX; n++) {
        snprintf(aside, bytes, "%s.damaged-%u", s->path, n);
        if (access(aside, F_OK) == 0)
            continue;
        rc = rename(s->path, aside) == 0 ? 0 : E_IO;
        break;
    }
    if (rc == 0)
        LOG_WARN("rows.damaged", F_STR("path", s->path), F_STR("moved_to", aside),
                 F_STR("reason", reason));
    else
        err_set(e, rc, "%s: damaged (%s), and cannot be moved aside: %s", s->path, reason,
                strerror(errno));
    free(aside);
    return rc;
}

/* One try. NULL, or RocksDB's sentence. */
static char *rows_rocksdb_try(struct rows_rocksdb *s)
{
    char *error = NULL;

    if (s->read_only)
        s->db = rocksdb_open_for_read_only(s->options, s->path, 0, &error);
    else
        s->db = rocksdb_open(s->options, s->path, &error);
    if (error)
        s->db = NULL;
    return error;
}

/* Opens and reads the LSN. Below 0: code, with *error (to be freed) RocksDB's sentence or NULL. */
static int rows_rocksdb_start(struct rows_rocksdb *s, char **error)
{
    int rc;

    *error = NULL;
    if (rows_rocksdb_is_marked(s))
        return E_CORRUPT;
    *error = rows_rocksdb_try(s);
    if (*error)
        return rows_rocksdb_damaged(s, *error) ? E_CORRUPT : rows_rocksdb_code(*error);
    rc = rows_rocksdb_read_lsn(s);
    if (rc < 0) {
        rocksdb_close(s->db);
        s->db = NULL;
    }
    return rc;
}

static int rows_rocksdb_open_db(struct rows_rocksdb *s, struct err *e)
{
    char *error = NULL;
    int rc = rows_rocksdb_start(s, &error);

    for (unsigned i = 1; rc < 0 && s->read_only && i < OPEN_TRIES; i++) {
        rocksdb_free(error);
        rc = rows_rocksdb_start(s, &error);
    }
    if (rc == E_CORRUPT && !s->read_only) {
        rc = rows_rocksdb_set_aside(s, error ? error : "rows failed their checksum", e);
        rocksdb_free(error);
        error = NULL;
        if (rc < 0)
            return rc;
        rc = rows_rocksdb_start(s, &error);
    }
    if (rc < 0)
        err_set(e, rc, "%s: %s", s->path, error ? error : err_text(rc));
    rocksdb_free(error);
    return rc;
}

/* Closes, deletes the files, opens anew: works on a damaged store, too. Dying half way leaves what
 * the next open takes for new, or for damaged: empty either way. */
static int rows_rocksdb_clear(struct rows *r)
{
    struct rows_rocksdb *s = rows_rocksdb_of(r);
    struct err e = { 0 };
    char *error = NULL;
    int rc = 0;

    ASSERT(!s->read_only);
    pthread_rwlock_wrlock(&s->lock);
    if (s->db)
        rocksdb_close(s->db);
    s->db = NULL;
    atomic_store(&s->rows.damaged, false);
    rows_rocksdb_set_mark(s, false);
    rocksdb_destroy_db(s->options, s->path, &error);
    if (error)
        rc = rows_rocksdb_set_aside(s, error, &e);
    rocksdb_free(error);
    if (rc == 0)
        rc = rows_rocksdb_open_db(s, &e);
    if (rc < 0)
        LOG_WARN("rows.failed", F_STR("path", s->path), F_STR("call", "clear"),
                 F_STR("reason", e.text));
    pthread_rwlock_unlock(&s->lock);
    return rc;
}

static const struct rows_ops rows_rocksdb_ops = {
    .get = rows_rocksdb_get,
    .write = rows_rocksdb_write,
    .flush = rows_rocksdb_flush,
    .replay_lsn = rows_rocksdb_replay_lsn,
    .scan = rows_rocksdb_scan,
    .clear = rows_rocksdb_clear,
    .close = rows_rocksdb_close,
};

int rows_rocksdb_open(struct rows **out, const char *path, uint64_t cache_bytes, bool read_only,
                      struct err *e)
{
    struct rows_rocksdb *s;
    int rc;

    if (read_only && !rows_rocksdb_exists(path))
        return err_set(e, E_NOTFOUND, "%s: there is no RocksDB here", path);
    s = rows_rocksdb_new(path, cache_bytes, read_only);
    s->rows.ops = &rows_rocksdb_ops;
    rc = rows_rocksdb_open_db(s, e);
    if (rc < 0) {
        rows_rocksdb_close(&s->rows);
        return rc;
    }
    *out = &s->rows;
    return 0;
}
