/* What the files of the topics' map share: topics as rows (formats: topics_row.c). */
#ifndef WEIR_GATEWAYS_TOPICS_TOPICS_INT_H
#define WEIR_GATEWAYS_TOPICS_TOPICS_INT_H

#include "base/rd.h"
#include "gateways/topics/topics.h"

enum {
    TOPICS_ROW_VERSION = 1, /* of all rows but topics' */
    TOPIC_ROW_VERSION = 2,  /* 1 is read, too */
    TOPICS_ROW_MAX = 1 << 20,
    TOPICS_SETTING_NAME_MAX = 255,
    TOPICS_SETTING_VALUE_MAX = 65535
};

/* One reference; no id, shards or settings yet. */
struct topic *topics_topic_new(const char *name, size_t name_bytes, uint32_t n_partitions);

/* Fills in what follows from the settings. */
void topics_settle(struct topic *t);

size_t topics_row_bytes(const struct topic *t);
void topics_row_write(struct wr *w, const struct topic *t);
/* NULL: the row makes no sense. */
struct topic *topics_row_read(const uint8_t *id, const void *value, size_t bytes);

#endif
