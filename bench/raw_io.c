#include "bench/raw_io.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <libaio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/rng.h"
#include "bench/measure.h"

enum { CHUNK = 4 << 20, DEPTH_MAX = 64, HUGE_BYTES = 2 << 20 };

static void *aligned(size_t bytes)
{
    void *p;

    if (posix_memalign(&p, RAW_PAGE, bytes) != 0)
        measure_die("out of memory");
    return p;
}

static void fill_random(void *mem, size_t bytes)
{
    uint64_t *words = mem;
    struct rng rng;

    rng_seed(&rng, 1);
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        words[i] = rng_u64(&rng);
}

static int open_direct(const char *path, int flags, bool *direct)
{
    int fd = open(path, flags | O_DIRECT | O_CLOEXEC, 0666);

    *direct = fd >= 0;
    if (fd < 0 && errno == EINVAL) {
        fprintf(stderr, "%s: O_DIRECT is refused here: these are figures of the page cache\n",
                path);
        fd = open(path, flags | O_CLOEXEC, 0666);
    }
    if (fd < 0)
        measure_die("%s: %s", path, strerror(errno));
    return fd;
}

static void write_at(const struct raw_file *f, const void *mem, uint32_t bytes, uint64_t pos)
{
    ssize_t n = pwrite(f->fd, mem, bytes, (off_t)pos);

    if (n < 0)
        measure_die("%s: %s", f->path, strerror(errno));
    if (n != (ssize_t)bytes)
        measure_die("%s: a write came short", f->path);
}

static void sync_data(const struct raw_file *f)
{
    if (fdatasync(f->fd) != 0)
        measure_die("%s: %s", f->path, strerror(errno));
}

static uint32_t round_up(uint32_t bytes)
{
    return (bytes + RAW_PAGE - 1) / RAW_PAGE * RAW_PAGE;
}

void raw_create(struct raw_file *f, const char *path, uint64_t bytes, uint32_t max_write)
{
    *f = (struct raw_file){ .path = path };
    f->fd = open_direct(path, O_RDWR | O_CREAT | O_TRUNC, &f->direct);
    f->mem_bytes = max_write > CHUNK ? round_up(max_write) : CHUNK;
    f->bytes = (bytes + f->mem_bytes - 1) / f->mem_bytes * f->mem_bytes;
    f->mem = aligned(f->mem_bytes);
    fill_random(f->mem, f->mem_bytes);
    for (uint64_t pos = 0; pos < f->bytes; pos += f->mem_bytes)
        write_at(f, f->mem, f->mem_bytes, pos);
    if (fsync(f->fd) != 0)
        measure_die("%s: %s", path, strerror(errno));
}

void raw_use_huge(struct raw_file *f)
{
    void *mem;

    if (posix_memalign(&mem, HUGE_BYTES, CHUNK) != 0)
        measure_die("out of memory");
    madvise(mem, CHUNK, MADV_HUGEPAGE);
    fill_random(mem, CHUNK);
    free(f->mem);
    f->mem = mem;
    f->mem_bytes = CHUNK;
}

/* The place of the next write of so many bytes. */
static uint64_t next_pos(struct raw_file *f, uint32_t bytes)
{
    uint64_t pos = f->pos + bytes > f->bytes ? 0 : f->pos;

    f->pos = pos + bytes;
    return pos;
}

double raw_write(struct raw_file *f, uint32_t bytes)
{
    uint32_t whole = round_up(bytes);
    uint64_t pos = next_pos(f, whole);
    double began = measure_now();

    write_at(f, f->mem, whole, pos);
    return measure_now() - began;
}

double raw_write_sync(struct raw_file *f, uint32_t bytes)
{
    double began = measure_now();

    raw_write(f, bytes);
    sync_data(f);
    return measure_now() - began;
}

static void submit(io_context_t ctx, struct raw_file *f, struct iocb *cb, uint32_t bytes, bool read)
{
    long long pos = (long long)next_pos(f, bytes);
    int rc;

    if (read)
        io_prep_pread(cb, f->fd, f->mem, bytes, pos);
    else
        io_prep_pwrite(cb, f->fd, f->mem, bytes, pos);
    rc = io_submit(ctx, 1, &cb);
    if (rc != 1)
        measure_die("io_submit: %s", strerror(rc < 0 ? -rc : EAGAIN));
}

static double stream(struct raw_file *f, uint32_t bytes, unsigned depth, double seconds, bool read)
{
    struct iocb cbs[DEPTH_MAX];
    struct io_event events[DEPTH_MAX];
    io_context_t ctx = NULL;
    double began = measure_now(), end = began + seconds;
    uint64_t done = 0;
    unsigned in_flight = 0;
    int n;

    if (depth == 0 || depth > DEPTH_MAX || io_setup((int)depth, &ctx) != 0)
        measure_die("libaio does not give a queue of %u", depth);
    for (; in_flight < depth; in_flight++)
        submit(ctx, f, &cbs[in_flight], bytes, read);
    while (in_flight > 0) {
        n = io_getevents(ctx, 1, (long)depth, events, NULL);
        if (n < 0)
            measure_die("io_getevents: %s", strerror(-n));
        for (int i = 0; i < n; i++) {
            if (events[i].res != bytes)
                measure_die("%s: a transfer failed or came short", f->path);
            done += bytes;
            if (measure_now() < end)
                submit(ctx, f, events[i].obj, bytes, read);
            else
                in_flight--;
        }
    }
    io_destroy(ctx);
    return (double)done / (measure_now() - began);
}

double raw_stream(struct raw_file *f, uint32_t bytes, unsigned depth, double seconds)
{
    return stream(f, bytes, depth, seconds, false);
}

double raw_read_stream(struct raw_file *f, uint32_t bytes, unsigned depth, double seconds)
{
    return stream(f, bytes, depth, seconds, true);
}

void raw_remove(struct raw_file *f)
{
    close(f->fd);
    unlink(f->path);
    free(f->mem);
    *f = (struct raw_file){ .fd = -1 };
}

static void scan_file(struct raw_scan *s, const char *path, uint8_t *mem, uint64_t max)
{
    bool direct;
    int fd = open_direct(path, O_RDONLY, &direct);
    off_t pos = 0;
    ssize_t n = 1;

    while (n > 0 && s->bytes < max) {
        n = pread(fd, mem, CHUNK, pos);
        if (n < 0)
            measure_die("%s: %s", path, strerror(errno));
        if ((uint64_t)n > max - s->bytes)
            n = (ssize_t)(max - s->bytes);
        s->crc = crc32_iscsi(mem, (int)n, s->crc);
        s->bytes += (uint64_t)n;
        pos += n;
    }
    close(fd);
}

struct raw_scan raw_scan(char *const *paths, unsigned n, uint64_t max)
{
    uint8_t *mem = aligned(CHUNK);
    struct raw_scan s = { .crc = ~0u };
    double began;

    memset(mem, 0, CHUNK);
    began = measure_now();
    for (unsigned i = 0; i < n && s.bytes < max; i++)
        scan_file(&s, paths[i], mem, max);
    s.seconds = measure_now() - began;
    s.crc = ~s.crc;
    free(mem);
    return s;
}
