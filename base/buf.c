#include "base/buf.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/logger.h"

/* Before the bytes of buf_new, in the same allocation; keeps them aligned to 16. */
enum { HEAD_BYTES = (sizeof(struct buf) + 15) / 16 * 16 };

static const size_t CAP_MAX = (size_t)1 << 31;

static _Atomic uint64_t total_bytes;

static _Noreturn void out_of_memory(size_t bytes)
{
    LOG_ERROR("mem.exhausted", F_BYTES(bytes));
    abort();
}

void *mem_new(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p)
        out_of_memory(bytes);
    return p;
}

void *mem_grow(void *p, size_t bytes)
{
    p = realloc(p, bytes ? bytes : 1);
    if (!p)
        out_of_memory(bytes);
    return p;
}

char *mem_str(const char *s)
{
    char *copy = strdup(s);

    if (!copy)
        out_of_memory(strlen(s) + 1);
    return copy;
}

static struct buf *buf_init(struct buf *b, uint8_t *mem, size_t cap)
{
    atomic_init(&b->refs, 1);
    b->len = 0;
    b->cap = (uint32_t)cap;
    b->mem = mem;
    atomic_fetch_add_explicit(&total_bytes, cap, memory_order_relaxed);
    return b;
}

/* Large memory is kept for the next one of its size: given back to the system and taken again, each
 * page of it would cost a fault and a clearing, which is more than all our own work on it. Sizes
 * are in classes, four to a doubling. Not under the sanitizers, which must see each end. */
enum { LARGE_MIN = 16 * 1024, CLASSES = 50, KEPT_MAX_BYTES = 96 << 20 };

#ifndef WEIR_SLOW_ASSERTS
static struct {
    pthread_mutex_t lock;
    void *first[CLASSES]; /* each begins with the pointer to the next */
    size_t bytes;
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The class of a size from LARGE_MIN on, and its bytes; -1: too large to keep. */
static int large_class(size_t bytes, size_t *class_bytes)
{
    size_t step = LARGE_MIN / 4, at = LARGE_MIN;

    for (int i = 0; i < CLASSES; i++) {
        if (bytes <= at) {
            *class_bytes = at;
            return i;
        }
        at += step;
        if (at == step * 8)
            step *= 2;
    }
    *class_bytes = bytes;
    return -1;
}

/* From MAP_MIN on each has a mapping of its own: aligned pieces of changing sizes, taken on one thread
 * and freed on another, leave an allocator's heap full of holes (five times the memory, measured). */
enum { MAP_MIN = 32 * 1024 };

static void *large_map(size_t bytes)
{
    void *mem;

    if (bytes < MAP_MIN)
        return posix_memalign(&mem, BUF_ALIGN, bytes) == 0 ? mem : NULL;
    mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mem == MAP_FAILED ? NULL : mem;
}

static void large_unmap(void *mem, size_t bytes)
{
    if (bytes < MAP_MIN)
        free(mem);
    else
        munmap(mem, bytes);
}

static void *large_take(size_t bytes)
{
    size_t class_bytes;
    int class = large_class(bytes, &class_bytes);
    void *mem = NULL;

    if (class >= 0) {
        pthread_mutex_lock(&kept.lock);
        mem = kept.first[class];
        if (mem) {
            memcpy(&kept.first[class], mem, sizeof(void *));
            kept.bytes -= class_bytes;
        }
        pthread_mutex_unlock(&kept.lock);
    }
    return mem ? mem : large_map(class_bytes);
}

static void large_give(void *mem, size_t bytes)
{
    size_t class_bytes;
    int class = large_class(bytes, &class_bytes);

    if (class >= 0) {
        pthread_mutex_lock(&kept.lock);
        if (kept.bytes + class_bytes <= KEPT_MAX_BYTES) {
            memcpy(mem, &kept.first[class], sizeof(void *));
            kept.first[class] = mem;
            kept.bytes += class_bytes;
            mem = NULL;
        }
        pthread_mutex_unlock(&kept.lock);
    }
    if (mem)
        large_unmap(mem, class_bytes);
}
void buf_trim(void)
{
    size_t step = LARGE_MIN / 4, at = LARGE_MIN;

    pthread_mutex_lock(&kept.lock);
    for (int i = 0; i < CLASSES; i++) {
        while (kept.first[i]) {
            void *mem = kept.first[i];

            memcpy(&kept.first[i], mem, sizeof(void *));
            large_unmap(mem, at);
        }
        at += step;
        if (at == step * 8)
            step *= 2;
    }
    kept.bytes = 0;
    pthread_mutex_unlock(&kept.lock);
}
#else
void buf_trim(void)
{
}

static void *large_take(size_t bytes)
{
    void *mem;

    return posix_memalign(&mem, BUF_ALIGN, bytes) == 0 ? mem : NULL;
}

static void large_give(void *mem, size_t bytes)
{
    free(mem);
}
#endif

static struct buf *large_new(size_t cap)
{
    struct buf *b = malloc(sizeof *b);
    void *mem = b ? large_take(cap) : NULL;

    if (!mem) {
        free(b);
        return NULL;
    }
    return buf_init(b, mem, cap);
}

struct buf *buf_new(size_t cap)
{
    struct buf *b;

    if (cap > CAP_MAX)
        return NULL;
    if (cap >= LARGE_MIN)
        return large_new(cap);
    b = malloc(HEAD_BYTES + cap);
    return b ? buf_init(b, (uint8_t *)b + HEAD_BYTES, cap) : NULL;
}

struct buf *buf_new_aligned(size_t cap)
{
    struct buf *b;
    void *mem;

    if (cap > CAP_MAX)
        return NULL;
    cap = (cap + BUF_ALIGN - 1) / BUF_ALIGN * BUF_ALIGN;
    if (cap >= LARGE_MIN)
        return large_new(cap);
    if (posix_memalign(&mem, BUF_ALIGN, cap ? cap : BUF_ALIGN))
        return NULL;
    b = malloc(sizeof *b);
    if (!b) {
        free(mem);
        return NULL;
    }
    return buf_init(b, mem, cap);
}

struct buf *buf_copy(const void *mem, size_t bytes)
{
    struct buf *b = buf_new(bytes);

    if (b && bytes)
        memcpy(b->mem, mem, bytes);
    if (b)
        b->len = (uint32_t)bytes;
    return b;
}

struct buf *buf_ref(struct buf *b)
{
    unsigned before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);

    ASSERT(before > 0);
    return b;
}

void buf_unref(struct buf *b)
{
    unsigned before;

    if (!b)
        return;
    /* Release what this thread wrote; the last one acquires what all others did, before it
     * frees. */
    before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before > 1)
        return;
    atomic_fetch_sub_explicit(&total_bytes, b->cap, memory_order_relaxed);
    if (b->cap >= LARGE_MIN)
        large_give(b->mem, b->cap);
    else if (b->mem != (uint8_t *)b + HEAD_BYTES)
        free(b->mem);
    free(b);
}

uint64_t buf_total_bytes(void)
{
    return atomic_load_explicit(&total_bytes, memory_order_relaxed);
}
