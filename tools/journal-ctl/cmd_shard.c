/* journal-ctl shard ls | describe | offsets */
#include <stdio.h>
#include <string.h>

#include "format/extent.h"
#include "journal/journal.h"
#include "tools/journal-ctl/ctl.h"
#include "tools/journal-ctl/records.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct emit_column shard_columns[] = {
    { "id", EMIT_NUMBER, false },          { "name", EMIT_TEXT, false },
    { "topic", EMIT_TEXT, true },          { "partition", EMIT_NUMBER, true },
    { "kind", EMIT_TEXT, false },          { "class", EMIT_TEXT, false },
    { "group", EMIT_NUMBER, false },       { "start", EMIT_NUMBER, false },
    { "end", EMIT_NUMBER, false },         { "records", EMIT_NUMBER, false },
    { "bytes", EMIT_BYTES, false },        { "segments", EMIT_NUMBER, false },
    { "cleaned", EMIT_NUMBER, false },     { "state", EMIT_TEXT, false },
    { "segment_bytes", EMIT_BYTES, true }, { "wal_bytes", EMIT_BYTES, true },
};

static const char *shard_state(const struct inspect_shard *s)
{
    if (s->kind == SHARD_MEMORY) /* start and end are where it goes on after a restart */
        return "volatile";
    if (s->tail_lost)
        return "read-only, end unknown";
    if (s->read_only)
        return s->n_holes ? "read-only, holes" : "read-only";
    return s->n_holes ? "holes" : "ok";
}

static const char *shard_kind_name(const struct inspect_shard *s)
{
    static const char *const names[] = { "segment", "memory", "rocksdb" };

    return s->kind < sizeof names / sizeof names[0] ? names[s->kind] : "unknown";
}

static const char *shard_class(const struct inspect_shard *s)
{
    return s->catalogue ? "catalogue" : s->class ? "internal" : "data";
}

static int shard_row(void *ctx, const struct inspect_shard *s)
{
    struct ctl *c = ctx;
    const struct name *n = names_of(&c->names, s->id);
    bool topic = n && !n->internal;
    char name[300];

    EMIT_ROW(c->emit, C_U64(s->id),
             C_TEXT(ctl_shard_name(c, s->id, s->catalogue, name, sizeof name)),
             C_TEXT(topic ? n->topic : NULL), topic ? C_U64(n->partition) : C_NONE,
             C_TEXT(shard_kind_name(s)), C_TEXT(shard_class(s)), C_U64(s->group), C_U64(s->start),
             C_U64(s->end), C_U64(s->end - s->start - s->lost),
             C_U64(s->segment_bytes + s->wal_bytes), C_U64(s->n_segments), C_U64(s->cleaned),
             C_TEXT(shard_state(s)), C_U64(s->segment_bytes), C_U64(s->wal_bytes));
    return 0;
}

int cmd_shard_ls(struct ctl *c, struct err *e)
{
    emit_section(c->emit, "shards", shard_columns, COUNT(shard_columns), false);
    return inspect_shards(c->in, shard_row, c);
}

/* --- describe --------------------------------------------------------------------------------- */

static const struct emit_column one_columns[] = {
    { "id", EMIT_NUMBER, false },           { "name", EMIT_TEXT, false },
    { "topic", EMIT_TEXT, true },           { "partition", EMIT_NUMBER, true },
    { "kind", EMIT_TEXT, false },           { "class", EMIT_TEXT, false },
    { "group", EMIT_NUMBER, false },        { "created", EMIT_TIME, false },
    { "start", EMIT_NUMBER, false },        { "end", EMIT_NUMBER, false },
    { "records", EMIT_NUMBER, false },      { "lost", EMIT_NUMBER, false },
    { "segment_bytes", EMIT_BYTES, false }, { "wal_bytes", EMIT_BYTES, false },
    { "segments", EMIT_NUMBER, false },     { "cleaned", EMIT_NUMBER, false },
    { "state", EMIT_TEXT, false },          { "policy", EMIT_TEXT, false },
    { "retention_ms", EMIT_NUMBER, false }, { "retention_bytes", EMIT_BYTES, false },
};
static const struct emit_column run_columns[] = {
    { "start", EMIT_NUMBER, false },
    { "end", EMIT_NUMBER, false },
    { "in", EMIT_TEXT, false },
    { "segment", EMIT_NUMBER, false },
    { "lsn", EMIT_NUMBER, false },
    { "bytes", EMIT_BYTES, false },
    { "max_timestamp", EMIT_TIME, false },
};
static const struct emit_column hole_columns[] = {
    { "start", EMIT_NUMBER, false },
    { "end", EMIT_NUMBER, false },
};
static const struct emit_column producer_columns[] = {
    { "producer", EMIT_NUMBER, false },      { "epoch", EMIT_NUMBER, false },
    { "offset", EMIT_NUMBER, false },        { "time", EMIT_TIME, false },
    { "base_sequence", EMIT_NUMBER, false }, { "last_sequence", EMIT_NUMBER, false },
};

static int run_row(void *ctx, const struct inspect_run *run)
{
    struct ctl *c = ctx;

    EMIT_ROW(c->emit, C_U64(run->base), C_U64(run->end), C_TEXT(run->segment ? "segment" : "wal"),
             C_U64_BUT(run->segment, 0), C_U64_BUT(run->lsn, 0), C_U64(run->bytes),
             C_I64(run->max_ts));
    return 0;
}

static int hole_row(void *ctx, uint64_t start, uint64_t end)
{
    EMIT_ROW(((struct ctl *)ctx)->emit, C_U64(start), C_U64(end));
    return 0;
}

static int producer_row(void *ctx, int64_t id, const struct row_producer *p)
{
    struct ctl *c = ctx;

    for (unsigned i = 0; i < p->n; i++)
        EMIT_ROW(c->emit, C_I64(id), C_I64(p->epoch), C_U64(p->batch[i].base),
                 C_I64(p->batch[i].time), C_I64(p->batch[i].base_sequence),
                 C_I64(p->batch[i].last_sequence));
    return 0;
}

static const char *shard_policy_text(const struct row_policy *p, char *text, size_t bytes)
{
    snprintf(text, bytes, "%s%s%s", p->flags & SHARD_EXPIRES ? "expires " : "",
             p->flags & SHARD_LIMITED ? "limited " : "",
             p->flags & SHARD_COMPACTED ? "compacted " : "");
    if (*text)
        text[strlen(text) - 1] = 0;
    return *text ? text : "keeps all";
}

static void describe_one(struct ctl *c, const struct inspect_shard *s)
{
    const struct name *n = names_of(&c->names, s->id);
    bool topic = n && !n->internal;
    char name[300], policy[40];

    emit_section(c->emit, "shard", one_columns, COUNT(one_columns), true);
    EMIT_ROW(c->emit, C_U64(s->id),
             C_TEXT(ctl_shard_name(c, s->id, s->catalogue, name, sizeof name)),
             C_TEXT(topic ? n->topic : NULL), topic ? C_U64(n->partition) : C_NONE,
             C_TEXT(shard_kind_name(s)), C_TEXT(shard_class(s)), C_U64(s->group),
             C_I64_BUT(s->created, 0), C_U64(s->start), C_U64(s->end),
             C_U64(s->end - s->start - s->lost), C_U64(s->lost), C_U64(s->segment_bytes),
             C_U64(s->wal_bytes), C_U64(s->n_segments), C_U64(s->cleaned), C_TEXT(shard_state(s)),
             C_TEXT(shard_policy_text(&s->policy, policy, sizeof policy)),
             s->policy.flags & SHARD_EXPIRES ? C_I64(s->policy.retention_ms) : C_NONE,
             s->policy.flags & SHARD_LIMITED ? C_U64((uint64_t)s->policy.retention_bytes) : C_NONE);
}

int cmd_shard_describe(struct ctl *c, struct err *e)
{
    struct inspect_shard s;
    uint64_t id;
    int rc = ctl_shard(c, c->target, &id, e);

    if (rc >= 0)
        rc = inspect_shard(c->in, id, &s);
    if (rc < 0)
        return rc;
    describe_one(c, &s);
    emit_section(c->emit, "runs", run_columns, COUNT(run_columns), false);
    rc = inspect_runs(c->in, id, run_row, c);
    emit_section(c->emit, "holes", hole_columns, COUNT(hole_columns), false);
    if (rc >= 0)
        rc = inspect_holes(c->in, id, hole_row, c);
    emit_section(c->emit, "producers", producer_columns, COUNT(producer_columns), false);
    if (rc >= 0)
        rc = inspect_producers(c->in, id, producer_row, c);
    return rc;
}

/* --- offsets ---------------------------------------------------------------------------------- */

static const struct emit_column offset_columns[] = {
    { "what", EMIT_TEXT, false },
    { "offset", EMIT_NUMBER, false },
    { "timestamp", EMIT_TIME, false },
};

static void found_row(struct ctl *c, const char *what, const struct records_found *f)
{
    EMIT_ROW(c->emit, C_TEXT(what), f->found ? C_U64(f->offset) : C_NONE,
             f->found ? C_I64(f->timestamp) : C_NONE);
}

int cmd_shard_offsets(struct ctl *c, struct err *e)
{
    struct records_found max, at = { 0 };
    struct inspect_shard s;
    uint64_t id;
    int rc = ctl_shard(c, c->target, &id, e);

    if (rc >= 0)
        rc = inspect_shard(c->in, id, &s);
    if (rc >= 0)
        rc = records_max_time(c->in, id, s.start, &max);
    if (rc >= 0 && c->has_time)
        rc = records_at_time(c->in, id, s.start, c->time, &at);
    if (rc < 0)
        return rc;
    emit_section(c->emit, "offsets", offset_columns, COUNT(offset_columns), false);
    EMIT_ROW(c->emit, C_TEXT("earliest"), C_U64(s.start), C_NONE);
    EMIT_ROW(c->emit, C_TEXT("latest"), C_U64(s.end), C_NONE);
    found_row(c, "max-timestamp", &max);
    if (c->has_time)
        found_row(c, "at-time", &at);
    return 0;
}
