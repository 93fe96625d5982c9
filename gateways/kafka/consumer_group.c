/* The classic consumer group protocol as Kafka's coordinator speaks it.
 *
 *   EMPTY --join--> PREPARING --all joined, or time is up--> COMPLETING --leader syncs--> STABLE
 *     ^                 |  ^                                      |                          |
 *     +--nobody joined--+  +---------a member comes, goes, changes or is silent-------------+
 *
 * A member that waits for the end of a rebalance has `join` set, one that waits for the leader's
 * assignment has `sync` set.
 * G1: a join waits only in PREPARING, a sync only in COMPLETING.
 * G2: the generation goes up by one each time a rebalance ends, and nowhere else.
 * G3: an assignment is kept only with the generation it was made for. */
#include "gateways/kafka/consumer_group_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/logger.h"

enum { SWEEP_EVERY_MS = 600000, GROUP_KEPT_MS = 3600000 /* a group without members */ };

/* ---- groups ---------------------------------------------------------------------------------- */

static void group_fire(struct loop_timer *t);

static void group_move(struct consumer_group *g, enum consumer_group_state to)
{
    static const uint8_t allowed[] = {
        [GROUP_EMPTY] = 1 << GROUP_PREPARING | 1 << GROUP_DEAD,
        [GROUP_PREPARING] = 1 << GROUP_EMPTY | 1 << GROUP_COMPLETING | 1 << GROUP_DEAD,
        [GROUP_COMPLETING] = 1 << GROUP_PREPARING | 1 << GROUP_STABLE | 1 << GROUP_DEAD,
        [GROUP_STABLE] = 1 << GROUP_PREPARING | 1 << GROUP_DEAD,
        [GROUP_DEAD] = 0,
    };

    ASSERT(allowed[g->state] >> to & 1);
    g->state = to;
    LOG_DEBUG("group.state", F_STR("group", g->id.mem),
              F_STR("state", consumer_group_state_name(to)), F_INT("generation", g->generation),
              F_INT("members", g->n_members));
}

static struct consumer_group *group_new(struct consumer_groups *gs, struct group_bytes id)
{
    struct consumer_group *g = mem_new(sizeof *g);

    g->all = gs;
    g->id = group_bytes_own(id);
    g->protocol_type = g->protocol = GROUP_NULL;
    g->timer.fire = group_fire;
    g->empty_since_us = loop_now_us(gs->loop);
    strmap_put(&gs->groups, g->id.mem, (size_t)g->id.bytes, g);
    gs->n_groups++;
    return g;
}

static void group_free(struct consumer_group *g, int16_t error)
{
    struct consumer_groups *gs = g->all;
    uint64_t pos = 0;
    void *m;

    group_move(g, GROUP_DEAD);
    while (strmap_next(&g->by_id, &pos, NULL, NULL, &m))
        group_member_free(m, error);
    loop_timer_stop(&g->timer);
    strmap_take(&gs->groups, g->id.mem, (size_t)g->id.bytes);
    gs->n_groups--;
    strmap_free(&g->by_id);
    strmap_free(&g->by_instance);
    group_bytes_disown(&g->id);
    group_bytes_disown(&g->protocol_type);
    group_bytes_disown(&g->protocol);
    free(g);
}

static bool group_idle(const struct consumer_group *g)
{
    return g->state == GROUP_EMPTY && !g->n_pending;
}

void consumer_groups_sweep(struct consumer_groups *gs, uint64_t idle_ms)
{
    uint64_t now = loop_now_us(gs->loop);
    struct consumer_group **idle = mem_new((gs->n_groups + 1) * sizeof *idle);
    unsigned n = 0;
    uint64_t pos = 0;
    void *g;

    while (strmap_next(&gs->groups, &pos, NULL, NULL, &g))
        if (group_idle(g) && now - ((struct consumer_group *)g)->empty_since_us >= idle_ms * 1000)
            idle[n++] = g;
    while (n)
        group_free(idle[--n], GROUP_NOT_AVAILABLE);
    free(idle);
}

/* The group for a new member; NULL when there is no room for one more. */
static struct consumer_group *group_make(struct consumer_groups *gs, struct group_bytes id)
{
    if (gs->n_groups >= gs->conf.groups_max)
        consumer_groups_sweep(gs, 0);
    if (gs->n_groups < gs->conf.groups_max)
        return group_new(gs, id);
    LOG_WARN("group.too_many", F_INT("groups", gs->n_groups));
    return NULL;
}

static uint32_t group_rebalance_ms(const struct consumer_group *g)
{
    uint32_t ms = 0;

    for (const struct member *m = g->first; m; m = m->next)
        ms = m->rebalance_ms > ms ? m->rebalance_ms : ms;
    return ms;
}

static void group_timer(struct consumer_group *g, uint32_t ms)
{
    loop_timer_set(g->all->loop, &g->timer, (uint64_t)ms * 1000);
}

/* ---- rebalance ------------------------------------------------------------------------------- */

static void group_try_complete(struct consumer_group *g);

static void group_prepare(struct consumer_group *g)
{
    uint32_t delay = g->all->conf.rebalance_delay_ms, most = group_rebalance_ms(g);

    for (struct member *m = g->first; m; m = m->next) {
        struct group_sync *s = m->sync;

        group_member_set_sync(m, NULL);
        group_member_set_synced(m, false);
        group_member_assign(m, GROUP_NULL); /* G3 */
        if (s) {
            group_member_alive(m, m->session_ms);
            group_sync_answer(s, GROUP_REBALANCE_IN_PROGRESS, NULL);
        }
    }
    g->delayed = g->state == GROUP_EMPTY && delay > 0;
    g->delay_more = false;
    g->delay_left_ms = most > delay ? most - delay : 0;
    group_move(g, GROUP_PREPARING);
    group_timer(g, g->delayed ? delay : most);
}

/* Starts a rebalance unless one is going on already, and ends it if nobody is missing. */
static void group_rebalance(struct consumer_group *g)
{
    if (g->state != GROUP_PREPARING)
        group_prepare(g);
    group_try_complete(g);
}

static void group_become_empty(struct consumer_group *g)
{
    group_bytes_disown(&g->protocol);
    loop_timer_stop(&g->timer);
    g->empty_since_us = loop_now_us(g->all->loop);
    group_move(g, GROUP_EMPTY);
}

static void group_start_generation(struct consumer_group *g)
{
    group_bytes_replace(&g->protocol, group_vote(g));
    group_move(g, GROUP_COMPLETING);
    group_timer(g, group_rebalance_ms(g));
    for (struct member *m = g->first; m; m = m->next) {
        struct group_join *j = m->join;

        m->is_new = false;
        group_member_set_synced(m, false);
        group_member_alive(m, m->session_ms);
        group_member_set_join(m, NULL);
        if (j)
            group_join_answer_now(j, m);
    }
}

/* Ends the rebalance with those who have joined. A static member may be away for a moment (a
 * restart): it stays, until its session ends. */
static void group_complete(struct consumer_group *g)
{
    for (struct member *m = g->first, *next; m; m = next) {
        next = m->next;
        if (!m->join && m->instance_id.bytes < 0)
            group_member_free(m, GROUP_UNKNOWN_MEMBER);
    }
    if (g->n_members && !g->n_joined) {
        group_timer(g, group_rebalance_ms(g));
        return;
    }
    g->delayed = false;
    g->generation = g->generation == INT32_MAX ? 1 : g->generation + 1; /* G2 */
    if (!g->n_members) {
        group_become_empty(g);
        return;
    }
    for (struct member *m = g->first; m && !g->leader->join; m = m->next)
        g->leader = m;
    group_start_generation(g);
}

static void group_try_complete(struct consumer_group *g)
{
    if (g->state == GROUP_PREPARING && !g->delayed && !g->n_pending && g->n_joined == g->n_members)
        group_complete(g);
}

/* After members have gone. */
static void group_after_loss(struct consumer_group *g)
{
    if (g->state == GROUP_STABLE || g->state == GROUP_COMPLETING)
        group_rebalance(g);
    else
        group_try_complete(g);
}

/* Members that joined but never synced would hold the group for ever. */
static void group_drop_unsynced(struct consumer_group *g)
{
    unsigned n = g->n_members;

    for (struct member *m = g->first, *next; m; m = next) {
        next = m->next;
        if (!m->synced)
            group_member_free(m, GROUP_UNKNOWN_MEMBER);
    }
    if (g->n_members < n)
        group_after_loss(g);
}

static void group_fire(struct loop_timer *t)
{
    struct consumer_group *g =
        (struct consumer_group *)((char *)t - offsetof(struct consumer_group, timer));

    if (g->state != GROUP_PREPARING) {
        group_drop_unsynced(g);
        return;
    }
    if (g->delayed && g->delay_more && g->delay_left_ms) {
        uint32_t delay = g->all->conf.rebalance_delay_ms;

        delay = delay < g->delay_left_ms ? delay : g->delay_left_ms;
        g->delay_more = false;
        g->delay_left_ms -= delay;
        group_timer(g, delay);
        return;
    }
    group_complete(g);
}

/* No sign of life for a session. Whoever waits for us is alive, unless it is new: its client may
 * have gone away long ago. */
void group_session_fire(struct loop_timer *t)
{
    struct member *m = (struct member *)((char *)t - offsetof(struct member, session));
    struct consumer_group *g = m->group;
    bool waits = m->join || m->sync;

    if (waits && !m->is_new)
        return;
    if (!m->pending)
        LOG_INFO("group.member_silent", F_STR("group", g->id.mem), F_STR("member", m->id.mem));
    group_member_free(m, GROUP_UNKNOWN_MEMBER);
    group_after_loss(g);
}

/* ---- join ------------------------------------------------------------------------------------ */

/* A version 4 UUID (RFC 4122) after the client's own name for itself. */
static struct group_bytes new_member_id(struct consumer_groups *gs, const struct group_join *j)
{
    struct group_bytes name = j->instance_id.bytes >= 0 ? j->instance_id : j->client_id;
    int name_bytes = name.bytes < 0 ? 0 : name.bytes;
    uint64_t a = rng_u64(&gs->rng), b = rng_u64(&gs->rng);
    char *id;

    if (name_bytes > CLIENT_ID_IN_MEMBER_ID)
        name_bytes = CLIENT_ID_IN_MEMBER_ID;
    id = mem_new((size_t)name_bytes + 1 + UUID_CHARS + 1);
    if (name_bytes)
        memcpy(id, name.mem, (size_t)name_bytes);
    snprintf(id + name_bytes, 1 + UUID_CHARS + 1, "-%08x-%04x-4%03x-%04x-%012llx",
             (unsigned)(a >> 32), (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
             (unsigned)(0x8000 | (b >> 48 & 0x3fff)), (unsigned long long)(b & 0xffffffffffff));
    return (struct group_bytes){ id, name_bytes + 1 + UUID_CHARS };
}

static void join_wait(struct consumer_group *g, struct member *m, struct group_join *j)
{
    struct group_join *old = m->join;

    group_member_set_join(m, j);
    if (old) /* the client has sent the same again: nobody reads the first answer */
        group_join_refuse_as(old, GROUP_REBALANCE_IN_PROGRESS, m->id);
    group_rebalance(g);
}

static void join_add(struct consumer_group *g, struct member *m, struct group_join *j)
{
    if (!g->n_members)
        group_bytes_replace(&g->protocol_type, j->protocol_type);
    group_member_admit(m, j->instance_id);
    group_member_update(m, j);
    group_member_alive(m, NEW_MEMBER_WAIT_MS);
    g->delay_more = true;
    join_wait(g, m, j);
}

/* Would a group that takes more bytes, for less that it gives up, hold too much? */
static bool group_too_large(const struct consumer_group *g, uint64_t more, uint64_t less)
{
    const struct consumer_groups *gs = g->all;

    return g->bytes - less + more > gs->conf.bytes_max ||
           gs->bytes - less + more > gs->conf.all_bytes_max;
}

/* A static member comes back under a new id. While the group is stable and its choice of
 * protocol stays, the old assignment holds and nobody else notices. An older client must not
 * think that it leads, or it would assign anew: it is told the leader's former id. */
static void join_replace(struct consumer_group *g, struct member *m, struct group_join *j,
                         struct group_bytes new_id)
{
    struct group_bytes old_leader = group_bytes_own(g->leader->id);
    struct group_bytes chosen = group_bytes_own(g->protocol);
    bool leads = g->leader == m;

    group_member_refuse(m, GROUP_FENCED_INSTANCE);
    strmap_take(&g->by_id, m->id.mem, (size_t)m->id.bytes);
    group_bytes_replace(&m->id, new_id);
    strmap_put(&g->by_id, m->id.mem, (size_t)m->id.bytes, m);
    group_member_update(m, j);
    group_member_alive(m, m->session_ms);
    if (g->state == GROUP_STABLE && group_bytes_equal(group_vote(g), chosen)) {
        if (j->can_skip_assignment)
            group_join_answer(j, m, g->leader->id, leads, leads);
        else
            group_join_answer(j, m, old_leader, false, false);
    } else { /* also while completing: the leader knows the old id, and must assign again */
        join_wait(g, m, j);
    }
    group_bytes_disown(&chosen);
    group_bytes_disown(&old_leader);
}

static void join_new(struct consumer_groups *gs, struct consumer_group *g, struct group_join *j)
{
    struct member *known = group_map_get(&g->by_instance, j->instance_id);
    struct group_bytes id;
    struct member *m;

    if (!known && g->n_members + g->n_pending >= gs->conf.members_max) {
        group_join_refuse(j, GROUP_MAX_SIZE_REACHED);
        return;
    }
    id = new_member_id(gs, j);
    if (known) {
        join_replace(g, known, j, id);
    } else {
        m = group_pending_new(g, id, (uint32_t)j->session_timeout_ms);
        if (j->known_id_required && j->instance_id.bytes < 0) {
            group_member_alive(m, m->session_ms);
            group_join_refuse_as(j, GROUP_MEMBER_ID_REQUIRED, id);
        } else {
            join_add(g, m, j);
        }
    }
    group_bytes_disown(&id);
}

/* Who asks? 0, UNKNOWN_MEMBER or FENCED_INSTANCE. */
static int16_t find_member(const struct consumer_group *g, struct group_bytes id,
                           struct group_bytes instance, struct member **out)
{
    struct member *m = group_map_get(&g->by_id, id);

    *out = NULL;
    if (instance.bytes >= 0) {
        m = group_map_get(&g->by_instance, instance);
        if (m && !group_bytes_equal(m->id, id))
            return GROUP_FENCED_INSTANCE;
    }
    if (!m || m->pending)
        return GROUP_UNKNOWN_MEMBER;
    *out = m;
    return GROUP_OK;
}

static void join_again(struct consumer_group *g, struct group_join *j)
{
    struct member *m;
    int16_t error = find_member(g, j->member_id, j->instance_id, &m);
    bool same;

    if (error) {
        group_join_refuse(j, error);
        return;
    }
    same = group_member_says_the_same(m, j);
    /* Its first answer was lost: the generation it asks about is the one that just began. */
    if (same && g->state == GROUP_COMPLETING) {
        group_join_answer_now(j, m);
        return;
    }
    /* In a stable group a follower that has nothing new to say needs no rebalance; a leader that
     * joins wants one. */
    if (same && g->state == GROUP_STABLE && m != g->leader) {
        group_join_answer_now(j, m);
        return;
    }
    group_member_update(m, j);
    join_wait(g, m, j);
}

static int16_t join_check(const struct consumer_groups *gs, const struct group_join *j)
{
    if (gs->stopped)
        return GROUP_NOT_AVAILABLE;
    if (group_bytes_empty(j->group))
        return GROUP_INVALID_ID;
    if (j->session_timeout_ms < (int64_t)gs->conf.session_min_ms ||
        j->session_timeout_ms > (int64_t)gs->conf.session_max_ms)
        return GROUP_INVALID_SESSION_TIMEOUT;
    return j->n_protocols > PROTOCOLS_MAX ? GROUP_INVALID_REQUEST : GROUP_OK;
}

/* The part of a join that the group's size and protocols decide. */
static int16_t join_fits(const struct consumer_group *g, const struct member *m,
                         const struct group_join *j)
{
    if (!group_accepts(g, j))
        return GROUP_INCONSISTENT_PROTOCOL;
    return group_too_large(g, group_join_bytes(j), m ? m->bytes : 0) ? GROUP_MAX_SIZE_REACHED
                                                                     : GROUP_OK;
}

void consumer_group_join(struct consumer_groups *gs, struct group_join *j)
{
    struct consumer_group *g = group_map_get(&gs->groups, j->group);
    bool is_new = group_bytes_empty(j->member_id);
    int16_t error = join_check(gs, j);
    struct member *m;

    ASSERT_HOME(gs->loop);
    j->member = NULL;
    if (!error && !g && !is_new)
        error = GROUP_UNKNOWN_MEMBER;
    if (!error && !g && !group_accepts(NULL, j))
        error = GROUP_INCONSISTENT_PROTOCOL;
    if (!error && !g) {
        g = group_make(gs, j->group);
        error = g ? GROUP_OK : GROUP_NOT_AVAILABLE;
    }
    m = g ? group_map_get(is_new ? &g->by_instance : &g->by_id,
                          is_new ? j->instance_id : j->member_id)
          : NULL;
    if (!error)
        error = join_fits(g, m, j);
    if (error)
        group_join_refuse(j, error);
    else if (is_new)
        join_new(gs, g, j);
    else if (m && m->pending && j->instance_id.bytes < 0)
        join_add(g, m, j);
    else
        join_again(g, j);
}

void consumer_group_join_cancel(struct consumer_groups *gs, struct group_join *j)
{
    struct member *m = j->member;

    ASSERT_HOME(gs->loop);
    if (!m)
        return;
    group_member_set_join(m, NULL);
    group_member_alive(m, m->session_ms);
    group_join_refuse(j, GROUP_NOT_AVAILABLE);
}

/* ---- sync ------------------------------------------------------------------------------------ */

static int16_t sync_check(const struct consumer_groups *gs, const struct consumer_group *g,
                          const struct group_sync *s, struct member **m)
{
    int16_t error;

    if (gs->stopped)
        return GROUP_NOT_AVAILABLE;
    if (group_bytes_empty(s->group))
        return GROUP_INVALID_ID;
    if (!g)
        return GROUP_UNKNOWN_MEMBER;
    error = find_member(g, s->member_id, s->instance_id, m);
    if (error)
        return error;
    if (s->generation != g->generation)
        return GROUP_ILLEGAL_GENERATION;
    if (s->protocol_type.bytes >= 0 && !group_bytes_equal(s->protocol_type, g->protocol_type))
        return GROUP_INCONSISTENT_PROTOCOL;
    if (s->protocol.bytes >= 0 && !group_bytes_equal(s->protocol, g->protocol))
        return GROUP_INCONSISTENT_PROTOCOL;
    return GROUP_OK;
}

static void sync_seen(struct consumer_group *g, struct member *m)
{
    group_member_set_synced(m, true);
    if (g->n_synced == g->n_members)
        loop_timer_stop(&g->timer);
}

/* The leader has spoken: everyone who waits gets its part, nobody's part is lost if it asks
 * later. */
static void sync_distribute(struct consumer_group *g, const struct group_sync *s)
{
    for (struct member *m = g->first; m; m = m->next)
        group_member_assign(m, group_text(""));
    for (unsigned i = 0; i < s->n_assignments; i++) {
        struct member *m = group_map_get(&g->by_id, s->assignments[i].member_id);

        if (m && !m->pending)
            group_member_assign(m, s->assignments[i].assignment);
    }
    group_move(g, GROUP_STABLE);
    LOG_INFO("group.stable", F_STR("group", g->id.mem), F_INT("generation", g->generation),
             F_INT("members", g->n_members));
    for (struct member *m = g->first; m; m = m->next) {
        struct group_sync *waiting = m->sync;

        group_member_set_sync(m, NULL);
        if (waiting) {
            group_member_alive(m, m->session_ms);
            group_sync_answer(waiting, GROUP_OK, m);
        }
    }
}

static bool sync_too_large(const struct consumer_group *g, const struct group_sync *s)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < s->n_assignments; i++)
        bytes += group_kept_bytes(s->assignments[i].assignment);
    return group_too_large(g, bytes, 0);
}

static void sync_wait(struct consumer_group *g, struct member *m, struct group_sync *s)
{
    struct group_sync *old = m->sync;

    if (m == g->leader && sync_too_large(g, s)) {
        group_sync_answer(s, GROUP_INVALID_REQUEST, NULL);
        return;
    }
    group_member_set_sync(m, s);
    sync_seen(g, m);
    if (old)
        group_sync_answer(old, GROUP_REBALANCE_IN_PROGRESS, NULL);
    if (m == g->leader)
        sync_distribute(g, s);
}

void consumer_group_sync(struct consumer_groups *gs, struct group_sync *s)
{
    struct consumer_group *g = group_map_get(&gs->groups, s->group);
    struct member *m = NULL;
    int16_t error = sync_check(gs, g, s, &m);

    ASSERT_HOME(gs->loop);
    s->member = NULL;
    if (!error && g->state == GROUP_PREPARING)
        error = GROUP_REBALANCE_IN_PROGRESS;
    if (error) {
        group_sync_answer(s, error, NULL);
    } else if (g->state == GROUP_COMPLETING) {
        sync_wait(g, m, s);
    } else {
        sync_seen(g, m);
        group_member_alive(m, m->session_ms);
        group_sync_answer(s, GROUP_OK, m);
    }
}

void consumer_group_sync_cancel(struct consumer_groups *gs, struct group_sync *s)
{
    struct member *m = s->member;

    ASSERT_HOME(gs->loop);
    if (!m)
        return;
    group_member_set_sync(m, NULL);
    group_member_alive(m, m->session_ms);
    group_sync_answer(s, GROUP_NOT_AVAILABLE, NULL);
}

/* ---- heartbeat, commit, leave ---------------------------------------------------------------- */

static int16_t beat_check(const struct consumer_group *g, const struct group_beat *b,
                          struct member **m)
{
    int16_t error = find_member(g, b->member_id, b->instance_id, m);

    if (!error && b->generation != g->generation)
        error = GROUP_ILLEGAL_GENERATION;
    if (!error && !(*m)->join && !(*m)->sync)
        group_member_alive(*m, (*m)->session_ms);
    return error;
}

int16_t consumer_group_heartbeat(struct consumer_groups *gs, const struct group_beat *b)
{
    struct consumer_group *g = group_map_get(&gs->groups, b->group);
    struct member *m;
    int16_t error;

    ASSERT_HOME(gs->loop);
    if (gs->stopped)
        return GROUP_NOT_AVAILABLE;
    if (group_bytes_empty(b->group))
        return GROUP_INVALID_ID;
    if (!g)
        return GROUP_UNKNOWN_MEMBER;
    error = beat_check(g, b, &m);
    if (!error && g->state == GROUP_PREPARING)
        error = GROUP_REBALANCE_IN_PROGRESS;
    return error;
}

int16_t consumer_group_may_commit(struct consumer_groups *gs, const struct group_beat *b)
{
    struct consumer_group *g = group_map_get(&gs->groups, b->group);
    struct member *m;
    int16_t error;

    ASSERT_HOME(gs->loop);
    if (gs->stopped)
        return GROUP_NOT_AVAILABLE;
    if (!g)
        return b->generation < 0 ? GROUP_OK : GROUP_ILLEGAL_GENERATION;
    if (b->generation < 0 && g->state == GROUP_EMPTY)
        return GROUP_OK;
    if (b->generation < 0 && group_bytes_empty(b->member_id) && b->instance_id.bytes < 0)
        return GROUP_UNKNOWN_MEMBER;
    error = beat_check(g, b, &m);
    /* It has seen the new generation, but not yet what it may work on. */
    if (!error && g->state == GROUP_COMPLETING)
        error = GROUP_REBALANCE_IN_PROGRESS;
    return error;
}

static int16_t leave_one(struct consumer_group *g, struct group_bytes id,
                         struct group_bytes instance)
{
    struct member *m = group_map_get(&g->by_id, id);
    int16_t error;

    if (m && m->pending && instance.bytes < 0) {
        group_member_free(m, GROUP_UNKNOWN_MEMBER);
        return GROUP_OK;
    }
    if (group_bytes_empty(id) && (m = group_map_get(&g->by_instance, instance)))
        id = m->id;
    error = find_member(g, id, instance, &m);
    if (!error)
        group_member_free(m, GROUP_UNKNOWN_MEMBER);
    return error;
}

int16_t consumer_group_leave(struct consumer_groups *gs, struct group_bytes group,
                             struct group_leaver *leavers, unsigned n)
{
    struct consumer_group *g = group_map_get(&gs->groups, group);
    bool lost = false;

    ASSERT_HOME(gs->loop);
    if (gs->stopped)
        return GROUP_NOT_AVAILABLE;
    if (group_bytes_empty(group))
        return GROUP_INVALID_ID;
    for (unsigned i = 0; i < n; i++) {
        leavers[i].error =
            g ? leave_one(g, leavers[i].member_id, leavers[i].instance_id) : GROUP_UNKNOWN_MEMBER;
        lost |= !leavers[i].error;
    }
    if (lost)
        group_after_loss(g);
    return GROUP_OK;
}

/* ---- deletion -------------------------------------------------------------------------------- */

int16_t consumer_group_delete(struct consumer_groups *gs, struct group_bytes group)
{
    struct consumer_group *g = group_map_get(&gs->groups, group);

    ASSERT_HOME(gs->loop);
    if (gs->stopped)
        return GROUP_NOT_AVAILABLE;
    if (!g)
        return GROUP_NOT_FOUND;
    if (!group_idle(g))
        return GROUP_NON_EMPTY;
    group_free(g, GROUP_NOT_AVAILABLE);
    return GROUP_OK;
}

bool consumer_group_in_use(struct consumer_groups *gs, struct group_bytes group)
{
    struct consumer_group *g = group_map_get(&gs->groups, group);

    return g && !group_idle(g);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void sweep_fire(struct loop_timer *t)
{
    struct consumer_groups *gs =
        (struct consumer_groups *)((char *)t - offsetof(struct consumer_groups, sweep));

    consumer_groups_sweep(gs, GROUP_KEPT_MS);
    loop_timer_set(gs->loop, t, SWEEP_EVERY_MS * 1000ull);
}

struct consumer_groups *consumer_groups_new(struct loop *home,
                                            const struct consumer_groups_conf *conf, uint64_t seed)
{
    struct consumer_groups *gs = mem_new(sizeof *gs);

    gs->loop = home;
    gs->conf = *conf;
    if (!gs->conf.session_min_ms)
        gs->conf.session_min_ms = 6000;
    if (!gs->conf.session_max_ms)
        gs->conf.session_max_ms = 1800000;
    if (!gs->conf.groups_max)
        gs->conf.groups_max = 100000;
    if (!gs->conf.members_max)
        gs->conf.members_max = 10000;
    if (!gs->conf.bytes_max)
        gs->conf.bytes_max = 32 << 20;
    if (!gs->conf.all_bytes_max)
        gs->conf.all_bytes_max = 256 << 20;
    rng_seed(&gs->rng, seed);
    gs->sweep.fire = sweep_fire;
    loop_timer_set(home, &gs->sweep, SWEEP_EVERY_MS * 1000ull);
    return gs;
}

void consumer_groups_stop(struct consumer_groups *gs)
{
    uint64_t pos = 0;
    void *g;

    ASSERT_HOME(gs->loop);
    gs->stopped = true;
    loop_timer_stop(&gs->sweep);
    while (strmap_next(&gs->groups, &pos, NULL, NULL, &g))
        group_free(g, GROUP_NOT_AVAILABLE);
}

void consumer_groups_free(struct consumer_groups *gs)
{
    if (!gs)
        return;
    ASSERT(!gs->n_groups);
    strmap_free(&gs->groups);
    free(gs);
}
