/* Memory of 16 KiB and more, page-aligned, kept for whoever is next.
 *
 * It is cut from chunks that lie in huge pages: to a device such a buffer is one piece, not
 * one per page (a 1 MiB write took 322 us instead of 521), and taking it costs no faults. Sizes are in
 * classes, four to a doubling up to a MiB, then by 2 MiB; a chunk holds one class while any of it is in
 * use, and may then become another's. */
#ifndef WEIR_BASE_LARGE_H
#define WEIR_BASE_LARGE_H

#include <stddef.h>

enum { LARGE_MIN = 16 * 1024 };

/* bytes: LARGE_MIN or more. Aligned to 4096, not zeroed; NULL when memory is short. Any thread. */
void *large_new(size_t bytes);
/* bytes: as asked for. Any thread. */
void large_free(void *mem, size_t bytes);
/* Gives the system back what is kept. Any thread. */
void large_trim(void);
/* Bytes that are mapped, in use or kept. Any thread. */
size_t large_mapped(void);

#endif
