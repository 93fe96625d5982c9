/* The settings that Kafka's topics have: which there are, which values they take, and what of them
 * the journal is told. They are kept with the topic (gateways/topics). */
#ifndef WEIR_GATEWAYS_KAFKA_TOPIC_CONFIGS_H
#define WEIR_GATEWAYS_KAFKA_TOPIC_CONFIGS_H

#include <stdbool.h>
#include <stddef.h>

#include "gateways/topics/topics.h"

struct kafka_conf;

enum {
    KAFKA_CONFIG_TEXT_MAX = 400, /* a complaint */
    KAFKA_CONFIG_DEFAULTS = 3    /* that a topic keeps from when it was made */
};

/* As the protocol numbers them. */
enum kafka_config_type {
    KAFKA_CONFIG_BOOLEAN = 1,
    KAFKA_CONFIG_STRING = 2,
    KAFKA_CONFIG_INT = 3,
    KAFKA_CONFIG_LONG = 5,
    KAFKA_CONFIG_DOUBLE = 6,
    KAFKA_CONFIG_LIST = 7
};

/* What is known of one setting. */
struct kafka_config_info {
    const char *name;
    enum kafka_config_type type;
    const char *def;     /* where neither topic nor server say otherwise; NULL: it is of older
                          * clients, and told only where it is set */
    const char *synonym; /* the server's own name for its default; NULL: none */
    const char *help;
};
/* The i'th, in the order of names; NULL past the last. */
const struct kafka_config_info *kafka_topic_config_at(unsigned i);
/* NULL: there is none of that name. */
const struct kafka_config_info *kafka_topic_config_find(const char *name);

/* A list of settings, the later of one name not the stronger: names come once. */
struct kafka_settings {
    const struct topic_setting *at;
    unsigned n;
};

/* Whether a topic may have this setting; if not, says why in text. */
bool kafka_topic_config_ok(const char *name, const char *value, char *text);
/* Whether a topic may have all these together. was: what it had, NULL for a new one. */
bool kafka_topic_configs_ok(struct kafka_settings now, struct kafka_settings defaults,
                            const struct topic *was, char *text);

/* The server's defaults, to be kept with a new topic; strings borrowed from conf and numbers. */
void kafka_topic_defaults(const struct kafka_conf *conf, struct topic_setting *out,
                          char numbers[2][24]);
/* The value that holds; "" where there is none. */
const char *kafka_topic_config_value(struct kafka_settings now, struct kafka_settings defaults,
                                     const char *name);
/* What the journal is to know of a topic with these settings. */
enum shard_kind kafka_topic_kind(struct kafka_settings now);
void kafka_topic_policy(struct kafka_settings now, struct kafka_settings defaults,
                        struct shard_policy *out);

#endif
