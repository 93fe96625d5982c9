#include "tools/weir-server/server.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "base/loop.h"
#include "base/rng.h"
#include "gateways/kafka/kafka.h"
#include "gateways/net/listener.h"
#include "journal/io/dev.h"
#include "journal/io/rows.h"
#include "journal/journal.h"

enum { POOL_THREADS = 4, READ_THREADS = 4 };

struct loop_thread {
    struct loop *loop;
    pthread_t thread;
    bool running;
    char name[16];
};

struct server {
    const struct conf *conf;
    struct jrn_device devices[JRN_DEVICES_MAX]; /* in the order of the folders */
    unsigned n_devices;
    struct pool *pool;
    struct pool *read_pool; /* cold reads, apart from all that writes */
    struct loop_thread
        *loops; /* n_loops for connections and groups, then the devices' committers' */
    unsigned n_loops, n_threads;
    struct loop **loop_list; /* the first n_loops, as the parts take them */
    struct journal *journal;
    struct kafka *kafka;
    struct net_listener *listener;
    bool accepting;
    char kafka_address[300];
};

uint64_t server_now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- configuration --- */

static int conf_fault(const struct conf *c, enum conf_key key, const char *what, struct err *e)
{
    return err_set(e, E_INVALID, "%s: %s: %s", conf_where(c, key), conf_rows[key].name, what);
}

/* data, then devices; NULL behind the last. */
static const char *folder(const struct conf *c, unsigned i)
{
    return i == 0 ? conf_str(c, CONF_DATA) : conf_path(c, CONF_DEVICES, i - 1);
}

static unsigned n_folders(const struct conf *c)
{
    unsigned n = 0;

    while (folder(c, n))
        n++;
    return n;
}

int server_check(const struct conf *c, struct err *e)
{
    if (n_folders(c) > JRN_DEVICES_MAX)
        return conf_fault(c, CONF_DEVICES, "more than 14 folders beside data", e);
    return conf_check(c, e);
}

static struct journal_conf journal_settings(const struct conf *c)
{
    struct journal_conf j = {
        .wal_budget = conf_num(c, CONF_JOURNAL_WAL_BUDGET),
        .wal_extent = (uint32_t)conf_num(c, CONF_JOURNAL_WAL_EXTENT),
        .slab_first = conf_num(c, CONF_JOURNAL_SLAB_FIRST),
        .slab_max = conf_num(c, CONF_JOURNAL_SLAB_MAX),
        .space_max = conf_num(c, CONF_JOURNAL_SPACE_MAX),
        .space_floor = conf_num(c, CONF_JOURNAL_SPACE_FLOOR),
        .space_urgent = (uint32_t)conf_num(c, CONF_JOURNAL_SPACE_URGENT),
        .space_throttle = (uint32_t)conf_num(c, CONF_JOURNAL_SPACE_THROTTLE),
        .space_refuse = (uint32_t)conf_num(c, CONF_JOURNAL_SPACE_REFUSE),
        .block_max = (uint32_t)conf_num(c, CONF_JOURNAL_BLOCK_MAX),
        .direct_from = (uint32_t)conf_num(c, CONF_JOURNAL_DIRECT_FROM),
        .batch_max = (uint32_t)conf_num(c, CONF_JOURNAL_BATCH_MAX),
        .cache_bytes = conf_num(c, CONF_JOURNAL_CACHE_BYTES),
        .read_cache_bytes = conf_num(c, CONF_JOURNAL_READ_CACHE_BYTES),
        .memory_bytes = conf_num(c, CONF_JOURNAL_MEMORY_BYTES),
        .pending_max = conf_num(c, CONF_JOURNAL_PENDING_MAX),
        .commit_delay_us = (uint32_t)conf_num(c, CONF_JOURNAL_COMMIT_DELAY_US),
        .idle_close_ms = (uint32_t)conf_num(c, CONF_JOURNAL_IDLE_CLOSE_MS),
        .scrub_bytes_per_s = conf_num(c, CONF_JOURNAL_SCRUB_RATE),
        .scrub_interval_ms = conf_num(c, CONF_JOURNAL_SCRUB_INTERVAL),
        .delete_grace_ms = (uint32_t)conf_num(c, CONF_JOURNAL_DELETE_GRACE_MS),
        .wal_age_ms = (uint32_t)conf_num(c, CONF_JOURNAL_WAL_AGE_MS),
        .retention_check_ms = (uint32_t)conf_num(c, CONF_JOURNAL_RETENTION_CHECK_MS),
        .compact_check_ms = (uint32_t)conf_num(c, CONF_JOURNAL_COMPACT_CHECK_MS),
        .compact_map_bytes = conf_num(c, CONF_JOURNAL_COMPACT_MAP_BYTES),
    };

    j.accept_loss = conf_list(c, CONF_JOURNAL_ACCEPT_LOSS, &j.n_accept_loss);
    return j;
}

/* 0 is no limit in the configuration, -1 in Kafka's settings. */
static int64_t for_ever(uint64_t limit)
{
    return limit ? (int64_t)limit : -1;
}

static struct kafka_conf kafka_settings(const struct conf *c)
{
    const char *cluster_id = conf_str(c, CONF_KAFKA_CLUSTER_ID);

    return (struct kafka_conf){
        .advertised_host = conf_host(c, CONF_KAFKA_ADVERTISED),
        .advertised_port = conf_port(c, CONF_KAFKA_ADVERTISED),
        .node_id = (int32_t)conf_num(c, CONF_NODE_ID),
        .cluster_id = *cluster_id ? cluster_id : NULL,
        .default_partitions = (int32_t)conf_num(c, CONF_KAFKA_DEFAULT_PARTITIONS),
        .no_auto_create = !conf_num(c, CONF_KAFKA_AUTO_CREATE),
        .request_max = (uint32_t)conf_num(c, CONF_KAFKA_REQUEST_MAX),
        .batch_max = (uint32_t)conf_num(c, CONF_KAFKA_BATCH_MAX),
        .fetch_max = (uint32_t)conf_num(c, CONF_KAFKA_FETCH_MAX),
        .conn_pending_max = (uint32_t)conf_num(c, CONF_KAFKA_CONN_PENDING_MAX),
        .partitions_max = (uint32_t)conf_num(c, CONF_KAFKA_PARTITIONS_MAX),
        .group_rebalance_delay_ms = (uint32_t)conf_num(c, CONF_KAFKA_REBALANCE_DELAY),
        .session_min_ms = (uint32_t)conf_num(c, CONF_KAFKA_SESSION_MIN),
        .session_max_ms = (uint32_t)conf_num(c, CONF_KAFKA_SESSION_MAX),
        .offsets_snapshot_every = (uint32_t)conf_num(c, CONF_KAFKA_OFFSETS_SNAPSHOT_EVERY),
        .offsets_retention_ms = (uint32_t)conf_num(c, CONF_KAFKA_OFFSETS_RETENTION),
        .retention_ms = for_ever(conf_num(c, CONF_TOPICS_RETENTION_MS)),
        .retention_bytes = for_ever(conf_num(c, CONF_TOPICS_RETENTION_BYTES)),
        .cleanup_policy = conf_str(c, CONF_TOPICS_CLEANUP_POLICY),
        .server_batches = conf_str(c, CONF_COMPRESSION_SERVER_BATCHES),
    };
}

/* --- waiting for what answers on a loop --- */

static void gate_wait(sem_t *gate)
{
    while (sem_wait(gate) < 0)
        ASSERT(errno == EINTR);
    sem_destroy(gate);
}

struct kafka_start_gate {
    struct kafka_start start; /* first */
    sem_t gate;
};

static void kafka_started(struct kafka_start *s)
{
    sem_post(&((struct kafka_start_gate *)s)->gate);
}

struct kafka_stop_gate {
    struct kafka_stop stop; /* first */
    sem_t gate;
};

static void kafka_stopped(struct kafka_stop *s)
{
    sem_post(&((struct kafka_stop_gate *)s)->gate);
}

struct listener_gate {
    struct net_listener_stop stop; /* first */
    sem_t gate;
};

static void listener_stopped(struct net_listener_stop *s)
{
    sem_post(&((struct listener_gate *)s)->gate);
}

struct journal_gate {
    struct journal_close close; /* first */
    sem_t gate;
};

static void journal_closed(struct journal_close *c)
{
    sem_post(&((struct journal_gate *)c)->gate);
}

/* --- threads --- */

static void *run_loop(void *arg)
{
    struct loop_thread *t = arg;

    pthread_setname_np(pthread_self(), t->name);
    loop_event_run(t->loop);
    return NULL;
}

static int make_loops(struct server *s, struct err *e)
{
    unsigned wanted = (unsigned)conf_num(s->conf, CONF_LOOPS);

    s->n_loops = wanted ? wanted : loop_event_count();
    s->n_threads = s->n_loops + s->n_devices;
    s->loops = mem_new(s->n_threads * sizeof *s->loops);
    s->loop_list = mem_new(s->n_loops * sizeof(struct loop *));
    for (unsigned i = 0; i < s->n_threads; i++) {
        struct loop_thread *t = &s->loops[i];
        int rc = loop_event_new(&t->loop, i, e);

        if (rc < 0)
            return rc;
        if (i < s->n_loops) {
            snprintf(t->name, sizeof t->name, "loop-%u", i);
            s->loop_list[i] = t->loop;
        } else {
            s->devices[i - s->n_loops].commit_loop = t->loop;
            snprintf(t->name, sizeof t->name, "commit-%u", i - s->n_loops);
        }
    }
    return 0;
}

static int start_threads(struct server *s, struct err *e)
{
    for (unsigned i = 0; i < s->n_threads; i++) {
        struct loop_thread *t = &s->loops[i];
        int rc = pthread_create(&t->thread, NULL, run_loop, t);

        if (rc != 0)
            return err_set(e, E_SYSTEM, "cannot start a thread: %s", strerror(rc));
        t->running = true;
    }
    return 0;
}

static void stop_threads(struct server *s)
{
    /* All are asked first: a loop that ends may still post to one that runs. */
    for (unsigned i = 0; s->loops && i < s->n_threads; i++)
        if (s->loops[i].running)
            loop_event_stop(s->loops[i].loop);
    for (unsigned i = 0; s->loops && i < s->n_threads; i++)
        if (s->loops[i].running)
            pthread_join(s->loops[i].thread, NULL);
}

static void free_loops(struct server *s)
{
    for (unsigned i = 0; s->loops && i < s->n_threads; i++)
        loop_event_free(s->loops[i].loop);
    free(s->loops);
    free(s->loop_list);
}

/* --- the parts, in their order --- */

static int open_device(struct server *s, const char *data, struct jrn_device *d, struct err *e)
{
    size_t bytes = strlen(data) + sizeof "/rows";
    uint64_t cache = conf_num(s->conf, CONF_ROWS_CACHE) / n_folders(s->conf);
    char *rows_path;
    int rc;

    /* Makes the folder; its lock keeps a second server out, so it comes before all else that
     * writes. */
    rc = dev_aio_open(&d->dev, data, &(struct dev_aio_conf){ 0 }, e);
    if (rc < 0)
        return rc;
    rows_path = mem_new(bytes);
    snprintf(rows_path, bytes, "%s/rows", data);
    rc = rows_rocksdb_open(&d->rows, rows_path, cache, false, e);
    free(rows_path);
    return rc;
}

static int open_devices(struct server *s, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && folder(s->conf, i); i++) {
        s->n_devices++;
        rc = open_device(s, folder(s->conf, i), &s->devices[i], e);
    }
    return rc;
}

static int open_journal(struct server *s, struct err *e)
{
    struct journal_conf conf = journal_settings(s->conf);
    struct rng rng;
    int rc = make_loops(s, e);

    if (rc == 0)
        rc = pool_thread_new(&s->pool, POOL_THREADS, "pool", e);
    if (rc == 0)
        rc = pool_thread_new(&s->read_pool, READ_THREADS, "read", e);
    if (rc < 0)
        return rc;
    rng_seed_system(&rng);
    return journal_open(&s->journal,
                        &(struct journal_env){ .loops = s->loop_list,
                                               .n_loops = s->n_loops,
                                               .commit_loop = s->devices[0].commit_loop,
                                               .pool = s->pool,
                                               .read_pool = s->read_pool,
                                               .dev = s->devices[0].dev,
                                               .rows = s->devices[0].rows,
                                               .more = s->devices + 1,
                                               .n_more = s->n_devices - 1,
                                               .assigner = jrn_assigner_local(),
                                               .seed = rng_u64(&rng) },
                        &conf, e);
}

static int start_kafka(struct server *s, struct err *e)
{
    struct kafka_conf conf = kafka_settings(s->conf);
    struct kafka_start_gate g = { .start = { .fn = kafka_started, .loop = s->loop_list[0] } };
    struct rng rng;
    int rc;

    rng_seed_system(&rng);
    rc = kafka_new(&s->kafka,
                   &(struct kafka_env){ .journal = s->journal,
                                        .loops = s->loop_list,
                                        .n_loops = s->n_loops,
                                        .pool = s->pool,
                                        .seed = rng_u64(&rng) },
                   &conf, e);
    if (rc < 0)
        return rc;
    sem_init(&g.gate, 0, 0);
    kafka_start(s->kafka, &g.start);
    gate_wait(&g.gate);
    if (g.start.rc < 0)
        return err_set(e, g.start.rc, "%s",
                       g.start.err.code ? g.start.err.text : err_text(g.start.rc));
    return 0;
}

static uint32_t max_connections(const struct conf *c)
{
    uint32_t wanted = (uint32_t)conf_num(c, CONF_NET_MAX_CONNECTIONS);
    uint32_t fit = net_listener_fit(wanted);

    /* The default is more than most systems allow, which nobody needs to be warned of. */
    if (fit < wanted)
        LOG_AT_(strcmp(conf_where(c, CONF_NET_MAX_CONNECTIONS), "default") == 0 ? LOG_LEVEL_INFO
                                                                                : LOG_LEVEL_WARN,
                "net.connections_bounded", F_INT("max", fit), F_INT("wanted", wanted),
                F_STR("why", "the limit on open files"));
    return fit;
}

static int start_listener(struct server *s, uint32_t max, struct err *e)
{
    const struct conf *c = s->conf;
    const char *host = conf_host(c, CONF_KAFKA_LISTEN);
    int rc = net_listener_open(&s->listener,
                               &(struct net_listener_conf){
                                   .host = host,
                                   .port = conf_port(c, CONF_KAFKA_LISTEN),
                                   .backlog = (unsigned)conf_num(c, CONF_NET_BACKLOG),
                                   .max_connections = max,
                                   .idle_close_ms = (uint32_t)conf_num(c, CONF_KAFKA_IDLE_CLOSE) },
                               s->loop_list, s->n_loops, kafka_door(s->kafka), e);

    if (rc < 0) {
        err_prefix(e, "kafka.listen: ");
        return rc;
    }
    snprintf(s->kafka_address, sizeof s->kafka_address, strchr(host, ':') ? "[%s]:%u" : "%s:%u",
             host, net_listener_port(s->listener));
    net_listener_start(s->listener);
    s->accepting = true;
    return 0;
}

static int start_parts(struct server *s, struct err *e)
{
    uint32_t max = max_connections(s->conf);
    int rc = open_devices(s, e);

    if (rc == 0)
        rc = open_journal(s, e);
    if (rc == 0)
        rc = start_threads(s, e);
    if (rc == 0)
        rc = start_kafka(s, e);
    if (rc == 0)
        rc = start_listener(s, max, e);
    return rc;
}

int server_start(struct server **out, const struct conf *c, uint64_t began_us, struct err *e)
{
    struct server *s = mem_new(sizeof *s);
    int rc;

    *out = NULL;
    s->conf = c;
    LOG_INFO("server.start", F_STR("version", WEIR_VERSION), F_INT("pid", getpid()),
             F_STR("data", conf_str(c, CONF_DATA)));
    rc = start_parts(s, e);
    if (rc < 0) {
        server_stop(s);
        return rc;
    }
    LOG_INFO("ready", F_STR("kafka", s->kafka_address),
             F_INT("kafka_port", net_listener_port(s->listener)),
             F_STR("data", conf_str(c, CONF_DATA)), F_INT("devices", s->n_devices),
             F_INT("loops", s->n_loops), F_INT("start_ms", (server_now_us() - began_us) / 1000));
    *out = s;
    return 0;
}

/* --- stopping --- */

static void stop_accepting(struct server *s)
{
    struct listener_gate g = { .stop = { .fn = listener_stopped, .loop = s->loop_list[0] } };

    sem_init(&g.gate, 0, 0);
    net_listener_stop(s->listener, &g.stop);
    gate_wait(&g.gate);
}

static void stop_kafka(struct server *s)
{
    struct kafka_stop_gate g = { .stop = { .fn = kafka_stopped, .loop = s->loop_list[0] } };

    sem_init(&g.gate, 0, 0);
    kafka_stop(s->kafka, &g.stop);
    gate_wait(&g.gate);
}

static void end_connections(struct server *s)
{
    struct listener_gate g = { .stop = { .fn = listener_stopped, .loop = s->loop_list[0] } };

    sem_init(&g.gate, 0, 0);
    net_listener_end(s->listener, &g.stop);
    gate_wait(&g.gate);
}

static void close_journal(struct server *s)
{
    struct journal_gate g = { .close = { .fn = journal_closed, .loop = s->loop_list[0] } };

    sem_init(&g.gate, 0, 0);
    journal_close(s->journal, &g.close);
    gate_wait(&g.gate);
}

void server_stop(struct server *s)
{
    bool threads = s->loops && s->loops[s->n_loops].running;

    if (s->accepting)
        stop_accepting(s);
    if (s->kafka)
        stop_kafka(s);
    if (s->accepting)
        end_connections(s);
    /* Without threads nothing could answer; and nothing was accepted that would have to be made
     * durable. */
    if (s->journal && threads)
        close_journal(s);
    if (s->pool)
        pool_thread_free(s->pool);
    if (s->read_pool)
        pool_thread_free(s->read_pool);
    stop_threads(s);
    net_listener_free(s->listener);
    if (s->kafka)
        kafka_free(s->kafka);
    for (unsigned i = 0; i < s->n_devices; i++) {
        rows_close(s->devices[i].rows);
        if (s->devices[i].dev)
            dev_aio_close(s->devices[i].dev);
    }
    free_loops(s);
    free(s);
}

const char *server_kafka_address(const struct server *s)
{
    return s->kafka_address;
}
