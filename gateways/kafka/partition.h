/* From what a request names to the journal's shard. */
#ifndef WEIR_GATEWAYS_KAFKA_PARTITION_H
#define WEIR_GATEWAYS_KAFKA_PARTITION_H

#include <stdbool.h>
#include <stdint.h>

#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/schema.h"

/* The topic by name, or by id when by_id: a reference, or NULL and the error. */
struct topic *kafka_topic_of(struct kafka *k, struct kafka_str name, const struct kafka_uuid *id,
                             bool by_id, int16_t *error);

/* Handles for many partitions: those not open yet are opened together. Embed one kafka_open in
 * what waits, one topic_open per partition. */
struct kafka_open {
    struct kafka_request *r;
    unsigned pending;
    void (*then)(struct kafka_open *o);
};
/* Starts: then runs once, after kafka_open_end, when nothing is pending; inside kafka_open_end
 * when nothing ever was. */
void kafka_open_begin(struct kafka_open *o, struct kafka_request *r,
                      void (*then)(struct kafka_open *o));
/* Opens the partition's shard if need be; t must stay referenced. one->rc is 0 or the error,
 * one->shard a handle, to be given back (shard_unref) when done with. */
void kafka_open_one(struct kafka_open *o, struct topic *t, uint32_t partition,
                    struct topic_open *one);
/* `then` waits for one thing more, until it is done. */
void kafka_open_more(struct kafka_open *o);
void kafka_open_less(struct kafka_open *o);
void kafka_open_end(struct kafka_open *o);

/* Compares the client's leader epoch (-1: none) with the shard's: 0, or FENCED or UNKNOWN. */
int16_t kafka_epoch_check(struct shard *s, int32_t epoch);

#endif
