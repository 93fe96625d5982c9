/* bench/kafka_bench: a Kafka broker, end to end, through librdkafka.
 *
 *   kafka_bench produce -b BROKERS [-s BYTES] [-P PARTITIONS] [-L LINGER_MS] [-B RECORDS_A_BATCH]
 *   kafka_bench paced   -b BROKERS [-s BYTES] [-P PARTITIONS] [-L LINGER_MS] [-R RATE]
 *   kafka_bench consume -b BROKERS [-s BYTES] [-P PARTITIONS] [-n COUNT]
 *   all: [-r ROUNDS] [-w ROUNDS] [-t SECONDS] [-p SERVER_PID] [-X KEY=VALUE]... [-x NAME] [-I] [-N]
 *        [-k PEER_BROKERS [-K PEER_PID]] [-T]
 *
 * acks=all. A round is one turn of the broker and one of librdkafka's own mock broker, which keeps
 * nothing, with the same client; the first of them changes. The mock runs in a process of its own
 * (-I: in the client's; -N: not at all). -k: the reference is another broker instead, which is
 * asked for all that ours is. With -p the server's CPU per million messages is printed too. Each
 * turn at a broker has a topic of its own, deleted afterwards, once its end offsets have been held
 * against what was acked. -T: one topic for all rounds, for brokers to which a new one is dear.
 * -w: rounds before the first that counts. -X: a setting of librdkafka, for both.
 *
 * produce: messages a second, from the first call until the last delivery report. paced: an open
 * loop; latency is from the moment at which the message should have been sent until its delivery
 * report, so that a stall is counted for all that wait. consume: reads COUNT messages back from
 * the beginning (no reference but a peer: the mock keeps 5 MiB a partition). */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/rng.h"
#include "bench/kafka_client.h"
#include "bench/measure.h"

enum { SETTINGS_MAX = 32, FLUSH_MS = 120000, CHECK_EVERY = 256, FETCH = 4096 };
/* Messages before a turn: in all and, for a peer's new topic, in each partition. A Kafka touches a
 * partition's indexes after its first 4 KiB, and the kernel may clear megabytes then. */
enum { WARM_UP = 1000, WARM_UP_EACH = 25, WARM_UP_TIMES = 2 };

static struct options {
    const char *name;
    uint64_t rounds, warm_rounds, bytes, partitions, linger_ms, batch, rate, count;
    double seconds;
    bool inside, no_mock, one_topic;
    struct kafka_setting extra[SETTINGS_MAX];
    unsigned n_extra;
} opt = { .rounds = 7,
          .bytes = 100,
          .partitions = 8,
          .linger_ms = 5,
          .rate = 10000,
          .count = 1000000,
          .seconds = 5 };

/* A real broker: the one that is measured, and the one that it may be held against. */
static struct broker {
    const char *address; /* NULL: there is none */
    pid_t pid;           /* 0: not known */
    uint64_t end;        /* of its topic, when the turn before had ended; 0: the topic is new */
    uint64_t lost;       /* acked, and not there */
} broker, peer;

static struct kafka_mock mock;
static uint8_t *payload;

/* One turn at one broker. */
struct turn {
    const char *brokers, *topic;
    pid_t server; /* 0: not known */
    rd_kafka_t *rk;
    rd_kafka_topic_t *rkt;
    double cpu_began;
    atomic_ulong acked, failed;
    rd_kafka_resp_err_t err; /* of the last that failed */
    bool new_topic, warm;    /* warm: what comes now is measured */
    /* paced */
    bool paced;
    double began;
    struct measure_samples latencies;
    /* results */
    uint64_t sent;
    double rate, cpu; /* messages a second; seconds per million */
};

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct turn *t = opaque;

    if (m->err) {
        t->err = m->err;
        atomic_fetch_add_explicit(&t->failed, 1, memory_order_relaxed);
        return;
    }
    atomic_fetch_add_explicit(&t->acked, 1, memory_order_relaxed);
    if (t->paced && m->_private)
        measure_add(&t->latencies,
                    measure_now() - (t->began + (double)(uintptr_t)m->_private / (double)opt.rate));
}

static unsigned settings(struct kafka_setting *s, char text[2][32])
{
    unsigned n = 0;

    snprintf(text[0], sizeof text[0], "%" PRIu64, opt.linger_ms);
    s[n++] = (struct kafka_setting){ "linger.ms", text[0] };
    if (opt.batch) {
        snprintf(text[1], sizeof text[1], "%" PRIu64, opt.batch);
        s[n++] = (struct kafka_setting){ "batch.num.messages", text[1] };
    }
    /* Small batches: enough in the queue to keep all busy, not so much that a turn is mostly its
     * end. */
    s[n++] = (struct kafka_setting){ "queue.buffering.max.messages",
                                     opt.batch && opt.batch < 100 ? "20000" : "500000" };
    s[n++] = (struct kafka_setting){ "queue.buffering.max.kbytes", "1048576" };
    for (unsigned i = 0; i < opt.n_extra; i++)
        s[n++] = opt.extra[i];
    return n;
}

/* Small batches, paced messages and the first ones are spread evenly by hand; the rest as
 * librdkafka does. */
static int32_t partition_of(const struct turn *t)
{
    return opt.batch || t->paced || !t->warm ? (int32_t)(t->sent % opt.partitions)
                                             : RD_KAFKA_PARTITION_UA;
}

static void send_one(struct turn *t, void *private)
{
    while (rd_kafka_produce(t->rkt, partition_of(t), 0, payload, opt.bytes, NULL, 0, private) !=
           0) {
        rd_kafka_resp_err_t err = rd_kafka_last_error();

        if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            measure_die("produce: %s", rd_kafka_err2name(err));
        rd_kafka_poll(t->rk, 10);
    }
    t->sent++;
}

static void flush(struct turn *t)
{
    rd_kafka_resp_err_t err = rd_kafka_flush(t->rk, FLUSH_MS);

    if (err)
        measure_die("%s: flush: %s", t->brokers, rd_kafka_err2name(err));
}

/* Whoever's turn it is, both are quiet when it begins. A peer may leave to the kernel what it
 * writes: that is written then, and not in our turn. */
static void settle_all(void)
{
    kafka_server_settle(broker.pid);
    kafka_server_settle(peer.pid);
    if (peer.address)
        sync();
}

/* Twice, since a Kafka looks at how much there is before it adds a batch. */
static void warm_up(struct turn *t)
{
    uint64_t each = opt.partitions * WARM_UP_EACH;
    uint64_t n = t->new_topic && each > WARM_UP ? each : WARM_UP;

    for (int times = 0; times < WARM_UP_TIMES; times++) {
        for (uint64_t i = 0; i < n; i++)
            send_one(t, NULL);
        flush(t);
    }
    t->warm = true;
}

/* Connects, and has every partition's leader known. */
static void turn_start(struct turn *t)
{
    struct kafka_setting s[SETTINGS_MAX + 8];
    char text[2][32];
    unsigned n = settings(s, text);

    t->rk = kafka_client_producer(t->brokers, s, n, delivered, t);
    t->rkt = rd_kafka_topic_new(t->rk, t->topic, NULL);
    warm_up(t);
    settle_all();
    t->cpu_began = kafka_server_cpu(t->server);
}

static void turn_end(struct turn *t, double began, uint64_t acked_before)
{
    uint64_t n;

    flush(t);
    n = atomic_load(&t->acked) - acked_before;
    t->rate = (double)n / (measure_now() - began);
    kafka_server_settle(t->server);
    t->cpu = (kafka_server_cpu(t->server) - t->cpu_began) * 1e6 / (double)n;
    rd_kafka_topic_destroy(t->rkt);
    rd_kafka_destroy(t->rk);
    if (atomic_load(&t->failed))
        measure_die("%s: %lu of %" PRIu64 " messages failed: %s", t->brokers,
                    atomic_load(&t->failed), t->sent, rd_kafka_err2name(t->err));
}

static void produce_turn(struct turn *t)
{
    uint64_t acked_before;
    double began, end;

    turn_start(t);
    acked_before = atomic_load(&t->acked);
    began = measure_now();
    end = began + opt.seconds;
    while (measure_now() < end) {
        for (unsigned i = 0; i < CHECK_EVERY; i++)
            send_one(t, NULL);
        rd_kafka_poll(t->rk, 0);
    }
    turn_end(t, began, acked_before);
}

/* --- paced --- */

struct poller {
    rd_kafka_t *rk;
    atomic_bool stop;
};

static void *poll_reports(void *arg)
{
    struct poller *p = arg;

    while (!atomic_load(&p->stop))
        rd_kafka_poll(p->rk, 100);
    return NULL;
}

/* The first half second is not counted: message numbers are sent as opaque, 0 for those. */
static void paced_turn(struct turn *t)
{
    uint64_t n = (uint64_t)(opt.seconds * (double)opt.rate), warm = opt.rate / 2, acked_before;
    struct poller p = { 0 };
    pthread_t thread;

    t->paced = true;
    turn_start(t);
    p.rk = t->rk;
    acked_before = atomic_load(&t->acked);
    t->began = measure_now();
    if (pthread_create(&thread, NULL, poll_reports, &p) != 0)
        measure_die("cannot start a thread");
    for (uint64_t i = 0; i < warm + n; i++) {
        measure_sleep_until(t->began + (double)i / (double)opt.rate);
        send_one(t, i < warm ? NULL : (void *)(uintptr_t)i);
    }
    while (rd_kafka_outq_len(t->rk) > 0)
        measure_sleep_until(measure_now() + 0.001);
    atomic_store(&p.stop, true);
    pthread_join(thread, NULL);
    turn_end(t, t->began, acked_before);
}

/* --- rounds --- */

static void broker_turn(struct broker *b, struct turn *t, unsigned round,
                        void (*run)(struct turn *t))
{
    bool first = !opt.one_topic || round == 0;
    bool last = !opt.one_topic || round + 1 == opt.warm_rounds + opt.rounds;
    char topic[64];
    uint64_t end;

    snprintf(topic, sizeof topic, "bench-%d-%u", (int)getpid(), opt.one_topic ? 0 : round);
    *t = (struct turn){
        .brokers = b->address, .topic = topic, .server = b->pid, .new_topic = first && peer.address
    };
    if (first)
        kafka_client_create_topic(b->address, topic, (int)opt.partitions);
    run(t);
    end = kafka_client_end_offsets(b->address, topic, (int)opt.partitions);
    if (end < b->end + atomic_load(&t->acked))
        b->lost += b->end + atomic_load(&t->acked) - end;
    b->end = last ? 0 : end;
    if (last)
        kafka_client_delete_topic(b->address, topic);
}

static void reference_turn(struct turn *t, unsigned round, void (*run)(struct turn *t))
{
    if (peer.address) {
        broker_turn(&peer, t, round, run);
        return;
    }
    *t = (struct turn){ .brokers = mock.brokers, .topic = "bench", .server = mock.pid };
    if (!opt.no_mock)
        run(t);
}

static void round_of(struct turn *ours, struct turn *reference, unsigned round,
                     void (*run)(struct turn *t))
{
    if (round % 2 == 0)
        broker_turn(&broker, ours, round, run);
    reference_turn(reference, round, run);
    if (round % 2)
        broker_turn(&broker, ours, round, run);
}

static struct measure_rounds figure(const char *tail, const char *unit, const char *text)
{
    char name[128];

    snprintf(name, sizeof name, "%s%s", opt.name, tail);
    return (struct measure_rounds){ .name = mem_str(name), .unit = unit, .text = text };
}

static void report(struct measure_rounds *r)
{
    measure_report(r);
    free((char *)(uintptr_t)r->name);
}

static void report_lost(void)
{
    struct measure_rounds r = figure("_lost", "records", "acked, but beyond the end offset");

    measure_round(&r, (double)broker.lost, 0);
    report(&r);
    if (peer.lost)
        measure_die("the peer lost %" PRIu64 " acked records", peer.lost);
}

static const char *against(void)
{
    return peer.address ? "a peer"
           : opt.inside ? "the mock broker in the client's process"
                        : "the mock broker in its own process";
}

static const char *describe(char *text, size_t bytes)
{
    snprintf(text, bytes,
             "%" PRIu64 " bytes, %" PRIu64 " partitions, linger %" PRIu64
             " ms, acks=all, %s, against %s",
             opt.bytes, opt.partitions, opt.linger_ms,
             opt.batch == 1 ? "one record a batch" : "batches as they come", against());
    return text;
}

static void produce(void)
{
    char text[256];
    struct measure_rounds rate = figure("", "msg/s", describe(text, sizeof text));
    struct measure_rounds cpu = figure("_cpu", "s/million", "CPU of the server");
    struct turn ours, reference;

    for (unsigned r = 0; r < opt.warm_rounds + opt.rounds; r++) {
        round_of(&ours, &reference, r, produce_turn);
        if (r < opt.warm_rounds)
            continue;
        measure_round(&rate, ours.rate, reference.rate);
        measure_round(&cpu, ours.cpu, reference.cpu);
    }
    report(&rate);
    if (broker.pid)
        report(&cpu);
    report_lost();
}

enum { PACED_QUANTILES = 3 };

static void paced(void)
{
    static const double q[PACED_QUANTILES] = { 0.5, 0.99, 0.999 };
    static const char *const tails[PACED_QUANTILES] = { "_p50", "_p99", "_p999" };
    struct measure_rounds figures[PACED_QUANTILES];
    struct measure_rounds cpu = figure("_cpu", "s/million", "CPU of the server");
    struct turn ours, reference;
    char text[256], paced_text[320];

    snprintf(paced_text, sizeof paced_text, "%" PRIu64 " msg/s: %s", opt.rate,
             describe(text, sizeof text));
    for (int i = 0; i < PACED_QUANTILES; i++)
        figures[i] = figure(tails[i], "ms", paced_text);
    for (unsigned r = 0; r < opt.warm_rounds + opt.rounds; r++) {
        round_of(&ours, &reference, r, paced_turn);
        for (int i = 0; r >= opt.warm_rounds && i < PACED_QUANTILES; i++)
            measure_round(&figures[i], 1e3 * measure_quantile(&ours.latencies, q[i]),
                          1e3 * measure_quantile(&reference.latencies, q[i]));
        if (r >= opt.warm_rounds)
            measure_round(&cpu, ours.cpu, reference.cpu);
        measure_free(&ours.latencies);
        measure_free(&reference.latencies);
    }
    for (int i = 0; i < PACED_QUANTILES; i++)
        report(&figures[i]);
    if (broker.pid)
        report(&cpu);
    report_lost();
}

/* --- consume --- */

static void fill_turn(const struct broker *b, struct turn *t, const char *topic)
{
    *t = (struct turn){ .brokers = b->address, .topic = topic, .server = b->pid };
    kafka_client_create_topic(b->address, topic, (int)opt.partitions);
    turn_start(t);
    while (t->sent < opt.count) {
        send_one(t, NULL);
        if (t->sent % CHECK_EVERY == 0)
            rd_kafka_poll(t->rk, 0);
    }
    turn_end(t, measure_now(), 0);
}

static void assign_all(rd_kafka_t *rk, const char *topic)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)opt.partitions);
    rd_kafka_resp_err_t err;

    for (int p = 0; p < (int)opt.partitions; p++)
        rd_kafka_topic_partition_list_add(list, topic, p)->offset = RD_KAFKA_OFFSET_BEGINNING;
    err = rd_kafka_assign(rk, list);
    if (err)
        measure_die("assign: %s", rd_kafka_err2name(err));
    rd_kafka_topic_partition_list_destroy(list);
}

/* Reads n messages; librdkafka waits until it has as many as asked for, so never for more than
 * there are. */
static void read_some(rd_kafka_queue_t *queue, uint64_t n)
{
    rd_kafka_message_t *messages[FETCH];

    while (n > 0) {
        ssize_t got =
            rd_kafka_consume_batch_queue(queue, FLUSH_MS, messages, n < FETCH ? n : FETCH);

        if (got <= 0)
            measure_die("consume: %" PRIu64 " messages did not come", n);
        for (ssize_t i = 0; i < got; i++) {
            if (messages[i]->err)
                measure_die("consume: %s", rd_kafka_err2name(messages[i]->err));
            if (messages[i]->len != opt.bytes)
                measure_die("consume: a message of %zu bytes", messages[i]->len);
            rd_kafka_message_destroy(messages[i]);
        }
        n -= (uint64_t)got;
    }
}

/* The clock starts with the first message: librdkafka takes about a second until it fetches. */
static void consume_turn(struct turn *t)
{
    rd_kafka_t *rk = kafka_client_consumer(t->brokers, opt.extra, opt.n_extra);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(rk);
    double began;

    settle_all();
    t->cpu_began = kafka_server_cpu(t->server);
    assign_all(rk, t->topic);
    read_some(queue, 1);
    began = measure_now();
    read_some(queue, t->sent - 1);
    t->rate = (double)(t->sent - 1) / (measure_now() - began);
    rd_kafka_queue_destroy(queue);
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    kafka_server_settle(t->server);
    t->cpu = (kafka_server_cpu(t->server) - t->cpu_began) * 1e6 / (double)t->sent;
}

/* Without a peer its turn is left out, and the reference stays 0: none. */
static void consume_round(struct turn *ours, struct turn *reference, unsigned round)
{
    if (round % 2 == 0)
        consume_turn(ours);
    if (peer.address)
        consume_turn(reference);
    if (round % 2)
        consume_turn(ours);
}

static void consume(void)
{
    char text[128], topic[64];
    struct measure_rounds rate = figure("", "msg/s", text);
    struct measure_rounds cpu = figure("_cpu", "s/million", "CPU of the server");
    struct turn ours, reference = { 0 };

    snprintf(topic, sizeof topic, "bench-consume-%d", (int)getpid());
    snprintf(text, sizeof text, "%" PRIu64 " messages of %" PRIu64 " bytes, from the beginning%s",
             opt.count, opt.bytes, peer.address ? ", against a peer" : "");
    fill_turn(&broker, &ours, topic);
    if (peer.address)
        fill_turn(&peer, &reference, topic);
    for (unsigned r = 0; r < opt.warm_rounds + opt.rounds; r++) {
        consume_round(&ours, &reference, r);
        if (r < opt.warm_rounds)
            continue;
        measure_round(&rate, ours.rate, reference.rate);
        measure_round(&cpu, ours.cpu, reference.cpu);
    }
    kafka_client_delete_topic(broker.address, topic);
    if (peer.address)
        kafka_client_delete_topic(peer.address, topic);
    report(&rate);
    if (broker.pid)
        report(&cpu);
}

/* --- arguments --- */

static int usage(void)
{
    fprintf(stderr, "usage: kafka_bench produce|paced|consume -b BROKERS [OPTION]...\n");
    return 2;
}

static bool take_extra(char *arg)
{
    char *equals = strchr(arg, '=');

    if (!equals || opt.n_extra == SETTINGS_MAX)
        return false;
    *equals = 0;
    opt.extra[opt.n_extra++] = (struct kafka_setting){ arg, equals + 1 };
    return true;
}

static bool take_option(int o, char *arg)
{
    switch (o) {
    case 'b':
        broker.address = arg;
        return true;
    case 'k':
        peer.address = arg;
        return true;
    case 'K':
        peer.pid = (pid_t)measure_number(arg, 1, INT32_MAX);
        return true;
    case 'x':
        opt.name = arg;
        return true;
    case 'X':
        return take_extra(arg);
    case 'I':
        return opt.inside = true;
    case 'N':
        return opt.no_mock = true;
    case 'T':
        return opt.one_topic = true;
    case 'r':
        opt.rounds = measure_number(arg, 1, MEASURE_ROUNDS_MAX);
        return true;
    case 'w':
        opt.warm_rounds = measure_number(arg, 0, MEASURE_ROUNDS_MAX);
        return true;
    case 't':
        opt.seconds = (double)measure_number(arg, 1, 3600);
        return true;
    case 's':
        opt.bytes = measure_number(arg, 1, 1 << 20);
        return true;
    case 'P':
        opt.partitions = measure_number(arg, 1, 10000);
        return true;
    case 'L':
        opt.linger_ms = measure_number(arg, 0, 10000);
        return true;
    case 'B':
        opt.batch = measure_number(arg, 1, 100000);
        return true;
    case 'R':
        opt.rate = measure_number(arg, 1, 10000000);
        return true;
    case 'n':
        opt.count = measure_number(arg, 1, 1000000000);
        return true;
    case 'p':
        broker.pid = (pid_t)measure_number(arg, 1, INT32_MAX);
        return true;
    default:
        return false;
    }
}

static void prepare(bool with_mock)
{
    struct rng rng;

    prctl(PR_SET_TIMERSLACK, 1); /* sleeps of 100 us are to be of 100 us */
    payload = mem_new(opt.bytes);
    rng_seed(&rng, 3);
    for (uint64_t i = 0; i < opt.bytes; i++)
        payload[i] = (uint8_t)rng_u64(&rng);
    if (with_mock)
        kafka_mock_start(&mock, "bench", (int)opt.partitions, opt.inside);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *verb;
        void (*run)(void);
        bool mock;
    } verbs[] = { { "produce", produce, true },
                  { "paced", paced, true },
                  { "consume", consume, false } };
    int o;

    optind = 2;
    while (argc > 1 && (o = getopt(argc, argv, "b:x:X:INTr:w:t:s:P:L:B:R:n:p:k:K:")) != -1)
        if (!take_option(o, optarg))
            return usage();
    if (argc < 2 || !broker.address || optind != argc)
        return usage();
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].verb) == 0) {
            opt.name = opt.name ? opt.name : argv[1];
            prepare(verbs[i].mock && !opt.no_mock && !peer.address);
            verbs[i].run();
            kafka_mock_stop(&mock);
            free(payload);
            return 0;
        }
    return usage();
}
