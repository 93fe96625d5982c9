#include "format/batch.h"

#include <glob.h>
#include <stdlib.h>

#include "base/rd.h"
#include "base/rng.h"
#include "format/codec.h"
#include "format/sum.h"
#include "tests/check.h"
#include "tests/format/batch_case.h"

#define GOLDEN "tests/golden/batch/"
enum {
    ROOMY = 1 << 24,
    N_GOLDEN = 20 + 20 + 14 + 2 /* python, java, rdkafka, kafkajs */
};

static bool same_bytes(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes)
{
    if (!a || !b)
        return !a && !b && a_bytes == -1 && b_bytes == -1;
    return a_bytes == b_bytes && memcmp(a, b, (size_t)a_bytes) == 0;
}

/* --- golden batches, made by other clients --- */

struct golden {
    char path[256];
    char name[32], codec[16], peer[16];
    struct buf *batch;
    struct batch_case want;
};

static struct buf *file_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct buf *b = buf_new(1 << 20);

    if (f) {
        b->len = (uint32_t)fread(b->mem, 1, b->cap, f);
        fclose(f);
    }
    return b;
}

static void golden_open(struct golden *g, const char *path)
{
    char text[320];

    *g = (struct golden){ 0 };
    snprintf(g->path, sizeof g->path, "%s", path);
    REQUIRE(sscanf(path + strlen(GOLDEN), "%31[^.].%15[^.].%15[^.].batch", g->name, g->codec,
                   g->peer) == 3);
    snprintf(text, sizeof text, GOLDEN "%s.txt", g->name);
    REQUIRE(case_open(&g->want, text));
    g->batch = file_read(path);
}

static void golden_close(struct golden *g)
{
    buf_unref(g->batch);
    case_close(&g->want);
}

static unsigned for_golden(void (*run)(struct golden *g))
{
    struct golden g;
    unsigned n = 0;
    glob_t all;

    REQUIRE(glob(GOLDEN "*.batch", 0, NULL, &all) == 0);
    for (; n < all.gl_pathc; n++) {
        golden_open(&g, all.gl_pathv[n]);
        run(&g);
        golden_close(&g);
    }
    globfree(&all);
    return n;
}

static int64_t golden_base_offset(const struct golden *g)
{
    return strcmp(g->peer, "java") == 0 ? 1000 : 0;
}

static void check_golden_head(struct golden *g)
{
    const struct batch_case *c = &g->want;
    int64_t max = INT64_MIN;
    struct batch_head h;

    CHECK_EQ(batch_validate(&h, g->batch->mem, g->batch->len), 0);
    CHECK_EQ(batch_check(&h, g->batch->mem, g->batch->len), 0);
    CHECK_EQ(h.bytes, g->batch->len);
    CHECK_EQ(h.base_offset, golden_base_offset(g));
    CHECK_EQ(h.magic, 2);
    CHECK(strcmp(codec_name((enum batch_codec)(h.attributes & BATCH_ATTR_CODEC)), g->codec) == 0);
    CHECK_EQ(h.attributes & ~BATCH_ATTR_CODEC, c->transactional ? BATCH_ATTR_TRANSACTIONAL : 0);
    CHECK_EQ(h.record_count, c->n);
    CHECK_EQ(h.last_offset_delta, c->n - 1);
    CHECK_EQ(h.base_timestamp, c->records[0].timestamp);
    for (int32_t i = 0; i < c->n; i++)
        max = c->records[i].timestamp > max ? c->records[i].timestamp : max;
    CHECK_EQ(h.max_timestamp, max);
    CHECK_EQ(h.producer_id, c->producer_id);
    if (strcmp(g->peer, "kafkajs") == 0) { /* sends zeros where others send -1 */
        CHECK(h.producer_epoch == 0 && h.base_sequence == 0);
    } else {
        CHECK_EQ(h.producer_epoch, c->producer_epoch);
        CHECK_EQ(h.base_sequence, c->base_sequence);
    }
    if (strcmp(g->peer, "java") == 0)
        CHECK_EQ(h.leader_epoch, 7);
}

static void test_golden_batches_of_every_client_have_the_heads_of_their_cases(void)
{
    CHECK_EQ(for_golden(check_golden_head), N_GOLDEN);
}

static void check_headers(const struct batch_record *r, const struct batch_new_record *want)
{
    struct batch_header h;
    uint32_t pos = 0;

    CHECK_EQ(r->n_headers, want->n_headers);
    for (uint32_t i = 0; i < want->n_headers; i++) {
        const struct batch_header *w = &want->headers[i];

        REQUIRE(batch_header_next(r, &pos, &h) == 1);
        CHECK(same_bytes(h.key, h.key_bytes, w->key, w->key_bytes));
        CHECK(same_bytes(h.value, h.value_bytes, w->value, w->value_bytes));
    }
    CHECK_EQ(batch_header_next(r, &pos, &h), 0);
}

static void check_record(const struct batch_record *r, const struct batch_new_record *want)
{
    CHECK_EQ(r->timestamp, want->timestamp);
    CHECK(same_bytes(r->key, r->key_bytes, want->key, want->key ? (int64_t)want->key_bytes : -1));
    CHECK(same_bytes(r->value, r->value_bytes, want->value,
                     want->value ? (int64_t)want->value_bytes : -1));
    check_headers(r, want);
}

static void check_records(const struct buf *b, const struct batch_case *c, int64_t base_offset)
{
    struct batch_iter it;
    struct batch_record r;

    REQUIRE(batch_iter_open(&it, b->mem, b->len, ROOMY) == 0);
    for (int32_t i = 0; i < c->n; i++) {
        REQUIRE(batch_iter_next(&it, &r) == 1);
        CHECK_EQ(r.offset, base_offset + i);
        check_record(&r, &c->records[i]);
    }
    CHECK_EQ(batch_iter_next(&it, &r), 0);
    CHECK_EQ(batch_iter_next(&it, &r), 0);
    batch_iter_close(&it);
    batch_iter_close(&it);
}

static void check_golden_records(struct golden *g)
{
    check_records(g->batch, &g->want, golden_base_offset(g));
}

static void test_golden_batches_iterate_to_the_records_of_their_cases(void)
{
    CHECK_EQ(for_golden(check_golden_records), N_GOLDEN);
}

static void check_golden_truncations(struct golden *g)
{
    uint8_t *copy = malloc(g->batch->len);
    struct batch_head h;

    for (uint32_t n = 0; n < g->batch->len; n++) {
        uint8_t *cut = copy + g->batch->len - n; /* ends where the allocation ends */

        memcpy(cut, g->batch->mem, n);
        if (batch_check(&h, cut, n) != E_CORRUPT || batch_validate(&h, cut, n) == 0)
            CHECK_EQ(n, -1);
    }
    free(copy);
}

static void test_every_truncation_of_a_golden_batch_is_refused(void)
{
    CHECK_EQ(for_golden(check_golden_truncations), N_GOLDEN);
}

/* Bytes 0-7 and 12-15 are the server's to write and not covered; 8-11 is the length, 16 the magic,
 * 17-20 the CRC itself. */
static void check_golden_flips(struct golden *g)
{
    uint8_t *mem = g->batch->mem;
    uint32_t covered = 0;
    struct batch_head h;

    for (uint32_t bit = 0; bit < g->batch->len * 8; bit++) {
        uint32_t byte = bit / 8;
        bool stamped = byte < 8 || (byte >= 12 && byte < 16);

        mem[byte] ^= (uint8_t)(1u << bit % 8);
        if ((batch_check(&h, mem, g->batch->len) == 0) != stamped)
            CHECK_EQ(bit, -1);
        mem[byte] ^= (uint8_t)(1u << bit % 8);
        covered += !stamped;
    }
    CHECK_EQ(covered, (g->batch->len - 12) * 8);
}

static void test_every_bit_flip_of_a_golden_batch_is_refused_but_in_the_stamped_bytes(void)
{
    CHECK_EQ(for_golden(check_golden_flips), N_GOLDEN);
}

/* Plain batches have one form only: ours must be Java's to the byte, but for what the server
 * stamps. */
static void test_the_builder_makes_the_same_bytes_as_java(void)
{
    static const char *const names[] = { "simple", "odd", "one", "many" };
    struct golden g;
    struct buf *ours;
    char path[64];

    for (unsigned i = 0; i < 4; i++) {
        snprintf(path, sizeof path, GOLDEN "%s.none.java.batch", names[i]);
        golden_open(&g, path);
        REQUIRE(case_build(&g.want, CODEC_NONE, &ours) == 0);
        batch_stamp(ours->mem, 1000, 7);
        CHECK(same_bytes(ours->mem, ours->len, g.batch->mem, g.batch->len));
        buf_unref(ours);
        golden_close(&g);
    }
}

static void test_what_the_builder_packs_is_valid_and_iterates_to_the_same_records(void)
{
    static const char *const names[] = { "simple", "odd", "many", "large" };
    struct batch_case c;
    struct batch_head h;
    struct buf *b;
    char path[64];

    for (unsigned i = 0; i < 4; i++)
        for (enum batch_codec codec = 0; codec < CODEC_COUNT; codec++) {
            snprintf(path, sizeof path, GOLDEN "%s.txt", names[i]);
            REQUIRE(case_open(&c, path));
            REQUIRE(case_build(&c, codec, &b) == 0);
            CHECK_EQ(batch_validate(&h, b->mem, b->len), 0);
            CHECK_EQ(h.attributes & BATCH_ATTR_CODEC, codec);
            CHECK_EQ(h.leader_epoch, -1);
            check_records(b, &c, 0);
            buf_unref(b);
            case_close(&c);
        }
}

/* --- another codec --- */

static void check_recoded(const struct golden *g, enum batch_codec codec)
{
    const struct buf *was = g->batch;
    size_t room = ROOMY;
    struct batch_head h;
    struct buf *b;

    REQUIRE(batch_recode(was->mem, was->len, codec, &room, &b) == 0);
    CHECK_EQ(batch_validate(&h, b->mem, b->len), 0);
    CHECK_EQ(h.attributes & BATCH_ATTR_CODEC, codec);
    /* All of the head but length, CRC and codec, stamps too. */
    CHECK(memcmp(b->mem, was->mem, 8) == 0 && memcmp(b->mem + 12, was->mem + 12, 5) == 0);
    CHECK_EQ(b->mem[21], was->mem[21]);
    CHECK_EQ(b->mem[22] & ~7, was->mem[22] & ~7);
    CHECK(memcmp(b->mem + 23, was->mem + 23, 61 - 23) == 0);
    check_records(b, &g->want, golden_base_offset(g));
    if (codec == CODEC_NONE)
        CHECK_EQ(ROOMY - room, b->len - 61);
    buf_unref(b);
}

static void check_recoded_to_all(struct golden *g)
{
    for (enum batch_codec codec = 0; codec < CODEC_COUNT; codec++)
        check_recoded(g, codec);
}

static void test_golden_batches_of_every_client_take_every_codec_and_stay_what_they_were(void)
{
    CHECK_EQ(for_golden(check_recoded_to_all), N_GOLDEN);
}

static void test_recoding_opens_no_more_than_its_room_and_says_what_it_took(void)
{
    struct batch_case c;
    struct buf *plain, *b, *out;
    size_t body, room;

    REQUIRE(case_open(&c, GOLDEN "large.txt"));
    REQUIRE(case_build(&c, CODEC_NONE, &plain) == 0);
    body = plain->len - 61;
    for (enum batch_codec from = 0; from < CODEC_COUNT; from++) {
        REQUIRE(case_build(&c, from, &b) == 0);
        room = body - 1;
        CHECK_EQ(batch_recode(b->mem, b->len, CODEC_LZ4, &room, &out), E_TOOBIG);
        CHECK(out == NULL && room == body - 1);
        room = body + 7;
        REQUIRE(batch_recode(b->mem, b->len, CODEC_LZ4, &room, &out) == 0);
        CHECK_EQ(room, 7);
        buf_unref(out);
        buf_unref(b);
    }
    buf_unref(plain);
    case_close(&c);
}

/* --- batches by hand --- */

/* Ends a batch in mem whose bytes from 61 on, and head fields from 21 on, are set: length and
 * CRC. */
static void seal(uint8_t *mem, size_t bytes)
{
    put_u32be(mem + 8, (uint32_t)bytes - 12);
    mem[16] = 2;
    put_u32be(mem + 17, sum_crc32c(mem + 21, bytes - 21));
}

/* A batch of these record bytes, written from the format's table and not by the builder. */
static size_t by_hand(uint8_t *mem, int32_t n, const void *records, size_t bytes)
{
    memset(mem, 0, 61);
    put_u32be(mem + 23, (uint32_t)n - 1);
    put_u64be(mem + 27, 5000);
    put_u64be(mem + 35, 5000);
    memset(mem + 43, 0xff, 14);
    put_u32be(mem + 57, (uint32_t)n);
    memcpy(mem + 61, records, bytes);
    seal(mem, 61 + bytes);
    return 61 + bytes;
}

/* Two records: key null, value "ab"; then timestamp delta -1, key "", value null, header "h" =
 * null. */
static const uint8_t two_records[] = { 16, 0, 0, 0, 1, 4, 'a', 'b', 0, /* length 8 */
                                       18, 0, 1, 2, 0, 1, 2,   2,   'h', 1 /* length 9 */ };

static void test_a_batch_written_by_hand_is_read(void)
{
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);
    struct batch_header hd;
    struct batch_record r;
    struct batch_iter it;
    struct batch_head h;
    uint32_t pos = 0;

    CHECK_EQ(batch_validate(&h, mem, n), 0);
    batch_stamp(mem, 70, 3);
    REQUIRE(batch_iter_open(&it, mem, n, 0) == 0);
    CHECK(it.body == NULL);
    REQUIRE(batch_iter_next(&it, &r) == 1);
    CHECK(r.offset == 70 && r.timestamp == 5000 && r.key == NULL && r.key_bytes == -1);
    CHECK(same_bytes(r.value, r.value_bytes, "ab", 2));
    REQUIRE(batch_iter_next(&it, &r) == 1);
    CHECK(r.offset == 71 && r.timestamp == 4999 && r.value == NULL && r.n_headers == 1);
    CHECK(same_bytes(r.key, r.key_bytes, "", 0));
    REQUIRE(batch_header_next(&r, &pos, &hd) == 1);
    CHECK(same_bytes(hd.key, hd.key_bytes, "h", 1) && hd.value == NULL && hd.value_bytes == -1);
    CHECK_EQ(batch_header_next(&r, &pos, &hd), 0);
    CHECK_EQ(batch_iter_next(&it, &r), 0);
    batch_iter_close(&it);
}

/* A change of one head field of the batch by hand, then what batch_validate and batch_check must
 * say. */
struct head_case {
    const char *what;
    unsigned at, bytes;
    uint64_t value;
    int validate, check;
};

static const struct head_case head_cases[] = {
    { "as it is", 21, 2, 0, 0, 0 },
    { "transactional", 21, 2, BATCH_ATTR_TRANSACTIONAL, 0, 0 },
    { "unused attribute bit", 21, 2, 1 << 7, 0, 0 },
    { "control", 21, 2, BATCH_ATTR_CONTROL, E_INVALID, 0 },
    { "log append time", 21, 2, BATCH_ATTR_LOG_APPEND_TIME, E_INVALID, 0 },
    { "delete horizon", 21, 2, BATCH_ATTR_DELETE_HORIZON, E_INVALID, 0 },
    { "codec 5", 21, 2, 5, E_INVALID, E_CORRUPT },
    { "codec 7", 21, 2, 7, E_INVALID, E_CORRUPT },
    { "a gap behind the last record", 23, 4, 2, E_INVALID, 0 },
    { "fewer offsets than records", 23, 4, 0, E_INVALID, E_CORRUPT },
    { "last offset delta -1", 23, 4, UINT32_MAX, E_INVALID, E_CORRUPT },
    { "last offset delta INT32_MAX", 23, 4, INT32_MAX, E_INVALID, 0 },
    { "no record", 57, 4, 0, E_INVALID, 0 },
    { "record count -1", 57, 4, UINT32_MAX, E_INVALID, E_CORRUPT },
    { "record count INT32_MAX", 57, 4, INT32_MAX, E_INVALID, E_CORRUPT },
    { "record count INT32_MIN", 57, 4, 0x80000000, E_INVALID, E_CORRUPT },
    { "producer id -2", 43, 8, UINT64_MAX - 1, E_INVALID, 0 },
    { "producer id without epoch", 43, 8, 5, E_INVALID, 0 },
    { "epoch and sequence zero without a producer id", 51, 6, 0, 0, 0 },
};

static void put_be(uint8_t *p, uint64_t v, unsigned bytes)
{
    while (bytes--) {
        p[bytes] = (uint8_t)v;
        v >>= 8;
    }
}

static void test_head_fields_that_a_producer_may_not_send_are_refused(void)
{
    uint8_t mem[256];
    size_t n;
    struct batch_head h;

    for (unsigned i = 0; i < sizeof head_cases / sizeof head_cases[0]; i++) {
        const struct head_case *c = &head_cases[i];
        int validate, check;

        n = by_hand(mem, 2, two_records, sizeof two_records);
        put_be(mem + c->at, c->value, c->bytes);
        seal(mem, n);
        validate = batch_validate(&h, mem, n);
        check = batch_check(&h, mem, n);
        if (validate != c->validate || check != c->check)
            fprintf(stderr, "%s: validate %d, check %d\n", c->what, validate, check);
        CHECK(validate == c->validate && check == c->check);
    }
}

static void test_a_producer_id_needs_its_epoch_and_its_sequence(void)
{
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);
    struct batch_head h;

    for (int which = 0; which < 4; which++) {
        put_be(mem + 43, 5, 8);
        put_be(mem + 51, which & 1 ? 0 : UINT16_MAX, 2);
        put_be(mem + 53, which & 2 ? 0 : UINT32_MAX, 4);
        seal(mem, n);
        CHECK_EQ(batch_validate(&h, mem, n), which == 3 ? 0 : E_INVALID);
    }
}

static void test_more_records_than_the_limit_are_refused_before_they_are_walked(void)
{
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);
    struct batch_head h;

    put_be(mem + 23, BATCH_MAX_RECORDS, 4);
    put_be(mem + 57, BATCH_MAX_RECORDS + 1, 4);
    seal(mem, n);
    CHECK_EQ(batch_validate(&h, mem, n), E_INVALID);
    CHECK_EQ(batch_check(&h, mem, n), E_CORRUPT);
}

static void test_one_batch_and_nothing_else_is_valid(void)
{
    uint8_t mem[512];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);
    struct batch_head h;

    memcpy(mem + n, mem, n);
    CHECK_EQ(batch_validate(&h, mem, 0), E_INVALID);
    CHECK_EQ(batch_validate(&h, mem, n + 1), E_INVALID);
    CHECK_EQ(batch_validate(&h, mem, 2 * n), E_INVALID);
    /* The others take the first of what follows. */
    CHECK_EQ(batch_check(&h, mem, 2 * n), 0);
    CHECK_EQ(batch_head_read(&h, mem, 2 * n), 0);
    CHECK_EQ(h.bytes, n);
}

static void test_old_and_unknown_magics_are_told_apart(void)
{
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);
    struct batch_head h;

    for (unsigned magic = 0; magic < 256; magic++) {
        int want = magic == 2 ? 0 : magic < 2 ? E_UNSUPPORTED : E_CORRUPT;

        mem[16] = (uint8_t)magic;
        CHECK_EQ(batch_head_read(&h, mem, n), want);
        CHECK_EQ(h.magic, (int8_t)magic);
    }
    /* The smallest message of format 0 is shorter than our header. */
    mem[16] = 0;
    CHECK_EQ(batch_head_read(&h, mem, 26), E_UNSUPPORTED);
    CHECK_EQ(batch_head_read(&h, mem, 16), E_CORRUPT);
}

static void test_lengths_that_lie_are_corrupt(void)
{
    static const uint32_t lengths[] = {
        0, 1, 48, 69, 0x7fffffff, 0x80000000, 0xfffffff4, 0xffffffff
    };
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);
    struct batch_head h;

    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        put_u32be(mem + 8, lengths[i]);
        CHECK_EQ(batch_head_read(&h, mem, n), E_CORRUPT);
    }
    put_u32be(mem + 8, (uint32_t)n - 12);
    CHECK_EQ(batch_head_read(&h, mem, n), 0);
}

/* One record's bytes, its length included, as the only record of a batch. */
struct record_case {
    const char *what;
    int want;
    unsigned n;
    uint8_t bytes[32];
};

static const struct record_case record_cases[] = {
    { "all null", 0, 7, { 12, 0, 0, 0, 1, 1, 0 } },
    { "record attributes are ignored", 0, 7, { 12, 0xff, 0, 0, 1, 1, 0 } },
    { "zero in three bytes", 0, 9, { 16, 0, 0x80, 0x80, 0, 0, 1, 1, 0 } },
    { "length one short", E_CORRUPT, 7, { 10, 0, 0, 0, 1, 1, 0 } },
    { "length one long", E_CORRUPT, 7, { 14, 0, 0, 0, 1, 1, 0 } },
    { "length one long, and a byte that nothing claims",
      E_CORRUPT,
      8,
      { 14, 0, 0, 0, 1, 1, 0, 0 } },
    { "length 0", E_CORRUPT, 7, { 0, 0, 0, 0, 1, 1, 0 } },
    { "length -1", E_CORRUPT, 7, { 1, 0, 0, 0, 1, 1, 0 } },
    { "length 2^31-1", E_CORRUPT, 11, { 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 1, 1, 0 } },
    { "offset delta 1", E_CORRUPT, 7, { 12, 0, 0, 2, 1, 1, 0 } },
    { "offset delta -1", E_CORRUPT, 7, { 12, 0, 0, 1, 1, 1, 0 } },
    { "offset delta 2^32", E_CORRUPT, 11, { 20, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x20, 1, 1, 0 } },
    { "key length -2", E_CORRUPT, 7, { 12, 0, 0, 0, 3, 1, 0 } },
    { "value length -2", E_CORRUPT, 7, { 12, 0, 0, 0, 1, 3, 0 } },
    { "key past the record", E_CORRUPT, 7, { 12, 0, 0, 0, 6, 1, 0 } },
    { "value past the record", E_CORRUPT, 7, { 12, 0, 0, 0, 1, 4, 0 } },
    { "key of 2^31-1 bytes", E_CORRUPT, 11, { 20, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0 } },
    { "-1 headers", E_CORRUPT, 7, { 12, 0, 0, 0, 1, 1, 1 } },
    { "a header that is not there", E_CORRUPT, 7, { 12, 0, 0, 0, 1, 1, 2 } },
    { "a header more than is counted", E_CORRUPT, 9, { 16, 0, 0, 0, 1, 1, 0, 0, 1 } },
    { "a byte behind the headers", E_CORRUPT, 10, { 18, 0, 0, 0, 1, 1, 2, 0, 1, 0 } },
    { "a record that goes on where the batch has ended", E_CORRUPT, 7, { 14, 0, 0, 0, 1, 2, 'a' } },
    { "a header with a null key", E_CORRUPT, 9, { 16, 0, 0, 0, 1, 1, 2, 1, 1 } },
    { "a header with value length -2", E_CORRUPT, 9, { 16, 0, 0, 0, 1, 1, 2, 0, 3 } },
    { "2^31-1 headers", E_CORRUPT, 11, { 20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f } },
    { "no header count", E_CORRUPT, 6, { 10, 0, 0, 0, 1, 1 } },
    { "a varint of eleven bytes",
      E_CORRUPT,
      17,
      { 32, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0, 1, 1, 0 } },
    { "the least timestamp delta",
      0,
      16,
      { 30, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 1, 0 } },
    { "a varint of 65 bits",
      E_CORRUPT,
      16,
      { 30, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 1, 1, 0 } },
    { "two records where one is counted",
      E_CORRUPT,
      14,
      { 12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 2, 1, 1, 0 } },
    { "no byte at all", E_CORRUPT, 0, { 0 } },
};

static int iterate(const void *mem, size_t n)
{
    struct batch_record r;
    struct batch_iter it;
    int rc = batch_iter_open(&it, mem, n, ROOMY);

    if (rc < 0)
        return rc;
    do
        rc = batch_iter_next(&it, &r);
    while (rc == 1);
    batch_iter_close(&it);
    return rc;
}

static void test_records_that_do_not_fill_the_body_as_they_say_are_corrupt(void)
{
    struct batch_head h;

    for (unsigned i = 0; i < sizeof record_cases / sizeof record_cases[0]; i++) {
        const struct record_case *c = &record_cases[i];
        uint8_t *mem =
            malloc(61 + c->n); /* ends with the batch, so that a sanitizer sees a step too far */
        size_t n = by_hand(mem, 1, c->bytes, c->n);
        int validate = batch_validate(&h, mem, n), walk = iterate(mem, n);

        if (validate != c->want || walk != c->want)
            fprintf(stderr, "%s: validate %d, iterate %d\n", c->what, validate, walk);
        CHECK(validate == c->want && walk == c->want);
        free(mem);
    }
}

/* Compression hides a body from batch_validate, but not from the iterator. */
static void test_bad_records_under_a_codec_are_seen_when_they_are_opened(void)
{
    uint8_t mem[512];
    struct batch_head h;

    for (unsigned i = 0; i < sizeof record_cases / sizeof record_cases[0]; i++) {
        const struct record_case *c = &record_cases[i];
        struct buf *packed, *out;
        size_t n, room = ROOMY;

        REQUIRE(codec_compress(CODEC_ZSTD, c->bytes, c->n, &packed) == 0);
        n = by_hand(mem, 1, packed->mem, packed->len);
        mem[22] = CODEC_ZSTD;
        seal(mem, n);
        CHECK_EQ(batch_validate(&h, mem, n), 0);
        CHECK_EQ(iterate(mem, n), c->want);
        /* What comes of it without a codec must be what batch_validate would let in. */
        CHECK_EQ(batch_recode(mem, n, CODEC_NONE, &room, &out), c->want);
        if (out)
            CHECK_EQ(batch_validate(&h, out->mem, out->len), 0);
        buf_unref(out);
        buf_unref(packed);
    }
}

static void test_a_body_that_does_not_unpack_or_is_too_large_is_refused(void)
{
    struct batch_case c;
    struct batch_iter it;
    struct buf *b;

    REQUIRE(case_open(&c, GOLDEN "large.txt"));
    for (enum batch_codec codec = CODEC_GZIP; codec < CODEC_COUNT; codec++) {
        REQUIRE(case_build(&c, codec, &b) == 0);
        CHECK_EQ(batch_iter_open(&it, b->mem, b->len, 100000), E_TOOBIG);
        b->mem[61] ^= 0xff;
        CHECK(batch_iter_open(&it, b->mem, b->len, ROOMY) < 0);
        batch_iter_close(&it);
        buf_unref(b);
    }
    case_close(&c);
}

/* What compaction leaves: offsets 10 and 13 of 10..14; and a batch with nothing left, of any
 * codec. */
static void test_compacted_batches_are_sound_though_no_producer_may_send_them(void)
{
    static const uint8_t gaps[] = { 12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 6, 1, 1, 0 };
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, gaps, sizeof gaps);
    struct batch_record r;
    struct batch_iter it;
    struct batch_head h;

    put_be(mem + 23, 4, 4);
    seal(mem, n);
    batch_stamp(mem, 10, 0);
    CHECK_EQ(batch_check(&h, mem, n), 0);
    CHECK_EQ(batch_validate(&h, mem, n), E_INVALID);
    REQUIRE(batch_iter_open(&it, mem, n, 0) == 0);
    CHECK(batch_iter_next(&it, &r) == 1 && r.offset == 10);
    CHECK(batch_iter_next(&it, &r) == 1 && r.offset == 13);
    CHECK_EQ(batch_iter_next(&it, &r), 0);
    batch_iter_close(&it);
    put_be(mem + 23, 2, 4); /* the last record now lies beyond the batch */
    seal(mem, n);
    CHECK_EQ(iterate(mem, n), E_CORRUPT);
    n = by_hand(mem, 0, "", 0);
    put_be(mem + 21, CODEC_LZ4, 2);
    put_be(mem + 23, 4, 4);
    seal(mem, n);
    CHECK_EQ(batch_check(&h, mem, n), 0);
    CHECK_EQ(iterate(mem, n), 0);
}

static void test_offsets_that_do_not_rise_are_corrupt(void)
{
    static const uint8_t same[] = { 12, 0, 0, 2, 1, 1, 0, 12, 0, 0, 0, 1, 1, 0 };
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, same, sizeof same);
    struct batch_head h;

    CHECK_EQ(batch_validate(&h, mem, n), E_CORRUPT);
    CHECK_EQ(iterate(mem, n), E_CORRUPT);
    /* Rising by index, and still twice the same: 0, 2, 2 of 0..4. */
    n = by_hand(mem, 3,
                (uint8_t[]){ 12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0 },
                21);
    put_be(mem + 23, 4, 4);
    seal(mem, n);
    CHECK_EQ(iterate(mem, n), E_CORRUPT);
}

static void test_log_append_time_stands_for_every_record(void)
{
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);
    struct batch_record r;
    struct batch_iter it;

    put_be(mem + 21, BATCH_ATTR_LOG_APPEND_TIME, 2);
    put_be(mem + 35, 9999, 8);
    seal(mem, n);
    REQUIRE(batch_iter_open(&it, mem, n, 0) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(batch_iter_next(&it, &r) == 1 && r.timestamp == 9999);
    batch_iter_close(&it);
}

static void test_hostile_offsets_and_times_wrap_without_harm(void)
{
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records);

    put_be(mem, INT64_MAX, 8);
    put_be(mem + 27, (uint64_t)INT64_MIN, 8);
    seal(mem, n);
    CHECK_EQ(iterate(mem, n), 0);
}

static void test_stamping_changes_twelve_bytes_and_keeps_the_crc_right(void)
{
    uint8_t before[256], after[256];
    size_t n = by_hand(before, 2, two_records, sizeof two_records);
    struct batch_head h;

    memcpy(after, before, n);
    batch_stamp(after, 0x0102030405060708, 0x0a0b0c0d);
    CHECK(memcmp(after, "\1\2\3\4\5\6\7\10", 8) == 0 && memcmp(after + 12, "\12\13\14\15", 4) == 0);
    CHECK(memcmp(after + 8, before + 8, 4) == 0 && memcmp(after + 16, before + 16, n - 16) == 0);
    CHECK_EQ(batch_check(&h, after, n), 0);
    CHECK(h.base_offset == 0x0102030405060708 && h.leader_epoch == 0x0a0b0c0d);
}

/* --- builder --- */

static void test_an_empty_builder_makes_no_batch(void)
{
    struct batch_builder b = { 0 };
    struct buf *out;

    CHECK_EQ(batch_builder_finish(&b, CODEC_NONE, &out), E_INVALID);
    CHECK(out == NULL);
    batch_builder_free(&b);
    batch_builder_free(&b);
}

static void test_a_builder_is_empty_again_after_finish(void)
{
    struct batch_builder b = { .has_producer = true,
                               .producer_id = 9,
                               .attributes = BATCH_ATTR_CONTROL };
    struct batch_head h;
    struct buf *out;

    batch_builder_add(&b,
                      &(struct batch_new_record){ .timestamp = 100, .key = "k", .key_bytes = 1 });
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &out) == 0);
    REQUIRE(batch_check(&h, out->mem, out->len) == 0);
    CHECK(h.producer_id == 9 && (h.attributes & BATCH_ATTR_CONTROL));
    buf_unref(out);
    CHECK_EQ(batch_builder_finish(&b, CODEC_NONE, &out), E_INVALID);
    batch_builder_add(&b, &(struct batch_new_record){ .timestamp = 7 });
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &out) == 0);
    REQUIRE(batch_validate(&h, out->mem, out->len) == 0);
    CHECK(h.record_count == 1 && h.producer_id == -1 && h.producer_epoch == -1);
    CHECK(h.base_sequence == -1 && h.attributes == 0 && h.base_timestamp == 7);
    buf_unref(out);
    batch_builder_free(&b);
}

static void test_recoding_keeps_to_its_codec_even_where_that_is_larger(void)
{
    uint8_t mem[256];
    size_t n = by_hand(mem, 2, two_records, sizeof two_records), room;
    struct batch_head h;
    struct buf *out;

    for (enum batch_codec c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        room = ROOMY;
        REQUIRE(batch_recode(mem, n, c, &room, &out) == 0);
        REQUIRE(batch_validate(&h, out->mem, out->len) == 0);
        CHECK_EQ(h.attributes, c);
        CHECK(out->len > n);
        buf_unref(out);
    }
}

static void test_a_codec_that_does_not_make_it_smaller_is_not_used(void)
{
    struct batch_builder b = { 0 };
    uint8_t noise[300];
    struct batch_head h;
    struct buf *out;
    struct rng r;

    rng_seed(&r, 3);
    for (unsigned i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)rng_u64(&r);
    for (enum batch_codec c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        batch_builder_add(
            &b, &(struct batch_new_record){ .value = noise, .value_bytes = sizeof noise });
        REQUIRE(batch_builder_finish(&b, c, &out) == 0);
        REQUIRE(batch_validate(&h, out->mem, out->len) == 0);
        CHECK_EQ(h.attributes & BATCH_ATTR_CODEC, CODEC_NONE);
        buf_unref(out);
    }
    batch_builder_free(&b);
}

static int64_t random_time(struct rng *r)
{
    return rng_chance(r, 1, 8) ? (int64_t)rng_u64(r)
                               : 1700000000000 + (int64_t)rng_below(r, 100000);
}

/* A random case: its bytes all lie in pool. */
static void random_case(struct batch_case *c, struct rng *r, const uint8_t *pool,
                        struct batch_new_record *recs, struct batch_header *headers)
{
    *c = (struct batch_case){ .producer_id = -1,
                              .n = 1 + (int32_t)rng_below(r, 40),
                              .records = recs };
    for (int32_t i = 0; i < c->n; i++) {
        struct batch_new_record *n = &recs[i];

        *n = (struct batch_new_record){ .timestamp = random_time(r), .headers = headers };
        n->key = rng_chance(r, 1, 3) ? NULL : pool + rng_below(r, 100);
        n->key_bytes = n->key ? rng_below(r, 200) : 0;
        n->value = rng_chance(r, 1, 5) ? NULL : pool + rng_below(r, 100);
        n->value_bytes = n->value ? rng_below(r, rng_chance(r, 1, 9) ? 40000 : 80) : 0;
        n->n_headers = rng_chance(r, 1, 3) ? (uint32_t)rng_below(r, 5) : 0;
        for (uint32_t j = 0; j < n->n_headers; j++, headers++) {
            *headers =
                (struct batch_header){ .key = pool, .key_bytes = (uint32_t)rng_below(r, 70) };
            headers->value = rng_chance(r, 1, 4) ? NULL : pool + j;
            headers->value_bytes = headers->value ? (int32_t)rng_below(r, 70) : -1;
        }
    }
}

static void test_random_batches_come_back_as_they_were_built(void)
{
    static uint8_t pool[50000];
    struct batch_new_record recs[40];
    struct batch_header headers[40 * 4];
    struct batch_case c;
    struct batch_head h;
    struct buf *b;
    struct rng r;

    rng_seed(&r, 20240101);
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = (uint8_t)(rng_u64(&r) & 0x3f);
    for (int i = 0; i < 400; i++) {
        random_case(&c, &r, pool, recs, headers);
        REQUIRE(case_build(&c, (enum batch_codec)(i % CODEC_COUNT), &b) == 0);
        CHECK_EQ(batch_validate(&h, b->mem, b->len), 0);
        batch_stamp(b->mem, i * 1000, i);
        check_records(b, &c, i * 1000);
        buf_unref(b);
    }
}

/* clang-format off */
TEST_MAIN(
    T(golden_batches_of_every_client_have_the_heads_of_their_cases)
    T(golden_batches_iterate_to_the_records_of_their_cases)
    T(every_truncation_of_a_golden_batch_is_refused)
    T(every_bit_flip_of_a_golden_batch_is_refused_but_in_the_stamped_bytes)
    T(the_builder_makes_the_same_bytes_as_java)
    T(what_the_builder_packs_is_valid_and_iterates_to_the_same_records)
    T(golden_batches_of_every_client_take_every_codec_and_stay_what_they_were)
    T(recoding_opens_no_more_than_its_room_and_says_what_it_took)
    T(recoding_keeps_to_its_codec_even_where_that_is_larger)
    T(a_batch_written_by_hand_is_read)
    T(head_fields_that_a_producer_may_not_send_are_refused)
    T(a_producer_id_needs_its_epoch_and_its_sequence)
    T(more_records_than_the_limit_are_refused_before_they_are_walked)
    T(one_batch_and_nothing_else_is_valid)
    T(old_and_unknown_magics_are_told_apart)
    T(lengths_that_lie_are_corrupt)
    T(records_that_do_not_fill_the_body_as_they_say_are_corrupt)
    T(bad_records_under_a_codec_are_seen_when_they_are_opened)
    T(a_body_that_does_not_unpack_or_is_too_large_is_refused)
    T(compacted_batches_are_sound_though_no_producer_may_send_them)
    T(offsets_that_do_not_rise_are_corrupt)
    T(log_append_time_stands_for_every_record)
    T(hostile_offsets_and_times_wrap_without_harm)
    T(stamping_changes_twelve_bytes_and_keeps_the_crc_right)
    T(an_empty_builder_makes_no_batch)
    T(a_builder_is_empty_again_after_finish)
    T(a_codec_that_does_not_make_it_smaller_is_not_used)
    T(random_batches_come_back_as_they_were_built))
