#include "gateways/kafka/errors.h"

#include <stddef.h>

#include "base/err.h"

/* What a client may do decides: retry (7, 56), look up again (3, 6), or give up. A full disk
 * and a failed device are both 56, which clients retry: the first heals when a topic is
 * deleted. */
static const struct {
    int rc;
    int16_t error;
} table[] = {
    { E_NOMEM, KAFKA_REQUEST_TIMED_OUT },
    { E_NOSPACE, KAFKA_STORAGE_ERROR },
    { E_BUSY, KAFKA_REQUEST_TIMED_OUT },
    { E_CLOSED, KAFKA_NOT_LEADER },
    { E_CANCELLED, KAFKA_REQUEST_TIMED_OUT },
    { E_TIMEOUT, KAFKA_REQUEST_TIMED_OUT },
    { E_FENCED, KAFKA_NOT_LEADER },
    { E_NOTFOUND, KAFKA_UNKNOWN_TOPIC_OR_PARTITION },
    { E_DELETED, KAFKA_UNKNOWN_TOPIC_OR_PARTITION },
    { E_EXISTS, KAFKA_TOPIC_ALREADY_EXISTS },
    { E_INVALID, KAFKA_INVALID_REQUEST },
    { E_TOOBIG, KAFKA_MESSAGE_TOO_LARGE },
    { E_UNSUPPORTED, KAFKA_UNSUPPORTED_VERSION },
    { E_RANGE, KAFKA_OFFSET_OUT_OF_RANGE },
    { E_SEQUENCE, KAFKA_OUT_OF_ORDER_SEQUENCE },
    { E_DUPLICATE, KAFKA_DUPLICATE_SEQUENCE },
    { E_PRODUCER_EPOCH, KAFKA_INVALID_PRODUCER_EPOCH },
    { E_CORRUPT, KAFKA_CORRUPT_MESSAGE },
    { E_LOST, KAFKA_STORAGE_ERROR },
    { E_READONLY, KAFKA_STORAGE_ERROR },
    { E_VERSION, KAFKA_STORAGE_ERROR },
    { E_DEVICE, KAFKA_STORAGE_ERROR },
    { E_IO, KAFKA_STORAGE_ERROR },
    { E_LOCKED, KAFKA_STORAGE_ERROR },
    { E_SYSTEM, KAFKA_STORAGE_ERROR },
    { E_BUG, KAFKA_UNKNOWN_SERVER_ERROR },
};

int kafka_error_mapped(int rc)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].rc == rc)
            return 1;
    return 0;
}

int16_t kafka_error_of(int rc)
{
    if (rc >= 0)
        return KAFKA_NONE;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].rc == rc)
            return table[i].error;
    return KAFKA_UNKNOWN_SERVER_ERROR;
}
