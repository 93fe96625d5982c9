#include "journal/journal.h"

#include <stdlib.h>

#include "journal/shard.h"
#include "journal/store.h"

struct journal {
    struct store *store;
    struct journal_close close, *close_asked;
};

struct store *journal_store(const struct journal *j)
{
    return j->store;
}

int journal_open(struct journal **out, const struct journal_env *env,
                 const struct journal_conf *conf, struct err *e)
{
    struct journal *j = mem_new(sizeof *j);
    int rc = store_open(&j->store, env, conf, e);

    if (rc < 0)
        free(j);
    else
        *out = j;
    return rc;
}

static void store_closed(struct journal_close *c)
{
    struct journal *j = (struct journal *)((char *)c - offsetof(struct journal, close));
    struct journal_close *asked = j->close_asked;

    free(j);
    asked->fn(asked);
}

void journal_close(struct journal *j, struct journal_close *done)
{
    j->close_asked = done;
    j->close.fn = store_closed;
    j->close.loop = done->loop;
    store_close(j->store, &j->close);
}

uint64_t journal_backlog(const struct journal *j)
{
    return store_backlog(j->store);
}

bool journal_backlogged(const struct journal *j)
{
    return store_backlog(j->store) > j->store->conf.pending_max;
}

enum jrn_state journal_state(const struct journal *j)
{
    return store_state(j->store);
}

uint64_t journal_start(const struct journal *j)
{
    return store_start(j->store);
}

uint64_t journal_max_shard(struct journal *j)
{
    return store_max_shard(j->store);
}

void journal_update(struct journal *j, const struct jrn_change *changes, unsigned n,
                    struct jrn_update *done)
{
    store_update(j->store, changes, n, done);
}

int journal_rows_scan(struct journal *j, const void *prefix, size_t prefix_bytes,
                      int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                                size_t value_bytes),
                      void *ctx)
{
    return store_rows_scan(j->store, prefix, prefix_bytes, fn, ctx);
}

void shard_open(struct journal *j, uint64_t id, struct shard_open *done)
{
    store_shard_open(j->store, id, done);
}

int32_t journal_epoch(const struct journal *j, uint64_t shard)
{
    return store_epoch(j->store);
}

struct shard *shard_in_memory(struct journal *j, uint64_t id)
{
    return shard_find(j->store, id);
}
