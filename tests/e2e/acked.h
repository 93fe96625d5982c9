/* What produce_acked writes and check_acked looks for: records that describe themselves, and the
 * log of those that were acked.
 *
 * A record's value is a 32-byte head (little-endian: "ACKR", u32 run, u64 number, u32 bytes of the
 * whole value, u32 zero, u64 XXH3-64 of what follows the head seeded with number) and filler that
 * follows from run and number. Its key is "RUN-NUMBER%keys" in decimal.
 *
 * The log is text, one line an event, whole lines only; a last line without its end does not count:
 *   R run idempotent               a producer began
 *   A run partition offset number hash     acked; hash is the XXH3-64 of the whole value
 *   F run number error             given up by the client: nothing is promised
 *   E run sent                     ended in order; sent records were produced */
#ifndef WEIR_TESTS_E2E_ACKED_H
#define WEIR_TESTS_E2E_ACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "base/rng.h"

enum { ACKED_HEAD = 32, ACKED_MAX = 1 << 20 };

struct acked_value {
    uint32_t run;
    uint64_t number;
};

/* Fills value[0..bytes), bytes from ACKED_HEAD to ACKED_MAX. */
static inline void acked_fill(uint8_t *value, uint32_t bytes, const struct acked_value *v)
{
    struct rng rng;
    uint64_t word, hash;

    rng_seed(&rng, (uint64_t)v->run << 40 ^ v->number);
    for (uint32_t at = ACKED_HEAD; at < bytes; at += 8) {
        /* Half of it compresses, as real records do. */
        word = at / 8 % 2 ? rng_u64(&rng) : 0x2020202020202020u;
        memcpy(value + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
    hash = XXH3_64bits_withSeed(value + ACKED_HEAD, bytes - ACKED_HEAD, v->number);
    memset(value, 0, ACKED_HEAD);
    memcpy(value, "ACKR", 4);
    memcpy(value + 4, &v->run, 4);
    memcpy(value + 8, &v->number, 8);
    memcpy(value + 16, &bytes, 4);
    memcpy(value + 24, &hash, 8);
}

/* Reads a value back; false when it is not exactly what acked_fill made. */
static inline bool acked_parse(const uint8_t *value, size_t bytes, struct acked_value *v)
{
    uint64_t hash;
    uint32_t n;

    if (bytes < ACKED_HEAD || memcmp(value, "ACKR", 4) != 0)
        return false;
    memcpy(&v->run, value + 4, 4);
    memcpy(&v->number, value + 8, 8);
    memcpy(&n, value + 16, 4);
    memcpy(&hash, value + 24, 8);
    return n == bytes &&
           hash == XXH3_64bits_withSeed(value + ACKED_HEAD, bytes - ACKED_HEAD, v->number);
}

#endif
