/* The settings that Kafka's topics have, by name: which values they take. They are kept with
 * the topic. */
#ifndef WEIR_GATEWAYS_KAFKA_TOPIC_CONFIGS_H
#define WEIR_GATEWAYS_KAFKA_TOPIC_CONFIGS_H

#include <stdbool.h>

/* Whether a topic may have this setting. */
bool kafka_topic_config_ok(const char *name, const char *value);
/* The i'th name, NULL past the last. */
const char *kafka_topic_config_at(unsigned i);

#endif
