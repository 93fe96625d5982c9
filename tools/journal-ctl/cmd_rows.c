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

/* A row of the view. Ends and producers stand for some moment since the checkpoint, and the WAL goes
 * on from there: they are shown as they are now, by shard. */
static int dump_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct ctl *c = ctx;
    const uint8_t *k = key;
    char *name, *hex;

    if (k[0] == ROW_END || k[0] == ROW_PRODUCER)
        return 0;
    name = key_text(k, key_bytes);
    hex = hex_text(value, value_bytes, emit_is_table(c->emit) ? SHOWN_HEX : 0);
    EMIT_ROW(c->emit, C_TEXT(ctl_table_name(k[0])), C_TEXT(name), C_TEXT(hex));
    free(name);
    free(hex);
    return 0;
}

struct dump_shard {
    struct ctl *c;
    uint64_t shard;
};

/* When a producer was last seen is stored nowhere else: rows that were made anew count from then, and
 * the dump shows zeros. */
static int dump_producer(void *ctx, int64_t id, const struct row_producer *p)
{
    struct dump_shard *d = ctx;
    struct row_producer copy = *p;
    uint8_t mem[ROW_VALUE_MAX];
    char name[64], *hex;

    for (unsigned i = 0; i < copy.n; i++)
        copy.batch[i].time = 0;
    snprintf(name, sizeof name, "%" PRIu64 " %" PRId64, d->shard, id);
    hex = hex_text(mem, row_producer_write(&copy, mem), emit_is_table(d->c->emit) ? SHOWN_HEX : 0);
    EMIT_ROW(d->c->emit, C_TEXT(ctl_table_name(ROW_PRODUCER)), C_TEXT(name), C_TEXT(hex));
    free(hex);
    return 0;
}

static int dump_shard(void *ctx, const struct inspect_shard *s)
{
    struct dump_shard d = { .c = ctx, .shard = s->id };
    uint8_t mem[ROW_VALUE_MAX];
    char name[32], *hex = hex_text(mem, row_u64_write(s->end, mem), 0);

    snprintf(name, sizeof name, "%" PRIu64, s->id);
    EMIT_ROW(d.c->emit, C_TEXT(ctl_table_name(ROW_END)), C_TEXT(name), C_TEXT(hex));
    free(hex);
    return inspect_producers(d.c->in, s->id, dump_producer, &d);
}

int cmd_rows_dump(struct ctl *c, struct err *e)
{
    int rc;

    emit_section(c->emit, "rows", row_columns, sizeof row_columns / sizeof row_columns[0], false);
    rc = inspect_rows_all(c->in, dump_row, c);
    return rc < 0 ? rc : inspect_shards(c->in, dump_shard, c);
}
