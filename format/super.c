#include "format/super.h"

#include <string.h>

#include "base/rd.h"
#include "format/sum.h"

enum { N_DEVICES_POS = 114 };

enum {
    SUPER_MAGIC = 0x50555357, /* "WSUP" */
    SUPER_VERSION = 2,        /* what is written; 1 is read, too */
    SUM_START = 16,
    LIST_START = 128,
    ENTRY_BYTES = 64
};

/* From version 2 on the version seeds the sum: a flipped bit in it is damage, too. */
static uint64_t sum_of(const uint8_t *mem, uint16_t version)
{
    return sum_xxh3(mem + SUM_START, SUPER_BYTES - SUM_START, version > 1 ? version : 0);
}

void super_write(const struct super *s, uint8_t *mem)
{
    struct wr w = wr_of(mem, SUPER_BYTES);

    ASSERT(s->n <= SUPER_MAX_INCARNATIONS);
    memset(mem, 0, SUPER_BYTES);
    wr_u32le(&w, SUPER_MAGIC);
    wr_u16le(&w, SUPER_VERSION);
    wr_u16le(&w, 0);
    wr_u64le(&w, 0);
    wr_bytes(&w, s->store.bytes, sizeof s->store.bytes);
    wr_u64le(&w, s->generation);
    wr_u64le(&w, s->starts);
    wr_u64le(&w, s->ckpt_lsn);
    wr_u64le(&w, s->catalogue_start);
    wr_u32le(&w, s->wal_extent_log2);
    wr_u32le(&w, s->n);
    wr_u64le(&w, (uint64_t)s->created);
    wr_u32le(&w, s->n_groups);
    wr_u32le(&w, s->policy_groups);
    wr_u64le(&w, s->catalogue_end);
    wr_bytes(&w, s->set.bytes, sizeof s->set.bytes);
    wr_u16le(&w, s->device);
    wr_u16le(&w, s->n_devices);
    wr_pad(&w, LIST_START);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct super_incarnation *n = &s->list[i];

        wr_u64le(&w, n->incarnation);
        wr_u64le(&w, n->salt);
        wr_u64le(&w, n->first_lsn);
        wr_u64le(&w, n->end_lsn);
        wr_u64le(&w, n->end_hash);
        wr_u64le(&w, n->place);
        wr_pad(&w, ENTRY_BYTES);
    }
    ASSERT(wr_ok(&w));
    w = wr_of(mem + 8, 8);
    wr_u64le(&w, sum_of(mem, SUPER_VERSION));
}

int super_read(struct super *s, const uint8_t *mem)
{
    struct rd r = rd_of(mem, SUPER_BYTES);
    uint32_t magic = rd_u32le(&r);
    uint16_t version = rd_u16le(&r), reserved = rd_u16le(&r);

    if (magic != SUPER_MAGIC || rd_u64le(&r) != sum_of(mem, version))
        return E_CORRUPT;
    if (version > SUPER_VERSION)
        return E_VERSION;
    if (version == 0)
        return E_CORRUPT;
    if (reserved != 0) /* the sum does not cover it */
        return E_CORRUPT;
    memcpy(s->store.bytes, rd_bytes(&r, sizeof s->store.bytes), sizeof s->store.bytes);
    s->generation = rd_u64le(&r);
    s->starts = rd_u64le(&r);
    s->ckpt_lsn = rd_u64le(&r);
    s->catalogue_start = rd_u64le(&r);
    s->wal_extent_log2 = rd_u32le(&r);
    s->n = rd_u32le(&r);
    s->created = (int64_t)rd_u64le(&r);
    s->n_groups = rd_u32le(&r);
    s->policy_groups = rd_u32le(&r);
    s->catalogue_end = rd_u64le(&r);
    if (s->n > SUPER_MAX_INCARNATIONS || s->wal_extent_log2 < UNIT_LOG2 ||
        s->wal_extent_log2 > EXTENT_MAX_LOG2)
        return E_CORRUPT;
    memcpy(s->set.bytes, rd_bytes(&r, sizeof s->set.bytes), sizeof s->set.bytes);
    s->device = rd_u16le(&r);
    s->n_devices = rd_u16le(&r);
    if (s->n_devices == 0)
        s->n_devices = 1;
    if (s->n_devices > SUPER_MAX_DEVICES || s->device >= s->n_devices)
        return E_CORRUPT;
    rd_bytes(&r, LIST_START - 116);
    for (uint32_t i = 0; i < s->n; i++) {
        struct super_incarnation *n = &s->list[i];

        n->incarnation = rd_u64le(&r);
        n->salt = rd_u64le(&r);
        n->first_lsn = rd_u64le(&r);
        n->end_lsn = rd_u64le(&r);
        n->end_hash = rd_u64le(&r);
        n->place = rd_u64le(&r);
        rd_bytes(&r, ENTRY_BYTES - 48);
    }
    return rd_ok(&r) ? 0 : E_CORRUPT;
}

bool super_is_whole(const struct super *s, const uint8_t *mem, uint8_t *again)
{
    super_write(s, again);
    /* Nobody counted devices before there could be several: zero is one. */
    if (s->n_devices == 1 && mem[N_DEVICES_POS] == 0)
        again[N_DEVICES_POS] = 0;
    /* Version and sum have been checked; the sum depends on the version. */
    return memcmp(mem, again, 4) == 0 && memcmp(mem + 6, again + 6, 2) == 0 &&
           memcmp(mem + SUM_START, again + SUM_START, SUPER_BYTES - SUM_START) == 0;
}
