#include "journal/producer.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "journal/io/rows.h"

int32_t producer_last_sequence(int32_t base, int32_t n_records)
{
    int64_t last = (int64_t)base + n_records - 1;

    return (int32_t)(last & INT32_MAX);
}

static int32_t next_sequence(int32_t last)
{
    return last == INT32_MAX ? 0 : last + 1;
}

/* More is kept than is compared: what is saved leaves out batches in flight, of which a client may
 * have five, and the five before them must still be there. */
enum { KEPT_BATCHES = 2 * ROW_PRODUCER_BATCHES };

struct producer {
    int16_t epoch;
    uint8_t n;
    struct row_producer_batch batch[KEPT_BATCHES]; /* oldest first */
};

/* Ahead or behind is told by the shorter way round the ring of sequences. */
static bool is_later(int32_t sequence, int32_t than)
{
    return ((uint32_t)(than - sequence) & INT32_MAX) >= (1u << 30);
}

int producer_check(struct producers *p, const struct batch_head *h, uint64_t *offset)
{
    const struct producer *s;
    const struct row_producer_batch *last;
    int32_t last_sequence;

    if (h->producer_id < 0)
        return 0;
    s = hash_get(&p->by_id, (uint64_t)h->producer_id);
    if (!s)
        return 0;
    if (h->producer_epoch < s->epoch)
        return E_PRODUCER_EPOCH;
    if (h->producer_epoch > s->epoch)
        return h->base_sequence == 0 ? 0 : E_SEQUENCE;
    if (s->n == 0) /* refused before it had anything here */
        return is_later(h->base_sequence, s->batch[0].base_sequence) ? E_SEQUENCE : 0;
    last_sequence = producer_last_sequence(h->base_sequence, h->record_count);
    for (unsigned i = s->n > ROW_PRODUCER_BATCHES ? s->n - ROW_PRODUCER_BATCHES : 0; i < s->n;
         i++) {
        if (s->batch[i].base_sequence == h->base_sequence &&
            s->batch[i].last_sequence == last_sequence) {
            *offset = s->batch[i].base;
            return 1;
        }
    }
    last = &s->batch[s->n - 1];
    if (h->base_sequence == next_sequence(last->last_sequence))
        return 0;
    return is_later(h->base_sequence, last->last_sequence) ? E_SEQUENCE : E_DUPLICATE;
}

void producer_refused(struct producers *p, const struct batch_head *h)
{
    struct producer *s;

    if (h->producer_id < 0 || hash_get(&p->by_id, (uint64_t)h->producer_id))
        return;
    s = mem_new(sizeof *s);
    s->epoch = h->producer_epoch;
    s->batch[0].base_sequence = h->base_sequence;
    p->n_refused++;
    hash_put(&p->by_id, (uint64_t)h->producer_id, s);
}

void producer_note_raw(struct producers *p, int64_t id, int16_t epoch,
                       const struct row_producer_batch *b)
{
    struct producer *s = hash_get(&p->by_id, (uint64_t)id);

    if (!s) {
        s = mem_new(sizeof *s);
        s->epoch = epoch;
        hash_put(&p->by_id, (uint64_t)id, s);
    } else if (s->n == 0) {
        p->n_refused--;
    }
    if (s->n > 0 && b->base <= s->batch[s->n - 1].base)
        return; /* replay over a row that has it already */
    if (s->epoch != epoch) {
        s->epoch = epoch;
        s->n = 0;
    }
    if (s->n == KEPT_BATCHES) {
        memmove(s->batch, s->batch + 1, (KEPT_BATCHES - 1) * sizeof s->batch[0]);
        s->n--;
    }
    s->batch[s->n++] = *b;
}

void producer_insert_raw(struct producers *p, int64_t id, int16_t epoch,
                         const struct row_producer_batch *b)
{
    struct producer *s = hash_get(&p->by_id, (uint64_t)id);
    unsigned at = 0;

    if (!s || s->n == 0 || b->base > s->batch[s->n - 1].base) {
        producer_note_raw(p, id, epoch, b);
        return;
    }
    while (s->batch[at].base < b->base)
        at++;
    if (s->epoch != epoch || s->batch[at].base == b->base || (at == 0 && s->n == KEPT_BATCHES))
        return; /* of an epoch that is over, known, or too long ago */
    if (s->n == KEPT_BATCHES)
        memmove(s->batch, s->batch + 1, --at * sizeof s->batch[0]);
    else
        memmove(s->batch + at + 1, s->batch + at, (s->n++ - at) * sizeof s->batch[0]);
    s->batch[at] = *b;
}

/* A row that was made from a segment may lack one between two that it has. */
void producer_note_under(struct producers *p, int64_t id, const struct row_producer *r)
{
    struct producer *later = hash_take(&p->by_id, (uint64_t)id);

    if (later && later->n == 0)
        p->n_refused--;
    for (unsigned i = 0; i < r->n; i++)
        producer_note_raw(p, id, r->epoch, &r->batch[i]);
    for (unsigned i = 0; later && i < later->n; i++)
        producer_insert_raw(p, id, later->epoch, &later->batch[i]);
    free(later);
}

void producer_note(struct producers *p, const struct batch_head *h, uint64_t offset, int64_t now)
{
    struct row_producer_batch b = {
        .base = offset,
        .time = now,
        .base_sequence = h->base_sequence,
        .last_sequence = producer_last_sequence(h->base_sequence, h->record_count),
    };

    if (h->producer_id >= 0)
        producer_note_raw(p, h->producer_id, h->producer_epoch, &b);
}

bool producers_next(const struct producers *p, uint64_t end, uint64_t *pos, uint64_t *id,
                    struct row_producer *r)
{
    void *value;

    while (hash_next(&p->by_id, pos, id, &value)) {
        const struct producer *s = value;
        unsigned n = s->n;

        while (n > 0 && s->batch[n - 1].base >= end)
            n--;
        if (n == 0)
            continue;
        *r = (struct row_producer){ .epoch = s->epoch };
        r->n = (uint8_t)(n < ROW_PRODUCER_BATCHES ? n : ROW_PRODUCER_BATCHES);
        memcpy(r->batch, s->batch + n - r->n, r->n * sizeof r->batch[0]);
        return true;
    }
    return false;
}

void producers_save(const struct producers *p, uint64_t shard, uint64_t end,
                    struct rows_batch *rows)
{
    struct row_producer r;
    uint64_t pos = 0, id;

    while (producers_next(p, end, &pos, &id, &r)) {
        uint8_t key[ROW_KEY_MAX], row[ROW_VALUE_MAX];

        rows_batch_put(rows, key, row_key2(key, ROW_PRODUCER, shard, id), row,
                       row_producer_write(&r, row));
    }
}

void producers_free(struct producers *p)
{
    uint64_t pos = 0, id;
    void *value;

    while (hash_next(&p->by_id, &pos, &id, &value))
        free(value);
    hash_free(&p->by_id);
}
