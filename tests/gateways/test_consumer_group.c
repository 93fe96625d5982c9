/* The consumer group state machine, driven by scripted members over virtual time. */
#include "gateways/kafka/consumer_group.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/logger.h"
#include "tests/check.h"
#include "tests/sim/loop_sim.h"

enum { SESSION_MS = 10000, REBALANCE_MS = 30000, TEXT = 128, MEMBERS = 8 };

struct world {
    struct sim *sim;
    struct loop *home;
    struct loop *other; /* where members live */
    struct consumer_groups *groups;
};

/* One client, its last requests and what came back. */
struct client {
    struct world *w;
    const char *name;
    const char *instance;
    const char *type;
    const char *protocols[4]; /* name:metadata */
    bool old;                 /* JoinGroup before 4: no MEMBER_ID_REQUIRED */
    bool may_skip;
    int32_t session_ms, rebalance_ms;

    char id[TEXT];
    struct group_join join;
    struct group_protocol offered[4];
    bool joined; /* answered */
    int16_t error;
    int32_t generation;
    char leader[TEXT], protocol[TEXT], members[512];
    unsigned n_members;
    bool skip;
    struct group_sync sync;
    struct group_assignment given[MEMBERS];
    bool synced; /* answered */
    int16_t sync_error;
    char assignment[TEXT];
    int joins_answered, syncs_answered;
};

static struct world world_new(const struct consumer_groups_conf *conf)
{
    struct world w = { .sim = sim_new(7) };

    logger_to(-1);
    w.home = sim_loop(w.sim, 0);
    w.other = sim_loop(w.sim, 1);
    w.groups = consumer_groups_new(w.home, conf, 99);
    return w;
}

static struct world world(void)
{
    return world_new(&(struct consumer_groups_conf){ 0 });
}

static void run_ms(struct world *w, uint64_t ms)
{
    REQUIRE(sim_run_for(w->sim, ms * 1000, 100000));
    consumer_groups_check(w->groups);
}

static void world_end(struct world *w)
{
    consumer_groups_check(w->groups);
    consumer_groups_stop(w->groups);
    run_ms(w, 1);
    consumer_groups_free(w->groups);
    sim_free(w->sim);
}

static struct client client(struct world *w, const char *name)
{
    return (struct client){ .w = w,
                            .name = name,
                            .type = "consumer",
                            .protocols = { "range:topics" },
                            .session_ms = SESSION_MS,
                            .rebalance_ms = REBALANCE_MS };
}

static void copy(char *to, struct group_bytes b, size_t cap)
{
    size_t n = b.bytes < 0 ? 0 : (size_t)b.bytes;

    REQUIRE(n < cap);
    if (n)
        memcpy(to, b.mem, n);
    to[n] = 0;
}

static void on_join(struct group_join *j)
{
    struct client *c = (struct client *)((char *)j - offsetof(struct client, join));
    char id[TEXT], metadata[TEXT];

    c->joined = true;
    c->joins_answered++;
    c->error = j->error;
    c->generation = j->generation;
    c->skip = j->skip_assignment;
    c->n_members = j->n_members;
    copy(c->leader, j->leader, TEXT);
    copy(c->protocol, j->chosen, TEXT);
    copy(c->id, j->your_id, TEXT);
    c->members[0] = 0;
    for (unsigned i = 0; i < j->n_members; i++) {
        copy(id, j->members[i].id, TEXT);
        copy(metadata, j->members[i].metadata, TEXT);
        if (strlen(c->members) + strlen(metadata) + 2 < sizeof c->members) {
            strcat(c->members, metadata);
            strcat(c->members, ";");
        }
    }
}

static void on_sync(struct group_sync *s)
{
    struct client *c = (struct client *)((char *)s - offsetof(struct client, sync));

    c->synced = true;
    c->syncs_answered++;
    c->sync_error = s->error;
    copy(c->assignment, s->assignment, TEXT);
}

static void send_join_to(struct client *c, const char *group)
{
    unsigned n = 0;

    for (; n < 4 && c->protocols[n]; n++) {
        const char *colon = strchr(c->protocols[n], ':');

        c->offered[n].name =
            (struct group_bytes){ c->protocols[n], (int32_t)(colon - c->protocols[n]) };
        c->offered[n].metadata = group_text(colon + 1);
    }
    c->joined = false;
    c->join = (struct group_join){ .fn = on_join,
                                   .loop = c->w->other,
                                   .group = group_text(group),
                                   .member_id = group_text(c->id),
                                   .instance_id = group_text(c->instance),
                                   .client_id = group_text(c->name),
                                   .client_host = group_text("/127.0.0.1"),
                                   .protocol_type = group_text(c->type),
                                   .protocols = c->offered,
                                   .n_protocols = n,
                                   .session_timeout_ms = c->session_ms,
                                   .rebalance_timeout_ms = c->rebalance_ms,
                                   .known_id_required = !c->old,
                                   .can_skip_assignment = c->may_skip };
    consumer_group_join(c->w->groups, &c->join);
    CHECK(!c->joined); /* never inside the call */
    consumer_groups_check(c->w->groups);
}

/* Joins, and again with the id when one is handed out first. */
static void send_join(struct client *c)
{
    bool first = !c->id[0];

    send_join_to(c, "g");
    run_ms(c->w, 1);
    if (first && c->joined && c->error == GROUP_MEMBER_ID_REQUIRED) {
        send_join_to(c, "g");
        run_ms(c->w, 1);
    }
}

static void sync_of(struct client *c, int32_t generation)
{
    c->synced = false;
    c->sync = (struct group_sync){ .fn = on_sync,
                                   .loop = c->w->other,
                                   .group = group_text("g"),
                                   .generation = generation,
                                   .member_id = group_text(c->id),
                                   .instance_id = group_text(c->instance),
                                   .protocol_type = GROUP_NULL,
                                   .protocol = GROUP_NULL };
}

static void send_sync(struct client *c)
{
    sync_of(c, c->generation);
    consumer_group_sync(c->w->groups, &c->sync);
    run_ms(c->w, 1);
}

/* Gives client i the text "work of NAME". */
static void lead_sync(struct client *c, struct client **all, unsigned n)
{
    static char texts[MEMBERS][TEXT];

    sync_of(c, c->generation);
    for (unsigned i = 0; i < n; i++) {
        snprintf(texts[i], TEXT, "work of %s", all[i]->name);
        c->given[i].member_id = group_text(all[i]->id);
        c->given[i].assignment = group_text(texts[i]);
    }
    c->sync.assignments = c->given;
    c->sync.n_assignments = n;
    consumer_group_sync(c->w->groups, &c->sync);
    run_ms(c->w, 1);
}

static int16_t beat(struct client *c)
{
    return consumer_group_heartbeat(c->w->groups,
                                    &(struct group_beat){ .group = group_text("g"),
                                                          .generation = c->generation,
                                                          .member_id = group_text(c->id),
                                                          .instance_id = group_text(c->instance) });
}

static int16_t may_commit(struct world *w, const char *id, int32_t generation)
{
    return consumer_group_may_commit(w->groups, &(struct group_beat){ .group = group_text("g"),
                                                                      .generation = generation,
                                                                      .member_id = group_text(id),
                                                                      .instance_id = GROUP_NULL });
}

static int16_t leave(struct client *c)
{
    struct group_leaver l = { .member_id = group_text(c->id), .instance_id = GROUP_NULL };
    int16_t rc = consumer_group_leave(c->w->groups, group_text("g"), &l, 1);

    run_ms(c->w, 1);
    return rc ? rc : l.error;
}

static enum consumer_group_state state(struct world *w)
{
    struct consumer_group_info i;

    return consumer_group_find(w->groups, group_text("g"), &i) ? i.state : GROUP_DEAD;
}

/* a and b in one stable generation; a leads. */
static void make_stable_pair(struct client *a, struct client *b)
{
    struct client *all[] = { a, b };

    send_join(a);
    REQUIRE(a->joined && !a->error);
    send_join(b);
    REQUIRE(!b->joined);
    send_join(a);
    REQUIRE(a->joined && b->joined && !a->error && !b->error);
    CHECK(!strcmp(a->leader, a->id) && !strcmp(b->leader, a->id));
    send_sync(b);
    CHECK(!b->synced);
    lead_sync(a, all, 2);
    REQUIRE(a->synced && b->synced && !a->sync_error && !b->sync_error);
    CHECK_EQ(state(a->w), GROUP_STABLE);
}

/* ---- joining ---- */

static void test_a_new_dynamic_member_first_gets_an_id(void)
{
    struct world w = world();
    struct client a = client(&w, "app");

    send_join_to(&a, "g");
    run_ms(&w, 1);
    CHECK_EQ(a.error, 79);
    CHECK_EQ(strlen(a.id), strlen("app") + 1 + 36);
    CHECK(!strncmp(a.id, "app-", 4) && a.id[4 + 14] == '4');
    CHECK_EQ(a.generation, -1);
    CHECK_EQ(state(&w), GROUP_EMPTY);
    send_join_to(&a, "g");
    run_ms(&w, 1);
    CHECK_EQ(a.error, 0);
    CHECK_EQ(a.generation, 1);
    world_end(&w);
}

static void test_an_old_client_joins_at_once(void)
{
    struct world w = world();
    struct client a = client(&w, "app");

    a.old = true;
    send_join_to(&a, "g");
    run_ms(&w, 1);
    CHECK_EQ(a.error, 0);
    CHECK(!strcmp(a.leader, a.id));
    CHECK(!strcmp(a.protocol, "range"));
    CHECK(!strcmp(a.members, "topics;"));
    world_end(&w);
}

static void test_a_static_member_needs_no_id_first(void)
{
    struct world w = world();
    struct client a = client(&w, "app");

    a.instance = "box1";
    send_join_to(&a, "g");
    run_ms(&w, 1);
    CHECK_EQ(a.error, 0);
    CHECK(!strncmp(a.id, "box1-", 5));
    world_end(&w);
}

static void test_an_id_that_is_not_used_is_forgotten_after_a_session(void)
{
    struct world w = world();
    struct client a = client(&w, "app"), b = client(&w, "b");

    send_join_to(&a, "g");
    run_ms(&w, 1);
    CHECK(consumer_group_in_use(w.groups, group_text("g")));
    b.old = true;
    send_join_to(&b, "g");
    run_ms(&w, 1);
    CHECK(!b.joined); /* the rebalance waits for a */
    run_ms(&w, SESSION_MS);
    CHECK(b.joined && !b.error);
    send_join_to(&a, "g");
    run_ms(&w, 1);
    CHECK_EQ(a.error, 25);
    world_end(&w);
}

static void test_unknown_members_and_groups_are_refused(void)
{
    struct world w = world();
    struct client a = client(&w, "app");

    strcpy(a.id, "app-who");
    send_join_to(&a, "g");
    run_ms(&w, 1);
    CHECK_EQ(a.error, 25);
    CHECK_EQ(state(&w), GROUP_DEAD); /* not made */
    a.generation = 1;
    CHECK_EQ(beat(&a), 25);
    CHECK_EQ(leave(&a), 25);
    send_sync(&a);
    CHECK_EQ(a.sync_error, 25);
    a.id[0] = 0;
    send_join_to(&a, "");
    run_ms(&w, 1);
    CHECK_EQ(a.error, 24);
    world_end(&w);
}

static void test_session_timeouts_outside_the_limits_are_refused(void)
{
    static const int32_t bad[] = { 5999, 0, -1, 1800001, INT32_MAX };
    struct world w = world();

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct client a = client(&w, "app");

        a.session_ms = bad[i];
        send_join_to(&a, "g");
        run_ms(&w, 1);
        CHECK_EQ(a.error, 26);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct client a = client(&w, "app");

        a.session_ms = i ? 6000 : 1800000;
        send_join_to(&a, i ? "low" : "high");
        run_ms(&w, 1);
        CHECK_EQ(a.error, 79);
    }
    world_end(&w);
}

static void test_members_without_a_common_protocol_are_refused(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c"),
                  d = client(&w, "d");

    send_join(&a);
    b.protocols[0] = "sticky:x";
    send_join(&b);
    CHECK_EQ(b.error, 23);
    c.type = "connect";
    send_join(&c);
    CHECK_EQ(c.error, 23);
    d.protocols[0] = NULL;
    send_join(&d);
    CHECK_EQ(d.error, 23);
    world_end(&w);
}

static void test_the_most_voted_common_protocol_wins(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c");

    a.old = b.old = c.old = true;
    a.protocols[0] = "only-a:x", a.protocols[1] = "range:ra", a.protocols[2] = "robin:oa";
    b.protocols[0] = "robin:ob", b.protocols[1] = "range:rb";
    c.protocols[0] = "robin:oc", c.protocols[1] = "range:rc";
    send_join(&a);
    CHECK(!strcmp(a.protocol, "only-a"));
    send_join(&b);
    send_join(&c);
    send_join(&a);
    CHECK(a.joined && b.joined && c.joined);
    /* a votes for range (only-a is not common), b and c for robin */
    CHECK(!strcmp(a.protocol, "robin") && !strcmp(c.protocol, "robin"));
    CHECK(!strcmp(a.members, "oa;ob;oc;"));
    CHECK_EQ(b.n_members, 0);
    world_end(&w);
}

static void test_the_leader_gets_all_metadata_and_its_assignment_reaches_all(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    b.protocols[0] = "range:of b";
    make_stable_pair(&a, &b);
    CHECK_EQ(a.generation, 2);
    CHECK_EQ(b.generation, 2);
    CHECK_EQ(a.n_members, 2);
    CHECK(!strcmp(a.members, "topics;of b;"));
    CHECK(!strcmp(a.assignment, "work of a"));
    CHECK(!strcmp(b.assignment, "work of b"));
    world_end(&w);
}

static void test_a_member_that_the_leader_forgot_gets_an_empty_assignment(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");
    struct client *only_a[] = { &a };

    send_join(&a);
    send_join(&b);
    send_join(&a);
    lead_sync(&a, only_a, 1);
    send_sync(&b); /* late: the group is stable already */
    CHECK(b.synced && !b.sync_error && !strcmp(b.assignment, ""));
    world_end(&w);
}

static void test_the_first_rebalance_waits_for_more_members(void)
{
    struct world w = world_new(&(struct consumer_groups_conf){ .rebalance_delay_ms = 3000 });
    struct client a = client(&w, "a"), b = client(&w, "b");

    a.old = b.old = true;
    send_join(&a);
    run_ms(&w, 2000);
    CHECK(!a.joined);
    send_join(&b); /* prolongs the delay once */
    run_ms(&w, 2000);
    CHECK(!a.joined && !b.joined);
    run_ms(&w, 2000);
    CHECK(a.joined && b.joined);
    CHECK_EQ(a.generation, 1);
    CHECK_EQ(b.generation, 1);
    world_end(&w);
}

/* ---- rebalance ---- */

static void test_heartbeats_tell_members_of_a_rebalance(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c");

    make_stable_pair(&a, &b);
    CHECK_EQ(beat(&a), 0);
    send_join(&c);
    CHECK_EQ(state(&w), GROUP_PREPARING);
    CHECK_EQ(beat(&a), 27);
    CHECK_EQ(beat(&b), 27);
    send_sync(&a);
    CHECK_EQ(a.sync_error, 27);
    send_join(&a);
    CHECK(!a.joined);
    send_join(&b);
    CHECK(a.joined && b.joined && c.joined);
    CHECK_EQ(c.generation, 3);
    CHECK_EQ(state(&w), GROUP_COMPLETING);
    CHECK_EQ(beat(&c), 0);
    a.generation--;
    CHECK_EQ(beat(&a), 22);
    send_sync(&a);
    CHECK_EQ(a.sync_error, 22);
    world_end(&w);
}

static void test_a_silent_member_is_dropped_after_its_session(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    for (int i = 0; i < 4; i++) { /* b says nothing, a beats every 3 s */
        run_ms(&w, 3000);
        if (i < 3)
            CHECK_EQ(beat(&a), 0);
    }
    CHECK_EQ(beat(&a), 27);
    CHECK_EQ(beat(&b), 25);
    send_join(&a);
    CHECK(a.joined && !a.error);
    CHECK_EQ(a.n_members, 1);
    run_ms(&w, SESSION_MS + 1); /* and a too */
    CHECK_EQ(state(&w), GROUP_EMPTY);
    CHECK(!consumer_group_in_use(w.groups, group_text("g")));
    world_end(&w);
}

static void test_a_rebalance_ends_without_those_who_stay_away(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c");

    make_stable_pair(&a, &b);
    send_join(&c);
    send_join(&b);
    for (int i = 0; i < 6; i++) { /* a is alive but does not join: it stops being a member */
        run_ms(&w, 4900);
        CHECK_EQ(beat(&a), 27);
    }
    run_ms(&w, 1000);
    CHECK(b.joined && c.joined && !b.error);
    CHECK_EQ(beat(&a), 25);
    CHECK(!strcmp(b.leader, c.leader) && strcmp(b.leader, a.id)); /* another leads */
    CHECK_EQ(strcmp(b.leader, b.id) == 0 ? b.n_members : c.n_members, 2);
    world_end(&w);
}

static void test_members_that_never_sync_are_dropped(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    a.old = b.old = true;
    send_join(&a);
    send_join(&b);
    send_join(&a);
    CHECK_EQ(state(&w), GROUP_COMPLETING);
    send_sync(&b);
    for (int i = 0; i < 6; i++) { /* a leads, beats and never gives an assignment */
        run_ms(&w, 4900);
        CHECK_EQ(beat(&a), 0);
    }
    run_ms(&w, 1000);
    CHECK(b.synced);
    CHECK_EQ(b.sync_error, 27);
    CHECK_EQ(beat(&a), 25);
    send_join(&b);
    CHECK(b.joined && !strcmp(b.leader, b.id));
    world_end(&w);
}

static void test_a_follower_with_nothing_new_does_not_disturb(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    send_join(&b);
    CHECK(b.joined && !b.error && b.generation == 2);
    CHECK_EQ(state(&w), GROUP_STABLE);
    b.protocols[0] = "range:other topics";
    send_join(&b);
    CHECK(!b.joined);
    CHECK_EQ(state(&w), GROUP_PREPARING);
    send_join(&a);
    CHECK(a.joined && b.joined && a.generation == 3);
    world_end(&w);
}

static void test_a_leader_that_joins_again_starts_a_rebalance(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    send_join(&a);
    CHECK(!a.joined);
    CHECK_EQ(beat(&b), 27);
    world_end(&w);
}

static void test_a_lost_join_answer_can_be_asked_again(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    send_join(&a);
    send_join(&b);
    send_join(&a);
    send_join(&a); /* completing: the same answer again, no new generation */
    CHECK(a.joined && !a.error);
    CHECK_EQ(a.generation, 2);
    CHECK_EQ(a.n_members, 2);
    CHECK_EQ(state(&w), GROUP_COMPLETING);
    world_end(&w);
}

static void test_a_join_sent_twice_answers_both(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), again;

    make_stable_pair(&a, &b);
    send_join(&a);
    again = a;
    send_join(&again);
    CHECK(a.joined);
    CHECK_EQ(a.error, 27);
    CHECK(!again.joined);
    send_join(&b);
    CHECK(again.joined && !again.error);
    world_end(&w);
}

static void test_waiting_syncs_are_sent_back_when_a_rebalance_begins(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c");

    send_join(&a);
    send_join(&b);
    send_join(&a);
    send_sync(&b);
    CHECK(!b.synced);
    c.old = true;
    send_join(&c);
    CHECK(b.synced);
    CHECK_EQ(b.sync_error, 27);
    world_end(&w);
}

static void test_sync_checks_the_protocol_it_names(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    sync_of(&b, 2);
    b.sync.protocol = group_text("robin");
    consumer_group_sync(w.groups, &b.sync);
    run_ms(&w, 1);
    CHECK_EQ(b.sync_error, 23);
    sync_of(&b, 2);
    b.sync.protocol_type = group_text("connect");
    consumer_group_sync(w.groups, &b.sync);
    run_ms(&w, 1);
    CHECK_EQ(b.sync_error, 23);
    sync_of(&b, 2);
    b.sync.protocol = group_text("range");
    b.sync.protocol_type = group_text("consumer");
    consumer_group_sync(w.groups, &b.sync);
    run_ms(&w, 1);
    CHECK_EQ(b.sync_error, 0);
    CHECK(!strcmp(b.assignment, "work of b"));
    world_end(&w);
}

static void test_leaving_rebalances_and_the_last_one_empties_the_group(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    CHECK_EQ(leave(&a), 0);
    CHECK_EQ(state(&w), GROUP_PREPARING);
    CHECK_EQ(leave(&a), 25);
    CHECK_EQ(beat(&b), 27);
    CHECK_EQ(leave(&b), 0);
    CHECK_EQ(state(&w), GROUP_EMPTY);
    world_end(&w);
}

static void test_a_member_that_leaves_while_it_waits_is_answered(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    send_join(&a);
    CHECK(!a.joined);
    CHECK_EQ(leave(&a), 0);
    CHECK(a.joined);
    CHECK_EQ(a.error, 25);
    world_end(&w);
}

static void test_new_metadata_while_the_group_completes_rebalances_again(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    send_join(&a);
    send_join(&b);
    send_join(&a);
    CHECK_EQ(state(&w), GROUP_COMPLETING);
    b.protocols[0] = "range:other topics";
    send_join(&b);
    CHECK(!b.joined);
    CHECK_EQ(state(&w), GROUP_PREPARING);
    send_join(&a);
    CHECK(a.joined && b.joined);
    CHECK_EQ(a.generation, 3);
    CHECK(!strcmp(a.members, "topics;other topics;"));
    world_end(&w);
}

static void test_a_new_member_does_not_wait_for_ever(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    a.rebalance_ms = 3600000; /* a may take an hour to join again */
    make_stable_pair(&a, &b);
    leave(&b);
    b.id[0] = 0;
    b.old = true; /* joins at once */
    send_join(&b);
    for (int i = 0; i < 100; i++) {
        run_ms(&w, 3000);
        CHECK_EQ(beat(&a), 27);
        CHECK(!b.joined || i == 99);
    }
    run_ms(&w, 1000);
    CHECK(b.joined); /* its client has asked again long ago, or is gone */
    CHECK_EQ(b.error, 25);
    world_end(&w);
}

static void test_a_leader_that_is_away_does_not_lead(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c");

    a.instance = "box"; /* static: it stays a member though it does not join */
    a.session_ms = 120000;
    make_stable_pair(&a, &b);
    c.old = true;
    send_join(&c);
    send_join(&b);
    run_ms(&w, REBALANCE_MS + 1);
    CHECK(b.joined && c.joined && !b.error);
    CHECK(!strcmp(b.leader, b.id) && !strcmp(c.leader, b.id));
    CHECK_EQ(b.n_members, 3);
    world_end(&w);
}

static void test_a_join_whose_client_is_gone_counts_no_more(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    send_join(&b);
    CHECK(b.joined);                               /* nothing new: answered */
    consumer_group_join_cancel(w.groups, &b.join); /* too late: harmless */
    b.protocols[0] = "range:new";
    send_join(&b);
    CHECK(!b.joined);
    consumer_group_join_cancel(w.groups, &b.join);
    run_ms(&w, 1);
    CHECK(b.joined);
    CHECK_EQ(b.error, 15);
    send_join(&a);
    CHECK(!a.joined); /* b may come back, for a session */
    run_ms(&w, SESSION_MS + 1);
    CHECK(a.joined && !a.error && a.n_members == 1);
    send_join(&b);
    CHECK_EQ(b.error, 25);
    world_end(&w);
}

static void test_a_sync_whose_client_is_gone_is_answered(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");
    struct client *all[] = { &a, &b };

    send_join(&a);
    send_join(&b);
    send_join(&a);
    send_sync(&b);
    CHECK(!b.synced);
    consumer_group_sync_cancel(w.groups, &b.sync);
    run_ms(&w, 1);
    CHECK(b.synced);
    CHECK_EQ(b.sync_error, 15);
    lead_sync(&a, all, 2);
    send_sync(&b); /* it was not forgotten */
    CHECK(!strcmp(b.assignment, "work of b"));
    world_end(&w);
}

/* ---- static members ---- */

static void test_a_static_member_comes_back_to_its_assignment(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), back;

    b.instance = "box";
    make_stable_pair(&a, &b);
    back = b;
    back.id[0] = 0;
    send_join_to(&back, "g");
    run_ms(&w, 1);
    CHECK(back.joined && !back.error);
    CHECK_EQ(back.generation, 2); /* no rebalance */
    CHECK_EQ(state(&w), GROUP_STABLE);
    CHECK(strcmp(back.id, b.id));
    CHECK_EQ(beat(&a), 0);
    send_sync(&back);
    CHECK(!strcmp(back.assignment, "work of b"));
    CHECK_EQ(beat(&b), 82); /* the former one is fenced */
    send_sync(&b);
    CHECK_EQ(b.sync_error, 82);
    send_join_to(&b, "g");
    run_ms(&w, 1);
    CHECK_EQ(b.error, 82);
    world_end(&w);
}

static void test_a_static_leader_that_comes_back_does_not_assign_anew(void)
{
    for (int may_skip = 0; may_skip < 2; may_skip++) {
        struct world w = world();
        struct client a = client(&w, "a"), b = client(&w, "b"), back;

        a.instance = "box";
        make_stable_pair(&a, &b);
        back = a;
        back.id[0] = 0;
        back.may_skip = may_skip;
        send_join_to(&back, "g");
        run_ms(&w, 1);
        CHECK(back.joined && !back.error && back.generation == 2);
        if (may_skip) { /* it leads, knows all, and is told to leave the assignment alone */
            CHECK(back.skip && !strcmp(back.leader, back.id));
            CHECK_EQ(back.n_members, 2);
        } else { /* an older client is told its former id leads */
            CHECK(!back.skip && !strcmp(back.leader, a.id));
            CHECK_EQ(back.n_members, 0);
        }
        send_sync(&back);
        CHECK(!strcmp(back.assignment, "work of a"));
        world_end(&w);
    }
}

static void test_a_static_member_that_changes_the_vote_starts_a_rebalance(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), back;

    a.protocols[0] = "range:a", a.protocols[1] = "robin:a";
    b.protocols[0] = "range:b", b.protocols[1] = "robin:b";
    b.instance = "box";
    make_stable_pair(&a, &b);
    back = b;
    back.id[0] = 0;
    back.protocols[0] = "robin:b", back.protocols[1] = NULL;
    send_join_to(&back, "g");
    run_ms(&w, 1);
    CHECK(!back.joined);
    CHECK_EQ(beat(&a), 27);
    send_join(&a);
    CHECK(back.joined && !strcmp(back.protocol, "robin"));
    world_end(&w);
}

static void test_replacing_a_waiting_static_member_fences_its_request(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), back;

    b.instance = "box";
    send_join(&a);
    send_join(&b); /* waits for a */
    CHECK(!b.joined);
    back = b;
    back.id[0] = 0;
    send_join_to(&back, "g");
    run_ms(&w, 1);
    CHECK(b.joined);
    CHECK_EQ(b.error, 82);
    CHECK(!back.joined);
    send_join(&a);
    CHECK(back.joined && !back.error);
    /* and while the leader's assignment is awaited: it must be made again, for the new id */
    send_sync(&back);
    b = back;
    b.joined = false;
    b.id[0] = 0;
    send_join_to(&b, "g");
    run_ms(&w, 1);
    CHECK(back.synced);
    CHECK_EQ(back.sync_error, 82);
    CHECK_EQ(state(&w), GROUP_PREPARING);
    world_end(&w);
}

static void test_a_static_member_may_be_away_during_a_rebalance(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c");

    b.instance = "box";
    b.session_ms = 120000;
    make_stable_pair(&a, &b);
    c.old = true;
    send_join(&c);
    send_join(&a);
    run_ms(&w, REBALANCE_MS + 1);
    CHECK(a.joined && c.joined);
    CHECK_EQ(a.n_members, 3); /* box is counted, though it did not join */
    world_end(&w);
}

static void test_leaving_by_instance_id(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");
    struct group_leaver l[3] = {
        { .member_id = group_text("no"), .instance_id = group_text("box") },
        { .member_id = group_text(""), .instance_id = group_text("none") },
        { .member_id = group_text(""), .instance_id = group_text("box") },
    };

    b.instance = "box";
    make_stable_pair(&a, &b);
    CHECK_EQ(consumer_group_leave(w.groups, group_text("g"), l, 3), 0);
    CHECK_EQ(l[0].error, 82);
    CHECK_EQ(l[1].error, 25);
    CHECK_EQ(l[2].error, 0);
    CHECK_EQ(beat(&b), 25);
    CHECK_EQ(beat(&a), 27);
    world_end(&w);
}

/* ---- commits, limits, the end ---- */

static void test_only_members_of_this_generation_may_commit(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    CHECK_EQ(may_commit(&w, "", -1), 0); /* no group: a simple consumer */
    CHECK_EQ(may_commit(&w, "", 1), 22);
    make_stable_pair(&a, &b);
    CHECK_EQ(may_commit(&w, a.id, 2), 0);
    CHECK_EQ(may_commit(&w, a.id, 1), 22);
    CHECK_EQ(may_commit(&w, "nobody", 2), 25);
    CHECK_EQ(may_commit(&w, "", -1), 25); /* the group has members */
    send_join(&a);
    CHECK_EQ(may_commit(&w, b.id, 2), 0); /* last commits before it gives its partitions up */
    send_join(&b);
    CHECK_EQ(may_commit(&w, b.id, 3), 27); /* has not got its assignment */
    leave(&a);
    leave(&b);
    CHECK_EQ(may_commit(&w, "", -1), 0);
    world_end(&w);
}

static void test_a_commit_is_a_sign_of_life(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    make_stable_pair(&a, &b);
    for (int i = 0; i < 5; i++) {
        run_ms(&w, SESSION_MS - 1000);
        CHECK_EQ(beat(&b), 0);
        CHECK_EQ(may_commit(&w, a.id, 2), 0);
    }
    world_end(&w);
}

static void test_sizes_are_bounded(void)
{
    struct world w = world_new(&(struct consumer_groups_conf){ .members_max = 2, .groups_max = 2 });
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c"),
                  d = client(&w, "d"), e = client(&w, "e");

    make_stable_pair(&a, &b);
    send_join(&c);
    CHECK_EQ(c.error, 81);
    CHECK_EQ(state(&w), GROUP_STABLE);
    d.old = e.old = true;
    send_join_to(&d, "g2");
    send_join_to(&e, "g3");
    run_ms(&w, 1);
    CHECK_EQ(d.error, 0);
    CHECK_EQ(e.error, 15);
    world_end(&w);
}

static void test_bytes_held_are_bounded(void)
{
    struct world w = world_new(&(struct consumer_groups_conf){ .bytes_max = 900 });
    struct client a = client(&w, "a"), b = client(&w, "b");
    char big[1000] = "range:";
    struct client *all[] = { &a };

    memset(big + 6, 'x', sizeof big - 7);
    a.protocols[0] = big;
    send_join(&a);
    CHECK_EQ(a.error, 81);
    a.protocols[0] = "range:a";
    send_join(&a);
    CHECK_EQ(a.error, 0);
    b.protocols[0] = big;
    send_join(&b);
    CHECK_EQ(b.error, 81);
    sync_of(&a, 1);
    a.given[0] = (struct group_assignment){ group_text(a.id), { big, 880 } };
    a.sync.assignments = a.given;
    a.sync.n_assignments = 1;
    consumer_group_sync(w.groups, &a.sync);
    run_ms(&w, 1);
    CHECK_EQ(a.sync_error, 42);
    lead_sync(&a, all, 1);
    CHECK_EQ(a.sync_error, 0);
    world_end(&w);
}

static void test_bytes_held_by_all_groups_are_bounded(void)
{
    struct world w = world_new(&(struct consumer_groups_conf){ .all_bytes_max = 2000 });
    struct client many[8];
    int refused = 0;
    char group[8];

    for (int i = 0; i < 8; i++) {
        many[i] = client(&w, "c");
        many[i].old = true;
        snprintf(group, sizeof group, "g%d", i);
        send_join_to(&many[i], group);
        run_ms(&w, 1);
        refused += many[i].error == 81;
    }
    CHECK(refused > 0 && refused < 8);
    CHECK_EQ(many[0].error, 0);
    run_ms(&w, SESSION_MS + 1); /* all are gone, and so are their bytes */
    for (int i = 0; i < 8; i++)
        many[i].id[0] = 0;
    send_join_to(&many[7], "g7");
    run_ms(&w, 1);
    CHECK_EQ(many[7].error, 0);
    world_end(&w);
}

static void test_groups_without_members_can_be_deleted_and_are_swept(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b");

    CHECK_EQ(consumer_group_delete(w.groups, group_text("g")), 69);
    make_stable_pair(&a, &b);
    CHECK_EQ(consumer_group_delete(w.groups, group_text("g")), 68);
    consumer_groups_sweep(w.groups, 0);
    CHECK_EQ(state(&w), GROUP_STABLE);
    leave(&a);
    leave(&b);
    consumer_groups_sweep(w.groups, 1000);
    CHECK_EQ(state(&w), GROUP_EMPTY);
    run_ms(&w, 1000);
    consumer_groups_sweep(w.groups, 1000);
    CHECK_EQ(state(&w), GROUP_DEAD);
    a.id[0] = 0;
    send_join(&a);
    leave(&a);
    CHECK_EQ(consumer_group_delete(w.groups, group_text("g")), 0);
    CHECK_EQ(state(&w), GROUP_DEAD);
    world_end(&w);
}

static void test_stop_answers_everybody_who_waits(void)
{
    struct world w = world();
    struct client a = client(&w, "a"), b = client(&w, "b"), c = client(&w, "c");

    send_join(&a);
    send_join(&b); /* waits in a join */
    a.old = true;
    consumer_groups_stop(w.groups);
    run_ms(&w, 1);
    CHECK(b.joined);
    CHECK_EQ(b.error, 15);
    send_join(&c);
    CHECK_EQ(c.error, 15);
    CHECK_EQ(beat(&a), 15);
    consumer_groups_free(w.groups);
    sim_free(w.sim);
}

/* ---- random ---- */

struct actor {
    struct client c;
    bool busy_join, busy_sync;
    bool in;      /* believes it is a member with an assignment of generation `held` */
    int32_t held; /* generation of its assignment */
};
struct play {
    struct world w;
    struct rng rng;
    struct actor actors[MEMBERS];
    struct { /* what leaders gave, by generation */
        bool given;
        unsigned n;
        char id[MEMBERS][TEXT];
        char work[MEMBERS][TEXT];
    } made[4096];
    unsigned stable, rebalances, dropped;
};

/* The leader cuts partitions 0..11 among the members it was told of: "0,1,2". */
static void play_assign(struct play *p, struct actor *a)
{
    struct client *c = &a->c;
    int32_t g = c->generation;
    unsigned n = c->join.n_members;
    static char member_ids[MEMBERS * 2][TEXT];
    static char work[MEMBERS * 2][TEXT];

    REQUIRE(g < 4096 && n <= MEMBERS);
    p->made[g].n = n;
    for (unsigned i = 0; i < n; i++) {
        strcpy(member_ids[i], p->made[g].id[i]);
        work[i][0] = 0;
        for (unsigned k = i; k < 12; k += n)
            snprintf(work[i] + strlen(work[i]), TEXT - strlen(work[i]), "%u,", k);
        strcpy(p->made[g].work[i], work[i]);
        c->given[i].member_id = group_text(member_ids[i]);
        c->given[i].assignment = group_text(work[i]);
    }
    p->made[g].given = true;
    sync_of(c, g);
    c->sync.assignments = c->given;
    c->sync.n_assignments = n;
    consumer_group_sync(c->w->groups, &c->sync);
}

static struct play *playing;

static void play_on_join(struct group_join *j)
{
    struct actor *a = (struct actor *)((char *)j - offsetof(struct client, join));
    int32_t g = j->generation;

    a->busy_join = false;
    on_join(j);
    if (!j->error && j->n_members && !j->skip_assignment && !playing->made[g].given)
        for (unsigned i = 0; i < j->n_members; i++)
            copy(playing->made[g].id[i], j->members[i].id, TEXT);
    if (j->error == GROUP_UNKNOWN_MEMBER || j->error == GROUP_FENCED_INSTANCE)
        a->c.id[0] = 0;
}

static void play_on_sync(struct group_sync *s)
{
    struct actor *a = (struct actor *)((char *)s - offsetof(struct client, sync));

    a->busy_sync = false;
    on_sync(s);
    if (s->error) {
        a->in = false;
        return;
    }
    a->in = a->c.joined = true;
    a->held = s->generation;
}

static void play_join(struct actor *a)
{
    a->busy_join = true;
    a->in = false;
    send_join_to(&a->c, "g");
    a->c.join.fn = play_on_join;
}

static void play_act(struct play *p, struct actor *a)
{
    struct client *c = &a->c;
    uint64_t what = rng_below(&p->rng, 100);

    if (a->busy_join || a->busy_sync)
        return;
    if (what < 3) { /* forgets everything, as after a crash */
        c->id[0] = 0;
        a->in = c->joined = false;
        p->dropped++;
    } else if (what < 6 && c->id[0]) {
        struct group_leaver l = { .member_id = group_text(c->id), .instance_id = GROUP_NULL };

        consumer_group_leave(p->w.groups, group_text("g"), &l, 1);
        c->id[0] = 0;
        a->in = c->joined = false;
    } else if (!c->id[0] || !c->joined || c->error) {
        play_join(a);
    } else if (!a->in) {
        a->busy_sync = true;
        c->joined = false;
        if (c->n_members && !strcmp(c->leader, c->id) && !p->made[c->generation].given) {
            play_assign(p, a);
        } else {
            sync_of(c, c->generation);
            consumer_group_sync(p->w.groups, &c->sync);
        }
        c->sync.fn = play_on_sync;
    } else {
        c->generation = a->held;
        what = (uint64_t)beat(c);
        if (what == GROUP_UNKNOWN_MEMBER || what == GROUP_FENCED_INSTANCE)
            c->id[0] = 0;
        a->in = what == GROUP_OK;
        c->joined = a->in;
        p->rebalances += what == GROUP_REBALANCE_IN_PROGRESS;
    }
}

static void play_member(void *ctx, const struct group_member *m)
{
    struct play *p = ctx;
    struct consumer_group_info info;
    char id[TEXT], work[TEXT];
    unsigned i;

    REQUIRE(consumer_group_find(p->w.groups, group_text("g"), &info));
    copy(id, m->id, TEXT);
    copy(work, m->assignment, TEXT);
    for (i = 0; i < p->made[info.generation].n; i++)
        if (!strcmp(p->made[info.generation].id[i], id))
            break;
    /* every member of a stable group holds what the leader of this generation gave it */
    REQUIRE(i < p->made[info.generation].n);
    CHECK(!strcmp(p->made[info.generation].work[i], work));
}

/* Between any two steps: in a stable group all hold this generation's work, and all work is
 * held. */
static void play_check(struct play *p)
{
    struct consumer_group_info info;
    unsigned commas = 0;

    consumer_groups_check(p->w.groups);
    if (!consumer_group_find(p->w.groups, group_text("g"), &info) || info.state != GROUP_STABLE)
        return;
    p->stable++;
    CHECK(p->made[info.generation].given);
    CHECK_EQ(info.n_members, p->made[info.generation].n);
    for (unsigned i = 0; i < p->made[info.generation].n; i++)
        for (const char *s = p->made[info.generation].work[i]; *s; s++)
            commas += *s == ',';
    CHECK_EQ(commas, 12);
    consumer_group_each_member(p->w.groups, group_text("g"), play_member, p);
    /* a member that the group would still let work has this generation's assignment, not
     * another's */
    for (int i = 0; i < MEMBERS; i++) {
        struct actor *a = &p->actors[i];

        if (a->in && may_commit(&p->w, a->c.id, a->held) == GROUP_OK) {
            CHECK_EQ(a->held, info.generation);
        }
    }
}

static void play_one(uint64_t seed, unsigned *stable, unsigned *rebalances)
{
    struct play *p = mem_new(sizeof *p);

    playing = p;
    p->w = world_new(&(struct consumer_groups_conf){ .rebalance_delay_ms = seed % 2 ? 500 : 0 });
    rng_seed(&p->rng, seed);
    for (int i = 0; i < MEMBERS; i++) {
        p->actors[i].c = client(&p->w, "actor");
        p->actors[i].c.old = i % 3 == 0;
    }
    for (int step = 0; step < 3000; step++) {
        play_act(p, &p->actors[rng_below(&p->rng, MEMBERS)]);
        sim_run_for(p->w.sim, rng_below(&p->rng, 300) ? rng_below(&p->rng, 300000) : 12000000,
                    100000);
        play_check(p);
    }
    *stable += p->stable;
    *rebalances += p->rebalances;
    world_end(&p->w);
    free(p);
}

static void test_random_lives_keep_the_invariants(void)
{
    unsigned stable = 0, rebalances = 0;

    for (uint64_t seed = 1; seed <= 30; seed++)
        play_one(seed, &stable, &rebalances);
    CHECK(stable > 1000); /* the run did visit what it checks */
    CHECK(rebalances > 1000);
}

/* clang-format off */
TEST_MAIN(T(a_new_dynamic_member_first_gets_an_id) T(an_old_client_joins_at_once)
          T(a_static_member_needs_no_id_first)
          T(an_id_that_is_not_used_is_forgotten_after_a_session)
          T(unknown_members_and_groups_are_refused)
          T(session_timeouts_outside_the_limits_are_refused)
          T(members_without_a_common_protocol_are_refused) T(the_most_voted_common_protocol_wins)
          T(the_leader_gets_all_metadata_and_its_assignment_reaches_all)
          T(a_member_that_the_leader_forgot_gets_an_empty_assignment)
          T(the_first_rebalance_waits_for_more_members) T(heartbeats_tell_members_of_a_rebalance)
          T(a_silent_member_is_dropped_after_its_session)
          T(a_rebalance_ends_without_those_who_stay_away) T(members_that_never_sync_are_dropped)
          T(a_follower_with_nothing_new_does_not_disturb)
          T(a_leader_that_joins_again_starts_a_rebalance) T(a_lost_join_answer_can_be_asked_again)
          T(a_join_sent_twice_answers_both) T(waiting_syncs_are_sent_back_when_a_rebalance_begins)
          T(sync_checks_the_protocol_it_names)
          T(leaving_rebalances_and_the_last_one_empties_the_group)
          T(a_member_that_leaves_while_it_waits_is_answered)
          T(new_metadata_while_the_group_completes_rebalances_again)
          T(a_new_member_does_not_wait_for_ever) T(a_leader_that_is_away_does_not_lead)
          T(a_join_whose_client_is_gone_counts_no_more) T(a_sync_whose_client_is_gone_is_answered)
          T(a_static_member_comes_back_to_its_assignment)
          T(a_static_leader_that_comes_back_does_not_assign_anew)
          T(a_static_member_that_changes_the_vote_starts_a_rebalance)
          T(replacing_a_waiting_static_member_fences_its_request)
          T(a_static_member_may_be_away_during_a_rebalance) T(leaving_by_instance_id)
          T(only_members_of_this_generation_may_commit) T(a_commit_is_a_sign_of_life)
          T(sizes_are_bounded) T(bytes_held_are_bounded)
          T(bytes_held_by_all_groups_are_bounded)
          T(groups_without_members_can_be_deleted_and_are_swept)
          T(stop_answers_everybody_who_waits) T(random_lives_keep_the_invariants))
