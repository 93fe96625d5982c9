/* Batches of topics whose compression.type is not "producer" get that codec before they are
 * appended.
 *
 * A little is done on the connection's loop, the rest on the pool, one piece of a request after
 * another: a client has one thread of it at most, and others' work comes between. What waits for a
 * request's partitions (struct kafka_open) waits for this too, and the session is blocked meanwhile,
 * which keeps the batches of one connection in their order. */
#ifndef WEIR_GATEWAYS_KAFKA_RECODE_H
#define WEIR_GATEWAYS_KAFKA_RECODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/loop.h"
#include "format/batch.h"
#include "gateways/kafka/partition.h"

/* One batch. */
struct kafka_recode {
    struct kafka_recode *next;
    const void *mem; /* in r->buf */
    size_t bytes;
    uint32_t max;
    enum batch_codec codec;
    /* the answer, once open's `then` runs: 0 and a reference that is the caller's, or the error */
    struct buf *out;
    int rc;
};

/* All of a request; what is here is recode.c's own. */
struct kafka_recodes {
    struct work work;
    struct kafka_open *open;
    struct kafka_recode *head, **end; /* for the pool */
    size_t loop_room;                 /* bytes that may still be opened on the loop */
    uint64_t made;                    /* bytes of all out */
};

/* After kafka_open_begin. */
void kafka_recodes_begin(struct kafka_recodes *all, struct kafka_open *o);
/* Gives the batch at mem, which batch_validate has passed, another codec.
 * max  the largest batch that may come of it.
 * E_TOOBIG: larger; or it opens to more than the largest request; or all of this request together
 * became more than that. E_CORRUPT: its records are not what it says. */
void kafka_recode(struct kafka_recodes *all, struct kafka_recode *c, const void *mem, size_t bytes,
                  enum batch_codec codec, uint32_t max);
/* Before kafka_open_end. */
void kafka_recodes_end(struct kafka_recodes *all);

#endif
