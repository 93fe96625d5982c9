/* What the files of the Kafka door's simulation share. */
#ifndef WEIR_TESTS_GATEWAYS_KAFKA_SIM_INT_H
#define WEIR_TESTS_GATEWAYS_KAFKA_SIM_INT_H

#include <stdio.h>

#include "gateways/kafka/consumer_group.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka.h"
#include "gateways/kafka/schema_config.h"
#include "gateways/kafka/schema_data.h"
#include "gateways/kafka/schema_group.h"
#include "gateways/kafka/schema_topics.h"
#include "tests/gateways/kafka_sim.h"
#include "tests/gateways/kafka_sim_client.h"
#include "tests/gateways/kafka_sim_model.h"
#include "tests/sim/jrn_sim.h"

/* Keys of APIs. */
enum { PRODUCE = 0, FETCH = 1, LIST_OFFSETS = 2, METADATA = 3, OFFSET_COMMIT = 8 };
enum { OFFSET_FETCH = 9, FIND_COORDINATOR = 10, JOIN_GROUP = 11, HEARTBEAT = 12, LEAVE_GROUP = 13 };
enum { SYNC_GROUP = 14, API_VERSIONS = 18, CREATE_TOPICS = 19, DELETE_TOPICS = 20 };
enum { DELETE_RECORDS = 21, INIT_PRODUCER_ID = 22, CREATE_PARTITIONS = 37 };
enum { INCREMENTAL_ALTER_CONFIGS = 44 };

enum {
    SIM_CLIENTS = 6,
    SIM_CONTROL = SIM_CLIENTS - 1, /* asks when all is at rest */
    SIM_MEMBERS = 3,
    SIM_MEMBER_ID = 128,
    SIM_CALLS_MAX = 12, /* of one client */
    SIM_STEPS = 4000000 /* for one thing to come to its end */
};

/* A logical producer: an id until it begins anew. */
struct sim_producer {
    int64_t id; /* -1: none */
    bool asking;
};

enum sim_member_state { MEMBER_OUT, MEMBER_JOINING, MEMBER_SYNCING, MEMBER_IN };

/* A member of the group with members, and the client that speaks for it. */
struct sim_member {
    enum sim_member_state state;
    unsigned slot;
    char id[SIM_MEMBER_ID];
    int32_t generation;
};

struct kafka_sim {
    uint64_t seed;
    bool talk;
    struct kafka_sim_counts *n;
    struct rng rng;
    struct jrn_sim js;
    struct sim_model m;
    struct kafka *kafka; /* NULL: not running */
    struct kafka_conf conf;
    struct conn_door door;
    struct door_client clients[SIM_CLIENTS];
    uint32_t last_conn_no;
    struct sim_producer producers[SIM_PRODUCERS];
    struct sim_member members[SIM_MEMBERS];
    int32_t generation; /* of the group with members, the highest of this life */
    char leader[SIM_MEMBER_ID];
    /* swarm: how often what is done in this seed */
    unsigned weight[16];
    unsigned batch_bytes;
    bool tight, faulty, deletes;
    bool rows_lost;                     /* once */
    int64_t wall_now_ms, wall_ahead_ms; /* how far the wall clock was set ahead, and at most */
    /* this life */
    bool ending;        /* no promise of success any more */
    bool power_must_go; /* a flush failed: only a power cut tells what is left */
    bool fault_set;
    bool started, stopped;
    int start_rc;
    uint64_t ckpt_lsn;
};

/* Prints what was broken, with the seed, and ends the process. */
_Noreturn void kafka_sim_fail(const struct kafka_sim *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void kafka_sim_say(const struct kafka_sim *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#define SAY(w, ...)                                                                                \
    do {                                                                                           \
        if ((w)->talk)                                                                             \
            kafka_sim_say((w), __VA_ARGS__);                                                       \
    } while (0)

static inline uint64_t below(struct kafka_sim *w, uint64_t n)
{
    return rng_below(&w->rng, n);
}
static inline bool chance(struct kafka_sim *w, uint32_t num, uint32_t den)
{
    return rng_chance(&w->rng, num, den);
}
/* A version of first..last. */
static inline int16_t some_version(struct kafka_sim *w, int first, int last)
{
    return (int16_t)(first + (int)below(w, (uint64_t)(last - first + 1)));
}

/* The device gives no promises now: what is asked may fail. */
bool kafka_sim_weak(const struct kafka_sim *w);
/* Errors that any request may get when the life ends, or the device fails or is full. */
bool kafka_sim_excused(struct kafka_sim *w, int16_t error);
/* Errors that name a topic which may be gone. */
bool kafka_sim_topic_excused(const struct sim_topic *t, int16_t error);
/* A client that takes one more request; NULL: none. */
struct door_client *kafka_sim_client(struct kafka_sim *w);
/* Sends on the control client and runs until its answer has been handled. False: power went. */
bool kafka_sim_ask(struct kafka_sim *w, struct sim_call *call, int16_t key, int16_t version,
                   const void *request);
/* Topics that may be named in requests now; NULL: none. live: certain to be there. */
struct sim_topic *kafka_sim_topic(struct kafka_sim *w, bool live);
struct sim_part *kafka_sim_part(struct kafka_sim *w, bool live);

/* kafka_sim_topics.c */
void kafka_sim_create(struct kafka_sim *w);
void kafka_sim_auto_create(struct kafka_sim *w);
void kafka_sim_delete(struct kafka_sim *w);
void kafka_sim_delete_one(struct kafka_sim *w, struct door_client *c, unsigned name);
void kafka_sim_grow(struct kafka_sim *w);
void kafka_sim_metadata(struct kafka_sim *w);
/* At rest, on the control client: every name is as it must be; after a start unsure ones become
 * sure. Before, a change of a client that is gone may still be on its way. */
bool kafka_sim_topics_settle(struct kafka_sim *w, bool started_anew);

/* kafka_sim_data.c */
void kafka_sim_produce(struct kafka_sim *w);
void kafka_sim_fetch(struct kafka_sim *w);
void kafka_sim_list(struct kafka_sim *w);
void kafka_sim_trim(struct kafka_sim *w);
void kafka_sim_configure(struct kafka_sim *w);
/* At rest: reads the partition from 0 to its end, and asks for a time. */
bool kafka_sim_read_whole(struct kafka_sim *w, struct sim_part *p);
bool kafka_sim_time_check(struct kafka_sim *w, struct sim_part *p);
/* Produces one batch and waits: 0 or the error, -1: power went. */
int kafka_sim_produce_one(struct kafka_sim *w, struct sim_part *p, uint32_t bytes);

/* kafka_sim_groups.c */
void kafka_sim_producer(struct kafka_sim *w);
void kafka_sim_commit(struct kafka_sim *w);
void kafka_sim_offsets(struct kafka_sim *w);
void kafka_sim_member(struct kafka_sim *w);
void kafka_sim_others(struct kafka_sim *w);
/* The process is gone, and all members with it. */
void kafka_sim_members_gone(struct kafka_sim *w);
/* At rest: all committed offsets of a partition. */
bool kafka_sim_offsets_check(struct kafka_sim *w, struct sim_topic *t);

#endif
