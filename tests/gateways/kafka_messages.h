/* Messages of any schema for tests: random ones, and bytes of one in one piece. */
#ifndef WEIR_TESTS_GATEWAYS_KAFKA_MESSAGES_H
#define WEIR_TESTS_GATEWAYS_KAFKA_MESSAGES_H

#include "base/rng.h"
#include "gateways/kafka/codec.h"

/* A random message of the schema: fields that this version does not carry have their defaults. */
void *kafka_message_random(struct kafka_arena *a, const struct schema *s, struct kafka_form f,
                           struct rng *rng);
/* The message encoded, its pieces joined; to free(). */
uint8_t *kafka_message_bytes(const struct schema *s, struct kafka_form f, const void *msg,
                             size_t *bytes);

#endif
