/* Producer ids, committed offsets, and a group with members.
 *
 * Group 0 has no members: clients commit to it as they like. Group 1 has: its offsets are committed
 * by members, in their generation. Whoever commits, values of one partition count up, and one
 * client at a time has commits for it on their way. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gateways/kafka_sim_int.h"

enum { MEMBERS_GROUP = 1, IDS_FROM = 10, GROUPS_FROM = 8, SESSION_MS = 8000, REBALANCE_MS = 6000 };

static const char *const group_names[SIM_GROUPS] = { "alone", "together" };

/* --- producer ids --- */

struct producer_call {
    struct sim_call call;
    struct sim_producer *p;
};

static void producer_told(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_init_producer_id_response *a = answer;
    struct sim_producer *p = ((struct producer_call *)call)->p;

    p->asking = false;
    if (!a)
        return;
    if (a->error_code) {
        if (!kafka_sim_excused(w, a->error_code))
            kafka_sim_fail(w, "InitProducerId gave error %d", a->error_code);
        return;
    }
    if (a->producer_id < 0 || a->producer_epoch != 0)
        kafka_sim_fail(w, "producer id %" PRId64 " epoch %d", a->producer_id, a->producer_epoch);
    sim_model_producer(w, a->producer_id);
    w->n->producers++;
    p->id = a->producer_id;
}

/* What it had not heard of is left to itself. */
static void producer_forget(struct kafka_sim *w, unsigned k)
{
    for (struct sim_topic *t = w->m.topics; t; t = t->next)
        for (unsigned i = 0; i < SIM_PARTITIONS; i++)
            t->parts[i].queues[k] = (struct sim_queue){ .n = 0 };
    w->producers[k].id = -1;
}

void kafka_sim_producer(struct kafka_sim *w)
{
    unsigned k = (unsigned)below(w, SIM_PRODUCERS);
    struct door_client *client = kafka_sim_client(w);
    struct producer_call *c;
    struct kafka_arena mem;
    struct kafka_init_producer_id_request *q;

    if (!client || w->producers[k].asking || (w->producers[k].id >= 0 && chance(w, 7, 8)))
        return;
    producer_forget(w, k);
    w->producers[k].asking = true;
    c = mem_new(sizeof *c);
    c->call.fn = producer_told;
    c->p = &w->producers[k];
    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, init_producer_id_request, 1);
    q->transactional_id = KAFKA_NULL;
    door_client_send(w, client, &c->call, INIT_PRODUCER_ID, some_version(w, 0, 5), q);
    kafka_arena_fini(&mem);
}

/* --- commits --- */

struct commit_call {
    struct sim_call call;
    struct sim_part *part;
    unsigned group;
    int64_t value;
    int64_t acked; /* when it was sent */
    bool weak;
    struct sim_member *member; /* NULL: none */
    int32_t generation;
};

static void metadata_of(char *text, size_t bytes, int64_t value)
{
    snprintf(text, bytes, "value %" PRId64, value);
}

/* The group has moved on without this member. */
static bool member_refused(struct kafka_sim *w, struct sim_member *m, int32_t generation,
                           int16_t error)
{
    if (!m || (error != GROUP_ILLEGAL_GENERATION && error != GROUP_UNKNOWN_MEMBER &&
               error != GROUP_REBALANCE_IN_PROGRESS))
        return false;
    w->n->rejoins++;
    if (m->state == MEMBER_IN && m->generation == generation) {
        m->state = MEMBER_OUT;
        if (error == GROUP_UNKNOWN_MEMBER)
            m->id[0] = 0;
    }
    return true;
}

static void committed(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_offset_commit_response *a = answer;
    struct commit_call *c = (struct commit_call *)call;
    struct sim_commit *s = &c->part->commits[c->group];
    int16_t error;

    s->in_flight--;
    w->m.names[c->part->topic->name].in_flight--;
    if (!a)
        return;
    if (a->topics.n != 1 || a->topics.at->partitions.n != 1 ||
        a->topics.at->partitions.at->partition_index != c->part->index)
        kafka_sim_fail(w, "OffsetCommit answers another partition");
    error = a->topics.at->partitions.at->error_code;
    if (error && !c->weak && !kafka_sim_excused(w, error) &&
        !kafka_sim_topic_excused(c->part->topic, error) &&
        !member_refused(w, c->member, c->generation, error))
        kafka_sim_fail(w, "group %s: committing gave error %d", group_names[c->group], error);
    if (error)
        return;
    w->n->commits++;
    w->n->member_commits += c->member != NULL;
    if (s->acked < c->value)
        s->acked = c->value;
}

static struct sim_member *some_member(struct kafka_sim *w)
{
    struct sim_member *m = &w->members[below(w, SIM_MEMBERS)];

    return m->state == MEMBER_IN && w->clients[m->slot].conn && !w->clients[m->slot].hung_up ? m
                                                                                             : NULL;
}

void kafka_sim_commit(struct kafka_sim *w)
{
    struct sim_part *p = kafka_sim_part(w, chance(w, 7, 8));
    struct door_client *client = kafka_sim_client(w);
    struct sim_member *m = chance(w, 1, 2) ? some_member(w) : NULL;
    unsigned group = m ? MEMBERS_GROUP : 0;
    struct sim_commit *s = p ? &p->commits[group] : NULL;
    struct commit_call *c;
    struct kafka_arena mem;
    struct kafka_offset_commit_request *q;
    struct kafka_offset_commit_partition *qp;
    char text[40];

    if (m)
        client = &w->clients[m->slot];
    if (!p || !client || client->n_calls >= SIM_CALLS_MAX ||
        (s->in_flight > 0 && s->slot != client->slot))
        return;
    c = mem_new(sizeof *c);
    *c = (struct commit_call){ .call.fn = committed, .part = p, .group = group, .member = m };
    c->value = ++s->sent;
    c->weak = kafka_sim_weak(w);
    s->in_flight++;
    s->slot = client->slot;
    w->m.names[p->topic->name].in_flight++;
    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, offset_commit_request, 1);
    q->group_id = kafka_str_of(group_names[group]);
    if (m) {
        c->generation = q->generation_id = m->generation;
        q->member_id = kafka_str_of(m->id);
    }
    q->topics.at = KAFKA_NEW(&mem, offset_commit_topic, 1);
    q->topics.n = 1;
    q->topics.at->name = kafka_str_of(w->m.names[p->topic->name].text);
    q->topics.at->topic_id = p->topic->id;
    qp = KAFKA_NEW(&mem, offset_commit_partition, 1);
    q->topics.at->partitions.at = qp;
    q->topics.at->partitions.n = 1;
    qp->partition_index = p->index;
    qp->committed_offset = c->value;
    metadata_of(text, sizeof text, c->value);
    qp->committed_metadata = kafka_str_of(text);
    door_client_send(w, client, &c->call, OFFSET_COMMIT,
                     some_version(w, 2, p->topic->id_known ? IDS_FROM : IDS_FROM - 1), q);
    kafka_arena_fini(&mem);
}

/* --- reading them back --- */

static void offset_told(struct kafka_sim *w, const struct commit_call *c,
                        const struct kafka_offset_fetched_partition *p)
{
    const struct sim_commit *s = &c->part->commits[c->group];
    char text[40];

    if (p->partition_index != c->part->index)
        kafka_sim_fail(w, "OffsetFetch answers another partition");
    if (p->error_code && !kafka_sim_topic_excused(c->part->topic, p->error_code) && !c->weak &&
        !kafka_sim_excused(w, p->error_code))
        kafka_sim_fail(w, "reading offsets gave error %d", p->error_code);
    if (p->error_code || (p->committed_offset == -1 && c->part->topic->deleting))
        return;
    if (p->committed_offset < c->acked || p->committed_offset > s->sent)
        kafka_sim_fail(w, "group %s, %s-%d: offset %" PRId64 ", acked %" PRId64 ", sent %" PRId64,
                       group_names[c->group], w->m.names[c->part->topic->name].text,
                       (int)c->part->index, p->committed_offset, c->acked, s->sent);
    if (p->committed_offset < 0)
        return;
    metadata_of(text, sizeof text, p->committed_offset);
    if (!kafka_str_is(p->metadata, text))
        kafka_sim_fail(w, "group %s: the offset's metadata is not its own", group_names[c->group]);
    w->n->fetched_commits++;
}

static void offsets_told(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_offset_fetch_response *a = answer;
    const struct commit_call *c = (struct commit_call *)call;
    const struct kafka_offset_fetched_topic *t;
    int32_t n;
    int16_t error;

    w->m.names[c->part->topic->name].in_flight--;
    if (!a)
        return;
    if (call->version >= GROUPS_FROM && a->groups.n != 1)
        kafka_sim_fail(w, "OffsetFetch: %d groups", (int)a->groups.n);
    t = call->version >= GROUPS_FROM ? a->groups.at->topics.at : a->topics.at;
    n = call->version >= GROUPS_FROM ? a->groups.at->topics.n : a->topics.n;
    error = call->version >= GROUPS_FROM ? a->groups.at->error_code : a->error_code;
    if (error && !c->weak && !kafka_sim_excused(w, error))
        kafka_sim_fail(w, "OffsetFetch gave error %d", error);
    if (error)
        return;
    if (n != 1 || t->partitions.n != 1)
        kafka_sim_fail(w, "OffsetFetch: %d topics", (int)n);
    offset_told(w, c, t->partitions.at);
}

/* client NULL: the control client, and waits. */
static bool offsets_ask(struct kafka_sim *w, struct door_client *client, struct sim_part *p,
                        unsigned group)
{
    struct commit_call *c = mem_new(sizeof *c);
    int16_t version = some_version(w, 1, p->topic->id_known ? IDS_FROM : IDS_FROM - 1);
    struct kafka_arena mem;
    struct kafka_offset_fetch_request *q;
    struct kafka_offset_fetch_topic *t;
    bool good = true;

    *c = (struct commit_call){ .call.fn = offsets_told, .part = p, .group = group };
    c->acked = p->commits[group].acked;
    c->weak = kafka_sim_weak(w);
    w->m.names[p->topic->name].in_flight++;
    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, offset_fetch_request, 1);
    t = KAFKA_NEW(&mem, offset_fetch_topic, 1);
    t->name = kafka_str_of(w->m.names[p->topic->name].text);
    t->topic_id = p->topic->id;
    t->partition_indexes = (struct kafka_int32s){ .at = &p->index, .n = 1 };
    q->group_id = kafka_str_of(group_names[group]);
    q->topics.at = t;
    q->topics.n = 1;
    q->groups.at = KAFKA_NEW(&mem, offset_fetch_group, 1);
    q->groups.n = 1;
    q->groups.at->group_id = q->group_id;
    q->groups.at->topics.at = t;
    q->groups.at->topics.n = 1;
    if (client)
        door_client_send(w, client, &c->call, OFFSET_FETCH, version, q);
    else
        good = kafka_sim_ask(w, &c->call, OFFSET_FETCH, version, q);
    kafka_arena_fini(&mem);
    return good;
}

void kafka_sim_offsets(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct sim_part *p = kafka_sim_part(w, chance(w, 7, 8));

    if (client && p)
        offsets_ask(w, client, p, (unsigned)below(w, SIM_GROUPS));
}

bool kafka_sim_offsets_check(struct kafka_sim *w, struct sim_topic *t)
{
    for (int32_t i = 0; i < t->n_parts; i++)
        for (unsigned g = 0; g < SIM_GROUPS; g++)
            if (!offsets_ask(w, NULL, &t->parts[i], g))
                return false;
    return true;
}

/* --- members --- */

struct member_call {
    struct sim_call call;
    struct sim_member *m;
    int32_t generation;
    char id[SIM_MEMBER_ID];
};

static struct member_call *member_new(struct sim_member *m, sim_call_fn *fn)
{
    struct member_call *c = mem_new(sizeof *c);

    c->call.fn = fn;
    c->m = m;
    c->generation = m->generation;
    memcpy(c->id, m->id, sizeof c->id);
    return c;
}

static void keep_id(struct kafka_sim *w, char *id, struct kafka_str from)
{
    if (from.len <= 0 || from.len >= SIM_MEMBER_ID)
        kafka_sim_fail(w, "a member id of %d bytes", (int)from.len);
    memcpy(id, from.mem, (size_t)from.len);
    id[from.len] = 0;
}

/* Each assignment names its generation and member, so that it is seen when one gets another's. */
static void assignment_of(char *text, size_t bytes, int32_t generation, const char *id)
{
    snprintf(text, bytes, "%d of %s", (int)generation, id);
}

static void member_out(struct kafka_sim *w, struct sim_member *m, int16_t error)
{
    if (error != GROUP_REBALANCE_IN_PROGRESS && error != GROUP_ILLEGAL_GENERATION &&
        error != GROUP_UNKNOWN_MEMBER && !kafka_sim_excused(w, error))
        kafka_sim_fail(w, "a member got error %d", error);
    w->n->rejoins++;
    m->state = MEMBER_OUT;
    if (error == GROUP_UNKNOWN_MEMBER)
        m->id[0] = 0;
}

static void synced(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_sync_group_response *a = answer;
    struct member_call *c = (struct member_call *)call;
    char text[SIM_MEMBER_ID + 20];

    if (!a) {
        c->m->state = MEMBER_OUT;
        return;
    }
    if (a->error_code) {
        member_out(w, c->m, a->error_code);
        return;
    }
    assignment_of(text, sizeof text, c->generation, c->id);
    if (a->assignment.len != (int32_t)strlen(text) ||
        memcmp(a->assignment.mem, text, strlen(text)) != 0)
        kafka_sim_fail(w, "a member's assignment is \"%.*s\", not \"%s\"", (int)a->assignment.len,
                       (const char *)a->assignment.mem, text);
    c->m->state = MEMBER_IN;
    w->n->syncs++;
}

static void sync_send(struct kafka_sim *w, struct sim_member *m,
                      const struct kafka_join_group_response *joined)
{
    struct kafka_arena mem;
    struct kafka_sync_group_request *q;

    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, sync_group_request, 1);
    q->group_id = kafka_str_of(group_names[MEMBERS_GROUP]);
    q->generation_id = m->generation;
    q->member_id = kafka_str_of(m->id);
    q->assignments.n = joined->members.n;
    q->assignments.at = KAFKA_NEW(&mem, sync_group_assignment, (size_t)joined->members.n);
    for (int32_t i = 0; i < joined->members.n; i++) {
        char id[SIM_MEMBER_ID], *text = kafka_arena_take(&mem, SIM_MEMBER_ID + 20);

        keep_id(w, id, joined->members.at[i].member_id);
        assignment_of(text, SIM_MEMBER_ID + 20, m->generation, id);
        q->assignments.at[i].member_id = joined->members.at[i].member_id;
        q->assignments.at[i].assignment =
            (struct kafka_bytes){ .mem = (const uint8_t *)text, .len = (int32_t)strlen(text) };
    }
    m->state = MEMBER_SYNCING;
    door_client_send(w, &w->clients[m->slot], &member_new(m, synced)->call, SYNC_GROUP,
                     some_version(w, 0, 4), q);
    kafka_arena_fini(&mem);
}

/* One generation has one leader, and generations count up. */
static void generation_check(struct kafka_sim *w, const struct sim_member *m,
                             const struct kafka_join_group_response *a)
{
    if (a->generation_id < 1 || a->generation_id < m->generation)
        kafka_sim_fail(w, "generation %d after %d", (int)a->generation_id, (int)m->generation);
    if (a->generation_id > w->generation) {
        w->generation = a->generation_id;
        keep_id(w, w->leader, a->leader);
    } else if (a->generation_id == w->generation && !kafka_str_is(a->leader, w->leader)) {
        kafka_sim_fail(w, "generation %d has two leaders", (int)w->generation);
    }
    if (kafka_str_is(a->leader, m->id) != (a->members.n > 0))
        kafka_sim_fail(w, "a member %s gets %d members",
                       kafka_str_is(a->leader, m->id) ? "that leads" : "that does not lead",
                       (int)a->members.n);
}

static void joined(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_join_group_response *a = answer;
    struct member_call *c = (struct member_call *)call;
    struct sim_member *m = c->m;

    if (!a || w->clients[m->slot].hung_up) {
        m->state = MEMBER_OUT;
        return;
    }
    if (a->error_code == GROUP_MEMBER_ID_REQUIRED && call->version >= 4 && !m->id[0]) {
        keep_id(w, m->id, a->member_id);
        m->state = MEMBER_OUT;
        return;
    }
    if (a->error_code) {
        member_out(w, m, a->error_code);
        return;
    }
    if (m->id[0] && !kafka_str_is(a->member_id, m->id))
        kafka_sim_fail(w, "member %s became another one", m->id);
    keep_id(w, m->id, a->member_id);
    generation_check(w, m, a);
    m->generation = a->generation_id;
    w->n->joins++;
    sync_send(w, m, a);
}

static void join_send(struct kafka_sim *w, struct door_client *client, struct sim_member *m)
{
    struct kafka_arena mem;
    struct kafka_join_group_request *q;

    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, join_group_request, 1);
    q->group_id = kafka_str_of(group_names[MEMBERS_GROUP]);
    q->session_timeout_ms = SESSION_MS;
    q->rebalance_timeout_ms = REBALANCE_MS;
    q->member_id = kafka_str_of(m->id);
    q->protocol_type = KAFKA_STR("consumer");
    q->protocols.at = KAFKA_NEW(&mem, join_group_protocol, 1);
    q->protocols.n = 1;
    q->protocols.at->name = KAFKA_STR("range");
    m->slot = client->slot;
    m->state = MEMBER_JOINING;
    door_client_send(w, client, &member_new(m, joined)->call, JOIN_GROUP, some_version(w, 0, 9), q);
    kafka_arena_fini(&mem);
}

static void heartbeat_told(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_heartbeat_response *a = answer;
    struct member_call *c = (struct member_call *)call;

    if (a && a->error_code && !kafka_sim_excused(w, a->error_code) &&
        !member_refused(w, c->m, c->generation, a->error_code))
        kafka_sim_fail(w, "a heartbeat got error %d", a->error_code);
}

static void left(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_leave_group_response *a = answer;

    if (a && a->error_code && a->error_code != GROUP_UNKNOWN_MEMBER &&
        !kafka_sim_excused(w, a->error_code))
        kafka_sim_fail(w, "leaving got error %d", a->error_code);
}

static void heartbeat_send(struct kafka_sim *w, struct door_client *client, struct sim_member *m)
{
    struct kafka_arena mem;
    struct kafka_heartbeat_request *q;

    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, heartbeat_request, 1);
    q->group_id = kafka_str_of(group_names[MEMBERS_GROUP]);
    q->generation_id = m->generation;
    q->member_id = kafka_str_of(m->id);
    door_client_send(w, client, &member_new(m, heartbeat_told)->call, HEARTBEAT,
                     some_version(w, 0, 4), q);
    kafka_arena_fini(&mem);
}

static void leave_send(struct kafka_sim *w, struct door_client *client, struct sim_member *m)
{
    struct kafka_arena mem;
    struct kafka_leave_group_request *q;
    struct member_call *c = member_new(m, left);

    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, leave_group_request, 1);
    q->group_id = kafka_str_of(group_names[MEMBERS_GROUP]);
    q->member_id = kafka_str_of(c->id);
    q->members.at = KAFKA_NEW(&mem, leave_group_member, 1);
    q->members.at->member_id = q->member_id;
    q->members.n = 1;
    *m = (struct sim_member){ .state = MEMBER_OUT };
    door_client_send(w, client, &c->call, LEAVE_GROUP, some_version(w, 0, 5), q);
    kafka_arena_fini(&mem);
}

void kafka_sim_member(struct kafka_sim *w)
{
    struct sim_member *m = &w->members[below(w, SIM_MEMBERS)];
    struct door_client *client = kafka_sim_client(w);

    if (m->state == MEMBER_OUT && client) {
        join_send(w, client, m);
        return;
    }
    client = &w->clients[m->slot];
    if (m->state != MEMBER_IN || !client->conn || client->hung_up ||
        client->n_calls >= SIM_CALLS_MAX)
        return;
    if (chance(w, 1, 6))
        leave_send(w, client, m);
    else if (chance(w, 1, 8))
        join_send(w, client, m);
    else
        heartbeat_send(w, client, m);
}

void kafka_sim_members_gone(struct kafka_sim *w)
{
    memset(w->members, 0, sizeof w->members);
    w->generation = 0;
    w->leader[0] = 0;
}

/* --- the rest --- */

static void coordinator_told(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_find_coordinator_response *a = answer;

    if (a && call->version < 4 && (a->error_code || a->node_id != 1))
        kafka_sim_fail(w, "FindCoordinator: error %d node %d", a->error_code, (int)a->node_id);
    if (a && call->version >= 4 && (a->coordinators.n != 1 || a->coordinators.at->error_code))
        kafka_sim_fail(w, "FindCoordinator: %d coordinators", (int)a->coordinators.n);
}

void kafka_sim_others(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct sim_call *call;
    struct kafka_arena mem;
    struct kafka_find_coordinator_request *q;

    if (!client)
        return;
    call = mem_new(sizeof *call);
    call->fn = coordinator_told;
    kafka_arena_init(&mem, 1 << 16);
    q = KAFKA_NEW(&mem, find_coordinator_request, 1);
    q->key = kafka_str_of(group_names[0]);
    q->coordinator_keys = (struct kafka_strs){ .at = &q->key, .n = 1 };
    door_client_send(w, client, call, FIND_COORDINATOR, some_version(w, 0, 6), q);
    kafka_arena_fini(&mem);
}
