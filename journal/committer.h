/* The committer: gathers what all groups have staged into one block, writes it, flushes once, and
 * tells the groups.
 *
 * One per device, on a loop of its own. One block is in flight; the next is taken when its flush
 * has returned, so batches gather by
 * themselves under load and nothing waits at low load. A failed write or flush is the end of the
 * device. */
#ifndef WEIR_JOURNAL_COMMITTER_H
#define WEIR_JOURNAL_COMMITTER_H

#include "journal/core.h"

struct committer;

/* Where a new incarnation begins. */
struct committer_start {
    uint64_t incarnation, salt;
    uint64_t first_lsn;
    uint64_t place, next_place;
    uint64_t prev_place;
    uint64_t before_incarnation, before_end_lsn, before_end_hash;
};
struct committer *committer_new(struct store *st);
/* Writes the first extent's header and the opening block. Blocks; at open. */
int committer_open(struct committer *c, const struct committer_start *s, struct err *e) MUST_USE;
/* Gives appends (a list, of one group or several) to the committer; they end in group_committed on
 * their groups' loops. Any thread. */
void committer_push(struct committer *c, struct append *first, struct append **end);
/* Gives it the extent that it wants in hand, when there is one. Keeper; after any change of free
 * space. */
void committer_feed(struct committer *c);
/* Gives it extents for open segments, as many as it wants in hand, at most so many now. Keeper. */
void committer_feed_direct(struct committer *c, uint64_t most);
/* Takes back those that it has in hand: space is short. Keeper. */
void committer_return_direct(struct committer *c);
/* Makes it go on to another WAL extent, so that open segments can be sealed or freed. Keeper. */
void committer_roll(struct committer *c);
/* The same, if the extent that begins at lsn is still the open one and holds more than the
 * catalogue's frames: what it holds can then be destaged. Any thread; may come to nothing. */
void committer_roll_aged(struct committer *c, uint64_t lsn);
/* While closing: nobody is left who could free an extent. What needs one is answered E_CLOSED
 * instead of waiting for ever. Keeper. */
void committer_starve(struct committer *c);
/* Writes the closing block, if needed, and then posts t to loop. Nothing may be pushed after it. */
void committer_close(struct committer *c, struct loop *loop, struct task *t);
/* Extents that it holds beside those of the WAL's list. Committer's loop, or at rest. */
unsigned committer_spare(struct committer *c);
/* Those of them that are for open segments, which are not counted there. */
unsigned committer_spare_direct(struct committer *c);
void committer_free(struct committer *c);

#endif
