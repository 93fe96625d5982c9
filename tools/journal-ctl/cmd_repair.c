/* journal-ctl repair | index rebuild */
#include <inttypes.h>
#include <stdio.h>

#include "journal/repair.h"
#include "tools/journal-ctl/ctl.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct emit_column step_columns[] = {
    { "state", EMIT_TEXT, false },    { "file", EMIT_TEXT, false },
    { "byte", EMIT_NUMBER, false },   { "bytes", EMIT_NUMBER, false },
    { "segment", EMIT_NUMBER, true }, { "what", EMIT_TEXT, false },
};
static const struct emit_column count_columns[] = {
    { "steps", EMIT_NUMBER, false },
    { "lost", EMIT_NUMBER, false },
};
static const struct emit_column rows_columns[] = {
    { "table", EMIT_TEXT, false },
    { "before", EMIT_NUMBER, false },
    { "after", EMIT_NUMBER, false },
};

struct steps {
    struct ctl *c;
    unsigned n;
    bool begun;
};

/* Not before there is something to say: what cannot begin leaves no half document. */
static void steps_begin(struct steps *steps)
{
    if (!steps->begun)
        emit_section(steps->c->emit, "steps", step_columns, COUNT(step_columns), false);
    steps->begun = true;
}

static void step_row(void *ctx, const struct repair_step *s)
{
    static const char *const states[] = { "would", "done", "lost" };
    struct steps *steps = ctx;

    steps_begin(steps);
    steps->n += s->state != REPAIR_LOST;
    EMIT_ROW(steps->c->emit, C_TEXT(states[s->state]), C_TEXT(s->at.file[0] ? s->at.file : NULL),
             s->bytes ? C_U64(s->at.byte) : C_NONE, C_U64_BUT(s->bytes, 0),
             C_U64_BUT(s->segment, 0), C_TEXT(s->text));
}

static int repair(struct ctl *c, unsigned parts, struct err *e)
{
    struct steps steps = { .c = c };
    unsigned left = 0;
    int rc;

    rc = repair_run(c->data, parts, c->dry_run, step_row, &steps, &left, e);
    if (rc < 0)
        return rc;
    steps_begin(&steps);
    emit_section(c->emit, "summary", count_columns, COUNT(count_columns), true);
    EMIT_ROW(c->emit, C_U64(steps.n), C_U64(left));
    if (steps.n == 0 && left == 0)
        emit_note(c->emit, "There is nothing to repair.");
    else if (left > 0)
        emit_note(c->emit, "What is called lost cannot be made again; reads answer so.");
    return left > 0 ? E_CORRUPT : 0;
}

int cmd_repair(struct ctl *c, struct err *e)
{
    return repair(c, REPAIR_ALL, e);
}

/* --- index rebuild --- */

struct counts {
    uint64_t of[128]; /* by table letter */
};

static int count_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    ((struct counts *)ctx)->of[((const uint8_t *)key)[0] & 127]++;
    return 0;
}

static int counts_make(struct ctl *c, struct counts *n, struct err *e)
{
    struct inspect *in;
    int rc = inspect_open(&in, c->data, e);

    if (rc < 0)
        return rc;
    rc = inspect_rows_all(in, count_row, n);
    inspect_close(in);
    return rc;
}

int cmd_index_rebuild(struct ctl *c, struct err *e)
{
    struct counts before = { 0 }, after = { 0 };
    int rc = counts_make(c, &before, e), verdict;

    if (rc < 0)
        return rc;
    verdict = repair(c, REPAIR_INDEXES | REPAIR_ROWS_ANYWAY, e);
    if (verdict < 0 && verdict != E_CORRUPT)
        return verdict;
    rc = counts_make(c, &after, e);
    if (rc < 0)
        return rc;
    emit_section(c->emit, "rows", rows_columns, COUNT(rows_columns), false);
    for (unsigned i = 0; i < COUNT(after.of); i++)
        if (before.of[i] || after.of[i])
            EMIT_ROW(c->emit, C_TEXT(ctl_table_name((uint8_t)i)), C_U64(before.of[i]),
                     C_U64(after.of[i]));
    return verdict;
}
