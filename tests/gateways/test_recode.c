/* compression.type: what is produced is stored with the topic's codec, and nothing else of it
 * changes, not its order either. */
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/batch.h"
#include "format/sum.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "tests/check.h"
#include "tests/gateways/kafka_ask.h"

enum { ROOMY = 4 << 20, LARGE = 100000 };

static const char *const types[] = { "uncompressed", "gzip", "snappy", "lz4", "zstd" };

static struct kafka_server server;
static struct kafka_client client;

/* The door's pool, counted. */
static struct pool counting;
static struct pool *counted;
static unsigned n_works;

static void count_and_submit(struct pool *p, struct work *w)
{
    n_works++;
    pool_submit(counted, w);
}

static void begin(const struct kafka_conf *conf)
{
    static const struct pool_ops ops = { .submit = count_and_submit };

    kafka_server_start(&server, conf);
    kafka_client_open(&client, &server, 1);
    counting.ops = &ops;
    counted = server.kafka->env.pool;
    server.kafka->env.pool = &counting;
    n_works = 0;
}

static void end(void)
{
    kafka_client_close(&client);
    kafka_server_stop(&server);
}

static void create(const char *topic, const char *type, const char *name, const char *value)
{
    struct kafka_create_topics_request *q = KAFKA_ASK(&client, create_topics_request);
    struct kafka_create_topic *t = KAFKA_ASK(&client, create_topic);
    struct kafka_create_config *c = KAFKA_NEW(&client.arena, create_config, 2);
    struct kafka_create_topics_response *a;

    c[0].name = kafka_str_of("compression.type");
    c[0].value = kafka_str_of(type);
    if (name) {
        c[1].name = kafka_str_of(name);
        c[1].value = kafka_str_of(value);
    }
    t->name = kafka_str_of(topic);
    t->num_partitions = 5;
    t->replication_factor = 1;
    t->configs.at = c;
    t->configs.n = name ? 2 : 1;
    q->topics.at = t;
    q->topics.n = 1;
    a = kafka_client_call(&client, CREATE_TOPICS, 7, q);
    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].error_code == 0);
}

/* Three records of all sorts: keys, headers, nulls, times that go back; the value's bytes. */
static struct buf *odd_batch(enum batch_codec codec, size_t bytes, int64_t producer, int32_t seq)
{
    static const struct batch_header headers[] = {
        { (const uint8_t *)"h", 1, NULL, -1 }, { (const uint8_t *)"", 0, (const uint8_t *)"x", 1 }
    };
    struct batch_builder b = { .producer_id = producer,
                               .producer_epoch = 0,
                               .base_sequence = seq,
                               .has_producer = producer >= 0 };
    uint8_t *value = mem_new(bytes);
    struct buf *out;

    memset(value, 'v', bytes);
    batch_builder_add(&b,
                      &(struct batch_new_record){ .timestamp = 5000, .key = "k", .key_bytes = 1 });
    batch_builder_add(
        &b, &(struct batch_new_record){ .timestamp = 3000, .value = value, .value_bytes = bytes });
    batch_builder_add(&b, &(struct batch_new_record){ .timestamp = 9000,
                                                      .key = "",
                                                      .value = "end",
                                                      .value_bytes = 3,
                                                      .headers = headers,
                                                      .n_headers = 2 });
    REQUIRE(batch_builder_finish(&b, codec, &out) == 0);
    REQUIRE((enum batch_codec)(out->mem[22] & BATCH_ATTR_CODEC) == codec);
    batch_builder_free(&b);
    free(value);
    return out;
}

static bool same_bytes(const uint8_t *a, int64_t a_bytes, const uint8_t *b, int64_t b_bytes)
{
    return a_bytes == b_bytes && (a_bytes <= 0 || memcmp(a, b, (size_t)a_bytes) == 0);
}

/* Every field of the head that producers fill in, and every record. */
static void check_same_content(const void *a, size_t a_bytes, const void *b, size_t b_bytes,
                               int64_t base)
{
    struct batch_iter i, j;
    struct batch_record r, s;

    REQUIRE(batch_iter_open(&i, a, a_bytes, ROOMY) == 0);
    REQUIRE(batch_iter_open(&j, b, b_bytes, ROOMY) == 0);
    CHECK_EQ(i.head.attributes & ~BATCH_ATTR_CODEC, j.head.attributes & ~BATCH_ATTR_CODEC);
    CHECK_EQ(i.head.last_offset_delta, j.head.last_offset_delta);
    CHECK_EQ(i.head.base_timestamp, j.head.base_timestamp);
    CHECK_EQ(i.head.max_timestamp, j.head.max_timestamp);
    CHECK_EQ(i.head.producer_id, j.head.producer_id);
    CHECK_EQ(i.head.producer_epoch, j.head.producer_epoch);
    CHECK_EQ(i.head.base_sequence, j.head.base_sequence);
    while (batch_iter_next(&i, &r) == 1) {
        REQUIRE(batch_iter_next(&j, &s) == 1);
        CHECK(r.offset == s.offset + base && r.timestamp == s.timestamp);
        CHECK(same_bytes(r.key, r.key_bytes, s.key, s.key_bytes));
        CHECK(same_bytes(r.value, r.value_bytes, s.value, s.value_bytes));
        CHECK(r.n_headers == s.n_headers &&
              same_bytes(r.headers, r.headers_bytes, s.headers, s.headers_bytes));
    }
    CHECK_EQ(batch_iter_next(&i, &r), 0);
    CHECK_EQ(batch_iter_next(&j, &s), 0);
    batch_iter_close(&i);
    batch_iter_close(&j);
}

/* The one batch from offset on. */
static const struct kafka_records *stored(const char *topic, int32_t partition, int64_t offset,
                                          struct batch_head *h)
{
    const struct kafka_fetch_partition_answer *f =
        kafka_ask_fetch_now(&client, topic, partition, offset);

    REQUIRE(f && f->records.len > 0);
    REQUIRE(batch_check(h, f->records.mem, (size_t)f->records.len) == 0);
    return &f->records;
}

static void check_recoded(const char *topic, int32_t partition, const struct buf *b, int64_t offset,
                          enum batch_codec want)
{
    struct batch_head h;
    const struct kafka_records *r = stored(topic, partition, offset, &h);

    CHECK_EQ(h.attributes & BATCH_ATTR_CODEC, want);
    CHECK_EQ(h.base_offset, offset);
    check_same_content(r->mem, h.bytes, b->mem, b->len, offset);
}

static void test_every_codec_becomes_the_topics_and_the_records_stay(void)
{
    static const size_t sizes[] = { 200, LARGE };
    unsigned works = 0;

    begin(NULL);
    for (enum batch_codec to = 0; to < CODEC_COUNT; to++)
        create(types[to], types[to], NULL, NULL);
    for (enum batch_codec to = 0; to < CODEC_COUNT; to++)
        for (enum batch_codec from = 0; from < CODEC_COUNT; from++)
            for (unsigned i = 0; i < 2; i++) {
                struct buf *b = odd_batch(from, sizes[i], -1, -1);

                works = n_works;
                CHECK_EQ(kafka_ask_produce_error(&client, 9, types[to], (int32_t)from, b, -1), 0);
                /* On the pool: what opens to more than 64 KiB, and only that. */
                CHECK_EQ(n_works - works >= 1, from != to && sizes[i] == LARGE);
                check_recoded(types[to], (int32_t)from, b, 3 * i, to);
                buf_unref(b);
            }
    end();
}

static void test_batches_that_need_no_other_codec_stay_byte_for_byte(void)
{
    begin(NULL);
    create("plain", "producer", NULL, NULL);
    for (enum batch_codec c = 0; c < CODEC_COUNT; c++) {
        create(types[c], types[c], NULL, NULL);
        for (unsigned i = 0; i < 2; i++) {
            const char *topic = i ? "plain" : types[c];
            struct buf *b = odd_batch(c, 300, -1, -1);
            const struct kafka_records *r;
            struct batch_head h;

            CHECK_EQ(kafka_ask_produce_error(&client, 9, topic, (int32_t)c, b, -1), 0);
            r = stored(topic, (int32_t)c, 0, &h);
            CHECK(same_bytes(r->mem + 16, r->len - 16, b->mem + 16, (int64_t)b->len - 16));
            buf_unref(b);
        }
    }
    end();
}

/* A large batch waits for the pool; small ones sent behind it, none of which waits for answers,
 * must not be appended first. */
static void test_small_and_large_batches_of_one_producer_keep_their_order(void)
{
    enum { N = 60 };
    int64_t next = 0;

    begin(NULL);
    create("t", "zstd", NULL, NULL);
    for (int32_t i = 0; i < N; i++) {
        struct buf *b = odd_batch((enum batch_codec)(i % 4), i % 3 ? 100 : LARGE, 7, 3 * i);

        kafka_client_send(&client, PRODUCE, 9, kafka_ask_produce(&client, "t", 0, b, -1));
        buf_unref(b);
    }
    for (int32_t i = 0; i < N; i++) {
        void *answer;
        const struct kafka_produce_partition_answer *a;

        while (!(answer = kafka_client_take(&client, PRODUCE, 9)))
            REQUIRE(sim_step(server.sim));
        a = kafka_ask_produced(answer);
        CHECK_EQ(a->error_code, 0);
        CHECK_EQ(a->base_offset, 3 * i);
    }
    CHECK(n_works >= N / 3);
    while (next < 3 * N) {
        struct batch_head h;

        stored("t", 0, next, &h);
        CHECK_EQ(h.base_sequence, next);
        CHECK_EQ(h.attributes & BATCH_ATTR_CODEC, CODEC_ZSTD);
        next += h.last_offset_delta + 1;
    }
    end();
}

/* One request with a part for each partition. */
static const struct kafka_produce_response *produce_all(const char *topic, int32_t n,
                                                        const struct buf *const *b)
{
    struct kafka_produce_request *q = kafka_ask_produce(&client, topic, 0, b[0], -1);
    struct kafka_produce_partition *p = KAFKA_NEW(&client.arena, produce_partition, n);
    const struct kafka_produce_response *a;

    for (int32_t i = 0; i < n; i++) {
        p[i].index = i;
        p[i].records = (struct kafka_records){ .mem = b[i]->mem, .len = (int32_t)b[i]->len };
    }
    q->topics.at->partitions.at = p;
    q->topics.at->partitions.n = n;
    a = kafka_client_call(&client, PRODUCE, 9, q);
    REQUIRE(a && a->topics.at[0].partitions.n == n);
    return a;
}

static void test_what_a_loop_does_for_one_request_is_bounded_over_its_partitions(void)
{
    const struct buf *b[5];

    begin(NULL);
    create("t", "lz4", NULL, NULL);
    for (unsigned i = 0; i < 5; i++)
        b[i] = odd_batch(i % 2 ? CODEC_GZIP : CODEC_NONE, 30000, -1, -1);
    produce_all("t", 2, b);
    CHECK_EQ(n_works, 0);
    produce_all("t", 5, b);
    CHECK_EQ(n_works, 1); /* the third and what follows, in one piece */
    for (int32_t i = 0; i < 5; i++)
        check_recoded("t", i, b[i], i < 2 ? 3 : 0, CODEC_LZ4);
    for (unsigned i = 0; i < 5; i++)
        buf_unref((struct buf *)(uintptr_t)b[i]);
    end();
}

static void test_a_bomb_is_refused_and_the_next_batch_is_not(void)
{
    static const struct kafka_conf conf = { .request_max = 1 << 20,
                                            .batch_max = 1 << 20,
                                            .fetch_max = 1 << 20 };

    begin(&conf);
    create("t", "zstd", NULL, NULL);
    for (enum batch_codec from = CODEC_GZIP; from < CODEC_ZSTD; from++) {
        struct buf *bomb = odd_batch(from, 2 << 20, -1, -1),
                   *good = odd_batch(from, 900000, -1, -1);

        CHECK(bomb->len < 120000);
        CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", (int32_t)from, bomb, -1),
                 KAFKA_MESSAGE_TOO_LARGE);
        CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", (int32_t)from, good, -1), 0);
        check_recoded("t", (int32_t)from, good, 0, CODEC_ZSTD);
        buf_unref(bomb);
        buf_unref(good);
    }
    end();
}

static void test_a_batch_that_becomes_larger_than_the_topic_allows_is_refused(void)
{
    struct buf *b = odd_batch(CODEC_ZSTD, 3000, -1, -1),
               *large = odd_batch(CODEC_ZSTD, LARGE, -1, -1);

    begin(NULL);
    create("t", "uncompressed", "max.message.bytes", "2000");
    CHECK(b->len < 2000 && large->len < 2000);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, b, -1), KAFKA_MESSAGE_TOO_LARGE);
    CHECK_EQ(n_works, 0);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, large, -1), KAFKA_MESSAGE_TOO_LARGE);
    buf_unref(b);
    buf_unref(large);
    end();
}

/* Small batches that each open to something allowed, but to too much together. */
static void test_a_request_does_not_become_more_than_the_largest_request(void)
{
    static const struct kafka_conf conf = { .request_max = 3 * LARGE,
                                            .batch_max = 2 * LARGE,
                                            .fetch_max = 1 << 20 };
    const struct kafka_produce_response *a;
    const struct buf *b[5];

    for (unsigned i = 0; i < 5; i++)
        b[i] = odd_batch(CODEC_ZSTD, LARGE - 200, -1, -1);
    begin(&conf);
    create("t", "uncompressed", NULL, NULL);
    a = produce_all("t", 5, b);
    for (int32_t i = 0; i < 5; i++)
        CHECK_EQ(a->topics.at[0].partitions.at[i].error_code, i < 3 ? 0 : KAFKA_MESSAGE_TOO_LARGE);
    a = produce_all("t", 3, b); /* and the next request has all of it again */
    for (int32_t i = 0; i < 3; i++)
        CHECK_EQ(a->topics.at[0].partitions.at[i].error_code, 0);
    for (unsigned i = 0; i < 5; i++)
        buf_unref((struct buf *)(uintptr_t)b[i]);
    end();
}

/* The CRC is right, so only opening shows it. */
static struct buf *liar(size_t bytes)
{
    struct buf *b = odd_batch(CODEC_LZ4, bytes, -1, -1), *out;
    size_t room = ROOMY;

    put_u32be(b->mem + 23, 3);
    put_u32be(b->mem + 57, 4); /* a fourth record */
    put_u32be(b->mem + 17, sum_crc32c(b->mem + 21, b->len - 21));
    CHECK_EQ(batch_recode(b->mem, b->len, CODEC_ZSTD, &room, &out), E_CORRUPT);
    return b;
}

static void test_records_that_are_not_what_the_head_says_are_corrupt(void)
{
    struct buf *small = liar(100), *large = liar(LARGE);

    begin(NULL);
    create("t", "gzip", NULL, NULL);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, small, -1), KAFKA_CORRUPT_MESSAGE);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, large, -1), KAFKA_CORRUPT_MESSAGE);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 0)->high_watermark, 0);
    buf_unref(small);
    buf_unref(large);
    end();
}

static void test_log_append_time_is_stamped_on_what_is_recoded(void)
{
    struct buf *b = odd_batch(CODEC_GZIP, 300, -1, -1);
    const struct kafka_records *r;
    struct batch_record rec;
    struct batch_iter it;
    struct batch_head h;

    begin(NULL);
    create("t", "zstd", "message.timestamp.type", "LogAppendTime");
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, b, -1), 0);
    r = stored("t", 0, 0, &h);
    CHECK_EQ(h.attributes, CODEC_ZSTD | BATCH_ATTR_LOG_APPEND_TIME);
    CHECK(h.max_timestamp >= SIM_WALL_START_MS);
    REQUIRE(batch_iter_open(&it, r->mem, h.bytes, ROOMY) == 0);
    REQUIRE(batch_iter_next(&it, &rec) == 1);
    CHECK_EQ(rec.timestamp, h.max_timestamp);
    batch_iter_close(&it);
    buf_unref(b);
    end();
}

static void test_a_client_that_goes_while_its_batch_is_on_the_pool_leaves_nothing_behind(void)
{
    for (unsigned steps = 0; steps < 40; steps++) {
        struct buf *b = odd_batch(CODEC_NONE, LARGE, -1, -1);

        begin(NULL);
        create("t", "lz4", NULL, NULL);
        kafka_client_send(&client, PRODUCE, 9, kafka_ask_produce(&client, "t", 0, b, 1));
        buf_unref(b);
        for (unsigned i = 0; i < steps; i++)
            sim_step(server.sim);
        end(); /* checks buffers and handles */
    }
}

/* clang-format off */
static int16_t fetch_error(int16_t version, const char *topic, int32_t partition)
{
    return kafka_ask_fetched(kafka_client_call(&client, FETCH, version,
                                               kafka_ask_fetch(&client, topic, partition, 0, 0)))
        ->error_code;
}

/* By the topic, whatever lies in it; an unknown partition is told first. */
static void test_a_zstd_topic_needs_fetch_10(void)
{
    struct buf *b = odd_batch(CODEC_ZSTD, 300, -1, -1);

    begin(NULL);
    create("t", "zstd", NULL, NULL);
    create("other", "lz4", NULL, NULL);
    create("sent", "producer", NULL, NULL);
    CHECK_EQ(kafka_ask_produce_error(&client, 7, "sent", 0, b, -1), 0);
    CHECK_EQ(fetch_error(9, "t", 0), KAFKA_UNSUPPORTED_COMPRESSION);
    CHECK_EQ(fetch_error(10, "t", 0), 0);
    CHECK_EQ(fetch_error(9, "t", 5), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    CHECK_EQ(fetch_error(9, "other", 0), 0);
    CHECK_EQ(fetch_error(9, "sent", 0), 0);
    buf_unref(b);
    end();
}

TEST_MAIN(T(a_zstd_topic_needs_fetch_10) T(every_codec_becomes_the_topics_and_the_records_stay)
          T(batches_that_need_no_other_codec_stay_byte_for_byte)
          T(small_and_large_batches_of_one_producer_keep_their_order)
          T(what_a_loop_does_for_one_request_is_bounded_over_its_partitions)
          T(a_bomb_is_refused_and_the_next_batch_is_not)
          T(a_batch_that_becomes_larger_than_the_topic_allows_is_refused)
          T(a_request_does_not_become_more_than_the_largest_request)
          T(records_that_are_not_what_the_head_says_are_corrupt)
          T(log_append_time_is_stamped_on_what_is_recoded)
          T(a_client_that_goes_while_its_batch_is_on_the_pool_leaves_nothing_behind))
