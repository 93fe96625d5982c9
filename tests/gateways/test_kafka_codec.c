#include <stdlib.h>

#include "gateways/kafka/api.h"
#include "gateways/kafka/schema_data.h"
#include "gateways/kafka/schema_topics.h"
#include "tests/check.h"
#include "tests/gateways/kafka_messages.h"

enum { ROUNDS = 40, ARENA_MAX = 16 << 20 };

static struct kafka_arena made, read_back;

static void arenas_init(size_t max)
{
    kafka_arena_init(&made, ARENA_MAX);
    kafka_arena_init(&read_back, max);
}

static void arenas_fini(void)
{
    kafka_arena_fini(&made);
    kafka_arena_fini(&read_back);
}

/* Reads exactly bytes, from memory of exactly that size. */
static int decode_exact(const struct schema *s, struct kafka_form f, const uint8_t *mem,
                        size_t bytes, void **msg)
{
    uint8_t *exact = malloc(bytes ? bytes : 1);
    struct rd r;
    int rc;

    memcpy(exact, mem, bytes);
    r = rd_of(exact, bytes);
    *msg = kafka_message_new(&read_back, s, 1);
    rc = kafka_decode(s, f, &r, &read_back, *msg);
    if (rc == 0 && rd_left(&r))
        rc = E_INVALID;
    free(exact);
    return rc;
}

static void check_same(const struct schema *s, struct kafka_form f, const void *msg)
{
    static char a[1 << 16], b[1 << 16];
    size_t bytes, again;
    uint8_t *mem = kafka_message_bytes(s, f, msg, &bytes), *twice;
    void *back = kafka_message_new(&read_back, s, 1);
    struct rd r = rd_of(mem, bytes);

    CHECK_EQ(kafka_decode(s, f, &r, &read_back, back), 0);
    CHECK_EQ(rd_left(&r), 0);
    twice = kafka_message_bytes(s, f, back, &again);
    CHECK_EQ(again, bytes);
    CHECK(again == bytes && !memcmp(mem, twice, bytes));
    /* The dump sees every field of the version, so a value put in the wrong one shows. */
    kafka_dump(s, f, msg, a, sizeof a);
    kafka_dump(s, f, back, b, sizeof b);
    CHECK(!strcmp(a, b));
    free(mem);
    free(twice);
}

/* Every shorter message must be an error: no version has a field whose absence could be meant. */
static void check_truncated(const struct schema *s, struct kafka_form f, const void *msg)
{
    size_t bytes;
    uint8_t *mem = kafka_message_bytes(s, f, msg, &bytes);
    void *back;

    for (size_t n = 0; n < bytes; n++)
        CHECK(decode_exact(s, f, mem, n, &back) < 0);
    free(mem);
}

/* Damaged bytes may decode or not; they never make us read or allocate beyond bounds. */
static void check_damaged(const struct schema *s, struct kafka_form f, const void *msg,
                          struct rng *rng)
{
    size_t bytes;
    uint8_t *mem = kafka_message_bytes(s, f, msg, &bytes);
    void *back;

    for (unsigned i = 0; bytes && i < 20; i++) {
        mem[rng_below(rng, bytes)] = (uint8_t)rng_u64(rng);
        if (decode_exact(s, f, mem, bytes, &back) == 0)
            CHECK(back != NULL);
    }
    free(mem);
}

static void each_message(void (*fn)(const struct schema *s, struct kafka_form f, struct rng *rng))
{
    struct rng rng;

    rng_seed(&rng, 1);
    for (unsigned i = 0; kafka_api_at(i); i++) {
        const struct kafka_api *api = kafka_api_at(i);

        for (int16_t v = api->min; v <= api->max; v++) {
            struct kafka_form f = { .version = v, .flex = v >= api->flex };

            fn(api->request, f, &rng);
            fn(api->response, f, &rng);
        }
    }
}

static void round_trip(const struct schema *s, struct kafka_form f, struct rng *rng)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        arenas_init(ARENA_MAX);
        check_same(s, f, kafka_message_random(&made, s, f, rng));
        arenas_fini();
    }
}

static void test_every_message_of_every_version_comes_back_as_it_was(void)
{
    each_message(round_trip);
}

static void truncated(const struct schema *s, struct kafka_form f, struct rng *rng)
{
    for (unsigned i = 0; i < 3; i++) {
        arenas_init(ARENA_MAX);
        check_truncated(s, f, kafka_message_random(&made, s, f, rng));
        arenas_fini();
    }
}

static void test_every_message_cut_anywhere_is_an_error(void)
{
    each_message(truncated);
}

static void damaged(const struct schema *s, struct kafka_form f, struct rng *rng)
{
    arenas_init(1 << 20);
    check_damaged(s, f, kafka_message_random(&made, s, f, rng), rng);
    arenas_fini();
}

static void test_damaged_messages_stay_inside_their_bounds(void)
{
    each_message(damaged);
}

/* Bytes written down from the protocol guide, field by field. */
static void test_known_bytes_of_a_flexible_request_are_read(void)
{
    static const uint8_t bytes[] = { 4, 'k', 'c', 't', 6, '1', '.', '2', '.', '3', 0 };
    struct kafka_form f = { .version = 3, .flex = true };
    struct kafka_api_versions_request *q;
    void *msg;

    arenas_init(ARENA_MAX);
    CHECK_EQ(decode_exact(&kafka_api_versions_request_schema, f, bytes, sizeof bytes, &msg), 0);
    q = msg;
    CHECK_EQ(q->client_software_name.len, 3);
    CHECK_EQ(q->client_software_version.len, 5);
    arenas_fini();
}

static void test_known_bytes_of_an_old_request_are_read(void)
{
    static const uint8_t bytes[] = { 0xff, 0xff,             /* transactional id: null */
                                     0xff, 0xff,             /* acks -1 */
                                     0,    0,    0x75, 0x30, /* 30000 ms */
                                     0,    0,    0,    1,    /* one topic */
                                     0,    1,    't',        /* its name */
                                     0,    0,    0,    1,    /* one partition */
                                     0,    0,    0,    7,    /* number 7 */
                                     0,    0,    0,    2,    0xaa, 0xbb };
    struct kafka_form f = { .version = 3 };
    uint8_t *again;
    size_t n;
    void *msg;
    struct kafka_produce_request *q;
    struct rd r = rd_of(bytes, sizeof bytes);

    arenas_init(ARENA_MAX);
    msg = kafka_message_new(&read_back, &kafka_produce_request_schema, 1);
    CHECK_EQ(kafka_decode(&kafka_produce_request_schema, f, &r, &read_back, msg), 0);
    q = msg;
    CHECK_EQ(q->transactional_id.len, -1);
    CHECK_EQ(q->acks, -1);
    CHECK_EQ(q->timeout_ms, 30000);
    REQUIRE(q->topics.n == 1 && q->topics.at[0].partitions.n == 1);
    CHECK(kafka_str_is(q->topics.at[0].name, "t"));
    CHECK_EQ(q->topics.at[0].partitions.at[0].index, 7);
    CHECK_EQ(q->topics.at[0].partitions.at[0].records.len, 2);
    /* Records are not copied: they lie in what was read. */
    CHECK(q->topics.at[0].partitions.at[0].records.mem == bytes + sizeof bytes - 2);
    again = kafka_message_bytes(&kafka_produce_request_schema, f, msg, &n);
    CHECK(n == sizeof bytes && !memcmp(again, bytes, n));
    free(again);
    arenas_fini();
}

static void test_unknown_tagged_fields_are_stepped_over(void)
{
    static const uint8_t bytes[] = { 1,    1,          /* two empty strings */
                                     2,                /* two tagged fields */
                                     9,    3, 1, 2, 3, /* tag 9, three bytes */
                                     0x80, 1, 0 };     /* tag 128, none */
    struct kafka_form f = { .version = 3, .flex = true };
    void *msg;

    arenas_init(ARENA_MAX);
    CHECK_EQ(decode_exact(&kafka_api_versions_request_schema, f, bytes, sizeof bytes, &msg), 0);
    CHECK(decode_exact(&kafka_api_versions_request_schema, f, bytes, sizeof bytes - 1, &msg) < 0);
    arenas_fini();
}

static void test_a_known_tagged_field_must_fill_its_bytes(void)
{
    struct kafka_form f = { .version = 12, .flex = true };
    uint8_t bytes[] = { 1,          /* one tagged field */
                        0,   3,  2, /* tag 0 (cluster id), three bytes: a string of one byte */
                        'c', 'x' }; /* ... and one byte too many */
    /* replica, wait, min, max, isolation, session, epoch, no topics, none forgotten, no rack */
    uint8_t head[4 + 4 + 4 + 4 + 1 + 4 + 4 + 3] = { 0 };
    uint8_t whole[sizeof head + sizeof bytes];
    void *msg;

    head[sizeof head - 3] = head[sizeof head - 2] = head[sizeof head - 1] = 1;
    memcpy(whole, head, sizeof head);
    memcpy(whole + sizeof head, bytes, sizeof bytes);
    arenas_init(ARENA_MAX);
    CHECK_EQ(decode_exact(&kafka_fetch_request_schema, f, whole, sizeof whole, &msg), E_CORRUPT);
    whole[sizeof head + 2] = 2;
    CHECK_EQ(decode_exact(&kafka_fetch_request_schema, f, whole, sizeof whole - 1, &msg), 0);
    CHECK_EQ(((struct kafka_fetch_request *)msg)->cluster_id.len, 1);
    arenas_fini();
}

static void test_an_array_longer_than_what_is_left_is_refused_before_allocating(void)
{
    static const uint8_t many[] = { 0, 15, 0x42, 0x3f }; /* 999,999 elements, and not a byte */
    static const uint8_t negative[] = { 0xff, 0xff, 0xff, 0xfe };
    struct kafka_form f = { .version = 1 };
    void *msg;

    arenas_init(ARENA_MAX);
    CHECK_EQ(decode_exact(&kafka_metadata_request_schema, f, many, sizeof many, &msg), E_CORRUPT);
    CHECK_EQ(decode_exact(&kafka_metadata_request_schema, f, negative, sizeof negative, &msg),
             E_CORRUPT);
    CHECK_EQ(read_back.used, 0);
    arenas_fini();
}

static void test_an_array_is_bounded_by_the_arena_and_by_a_million(void)
{
    size_t bytes = 4 + 2 * ((size_t)KAFKA_ARRAY_MAX + 1);
    uint8_t *mem = calloc(1, bytes);
    struct kafka_form f = { .version = 1 };
    void *msg;

    arenas_init(1 << 20); /* two-byte elements become structs of 32 */
    mem[1] = 1;           /* 65536 of them */
    CHECK_EQ(decode_exact(&kafka_metadata_request_schema, f, mem, bytes, &msg), E_NOMEM);
    arenas_fini();
    arenas_init((size_t)1 << 30);
    mem[1] = (KAFKA_ARRAY_MAX + 1) >> 16;
    mem[2] = (KAFKA_ARRAY_MAX + 1) >> 8 & 0xff;
    mem[3] = (KAFKA_ARRAY_MAX + 1) & 0xff;
    CHECK_EQ(decode_exact(&kafka_metadata_request_schema, f, mem, bytes, &msg), E_CORRUPT);
    CHECK_EQ(read_back.used, 0);
    arenas_fini();
    free(mem);
}

static void test_null_is_refused_where_it_may_not_be(void)
{
    static const uint8_t null_topics[] = { 0xff, 0xff, 0xff, 0xff };
    void *msg;

    arenas_init(ARENA_MAX);
    /* Metadata: all topics are an empty array in version 0 and null from 1 on. */
    CHECK_EQ(decode_exact(&kafka_metadata_request_schema, (struct kafka_form){ .version = 0 },
                          null_topics, sizeof null_topics, &msg),
             E_CORRUPT);
    CHECK_EQ(decode_exact(&kafka_metadata_request_schema, (struct kafka_form){ .version = 1 },
                          null_topics, sizeof null_topics, &msg),
             0);
    CHECK_EQ(((struct kafka_metadata_request *)msg)->topics.n, -1);
    CHECK(((struct kafka_metadata_request *)msg)->allow_auto_topic_creation);
    arenas_fini();
}

/* Fetch: what was read is sent in its own slices, between pieces of the answer. */
static void test_records_go_out_in_their_own_slices(void)
{
    struct kafka_form f = { .version = 4 };
    struct kafka_fetch_response a;
    struct kafka_fetch_topic_answer topic;
    struct kafka_fetch_partition_answer part;
    struct buf *records = buf_copy("abcdefgh", 8), *head;
    struct slice slices[2] = { { .buf = records, .mem = records->mem, .len = 5 },
                               { .buf = records, .mem = records->mem + 5, .len = 3 } };
    struct slice out[4];
    struct kafka_size z;
    struct wr w;
    unsigned n;

    arenas_init(ARENA_MAX);
    a = *KAFKA_NEW(&made, fetch_response, 1);
    topic = *KAFKA_NEW(&made, fetch_topic_answer, 1);
    part = *KAFKA_NEW(&made, fetch_partition_answer, 1);
    part.records = (struct kafka_records){ .len = 8, .n_slices = 2, .slices = slices };
    topic.partitions.at = &part;
    topic.partitions.n = 1;
    a.topics.at = &topic;
    a.topics.n = 1;
    z = kafka_encoded_size(&kafka_fetch_response_schema, f, &a);
    CHECK_EQ(z.record_bytes, 8);
    CHECK_EQ(z.n_slices, 2);
    CHECK_EQ(z.n_records, 1);
    head = buf_new(z.bytes);
    w = wr_of(head->mem, z.bytes - z.record_bytes);
    n = kafka_encode(&kafka_fetch_response_schema, f, &a, &w, head, out);
    CHECK_EQ(n, 3); /* all of the answer lies before the records */
    CHECK(out[1].mem == records->mem && out[2].mem == records->mem + 5);
    CHECK_EQ(get_u32be(out[0].mem + out[0].len - 4), 8);
    CHECK_EQ(atomic_load(&records->refs), 3);
    for (unsigned i = 0; i < n; i++)
        buf_unref(out[i].buf);
    CHECK_EQ(atomic_load(&records->refs), 1);
    buf_unref(records);
    buf_unref(head);
    arenas_fini();
}

static void test_rows_are_in_order_and_inside_their_structs(void)
{
    for (unsigned i = 0; kafka_api_at(i); i++) {
        const struct kafka_api *api = kafka_api_at(i);

        CHECK(api->min <= api->max && api->advertised_min <= api->min);
        CHECK(kafka_api_find(api->key) == api);
        if (i)
            CHECK(kafka_api_at(i - 1)->key < api->key);
        for (unsigned j = 0; j < api->response->n_fields; j++) {
            const struct schema_field *f = &api->response->fields[j];

            CHECK(f->offset < api->response->size && f->min <= f->max);
            CHECK(!f->tagged || f->min >= api->flex);
        }
    }
    CHECK(kafka_api_find(-1) == NULL);
    CHECK(kafka_api_find(4) == NULL);
}

static void test_arena_gives_zeroed_memory_again_and_again(void)
{
    struct kafka_arena a;

    kafka_arena_init(&a, 1 << 20);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 200; i++) {
            uint8_t *p = kafka_arena_take(&a, 1 + i * 7);

            REQUIRE(p != NULL);
            CHECK((uintptr_t)p % 16 == 0);
            for (unsigned j = 0; j < 1 + i * 7; j++)
                CHECK(p[j] == 0);
            memset(p, 0xee, 1 + i * 7);
        }
        kafka_arena_fini(&a);
    }
    CHECK(kafka_arena_take(&a, (1 << 20) + 1) == NULL);
    CHECK(kafka_arena_take(&a, SIZE_MAX - 3) == NULL);
    CHECK(kafka_arena_take(&a, 1 << 19) != NULL);
    CHECK(kafka_arena_take(&a, 1 << 19) != NULL);
    CHECK(kafka_arena_take(&a, 1 << 19) == NULL);
    kafka_arena_fini(&a);
}

/* clang-format off */
TEST_MAIN(
    T(every_message_of_every_version_comes_back_as_it_was)
    T(every_message_cut_anywhere_is_an_error)
    T(damaged_messages_stay_inside_their_bounds)
    T(known_bytes_of_a_flexible_request_are_read)
    T(known_bytes_of_an_old_request_are_read)
    T(unknown_tagged_fields_are_stepped_over)
    T(a_known_tagged_field_must_fill_its_bytes)
    T(an_array_longer_than_what_is_left_is_refused_before_allocating)
    T(an_array_is_bounded_by_the_arena_and_by_a_million)
    T(null_is_refused_where_it_may_not_be)
    T(records_go_out_in_their_own_slices)
    T(rows_are_in_order_and_inside_their_structs)
    T(arena_gives_zeroed_memory_again_and_again))
