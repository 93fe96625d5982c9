/* Looking at consumer groups: for admin requests and for tests. */
#include "gateways/kafka/consumer_group_int.h"

const char *consumer_group_state_name(enum consumer_group_state s)
{
    static const char *const names[] = { "Empty", "PreparingRebalance", "CompletingRebalance",
                                         "Stable", "Dead" };

    return names[s];
}

static struct consumer_group_info group_info(const struct consumer_group *g)
{
    return (struct consumer_group_info){
        .id = g->id,
        .state = g->state,
        .generation = g->generation,
        .protocol_type = g->protocol_type,
        .protocol = g->protocol,
        .leader = g->leader ? g->leader->id : GROUP_NULL,
        .n_members = g->n_members,
    };
}

bool consumer_group_find(struct consumer_groups *gs, struct group_bytes group,
                         struct consumer_group_info *out)
{
    struct consumer_group *g = group_map_get(&gs->groups, group);

    ASSERT_HOME(gs->loop);
    if (g)
        *out = group_info(g);
    return g != NULL;
}

void consumer_group_each_member(struct consumer_groups *gs, struct group_bytes group,
                                void (*fn)(void *ctx, const struct group_member *m), void *ctx)
{
    struct consumer_group *g = group_map_get(&gs->groups, group);

    for (struct member *m = g ? g->first : NULL; m; m = m->next)
        fn(ctx, &(struct group_member){
                    .id = m->id,
                    .instance_id = m->instance_id,
                    .client_id = m->client_id,
                    .client_host = m->client_host,
                    .metadata = group_member_metadata(m, g->protocol),
                    .assignment = m->assignment.bytes < 0 ? group_text("") : m->assignment,
                });
}

void consumer_group_each(struct consumer_groups *gs,
                         void (*fn)(void *ctx, const struct consumer_group_info *i), void *ctx)
{
    uint64_t pos = 0;
    void *g;

    while (strmap_next(&gs->groups, &pos, NULL, NULL, &g)) {
        struct consumer_group_info info = group_info(g);

        fn(ctx, &info);
    }
}

/* ---- invariants ------------------------------------------------------------------------------ */

static void group_check(const struct consumer_group *g)
{
    unsigned n = 0, joined = 0, synced = 0;
    uint64_t bytes = 0;

    for (const struct member *m = g->first; m; m = m->next) {
        ASSERT(!m->join || g->state == GROUP_PREPARING);  /* G1 */
        ASSERT(!m->sync || g->state == GROUP_COMPLETING); /* G1 */
        ASSERT(m->assignment.bytes < 0 || g->state == GROUP_STABLE);
        ASSERT(m->assignment.bytes >= 0 || g->state != GROUP_STABLE);
        ASSERT(m->session.due_us || m->join || m->sync);
        ASSERT(group_map_get(&g->by_id, m->id) == m && !m->pending);
        bytes += m->bytes + group_kept_bytes(m->assignment);
        joined += m->join != NULL;
        synced += m->synced;
        n++;
    }
    ASSERT(n == g->n_members && joined == g->n_joined && bytes == g->bytes);
    ASSERT(synced == g->n_synced && g->by_id.count == n + g->n_pending);
    ASSERT((n == 0) == !g->leader);
    ASSERT(g->state != GROUP_EMPTY || !n);
    ASSERT((g->state != GROUP_STABLE && g->state != GROUP_COMPLETING) || n);
    ASSERT(g->state != GROUP_PREPARING || g->timer.due_us);
}

void consumer_groups_check(struct consumer_groups *gs)
{
    uint64_t pos = 0, bytes = 0;
    void *g;

    while (strmap_next(&gs->groups, &pos, NULL, NULL, &g)) {
        group_check(g);
        bytes += ((struct consumer_group *)g)->bytes;
    }
    ASSERT(bytes == gs->bytes && gs->groups.count == gs->n_groups);
}
