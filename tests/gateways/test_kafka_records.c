#include <stdlib.h>

#include "format/batch.h"
#include "tests/check.h"
#include "tests/gateways/kafka_ask.h"

static struct kafka_server server;
static struct kafka_client client;

static void begin(const struct kafka_conf *conf)
{
    kafka_server_start(&server, conf);
    kafka_client_open(&client, &server, 1);
}

static void end(void)
{
    kafka_client_close(&client);
    kafka_server_stop(&server);
}

static struct kafka_list_offsets_partition_answer list_offset(struct kafka_client *c,
                                                              int16_t version, const char *topic,
                                                              int64_t time, int32_t epoch)
{
    struct kafka_list_offsets_request *q = KAFKA_ASK(c, list_offsets_request);
    struct kafka_list_offsets_topic *t = KAFKA_ASK(c, list_offsets_topic);
    struct kafka_list_offsets_partition *p = KAFKA_ASK(c, list_offsets_partition);
    const struct kafka_list_offsets_response *a;

    p->timestamp = time;
    p->current_leader_epoch = epoch;
    t->name = kafka_str_of(topic);
    t->partitions.at = p;
    t->partitions.n = 1;
    q->topics.at = t;
    q->topics.n = 1;
    a = kafka_client_call(c, LIST_OFFSETS, version, q);
    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    return a->topics.at[0].partitions.at[0];
}

/* --- producing and fetching --- */

static void test_what_is_produced_is_fetched_byte_for_byte(void)
{
    struct buf *b;
    const struct kafka_fetch_partition_answer *f;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    for (int16_t v = 3; v <= 12; v++) {
        b = kafka_batch(4, 50, 1000 * v, -1, -1, -1);
        CHECK_EQ(kafka_ask_produce_error(&client, v, "t", 0, b, -1), 0);
        f = kafka_ask_fetch_now(&client, "t", 0, 4 * (v - 3));
        REQUIRE(f->records.len == (int32_t)b->len);
        batch_stamp(b->mem, 4 * (v - 3), 1);
        CHECK(!memcmp(f->records.mem, b->mem, b->len));
        CHECK_EQ(f->high_watermark, 4 * (v - 2));
        CHECK_EQ(f->last_stable_offset, f->high_watermark);
        CHECK_EQ(f->log_start_offset, 0);
        buf_unref(b);
    }
    end();
}

static void test_fetch_of_every_version_finds_the_records(void)
{
    struct kafka_uuid id;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_ask_produce_now(&client, "t", 0, 4, 50, 1000);
    id = kafka_ask_metadata(&client, 12, "t", false)->topics.at[0].topic_id;
    for (int16_t v = 4; v <= 18; v++) {
        struct kafka_fetch_request *q = kafka_ask_fetch(&client, "t", 0, 2, 0);

        q->topics.at->topic_id = id;
        /* The whole batch that holds offset 2. */
        CHECK(kafka_ask_fetched(kafka_client_call(&client, FETCH, v, q))->records.len > 200);
    }
    end();
}

static void test_topic_ids_work_in_produce_and_unknown_ones_are_told(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);
    struct kafka_produce_request *q;
    struct kafka_fetch_request *f;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    q = kafka_ask_produce(&client, "t", 0, b, 1);
    q->topics.at->topic_id = kafka_ask_metadata(&client, 12, "t", false)->topics.at[0].topic_id;
    CHECK_EQ(kafka_ask_produced(kafka_client_call(&client, PRODUCE, 13, q))->error_code, 0);
    q->topics.at->topic_id.bytes[0] ^= 1;
    CHECK_EQ(kafka_ask_produced(kafka_client_call(&client, PRODUCE, 13, q))->error_code, 100);
    f = kafka_ask_fetch(&client, "t", 0, 0, 0);
    f->topics.at->topic_id = q->topics.at->topic_id;
    CHECK_EQ(kafka_ask_fetched(kafka_client_call(&client, FETCH, 13, f))->error_code, 100);
    buf_unref(b);
    end();
}

static void test_produce_errors_are_told_by_partition(void)
{
    struct buf *good = kafka_batch(2, 10, 1000, -1, -1, -1);
    struct buf *bad = kafka_batch(2, 10, 1000, -1, -1, -1);
    struct buf *two = buf_new(2 * good->len), *none = buf_new(16);
    struct kafka_conf conf = { .batch_max = 4096 };
    struct buf *large = kafka_batch(1, 5000, 1000, -1, -1, -1);

    begin(&conf);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    bad->mem[bad->len - 1] ^= 1;
    memcpy(two->mem, good->mem, good->len);
    memcpy(two->mem + good->len, good->mem, good->len);
    two->len = 2 * good->len;
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 1, good, -1), 3);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", -1, good, -1), 3);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "no", 0, good, -1), 3);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, bad, -1), 2);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, two, -1), 87);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, none, -1), 87);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, large, -1), 10);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, good, 2), 21);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 0)->high_watermark, 0);
    journal_fake_fail_appends(server.journal, E_NOSPACE, 1);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, good, -1), 56);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, good, -1), 0);
    buf_unref(good);
    buf_unref(bad);
    buf_unref(two);
    buf_unref(none);
    buf_unref(large);
    end();
}

static void test_zstd_needs_produce_7(void)
{
    struct batch_builder builder = { 0 };
    char value[4000];
    struct buf *b;

    memset(value, 'z', sizeof value);
    batch_builder_add(&builder, &(struct batch_new_record){
                                    .timestamp = 1, .value = value, .value_bytes = sizeof value });
    REQUIRE(batch_builder_finish(&builder, CODEC_ZSTD, &b) == 0);
    batch_builder_free(&builder);
    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    CHECK_EQ(kafka_ask_produce_error(&client, 6, "t", 0, b, -1), 76);
    CHECK_EQ(kafka_ask_produce_error(&client, 7, "t", 0, b, -1), 0);
    buf_unref(b);
    end();
}

static void test_transactional_batches_are_refused(void)
{
    struct batch_builder builder = { .attributes = BATCH_ATTR_TRANSACTIONAL,
                                     .has_producer = true,
                                     .producer_id = 5 };
    struct buf *b, *plain = kafka_batch(1, 10, 1, -1, -1, -1);
    struct kafka_produce_request *q;

    batch_builder_add(&builder,
                      &(struct batch_new_record){ .timestamp = 1, .value = "v", .value_bytes = 1 });
    REQUIRE(batch_builder_finish(&builder, CODEC_NONE, &b) == 0);
    batch_builder_free(&builder);
    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, b, -1), 48);
    q = kafka_ask_produce(&client, "t", 0, plain, -1);
    q->transactional_id = KAFKA_STR("mine");
    CHECK_EQ(kafka_ask_produced(kafka_client_call(&client, PRODUCE, 9, q))->error_code, 48);
    buf_unref(b);
    buf_unref(plain);
    end();
}

static void test_a_repeated_batch_answers_its_first_offset(void)
{
    struct buf *first = kafka_batch(3, 10, 1000, 9, 0, 0);
    struct buf *second = kafka_batch(3, 10, 1000, 9, 0, 3);
    struct buf *gap = kafka_batch(3, 10, 1000, 9, 0, 9);

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, first, -1), 0);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, second, -1), 0);
    CHECK_EQ(kafka_ask_produced(kafka_client_call(&client, PRODUCE, 9,
                                                  kafka_ask_produce(&client, "t", 0, first, -1)))
                 ->base_offset,
             0);
    CHECK_EQ(kafka_ask_produce_error(&client, 9, "t", 0, gap, -1), 45);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 0)->high_watermark, 6);
    buf_unref(first);
    buf_unref(second);
    buf_unref(gap);
    end();
}

static void test_acks_0_has_no_answer_and_an_error_closes(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_client_send(&client, PRODUCE, 9, kafka_ask_produce(&client, "t", 0, b, 0));
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 0)->high_watermark,
             1); /* the next answer is this one's */
    kafka_client_send(&client, PRODUCE, 9, kafka_ask_produce(&client, "t", 5, b, 0));
    kafka_server_run(&server, 1);
    CHECK(kafka_client_closed(&client));
    CHECK_EQ(client.conn->out_bytes, 0);
    buf_unref(b);
    end();
}

static void test_answers_keep_the_order_of_the_requests(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);
    int32_t slow, fast;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    CHECK_EQ(kafka_ask_produce_now(&client, "t", 0, 1, 10, 1000).error_code, 0);
    journal_fake_hold(server.journal, true);
    slow = kafka_client_send(&client, PRODUCE, 9, kafka_ask_produce(&client, "t", 0, b, -1));
    fast = kafka_client_send(&client, API_VERSIONS, 3, KAFKA_ASK(&client, api_versions_request));
    kafka_server_run(&server, 100);
    CHECK_EQ(client.conn->out_bytes, 0);
    journal_fake_hold(server.journal, false);
    kafka_server_run(&server, 1);
    CHECK(kafka_client_take(&client, PRODUCE, 9) != NULL);
    CHECK_EQ(client.answered_id, slow);
    CHECK(kafka_client_take(&client, API_VERSIONS, 3) != NULL);
    CHECK_EQ(client.answered_id, fast);
    buf_unref(b);
    end();
}

static void test_pipelined_batches_are_appended_in_order_from_the_first(void)
{
    struct buf *b[20];

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    /* The first opens the partition; none may overtake it, or sequences would have gaps. */
    for (int32_t i = 0; i < 20; i++) {
        b[i] = kafka_batch(2, 10, 1000, 3, 0, 2 * i);
        kafka_client_send(&client, PRODUCE, 9, kafka_ask_produce(&client, "t", 0, b[i], -1));
    }
    kafka_server_run(&server, 1);
    for (int32_t i = 0; i < 20; i++) {
        const struct kafka_produce_partition_answer *a =
            kafka_ask_produced(kafka_client_take(&client, PRODUCE, 9));

        CHECK_EQ(a->error_code, 0);
        CHECK_EQ(a->base_offset, 2 * i);
        buf_unref(b[i]);
    }
    end();
}

static void test_a_late_append_is_answered_as_timed_out_and_still_counts(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);
    struct kafka_produce_request *q;
    const struct kafka_produce_partition_answer *a;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    journal_fake_hold(server.journal, true);
    q = kafka_ask_produce(&client, "t", 0, b, -1);
    q->timeout_ms = 1000;
    kafka_client_send(&client, PRODUCE, 9, q);
    kafka_server_run(&server, 900);
    CHECK_EQ(client.conn->out_bytes, 0);
    kafka_server_run(&server, 200);
    a = kafka_ask_produced(kafka_client_take(&client, PRODUCE, 9));
    CHECK_EQ(a->error_code, 7);
    journal_fake_hold(server.journal, false);
    kafka_server_run(&server, 1);
    CHECK_EQ(client.conn->out_bytes, 0);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 0)->high_watermark, 1);
    buf_unref(b);
    end();
}

/* --- waiting fetches --- */

static void test_a_fetch_waits_until_there_is_data(void)
{
    struct kafka_client other;

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(kafka_ask_create(&client, "t", 2), 0);
    kafka_client_send(&client, FETCH, 11, kafka_ask_fetch(&client, "t", 1, 0, 5000));
    kafka_server_run(&server, 4000);
    CHECK_EQ(client.conn->out_bytes, 0);
    CHECK_EQ(kafka_ask_produce_now(&other, "t", 1, 3, 10, 1000).error_code, 0);
    kafka_server_run(&server, 1);
    CHECK(kafka_ask_fetched(kafka_client_take(&client, FETCH, 11))->records.len > 0);
    kafka_client_close(&other);
    end();
}

static void test_a_fetch_answers_nothing_when_its_time_is_up(void)
{
    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_client_send(&client, FETCH, 11, kafka_ask_fetch(&client, "t", 0, 0, 500));
    kafka_server_run(&server, 499);
    CHECK_EQ(client.conn->out_bytes, 0);
    kafka_server_run(&server, 2);
    CHECK_EQ(kafka_ask_fetched(kafka_client_take(&client, FETCH, 11))->records.len, 0);
    CHECK_EQ(journal_fake_waits(server.journal), 0);
    end();
}

static void test_a_fetch_waits_for_its_min_bytes(void)
{
    struct kafka_client other;
    struct kafka_fetch_request *q;

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    q = kafka_ask_fetch(&client, "t", 0, 0, 5000);
    q->min_bytes = 1000;
    kafka_client_send(&client, FETCH, 11, q);
    CHECK_EQ(kafka_ask_produce_now(&other, "t", 0, 1, 400, 1000).error_code, 0);
    kafka_server_run(&server, 100);
    CHECK_EQ(client.conn->out_bytes, 0);
    CHECK_EQ(kafka_ask_produce_now(&other, "t", 0, 1, 600, 1000).error_code, 0);
    kafka_server_run(&server, 100);
    CHECK(kafka_ask_fetched(kafka_client_take(&client, FETCH, 11))->records.len > 1000);
    kafka_client_close(&other);
    end();
}

static void test_a_waiting_fetch_ends_when_its_client_goes(void)
{
    struct kafka_client other;

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(kafka_ask_create(&client, "t", 8), 0);
    kafka_client_send(&other, FETCH, 11, kafka_ask_fetch(&other, "t", 0, 0, 60000));
    kafka_server_run(&server, 10);
    CHECK_EQ(journal_fake_waits(server.journal), 1);
    kafka_client_close(&other);
    CHECK_EQ(journal_fake_waits(server.journal), 0);
    end();
}

static void test_a_waiting_fetch_ends_when_its_topic_is_deleted(void)
{
    struct kafka_client other;
    struct kafka_delete_topics_request *q;
    struct kafka_str name = KAFKA_STR("t");

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_client_send(&other, FETCH, 11, kafka_ask_fetch(&other, "t", 0, 0, 60000));
    kafka_server_run(&server, 10);
    q = KAFKA_ASK(&client, delete_topics_request);
    q->topic_names = (struct kafka_strs){ .at = &name, .n = 1 };
    REQUIRE(kafka_client_call(&client, DELETE_TOPICS, 4, q) != NULL);
    kafka_server_run(&server, 1);
    CHECK_EQ(kafka_ask_fetched(kafka_client_take(&other, FETCH, 11))->error_code, 3);
    kafka_client_close(&other);
    end();
}

static void test_the_server_stops_while_fetches_wait(void)
{
    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_client_send(&client, FETCH, 11, kafka_ask_fetch(&client, "t", 0, 0, 60000));
    kafka_server_run(&server, 10);
    kafka_server_stop(&server);
    CHECK(client.conn->closed);
    conn_fake_free(client.conn);
    kafka_arena_fini(&client.arena);
}

/* --- fetch: errors and limits --- */

static void test_fetch_errors(void)
{
    struct kafka_fetch_request *q;
    struct kafka_fetch_response *a;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_ask_produce_now(&client, "t", 0, 3, 10, 1000);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 4)->error_code, 1);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, -1)->error_code, 1);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 3)->error_code, 0);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 1, 0)->error_code, 3);
    CHECK_EQ(kafka_ask_fetch_now(&client, "x", 0, 0)->error_code, 3);
    for (int32_t epoch = 0; epoch < 3; epoch++) {
        q = kafka_ask_fetch(&client, "t", 0, 0, 0);
        q->topics.at->partitions.at->current_leader_epoch = epoch;
        CHECK_EQ(kafka_ask_fetched(kafka_client_call(&client, FETCH, 12, q))->error_code,
                 epoch == 0   ? 74
                 : epoch == 1 ? 0
                              : 75);
    }
    q = kafka_ask_fetch(&client, "t", 0, 0, 0);
    q->session_id = 5;
    q->session_epoch = 2;
    a = kafka_client_call(&client, FETCH, 11, q);
    REQUIRE(a != NULL);
    CHECK_EQ(a->error_code, 70);
    q->session_id = 0;
    q->session_epoch = 0; /* asks for a session: answered in full, with none */
    a = kafka_client_call(&client, FETCH, 11, q);
    REQUIRE(a != NULL);
    CHECK_EQ(a->session_id, 0);
    CHECK(kafka_ask_fetched(a)->records.len > 0);
    journal_fake_fail_reads(server.journal, E_LOST);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 0, 0)->error_code, 56);
    end();
}

static void test_a_fenced_fetch_names_the_leader(void)
{
    struct kafka_fetch_request *q;
    struct kafka_fetch_response *a;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    q = kafka_ask_fetch(&client, "t", 0, 0, 0);
    q->topics.at->topic_id = kafka_ask_metadata(&client, 12, "t", false)->topics.at[0].topic_id;
    q->topics.at->partitions.at->current_leader_epoch = 0;
    a = kafka_client_call(&client, FETCH, 16, q);
    CHECK_EQ(kafka_ask_fetched(a)->error_code, 74);
    CHECK_EQ(kafka_ask_fetched(a)->current_leader.leader_id, 1);
    CHECK_EQ(kafka_ask_fetched(a)->current_leader.leader_epoch, 1);
    REQUIRE(a->node_endpoints.n == 1);
    CHECK_EQ(a->node_endpoints.at[0].port, 9092);
    end();
}

static int32_t fetch_bytes(int32_t partition_max, int32_t max)
{
    struct kafka_fetch_request *q = kafka_ask_fetch(&client, "t", 0, 0, 0);
    struct kafka_fetch_response *a;
    int32_t sum = 0;

    q->topics.at->partitions.at = KAFKA_NEW(&client.arena, fetch_partition, 3);
    q->topics.at->partitions.n = 3;
    for (int32_t i = 0; i < 3; i++) {
        q->topics.at->partitions.at[i].index = i;
        q->topics.at->partitions.at[i].max_bytes = partition_max;
    }
    q->max_bytes = max;
    a = kafka_client_call(&client, FETCH, 11, q);
    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].partitions.n == 3);
    for (int32_t i = 0; i < 3; i++)
        sum += a->topics.at[0].partitions.at[i].records.len;
    return sum;
}

static void test_fetch_keeps_its_limits_but_gives_one_batch(void)
{
    struct buf *b = kafka_batch(1, 1000, 1000, -1, -1, -1);
    int32_t one = (int32_t)b->len;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 3), 0);
    /* Partition 0 is empty, 1 and 2 have four batches each. */
    for (int32_t i = 0; i < 8; i++)
        kafka_ask_produce_now(&client, "t", 1 + i % 2, 1, 1000, 1000);
    CHECK_EQ(fetch_bytes(1 << 20, 1 << 20), 8 * one);
    CHECK_EQ(fetch_bytes(2 * one, 1 << 20), 4 * one);
    CHECK_EQ(fetch_bytes(1 << 20, 5 * one), 5 * one);
    CHECK_EQ(fetch_bytes(1 << 20, 5 * one - 1), 4 * one);
    CHECK_EQ(fetch_bytes(1, 1 << 20), one); /* smaller than any batch: one is given */
    CHECK_EQ(fetch_bytes(1 << 20, 1), one);
    buf_unref(b);
    end();
}

/* --- offsets by time --- */

static void test_list_offsets_answers_ends_and_times(void)
{
    struct kafka_list_offsets_partition_answer a;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    a = list_offset(&client, 7, "t", -3, -1);
    CHECK_EQ(a.offset, -1);
    kafka_ask_produce_now(&client, "t", 0, 3, 10, 5000); /* 5000 5001 5002 */
    kafka_ask_produce_now(&client, "t", 0, 2, 10, 1000); /* 1000 1001 */
    kafka_ask_produce_now(&client, "t", 0, 2, 10, 7000); /* 7000 7001 */
    for (int16_t v = 1; v <= 11; v++) {
        CHECK_EQ(list_offset(&client, v, "t", -1, -1).offset, 7);
        CHECK_EQ(list_offset(&client, v, "t", -2, -1).offset, 0);
        CHECK_EQ(list_offset(&client, v, "t", -3, -1).error_code, v < 7 ? 35 : 0);
        CHECK_EQ(list_offset(&client, v, "t", -4, -1).error_code, v < 8 ? 35 : 0);
        CHECK_EQ(list_offset(&client, v, "t", -5, -1).error_code, v < 9 ? 35 : 0);
        CHECK_EQ(list_offset(&client, v, "t", -7, -1).error_code, 35);
    }
    a = list_offset(&client, 7, "t", -3, -1);
    CHECK_EQ(a.offset, 6);
    CHECK_EQ(a.timestamp, 7001);
    CHECK_EQ(a.leader_epoch, 1);
    a = list_offset(&client, 7, "t", 5001, -1);
    CHECK_EQ(a.offset, 1);
    CHECK_EQ(a.timestamp, 5001);
    CHECK_EQ(list_offset(&client, 7, "t", 0, -1).offset, 0);
    CHECK_EQ(list_offset(&client, 7, "t", 5003, -1).offset, 5);
    a = list_offset(&client, 7, "t", 8000, -1);
    CHECK_EQ(a.offset, -1);
    CHECK_EQ(a.timestamp, -1);
    CHECK_EQ(a.error_code, 0);
    CHECK_EQ(list_offset(&client, 9, "t", -5, -1).offset, -1);
    CHECK_EQ(list_offset(&client, 8, "t", -4, -1).offset, 0);
    CHECK_EQ(list_offset(&client, 7, "t", -1, 0).error_code, 74);
    CHECK_EQ(list_offset(&client, 7, "t", -1, 9).error_code, 75);
    CHECK_EQ(list_offset(&client, 7, "x", -1, -1).error_code, 3);
    end();
}

/* --- bounds --- */

static void test_a_client_with_too_much_unanswered_is_not_read(void)
{
    struct kafka_conf conf = { .conn_pending_max = 10000 };
    struct buf *b = kafka_batch(1, 3000, 1000, -1, -1, -1);

    begin(&conf);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_ask_produce_now(&client, "t", 0, 1, 10, 1000);
    journal_fake_hold(server.journal, true);
    for (unsigned i = 0; i < 20; i++)
        kafka_client_send(&client, PRODUCE, 9, kafka_ask_produce(&client, "t", 0, b, -1));
    kafka_server_run(&server, 10);
    CHECK(client.conn->paused);
    CHECK_EQ(journal_fake_held(server.journal), 4);
    journal_fake_hold(server.journal, false);
    kafka_server_run(&server, 10);
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(kafka_ask_produced(kafka_client_take(&client, PRODUCE, 9))->error_code, 0);
    CHECK(!client.conn->paused);
    buf_unref(b);
    end();
}

static void test_nobody_is_read_while_the_journal_has_too_much(void)
{
    begin(NULL);
    journal_fake_set_backlogged(server.journal, true);
    kafka_client_send(&client, API_VERSIONS, 3, KAFKA_ASK(&client, api_versions_request));
    kafka_server_run(&server, 500);
    CHECK_EQ(client.conn->out_bytes, 0);
    journal_fake_set_backlogged(server.journal, false);
    kafka_server_run(&server, 100);
    CHECK(kafka_client_take(&client, API_VERSIONS, 3) != NULL);
    end();
}

static void test_a_client_that_does_not_read_is_not_served_without_end(void)
{
    struct kafka_conf conf = { .fetch_max = 10000 };
    size_t queued;

    begin(&conf);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    kafka_ask_produce_now(&client, "t", 0, 1, 5000, 1000);
    conn_fake_stick(client.conn, true);
    for (unsigned i = 0; i < 50; i++)
        kafka_client_send(&client, FETCH, 11, kafka_ask_fetch(&client, "t", 0, 0, 0));
    kafka_server_run(&server, 10);
    queued = client.conn->out_bytes;
    CHECK(queued >= 5000 && queued <= 3 * 10000);
    CHECK(client.conn->paused);
    for (unsigned i = 0; i < 50; i++) {
        conn_fake_stick(client.conn, false);
        kafka_server_run(&server, 10);
        conn_fake_stick(client.conn, true);
    }
    for (unsigned i = 0; i < 50; i++)
        CHECK(kafka_ask_fetched(kafka_client_take(&client, FETCH, 11))->records.len > 5000);
    end();
}

/* clang-format off */
TEST_MAIN(
    T(what_is_produced_is_fetched_byte_for_byte)
    T(fetch_of_every_version_finds_the_records)
    T(topic_ids_work_in_produce_and_unknown_ones_are_told)
    T(produce_errors_are_told_by_partition)
    T(zstd_needs_produce_7)
    T(transactional_batches_are_refused)
    T(a_repeated_batch_answers_its_first_offset)
    T(acks_0_has_no_answer_and_an_error_closes)
    T(answers_keep_the_order_of_the_requests)
    T(pipelined_batches_are_appended_in_order_from_the_first)
    T(a_late_append_is_answered_as_timed_out_and_still_counts)
    T(a_fetch_waits_until_there_is_data)
    T(a_fetch_answers_nothing_when_its_time_is_up)
    T(a_fetch_waits_for_its_min_bytes)
    T(a_waiting_fetch_ends_when_its_client_goes)
    T(a_waiting_fetch_ends_when_its_topic_is_deleted)
    T(the_server_stops_while_fetches_wait)
    T(fetch_errors)
    T(a_fenced_fetch_names_the_leader)
    T(fetch_keeps_its_limits_but_gives_one_batch)
    T(list_offsets_answers_ends_and_times)
    T(a_client_with_too_much_unanswered_is_not_read)
    T(nobody_is_read_while_the_journal_has_too_much)
    T(a_client_that_does_not_read_is_not_served_without_end))
