/* What reading and finding by time share: where a shard's bytes are found. */
#ifndef WEIR_JOURNAL_READ_INT_H
#define WEIR_JOURNAL_READ_INT_H

#include "journal/core.h"

enum {
    COLD_ENTRIES = 32, /* runs of the WAL read in one go */
    READ_AHEAD_PLACES = 4
};

/* A run of the live WAL, or a direct batch of an open segment: where it lies is pinned, or slice is
 * set. */
struct cold_entry {
    struct index_entry entry; /* its direct is not to be followed */
    struct index_direct direct;
    struct wal_extent *extent;
    struct segment *seg;
    struct slice slice;
    struct chunk_place place; /* the chunk that it is in; bytes 0: none */
};

/* A read that goes to the device: on a pool thread, again after each chunk that it had to wait for. */
struct read_work {
    struct work work;
    struct read_done *d;
    struct shard *s;
    bool on;     /* it goes on where one has ended: what comes next is read ahead */
    uint64_t at; /* the offset wanted next */
    uint64_t
        wal_first; /* where the live WAL's part of the shard begins; its end when it has none */
    struct cold_entry cold[COLD_ENTRIES];
    unsigned n_cold;
    struct cold_entry ahead[READ_AHEAD_PLACES]; /* pinned; where to read ahead */
    unsigned n_ahead;
    struct chunk *chunk; /* that it waits for, or has waited for; a reference */
    bool waits;
    struct chunk_wait wait;
};

/* Adds the batches of mem that hold d->from or lie after it, as far as the budget goes. *at: the
 * offset wanted next. check: the bytes come from a device (of chunk c: they may have been checked), and
 * the first batch must begin at base: offsets and epochs are not under a batch's CRC.
 * 1: more may follow; 0: the budget is used up; E_LOST: a batch is damaged. */
int read_take(struct read_done *d, uint64_t *at, struct buf *buf, const uint8_t *mem,
              uint64_t bytes, bool check, struct chunk *c, uint64_t base) MUST_USE;
/* Reads from sealed segments: the work's run. */
void read_segment_run(struct work *w);
void read_log_damage(const struct shard *s, const char *where, uint64_t place, uint64_t offset);

/* The chunk of a place. 1: *out, a reference, has been read; 2: read otherwise; 0: it is being read, and
 * there is something to answer, or the work must end now, to be run again; else what reading it gave. */
int read_chunk(struct read_work *rw, const struct chunk_place *p, struct chunk **out) MUST_USE;
/* Has it read before it is asked for; false: enough is being read. */
bool read_ahead(struct read_work *rw, const struct chunk_place *p);

/* Pins where an entry's bytes lie; false: they are not there any more. Home. */
bool read_pin(struct store *st, const struct index_entry *n, struct cold_entry *c);
/* Gives the pin and the slice back. Any thread. */
void read_unpin(struct store *st, struct cold_entry *c);
/* The bytes of an entry, if they are among the recent ones: *slice with a reference. Home. */
bool read_cached(struct shard *s, const struct index_entry *n, struct slice *slice);
/* Reads the bytes of a pinned entry: *buf is new (one reference), and they are at *mem. Blocks.
 * E_LOST: they are damaged, or others. */
int read_wal_run(struct store *st, const struct cold_entry *c, struct buf **buf,
                 const uint8_t **mem) MUST_USE;
/* The run of an index that holds the shard's offset base, or, when none does, NULL. */
const struct seg_run *read_index_run(const struct seg_index *x, uint64_t shard, uint64_t base);

#endif
