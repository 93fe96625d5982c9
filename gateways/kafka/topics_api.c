/* CreateTopics, DeleteTopics, CreatePartitions. */
#include <string.h>

#include "base/strmap.h"
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/partition.h"
#include "gateways/kafka/schema_topics.h"
#include "gateways/kafka/topic_configs.h"

enum { DEFAULTS_FROM = 4, DELETE_BY_ID_FROM = 6, CONFIG_SOURCE_TOPIC = 1 };

/* Some changes of topics that one request asks for; answered when all are through. */
struct change_op {
    struct kafka_request *r;
    void *response;
    unsigned n_left;
};

struct change_item {
    struct topics_change change;
    struct change_op *op;
    struct kafka_create_topic_answer *created;
    int16_t *error;
    struct kafka_str *text;
};

struct complaint {
    int16_t error;
    const char *text;
};
static const struct complaint fine;

static void op_less(struct change_op *op)
{
    if (--op->n_left == 0)
        kafka_answer(op->r, op->response);
}

static struct change_op *op_new(struct kafka_request *r)
{
    struct change_op *op = kafka_take(r, 1, sizeof *op);

    if (!op)
        return NULL;
    op->r = r;
    op->n_left = 1;
    op->response = kafka_response_new(r);
    return op->response ? op : NULL;
}

static void complain(struct change_item *item, struct complaint c)
{
    *item->error = c.error;
    *item->text = kafka_str_of(c.text);
}

static void changed(struct topics_change *c)
{
    struct change_item *item = (struct change_item *)c;

    if (c->rc == E_EXISTS)
        complain(item, (struct complaint){ KAFKA_TOPIC_ALREADY_EXISTS, "the topic exists" });
    else if (c->rc == E_INVALID && item->created)
        complain(item, (struct complaint){ KAFKA_INVALID_CONFIG,
                                           "the journal does not take such settings" });
    else if (c->rc < 0)
        complain(item, (struct complaint){ kafka_error_of(c->rc), err_text(c->rc) });
    else if (item->created)
        memcpy(item->created->topic_id.bytes, c->topic->id, TOPIC_ID_BYTES);
    topic_unref(c->topic);
    op_less(item->op);
}

static void item_start(struct change_item *item, struct kafka_str name,
                       void (*start)(struct topics *ts, struct topics_change *c))
{
    item->change.fn = changed;
    item->change.loop = item->op->r->loop;
    item->change.name = name.mem;
    item->change.name_bytes = (size_t)name.len;
    item->op->n_left++;
    start(item->op->r->kafka->topics, &item->change);
}

/* Whether the name came before in this request; the map holds those seen. */
static bool seen_before(struct strmap *seen, struct kafka_str name)
{
    static int yes;

    return strmap_put(seen, name.mem ? name.mem : "", (size_t)(name.len < 0 ? 0 : name.len),
                      &yes) != NULL;
}

/* --- CreateTopics --- */

/* What the settings make of the topic's shards. */
static struct complaint take_policy(struct change_item *item)
{
    struct kafka *k = item->op->r->kafka;
    struct kafka_settings now = { item->change.settings, item->change.n_settings };
    struct kafka_settings defaults = { k->defaults, KAFKA_CONFIG_DEFAULTS };
    char *text = kafka_arena_take(&item->op->r->arena, KAFKA_CONFIG_TEXT_MAX);

    if (!text)
        return (struct complaint){ KAFKA_INVALID_REQUEST, "too many configs" };
    if (!kafka_topic_configs_ok(now, defaults, NULL, text))
        return (struct complaint){ KAFKA_INVALID_CONFIG, text };
    item->change.defaults = k->defaults;
    item->change.n_defaults = KAFKA_CONFIG_DEFAULTS;
    item->change.kind = kafka_topic_kind(now);
    kafka_topic_policy(now, defaults, &item->change.policy);
    return fine;
}

/* Replicas are on us, and nowhere else. */
static bool only_us(const struct kafka *k, const struct kafka_int32s *brokers)
{
    return brokers->n == 1 && brokers->at[0] == k->conf.node_id;
}

static struct complaint check_assignments(struct kafka_request *r,
                                          const struct kafka_create_topic *t)
{
    bool *given = kafka_arena_take(&r->arena, (size_t)t->assignments.n);

    if (t->num_partitions != -1 || t->replication_factor != -1)
        return (struct complaint){ KAFKA_INVALID_REQUEST,
                                   "with assignments, partitions and replication factor are -1" };
    for (int32_t i = 0; i < t->assignments.n; i++) {
        int32_t index = t->assignments.at[i].index;
        bool good = given && index >= 0 && index < t->assignments.n && !given[index];

        if (good)
            given[index] = true;
        if (!good || !only_us(r->kafka, &t->assignments.at[i].broker_ids))
            return (struct complaint){ KAFKA_INVALID_REPLICA_ASSIGNMENT,
                                       "partitions count from 0, each on this one node" };
    }
    return fine;
}

static struct complaint check_counts(struct kafka_request *r, const struct kafka_create_topic *t)
{
    const struct kafka_conf *conf = &r->kafka->conf;
    int64_t n = t->assignments.n ? t->assignments.n : t->num_partitions;

    if (n > conf->partitions_max || n < -1 || n == 0 ||
        (n == -1 && r->form.version < DEFAULTS_FROM))
        return (struct complaint){ KAFKA_INVALID_PARTITIONS, "too many partitions, or too few" };
    if (t->assignments.n)
        return check_assignments(r, t);
    if (t->replication_factor != 1 &&
        (t->replication_factor != -1 || r->form.version < DEFAULTS_FROM))
        return (struct complaint){ KAFKA_INVALID_REPLICATION_FACTOR,
                                   "there is one node: the replication factor is 1" };
    return fine;
}

static char *text_of(struct kafka_request *r, struct kafka_str s)
{
    char *text = kafka_arena_take(&r->arena, (size_t)s.len + 1);

    if (text)
        memcpy(text, s.mem, (size_t)s.len);
    return text;
}

static struct complaint take_configs(struct change_item *item, const struct kafka_create_topic *t)
{
    static const struct complaint short_of_memory = { KAFKA_INVALID_REQUEST, "too many configs" };
    struct kafka_request *r = item->op->r;
    struct topic_setting *settings =
        kafka_arena_take(&r->arena, (size_t)t->configs.n * sizeof *settings);
    char *text = kafka_arena_take(&r->arena, KAFKA_CONFIG_TEXT_MAX);

    if (!settings || t->configs.n > TOPIC_SETTINGS_MAX)
        return short_of_memory;
    for (int32_t i = 0; i < t->configs.n; i++) {
        const struct kafka_create_config *c = &t->configs.at[i];

        if (c->value.len < 0)
            return (struct complaint){ KAFKA_INVALID_CONFIG, "a config without a value" };
        settings[i].name = text_of(r, c->name);
        settings[i].value = text_of(r, c->value);
        if (!settings[i].name || !settings[i].value)
            return short_of_memory;
        if (strlen(settings[i].value) != (size_t)c->value.len ||
            strlen(settings[i].name) != (size_t)c->name.len || !text)
            return (struct complaint){ KAFKA_INVALID_CONFIG, "a config with a zero byte" };
        if (!kafka_topic_config_ok(settings[i].name, settings[i].value, text))
            return (struct complaint){ KAFKA_INVALID_CONFIG, text };
        if (topic_setting_in(settings, (unsigned)i, settings[i].name))
            return (struct complaint){ KAFKA_INVALID_CONFIG, "a config is named twice" };
    }
    item->change.settings = settings;
    item->change.n_settings = (unsigned)t->configs.n;
    return fine;
}

static struct complaint check_exists(struct kafka *k, struct kafka_str name)
{
    struct topic *t = topics_find(k->topics, name.mem, (size_t)name.len);

    topic_unref(t);
    return t ? (struct complaint){ KAFKA_TOPIC_ALREADY_EXISTS, "the topic exists" } : fine;
}

static struct complaint check_create(struct change_item *item, const struct kafka_create_topic *t)
{
    struct kafka_request *r = item->op->r;
    struct complaint c;

    if (!topic_name_ok(t->name.mem, (size_t)t->name.len))
        return (struct complaint){ KAFKA_INVALID_TOPIC,
                                   "1 to 249 letters, digits, '.', '_' and '-'" };
    c = check_counts(r, t);
    if (!c.error)
        c = take_configs(item, t);
    if (!c.error)
        c = take_policy(item);
    return c.error ? c : check_exists(r->kafka, t->name);
}

static void answer_configs(struct change_item *item, const struct kafka_create_topic *t)
{
    struct kafka_create_topic_answer *a = item->created;

    a->configs.at = kafka_message_new(&item->op->r->arena, &kafka_create_config_answer_schema,
                                      (size_t)t->configs.n);
    a->configs.n = a->configs.at ? t->configs.n : 0;
    for (int32_t i = 0; i < a->configs.n; i++) {
        a->configs.at[i].name = t->configs.at[i].name;
        a->configs.at[i].value = t->configs.at[i].value;
        a->configs.at[i].config_source = CONFIG_SOURCE_TOPIC;
    }
}

static void create_one(struct change_item *item, const struct kafka_create_topic *t, bool duplicate,
                       bool validate_only)
{
    const struct kafka_conf *conf = &item->op->r->kafka->conf;
    struct complaint c =
        duplicate ? (struct complaint){ KAFKA_INVALID_REQUEST, "named twice in one request" }
                  : check_create(item, t);
    int32_t n = t->assignments.n ? t->assignments.n : t->num_partitions;

    item->created->name = t->name;
    complain(item, c);
    if (c.error)
        return;
    n = n == -1 ? conf->default_partitions : n;
    item->created->num_partitions = n;
    item->created->replication_factor = 1;
    answer_configs(item, t);
    item->change.n_partitions = (uint32_t)n;
    if (!validate_only)
        item_start(item, t->name, topics_create);
}

void kafka_create_topics(struct kafka_request *r)
{
    const struct kafka_create_topics_request *q = r->body;
    struct change_op *op = op_new(r);
    struct kafka_create_topics_response *a;
    struct change_item *items;
    struct strmap seen = { 0 };

    if (!op)
        return;
    a = op->response;
    a->topics.at = KAFKA_ANSWERS(r, create_topic_answer, q->topics.n);
    if (!a->topics.at)
        return;
    a->topics.n = q->topics.n;
    items = kafka_take(r, (size_t)q->topics.n, sizeof *items);
    if (!items)
        return;
    for (int32_t i = 0; i < q->topics.n; i++) {
        items[i].op = op;
        items[i].created = &a->topics.at[i];
        items[i].error = &a->topics.at[i].error_code;
        items[i].text = &a->topics.at[i].error_message;
        create_one(&items[i], &q->topics.at[i], seen_before(&seen, q->topics.at[i].name),
                   q->validate_only);
    }
    strmap_free(&seen);
    op_less(op);
}

/* --- DeleteTopics --- */

/* The name of a topic given by id, in the request's arena: it outlives the topic. */
static struct kafka_str name_of(struct kafka_request *r, const struct topic *t)
{
    char *mem = kafka_arena_take(&r->arena, t->name_bytes + 1);

    if (!mem)
        return KAFKA_STR("");
    memcpy(mem, t->name, t->name_bytes);
    return (struct kafka_str){ .mem = mem, .len = (int32_t)t->name_bytes };
}

static void delete_one(struct change_item *item, struct kafka_delete_topic_answer *a,
                       struct kafka_str name, const struct kafka_uuid *id)
{
    struct kafka_request *r = item->op->r;
    bool by_id = name.len < 0;
    struct topic *t;
    int16_t error;

    item->error = &a->error_code;
    item->text = &a->error_message;
    a->name = name;
    a->topic_id = *id;
    if (by_id == kafka_uuid_is_none(id)) {
        complain(item,
                 (struct complaint){ KAFKA_INVALID_REQUEST, "a name or an id, and not both" });
        return;
    }
    t = kafka_topic_of(r->kafka, name, id, by_id, &error);
    if (error) {
        complain(item, (struct complaint){ error, "no such topic" });
        return;
    }
    a->name = name_of(r, t);
    memcpy(a->topic_id.bytes, t->id, TOPIC_ID_BYTES);
    topic_unref(t);
    item_start(item, a->name, topics_delete);
}

void kafka_delete_topics(struct kafka_request *r)
{
    static const struct kafka_uuid no_id;
    const struct kafka_delete_topics_request *q = r->body;
    bool with_ids = r->form.version >= DELETE_BY_ID_FROM;
    int32_t n = with_ids ? q->topics.n : q->topic_names.n;
    struct change_op *op = op_new(r);
    struct kafka_delete_topics_response *a;
    struct change_item *items;

    if (!op)
        return;
    a = op->response;
    a->topics.at = KAFKA_ANSWERS(r, delete_topic_answer, n);
    if (!a->topics.at)
        return;
    a->topics.n = n;
    items = kafka_take(r, (size_t)n, sizeof *items);
    if (!items)
        return;
    for (int32_t i = 0; i < n; i++) {
        items[i].op = op;
        delete_one(&items[i], &a->topics.at[i],
                   with_ids ? q->topics.at[i].name : q->topic_names.at[i],
                   with_ids ? &q->topics.at[i].topic_id : &no_id);
    }
    op_less(op);
}

/* --- CreatePartitions --- */

static struct complaint check_grow(struct kafka *k, const struct kafka_partitions_topic *t)
{
    int16_t error;
    struct topic *old = kafka_topic_of(k, t->name, NULL, false, &error);
    int64_t n = old ? old->n_partitions : 0;

    topic_unref(old);
    if (error)
        return (struct complaint){ error, "no such topic" };
    if (t->count <= n || t->count > (int64_t)k->conf.partitions_max)
        return (struct complaint){ KAFKA_INVALID_PARTITIONS,
                                   "the count is the new total: more than now, and in bounds" };
    if (t->assignments.n < 0)
        return fine;
    if (t->assignments.n != t->count - n)
        return (struct complaint){ KAFKA_INVALID_REPLICA_ASSIGNMENT,
                                   "one assignment for each new partition" };
    for (int32_t i = 0; i < t->assignments.n; i++)
        if (!only_us(k, &t->assignments.at[i].broker_ids))
            return (struct complaint){ KAFKA_INVALID_REPLICA_ASSIGNMENT,
                                       "partitions are on this one node" };
    return fine;
}

/* New partitions are kept as those there are. */
static int grow_edit(struct topics_change *c, const struct topic *now)
{
    struct kafka_settings settings = { now->settings, now->n_settings };
    struct kafka_settings defaults = { now->defaults, now->n_defaults };

    c->kind = kafka_topic_kind(settings);
    kafka_topic_policy(settings, defaults, &c->policy);
    return 0;
}

static void grow_one(struct change_item *item, const struct kafka_partitions_topic *t,
                     bool duplicate, bool validate_only)
{
    struct complaint c =
        duplicate ? (struct complaint){ KAFKA_INVALID_REQUEST, "named twice in one request" }
                  : check_grow(item->op->r->kafka, t);

    complain(item, c);
    if (c.error || validate_only)
        return;
    item->change.n_partitions = (uint32_t)t->count;
    item->change.edit = grow_edit;
    item_start(item, t->name, topics_grow);
}

void kafka_create_partitions(struct kafka_request *r)
{
    const struct kafka_create_partitions_request *q = r->body;
    struct change_op *op = op_new(r);
    struct kafka_create_partitions_response *a;
    struct change_item *items;
    struct strmap seen = { 0 };

    if (!op)
        return;
    a = op->response;
    a->topics.at = KAFKA_ANSWERS(r, partitions_topic_answer, q->topics.n);
    if (!a->topics.at)
        return;
    a->topics.n = q->topics.n;
    items = kafka_take(r, (size_t)q->topics.n, sizeof *items);
    if (!items)
        return;
    for (int32_t i = 0; i < q->topics.n; i++) {
        items[i].op = op;
        items[i].error = &a->topics.at[i].error_code;
        items[i].text = &a->topics.at[i].error_message;
        a->topics.at[i].name = q->topics.at[i].name;
        grow_one(&items[i], &q->topics.at[i], seen_before(&seen, q->topics.at[i].name),
                 q->validate_only);
    }
    strmap_free(&seen);
    op_less(op);
}
