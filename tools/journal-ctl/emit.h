/* What every command prints: sections of rows of typed cells, as aligned tables for people, one
 * JSON document, or one JSON object a line. Rows go out as they come; a table looks at the first
 * few hundred for its widths. */
#ifndef WEIR_TOOLS_JOURNAL_CTL_EMIT_H
#define WEIR_TOOLS_JOURNAL_CTL_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum emit_format { EMIT_TABLE, EMIT_JSON, EMIT_JSONL };

enum emit_type {
    EMIT_TEXT,
    EMIT_NUMBER,
    EMIT_BYTES, /* 1.5 MiB in a table */
    EMIT_TIME,  /* ms since 1970; a date in a table */
    EMIT_BOOL
};

struct emit_column {
    const char *name;
    enum emit_type type;
    bool only_json;
};

struct emit_cell {
    enum { EMIT_NONE, EMIT_IS_TEXT, EMIT_IS_U64, EMIT_IS_I64, EMIT_IS_BOOL } is;
    const char *text;
    uint64_t u64;
    int64_t i64;
};
#define C_NONE    ((struct emit_cell){ .is = EMIT_NONE })
#define C_TEXT(v) emit_text(v)
#define C_U64(v)  ((struct emit_cell){ .is = EMIT_IS_U64, .u64 = (v) })
#define C_I64(v)  ((struct emit_cell){ .is = EMIT_IS_I64, .i64 = (v) })
#define C_BOOL(v) ((struct emit_cell){ .is = EMIT_IS_BOOL, .u64 = (v) })
/* A number, or none when it is the given one. */
#define C_U64_BUT(v, none) ((v) == (none) ? C_NONE : C_U64(v))
#define C_I64_BUT(v, none) ((v) == (none) ? C_NONE : C_I64(v))

/* NULL is none. */
static inline struct emit_cell emit_text(const char *s)
{
    return (struct emit_cell){ .is = s ? EMIT_IS_TEXT : EMIT_NONE, .text = s };
}

struct emit;

/* many: a document of several sections, by name; else it has one. */
struct emit *emit_new(enum emit_format format, FILE *out, bool many);
/* Whether anything has been begun. */
bool emit_begun(const struct emit *e);
/* Whether it is for people, who want long texts cut. */
bool emit_is_table(const struct emit *e);
/* Begins a section of rows, or (one) of a single row, which a table shows as name and value. cols
 * is borrowed until the section ends: by the next one, or emit_free. */
void emit_section(struct emit *e, const char *name, const struct emit_column *cols, unsigned n,
                  bool one);
/* One row: as many cells as the section has columns; they are copied. */
void emit_row(struct emit *e, const struct emit_cell *cells, unsigned n);
#define EMIT_ROW(e, ...)                                                                           \
    emit_row(e, (const struct emit_cell[]){ __VA_ARGS__ },                                         \
             sizeof((const struct emit_cell[]){ __VA_ARGS__ }) / sizeof(struct emit_cell))
/* A sentence for people, in a table only. */
void emit_note(struct emit *e, const char *text);
/* Ends the document and frees. False: it could not be written. */
bool emit_free(struct emit *e);

#endif
