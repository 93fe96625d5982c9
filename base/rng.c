#include "base/rng.h"

#include <sys/random.h>

#include "base/err.h"

/* splitmix64: spreads a small seed over the state, which must not be all zero. */
static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void rng_seed(struct rng *r, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++)
        r->s[i] = splitmix(&seed);
}

void rng_seed_system(struct rng *r)
{
    uint64_t seed;
    ssize_t n;

    /* Up to 256 bytes come whole, and interrupted only before the system's pool is ready. */
    do
        n = getrandom(&seed, sizeof seed, 0);
    while (n < 0);
    ASSERT(n == sizeof seed);
    rng_seed(r, seed);
}

static uint64_t rotate_left(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t out = rotate_left(r->s[1] * 5, 7) * 9;
    uint64_t t = r->s[1] << 17;

    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rotate_left(r->s[3], 45);
    return out;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    ASSERT(n > 0);
    return (uint64_t)((unsigned __int128)rng_u64(r) * n >> 64);
}

bool rng_chance(struct rng *r, uint32_t num, uint32_t den)
{
    return rng_below(r, den) < num;
}
