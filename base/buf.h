/* Bytes: plain allocation, and refcounted buffers that may cross threads.
 *
 * Small control structures come from mem_new and friends, which never return NULL: a server that
 * cannot get
 * a few hundred bytes stops with a clear line, and recovers as after a kill. Buffers whose size a
 * peer chooses come from
 * buf_new, which returns NULL, and the caller answers E_NOMEM. */
#ifndef WEIR_BASE_BUF_H
#define WEIR_BASE_BUF_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory; never NULL. Release with free(). */
void *mem_new(size_t bytes);
/* What is written from different cores lies in different ones. */
enum { CACHE_LINE = 64 };
/* The same at a multiple of align, a power of two. */
void *mem_new_aligned(size_t bytes, size_t align);
/* Like realloc(3), never NULL; new bytes are not zeroed. */
void *mem_grow(void *p, size_t bytes);
/* Copies a string; never NULL. */
char *mem_str(const char *s);

enum { BUF_ALIGN = 4096 };

/* Refcounted bytes. mem and cap do not change; len is the writer's until the buffer is shared. */
struct buf {
    atomic_uint refs;
    uint32_t len;
    uint32_t cap;
    uint8_t *mem;
};

/* A buffer of cap bytes (len 0), one reference; NULL when memory is short. Not zeroed. */
struct buf *buf_new(size_t cap);
/* The same, mem aligned to BUF_ALIGN and cap rounded up to it, fit for O_DIRECT. */
struct buf *buf_new_aligned(size_t cap);
/* A buffer holding a copy of bytes; NULL when memory is short. */
struct buf *buf_copy(const void *mem, size_t bytes);
/* Takes one more reference; returns b. Any thread. */
struct buf *buf_ref(struct buf *b);
/* Gives one reference back; frees at the last. NULL is allowed. Any thread. */
void buf_unref(struct buf *b);
/* Gives the system back what is kept of freed large buffers for the next ones. Any thread; after a
 * burst of work. */
void buf_trim(void);
/* Bytes held by all live buffers of the process; for limits and tests. Any thread. */
uint64_t buf_total_bytes(void);

/* A piece of a buffer; whoever holds a slice holds one reference on buf. */
struct slice {
    struct buf *buf;
    const uint8_t *mem;
    uint32_t len;
};

#endif
