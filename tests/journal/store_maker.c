#include "tests/journal/store_maker.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "journal/io/dev.h"
#include "journal/io/rows.h"

struct store_threads {
    pthread_t thread[STORE_LOOPS + 1];
};

static void must(int rc, const char *what, const struct err *e)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "store: %s: %s\n", what, e && e->code ? e->text : err_text(rc));
    exit(1);
}

static void *run_loop(void *arg)
{
    loop_event_run(arg);
    return NULL;
}

/* --- waiting: the answer is embedded first, its gate behind it - */

#define GATE(kind, name)                                                                           \
    struct name##_gate {                                                                           \
        struct kind answer;                                                                        \
        sem_t gate;                                                                                \
    };                                                                                             \
    static void name##_answered(struct kind *k)                                                    \
    {                                                                                              \
        sem_post(&((struct name##_gate *)k)->gate);                                                \
    }
GATE(jrn_update, update)
GATE(shard_open, opened)
GATE(append_done, append)
GATE(shard_trim, trim)
GATE(journal_close, closed)

static void gate_wait(sem_t *gate)
{
    while (sem_wait(gate) < 0)
        if (errno != EINTR)
            abort();
    sem_destroy(gate);
}

/* --- life - */

static void journal_start_up(struct store *s, const struct journal_conf *conf)
{
    struct journal_env env = { .loops = s->loops,
                               .n_loops = STORE_LOOPS,
                               .commit_loop = s->loops[STORE_LOOPS],
                               .pool = s->pool,
                               .dev = s->dev,
                               .rows = s->rows,
                               .assigner = jrn_assigner_local(),
                               .seed = 42 };
    struct err e = { 0 };

    must(journal_open(&s->journal, &env, conf, &e), "journal", &e);
}

void maker_open(struct store *s, const char *path, const struct journal_conf *conf)
{
    struct err e = { 0 };
    char rows[4096];

    *s = (struct store){ .threads = calloc(1, sizeof *s->threads) };
    must(dev_aio_open(&s->dev, path, &(struct dev_aio_conf){ 0 }, &e), "device", &e);
    snprintf(rows, sizeof rows, "%s/rows", path);
    must(rows_rocksdb_open(&s->rows, rows, 8 << 20, false, &e), "rows", &e);
    must(pool_thread_new(&s->pool, 2, "pool", &e), "pool", &e);
    for (unsigned i = 0; i <= STORE_LOOPS; i++)
        must(loop_event_new(&s->loops[i], i, &e), "loop", &e);
    journal_start_up(s, conf);
    for (unsigned i = 0; i <= STORE_LOOPS; i++)
        if (pthread_create(&s->threads->thread[i], NULL, run_loop, s->loops[i]) != 0)
            abort();
}

void maker_close(struct store *s)
{
    struct closed_gate g = { .answer = { .fn = closed_answered, .loop = s->loops[0] } };

    for (unsigned i = 0; i < STORE_SHARDS; i++)
        shard_unref(s->shard[i]);
    sem_init(&g.gate, 0, 0);
    journal_close(s->journal, &g.answer);
    gate_wait(&g.gate);
    for (unsigned i = 0; i <= STORE_LOOPS; i++)
        loop_event_stop(s->loops[i]);
    for (unsigned i = 0; i <= STORE_LOOPS; i++)
        pthread_join(s->threads->thread[i], NULL);
    pool_thread_free(s->pool);
    rows_close(s->rows);
    dev_aio_close(s->dev);
    for (unsigned i = 0; i <= STORE_LOOPS; i++)
        loop_event_free(s->loops[i]);
    free(s->threads);
    *s = (struct store){ 0 };
}

/* --- changes - */

static void update(struct store *s, const struct jrn_change *c, const char *what)
{
    struct update_gate g = { .answer = { .fn = update_answered, .loop = s->loops[0] } };

    sem_init(&g.gate, 0, 0);
    journal_update(s->journal, c, 1, &g.answer);
    gate_wait(&g.gate);
    must(g.answer.rc, what, NULL);
}

static struct shard *handle(struct store *s, uint64_t id)
{
    struct opened_gate g = { .answer = { .fn = opened_answered, .loop = s->loops[0] } };

    if (!s->shard[id - STORE_FIRST]) {
        sem_init(&g.gate, 0, 0);
        shard_open(s->journal, id, &g.answer);
        gate_wait(&g.gate);
        must(g.answer.rc, "opening a shard", NULL);
        s->shard[id - STORE_FIRST] = g.answer.shard;
    }
    return s->shard[id - STORE_FIRST];
}

void store_create(struct store *s, uint64_t id, enum shard_class class)
{
    update(s, &(struct jrn_change){ .op = JRN_SHARD_CREATE, .shard = id, .class = class },
           "create");
}

void store_create_compacted(struct store *s, uint64_t id)
{
    update(s,
           &(struct jrn_change){
               .op = JRN_SHARD_CREATE, .shard = id, .policy.flags = SHARD_COMPACTED },
           "create");
}

void store_delete(struct store *s, uint64_t id)
{
    if (id < STORE_FIRST + STORE_SHARDS) {
        shard_unref(s->shard[id - STORE_FIRST]);
        s->shard[id - STORE_FIRST] = NULL;
    }
    update(s, &(struct jrn_change){ .op = JRN_SHARD_DELETE, .shard = id }, "delete");
}

void store_put_row(struct store *s, const void *key, uint32_t key_bytes, const void *value,
                   uint32_t value_bytes)
{
    update(s,
           &(struct jrn_change){ .op = JRN_ROW_PUT,
                                 .key = key,
                                 .key_bytes = key_bytes,
                                 .value = value,
                                 .value_bytes = value_bytes },
           "row");
}

void store_put_topic(struct store *s, const char *name, uint64_t first, uint32_t n)
{
    uint8_t key[17] = { 'T' }, value[1024];
    struct wr w = wr_of(value, sizeof value);
    size_t bytes = strlen(name);

    memcpy(key + 1, name, bytes < 16 ? bytes : 16);
    wr_u8(&w, 1);
    wr_u8(&w, (uint8_t)bytes);
    wr_bytes(&w, name, bytes);
    wr_u64le(&w, 1700000000000);
    wr_u32le(&w, n);
    for (uint32_t i = 0; i < n; i++)
        wr_u64le(&w, first + i);
    wr_u16le(&w, 0);
    store_put_row(s, key, sizeof key, value, (uint32_t)wr_used(&w));
}

struct buf *store_batch_make(uint64_t shard, const struct store_batch *b)
{
    struct batch_builder builder = { .producer_id = b->producer,
                                     .base_sequence = b->sequence,
                                     .has_producer = b->producer != 0 };
    char key[32], *value = calloc(1, b->value_bytes + 64);
    struct buf *out = NULL;

    for (unsigned k = 0; k < b->n; k++) {
        int head = snprintf(value, 64, "%" PRIu64 ".%" PRIu64 ".", shard, b->base + k);
        struct batch_new_record r = { .timestamp = b->time + k, .key = key, .value = value };

        /* So that it does not compress to nothing. */
        for (unsigned i = (unsigned)head; i < b->value_bytes; i++)
            value[i] = (char)('a' + (i * 7 + b->base * 31 + k * (i % 13)) % 26);
        r.key_bytes = (size_t)snprintf(key, sizeof key, "k%" PRIu64,
                                       b->keys ? (b->base + k) % b->keys : b->base + k);
        r.value_bytes = b->value_bytes > (unsigned)head ? b->value_bytes : (unsigned)head;
        batch_builder_add(&builder, &r);
    }
    must(batch_builder_finish(&builder, b->codec, &out), "building a batch", NULL);
    batch_builder_free(&builder);
    free(value);
    return out;
}

uint64_t store_append(struct store *s, uint64_t id, const struct store_batch *b)
{
    struct append_gate g = { .answer = { .fn = append_answered, .loop = s->loops[0] } };
    struct buf *batch = store_batch_make(id, b);

    sem_init(&g.gate, 0, 0);
    shard_append(handle(s, id), batch, 0, batch->len, ACK_QUORUM_DURABLE, &g.answer);
    gate_wait(&g.gate);
    buf_unref(batch);
    must(g.answer.rc, "append", NULL);
    return g.answer.base_offset;
}

void store_trim(struct store *s, uint64_t id, uint64_t start)
{
    struct trim_gate g = { .answer = { .fn = trim_answered, .loop = s->loops[0], .start = start } };

    sem_init(&g.gate, 0, 0);
    shard_trim(handle(s, id), &g.answer);
    gate_wait(&g.gate);
    must(g.answer.rc, "trim", NULL);
}
