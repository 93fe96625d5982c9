#include "tools/journal-ctl/emit.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/err.h"

enum { LOOK_AHEAD = 400, COLUMNS_MAX = 32, CELL_MAX = 64 };

struct emit {
    enum emit_format format;
    FILE *out;
    bool many;
    unsigned n_sections;
    const char *name;
    const struct emit_column *cols;
    unsigned n_cols;
    bool one;
    uint64_t n_rows; /* of the section */
    /* table: rows held back until widths are known */
    char **held;
    unsigned n_held;
    unsigned width[COLUMNS_MAX];
    bool headed;
};

struct emit *emit_new(enum emit_format format, FILE *out, bool many)
{
    struct emit *e = mem_new(sizeof *e);

    e->format = format;
    e->out = out;
    e->many = many;
    return e;
}

bool emit_begun(const struct emit *e)
{
    return e->n_sections > 0;
}

bool emit_is_table(const struct emit *e)
{
    return e->format == EMIT_TABLE;
}

/* --- one cell, for people --------------------------------------------------------------------- */

static void human_bytes(char *out, size_t room, uint64_t bytes)
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    double v = (double)bytes;
    unsigned u = 0;

    while (v >= 1024 && u + 1 < sizeof unit / sizeof unit[0]) {
        v /= 1024;
        u++;
    }
    snprintf(out, room, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
}

static void human_time(char *out, size_t room, int64_t ms)
{
    int64_t seconds = ms / 1000 - (ms % 1000 < 0);
    time_t t = (time_t)seconds;
    struct tm tm;
    char date[40];

    if (!gmtime_r(&t, &tm) || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        snprintf(out, room, "%" PRId64, ms);
    else
        snprintf(out, room, "%s.%03dZ", date, (int)(ms - seconds * 1000));
}

/* A new string. */
static char *human(enum emit_type type, const struct emit_cell *c)
{
    char text[CELL_MAX];

    switch (c->is) {
    case EMIT_NONE:
        return mem_str("-");
    case EMIT_IS_TEXT:
        return mem_str(c->text);
    case EMIT_IS_BOOL:
        return mem_str(c->u64 ? "yes" : "no");
    case EMIT_IS_U64:
        if (type == EMIT_BYTES)
            human_bytes(text, sizeof text, c->u64);
        else
            snprintf(text, sizeof text, "%" PRIu64, c->u64);
        break;
    case EMIT_IS_I64:
        if (type == EMIT_TIME)
            human_time(text, sizeof text, c->i64);
        else
            snprintf(text, sizeof text, "%" PRId64, c->i64);
        break;
    }
    return mem_str(text);
}

/* --- tables ----------------------------------------------------------------------------------- */

static bool to_the_right(enum emit_type type)
{
    return type == EMIT_NUMBER || type == EMIT_BYTES;
}

/* Columns on a terminal: UTF-8's following bytes take none. */
static unsigned columns_of(const char *s)
{
    unsigned n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void table_cell(struct emit *e, unsigned col, const char *text, bool last)
{
    unsigned n = columns_of(text), pad = n < e->width[col] ? e->width[col] - n : 0;
    bool right = to_the_right(e->cols[col].type);

    fprintf(e->out, "%*s%s%*s%s", right ? (int)pad : 0, "", text, right || last ? 0 : (int)pad, "",
            last ? "\n" : "  ");
}

static unsigned last_shown(const struct emit *e)
{
    unsigned last = 0;

    for (unsigned i = 0; i < e->n_cols; i++)
        if (!e->cols[i].only_json)
            last = i;
    return last;
}

static void table_line(struct emit *e, char *const *cells)
{
    unsigned last = last_shown(e);

    for (unsigned i = 0; i < e->n_cols; i++)
        if (!e->cols[i].only_json)
            table_cell(e, i, cells[i], i == last);
}

static void table_flush(struct emit *e)
{
    char *names[COLUMNS_MAX];

    for (unsigned i = 0; i < e->n_cols; i++) {
        names[i] = mem_str(e->cols[i].name);
        for (char *c = names[i]; *c; c++)
            *c = *c == '_' ? ' ' : *c >= 'a' && *c <= 'z' ? (char)(*c - 32) : *c;
    }
    if (!e->headed) {
        for (unsigned i = 0; i < e->n_cols; i++)
            if (columns_of(names[i]) > e->width[i])
                e->width[i] = columns_of(names[i]);
        table_line(e, names);
    }
    for (unsigned i = 0; i < e->n_cols; i++)
        free(names[i]);
    e->headed = true;
    for (unsigned i = 0; i < e->n_held; i += e->n_cols)
        table_line(e, e->held + i);
    for (unsigned i = 0; i < e->n_held; i++)
        free(e->held[i]);
    e->n_held = 0;
}

static void table_one(struct emit *e, const struct emit_cell *cells)
{
    for (unsigned i = 0; i < e->n_cols; i++) {
        char *text, name[CELL_MAX];

        if (e->cols[i].only_json || cells[i].is == EMIT_NONE)
            continue;
        text = human(e->cols[i].type, &cells[i]);
        snprintf(name, sizeof name, "%s:", e->cols[i].name);
        for (char *c = name; *c; c++)
            *c = *c == '_' ? ' ' : *c;
        fprintf(e->out, "%-18s %s\n", name, text);
        free(text);
    }
}

static void table_row(struct emit *e, const struct emit_cell *cells)
{
    if (e->one) {
        table_one(e, cells);
        return;
    }
    e->held = mem_grow(e->held, (e->n_held + e->n_cols) * sizeof *e->held);
    for (unsigned i = 0; i < e->n_cols; i++) {
        char *text = human(e->cols[i].type, &cells[i]);

        e->held[e->n_held++] = text;
        if (!e->headed && columns_of(text) > e->width[i])
            e->width[i] = columns_of(text);
    }
    if (e->headed || e->n_held / e->n_cols >= LOOK_AHEAD)
        table_flush(e);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static json_t *json_cell(const struct emit_cell *c)
{
    char text[CELL_MAX];

    switch (c->is) {
    case EMIT_IS_TEXT:
        return json_string(c->text);
    case EMIT_IS_BOOL:
        return json_boolean(c->u64);
    case EMIT_IS_I64:
        return json_integer(c->i64);
    case EMIT_IS_U64:
        if (c->u64 <= INT64_MAX)
            return json_integer((json_int_t)c->u64);
        snprintf(text, sizeof text, "%" PRIu64, c->u64); /* no reader's integer holds it */
        return json_string(text);
    default:
        return json_null();
    }
}

static void json_row(struct emit *e, const struct emit_cell *cells)
{
    json_t *row = json_object();

    if (e->format == EMIT_JSONL && e->many)
        json_object_set_new(row, "section", json_string(e->name));
    for (unsigned i = 0; i < e->n_cols; i++) {
        json_t *cell = json_cell(&cells[i]);

        json_object_set_new(row, e->cols[i].name, cell ? cell : json_null());
    }
    if (e->format == EMIT_JSON && !e->one)
        fputs(e->n_rows ? ",\n" : "\n", e->out);
    json_dumpf(row, e->out, JSON_COMPACT);
    if (e->format == EMIT_JSONL)
        fputc('\n', e->out);
    json_decref(row);
}

/* --- sections --------------------------------------------------------------------------------- */

static void section_end(struct emit *e)
{
    if (!e->cols)
        return;
    if (e->format == EMIT_TABLE && !e->one)
        table_flush(e);
    if (e->format == EMIT_JSON && !e->one)
        fputs(e->n_rows ? "\n]" : "]", e->out);
    if (e->format == EMIT_JSON && e->one && e->n_rows == 0)
        fputs("null", e->out);
    e->cols = NULL;
}

void emit_section(struct emit *e, const char *name, const struct emit_column *cols, unsigned n,
                  bool one)
{
    ASSERT(n > 0 && n <= COLUMNS_MAX && (e->many || e->n_sections == 0));
    section_end(e);
    if (e->format == EMIT_TABLE && e->many) {
        fputs(e->n_sections ? "\n" : "", e->out);
        if (!one)
            fprintf(e->out, "%s\n", name);
    } else if (e->format == EMIT_JSON) {
        if (e->many)
            fprintf(e->out, "%s\"%s\": ", e->n_sections ? ",\n" : "{\n", name);
        fputs(one ? "" : "[", e->out);
    }
    e->n_sections++;
    e->name = name;
    e->cols = cols;
    e->n_cols = n;
    e->one = one;
    e->n_rows = 0;
    e->headed = false;
    memset(e->width, 0, sizeof e->width);
}

void emit_row(struct emit *e, const struct emit_cell *cells, unsigned n)
{
    ASSERT(e->cols && n == e->n_cols && !(e->one && e->n_rows));
    if (e->format == EMIT_TABLE)
        table_row(e, cells);
    else
        json_row(e, cells);
    e->n_rows++;
}

void emit_note(struct emit *e, const char *text)
{
    if (e->format != EMIT_TABLE)
        return;
    section_end(e);
    fprintf(e->out, "%s%s\n", e->n_sections ? "\n" : "", text);
}

bool emit_free(struct emit *e)
{
    bool good;

    section_end(e);
    if (e->format == EMIT_JSON && e->n_sections)
        fputs(e->many ? "\n}\n" : "\n", e->out);
    good = fflush(e->out) == 0 && !ferror(e->out);
    free(e->held);
    free(e);
    return good;
}
