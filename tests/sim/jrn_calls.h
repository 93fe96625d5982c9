/* Calls on a simulated journal for tests that go step by step: each runs the simulator until its
 * answer is there. */
#ifndef WEIR_TESTS_SIM_JRN_CALLS_H
#define WEIR_TESTS_SIM_JRN_CALLS_H

#include "tests/sim/jrn_sim.h"

/* One call and its answer: struct NAME_answer { struct KIND k; bool done; }, the NAME_fn that k.fn is
 * to be, and NAME_is_done for call_run_until. */
#define CALL_ANSWER(kind, name)                                                                    \
    struct name##_answer {                                                                         \
        struct kind k;                                                                             \
        bool done;                                                                                 \
    };                                                                                             \
    static void name##_fn(struct kind *k)                                                          \
    {                                                                                              \
        ((struct name##_answer *)k)->done = true;                                                  \
    }                                                                                              \
    static bool name##_is_done(void *ctx)                                                          \
    {                                                                                              \
        return ((struct name##_answer *)ctx)->done;                                                \
    }
/* Runs until fn says that it has come; that it never does is a failure. */
void call_run_until(struct jrn_sim *js, bool (*fn)(void *ctx), void *ctx);

/* Bytes that grow. Zeroed is empty; free mem. */
struct call_bytes {
    uint8_t *mem;
    size_t n;
};
void call_bytes_add(struct call_bytes *b, const void *mem, size_t n);

/* A batch whose records say "n.i" and then value_bytes zeros; timestamps are n ms after the
 * simulator's first wall clock. */
struct buf *call_batch(uint64_t n, unsigned n_records, unsigned value_bytes);
/* The same of an idempotent producer. */
struct buf *call_batch_of(int64_t producer, int16_t epoch, int32_t sequence, unsigned n_records,
                          unsigned value_bytes);

int call_update(struct jrn_sim *js, const struct jrn_change *changes, unsigned n);
int call_create(struct jrn_sim *js, uint64_t shard, enum shard_class class);
int call_delete(struct jrn_sim *js, uint64_t shard);
/* A handle to be given back; NULL and what was answered in *rc (may be NULL). */
struct shard *call_open(struct jrn_sim *js, uint64_t shard, int *rc);
int call_trim(struct jrn_sim *js, struct shard *s, uint64_t start);

/* An append under way: done says whether it is answered, order when (counted over the process). */
struct call_append {
    struct append_done d;
    bool done;
    uint64_t order;
};
/* Takes the reference on batch. a->d.loop is set. */
void call_append_begin(struct jrn_sim *js, struct shard *s, struct buf *batch,
                       struct call_append *a);
/* Runs until it is answered; gives its rc. */
int call_append_end(struct jrn_sim *js, struct call_append *a);
/* Both; offset may be NULL. */
int call_append(struct jrn_sim *js, struct shard *s, struct buf *batch, uint64_t *offset);

/* Reads whole batches from `from` on up to the high watermark or an error, checking each batch's
 * CRC and that offsets follow one another. Returns the offset that it came to; *rc is the last
 * answer, *lost_until what came with it (may be NULL); adds the batches' bytes to out (may be
 * NULL). */
uint64_t call_read(struct jrn_sim *js, struct shard *s, uint64_t from, struct call_bytes *out,
                   int *rc, uint64_t *lost_until);

/* Runs what is due in the next ms of virtual time. */
void call_wait_ms(struct jrn_sim *js, uint64_t ms);

#endif
