/* What people read about the server: an event name and fields, JSON or text, to stderr.
 *
 * ERROR: someone must act. WARN: Weir coped. INFO: a life event. DEBUG: for us. Nothing is logged
 * per record. */
#ifndef WEIR_BASE_LOGGER_H
#define WEIR_BASE_LOGGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* One field: a key and an integer or a string. The string is borrowed for the call. */
struct log_field {
    const char *key;
    const char *str; /* NULL: num */
    int64_t num;
};
#define F_INT(k, v) ((struct log_field){ .key = (k), .num = (int64_t)(v) })
#define F_STR(k, v) ((struct log_field){ .key = (k), .str = (v) })
#define F_LSN(v)    F_INT("lsn", v)
#define F_BYTES(v)  F_INT("bytes", v)
#define F_ERR(code) F_STR("error", err_name(code))

/* Level and form for the whole process; set once at start. */
void logger_setup(enum log_level level, bool json);
/* Writes to this descriptor instead of stderr (-1: nowhere); for tests and the simulator. */
void logger_to(int fd);
bool logger_wants(enum log_level level);
/* Any thread; one write(2) a line. */
void logger_write(enum log_level level, const char *event, const struct log_field *fields,
                  unsigned n);
/* An INFO line with one field, key, whose value is a JSON text of any length. */
void logger_write_json(const char *event, const char *key, const char *json);

#define LOG_AT_(level, event, ...)                                                                 \
    do {                                                                                           \
        if (logger_wants(level)) {                                                                 \
            const struct log_field f_[] = { { 0 }, __VA_ARGS__ };                                  \
            logger_write(level, event, f_ + 1, sizeof f_ / sizeof f_[0] - 1);                      \
        }                                                                                          \
    } while (0)
#define LOG_ERROR(event, ...) LOG_AT_(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define LOG_WARN(event, ...)  LOG_AT_(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define LOG_INFO(event, ...)  LOG_AT_(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define LOG_DEBUG(event, ...) LOG_AT_(LOG_LEVEL_DEBUG, event, __VA_ARGS__)

#endif
