/* Checksums. crc32c is what others verify (RecordBatch); XXH3 is ours (WAL, segments, rows). */
#ifndef WEIR_FORMAT_SUM_H
#define WEIR_FORMAT_SUM_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4) of bytes; hardware where the CPU has it. */
uint32_t sum_crc32c(const void *mem, size_t bytes);
/* The same continued: crc is the result over what came before (0 at the start). */
uint32_t sum_crc32c_more(uint32_t crc, const void *mem, size_t bytes);
/* XXH3, 64 bits, seeded. */
uint64_t sum_xxh3(const void *mem, size_t bytes, uint64_t seed);
/* The same in pieces, seed 0. */
struct sum64_state;
struct sum64_state *sum64_new(void);
void sum64_add(struct sum64_state *s, const void *mem, size_t bytes);
/* Gives the sum and frees the state. NULL is allowed: 0. */
uint64_t sum64_end(struct sum64_state *s);
/* XXH3, 128 bits, in pieces. */
struct sum128 {
    uint8_t bytes[16]; /* canonical (big-endian) form */
};
struct sum128_state;
struct sum128_state *sum128_new(void);
void sum128_add(struct sum128_state *s, const void *mem, size_t bytes);
/* Gives the sum and frees the state. */
struct sum128 sum128_end(struct sum128_state *s);

#endif
