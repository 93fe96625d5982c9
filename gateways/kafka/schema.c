#include "gateways/kafka/schema.h"

#include "gateways/kafka/schema_config.h"
#include "gateways/kafka/schema_data.h"
#include "gateways/kafka/schema_group.h"
#include "gateways/kafka/schema_topics.h"

KAFKA_CONFIG_MESSAGES(KAFKA_ROWS)
KAFKA_DATA_MESSAGES(KAFKA_ROWS)
KAFKA_GROUP_MESSAGES(KAFKA_ROWS)
KAFKA_TOPICS_MESSAGES(KAFKA_ROWS)
