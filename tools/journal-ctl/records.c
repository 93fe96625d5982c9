#include "tools/journal-ctl/records.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"

enum { BODY_MAX = 256 << 20 };

/* Length of the printable UTF-8 character at mem; 0: it is none. */
static size_t printable(const uint8_t *mem, size_t left)
{
    uint32_t c;
    size_t n = utf8_char(mem, left, &c);

    /* Nor control characters, those of Latin-1 included. */
    return n > 0 && c >= 0x20 && c != '\\' && (c < 0x7f || c >= 0xa0) ? n : 0;
}

static size_t escape_one(char *out, uint8_t c)
{
    char letter = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : c == '\\' ? '\\' : 0;

    if (!letter)
        return (size_t)snprintf(out, 5, "\\x%02x", c);
    out[0] = '\\';
    out[1] = letter;
    return 2;
}

char *records_escape(const uint8_t *mem, int64_t bytes, size_t max)
{
    char *out, *at;

    if (!mem || bytes < 0)
        return NULL;
    at = out = mem_new((size_t)bytes * 4 + 8);
    for (int64_t i = 0; i < bytes;) {
        size_t n = printable(mem + i, (size_t)(bytes - i));

        if (max && (size_t)(at - out) >= max) {
            memcpy(at, "...", 3);
            break;
        }
        if (n > 0) {
            memcpy(at, mem + i, n);
            at += n;
            i += (int64_t)n;
        } else {
            at += escape_one(at, mem[i++]);
        }
    }
    return out;
}

const char *records_codec(uint16_t attributes)
{
    static const char *const names[] = { "none", "gzip", "snappy", "lz4", "zstd" };
    unsigned codec = attributes & BATCH_ATTR_CODEC;

    return codec < CODEC_COUNT ? names[codec] : "unknown";
}

int records_each(const uint8_t *mem, size_t bytes,
                 int (*fn)(void *ctx, const struct batch_head *h, const struct batch_record *r),
                 void *ctx)
{
    struct batch_iter it;
    struct batch_record r;
    int rc = batch_iter_open(&it, mem, bytes, BODY_MAX), end = 0;

    if (rc < 0)
        return rc;
    while (end == 0 && (rc = batch_iter_next(&it, &r)) == 1)
        end = fn(ctx, &it.head, &r);
    batch_iter_close(&it);
    return end ? end : rc;
}

/* --- by time ---------------------------------------------------------------------------------- */

struct finding {
    struct inspect *in;
    uint64_t shard, start;
    int64_t time;
    struct records_found *out;
};

static int find_record(void *ctx, const struct batch_head *h, const struct batch_record *r)
{
    struct finding *f = ctx;

    if ((uint64_t)r->offset < f->start || r->timestamp < f->time)
        return 0;
    *f->out = (struct records_found){ true, (uint64_t)r->offset, r->timestamp };
    return 1;
}

static int find_batch(void *ctx, const struct inspect_batch *b)
{
    struct finding *f = ctx;
    uint64_t end = (uint64_t)b->head.base_offset + (uint64_t)b->head.last_offset_delta + 1;

    if (!b->ok)
        return E_CORRUPT;
    if (end <= f->start || b->head.max_timestamp < f->time)
        return 0;
    return records_each(b->mem, b->bytes, find_record, f);
}

static int find_run(void *ctx, const struct inspect_run *run)
{
    struct finding *f = ctx;

    if (run->end <= f->start || run->max_ts < f->time)
        return 0;
    return inspect_run_batches(f->in, f->shard, run, find_batch, f);
}

int records_at_time(struct inspect *in, uint64_t shard, uint64_t start, int64_t time,
                    struct records_found *out)
{
    struct finding f = { in, shard, start, time, out };
    int rc;

    *out = (struct records_found){ 0 };
    rc = inspect_runs(in, shard, find_run, &f);
    return rc < 0 ? rc : 0;
}

static int max_record(void *ctx, const struct batch_head *h, const struct batch_record *r)
{
    struct finding *f = ctx;

    if ((uint64_t)r->offset >= f->start && (!f->out->found || r->timestamp > f->out->timestamp))
        *f->out = (struct records_found){ true, (uint64_t)r->offset, r->timestamp };
    return 0;
}

/* Only a batch that may beat what was found is opened. */
static int max_batch(void *ctx, const struct inspect_batch *b)
{
    struct finding *f = ctx;

    if (!b->ok)
        return E_CORRUPT;
    if (f->out->found && b->head.max_timestamp <= f->out->timestamp)
        return 0;
    return records_each(b->mem, b->bytes, max_record, f);
}

static int max_run(void *ctx, const struct inspect_run *run)
{
    struct finding *f = ctx;

    if (run->end <= f->start || (f->out->found && run->max_ts <= f->out->timestamp))
        return 0;
    return inspect_run_batches(f->in, f->shard, run, max_batch, f);
}

int records_max_time(struct inspect *in, uint64_t shard, uint64_t start, struct records_found *out)
{
    struct finding f = { in, shard, start, 0, out };
    int rc;

    *out = (struct records_found){ 0 };
    rc = inspect_runs(in, shard, max_run, &f);
    return rc < 0 ? rc : 0;
}
