/* The device under the journal: a folder of a few large files, asynchronous requests, explicit
 * flushes.
 *
 * Two stand behind it: dev_aio (libaio, O_DIRECT) and the simulator's (tests/sim/dev_sim.c). Names
 * are relative to the device's folder,
 * without slashes. Memory, positions and lengths of reads and writes are multiples of 4096. */
#ifndef WEIR_JOURNAL_IO_DEV_H
#define WEIR_JOURNAL_IO_DEV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

enum { DEV_PAGE = 4096 };

struct dev;
struct dev_file {
    uint64_t bytes; /* its size when opened or created */
};

struct dev_io {
    struct dev_file *file;
    uint64_t pos;
    void *mem;
    uint32_t bytes;
    bool write;
};

/* A request: all io, then (when all succeeded) a flush of each file in sync, then done on loop. */
struct dev_req {
    struct work work; /* the device's */
    struct loop *loop;
    void (*done)(struct dev_req *r);
    struct dev_io *io; /* borrowed until done */
    unsigned n_io;
    struct dev_file **sync; /* borrowed until done */
    unsigned n_sync;
    int rc; /* 0; E_IO: a read, write or flush failed or came short; E_NOSPACE: a write said so */
    struct dev *dev; /* the device's */
    struct dev_req *next;
};

/* COMMIT may block the calling thread, which must be the commit loop's; the others never do. Reads
 * and background work never wait for each other. Long READs give way to commits (gate.h). */
enum dev_queue { DEV_COMMIT, DEV_READ, DEV_BACKGROUND };

struct dev_space {
    uint64_t total; /* of the file system */
    uint64_t free;  /* that we may still take */
};

struct dev_ops {
    void (*submit)(struct dev *d, struct dev_req *r, enum dev_queue q);
    int (*open)(struct dev *d, const char *name, struct dev_file **out, struct err *e);
    int (*create)(struct dev *d, const char *name, uint64_t bytes, struct dev_file **out,
                  struct err *e);
    void (*close)(struct dev *d, struct dev_file *f);
    int (*read)(struct dev *d, struct dev_file *f, uint64_t pos, void *mem, uint32_t bytes);
    int (*write)(struct dev *d, struct dev_file *f, uint64_t pos, const void *mem, uint32_t bytes);
    int (*sync)(struct dev *d, struct dev_file *f);
    int (*rename)(struct dev *d, const char *from, const char *to);
    int (*remove)(struct dev *d, const char *name);
    int (*sync_names)(struct dev *d);
    int (*list)(struct dev *d, void (*fn)(void *ctx, const char *name), void *ctx);
    int (*space)(struct dev *d, struct dev_space *s);
};

struct dev {
    const struct dev_ops *ops;
    const char *name; /* the folder, for people; NULL: none */
    bool read_only;   /* inspection: every write is our bug */
    bool threads;     /* the blocking calls may be made on any thread at once */
};

/* Asynchronous. */
static inline void dev_submit(struct dev *d, struct dev_req *r, enum dev_queue q)
{
    r->dev = d;
    d->ops->submit(d, r, q);
}

/* The rest block: for opening, recovery, and pool threads. 0 or E_IO, E_NOSPACE, E_NOTFOUND,
 * E_EXISTS; E_INVALID: not a name
 * for a file here (empty, with a slash, with a dot in front, or "lock", which is the device's own
 * and never listed). */

/* Opens an existing file. */
static inline MUST_USE int dev_open(struct dev *d, const char *name, struct dev_file **out,
                                    struct err *e)
{
    return d->ops->open(d, name, out, e);
}
/* Creates a file of that size, its blocks allocated and zero to read, though not yet written;
 * durable only after dev_sync
 * of it and dev_sync_names. */
static inline MUST_USE int dev_create(struct dev *d, const char *name, uint64_t bytes,
                                      struct dev_file **out, struct err *e)
{
    return d->ops->create(d, name, bytes, out, e);
}
static inline void dev_close(struct dev *d, struct dev_file *f)
{
    if (f)
        d->ops->close(d, f);
}
static inline MUST_USE int dev_read(struct dev *d, struct dev_file *f, uint64_t pos, void *mem,
                                    uint32_t bytes)
{
    return d->ops->read(d, f, pos, mem, bytes);
}
static inline MUST_USE int dev_write(struct dev *d, struct dev_file *f, uint64_t pos,
                                     const void *mem, uint32_t bytes)
{
    return d->ops->write(d, f, pos, mem, bytes);
}
static inline MUST_USE int dev_sync(struct dev *d, struct dev_file *f)
{
    return d->ops->sync(d, f);
}
/* Atomic in the folder; durable after dev_sync_names. */
static inline MUST_USE int dev_rename(struct dev *d, const char *from, const char *to)
{
    return d->ops->rename(d, from, to);
}
static inline MUST_USE int dev_remove(struct dev *d, const char *name)
{
    return d->ops->remove(d, name);
}
/* Makes creations, renames and removals durable. */
static inline MUST_USE int dev_sync_names(struct dev *d)
{
    return d->ops->sync_names(d);
}
/* Calls fn for each file, in no order. */
static inline MUST_USE int dev_list(struct dev *d, void (*fn)(void *ctx, const char *name),
                                    void *ctx)
{
    return d->ops->list(d, fn, ctx);
}
static inline MUST_USE int dev_space(struct dev *d, struct dev_space *s)
{
    return d->ops->space(d, s);
}

/* --- the real one (dev_aio.c) --- */

struct dev_aio_conf {
    unsigned read_threads; /* [4] */
    bool read_only; /* beside a running server: no lock, no O_DIRECT demanded, nothing written */
};
/* Opens (and creates) folder path and takes its lock file: E_LOCKED names the other process. Where
 * O_DIRECT or libaio is refused, or the
 * file system is copy-on-write (btrfs) or memory (tmpfs), it goes on with what works and logs a
 * WARN that says which promise is weaker. */
int dev_aio_open(struct dev **out, const char *path, const struct dev_aio_conf *conf,
                 struct err *e) MUST_USE;
/* Files must be closed, requests done. */
void dev_aio_close(struct dev *d);

#endif
