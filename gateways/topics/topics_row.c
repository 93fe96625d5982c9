#include "gateways/topics/topics_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "format/codec.h"

/* Rows, all integers little-endian:
 *
 *   key 'T' + topic id (16 bytes)
 *     u8 version (2)   u8 name_bytes   name   i64 created (ms since 1970)
 *     u32 n_partitions, then the shard of each as u64, partition 0 first
 *     u16 n_settings, then each: u8 name_bytes   name   u16 value_bytes   value
 *     u16 n_defaults, then each alike: what stood for settings not given when it was made
 *     (version 1: ends before this)
 *
 *   key 'I' + name     u8 version (1)   u64 shard: internal state of that name
 *   key 'S' + "id"     u8 version (1)   16 bytes: the store's id
 *
 * A change of a topic puts its row anew; a deletion removes it. Rows and shards change in one
 * update of the journal. */
enum { HEAD_BYTES = 2 + 8 + 4 + 2 + 2 };

struct topic *topics_topic_new(const char *name, size_t name_bytes, uint32_t n_partitions)
{
    struct topic *t = mem_new(sizeof *t);

    atomic_init(&t->refs, 1);
    memcpy(t->name, name, name_bytes);
    t->name_bytes = (unsigned)name_bytes;
    t->n_partitions = n_partitions;
    t->shards = mem_new(n_partitions * sizeof *t->shards);
    return t;
}

static size_t settings_bytes(const struct topic_setting *list, unsigned n)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < n; i++)
        bytes += 3 + strlen(list[i].name) + strlen(list[i].value);
    return bytes;
}

size_t topics_row_bytes(const struct topic *t)
{
    return HEAD_BYTES + t->name_bytes + (size_t)t->n_partitions * 8 +
           settings_bytes(t->settings, t->n_settings) + settings_bytes(t->defaults, t->n_defaults);
}

static void settings_write(struct wr *w, const struct topic_setting *list, unsigned n)
{
    wr_u16le(w, (uint16_t)n);
    for (unsigned i = 0; i < n; i++) {
        wr_u8(w, (uint8_t)strlen(list[i].name));
        wr_bytes(w, list[i].name, strlen(list[i].name));
        wr_u16le(w, (uint16_t)strlen(list[i].value));
        wr_bytes(w, list[i].value, strlen(list[i].value));
    }
}

void topics_row_write(struct wr *w, const struct topic *t)
{
    wr_u8(w, TOPIC_ROW_VERSION);
    wr_u8(w, (uint8_t)t->name_bytes);
    wr_bytes(w, t->name, t->name_bytes);
    wr_u64le(w, (uint64_t)t->created_ms);
    wr_u32le(w, t->n_partitions);
    for (uint32_t i = 0; i < t->n_partitions; i++)
        wr_u64le(w, t->shards[i]);
    settings_write(w, t->settings, t->n_settings);
    settings_write(w, t->defaults, t->n_defaults);
}

static char *row_text(struct rd *r, size_t bytes)
{
    const uint8_t *p = rd_bytes(r, bytes);
    char *text = mem_new(bytes + 1);

    if (p)
        memcpy(text, p, bytes);
    return text;
}

static struct topic_setting *settings_read(struct rd *r, unsigned *n)
{
    unsigned count = rd_u16le(r);
    struct topic_setting *list;

    if (!rd_ok(r) || count > TOPIC_SETTINGS_MAX) {
        r->bad = true;
        return NULL;
    }
    list = mem_new((count + 1) * sizeof *list);
    for (*n = 0; *n < count && rd_ok(r); (*n)++) {
        list[*n].name = row_text(r, rd_u8(r));
        list[*n].value = row_text(r, rd_u16le(r));
    }
    return list;
}

/* As Kafka names codecs; what no door would have let in changes nothing. */
static int8_t codec_of(const char *name)
{
    if (name && !strcmp(name, "uncompressed"))
        return CODEC_NONE;
    for (int8_t c = CODEC_GZIP; name && c < CODEC_COUNT; c++)
        if (!strcmp(name, codec_name((enum batch_codec)c)))
            return c;
    return TOPIC_CODEC_PRODUCER;
}

void topics_settle(struct topic *t)
{
    const char *max = topic_setting(t, "max.message.bytes");
    const char *type = topic_setting(t, "message.timestamp.type");
    const char *policy = topic_setting(t, "cleanup.policy"), *kind = topic_setting(t, "weir.kind");

    t->message_max = max ? (uint32_t)strtoul(max, NULL, 10) : UINT32_MAX;
    t->codec = codec_of(topic_setting(t, "compression.type"));
    t->append_time = type && !strcmp(type, "LogAppendTime");
    if (!policy)
        policy = topic_setting_in(t->defaults, t->n_defaults, "cleanup.policy");
    /* Those with an index of keys are, whatever the defaults say. */
    t->compacted = (policy && strstr(policy, "compact")) || (kind && !strcmp(kind, "rocksdb"));
}

struct topic *topics_row_read(const uint8_t *id, const void *value, size_t bytes)
{
    struct rd r = rd_of(value, bytes);
    uint8_t version = rd_u8(&r);
    size_t name_bytes = rd_u8(&r);
    const char *name = (const char *)rd_bytes(&r, name_bytes);
    int64_t created_ms = (int64_t)rd_u64le(&r);
    uint32_t n = rd_u32le(&r);
    struct topic *t;

    if (!rd_ok(&r) || !version || version > TOPIC_ROW_VERSION || !topic_name_ok(name, name_bytes) ||
        !n || n > rd_left(&r) / 8)
        return NULL;
    t = topics_topic_new(name, name_bytes, n);
    memcpy(t->id, id, TOPIC_ID_BYTES);
    t->created_ms = created_ms;
    for (uint32_t i = 0; i < n; i++)
        t->shards[i] = rd_u64le(&r);
    t->settings = settings_read(&r, &t->n_settings);
    if (version > 1)
        t->defaults = settings_read(&r, &t->n_defaults);
    topics_settle(t);
    if (rd_ok(&r) && !rd_left(&r))
        return t;
    topic_unref(t);
    return NULL;
}
