/* journal-ctl rows dump */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tools/journal-ctl/ctl.h"
#include "tools/journal-ctl/records.h"

enum { SHOWN_HEX = 60 };

static const struct emit_column row_columns[] = {
    { "table", EMIT_TEXT, false },
    { "key", EMIT_TEXT, false },
    { "value", EMIT_TEXT, false },
};

const char *ctl_table_name(uint8_t table)
{
    switch (table) {
    case ROW_GROUP:
        return "group";
    case ROW_SHARD:
        return "shard";
    case ROW_SEGMENT:
        return "segment";
    case ROW_HOLE:
        return "hole";
    case ROW_LOSS:
        return "loss";
    case ROW_MAX_SHARD:
        return "max shard";
    case ROW_APP:
        return "door";
    case ROW_END:
        return "end";
    case ROW_RUN:
        return "run";
    case ROW_PRODUCER:
        return "producer";
    case ROW_LIVE:
        return "live bytes";
    case ROW_INTENT:
        return "intent";
    case ROW_NAME:
        return "key";
    case ROW_NAMED:
        return "keys end";
    case ROW_TABLE:
        return "table";
    case ROW_TABLE_OFFSET:
        return "table end";
    default:
        return NULL;
    }
}

/* Numbers as they are in the key; what a door calls its rows as text. */
static char *key_text(const uint8_t *key, size_t bytes)
{
    uint64_t a = 0, b = 0;
    char *text;

    if (key[0] == ROW_APP || !row_key_parse(key, bytes, &a, &b))
        return records_escape(key + 1, (int64_t)bytes - 1, 0);
    text = mem_new(64);
    if (bytes == 17)
        snprintf(text, 64, "%" PRIu64 " %" PRIu64, a, b);
    else
        snprintf(text, 64, "%" PRIu64, a);
    return text;
}

static char *hex_text(const uint8_t *mem, size_t bytes, size_t shown)
{
    char *text = mem_new(bytes * 2 + 8);

    for (size_t i = 0; i < bytes; i++) {
        if (shown && i * 2 >= shown) {
            memcpy(text + i * 2, "...", 4);
            break;
        }
        snprintf(text + i * 2, 3, "%02x", mem[i]);
    }
    return text;
}

/* --- what is alive ---
 *
 * Of the view's rows some stand for a moment since the checkpoint, and some for what is to be taken
 * away by the server: the dump shows what all of them come to now, so that two dumps can be held
 * against each other. */

struct live {
    uint64_t segment, bytes;
};

struct dump {
    struct ctl *c;
    size_t shown;
    struct live *live; /* by segment */
    size_t n_live;
    uint64_t shard, start; /* the shard asked for last */
    bool exists;
};

static int live_add(void *ctx, const struct inspect_segment *s)
{
    struct dump *d = ctx;

    d->live = mem_grow(d->live, (d->n_live + 1) * sizeof *d->live);
    d->live[d->n_live++] = (struct live){ s->id, 0 };
    return 0;
}

static int by_segment(const void *a, const void *b)
{
    const struct live *x = a, *y = b;

    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

static bool run_is_alive(struct dump *d, uint64_t shard, const struct row_run *run)
{
    struct live key = { .segment = run->segment }, *live;
    struct inspect_shard s;

    if (shard != d->shard) {
        d->shard = shard;
        d->exists = inspect_shard(d->c->in, shard, &s) >= 0;
        d->start = d->exists ? s.start : 0;
    }
    if (!d->exists || run->end <= d->start)
        return false;
    live = d->n_live ? bsearch(&key, d->live, d->n_live, sizeof key, by_segment) : NULL;
    if (live)
        live->bytes += run->bytes;
    return true;
}

static void dump_one(struct dump *d, uint8_t table, const char *name, const void *value,
                     size_t bytes)
{
    char *hex = hex_text(value, bytes, d->shown);

    EMIT_ROW(d->c->emit, C_TEXT(ctl_table_name(table)), C_TEXT(name), C_TEXT(hex));
    free(hex);
}

static int dump_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct dump *d = ctx;
    const uint8_t *k = key;
    struct row_run run;
    uint64_t shard;
    char *name;

    if (k[0] == ROW_END || k[0] == ROW_PRODUCER || k[0] == ROW_LIVE)
        return 0;
    if (k[0] == ROW_RUN && row_key_parse(key, key_bytes, &shard, &(uint64_t){ 0 }) &&
        row_run_read(&run, value, value_bytes) >= 0 && !run_is_alive(d, shard, &run))
        return 0;
    name = key_text(k, key_bytes);
    dump_one(d, k[0], name, value, value_bytes);
    free(name);
    return 0;
}

/* When a producer was last seen is stored nowhere else: rows that were made anew count from then, and
 * the dump shows zeros. */
static int dump_producer(void *ctx, int64_t id, const struct row_producer *p)
{
    struct dump *d = ctx;
    struct row_producer copy = *p;
    uint8_t mem[ROW_VALUE_MAX];
    char name[64];

    for (unsigned i = 0; i < copy.n; i++)
        copy.batch[i].time = 0;
    snprintf(name, sizeof name, "%" PRIu64 " %" PRId64, d->shard, id);
    dump_one(d, ROW_PRODUCER, name, mem, row_producer_write(&copy, mem));
    return 0;
}

static int dump_shard(void *ctx, const struct inspect_shard *s)
{
    struct dump *d = ctx;
    uint8_t mem[ROW_VALUE_MAX];
    char name[32];

    snprintf(name, sizeof name, "%" PRIu64, s->id);
    dump_one(d, ROW_END, name, mem, row_u64_write(s->end, mem));
    d->shard = s->id;
    return inspect_producers(d->c->in, s->id, dump_producer, d);
}

static void dump_live(struct dump *d)
{
    uint8_t mem[ROW_VALUE_MAX];
    char name[32];

    for (size_t i = 0; i < d->n_live; i++) {
        snprintf(name, sizeof name, "%" PRIu64, d->live[i].segment);
        dump_one(d, ROW_LIVE, name, mem, row_u64_write(d->live[i].bytes, mem));
    }
}

int cmd_rows_dump(struct ctl *c, struct err *e)
{
    struct dump d = { .c = c, .shown = emit_is_table(c->emit) ? SHOWN_HEX : 0 };
    int rc;

    emit_section(c->emit, "rows", row_columns, sizeof row_columns / sizeof row_columns[0], false);
    rc = inspect_segments(c->in, live_add, &d);
    if (rc >= 0)
        rc = inspect_rows_all(c->in, dump_row, &d);
    if (rc >= 0)
        rc = inspect_shards(c->in, dump_shard, &d);
    if (rc >= 0)
        dump_live(&d);
    free(d.live);
    return rc;
}
