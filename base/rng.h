/* A small seeded random source (xoshiro256**, Blackman and Vigna, public domain algorithm). Not for
 * secrets. */
#ifndef WEIR_BASE_RNG_H
#define WEIR_BASE_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};

/* The same seed gives the same sequence, on every machine. */
void rng_seed(struct rng *r, uint64_t seed);
/* Seeds from the system's entropy. */
void rng_seed_system(struct rng *r);
uint64_t rng_u64(struct rng *r);
/* 0 .. n-1, n > 0; unbiased enough for choices, not for statistics. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* True num times in den. */
bool rng_chance(struct rng *r, uint32_t num, uint32_t den);

#endif
