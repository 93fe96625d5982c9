/* produce_acked: sends numbered records and logs each one that the server acked (acked.h).
 *
 *   produce_acked -b BROKERS -t TOPIC -l LOG -r RUN [-i] [-n COUNT] [-s BYTES] [-R RATE]
 *                 [-z CODEC] [-k KEYS] [-f FILE]
 *
 * acks=all. -i: idempotent. It retries for as long as it takes; SIGTERM: sends no more, waits for
 * what is on its way (20 s) and ends. -n 0: until told. -s: mean size of a value. -R: records a
 * second (0: as fast as it goes). -f: the lines of FILE ("key<TAB>value", \n and \t escaped as they
 * are) instead of made records; then the log's number is the line's, from 0. Exit 0 when every
 * record was acked, 1 otherwise. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/e2e/acked.h"

enum { FLUSH_MS = 20000, IN_QUEUE = 20000 };

static struct options {
    const char *brokers, *topic, *log, *codec, *file;
    uint32_t run, mean_bytes, rate, keys;
    uint64_t count;
    bool idempotent;
} opt = { .mean_bytes = 200, .keys = 1000, .codec = "none" };

static volatile sig_atomic_t stopping;
static FILE *log_file;
static uint64_t n_acked, n_failed, n_sent;

static void on_signal(int sig)
{
    stopping = 1;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    uint64_t number = (uintptr_t)m->_private;

    if (m->err) {
        n_failed++;
        fprintf(log_file, "F %u %" PRIu64 " %s\n", opt.run, number, rd_kafka_err2name(m->err));
        return;
    }
    n_acked++;
    fprintf(log_file, "A %u %d %" PRId64 " %" PRIu64 " %016" PRIx64 "\n", opt.run, m->partition,
            m->offset, number, (uint64_t)XXH3_64bits(m->payload, m->len));
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    char text[256];

    if (err == RD_KAFKA_RESP_ERR__FATAL) {
        err = rd_kafka_fatal_error(rk, text, sizeof text);
        fprintf(stderr, "fatal: %s: %s\n", rd_kafka_err2name(err), text);
        stopping = 1;
    }
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value)
{
    char text[256];

    if (rd_kafka_conf_set(conf, key, value, text, sizeof text) != RD_KAFKA_CONF_OK) {
        fprintf(stderr, "%s\n", text);
        exit(2);
    }
}

static rd_kafka_t *client_new(void)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char text[256];
    rd_kafka_t *rk;

    set(conf, "bootstrap.servers", opt.brokers);
    set(conf, "acks", "all");
    set(conf, "enable.idempotence", opt.idempotent ? "true" : "false");
    set(conf, "compression.codec", opt.codec);
    set(conf, "linger.ms", "2");
    set(conf, "batch.size", "100000"); /* tests shrink the WAL's extents, and batches with them */
    set(conf, "message.timeout.ms", "600000"); /* the server is killed under us: patience */
    set(conf, "retries", "10000000");
    set(conf, "retry.backoff.ms", "20");
    set(conf, "reconnect.backoff.ms", "20");
    set(conf, "reconnect.backoff.max.ms", "200");
    set(conf, "socket.timeout.ms", "10000");
    set(conf, "topic.metadata.refresh.interval.ms", "5000");
    /* Not idempotent: a retry may overtake where more than one request is on its way. */
    if (!opt.idempotent)
        set(conf, "max.in.flight", "1");
    set(conf, "log_level", "2");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    if (!rk) {
        fprintf(stderr, "%s\n", text);
        exit(2);
    }
    return rk;
}

/* Serves delivery reports and makes their lines whole in the log. */
static void serve(rd_kafka_t *rk, int ms)
{
    if (rd_kafka_poll(rk, ms) > 0)
        fflush(log_file);
}

struct record {
    const void *key, *value;
    size_t key_bytes, value_bytes;
};

static bool send_record(rd_kafka_t *rk, const struct record *r)
{
    rd_kafka_resp_err_t err;

    do {
        err =
            rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(opt.topic), RD_KAFKA_V_KEY(r->key, r->key_bytes),
                              RD_KAFKA_V_VALUE((void *)(uintptr_t)r->value, r->value_bytes),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                              RD_KAFKA_V_OPAQUE((void *)(uintptr_t)n_sent), RD_KAFKA_V_END);
        if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            serve(rk, 10);
    } while (err == RD_KAFKA_RESP_ERR__QUEUE_FULL && !stopping);
    if (err) {
        if (!stopping)
            fprintf(stderr, "produce: %s\n", rd_kafka_err2name(err));
        return false;
    }
    n_sent++;
    while (rd_kafka_outq_len(rk) >= IN_QUEUE && !stopping)
        serve(rk, 10);
    serve(rk, 0);
    return true;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void send_made(rd_kafka_t *rk)
{
    uint8_t *value = malloc(ACKED_MAX);
    double start = now();
    struct rng rng;
    char key[48];

    rng_seed(&rng, opt.run);
    while (value && !stopping && (opt.count == 0 || n_sent < opt.count)) {
        struct acked_value v = { .run = opt.run, .number = n_sent };
        uint32_t bytes = ACKED_HEAD + (uint32_t)rng_below(&rng, 2 * (uint64_t)opt.mean_bytes + 1);
        int n = snprintf(key, sizeof key, "%u-%" PRIu64, opt.run, n_sent % opt.keys);

        acked_fill(value, bytes, &v);
        if (!send_record(rk, &(struct record){ key, value, (size_t)n, bytes }))
            break;
        while (opt.rate && !stopping && (double)n_sent / opt.rate > now() - start)
            serve(rk, 1);
    }
    free(value);
}

static bool send_file(rd_kafka_t *rk)
{
    FILE *f = fopen(opt.file, "r");
    char *line = NULL, *tab;
    size_t room = 0;
    ssize_t n;

    if (!f) {
        perror(opt.file);
        return false;
    }
    while (!stopping && (n = getline(&line, &room, f)) > 0) {
        n -= line[n - 1] == '\n';
        tab = memchr(line, '\t', (size_t)n);
        if (!tab)
            continue;
        if (!send_record(rk, &(struct record){ line, tab + 1, (size_t)(tab - line),
                                               (size_t)(line + n - tab - 1) }))
            break;
    }
    free(line);
    fclose(f);
    return true;
}

static int usage(void)
{
    fputs("usage: produce_acked -b BROKERS -t TOPIC -l LOG -r RUN [-i] [-n COUNT] [-s BYTES]"
          " [-R RATE] [-z CODEC] [-k KEYS] [-f FILE]\n",
          stderr);
    return 2;
}

static bool parse(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "b:t:l:r:in:s:R:z:k:f:")) != -1) {
        switch (c) {
        case 'b':
            opt.brokers = optarg;
            break;
        case 't':
            opt.topic = optarg;
            break;
        case 'l':
            opt.log = optarg;
            break;
        case 'r':
            opt.run = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'i':
            opt.idempotent = true;
            break;
        case 'n':
            opt.count = strtoull(optarg, NULL, 10);
            break;
        case 's':
            opt.mean_bytes = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'R':
            opt.rate = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'z':
            opt.codec = optarg;
            break;
        case 'k':
            opt.keys = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'f':
            opt.file = optarg;
            break;
        default:
            return false;
        }
    }
    return optind == argc && opt.brokers && opt.topic && opt.log && opt.keys > 0 &&
           2 * (uint64_t)opt.mean_bytes + ACKED_HEAD < ACKED_MAX;
}

int main(int argc, char **argv)
{
    struct sigaction act = { .sa_handler = on_signal };
    rd_kafka_t *rk;
    bool ok = true;

    if (!parse(argc, argv))
        return usage();
    log_file = fopen(opt.log, "a");
    if (!log_file) {
        perror(opt.log);
        return 2;
    }
    setvbuf(log_file, NULL, _IOFBF, 1 << 20);
    fprintf(log_file, "R %u %d\n", opt.run, opt.idempotent);
    fflush(log_file);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    rk = client_new();
    if (opt.file)
        ok = send_file(rk);
    else
        send_made(rk);
    rd_kafka_flush(rk, FLUSH_MS);
    fprintf(log_file, "E %u %" PRIu64 "\n", opt.run, n_sent);
    if (fclose(log_file) != 0)
        ok = false;
    printf("run %u: sent %" PRIu64 " acked %" PRIu64 " failed %" PRIu64 "\n", opt.run, n_sent,
           n_acked, n_failed);
    ok = ok && n_acked == n_sent;
    rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return ok ? 0 : 1;
}
