/* Creating, deleting, growing topics, and asking for them.
 *
 * One change of a name is on its way at a time, so that its outcome can be told. A change whose
 * connection was lost, or that failed for reasons of the device, leaves the name unsure until the
 * next start. */
#include <stdlib.h>
#include <string.h>

#include "tests/gateways/kafka_sim_int.h"

struct change_call {
    struct sim_call call;
    unsigned name;
    bool by_metadata;
    bool renamed;
    bool weak; /* the device gave no promises when it was sent */
};

static struct change_call *change_new(struct kafka_sim *w, unsigned name, enum sim_change what,
                                      int32_t asked, sim_call_fn *fn)
{
    struct change_call *c = mem_new(sizeof *c);
    struct sim_name *n = &w->m.names[name];

    c->call.fn = fn;
    c->name = name;
    c->weak = kafka_sim_weak(w);
    for (const struct sim_topic *t = w->m.topics; t; t = t->next)
        c->renamed |= t->name == name;
    n->pending = what;
    n->asked = asked;
    if (what == SIM_CREATE)
        n->asked_codecs = SIM_AS_SENT;
    n->version++;
    return c;
}

static void unsure(struct kafka_sim *w, struct sim_name *n)
{
    n->unsure = true;
    n->version++;
    w->n->unsure++;
}

static void settled(struct sim_name *n)
{
    n->pending = SIM_NONE;
    n->unsure = false;
    n->version++;
}

/* A change was refused: only the end of the life, or the device, may do that. */
static void refused(struct kafka_sim *w, const struct change_call *c, int16_t error,
                    const char *what)
{
    struct sim_name *n = &w->m.names[c->name];

    if (!kafka_sim_excused(w, error) && !c->weak)
        kafka_sim_fail(w, "%s %s gave error %d", what, n->text, error);
    unsure(w, n);
}

static void made(struct kafka_sim *w, struct change_call *c, int32_t n_parts,
                 const struct kafka_uuid *id)
{
    struct sim_name *n = &w->m.names[c->name];

    n->now = sim_model_topic_new(&w->m, c->name, n_parts, n->asked_codecs);
    if (id)
        sim_model_topic_id(w, n->now, id);
    settled(n);
    w->n->renamed += c->renamed;
    SAY(w, "created %s with %d", n->text, (int)n_parts);
}

/* --- creating --- */

static bool may_create(const struct sim_name *n)
{
    return !n->now && n->pending == SIM_NONE && n->in_flight == 0;
}

static unsigned some_name(struct kafka_sim *w, bool (*fn)(const struct sim_name *n))
{
    unsigned first = (unsigned)below(w, SIM_NAMES);

    for (unsigned i = 0; i < SIM_NAMES; i++)
        if (fn(&w->m.names[(first + i) % SIM_NAMES]))
            return (first + i) % SIM_NAMES;
    return SIM_NAMES;
}

static void created(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_create_topics_response *a = answer;
    struct change_call *c = (struct change_call *)call;
    struct sim_name *n = &w->m.names[c->name];
    const struct kafka_create_topic_answer *t;

    if (!a) {
        unsure(w, n);
        return;
    }
    t = a->topics.at;
    if (a->topics.n != 1 || !kafka_str_is(t->name, n->text))
        kafka_sim_fail(w, "creating %s: an answer to something else", n->text);
    if (t->error_code) {
        refused(w, c, t->error_code, "creating");
        return;
    }
    if (call->version >= 5 && t->num_partitions != n->asked)
        kafka_sim_fail(w, "creating %s: %d partitions", n->text, (int)t->num_partitions);
    made(w, c, n->asked, call->version >= 7 ? &t->topic_id : NULL);
    w->n->created++;
}

/* A codec for its batches, or none. */
static void codec_ask(struct kafka_sim *w, struct kafka_arena *a, struct kafka_create_topic *t,
                      unsigned *codecs)
{
    static const char *const names[] = { "uncompressed", "gzip", "snappy", "lz4", "zstd" };
    unsigned i = (unsigned)below(w, 10);

    *codecs = i < CODEC_COUNT ? 1u << i : SIM_AS_SENT;
    if (i > CODEC_COUNT)
        return;
    t->configs.at = KAFKA_NEW(a, create_config, 1);
    t->configs.n = 1;
    t->configs.at->name = kafka_str_of("compression.type");
    t->configs.at->value = kafka_str_of(i < CODEC_COUNT ? names[i] : "producer");
}

void kafka_sim_create(struct kafka_sim *w)
{
    struct door_client *c = kafka_sim_client(w);
    unsigned name = some_name(w, may_create);
    struct kafka_arena a;
    struct kafka_create_topics_request *q;
    struct kafka_create_topic *t;
    struct change_call *change;

    if (!c || name == SIM_NAMES)
        return;
    kafka_arena_init(&a, 1 << 20);
    q = KAFKA_NEW(&a, create_topics_request, 1);
    t = KAFKA_NEW(&a, create_topic, 1);
    t->name = kafka_str_of(w->m.names[name].text);
    t->num_partitions = 1 + (int32_t)below(w, SIM_PARTITIONS);
    t->replication_factor = 1;
    q->topics.at = t;
    q->topics.n = 1;
    change = change_new(w, name, SIM_CREATE, t->num_partitions, created);
    codec_ask(w, &a, t, &w->m.names[name].asked_codecs);
    door_client_send(w, c, &change->call, CREATE_TOPICS, some_version(w, 2, 7), q);
    kafka_arena_fini(&a);
}

/* --- Metadata --- */

struct meta_call {
    struct change_call change; /* when it creates */
    unsigned versions[SIM_NAMES];
    bool creates, all;
    bool settles; /* at rest: unsure names become sure */
    bool failed;
};

/* What is told of a topic that is there for certain. */
static void topic_told(struct kafka_sim *w, struct sim_topic *t, int16_t version,
                       const struct kafka_metadata_topic_answer *a)
{
    if (version >= 10)
        sim_model_topic_id(w, t, &a->topic_id);
    if (a->partitions.n != t->n_parts)
        kafka_sim_fail(w, "%s has %d partitions, not %d", w->m.names[t->name].text,
                       (int)a->partitions.n, (int)t->n_parts);
    for (int32_t i = 0; i < t->n_parts; i++) {
        const struct kafka_metadata_partition_answer *p = &a->partitions.at[i];

        if (p->index != i || p->leader_id != 1 ||
            (p->error_code && !kafka_sim_excused(w, p->error_code) && !t->deleting))
            kafka_sim_fail(w, "%s-%d: error %d", w->m.names[t->name].text, (int)i, p->error_code);
    }
}

/* a NULL: the name was not among all. */
static void name_told(struct kafka_sim *w, unsigned name, int16_t version,
                      const struct kafka_metadata_topic_answer *a)
{
    struct sim_name *n = &w->m.names[name];
    bool there = a && a->error_code == 0;

    if (a && a->error_code && a->error_code != KAFKA_UNKNOWN_TOPIC_OR_PARTITION)
        kafka_sim_fail(w, "%s: error %d", n->text, a->error_code);
    if (there != (n->now != NULL))
        kafka_sim_fail(w, "%s is %sthere", n->text, there ? "" : "not ");
    if (there)
        topic_told(w, n->now, version, a);
}

/* After a start: what became of a change without an answer. */
static void unsure_told(struct kafka_sim *w, unsigned name,
                        const struct kafka_metadata_topic_answer *a)
{
    struct sim_name *n = &w->m.names[name];
    bool there = a && a->error_code == 0;
    struct change_call again = { .name = name };

    if (n->pending == SIM_CREATE && there) {
        for (const struct sim_topic *t = w->m.topics; t; t = t->next)
            again.renamed |= t->name == name;
        made(w, &again, n->asked, &a->topic_id);
    } else if (n->pending == SIM_DELETE && !there) {
        n->now->deleted = true;
        n->now = NULL;
    } else if (n->pending == SIM_DELETE) {
        n->now->deleting = false;
    } else if (n->pending == SIM_GROW && there && a->partitions.n == n->asked) {
        n->now->n_parts = n->asked;
    }
    settled(n);
    name_told(w, name, 12, a);
}

static const struct kafka_metadata_topic_answer *named(const struct kafka_metadata_response *a,
                                                       const char *name)
{
    for (int32_t i = 0; i < a->topics.n; i++)
        if (kafka_str_is(a->topics.at[i].name, name))
            return &a->topics.at[i];
    return NULL;
}

static void auto_created(struct kafka_sim *w, struct meta_call *c,
                         const struct kafka_metadata_response *a)
{
    struct sim_name *n = &w->m.names[c->change.name];
    const struct kafka_metadata_topic_answer *t = named(a, n->text);

    if (!t)
        kafka_sim_fail(w, "Metadata does not answer for %s", n->text);
    if (t->error_code) {
        refused(w, &c->change, t->error_code, "creating by Metadata");
        return;
    }
    made(w, &c->change, w->conf.default_partitions,
         c->change.call.version >= 10 ? &t->topic_id : NULL);
    topic_told(w, n->now, c->change.call.version, t);
    w->n->auto_created++;
}

static void metadata_told(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_metadata_response *a = answer;
    struct meta_call *c = (struct meta_call *)call;

    if (!a) {
        if (c->creates)
            unsure(w, &w->m.names[c->change.name]);
        c->failed = true;
        return;
    }
    if (a->brokers.n != 1 || a->brokers.at[0].node_id != 1)
        kafka_sim_fail(w, "Metadata does not name this one node");
    if (c->creates) {
        auto_created(w, c, a);
        return;
    }
    for (unsigned i = 0; i < SIM_NAMES; i++) {
        struct sim_name *n = &w->m.names[i];
        const struct kafka_metadata_topic_answer *t = named(a, n->text);

        if (!t && !c->all)
            continue;
        if (c->settles && n->unsure)
            unsure_told(w, i, t);
        else if (n->pending == SIM_NONE && n->version == c->versions[i])
            name_told(w, i, call->version, t);
    }
}

/* Names some, or all when name is SIM_NAMES. */
static const struct kafka_metadata_request *meta_ask(struct kafka_sim *w, struct kafka_arena *a,
                                                     struct meta_call *c, unsigned name,
                                                     int16_t version)
{
    struct kafka_metadata_request *q = KAFKA_NEW(a, metadata_request, 1);

    c->change.call.fn = metadata_told;
    c->all = name == SIM_NAMES;
    q->allow_auto_topic_creation = c->creates;
    for (unsigned i = 0; i < SIM_NAMES; i++)
        c->versions[i] = w->m.names[i].version;
    q->topics.n = version == 0 ? 0 : -1;
    if (c->all)
        return q;
    q->topics.at = KAFKA_NEW(a, metadata_topic, 1);
    q->topics.at->name = kafka_str_of(w->m.names[name].text);
    q->topics.n = 1;
    return q;
}

void kafka_sim_metadata(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct meta_call *c;
    struct kafka_arena a;
    unsigned name = (unsigned)below(w, SIM_NAMES + 1);
    int16_t version = some_version(w, name == SIM_NAMES ? 0 : 4, 13);

    if (!client)
        return;
    kafka_arena_init(&a, 1 << 20);
    c = mem_new(sizeof *c);
    door_client_send(w, client, &c->change.call, METADATA, version,
                     meta_ask(w, &a, c, name, version));
    kafka_arena_fini(&a);
}

void kafka_sim_auto_create(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    unsigned name = some_name(w, may_create);
    int16_t version = some_version(w, 0, 13);
    struct change_call *change;
    struct meta_call *c;
    struct kafka_arena a;

    if (!client || name == SIM_NAMES)
        return;
    kafka_arena_init(&a, 1 << 20);
    c = mem_new(sizeof *c);
    change = change_new(w, name, SIM_CREATE, w->conf.default_partitions, metadata_told);
    c->change = *change;
    free(change);
    c->creates = true;
    door_client_send(w, client, &c->change.call, METADATA, version,
                     meta_ask(w, &a, c, name, version));
    kafka_arena_fini(&a);
}

bool kafka_sim_topics_settle(struct kafka_sim *w, bool started_anew)
{
    struct meta_call *c = mem_new(sizeof *c);
    struct kafka_arena a;
    bool good;

    kafka_arena_init(&a, 1 << 20);
    c->settles = started_anew;
    good = kafka_sim_ask(w, &c->change.call, METADATA, 12, meta_ask(w, &a, c, SIM_NAMES, 12));
    kafka_arena_fini(&a);
    return good;
}

/* --- deleting --- */

static bool may_change(const struct sim_name *n)
{
    return n->now && n->pending == SIM_NONE;
}

static void deleted(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_delete_topics_response *a = answer;
    struct change_call *c = (struct change_call *)call;
    struct sim_name *n = &w->m.names[c->name];

    if (!a) {
        unsure(w, n);
        return;
    }
    if (a->topics.n != 1)
        kafka_sim_fail(w, "deleting %s: an answer to something else", n->text);
    if (a->topics.at[0].error_code) {
        refused(w, c, a->topics.at[0].error_code, "deleting");
        return;
    }
    n->now->deleted = true;
    n->now = NULL;
    settled(n);
    w->n->deleted++;
    SAY(w, "deleted %s", n->text);
}

void kafka_sim_delete_one(struct kafka_sim *w, struct door_client *c, unsigned name)
{
    int16_t version = some_version(w, 1, 6);
    struct sim_topic *t = w->m.names[name].now;
    struct kafka_arena a;
    struct kafka_delete_topics_request *q;

    kafka_arena_init(&a, 1 << 20);
    q = KAFKA_NEW(&a, delete_topics_request, 1);
    q->topic_names.at = kafka_arena_take(&a, sizeof *q->topic_names.at);
    q->topic_names.at[0] = kafka_str_of(w->m.names[name].text);
    q->topic_names.n = 1;
    q->topics.at = KAFKA_NEW(&a, delete_topic, 1);
    q->topics.n = 1;
    if (t->id_known && chance(w, 1, 2))
        q->topics.at->topic_id = t->id;
    else
        q->topics.at->name = q->topic_names.at[0];
    t->deleting = true;
    door_client_send(w, c, &change_new(w, name, SIM_DELETE, 0, deleted)->call, DELETE_TOPICS,
                     version, q);
    kafka_arena_fini(&a);
}

void kafka_sim_delete(struct kafka_sim *w)
{
    struct door_client *c = kafka_sim_client(w);
    unsigned name = some_name(w, may_change);

    if (c && name < SIM_NAMES && w->deletes)
        kafka_sim_delete_one(w, c, name);
}

/* --- growing --- */

static bool may_grow(const struct sim_name *n)
{
    return may_change(n) && n->now->n_parts < SIM_PARTITIONS;
}

static void grown(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_create_partitions_response *a = answer;
    struct change_call *c = (struct change_call *)call;
    struct sim_name *n = &w->m.names[c->name];

    if (!a) {
        unsure(w, n);
        return;
    }
    if (a->topics.n != 1 || !kafka_str_is(a->topics.at[0].name, n->text))
        kafka_sim_fail(w, "growing %s: an answer to something else", n->text);
    if (a->topics.at[0].error_code) {
        refused(w, c, a->topics.at[0].error_code, "growing");
        return;
    }
    n->now->n_parts = n->asked;
    settled(n);
    w->n->grown++;
}

void kafka_sim_grow(struct kafka_sim *w)
{
    struct door_client *c = kafka_sim_client(w);
    unsigned name = some_name(w, may_grow);
    struct kafka_arena a;
    struct kafka_create_partitions_request *q;
    struct kafka_partitions_topic *t;

    if (!c || name == SIM_NAMES)
        return;
    kafka_arena_init(&a, 1 << 20);
    q = KAFKA_NEW(&a, create_partitions_request, 1);
    t = KAFKA_NEW(&a, partitions_topic, 1);
    t->name = kafka_str_of(w->m.names[name].text);
    t->count = w->m.names[name].now->n_parts + 1;
    t->assignments.n = -1;
    q->topics.at = t;
    q->topics.n = 1;
    door_client_send(w, c, &change_new(w, name, SIM_GROW, t->count, grown)->call, CREATE_PARTITIONS,
                     some_version(w, 0, 3), q);
    kafka_arena_fini(&a);
}
