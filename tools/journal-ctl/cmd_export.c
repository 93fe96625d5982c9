/* journal-ctl export: a shard's records, as the .log files of a Kafka partition or as JSON lines.
 *
 * kafka-log   DIR/TOPIC-PARTITION/<base offset, 20 digits>.log: the batches as they are stored, back
 *             to back: those that hold an offset that was asked for, whole
 * json        DIR/TOPIC-PARTITION.jsonl: a record a line
 *
 * Beside a server a place may be freed and used anew before it is read: then a newer view is opened,
 * and the export goes on where it was. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "tools/journal-ctl/ctl.h"
#include "tools/journal-ctl/records.h"

enum { TRIES = 20, NAME_BYTES = 300 };
/* Kafka's own limit of a segment file: positions in its index have 31 bits. */
#define LOG_BYTES_MAX (UINT64_C(1) << 30)

static const struct emit_column export_columns[] = {
    { "shard", EMIT_NUMBER, false },   { "name", EMIT_TEXT, false },
    { "file", EMIT_TEXT, false },      { "from", EMIT_NUMBER, false },
    { "end", EMIT_NUMBER, false },     { "batches", EMIT_NUMBER, false },
    { "records", EMIT_NUMBER, false }, { "bytes", EMIT_BYTES, false },
    { "missing", EMIT_NUMBER, false },
};

struct export
{
    struct ctl *c;
    uint64_t shard;
    bool json;
    char name[NAME_BYTES];
    char *path; /* of the last file */
    FILE *file;
    uint64_t file_bytes;
    uint64_t from, end; /* asked for, within the shard */
    uint64_t next;      /* offset that comes next */
    uint64_t batches, records, bytes;
    uint64_t missing; /* offsets in holes and damaged batches */
    bool damaged;
    struct err *e;
};

/* --- files --- */

static int file_fail(struct export *x, const char *what)
{
    return err_set(x->e, E_IO, "%s: %s: %s", x->path, what, strerror(errno));
}

static int file_close(struct export *x)
{
    FILE *f = x->file;

    x->file = NULL;
    return f && fclose(f) != 0 ? file_fail(x, "cannot be written") : 0;
}

static int folder_make(struct export *x, const char *path)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST)
        return 0;
    return err_set(x->e, E_IO, "%s: %s", path, strerror(errno));
}

/* Never over something that is there. */
static int file_open(struct export *x, uint64_t base)
{
    size_t room = strlen(x->c->folder) + NAME_BYTES + 40;
    int rc = file_close(x);

    free(x->path);
    x->path = mem_new(room);
    if (rc >= 0 && !x->json) {
        snprintf(x->path, room, "%s/%s", x->c->folder, x->name);
        rc = folder_make(x, x->path);
    }
    if (rc < 0)
        return rc;
    if (x->json)
        snprintf(x->path, room, "%s/%s.jsonl", x->c->folder, x->name);
    else
        snprintf(x->path, room, "%s/%s/%020" PRIu64 ".log", x->c->folder, x->name, base);
    x->file_bytes = 0;
    x->file = fopen(x->path, "wbx");
    return x->file ? 0 : file_fail(x, "cannot be made");
}

static int put(struct export *x, const void *mem, size_t bytes)
{
    if (fwrite(mem, 1, bytes, x->file) != bytes)
        return file_fail(x, "cannot be written");
    x->file_bytes += bytes;
    x->bytes += bytes;
    return 0;
}

/* --- Kafka's log --- */

static int log_batch(struct export *x, const struct inspect_batch *b)
{
    int rc = 0;

    if (!x->file || x->file_bytes + b->head.bytes > LOG_BYTES_MAX)
        rc = file_open(x, (uint64_t)b->head.base_offset);
    x->records += (uint64_t)b->head.record_count;
    return rc < 0 ? rc : put(x, b->mem, b->head.bytes);
}

/* --- JSON lines --- */

static bool is_text(const uint8_t *mem, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        size_t n = utf8_char(mem + at, bytes - at, NULL);

        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

static void json_text(FILE *f, const uint8_t *mem, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (mem[i] == '"' || mem[i] == '\\')
            fprintf(f, "\\%c", mem[i]);
        else if (mem[i] < 0x20 || mem[i] == 0x7f)
            fprintf(f, "\\u%04x", mem[i]);
        else
            putc(mem[i], f);
    }
}

static void json_base64(FILE *f, const uint8_t *mem, size_t bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < bytes; i += 3) {
        uint32_t v = (uint32_t)mem[i] << 16 | (i + 1 < bytes ? (uint32_t)mem[i + 1] << 8 : 0) |
                     (i + 2 < bytes ? mem[i + 2] : 0);

        putc(digits[v >> 18], f);
        putc(digits[v >> 12 & 63], f);
        putc(i + 1 < bytes ? digits[v >> 6 & 63] : '=', f);
        putc(i + 2 < bytes ? digits[v & 63] : '=', f);
    }
}

/* "name": a string, or null; bytes that are not UTF-8 as base64, and then "name_encoding" says so. */
static void json_bytes(FILE *f, const char *name, const uint8_t *mem, int64_t bytes)
{
    bool text = mem && bytes >= 0 && is_text(mem, (size_t)bytes);

    fprintf(f, "\"%s\":", name);
    if (!mem || bytes < 0) {
        fputs("null", f);
        return;
    }
    putc('"', f);
    (text ? json_text : json_base64)(f, mem, (size_t)bytes);
    putc('"', f);
    if (!text)
        fprintf(f, ",\"%s_encoding\":\"base64\"", name);
}

static int json_headers(FILE *f, const struct batch_record *r)
{
    struct batch_header h;
    uint32_t pos = 0;
    int rc;

    fputs("\"headers\":[", f);
    for (bool first = true; (rc = batch_header_next(r, &pos, &h)) == 1; first = false) {
        fputs(first ? "{" : ",{", f);
        json_bytes(f, "key", h.key, h.key_bytes);
        putc(',', f);
        json_bytes(f, "value", h.value, h.value_bytes);
        putc('}', f);
    }
    putc(']', f);
    return rc;
}

static int json_record(void *ctx, const struct batch_head *h, const struct batch_record *r)
{
    struct export *x = ctx;
    bool log_time = (h->attributes & BATCH_ATTR_LOG_APPEND_TIME) != 0;
    FILE *f = x->file;

    if ((uint64_t)r->offset < x->from || (uint64_t)r->offset >= x->end)
        return 0;
    fprintf(f, "{\"offset\":%" PRId64 ",\"timestamp\":%" PRId64 ",", r->offset,
            log_time ? h->max_timestamp : r->timestamp);
    if (h->attributes & BATCH_ATTR_CONTROL)
        fputs("\"control\":true,", f);
    json_bytes(f, "key", r->key, r->key_bytes);
    putc(',', f);
    json_bytes(f, "value", r->value, r->value_bytes);
    putc(',', f);
    if (json_headers(f, r) < 0)
        return E_CORRUPT;
    fputs("}\n", f);
    x->records++;
    return ferror(f) ? file_fail(x, "cannot be written") : 0;
}

static int json_batch(struct export *x, const struct inspect_batch *b)
{
    int rc = x->file ? 0 : file_open(x, 0);

    return rc < 0 ? rc : records_each(b->mem, b->bytes, json_record, x);
}

/* --- batches --- */

static int export_batch(void *ctx, const struct inspect_batch *b)
{
    struct export *x = ctx;
    uint64_t end = (uint64_t)b->head.base_offset + (uint64_t)b->head.last_offset_delta + 1;
    uint64_t base;
    int rc;

    if (!b->ok) /* and with it the rest of its run */
        return E_CORRUPT;
    base = (uint64_t)b->head.base_offset;
    if (end <= x->next)
        return 0;
    if (base >= x->end)
        return 1;
    x->missing += base > x->next ? base - x->next : 0;
    rc = x->json ? json_batch(x, b) : log_batch(x, b);
    x->batches++;
    x->next = end;
    return rc < 0 ? rc : 0;
}

struct export_run {
    struct export *x;
    bool skip_damage; /* it is known to be there: go on behind it */
};

static int export_run(void *ctx, const struct inspect_run *run)
{
    struct export_run *er = ctx;
    struct export *x = er->x;
    int rc;

    if (run->end <= x->next)
        return 0;
    if (run->base >= x->end)
        return 1;
    rc = inspect_run_batches(x->c->in, x->shard, run, export_batch, x);
    if ((rc != E_CORRUPT && rc != E_IO) || x->e->code || !er->skip_damage)
        return rc;
    x->damaged = true;
    x->missing += run->end - (run->base > x->next ? run->base : x->next);
    x->next = run->end;
    return 0;
}

/* A newer view: what was there once is there still, maybe elsewhere. */
static int view_again(struct ctl *c, struct err *e)
{
    inspect_close(c->in);
    c->in = NULL;
    return inspect_open(&c->in, c->data, e);
}

/* Damage counts when the store has not moved on, or has been looked at often. */
static int export_runs(struct export *x)
{
    struct export_run er = { x, false };
    int rc = inspect_runs(x->c->in, x->shard, export_run, &er);

    for (unsigned i = 0; i < TRIES && (rc == E_CORRUPT || rc == E_IO) && !x->e->code; i++) {
        if (!inspect_moved(x->c->in))
            break;
        rc = view_again(x->c, x->e);
        if (rc >= 0)
            rc = inspect_runs(x->c->in, x->shard, export_run, &er);
    }
    er.skip_damage = true;
    if ((rc == E_CORRUPT || rc == E_IO) && !x->e->code)
        rc = inspect_runs(x->c->in, x->shard, export_run, &er);
    if (rc >= 0 && x->next < x->end)
        x->missing += x->end - x->next;
    return rc;
}

/* An empty shard has an empty file, too. */
static int export_files(struct export *x)
{
    int rc = export_runs(x);

    if (rc >= 0 && !x->file)
        rc = file_open(x, x->from);
    if (file_close(x) < 0 && rc >= 0)
        rc = E_IO;
    return rc;
}

static int export_shard(struct ctl *c, uint64_t shard, const struct name *name, struct err *e)
{
    struct export x = { .c = c, .shard = shard, .e = e };
    struct inspect_shard s;
    int rc = inspect_shard(c->in, shard, &s);

    if (rc < 0)
        return rc;
    if (name && !name->internal)
        snprintf(x.name, sizeof x.name, "%s-%" PRIu32, name->topic, name->partition);
    else
        snprintf(x.name, sizeof x.name, "shard-%" PRIu64, shard);
    x.json = c->format && strcmp(c->format, "json") == 0;
    x.from = x.next = c->from > s.start ? (c->from < s.end ? c->from : s.end) : s.start;
    x.end = c->to < s.end ? c->to : s.end;
    x.end = x.end < x.from ? x.from : x.end;
    rc = export_files(&x);
    if (rc >= 0)
        EMIT_ROW(c->emit, C_U64(shard), C_TEXT(x.name), C_TEXT(x.path), C_U64(x.from), C_U64(x.end),
                 C_U64(x.batches), C_U64(x.records), C_U64(x.bytes), C_U64(x.missing));
    free(x.path);
    if (rc >= 0 && x.damaged)
        rc = err_set(e, E_CORRUPT, "shard %" PRIu64 ": some of it is damaged and was left out",
                     shard);
    return rc < 0 ? rc : 0;
}

/* All partitions of a topic. The names are copied: a newer view may come. */
static int export_topic(struct ctl *c, struct err *e)
{
    int rc = E_NOTFOUND, worst = 0;

    for (size_t i = 0; i < c->names.n; i++) {
        const struct name *n = &c->names.list[i];

        if (n->internal || strcmp(n->topic, c->target) != 0)
            continue;
        rc = export_shard(c, n->shard, n, e);
        if (rc < 0 && rc != E_CORRUPT)
            return rc;
        worst = rc < 0 ? rc : worst;
    }
    return rc == E_NOTFOUND ? err_set(e, rc, "%s: no such shard or topic", c->target) : worst;
}

int cmd_export(struct ctl *c, struct err *e)
{
    uint64_t id;
    int rc;

    if (c->format && strcmp(c->format, "json") != 0 && strcmp(c->format, "kafka-log") != 0)
        return err_set(e, E_INVALID, "--format: %s: not one of kafka-log, json", c->format);
    if (mkdir(c->folder, 0777) < 0 && errno != EEXIST)
        return err_set(e, E_IO, "%s: %s", c->folder, strerror(errno));
    emit_section(c->emit, "exported", export_columns,
                 sizeof export_columns / sizeof export_columns[0], false);
    rc = ctl_shard(c, c->target, &id, e);
    if (rc >= 0)
        return export_shard(c, id, names_of(&c->names, id), e);
    if (rc != E_NOTFOUND)
        return rc;
    *e = (struct err){ 0 };
    return export_topic(c, e);
}
