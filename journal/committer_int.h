/* What the files of the committer share: committer.c (queue, extents, writing, answers),
 * committer_block.c (laying out a block), committer_direct.c (what goes to open segments). */
#ifndef WEIR_JOURNAL_COMMITTER_INT_H
#define WEIR_JOURNAL_COMMITTER_INT_H

#include "format/block.h"
#include "journal/committer.h"
#include "journal/io/dev.h"

enum {
    MAX_PREV = 4096,
    MAX_ITEMS = 65536,
    DIRECT_GIVEN_MAX = 16,
    DIRECT_WANT_MAX = 8,
    DIRECT_PLACES_MAX = 200 /* of the extents that a segment may have */
};

/* A group's open segment under the present WAL extent: all its extents are of the WAL's size. */
struct direct_open {
    uint64_t segment; /* 0: none yet */
    bool ended;       /* the log has cut its segment: the next batch begins another */
    uint64_t pos;     /* the next piece begins here, a page */
    unsigned n_places;
    unsigned n_known; /* of these the headers are written, or in the request being made */
    uint64_t places[DIRECT_PLACES_MAX];
};

/* Direct batches of one group that lie back to back in a block's request. */
struct direct_piece {
    struct jrn_group *group;
    const struct buf *from; /* the run buffer, */
    uint32_t from_at;       /* and where in it they begin */
    struct buf *buf;        /* a reference: they are its first bytes */
    uint32_t bytes;         /* without the padding */
    uint64_t segment, pos;
};

struct committer {
    struct store *st;
    struct loop *loop;
    /* any thread, under lock */
    pthread_mutex_t lock;
    struct append *queue, **queue_end;
    bool wake_posted, gone;
    bool starved;      /* no extent will come any more */
    uint64_t given[4]; /* extents the keeper has given */
    unsigned n_given;
    uint64_t direct_given[DIRECT_GIVEN_MAX]; /* the same for open segments */
    unsigned n_direct_given;
    unsigned direct_want; /* so many are wanted in hand */
    uint64_t roll_lsn;    /* of the extent to be left for its age; 0: none */
    bool roll_asked;      /* go on to another extent, and to new open segments, soon */
    /* committer */
    struct task wake;
    struct append *taken, **taken_end; /* out of the queue, not yet in a block */
    bool in_flight;
    uint64_t incarnation, salt, extent_no;
    uint64_t place, next_place, prev_place;
    uint64_t extent_lsn; /* first LSN of the present extent */
    uint64_t lsn;        /* where the next block goes */
    uint64_t durable_lsn;
    uint64_t prev_hash, prev_lsn; /* of the block before */
    bool extent_data;             /* it holds frames of doors' shards */
    bool extent_new;              /* its header is not written yet */
    bool closing_written;
    uint64_t before_incarnation, before_end_lsn, before_end_hash;
    struct block_prev *prev; /* what the last block held */
    uint32_t n_prev;
    struct jrn_group **in_block; /* groups with something in the block being made */
    unsigned n_in_block;
    struct append *barriers, **barriers_end;
    struct append **order; /* scratch for sorting a frame */
    /* the block's direct part */
    uint64_t direct_bytes;
    uint32_t n_direct;
    struct direct_open **open; /* by group; NULL: it has never had one */
    struct direct_piece *pieces;
    unsigned n_pieces, cap_pieces;
    struct block_placement *touched; /* extents */
    unsigned n_touched, cap_touched;
    /* in flight */
    struct dev_req req;
    struct dev_io *io;
    unsigned n_io, cap_io;
    struct dev_file **sync;
    unsigned n_sync, cap_sync;
    struct buf *block, *head_page, *direct_heads;
    uint64_t block_lsn;
    int64_t block_time;
    uint64_t block_began_us;
    uint32_t block_batches;
    /* Set: the next commit may begin when it fires; wake_posted stays until then. */
    struct loop_timer delay;
    struct loop_timer idle;
    struct task close;
    struct loop *close_loop;
    struct task *close_asked;
    struct task *close_task; /* committer */
};

static inline uint64_t committer_extent_left(const struct committer *c)
{
    return wal_room(&c->st->wal) - (c->lsn - c->extent_lsn);
}

/* --- committer_block.c --- */

/* Moves appends from taken into the groups' parts of the block, up to block_max (one batch at
 * least). Returns the bytes that the block may need at most; 0: nothing to write. */
uint64_t committer_gather(struct committer *c);
/* What was gathered but cannot be written now goes back in front. */
void committer_ungather(struct committer *c);
/* Bytes that a block with nothing in it may need at most. */
uint64_t committer_empty_block(const struct committer *c);
/* Lays the block out in c->block: frames of the gathered groups (none: a closing block). */
void committer_block_make(struct committer *c, uint64_t room, uint32_t flags);

/* --- committer_direct.c --- */

/* Gives every direct batch of the gathered block its place. False: there are not extents enough, and
 * those without are inline from now on: gather again. */
bool committer_direct_place(struct committer *c);
/* Places in a block that holds so many direct batches of so many bytes, at most. */
uint64_t committer_direct_placements(const struct committer *c, uint64_t n, uint64_t bytes,
                                     unsigned n_groups);
/* The most direct bytes in a block of more than one batch. */
uint64_t committer_direct_max(const struct committer *c);
/* Begins new segments with the next direct batch of each group. */
void committer_direct_renew(struct committer *c);
/* The same for one group, whose part of the block has been laid out. */
void committer_direct_cut(struct committer *c, const struct jrn_group *g);
/* Adds the direct part to the request. */
void committer_direct_request(struct committer *c);
/* The request was answered: readers may have it (good), memory goes. */
void committer_direct_done(struct committer *c, bool good);
void committer_direct_free(struct committer *c);

/* --- committer.c: the request being made --- */

void committer_io_add(struct committer *c, struct dev_file *file, uint64_t pos, void *mem,
                      uint32_t bytes);

#endif
