/* Writes the store of the golden files, and reads one back.
 *
 *   store_tool make FOLDER MANIFEST    a new store of three lives; the last two end without a close
 *   store_tool append FOLDER MANIFEST  one more life of the store that the manifest tells of, which
 *                                      is closed in order; the manifest is written anew
 *   store_tool check FOLDER MANIFEST   opens the store with the journal: does it hold what the
 *                                      manifest says?
 *
 * A manifest is text, what tests/format/read_store.py prints, and for the journal alone:
 *
 *   deleted SHARD
 *   producer SHARD ID EPOCH SEQUENCE RECORDS BASE    a repeat of this batch is known as one
 *
 * What is appended, trimmed and deleted is always the same; times and the layout of the store are
 * not. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/logger.h"
#include "base/rng.h"
#include "format/batch.h"
#include "format/sum.h"
#include "format/super.h"
#include "journal/io/dev.h"
#include "journal/io/rows.h"
#include "journal/journal.h"
#include "tests/golden/store_model.h"

enum { MAX_LOOPS = 3, ROUND = 24, VALUE_MAX_BYTES = 40000, ROWS_CACHE = 4 << 20 };

static void must(int rc, const char *what)
{
    if (rc < 0)
        store_model_die(what, err_name(rc));
}

/* --- a journal on real files --- */

struct open_store {
    const char *folder;
    struct loop *loops[MAX_LOOPS], *commit;
    unsigned n_loops;
    pthread_t threads[MAX_LOOPS + 1];
    struct pool *pool;
    struct dev *dev;
    struct rows *rows;
    struct journal *j;
};

static void *loop_thread(void *arg)
{
    loop_event_run(arg);
    return NULL;
}

static void store_open(struct open_store *s, const char *folder, unsigned n_loops, uint64_t seed)
{
    struct journal_conf conf = { .wal_budget = 2 * 65536,
                                 .wal_extent = 65536,
                                 .slab_first = 8 * 65536,
                                 .slab_max = 16 * 65536,
                                 .space_floor = 1 << 20,
                                 .block_max = 16384,
                                 .batch_max = 32768,
                                 .direct_from = 8192,
                                 .cache_bytes = 65536,
                                 .delete_grace_ms = 50 };
    struct journal_env env = {
        .loops = s->loops, .n_loops = n_loops, .assigner = jrn_assigner_local(), .seed = seed
    };
    struct err e = { 0 };
    char path[4096];

    s->folder = folder;
    s->n_loops = n_loops;
    snprintf(path, sizeof path, "%s/rows", folder);
    if (dev_aio_open(&s->dev, folder, &(struct dev_aio_conf){ 0 }, &e) < 0 ||
        rows_rocksdb_open(&s->rows, path, ROWS_CACHE, false, &e) < 0 ||
        pool_thread_new(&s->pool, 2, "pool", &e) < 0 || loop_event_new(&s->commit, n_loops, &e) < 0)
        store_model_die(folder, e.text);
    for (unsigned i = 0; i < n_loops; i++)
        if (loop_event_new(&s->loops[i], i, &e) < 0)
            store_model_die(folder, e.text);
    env.commit_loop = s->commit;
    env.pool = s->pool;
    env.dev = s->dev;
    env.rows = s->rows;
    if (journal_open(&s->j, &env, &conf, &e) < 0)
        store_model_die(folder, e.text);
    for (unsigned i = 0; i <= n_loops; i++)
        if (pthread_create(&s->threads[i], NULL, loop_thread,
                           i < n_loops ? s->loops[i] : s->commit))
            store_model_die(folder, "cannot start a thread");
}

/* --- waiting for one answer --- */

#define ANSWER(kind)                                                                               \
    struct kind##_answer {                                                                         \
        struct kind k;                                                                             \
        sem_t sem;                                                                                 \
    };                                                                                             \
    static void kind##_fn(struct kind *k)                                                          \
    {                                                                                              \
        sem_post(&((struct kind##_answer *)k)->sem);                                               \
    }                                                                                              \
    static void kind##_begin(struct kind##_answer *a, struct loop *loop)                           \
    {                                                                                              \
        a->k.fn = kind##_fn;                                                                       \
        a->k.loop = loop;                                                                          \
        sem_init(&a->sem, 0, 0);                                                                   \
    }                                                                                              \
    static void kind##_end(struct kind##_answer *a)                                                \
    {                                                                                              \
        while (sem_wait(&a->sem) < 0)                                                              \
            ;                                                                                      \
        sem_destroy(&a->sem);                                                                      \
    }
ANSWER(append_done)
ANSWER(read_done)
ANSWER(jrn_update)
ANSWER(shard_open)
ANSWER(shard_trim)
ANSWER(journal_close)

static int update(struct open_store *s, const struct jrn_change *changes, unsigned n)
{
    struct jrn_update_answer a = { 0 };

    jrn_update_begin(&a, s->loops[0]);
    journal_update(s->j, changes, n, &a.k);
    jrn_update_end(&a);
    return a.k.rc;
}

static struct shard *open_shard(struct open_store *s, uint64_t id, int *rc)
{
    struct shard_open_answer a = { 0 };

    shard_open_begin(&a, s->loops[0]);
    shard_open(s->j, id, &a.k);
    shard_open_end(&a);
    *rc = a.k.rc;
    return a.k.rc < 0 ? NULL : a.k.shard;
}

static struct shard *must_open(struct open_store *s, uint64_t id)
{
    int rc;
    struct shard *shard = open_shard(s, id, &rc);

    must(rc, "opening a shard");
    return shard;
}

static void store_close(struct open_store *s)
{
    struct journal_close_answer a = { 0 };

    journal_close_begin(&a, s->loops[0]);
    journal_close(s->j, &a.k);
    journal_close_end(&a);
    for (unsigned i = 0; i < s->n_loops; i++)
        loop_event_stop(s->loops[i]);
    loop_event_stop(s->commit);
    for (unsigned i = 0; i <= s->n_loops; i++)
        pthread_join(s->threads[i], NULL);
    pool_thread_free(s->pool);
    for (unsigned i = 0; i < s->n_loops; i++)
        loop_event_free(s->loops[i]);
    loop_event_free(s->commit);
    rows_close(s->rows);
    dev_aio_close(s->dev);
}

/* --- make: what is written --- */

/* Text that compresses about as well as people's does. */
static size_t text_make(struct rng *r, uint8_t *mem, size_t bytes)
{
    static const char *const words[] = { "the", "weir",    "holds", "back", "a",       "river",
                                         "of",  "records", "and",   "lets", "through", "what",
                                         "is",  "asked",   "for",   "once" };
    size_t at = 0;

    while (at + 8 < bytes) {
        const char *w = words[rng_below(r, sizeof words / sizeof words[0])];
        size_t n = strlen(w);

        memcpy(mem + at, w, n);
        at += n;
        mem[at++] = ' ';
    }
    return at;
}

struct plan {
    int64_t producer; /* -1: none */
    int epoch, sequence;
    enum batch_codec codec;
    int n_records;
    size_t value_bytes;
};

static struct buf *batch_make(uint64_t shard, uint64_t serial, const struct plan *p)
{
    static uint8_t value[VALUE_MAX_BYTES];
    struct batch_builder b = { .has_producer = p->producer >= 0,
                               .producer_id = p->producer,
                               .producer_epoch = (int16_t)p->epoch,
                               .base_sequence = p->sequence };
    struct batch_header header = { (const uint8_t *)"n", 1, (const uint8_t *)"1", 1 };
    struct buf *out;
    struct rng r;
    char key[48];

    rng_seed(&r, shard << 32 | serial);
    for (int i = 0; i < p->n_records; i++) {
        struct batch_new_record n = { .timestamp = 1700000000000 + (int64_t)serial * 1000 + i,
                                      .key = key,
                                      .headers = &header,
                                      .n_headers = i % 3 == 0 };

        n.key_bytes = (size_t)snprintf(key, sizeof key, "%llu.%llu.%d", (unsigned long long)shard,
                                       (unsigned long long)serial, i);
        n.value = i % 7 == 6 ? NULL : value;
        n.value_bytes = n.value ? text_make(&r, value, p->value_bytes) : 0;
        batch_builder_add(&b, &n);
    }
    must(batch_builder_finish(&b, p->codec, &out), "building a batch");
    batch_builder_free(&b);
    return out;
}

static struct plan plan_of(uint64_t shard, uint64_t serial)
{
    static const enum batch_codec codecs[] = { CODEC_NONE, CODEC_LZ4, CODEC_ZSTD };
    struct plan p = { .producer = -1,
                      .codec = codecs[serial % 3],
                      .n_records = 1 + (int)((shard + serial * 5) % 9),
                      .value_bytes = 40 + (size_t)(serial * 97 % 700) };

    if (serial % 29 == 28) { /* near the largest */
        p.n_records = 1;
        p.value_bytes = 31000;
        p.codec = CODEC_NONE;
    }
    return p;
}

static void record_batch(struct model_shard *ms, struct shard *s, struct buf *b, uint64_t base)
{
    struct batch_head h;

    /* What must be stored: the batch as it was given, stamped. */
    batch_stamp(b->mem, (int64_t)base, shard_epoch(s));
    must(batch_check(&h, b->mem, b->len), "checking a batch");
    store_model_add(ms, &(struct model_batch){ .base = base,
                                               .n_offsets = (uint32_t)h.last_offset_delta + 1,
                                               .bytes = b->len,
                                               .xxh3 = sum_xxh3(b->mem, b->len, 0) });
    ms->end = base + (uint32_t)h.last_offset_delta + 1;
}

/* One batch for each of ids, all in flight together, so that blocks hold several frames and frames
 * several items. */
static void append_round(struct open_store *s, struct model *m, const uint64_t *ids, unsigned n,
                         uint64_t serial)
{
    struct append_done_answer a[ROUND] = { 0 };
    struct shard *shards[ROUND];
    struct buf *batches[ROUND];

    for (unsigned i = 0; i < n; i++)
        shards[i] = must_open(s, ids[i]);
    for (unsigned i = 0; i < n; i++) {
        struct plan p = plan_of(ids[i], serial);

        batches[i] = batch_make(ids[i], serial, &p);
        append_done_begin(&a[i], s->loops[0]);
        shard_append(shards[i], batches[i], 0, batches[i]->len, ACK_QUORUM_DURABLE, &a[i].k);
    }
    for (unsigned i = 0; i < n; i++) {
        append_done_end(&a[i]);
        must(a[i].k.rc, "append");
        record_batch(store_model_shard(m, ids[i]), shards[i], batches[i], a[i].k.base_offset);
        buf_unref(batches[i]);
        shard_unref(shards[i]);
    }
}

/* Appends as an idempotent producer; the model keeps the last batch of each. */
static void append_produced(struct open_store *s, struct model *m, uint64_t id, int64_t producer,
                            int epoch, int n_records)
{
    struct plan p = { producer, epoch, 0, CODEC_LZ4, n_records, 200 };
    struct append_done_answer a = { 0 };
    struct model_producer *mp = NULL;
    struct shard *shard = must_open(s, id);
    struct buf *b;

    for (unsigned i = 0; i < m->n_producers; i++)
        if (m->producers[i].shard == id && m->producers[i].id == producer)
            mp = &m->producers[i];
    if (!mp) {
        mp = &m->producers[m->n_producers++];
        *mp = (struct model_producer){ .shard = id, .id = producer, .epoch = epoch };
    } else if (mp->epoch == epoch) {
        p.sequence = mp->sequence + mp->n_records;
    }
    b = batch_make(id, 100000 + (uint64_t)(producer * 100 + p.sequence), &p);
    append_done_begin(&a, s->loops[0]);
    shard_append(shard, b, 0, b->len, ACK_LEADER_DURABLE, &a.k);
    append_done_end(&a);
    must(a.k.rc, "append of a producer");
    if (a.k.duplicate)
        store_model_die("append of a producer", "taken for a repeat");
    record_batch(store_model_shard(m, id), shard, b, a.k.base_offset);
    *mp = (struct model_producer){ id, a.k.base_offset, producer, epoch, p.sequence, n_records };
    buf_unref(b);
    shard_unref(shard);
}

static void create(struct open_store *s, struct model *m, uint64_t id, enum shard_class class)
{
    struct jrn_change c = { .op = JRN_SHARD_CREATE, .shard = id, .class = class };
    struct model_shard *ms = store_model_shard(m, id);
    struct shard *shard;

    must(update(s, &c, 1), "creating a shard");
    shard = must_open(s, id);
    ms->class = (int)class;
    ms->group = shard_group(shard);
    m->max_shard = id;
    shard_unref(shard);
}

static void shard_remove(struct open_store *s, struct model *m, uint64_t id)
{
    struct jrn_change c = { .op = JRN_SHARD_DELETE, .shard = id };

    must(update(s, &c, 1), "deleting a shard");
    store_model_shard(m, id)->deleted = true;
}

static void trim(struct open_store *s, struct model *m, uint64_t id, uint64_t start)
{
    struct shard_trim_answer a = { .k = { .start = start } };
    struct model_shard *ms = store_model_shard(m, id);
    struct shard *shard = must_open(s, id);
    unsigned gone = 0;

    shard_trim_begin(&a, s->loops[0]);
    shard_trim(shard, &a.k);
    shard_trim_end(&a);
    must(a.k.rc, "trim");
    ms->start = start;
    while (gone < ms->n && ms->batches[gone].base + ms->batches[gone].n_offsets <= start)
        gone++;
    ms->n -= gone;
    memmove(ms->batches, ms->batches + gone, ms->n * sizeof ms->batches[0]);
    shard_unref(shard);
}

/* value_bytes 0: deletes it. */
static void row(struct open_store *s, struct model *m, const char *key, size_t value_bytes)
{
    struct model_row *r = m->rows, *end = m->rows + m->n_rows;
    struct jrn_change c = { .key = key, .key_bytes = (uint32_t)strlen(key) };
    struct rng rng;

    while (r < end && strcmp(r->key, key) != 0)
        r++;
    if (r == end) {
        m->n_rows++;
        snprintf(r->key, sizeof r->key, "%s", key);
    }
    rng_seed(&rng, value_bytes);
    r->value_bytes = value_bytes ? (uint32_t)text_make(&rng, r->value, value_bytes) : 0;
    c.op = value_bytes ? JRN_ROW_PUT : JRN_ROW_DELETE;
    c.value = r->value;
    c.value_bytes = r->value_bytes;
    must(update(s, &c, 1), "changing a row");
}

/* --- make: the lives --- */

static uint64_t checkpoint_now(const char *folder)
{
    static uint8_t mem[SUPER_BYTES];
    struct super *s = mem_new(sizeof *s);
    uint64_t generation = 0, lsn = 0;
    char path[4096];
    int fd;

    snprintf(path, sizeof path, "%s/superblock", folder);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; fd >= 0 && i < SUPER_COPIES; i++) {
        if (pread(fd, mem, sizeof mem, i * SUPER_BYTES) == SUPER_BYTES && super_read(s, mem) >= 0 &&
            s->generation > generation) {
            generation = s->generation;
            lsn = s->ckpt_lsn;
        }
    }
    if (fd >= 0)
        close(fd);
    free(s);
    return lsn;
}

static void wait_for_checkpoint(const char *folder, uint64_t past)
{
    while (checkpoint_now(folder) <= past)
        usleep(1000);
}

/* Shards of two groups, an internal one, an empty one, one that will be deleted, one with
 * producers. */
static void life_one(struct open_store *s, struct model *m)
{
    const uint64_t ids[] = { 16, 17, 18, 19, 16 };

    create(s, m, 16, SHARD_CLASS_DATA);
    create(s, m, 17, SHARD_CLASS_DATA);
    create(s, m, 18, SHARD_CLASS_DATA);
    create(s, m, 19, SHARD_CLASS_INTERNAL);
    create(s, m, 20, SHARD_CLASS_DATA);
    create(s, m, 21, SHARD_CLASS_DATA);
    row(s, m, "Tone", 100);
    row(s, m, "Ttwo", 3000);
    row(s, m, "Xgone", 50);
    for (unsigned i = 0; i < 12; i++)
        append_round(s, m, ids, 5, i);
    for (unsigned i = 0; i < 7; i++)
        append_produced(s, m, 21, 7000, 0, 1 + (int)i % 3);
    append_produced(s, m, 21, 7001, 3, 2);
    trim(s, m, 16, store_model_shard(m, 16)->batches[6].base);
    row(s, m, "Xgone", 0);
}

/* Enough for several rounds of destage; trims inside a batch, and a deletion. */
static void life_two(struct open_store *s, struct model *m)
{
    const uint64_t ids[] = { 16, 17, 18, 19, 17 };
    uint64_t before = checkpoint_now(s->folder);
    struct model_batch *b;

    for (unsigned i = 12; i < 40; i++)
        append_round(s, m, ids, 5, i);
    row(s, m, "Tone", 500);
    shard_remove(s, m, 18);
    append_produced(s, m, 21, 7000, 0, 4);
    append_produced(s, m, 21, 7001, 4, 1);
    for (b = store_model_shard(m, 17)->batches; b->n_offsets < 3 || b->base < 50;)
        b++;
    trim(s, m, 17, b->base + 2);
    wait_for_checkpoint(s->folder, before);
    append_round(s, m, ids, 2, 40);
}

/* One more loop, hence one more group; what is here is live in the WAL only. */
static void life_three(struct open_store *s, struct model *m)
{
    const uint64_t ids[] = { 16, 17, 22, 19 };

    create(s, m, 22, SHARD_CLASS_DATA);
    create(s, m, 23, SHARD_CLASS_DATA);
    for (unsigned i = 41; i < 45; i++)
        append_round(s, m, ids, 4, i);
    append_produced(s, m, 21, 7000, 1, 2);
    row(s, m, "Tthree", 200);
    shard_remove(s, m, 23);
    trim(s, m, 22, store_model_shard(m, 22)->batches[1].base);
    trim(s, m, 19, store_model_shard(m, 19)->end); /* nothing is left of it */
}

/* A store that an older version has made, and all that can be done to it: appends until it is
 * destaged, a trim, a deletion, a new shard, rows, producers that go on. */
static void life_more(struct open_store *s, struct model *m)
{
    const uint64_t ids[] = { 16, 17, 20, 24, 16 };
    uint64_t before = checkpoint_now(s->folder);

    create(s, m, 24, SHARD_CLASS_DATA);
    for (unsigned i = 50; i < 85; i++)
        append_round(s, m, ids, 5, i);
    append_produced(s, m, 21, 7000, 1, 3);
    append_produced(s, m, 21, 7001, 4, 2);
    row(s, m, "Ttwo", 900);
    row(s, m, "Tfour", 40);
    shard_remove(s, m, 22);
    trim(s, m, 20, store_model_shard(m, 20)->batches[5].base);
    wait_for_checkpoint(s->folder, before);
    append_round(s, m, ids, 4, 85);
}

static void live(const char *folder, struct model *m,
                 void (*life)(struct open_store *, struct model *), unsigned n_loops, uint64_t seed,
                 bool close)
{
    pid_t child = fork();
    int status = 1;

    if (child == 0) {
        struct open_store s = { 0 };

        store_open(&s, folder, n_loops, seed);
        life(&s, m);
        if (close)
            store_close(&s);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        store_model_die(folder, "a life ended badly");
}

/* --- check --- */

static unsigned n_wrong;

static void expect(bool holds, const char *what, uint64_t shard, uint64_t got, uint64_t wanted)
{
    if (holds)
        return;
    n_wrong++;
    fprintf(stderr, "shard %" PRIu64 ": %s is %" PRIu64 ", not %" PRIu64 "\n", shard, what, got,
            wanted);
}

/* The manifest has this batch, the journal does not give it: damage may do that, nothing worse. */
static void missing(const struct model_shard *ms, unsigned i)
{
    n_wrong++;
    fprintf(stderr, "shard %" PRIu64 ": missing: %" PRIu64 "\n", ms->id, ms->batches[i].base);
}

/* Compares the batches of a slice with those from the *i'th on; those skipped are missing. */
static void slice_check(const struct model_shard *ms, unsigned *i, const struct slice *slice)
{
    uint32_t at = 0;

    while (at < slice->len) {
        const struct model_batch *want;
        struct batch_head h;
        uint64_t sum;

        if (batch_check(&h, slice->mem + at, slice->len - at) < 0) {
            expect(false, "a batch that is none", ms->id, at, slice->len);
            return;
        }
        while (*i < ms->n && ms->batches[*i].base < (uint64_t)h.base_offset)
            missing(ms, (*i)++);
        want = &ms->batches[*i];
        if (*i >= ms->n || want->base != (uint64_t)h.base_offset) {
            expect(false, "a batch that never was", ms->id, (uint64_t)h.base_offset, 0);
            return;
        }
        sum = sum_xxh3(slice->mem + at, h.bytes, 0);
        expect(h.bytes == want->bytes, "bytes", ms->id, h.bytes, want->bytes);
        expect(sum == want->xxh3, "XXH3", ms->id, sum, want->xxh3);
        at += h.bytes;
        (*i)++;
    }
}

static void batches_check(struct open_store *s, const struct model_shard *ms, struct shard *shard)
{
    uint64_t from = ms->start;
    unsigned i = 0;

    while (i < ms->n) {
        struct read_done_answer a = { 0 };
        unsigned before = i;

        a.k.from = from;
        a.k.max_bytes = 20000;
        a.k.at_least_one = true;
        read_done_begin(&a, s->loops[0]);
        shard_read(shard, &a.k);
        read_done_end(&a);
        expect(a.k.rc >= 0, err_name(a.k.rc), ms->id, from, 0);
        for (unsigned k = 0; a.k.rc >= 0 && k < a.k.n_slices; k++)
            slice_check(ms, &i, &a.k.slices[k]);
        read_done_release(&a.k);
        if (i == before)
            missing(ms, i++);
        from = ms->batches[i - 1].base + ms->batches[i - 1].n_offsets;
    }
}

static void shard_check(struct open_store *s, const struct model_shard *ms)
{
    int rc;
    struct shard *shard = open_shard(s, ms->id, &rc);

    if (ms->deleted || !shard) {
        expect(ms->deleted ? rc == E_NOTFOUND : rc >= 0, err_name(rc), ms->id, 0, 0);
        shard_unref(shard);
        return;
    }
    expect(shard_group(shard) == ms->group, "group", ms->id, shard_group(shard), ms->group);
    expect(shard_start(shard) == ms->start, "start", ms->id, shard_start(shard), ms->start);
    expect(shard_end(shard) == ms->end, "end", ms->id, shard_end(shard), ms->end);
    batches_check(s, ms, shard);
    shard_unref(shard);
}

static void producer_repeat(struct open_store *s, const struct model_producer *p)
{
    struct plan plan = { p->id, p->epoch, p->sequence, CODEC_NONE, p->n_records, 40 };
    struct buf *b = batch_make(p->shard, 0, &plan);
    struct shard *shard = must_open(s, p->shard);
    struct append_done_answer a = { 0 };

    append_done_begin(&a, s->loops[0]);
    shard_append(shard, b, 0, b->len, ACK_QUORUM_DURABLE, &a.k);
    append_done_end(&a);
    expect(a.k.rc >= 0, err_name(a.k.rc), p->shard, 0, 0);
    expect(a.k.duplicate, "repeat known", p->shard, a.k.duplicate, true);
    expect(a.k.base_offset == p->base, "repeat", p->shard, a.k.base_offset, p->base);
    buf_unref(b);
    shard_unref(shard);
}

struct rows_seen {
    const struct model *m;
    unsigned n;
};

static int row_seen(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct rows_seen *seen = ctx;
    const struct model_row *r = &seen->m->rows[seen->n];

    expect(seen->n < seen->m->n_rows && strlen(r->key) == key_bytes &&
               memcmp(r->key, key, key_bytes) == 0 && r->value_bytes == value_bytes &&
               memcmp(r->value, value, value_bytes) == 0,
           "row", 0, seen->n, seen->m->n_rows);
    seen->n++;
    return seen->n > seen->m->n_rows;
}

static int check(const char *folder, struct model *m)
{
    struct open_store s = { 0 };
    struct rows_seen seen = { .m = m };

    store_open(&s, folder, 2, 99);
    expect(journal_max_shard(s.j) == m->max_shard, "largest shard", 0, journal_max_shard(s.j),
           m->max_shard);
    for (unsigned i = 0; i < m->n_shards; i++)
        shard_check(&s, &m->shards[i]);
    must(journal_rows_scan(s.j, "", 0, row_seen, &seen), "reading rows");
    expect(seen.n == m->n_rows, "number of rows", 0, seen.n, m->n_rows);
    for (unsigned i = 0; i < m->n_producers; i++)
        producer_repeat(&s, &m->producers[i]);
    store_close(&s);
    return n_wrong ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct model *m =
        mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (m == MAP_FAILED || argc != 4)
        store_model_die("usage", "store_tool make|append|check FOLDER MANIFEST");
    logger_setup(LOG_LEVEL_WARN, false);
    if (strcmp(argv[1], "check") == 0) {
        store_model_read(m, argv[3]);
        return check(argv[2], m);
    }
    if (strcmp(argv[1], "append") == 0) {
        store_model_read(m, argv[3]);
        live(argv[2], m, life_more, 2, 4, true);
        store_model_write(m, argv[3]);
        return 0;
    }
    if (strcmp(argv[1], "make") != 0)
        store_model_die("usage", "store_tool make|append|check FOLDER MANIFEST");
    live(argv[2], m, life_one, 2, 1, true);
    live(argv[2], m, life_two, 2, 2, false);
    live(argv[2], m, life_three, 3, 3, false);
    store_model_write(m, argv[3]);
    return 0;
}
