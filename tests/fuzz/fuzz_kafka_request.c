/* A Kafka connection fed with any bytes, over a journal in memory: the door answers or closes,
 * never reads or allocates beyond its bounds, and gives everything back when the client goes
 * and the server stops. */
#include <stdlib.h>

#include "base/buf.h"
#include "base/logger.h"
#include "gateways/kafka/kafka.h"
#include "tests/gateways/conn_fake.h"
#include "tests/gateways/journal_fake.h"
#include "tests/sim/loop_sim.h"

/* Inside, so that they come before the real journal, which then stays out. */
#include "tests/gateways/conn_fake.c"
#include "tests/gateways/journal_fake.c"

enum { MANY_STEPS = 1000000, REQUEST_MAX = 2 << 20, INPUT_MAX = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static bool answered;

static void started(struct kafka_start *s)
{
    ASSERT(s->rc == 0);
    answered = true;
}

static void stopped(struct kafka_stop *s)
{
    answered = true;
}

static bool is_answered(void *ctx)
{
    return answered;
}

static struct kafka *start(struct sim *sim, struct journal *j, struct loop **loops)
{
    struct kafka_env env = {
        .journal = j, .loops = loops, .n_loops = 2, .pool = sim_pool(sim), .seed = 3
    };
    struct kafka_conf conf = { .request_max = REQUEST_MAX, .partitions_max = 100 };
    struct kafka_start s = { .fn = started, .loop = loops[0] };
    struct kafka *k;

    ASSERT(kafka_new(&k, &env, &conf, NULL) == 0);
    answered = false;
    kafka_start(k, &s);
    ASSERT(sim_run_until(sim, is_answered, NULL, MANY_STEPS));
    return k;
}

static void stop(struct sim *sim, struct kafka *k, struct loop *home)
{
    struct kafka_stop s = { .fn = stopped, .loop = home };

    answered = false;
    kafka_stop(k, &s);
    ASSERT(sim_run_until(sim, is_answered, NULL, MANY_STEPS));
    kafka_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    struct sim *sim = sim_new(1);
    struct journal *j = journal_fake_new();
    struct loop *loops[2] = { sim_loop(sim, 0), sim_loop(sim, 1) };
    struct conn_fake *conn;
    struct conn_door door;
    struct kafka *k;

    if (bytes > INPUT_MAX)
        bytes = INPUT_MAX;
    logger_to(-1);
    k = start(sim, j, loops);
    door = kafka_door(k);
    conn = conn_fake_new(&door, loops[1]);
    conn_fake_send(conn, mem, bytes);
    /* Long enough for waits and rebalances that these bytes may have asked for to end, or not. */
    ASSERT(sim_run_for(sim, 2000000, MANY_STEPS));
    conn_fake_hang_up(conn);
    stop(sim, k, loops[0]);
    ASSERT(conn->closed);
    conn_fake_free(conn);
    ASSERT(!journal_fake_handles(j) && !journal_fake_waits(j));
    journal_fake_free(j);
    sim_free(sim);
    ASSERT(buf_total_bytes() == 0);
    return 0;
}
