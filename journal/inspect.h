/* Looking into a store: offline, or beside the server that writes it. Nothing is ever written.
 *
 * journal.h is for those who serve; this is for those who look (docs/decisions/inspect-header.md).
 * A view is what a start would
 * make of the store at one moment: superblock, rows, and the live WAL replayed over them in memory
 * by the journal's own
 * recovery. A running server goes on meanwhile: what it has freed and used anew since is told apart
 * from damage by looking
 * again, and so a view is opened in several tries if need be. One thread; every call blocks. */
#ifndef WEIR_JOURNAL_INSPECT_H
#define WEIR_JOURNAL_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/batch.h"
#include "format/block.h"
#include "format/row.h"
#include "format/segfile.h"
#include "journal/identity.h"

struct inspect;

/* --- the view ----------------------------------------------------------------------------------
 * */

/* Opens the store in folder path. E_NOTFOUND: there is none; E_CORRUPT, E_VERSION, E_IO; E_BUSY: it
 * changed faster than it could be read. */
int inspect_open(struct inspect **out, const char *path, struct err *e) MUST_USE;
/* NULL is allowed. */
void inspect_close(struct inspect *in);
/* Whether the server has moved its checkpoint, or was started anew, since the view was opened: then
 * what
 * cannot be read may simply be gone. */
bool inspect_moved(struct inspect *in);

struct inspect_info {
    struct uuid store;
    uint64_t generation, starts;
    int64_t created;
    uint64_t ckpt_lsn, end_lsn; /* the live WAL */
    bool torn;           /* an unfinished block lies at its end: cut at the next start, no damage */
    uint64_t wal_extent; /* bytes of one */
    unsigned n_groups, n_slabs;
    uint64_t space, space_free; /* bytes in slabs */
    unsigned device, n_devices; /* its number in its set, and how many there are */
    bool rows_lost;             /* no rows could be read: they were made again from the catalogue */
};
void inspect_info(struct inspect *in, struct inspect_info *info);

/* The rows of the doors whose key begins with prefix, as journal_rows_scan gives them. */
int inspect_rows(struct inspect *in, const void *prefix, size_t prefix_bytes,
                 int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                           size_t value_bytes),
                 void *ctx) MUST_USE;

/* Every row of the view, in key order, as journal/format say (format/row.h). What RocksDB alone knows
 * is in it as much as what the live WAL says. */
int inspect_rows_all(struct inspect *in,
                     int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                               size_t value_bytes),
                     void *ctx) MUST_USE;

/* Makes the rows of the store in folder path anew, from catalogue, segments and WAL, into the
 * RocksDB folder `into`, which must not be there. Writes nothing else. Nobody may serve the store
 * meanwhile. */
int inspect_rebuild_rows(const char *path, const char *into, struct err *e) MUST_USE;

/* Where stored bytes lie. */
struct inspect_place {
    char file[32];
    uint64_t byte;
};

/* In all that follows fn returns 0 to go on; anything else ends the walk and is its result. */

/* --- shards -------------------------------------------------------------------------------------
 * */

struct inspect_shard {
    uint64_t id, group;
    uint8_t kind, class;
    struct row_policy policy;
    int64_t created;     /* ms; 0: unknown */
    uint64_t start, end; /* offsets */
    uint64_t lost;       /* offsets in holes */
    uint64_t cleaned;    /* log compaction has come so far; 0: nowhere */
    uint64_t segment_bytes, wal_bytes;
    uint32_t n_segments, n_runs, n_holes;
    bool catalogue; /* the journal's own */
    bool read_only; /* its group has a loss that nobody has accepted */
    bool tail_lost; /* such a loss may have taken records from end on */
};
/* All, in the order of their ids. */
int inspect_shards(struct inspect *in, int (*fn)(void *ctx, const struct inspect_shard *s),
                   void *ctx) MUST_USE;
/* E_NOTFOUND. */
int inspect_shard(struct inspect *in, uint64_t id, struct inspect_shard *out) MUST_USE;

/* Batches that lie back to back, in a segment (lsn 0) or in the live WAL (segment 0). */
struct inspect_run {
    uint64_t base, end;
    uint64_t segment, pos;
    uint64_t lsn;
    uint64_t bytes;
    int64_t max_ts;
};
/* In offset order: what segments hold, then what the WAL holds. */
int inspect_runs(struct inspect *in, uint64_t shard,
                 int (*fn)(void *ctx, const struct inspect_run *run), void *ctx) MUST_USE;
/* What is missing between start and end. */
int inspect_holes(struct inspect *in, uint64_t shard,
                  int (*fn)(void *ctx, uint64_t start, uint64_t end), void *ctx) MUST_USE;
int inspect_producers(struct inspect *in, uint64_t shard,
                      int (*fn)(void *ctx, int64_t id, const struct row_producer *p),
                      void *ctx) MUST_USE;

/* One stored batch; mem is good until fn returns. */
struct inspect_batch {
    struct inspect_place at;
    uint64_t shard, segment, lsn; /* segment or lsn, as in a run */
    struct batch_head head;
    const uint8_t *mem;
    uint64_t bytes; /* of the batch; when it is damaged, of the rest of its run */
    bool ok;        /* its CRC holds */
};
/* The batches of a run. E_CORRUPT when the run cannot be found any more. A damaged batch ends it.
 * */
int inspect_run_batches(struct inspect *in, uint64_t shard, const struct inspect_run *run,
                        int (*fn)(void *ctx, const struct inspect_batch *b), void *ctx) MUST_USE;

/* --- segments -----------------------------------------------------------------------------------
 * */

struct inspect_segment {
    uint64_t id;
    const struct row_segment *row;
    uint64_t space; /* bytes of its extents */
    uint64_t live;  /* bytes of runs that are not trimmed or deleted */
};
/* All, in the order of their ids. */
int inspect_segments(struct inspect *in, int (*fn)(void *ctx, const struct inspect_segment *s),
                     void *ctx) MUST_USE;
/* E_NOTFOUND. */
int inspect_segment(struct inspect *in, uint64_t id, struct inspect_segment *out) MUST_USE;
/* Its footer as stored. E_NOTFOUND, E_CORRUPT, E_VERSION, E_IO. */
int inspect_footer(struct inspect *in, uint64_t id, struct seg_footer *out) MUST_USE;
/* Its index; good until the view is closed. Made anew from the data where the stored one is
 * damaged. */
int inspect_index(struct inspect *in, uint64_t id, const struct seg_index **out) MUST_USE;

/* Segments of the log, of which those above are pieces, by group and entry; without sums, batches and
 * bytes. group UINT64_MAX: all. */
int inspect_logical(struct inspect *in, uint64_t group,
                    int (*fn)(void *ctx, const struct identity *x), void *ctx) MUST_USE;
/* The one that holds this entry of the group's log, with its identity: over what is alive in it now,
 * wherever it lies. Reads its pieces. E_NOTFOUND: no piece of it is here, or it is from before the log
 * cut segments. */
int inspect_segment_identity(struct inspect *in, uint64_t group, uint64_t entry,
                             struct identity *out) MUST_USE;

/* --- the live WAL -------------------------------------------------------------------------------
 * */

struct inspect_extent {
    struct inspect_place at;
    uint64_t incarnation, first_lsn;
    bool head_damaged;
};
/* All may be NULL. */
struct inspect_wal {
    int (*extent)(void *ctx, const struct inspect_extent *x);
    /* at: the block's first byte; mem is good until the call returns. */
    int (*block)(void *ctx, const struct block_head *h, const uint8_t *mem,
                 const struct inspect_place *at);
    /* The bytes [lsn, end_lsn) were durable once and cannot be read. */
    int (*rot)(void *ctx, uint64_t lsn, uint64_t end_lsn, const struct inspect_place *at);
};
/* From the checkpoint to where the log ended when the view was opened. */
int inspect_wal(struct inspect *in, const struct inspect_wal *calls, void *ctx,
                struct err *e) MUST_USE;

struct inspect_loss {
    uint64_t group, lsn, end_lsn;
    bool accepted;
};
/* What rot has taken from groups. */
int inspect_losses(struct inspect *in, int (*fn)(void *ctx, const struct inspect_loss *l),
                   void *ctx) MUST_USE;

/* --- verifying ----------------------------------------------------------------------------------
 * */

enum inspect_part {
    INSPECT_SUPER = 1,
    INSPECT_SLABS = 2,
    INSPECT_WAL = 4,
    INSPECT_SEGMENTS = 8,
    INSPECT_ROWS = 16, /* rows against catalogue and indexes */
    INSPECT_SPACE = 32,
    INSPECT_ALL = 63
};

struct inspect_damage {
    enum inspect_part part;
    struct inspect_place at;
    uint64_t bytes; /* from there on: what is damaged lies in them */
    uint64_t segment;
    uint64_t lsn, end_lsn;
    char text[200];
};
struct inspect_report {
    struct inspect_damage *list;
    unsigned n;
    /* what was looked at */
    uint64_t super_copies, slabs, wal_extents, wal_blocks, wal_frames, wal_batches, wal_bytes;
    uint64_t segments, runs, batches, segment_bytes, rows, extents;
    bool torn;
};
/* Reads everything that `parts` names and checks each stored byte. segment: only that one (0: all).
 * 0 with the findings in *report,
 * damage or not; E_NOTFOUND: no store, or no such segment; E_IO. What changed meanwhile is looked
 * at again and never
 * reported; E_BUSY when it did so each time. */
int inspect_verify(const char *path, unsigned parts, uint64_t segment,
                   struct inspect_report *report, struct err *e) MUST_USE;
void inspect_report_free(struct inspect_report *report);
/* "wal". Static. */
const char *inspect_part_name(enum inspect_part part);

#endif
