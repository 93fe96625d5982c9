#include "tests/gateways/kafka_sim_client.h"

#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "gateways/kafka/api.h"
#include "tests/gateways/kafka_messages.h"
#include "tests/gateways/kafka_sim_int.h"

enum { ANSWER_ARENA = 16 << 20 };

void door_client_open(struct kafka_sim *w, struct door_client *c, struct loop *loop)
{
    unsigned slot = c->slot;

    ASSERT(!c->conn && !c->head);
    *c = (struct door_client){ .slot = slot, .conn_no = ++w->last_conn_no, .next_id = 1 };
    c->conn = conn_fake_new(&w->door, loop);
    if (c->conn->refused)
        kafka_sim_fail(w, "a connection was refused");
}

static struct kafka_form form_of(int16_t key, int16_t version)
{
    return (struct kafka_form){ .version = version, .flex = version >= kafka_api_find(key)->flex };
}

void door_client_send(struct kafka_sim *w, struct door_client *c, struct sim_call *call,
                      int16_t key, int16_t version, const void *request)
{
    struct kafka_form f = form_of(key, version);
    size_t bytes;
    uint8_t *body = kafka_message_bytes(kafka_api_find(key)->request, f, request, &bytes);
    uint8_t head[4 + 8 + 2 + 3 + 1];
    struct wr out = wr_of(head, sizeof head);

    wr_u32be(&out, (uint32_t)(8 + 2 + 3 + f.flex + bytes));
    wr_u16be(&out, (uint16_t)key);
    wr_u16be(&out, (uint16_t)version);
    wr_u32be(&out, (uint32_t)c->next_id);
    wr_u16be(&out, 3);
    wr_bytes(&out, "sim", 3);
    if (f.flex)
        wr_u8(&out, 0);
    conn_fake_send(c->conn, head, wr_used(&out));
    conn_fake_send(c->conn, body, bytes);
    free(body);
    w->n->requests++;
    c->silent |= !call;
    c->send_no++;
    if (call) {
        call->key = key;
        call->version = version;
        call->id = c->next_id;
        call->slot = c->slot;
        call->sent_us = sim_now_us(w->js.sim);
        if (c->tail)
            c->tail->next = call;
        else
            c->head = call;
        c->tail = call;
        c->n_calls++;
    }
    c->next_id++;
}

static struct sim_call *call_pop(struct door_client *c)
{
    struct sim_call *call = c->head;

    c->head = call->next;
    if (!c->head)
        c->tail = NULL;
    c->n_calls--;
    return call;
}

static void answer(struct kafka_sim *w, struct door_client *c, const uint8_t *mem, size_t bytes)
{
    struct kafka_arena a;
    struct rd r = rd_of(mem, bytes);
    int32_t id = (int32_t)rd_u32be(&r);
    struct sim_call *call;
    struct kafka_form f;
    const struct kafka_api *api;
    void *msg;

    if (!c->head || c->head->id != id)
        kafka_sim_fail(w, "answer %d on connection %u is not to the oldest request", (int)id,
                       c->conn_no);
    call = call_pop(c);
    api = kafka_api_find(call->key);
    f = form_of(call->key, call->version);
    kafka_arena_init(&a, ANSWER_ARENA);
    if (f.flex && call->key != KAFKA_API_VERSIONS_KEY && rd_u8(&r) != 0)
        kafka_sim_fail(w, "%s %d: tags in the header", api->name, call->version);
    msg = kafka_message_new(&a, api->response, 1);
    if (kafka_decode(api->response, f, &r, &a, msg) < 0 || rd_left(&r) != 0)
        kafka_sim_fail(w, "the answer to %s %d cannot be read", api->name, call->version);
    call->fn(w, call, msg);
    free(call);
    kafka_arena_fini(&a);
}

static void take_answers(struct kafka_sim *w, struct door_client *c)
{
    size_t bytes;
    uint8_t *mem;

    while ((mem = conn_fake_take(c->conn, &bytes))) {
        answer(w, c, mem, bytes);
        free(mem);
    }
}

static void calls_lost(struct kafka_sim *w, struct door_client *c)
{
    while (c->head) {
        struct sim_call *call = call_pop(c);

        call->fn(w, call, NULL);
        free(call);
    }
}

void door_client_poll(struct kafka_sim *w, struct door_client *c)
{
    struct conn_fake *f = c->conn;

    if (!f)
        return;
    take_answers(w, c);
    if (!f->closed || f->deliver_posted)
        return;
    if (f->out_bytes > 0 && !c->hung_up)
        kafka_sim_fail(w, "connection %u was closed within an answer", c->conn_no);
    if (!c->hung_up && !c->silent && !w->ending)
        kafka_sim_fail(w, "connection %u was closed for no reason", c->conn_no);
    calls_lost(w, c);
    c->conn = NULL;
    conn_fake_free(f);
}

void door_client_hang_up(struct kafka_sim *w, struct door_client *c)
{
    if (!c->conn || c->hung_up)
        return;
    take_answers(w, c);
    c->hung_up = true;
    w->n->drops++;
    conn_fake_hang_up(c->conn);
    calls_lost(w, c);
}
