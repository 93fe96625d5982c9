#include "bench/kafka_client.h"

#include <errno.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

enum { ADMIN_MS = 60000, SETTLE_SECONDS = 60, SETTLED_LOOKS = 3 };

static void set(rd_kafka_conf_t *conf, const char *key, const char *value)
{
    char text[256];

    if (rd_kafka_conf_set(conf, key, value, text, sizeof text) != RD_KAFKA_CONF_OK)
        measure_die("%s", text);
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf, const char *brokers,
                          const struct kafka_setting *settings, unsigned n)
{
    char text[256];
    rd_kafka_t *rk;

    if (brokers)
        set(conf, "bootstrap.servers", brokers);
    set(conf, "log_level", "3");
    for (unsigned i = 0; i < n; i++)
        set(conf, settings[i].key, settings[i].value);
    rk = rd_kafka_new(type, conf, text, sizeof text);
    if (!rk)
        measure_die("%s", text);
    return rk;
}

rd_kafka_t *kafka_client_producer(
    const char *brokers, const struct kafka_setting *settings, unsigned n,
    void (*delivered)(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque), void *opaque)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    set(conf, "acks", "all");
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    rd_kafka_conf_set_opaque(conf, opaque);
    return client(RD_KAFKA_PRODUCER, conf, brokers, settings, n);
}

rd_kafka_t *kafka_client_consumer(const char *brokers, const struct kafka_setting *settings,
                                  unsigned n)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_t *rk;

    set(conf, "group.id", "bench");
    set(conf, "enable.auto.commit", "false");
    set(conf, "auto.offset.reset", "error");
    rk = client(RD_KAFKA_CONSUMER, conf, brokers, settings, n);
    rd_kafka_poll_set_consumer(rk);
    return rk;
}

/* --- topics --- */

static rd_kafka_event_t *admin_wait(rd_kafka_queue_t *queue, const char *what)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, ADMIN_MS);

    if (!event)
        measure_die("%s: no answer", what);
    if (rd_kafka_event_error(event))
        measure_die("%s: %s", what, rd_kafka_event_error_string(event));
    return event;
}

static void topic_must(const rd_kafka_topic_result_t **results, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (rd_kafka_topic_result_error(results[i]))
            measure_die("topic %s: %s", rd_kafka_topic_result_name(results[i]),
                        rd_kafka_err2name(rd_kafka_topic_result_error(results[i])));
}

static rd_kafka_t *admin(const char *brokers)
{
    return client(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), brokers, NULL, 0);
}

static rd_kafka_AdminOptions_t *admin_options(rd_kafka_t *rk)
{
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_ANY);
    char text[256];

    if (rd_kafka_AdminOptions_set_request_timeout(options, ADMIN_MS, text, sizeof text) ||
        rd_kafka_AdminOptions_set_operation_timeout(options, ADMIN_MS, text, sizeof text))
        measure_die("%s", text);
    return options;
}

void kafka_client_create_topic(const char *brokers, const char *topic, int partitions)
{
    rd_kafka_t *rk = admin(brokers);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options = admin_options(rk);
    char text[256];
    rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(topic, partitions, 1, text, sizeof text);
    rd_kafka_event_t *event;
    size_t n;

    if (!t)
        measure_die("%s", text);
    rd_kafka_CreateTopics(rk, &t, 1, options, queue);
    event = admin_wait(queue, "CreateTopics");
    topic_must(rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n),
               1);
    rd_kafka_event_destroy(event);
    rd_kafka_NewTopic_destroy(t);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
}

void kafka_client_delete_topic(const char *brokers, const char *topic)
{
    rd_kafka_t *rk = admin(brokers);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options = admin_options(rk);
    rd_kafka_DeleteTopic_t *t = rd_kafka_DeleteTopic_new(topic);
    rd_kafka_event_t *event;
    size_t n;

    rd_kafka_DeleteTopics(rk, &t, 1, options, queue);
    event = admin_wait(queue, "DeleteTopics");
    topic_must(rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n),
               1);
    rd_kafka_event_destroy(event);
    rd_kafka_DeleteTopic_destroy(t);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
}

uint64_t kafka_client_end_offsets(const char *brokers, const char *topic, int partitions)
{
    rd_kafka_t *rk = admin(brokers);
    uint64_t sum = 0;
    int64_t low, high;

    for (int p = 0; p < partitions; p++) {
        rd_kafka_resp_err_t err =
            rd_kafka_query_watermark_offsets(rk, topic, p, &low, &high, ADMIN_MS);

        if (err)
            measure_die("end of %s/%d: %s", topic, p, rd_kafka_err2name(err));
        sum += (uint64_t)high;
    }
    rd_kafka_destroy(rk);
    return sum;
}

/* --- the mock broker --- */

static void mock_make(struct kafka_mock *m, const char *topic, int partitions)
{
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_resp_err_t err;

    m->rk = admin(NULL);
    cluster = rd_kafka_mock_cluster_new(m->rk, 1);
    if (!cluster)
        measure_die("the mock broker does not start");
    err = rd_kafka_mock_topic_create(cluster, topic, partitions, 1);
    if (err)
        measure_die("topic of the mock broker: %s", rd_kafka_err2name(err));
    m->cluster = cluster;
    snprintf(m->brokers, sizeof m->brokers, "%s", rd_kafka_mock_cluster_bootstraps(cluster));
}

static void mock_free(struct kafka_mock *m)
{
    rd_kafka_mock_cluster_destroy(m->cluster);
    rd_kafka_destroy(m->rk);
}

/* Says on `out` where it is, and serves until `in` is at its end. */
static void mock_serve(const char *topic, int partitions, int in, int out)
{
    struct kafka_mock m = { 0 };
    char byte;

    mock_make(&m, topic, partitions);
    if (write(out, m.brokers, sizeof m.brokers) != sizeof m.brokers)
        _exit(1);
    while (read(in, &byte, 1) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

void kafka_mock_start(struct kafka_mock *m, const char *topic, int partitions, bool inside)
{
    int to[2], from[2];

    *m = (struct kafka_mock){ .fd = -1 };
    if (inside) {
        mock_make(m, topic, partitions);
        return;
    }
    if (pipe(to) < 0 || pipe(from) < 0)
        measure_die("pipe: %s", strerror(errno));
    fflush(stdout);
    m->pid = fork();
    if (m->pid < 0)
        measure_die("fork: %s", strerror(errno));
    if (m->pid == 0) {
        close(to[1]);
        close(from[0]);
        mock_serve(topic, partitions, to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    m->fd = to[1];
    if (read(from[0], m->brokers, sizeof m->brokers) != sizeof m->brokers)
        measure_die("the mock broker does not start");
    close(from[0]);
}

void kafka_mock_stop(struct kafka_mock *m)
{
    if (m->pid) {
        close(m->fd);
        waitpid(m->pid, NULL, 0);
    } else if (m->rk) {
        mock_free(m);
    }
    *m = (struct kafka_mock){ .fd = -1 };
}

/* --- the server's CPU --- */

double kafka_server_cpu(pid_t pid)
{
    unsigned long user, system;
    char path[64], line[1024], *at;
    FILE *f;

    if (!pid)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    f = fopen(path, "r");
    if (!f || !fgets(line, sizeof line, f))
        measure_die("%s: %s", path, strerror(errno));
    fclose(f);
    /* The name, in brackets, may hold anything; utime and stime are fields 14 and 15, it is the
     * second. */
    at = strrchr(line, ')');
    if (!at ||
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        measure_die("%s: not as expected", path);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

void kafka_server_settle(pid_t pid)
{
    double end = measure_now() + SETTLE_SECONDS, before = kafka_server_cpu(pid), now;

    for (int quiet = 0; pid && quiet < SETTLED_LOOKS && measure_now() < end;) {
        measure_sleep_until(measure_now() + 0.2);
        now = kafka_server_cpu(pid);
        quiet =
            now - before <= 0.01 ? quiet + 1 : 0; /* a tick of the clock that it is counted in */
        before = now;
    }
}
