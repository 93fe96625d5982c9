/* Errors: one table for the whole house.
 *
 * A function that can fail returns int: 0 or a count is good, below 0 is one of these codes. The
 * class says
 * what a caller may do. Slow paths (open, config, recovery, admin) add a sentence in struct err. */
#ifndef WEIR_BASE_ERR_H
#define WEIR_BASE_ERR_H

#include <stdint.h>

#define MUST_USE          __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* What a caller may do about an error. */
enum err_class {
    ERR_RETRY,  /* the same call may succeed later */
    ERR_STALE,  /* the caller's view is old: look up again */
    ERR_INPUT,  /* the request is wrong; retrying is useless */
    ERR_DATA,   /* stored bytes are damaged or lost */
    ERR_DEVICE, /* the device or the system failed; someone must act */
    ERR_BUG     /* should not happen */
};

#define ERR_LIST(X)                                                                                \
    X(NOMEM, RETRY, "out of memory")                                                               \
    X(NOSPACE, RETRY, "no space left on the device")                                               \
    X(BUSY, RETRY, "busy, try again")                                                              \
    X(CLOSED, RETRY, "shutting down")                                                              \
    X(CANCELLED, RETRY, "cancelled")                                                               \
    X(TIMEOUT, RETRY, "timed out")                                                                 \
    X(FENCED, STALE, "a newer epoch holds this group")                                             \
    X(NOTFOUND, STALE, "no such thing")                                                            \
    X(DELETED, STALE, "deleted")                                                                   \
    X(EXISTS, INPUT, "exists already")                                                             \
    X(INVALID, INPUT, "invalid argument")                                                          \
    X(TOOBIG, INPUT, "too large")                                                                  \
    X(UNSUPPORTED, INPUT, "not supported")                                                         \
    X(RANGE, INPUT, "offset out of range")                                                         \
    X(SEQUENCE, INPUT, "producer sequence out of order")                                           \
    X(DUPLICATE, INPUT, "producer sequence is older than what is remembered")                      \
    X(PRODUCER_EPOCH, INPUT, "producer epoch is old")                                              \
    X(CORRUPT, DATA, "bytes fail their checksum or make no sense")                                 \
    X(LOST, DATA, "this range of stored records is damaged or lost")                               \
    X(READONLY, DATA, "read-only until an operator accepts a loss")                                \
    X(VERSION, DATA, "written by a newer version")                                                 \
    X(DEVICE, DEVICE, "the device failed")                                                         \
    X(IO, DEVICE, "input/output error")                                                            \
    X(LOCKED, DEVICE, "in use by another process")                                                 \
    X(SYSTEM, DEVICE, "a system call failed")                                                      \
    X(BUG, BUG, "internal error")

/* Codes run from -1000 downwards so that they never meet errno or a protocol's codes. */
enum err_index {
#define X(name, class, text) ERR_AT_##name,
    ERR_LIST(X)
#undef X
        ERR_COUNT
};
enum err_code {
#define X(name, class, text) E_##name = -1000 - ERR_AT_##name,
    ERR_LIST(X)
#undef X
};

/* A sentence for people, beside the code. A zeroed struct says nothing. */
struct err {
    int code;
    char text[256];
};

/* Fills *e (may be NULL) and returns code, so that callers can `return err_set(...)`. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts a prefix ("path: ") before the sentence already in *e. */
void err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* "NOSPACE"; "OK" for >= 0; "UNKNOWN" for what is not in the table. Static. */
const char *err_name(int code);
/* The table's sentence. Static. */
const char *err_text(int code);
enum err_class err_class(int code);

/* ASSERT states what only our own bug can break; it stays on in release. Bytes from disk, wire,
 * config or a peer
 * are never asserted. ASSERT_SLOW runs where WEIR_SLOW_ASSERTS is defined (sanitizer and simulator
 * builds). */
_Noreturn void assert_failed(const char *what, const char *file, int line);
#define ASSERT(x) ((x) ? (void)0 : assert_failed(#x, __FILE__, __LINE__))
#ifdef WEIR_SLOW_ASSERTS
#define ASSERT_SLOW(x) ASSERT(x)
#else
#define ASSERT_SLOW(x) ((void)sizeof(x))
#endif

#endif
