/* Large batches on their way to a group's open segment: copied once, on the group's home loop, into a
 * run buffer, from which the device takes them as they lie there. So copying overlaps with the block
 * in flight.
 *
 * A run buffer holds batches back to back, each behind room for its run's header (format/segfile.h),
 * which the committer fills in; behind the last are zeros to the page's end. The committer closes the
 * buffer when it takes a block from it; home then goes on in another. Appends refer to it as to any
 * batch, so that one of them can still go inline. */
#ifndef WEIR_JOURNAL_DIRECT_H
#define WEIR_JOURNAL_DIRECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum { DIRECT_BUFFER_MAX = 8 << 20 };

struct append;
struct jrn_group;
struct store;

struct direct_buffer {
    pthread_mutex_t lock;
    /* under lock; buf and used are written by home alone */
    struct buf *buf;
    uint32_t used;
    bool closed;
    /* home */
    uint32_t size; /* of the next one */
};

void direct_init(struct direct_buffer *d);
void direct_fini(struct direct_buffer *d);
/* Copies the batch of a checked and numbered append into its group's run buffer and stamps it there,
 * when it is large enough; nothing otherwise. Home. */
void direct_stage(struct jrn_group *g, struct append *a);
/* Lets go of a buffer that was closed: who is quiet keeps none. Home. */
void direct_release(struct direct_buffer *d);
/* Home adds nothing to buf any more, if it is still the present one. Any thread. */
void direct_close(struct direct_buffer *d, const struct buf *buf);

/* From which size on a batch written straight to its segment costs the device less than one that is
 * written inline and again by destage: tries it on a free extent, for some 60 ms at most. Blocks; at
 * open. */
uint32_t direct_probe(struct store *st);

#endif
