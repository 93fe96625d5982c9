#include "tests/gateways/kafka_client.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "gateways/kafka/api.h"
#include "gateways/kafka/codec.h"
#include "tests/check.h"
#include "tests/gateways/kafka_messages.h"

enum { MANY_STEPS = 10000000, CLIENT_ARENA = 256 << 20 };

static const struct kafka_conf no_conf;

/* --- the server --- */

struct waiting_start {
    struct kafka_start start;
    struct kafka_server *server;
};
struct waiting_stop {
    struct kafka_stop stop;
    struct kafka_server *server;
};

static void started(struct kafka_start *k)
{
    struct kafka_server *s = ((struct waiting_start *)k)->server;

    s->rc = k->rc;
    s->done = true;
}

static void stopped(struct kafka_stop *k)
{
    ((struct waiting_stop *)k)->server->done = true;
}

static bool is_done(void *ctx)
{
    return ((struct kafka_server *)ctx)->done;
}

static void door_start(struct kafka_server *s)
{
    struct kafka_env env = { .journal = s->journal,
                             .loops = s->loops,
                             .n_loops = s->n_loops,
                             .pool = sim_pool(s->sim),
                             .seed = 7 };
    struct waiting_start w = { .start = { .fn = started, .loop = s->loops[0] }, .server = s };
    struct err e = { 0 };

    REQUIRE(kafka_new(&s->kafka, &env, &s->conf, &e) == 0);
    s->done = false;
    kafka_start(s->kafka, &w.start);
    REQUIRE(sim_run_until(s->sim, is_done, s, MANY_STEPS));
    REQUIRE(s->rc == 0);
    s->door = kafka_door(s->kafka);
}

static void door_stop(struct kafka_server *s)
{
    struct waiting_stop w = { .stop = { .fn = stopped, .loop = s->loops[0] }, .server = s };

    s->done = false;
    kafka_stop(s->kafka, &w.stop);
    REQUIRE(sim_run_until(s->sim, is_done, s, MANY_STEPS));
    kafka_free(s->kafka);
    CHECK_EQ(journal_fake_handles(s->journal), 0);
    CHECK_EQ(journal_fake_waits(s->journal), 0);
}

void kafka_server_start(struct kafka_server *s, const struct kafka_conf *conf)
{
    logger_to(-1);
    *s = (struct kafka_server){ .conf = conf ? *conf : no_conf, .n_loops = 2 };
    s->sim = sim_new(1);
    s->journal = journal_fake_new();
    for (unsigned i = 0; i < s->n_loops; i++)
        s->loops[i] = sim_loop(s->sim, i);
    door_start(s);
}

void kafka_server_restart(struct kafka_server *s)
{
    door_stop(s);
    journal_fake_restart(s->journal);
    door_start(s);
}

void kafka_server_stop(struct kafka_server *s)
{
    door_stop(s);
    journal_fake_free(s->journal);
    sim_free(s->sim);
    CHECK_EQ(buf_total_bytes(), 0);
}

void kafka_server_run(struct kafka_server *s, unsigned ms)
{
    REQUIRE(sim_run_for(s->sim, (uint64_t)ms * 1000, MANY_STEPS));
}

/* --- clients --- */

void kafka_client_open(struct kafka_client *c, struct kafka_server *s, unsigned loop)
{
    c->server = s;
    c->conn = conn_fake_new(&s->door, s->loops[loop]);
    c->next_id = 100;
    kafka_arena_init(&c->arena, CLIENT_ARENA);
}

int32_t kafka_client_send(struct kafka_client *c, int16_t key, int16_t version, const void *request)
{
    const struct kafka_api *api = kafka_api_find(key);
    struct kafka_form f = { .version = version, .flex = version >= api->flex };
    size_t body_bytes;
    uint8_t *body = kafka_message_bytes(api->request, f, request, &body_bytes);
    uint8_t head[4 + 8 + 2 + 4 + 1];
    struct wr w = wr_of(head, sizeof head);

    wr_u32be(&w, (uint32_t)(8 + 2 + 4 + f.flex + body_bytes));
    wr_u16be(&w, (uint16_t)key);
    wr_u16be(&w, (uint16_t)version);
    wr_u32be(&w, (uint32_t)c->next_id);
    wr_u16be(&w, 4);
    wr_bytes(&w, "test", 4);
    if (f.flex)
        wr_u8(&w, 0);
    conn_fake_send(c->conn, head, wr_used(&w));
    conn_fake_send(c->conn, body, body_bytes);
    free(body);
    return c->next_id++;
}

void *kafka_client_take(struct kafka_client *c, int16_t key, int16_t version)
{
    const struct kafka_api *api = kafka_api_find(key);
    struct kafka_form f = { .version = version, .flex = version >= api->flex };
    size_t bytes;
    uint8_t *mem = conn_fake_take(c->conn, &bytes);
    uint8_t *kept;
    struct rd r;
    void *msg;

    if (!mem)
        return NULL;
    kept = kafka_arena_take(&c->arena, bytes + 1); /* the answer's strings point here */
    memcpy(kept, mem, bytes);
    free(mem);
    r = rd_of(kept, bytes);
    c->answered_id = (int32_t)rd_u32be(&r);
    if (f.flex && key != KAFKA_API_VERSIONS_KEY)
        REQUIRE(rd_u8(&r) == 0);
    msg = kafka_message_new(&c->arena, api->response, 1);
    REQUIRE(kafka_decode(api->response, f, &r, &c->arena, msg) == 0);
    REQUIRE(rd_left(&r) == 0);
    return msg;
}

struct awaited {
    struct kafka_client *client;
};

static bool answered_or_closed(void *ctx)
{
    const struct conn_fake *f = ((struct awaited *)ctx)->client->conn;

    return f->closed || (f->out_bytes >= 4 && f->out_bytes - 4 >= get_u32be(f->out));
}

void *kafka_client_call(struct kafka_client *c, int16_t key, int16_t version, const void *request)
{
    struct awaited a = { .client = c };
    int32_t id = kafka_client_send(c, key, version, request);
    void *answer;

    if (!sim_run_until(c->server->sim, answered_or_closed, &a, MANY_STEPS))
        return NULL;
    answer = kafka_client_take(c, key, version);
    if (answer)
        REQUIRE(c->answered_id == id);
    return answer;
}

bool kafka_client_closed(const struct kafka_client *c)
{
    return c->conn->closed;
}

void kafka_client_close(struct kafka_client *c)
{
    conn_fake_hang_up(c->conn);
    kafka_server_run(c->server, 1);
    conn_fake_free(c->conn);
    kafka_arena_fini(&c->arena);
    c->conn = NULL;
}

/* --- batches --- */

struct buf *kafka_batch(unsigned n, unsigned bytes, int64_t time, int64_t producer, int16_t epoch,
                        int32_t sequence)
{
    struct batch_builder b = { .producer_id = producer,
                               .producer_epoch = epoch,
                               .base_sequence = sequence,
                               .has_producer = producer >= 0 };
    uint8_t *value = malloc(bytes + 1);
    struct buf *out = NULL;

    memset(value, 'v', bytes);
    for (unsigned i = 0; i < n; i++) {
        struct batch_new_record r = { .timestamp = time + i, .value = value, .value_bytes = bytes };

        batch_builder_add(&b, &r);
    }
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &out) == 0);
    batch_builder_free(&b);
    free(value);
    return out;
}
