#include "journal/run_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

struct run_piece {
    uint64_t segment, pos;
    uint32_t bytes;
    struct buf *buf;
    struct run_piece *older, *newer;
};

struct pieces {
    struct run_piece **list; /* by pos */
    unsigned n, cap;
};

void run_cache_init(struct run_cache *c, uint64_t max_bytes)
{
    *c = (struct run_cache){ .max_bytes = max_bytes, .ready = true };
    pthread_mutex_init(&c->lock, NULL);
}

static void unlink_piece(struct run_cache *c, struct run_piece *p)
{
    *(p->older ? &p->older->newer : &c->oldest) = p->newer;
    *(p->newer ? &p->newer->older : &c->newest) = p->older;
}

static void link_newest(struct run_cache *c, struct run_piece *p)
{
    p->older = c->newest;
    p->newer = NULL;
    *(c->newest ? &c->newest->newer : &c->oldest) = p;
    c->newest = p;
}

/* The first piece that begins behind pos. */
static unsigned find(const struct pieces *s, uint64_t pos)
{
    unsigned low = 0, high = s->n;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (s->list[mid]->pos <= pos)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void drop(struct run_cache *c, struct run_piece *p)
{
    struct pieces *s = hash_get(&c->segments, p->segment);
    unsigned at = find(s, p->pos) - 1;

    unlink_piece(c, p);
    memmove(s->list + at, s->list + at + 1, (s->n - at - 1) * sizeof(*s->list));
    if (--s->n == 0) {
        hash_take(&c->segments, p->segment);
        free(s->list);
        free(s);
    }
    c->bytes -= p->buf->cap;
    buf_unref(p->buf);
    free(p);
}

void run_cache_fini(struct run_cache *c)
{
    if (!c->ready)
        return;
    while (c->oldest)
        drop(c, c->oldest);
    hash_free(&c->segments);
    pthread_mutex_destroy(&c->lock);
    *c = (struct run_cache){ 0 };
}

void run_cache_add(struct run_cache *c, uint64_t segment, uint64_t pos, struct buf *buf,
                   uint32_t bytes)
{
    struct run_piece *p = mem_new(sizeof *p);
    struct pieces *s;

    *p = (struct run_piece){ .segment = segment, .pos = pos, .bytes = bytes, .buf = buf_ref(buf) };
    pthread_mutex_lock(&c->lock);
    s = hash_get(&c->segments, segment);
    if (!s) {
        s = mem_new(sizeof *s);
        hash_put(&c->segments, segment, s);
    }
    ASSERT(s->n == 0 || s->list[s->n - 1]->pos + s->list[s->n - 1]->bytes <= pos);
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 8;
        s->list = mem_grow(s->list, s->cap * sizeof(*s->list));
    }
    s->list[s->n++] = p;
    link_newest(c, p);
    c->bytes += buf->cap;
    while (c->oldest != c->newest && c->bytes > c->max_bytes)
        drop(c, c->oldest);
    pthread_mutex_unlock(&c->lock);
}

bool run_cache_get(struct run_cache *c, uint64_t segment, uint64_t pos, uint64_t bytes,
                   struct slice *out)
{
    const struct pieces *s;
    struct run_piece *p = NULL;
    unsigned at;

    pthread_mutex_lock(&c->lock);
    s = hash_get(&c->segments, segment);
    at = s ? find(s, pos) : 0;
    if (at > 0 && pos + bytes <= s->list[at - 1]->pos + s->list[at - 1]->bytes)
        p = s->list[at - 1];
    if (p) {
        *out = (struct slice){ .buf = buf_ref(p->buf),
                               .mem = p->buf->mem + (pos - p->pos),
                               .len = (uint32_t)bytes };
        unlink_piece(c, p);
        link_newest(c, p);
    }
    pthread_mutex_unlock(&c->lock);
    return p != NULL;
}
