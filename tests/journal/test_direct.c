/* The direct lane: where large batches lie, that they are written once, and which of them a power cut
 * takes. */
#include <stdlib.h>

#include "base/logger.h"
#include "format/batch.h"
#include "format/sum.h"
#include "journal/committer.h"
#include "journal/destage.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"
#include "tests/sim/wal_look.h"

enum {
    SHARDS = 3,
    FROM = 8192,
    LARGE = 20000,
    NEVER_MS = 1000000,
    STEPS = 4000000,
    EXTENT_LOG2 = 20
};

static void up(struct jrn_sim *js, uint64_t seed, struct shard **s)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, 1);
    js->conf.wal_extent = 1 << EXTENT_LOG2;
    js->conf.wal_budget = 1 << 30; /* nothing is destaged unless the test says so */
    js->conf.slab_first = 32 << EXTENT_LOG2;
    js->conf.slab_max = 32 << EXTENT_LOG2;
    js->conf.batch_max = 256 * 1024;
    js->conf.block_max = 128 * 1024;
    js->conf.cache_bytes = 256 * 1024;
    js->conf.pending_max = 16 << 20;
    js->conf.direct_from = FROM;
    js->conf.idle_close_ms = NEVER_MS;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        REQUIRE(call_create(js, 16 + i, SHARD_CLASS_DATA) == 0);
        s[i] = call_open(js, 16 + i, NULL);
    }
    call_wait_ms(js, 10); /* the committer has extents in hand */
}

static void again(struct jrn_sim *js, struct shard **s)
{
    struct err e = { 0 };

    REQUIRE(jrn_sim_open(js, &e) >= 0);
    for (unsigned i = 0; i < SHARDS; i++)
        s[i] = call_open(js, 16 + i, NULL);
}

static void handles_drop(struct shard **s)
{
    for (unsigned i = 0; i < SHARDS; i++)
        shard_unref(s[i]);
}

static struct call_bytes read_all(struct jrn_sim *js, struct shard *s, uint64_t *end)
{
    struct call_bytes b = { 0 };
    int rc;

    *end = call_read(js, s, 0, &b, &rc, NULL);
    CHECK(rc >= 0);
    return b;
}

/* --- what a block says --- */

struct placed {
    struct frame_item item;
    struct block_placement at;
    const uint8_t *head; /* in the frame */
};

/* The direct items of all blocks from the first one on. */
static unsigned placed_find(const struct wal_look *l, struct placed *out, unsigned max)
{
    unsigned n = 0;

    for (unsigned b = 0; b < l->n_blocks; b++) {
        const struct look_block *x = &l->blocks[b];
        uint32_t k = 0;

        for (uint32_t i = 0; i < x->head.n_frames; i++) {
            struct frame_head f;
            struct block_dir d;
            const uint8_t *body;

            block_dir_read(&d, x->mem, i);
            REQUIRE(frame_head_read(&f, x->mem + d.pos, d.bytes) >= 0);
            body = x->mem + d.pos + FRAME_HEAD_BYTES + f.n_items * FRAME_ITEM_BYTES;
            for (uint32_t j = 0; j < f.n_items; j++) {
                struct frame_item item;

                frame_item_read(&item, x->mem + d.pos, j);
                if (item.kind == ITEM_DIRECT) {
                    REQUIRE(n < max && k < x->head.n_placements);
                    out[n].item = item;
                    out[n].head = body;
                    block_placement_read(&out[n++].at, &x->head, x->mem, k++);
                }
                body += frame_item_body(&item);
            }
        }
    }
    return n;
}

/* The slab file and byte of a segment's pos, as the blocks say. */
static struct dev_file *place_of_pos(struct wal_look *l, uint64_t segment, uint64_t pos,
                                     uint64_t *at)
{
    for (unsigned b = 0; b < l->n_blocks; b++) {
        for (uint32_t i = 0; i < l->blocks[b].head.n_placements; i++) {
            struct block_placement p;

            block_placement_read(&p, &l->blocks[b].head, l->blocks[b].mem, i);
            if (p.shard != 0 || p.segment != segment || pos < p.pos ||
                pos - p.pos >= seg_extent_room(p.bytes))
                continue;
            *at = place_pos(p.base) + PAGE_BYTES + (pos - p.pos);
            return slabs_file(&l->slabs, p.base, p.bytes);
        }
    }
    return NULL;
}

/* The batch as it lies there, byte by byte: it may go on in another extent. */
static uint8_t *placed_bytes(struct wal_look *l, const struct placed *p)
{
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    uint8_t *mem = mem_new(p->item.bytes);

    for (uint64_t i = 0; i < p->item.bytes;) {
        uint64_t at, n;
        struct dev_file *file = place_of_pos(l, p->at.segment, p->at.pos + i, &at);

        REQUIRE(file != NULL);
        REQUIRE(dev_read(l->dev, file, at / PAGE_BYTES * PAGE_BYTES, page->mem, PAGE_BYTES) >= 0);
        n = PAGE_BYTES - at % PAGE_BYTES;
        n = n < p->item.bytes - i ? n : p->item.bytes - i;
        memcpy(mem + i, page->mem + at % PAGE_BYTES, n);
        i += n;
    }
    buf_unref(page);
    return mem;
}

static void test_a_large_batch_lies_where_its_block_says_and_the_frame_has_its_header(void)
{
    struct shard *s[SHARDS];
    struct placed p[64];
    struct wal_look l;
    struct jrn_sim js;
    unsigned n;

    up(&js, 1, s);
    for (unsigned i = 0; i < 30; i++)
        REQUIRE(call_append(&js, s[i % SHARDS], call_batch(i, 1, i % 2 ? LARGE + i * 1000 : 100),
                            NULL) == 0);
    handles_drop(s);
    jrn_sim_crash(&js, false);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    n = placed_find(&l, p, 64);
    CHECK_EQ(n, 15); /* every second one; the small ones and the catalogue's are inline */
    for (unsigned i = 0; i < n; i++) {
        uint8_t *mem = placed_bytes(&l, &p[i]);
        struct batch_head h;

        CHECK(batch_check(&h, mem, p[i].item.bytes) >= 0 && h.bytes == p[i].item.bytes);
        CHECK_EQ((uint64_t)h.base_offset, p[i].item.base_offset);
        CHECK_EQ(sum_xxh3(mem, p[i].item.bytes, 0), p[i].item.xxh3);
        CHECK(memcmp(mem, p[i].head, BATCH_HEAD_BYTES) == 0);
        CHECK(p[i].at.shard == p[i].item.shard && p[i].at.base == p[i].item.base_offset);
        free(mem);
    }
    wal_look_close(&l);
    jrn_sim_fini(&js);
}

/* Batches taken while a block is in flight go out together: back to back, and only the piece is padded. */
static void test_what_one_block_takes_of_a_group_lies_back_to_back(void)
{
    struct call_append a[12];
    struct shard *s[SHARDS];
    struct placed p[64];
    struct wal_look l;
    struct jrn_sim js;
    unsigned n, together = 0;

    up(&js, 2, s);
    for (unsigned i = 0; i < 12; i++)
        call_append_begin(&js, s[0], call_batch(i, 1, LARGE), &a[i]);
    for (unsigned i = 0; i < 12; i++)
        CHECK_EQ(call_append_end(&js, &a[i]), 0);
    CHECK(atomic_load(&js.st->bytes.direct) < 12 * (LARGE + 200) + 12 * PAGE_BYTES);
    handles_drop(s);
    jrn_sim_crash(&js, false);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    n = placed_find(&l, p, 64);
    REQUIRE(n == 12);
    for (unsigned i = 1; i < n; i++) {
        uint64_t end = p[i - 1].at.pos + p[i - 1].item.bytes;

        CHECK_EQ(p[i].at.segment, p[0].at.segment);
        CHECK(p[i].at.pos == end + SEG_RUN_HEAD_BYTES ||
              p[i].at.pos == (end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES + SEG_RUN_HEAD_BYTES);
        together += p[i].at.pos == end + SEG_RUN_HEAD_BYTES;
    }
    CHECK(together >= 8); /* the first may have gone alone */
    wal_look_close(&l);
    jrn_sim_fini(&js);
}

static void test_without_an_extent_at_hand_a_large_batch_goes_inline(void)
{
    struct shard *s[SHARDS];
    struct jrn_sim js;
    uint64_t end;
    struct call_bytes b;

    up(&js, 3, s);
    committer_return_direct(js.st->committer);
    CHECK_EQ(committer_spare_direct(js.st->committer), 0);
    CHECK_EQ(call_append(&js, s[0], call_batch(1, 1, LARGE), NULL), 0);
    CHECK_EQ(atomic_load(&js.st->bytes.direct), 0);
    CHECK(atomic_load(&js.st->bytes.wal) > LARGE);
    call_wait_ms(&js, 10); /* now there are */
    CHECK_EQ(call_append(&js, s[0], call_batch(2, 1, LARGE), NULL), 0);
    CHECK(atomic_load(&js.st->bytes.direct) > LARGE);
    b = read_all(&js, s[0], &end);
    CHECK_EQ(end, 2);
    free(b.mem);
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

/* --- destage --- */

static bool is_destaged(void *ctx)
{
    struct jrn_sim *js = ctx;

    return destage_idle(js->st->destage) && wal_live(&js->st->wal).closed_bytes == 0;
}

static void roll(struct store *st, void *arg)
{
    committer_roll(st->committer);
}

static void destage(struct store *st, void *arg)
{
    destage_consider(st, true);
}

/* Ends the present WAL extent and destages all that is closed. */
static void destage_all(struct jrn_sim *js)
{
    store_on_keeper(js->st, roll, NULL);
    call_wait_ms(js, 20);
    while (!is_destaged(js)) {
        store_on_keeper(js->st, destage, NULL);
        call_wait_ms(js, 50);
    }
}

static void test_destage_names_direct_batches_and_writes_none_of_their_bytes(void)
{
    struct call_bytes before[SHARDS], after[SHARDS];
    struct shard *s[SHARDS];
    struct jrn_sim js;
    uint64_t end, small = 0;

    up(&js, 4, s);
    for (unsigned i = 0; i < 60; i++) {
        bool large = i % 3 != 0;

        small += large ? 0 : 600;
        REQUIRE(call_append(&js, s[i % 2], call_batch(i, 1, large ? LARGE : 500), NULL) == 0);
    }
    for (unsigned i = 0; i < SHARDS; i++)
        before[i] = read_all(&js, s[i], &end);
    destage_all(&js);
    /* The small ones, an index, a footer, and the catalogue's own segment. */
    CHECK(atomic_load(&js.st->bytes.destage) < small + 64 * 1024);
    CHECK(atomic_load(&js.st->bytes.destage) >= small - 60 * 100);
    for (unsigned life = 0; life < 2; life++) {
        for (unsigned i = 0; i < SHARDS; i++) {
            after[i] = read_all(&js, s[i], &end);
            CHECK_EQ(after[i].n, before[i].n);
            CHECK(after[i].n == before[i].n &&
                  (after[i].n == 0 || memcmp(after[i].mem, before[i].mem, after[i].n) == 0));
            free(after[i].mem);
        }
        handles_drop(s);
        jrn_sim_crash(&js, life == 0); /* also with the rows gone */
        again(&js, s);
    }
    for (unsigned i = 0; i < SHARDS; i++)
        free(before[i].mem);
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_an_open_segment_with_nothing_alive_gives_its_space_back(void)
{
    uint64_t total, before, after;
    struct shard *s[SHARDS];
    struct jrn_sim js;

    up(&js, 5, s);
    slabs_space(&js.st->slabs, &total, &before);
    for (unsigned i = 0; i < 80; i++)
        REQUIRE(call_append(&js, s[0], call_batch(i, 1, 2 * LARGE), NULL) == 0);
    CHECK_EQ(call_trim(&js, s[0], 80), 0);
    slabs_space(&js.st->slabs, &total, &after);
    CHECK(after + ((uint64_t)2 << EXTENT_LOG2) < before);
    destage_all(&js);
    slabs_space(&js.st->slabs, &total, &after);
    /* But for the catalogue's segment, and what the committer has in hand. */
    CHECK(after + ((uint64_t)2 << EXTENT_LOG2) > before);
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

/* --- torn or rotten --- */

/* Two large batches, the second last of all; flips a bit in one of them, and starts again. */
static void damage_one(struct jrn_sim *js, struct shard **s, uint64_t seed, unsigned which)
{
    struct placed p[8];
    struct wal_look l;
    struct dev_file *file;
    uint64_t at;

    up(js, seed, s);
    for (unsigned i = 0; i < 2; i++)
        REQUIRE(call_append(js, s[0], call_batch(i, 1, LARGE), NULL) == 0);
    handles_drop(s);
    jrn_sim_crash(js, false);
    wal_look_open(&l, js);
    REQUIRE(wal_look_scan(&l) >= 0);
    REQUIRE(placed_find(&l, p, 8) == 2);
    file = place_of_pos(&l, p[which].at.segment, p[which].at.pos + LARGE / 2, &at);
    REQUIRE(file != NULL);
    wal_look_flip(&l, file, at);
    wal_look_close(&l);
    again(js, s);
}

static void test_a_last_block_whose_batch_is_not_there_is_the_torn_tail(void)
{
    struct shard *s[SHARDS];
    struct jrn_sim js;
    struct call_bytes b;
    uint64_t end;

    damage_one(&js, s, 6, 1);
    CHECK_EQ(shard_end(s[0]), 1);
    b = read_all(&js, s[0], &end);
    CHECK_EQ(end, 1);
    free(b.mem);
    /* The offset is used again, and that is what is there from now on. */
    REQUIRE(call_append(&js, s[0], call_batch(9, 1, LARGE), &end) == 0);
    CHECK_EQ(end, 1);
    for (unsigned life = 0; life < 2; life++) {
        handles_drop(s);
        jrn_sim_crash(&js, false);
        again(&js, s);
        b = read_all(&js, s[0], &end);
        CHECK_EQ(end, 2);
        CHECK(memmem(b.mem, b.n, "9.0", 3) != NULL);
        free(b.mem);
    }
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_rot_in_a_batch_of_an_earlier_block_loses_that_batch_alone(void)
{
    struct shard *s[SHARDS];
    struct jrn_sim js;
    int rc;

    damage_one(&js, s, 7, 0);
    CHECK_EQ(shard_end(s[0]), 2);
    CHECK_EQ(call_read(&js, s[0], 0, NULL, &rc, NULL), 0);
    CHECK_EQ(rc, E_LOST);
    CHECK_EQ(call_read(&js, s[0], 1, NULL, &rc, NULL), 2);
    CHECK(rc >= 0);
    CHECK_EQ(call_append(&js, s[0], call_batch(9, 1, 10), NULL), 0); /* nobody is read-only */
    destage_all(&js);
    CHECK_EQ(call_read(&js, s[0], 0, NULL, &rc, NULL), 0);
    CHECK_EQ(rc, E_LOST);
    CHECK_EQ(call_read(&js, s[0], 1, NULL, &rc, NULL), 3);
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

TEST_MAIN(T(a_large_batch_lies_where_its_block_says_and_the_frame_has_its_header)
              T(what_one_block_takes_of_a_group_lies_back_to_back)
                  T(without_an_extent_at_hand_a_large_batch_goes_inline)
                      T(destage_names_direct_batches_and_writes_none_of_their_bytes)
                          T(an_open_segment_with_nothing_alive_gives_its_space_back)
                              T(a_last_block_whose_batch_is_not_there_is_the_torn_tail)
                                  T(rot_in_a_batch_of_an_earlier_block_loses_that_batch_alone))
