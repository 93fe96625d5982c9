#include "gateways/kafka/topic_configs.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateways/kafka/kafka.h"

struct config_row {
    struct kafka_config_info info;
    int64_t min, max;
    const char *words; /* separated by spaces */
};

#define FOREVER "9223372036854775807"
#define LONG(name, lowest, def, synonym, help)                                                     \
    {                                                                                              \
        { name, KAFKA_CONFIG_LONG, def, synonym, help }, lowest, INT64_MAX, NULL                   \
    }
#define INT(name, lowest, most, def, synonym, help)                                                \
    {                                                                                              \
        { name, KAFKA_CONFIG_INT, def, synonym, help }, lowest, most, NULL                         \
    }
#define BOOLEAN(name, def, help)                                                                   \
    {                                                                                              \
        { name, KAFKA_CONFIG_BOOLEAN, def, NULL, help }, 0, 0, NULL                                \
    }
#define WORD(name, list, def, help)                                                                \
    {                                                                                              \
        { name, KAFKA_CONFIG_STRING, def, NULL, help }, 0, 0, list                                 \
    }
#define TEXT(name, def, help) WORD(name, NULL, def, help)

#define NO_EFFECT "Accepted and kept, without effect: "
#define SEGMENTS  NO_EFFECT "segments are the journal's, and hold many partitions."
#define LEVEL     NO_EFFECT "each codec has its usual level."
#define ONE_NODE  NO_EFFECT "there is one node."
#define NO_TIER   NO_EFFECT "nothing is tiered."

/* Source: Kafka documentation 4.2, "Topic Configs"; and names of older releases that clients
 * still send. In the order of their names. */
static const struct config_row rows[] = {
    { { "cleanup.policy", KAFKA_CONFIG_LIST, "delete", "log.cleanup.policy",
        "delete: the oldest records go, by retention.ms and retention.bytes; compact: superseded "
        "records of a key go; both; or neither, which keeps everything." },
      0,
      0,
      "compact delete" },
    INT("compression.gzip.level", -1, 9, "-1", NULL, LEVEL),
    INT("compression.lz4.level", 1, 17, "9", NULL, LEVEL),
    WORD("compression.type", "uncompressed zstd lz4 snappy gzip producer", "producer",
         "producer: batches stay as they were sent. Else the server gives each batch this codec "
         "before "
         "it is stored."),
    INT("compression.zstd.level", -131072, 22, "3", NULL, LEVEL),
    LONG("delete.retention.ms", 0, "86400000", NULL,
         "How long compaction keeps a tombstone, in milliseconds."),
    LONG("file.delete.delay.ms", 0, "60000", NULL,
         NO_EFFECT "the journal has one grace for all deletions, journal.delete_grace_ms."),
    LONG("flush.messages", 1, FOREVER, NULL,
         NO_EFFECT "a record is on the device before its producer is answered."),
    LONG("flush.ms", 0, FOREVER, NULL,
         NO_EFFECT "a record is on the device before its producer is answered."),
    TEXT("follower.replication.throttled.replicas", "", ONE_NODE),
    INT("index.interval.bytes", 0, INT32_MAX, "4096", NULL, SEGMENTS),
    TEXT("leader.replication.throttled.replicas", "", ONE_NODE),
    LONG("local.retention.bytes", -2, "-2", NULL, NO_TIER),
    LONG("local.retention.ms", -2, "-2", NULL, NO_TIER),
    LONG("max.compaction.lag.ms", 1, FOREVER, NULL,
         NO_EFFECT "compaction comes when enough is superseded."),
    INT("max.message.bytes", 0, INT32_MAX, "1048588", "message.max.bytes",
        "Largest record batch, in bytes; a larger one is refused. journal.batch_max bounds it."),
    BOOLEAN("message.downconversion.enable", NULL, NO_EFFECT "of older releases."),
    TEXT("message.format.version", NULL, NO_EFFECT "of older releases."),
    LONG("message.timestamp.after.max.ms", 0, FOREVER, NULL,
         NO_EFFECT "timestamps are not compared with the clock."),
    LONG("message.timestamp.before.max.ms", 0, FOREVER, NULL,
         NO_EFFECT "timestamps are not compared with the clock."),
    LONG("message.timestamp.difference.max.ms", 0, NULL, NULL, NO_EFFECT "of older releases."),
    WORD("message.timestamp.type", "CreateTime LogAppendTime", "CreateTime",
         "Whether a record's timestamp is its producer's or that of its arrival."),
    { { "min.cleanable.dirty.ratio", KAFKA_CONFIG_DOUBLE, "0.5", NULL,
        NO_EFFECT "compaction has its own measure." },
      0,
      1,
      NULL },
    LONG("min.compaction.lag.ms", 0, "0", NULL,
         "Records younger than this are not compacted, in milliseconds."),
    INT("min.insync.replicas", 1, INT32_MAX, "1", NULL, ONE_NODE),
    BOOLEAN("preallocate", "false", SEGMENTS),
    BOOLEAN("remote.copy.disable", NULL, NO_TIER),
    BOOLEAN("remote.log.copy.disable", "false", NO_TIER),
    BOOLEAN("remote.log.delete.on.disable", "false", NO_TIER),
    BOOLEAN("remote.storage.enable", "false", NO_TIER),
    LONG("retention.bytes", INT64_MIN, "-1", "log.retention.bytes",
         "With delete: a partition's oldest records go while the rest holds this much. -1: no "
         "limit."),
    LONG("retention.ms", -1, "-1", "log.retention.ms",
         "With delete: records older than this may go, in milliseconds. -1: never."),
    INT("segment.bytes", 14, INT32_MAX, "1073741824", NULL, SEGMENTS),
    INT("segment.index.bytes", 4, INT32_MAX, "10485760", NULL, SEGMENTS),
    LONG("segment.jitter.ms", 0, "0", NULL, SEGMENTS),
    LONG("segment.ms", 1, "604800000", NULL, SEGMENTS),
    BOOLEAN("unclean.leader.election.enable", "false", ONE_NODE),
    WORD(
        "weir.kind", "segment memory rocksdb", "segment",
        "What keeps the partitions, fixed when the topic is made: segment: on disk; memory: a ring "
        "in memory, lost on restart; rocksdb: compacted, with an index of its keys."),
};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

const struct kafka_config_info *kafka_topic_config_at(unsigned i)
{
    return i < N_ROWS ? &rows[i].info : NULL;
}

static const struct config_row *row_of(const char *name)
{
    for (unsigned i = 0; i < N_ROWS; i++)
        if (!strcmp(rows[i].info.name, name))
            return &rows[i];
    return NULL;
}

const struct kafka_config_info *kafka_topic_config_find(const char *name)
{
    const struct config_row *row = row_of(name);

    return row ? &row->info : NULL;
}

/* --- one value --- */

static bool wrong(const struct config_row *row, const char *value, char *text, const char *why)
{
    snprintf(text, KAFKA_CONFIG_TEXT_MAX, "Invalid value %.60s for configuration %s: %s", value,
             row->info.name, why);
    return false;
}

static bool number_ok(const struct config_row *row, const char *value, char *text)
{
    bool is_int = row->info.type == KAFKA_CONFIG_INT;
    char *end, why[80];
    long long n;

    errno = 0;
    n = strtoll(value, &end, 10);
    if (errno || end == value || *end || (is_int && (n < INT32_MIN || n > INT32_MAX)))
        return wrong(row, value, text,
                     is_int ? "Not a number of type INT" : "Not a number of type LONG");
    if (n < row->min) {
        snprintf(why, sizeof why, "Value must be at least %" PRId64, row->min);
        return wrong(row, value, text, why);
    }
    if (n > row->max) {
        snprintf(why, sizeof why, "Value must be no more than %" PRId64, row->max);
        return wrong(row, value, text, why);
    }
    return true;
}

static bool ratio_ok(const struct config_row *row, const char *value, char *text)
{
    char *end;
    double x;

    errno = 0;
    x = strtod(value, &end);
    if (errno || end == value || *end || !isfinite(x))
        return wrong(row, value, text, "Not a number of type DOUBLE");
    if (x < 0)
        return wrong(row, value, text, "Value must be at least 0");
    return x <= 1 || wrong(row, value, text, "Value must be no more than 1");
}

static bool one_of(const char *words, const char *value, size_t bytes)
{
    for (const char *w = words; w; w = strchr(w, ' ') ? strchr(w, ' ') + 1 : NULL)
        if (strcspn(w, " ") == bytes && bytes && !memcmp(w, value, bytes))
            return true;
    return false;
}

static bool not_a_word(const struct config_row *row, const char *value, char *text)
{
    char why[160] = "String must be one of: ";
    size_t at = strlen(why);

    for (const char *w = row->words; *w && at < sizeof why - 3; w++) {
        if (*w == ' ')
            why[at++] = ',';
        why[at++] = *w;
    }
    why[at] = 0;
    return wrong(row, value, text, why);
}

/* Words between commas; none is fine. */
static bool words_ok(const struct config_row *row, const char *value, char *text)
{
    const char *at = value;

    while (*at) {
        size_t n = strcspn(at, ",");

        if (!one_of(row->words, at, n))
            return not_a_word(row, value, text);
        at += n;
        if (*at)
            at++;
    }
    return true;
}

bool kafka_topic_config_ok(const char *name, const char *value, char *text)
{
    const struct config_row *row = row_of(name);

    if (!row) {
        snprintf(text, KAFKA_CONFIG_TEXT_MAX, "Unknown topic config name: %.200s", name);
        return false;
    }
    switch (row->info.type) {
    case KAFKA_CONFIG_INT:
    case KAFKA_CONFIG_LONG:
        return number_ok(row, value, text);
    case KAFKA_CONFIG_DOUBLE:
        return ratio_ok(row, value, text);
    case KAFKA_CONFIG_BOOLEAN:
        return !strcasecmp(value, "true") || !strcasecmp(value, "false") ||
               wrong(row, value, text, "Expected value to be either true or false");
    case KAFKA_CONFIG_LIST:
        return words_ok(row, value, text);
    case KAFKA_CONFIG_STRING:
        return !row->words || one_of(row->words, value, strlen(value)) ||
               not_a_word(row, value, text);
    }
    return false;
}

/* --- what holds --- */

const char *kafka_topic_config_value(struct kafka_settings now, struct kafka_settings defaults,
                                     const char *name)
{
    const struct config_row *row = row_of(name);
    const char *value = topic_setting_in(now.at, now.n, name);

    /* A key's index is of no use without compaction. */
    if (!value && !strcmp(name, "cleanup.policy") && kafka_topic_kind(now) == SHARD_ROCKSDB)
        return "compact";
    if (!value)
        value = topic_setting_in(defaults.at, defaults.n, name);
    if (!value && row)
        value = row->info.def;
    return value ? value : "";
}

static bool has_word(const char *list, const char *word)
{
    while (*list) {
        size_t n = strcspn(list, ",");

        if (n == strlen(word) && !memcmp(list, word, n))
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

enum shard_kind kafka_topic_kind(struct kafka_settings now)
{
    const char *kind = topic_setting_in(now.at, now.n, "weir.kind");

    if (kind && !strcmp(kind, "memory"))
        return SHARD_MEMORY;
    return kind && !strcmp(kind, "rocksdb") ? SHARD_ROCKSDB : SHARD_SEGMENT;
}

bool kafka_topic_configs_ok(struct kafka_settings now, struct kafka_settings defaults,
                            const struct topic *was, char *text)
{
    const char *policy = kafka_topic_config_value(now, defaults, "cleanup.policy");
    const char *why = NULL;
    enum shard_kind kind = kafka_topic_kind(now);

    if (was && kind != kafka_topic_kind((struct kafka_settings){ was->settings, was->n_settings }))
        why = "weir.kind is fixed when the topic is made";
    else if (kind == SHARD_ROCKSDB && !has_word(policy, "compact"))
        why = "weir.kind rocksdb asks for cleanup.policy compact";
    else if (kind == SHARD_MEMORY && has_word(policy, "compact"))
        why = "weir.kind memory is never compacted";
    if (why)
        snprintf(text, KAFKA_CONFIG_TEXT_MAX, "%s", why);
    return !why;
}

static int64_t number_of(struct kafka_settings now, struct kafka_settings defaults,
                         const char *name)
{
    return strtoll(kafka_topic_config_value(now, defaults, name), NULL, 10);
}

void kafka_topic_policy(struct kafka_settings now, struct kafka_settings defaults,
                        struct shard_policy *out)
{
    const char *policy = kafka_topic_config_value(now, defaults, "cleanup.policy");
    int64_t ms = number_of(now, defaults, "retention.ms");
    int64_t bytes = number_of(now, defaults, "retention.bytes");

    *out = (struct shard_policy){ 0 };
    if (has_word(policy, "delete") && ms >= 0) {
        out->flags |= SHARD_EXPIRES;
        out->retention_ms = ms;
    }
    if (has_word(policy, "delete") && bytes >= 0) {
        out->flags |= SHARD_LIMITED;
        out->retention_bytes = bytes;
    }
    if (has_word(policy, "compact")) {
        out->flags |= SHARD_COMPACTED;
        out->min_compaction_lag_ms = number_of(now, defaults, "min.compaction.lag.ms");
        out->delete_retention_ms = number_of(now, defaults, "delete.retention.ms");
    }
}

void kafka_topic_defaults(const struct kafka_conf *conf, struct topic_setting *out,
                          char numbers[2][24])
{
    snprintf(numbers[0], sizeof numbers[0], "%" PRId64, conf->retention_ms);
    snprintf(numbers[1], sizeof numbers[1], "%" PRId64, conf->retention_bytes);
    out[0] = (struct topic_setting){ (char *)(uintptr_t) "cleanup.policy",
                                     (char *)(uintptr_t)conf->cleanup_policy };
    out[1] = (struct topic_setting){ (char *)(uintptr_t) "retention.ms", numbers[0] };
    out[2] = (struct topic_setting){ (char *)(uintptr_t) "retention.bytes", numbers[1] };
}
