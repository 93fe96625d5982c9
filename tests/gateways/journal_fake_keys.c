/* The fake journal's keys and tables. */
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "tests/gateways/journal_fake_int.h"

static int compare(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    size_t n = a_bytes < b_bytes ? a_bytes : b_bytes;
    int rc = n ? memcmp(a, b, n) : 0;

    return rc ? rc : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static bool begins(const void *key, size_t bytes, const void *prefix, size_t prefix_bytes)
{
    return bytes >= prefix_bytes && (!prefix_bytes || memcmp(key, prefix, prefix_bytes) == 0);
}

/* --- keys: every record is looked at, each time --- */

/* The records that a scan gives, kept in the order of their keys. */
struct found {
    const void *prefix, *from;
    uint32_t prefix_bytes, from_bytes, n;
    struct batch_record *list; /* key, value and headers in a piece of memory that key begins */
};

static void record_copy(struct batch_record *to, const struct batch_record *r)
{
    size_t key = (size_t)r->key_bytes, value = (size_t)r->value_bytes;
    uint8_t *mem = mem_new(key + value + r->headers_bytes + 1);

    *to = *r;
    memcpy(mem, r->key, key);
    if (value)
        memcpy(mem + key, r->value, value);
    if (r->headers_bytes)
        memcpy(mem + key + value, r->headers, r->headers_bytes);
    to->key = mem;
    to->value = mem + key;
    to->headers = mem + key + value;
}

static void remove_at(struct found *f, uint32_t i)
{
    free((void *)(uintptr_t)f->list[i].key);
    f->n--;
    memmove(f->list + i, f->list + i + 1, (f->n - i) * sizeof *f->list);
}

static void found_record(void *ctx, const struct batch_record *r)
{
    struct found *f = ctx;
    uint32_t i = 0;

    if (!r->key || !begins(r->key, (size_t)r->key_bytes, f->prefix, f->prefix_bytes) ||
        (f->from && compare(r->key, (size_t)r->key_bytes, f->from, f->from_bytes) < 0))
        return;
    while (i < f->n &&
           compare(f->list[i].key, (size_t)f->list[i].key_bytes, r->key, (size_t)r->key_bytes) < 0)
        i++;
    if (i < f->n &&
        compare(f->list[i].key, (size_t)f->list[i].key_bytes, r->key, (size_t)r->key_bytes) == 0)
        remove_at(f, i);
    if (!r->value)
        return;
    f->list = mem_grow(f->list, (f->n + 1) * sizeof *f->list);
    memmove(f->list + i + 1, f->list + i, (f->n - i) * sizeof *f->list);
    record_copy(&f->list[i], r);
    f->n++;
}

static int find(struct shard *s, struct found *f)
{
    return shard_kind(s) == SHARD_ROCKSDB ? journal_fake_records(s, found_record, f)
                                          : E_UNSUPPORTED;
}

static void get_answer(struct task *t)
{
    struct shard_get *g = (struct shard_get *)t;

    g->fn(g);
}

void shard_get(struct shard *s, struct shard_get *g)
{
    struct found f = { .prefix = g->key, .prefix_bytes = g->key_bytes };

    g->mem = NULL;
    g->rc = find(s, &f);
    if (g->rc == 0 && (f.n == 0 || (uint32_t)f.list[0].key_bytes != g->key_bytes))
        g->rc = E_NOTFOUND;
    if (g->rc == 0) { /* the key itself comes first of those that begin with it */
        g->record = f.list[0];
        g->mem = (void *)(uintptr_t)f.list[0].key;
    }
    while (f.n > (g->rc == 0))
        remove_at(&f, f.n - 1);
    free(f.list);
    g->task.run = get_answer;
    loop_post(g->loop, &g->task);
}

void shard_get_release(struct shard_get *g)
{
    free(g->mem);
    g->mem = NULL;
}

static void scan_answer(struct task *t)
{
    struct shard_scan *c = (struct shard_scan *)t;

    c->fn(c);
}

/* c->mem: the key of the record that was one too many. */
void shard_scan(struct shard *s, struct shard_scan *c)
{
    struct found f = { .prefix = c->prefix,
                       .prefix_bytes = c->prefix_bytes,
                       .from = c->from,
                       .from_bytes = c->from_bytes };
    uint32_t take = 0, bytes = 0;

    c->rc = c->limit < 1 || c->limit > SHARD_SCAN_MAX ? E_INVALID : find(s, &f);
    while (take < f.n && take < c->limit && (take == 0 || bytes < c->max_bytes)) {
        bytes += (uint32_t)(f.list[take].key_bytes + f.list[take].value_bytes);
        take++;
    }
    while (f.n > take + 1)
        remove_at(&f, f.n - 1);
    c->mem = f.n > take ? (void *)(uintptr_t)f.list[take].key : NULL;
    c->next = c->mem;
    c->next_bytes = f.n > take ? (uint32_t)f.list[take].key_bytes : 0;
    c->records = f.list;
    c->n = take;
    c->task.run = scan_answer;
    loop_post(c->loop, &c->task);
}

void shard_scan_release(struct shard_scan *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        free((void *)(uintptr_t)c->records[i].key);
    free(c->records);
    free(c->mem);
    c->mem = NULL;
    c->records = NULL;
    c->next = NULL;
    c->n = 0;
}

/* --- tables: rows beside the doors' --- */

enum { ROW = 1, OFFSET = 2, PREFIX_MAX = 2 + JRN_TABLE_NAME_MAX };

struct jrn_table {
    struct journal *j;
    uint8_t prefix[PREFIX_MAX];
    uint32_t bytes;
};

struct table_key {
    uint8_t mem[PREFIX_MAX + JRN_TABLE_KEY_MAX];
    uint32_t bytes;
};

static struct table_key key_of(const struct jrn_table *t, uint8_t letter, const void *key,
                               uint32_t bytes)
{
    struct table_key k = { .bytes = t->bytes + bytes };

    memcpy(k.mem, t->prefix, t->bytes);
    k.mem[0] = letter;
    if (bytes)
        memcpy(k.mem + t->bytes, key, bytes);
    return k;
}

static struct table_key offset_key(const struct jrn_table *t, uint64_t shard)
{
    uint8_t number[8];

    put_u64be(number, shard);
    return key_of(t, OFFSET, number, sizeof number);
}

int jrn_table_open(struct jrn_table **out, struct journal *j, const char *name)
{
    size_t n = strlen(name);

    if (n < 1 || n > JRN_TABLE_NAME_MAX)
        return E_INVALID;
    *out = mem_new(sizeof **out);
    (*out)->j = j;
    (*out)->bytes = (uint32_t)n + 2;
    (*out)->prefix[1] = (uint8_t)n;
    memcpy((*out)->prefix + 2, name, n);
    return 0;
}

void jrn_table_close(struct jrn_table *t)
{
    free(t);
}

static void done_answer(struct task *t)
{
    struct jrn_table_done *d = (struct jrn_table_done *)t;

    d->fn(d);
}

static void done_post(struct jrn_table_done *d, int rc)
{
    d->rc = rc;
    d->task.run = done_answer;
    loop_post(d->loop, &d->task);
}

void jrn_table_write(struct jrn_table *t, const struct jrn_table_row *rows, unsigned n,
                     uint64_t shard, uint64_t offset, struct jrn_table_done *done)
{
    struct table_key k = offset_key(t, shard);
    int rc = 0;

    for (unsigned i = 0; i < n; i++)
        if (rows[i].key_bytes < 1 || rows[i].key_bytes > JRN_TABLE_KEY_MAX ||
            rows[i].value_bytes > JRN_TABLE_VALUE_MAX)
            rc = E_INVALID;
    if (rc == 0)
        journal_fake_row(t->j, k.mem, k.bytes, &offset, sizeof offset);
    for (unsigned i = 0; rc == 0 && i < n; i++) {
        k = key_of(t, ROW, rows[i].key, rows[i].key_bytes);
        journal_fake_row(t->j, k.mem, k.bytes, rows[i].value, rows[i].value_bytes);
    }
    done_post(done, rc);
}

static int offset_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                      size_t value_bytes)
{
    memcpy(ctx, value, sizeof(uint64_t));
    return 1;
}

void jrn_table_offset(struct jrn_table *t, uint64_t shard, struct jrn_table_done *done)
{
    struct table_key k = offset_key(t, shard);
    int rc;

    done->offset = 0;
    rc = journal_rows_scan(t->j, k.mem, k.bytes, offset_row, &done->offset);
    done_post(done, rc < 0 ? rc : 0);
}

static int first_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct table_key *k = ctx;

    memcpy(k->mem, key, key_bytes);
    k->bytes = (uint32_t)key_bytes;
    return 1;
}

void jrn_table_drop(struct jrn_table *t, struct jrn_table_done *done)
{
    for (uint8_t letter = ROW; letter <= OFFSET; letter++) {
        struct table_key all = key_of(t, letter, NULL, 0), k;

        while (journal_rows_scan(t->j, all.mem, all.bytes, first_row, &k) == 1)
            journal_fake_row(t->j, k.mem, k.bytes, NULL, 0);
    }
    done_post(done, 0);
}

struct look {
    struct jrn_table_read *r;
    struct table_key from;
    uint32_t skip, limit;
};

static int look_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct look *l = ctx;
    struct jrn_table_read *r = l->r;
    size_t bytes = key_bytes - l->skip;
    uint8_t *mem;

    if (compare(key, key_bytes, l->from.mem, l->from.bytes) < 0)
        return 0;
    if (r->n == l->limit) {
        r->more = true;
        return 1;
    }
    mem = mem_new(bytes + value_bytes + 1);
    memcpy(mem, (const uint8_t *)key + l->skip, bytes);
    if (value_bytes)
        memcpy(mem + bytes, value, value_bytes);
    r->rows = mem_grow(r->rows, (r->n + 1) * sizeof *r->rows);
    r->rows[r->n++] = (struct jrn_table_row){ .key = mem,
                                              .key_bytes = (uint32_t)bytes,
                                              .value = mem + bytes,
                                              .value_bytes = (uint32_t)value_bytes };
    return 0;
}

static void read_answer(struct task *t)
{
    struct jrn_table_read *r = (struct jrn_table_read *)t;

    r->fn(r);
}

static void look(struct jrn_table *t, const struct table_key *prefix, struct look *l)
{
    struct jrn_table_read *r = l->r;
    int rc;

    r->rows = NULL;
    r->n = 0;
    r->more = false;
    l->skip = t->bytes;
    rc = journal_rows_scan(t->j, prefix->mem, prefix->bytes, look_row, l);
    r->rc = rc < 0 ? rc : 0;
    r->task.run = read_answer;
    loop_post(r->loop, &r->task);
}

void jrn_table_get(struct jrn_table *t, const void *key, uint32_t key_bytes,
                   struct jrn_table_read *r)
{
    struct table_key k = key_of(t, ROW, key, key_bytes);
    struct look l = { .r = r, .from = k, .limit = 1 };

    look(t, &k, &l);
    r->more = false;
    if (r->n == 0 || r->rows[0].key_bytes != key_bytes) {
        jrn_table_read_release(r);
        r->rc = E_NOTFOUND;
    }
}

void jrn_table_scan(struct jrn_table *t, const void *prefix, uint32_t prefix_bytes,
                    const void *from, uint32_t from_bytes, uint32_t limit, struct jrn_table_read *r)
{
    struct table_key k = key_of(t, ROW, prefix, prefix_bytes);
    struct look l = { .r = r, .from = from ? key_of(t, ROW, from, from_bytes) : k, .limit = limit };

    look(t, &k, &l);
}

void jrn_table_read_release(struct jrn_table_read *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        free((void *)(uintptr_t)r->rows[i].key);
    free(r->rows);
    r->rows = NULL;
    r->n = 0;
}
