#include "journal/place.h"

#include "journal/store.h"

enum { WEIGHT_UNIT = 1 << 16 };

void place_init(struct place *p, struct store *const *stores, unsigned n)
{
    *p = (struct place){ .stores = stores, .n = n };
    pthread_mutex_init(&p->lock, NULL);
    for (unsigned i = 0; i < n; i++)
        p->next[i] = store_max_shard(stores[i]) + 1;
}

void place_fini(struct place *p)
{
    pthread_mutex_destroy(&p->lock);
}

/* One that cannot take appends now gets nothing while there are others. */
static int64_t weight(const struct store *st, enum jrn_state worst)
{
    return store_state(st) > worst ? 0 : 1 + (int64_t)(store_room(st) / WEIGHT_UNIT);
}

/* Everybody earns by weight; the one with the most to its credit pays for all. Under lock. */
static unsigned pick(struct place *p)
{
    enum jrn_state worst = JRN_FAILED;
    int64_t all = 0;
    unsigned best = p->n;

    for (unsigned i = 0; i < p->n; i++)
        if (store_state(p->stores[i]) < worst)
            worst = store_state(p->stores[i]);
    for (unsigned i = 0; i < p->n; i++) {
        int64_t w = weight(p->stores[i], worst);

        all += w;
        p->credit[i] += w;
        if (w > 0 && (best == p->n || p->credit[i] > p->credit[best]))
            best = i;
    }
    if (best == p->n) /* their states changed meanwhile */
        return 0;
    p->credit[best] -= all;
    return best;
}

uint64_t place_shard(struct place *p, enum shard_class class)
{
    unsigned device;
    uint64_t used, id;

    pthread_mutex_lock(&p->lock);
    device = class == SHARD_CLASS_INTERNAL ? 0 : pick(p);
    /* Callers may choose ids, too. */
    used = store_max_shard(p->stores[device]);
    if (p->next[device] <= used)
        p->next[device] = used + 1;
    id = p->next[device]++;
    pthread_mutex_unlock(&p->lock);
    return id;
}
