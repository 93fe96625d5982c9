#include "base/utf8.h"

#include "tests/check.h"

#include <stdbool.h>

/* The forms of RFC 3629, section 3. */
static size_t encode(uint32_t c, uint8_t *mem)
{
    if (c < 0x80) {
        mem[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        mem[0] = (uint8_t)(0xc0 | c >> 6);
        mem[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        mem[0] = (uint8_t)(0xe0 | c >> 12);
        mem[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        mem[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    mem[0] = (uint8_t)(0xf0 | c >> 18);
    mem[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    mem[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    mem[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

static bool is_scalar(uint32_t c)
{
    return c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
}

static void test_every_character_is_read_and_what_is_none_is_not(void)
{
    unsigned wrong = 0;

    for (uint32_t c = 0; c < 0x1fffff; c++) {
        uint8_t mem[5] = { 0 };
        uint32_t is = ~c;
        size_t n = encode(c, mem), got = utf8_char(mem, sizeof mem, &is);

        wrong += is_scalar(c) ? got != n || is != c : got != 0;
        wrong += utf8_char(mem, n, NULL) != got;
        for (size_t left = 1; left < n; left++)
            wrong += utf8_char(mem, left, NULL) != 0;
    }
    CHECK_EQ(wrong, 0);
}

/* Each character has one form, so there are as many sequences as characters. */
static void test_no_other_sequence_is_taken(void)
{
    unsigned found[5] = { 0 };

    for (uint32_t i = 0; i < 1u << 16; i++)
        found[utf8_char((uint8_t[]){ (uint8_t)(i >> 8), (uint8_t)i }, 2, NULL)]++;
    CHECK_EQ(found[1], 0x80 * 256);
    CHECK_EQ(found[2], 0x800 - 0x80);
    CHECK_EQ(found[3] + found[4], 0);
    for (uint32_t i = 0; i < 1u << 24; i++) {
        const uint8_t mem[] = { (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i };

        found[3] += utf8_char(mem, 3, NULL) == 3;
    }
    CHECK_EQ(found[3], 0x10000 - 0x800 - 0x800);
    for (uint32_t i = 0; i < 1u << 24; i++) {
        const uint8_t mem[] = { (uint8_t)(0xf0 | i >> 20), (uint8_t)(i >> 12), (uint8_t)(i >> 4),
                                (uint8_t)(0x80 | (i & 15)) };

        found[4] += utf8_char(mem, 4, NULL) == 4;
    }
    CHECK_EQ(found[4], 0x100000 / 4); /* of the last byte a quarter */
}

TEST_MAIN(T(every_character_is_read_and_what_is_none_is_not) T(no_other_sequence_is_taken))
