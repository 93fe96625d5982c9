/* Rewriting: neighbouring segments that are mostly dead, or small, are copied into one without what
 * is dead, so that deleting a topic gives space back although others lie in the same segments. One
 * at a time; readers never notice. Keeper. */
#ifndef WEIR_JOURNAL_REWRITE_H
#define WEIR_JOURNAL_REWRITE_H

#include "journal/core.h"

struct rewrite;

struct rewrite *rewrite_new(struct store *st);
void rewrite_free(struct rewrite *r);
/* Begins with the segments that gain most, if any do. urgent: the device is full, and every unit
 * counts. */
void rewrite_consider(struct store *st, bool urgent);
bool rewrite_idle(const struct rewrite *r);

#endif
