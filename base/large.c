#include "base/large.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/err.h"

enum {
    HUGE = 2 << 20,
    HEAD = 4096,           /* a chunk's first page is ours */
    SMALL_MAX = 256 << 10, /* classes up to here lie in chunks of one huge page */
    CHUNK_SMALL = HUGE,
    CHUNK_LARGE = 8 << 20,
    CLASS_MAX = 1 << 20, /* larger ones have a mapping each */
    CLASSES = 36,
    KEPT_MAX_BYTES = 96 << 20
};

/* Memory that nobody uses and the system does not have back yet, at its start. It may become whatever
 * is of its size next. When too much is kept, what was kept longest goes. */
struct kept {
    struct kept *older, *newer; /* NULL at the ends */
    size_t bytes;
};

/* Lies at the start of its memory, which is aligned to its size. */
struct chunk {
    struct chunk *next, **prev; /* among those of its class with a free piece; else prev is NULL */
    size_t piece, n_pieces;
    size_t n_used, n_fresh; /* fresh: never given out yet, the last ones */
    void *free;             /* each begins with the pointer to the next */
};

static struct {
    pthread_mutex_t lock;
    struct chunk *open[CLASSES];
    struct kept *oldest, *newest;
    size_t kept; /* bytes of these */
    size_t mapped;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The class of a size and its bytes; -1: a mapping of its own. */
static int class_of(size_t bytes, size_t *class_bytes)
{
    size_t step = LARGE_MIN / 4, at = LARGE_MIN;
    int class = 0;

    for (; at < bytes; class ++) {
        at += step;
        if (at == step * 8)
            step *= 2;
    }
    *class_bytes = at <= CLASS_MAX ? at : (at + HUGE - 1) / HUGE * HUGE;
    return at <= CLASS_MAX ? class : -1;
}

static size_t chunk_bytes(size_t piece)
{
    return piece <= SMALL_MAX ? CHUNK_SMALL : CHUNK_LARGE;
}

/* --- the system; not under lock: others would wait for it, milliseconds at times --- */

static void *map(size_t bytes)
{
    size_t align = bytes == CHUNK_LARGE ? CHUNK_LARGE : HUGE;
    uint8_t *mem =
        mmap(NULL, bytes + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t before;

    if (mem == MAP_FAILED)
        return NULL;
    before = (align - (uintptr_t)mem % align) % align;
    if (before)
        munmap(mem, before);
    munmap(mem + before + bytes, align - before);
    madvise(mem + before, bytes, MADV_HUGEPAGE); /* without, it is only slower */
    *(volatile uint8_t *)(mem + before) = 0;     /* the first page is there when the lock is held */
    return mem + before;
}

static void unmap(struct kept *k)
{
    while (k) {
        struct kept *older = k->older;

        munmap(k, k->bytes);
        k = older;
    }
}

/* --- under lock --- */

static void kept_remove(struct kept *k)
{
    *(k->older ? &k->older->newer : &all.oldest) = k->newer;
    *(k->newer ? &k->newer->older : &all.newest) = k->older;
    all.kept -= k->bytes;
}

/* Leaves no more than that. Gives what goes, for unmap. */
static struct kept *kept_limit(size_t bytes)
{
    struct kept *gone = NULL;

    while (all.kept > bytes) {
        struct kept *k = all.oldest;

        kept_remove(k);
        all.mapped -= k->bytes;
        k->older = gone;
        gone = k;
    }
    return gone;
}

/* The one kept last is in a cache, perhaps, so it comes first. The lock is open while there is none. */
static void *area_take(size_t bytes)
{
    void *mem;

    for (struct kept *k = all.newest; k; k = k->older) {
        if (k->bytes != bytes)
            continue;
        kept_remove(k);
        return k;
    }
    pthread_mutex_unlock(&all.lock);
    mem = map(bytes);
    pthread_mutex_lock(&all.lock);
    if (mem)
        all.mapped += bytes;
    return mem;
}

/* Gives what is to be unmapped. */
static struct kept *area_give(void *mem, size_t bytes)
{
    struct kept *k = mem;

    *k = (struct kept){ .older = all.newest, .bytes = bytes };
    *(all.newest ? &all.newest->newer : &all.oldest) = k;
    all.newest = k;
    all.kept += bytes;
    return kept_limit(KEPT_MAX_BYTES);
}

/* --- chunks; under lock --- */

static void chunk_open(struct chunk *c, int class)
{
    c->next = all.open[class];
    if (c->next)
        c->next->prev = &c->next;
    c->prev = &all.open[class];
    all.open[class] = c;
}

static void chunk_close(struct chunk *c)
{
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->prev = NULL;
}

static struct chunk *chunk_new(int class, size_t piece)
{
    size_t bytes = chunk_bytes(piece);
    struct chunk *c = area_take(bytes);

    if (!c)
        return NULL;
    *c = (struct chunk){ .piece = piece, .n_pieces = (bytes - HEAD) / piece };
    c->n_fresh = c->n_pieces;
    chunk_open(c, class);
    return c;
}

static void *piece_take(int class, size_t piece)
{
    struct chunk *c = all.open[class];
    void *mem;

    if (!c)
        c = chunk_new(class, piece);
    if (!c)
        return NULL;
    c->n_used++;
    mem = c->free;
    if (mem)
        c->free = *(void **)mem;
    else
        mem = (uint8_t *)c + HEAD + (c->n_pieces - c->n_fresh--) * piece;
    if (c->n_used == c->n_pieces)
        chunk_close(c);
    return mem;
}

/* Gives what is to be unmapped. */
static struct kept *piece_give(void *mem, int class, size_t piece)
{
    size_t bytes = chunk_bytes(piece);
    struct chunk *c = (struct chunk *)((uintptr_t)mem & ~(uintptr_t)(bytes - 1));

    ASSERT(c->piece == piece && c->n_used > 0);
    if (!c->prev)
        chunk_open(c, class);
    *(void **)mem = c->free;
    c->free = mem;
    if (--c->n_used > 0)
        return NULL;
    chunk_close(c);
    return area_give(c, bytes);
}

/* --- */

void *large_new(size_t bytes)
{
    size_t class_bytes;
    int class = class_of(bytes, &class_bytes);
    void *mem;

    pthread_mutex_lock(&all.lock);
    mem = class >= 0 ? piece_take(class, class_bytes) : area_take(class_bytes);
    pthread_mutex_unlock(&all.lock);
    return mem;
}

void large_free(void *mem, size_t bytes)
{
    size_t class_bytes;
    int class = class_of(bytes, &class_bytes);
    struct kept *gone;

    pthread_mutex_lock(&all.lock);
    gone = class >= 0 ? piece_give(mem, class, class_bytes) : area_give(mem, class_bytes);
    pthread_mutex_unlock(&all.lock);
    unmap(gone);
}

void large_trim(void)
{
    struct kept *gone;

    pthread_mutex_lock(&all.lock);
    gone = kept_limit(0);
    pthread_mutex_unlock(&all.lock);
    unmap(gone);
}

size_t large_mapped(void)
{
    size_t bytes;

    pthread_mutex_lock(&all.lock);
    bytes = all.mapped;
    pthread_mutex_unlock(&all.lock);
    return bytes;
}
