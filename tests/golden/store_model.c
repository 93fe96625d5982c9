#include "tests/golden/store_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

_Noreturn void store_model_die(const char *what, const char *why)
{
    fprintf(stderr, "store_tool: %s: %s\n", what, why);
    exit(1);
}

struct model_shard *store_model_shard(struct model *m, uint64_t id)
{
    for (unsigned i = 0; i < m->n_shards; i++)
        if (m->shards[i].id == id)
            return &m->shards[i];
    if (m->n_shards == MAX_SHARDS)
        store_model_die("model", "too many shards");
    m->shards[m->n_shards].id = id;
    return &m->shards[m->n_shards++];
}

void store_model_add(struct model_shard *s, const struct model_batch *b)
{
    if (s->n == MAX_BATCHES)
        store_model_die("model", "too many batches");
    s->batches[s->n++] = *b;
}

static void hex_print(FILE *f, const void *mem, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        fprintf(f, "%02x", ((const uint8_t *)mem)[i]);
}

static void manifest_shard(FILE *f, const struct model_shard *s)
{
    fprintf(f, "shard %" PRIu64 " class %d group %" PRIu64 " start %" PRIu64 " end %" PRIu64 "\n",
            s->id, s->class, s->group, s->start, s->end);
    for (unsigned i = 0; i < s->n; i++)
        fprintf(f, "batch %" PRIu64 " %" PRIu64 " %" PRIu32 " %" PRIu32 " %016" PRIx64 "\n", s->id,
                s->batches[i].base, s->batches[i].n_offsets, s->batches[i].bytes,
                s->batches[i].xxh3);
}

static int row_by_key(const void *a, const void *b)
{
    return strcmp(((const struct model_row *)a)->key, ((const struct model_row *)b)->key);
}

void store_model_write(struct model *m, const char *path)
{
    FILE *f = fopen(path, "w");

    if (!f)
        store_model_die(path, strerror(errno));
    for (unsigned i = 0; i < m->n_shards; i++)
        if (!m->shards[i].deleted)
            manifest_shard(f, &m->shards[i]);
    qsort(m->rows, m->n_rows, sizeof m->rows[0], row_by_key);
    for (unsigned i = 0; i < m->n_rows; i++) {
        if (m->rows[i].value_bytes == 0)
            continue;
        fputs("row ", f);
        hex_print(f, m->rows[i].key, strlen(m->rows[i].key));
        fputc(' ', f);
        hex_print(f, m->rows[i].value, m->rows[i].value_bytes);
        fputc('\n', f);
    }
    fprintf(f, "max_shard %" PRIu64 "\n", m->max_shard);
    for (unsigned i = 0; i < m->n_shards; i++)
        if (m->shards[i].deleted)
            fprintf(f, "deleted %" PRIu64 "\n", m->shards[i].id);
    for (unsigned i = 0; i < m->n_producers; i++) {
        const struct model_producer *p = &m->producers[i];

        fprintf(f, "producer %" PRIu64 " %" PRId64 " %d %d %d %" PRIu64 "\n", p->shard, p->id,
                p->epoch, p->sequence, p->n_records, p->base);
    }
    if (fclose(f) != 0)
        store_model_die(path, strerror(errno));
}

static uint32_t hex_read(const char *text, uint8_t *mem, size_t max)
{
    size_t n = strlen(text) / 2;
    unsigned byte;

    if (n > max)
        store_model_die("manifest", "a row is too long");
    for (size_t i = 0; i < n; i++) {
        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            store_model_die("manifest", "not hex");
        mem[i] = (uint8_t)byte;
    }
    return (uint32_t)n;
}

static void manifest_row(struct model *m, const char *line)
{
    struct model_row *r = &m->rows[m->n_rows++];
    char key[200], *value = mem_new(strlen(line) + 1);

    if (m->n_rows > MAX_ROWS || sscanf(line, "row %199s %s", key, value) != 2)
        store_model_die("manifest", line);
    hex_read(key, (uint8_t *)r->key, sizeof r->key - 1);
    r->value_bytes = hex_read(value, r->value, sizeof r->value);
    free(value);
}

static void manifest_line(struct model *m, const char *line)
{
    struct model_producer p;
    struct model_batch b;
    struct model_shard s = { 0 }, *at;
    uint64_t id;

    if (strncmp(line, "row ", 4) == 0) {
        manifest_row(m, line);
    } else if (sscanf(line,
                      "shard %" SCNu64 " class %d group %" SCNu64 " start %" SCNu64 " end %" SCNu64,
                      &s.id, &s.class, &s.group, &s.start, &s.end) == 5) {
        at = store_model_shard(m, s.id);
        at->class = s.class;
        at->group = s.group;
        at->start = s.start;
        at->end = s.end;
    } else if (sscanf(line, "batch %" SCNu64 " %" SCNu64 " %" SCNu32 " %" SCNu32 " %" SCNx64, &id,
                      &b.base, &b.n_offsets, &b.bytes, &b.xxh3) == 5) {
        store_model_add(store_model_shard(m, id), &b);
    } else if (sscanf(line, "deleted %" SCNu64, &id) == 1) {
        store_model_shard(m, id)->deleted = true;
    } else if (sscanf(line, "producer %" SCNu64 " %" SCNd64 " %d %d %d %" SCNu64, &p.shard, &p.id,
                      &p.epoch, &p.sequence, &p.n_records, &p.base) == 6 &&
               m->n_producers < MAX_PRODUCERS) {
        m->producers[m->n_producers++] = p;
    } else if (sscanf(line, "max_shard %" SCNu64, &m->max_shard) != 1) {
        store_model_die("manifest", line);
    }
}

void store_model_read(struct model *m, const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;

    if (!f)
        store_model_die(path, strerror(errno));
    while (getline(&line, &cap, f) > 0)
        manifest_line(m, line);
    free(line);
    fclose(f);
    if (m->n_shards == 0)
        store_model_die(path, "empty");
}
