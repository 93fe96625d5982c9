#include "format/sum.h"

#include <isa-l/crc.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <immintrin.h>
#include <xxh_x86dispatch.h> /* the same names, bound to the widest vectors that the CPU has */
#endif

#include "base/err.h"

/* The library counts bytes in an int; a multiple of 64 keeps its inner loop whole. */
enum { SUM_PIECE_BYTES = 1 << 30 };

/* The library's AVX-512 routine returns with dirty upper halves, after which all SSE code of the
 * thread runs at a quarter of its speed (measured on XXH3), until somebody clears them. */
#ifdef __x86_64__
__attribute__((target("avx"))) static void clear_upper_halves(void)
{
    _mm256_zeroupper();
}

static void leave_vectors_clean(void)
{
    if (__builtin_cpu_supports("avx"))
        clear_upper_halves();
}
#else
static void leave_vectors_clean(void)
{
}
#endif

uint32_t sum_crc32c_more(uint32_t crc, const void *mem, size_t bytes)
{
    /* The library only reads, though its argument is not const. It leaves both inversions to us. */
    unsigned char *p = (unsigned char *)(uintptr_t)mem;

    crc = ~crc;
    while (bytes > SUM_PIECE_BYTES) {
        crc = crc32_iscsi(p, SUM_PIECE_BYTES, crc);
        p += SUM_PIECE_BYTES;
        bytes -= SUM_PIECE_BYTES;
    }
    if (bytes)
        crc = crc32_iscsi(p, (int)bytes, crc);
    leave_vectors_clean();
    return ~crc;
}

uint32_t sum_crc32c(const void *mem, size_t bytes)
{
    return sum_crc32c_more(0, mem, bytes);
}

uint64_t sum_xxh3(const void *mem, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(mem, bytes, seed);
}

/* struct sum64_state is never defined: a pointer to one is the library's state. */
struct sum64_state *sum64_new(void)
{
    XXH3_state_t *x = XXH3_createState();

    ASSERT(x != NULL);
    ASSERT(XXH3_64bits_reset(x) == XXH_OK);
    return (struct sum64_state *)x;
}

void sum64_add(struct sum64_state *s, const void *mem, size_t bytes)
{
    if (bytes)
        ASSERT(XXH3_64bits_update((XXH3_state_t *)s, mem, bytes) == XXH_OK);
}

uint64_t sum64_end(struct sum64_state *s)
{
    XXH3_state_t *x = (XXH3_state_t *)s;
    uint64_t sum = x ? XXH3_64bits_digest(x) : 0;

    if (x)
        XXH3_freeState(x);
    return sum;
}

/* struct sum128_state is never defined: a pointer to one is the library's state. */
struct sum128_state *sum128_new(void)
{
    XXH3_state_t *x = XXH3_createState();

    ASSERT(x != NULL);
    ASSERT(XXH3_128bits_reset(x) == XXH_OK);
    return (struct sum128_state *)x;
}

void sum128_add(struct sum128_state *s, const void *mem, size_t bytes)
{
    if (bytes)
        ASSERT(XXH3_128bits_update((XXH3_state_t *)s, mem, bytes) == XXH_OK);
}

struct sum128 sum128_end(struct sum128_state *s)
{
    XXH3_state_t *x = (XXH3_state_t *)s;
    XXH128_canonical_t canonical;
    struct sum128 sum;

    _Static_assert(sizeof canonical.digest == sizeof sum.bytes, "one form, 16 bytes");
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(x));
    for (unsigned i = 0; i < sizeof sum.bytes; i++)
        sum.bytes[i] = canonical.digest[i];
    XXH3_freeState(x);
    return sum;
}
