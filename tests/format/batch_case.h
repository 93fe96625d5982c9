/* Reads the case files of tests/golden/batch (their form stands at the head of make.py there): what
 * a batch must hold. Used by the test that reads golden batches and by the tool that writes batches
 * for other clients to read. */
#ifndef WEIR_TESTS_FORMAT_BATCH_CASE_H
#define WEIR_TESTS_FORMAT_BATCH_CASE_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/batch.h"

enum { CASE_MAX_HEADERS = 128 };

struct batch_case {
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    bool transactional;
    int32_t n;
    struct batch_new_record *records; /* keys, values and headers are heap bytes */
};

/* "-", or "x" and hex digits, perhaps "*TIMES". Heap bytes, never NULL for what is not null. */
static inline uint8_t *case_field(const char *s, size_t *bytes)
{
    const char *star = strchr(s, '*');
    size_t n = (star ? (size_t)(star - s) : strlen(s)) / 2,
           times = star ? strtoul(star + 1, NULL, 10) : 1;
    uint8_t *mem;

    *bytes = 0;
    if (*s == '-')
        return NULL;
    mem = mem_new(n * times + 1);
    for (size_t i = 0; i < n; i++) {
        char pair[3] = { s[1 + 2 * i], s[2 + 2 * i], 0 };

        mem[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    for (size_t t = 1; t < times; t++)
        memcpy(mem + t * n, mem, n);
    *bytes = n * times;
    return mem;
}

static inline void case_header(struct batch_new_record *r, const char *key, const char *value)
{
    struct batch_header *all =
        mem_grow((void *)(uintptr_t)r->headers, (r->n_headers + 1) * sizeof *all);
    struct batch_header *h = &all[r->n_headers++];
    size_t bytes;

    h->key = case_field(key, &bytes);
    h->key_bytes = (uint32_t)bytes;
    h->value = case_field(value, &bytes);
    h->value_bytes = h->value ? (int32_t)bytes : -1;
    r->headers = all;
}

static inline void case_line(struct batch_case *c, char *line)
{
    char *word[5] = { 0 }, *save = NULL;
    unsigned n = 0;

    for (char *w = strtok_r(line, " \n", &save); w && n < 5; w = strtok_r(NULL, " \n", &save))
        word[n++] = w;
    if (n >= 4 && strcmp(word[0], "producer") == 0) {
        c->producer_id = strtoll(word[1], NULL, 10);
        c->producer_epoch = (int16_t)strtol(word[2], NULL, 10);
        c->base_sequence = (int32_t)strtol(word[3], NULL, 10);
        c->transactional = n > 4;
    } else if (n == 4 && strcmp(word[0], "record") == 0) {
        struct batch_new_record *r;

        c->records = mem_grow(c->records, (size_t)(c->n + 1) * sizeof *c->records);
        r = &c->records[c->n++];
        *r = (struct batch_new_record){ .timestamp = strtoll(word[1], NULL, 10) };
        r->key = case_field(word[2], &r->key_bytes);
        r->value = case_field(word[3], &r->value_bytes);
    } else if (n == 3 && strcmp(word[0], "header") == 0 && c->n) {
        case_header(&c->records[c->n - 1], word[1], word[2]);
    }
}

/* False: no such file. */
static inline bool case_open(struct batch_case *c, const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;

    *c = (struct batch_case){ .producer_id = -1, .producer_epoch = -1, .base_sequence = -1 };
    if (!f)
        return false;
    while (getline(&line, &cap, f) > 0)
        case_line(c, line);
    free(line);
    fclose(f);
    return true;
}

static inline void case_close(struct batch_case *c)
{
    for (int32_t i = 0; i < c->n; i++) {
        const struct batch_new_record *r = &c->records[i];

        for (uint32_t j = 0; j < r->n_headers; j++) {
            free((void *)(uintptr_t)r->headers[j].key);
            free((void *)(uintptr_t)r->headers[j].value);
        }
        free((void *)(uintptr_t)r->headers);
        free((void *)(uintptr_t)r->key);
        free((void *)(uintptr_t)r->value);
    }
    free(c->records);
    *c = (struct batch_case){ 0 };
}

/* The case's batch, by our own builder. */
static inline int case_build(const struct batch_case *c, enum batch_codec codec, struct buf **out)
{
    struct batch_builder b = { 0 };
    int rc;

    for (int32_t i = 0; i < c->n; i++)
        batch_builder_add(&b, &c->records[i]);
    b.has_producer = c->producer_id >= 0;
    b.producer_id = c->producer_id;
    b.producer_epoch = c->producer_epoch;
    b.base_sequence = c->base_sequence;
    b.attributes = c->transactional ? BATCH_ATTR_TRANSACTIONAL : 0;
    rc = batch_builder_finish(&b, codec, out);
    batch_builder_free(&b);
    return rc;
}

#endif
