#include "journal/io/rows.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "base/rng.h"
#include "tests/check.h"

enum { CACHE_BYTES = 1 << 20 };

/* --- folders --- */

static char folder[256];

static void path_remove(const char *path)
{
    char below[1024];
    DIR *d = opendir(path);
    const struct dirent *entry;

    while (d && (entry = readdir(d))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        path_remove(below);
    }
    if (d)
        closedir(d);
    remove(path);
}

static void folder_new(void)
{
    static unsigned serial;

    mkdir("build", 0755);
    snprintf(folder, sizeof folder, "build/test-rows-%ld-%u", (long)getpid(), serial++);
}

static void folder_remove(void)
{
    char aside[300];

    path_remove(folder);
    for (unsigned i = 1; i < 10; i++) {
        snprintf(aside, sizeof aside, "%s.damaged-%u", folder, i);
        path_remove(aside);
    }
}

static struct rows *rocksdb_start(bool read_only)
{
    struct rows *r = NULL;
    struct err e = { 0 };
    int rc = rows_rocksdb_open(&r, folder, CACHE_BYTES, read_only, &e);

    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    REQUIRE(rc == 0);
    return r;
}

/* --- short forms, for keys and values that are text --- */

static int put(struct rows *r, const char *key, const char *value, uint64_t lsn)
{
    struct rows_batch b = { 0 };
    int rc;

    rows_batch_put(&b, key, strlen(key), value, strlen(value));
    rc = rows_write(r, &b, lsn);
    rows_batch_free(&b);
    return rc;
}

static int cut(struct rows *r, const char *from, const char *to)
{
    struct rows_batch b = { 0 };
    int rc;

    rows_batch_delete_range(&b, from, strlen(from), to, strlen(to));
    rc = rows_write(r, &b, 0);
    rows_batch_free(&b);
    return rc;
}

static bool has(struct rows *r, const char *key, const char *value)
{
    uint8_t *mem = NULL;
    size_t bytes = 0;
    bool same = rows_get(r, key, strlen(key), &mem, &bytes) == 0 && bytes == strlen(value) &&
                memcmp(mem, value, bytes) == 0;

    free(mem);
    return same;
}

static bool lacks(struct rows *r, const char *key)
{
    uint8_t *mem = NULL;
    size_t bytes;

    return rows_get(r, key, strlen(key), &mem, &bytes) == E_NOTFOUND;
}

static int count_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    ++*(unsigned *)ctx;
    return 0;
}

static unsigned count(struct rows *r)
{
    unsigned n = 0;

    CHECK_EQ(rows_scan(r, "", 0, false, count_row, &n), 0);
    return n;
}

/* --- the naive model: a row for every key there can be, present or not, in key order --- */

enum { LETTERS = 4, MODEL_KEYS = 1 + 4 + 16 + 64, MODEL_VALUE_MAX = 40 };
static const uint8_t letter[LETTERS] = { 0x00, 'a', 'b', 0xff };

struct model_row {
    uint8_t key[3];
    size_t key_bytes;
    bool there;
    uint8_t value[MODEL_VALUE_MAX];
    size_t value_bytes;
};
struct model {
    struct model_row row[MODEL_KEYS];
    uint64_t lsn;
};

/* Depth first over a sorted alphabet is key order. */
static void model_fill(struct model *m, unsigned *n, const uint8_t *key, size_t key_bytes)
{
    struct model_row *row = &m->row[(*n)++];

    memcpy(row->key, key, key_bytes);
    row->key_bytes = key_bytes;
    for (unsigned i = 0; i < LETTERS && key_bytes < 3; i++) {
        uint8_t longer[3];

        memcpy(longer, key, key_bytes);
        longer[key_bytes] = letter[i];
        model_fill(m, n, longer, key_bytes + 1);
    }
}

static void model_init(struct model *m)
{
    unsigned n = 0;

    memset(m, 0, sizeof *m);
    model_fill(m, &n, letter, 0);
    REQUIRE(n == MODEL_KEYS);
}

static void model_put(struct model *m, struct rows_batch *b, struct rng *rng)
{
    struct model_row *row = &m->row[rng_below(rng, MODEL_KEYS)];

    row->there = true;
    row->value_bytes = rng_below(rng, MODEL_VALUE_MAX + 1);
    for (size_t i = 0; i < row->value_bytes; i++)
        row->value[i] = (uint8_t)rng_u64(rng);
    rows_batch_put(b, row->key, row->key_bytes, row->value, row->value_bytes);
}

static void model_delete(struct model *m, struct rows_batch *b, struct rng *rng)
{
    struct model_row *row = &m->row[rng_below(rng, MODEL_KEYS)];

    row->there = false;
    rows_batch_delete(b, row->key, row->key_bytes);
}

/* Any two keys; when they are the wrong way round the range is empty. */
static void model_delete_range(struct model *m, struct rows_batch *b, struct rng *rng)
{
    unsigned from = (unsigned)rng_below(rng, MODEL_KEYS), to = (unsigned)rng_below(rng, MODEL_KEYS);

    if (rng_chance(rng, 3, 4) && to > from + 6)
        to = from + 6; /* else the store would stay nearly empty */
    for (unsigned i = from; i < to; i++)
        m->row[i].there = false;
    rows_batch_delete_range(b, m->row[from].key, m->row[from].key_bytes, m->row[to].key,
                            m->row[to].key_bytes);
}

static void model_write(struct model *m, struct rows *r, struct rng *rng)
{
    struct rows_batch b = { 0 };
    uint64_t lsn = 0;

    for (uint64_t n = rng_below(rng, 8); n > 0; n--) {
        uint64_t kind = rng_below(rng, 10);

        if (kind < 6)
            model_put(m, &b, rng);
        else if (kind < 9)
            model_delete(m, &b, rng);
        else
            model_delete_range(m, &b, rng);
    }
    if (rng_chance(rng, 1, 3))
        m->lsn = lsn = m->lsn + 1 + rng_below(rng, 1000);
    CHECK_EQ(rows_write(r, &b, lsn), 0);
    rows_batch_free(&b);
}

struct walk {
    const struct model *m;
    int at; /* in the model: where the next row is looked for */
    bool backwards;
    int left; /* rows until fn says stop; -1: never */
    bool good;
};

static void walk_skip(struct walk *w)
{
    while (w->at >= 0 && w->at < MODEL_KEYS && !w->m->row[w->at].there)
        w->at += w->backwards ? -1 : 1;
}

static int walk_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct walk *w = ctx;
    const struct model_row *row;

    walk_skip(w);
    if (w->at < 0 || w->at >= MODEL_KEYS) {
        w->good = false;
        return -1;
    }
    row = &w->m->row[w->at];
    w->good = w->good && row->key_bytes == key_bytes && row->value_bytes == value_bytes &&
              memcmp(row->key, key, key_bytes) == 0 && memcmp(row->value, value, value_bytes) == 0;
    w->at += w->backwards ? -1 : 1;
    return w->left > 0 && --w->left == 0 ? 77 : 0;
}

static void model_check_scan(const struct model *m, struct rows *r, struct rng *rng)
{
    unsigned from = (unsigned)rng_below(rng, MODEL_KEYS);
    struct walk w = { .m = m,
                      .at = (int)from,
                      .backwards = rng_chance(rng, 1, 2),
                      .left = rng_chance(rng, 1, 2) ? -1 : (int)rng_below(rng, 5) + 1,
                      .good = true };
    int rc = rows_scan(r, m->row[from].key, m->row[from].key_bytes, w.backwards, walk_row, &w);

    CHECK(w.good);
    CHECK_EQ(rc, w.left == 0 ? 77 : 0);
    walk_skip(&w);
    CHECK(rc == 77 || w.at < 0 || w.at >= MODEL_KEYS); /* nothing was left out */
}

static void model_check_get(const struct model *m, struct rows *r, struct rng *rng)
{
    const struct model_row *row = &m->row[rng_below(rng, MODEL_KEYS)];
    uint8_t *value = NULL;
    size_t bytes = 0;
    int rc = rows_get(r, row->key, row->key_bytes, &value, &bytes);

    CHECK_EQ(rc, row->there ? 0 : E_NOTFOUND);
    if (rc == 0 && row->there)
        CHECK(bytes == row->value_bytes && memcmp(value, row->value, bytes) == 0);
    free(value);
}

static void model_check(const struct model *m, struct rows *r, struct rng *rng)
{
    model_check_get(m, r, rng);
    model_check_scan(m, r, rng);
    CHECK_EQ(rows_replay_lsn(r), m->lsn);
}

static void model_clear(struct model *m, struct rows *r)
{
    CHECK_EQ(rows_clear(r), 0);
    for (unsigned i = 0; i < MODEL_KEYS; i++)
        m->row[i].there = false;
    m->lsn = 0;
}

/* The same for every store. reopen may be NULL. */
static void model_run(struct model *m, struct rows **r, unsigned steps, uint64_t seed,
                      struct rows *(*reopen)(struct rows *r))
{
    struct rng rng;

    rng_seed(&rng, seed);
    for (unsigned i = 0; i < steps; i++) {
        model_write(m, *r, &rng);
        model_check(m, *r, &rng);
        if (rng_chance(&rng, 1, 50))
            CHECK_EQ(rows_flush(*r), 0);
        if (reopen && rng_chance(&rng, 1, 100))
            *r = reopen(*r);
        if (rng_chance(&rng, 1, 500))
            model_clear(m, *r);
    }
}

static void test_rows_mem_agrees_with_a_naive_model(void)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        static struct model m;
        struct rows *r;

        model_init(&m);
        REQUIRE(rows_mem_open(&r, NULL) == 0);
        model_run(&m, &r, 2000, seed, NULL);
        rows_close(r);
    }
}

static struct rows *rocksdb_reopen(struct rows *r)
{
    CHECK_EQ(rows_flush(r), 0);
    rows_close(r);
    return rocksdb_start(false);
}

static void test_rows_rocksdb_agrees_with_a_naive_model(void)
{
    static struct model m;
    struct rows *r;

    folder_new();
    model_init(&m);
    r = rocksdb_start(false);
    model_run(&m, &r, 3000, 42, rocksdb_reopen);
    rows_close(r);
    folder_remove();
}

/* Twice over: the overlay follows the model, the base stays as it was. */
static void overlay_run(struct rows *base, const struct model *of_base, unsigned steps,
                        uint64_t seed)
{
    static struct model m;
    struct rows *r;
    struct rng rng;

    m = *of_base;
    REQUIRE(rows_mem_open(&r, base) == 0);
    rng_seed(&rng, seed);
    for (unsigned i = 0; i < 100; i++)
        model_check(&m, r, &rng);
    model_run(&m, &r, steps, seed, NULL);
    rows_close(r);
    for (unsigned i = 0; i < 100; i++)
        model_check(of_base, base, &rng);
}

static void test_rows_mem_overlay_agrees_and_leaves_its_base_alone(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        static struct model m;
        struct rows *base;

        model_init(&m);
        REQUIRE(rows_mem_open(&base, NULL) == 0);
        model_run(&m, &base, 100, seed, NULL);
        overlay_run(base, &m, 300, seed + 1000);
        rows_close(base);
    }
}

static void test_rows_mem_overlay_over_a_read_only_rocksdb(void)
{
    static struct model m;
    struct rows *server, *base;
    struct rng rng;

    folder_new();
    model_init(&m);
    server = rocksdb_start(false);
    model_run(&m, &server, 200, 3, NULL);
    CHECK_EQ(rows_flush(server), 0);
    base = rocksdb_start(true); /* beside it */
    overlay_run(base, &m, 500, 4);
    rng_seed(&rng, 5);
    for (unsigned i = 0; i < 20; i++)
        model_check(&m, server, &rng);
    rows_close(base);
    rows_close(server);
    folder_remove();
}

/* --- kills --- */

enum { PAIRS_A_FLUSH = 37, KILL_ROUNDS = 8 };

static void pair_key(char *key, char kind, uint64_t i)
{
    snprintf(key, 24, "%c%010llu", kind, (unsigned long long)i);
}

/* The child that is killed: writes pairs for ever, and reports each flush. It is a program of its
 * own, since RocksDB's threads do not survive a fork. */
__attribute__((constructor)) static void writer_main(int argc, char **argv)
{
    char key[24], value[200];
    struct rows *r;

    if (argc != 3 || strcmp(argv[1], "--write-pairs") != 0)
        return;
    if (rows_rocksdb_open(&r, argv[2], CACHE_BYTES, false, NULL) < 0)
        _exit(1);
    for (uint64_t i = rows_replay_lsn(r);; i++) {
        struct rows_batch b = { 0 };

        memset(value, (int)('a' + i % 26), sizeof value);
        pair_key(key, 'x', i);
        rows_batch_put(&b, key, strlen(key), value, sizeof value);
        pair_key(key, 'y', i);
        rows_batch_put(&b, key, strlen(key), value, sizeof value);
        if (rows_write(r, &b, i + 1) < 0)
            _exit(2);
        rows_batch_free(&b);
        if (i % PAIRS_A_FLUSH == 0) {
            uint64_t done = i + 1;

            if (rows_flush(r) < 0 || write(1, &done, sizeof done) != sizeof done)
                _exit(3);
        }
    }
}

/* Starts a writer, kills it after some reports; gives its last. */
static uint64_t kill_a_writer(unsigned reports)
{
    uint64_t done = 0, last = 0;
    int from[2], status;
    pid_t pid;

    REQUIRE(pipe(from) == 0);
    pid = fork();
    if (pid == 0) {
        dup2(from[1], 1);
        close(from[0]);
        close(from[1]);
        execl("/proc/self/exe", "writer", "--write-pairs", folder, (char *)NULL);
        _exit(9);
    }
    close(from[1]);
    while (reports-- > 0 && read(from[0], &done, sizeof done) == sizeof done)
        last = done;
    kill(pid, SIGKILL);
    while (read(from[0], &done, sizeof done) == sizeof done)
        last = done; /* reported before it died */
    close(from[0]);
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status)); /* else it stopped at an error of its own */
    return last;
}

static void test_rows_rocksdb_kill_loses_a_tail_but_never_half_a_write(void)
{
    struct rng rng;
    uint64_t lsn = 0;

    folder_new();
    rng_seed(&rng, 8);
    for (unsigned round = 0; round < KILL_ROUNDS; round++) {
        uint64_t flushed = kill_a_writer(2 + (unsigned)rng_below(&rng, 6));
        struct rows *r = rocksdb_start(false);
        char x[24], y[24];
        uint64_t n = 0;

        lsn = rows_replay_lsn(r);
        CHECK(flushed > 0 && lsn >= flushed);
        for (; n < lsn; n++) {
            char value[201] = { 0 };

            memset(value, (int)('a' + n % 26), 200);
            pair_key(x, 'x', n);
            pair_key(y, 'y', n);
            if (!has(r, x, value) || !has(r, y, value))
                break;
        }
        CHECK_EQ(n, lsn);            /* all that the LSN stands for */
        CHECK_EQ(count(r), 2 * lsn); /* and nothing beyond it */
        rows_close(r);
    }
    folder_remove();
}

/* --- the replay LSN --- */

static void test_rows_rocksdb_replay_lsn_is_kept_and_hidden(void)
{
    uint8_t *value = NULL;
    size_t bytes;
    struct rows *r;

    folder_new();
    r = rocksdb_start(false);
    CHECK_EQ(rows_replay_lsn(r), 0);
    CHECK_EQ(put(r, "k", "v", 0), 0);
    CHECK_EQ(rows_replay_lsn(r), 0);
    CHECK_EQ(put(r, "k", "v", 0x0102030405060708), 0);
    CHECK_EQ(count(r), 1);
    CHECK_EQ(rows_get(r, "\0replay_lsn", 11, &value, &bytes), E_NOTFOUND);
    CHECK_EQ(cut(r, "", "\xff\xff"), 0); /* covers the row that holds it */
    CHECK_EQ(count(r), 0);
    CHECK_EQ(rows_replay_lsn(r), 0x0102030405060708);
    r = rocksdb_reopen(r);
    CHECK_EQ(count(r), 0);
    CHECK_EQ(rows_replay_lsn(r), 0x0102030405060708);
    rows_close(r);
    folder_remove();
}

static void test_rows_mem_replay_lsn_is_the_bases_until_named(void)
{
    struct rows *base, *r;

    REQUIRE(rows_mem_open(&base, NULL) == 0);
    CHECK_EQ(put(base, "k", "v", 70), 0);
    REQUIRE(rows_mem_open(&r, base) == 0);
    CHECK_EQ(put(r, "l", "w", 0), 0);
    CHECK_EQ(rows_replay_lsn(r), 70);
    CHECK_EQ(put(r, "l", "x", 90), 0);
    CHECK_EQ(rows_replay_lsn(r), 90);
    CHECK_EQ(rows_replay_lsn(base), 70);
    rows_close(r);
    rows_close(base);
}

/* --- damage --- */

/* Calls fn for each file of the store whose name begins with prefix or ends with suffix. */
static unsigned each_file(const char *prefix, const char *suffix, void (*fn)(const char *path))
{
    DIR *d = opendir(folder);
    const struct dirent *entry;
    char path[600];
    unsigned n = 0;

    REQUIRE(d != NULL);
    while ((entry = readdir(d))) {
        size_t bytes = strlen(entry->d_name);
        bool hit = prefix ? strncmp(entry->d_name, prefix, strlen(prefix)) == 0
                          : bytes > strlen(suffix) &&
                                strcmp(entry->d_name + bytes - strlen(suffix), suffix) == 0;

        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (hit) {
            fn(path);
            n++;
        }
    }
    closedir(d);
    return n;
}

static void file_remove(const char *path)
{
    CHECK(unlink(path) == 0);
}

static void file_cut(const char *path)
{
    CHECK(truncate(path, 3) == 0);
}

static void file_flip_all(const char *path)
{
    uint8_t mem[4096];
    int fd = open(path, O_RDWR);
    ssize_t n;

    CHECK(fd >= 0);
    for (off_t pos = 0; (n = pread(fd, mem, sizeof mem, pos)) > 0; pos += n) {
        for (ssize_t i = 0; i < n; i++)
            mem[i] ^= 0x40;
        CHECK(pwrite(fd, mem, (size_t)n, pos) == n);
    }
    close(fd);
}

static void file_flip_middle(const char *path)
{
    struct stat st;
    uint8_t byte = 0;
    int fd = open(path, O_RDWR);

    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    CHECK(pread(fd, &byte, 1, st.st_size / 2) == 1);
    byte ^= 1;
    CHECK(pwrite(fd, &byte, 1, st.st_size / 2) == 1);
    close(fd);
}

static void test_rows_rocksdb_damaged_store_is_moved_aside(void)
{
    static const struct {
        const char *prefix, *suffix;
        void (*harm)(const char *path);
    } row[] = {
        { "CURRENT", NULL, file_cut },     { "CURRENT", NULL, file_flip_all },
        { "MANIFEST", NULL, file_cut },    { "MANIFEST", NULL, file_flip_all },
        { "MANIFEST", NULL, file_remove }, { NULL, ".sst", file_cut },
        { NULL, ".sst", file_remove },
    };

    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct rows *r, *none = NULL;
        struct err e = { 0 };
        char aside[300];

        folder_new();
        r = rocksdb_start(false);
        CHECK_EQ(put(r, "k", "v", 5), 0);
        CHECK_EQ(rows_flush(r), 0);
        rows_close(r);
        CHECK_EQ(each_file(row[i].prefix, row[i].suffix, row[i].harm), 1);
        logger_to(-1);
        CHECK(rows_rocksdb_open(&none, folder, CACHE_BYTES, true, &e) <
              0); /* to look at: refused */
        CHECK(strstr(e.text, folder) != NULL);
        snprintf(aside, sizeof aside, "%s.damaged-1", folder);
        CHECK(access(aside, F_OK) < 0);
        r = rocksdb_start(false);
        logger_to(2);
        CHECK(access(aside, F_OK) == 0);
        CHECK_EQ(rows_replay_lsn(r), 0);
        CHECK_EQ(count(r), 0);
        CHECK_EQ(put(r, "k", "w", 6), 0);
        r = rocksdb_reopen(r);
        CHECK(has(r, "k", "w"));
        rows_close(r);
        folder_remove();
    }
}

static void test_rows_rocksdb_flipped_bit_is_reported_and_clear_heals(void)
{
    enum { ROWS = 100, VALUE_BYTES = 1000 }; /* a few rows a block */
    unsigned n = 0, good = 0, bad = 0;
    struct rows_batch b = { 0 };
    struct rows *r;
    struct rng rng;
    char key[24];

    folder_new();
    r = rocksdb_start(false);
    rng_seed(&rng, 6);
    for (unsigned i = 0; i < ROWS; i++) {
        uint64_t value[VALUE_BYTES / 8];

        for (unsigned j = 0; j < VALUE_BYTES / 8; j++)
            value[j] = rng_u64(&rng); /* so that it does not compress away */
        pair_key(key, 'k', i);
        rows_batch_put(&b, key, strlen(key), value, sizeof value);
    }
    CHECK_EQ(rows_write(r, &b, 5), 0);
    rows_batch_free(&b);
    CHECK_EQ(rows_flush(r), 0);
    rows_close(r);
    CHECK_EQ(each_file(NULL, ".sst", file_flip_middle), 1);
    logger_to(-1);
    r = rocksdb_start(false);
    for (unsigned i = 0; i < ROWS; i++) {
        uint8_t *value = NULL;
        size_t bytes;
        int rc;

        pair_key(key, 'k', i);
        rc = rows_get(r, key, strlen(key), &value, &bytes);
        good += rc == 0;
        bad += rc == E_CORRUPT;
        free(value);
    }
    CHECK(bad > 0 && bad < 10);
    CHECK_EQ(good + bad, ROWS);
    CHECK_EQ(rows_scan(r, "", 0, false, count_row, &n), E_CORRUPT);
    CHECK(n > 0 && n < ROWS);
    CHECK_EQ(rows_clear(r), 0);
    logger_to(2);
    CHECK(lacks(r, "k0000000000"));
    CHECK_EQ(count(r), 0);
    CHECK_EQ(rows_replay_lsn(r), 0);
    CHECK_EQ(put(r, "k", "v", 1), 0); /* the LSN may begin anew */
    r = rocksdb_reopen(r);
    CHECK(has(r, "k", "v"));
    CHECK_EQ(count(r), 1);
    rows_close(r);
    folder_remove();
}

static void test_rows_rocksdb_damage_met_late_is_set_aside_by_the_next_open(void)
{
    char aside[300];
    struct rows *r;

    folder_new();
    r = rocksdb_start(false);
    CHECK_EQ(put(r, "k", "v", 5), 0);
    CHECK_EQ(rows_flush(r), 0);
    rows_close(r);
    r = rocksdb_start(false);
    CHECK(!atomic_load(&r->damaged));
    rows_close(r);
    each_file(NULL, ".sst", file_flip_middle);
    logger_to(-1);
    if (rows_rocksdb_open(&r, folder, 1 << 20, false, NULL) >= 0) {
        unsigned n = 0;

        if (rows_scan(r, "", 0, false, count_row, &n) == E_CORRUPT)
            CHECK(atomic_load(&r->damaged));
        rows_close(r);
    }
    r = rocksdb_start(false);
    logger_to(2);
    CHECK_EQ(rows_replay_lsn(r), 0);
    CHECK_EQ(count(r), 0);
    rows_close(r);
    snprintf(aside, sizeof aside, "%s.damaged-1", folder);
    CHECK(access(aside, F_OK) == 0);
    r = rocksdb_start(false); /* once is enough */
    rows_close(r);
    snprintf(aside, sizeof aside, "%s.damaged-2", folder);
    CHECK(access(aside, F_OK) != 0);
    folder_remove();
}

static void test_rows_rocksdb_second_writer_is_refused_and_harms_nothing(void)
{
    struct rows *r, *second = NULL;
    struct err e = { 0 };
    char aside[300];

    folder_new();
    r = rocksdb_start(false);
    CHECK_EQ(put(r, "k", "v", 5), 0);
    CHECK_EQ(rows_rocksdb_open(&second, folder, CACHE_BYTES, false, &e), E_LOCKED);
    snprintf(aside, sizeof aside, "%s.damaged-1", folder);
    CHECK(access(aside, F_OK) < 0);
    r = rocksdb_reopen(r);
    CHECK(has(r, "k", "v"));
    rows_close(r);
    folder_remove();
}

/* --- read only --- */

static char listing[8192];

static void listing_add(const char *path)
{
    struct stat st;
    size_t used = strlen(listing);

    CHECK(stat(path, &st) == 0);
    snprintf(listing + used, sizeof listing - used, "%s %lld %lld.%09ld\n", path,
             (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void test_rows_rocksdb_read_only_writes_nothing(void)
{
    static char before[sizeof listing];
    struct rows *r = NULL;

    folder_new();
    CHECK_EQ(rows_rocksdb_open(&r, folder, CACHE_BYTES, true, NULL), E_NOTFOUND);
    CHECK(access(folder, F_OK) < 0);
    r = rocksdb_start(false);
    CHECK_EQ(put(r, "k", "v", 5), 0);
    CHECK_EQ(rows_flush(r), 0);
    rows_close(r);
    listing[0] = '\0';
    CHECK(each_file("", NULL, listing_add) > 4);
    memcpy(before, listing, sizeof listing);
    r = rocksdb_start(true);
    CHECK(has(r, "k", "v"));
    CHECK_EQ(count(r), 1);
    CHECK_EQ(rows_replay_lsn(r), 5);
    rows_close(r);
    listing[0] = '\0';
    each_file("", NULL, listing_add);
    CHECK(strcmp(before, listing) == 0);
    folder_remove();
}

/* The server rewrites and drops its files while one reads, and while many open. */
static void test_rows_rocksdb_read_only_survives_the_servers_compactions(void)
{
    struct rows *server, *first;
    char key[24], value[1001] = { 0 };

    folder_new();
    memset(value, 'v', 1000);
    server = rocksdb_start(false);
    CHECK_EQ(put(server, "old", value, 1), 0);
    CHECK_EQ(rows_flush(server), 0);
    first = rocksdb_start(true);
    for (unsigned i = 0; i < 60; i++) {
        struct rows *reader;

        for (unsigned k = 0; k < 20; k++) {
            pair_key(key, 'k', k);
            CHECK_EQ(put(server, key, value, 2 + i), 0);
        }
        CHECK_EQ(rows_flush(server), 0); /* four of them make a compaction */
        reader = rocksdb_start(true);
        CHECK_EQ(rows_replay_lsn(reader), 2 + i);
        CHECK_EQ(count(reader), 21);
        rows_close(reader);
    }
    CHECK_EQ(rows_replay_lsn(first), 1);
    CHECK_EQ(count(first), 1);
    CHECK(has(first, "old", value));
    rows_close(first);
    rows_close(server);
    folder_remove();
}

/* --- threads --- */

struct reader {
    struct rows *r;
    atomic_bool stop;
    atomic_uint scans;
    atomic_uint torn;
};

static int reader_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                      size_t value_bytes)
{
    memcpy((uint8_t *)ctx + 4 * (*(const char *)key - 'x'), value, 4);
    return 0;
}

/* x and y always change together: a scan that sees them differ saw half a write. */
static void *reader_main(void *arg)
{
    struct reader *reader = arg;

    while (!atomic_load(&reader->stop)) {
        uint32_t pair[2] = { 0, 0 };
        bool backwards = atomic_fetch_add(&reader->scans, 1) % 2;

        if (rows_scan(reader->r, "z", backwards ? 1 : 0, backwards, reader_row, pair) != 0 ||
            pair[0] != pair[1])
            atomic_fetch_add(&reader->torn, 1);
    }
    return NULL;
}

static void read_while_writing(struct rows *r)
{
    struct reader reader = { .r = r };
    pthread_t thread[2];
    uint32_t i = 0;

    for (unsigned t = 0; t < 2; t++)
        REQUIRE(pthread_create(&thread[t], NULL, reader_main, &reader) == 0);
    while (i < 2000 || atomic_load(&reader.scans) < 2000) {
        struct rows_batch b = { 0 };

        i++;
        rows_batch_put(&b, "x", 1, &i, 4);
        rows_batch_put(&b, "y", 1, &i, 4);
        CHECK_EQ(rows_write(r, &b, i), 0);
        rows_batch_free(&b);
        if (i % 700 == 0)
            CHECK_EQ(rows_clear(r), 0);
    }
    atomic_store(&reader.stop, true);
    for (unsigned t = 0; t < 2; t++)
        pthread_join(thread[t], NULL);
    CHECK_EQ(atomic_load(&reader.torn), 0);
}

static void test_rows_are_read_whole_while_one_thread_writes(void)
{
    struct rows *r;

    REQUIRE(rows_mem_open(&r, NULL) == 0);
    read_while_writing(r);
    rows_close(r);
    folder_new();
    r = rocksdb_start(false);
    read_while_writing(r);
    rows_close(r);
    folder_remove();
}

/* --- sizes --- */

static void big_rows(struct rows *r)
{
    static uint8_t key[1024], value[2 << 20];
    struct rows_batch b = { 0 };
    uint8_t *back = NULL;
    size_t bytes = 0;

    memset(key, 'k', sizeof key);
    for (unsigned i = 0; i < 4; i++) {
        key[0] = (uint8_t)i;
        memset(value, (int)i, sizeof value);
        rows_batch_put(&b, key, sizeof key, value, sizeof value);
    }
    CHECK_EQ(rows_write(r, &b, 1), 0);
    rows_batch_free(&b);
    for (unsigned i = 0; i < 4; i++) {
        key[0] = (uint8_t)i;
        CHECK_EQ(rows_get(r, key, sizeof key, &back, &bytes), 0);
        CHECK(bytes == sizeof value && back[0] == i && back[bytes - 1] == i);
        free(back);
    }
}

static void test_rows_hold_the_largest_keys_and_values(void)
{
    struct rows *r;

    REQUIRE(rows_mem_open(&r, NULL) == 0);
    big_rows(r);
    rows_close(r);
    folder_new();
    r = rocksdb_start(false);
    big_rows(r); /* more than its cache */
    rows_close(r);
    folder_remove();
}

// clang-format off
TEST_MAIN(T(rows_mem_agrees_with_a_naive_model)
          T(rows_rocksdb_agrees_with_a_naive_model)
          T(rows_mem_overlay_agrees_and_leaves_its_base_alone)
          T(rows_mem_overlay_over_a_read_only_rocksdb)
          T(rows_rocksdb_kill_loses_a_tail_but_never_half_a_write)
          T(rows_rocksdb_replay_lsn_is_kept_and_hidden)
          T(rows_mem_replay_lsn_is_the_bases_until_named)
          T(rows_rocksdb_damaged_store_is_moved_aside)
          T(rows_rocksdb_flipped_bit_is_reported_and_clear_heals)
          T(rows_rocksdb_damage_met_late_is_set_aside_by_the_next_open)
          T(rows_rocksdb_second_writer_is_refused_and_harms_nothing)
          T(rows_rocksdb_read_only_writes_nothing)
          T(rows_rocksdb_read_only_survives_the_servers_compactions)
          T(rows_are_read_whole_while_one_thread_writes)
          T(rows_hold_the_largest_keys_and_values))
