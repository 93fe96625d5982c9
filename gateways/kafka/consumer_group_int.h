/* What consumer_group.c (the state machine) and consumer_group_member.c (members, their
 * protocols, answers) share. */
#ifndef WEIR_GATEWAYS_KAFKA_CONSUMER_GROUP_INT_H
#define WEIR_GATEWAYS_KAFKA_CONSUMER_GROUP_INT_H

#include "gateways/kafka/consumer_group.h"

#include "base/rng.h"
#include "base/strmap.h"

enum {
    NEW_MEMBER_WAIT_MS =
        300000,         /* a new member cannot send heartbeats yet: its join may wait this long */
    PROTOCOLS_MAX = 64, /* of one member: comparing them is quadratic */
    CLIENT_ID_IN_MEMBER_ID = 255,
    UUID_CHARS = 36
};

struct member {
    struct member *prev, *next; /* in the group, by order of joining */
    struct consumer_group *group;
    struct group_bytes id; /* owned, as all the bytes here */
    struct group_bytes instance_id;
    struct group_bytes client_id;
    struct group_bytes client_host;
    struct group_protocol *protocols; /* one allocation with what they point into */
    unsigned n_protocols;
    uint64_t bytes; /* counted in the group's */
    struct group_bytes assignment;
    uint32_t session_ms;
    uint32_t rebalance_ms;
    struct group_join *join;
    struct group_sync *sync;
    bool pending; /* was given an id and has not come back with it: not a member yet */
    bool is_new;  /* has not seen the end of a rebalance */
    bool synced;  /* in this generation */
    struct loop_timer session;
};

struct consumer_group {
    struct consumer_groups *all;
    struct group_bytes id;
    enum consumer_group_state state;
    int32_t generation;
    struct group_bytes protocol_type;
    struct group_bytes protocol;
    struct strmap by_id; /* members and pending ones */
    struct strmap by_instance;
    struct member *first, *last; /* members only */
    struct member *leader;
    unsigned n_members;
    unsigned n_pending;
    unsigned n_joined; /* with join set */
    unsigned n_synced; /* in this generation */
    uint64_t bytes;
    struct loop_timer timer; /* PREPARING: the rebalance must end; later: all must have synced */
    bool delayed;            /* PREPARING within the first delay: ends only by the timer */
    bool delay_more;         /* somebody came during it */
    uint32_t delay_left_ms;
    uint64_t empty_since_us;
};

struct consumer_groups {
    struct loop *loop;
    struct consumer_groups_conf conf;
    struct rng rng;
    struct strmap groups;
    unsigned n_groups;
    uint64_t bytes; /* of all groups */
    struct loop_timer sweep;
    bool stopped;
};

/* --- bytes --- */

static inline size_t group_kept_bytes(struct group_bytes b)
{
    return b.bytes > 0 ? (size_t)b.bytes : 0;
}
static inline void *group_map_get(const struct strmap *m, struct group_bytes key)
{
    return key.bytes < 0 ? NULL : strmap_get(m, key.mem, (size_t)key.bytes);
}
/* A copy on the heap, terminated so that it can be logged. */
struct group_bytes group_bytes_own(struct group_bytes b);
/* Frees it; *b is null. */
void group_bytes_disown(struct group_bytes *b);
/* *at becomes a copy of b. */
void group_bytes_replace(struct group_bytes *at, struct group_bytes b);

/* --- answers --- */

void group_join_refuse(struct group_join *j, int16_t error);
/* The same, naming another member id than the one that asked. */
void group_join_refuse_as(struct group_join *j, int16_t error, struct group_bytes id);
/* Answers a join with the present generation. */
void group_join_answer(struct group_join *j, const struct member *m, struct group_bytes leader,
                       bool with_members, bool skip);
void group_join_answer_now(struct group_join *j, const struct member *m);
/* m: whose part to give; NULL: none. */
void group_sync_answer(struct group_sync *s, int16_t error, const struct member *m);

/* --- members --- */

/* Nothing was heard of a member for its session (consumer_group.c). */
void group_session_fire(struct loop_timer *t);
/* A sign of life. */
void group_member_alive(struct member *m, uint32_t wait_ms);
void group_member_set_join(struct member *m, struct group_join *j);
void group_member_set_sync(struct member *m, struct group_sync *s);
void group_member_set_synced(struct member *m, bool synced);
/* Ends whatever the member waits for. */
void group_member_refuse(struct member *m, int16_t error);
/* Takes over what a join says about its member. */
void group_member_update(struct member *m, const struct group_join *j);
void group_member_assign(struct member *m, struct group_bytes assignment);
/* Somebody who has an id, and is not a member yet. */
struct member *group_pending_new(struct consumer_group *g, struct group_bytes id,
                                 uint32_t session_ms);
/* Makes a member of it. */
void group_member_admit(struct member *m, struct group_bytes instance_id);
/* The end of a member or pending one. What it waits for answers error. */
void group_member_free(struct member *m, int16_t error);

/* --- protocols --- */

/* Memory that the member of this join will take. */
uint64_t group_join_bytes(const struct group_join *j);
/* What a member said for one protocol; empty when nothing. */
struct group_bytes group_member_metadata(const struct member *m, struct group_bytes protocol);
/* The same protocols, order and metadata as before? */
bool group_member_says_the_same(const struct member *m, const struct group_join *j);
/* May somebody with these protocols be a member? The others' votes bind, so one common protocol
 * is enough. g NULL: a new group. */
bool group_accepts(const struct consumer_group *g, const struct group_join *j);
/* The protocol that the members choose. */
struct group_bytes group_vote(const struct consumer_group *g);

#endif
