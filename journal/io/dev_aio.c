/* The real device: a folder, O_DIRECT, libaio for the commit lane, two pools for what blocks.
 *
 * A commit is one io_submit of all its writes (pwrite for one alone), one wait, one fdatasync a file;
 * reads and background work have threads of their own, so that none waits behind another. Where the
 * system refuses O_DIRECT or libaio the same calls go by pwrite; a WARN says, once a device, which
 * promise is weaker. */
#include "journal/io/dev.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "journal/io/gate.h"

enum {
    READ_THREADS_DEFAULT = 4,
    AIO_MAX_EVENTS = 128,       /* in one io_submit; a commit of more goes in turns */
    BACKGROUND_PIECE = 1 << 20, /* so that a long write leaves the device to others */
    IO_PIECE_MAX = 0x7ffff000u, /* what one pread or pwrite takes at most */
};

#ifndef BCACHEFS_STATFS_MAGIC
#define BCACHEFS_STATFS_MAGIC 0xca451a4e
#endif
#define ZFS_STATFS_MAGIC 0x2fc12fc1

static const char lock_name[] = "lock";

struct aio_file {
    struct dev_file file;
    int fd;
    char *name; /* as opened; for the log */
};

struct dev_aio {
    struct dev dev;
    char *path;
    int folder;                            /* fd */
    int lock;                              /* fd; -1: read_only */
    struct pool *readers;                  /* DEV_READ */
    struct gate gate;                      /* between these and the committer */
    struct pool *background;               /* DEV_BACKGROUND */
    io_context_t ctx;                      /* committer; NULL: libaio is refused */
    atomic_bool committing;                /* catches a second committer */
    atomic_bool direct_warned;             /* any */
    atomic_uint n_files;                   /* any; open ones */
    struct iocb iocb[AIO_MAX_EVENTS];      /* committer */
    struct io_event event[AIO_MAX_EVENTS]; /* committer */
};

static struct dev_aio *dev_aio_of(struct dev *d)
{
    return (struct dev_aio *)d;
}

static struct aio_file *dev_aio_file(struct dev_file *f)
{
    return (struct aio_file *)f;
}

static int dev_aio_code(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return E_NOSPACE;
    case ENOENT:
        return E_NOTFOUND;
    case EEXIST:
        return E_EXISTS;
    default:
        return E_IO;
    }
}

/* Names come from listings and command lines, too, so a bad one is an error, not an ASSERT. */
static bool dev_aio_name_ok(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/') && strcmp(name, lock_name) != 0;
}

/* --- transfers --- */

/* The code that a caller gets says less than the system did: here is the rest. */
static int dev_aio_failed(const char *what, const struct aio_file *f, uint64_t pos, int error)
{
    LOG_WARN("dev.failed", F_STR("call", what), F_STR("file", f->name), F_INT("pos", pos),
             F_STR("reason", strerror(error)));
    return error == ENOSPC || error == EDQUOT ? E_NOSPACE : E_IO;
}

static int dev_aio_transfer_failed(const struct dev_io *io, int error)
{
    int code =
        dev_aio_failed(io->write ? "write" : "read", (struct aio_file *)io->file, io->pos, error);

    return io->write ? code : E_IO;
}

static int dev_aio_flush(const struct aio_file *f)
{
    if (fdatasync(f->fd) == 0)
        return 0;
    dev_aio_failed("fdatasync", f, 0, errno);
    return E_IO; /* even for ENOSPC: what was written may be gone */
}

/* Moves all of io in pieces. A short piece goes on only while the rest stays aligned. */
static int dev_aio_move(const struct dev_io *io, uint32_t done, uint32_t piece)
{
    int fd = dev_aio_file(io->file)->fd;

    while (done < io->bytes) {
        uint32_t left = io->bytes - done, want = left < piece ? left : piece;
        uint8_t *mem = (uint8_t *)io->mem + done;
        off_t pos = (off_t)(io->pos + done);
        ssize_t n = io->write ? pwrite(fd, mem, want, pos) : pread(fd, mem, want, pos);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dev_aio_transfer_failed(io, errno);
        if (n == 0 || n % DEV_PAGE)
            return dev_aio_transfer_failed(io, EIO);
        done += (uint32_t)n;
    }
    return 0;
}

/* What every transfer must be: aligned (else it is our bug), and inside the file, which never
 * grows. */
static int dev_aio_check(const struct dev *d, const struct dev_io *io)
{
    ASSERT((uintptr_t)io->mem % DEV_PAGE == 0);
    ASSERT(io->pos % DEV_PAGE == 0 && io->bytes % DEV_PAGE == 0);
    ASSERT(!(io->write && d->read_only));
    if (io->pos > io->file->bytes || io->bytes > io->file->bytes - io->pos)
        return E_IO;
    return 0;
}

static int dev_aio_check_all(const struct dev_req *r)
{
    int rc = 0;

    ASSERT(!(r->n_sync && r->dev->read_only));
    for (unsigned i = 0; i < r->n_io && rc == 0; i++)
        rc = dev_aio_check(r->dev, &r->io[i]);
    return rc;
}

static int dev_aio_move_all(const struct dev_req *r, uint32_t piece)
{
    int rc = 0;

    for (unsigned i = 0; i < r->n_io && rc == 0; i++)
        rc = dev_aio_move(&r->io[i], 0, piece);
    return rc;
}

/* A failed flush is not retried, whatever it says: the kernel may have dropped the pages. */
static int dev_aio_sync_all(const struct dev_req *r)
{
    int rc = 0;

    for (unsigned i = 0; i < r->n_sync && rc == 0; i++)
        rc = dev_aio_flush(dev_aio_file(r->sync[i]));
    return rc;
}

/* --- the commit lane --- */

static void dev_aio_give_up(struct dev_aio *a, int error)
{
    LOG_WARN("dev.no_libaio", F_STR("path", a->path), F_STR("reason", strerror(error)),
             F_STR("weaker", "the writes of one commit run one after another: slower"));
    if (a->ctx)
        io_destroy(a->ctx);
    a->ctx = NULL;
}

/* What one completion says; res is a length or -errno. */
static int dev_aio_judge(const struct dev_io *io, long res)
{
    if (res < 0)
        return dev_aio_transfer_failed(io, (int)-res);
    if ((uint32_t)res == io->bytes)
        return 0;
    if (res == 0 || res % DEV_PAGE)
        return dev_aio_transfer_failed(io, EIO);
    return dev_aio_move(io, (uint32_t)res, IO_PIECE_MAX);
}

/* Waits for n submitted transfers and judges each. Returns only when the kernel has let go of all
 * their memory. */
static int dev_aio_reap(struct dev_aio *a, unsigned n)
{
    int rc = 0;

    while (n > 0) {
        int got = io_getevents(a->ctx, 1, (long)n, a->event, NULL);

        if (got == -EINTR)
            continue;
        ASSERT(got > 0);
        for (int i = 0; i < got; i++) {
            /* libaio keeps -errno in an unsigned */
            int one = dev_aio_judge(a->event[i].data, (long)a->event[i].res);

            if (rc == 0)
                rc = one;
        }
        n -= (unsigned)got;
    }
    return rc;
}

/* Moves n <= AIO_MAX_EVENTS transfers at once. What io_submit does not take goes by pwrite. */
static int dev_aio_submit_some(struct dev_aio *a, const struct dev_io *io, unsigned n)
{
    struct iocb *list[AIO_MAX_EVENTS];
    unsigned sent = 0;
    int error = 0, rc;

    for (unsigned i = 0; i < n; i++) {
        int fd = dev_aio_file(io[i].file)->fd;

        if (io[i].write)
            io_prep_pwrite(&a->iocb[i], fd, io[i].mem, io[i].bytes, (long long)io[i].pos);
        else
            io_prep_pread(&a->iocb[i], fd, io[i].mem, io[i].bytes, (long long)io[i].pos);
        a->iocb[i].data = (void *)(uintptr_t)&io[i];
        list[i] = &a->iocb[i];
    }
    while (sent < n && !error) {
        int took = io_submit(a->ctx, (long)(n - sent), list + sent);

        if (took > 0)
            sent += (unsigned)took;
        else if (took != -EINTR)
            error = took < 0 ? -took : EAGAIN;
    }
    /* Whom the last commit's answers wake has work while this one is on its way. */
    loop_event_wake();
    rc = dev_aio_reap(a, sent);
    for (unsigned i = sent; i < n && rc == 0; i++)
        rc = dev_aio_move(&io[i], 0, IO_PIECE_MAX);
    /* When pwrite did what io_submit refused, libaio is at fault. EAGAIN is a passing shortage. */
    if (error && error != EAGAIN && rc == 0)
        dev_aio_give_up(a, error);
    return rc;
}

static int dev_aio_commit_io(struct dev_aio *a, const struct dev_req *r)
{
    int rc = dev_aio_check_all(r);

    for (unsigned i = 0; i < r->n_io && rc == 0; i += AIO_MAX_EVENTS) {
        unsigned left = r->n_io - i, n = left < AIO_MAX_EVENTS ? left : AIO_MAX_EVENTS;

        /* One alone by pwrite: the kernel ends an asynchronous write on a thread of its own, which has to
         * get a turn first. */
        if (!a->ctx || r->n_io == 1) {
            loop_event_wake();
            return dev_aio_move_all(r, IO_PIECE_MAX);
        }
        rc = dev_aio_submit_some(a, r->io + i, n);
    }
    return rc;
}

static int dev_aio_commit_sync(const struct dev_req *r)
{
#ifdef WEIR_BREAK_NO_SYNC
    /* The negative control of the power-cut test: acks what was never flushed. */
    return 0;
#else
    return dev_aio_sync_all(r);
#endif
}

static struct dev_req *dev_aio_req(struct work *w)
{
    return (struct dev_req *)((char *)w - offsetof(struct dev_req, work));
}

static void dev_aio_commit_done(struct task *t)
{
    struct work *w = (struct work *)((char *)t - offsetof(struct work, task));
    struct dev_req *r = dev_aio_req(w);

    r->done(r);
}

static void dev_aio_commit(struct dev_aio *a, struct dev_req *r)
{
    ASSERT(!atomic_exchange(&a->committing, true));
    gate_commit_begin(&a->gate);
    r->rc = dev_aio_commit_io(a, r);
    if (r->rc == 0)
        r->rc = dev_aio_commit_sync(r);
    gate_commit_end(&a->gate);
    atomic_store(&a->committing, false);
    r->work.task.run = dev_aio_commit_done;
    loop_post(r->loop, &r->work.task);
}

/* --- the pools --- */

static void dev_aio_pool_done(struct work *w)
{
    struct dev_req *r = dev_aio_req(w);

    r->done(r);
}

static void dev_aio_pool_run(struct dev_req *r, uint32_t piece)
{
    r->rc = dev_aio_check_all(r);
    if (r->rc == 0)
        r->rc = dev_aio_move_all(r, piece);
    if (r->rc == 0)
        r->rc = dev_aio_sync_all(r);
}

/* One io, in the pieces that the gate lets through. */
static int dev_aio_read_io(struct gate *g, const struct dev_io *io)
{
    struct dev_io piece = *io;
    uint32_t left = io->bytes;
    int rc = 0;

    for (; left > 0 && rc == 0; left -= piece.bytes) {
        piece.bytes = gate_read_begin(g, left);
        rc = dev_aio_move(&piece, 0, IO_PIECE_MAX);
        gate_read_end(g);
        piece.pos += piece.bytes;
        piece.mem = (uint8_t *)piece.mem + piece.bytes;
    }
    return rc;
}

static void dev_aio_read_run(struct work *w)
{
    struct dev_req *r = dev_aio_req(w);
    struct gate *g = &dev_aio_of(r->dev)->gate;

    r->rc = dev_aio_check_all(r);
    for (unsigned i = 0; i < r->n_io && r->rc == 0; i++)
        r->rc = r->io[i].write ? dev_aio_move(&r->io[i], 0, IO_PIECE_MAX)
                               : dev_aio_read_io(g, &r->io[i]);
    if (r->rc == 0)
        r->rc = dev_aio_sync_all(r);
}

static void dev_aio_background_run(struct work *w)
{
    dev_aio_pool_run(dev_aio_req(w), BACKGROUND_PIECE);
}

static void dev_aio_submit(struct dev *d, struct dev_req *r, enum dev_queue q)
{
    struct dev_aio *a = dev_aio_of(d);

    ASSERT(r->loop && r->done);
    if (q == DEV_COMMIT) {
        dev_aio_commit(a, r);
        return;
    }
    r->work.loop = r->loop;
    r->work.done = dev_aio_pool_done;
    r->work.run = q == DEV_READ ? dev_aio_read_run : dev_aio_background_run;
    pool_submit(q == DEV_READ ? a->readers : a->background, &r->work);
}

/* --- files --- */

/* openat with O_DIRECT, or without where the file system refuses it. */
static int dev_aio_openat(struct dev_aio *a, const char *name, int flags)
{
    int fd;

    flags |= O_CLOEXEC | (a->dev.read_only ? O_RDONLY : O_RDWR);
    fd = openat(a->folder, name, flags | O_DIRECT, 0600);
    if (fd >= 0 || (errno != EINVAL && errno != EOPNOTSUPP))
        return fd;
    /* Some file systems make the name before they look at O_DIRECT: then it is ours, and there. */
    fd = openat(a->folder, name, flags, 0600);
    if (fd < 0 && errno == EEXIST)
        fd = openat(a->folder, name, flags & ~(O_CREAT | O_EXCL));
    if (fd >= 0 && !a->dev.read_only && !atomic_exchange(&a->direct_warned, true))
        LOG_WARN("dev.no_direct_io", F_STR("path", a->path),
                 F_STR("weaker", "the page cache is trusted: rot on the medium can stay unseen"));
    return fd;
}

static struct dev_file *dev_aio_file_new(struct dev_aio *a, const char *name, int fd,
                                         uint64_t bytes)
{
    struct aio_file *f = mem_new(sizeof *f);

    f->file.bytes = bytes;
    f->fd = fd;
    f->name = mem_str(name);
    atomic_fetch_add(&a->n_files, 1);
    return &f->file;
}

static int dev_aio_open_file(struct dev *d, const char *name, struct dev_file **out, struct err *e)
{
    struct dev_aio *a = dev_aio_of(d);
    struct stat st;
    int fd, code;

    if (!dev_aio_name_ok(name))
        return err_set(e, E_INVALID, "%s: not a name for a file of %s", name, a->path);
    fd = dev_aio_openat(a, name, 0);
    if (fd < 0 || fstat(fd, &st) < 0) {
        code = err_set(e, dev_aio_code(errno), "%s/%s: %s", a->path, name, strerror(errno));
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        code = err_set(e, E_INVALID, "%s/%s: not a regular file", a->path, name);
        goto fail;
    }
    *out = dev_aio_file_new(a, name, fd, (uint64_t)st.st_size);
    return 0;
fail:
    if (fd >= 0)
        close(fd);
    return code;
}

/* Writes zeros where fallocate is not to be had. Gives 0 or an errno. */
static int dev_aio_write_zeros(int fd, uint64_t bytes)
{
    uint64_t pos = 0;
    void *mem;
    int error = 0;

    if (ftruncate(fd, (off_t)bytes) < 0)
        return errno;
    if (posix_memalign(&mem, DEV_PAGE, BACKGROUND_PIECE))
        return ENOMEM;
    memset(mem, 0, BACKGROUND_PIECE);
    while (pos < bytes && !error) {
        uint64_t left = bytes - pos, want = left < BACKGROUND_PIECE ? left : BACKGROUND_PIECE;
        ssize_t n = pwrite(fd, mem, want, (off_t)pos);

        if (n < 0 && errno != EINTR)
            error = errno;
        else if (n == 0 || (n > 0 && n % DEV_PAGE))
            error = EIO;
        else if (n > 0)
            pos += (uint64_t)n;
    }
    free(mem);
    return error;
}

/* Gives the file its blocks. 0 or an errno. */
static int dev_aio_allocate(int fd, uint64_t bytes)
{
    int rc;

    if (bytes == 0)
        return 0;
    do
        rc = fallocate(fd, 0, 0, (off_t)bytes);
    while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    return errno == EOPNOTSUPP || errno == ENOSYS ? dev_aio_write_zeros(fd, bytes) : errno;
}

static int dev_aio_create(struct dev *d, const char *name, uint64_t bytes, struct dev_file **out,
                          struct err *e)
{
    struct dev_aio *a = dev_aio_of(d);
    int fd, error;

    ASSERT(!d->read_only && bytes % DEV_PAGE == 0);
    if (!dev_aio_name_ok(name))
        return err_set(e, E_INVALID, "%s: not a name for a file of %s", name, a->path);
    fd = dev_aio_openat(a, name, O_CREAT | O_EXCL);
    if (fd < 0)
        return err_set(e, dev_aio_code(errno), "%s/%s: %s", a->path, name, strerror(errno));
    error = dev_aio_allocate(fd, bytes);
    if (error) {
        close(fd);
        unlinkat(a->folder, name, 0); /* ours since O_EXCL */
        return err_set(e, dev_aio_code(error), "%s/%s: allocating %llu bytes: %s", a->path, name,
                       (unsigned long long)bytes, strerror(error));
    }
    *out = dev_aio_file_new(a, name, fd, bytes);
    return 0;
}

static void dev_aio_close_file(struct dev *d, struct dev_file *f)
{
    struct aio_file *file = dev_aio_file(f);

    close(file->fd);
    free(file->name);
    free(file);
    atomic_fetch_sub(&dev_aio_of(d)->n_files, 1);
}

static int dev_aio_transfer(struct dev *d, const struct dev_io *io)
{
    int rc = dev_aio_check(d, io);

    return rc < 0 ? rc : dev_aio_move(io, 0, IO_PIECE_MAX);
}

static int dev_aio_read(struct dev *d, struct dev_file *f, uint64_t pos, void *mem, uint32_t bytes)
{
    return dev_aio_transfer(
        d, &(struct dev_io){ .file = f, .pos = pos, .mem = mem, .bytes = bytes, .write = false });
}

static int dev_aio_write(struct dev *d, struct dev_file *f, uint64_t pos, const void *mem,
                         uint32_t bytes)
{
    void *from = (void *)(uintptr_t)mem; /* a write only reads it */

    return dev_aio_transfer(
        d, &(struct dev_io){ .file = f, .pos = pos, .mem = from, .bytes = bytes, .write = true });
}

static int dev_aio_sync(struct dev *d, struct dev_file *f)
{
    ASSERT(!d->read_only);
    return dev_aio_flush(dev_aio_file(f));
}

/* --- names --- */

static int dev_aio_rename(struct dev *d, const char *from, const char *to)
{
    int folder = dev_aio_of(d)->folder;

    ASSERT(!d->read_only);
    if (!dev_aio_name_ok(from) || !dev_aio_name_ok(to))
        return E_INVALID;
    return renameat(folder, from, folder, to) < 0 ? dev_aio_code(errno) : 0;
}

static int dev_aio_remove(struct dev *d, const char *name)
{
    ASSERT(!d->read_only);
    if (!dev_aio_name_ok(name))
        return E_INVALID;
    return unlinkat(dev_aio_of(d)->folder, name, 0) < 0 ? dev_aio_code(errno) : 0;
}

static int dev_aio_sync_names(struct dev *d)
{
    ASSERT(!d->read_only);
    return fsync(dev_aio_of(d)->folder) < 0 ? E_IO : 0;
}

static bool dev_aio_is_folder(int folder, const struct dirent *entry)
{
    struct stat st;

    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static int dev_aio_list(struct dev *d, void (*fn)(void *ctx, const char *name), void *ctx)
{
    int folder = dev_aio_of(d)->folder, fd, rc;
    const struct dirent *entry;
    DIR *dir;

    fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return E_IO;
    dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return E_IO;
    }
    while (errno = 0, (entry = readdir(dir)))
        if (dev_aio_name_ok(entry->d_name) && !dev_aio_is_folder(folder, entry))
            fn(ctx, entry->d_name);
    rc = errno ? E_IO : 0;
    closedir(dir);
    return rc;
}

static int dev_aio_space(struct dev *d, struct dev_space *s)
{
    struct statvfs v;

    if (fstatvfs(dev_aio_of(d)->folder, &v) < 0)
        return E_IO;
    s->total = (uint64_t)v.f_blocks * v.f_frsize;
    s->free = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}

static const struct dev_ops dev_aio_ops = {
    .submit = dev_aio_submit,
    .open = dev_aio_open_file,
    .create = dev_aio_create,
    .close = dev_aio_close_file,
    .read = dev_aio_read,
    .write = dev_aio_write,
    .sync = dev_aio_sync,
    .rename = dev_aio_rename,
    .remove = dev_aio_remove,
    .sync_names = dev_aio_sync_names,
    .list = dev_aio_list,
    .space = dev_aio_space,
};

/* --- the folder --- */

/* Makes the name of a new folder durable. */
static int dev_aio_sync_parent(const char *path)
{
    char *copy = mem_str(path), *slash = strrchr(copy, '/');
    int fd, rc;

    if (slash)
        slash[slash == copy] = '\0'; /* keeps "/" */
    fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        close(fd);
    free(copy);
    return rc;
}

/* Makes the folder and what is missing above it. */
static int dev_aio_make_folder(const char *path, struct err *e)
{
    char *copy = mem_str(path);
    int rc = 0;

    for (size_t i = 1; path[0] && path[i - 1] && rc == 0; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        copy[i] = '\0';
        if (mkdir(copy, 0700) == 0 ? dev_aio_sync_parent(copy) < 0 : errno != EEXIST)
            rc = err_set(e, dev_aio_code(errno), "%s: %s", copy, strerror(errno));
        copy[i] = path[i];
    }
    free(copy);
    return rc;
}

static int dev_aio_open_folder(struct dev_aio *a, struct err *e)
{
    int rc;

    if (!a->dev.read_only) {
        rc = dev_aio_make_folder(a->path, e);
        if (rc < 0)
            return rc;
    }
    a->folder = open(a->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (a->folder < 0)
        return err_set(e, dev_aio_code(errno), "%s: %s", a->path, strerror(errno));
    return 0;
}

static int dev_aio_lock_refused(struct dev_aio *a, struct err *e)
{
    char pid[24] = { 0 };
    ssize_t n = pread(a->lock, pid, sizeof pid - 1, 0);

    pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
    if (strtol(pid, NULL, 10) == (long)getpid())
        return err_set(e, E_LOCKED, "%s is given twice", a->path);
    return err_set(e, E_LOCKED, "%s is in use by process %s", a->path, pid[0] ? pid : "(unknown)");
}

/* The lock belongs to the open file, not to the process: it goes with our last descriptor, however
 * we end. */
static int dev_aio_take_lock(struct dev_aio *a, struct err *e)
{
    char pid[24];
    int n;

    a->lock = openat(a->folder, lock_name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (a->lock < 0)
        goto fail;
    if (flock(a->lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return dev_aio_lock_refused(a, e);
        goto fail;
    }
    n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(a->lock, 0) < 0 || pwrite(a->lock, pid, (size_t)n, 0) != n) {
        /* A full disk must not keep the server from starting: the lock holds without its text. */
        LOG_WARN("dev.lock_unnamed", F_STR("path", a->path), F_STR("reason", strerror(errno)));
    }
    return 0;
fail:
    return err_set(e, dev_aio_code(errno), "%s/%s: %s", a->path, lock_name, strerror(errno));
}

static void dev_aio_warn_kind(const struct dev_aio *a)
{
    const char *name = NULL;
    const char *weaker = "copy-on-write: an overwrite takes new blocks, so commits are slower and "
                         "can meet a full disk though their place was written before";
    struct statfs s;

    if (fstatfs(a->folder, &s) < 0)
        return;
    switch ((unsigned long)s.f_type & 0xffffffffUL) {
    case TMPFS_MAGIC:
    case RAMFS_MAGIC:
        name = "memory";
        weaker = "all data is lost with power or a reboot";
        break;
    case BTRFS_SUPER_MAGIC:
        name = "btrfs";
        break;
    case BCACHEFS_STATFS_MAGIC:
        name = "bcachefs";
        break;
    case ZFS_STATFS_MAGIC:
        name = "zfs";
        break;
    default:
        return;
    }
    LOG_WARN("dev.weak_file_system", F_STR("path", a->path), F_STR("kind", name),
             F_STR("weaker", weaker));
}

int dev_aio_open(struct dev **out, const char *path, const struct dev_aio_conf *conf, struct err *e)
{
    struct dev_aio *a = mem_new(sizeof *a);
    unsigned n_threads = conf->read_threads ? conf->read_threads : READ_THREADS_DEFAULT;
    int rc;

    a->dev = (struct dev){ .ops = &dev_aio_ops, .read_only = conf->read_only, .threads = true };
    a->path = mem_str(path);
    a->dev.name = a->path;
    a->folder = a->lock = -1;
    gate_init(&a->gate);
    rc = dev_aio_open_folder(a, e);
    if (rc == 0 && !conf->read_only)
        rc = dev_aio_take_lock(a, e);
    if (rc == 0)
        rc = pool_thread_new(&a->readers, n_threads, "dev-read", e);
    if (rc == 0)
        rc = pool_thread_new(&a->background, 1, "dev-background", e);
    if (rc < 0) {
        dev_aio_close(&a->dev);
        return rc;
    }
    if (!conf->read_only) {
        int error = -io_setup(AIO_MAX_EVENTS, &a->ctx);

        dev_aio_warn_kind(a);
        if (error)
            dev_aio_give_up(a, error);
    }
    *out = &a->dev;
    return 0;
}

void dev_aio_close(struct dev *d)
{
    struct dev_aio *a;

    if (!d)
        return;
    a = dev_aio_of(d);
    if (a->readers)
        pool_thread_free(a->readers);
    if (a->background)
        pool_thread_free(a->background);
    gate_fini(&a->gate);
    ASSERT(atomic_load(&a->n_files) == 0);
    if (a->ctx)
        io_destroy(a->ctx);
    if (a->lock >= 0)
        close(a->lock);
    if (a->folder >= 0)
        close(a->folder);
    free(a->path);
    free(a);
}
