#include "journal/unload.h"

#include "journal/shard.h"

enum {
    SLICE = 2048,     /* shards looked at under one lock */
    SPARSE = 16,      /* a table this many times too large is made anew */
    SMALL_CAP = 4096, /* and never below this */
};

/* With one reference, the table's, and the lock of the table held nobody else has the shard or can
 * come by it: what its home loop wrote was written before that loop's reference was given back. */
static bool is_unused(const struct shard *s)
{
    return atomic_load(&s->refs) == 1;
}

/* Whether its rows give back all that it is in memory. With entries in the live WAL, or with an end
 * that rows do not have, it would have a reference from its group's list. */
static bool is_in_rows(const struct shard *s)
{
    if (s->kind == SHARD_MEMORY || s->next != atomic_load(&s->end))
        return false;
    /* last_lsn says which side of the loss it is on. */
    if (s->last_lsn && atomic_load(&s->group->read_only))
        return false;
    return s->producers.n_refused == 0;
}

/* Under the lock: takes what may go of the next n. Gives the list; *end: the round is over. */
static struct shard *take_some(struct store *st, size_t n, bool *end)
{
    struct shard *list = NULL;
    void *value;

    *end = false;
    for (size_t i = 0; i < n && !*end; i++) {
        struct shard *s;

        *end = !hash_next(&st->shards, &st->unload_pos, NULL, &value);
        s = value;
        if (*end || !is_unused(s))
            continue;
        if (s->used) { /* once more round */
            s->used = false;
            atomic_store(&st->unload_again, true);
        } else if (is_in_rows(s)) {
            ASSERT(!s->dirty && !s->waits && index_count(&s->index) == 0);
            hash_take(&st->shards, s->id);
            s->dirty_next = list;
            list = s;
        }
    }
    if (*end)
        st->unload_pos = 0;
    return list;
}

/* Under the lock: the table does not stay as large as it ever was. */
static void shrink(struct hash *h)
{
    struct hash small = { 0 };
    uint64_t pos = 0, id;
    void *value;

    if (h->cap <= SMALL_CAP || h->count * SPARSE > h->cap)
        return;
    while (hash_next(h, &pos, &id, &value))
        hash_put(&small, id, value);
    hash_free(h);
    *h = small;
}

static void hand_moves(struct store *st);

static void tick(struct loop_timer *t)
{
    struct store *st = (struct store *)((char *)t - offsetof(struct store, unload_timer));
    struct shard *list;
    bool end;

    pthread_mutex_lock(&st->shards_lock);
    list = take_some(st, SLICE, &end);
    if (end)
        shrink(&st->shards);
    pthread_mutex_unlock(&st->shards_lock);
    while (list) {
        struct shard *s = list;

        list = s->dirty_next;
        st->unloads++;
        shard_unref(s);
    }
    /* In this order: who asks now either sees that the hand rests, or is seen. */
    if (end && !atomic_load(&st->unload_again)) {
        atomic_store(&st->unload, UNLOAD_RESTS);
        if (!atomic_load(&st->unload_again))
            return;
        atomic_store(&st->unload, UNLOAD_MOVES);
    }
    if (end)
        atomic_store(&st->unload_again, false);
    hand_moves(st);
}

static void hand_moves(struct store *st)
{
    uint64_t round_us = (uint64_t)st->conf.unload_ms * 1000;
    size_t slices;

    if (atomic_load(&st->unload) != UNLOAD_MOVES)
        return;
    pthread_mutex_lock(&st->shards_lock);
    slices = st->shards.count / SLICE + 1;
    pthread_mutex_unlock(&st->shards_lock);
    st->unload_timer.fire = tick;
    loop_timer_set(st->keeper, &st->unload_timer, round_us / slices + 1);
}

static void hand_starts(struct store *st, void *arg)
{
    hand_moves(st);
}

void unload_wanted(struct store *st)
{
    int rests = UNLOAD_RESTS;

    if (atomic_load(&st->unload) == UNLOAD_OFF)
        return;
    if (!atomic_load(&st->unload_again))
        atomic_store(&st->unload_again, true);
    if (atomic_load(&st->unload) == UNLOAD_RESTS &&
        atomic_compare_exchange_strong(&st->unload, &rests, UNLOAD_MOVES))
        store_on_keeper(st, hand_starts, NULL);
}

void unload_begin(struct store *st)
{
    atomic_store(&st->unload, UNLOAD_RESTS);
    unload_wanted(st);
}

void unload_end(struct store *st)
{
    atomic_store(&st->unload, UNLOAD_OFF);
    loop_timer_stop(&st->unload_timer);
}
