#include "base/logger.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/utf8.h"

/* A line fits one atomic write to a pipe; longer strings are cut, and the line stays well
 * formed. */
enum { LINE_BYTES = 4096, TAIL_BYTES = 8 /* `..."}` and the newline */ };

struct line {
    size_t used;
    char mem[LINE_BYTES];
};

static atomic_int wanted_level = LOG_LEVEL_INFO;
static atomic_bool as_json;
static atomic_int out_fd = STDERR_FILENO;

void logger_setup(enum log_level level, bool json)
{
    atomic_store(&wanted_level, level);
    atomic_store(&as_json, json);
}

void logger_to(int fd)
{
    atomic_store(&out_fd, fd);
}

bool logger_wants(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&wanted_level, memory_order_relaxed) &&
           atomic_load_explicit(&out_fd, memory_order_relaxed) >= 0;
}

/* Appends all of it or, when the room before the tail is too small, nothing. */
static bool put(struct line *l, const char *mem, size_t bytes)
{
    if (l->used + bytes > LINE_BYTES - TAIL_BYTES)
        return false;
    memcpy(l->mem + l->used, mem, bytes);
    l->used += bytes;
    return true;
}

static bool put_str(struct line *l, const char *s)
{
    return put(l, s, strlen(s));
}

/* Uses the room that put() leaves free. */
static void put_tail(struct line *l, const char *s)
{
    size_t bytes = strlen(s);

    memcpy(l->mem + l->used, s, bytes);
    l->used += bytes;
}

/* The escape of a control character: C0, DEL and C1, which a terminal might obey. */
static const char *control_escape(unsigned c, char text[8])
{
    static const char *const short_names[0x20] = {
        ['\b'] = "\\b", ['\f'] = "\\f", ['\n'] = "\\n", ['\r'] = "\\r", ['\t'] = "\\t"
    };

    if (c < 0x20 && short_names[c])
        return short_names[c];
    snprintf(text, 8, "\\u%04x", c & 0xffff);
    return text;
}

/* Appends the character at s in escaped form and returns its length; 0 when the line is full. */
static unsigned put_char(struct line *l, const unsigned char *s)
{
    uint32_t c;
    unsigned n = (unsigned)utf8_char(s, strnlen((const char *)s, UTF8_MAX_BYTES), &c);
    char text[8];
    bool fits;

    if (n == 0)
        return put_str(l, "\xef\xbf\xbd") ? 1 : 0; /* U+FFFD for each wrong byte */
    if (c < 0x20 || (c >= 0x7f && c < 0xa0))
        fits = put_str(l, control_escape(c, text));
    else if (c == '"' || c == '\\')
        fits = put(l, (char[]){ '\\', (char)s[0] }, 2);
    else
        fits = put(l, (const char *)s, n);
    return fits ? n : 0;
}

static void put_quoted(struct line *l, const char *str)
{
    const unsigned char *s = (const unsigned char *)str;

    put_str(l, "\"");
    while (*s) {
        unsigned n = put_char(l, s);

        if (n == 0) {
            put_tail(l, "...\"");
            return;
        }
        s += n;
    }
    put_tail(l, "\"");
}

/* Whether a text line may show the string as it is: visible ASCII without quote, backslash or
 * equals sign. */
static bool is_plain(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if (*s <= ' ' || *s > '~' || strchr("\"\\=", *s))
            return false;
    return true;
}

/* The room a field needs for sure: separators, key, and a number or the start of a string. */
static bool field_fits(const struct line *l, const struct log_field *f)
{
    return l->used + strlen(f->key) + 64 <= LINE_BYTES - TAIL_BYTES;
}

static void put_value(struct line *l, const struct log_field *f, bool json)
{
    char number[32];

    if (!f->str) {
        snprintf(number, sizeof number, "%" PRId64, f->num);
        put_str(l, number);
    } else if (json || !is_plain(f->str) || !put_str(l, f->str)) {
        put_quoted(l, f->str);
    }
}

static void put_fields(struct line *l, const struct log_field *fields, unsigned n, bool json)
{
    for (unsigned i = 0; i < n && field_fits(l, &fields[i]); i++) {
        put_str(l, json ? ",\"" : " ");
        put_str(l, fields[i].key);
        put_str(l, json ? "\":" : "=");
        put_value(l, &fields[i], json);
    }
}

static void put_time(struct line *l)
{
    struct timespec now;
    struct tm tm;
    char text[64];
    size_t n;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
    put_str(l, text);
}

static void put_head(struct line *l, enum log_level level, const char *event, bool json)
{
    static const char *const text_levels[] = { " ERROR ", " WARN  ", " INFO  ", " DEBUG " };
    static const char *const json_levels[] = { "error", "warn", "info", "debug" };

    l->used = 0;
    put_str(l, json ? "{\"ts\":\"" : "");
    put_time(l);
    put_str(l, json ? "\",\"level\":\"" : text_levels[level]);
    put_str(l, json ? json_levels[level] : "");
    put_str(l, json ? "\",\"event\":\"" : "");
    put_str(l, event);
    put_str(l, json ? "\"" : "");
}

static void write_all(const char *mem, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(atomic_load(&out_fd), mem, bytes);

        if (n < 0 && errno != EINTR)
            return;
        mem += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
}

void logger_write_json(const char *event, const char *key, const char *text)
{
    bool json = atomic_load_explicit(&as_json, memory_order_relaxed);
    struct line l;
    size_t room = strlen(key) + strlen(text) + LINE_BYTES;
    char *mem;
    int n;

    if (!logger_wants(LOG_LEVEL_INFO))
        return;
    put_head(&l, LOG_LEVEL_INFO, event, json);
    mem = mem_new(room);
    n = snprintf(mem, room, json ? "%.*s,\"%s\":%s}\n" : "%.*s %s=%s\n", (int)l.used, l.mem, key,
                 text);
    write_all(mem, (size_t)n);
    free(mem);
}

void logger_write(enum log_level level, const char *event, const struct log_field *fields,
                  unsigned n)
{
    bool json = atomic_load_explicit(&as_json, memory_order_relaxed);
    int error = errno; /* callers log before they look at it */
    struct line l;

    if (!logger_wants(level))
        return;
    put_head(&l, level, event, json);
    put_fields(&l, fields, n, json);
    put_tail(&l, json ? "}\n" : "\n");
    while (write(atomic_load(&out_fd), l.mem, l.used) < 0 && errno == EINTR)
        continue;
    errno = error;
}
