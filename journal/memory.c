#include "journal/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/catalogue.h"
#include "journal/group.h"
#include "journal/shard.h"

enum {
    CHUNK_MIN = 4 << 10,
    CHUNK_MAX = 256 << 10,
    CHUNK_ALIGNED = 64 << 10, /* from here on chunks are pages of their own */
    CHUNKS_IN_RING = 8,       /* a chunk takes at most this part of its ring's bound, */
    CHUNKS_IN_ALL = 64,       /* and this of that of all rings */
    EXPIRE_EVERY_US = 1000 * 1000
};

struct memory {
    struct shard *shard;        /* it holds us */
    struct memory *prev, *next; /* under the table's lock */
    atomic_ullong held;         /* bytes of its chunks; written home */
    atomic_bool expires;        /* the same */
    /* home */
    uint64_t max_bytes, kept; /* kept: bytes of its batches */
    int64_t retention_ms;
    struct memory_batch
        *ring; /* cap is a power of two; each batch holds a reference on its chunk */
    uint32_t first, n, cap;
    struct buf *chunk;    /* where the next batch goes; borrowed from the newest batch */
    uint32_t chunk_bytes; /* of the last one made */
    uint64_t reserved;    /* offsets below may be given */
    bool reserving;
    struct append *waiting, **waiting_end; /* for offsets */
};

/* What the rings of a store have in common. */
struct memories {
    struct store *st;
    pthread_mutex_t lock;
    struct memory *list;
    atomic_ullong bytes; /* of all chunks */
    uint64_t max_bytes;
    atomic_bool relieving;    /* a loop has been asked to let go */
    atomic_bool timer_wanted; /* there is something that expires */
    struct loop_timer timer;  /* keeper */
};

/* --- the ring --- */

static const struct memory_batch *ring_at(const struct memory *m, uint32_t i)
{
    return &m->ring[(m->first + i) & (m->cap - 1)];
}

uint32_t memory_count(const struct shard *s)
{
    return s->memory->n;
}

const struct memory_batch *memory_at(const struct shard *s, uint32_t i)
{
    ASSERT(i < s->memory->n);
    return ring_at(s->memory, i);
}

uint32_t memory_find(const struct shard *s, uint64_t offset)
{
    uint32_t low = 0, high = s->memory->n;

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        const struct memory_batch *b = ring_at(s->memory, mid);

        if (b->base + b->n_offsets <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct slice memory_slice(const struct shard *s, uint32_t *i)
{
    const struct memory_batch *b = memory_at(s, *i);
    struct slice slice = { .buf = b->buf, .mem = b->buf->mem + b->at, .len = b->bytes };

    while (++*i < s->memory->n) {
        b = ring_at(s->memory, *i);
        if (b->buf != slice.buf)
            break;
        slice.len += b->bytes;
    }
    return slice;
}

static void ring_push(struct memory *m, const struct memory_batch *b)
{
    if (m->n == m->cap) {
        uint32_t cap = m->cap ? m->cap * 2 : 16;
        struct memory_batch *ring = mem_new(cap * sizeof *ring);

        for (uint32_t i = 0; i < m->n; i++)
            ring[i] = *ring_at(m, i);
        free(m->ring);
        m->ring = ring;
        m->first = 0;
        m->cap = cap;
    }
    m->ring[(m->first + m->n) & (m->cap - 1)] = *b;
    m->n++;
    m->kept += b->bytes;
}

static void held_add(struct memory *m, int64_t bytes)
{
    atomic_fetch_add(&m->held, (uint64_t)bytes);
    atomic_fetch_add(&m->shard->st->memories->bytes, (uint64_t)bytes);
}

static void ring_drop_first(struct memory *m)
{
    const struct memory_batch *b = ring_at(m, 0);
    struct buf *buf = b->buf;

    m->kept -= b->bytes;
    m->first++;
    m->n--;
    if (m->n == 0 || ring_at(m, 0)->buf != buf)
        held_add(m, -(int64_t)buf->cap);
    if (m->n == 0) {
        m->chunk = NULL;
        m->chunk_bytes = 0;
        free(m->ring); /* an empty one costs nothing */
        m->ring = NULL;
        m->cap = 0;
    }
    buf_unref(buf);
}

static void start_up_to(struct shard *s, uint64_t start)
{
    if (start > atomic_load(&s->start))
        atomic_store(&s->start, start);
}

/* The oldest batch goes, and the start of the shard moves past it. */
static void drop_oldest(struct memory *m)
{
    const struct memory_batch *b = ring_at(m, 0);

    start_up_to(m->shard, b->base + b->n_offsets);
    ring_drop_first(m);
}

void memory_trim(struct shard *s, uint64_t start)
{
    struct memory *m = s->memory;

    ASSERT_HOME(s->group->loop);
    start_up_to(s, start);
    while (m->n > 0 && ring_at(m, 0)->base + ring_at(m, 0)->n_offsets <= start)
        ring_drop_first(m);
}

void memory_expire(struct shard *s)
{
    struct memory *m = s->memory;
    int64_t now;

    if (!atomic_load(&m->expires))
        return;
    now = loop_wall_ms(s->group->loop);
    while (m->n > 0 && ring_at(m, 0)->max_ts < now - m->retention_ms)
        drop_oldest(m);
}

/* --- all rings together --- */

/* Something for one ring's home loop. */
struct shard_task {
    struct task task;
    struct shard *shard; /* a reference */
};

/* The ring that holds most, as a shard with a reference, and how much the next one holds. */
static struct shard *largest(struct memories *t, uint64_t *second)
{
    uint64_t most = 0, id = 0;

    *second = 0;
    pthread_mutex_lock(&t->lock);
    for (struct memory *m = t->list; m; m = m->next) {
        uint64_t held = atomic_load(&m->held);

        if (held > most) {
            *second = most;
            most = held;
            id = m->shard->id;
        } else if (held > *second) {
            *second = held;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return most ? shard_find(t->st, id) : NULL;
}

static bool too_much(const struct memories *t)
{
    return atomic_load(&((struct memories *)(uintptr_t)t)->bytes) > t->max_bytes;
}

static void relieve(struct memories *t);

static void relieve_home(struct task *task)
{
    struct shard_task *r = (struct shard_task *)task;
    struct memories *t = r->shard->st->memories;
    struct memory *m = r->shard->memory;
    struct store *st = r->shard->st;
    uint64_t second;
    struct shard *s = largest(t, &second);

    /* The oldest batches of this one, until another is the largest. */
    while (too_much(t) && m->n > 0 && (s != r->shard || atomic_load(&m->held) >= second))
        drop_oldest(m);
    shard_unref(s);
    shard_unref(r->shard);
    free(r);
    atomic_store(&t->relieving, false);
    relieve(t);
    atomic_fetch_sub(&st->busy, 1);
}

/* Asks the loop of the largest ring to let its oldest batches go. */
static void relieve(struct memories *t)
{
    struct shard_task *r;
    struct shard *s;
    uint64_t second;

    if (!too_much(t) || atomic_exchange(&t->relieving, true))
        return;
    s = largest(t, &second);
    if (!s) {
        atomic_store(&t->relieving, false);
        return;
    }
    atomic_fetch_add(&t->st->busy, 1);
    r = mem_new(sizeof *r);
    r->shard = s;
    r->task.run = relieve_home;
    loop_post(s->group->loop, &r->task);
}

static void expire_home(struct task *task)
{
    struct shard_task *e = (struct shard_task *)task;

    memory_expire(e->shard);
    shard_unref(e->shard);
    free(e);
}

static void expire_fire(struct loop_timer *timer)
{
    struct memories *t = (struct memories *)((char *)timer - offsetof(struct memories, timer));
    uint64_t *ids = NULL;
    unsigned n = 0;

    pthread_mutex_lock(&t->lock);
    for (struct memory *m = t->list; m; m = m->next) {
        if (!atomic_load(&m->expires) || atomic_load(&m->held) == 0)
            continue;
        ids = mem_grow(ids, (n + 1) * sizeof *ids);
        ids[n++] = m->shard->id;
    }
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < n; i++) {
        struct shard *s = shard_find(t->st, ids[i]);
        struct shard_task *e;

        if (!s)
            continue;
        e = mem_new(sizeof *e);
        e->shard = s;
        e->task.run = expire_home;
        loop_post(s->group->loop, &e->task);
    }
    free(ids);
    if (n > 0 && !atomic_load(&t->st->closing))
        loop_timer_set(t->st->keeper, &t->timer, EXPIRE_EVERY_US);
    else
        atomic_store(&t->timer_wanted, false);
}

static void expire_arm(struct store *st, void *arg)
{
    struct memories *t = st->memories;

    if (!atomic_load(&st->closing))
        loop_timer_set(st->keeper, &t->timer, EXPIRE_EVERY_US);
    atomic_fetch_sub(&st->busy, 1);
}

/* No timer per shard: one looks after all rings while there is something that expires. */
static void expire_want(struct memories *t)
{
    if (atomic_load(&t->timer_wanted) || atomic_exchange(&t->timer_wanted, true))
        return;
    atomic_fetch_add(&t->st->busy, 1);
    store_on_keeper(t->st, expire_arm, NULL);
}

struct memories *memories_new(struct store *st, uint64_t max_bytes)
{
    struct memories *t = mem_new(sizeof *t);

    t->st = st;
    t->max_bytes = max_bytes;
    t->timer.fire = expire_fire;
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void memories_free(struct memories *t)
{
    if (!t)
        return;
    ASSERT(!t->list);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void memories_stop(struct memories *t)
{
    loop_timer_stop(&t->timer);
}

uint64_t memories_bytes(struct memories *t)
{
    return atomic_load(&t->bytes);
}

/* --- one ring's life --- */

static void policy_take(struct memory *m, const struct shard_policy *policy)
{
    m->max_bytes =
        policy->flags & SHARD_LIMITED ? (uint64_t)policy->retention_bytes : MEMORY_DEFAULT_BYTES;
    m->retention_ms = policy->retention_ms;
    atomic_store(&m->expires, (policy->flags & SHARD_EXPIRES) != 0);
}

struct memory *memory_new(struct shard *s)
{
    struct memories *t = s->st->memories;
    struct memory *m = mem_new(sizeof *m);

    m->shard = s;
    m->reserved = s->next;
    m->waiting_end = &m->waiting;
    policy_take(m, &s->policy);
    pthread_mutex_lock(&t->lock);
    m->next = t->list;
    if (m->next)
        m->next->prev = m;
    t->list = m;
    pthread_mutex_unlock(&t->lock);
    return m;
}

void memory_free(struct memory *m)
{
    struct memories *t;

    if (!m)
        return;
    t = m->shard->st->memories;
    ASSERT(!m->waiting);
    while (m->n > 0)
        ring_drop_first(m);
    pthread_mutex_lock(&t->lock);
    if (m->prev)
        m->prev->next = m->next;
    else
        t->list = m->next;
    if (m->next)
        m->next->prev = m->prev;
    pthread_mutex_unlock(&t->lock);
    free(m);
}

static void bound(struct memory *m)
{
    struct memories *t = m->shard->st->memories;

    while (m->n > 1 && m->kept > m->max_bytes)
        drop_oldest(m);
    memory_expire(m->shard);
    relieve(t);
    /* Another loop may take its time: until then it is our own that goes. */
    while (m->n > 1 && memories_bytes(t) > t->max_bytes + t->max_bytes / 8)
        drop_oldest(m);
}

static void policy_home(struct task *task)
{
    struct shard_task *hop = (struct shard_task *)task;
    struct shard *s = hop->shard;
    struct store *st = s->st;
    struct shard_policy p;

    shard_policy(s, &p); /* the latest, whichever change this was for */
    policy_take(s->memory, &p);
    if (s->memory->n > 0 && atomic_load(&s->memory->expires))
        expire_want(st->memories);
    bound(s->memory);
    shard_unref(s);
    free(hop);
    atomic_fetch_sub(&st->busy, 1);
}

void memory_policy(struct shard *s)
{
    struct shard_task *hop = mem_new(sizeof *hop);

    atomic_fetch_add(&s->st->busy, 1);
    hop->task.run = policy_home;
    hop->shard = shard_ref(s);
    loop_post(s->group->loop, &hop->task);
}

/* --- appending --- */

/* Where bytes can be put: in the newest chunk, or in a new one, which grows with the ring. */
static struct buf *chunk_for(struct memory *m, uint32_t bytes)
{
    uint64_t cap = m->chunk_bytes ? (uint64_t)m->chunk_bytes * 2 : CHUNK_MIN;
    uint64_t all = m->shard->st->memories->max_bytes;

    if (m->chunk && m->chunk->cap - m->chunk->len >= bytes)
        return buf_ref(m->chunk);
    if (cap > m->max_bytes / CHUNKS_IN_RING)
        cap = m->max_bytes / CHUNKS_IN_RING;
    if (cap > all / CHUNKS_IN_ALL)
        cap = all / CHUNKS_IN_ALL;
    if (cap > CHUNK_MAX)
        cap = CHUNK_MAX;
    if (cap < CHUNK_MIN)
        cap = CHUNK_MIN;
    m->chunk_bytes = (uint32_t)cap;
    if (cap < bytes)
        cap = bytes;
    return cap >= CHUNK_ALIGNED ? buf_new_aligned(cap) : buf_new(cap);
}

static int keep(struct memory *m, const struct append *a, const struct batch_head *h)
{
    struct memory_batch b = { .bytes = a->bytes,
                              .base = a->base_offset,
                              .n_offsets = a->n_offsets,
                              .max_ts = h->max_timestamp };

    b.buf = chunk_for(m, a->bytes);
    if (!b.buf)
        return E_NOMEM;
    if (b.buf != m->chunk) {
        m->chunk = b.buf;
        held_add(m, b.buf->cap);
    }
    /* Readers have slices of what is before `at` only: this part of the chunk is ours alone. */
    b.at = b.buf->len;
    memcpy(b.buf->mem + b.at, a->batch->mem + a->at, a->bytes);
    batch_stamp(b.buf->mem + b.at, (int64_t)b.base, shard_epoch(m->shard));
    b.buf->len += a->bytes;
    ring_push(m, &b);
    return 0;
}

static void reserve(struct memory *m, uint64_t need);

static uint64_t offsets_left(const struct memory *m)
{
#ifdef WEIR_MUTANT_OFFSETS_NOT_RESERVED
    return UINT32_MAX; /* given though nothing durable says so */
#endif
    return m->reserved > m->shard->next ? m->reserved - m->shard->next : 0;
}

static void taken(struct append *a, const struct batch_head *h)
{
    struct shard *s = a->shard;
    struct memory *m = s->memory;
    int64_t now = loop_wall_ms(s->group->loop);
    int rc;

    a->base_offset = s->next;
    a->n_offsets = (uint32_t)h->last_offset_delta + 1;
    rc = keep(m, a, h);
    if (rc >= 0) {
        s->next += a->n_offsets;
        producer_note(&s->producers, h, a->base_offset, now);
        atomic_store(&s->end, s->next);
        bound(m);
        if (atomic_load(&m->expires))
            expire_want(s->st->memories);
        shard_wake(s, 0);
        if (offsets_left(m) < MEMORY_RESERVE / 2)
            reserve(m, 0);
    }
    append_end(a, rc, now);
}

/* False: there are not enough offsets yet, the append was not touched. */
static bool take(struct append *a)
{
    struct shard *s = a->shard;
    struct memory *m = s->memory;
    struct batch_head h;
    int rc = 0;

    if (atomic_load(&s->deleted))
        rc = E_DELETED;
    else if (atomic_load(&s->st->failed))
        rc = E_DEVICE; /* no new offsets can be had: better refused now than in the middle */
    if (rc >= 0)
        rc = batch_head_read(&h, a->batch->mem + a->at, a->bytes);
    if (rc >= 0)
        rc = producer_check(&s->producers, &h, &a->base_offset);
    if (rc == 0 && (uint64_t)h.last_offset_delta + 1 > offsets_left(m)) {
        reserve(m, (uint64_t)h.last_offset_delta + 1);
        return false;
    }
    if (rc == 0) {
        taken(a, &h);
    } else {
        a->duplicate = rc == 1;
        append_end(a, rc < 0 ? rc : 0, loop_wall_ms(s->group->loop));
    }
    return true;
}

void memory_append(struct append *a)
{
    struct memory *m = a->shard->memory;

    ASSERT_HOME(a->shard->group->loop);
    if (!m->waiting && take(a))
        return;
    a->next = NULL;
    *m->waiting_end = a;
    m->waiting_end = &a->next;
}

/* rc below 0: they are refused. */
static void waiting_go_on(struct memory *m, int rc)
{
    while (m->waiting) {
        struct append *a = m->waiting, *next = a->next;

        if (rc >= 0 && !take(a))
            return;
        m->waiting = next;
        if (!next)
            m->waiting_end = &m->waiting;
        if (rc < 0)
            append_end(a, rc, 0);
    }
}

/* --- offsets --- */

static void reserved_home(struct catalogue_reserve *r)
{
    struct shard *s = r->shard;
    struct store *st = s->st;
    struct memory *m = s->memory;

    m->reserving = false;
    if (r->rc >= 0 && r->until > m->reserved)
        m->reserved = r->until;
    /* Refused ahead of need does no harm: who needs offsets asks again. */
    waiting_go_on(m, r->rc);
    shard_unref(s);
    free(r);
    atomic_fetch_sub(&st->busy, 1);
}

/* Asks for more offsets, need at least; one request at a time. */
static void reserve(struct memory *m, uint64_t need)
{
    struct catalogue_reserve *r;

    if (m->reserving)
        return;
    m->reserving = true;
    r = mem_new(sizeof *r);
    r->fn = reserved_home;
    r->shard = shard_ref(m->shard);
    r->until = m->shard->next + need + MEMORY_RESERVE;
    atomic_fetch_add(&m->shard->st->busy, 1);
    catalogue_reserve(r);
}

void memory_deleted(struct shard *s)
{
    ASSERT_HOME(s->group->loop);
    waiting_go_on(s->memory, E_DELETED);
    while (s->memory->n > 0)
        ring_drop_first(s->memory);
}
