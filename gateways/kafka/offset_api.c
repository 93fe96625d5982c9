/* OffsetCommit, OffsetFetch, OffsetDelete. */
#include <string.h>

#include "base/rd.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/group_api.h"
#include "gateways/kafka/partition.h"

enum {
    GROUPS_FROM = 8, /* OffsetFetch versions */
    GROUP_ERROR_FROM = 2,
    TOPIC_IDS_FROM = 10, /* also of OffsetCommit */
    OFFSET_METADATA_TOO_LARGE = 12,
    GROUP_SUBSCRIBED_TO_TOPIC = 86
};

/* ---- OffsetCommit
 * ----------------------------------------------------------------------------- */

struct commit_op {
    struct kafka_group_op op;
    struct offsets_commit commit;
    struct offset_entry *entries;
};

/* Gives error to all partitions that have none of their own. */
static void commit_fill(struct kafka_offset_commit_response *a, int16_t error)
{
    for (int32_t i = 0; i < a->topics.n; i++)
        for (int32_t k = 0; k < a->topics.at[i].partitions.n; k++)
            if (!a->topics.at[i].partitions.at[k].error_code)
                a->topics.at[i].partitions.at[k].error_code = error;
}

static void commit_done(struct offsets_commit *c)
{
    struct commit_op *op = (struct commit_op *)((char *)c - offsetof(struct commit_op, commit));

    commit_fill(op->op.answer, kafka_group_error(c->rc));
    kafka_answer(op->op.r, op->op.answer);
}

static void commit_home(struct kafka_group_op *o)
{
    const struct kafka_offset_commit_request *q = o->r->body;
    struct commit_op *op = (struct commit_op *)o;
    int16_t error = consumer_group_may_commit(
        o->r->kafka->groups,
        &(struct group_beat){ .group = kafka_group_bytes(q->group_id),
                              .generation = q->generation_id,
                              .member_id = kafka_group_bytes(q->member_id),
                              .instance_id = kafka_group_bytes(q->group_instance_id) });

    if (error || !op->commit.n) {
        commit_fill(o->answer, error);
        kafka_group_op_back(o);
        return;
    }
    offsets_commit(o->r->kafka->offsets, &op->commit);
}

static int16_t commit_partition_error(const struct kafka_offset_commit_partition *p,
                                      const struct topic *t)
{
    if (p->partition_index < 0 || (uint32_t)p->partition_index >= t->n_partitions)
        return KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    return p->committed_metadata.len > OFFSETS_METADATA_MAX ? OFFSET_METADATA_TOO_LARGE
                                                            : KAFKA_NONE;
}

/* Answers one topic's partitions so far, and gathers what may be written. False: out of memory. */
static bool commit_topic(struct commit_op *op, const struct kafka_offset_commit_topic *q,
                         struct kafka_offset_committed_topic *a)
{
    struct kafka_request *r = op->op.r;
    int16_t error = 0;
    struct topic *t =
        kafka_topic_of(r->kafka, q->name, &q->topic_id, r->form.version >= TOPIC_IDS_FROM, &error);
    char *name = t ? kafka_arena_take(&r->arena, t->name_bytes + 1) : NULL;

    a->name = q->name;
    a->topic_id = q->topic_id;
    a->partitions.n = q->partitions.n;
    a->partitions.at = kafka_message_new(&r->arena, &kafka_offset_committed_partition_schema,
                                         (size_t)q->partitions.n);
    if (name)
        memcpy(name, t->name, t->name_bytes);
    for (int32_t i = 0; a->partitions.at && i < q->partitions.n; i++) {
        const struct kafka_offset_commit_partition *p = &q->partitions.at[i];

        a->partitions.at[i].partition_index = p->partition_index;
        a->partitions.at[i].error_code = t ? commit_partition_error(p, t) : error;
        if (!name || a->partitions.at[i].error_code)
            continue;
        op->entries[op->commit.n] = (struct offset_entry){
            .topic = { name, (int32_t)t->name_bytes },
            .partition = p->partition_index,
            .offset = p->committed_offset,
            .leader_epoch = p->committed_leader_epoch,
            .metadata = kafka_group_bytes(p->committed_metadata),
        };
        memcpy(op->entries[op->commit.n++].topic_id, t->id, OFFSETS_TOPIC_ID_BYTES);
    }
    error = a->partitions.at && (name || !t);
    topic_unref(t);
    return error;
}

void kafka_offset_commit(struct kafka_request *r)
{
    const struct kafka_offset_commit_request *q = r->body;
    struct commit_op *op = kafka_group_op_new(r, sizeof *op, commit_home);
    struct kafka_offset_commit_response *a;
    size_t n = 0;

    if (!op)
        return;
    a = op->op.answer;
    for (int32_t i = 0; i < q->topics.n; i++)
        n += (size_t)q->topics.at[i].partitions.n;
    op->entries = kafka_take(r, n + 1, sizeof *op->entries);
    if (!op->entries)
        return;
    a->topics.n = q->topics.n;
    a->topics.at = KAFKA_ANSWERS(r, offset_committed_topic, q->topics.n);
    if (!a->topics.at)
        return;
    op->commit = (struct offsets_commit){ .fn = commit_done,
                                          .loop = r->loop,
                                          .group = kafka_group_bytes(q->group_id),
                                          .entries = op->entries };
    for (int32_t i = 0; i < q->topics.n; i++)
        if (!commit_topic(op, &q->topics.at[i], &a->topics.at[i])) {
            kafka_refuse(r);
            return;
        }
    kafka_group_op_go(&op->op);
}

/* ---- OffsetFetch
 * ------------------------------------------------------------------------------ */

static void fetch_partition(struct kafka_group_op *op, struct kafka_offset_fetched_partition *a,
                            int32_t partition, const struct offset_row *row)
{
    a->partition_index = partition;
    a->committed_offset = row ? row->offset : -1;
    a->committed_leader_epoch = row ? row->leader_epoch : -1;
    a->metadata = KAFKA_STR("");
    if (row && row->metadata.bytes > 0)
        a->metadata = kafka_group_op_keep(op, row->metadata);
}

/* A row of a topic that was deleted, and perhaps made anew under the same name, is not there. */
static bool row_counts(const struct offset_row *row, const struct topic *t)
{
    static const uint8_t none[OFFSETS_TOPIC_ID_BYTES];

    return t && (memcmp(row->topic_id, none, sizeof none) == 0 ||
                 memcmp(row->topic_id, t->id, sizeof none) == 0);
}

static void fetch_topic(struct kafka_group_op *op, struct group_bytes group,
                        const struct kafka_offset_fetch_topic *q,
                        struct kafka_offset_fetched_topic *a)
{
    struct kafka *k = op->r->kafka;
    bool by_id = op->r->form.version >= TOPIC_IDS_FROM;
    int16_t error = 0;
    struct topic *t = kafka_topic_of(k, q->name, &q->topic_id, by_id, &error);

    a->name = q->name;
    a->topic_id = q->topic_id;
    a->partitions.n = q->partition_indexes.n;
    a->partitions.at = KAFKA_OP_ARRAY(op, offset_fetched_partition, q->partition_indexes.n);
    for (int32_t i = 0; a->partitions.at && i < q->partition_indexes.n; i++) {
        int32_t partition = q->partition_indexes.at[i];
        struct offset_row row;
        bool found =
            t &&
            offsets_find(k->offsets, group, (struct group_bytes){ t->name, (int32_t)t->name_bytes },
                         partition, &row) &&
            row_counts(&row, t);

        fetch_partition(op, &a->partitions.at[i], partition, found ? &row : NULL);
        if (!t && by_id) /* by name, what is not known has no offset, and that is no error */
            a->partitions.at[i].error_code = error;
    }
    topic_unref(t);
}

struct fetching_all {
    struct kafka_group_op *op;
    struct kafka_offset_fetched_topic *topics; /* NULL: only count */
    struct kafka_offset_fetched_partition *partitions;
    int32_t n_topics;
    size_t n_partitions;
    const void *name; /* of the topic before */
    struct topic *topic;
};

/* Rows of one topic come together. */
static void fetch_row(void *ctx, const struct offset_row *row)
{
    struct fetching_all *f = ctx;
    bool next = f->name != row->topic.mem;
    struct kafka_offset_fetched_topic *a;

    if (next) {
        topic_unref(f->topic);
        f->topic = topics_find(f->op->r->kafka->topics, row->topic.mem, (size_t)row->topic.bytes);
        f->name = row->topic.mem;
        f->n_topics++;
    }
    f->n_partitions++;
    if (!f->topics)
        return;
    a = &f->topics[f->n_topics - 1];
    if (next) {
        a->name = kafka_group_op_keep(f->op, row->topic);
        memcpy(a->topic_id.bytes, row->topic_id, sizeof a->topic_id.bytes);
        a->partitions.at = f->partitions;
    }
    if (!row_counts(row, f->topic))
        return;
    fetch_partition(f->op, f->partitions++, row->partition, row);
    a->partitions.n++;
}

static void fetch_all(struct kafka_group_op *op, struct group_bytes group,
                      struct kafka_offset_fetched_group *a)
{
    struct fetching_all f = { .op = op };
    struct offsets *o = op->r->kafka->offsets;
    int32_t kept = 0;

    offsets_each(o, group, fetch_row, &f);
    topic_unref(f.topic);
    a->topics.at = KAFKA_OP_ARRAY(op, offset_fetched_topic, f.n_topics);
    f = (struct fetching_all){
        .op = op,
        .topics = a->topics.at,
        .partitions = KAFKA_OP_ARRAY(op, offset_fetched_partition, f.n_partitions),
    };
    if (!f.topics || !f.partitions)
        return;
    offsets_each(o, group, fetch_row, &f);
    topic_unref(f.topic);
    for (int32_t i = 0; i < f.n_topics; i++) /* topics of which nothing counts are left out */
        if (f.topics[i].partitions.n)
            f.topics[kept++] = f.topics[i];
    a->topics.n = kept;
}

/* topics_n -1: all. */
static void fetch_group(struct kafka_group_op *op, struct group_bytes group,
                        const struct kafka_offset_fetch_topic *topics, int32_t n,
                        struct kafka_offset_fetched_group *a)
{
    a->error_code = kafka_group_error(offsets_state(op->r->kafka->offsets));
    if (a->error_code && op->r->form.version >= GROUP_ERROR_FROM)
        return;
    if (n < 0) {
        fetch_all(op, group, a);
        return;
    }
    a->topics.n = n;
    a->topics.at = KAFKA_OP_ARRAY(op, offset_fetched_topic, n);
    for (int32_t i = 0; op->answer && i < n; i++)
        fetch_topic(op, group, &topics[i], &a->topics.at[i]);
}

static void fetch_one_group(struct kafka_group_op *op)
{
    const struct kafka_offset_fetch_request *q = op->r->body;
    struct kafka_offset_fetch_response *a = op->answer;
    struct kafka_offset_fetched_group g = { 0 };

    fetch_group(op, kafka_group_bytes(q->group_id), q->topics.at, q->topics.n, &g);
    if (!op->answer)
        return;
    a->error_code = g.error_code;
    a->topics.at = g.topics.at;
    a->topics.n = g.topics.n;
    if (op->r->form.version >= GROUP_ERROR_FROM || !g.error_code)
        return;
    for (int32_t i = 0; i < g.topics.n; i++) /* version 1 has no other place for it */
        for (int32_t k = 0; k < g.topics.at[i].partitions.n; k++)
            g.topics.at[i].partitions.at[k].error_code = g.error_code;
}

static void fetch_home(struct kafka_group_op *op)
{
    const struct kafka_offset_fetch_request *q = op->r->body;
    struct kafka_offset_fetch_response *a = op->answer;

    if (op->r->form.version < GROUPS_FROM) {
        fetch_one_group(op);
        kafka_group_op_back(op);
        return;
    }
    a->groups.n = q->groups.n;
    a->groups.at = KAFKA_OP_ARRAY(op, offset_fetched_group, q->groups.n);
    for (int32_t i = 0; op->answer && i < q->groups.n; i++) {
        const struct kafka_offset_fetch_group *g = &q->groups.at[i];

        a->groups.at[i].group_id = g->group_id;
        fetch_group(op, kafka_group_bytes(g->group_id), g->topics.at, g->topics.n,
                    &a->groups.at[i]);
    }
    kafka_group_op_back(op);
}

/* require_stable asks to wait for open transactions: there are none. */
void kafka_offset_fetch(struct kafka_request *r)
{
    struct kafka_group_op *op = kafka_group_op_new(r, sizeof *op, fetch_home);

    if (!op)
        return;
    kafka_promise(r, r->kafka->conf.fetch_max); /* a small request, perhaps a large answer */
    kafka_group_op_go(op);
}

/* ---- OffsetDelete
 * ----------------------------------------------------------------------------- */

struct offset_delete_op {
    struct kafka_group_op op;
    struct offsets_commit removal;
    struct offset_entry *entries;
};

struct subscribed {
    struct kafka_str topic;
    bool yes;
};

/* Does a member subscribe to the topic? Its metadata, for protocol type "consumer": i16 version,
 * i32 n, n strings (i16 length) (ConsumerProtocolSubscription). What cannot be read counts as a
 * yes. */
static void subscribes(void *ctx, const struct group_member *m)
{
    struct subscribed *s = ctx;
    struct rd r = rd_of(m->metadata.mem, (size_t)(m->metadata.bytes < 0 ? 0 : m->metadata.bytes));
    uint32_t n;

    rd_u16be(&r);
    n = rd_u32be(&r);
    for (uint32_t i = 0; rd_ok(&r) && i < n && !s->yes; i++) {
        uint16_t bytes = rd_u16be(&r);
        const uint8_t *name = rd_bytes(&r, bytes);

        s->yes = name && bytes == s->topic.len && memcmp(name, s->topic.mem, bytes) == 0;
    }
    s->yes |= !rd_ok(&r);
}

/* The error of the group as a whole. A group of consumers may lose offsets of topics that no member
 * subscribes to. */
static int16_t may_delete_offsets(struct kafka *k, struct group_bytes group, bool *in_use)
{
    struct consumer_group_info i;

    *in_use = consumer_group_in_use(k->groups, group);
    if (!consumer_group_find(k->groups, group, &i))
        return offsets_has_group(k->offsets, group) ? GROUP_OK : GROUP_NOT_FOUND;
    return *in_use && !group_bytes_equal(i.protocol_type, group_text("consumer")) ? GROUP_NON_EMPTY
                                                                                  : GROUP_OK;
}

static void offset_delete_done(struct offsets_commit *c)
{
    struct offset_delete_op *op =
        (struct offset_delete_op *)((char *)c - offsetof(struct offset_delete_op, removal));
    struct kafka_offset_delete_response *a = op->op.answer;

    a->error_code = kafka_group_error(c->rc);
    kafka_answer(op->op.r, a);
}

static void offset_delete_topic(struct offset_delete_op *op,
                                const struct kafka_offset_delete_topic *q,
                                struct kafka_offset_deleted_topic *a, bool in_use)
{
    struct kafka *k = op->op.r->kafka;
    struct subscribed s = { .topic = q->name };

    a->name = q->name;
    a->partitions.n = q->partitions.n;
    a->partitions.at = KAFKA_OP_ARRAY(&op->op, offset_deleted_partition, q->partitions.n);
    if (in_use)
        consumer_group_each_member(k->groups, op->removal.group, subscribes, &s);
    for (int32_t i = 0; a->partitions.at && i < q->partitions.n; i++) {
        a->partitions.at[i].partition_index = q->partitions.at[i].partition_index;
        if (s.yes)
            a->partitions.at[i].error_code = GROUP_SUBSCRIBED_TO_TOPIC;
        else if (q->partitions.at[i].partition_index < 0)
            a->partitions.at[i].error_code = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        else
            op->entries[op->removal.n++] =
                (struct offset_entry){ .topic = kafka_group_bytes(q->name),
                                       .partition = q->partitions.at[i].partition_index,
                                       .metadata = GROUP_NULL };
    }
}

static void offset_delete_home(struct kafka_group_op *o)
{
    const struct kafka_offset_delete_request *q = o->r->body;
    struct kafka_offset_delete_response *a = o->answer;
    struct offset_delete_op *op = (struct offset_delete_op *)o;
    bool in_use;

    a->error_code = may_delete_offsets(o->r->kafka, op->removal.group, &in_use);
    if (!a->error_code) {
        a->topics.n = q->topics.n;
        a->topics.at = KAFKA_OP_ARRAY(o, offset_deleted_topic, q->topics.n);
    }
    for (int32_t i = 0; a->topics.at && o->answer && i < a->topics.n; i++)
        offset_delete_topic(op, &q->topics.at[i], &a->topics.at[i], in_use);
    if (!op->removal.n || !o->answer)
        kafka_group_op_back(o);
    else
        offsets_remove(o->r->kafka->offsets, &op->removal);
}

void kafka_offset_delete(struct kafka_request *r)
{
    const struct kafka_offset_delete_request *q = r->body;
    struct offset_delete_op *op = kafka_group_op_new(r, sizeof *op, offset_delete_home);
    size_t n = 0;

    if (!op)
        return;
    for (int32_t i = 0; i < q->topics.n; i++)
        n += (size_t)q->topics.at[i].partitions.n;
    op->entries = kafka_take(r, n + 1, sizeof *op->entries);
    if (!op->entries)
        return;
    op->removal = (struct offsets_commit){ .fn = offset_delete_done,
                                           .loop = r->loop,
                                           .group = kafka_group_bytes(q->group_id),
                                           .entries = op->entries };
    kafka_group_op_go(&op->op);
}
