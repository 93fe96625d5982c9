/* The superblock: what is written is read, and nothing else is. */
#include "format/super.h"

#include "base/rng.h"
#include "format/sum.h"
#include "tests/check.h"

static struct super one, got;
static uint8_t mem[SUPER_BYTES];

static void super_random(struct rng *r, struct super *s, uint32_t n)
{
    *s = (struct super){ .generation = rng_u64(r),
                         .starts = rng_u64(r),
                         .ckpt_lsn = rng_u64(r),
                         .catalogue_start = rng_u64(r),
                         .wal_extent_log2 = UNIT_LOG2 + (uint32_t)rng_below(r, 15),
                         .created = (int64_t)rng_u64(r),
                         .n_groups = (uint32_t)rng_u64(r),
                         .policy_groups = (uint32_t)rng_u64(r),
                         .catalogue_end = rng_u64(r),
                         .n_devices = (uint16_t)(1 + rng_below(r, SUPER_MAX_DEVICES)),
                         .n = n };
    s->device = (uint16_t)rng_below(r, s->n_devices);
    for (unsigned i = 0; i < sizeof s->store.bytes; i++) {
        s->store.bytes[i] = (uint8_t)rng_u64(r);
        s->set.bytes[i] = (uint8_t)rng_u64(r);
    }
    for (uint32_t i = 0; i < n; i++)
        s->list[i] = (struct super_incarnation){ rng_u64(r), rng_u64(r), rng_u64(r),
                                                 rng_u64(r), rng_u64(r), rng_u64(r) };
}

/* The right sum for a version. */
static void reseal(uint8_t version)
{
    uint64_t sum = sum_xxh3(mem + 16, SUPER_BYTES - 16, version > 1 ? version : 0);

    mem[4] = version;

    for (unsigned i = 0; i < 8; i++)
        mem[8 + i] = (uint8_t)(sum >> 8 * i);
}

static void check_same(const struct super *a, const struct super *b)
{
    CHECK(memcmp(&a->store, &b->store, sizeof a->store) == 0);
    CHECK(a->generation == b->generation && a->starts == b->starts);
    CHECK(a->ckpt_lsn == b->ckpt_lsn && a->catalogue_start == b->catalogue_start);
    CHECK(a->wal_extent_log2 == b->wal_extent_log2 && a->created == b->created);
    CHECK(a->n_groups == b->n_groups && a->catalogue_end == b->catalogue_end);
    CHECK_EQ(a->policy_groups, b->policy_groups);
    CHECK(memcmp(&a->set, &b->set, sizeof a->set) == 0);
    CHECK(a->device == b->device && a->n_devices == b->n_devices);
    REQUIRE(a->n == b->n);
    for (uint32_t i = 0; i < a->n; i++) {
        const struct super_incarnation *x = &a->list[i], *y = &b->list[i];

        CHECK(x->incarnation == y->incarnation && x->salt == y->salt);
        CHECK(x->first_lsn == y->first_lsn && x->end_lsn == y->end_lsn);
        CHECK(x->end_hash == y->end_hash && x->place == y->place);
    }
}

static void test_superblock_is_read_as_written_with_any_number_of_incarnations(void)
{
    struct rng r;

    rng_seed(&r, 1);
    for (uint32_t n = 0; n <= SUPER_MAX_INCARNATIONS; n++) {
        super_random(&r, &one, n);
        super_write(&one, mem);
        REQUIRE(super_read(&got, mem) == 0);
        check_same(&one, &got);
    }
}

static void test_superblock_is_laid_out_as_documented(void)
{
    one = (struct super){ .generation = 0x0102030405060708,
                          .starts = 7,
                          .ckpt_lsn = 4096,
                          .wal_extent_log2 = 23,
                          .n_groups = 4,
                          .n = 2,
                          .catalogue_end = 11 };
    one.list[1].incarnation = 6;
    one.list[1].end_lsn = LSN_OPEN;
    super_write(&one, mem);
    CHECK(memcmp(mem, "WSUP\x02\0\0\0", 8) == 0);
    CHECK(memcmp(mem + 32, "\x08\x07\x06\x05\x04\x03\x02\x01\x07", 9) == 0);
    CHECK(mem[49] == 16 && mem[64] == 23 && mem[68] == 2 && mem[80] == 4 && mem[88] == 11);
    CHECK(mem[128 + 64] == 6);
    CHECK(memcmp(mem + 128 + 64 + 24, "\xff\xff\xff\xff\xff\xff\xff\xff", 8) == 0);
    CHECK(bytes_are_zero(mem + 96, 32));
    CHECK(bytes_are_zero(mem + 256, SUPER_BYTES - 256));
}

static void test_device_and_set_have_their_places(void)
{
    one = (struct super){ .wal_extent_log2 = 20, .device = 3, .n_devices = 5, .n = 0 };
    for (unsigned i = 0; i < 16; i++)
        one.set.bytes[i] = (uint8_t)(i + 1);
    super_write(&one, mem);
    CHECK(memcmp(mem + 96, "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20\3\0\5\0", 20) == 0);
    CHECK(bytes_are_zero(mem + 116, SUPER_BYTES - 116));
    mem[112] = 5; /* there is no such device among five */
    reseal(2);
    CHECK_EQ(super_read(&got, mem), E_CORRUPT);
    mem[112] = 0;
    mem[114] = 16;
    reseal(2);
    CHECK_EQ(super_read(&got, mem), E_CORRUPT);
    mem[114] = 0; /* as stores were written that knew of no set */
    reseal(2);
    CHECK_EQ(super_read(&got, mem), 0);
    CHECK_EQ(got.n_devices, 1);
}

static void test_every_flipped_bit_is_refused(void)
{
    struct rng r;

    rng_seed(&r, 2);
    super_random(&r, &one, 5);
    super_write(&one, mem);
    for (unsigned bit = 0; bit < SUPER_BYTES * 8; bit += bit < 4096 ? 1 : 7) {
        mem[bit / 8] ^= (uint8_t)(1 << bit % 8);
        REQUIRE(super_read(&got, mem) < 0);
        mem[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_EQ(super_read(&got, mem), 0);
}

static void test_newer_version_is_told_from_damage(void)
{
    struct rng r;

    rng_seed(&r, 3);
    super_random(&r, &one, 1);
    super_write(&one, mem);
    reseal(3);
    CHECK_EQ(super_read(&got, mem), E_VERSION);
    mem[4] = 0;
    CHECK_EQ(super_read(&got, mem), E_CORRUPT);
    mem[4] = 3;
    mem[5000] ^= 4;
    CHECK_EQ(super_read(&got, mem), E_CORRUPT);
    mem[5000] ^= 4;
    mem[4] = 4; /* the sum is of version 3: a flipped bit, not a newer store */
    CHECK_EQ(super_read(&got, mem), E_CORRUPT);
}

static void test_counts_and_sizes_out_of_bounds_are_refused(void)
{
    static const uint32_t counts[] = { SUPER_MAX_INCARNATIONS + 1, 1000, 1u << 31, UINT32_MAX };
    static const uint32_t log2s[] = { 0, UNIT_LOG2 - 1, EXTENT_MAX_LOG2 + 1, UINT32_MAX };
    struct rng r;

    rng_seed(&r, 4);
    super_random(&r, &one, 1);
    for (unsigned i = 0; i < 4; i++) {
        super_write(&one, mem);
        for (unsigned k = 0; k < 4; k++)
            mem[68 + k] = (uint8_t)(counts[i] >> 8 * k);
        reseal(2);
        CHECK_EQ(super_read(&got, mem), E_CORRUPT);
        super_write(&one, mem);
        for (unsigned k = 0; k < 4; k++)
            mem[64 + k] = (uint8_t)(log2s[i] >> 8 * k);
        reseal(2);
        CHECK_EQ(super_read(&got, mem), E_CORRUPT);
    }
}

static void test_a_copy_is_whole_only_with_the_bytes_outside_its_sum(void)
{
    static uint8_t again[SUPER_BYTES];
    struct rng r;

    rng_seed(&r, 77);
    super_random(&r, &one, 3);
    one.list[0].first_lsn = 1;
    for (uint8_t version = 1; version <= 2; version++) {
        super_write(&one, mem);
        reseal(version);
        CHECK_EQ(super_read(&got, mem), 0);
        CHECK(super_is_whole(&got, mem, again));
        for (unsigned bit = 0; bit < 16; bit++) { /* the two bytes after the version */
            mem[6 + bit / 8] ^= (uint8_t)(1u << bit % 8);
            CHECK(super_read(&got, mem) < 0 || !super_is_whole(&got, mem, again));
            mem[6 + bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

TEST_MAIN(T(superblock_is_read_as_written_with_any_number_of_incarnations)
              T(superblock_is_laid_out_as_documented) T(device_and_set_have_their_places)
                  T(every_flipped_bit_is_refused) T(newer_version_is_told_from_damage)
                      T(counts_and_sizes_out_of_bounds_are_refused)
                          T(a_copy_is_whole_only_with_the_bytes_outside_its_sum))
