/* FindCoordinator and InitProducerId. */
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/producer_ids.h"
#include "gateways/kafka/schema_data.h"

enum { COORDINATOR_GROUP = 0, COORDINATOR_TXN = 1, MANY_FROM = 4 };

/* Transactions do not exist here yet, and a producer that wants them must hear so at once, in
 * our words. librdkafka (versions below 4) takes only an authorization error as final, and
 * shows the text; any other makes it ask again until its time is up. Java (4 and above) has
 * words of its own for that error, and shows our text for one that it does not expect. */
#define NO_TRANSACTIONS "this server has no transactions: unset transactional.id"

static int16_t coordinator_error(int8_t type, int16_t version, const char **text)
{
    if (type == COORDINATOR_GROUP)
        return KAFKA_NONE;
    *text = type == COORDINATOR_TXN ? NO_TRANSACTIONS : "no coordinator of this type";
    if (type != COORDINATOR_TXN)
        return KAFKA_INVALID_REQUEST;
    return version < MANY_FROM ? KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                               : KAFKA_UNSUPPORTED_VERSION;
}

static void one_coordinator(struct kafka_request *r, struct kafka_find_coordinator_response *a,
                            int16_t error, const char *text)
{
    a->error_code = error;
    a->error_message = kafka_str_of(text);
    a->node_id = error ? -1 : r->kafka->conf.node_id;
    a->host = error ? KAFKA_STR("") : kafka_own_host(r);
    a->port = error ? -1 : kafka_own_port(r);
}

static bool many_coordinators(struct kafka_request *r, struct kafka_find_coordinator_response *a,
                              int16_t error, const char *text)
{
    const struct kafka_find_coordinator_request *q = r->body;

    a->coordinators.n = q->coordinator_keys.n;
    a->coordinators.at = KAFKA_ANSWERS(r, coordinator, q->coordinator_keys.n);
    for (int32_t i = 0; a->coordinators.at && i < q->coordinator_keys.n; i++) {
        struct kafka_coordinator *c = &a->coordinators.at[i];

        c->key = q->coordinator_keys.at[i];
        c->error_code = error;
        c->error_message = kafka_str_of(text);
        c->node_id = error ? -1 : r->kafka->conf.node_id;
        c->host = error ? KAFKA_STR("") : kafka_own_host(r);
        c->port = error ? -1 : kafka_own_port(r);
    }
    return a->coordinators.at != NULL;
}

/* There is one node, and it coordinates every group. */
void kafka_find_coordinator(struct kafka_request *r)
{
    const struct kafka_find_coordinator_request *q = r->body;
    struct kafka_find_coordinator_response *a = kafka_response_new(r);
    const char *text = NULL;
    int16_t error = coordinator_error(q->key_type, r->form.version, &text);

    if (!a)
        return;
    if (r->form.version < MANY_FROM)
        one_coordinator(r, a, error, text);
    else if (!many_coordinators(r, a, error, text))
        return;
    kafka_answer(r, a);
}

/* --- producer ids --- */

static void answer_producer(struct kafka_request *r, int16_t error, int64_t id)
{
    struct kafka_init_producer_id_response *a = kafka_response_new(r);

    if (!a)
        return;
    a->error_code = error;
    a->producer_id = id;
    a->producer_epoch = error ? -1 : 0;
    kafka_answer(r, a);
}

struct wanted_id {
    struct producer_id_done done;
    struct kafka_request *r;
};

static void producer_id_given(struct producer_id_done *d)
{
    struct kafka_request *r = ((struct wanted_id *)d)->r;

    answer_producer(r, d->rc < 0 ? KAFKA_COORDINATOR_NOT_AVAILABLE : KAFKA_NONE,
                    d->rc < 0 ? -1 : d->id);
}

/* A producer that asks again after an error gets a new id: its sequences begin anew, and
 * nothing of the old id can meet them. */
void kafka_init_producer_id(struct kafka_request *r)
{
    const struct kafka_init_producer_id_request *q = r->body;
    struct wanted_id *w;

    if (q->transactional_id.len >= 0) {
        answer_producer(r, KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1);
        return;
    }
    w = kafka_take(r, 1, sizeof *w);
    if (!w)
        return;
    w->r = r;
    w->done.fn = producer_id_given;
    w->done.loop = r->loop;
    producer_ids_next(r->kafka->offsets, &w->done);
}
