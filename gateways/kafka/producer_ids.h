/* Producer ids, handed out by the keeper of the offsets shard (offsets.c): blocks of 1000 are
 * reserved in one durable record before any of them is given, so that none is ever given
 * twice. */
#ifndef WEIR_GATEWAYS_KAFKA_PRODUCER_IDS_H
#define WEIR_GATEWAYS_KAFKA_PRODUCER_IDS_H

#include <stdint.h>

#include "base/loop.h"

struct offsets;

struct producer_id_done {
    struct task task; /* ours */
    void (*fn)(struct producer_id_done *d);
    struct loop *loop;
    int rc;
    int64_t id;                    /* when rc is 0 */
    struct offsets *offsets;       /* ours */
    struct producer_id_done *next; /* ours */
};
/* Gives a producer id never given before. Any loop; fn runs on d->loop, not inside the call. */
void producer_ids_next(struct offsets *o, struct producer_id_done *d);

#endif
