#include "journal/chunk.h"

#include <stdlib.h>

#include "journal/core.h"

enum {
    LOADING_MAX = 8 << 20, /* nothing is read ahead while so much is being read */
    CHECK_GRAIN = 32       /* a batch is longer: each has a bit of its own */
};

enum chunk_step { CHUNK_LOADS, CHUNK_THERE, CHUNK_FAILED };

struct chunk {
    uint64_t where, pos; /* id of the segment; first LSN of the extent */
    bool wal;
    bool listed;        /* under lock, as what follows */
    struct chunk *same; /* of the same hash */
    struct chunk *older, *newer;
    enum chunk_step step;
    int rc;
    struct chunk_wait *waits;
    atomic_uint refs; /* the table has one, its read another */
    uint32_t bytes;
    uint32_t at; /* in buf */
    struct buf *buf;
    _Atomic uint64_t *checked;
    /* while it is read */
    struct chunks *t;
    struct dev_req req;
    struct segment *seg;
    struct wal_extent *extent;
};

void chunks_init(struct chunks *t, struct store *st, uint64_t max_bytes)
{
    *t = (struct chunks){ .st = st, .max_bytes = max_bytes, .ready = true };
    pthread_mutex_init(&t->lock, NULL);
}

void chunk_unref(struct chunks *t, struct chunk *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    buf_unref(c->buf);
    free(c->checked);
    free(c);
}

/* --- the table; under lock --- */

static uint64_t key_of(uint64_t where, uint64_t pos, bool wal)
{
    return hash_mix(hash_mix(where) + pos * 2 + wal);
}

static struct chunk *lookup(const struct chunks *t, uint64_t where, uint64_t pos, bool wal)
{
    struct chunk *c = hash_get(&t->by_key, key_of(where, pos, wal));

    while (c && (c->where != where || c->pos != pos || c->wal != wal))
        c = c->same;
    return c;
}

static void lru_take(struct chunks *t, struct chunk *c)
{
    *(c->older ? &c->older->newer : &t->oldest) = c->newer;
    *(c->newer ? &c->newer->older : &t->newest) = c->older;
}

static void lru_add(struct chunks *t, struct chunk *c)
{
    c->older = t->newest;
    c->newer = NULL;
    *(t->newest ? &t->newest->newer : &t->oldest) = c;
    t->newest = c;
}

static void list(struct chunks *t, struct chunk *c)
{
    c->same = hash_put(&t->by_key, key_of(c->where, c->pos, c->wal), c);
    lru_add(t, c);
    c->listed = true;
    t->bytes += c->bytes;
}

/* Gives the table's reference to the caller. */
static void unlist(struct chunks *t, struct chunk *c)
{
    uint64_t key = key_of(c->where, c->pos, c->wal);
    struct chunk *first = hash_take(&t->by_key, key), **at = &first;

    while (*at != c)
        at = &(*at)->same;
    *at = c->same;
    if (first)
        hash_put(&t->by_key, key, first);
    lru_take(t, c);
    c->listed = false;
    t->bytes -= c->bytes;
}

/* Chunks that are being read are not let go: others wait for them. */
static void evict(struct chunks *t)
{
    struct chunk *c = t->oldest, *next;

    for (; c && t->bytes > t->max_bytes; c = next) {
        next = c->newer;
        if (c->step == CHUNK_LOADS)
            continue;
        unlist(t, c);
        chunk_unref(t, c);
    }
}

void chunks_fini(struct chunks *t)
{
    if (!t->ready)
        return;
    ASSERT(t->loading == 0);
    t->max_bytes = 0;
    evict(t);
    hash_free(&t->by_key);
    pthread_mutex_destroy(&t->lock);
    *t = (struct chunks){ 0 };
}

/* --- reading --- */

static void loaded(struct chunk *c, int rc)
{
    struct chunks *t = c->t;
    struct store *st = t->st;
    struct chunk_wait *w;

    if (c->seg)
        segment_unpin(&st->segments, c->seg);
    if (c->extent)
        wal_unpin(&st->wal, c->extent);
    free(c->req.io);
    pthread_mutex_lock(&t->lock);
    c->step = rc < 0 ? CHUNK_FAILED : CHUNK_THERE;
    c->rc = rc < 0 ? rc : 0;
    w = c->waits;
    c->waits = NULL;
    t->loading -= c->bytes;
    if (rc < 0 && c->listed) {
        unlist(t, c);
        chunk_unref(t, c);
    }
    evict(t);
    pthread_mutex_unlock(&t->lock);
    while (w) {
        struct chunk_wait *next = w->next;

        pool_submit(st->env.read_pool, w->work);
        w = next;
    }
    chunk_unref(t, c);
    atomic_fetch_sub(&st->busy, 1);
}

static void load_done(struct dev_req *r)
{
    loaded((struct chunk *)((char *)r - offsetof(struct chunk, req)), r->rc);
}

static void io_add(struct chunk *c, struct dev_file *file, uint64_t pos, uint8_t *mem,
                   uint64_t bytes)
{
    struct dev_req *r = &c->req;

    if ((r->n_io & (r->n_io - 1)) == 0)
        r->io = mem_grow(r->io, (r->n_io ? r->n_io * 2 : 1) * sizeof *r->io);
    r->io[r->n_io++] =
        (struct dev_io){ .file = file, .pos = pos, .mem = mem, .bytes = (uint32_t)bytes };
}

/* One io for each extent that the bytes lie in. */
static int segment_io(struct chunk *c, uint64_t start, uint64_t end)
{
    struct store *st = c->t->st;
    uint8_t *mem = c->buf->mem;

    c->seg = segment_pin(&st->segments, c->where);
    if (!c->seg)
        return E_BUSY;
    while (start < end) {
        struct seg_place at;
        struct dev_file *file;
        uint64_t n = end - start;
        int rc = segment_locate(&st->segments, c->seg, start, &at);

        if (rc < 0)
            return rc;
        file = slabs_file(&st->slabs, at.extent.place, at.extent.log2);
        if (!file)
            return E_CORRUPT;
        n = n < at.room ? n : at.room;
        io_add(c, file, place_pos(at.extent.place) + PAGE_BYTES + at.inside, mem, n);
        start += n;
        mem += n;
    }
    return 0;
}

static int wal_io(struct chunk *c, uint64_t bytes)
{
    struct store *st = c->t->st;
    struct dev_file *file;
    uint64_t pos;
    int rc = wal_pin(&st->wal, c->where, c->bytes, &c->extent);

    if (rc < 0)
        return E_BUSY;
    file = wal_at(&st->wal, c->extent, c->where, &pos);
    if (!file)
        return E_IO;
    io_add(c, file, pos, c->buf->mem, bytes);
    return 0;
}

static int load(struct chunk *c, struct loop *loop)
{
    uint64_t start = c->pos / PAGE_BYTES * PAGE_BYTES;
    uint64_t end = (c->pos + c->bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    int rc;

    c->at = (uint32_t)(c->pos - start);
    c->buf = buf_new_aligned(end - start);
    if (!c->buf)
        return E_NOMEM;
    c->buf->len = (uint32_t)(end - start);
    rc = c->wal ? wal_io(c, end - start) : segment_io(c, start, end);
    if (rc < 0)
        return rc;
    c->req.loop = loop;
    c->req.done = load_done;
    dev_submit(c->t->st->dev, &c->req, DEV_READ);
    return 0;
}

static struct chunk *chunk_new(struct chunks *t, const struct chunk_place *p)
{
    struct chunk *c = mem_new(sizeof *c);
    size_t words = ((size_t)p->bytes + PAGE_BYTES) / CHECK_GRAIN / 64 + 1;

    c->t = t;
    c->where = p->extent ? p->extent->first_lsn : p->seg->id;
    c->pos = p->pos;
    c->wal = p->extent != NULL;
    c->bytes = p->bytes;
    c->checked = mem_new(words * sizeof *c->checked);
    atomic_init(&c->refs, 3); /* the table's, its read's, the caller's */
    return c;
}

bool chunk_is(const struct chunk *c, const struct chunk_place *p)
{
    return c->wal == (p->extent != NULL) && c->pos == p->pos && c->bytes >= p->bytes &&
           c->where == (p->extent ? p->extent->first_lsn : p->seg->id);
}

/* One that is there but ends too early, because less was written when it was read, gives way. */
static struct chunk *find(struct chunks *t, const struct chunk_place *p)
{
    struct chunk *c =
        lookup(t, p->extent ? p->extent->first_lsn : p->seg->id, p->pos, p->extent != NULL);

    if (!c)
        return NULL;
    if (c->bytes < p->bytes) {
        unlist(t, c);
        chunk_unref(t, c);
        return NULL;
    }
    lru_take(t, c);
    lru_add(t, c);
    atomic_fetch_add(&c->refs, 1);
    return c;
}

struct chunk *chunk_find(struct chunks *t, const struct chunk_place *p)
{
    struct chunk *c;

    pthread_mutex_lock(&t->lock);
    c = find(t, p);
    pthread_mutex_unlock(&t->lock);
    return c;
}

struct chunk *chunk_read(struct chunks *t, const struct chunk_place *p, struct loop *loop,
                         bool ahead)
{
    struct chunk *c;
    int rc;

    pthread_mutex_lock(&t->lock);
    c = find(t, p);
    if (c || (ahead && t->loading + p->bytes > LOADING_MAX)) {
        pthread_mutex_unlock(&t->lock);
        return c;
    }
    c = chunk_new(t, p);
    list(t, c);
    t->loading += c->bytes;
    atomic_fetch_add(&t->st->busy, 1);
    evict(t);
    pthread_mutex_unlock(&t->lock);
    rc = load(c, loop);
    if (rc < 0)
        loaded(c, rc);
    return c;
}

void chunk_wait(struct chunks *t, struct chunk *c, struct chunk_wait *w)
{
    bool now;

    pthread_mutex_lock(&t->lock);
    now = c->step != CHUNK_LOADS;
    if (!now) {
        w->next = c->waits;
        c->waits = w;
    }
    pthread_mutex_unlock(&t->lock);
    if (now)
        pool_submit(t->st->env.read_pool, w->work);
}

int chunk_state(struct chunks *t, struct chunk *c)
{
    int state;

    pthread_mutex_lock(&t->lock);
    state = c->step == CHUNK_LOADS ? 0 : c->step == CHUNK_THERE ? 1 : c->rc;
    pthread_mutex_unlock(&t->lock);
    return state;
}

struct buf *chunk_buf(struct chunk *c)
{
    return c->buf;
}

const uint8_t *chunk_mem(const struct chunk *c)
{
    return c->buf->mem + c->at;
}

/* --- what has been checked --- */

static uint64_t grain_of(const struct chunk *c, const uint8_t *mem)
{
    return (uint64_t)(mem - c->buf->mem) / CHECK_GRAIN;
}

bool chunk_checked(const struct chunk *c, const uint8_t *mem)
{
    uint64_t i = grain_of(c, mem);

    return atomic_load_explicit(&c->checked[i / 64], memory_order_relaxed) >> i % 64 & 1;
}

void chunk_check(struct chunk *c, const uint8_t *mem)
{
    uint64_t i = grain_of(c, mem);

    atomic_fetch_or_explicit(&c->checked[i / 64], UINT64_C(1) << i % 64, memory_order_relaxed);
}

/* --- who reads on --- */

static uint64_t end_of(uint64_t shard, uint64_t offset)
{
    return hash_mix(hash_mix(shard) ^ offset);
}

void chunks_read_to(struct chunks *t, uint64_t shard, uint64_t offset)
{
    uint64_t h = end_of(shard, offset);

    atomic_store_explicit(&t->ends[h % CHUNK_ENDS], h, memory_order_relaxed);
}

bool chunks_reads_on(const struct chunks *t, uint64_t shard, uint64_t offset)
{
    uint64_t h = end_of(shard, offset);

    return atomic_load_explicit(&t->ends[h % CHUNK_ENDS], memory_order_relaxed) == h;
}
