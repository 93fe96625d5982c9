#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err_row {
    const char *name;
    const char *text;
    enum err_class class;
};

static const struct err_row rows[] = {
#define X(name, class, text) { #name, text, ERR_##class },
    ERR_LIST(X)
#undef X
};

/* NULL for what is not in the table. */
static const struct err_row *row_of(int code)
{
    /* In 64 bits: a stray code near INT_MIN must not wrap into the table. */
    int64_t at = -1000 - (int64_t)code;

    return at >= 0 && at < ERR_COUNT ? &rows[at] : NULL;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    char text[sizeof e->text]; /* aside, because an argument may be e->text itself */
    va_list args;

    if (!e)
        return code;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    e->code = code;
    memcpy(e->text, text, sizeof text);
    return code;
}

void err_prefix(struct err *e, const char *fmt, ...)
{
    char text[sizeof e->text];
    size_t used;
    va_list args;
    int n;

    if (!e)
        return;
    va_start(args, fmt);
    n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0)
        return;
    used = strlen(text);
    memcpy(text + used, e->text, strnlen(e->text, sizeof text - used - 1));
    used += strnlen(e->text, sizeof text - used - 1);
    text[used] = 0;
    memcpy(e->text, text, used + 1);
}

const char *err_name(int code)
{
    const struct err_row *row = row_of(code);

    if (code >= 0)
        return "OK";
    return row ? row->name : "UNKNOWN";
}

const char *err_text(int code)
{
    const struct err_row *row = row_of(code);

    if (code >= 0)
        return "ok";
    return row ? row->text : "unknown error";
}

enum err_class err_class(int code)
{
    const struct err_row *row = row_of(code);

    return row ? row->class : ERR_BUG;
}

_Noreturn void assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, what);
    fflush(NULL);
    abort();
}
