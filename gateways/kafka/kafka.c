#include "gateways/kafka/kafka.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/logger.h"
#include "format/codec.h"
#include "gateways/kafka/kafka_int.h"

static const char offsets_name[] = "kafka-offsets";

/* --- conf --- */

static void fill_conf(struct kafka_conf *c)
{
    static const struct kafka_conf defaults = {
        .node_id = 1,
        .default_partitions = 1,
        .request_max = 100 << 20,
        .batch_max = 1048588,
        .fetch_max = 55 << 20,
        .conn_pending_max = 16 << 20,
        .partitions_max = 10000,
    };

    if (!c->node_id)
        c->node_id = defaults.node_id;
    if (!c->default_partitions)
        c->default_partitions = defaults.default_partitions;
    if (!c->request_max)
        c->request_max = defaults.request_max;
    if (!c->batch_max)
        c->batch_max = defaults.batch_max;
    if (!c->fetch_max)
        c->fetch_max = defaults.fetch_max;
    if (!c->conn_pending_max)
        c->conn_pending_max = defaults.conn_pending_max;
    if (!c->partitions_max)
        c->partitions_max = defaults.partitions_max;
    if (!c->recode_here)
        c->recode_here = BATCH_PACK_ASIDE;
    if (!c->retention_ms)
        c->retention_ms = INT64_C(7) * 24 * 3600 * 1000;
    if (!c->retention_bytes)
        c->retention_bytes = -1;
    c->cleanup_policy = mem_str(c->cleanup_policy ? c->cleanup_policy : "delete");
    c->server_batches = mem_str(c->server_batches ? c->server_batches : "lz4");
    c->advertised_host = c->advertised_host ? mem_str(c->advertised_host) : NULL;
    c->cluster_id = c->cluster_id ? mem_str(c->cluster_id) : NULL;
}

/* CODEC_COUNT: there is none of that name. */
static enum batch_codec codec_of(const char *name)
{
    enum batch_codec c = CODEC_NONE;

    while (c < CODEC_COUNT && strcmp(codec_name(c), name) != 0)
        c++;
    return c;
}

static int check_conf(const struct kafka_conf *c, struct err *e)
{
    if (c->node_id < 0)
        return err_set(e, E_INVALID, "node id %d: must not be negative", c->node_id);
    if (c->default_partitions < 1 || (uint32_t)c->default_partitions > c->partitions_max)
        return err_set(e, E_INVALID, "default partitions %d: 1 to %u", c->default_partitions,
                       c->partitions_max);
    if (c->partitions_max > TOPIC_PARTITIONS_MAX)
        return err_set(e, E_INVALID, "at most %d partitions of one topic", TOPIC_PARTITIONS_MAX);
    if (c->batch_max > c->request_max || c->request_max > INT32_MAX || c->fetch_max > INT32_MAX / 2)
        return err_set(e, E_INVALID, "largest batch %u, request %u, fetch %u: make no sense",
                       c->batch_max, c->request_max, c->fetch_max);
    if (codec_of(c->server_batches) == CODEC_COUNT)
        return err_set(e, E_INVALID, "%s: not a codec", c->server_batches);
    return 0;
}

int kafka_new(struct kafka **out, const struct kafka_env *env, const struct kafka_conf *conf,
              struct err *e)
{
    struct kafka *k = mem_new(sizeof *k);
    int rc;

    *out = NULL;
    k->env = *env;
    k->conf = *conf;
    fill_conf(&k->conf);
    kafka_topic_defaults(&k->conf, k->defaults, k->numbers);
    rc = check_conf(&k->conf, e);
    if (rc < 0) {
        kafka_free(k);
        return rc;
    }
    k->home = env->loops[0];
    k->loops = mem_new(env->n_loops * sizeof *k->loops);
    for (unsigned i = 0; i < env->n_loops; i++)
        k->loops[i] = (struct kafka_loop){ .kafka = k, .loop = env->loops[i] };
    k->topics = topics_new(&(struct topics_env){
        .journal = env->journal, .home = k->home, .pool = env->pool, .seed = env->seed });
    *out = k;
    return 0;
}

void kafka_free(struct kafka *k)
{
    if (!k)
        return;
    ASSERT(k->state == KAFKA_NEW || k->state == KAFKA_STOPPED);
    for (unsigned i = 0; k->loops && i < k->env.n_loops; i++)
        kafka_requests_free(&k->loops[i]);
    topics_free(k->topics);
    free((char *)k->conf.advertised_host);
    free((char *)k->conf.cluster_id);
    free((char *)k->conf.cleanup_policy);
    free((char *)k->conf.server_batches);
    free(k->loops);
    free(k);
}

struct kafka_loop *kafka_loop_of(struct kafka *k, struct loop *l)
{
    if (l->index < k->env.n_loops && k->loops[l->index].loop == l)
        return &k->loops[l->index];
    for (unsigned i = 0; i < k->env.n_loops; i++)
        if (k->loops[i].loop == l)
            return &k->loops[i];
    return NULL;
}

struct conn_door kafka_door(struct kafka *k)
{
    return (struct conn_door){ .handler = kafka_session_handler(),
                               .accept = kafka_session_accept,
                               .door = k };
}

/* --- tick --- */

static void tick(struct loop_timer *t)
{
    struct kafka_loop *kl = (struct kafka_loop *)((char *)t - offsetof(struct kafka_loop, tick));

    kl->ticking = false;
    kafka_produce_tick(kl);
    kafka_sessions_tick(kl);
    if (kl->produces || kl->n_backlogged)
        kafka_loop_need_tick(kl);
}

void kafka_loop_need_tick(struct kafka_loop *kl)
{
    if (kl->ticking)
        return;
    kl->ticking = true;
    kl->tick.fire = tick;
    kl->tick.loop = kl->loop;
    loop_timer_set(kl->loop, &kl->tick, KAFKA_TICK_US);
}

/* --- start: topics, then the offsets shard, then what it holds --- */

static void start_answer(struct task *t)
{
    struct kafka_start *s = (struct kafka_start *)t;

    s->fn(s);
}

static void start_done(struct kafka *k, int rc, const struct err *e)
{
    struct kafka_start *s = k->start;

    k->start = NULL;
    k->state = KAFKA_SERVING; /* a failed start is stopped like a good one */
    s->rc = rc;
    if (e)
        s->err = *e;
    else if (rc < 0)
        err_set(&s->err, rc, "the committed offsets' shard: %s", err_text(rc));
    s->task.run = start_answer;
    loop_post(s->loop, &s->task);
}

static bool group_in_use(void *ctx, struct group_bytes group)
{
    struct kafka *k = ctx;

    return consumer_group_in_use(k->groups, group);
}

static void topic_gone(void *ctx, const struct topic *t)
{
    struct kafka *k = ctx;

    offsets_topic_deleted(k->offsets,
                          (struct group_bytes){ .mem = t->name, .bytes = (int32_t)t->name_bytes });
}

static void offsets_loaded(struct offsets_load *l)
{
    struct kafka *k = (struct kafka *)((char *)l - offsetof(struct kafka, offsets_load));

    /* Damaged offsets must not keep the records from being served: groups are answered "not
     * available" until the loss is accepted. */
    if (l->rc < 0 && err_class(l->rc) != ERR_DATA) {
        start_done(k, l->rc, &l->err);
        return;
    }
    topics_on_delete(k->topics, topic_gone, k);
    start_done(k, 0, NULL);
}

static void offsets_opened(struct shard_open *o)
{
    struct kafka *k = (struct kafka *)((char *)o - offsetof(struct kafka, offsets_open));
    const struct kafka_conf *c = &k->conf;

    if (o->rc < 0) {
        start_done(k, o->rc, NULL);
        return;
    }
    k->offsets_shard = o->shard;
    k->groups = consumer_groups_new(
        k->home,
        &(struct consumer_groups_conf){ .session_min_ms = c->session_min_ms,
                                        .session_max_ms = c->session_max_ms,
                                        .rebalance_delay_ms = c->group_rebalance_delay_ms },
        k->env.seed ^ hash_mix(journal_start(k->env.journal)));
    k->offsets = offsets_new(&(struct offsets_env){ .home = k->home,
                                                    .shard = k->offsets_shard,
                                                    .in_use = group_in_use,
                                                    .ctx = k,
                                                    .pool = k->env.pool },
                             &(struct offsets_conf){ .snapshot_every = c->offsets_snapshot_every,
                                                     .retention_ms = c->offsets_retention_ms,
                                                     .codec = codec_of(c->server_batches) });
    k->offsets_load.fn = offsets_loaded;
    offsets_load(k->offsets, &k->offsets_load);
}

static void offsets_found(struct topics_internal *q)
{
    struct kafka *k = (struct kafka *)((char *)q - offsetof(struct kafka, offsets_where));

    if (q->rc < 0) {
        start_done(k, q->rc, NULL);
        return;
    }
    k->offsets_open.fn = offsets_opened;
    k->offsets_open.loop = k->home;
    shard_open(k->env.journal, q->shard, &k->offsets_open);
}

/* As Kafka writes its ids: 16 bytes in base64 (RFC 4648 section 5), without padding. */
static void name_cluster(struct kafka *k)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *id = topics_store_id(k->topics);
    char text[23] = "";

    for (unsigned i = 0; i < 22; i++) {
        unsigned bit = i * 6, at = bit / 8;
        unsigned two = (unsigned)id[at] << 8 | (at + 1 < TOPIC_ID_BYTES ? id[at + 1] : 0);

        text[i] = digits[two >> (10 - bit % 8) & 63];
    }
    if (!k->conf.cluster_id)
        k->conf.cluster_id = mem_str(text);
}

static void topics_loaded(struct topics_start *t)
{
    struct kafka *k = (struct kafka *)((char *)t - offsetof(struct kafka, topics_start));

    if (t->rc < 0) {
        start_done(k, t->rc, &t->err);
        return;
    }
    name_cluster(k);
    k->offsets_where.fn = offsets_found;
    k->offsets_where.loop = k->home;
    k->offsets_where.name = offsets_name;
    topics_internal_shard(k->topics, &k->offsets_where);
}

static void start_home(struct task *t)
{
    struct kafka_start *s = (struct kafka_start *)t;
    struct kafka *k = s->impl;

    ASSERT(k->state == KAFKA_NEW);
    k->state = KAFKA_STARTING;
    k->start = s;
    k->topics_start.fn = topics_loaded;
    k->topics_start.loop = k->home;
    topics_start(k->topics, &k->topics_start);
}

void kafka_start(struct kafka *k, struct kafka_start *done)
{
    done->impl = k;
    done->task.run = start_home;
    loop_post(k->home, &done->task);
}

/* --- stop: sessions on every loop, then groups and offsets --- */

static void stop_answer(struct task *t)
{
    struct kafka_stop *s = (struct kafka_stop *)t;

    s->fn(s);
}

static void stop_done(struct kafka *k)
{
    struct kafka_stop *s = k->stop;

    consumer_groups_free(k->groups);
    offsets_free(k->offsets);
    if (k->offsets_shard)
        shard_unref(k->offsets_shard);
    k->groups = NULL;
    k->offsets = NULL;
    k->offsets_shard = NULL;
    k->stop = NULL;
    k->state = KAFKA_STOPPED;
    s->task.run = stop_answer;
    loop_post(s->loop, &s->task);
}

static void offsets_closed(struct offsets_close *c)
{
    stop_done((struct kafka *)((char *)c - offsetof(struct kafka, offsets_close)));
}

static void loop_stopped(struct task *t)
{
    struct kafka_loop *kl = (struct kafka_loop *)((char *)t - offsetof(struct kafka_loop, stop));
    struct kafka *k = kl->kafka;

    if (--k->loops_running)
        return;
    if (!k->offsets) {
        stop_done(k);
        return;
    }
    k->offsets_close.fn = offsets_closed;
    k->offsets_close.loop = k->home;
    offsets_close(k->offsets, &k->offsets_close);
}

void kafka_loop_idle(struct kafka_loop *kl)
{
    if (!kl->stopping || kl->stopped || kl->n_sessions)
        return;
    kl->stopped = true;
    kl->ticking = false;
    loop_timer_stop(&kl->tick);
    kl->stop.run = loop_stopped;
    loop_post(kl->kafka->home, &kl->stop);
}

static void loop_stop(struct task *t)
{
    struct kafka_loop *kl = (struct kafka_loop *)((char *)t - offsetof(struct kafka_loop, stop));

    kl->stopping = true;
    kafka_sessions_close(kl);
    kafka_loop_idle(kl);
}

static void stop_home(struct task *t)
{
    struct kafka_stop *s = (struct kafka_stop *)t;
    struct kafka *k = s->impl;

    ASSERT(k->state == KAFKA_NEW || k->state == KAFKA_SERVING);
    k->state = KAFKA_STOPPING;
    k->stop = s;
    if (k->groups)
        consumer_groups_stop(k->groups); /* joins that wait are answered now */
    k->loops_running = k->env.n_loops;
    for (unsigned i = 0; i < k->env.n_loops; i++) {
        k->loops[i].stop.run = loop_stop;
        loop_post(k->loops[i].loop, &k->loops[i].stop);
    }
}

void kafka_stop(struct kafka *k, struct kafka_stop *done)
{
    done->impl = k;
    done->task.run = stop_home;
    loop_post(k->home, &done->task);
}
