#include "format/codec.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rd.h"
#include "base/rng.h"
#include "tests/check.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

enum { MIB = 1 << 20, ROOMY = 64 * MIB };

/* Every packing codec; "none" has its own test. */
#define FOR_CODECS(c) for (enum batch_codec c = CODEC_GZIP; c < CODEC_COUNT; c++)

static int unpack(enum batch_codec c, const void *mem, size_t bytes, size_t max, struct buf **out)
{
    return codec_decompress(c, mem, bytes, max, out);
}

/* 0: zeros; 1: text that packs; 2: bytes that do not. */
static uint8_t *sample(int kind, size_t n)
{
    static const char words[] = "offset shard batch frame block segment extent journal ";
    uint8_t *mem = mem_new(n);
    struct rng r;

    rng_seed(&r, n);
    for (size_t i = 0; i < n && kind; i++)
        mem[i] =
            kind == 1 ? (uint8_t)words[(i + i / 977) % (sizeof words - 1)] : (uint8_t)rng_u64(&r);
    return mem;
}

static void check_round_trip(enum batch_codec c, int kind, size_t n)
{
    uint8_t *mem = sample(kind, n);
    struct buf *packed, *plain;

    REQUIRE(codec_compress(c, mem, n, &packed) == 0);
    REQUIRE(unpack(c, packed->mem, packed->len, ROOMY, &plain) == 0);
    CHECK_EQ(plain->len, n);
    CHECK(memcmp(plain->mem, mem, n) == 0);
    if (kind < 2 && n > 1000)
        CHECK(packed->len < n / 5);
    buf_unref(plain);
    /* max is the size itself, then one less: the bound is exact. */
    CHECK_EQ(unpack(c, packed->mem, packed->len, n, &plain), 0);
    buf_unref(plain);
    if (n) {
        CHECK_EQ(unpack(c, packed->mem, packed->len, n - 1, &plain), E_TOOBIG);
        CHECK(plain == NULL);
    }
    buf_unref(packed);
    free(mem);
}

static void test_what_is_packed_unpacks_to_the_same_bytes_within_an_exact_bound(void)
{
    static const size_t sizes[] = { 0, 1, 2, 100, 4095, 4096, 65536, 65537, 400000, 3000001 };

    FOR_CODECS(c)
    for (int kind = 0; kind < 3; kind++)
        for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            check_round_trip(c, kind, sizes[i]);
}

static void test_none_copies_within_the_bound(void)
{
    struct buf *b;

    REQUIRE(codec_decompress(CODEC_NONE, "abc", 3, 3, &b) == 0);
    CHECK(b->len == 3 && memcmp(b->mem, "abc", 3) == 0);
    buf_unref(b);
    CHECK_EQ(codec_decompress(CODEC_NONE, "abc", 3, 2, &b), E_TOOBIG);
    REQUIRE(codec_compress(CODEC_NONE, "abc", 3, &b) == 0);
    CHECK(b->len == 3 && memcmp(b->mem, "abc", 3) == 0);
    buf_unref(b);
    REQUIRE(codec_decompress(CODEC_NONE, NULL, 0, 0, &b) == 0);
    CHECK_EQ(b->len, 0);
    buf_unref(b);
}

static void test_every_truncation_is_corrupt(void)
{
    uint8_t *mem = sample(1, 2000);
    struct buf *packed, *plain;

    FOR_CODECS(c)
    {
        REQUIRE(codec_compress(c, mem, 2000, &packed) == 0);
        for (size_t n = 0; n < packed->len; n++) {
            /* A copy of its own, so that a sanitizer sees a read past the end. */
            struct buf *cut = buf_copy(packed->mem, n);
            /* Java's framing of no block at all: a batch misses its records there. */
            bool empty = c == CODEC_SNAPPY && n == 16;

            CHECK_EQ(unpack(c, cut->mem, n, ROOMY, &plain), empty ? 0 : E_CORRUPT);
            buf_unref(plain);
            buf_unref(cut);
        }
        buf_unref(packed);
    }
    free(mem);
}

static void test_bytes_left_over_are_corrupt(void)
{
    uint8_t *mem = sample(1, 2000);
    struct buf *packed, *plain;

    FOR_CODECS(c)
    for (int extra = 0; extra < 256; extra += 15) {
        struct buf *more;

        REQUIRE(codec_compress(c, mem, 2000, &packed) == 0);
        more = buf_new(packed->len + 1);
        memcpy(more->mem, packed->mem, packed->len);
        more->mem[packed->len] = (uint8_t)extra;
        CHECK_EQ(unpack(c, more->mem, packed->len + 1, ROOMY, &plain), E_CORRUPT);
        buf_unref(plain);
        buf_unref(more);
        buf_unref(packed);
    }
    free(mem);
}

static void test_random_damage_gives_an_error_or_bytes_within_the_bound(void)
{
    uint8_t *mem = sample(1, 30000);
    struct buf *packed, *plain;
    struct rng r;
    unsigned refused = 0;

    rng_seed(&r, 7);
    FOR_CODECS(c)
    for (int i = 0; i < 2000; i++) {
        int rc;

        REQUIRE(codec_compress(c, mem, 30000, &packed) == 0);
        for (uint64_t n = 1 + rng_below(&r, 4); n--;)
            packed->mem[rng_below(&r, packed->len)] = (uint8_t)rng_u64(&r);
        rc = unpack(c, packed->mem, packed->len, 32768, &plain);
        CHECK(rc == 0 ? plain->len <= 32768 : rc == E_CORRUPT || rc == E_TOOBIG);
        refused += rc < 0;
        buf_unref(plain);
        buf_unref(packed);
    }
    CHECK(refused > 1000);
    free(mem);
}

static void test_concatenated_gzip_members_are_one_payload(void)
{
    struct buf *a, *b, *both, *plain;

    REQUIRE(codec_compress(CODEC_GZIP, "first ", 6, &a) == 0);
    REQUIRE(codec_compress(CODEC_GZIP, "second", 6, &b) == 0);
    both = buf_new(a->len + b->len);
    memcpy(both->mem, a->mem, a->len);
    memcpy(both->mem + a->len, b->mem, b->len);
    both->len = a->len + b->len;
    REQUIRE(unpack(CODEC_GZIP, both->mem, both->len, 12, &plain) == 0);
    CHECK(plain->len == 12 && memcmp(plain->mem, "first second", 12) == 0);
    buf_unref(plain);
    CHECK_EQ(unpack(CODEC_GZIP, both->mem, both->len, 11, &plain), E_TOOBIG);
    CHECK_EQ(unpack(CODEC_GZIP, both->mem, both->len - 1, 12, &plain), E_CORRUPT);
    buf_unref(a);
    buf_unref(b);
    buf_unref(both);
}

static void test_a_zlib_stream_is_not_gzip(void)
{
    static const uint8_t zlib_a[] = { 0x78, 0x9c, 0x4b, 0x04, 0x00, 0x00, 0x62, 0x00, 0x62,
                                      0,    0,    0,    0,    0,    0,    0,    0,    0 };
    struct buf *plain;

    CHECK_EQ(unpack(CODEC_GZIP, zlib_a, sizeof zlib_a, 100, &plain), E_CORRUPT);
}

/* Snappy by hand, from its format description: preamble 5, a literal of 5 bytes. */
static const uint8_t snappy_hello[] = { 5, 4 << 2, 'h', 'e', 'l', 'l', 'o' };
static const uint8_t snappy_java_head[16] = { 0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0,
                                              0,    0,   0,   1,   0,   0,   0,   1 };

static size_t snappy_java(uint8_t *mem, unsigned n_blocks)
{
    struct wr w = wr_of(mem, 256);

    wr_bytes(&w, snappy_java_head, sizeof snappy_java_head);
    while (n_blocks--) {
        wr_u32be(&w, sizeof snappy_hello);
        wr_bytes(&w, snappy_hello, sizeof snappy_hello);
    }
    REQUIRE(wr_ok(&w));
    return wr_used(&w);
}

static void test_snappy_is_read_raw_and_in_the_framing_of_java(void)
{
    uint8_t mem[256];
    struct buf *plain;
    size_t n;

    REQUIRE(unpack(CODEC_SNAPPY, snappy_hello, sizeof snappy_hello, 5, &plain) == 0);
    CHECK(plain->len == 5 && memcmp(plain->mem, "hello", 5) == 0);
    buf_unref(plain);
    n = snappy_java(mem, 3);
    REQUIRE(unpack(CODEC_SNAPPY, mem, n, 15, &plain) == 0);
    CHECK(plain->len == 15 && memcmp(plain->mem, "hellohellohello", 15) == 0);
    buf_unref(plain);
    CHECK_EQ(unpack(CODEC_SNAPPY, mem, n, 14, &plain), E_TOOBIG);
    n = snappy_java(mem, 0);
    REQUIRE(unpack(CODEC_SNAPPY, mem, n, 0, &plain) == 0);
    CHECK_EQ(plain->len, 0);
    buf_unref(plain);
}

/* By hand from the framing's description: the head, then each 32 KiB behind its packed length. */
static void test_snappy_is_written_in_the_framing_of_java_in_blocks_of_32_kib(void)
{
    static const size_t opened[] = { 32768, 32768, 4464 };
    uint8_t *mem = sample(1, 70000);
    struct buf *packed, *plain;
    struct rd r;

    REQUIRE(codec_compress(CODEC_SNAPPY, mem, 70000, &packed) == 0);
    r = rd_of(packed->mem, packed->len);
    CHECK(memcmp(rd_bytes(&r, 16), snappy_java_head, 16) == 0);
    for (size_t i = 0, at = 0; i < 3; at += opened[i++]) {
        uint32_t n = rd_u32be(&r);
        const uint8_t *block = rd_bytes(&r, n);

        REQUIRE(rd_ok(&r));
        /* A block by itself is raw snappy. */
        REQUIRE(unpack(CODEC_SNAPPY, block, n, opened[i], &plain) == 0);
        CHECK(plain->len == opened[i] && memcmp(plain->mem, mem + at, opened[i]) == 0);
        buf_unref(plain);
    }
    CHECK_EQ(rd_left(&r), 0);
    buf_unref(packed);
    free(mem);
}

static void test_damaged_snappy_framing_is_corrupt(void)
{
    uint8_t mem[256];
    struct buf *plain;
    size_t n = snappy_java(mem, 2);

    /* Cut anywhere but between the blocks. */
    for (size_t cut = 0; cut < n; cut++)
        if (cut != 16 && cut != 27)
            CHECK_EQ(unpack(CODEC_SNAPPY, mem, cut, ROOMY, &plain), E_CORRUPT);
    put_u32be(mem + 16, 0xfffffff0);
    CHECK_EQ(unpack(CODEC_SNAPPY, mem, n, ROOMY, &plain), E_CORRUPT);
    put_u32be(mem + 16, 0);
    CHECK_EQ(unpack(CODEC_SNAPPY, mem, n, ROOMY, &plain), E_CORRUPT);
    /* The second block's literal claims a byte more than its preamble. */
    n = snappy_java(mem, 2);
    mem[16 + 11 + 4] = 4;
    CHECK_EQ(unpack(CODEC_SNAPPY, mem, n, ROOMY, &plain), E_CORRUPT);
}

/* --- payloads that lie about their size --- */

/* A zstd frame by hand (RFC 8878): window 128 MiB, no content size, n blocks of 128 KiB of one byte
 * in 4 bytes each. */
static size_t zstd_bomb(uint8_t *mem, unsigned n)
{
    struct wr w = wr_of(mem, 6 + 4 * n);

    wr_u32le(&w, 0xfd2fb528);
    wr_u8(&w, 0);              /* frame header: no flag */
    wr_u8(&w, (27 - 10) << 3); /* window */
    for (unsigned i = 0; i < n; i++) {
        uint32_t head = 131072u << 3 | 1u << 1 | (i == n - 1);

        wr_u16le(&w, (uint16_t)head);
        wr_u8(&w, (uint8_t)(head >> 16));
        wr_u8(&w, 'z');
    }
    REQUIRE(wr_ok(&w));
    return wr_used(&w);
}

static void test_a_zstd_frame_with_a_huge_window_is_read_when_its_content_fits(void)
{
    uint8_t mem[64];
    size_t n = zstd_bomb(mem, 9);
    struct buf *plain;

    REQUIRE(unpack(CODEC_ZSTD, mem, n, 9 * 131072, &plain) == 0);
    CHECK_EQ(plain->len, 9 * 131072);
    CHECK(plain->mem[0] == 'z' && plain->mem[plain->len - 1] == 'z');
    buf_unref(plain);
    CHECK_EQ(unpack(CODEC_ZSTD, mem, n, 9 * 131072 - 1, &plain), E_TOOBIG);
}

/* Hostile payloads, one a row: what it is, what it must give with max 1 MiB. */
static int lie(unsigned i, int *want)
{
    static uint8_t mem[MIB];
    enum batch_codec c = CODEC_ZSTD;
    size_t n = 0;
    struct buf *packed, *plain;
    int rc;

    *want = E_TOOBIG;
    switch (i) {
    case 0: /* 100 MB in 3 KB, and a window of 128 MiB */
        n = zstd_bomb(mem, 800);
        break;
    case 1: /* a content size of 2^62 and no content */
        memcpy(mem, (uint8_t[]){ 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0 },
               16);
        n = 16;
        break;
    case 2: /* snappy: 1 MiB declared, nothing in it */
        memcpy(mem, (uint8_t[]){ 0x80, 0x80, 0x40, 0, 'x' }, 5);
        n = 5;
        c = CODEC_SNAPPY;
        *want = E_CORRUPT;
        break;
    case 3: /* snappy: 4 GiB - 1 declared */
        memcpy(mem, (uint8_t[]){ 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 'x' }, 7);
        n = 7;
        c = CODEC_SNAPPY;
        *want = E_CORRUPT;
        break;
    case 4: { /* gzip: 8 MiB of zeros in 8 KB, and a last word that says one byte */
        uint8_t *zeros = mem_new(8 * MIB);

        c = CODEC_GZIP;
        rc = codec_compress(c, zeros, 8 * MIB, &packed);
        free(zeros);
        if (rc < 0)
            return rc;
        n = packed->len;
        memcpy(mem, packed->mem, n);
        memcpy(mem + n - 4, (uint8_t[]){ 1, 0, 0, 0 }, 4);
        buf_unref(packed);
        break;
    }
    case 5: /* lz4: a content size of 2^60, 4 MiB blocks, a wrong header check, the end mark */
        memcpy(mem,
               (uint8_t[]){ 4, 0x22, 0x4d, 0x18, 0x68, 0x70, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0,
                            0 },
               19);
        n = 19;
        c = CODEC_LZ4;
        *want = E_CORRUPT;
        break;
    default:
        return 1;
    }
    rc = unpack(c, mem, n, MIB, &plain);
    buf_unref(plain);
    return rc;
}

static int run_lies(void)
{
    int want, rc;

    for (unsigned i = 0; (rc = lie(i, &want)) != 1; i++)
        if (rc != want)
            return (int)i + 1;
    return 0;
}

/* In a child that may take 80 MiB more than it has: the 8 MiB that the samples need, a few times max,
 * and the chunks of 16 MiB that buffers of each size are cut from, but not what the payloads ask for. A sanitizer needs more for itself; under one only the
 * answers are checked. */
static void test_a_lie_about_the_size_is_refused_without_the_memory_it_asks_for(void)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
#ifndef SANITIZED
        unsigned long pages = 0;
        FILE *f = fopen("/proc/self/statm", "r");
        void *volatile taken;
        struct rlimit lim;

        if (!f || fscanf(f, "%lu", &pages) != 1)
            _exit(99);
        fclose(f);
        lim.rlim_cur = lim.rlim_max = pages * 4096 + 80ul * MIB;
        setrlimit(RLIMIT_AS, &lim);
        taken = malloc(96 * MIB);
        if (taken) /* the limit is not real */
            _exit(98);
#endif
        _exit(run_lies());
    }
    REQUIRE(child > 0);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

static void test_unknown_codecs_are_unsupported_and_have_no_name(void)
{
    struct buf *b;

    for (int c = 5; c < 9; c++) {
        CHECK_EQ(codec_decompress((enum batch_codec)c, "x", 1, 10, &b), E_UNSUPPORTED);
        CHECK_EQ(codec_compress((enum batch_codec)c, "x", 1, &b), E_UNSUPPORTED);
        CHECK(codec_name((enum batch_codec)c) == NULL);
    }
    CHECK(strcmp(codec_name(CODEC_NONE), "none") == 0);
    CHECK(strcmp(codec_name(CODEC_ZSTD), "zstd") == 0);
}

/* clang-format off */
TEST_MAIN(
    T(what_is_packed_unpacks_to_the_same_bytes_within_an_exact_bound)
    T(none_copies_within_the_bound)
    T(every_truncation_is_corrupt)
    T(bytes_left_over_are_corrupt)
    T(random_damage_gives_an_error_or_bytes_within_the_bound)
    T(concatenated_gzip_members_are_one_payload)
    T(a_zlib_stream_is_not_gzip)
    T(snappy_is_read_raw_and_in_the_framing_of_java)
    T(snappy_is_written_in_the_framing_of_java_in_blocks_of_32_kib)
    T(damaged_snappy_framing_is_corrupt)
    T(a_zstd_frame_with_a_huge_window_is_read_when_its_content_fits)
    T(a_lie_about_the_size_is_refused_without_the_memory_it_asks_for)
    T(unknown_codecs_are_unsupported_and_have_no_name))
