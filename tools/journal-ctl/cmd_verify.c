/* journal-ctl verify: everything. */
#include <stdio.h>

#include "tools/journal-ctl/ctl.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct emit_column damage_columns[] = {
    { "part", EMIT_TEXT, false },     { "file", EMIT_TEXT, false },
    { "byte", EMIT_NUMBER, false },   { "bytes", EMIT_NUMBER, false },
    { "segment", EMIT_NUMBER, true }, { "lsn", EMIT_NUMBER, true },
    { "end_lsn", EMIT_NUMBER, true }, { "what", EMIT_TEXT, false },
};
static const struct emit_column summary_columns[] = {
    { "superblock_copies", EMIT_NUMBER, false },
    { "slabs", EMIT_NUMBER, false },
    { "wal_extents", EMIT_NUMBER, false },
    { "wal_blocks", EMIT_NUMBER, false },
    { "wal_frames", EMIT_NUMBER, false },
    { "wal_batches", EMIT_NUMBER, false },
    { "wal_bytes", EMIT_BYTES, false },
    { "torn_tail", EMIT_BOOL, false },
    { "segments", EMIT_NUMBER, false },
    { "segment_runs", EMIT_NUMBER, false },
    { "segment_batches", EMIT_NUMBER, false },
    { "segment_bytes", EMIT_BYTES, false },
    { "rows", EMIT_NUMBER, false },
    { "extents", EMIT_NUMBER, false },
    { "damaged", EMIT_NUMBER, false },
};

static struct emit_cell counted(unsigned parts, unsigned part, uint64_t n)
{
    return parts & part ? C_U64(n) : C_NONE;
}

static void report_summary(struct ctl *c, const struct inspect_report *r, unsigned parts)
{
    const unsigned wal = INSPECT_WAL, seg = INSPECT_SEGMENTS;

    emit_section(c->emit, "summary", summary_columns, COUNT(summary_columns), true);
    EMIT_ROW(c->emit, counted(parts, INSPECT_SUPER, r->super_copies),
             counted(parts, INSPECT_SLABS, r->slabs), counted(parts, wal, r->wal_extents),
             counted(parts, wal, r->wal_blocks), counted(parts, wal, r->wal_frames),
             counted(parts, wal, r->wal_batches), counted(parts, wal, r->wal_bytes),
             parts & wal ? C_BOOL(r->torn) : C_NONE, counted(parts, seg, r->segments),
             counted(parts, seg, r->runs), counted(parts, seg, r->batches),
             counted(parts, seg, r->segment_bytes), counted(parts, INSPECT_ROWS, r->rows),
             counted(parts, INSPECT_SPACE, r->extents), C_U64(r->n));
}

int ctl_report(struct ctl *c, const struct inspect_report *r, unsigned parts)
{
    if (r->n || !emit_is_table(c->emit))
        emit_section(c->emit, "damage", damage_columns, COUNT(damage_columns), false);
    for (unsigned i = 0; i < r->n; i++) {
        const struct inspect_damage *d = &r->list[i];

        EMIT_ROW(c->emit, C_TEXT(inspect_part_name(d->part)),
                 C_TEXT(d->at.file[0] ? d->at.file : NULL), d->bytes ? C_U64(d->at.byte) : C_NONE,
                 C_U64_BUT(d->bytes, 0), C_U64_BUT(d->segment, 0), C_U64_BUT(d->lsn, 0),
                 C_U64_BUT(d->end_lsn, 0), C_TEXT(d->text));
    }
    report_summary(c, r, parts);
    return r->n ? E_CORRUPT : 0;
}

int ctl_verdict(struct ctl *c, int rc)
{
    if (rc == 0)
        emit_note(c->emit, "No damage: every stored byte is what was written.");
    else if (rc == E_CORRUPT)
        emit_note(c->emit, "DAMAGED: the places are listed above.");
    return rc;
}

int cmd_verify(struct ctl *c, struct err *e)
{
    struct inspect_report r;
    int rc = inspect_verify(c->data, INSPECT_ALL, 0, &r, e);

    if (rc < 0)
        return rc;
    rc = ctl_report(c, &r, INSPECT_ALL);
    inspect_report_free(&r);
    return ctl_verdict(c, rc);
}
