/* Rewriting: when the device is full, the segment with the least alive in it is copied without what is dead, so that deleting a topic gives
 * space back although others lie in the same segments. One at a time; readers never notice. Keeper. */
#ifndef WEIR_JOURNAL_REWRITE_H
#define WEIR_JOURNAL_REWRITE_H

#include "journal/core.h"

struct rewrite;

struct rewrite *rewrite_new(struct journal *j);
void rewrite_free(struct rewrite *r);
/* Begins with a segment of which less than half is alive, if there is one. */
void rewrite_consider(struct journal *j);
bool rewrite_idle(const struct rewrite *r);

#endif
