/* What the files of the Kafka door share. */
#ifndef WEIR_GATEWAYS_KAFKA_KAFKA_INT_H
#define WEIR_GATEWAYS_KAFKA_KAFKA_INT_H

#include "gateways/kafka/consumer_group.h"
#include "gateways/kafka/kafka.h"
#include "gateways/kafka/offsets.h"
#include "gateways/kafka/request.h"
#include "gateways/kafka/topic_configs.h"
#include "gateways/topics/topics.h"
#include "journal/journal.h"

struct kafka_produce_op;

enum {
    KAFKA_REQUESTS_MAX = 1024, /* unanswered requests of one connection */
    KAFKA_REQUESTS_KEPT = 64,  /* free request structs kept per loop */
    KAFKA_TICK_US =
        20000 /* produce time-outs and a journal that had too much are looked at this often */
};

/* What belongs to one loop; touched only there. */
struct kafka_loop {
    struct kafka *kafka;
    struct loop *loop;
    struct kafka_session *sessions; /* all, linked both ways */
    unsigned n_sessions;
    struct kafka_request *free; /* request structs to use again */
    unsigned n_free;
    struct kafka_produce_op *produces; /* waiting for the journal, linked both ways */
    unsigned n_backlogged;             /* sessions not read because the journal has too much */
    struct loop_timer tick;
    struct task stop;
    bool ticking;
    bool stopping;
    bool stopped;
};

enum kafka_state { KAFKA_NEW, KAFKA_STARTING, KAFKA_SERVING, KAFKA_STOPPING, KAFKA_STOPPED };

struct kafka {
    struct kafka_env env;
    struct kafka_conf conf;                               /* defaults filled in, strings our own */
    struct topic_setting defaults[KAFKA_CONFIG_DEFAULTS]; /* of new topics */
    char numbers[2][24];                                  /* that they point to */
    struct loop *home; /* loops[0]: topics are changed here, groups live here */
    struct kafka_loop *loops;
    struct topics *topics;
    struct shard *offsets_shard; /* home; held while offsets runs */
    struct offsets *offsets;
    struct consumer_groups *groups;
    enum kafka_state state; /* home */
    struct kafka_start *start;
    struct kafka_stop *stop;
    unsigned loops_running; /* home: loops that have not stopped yet */
    /* steps of start and stop, one under way at a time */
    struct topics_start topics_start;
    struct topics_internal offsets_where;
    struct shard_open offsets_open;
    struct offsets_load offsets_load;
    struct offsets_close offsets_close;
};

struct kafka_loop *kafka_loop_of(struct kafka *k, struct loop *l);

/* session.c */
const struct conn_handler *kafka_session_handler(void);
void *kafka_session_accept(struct conn *c, void *door);
/* Closes every session of this loop; kafka_loop_idle runs when the last is gone. */
void kafka_sessions_close(struct kafka_loop *kl);
/* Looks again at sessions that wait for the journal. */
void kafka_sessions_tick(struct kafka_loop *kl);
void kafka_requests_free(struct kafka_loop *kl);

/* produce.c: answers what has waited too long. */
void kafka_produce_tick(struct kafka_loop *kl);

/* kafka.c */
void kafka_loop_idle(struct kafka_loop *kl);
/* Makes the loop's tick run soon, if it is not going to. */
void kafka_loop_need_tick(struct kafka_loop *kl);

#endif
