#include "format/sum.h"

#include <stdbool.h>
#include <stdlib.h>

#include "tests/check.h"

/* CRC-32C a bit at a time, from its definition: reflected polynomial 0x1EDC6F41. */
static uint32_t crc_by_bits(const uint8_t *p, size_t n)
{
    uint32_t crc = ~0u;

    while (n--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void fill(uint8_t *p, size_t n)
{
    uint32_t x = 12345;

    while (n--) {
        x = x * 1664525 + 1013904223;
        *p++ = (uint8_t)(x >> 24);
    }
}

/* RFC 3720 appendix B.4, whose bytes are printed least significant first. */
static void test_crc32c_gives_the_values_of_rfc_3720(void)
{
    static const uint8_t read_pdu[48] = { [0] = 0x01,  [1] = 0xc0,  [16] = 0x14, [22] = 0x04,
                                          [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02 };
    uint8_t b[32];

    memset(b, 0, sizeof b);
    CHECK_EQ(sum_crc32c(b, 32), 0x8a9136aa);
    memset(b, 0xff, sizeof b);
    CHECK_EQ(sum_crc32c(b, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        b[i] = (uint8_t)i;
    CHECK_EQ(sum_crc32c(b, 32), 0x46dd794e);
    for (unsigned i = 0; i < 32; i++)
        b[i] = (uint8_t)(31 - i);
    CHECK_EQ(sum_crc32c(b, 32), 0x113fdb5c);
    CHECK_EQ(sum_crc32c(read_pdu, sizeof read_pdu), 0xd9963a56);
    CHECK_EQ(sum_crc32c("123456789", 9), 0xe3069283);
    CHECK_EQ(sum_crc32c("", 0), 0);
    CHECK_EQ(sum_crc32c(NULL, 0), 0);
}

static void test_crc32c_agrees_with_its_definition_at_every_length_and_alignment(void)
{
    uint8_t mem[700];

    fill(mem, sizeof mem);
    for (size_t at = 0; at < 16; at++)
        for (size_t n = 0; n < 600; n += n < 140 ? 1 : 23)
            if (sum_crc32c(mem + at, n) != crc_by_bits(mem + at, n)) {
                CHECK_EQ(n, -1);
                return;
            }
}

static void test_crc32c_agrees_with_its_definition_on_large_input(void)
{
    size_t n = (1 << 20) + 13;
    uint8_t *mem = malloc(n);

    REQUIRE(mem != NULL);
    fill(mem, n);
    CHECK_EQ(sum_crc32c(mem, n), crc_by_bits(mem, n));
    free(mem);
}

static void test_crc32c_in_two_pieces_is_crc32c_of_the_whole(void)
{
    uint8_t mem[1500];
    uint32_t whole;

    fill(mem, sizeof mem);
    whole = crc_by_bits(mem, sizeof mem);
    for (size_t cut = 0; cut <= sizeof mem; cut++)
        if (sum_crc32c_more(sum_crc32c(mem, cut), mem + cut, sizeof mem - cut) != whole)
            CHECK_EQ(cut, -1);
}

/* The published self-test of the algorithm's reference code: its buffer, lengths and seed. */
static const uint64_t xxh_seed = 11400714785074694797ull;

static void xxh_fill(uint8_t *p, size_t n)
{
    uint64_t x = 2654435761u;

    for (; n--; x *= xxh_seed)
        *p++ = (uint8_t)(x >> 56);
}

static void test_xxh3_gives_the_published_values(void)
{
    static const struct {
        size_t n;
        bool seeded;
        uint64_t sum;
    } rows[] = {
        { 0, false, 0x2d06800538d394c2 }, { 1, false, 0xc44bdff4074eecdb },
        { 1, true, 0x032be332dd766ef8 },  { 6, false, 0x27b56a84cd2d7325 },
        { 6, true, 0x84589c116ab59ab9 },  { 12, false, 0xa713daf0dfbb77e7 },
        { 12, true, 0xe7303e1b2336de0e },
    };
    uint8_t mem[64];

    xxh_fill(mem, sizeof mem);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_EQ(sum_xxh3(mem, rows[i].n, rows[i].seeded ? xxh_seed : 0), rows[i].sum);
}

static void test_xxh3_128_of_nothing_is_the_published_value_in_big_endian_order(void)
{
    static const uint8_t want[16] = { 0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47, 0x98, 0xd8,
                                      0x60, 0x01, 0xc3, 0x24, 0x46, 0x8d, 0x49, 0x7f };
    struct sum128 s = sum128_end(sum128_new());

    CHECK(memcmp(s.bytes, want, sizeof want) == 0);
}

static struct sum128 sum_in_pieces(const uint8_t *mem, size_t n, size_t piece)
{
    struct sum128_state *s = sum128_new();

    for (size_t at = 0; at < n; at += piece)
        sum128_add(s, mem + at, n - at < piece ? n - at : piece);
    sum128_add(s, NULL, 0);
    return sum128_end(s);
}

static void test_xxh3_128_does_not_depend_on_the_pieces_but_on_every_byte(void)
{
    uint8_t mem[5000];
    struct sum128 whole, other;

    xxh_fill(mem, sizeof mem);
    whole = sum_in_pieces(mem, sizeof mem, sizeof mem);
    for (size_t piece = 1; piece < sizeof mem; piece += piece < 300 ? 1 : 97) {
        other = sum_in_pieces(mem, sizeof mem, piece);
        CHECK(memcmp(&whole, &other, sizeof whole) == 0);
    }
    for (size_t i = 0; i < sizeof mem; i += 61) {
        mem[i] ^= 1;
        other = sum_in_pieces(mem, sizeof mem, sizeof mem);
        CHECK(memcmp(&whole, &other, sizeof whole) != 0);
        mem[i] ^= 1;
    }
}

static void test_xxh3_in_pieces_is_xxh3_of_the_whole(void)
{
    static uint8_t mem[3000];

    for (size_t i = 0; i < sizeof mem; i++)
        mem[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t n = 0; n <= sizeof mem; n += n < 300 ? 1 : 97) {
        for (size_t piece = 1; piece < 600; piece = piece * 3 + 1) {
            struct sum64_state *s = sum64_new();

            for (size_t at = 0; at < n; at += piece)
                sum64_add(s, mem + at, n - at < piece ? n - at : piece);
            CHECK(sum64_end(s) == sum_xxh3(mem, n, 0));
        }
    }
    CHECK(sum64_end(NULL) == 0);
}

/* clang-format off */
TEST_MAIN(
    T(crc32c_gives_the_values_of_rfc_3720)
    T(crc32c_agrees_with_its_definition_at_every_length_and_alignment)
    T(crc32c_agrees_with_its_definition_on_large_input)
    T(crc32c_in_two_pieces_is_crc32c_of_the_whole)
    T(xxh3_gives_the_published_values)
    T(xxh3_in_pieces_is_xxh3_of_the_whole)
    T(xxh3_128_of_nothing_is_the_published_value_in_big_endian_order)
    T(xxh3_128_does_not_depend_on_the_pieces_but_on_every_byte))
