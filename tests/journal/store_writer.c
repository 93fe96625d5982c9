/* Makes a store for tests of journal-ctl.
 *
 *   store_writer make DIR    a small one with a bit of everything; says what is in it, as JSON
 *   store_writer churn DIR   appends, destages, trims, creates and deletes as fast as it can; says
 *                            "going" once the WAL has wrapped, and ends when stdin does */
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/logger.h"
#include "tests/journal/store_maker.h"

#define T0 INT64_C(1700000000000)

/* --- make - */

enum { ALPHA = 16, BETA = 20, GONE = 21, INTERNAL = 30, N_BATCHES = 220, PRODUCER = 77 };

struct made {
    uint64_t id, start, end;
    uint32_t sequence;
};

static void append_some(struct store *s, struct made *m, unsigned i)
{
    struct store_batch b = { .base = m->end,
                             .n = 1 + i % 7,
                             .value_bytes = 40 + i * 37 % 900,
                             .time = T0 + (int64_t)(i * 1000),
                             .codec = i % 5 == 1   ? CODEC_LZ4
                                      : i % 5 == 3 ? CODEC_ZSTD
                                                   : CODEC_NONE };

    if (m->id == BETA) {
        b.producer = PRODUCER;
        b.sequence = (int32_t)m->sequence;
    }
    if (store_append(s, m->id, &b) != m->end) {
        fprintf(stderr, "store_writer: an offset is not the one expected\n");
        exit(1);
    }
    m->end += b.n;
    m->sequence += b.n;
}

static int make(const char *path)
{
    const struct journal_conf conf = { .wal_budget = 4 * 65536,
                                       .wal_extent = 65536,
                                       .slab_first = 16 * 65536,
                                       .slab_max = 16 * 65536,
                                       .space_floor = 4096,
                                       .delete_grace_ms = 20 };
    struct made made[] = { { ALPHA, 0, 0, 0 }, { ALPHA + 1, 0, 0, 0 }, { ALPHA + 2, 0, 0, 0 },
                           { BETA, 0, 0, 0 },  { GONE, 0, 0, 0 },      { INTERNAL, 0, 0, 0 } };
    struct store s;

    maker_open(&s, path, &conf);
    for (unsigned i = 0; i < 6; i++)
        store_create(&s, made[i].id,
                     made[i].id == INTERNAL ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA);
    store_put_topic(&s, "alpha", ALPHA, 3);
    store_put_topic(&s, "beta", BETA, 1);
    store_put_row(&s, "Istate", 6, "\1\x1e\0\0\0\0\0\0\0", 9);
    for (unsigned i = 0; i < N_BATCHES; i++) {
        for (unsigned k = 0; k < 6; k++)
            if ((made[k].id != GONE || i < N_BATCHES / 2) &&
                (made[k].id != INTERNAL || i % 10 == 0))
                append_some(&s, &made[k], i);
        if (i == N_BATCHES / 2)
            store_delete(&s, GONE);
        if (i == N_BATCHES * 2 / 3) {
            made[1].start = made[1].end / 2;
            store_trim(&s, ALPHA + 1, made[1].start);
        }
    }
    maker_close(&s);
    /* A second incarnation with a little of its own. */
    maker_open(&s, path, &conf);
    append_some(&s, &made[0], N_BATCHES);
    maker_close(&s);
    printf("{\"shards\": [");
    for (unsigned k = 0; k < 6; k++)
        if (made[k].id != GONE)
            printf("%s{\"id\": %" PRIu64 ", \"start\": %" PRIu64 ", \"end\": %" PRIu64 "}",
                   k ? ", " : "", made[k].id, made[k].start, made[k].end);
    printf("], \"producer\": %d, \"first_time\": %" PRId64 ", \"batches\": %d}\n", PRODUCER, T0,
           N_BATCHES);
    return 0;
}

/* --- churn - */

enum {
    CHURN_SHARDS = 6,
    WINDOW = 48,
    CHURN_BYTES = 16000,
    KEEP_BATCHES = 300,
    WRAP_BYTES = 64 << 20
};

struct churn {
    struct store store;
    struct lane {
        struct append_done done[WINDOW];
        atomic_uint out; /* on their way */
        atomic_ullong bytes, failed;
    } lane;
};

static struct churn churn;

static void churn_done(struct append_done *d)
{
    if (d->rc < 0 && d->rc != E_DELETED && d->rc != E_NOSPACE)
        atomic_fetch_add(&churn.lane.failed, 1);
    atomic_fetch_add(&churn.lane.bytes, CHURN_BYTES);
    atomic_fetch_sub(&churn.lane.out, 1);
}

/* A window of appends over all shards, then waits for them. */
static void churn_window(uint64_t *ids)
{
    struct store *s = &churn.store;

    for (unsigned i = 0; i < WINDOW; i++) {
        uint64_t id = ids[i % CHURN_SHARDS];
        struct store_batch b = { .n = 4, .value_bytes = CHURN_BYTES / 4, .time = T0 };
        struct buf *batch = store_batch_make(id, &b);
        struct append_done *d = &churn.lane.done[i];

        *d = (struct append_done){ .fn = churn_done, .loop = s->loops[0] };
        atomic_fetch_add(&churn.lane.out, 1);
        shard_append(s->shard[id - STORE_FIRST], batch, 0, batch->len, ACK_QUORUM_DURABLE, d);
        buf_unref(batch);
    }
    while (atomic_load(&churn.lane.out) > 0)
        usleep(200);
}

static bool stdin_ended(void)
{
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

    return poll(&p, 1, 0) != 0;
}

static int churn_run(const char *path)
{
    const struct journal_conf conf = { .wal_budget = 24 << 20,
                                       .wal_extent = 4 << 20,
                                       .slab_first = 256 << 20,
                                       .slab_max = 256 << 20,
                                       .space_max = 1 << 30,
                                       .space_floor = 4096,
                                       .delete_grace_ms = 300 };
    struct store *s = &churn.store;
    uint64_t ids[CHURN_SHARDS], next = STORE_FIRST, rounds = 0;
    bool said = false;

    maker_open(s, path, &conf);
    for (unsigned i = 0; i < CHURN_SHARDS; i++) {
        ids[i] = next++;
        store_create(s, ids[i], SHARD_CLASS_DATA);
        store_trim(s, ids[i], 0); /* opens it */
    }
    while (!stdin_ended()) {
        unsigned turn = rounds++ % CHURN_SHARDS;

        churn_window(ids);
        if (next < STORE_FIRST + STORE_SHARDS && rounds % 40 == 0) { /* replaces one */
            store_delete(s, ids[turn]);
            ids[turn] = next++;
            store_create(s, ids[turn], SHARD_CLASS_DATA);
            store_trim(s, ids[turn], 0);
        } else if (rounds % 5 == 0) {
            uint64_t end = shard_end(s->shard[ids[turn] - STORE_FIRST]);

            if (end > KEEP_BATCHES * 4)
                store_trim(s, ids[turn], end - KEEP_BATCHES * 4);
        }
        if (!said && atomic_load(&churn.lane.bytes) > WRAP_BYTES) {
            printf("going\n");
            fflush(stdout);
            said = true;
        }
    }
    maker_close(s);
    printf("%llu bytes, %llu failed\n", (unsigned long long)atomic_load(&churn.lane.bytes),
           (unsigned long long)atomic_load(&churn.lane.failed));
    return atomic_load(&churn.lane.failed) ? 1 : 0;
}

int main(int argc, char **argv)
{
    logger_setup(LOG_LEVEL_WARN, false);
    if (argc == 3 && strcmp(argv[1], "make") == 0)
        return make(argv[2]);
    if (argc == 3 && strcmp(argv[1], "churn") == 0)
        return churn_run(argv[2]);
    fprintf(stderr, "usage: store_writer make|churn DIR\n");
    return 2;
}
