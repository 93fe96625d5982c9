/* Consumer groups, classic protocol: who is a member, who leads, which generation, and what the
 * leader assigned. No wire formats.
 *
 * All groups live on one home loop; every function here is called there. A join and a sync may
 * wait for other members; they answer through their fn, once, on the loop that they name, never
 * inside the call. Everything else answers at once. Member ids, metadata and assignments are
 * opaque bytes. Nothing here survives a restart: members then get UNKNOWN_MEMBER_ID and join
 * again. */
#ifndef WEIR_GATEWAYS_KAFKA_CONSUMER_GROUP_H
#define WEIR_GATEWAYS_KAFKA_CONSUMER_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

struct consumer_groups;
struct member;

/* Kafka's numbers, so that handlers pass them through. */
enum consumer_group_error {
    GROUP_OK = 0,
    GROUP_NOT_AVAILABLE =
        15, /* COORDINATOR_NOT_AVAILABLE: stopping, or no room for one more group */
    GROUP_ILLEGAL_GENERATION = 22,
    GROUP_INCONSISTENT_PROTOCOL = 23,
    GROUP_INVALID_ID = 24,
    GROUP_UNKNOWN_MEMBER = 25,
    GROUP_INVALID_SESSION_TIMEOUT = 26,
    GROUP_REBALANCE_IN_PROGRESS = 27,
    GROUP_INVALID_REQUEST = 42,
    GROUP_NON_EMPTY = 68,
    GROUP_NOT_FOUND = 69,
    GROUP_MEMBER_ID_REQUIRED = 79,
    GROUP_MAX_SIZE_REACHED = 81,
    GROUP_FENCED_INSTANCE = 82
};

enum consumer_group_state {
    GROUP_EMPTY,      /* no members */
    GROUP_PREPARING,  /* a rebalance: waiting until all members have joined */
    GROUP_COMPLETING, /* all have joined: waiting for the leader's assignment */
    GROUP_STABLE,
    GROUP_DEAD
};
/* "Empty", "PreparingRebalance", ... as Kafka names them. Static. */
const char *consumer_group_state_name(enum consumer_group_state s);

/* Bytes or text of a length, not terminated; bytes -1 is null. Always borrowed. */
struct group_bytes {
    const void *mem;
    int32_t bytes;
};
#define GROUP_NULL ((struct group_bytes){ .bytes = -1 })
static inline bool group_bytes_empty(struct group_bytes b)
{
    return b.bytes <= 0;
}
bool group_bytes_equal(struct group_bytes a, struct group_bytes b);
/* A literal or other terminated string; NULL gives null. */
struct group_bytes group_text(const char *s);

/* Zero means the default in brackets. */
struct consumer_groups_conf {
    uint32_t session_min_ms; /* [6000] */
    uint32_t session_max_ms; /* [1800000] */
    /* the first rebalance of an empty group waits this long for others [0] */
    uint32_t rebalance_delay_ms;
    uint32_t groups_max;    /* [100000] */
    uint32_t members_max;   /* of one group, also those that were only given an id [10000] */
    uint32_t bytes_max;     /* members, metadata and assignments held by one group [32 MiB] */
    uint32_t all_bytes_max; /* and by all [256 MiB] */
};

/* seed: member ids. home: the loop of all groups. */
struct consumer_groups *consumer_groups_new(struct loop *home,
                                            const struct consumer_groups_conf *conf, uint64_t seed);
/* Answers every waiting join and sync with NOT_AVAILABLE; later calls get that too. All timers
 * are off afterwards. */
void consumer_groups_stop(struct consumer_groups *gs);
/* After stop. */
void consumer_groups_free(struct consumer_groups *gs);

/* ---- joining --------------------------------------------------------------------------------- */

struct group_protocol {
    struct group_bytes name;
    struct group_bytes metadata;
};
struct group_member {
    struct group_bytes id;
    struct group_bytes instance_id;
    struct group_bytes client_id; /* in consumer_group_info only, as the next two */
    struct group_bytes client_host;
    struct group_bytes metadata; /* for the chosen protocol */
    struct group_bytes assignment;
};

/* What is asked is borrowed until fn runs; what is answered lives until fn returns. */
struct group_join {
    struct task task; /* ours */
    void (*fn)(struct group_join *j);
    struct loop *loop;

    struct group_bytes group;
    struct group_bytes member_id;   /* empty: new */
    struct group_bytes instance_id; /* null: a dynamic member */
    struct group_bytes client_id;
    struct group_bytes client_host;
    struct group_bytes protocol_type;
    const struct group_protocol *protocols; /* in order of preference */
    unsigned n_protocols;
    int32_t session_timeout_ms;
    int32_t rebalance_timeout_ms; /* below 0: as the session's */
    /* JoinGroup 4+: a new dynamic member first gets an id, with MEMBER_ID_REQUIRED */
    bool known_id_required;
    bool can_skip_assignment; /* JoinGroup 9+ */

    int16_t error;
    int32_t generation; /* -1 with an error */
    struct group_bytes chosen_type;
    struct group_bytes chosen; /* the protocol */
    struct group_bytes leader;
    struct group_bytes your_id;
    bool skip_assignment;               /* you lead, but the old assignment holds */
    const struct group_member *members; /* the leader gets all */
    unsigned n_members;

    void *mem;             /* ours: what the answer points into */
    struct member *member; /* ours: who waits */
};
void consumer_group_join(struct consumer_groups *gs, struct group_join *j);
/* The client is gone: if j still waits, answers it, and its member has one session to come back. */
void consumer_group_join_cancel(struct consumer_groups *gs, struct group_join *j);

struct group_assignment {
    struct group_bytes member_id;
    struct group_bytes assignment;
};
struct group_sync {
    struct task task; /* ours */
    void (*fn)(struct group_sync *s);
    struct loop *loop;

    struct group_bytes group;
    int32_t generation;
    struct group_bytes member_id;
    struct group_bytes instance_id;
    struct group_bytes protocol_type;           /* null: not said */
    struct group_bytes protocol;                /* null: not said */
    const struct group_assignment *assignments; /* the leader's */
    unsigned n_assignments;

    int16_t error;
    struct group_bytes chosen_type;
    struct group_bytes chosen;
    struct group_bytes assignment;

    void *mem;             /* ours */
    struct member *member; /* ours */
};
void consumer_group_sync(struct consumer_groups *gs, struct group_sync *s);
/* As consumer_group_join_cancel. */
void consumer_group_sync_cancel(struct consumer_groups *gs, struct group_sync *s);

/* ---- what answers at once -------------------------------------------------------------------- */

struct group_beat {
    struct group_bytes group;
    int32_t generation;
    struct group_bytes member_id;
    struct group_bytes instance_id;
};
/* A sign of life; REBALANCE_IN_PROGRESS tells the member to join again. */
int16_t consumer_group_heartbeat(struct consumer_groups *gs, const struct group_beat *b);
/* May this member commit offsets? Empty member id and generation -1 (admin tools, consumers that
 * assign themselves) may while the group has no members. A good commit is also a sign of life. */
int16_t consumer_group_may_commit(struct consumer_groups *gs, const struct group_beat *b);

struct group_leaver {
    struct group_bytes member_id; /* may be empty when instance_id is given */
    struct group_bytes instance_id;
    int16_t error; /* out */
};
/* Removes members. Gives an error of the group as a whole; each leaver has its own. */
int16_t consumer_group_leave(struct consumer_groups *gs, struct group_bytes group,
                             struct group_leaver *leavers, unsigned n);

/* Forgets a group without members: NON_EMPTY, or NOT_FOUND. Its offsets are the caller's affair. */
int16_t consumer_group_delete(struct consumer_groups *gs, struct group_bytes group);

/* Does the group have members (or somebody about to be one)? */
bool consumer_group_in_use(struct consumer_groups *gs, struct group_bytes group);

struct consumer_group_info {
    struct group_bytes id;
    enum consumer_group_state state;
    int32_t generation;
    struct group_bytes protocol_type;
    struct group_bytes protocol; /* chosen; null before the first generation */
    struct group_bytes leader;
    unsigned n_members;
};
/* False when there is no such group. Borrowed until the next call that changes the group. */
bool consumer_group_find(struct consumer_groups *gs, struct group_bytes group,
                         struct consumer_group_info *out);
/* Calls fn for each member in the order of joining. */
void consumer_group_each_member(struct consumer_groups *gs, struct group_bytes group,
                                void (*fn)(void *ctx, const struct group_member *m), void *ctx);
/* Calls fn for each group, in no order. */
void consumer_group_each(struct consumer_groups *gs,
                         void (*fn)(void *ctx, const struct consumer_group_info *i), void *ctx);
/* Forgets groups that have had no members for idle_ms; runs by itself with an hour. Safe at any
 * time: a returning member is unknown, and joins anew. */
void consumer_groups_sweep(struct consumer_groups *gs, uint64_t idle_ms);
/* Checks what must hold between any two calls; asserts. For tests. */
void consumer_groups_check(struct consumer_groups *gs);

#endif
