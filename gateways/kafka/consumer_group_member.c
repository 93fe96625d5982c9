/* Members of consumer groups: what they hold, the answers they get, and the protocols they vote
 * for. */
#include "gateways/kafka/consumer_group_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* ---- bytes ----------------------------------------------------------------------------------- */

bool group_bytes_equal(struct group_bytes a, struct group_bytes b)
{
    return a.bytes == b.bytes && (a.bytes <= 0 || memcmp(a.mem, b.mem, (size_t)a.bytes) == 0);
}

struct group_bytes group_text(const char *s)
{
    return s ? (struct group_bytes){ s, (int32_t)strlen(s) } : GROUP_NULL;
}

/* A copy on the heap, terminated so that it can be logged. */
struct group_bytes group_bytes_own(struct group_bytes b)
{
    char *mem;

    if (b.bytes < 0)
        return GROUP_NULL;
    mem = mem_new((size_t)b.bytes + 1);
    if (b.bytes)
        memcpy(mem, b.mem, (size_t)b.bytes);
    return (struct group_bytes){ mem, b.bytes };
}

void group_bytes_disown(struct group_bytes *b)
{
    free((void *)b->mem);
    *b = GROUP_NULL;
}

void group_bytes_replace(struct group_bytes *at, struct group_bytes b)
{
    struct group_bytes copy = group_bytes_own(b);

    group_bytes_disown(at);
    *at = copy;
}

/* Copies b to *at and moves *at past it. */
static struct group_bytes keep(uint8_t **at, struct group_bytes b)
{
    struct group_bytes copy = { *at, b.bytes };

    if (b.bytes < 0)
        return GROUP_NULL;
    if (b.bytes)
        memcpy(*at, b.mem, (size_t)b.bytes);
    *at += b.bytes;
    return copy;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void join_done(struct task *t)
{
    struct group_join *j = (struct group_join *)t;
    void *mem = j->mem;

    j->fn(j);
    free(mem);
}

static void sync_done(struct task *t)
{
    struct group_sync *s = (struct group_sync *)t;
    void *mem = s->mem;

    s->fn(s);
    free(mem);
}

void group_join_refuse_as(struct group_join *j, int16_t error, struct group_bytes id)
{
    uint8_t *at = j->mem = mem_new(group_kept_bytes(id) + 1);

    j->error = error;
    j->generation = -1;
    j->chosen_type = j->chosen = GROUP_NULL;
    j->leader = group_text("");
    j->your_id = keep(&at, id);
    j->skip_assignment = false;
    j->members = NULL;
    j->n_members = 0;
    j->task.run = join_done;
    loop_post(j->loop, &j->task);
}

void group_join_refuse(struct group_join *j, int16_t error)
{
    group_join_refuse_as(j, error, j->member_id);
}

void group_sync_answer(struct group_sync *s, int16_t error, const struct member *m)
{
    struct group_bytes type = GROUP_NULL, name = GROUP_NULL, assignment = group_text("");
    uint8_t *at;

    if (m) {
        type = m->group->protocol_type;
        name = m->group->protocol;
        assignment = m->assignment.bytes < 0 ? assignment : m->assignment;
    }
    at = s->mem =
        mem_new(group_kept_bytes(type) + group_kept_bytes(name) + group_kept_bytes(assignment) + 1);
    s->error = error;
    s->chosen_type = keep(&at, type);
    s->chosen = keep(&at, name);
    s->assignment = keep(&at, assignment);
    s->task.run = sync_done;
    loop_post(s->loop, &s->task);
}

struct group_bytes group_member_metadata(const struct member *m, struct group_bytes protocol)
{
    for (unsigned i = 0; i < m->n_protocols; i++)
        if (group_bytes_equal(m->protocols[i].name, protocol))
            return m->protocols[i].metadata;
    return group_text("");
}

static size_t members_bytes(const struct consumer_group *g)
{
    size_t n = g->n_members * sizeof(struct group_member);

    for (const struct member *m = g->first; m; m = m->next)
        n += group_kept_bytes(m->id) + group_kept_bytes(m->instance_id) +
             group_kept_bytes(group_member_metadata(m, g->protocol));
    return n;
}

/* Answers a join with the present generation. The whole answer is one allocation: the array
 * first, for its alignment. */
void group_join_answer(struct group_join *j, const struct member *m, struct group_bytes leader,
                       bool with_members, bool skip)
{
    const struct consumer_group *g = m->group;
    struct group_member *all = NULL;
    unsigned n = with_members ? g->n_members : 0;
    uint8_t *at;

    at = j->mem = mem_new((n ? members_bytes(g) : 0) + group_kept_bytes(g->protocol_type) +
                          group_kept_bytes(g->protocol) + group_kept_bytes(leader) +
                          group_kept_bytes(m->id) + 1);
    if (n) {
        all = j->mem;
        at += n * sizeof *all;
        n = 0;
        for (const struct member *o = g->first; o; o = o->next)
            all[n++] = (struct group_member){
                .id = keep(&at, o->id),
                .instance_id = keep(&at, o->instance_id),
                .metadata = keep(&at, group_member_metadata(o, g->protocol)),
            };
    }
    j->error = GROUP_OK;
    j->generation = g->generation;
    j->chosen_type = keep(&at, g->protocol_type);
    j->chosen = keep(&at, g->protocol);
    j->leader = keep(&at, leader);
    j->your_id = keep(&at, m->id);
    j->skip_assignment = skip;
    j->members = all;
    j->n_members = n;
    j->task.run = join_done;
    loop_post(j->loop, &j->task);
}

void group_join_answer_now(struct group_join *j, const struct member *m)
{
    group_join_answer(j, m, m->group->leader->id, m == m->group->leader, false);
}

/* ---- members --------------------------------------------------------------------------------- */

/* A sign of life. */
void group_member_alive(struct member *m, uint32_t wait_ms)
{
    loop_timer_set(m->group->all->loop, &m->session, (uint64_t)wait_ms * 1000);
}

void group_member_set_join(struct member *m, struct group_join *j)
{
    if (m->join) {
        m->group->n_joined--;
        m->join->member = NULL;
    }
    if (j) {
        m->group->n_joined++;
        j->member = m;
    }
    m->join = j;
}

void group_member_set_sync(struct member *m, struct group_sync *s)
{
    if (m->sync)
        m->sync->member = NULL;
    if (s)
        s->member = m;
    m->sync = s;
}

/* Ends whatever the member waits for. */
void group_member_refuse(struct member *m, int16_t error)
{
    struct group_join *j = m->join;
    struct group_sync *s = m->sync;

    group_member_set_join(m, NULL);
    group_member_set_sync(m, NULL);
    if (j)
        group_join_refuse_as(j, error, m->id);
    if (s)
        group_sync_answer(s, error, NULL);
}

static uint32_t protocols_bytes(const struct group_join *j)
{
    uint64_t n = j->n_protocols * sizeof(struct group_protocol);

    for (unsigned i = 0; i < j->n_protocols; i++)
        n += group_kept_bytes(j->protocols[i].name) + group_kept_bytes(j->protocols[i].metadata);
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

uint64_t group_join_bytes(const struct group_join *j)
{
    return (uint64_t)protocols_bytes(j) + sizeof(struct member) + group_kept_bytes(j->client_id) +
           group_kept_bytes(j->client_host) + group_kept_bytes(j->instance_id);
}

static void count_bytes(struct consumer_group *g, uint64_t more, uint64_t less)
{
    g->bytes += more - less;
    g->all->bytes += more - less;
}

/* Takes over what a join says about its member. */
void group_member_update(struct member *m, const struct group_join *j)
{
    uint32_t bytes = protocols_bytes(j);
    struct group_protocol *p = mem_new(bytes + 1);
    uint8_t *at = (uint8_t *)(p + j->n_protocols);

    for (unsigned i = 0; i < j->n_protocols; i++) {
        p[i].name = keep(&at, j->protocols[i].name);
        p[i].metadata = keep(&at, j->protocols[i].metadata);
    }
    free(m->protocols);
    m->protocols = p;
    m->n_protocols = j->n_protocols;
    count_bytes(m->group, group_join_bytes(j), m->bytes);
    m->bytes = group_join_bytes(j);
    group_bytes_replace(&m->client_id, j->client_id);
    group_bytes_replace(&m->client_host, j->client_host);
    m->session_ms = (uint32_t)j->session_timeout_ms;
    m->rebalance_ms =
        j->rebalance_timeout_ms < 0 ? m->session_ms : (uint32_t)j->rebalance_timeout_ms;
}

void group_member_assign(struct member *m, struct group_bytes assignment)
{
    count_bytes(m->group, group_kept_bytes(assignment), group_kept_bytes(m->assignment));
    group_bytes_replace(&m->assignment, assignment);
}

struct member *group_pending_new(struct consumer_group *g, struct group_bytes id,
                                 uint32_t session_ms)
{
    struct member *m = mem_new(sizeof *m);

    m->group = g;
    m->id = group_bytes_own(id);
    m->instance_id = m->client_id = m->client_host = m->assignment = GROUP_NULL;
    m->session_ms = session_ms;
    m->session.fire = group_session_fire;
    m->pending = true;
    strmap_put(&g->by_id, m->id.mem, (size_t)m->id.bytes, m);
    g->n_pending++;
    return m;
}

/* Makes a full member of one that has an id. */
void group_member_admit(struct member *m, struct group_bytes instance_id)
{
    struct consumer_group *g = m->group;

    m->pending = false;
    m->is_new = true;
    m->instance_id = group_bytes_own(instance_id);
    if (m->instance_id.bytes >= 0)
        strmap_put(&g->by_instance, m->instance_id.mem, (size_t)m->instance_id.bytes, m);
    m->prev = g->last;
    *(g->last ? &g->last->next : &g->first) = m;
    g->last = m;
    g->n_pending--;
    g->n_members++;
    if (!g->leader)
        g->leader = m;
}

void group_member_set_synced(struct member *m, bool synced)
{
    if (m->synced)
        m->group->n_synced--;
    if (synced)
        m->group->n_synced++;
    m->synced = synced;
}

static void member_unlink(struct member *m)
{
    struct consumer_group *g = m->group;

    group_member_set_synced(m, false);
    *(m->prev ? &m->prev->next : &g->first) = m->next;
    *(m->next ? &m->next->prev : &g->last) = m->prev;
    g->n_members--;
    if (m->instance_id.bytes >= 0)
        strmap_take(&g->by_instance, m->instance_id.mem, (size_t)m->instance_id.bytes);
    if (g->leader == m)
        g->leader = g->first;
}

/* The end of a member or pending one. What it waits for answers error. */
void group_member_free(struct member *m, int16_t error)
{
    struct consumer_group *g = m->group;

    group_member_refuse(m, error);
    loop_timer_stop(&m->session);
    if (m->pending)
        g->n_pending--;
    else
        member_unlink(m);
    strmap_take(&g->by_id, m->id.mem, (size_t)m->id.bytes);
    count_bytes(g, 0, m->bytes + group_kept_bytes(m->assignment));
    group_bytes_disown(&m->id);
    group_bytes_disown(&m->instance_id);
    group_bytes_disown(&m->client_id);
    group_bytes_disown(&m->client_host);
    group_bytes_disown(&m->assignment);
    free(m->protocols);
    free(m);
}

static bool member_has_protocol(const struct member *m, struct group_bytes name)
{
    for (unsigned i = 0; i < m->n_protocols; i++)
        if (group_bytes_equal(m->protocols[i].name, name))
            return true;
    return false;
}

bool group_member_says_the_same(const struct member *m, const struct group_join *j)
{
    if (m->n_protocols != j->n_protocols)
        return false;
    for (unsigned i = 0; i < j->n_protocols; i++)
        if (!group_bytes_equal(m->protocols[i].name, j->protocols[i].name) ||
            !group_bytes_equal(m->protocols[i].metadata, j->protocols[i].metadata))
            return false;
    return true;
}

/* ---- protocols ------------------------------------------------------------------------------- */

/* Do all members offer this protocol? */
static bool group_all_have(const struct consumer_group *g, struct group_bytes protocol)
{
    for (const struct member *m = g->first; m; m = m->next)
        if (!member_has_protocol(m, protocol))
            return false;
    return true;
}

/* May somebody with these protocols be a member? The others' votes bind, so one common protocol
 * is enough. */
bool group_accepts(const struct consumer_group *g, const struct group_join *j)
{
    if (group_bytes_empty(j->protocol_type) || !j->n_protocols)
        return false;
    if (!g || !g->n_members)
        return true;
    if (!group_bytes_equal(g->protocol_type, j->protocol_type))
        return false;
    for (unsigned i = 0; i < j->n_protocols; i++)
        if (group_all_have(g, j->protocols[i].name))
            return true;
    return false;
}

/* The place of m's favourite among the first member's protocols that all have. */
static int group_vote_of(const struct member *m, const int *votes)
{
    const struct member *first = m->group->first;

    for (unsigned i = 0; i < m->n_protocols; i++)
        for (unsigned k = 0; k < first->n_protocols; k++)
            if (votes[k] >= 0 && group_bytes_equal(m->protocols[i].name, first->protocols[k].name))
                return (int)k;
    return -1;
}

/* Each member votes for the first of its protocols that all have; a tie goes to the first
 * member's preference. Null when there is no such protocol, which group_accepts has seen to. */
struct group_bytes group_vote(const struct consumer_group *g)
{
    unsigned n = g->first->n_protocols;
    int votes[PROTOCOLS_MAX], best = -1;

    for (unsigned k = 0; k < n; k++)
        votes[k] = group_all_have(g, g->first->protocols[k].name) ? 0 : -1;
    for (const struct member *m = g->first; m; m = m->next) {
        int k = group_vote_of(m, votes);

        if (k >= 0)
            votes[k]++;
    }
    for (unsigned k = 0; k < n; k++)
        if (votes[k] > 0 && (best < 0 || votes[k] > votes[best]))
            best = (int)k;
    return best < 0 ? GROUP_NULL : g->first->protocols[best].name;
}
