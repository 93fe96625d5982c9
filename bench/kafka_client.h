/* What the Kafka figures need of librdkafka: clients, topics, and its own mock broker as the
 * reference.
 *
 * All end the program when something fails. */
#ifndef WEIR_BENCH_KAFKA_CLIENT_H
#define WEIR_BENCH_KAFKA_CLIENT_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct kafka_setting {
    const char *key, *value;
};

/* A producer with acks=all, or a consumer; settings override what it sets itself. The opaque of
 * all callbacks is `opaque`. */
rd_kafka_t *kafka_client_producer(
    const char *brokers, const struct kafka_setting *settings, unsigned n,
    void (*delivered)(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque), void *opaque);
rd_kafka_t *kafka_client_consumer(const char *brokers, const struct kafka_setting *settings,
                                  unsigned n);

void kafka_client_create_topic(const char *brokers, const char *topic, int partitions);
void kafka_client_delete_topic(const char *brokers, const char *topic);
/* The end offsets of all partitions together. */
uint64_t kafka_client_end_offsets(const char *brokers, const char *topic, int partitions);

/* librdkafka's mock cluster of one broker with one topic. */
struct kafka_mock {
    char brokers[256];
    pid_t pid; /* 0: it is in this process */
    int fd;    /* closing it ends the process */
    rd_kafka_t *rk;
    void *cluster;
};
/* inside: on threads of this process; otherwise in one of its own, and then before any client of
 * this process is made. */
void kafka_mock_start(struct kafka_mock *m, const char *topic, int partitions, bool inside);
void kafka_mock_stop(struct kafka_mock *m);

/* Seconds of CPU, user and system, that a process has used; pid 0: 0. */
double kafka_server_cpu(pid_t pid);
/* Waits until it has used next to none for a while: what it does behind its answers (destage,
 * deletion) is done. Goes on after a minute. pid 0: nothing. */
void kafka_server_settle(pid_t pid);

#endif
