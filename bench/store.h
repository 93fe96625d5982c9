/* A journal in this process as the server opens it: dev_aio, RocksDB, loops and the committer's,
 * each on its thread. */
#ifndef WEIR_BENCH_STORE_H
#define WEIR_BENCH_STORE_H

#include <pthread.h>

#include "base/loop.h"
#include "journal/journal.h"

enum { STORE_LOOPS_MAX = 64 };

struct store_thread {
    struct loop *loop;
    pthread_t thread;
};

struct bench_store {
    struct dev *dev;
    struct rows *rows;
    struct pool *pool, *read_pool;
    struct journal *journal;
    struct store_thread threads[STORE_LOOPS_MAX + 1]; /* the committer's behind the others */
    struct loop *loops[STORE_LOOPS_MAX];
    unsigned n_loops;
    uint64_t next_shard;
    enum shard_kind kind;       /* of the shards that are created */
    struct shard_policy policy; /* the same */
};

/* Opens or creates the store in folder path, and ends the program when that fails. The loops do
 * not run yet. n_loops 0: as many as the server makes. */
void bench_store_open(struct bench_store *s, const char *path, const struct journal_conf *conf,
                      unsigned n_loops);
void store_run(struct bench_store *s);
/* Waits until the journal writes nothing any more of its own accord: what is measured beside it should
 * not pay for destage that the last turn has left. */
void bench_store_rest(struct bench_store *s);
/* Closes the journal and all below it. Shards must have been given back. */
void bench_store_close(struct bench_store *s);

/* n new shards, each with one reference. */
void store_create_shards(struct bench_store *s, struct shard **shards, unsigned n);
/* Deletes shards first to first + n - 1, whether they are in memory or not. */
void store_delete_ids(struct bench_store *s, uint64_t first, unsigned n);
/* Gives the references back and deletes the shards, which were made at once, so that the space of their
 * segments comes back. */
void store_delete_shards(struct bench_store *s, struct shard **shards, unsigned n);

#endif
