/* JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups, DeleteGroups. */
#include "gateways/kafka/group_api.h"

#include <string.h>
#include <strings.h>

#include "gateways/kafka/errors.h"

enum {
    KNOWN_ID_FROM = 4,  /* JoinGroup versions */
    NULL_NAME_FROM = 7, /* the protocol's name may be null */
    SKIP_FROM = 9,
    LEAVE_MANY_FROM = 3,
    INVALID_COMMIT_OFFSET_SIZE = 28,
    DESCRIBE_NOT_FOUND_FROM = 6 /* before, a group that is not there is "Dead" */
};

/* ---- over home and back
 * ----------------------------------------------------------------------- */

static void op_answer(struct task *t)
{
    struct kafka_group_op *op = (struct kafka_group_op *)t;

    if (op->answer)
        kafka_answer(op->r, op->answer);
    else
        kafka_refuse(op->r);
}

void kafka_group_op_back(struct kafka_group_op *op)
{
    op->task.run = op_answer;
    loop_post(op->r->loop, &op->task);
}

static void op_home(struct task *t)
{
    struct kafka_group_op *op = (struct kafka_group_op *)t;

    op->home(op);
}

void *kafka_group_op_new(struct kafka_request *r, size_t bytes,
                         void (*home)(struct kafka_group_op *op))
{
    struct kafka_group_op *op = kafka_take(r, 1, bytes);

    if (!op)
        return NULL;
    op->r = r;
    op->home = home;
    op->answer = kafka_response_new(r);
    return op->answer ? op : NULL;
}

void kafka_group_op_go(struct kafka_group_op *op)
{
    op->task.run = op_home;
    loop_post(op->r->kafka->home, &op->task);
}

static void op_run(struct kafka_request *r, void (*home)(struct kafka_group_op *op))
{
    struct kafka_group_op *op = kafka_group_op_new(r, sizeof *op, home);

    if (op)
        kafka_group_op_go(op);
}

void *kafka_group_op_array(struct kafka_group_op *op, const struct schema *s, size_t n)
{
    void *mem = kafka_message_new(&op->r->arena, s, n);

    if (!mem)
        op->answer = NULL;
    return mem;
}

struct kafka_str kafka_group_op_keep(struct kafka_group_op *op, struct group_bytes b)
{
    char *mem;

    if (b.bytes < 0)
        return KAFKA_NULL;
    mem = kafka_arena_take(&op->r->arena, (size_t)b.bytes + 1);
    if (!mem) {
        op->answer = NULL;
        return KAFKA_STR("");
    }
    if (b.bytes)
        memcpy(mem, b.mem, (size_t)b.bytes);
    return (struct kafka_str){ mem, b.bytes };
}

static struct kafka_bytes keep_bytes(struct kafka_group_op *op, struct group_bytes b)
{
    struct kafka_str s = kafka_group_op_keep(op, b);

    return (struct kafka_bytes){ (const uint8_t *)s.mem, s.len };
}

static struct kafka_str str_of(struct group_bytes b)
{
    return (struct kafka_str){ b.mem, b.bytes };
}

int16_t kafka_group_error(int rc)
{
    if (rc >= 0)
        return KAFKA_NONE;
    if (rc == E_BUSY)
        return KAFKA_COORDINATOR_LOADING;
    if (rc == E_INVALID)
        return KAFKA_INVALID_REQUEST;
    if (rc == E_TOOBIG)
        return INVALID_COMMIT_OFFSET_SIZE;
    /* A full disk or a failed device: clients look the coordinator up again and retry. Data codes
     * would end them. */
    return KAFKA_COORDINATOR_NOT_AVAILABLE;
}

/* ---- JoinGroup
 * -------------------------------------------------------------------------------- */

/* A request that may wait for other members, and so may outlive its client's patience. */
struct waiting_op {
    struct kafka_group_op op;
    struct task cancel;
    void (*give_up)(struct waiting_op *w); /* on home */
};

static void op_dropped(struct task *t)
{
    kafka_request_drop(
        ((struct waiting_op *)((char *)t - offsetof(struct waiting_op, cancel)))->op.r);
}

static void op_cancel(struct task *t)
{
    struct waiting_op *w = (struct waiting_op *)((char *)t - offsetof(struct waiting_op, cancel));

    w->give_up(w);
    t->run = op_dropped;
    loop_post(w->op.r->loop, t);
}

/* The client is gone. The answer may be on its way already, so the request is held until the
 * cancel has been home. */
static void op_gone(struct kafka_request *r)
{
    struct waiting_op *w = r->own;

    kafka_request_hold(r);
    w->cancel.run = op_cancel;
    loop_post(r->kafka->home, &w->cancel);
}

static void op_wait(struct waiting_op *w, void (*give_up)(struct waiting_op *w))
{
    w->give_up = give_up;
    w->op.r->own = w;
    w->op.r->gone = op_gone;
    kafka_group_op_go(&w->op);
}

struct join_op {
    struct waiting_op w;
    struct group_join join;
};

static bool join_members(struct kafka_request *r, struct kafka_join_group_response *a,
                         const struct group_join *j)
{
    a->members.n = (int32_t)j->n_members;
    a->members.at = KAFKA_ANSWERS(r, join_group_member, j->n_members);
    for (unsigned i = 0; a->members.at && i < j->n_members; i++) {
        struct kafka_join_group_member *m = &a->members.at[i];
        struct group_bytes metadata = j->members[i].metadata;

        m->member_id = str_of(j->members[i].id);
        m->group_instance_id = str_of(j->members[i].instance_id);
        m->metadata = (struct kafka_bytes){ metadata.mem, metadata.bytes };
    }
    return a->members.at != NULL;
}

static void join_answered(struct group_join *j)
{
    struct join_op *op = (struct join_op *)((char *)j - offsetof(struct join_op, join));
    struct kafka_request *r = op->w.op.r;
    struct kafka_join_group_response *a = op->w.op.answer;

    a->error_code = j->error;
    a->generation_id = j->generation;
    a->protocol_type = str_of(j->chosen_type);
    a->protocol_name = str_of(j->chosen);
    if (a->protocol_name.len < 0 && r->form.version < NULL_NAME_FROM)
        a->protocol_name = KAFKA_STR("");
    a->leader = str_of(j->leader);
    a->skip_assignment = j->skip_assignment;
    a->member_id = str_of(j->your_id);
    if (join_members(r, a, j))
        kafka_answer(r, a);
}

static void join_give_up(struct waiting_op *w)
{
    consumer_group_join_cancel(w->op.r->kafka->groups, &((struct join_op *)w)->join);
}

static void join_home(struct kafka_group_op *op)
{
    consumer_group_join(op->r->kafka->groups, &((struct join_op *)op)->join);
}

/* As Kafka shows it: "/127.0.0.1". */
static struct group_bytes client_host(struct kafka_request *r)
{
    struct kafka_str host = kafka_client_host(r);
    char *mem = kafka_arena_take(&r->arena, (size_t)host.len + 1);

    if (!mem)
        return group_text("");
    mem[0] = '/';
    memcpy(mem + 1, host.mem, (size_t)host.len);
    return (struct group_bytes){ mem, host.len + 1 };
}

static bool join_fill(struct kafka_request *r, struct group_join *j)
{
    const struct kafka_join_group_request *q = r->body;
    struct group_protocol *p = kafka_take(r, (size_t)q->protocols.n + 1, sizeof *p);

    for (int32_t i = 0; p && i < q->protocols.n; i++) {
        p[i].name = kafka_group_bytes(q->protocols.at[i].name);
        p[i].metadata = (struct group_bytes){ q->protocols.at[i].metadata.mem,
                                              q->protocols.at[i].metadata.len };
    }
    *j = (struct group_join){ .fn = join_answered,
                              .loop = r->loop,
                              .group = kafka_group_bytes(q->group_id),
                              .member_id = kafka_group_bytes(q->member_id),
                              .instance_id = kafka_group_bytes(q->group_instance_id),
                              .client_id = kafka_group_bytes(r->client_id),
                              .client_host = client_host(r),
                              .protocol_type = kafka_group_bytes(q->protocol_type),
                              .protocols = p,
                              .n_protocols = (unsigned)q->protocols.n,
                              .session_timeout_ms = q->session_timeout_ms,
                              .rebalance_timeout_ms = q->rebalance_timeout_ms,
                              .known_id_required = r->form.version >= KNOWN_ID_FROM,
                              .can_skip_assignment = r->form.version >= SKIP_FROM };
    return p != NULL;
}

void kafka_join_group(struct kafka_request *r)
{
    struct join_op *op = kafka_group_op_new(r, sizeof *op, join_home);

    if (!op || !join_fill(r, &op->join))
        return;
    op_wait(&op->w, join_give_up);
}

/* ---- SyncGroup
 * -------------------------------------------------------------------------------- */

struct sync_op {
    struct waiting_op w;
    struct group_sync sync;
};

static void sync_answered(struct group_sync *s)
{
    struct sync_op *op = (struct sync_op *)((char *)s - offsetof(struct sync_op, sync));
    struct kafka_sync_group_response *a = op->w.op.answer;

    a->error_code = s->error;
    a->protocol_type = str_of(s->chosen_type);
    a->protocol_name = str_of(s->chosen);
    a->assignment = (struct kafka_bytes){ s->assignment.mem, s->assignment.bytes };
    kafka_answer(op->w.op.r, a);
}

static void sync_give_up(struct waiting_op *w)
{
    consumer_group_sync_cancel(w->op.r->kafka->groups, &((struct sync_op *)w)->sync);
}

static void sync_home(struct kafka_group_op *op)
{
    consumer_group_sync(op->r->kafka->groups, &((struct sync_op *)op)->sync);
}

void kafka_sync_group(struct kafka_request *r)
{
    const struct kafka_sync_group_request *q = r->body;
    struct sync_op *op = kafka_group_op_new(r, sizeof *op, sync_home);
    struct group_assignment *all =
        op ? kafka_take(r, (size_t)q->assignments.n + 1, sizeof *all) : NULL;

    if (!all)
        return;
    for (int32_t i = 0; i < q->assignments.n; i++) {
        all[i].member_id = kafka_group_bytes(q->assignments.at[i].member_id);
        all[i].assignment = (struct group_bytes){ q->assignments.at[i].assignment.mem,
                                                  q->assignments.at[i].assignment.len };
    }
    op->sync = (struct group_sync){ .fn = sync_answered,
                                    .loop = r->loop,
                                    .group = kafka_group_bytes(q->group_id),
                                    .generation = q->generation_id,
                                    .member_id = kafka_group_bytes(q->member_id),
                                    .instance_id = kafka_group_bytes(q->group_instance_id),
                                    .protocol_type = kafka_group_bytes(q->protocol_type),
                                    .protocol = kafka_group_bytes(q->protocol_name),
                                    .assignments = all,
                                    .n_assignments = (unsigned)q->assignments.n };
    op_wait(&op->w, sync_give_up);
}

/* ---- Heartbeat, LeaveGroup
 * -------------------------------------------------------------------- */

static void heartbeat_home(struct kafka_group_op *op)
{
    const struct kafka_heartbeat_request *q = op->r->body;
    struct kafka_heartbeat_response *a = op->answer;

    a->error_code = consumer_group_heartbeat(
        op->r->kafka->groups,
        &(struct group_beat){ .group = kafka_group_bytes(q->group_id),
                              .generation = q->generation_id,
                              .member_id = kafka_group_bytes(q->member_id),
                              .instance_id = kafka_group_bytes(q->group_instance_id) });
    kafka_group_op_back(op);
}

void kafka_heartbeat(struct kafka_request *r)
{
    op_run(r, heartbeat_home);
}

static void leave_one(struct kafka_group_op *op)
{
    const struct kafka_leave_group_request *q = op->r->body;
    struct kafka_leave_group_response *a = op->answer;
    struct group_leaver l = { .member_id = kafka_group_bytes(q->member_id),
                              .instance_id = GROUP_NULL };

    a->error_code =
        consumer_group_leave(op->r->kafka->groups, kafka_group_bytes(q->group_id), &l, 1);
    if (!a->error_code)
        a->error_code = l.error;
}

static void leave_many(struct kafka_group_op *op)
{
    const struct kafka_leave_group_request *q = op->r->body;
    struct kafka_leave_group_response *a = op->answer;
    unsigned n = (unsigned)q->members.n;
    struct kafka_left_group_member *left = KAFKA_OP_ARRAY(op, left_group_member, n);
    struct group_leaver *l = kafka_arena_take(&op->r->arena, (n + 1) * sizeof *l);

    if (!left || !l) {
        op->answer = NULL;
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        l[i].member_id = kafka_group_bytes(q->members.at[i].member_id);
        l[i].instance_id = kafka_group_bytes(q->members.at[i].group_instance_id);
    }
    a->error_code =
        consumer_group_leave(op->r->kafka->groups, kafka_group_bytes(q->group_id), l, n);
    if (a->error_code)
        return;
    a->members.n = (int32_t)n;
    a->members.at = left;
    for (unsigned i = 0; i < n; i++) {
        left[i].member_id = q->members.at[i].member_id;
        left[i].group_instance_id = q->members.at[i].group_instance_id;
        left[i].error_code = l[i].error;
    }
}

static void leave_home(struct kafka_group_op *op)
{
    if (op->r->form.version < LEAVE_MANY_FROM)
        leave_one(op);
    else
        leave_many(op);
    kafka_group_op_back(op);
}

void kafka_leave_group(struct kafka_request *r)
{
    op_run(r, leave_home);
}

/* ---- DescribeGroups
 * --------------------------------------------------------------------------- */

struct describing {
    struct kafka_group_op *op;
    struct kafka_described_member *at;
    bool stable;
};

static void describe_member(void *ctx, const struct group_member *m)
{
    struct describing *d = ctx;
    struct kafka_described_member *a = d->at++;

    a->member_id = kafka_group_op_keep(d->op, m->id);
    a->group_instance_id = kafka_group_op_keep(d->op, m->instance_id);
    a->client_id = kafka_group_op_keep(d->op, m->client_id);
    if (a->client_id.len < 0)
        a->client_id = KAFKA_STR("");
    a->client_host = kafka_group_op_keep(d->op, m->client_host);
    if (d->stable) {
        a->member_metadata = keep_bytes(d->op, m->metadata);
        a->member_assignment = keep_bytes(d->op, m->assignment);
    }
}

static void describe_missing(struct kafka_group_op *op, struct kafka_described_group *a)
{
    if (offsets_has_group(op->r->kafka->offsets, kafka_group_bytes(a->group_id))) {
        a->group_state = KAFKA_STR("Empty");
        return;
    }
    a->group_state = KAFKA_STR("Dead");
    if (op->r->form.version >= DESCRIBE_NOT_FOUND_FROM) {
        a->error_code = GROUP_NOT_FOUND;
        a->error_message = KAFKA_STR("no such group");
    }
}

static void describe_one(struct kafka_group_op *op, struct kafka_described_group *a)
{
    struct consumer_groups *gs = op->r->kafka->groups;
    struct describing d = { .op = op };
    struct consumer_group_info i;

    if (!consumer_group_find(gs, kafka_group_bytes(a->group_id), &i)) {
        describe_missing(op, a);
        return;
    }
    a->group_state = kafka_str_of(consumer_group_state_name(i.state));
    if (i.protocol_type.bytes >= 0)
        a->protocol_type = kafka_group_op_keep(op, i.protocol_type);
    d.stable = i.state == GROUP_STABLE;
    if (d.stable)
        a->protocol_data = kafka_group_op_keep(op, i.protocol);
    d.at = KAFKA_OP_ARRAY(op, described_member, i.n_members);
    if (!d.at)
        return;
    a->members.at = d.at;
    a->members.n = (int32_t)i.n_members;
    consumer_group_each_member(gs, kafka_group_bytes(a->group_id), describe_member, &d);
}

static void describe_home(struct kafka_group_op *op)
{
    const struct kafka_describe_groups_request *q = op->r->body;
    struct kafka_describe_groups_response *a = op->answer;

    a->groups.n = q->groups.n;
    a->groups.at = KAFKA_OP_ARRAY(op, described_group, q->groups.n);
    for (int32_t i = 0; op->answer && i < q->groups.n; i++) {
        a->groups.at[i].group_id = q->groups.at[i];
        describe_one(op, &a->groups.at[i]);
    }
    kafka_group_op_back(op);
}

void kafka_describe_groups(struct kafka_request *r)
{
    kafka_promise(r, r->kafka->conf.fetch_max);
    op_run(r, describe_home);
}

/* ---- ListGroups
 * ------------------------------------------------------------------------------- */

struct listing {
    struct kafka_group_op *op;
    struct kafka_listed_group *at; /* NULL: only count */
    int32_t n;
};

static bool filter_has(const struct kafka_strs *filter, const char *text)
{
    for (int32_t i = 0; i < filter->n; i++)
        if ((size_t)filter->at[i].len == strlen(text) &&
            strncasecmp(filter->at[i].mem, text, strlen(text)) == 0)
            return true;
    return filter->n <= 0;
}

static void list_group(struct listing *l, struct group_bytes id, struct group_bytes protocol_type,
                       enum consumer_group_state state)
{
    const struct kafka_list_groups_request *q = l->op->r->body;
    struct kafka_listed_group *a;

    if (!filter_has(&q->states_filter, consumer_group_state_name(state)) ||
        !filter_has(&q->types_filter, "classic"))
        return;
    l->n++;
    if (!l->at)
        return;
    a = &l->at[l->n - 1];
    a->group_id = kafka_group_op_keep(l->op, id);
    if (protocol_type.bytes >= 0)
        a->protocol_type = kafka_group_op_keep(l->op, protocol_type);
    a->group_state = kafka_str_of(consumer_group_state_name(state));
    a->group_type = KAFKA_STR("classic");
}

static void list_known(void *ctx, const struct consumer_group_info *i)
{
    list_group(ctx, i->id, i->protocol_type, i->state);
}

/* Groups that have offsets and no members that we know of: simple consumers, or a restart. */
static void list_owner(void *ctx, struct group_bytes group)
{
    struct listing *l = ctx;
    struct consumer_group_info i;

    if (!consumer_group_find(l->op->r->kafka->groups, group, &i))
        list_group(l, group, GROUP_NULL, GROUP_EMPTY);
}

static void list_home(struct kafka_group_op *op)
{
    struct kafka_list_groups_response *a = op->answer;
    struct kafka *k = op->r->kafka;
    struct listing l = { .op = op };

    consumer_group_each(k->groups, list_known, &l);
    offsets_each_group(k->offsets, list_owner, &l);
    l.at = KAFKA_OP_ARRAY(op, listed_group, l.n);
    if (l.at) {
        a->error_code = kafka_group_error(offsets_state(k->offsets));
        a->groups.at = l.at;
        a->groups.n = l.n;
        l.n = 0;
        consumer_group_each(k->groups, list_known, &l);
        offsets_each_group(k->offsets, list_owner, &l);
    }
    kafka_group_op_back(op);
}

void kafka_list_groups(struct kafka_request *r)
{
    kafka_promise(r, r->kafka->conf.fetch_max);
    op_run(r, list_home);
}

/* ---- DeleteGroups
 * ----------------------------------------------------------------------------- */

struct delete_one {
    struct offsets_commit removal;
    struct delete_op *op;
    struct kafka_deleted_group *answer;
};

struct delete_op {
    struct kafka_group_op op;
    struct delete_one *all;
    unsigned waiting;
};

static void delete_done(struct offsets_commit *c)
{
    struct delete_one *d = (struct delete_one *)c;
    struct delete_op *op = d->op;
    int16_t error = kafka_group_error(c->rc);

    if (!error)
        error = consumer_group_delete(op->op.r->kafka->groups, c->group);
    d->answer->error_code = error == GROUP_NOT_FOUND ? GROUP_OK : error;
    if (--op->waiting == 0)
        kafka_group_op_back(&op->op);
}

static int16_t may_delete(struct kafka *k, struct group_bytes group)
{
    struct consumer_group_info i;

    if (group_bytes_empty(group))
        return GROUP_INVALID_ID;
    if (consumer_group_in_use(k->groups, group))
        return GROUP_NON_EMPTY;
    return consumer_group_find(k->groups, group, &i) || offsets_has_group(k->offsets, group)
               ? GROUP_OK
               : GROUP_NOT_FOUND;
}

static void delete_home(struct kafka_group_op *o)
{
    const struct kafka_delete_groups_request *q = o->r->body;
    struct kafka_delete_groups_response *a = o->answer;
    struct delete_op *op = (struct delete_op *)o;
    struct kafka *k = o->r->kafka;

    for (int32_t i = 0; i < q->groups_names.n; i++) {
        struct delete_one *d = &op->all[i];

        d->answer = &a->results.at[i];
        d->answer->group_id = q->groups_names.at[i];
        d->answer->error_code = may_delete(k, kafka_group_bytes(q->groups_names.at[i]));
        if (d->answer->error_code)
            continue;
        d->op = op;
        d->removal.fn = delete_done;
        d->removal.loop = k->home;
        d->removal.group = kafka_group_bytes(q->groups_names.at[i]);
        op->waiting++;
        offsets_remove_group(k->offsets, &d->removal);
    }
    if (!op->waiting)
        kafka_group_op_back(o);
}

void kafka_delete_groups(struct kafka_request *r)
{
    const struct kafka_delete_groups_request *q = r->body;
    struct delete_op *op = kafka_group_op_new(r, sizeof *op, delete_home);
    struct kafka_delete_groups_response *a;

    if (!op)
        return;
    a = op->op.answer;
    op->all = kafka_take(r, (size_t)q->groups_names.n + 1, sizeof *op->all);
    if (!op->all)
        return;
    a->results.n = q->groups_names.n;
    a->results.at = KAFKA_ANSWERS(r, deleted_group, q->groups_names.n);
    if (a->results.at)
        kafka_group_op_go(&op->op);
}
