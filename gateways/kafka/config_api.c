/* DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: the settings of topics; those of the
 * broker are told, and changed where the server is configured (docs/config.md). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strmap.h"
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/partition.h"
#include "gateways/kafka/schema_config.h"
#include "gateways/kafka/topic_configs.h"

enum { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4 };
enum { SOURCE_TOPIC = 1, SOURCE_STATIC_BROKER = 4, SOURCE_DEFAULT = 5 };
enum { OP_SET = 0, OP_DELETE = 1, OP_APPEND = 2, OP_SUBTRACT = 3 };

static struct kafka_settings settings_of(const struct topic *t)
{
    return (struct kafka_settings){ t->settings, t->n_settings };
}

static struct kafka_settings defaults_of(const struct topic *t)
{
    return (struct kafka_settings){ t->defaults, t->n_defaults };
}

static struct kafka_str text_copy(struct kafka_request *r, const char *text)
{
    size_t n = strlen(text);
    char *mem = kafka_arena_take(&r->arena, n + 1);

    if (!mem)
        return KAFKA_STR("");
    memcpy(mem, text, n);
    return (struct kafka_str){ .mem = mem, .len = (int32_t)n };
}

/* --- DescribeConfigs --- */

struct describe {
    struct kafka_request *r;
    const struct kafka_describe_configs_request *q;
    const struct kafka_strs *keys; /* n below 0: all */
    struct kafka_describe_configs_result *a;
};

static bool is_asked(const struct describe *d, const char *name)
{
    for (int32_t i = 0; i < d->keys->n; i++)
        if (d->keys->at[i].len == (int32_t)strlen(name) &&
            !memcmp(d->keys->at[i].mem, name, strlen(name)))
            return true;
    return d->keys->n <= 0;
}

static void synonym(struct kafka_describe_configs_config *c, struct kafka_str name,
                    struct kafka_str value, int8_t source)
{
    c->synonyms.at[c->synonyms.n++] =
        (struct kafka_describe_configs_synonym){ .name = name, .value = value, .source = source };
}

/* One more setting of the answer: set (or NULL) at the topic, def where it is not. */
static void config_add(struct describe *d, const struct kafka_config_info *info, const char *set,
                       const char *def, int8_t def_source)
{
    struct kafka_describe_configs_config *c = &d->a->configs.at[d->a->configs.n];
    struct kafka_str name = kafka_str_of(info->name), value = text_copy(d->r, set ? set : def);

    *c = (struct kafka_describe_configs_config){
        .name = name,
        .value = value,
        .read_only = d->a->resource_type == RESOURCE_BROKER || !strcmp(info->name, "weir.kind"),
        .config_source = set ? SOURCE_TOPIC : def_source,
        .config_type = (int8_t)info->type,
        .documentation = KAFKA_NULL,
    };
    if (d->q->include_documentation)
        c->documentation = kafka_str_of(info->help);
    c->synonyms.at = KAFKA_ANSWERS(d->r, describe_configs_synonym, 2);
    if (c->synonyms.at && d->q->include_synonyms) {
        if (set)
            synonym(c, name, value, SOURCE_TOPIC);
        if (def)
            synonym(c, kafka_str_of(info->synonym ? info->synonym : info->name),
                    set ? text_copy(d->r, def) : value, def_source);
    }
    d->a->configs.n++;
}

static void describe_topic(struct describe *d, const struct topic *t)
{
    const struct kafka_config_info *info;
    struct kafka_settings none = { NULL, 0 };

    for (unsigned i = 0; (info = kafka_topic_config_at(i)) != NULL; i++) {
        const char *set = topic_setting(t, info->name);
        const char *def = kafka_topic_config_value(none, defaults_of(t), info->name);
        char number[24];

        if (!is_asked(d, info->name) || (!set && !info->def))
            continue;
        if (!set) /* a default may follow from another setting */
            def = kafka_topic_config_value(settings_of(t), defaults_of(t), info->name);
        if (!strcmp(info->name, "max.message.bytes")) {
            snprintf(number, sizeof number, "%" PRIu32, d->r->kafka->conf.batch_max);
            def = number;
        }
        config_add(d, info, set, info->def ? def : NULL, SOURCE_DEFAULT);
    }
}

static void broker_number(struct describe *d, const char *name, enum kafka_config_type type,
                          int64_t value, const char *help)
{
    struct kafka_config_info info = { name, type, "", NULL, help };
    char number[24];

    snprintf(number, sizeof number, "%" PRId64, value);
    if (is_asked(d, name))
        config_add(d, &info, NULL, number, SOURCE_STATIC_BROKER);
}

static void describe_broker(struct describe *d)
{
    const struct kafka_conf *conf = &d->r->kafka->conf;
    static const struct kafka_config_info policy = { "log.cleanup.policy", KAFKA_CONFIG_LIST, "",
                                                     NULL, "topics.cleanup_policy" };
    static const struct kafka_config_info create = { "auto.create.topics.enable",
                                                     KAFKA_CONFIG_BOOLEAN, "", NULL,
                                                     "kafka.auto_create" };

    broker_number(d, "broker.id", KAFKA_CONFIG_INT, conf->node_id, "node.id");
    broker_number(d, "log.retention.bytes", KAFKA_CONFIG_LONG, conf->retention_bytes,
                  "topics.retention_bytes");
    broker_number(d, "log.retention.ms", KAFKA_CONFIG_LONG, conf->retention_ms,
                  "topics.retention_ms");
    broker_number(d, "message.max.bytes", KAFKA_CONFIG_INT, conf->batch_max, "kafka.batch_max");
    broker_number(d, "num.partitions", KAFKA_CONFIG_INT, conf->default_partitions,
                  "kafka.default_partitions");
    if (is_asked(d, policy.name))
        config_add(d, &policy, NULL, conf->cleanup_policy, SOURCE_STATIC_BROKER);
    if (is_asked(d, create.name))
        config_add(d, &create, NULL, conf->no_auto_create ? "false" : "true", SOURCE_STATIC_BROKER);
}

static bool is_this_broker(const struct kafka_request *r, struct kafka_str name)
{
    char id[16];
    int n = snprintf(id, sizeof id, "%d", r->kafka->conf.node_id);

    return name.len == n && !memcmp(name.mem, id, (size_t)n);
}

static void describe_one(struct describe *d, const struct kafka_describe_configs_resource *q)
{
    struct topic *t;
    int16_t error;

    d->a->resource_type = q->resource_type;
    d->a->resource_name = q->resource_name;
    d->a->error_message = KAFKA_NULL;
    if (q->resource_type == RESOURCE_BROKER) {
        if (is_this_broker(d->r, q->resource_name)) {
            describe_broker(d);
        } else {
            d->a->error_code = KAFKA_INVALID_REQUEST;
            d->a->error_message = KAFKA_STR("this broker tells of itself alone");
        }
        return;
    }
    if (q->resource_type != RESOURCE_TOPIC) {
        d->a->error_code = KAFKA_INVALID_REQUEST;
        d->a->error_message = KAFKA_STR("only topics and brokers have settings here");
        return;
    }
    t = kafka_topic_of(d->r->kafka, q->resource_name, NULL, false, &error);
    d->a->error_code = error;
    if (error)
        d->a->error_message = KAFKA_STR("no such topic");
    else
        describe_topic(d, t);
    topic_unref(t);
}

void kafka_describe_configs(struct kafka_request *r)
{
    const struct kafka_describe_configs_request *q = r->body;
    struct kafka_describe_configs_response *a = kafka_response_new(r);
    size_t n_rows = 0;

    while (kafka_topic_config_at((unsigned)n_rows))
        n_rows++;
    if (!a)
        return;
    a->results.at = KAFKA_ANSWERS(r, describe_configs_result, q->resources.n);
    if (!a->results.at)
        return;
    a->results.n = q->resources.n;
    for (int32_t i = 0; i < q->resources.n; i++) {
        struct describe d = { r, q, &q->resources.at[i].configuration_keys, &a->results.at[i] };

        d.a->configs.at = KAFKA_ANSWERS(r, describe_configs_config, n_rows);
        if (!d.a->configs.at)
            return;
        describe_one(&d, &q->resources.at[i]);
    }
    kafka_answer(r, a);
}

/* --- altering --- */

struct alter_op {
    struct kafka_request *r;
    void *response;
    unsigned n_left;
};

/* One wish: a setting and what is to be done with it. */
struct wish {
    const char *name;
    const char *value; /* NULL: none */
    int8_t op;
};

struct alter_item {
    struct topics_change change;
    struct alter_op *op;
    struct kafka_alter_configs_answer *answer;
    struct wish *wishes;
    unsigned n_wishes;
    bool whole;                 /* what is not wished for goes back to its default */
    struct topic_setting *list; /* as they shall be; the home loop's while it changes the topic */
    unsigned n_list;
    char text[KAFKA_CONFIG_TEXT_MAX];
};

static void op_less(struct alter_op *op)
{
    if (--op->n_left == 0)
        kafka_answer(op->r, op->response);
}

static void item_fails(struct alter_item *item, int16_t error, const char *text)
{
    item->answer->error_code = error;
    item->answer->error_message = text_copy(item->op->r, text);
}

static void list_free(struct alter_item *item)
{
    for (unsigned i = 0; i < item->n_list; i++) {
        free(item->list[i].name);
        free(item->list[i].value);
    }
    free(item->list);
    item->list = NULL;
    item->n_list = 0;
}

static struct topic_setting *list_at(struct alter_item *item, const char *name)
{
    for (unsigned i = 0; i < item->n_list; i++)
        if (!strcmp(item->list[i].name, name))
            return &item->list[i];
    return NULL;
}

/* Takes over value; NULL takes the setting away. */
static void list_set(struct alter_item *item, const char *name, char *value)
{
    struct topic_setting *s = list_at(item, name);

    if (s) {
        free(s->value);
        s->value = value;
        if (value)
            return;
        free(s->name);
        *s = item->list[--item->n_list];
        return;
    }
    if (!value)
        return;
    item->list = mem_grow(item->list, (item->n_list + 1) * sizeof *item->list);
    item->list[item->n_list++] = (struct topic_setting){ mem_str(name), value };
}

static bool in_list(const char *list, const char *word, size_t bytes)
{
    while (*list) {
        size_t n = strcspn(list, ",");

        if (n == bytes && !memcmp(list, word, n))
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

/* The words of a that are (not) in b, behind what out has. */
static void words_add(char *out, const char *a, const char *b)
{
    while (*a) {
        size_t n = strcspn(a, ","), at = strlen(out);

        if (!in_list(b, a, n)) {
            if (at)
                out[at++] = ',';
            memcpy(out + at, a, n);
            out[at + n] = 0;
        }
        a += n + (a[n] == ',');
    }
}

static int list_edit(struct alter_item *item, const struct topic *now, const struct wish *w)
{
    struct kafka_settings list = { item->list, item->n_list };
    const struct kafka_config_info *info = kafka_topic_config_find(w->name);
    const char *before;
    char *out;

    if (!info || info->type != KAFKA_CONFIG_LIST) {
        snprintf(item->text, sizeof item->text,
                 "Can't %s to key %.100s because its type is not LIST.",
                 w->op == OP_APPEND ? "APPEND" : "SUBTRACT", w->name);
        return E_INVALID;
    }
    before = kafka_topic_config_value(list, defaults_of(now), w->name);
    out = mem_new(strlen(before) + strlen(w->value) + 2);
    if (w->op == OP_APPEND) {
        words_add(out, before, "");
        words_add(out, w->value, before);
    } else {
        words_add(out, before, w->value);
    }
    list_set(item, w->name, out);
    return 0;
}

static int wish_apply(struct alter_item *item, const struct topic *now, const struct wish *w)
{
    const struct topic_setting *s;
    int rc = 0;

    if (w->op == OP_DELETE)
        list_set(item, w->name, NULL);
    else if (w->op == OP_SET)
        list_set(item, w->name, mem_str(w->value));
    else
        rc = list_edit(item, now, w);
    s = rc >= 0 ? list_at(item, w->name) : NULL;
    if (s && !kafka_topic_config_ok(s->name, s->value, item->text))
        return E_INVALID;
    return rc;
}

/* The topic's settings as they shall be, into item->list. E_INVALID, and item->text says why. */
static int list_make(struct alter_item *item, const struct topic *now)
{
    struct kafka_settings list;
    int rc = 0;

    for (unsigned i = 0; !item->whole && i < now->n_settings; i++)
        list_set(item, now->settings[i].name, mem_str(now->settings[i].value));
    /* Fixed, so a whole list need not name it. */
    if (item->whole && topic_setting(now, "weir.kind"))
        list_set(item, "weir.kind", mem_str(topic_setting(now, "weir.kind")));
    for (unsigned i = 0; rc >= 0 && i < item->n_wishes; i++)
        rc = wish_apply(item, now, &item->wishes[i]);
    list = (struct kafka_settings){ item->list, item->n_list };
    if (rc >= 0 && !kafka_topic_configs_ok(list, defaults_of(now), now, item->text))
        rc = E_INVALID;
    return rc;
}

static int alter_edit(struct topics_change *c, const struct topic *now)
{
    struct alter_item *item = (struct alter_item *)c;
    struct kafka_settings list;
    int rc = list_make(item, now);

    list = (struct kafka_settings){ item->list, item->n_list };
    if (rc >= 0)
        kafka_topic_policy(list, defaults_of(now), &c->policy);
    c->settings = item->list;
    c->n_settings = item->n_list;
    return rc;
}

static void item_answer(struct alter_item *item, int rc)
{
    if (rc == E_INVALID)
        item_fails(item, KAFKA_INVALID_CONFIG,
                   item->text[0] ? item->text : "the journal does not take such settings");
    else if (rc < 0)
        item_fails(item, rc == E_TOOBIG ? KAFKA_INVALID_CONFIG : kafka_error_of(rc), err_text(rc));
    list_free(item);
}

static void altered(struct topics_change *c)
{
    struct alter_item *item = (struct alter_item *)c;

    item_answer(item, c->rc);
    topic_unref(c->topic);
    op_less(item->op);
}

static void item_start(struct alter_item *item, struct kafka_str name, bool validate_only)
{
    struct kafka *k = item->op->r->kafka;
    int16_t error;
    struct topic *t = kafka_topic_of(k, name, NULL, false, &error);

    if (error) {
        item_fails(item, error, "no such topic");
        return;
    }
    if (validate_only) {
        item_answer(item, list_make(item, t));
    } else {
        item->change.fn = altered;
        item->change.loop = item->op->r->loop;
        item->change.name = name.mem;
        item->change.name_bytes = (size_t)name.len;
        item->change.edit = alter_edit;
        item->op->n_left++;
        topics_alter(k->topics, &item->change);
    }
    topic_unref(t);
}

/* A string as C has it; NULL where it is null or has a zero in it. */
static const char *c_text(struct kafka_request *r, struct kafka_str s)
{
    char *mem = s.len < 0 || memchr(s.mem, 0, (size_t)s.len)
                    ? NULL
                    : kafka_arena_take(&r->arena, (size_t)s.len + 1);

    if (mem)
        memcpy(mem, s.mem, (size_t)s.len);
    return mem;
}

/* False: the item has its complaint. */
static bool wish_take(struct alter_item *item, struct kafka_str name, struct kafka_str value,
                      int8_t op)
{
    struct wish *w = &item->wishes[item->n_wishes];

    *w = (struct wish){ c_text(item->op->r, name), c_text(item->op->r, value), op };
    if (op < OP_SET || op > OP_SUBTRACT) {
        item_fails(item, KAFKA_INVALID_REQUEST, "no such operation");
        return false;
    }
    if (!w->name || (!w->value && op != OP_DELETE)) {
        item_fails(item, KAFKA_INVALID_REQUEST, "a setting without a name or a value");
        return false;
    }
    for (unsigned i = 0; i < item->n_wishes; i++) {
        if (!strcmp(item->wishes[i].name, w->name)) {
            item_fails(item, KAFKA_INVALID_REQUEST, "a setting is named twice");
            return false;
        }
    }
    item->n_wishes++;
    return true;
}

/* False: the item has its complaint. */
static bool item_begin(struct alter_item *item, struct alter_op *op,
                       struct kafka_alter_configs_answer *a, int8_t type, struct kafka_str name,
                       int32_t n)
{
    item->op = op;
    item->answer = a;
    a->resource_type = type;
    a->resource_name = name;
    a->error_message = KAFKA_NULL;
    item->wishes = kafka_arena_take(&op->r->arena, (size_t)n * sizeof *item->wishes);
    if (type == RESOURCE_TOPIC && n <= TOPIC_SETTINGS_MAX && item->wishes)
        return true;
    item_fails(item, KAFKA_INVALID_REQUEST,
               type == RESOURCE_BROKER  ? "the broker's settings are in its configuration"
               : type == RESOURCE_TOPIC ? "too many settings"
                                        : "only topics have settings that can be altered");
    return false;
}

/* Whether the resource came before in this request; the map holds those seen. */
static bool seen_before(struct strmap *seen, struct kafka_str name)
{
    static int yes;

    return strmap_put(seen, name.mem, (size_t)name.len, &yes) != NULL;
}

static struct alter_item *items_new(struct kafka_request *r, struct alter_op **op, int32_t n)
{
    *op = kafka_take(r, 1, sizeof **op);
    if (!*op)
        return NULL;
    (*op)->r = r;
    (*op)->n_left = 1;
    (*op)->response = kafka_response_new(r);
    return (*op)->response ? kafka_take(r, (size_t)n, sizeof(struct alter_item)) : NULL;
}

void kafka_alter_configs(struct kafka_request *r)
{
    const struct kafka_alter_configs_request *q = r->body;
    struct alter_op *op;
    struct alter_item *items = items_new(r, &op, q->resources.n);
    struct kafka_alter_configs_response *a;
    struct strmap seen = { 0 };

    if (!items)
        return;
    a = op->response;
    a->responses.at = KAFKA_ANSWERS(r, alter_configs_answer, q->resources.n);
    if (!a->responses.at)
        return;
    a->responses.n = q->resources.n;
    for (int32_t i = 0; i < q->resources.n; i++) {
        const struct kafka_alter_configs_resource *one = &q->resources.at[i];
        struct alter_item *item = &items[i];
        bool good = item_begin(item, op, &a->responses.at[i], one->resource_type,
                               one->resource_name, one->configs.n);

        item->whole = true;
        for (int32_t k = 0; good && k < one->configs.n; k++)
            good = wish_take(item, one->configs.at[k].name, one->configs.at[k].value, OP_SET);
        if (good && seen_before(&seen, one->resource_name))
            item_fails(item, KAFKA_INVALID_REQUEST, "named twice in one request");
        else if (good)
            item_start(item, one->resource_name, q->validate_only);
    }
    strmap_free(&seen);
    op_less(op);
}

void kafka_incremental_alter_configs(struct kafka_request *r)
{
    const struct kafka_incremental_alter_configs_request *q = r->body;
    struct alter_op *op;
    struct alter_item *items = items_new(r, &op, q->resources.n);
    struct kafka_incremental_alter_configs_response *a;
    struct strmap seen = { 0 };

    if (!items)
        return;
    a = op->response;
    a->responses.at = KAFKA_ANSWERS(r, alter_configs_answer, q->resources.n);
    if (!a->responses.at)
        return;
    a->responses.n = q->resources.n;
    for (int32_t i = 0; i < q->resources.n; i++) {
        const struct kafka_incremental_resource *one = &q->resources.at[i];
        struct alter_item *item = &items[i];
        bool good = item_begin(item, op, &a->responses.at[i], one->resource_type,
                               one->resource_name, one->configs.n);

        for (int32_t k = 0; good && k < one->configs.n; k++)
            good = wish_take(item, one->configs.at[k].name, one->configs.at[k].value,
                             one->configs.at[k].config_operation);
        if (good && seen_before(&seen, one->resource_name))
            item_fails(item, KAFKA_INVALID_REQUEST, "named twice in one request");
        else if (good)
            item_start(item, one->resource_name, q->validate_only);
    }
    strmap_free(&seen);
    op_less(op);
}
