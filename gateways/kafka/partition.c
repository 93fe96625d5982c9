#include "gateways/kafka/partition.h"

#include "gateways/kafka/errors.h"

struct topic *kafka_topic_of(struct kafka *k, struct kafka_str name, const struct kafka_uuid *id,
                             bool by_id, int16_t *error)
{
    struct topic *t = by_id ? topics_find_id(k->topics, id->bytes)
                            : topics_find(k->topics, name.mem, (size_t)name.len);

    *error = t ? KAFKA_NONE : by_id ? KAFKA_UNKNOWN_TOPIC_ID : KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    return t;
}

void kafka_open_begin(struct kafka_open *o, struct kafka_request *r,
                      void (*then)(struct kafka_open *o))
{
    *o = (struct kafka_open){ .r = r, .pending = 1, .then = then };
}

void kafka_open_more(struct kafka_open *o)
{
    o->pending++;
}

void kafka_open_less(struct kafka_open *o)
{
    if (--o->pending == 0)
        o->then(o);
}

static void one_opened(struct topic_open *one)
{
    kafka_open_less(one->impl);
}

void kafka_open_one(struct kafka_open *o, struct topic *t, uint32_t partition,
                    struct topic_open *one)
{
    one->rc = 0;
    one->shard = topic_shard(o->r->kafka->topics, t, partition);
    if (one->shard)
        return;
    kafka_open_more(o);
    one->fn = one_opened;
    one->loop = o->r->loop;
    one->topic = t;
    one->partition = partition;
    one->impl = o;
    topic_open(o->r->kafka->topics, one);
}

void kafka_open_end(struct kafka_open *o)
{
    kafka_open_less(o);
}

int16_t kafka_epoch_check(struct shard *s, int32_t epoch)
{
    int32_t ours = shard_epoch(s);

    if (epoch < 0 || epoch == ours)
        return KAFKA_NONE;
    return epoch < ours ? KAFKA_FENCED_LEADER_EPOCH : KAFKA_UNKNOWN_LEADER_EPOCH;
}
