#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/large.h"
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

void *mem_new_aligned(size_t bytes, size_t align)
{
    void *p;

    if (posix_memalign(&p, align, bytes))
        out_of_memory(bytes);
    return memset(p, 0, bytes);
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

/* Under the sanitizers every buffer is an allocation of its own: they must see each end. */
#ifdef WEIR_SLOW_ASSERTS
static void *piece_new(size_t bytes)
{
    void *mem;

    return posix_memalign(&mem, BUF_ALIGN, bytes) == 0 ? mem : NULL;
}

static void piece_free(void *mem, size_t bytes)
{
    free(mem);
}
#else
static void *piece_new(size_t bytes)
{
    return large_new(bytes);
}

static void piece_free(void *mem, size_t bytes)
{
    large_free(mem, bytes);
}
#endif

void buf_trim(void)
{
    large_trim();
}

static struct buf *buf_new_large(size_t cap)
{
    struct buf *b = malloc(sizeof *b);
    void *mem = b ? piece_new(cap) : NULL;

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
        return buf_new_large(cap);
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
        return buf_new_large(cap);
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
        piece_free(b->mem, b->cap);
    else if (b->mem != (uint8_t *)b + HEAD_BYTES)
        free(b->mem);
    free(b);
}

uint64_t buf_total_bytes(void)
{
    return atomic_load_explicit(&total_bytes, memory_order_relaxed);
}
