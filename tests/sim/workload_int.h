/* What workload.c (lives, faults, the swarm), workload_ops.c (operations and their answers) and workload_check.c (what must hold after
 * a start and at rest) share of one seed. */
#ifndef WEIR_TESTS_SIM_WORKLOAD_INT_H
#define WEIR_TESTS_SIM_WORKLOAD_INT_H

#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/jrn_sim.h"
#include "tests/sim/model.h"
#include "tests/sim/rot.h"
#include "tests/sim/workload.h"

enum {
    OPS_MAX = 24,
    STEPS_MAX = 400000, /* for one thing to come to its end */
    WAIT_US = 30 * 1000 * 1000,
    PLACES_MAX = 512,
    UNIT_64K = 65536
};

enum op_kind { OP_APPEND, OP_READ, OP_WAIT, OP_FIND, OP_TRIM, OP_UPDATE, OP_OPEN, OP_GET };
/* What a batch with a producer must be answered, when nothing forbids appends as such. */
enum expect { EXPECT_OK, EXPECT_DUPLICATE, EXPECT_CODE };

struct op {
    union {
        struct append_done append;
        struct read_done read;
        struct shard_wait wait;
        struct find_time find;
        struct shard_trim trim;
        struct jrn_update update;
        struct shard_open open;
        struct shard_get get;
    } u; /* first: what the journal gives back is this */
    struct workload *w;
    enum op_kind kind;
    bool kept; /* its maker waits for it and frees it */
    bool done;
    struct op *prev, *next;
    struct model_shard *s;
    struct sent *x;
    enum ack ack;
    bool resent;
    enum expect expect;
    int code;
    uint64_t from, end_before;
    bool failed_before, deleted_before, read_only_before;
    struct model_update *update;
};

struct workload {
    struct model m;
    struct jrn_sim js;
    struct rng rng;
    struct workload_counts *n;
    bool talk;
    struct op *ops;
    unsigned n_ops;
    /* swarm: how often what is done in this seed */
    unsigned weight[10];
    unsigned big_reads;
    bool tight, faulty, rotting, compacting;
    bool power_must_go; /* a flush failed: only a power cut tells what is left */
    uint64_t failures;  /* drawn before this life */

    bool orderly; /* the last life ended so, with its closing block */
    bool killed;  /* the last life ended so: not all that is there is durable */
    bool ending;  /* no promise of success any more in this life */
    uint64_t stamp;
    /* what is watched, of each device */
    struct watched {
        uint64_t ckpt_lsn, wal_lsn, direct_kib, unloads;
        unsigned slabs, segments;
        struct {
            uint64_t place;
            unsigned uses;
        } places[PLACES_MAX];
        unsigned n_places;
    } watched[JRN_SIM_DEVICES];
    struct rot_report rot;
    uint64_t accept[ROT_GROUPS_MAX]; /* the operator's, for the rest of the seed */
    unsigned n_accept;
    int64_t wall_max; /* the latest wall clock seen */
    unsigned devices_max;
    bool rotted;             /* a bit, before this life */
    uint64_t rotten_segment; /* of device 0; rotted last, in this seed; 0: none */
};

static inline uint64_t below(struct workload *w, uint64_t n)
{
    return rng_below(&w->rng, n);
}

static inline bool chance(struct workload *w, uint32_t num, uint32_t den)
{
    return rng_chance(&w->rng, num, den);
}

#define TALK(w, ...)                                                                               \
    do {                                                                                           \
        if ((w)->talk) {                                                                           \
            fprintf(stderr, "%10" PRIu64 " ", sim_now_us((w)->js.sim));                            \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

/* --- workload.c --- */

/* Counts what the journal did meanwhile; called all the time. */
void workload_watch(struct workload *w);
/* Lets stuck requests of all devices go on. */
void workload_disks_unstick(struct workload *w);
/* What retention may have done to the shard by now. */
void workload_expire(struct workload *w, struct model_shard *s);
bool workload_any_device_is(const struct workload *w, enum jrn_state state);
/* Runs until fn is true, some simulated minutes at most; whether it became true. */
bool workload_run_until(struct workload *w, bool (*fn)(void *ctx), void *ctx);

/* --- workload_ops.c --- */

/* Starts one operation, any that the seed's weights give. */
void workload_act(struct workload *w);
/* Runs until it is answered. */
void workload_op_wait(struct workload *w, struct op *op);
void workload_op_free(struct op *op);
/* Kept: the caller waits for it and frees it. */
struct op *workload_read(struct workload *w, struct model_shard *s, uint64_t from,
                         uint32_t max_bytes, bool at_least_one, bool kept);
_Noreturn void workload_read_wrong(const struct op *op, const char *what);
struct op *workload_find(struct workload *w, struct model_shard *s, bool kept);
/* The latest record of a key; kept: as workload_read. */
struct op *workload_get(struct workload *w, struct model_shard *s, int key, bool kept);
_Noreturn void workload_get_wrong(const struct op *op, const char *what);
/* Each wait with the given chance. */
void workload_cancel_waits(struct workload *w, uint32_t num, uint32_t den);
void workload_delete(struct workload *w, struct model_shard *s);
/* Gives whether the shard exists. */
bool workload_handle_open(struct workload *w, struct model_shard *s);
void workload_handles_open_new(struct workload *w);
void workload_handles_close(struct workload *w);

/* --- workload_check.c --- */

/* Damage has made it so, as far as is known. */
bool workload_group_read_only(const struct workload *w, uint64_t group);
/* Start and end have not gone back, nor beyond what was asked for. */
void workload_check_range(struct workload *w, struct model_shard *s);
/* After a start: only damaged groups are read-only. */
void workload_check_read_only(struct workload *w);
/* After a start: what is there must be explained by what was promised. */
void workload_check_recovered(struct workload *w);
/* At the end of a life: what the scrub did in it; what was never damaged is never called so. */
void workload_scrub_end(struct workload *w);
/* Everything comes to rest; then all that is promised must hold exactly. */
void workload_check_at_rest(struct workload *w);

#endif
