#include "gateways/kafka/topic_configs.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum config_kind {
    CONFIG_NUMBER,
    CONFIG_RATIO,
    CONFIG_BOOL,
    CONFIG_WORD,
    CONFIG_WORDS,
    CONFIG_TEXT
};

struct config_row {
    const char *name;
    enum config_kind kind;
    int64_t min, max;
    const char *words; /* separated by spaces */
};

#define NUMBER(text, lowest)                                                                       \
    {                                                                                              \
        text, CONFIG_NUMBER, lowest, INT64_MAX, NULL                                               \
    }
#define RANGE(text, lowest, most)                                                                  \
    {                                                                                              \
        text, CONFIG_NUMBER, lowest, most, NULL                                                    \
    }
#define BOOLEAN(text)                                                                              \
    {                                                                                              \
        text, CONFIG_BOOL, 0, 0, NULL                                                              \
    }
#define WORD(text, list)                                                                           \
    {                                                                                              \
        text, CONFIG_WORD, 0, 0, list                                                              \
    }

/* Source: Kafka documentation 4.2, "Topic Configs"; and names of older releases that clients
 * still send. */
static const struct config_row rows[] = {
    { "cleanup.policy", CONFIG_WORDS, 0, 0, "delete compact" },
    RANGE("compression.gzip.level", -1, 9),
    RANGE("compression.lz4.level", 1, 17),
    WORD("compression.type", "uncompressed zstd lz4 snappy gzip producer"),
    RANGE("compression.zstd.level", -131072, 22),
    NUMBER("delete.retention.ms", 0),
    NUMBER("file.delete.delay.ms", 0),
    NUMBER("flush.messages", 1),
    NUMBER("flush.ms", 0),
    { "follower.replication.throttled.replicas", CONFIG_TEXT, 0, 0, NULL },
    RANGE("index.interval.bytes", 0, INT32_MAX),
    { "leader.replication.throttled.replicas", CONFIG_TEXT, 0, 0, NULL },
    NUMBER("local.retention.bytes", -2),
    NUMBER("local.retention.ms", -2),
    NUMBER("max.compaction.lag.ms", 1),
    RANGE("max.message.bytes", 0, INT32_MAX),
    BOOLEAN("message.downconversion.enable"),
    { "message.format.version", CONFIG_TEXT, 0, 0, NULL },
    NUMBER("message.timestamp.after.max.ms", 0),
    NUMBER("message.timestamp.before.max.ms", 0),
    NUMBER("message.timestamp.difference.max.ms", 0),
    WORD("message.timestamp.type", "CreateTime LogAppendTime"),
    { "min.cleanable.dirty.ratio", CONFIG_RATIO, 0, 0, NULL },
    NUMBER("min.compaction.lag.ms", 0),
    RANGE("min.insync.replicas", 1, INT32_MAX),
    BOOLEAN("preallocate"),
    BOOLEAN("remote.copy.disable"),
    BOOLEAN("remote.log.copy.disable"),
    BOOLEAN("remote.log.delete.on.disable"),
    BOOLEAN("remote.storage.enable"),
    NUMBER("retention.bytes", INT64_MIN),
    NUMBER("retention.ms", -1),
    RANGE("segment.bytes", 14, INT32_MAX),
    RANGE("segment.index.bytes", 4, INT32_MAX),
    NUMBER("segment.jitter.ms", 0),
    NUMBER("segment.ms", 1),
    BOOLEAN("unclean.leader.election.enable"),
};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

const char *kafka_topic_config_at(unsigned i)
{
    return i < N_ROWS ? rows[i].name : NULL;
}

static bool number_ok(const struct config_row *row, const char *value)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(value, &end, 10);
    return !errno && end != value && !*end && n >= row->min && n <= row->max;
}

static bool ratio_ok(const char *value)
{
    char *end;
    double x;

    errno = 0;
    x = strtod(value, &end);
    return !errno && end != value && !*end && isfinite(x) && x >= 0 && x <= 1;
}

static bool word_ok(const char *words, const char *value, size_t bytes)
{
    for (const char *w = words; w; w = strchr(w, ' ') ? strchr(w, ' ') + 1 : NULL)
        if (strcspn(w, " ") == bytes && bytes && !memcmp(w, value, bytes))
            return true;
    return false;
}

/* Words between commas; none is fine. */
static bool words_ok(const char *words, const char *value)
{
    while (*value) {
        size_t n = strcspn(value, ",");

        if (!word_ok(words, value, n))
            return false;
        value += n;
        if (*value)
            value++;
    }
    return true;
}

bool kafka_topic_config_ok(const char *name, const char *value)
{
    const struct config_row *row = NULL;

    for (unsigned i = 0; i < N_ROWS && !row; i++)
        if (!strcmp(rows[i].name, name))
            row = &rows[i];
    if (!row)
        return false;
    switch (row->kind) {
    case CONFIG_NUMBER:
        return number_ok(row, value);
    case CONFIG_RATIO:
        return ratio_ok(value);
    case CONFIG_BOOL:
        return !strcasecmp(value, "true") || !strcasecmp(value, "false");
    case CONFIG_WORD:
        return word_ok(row->words, value, strlen(value));
    case CONFIG_WORDS:
        return words_ok(row->words, value);
    case CONFIG_TEXT:
        return true;
    }
    return false;
}
