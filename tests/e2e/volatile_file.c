#include "tests/e2e/volatile_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- pages: a sparse array ---- */

enum { CHUNK_PAGES = 512 };

struct chunk {
    uint8_t *page[CHUNK_PAGES];
};

struct pages {
    struct chunk **chunks;
    size_t n_chunks;
};

static uint8_t *pages_get(const struct pages *p, uint64_t index)
{
    uint64_t c = index / CHUNK_PAGES;

    return c < p->n_chunks && p->chunks[c] ? p->chunks[c]->page[index % CHUNK_PAGES] : NULL;
}

/* Where page `index` hangs, or NULL without memory. */
static uint8_t **pages_slot(struct pages *p, uint64_t index)
{
    uint64_t c = index / CHUNK_PAGES;

    if (c >= p->n_chunks) {
        size_t n = c + 64;
        struct chunk **more = realloc(p->chunks, n * sizeof *more);

        if (!more)
            return NULL;
        memset(more + p->n_chunks, 0, (n - p->n_chunks) * sizeof *more);
        p->chunks = more;
        p->n_chunks = n;
    }
    if (!p->chunks[c] && !(p->chunks[c] = calloc(1, sizeof **p->chunks)))
        return NULL;
    return &p->chunks[c]->page[index % CHUNK_PAGES];
}

/* Forgets all pages from `index` on. */
static void pages_drop_from(struct pages *p, uint64_t index)
{
    for (size_t c = index / CHUNK_PAGES; c < p->n_chunks; c++) {
        size_t first = c == index / CHUNK_PAGES ? index % CHUNK_PAGES : 0;

        if (!p->chunks[c])
            continue;
        for (size_t i = first; i < CHUNK_PAGES; i++) {
            free(p->chunks[c]->page[i]);
            p->chunks[c]->page[i] = NULL;
        }
        if (first == 0) {
            free(p->chunks[c]);
            p->chunks[c] = NULL;
        }
    }
}

static void pages_fini(struct pages *p)
{
    pages_drop_from(p, 0);
    free(p->chunks);
    *p = (struct pages){ 0 };
}

/* Calls fn for each page until it returns non-zero. */
static int pages_each(struct pages *p, int (*fn)(void *ctx, uint64_t index, uint8_t *page),
                      void *ctx)
{
    int rc;

    for (size_t c = 0; c < p->n_chunks; c++) {
        if (!p->chunks[c])
            continue;
        for (size_t i = 0; i < CHUNK_PAGES; i++) {
            uint8_t *page = p->chunks[c]->page[i];

            if (page && (rc = fn(ctx, (uint64_t)c * CHUNK_PAGES + i, page)) != 0)
                return rc;
        }
    }
    return 0;
}

/* ---- files ---- */

struct vfile {
    struct vfile *next; /* table_lock */
    ino_t ino;
    int fd;
    unsigned opens;            /* table_lock */
    pthread_mutex_t sync_lock; /* one sync or truncation at a time; taken before lock */
    pthread_mutex_t lock;      /* guards what follows */
    uint64_t size;             /* as readers see it */
    uint64_t backed;           /* from here on the backing file's bytes were truncated away */
    struct pages dirty;        /* newer than any sync */
    struct pages syncing;      /* taken by the running sync; older than dirty */
};

enum { TABLE = 1024 };
static struct vfile *table[TABLE];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned delay_us;
static atomic_bool cutting;
static pthread_mutex_t delay_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t delay_wake = PTHREAD_COND_INITIALIZER;

void vfile_set_delay(unsigned us)
{
    delay_us = us;
}

/* The disk is busy; a power cut ends the wait. */
static void disk_delay(void)
{
    struct timespec until;

    if (delay_us == 0)
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)delay_us * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&delay_lock);
    while (!atomic_load(&cutting))
        if (pthread_cond_timedwait(&delay_wake, &delay_lock, &until) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&delay_lock);
}

static struct vfile **table_find(ino_t ino)
{
    struct vfile **at = &table[ino % TABLE];

    while (*at && (*at)->ino != ino)
        at = &(*at)->next;
    return at;
}

static struct vfile *vfile_new(int fd, const struct stat *st)
{
    struct vfile *v = calloc(1, sizeof *v);

    if (!v)
        return NULL;
    v->ino = st->st_ino;
    v->fd = fd;
    v->size = v->backed = (uint64_t)st->st_size;
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_init(&v->sync_lock, NULL);
    return v;
}

static void vfile_free(struct vfile *v)
{
    pages_fini(&v->dirty);
    pages_fini(&v->syncing);
    close(v->fd);
    free(v);
}

int vfile_open(int dir, const char *path, int flags, mode_t mode, struct vfile **out)
{
    int fd = openat(dir, path, O_RDWR | O_CLOEXEC | (flags & (O_CREAT | O_EXCL)), mode);
    struct stat st;
    struct vfile **at;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0) {
        close(fd);
        return -EIO;
    }
    pthread_mutex_lock(&table_lock);
    at = table_find(st.st_ino);
    if (*at)
        close(fd);
    else if (!(*at = vfile_new(fd, &st)))
        close(fd);
    if (*at)
        (*at)->opens++;
    *out = *at;
    pthread_mutex_unlock(&table_lock);
    return *out ? 0 : -ENOMEM;
}

/* Forgets *at when it has neither a name nor a user: then nobody can read it, and its inode's
 * number may return. */
static void forget_if_gone(struct vfile **at)
{
    struct vfile *v = *at;
    struct stat st;

    if (!v || v->opens > 0 || fstat(v->fd, &st) < 0 || st.st_nlink > 0)
        return;
    *at = v->next;
    vfile_free(v);
}

void vfile_close(struct vfile *v)
{
    pthread_mutex_lock(&table_lock);
    v->opens--;
    forget_if_gone(table_find(v->ino));
    pthread_mutex_unlock(&table_lock);
}

void vfile_unlinked(ino_t ino)
{
    pthread_mutex_lock(&table_lock);
    forget_if_gone(table_find(ino));
    pthread_mutex_unlock(&table_lock);
}

/* ---- reading and writing ---- */

/* Fills a page with what it holds without dirty. Lock held. */
static int page_load(struct vfile *v, uint64_t index, uint8_t *page)
{
    const uint8_t *held = pages_get(&v->syncing, index);
    uint64_t at = index * VFILE_PAGE;
    ssize_t got = 0;

    if (held) {
        memcpy(page, held, VFILE_PAGE);
        return 0;
    }
    if (at < v->backed) {
        uint64_t want = v->backed - at < VFILE_PAGE ? v->backed - at : VFILE_PAGE;

        got = pread(v->fd, page, want, (off_t)at);
        if (got < 0)
            return -errno;
    }
    memset(page + got, 0, VFILE_PAGE - (size_t)got);
    return 0;
}

/* Gives the page to write into; loads its old bytes unless all of it will be overwritten. Lock
 * held. */
static int page_to_write(struct vfile *v, uint64_t index, bool whole, uint8_t **out)
{
    uint8_t **slot = pages_slot(&v->dirty, index);
    int rc = 0;

    if (!slot)
        return -ENOMEM;
    if (!*slot) {
        uint8_t *page = malloc(VFILE_PAGE);

        if (page && !whole)
            rc = page_load(v, index, page);
        if (!page || rc < 0) {
            free(page);
            return page ? rc : -ENOMEM;
        }
        *slot = page;
    }
    *out = *slot;
    return 0;
}

int vfile_write(struct vfile *v, const void *from, size_t bytes, uint64_t at)
{
    size_t done = 0;
    int rc = 0;

    pthread_mutex_lock(&v->lock);
    while (done < bytes) {
        uint64_t pos = at + done;
        size_t in_page = pos % VFILE_PAGE;
        size_t n = VFILE_PAGE - in_page < bytes - done ? VFILE_PAGE - in_page : bytes - done;
        uint8_t *page;

        rc = page_to_write(v, pos / VFILE_PAGE, n == VFILE_PAGE, &page);
        if (rc < 0)
            break;
        memcpy(page + in_page, (const uint8_t *)from + done, n);
        done += n;
    }
    if (at + done > v->size)
        v->size = at + done;
    pthread_mutex_unlock(&v->lock);
    return done > 0 ? (int)done : rc;
}

/* How many bytes from pos on come from the backing file alone. Lock held. */
static size_t run_of_backing(const struct vfile *v, uint64_t pos, size_t bytes)
{
    uint64_t end = pos;

    while (end < pos + bytes && !pages_get(&v->dirty, end / VFILE_PAGE) &&
           !pages_get(&v->syncing, end / VFILE_PAGE))
        end = (end / VFILE_PAGE + 1) * VFILE_PAGE;
    return end - pos < bytes ? (size_t)(end - pos) : bytes;
}

static int read_backing(const struct vfile *v, uint8_t *to, size_t bytes, uint64_t at)
{
    size_t want = at >= v->backed ? 0 : v->backed - at < bytes ? (size_t)(v->backed - at) : bytes;
    ssize_t got = want ? pread(v->fd, to, want, (off_t)at) : 0;

    if (got < 0)
        return -errno;
    memset(to + got, 0, bytes - (size_t)got);
    return 0;
}

int vfile_read(struct vfile *v, void *to, size_t bytes, uint64_t at)
{
    size_t done = 0;
    int rc = 0;

    pthread_mutex_lock(&v->lock);
    if (at >= v->size)
        bytes = 0;
    else if (bytes > v->size - at)
        bytes = (size_t)(v->size - at);
    while (done < bytes && rc == 0) {
        uint64_t pos = at + done;
        size_t n = run_of_backing(v, pos, bytes - done), in_page = pos % VFILE_PAGE;
        const uint8_t *page = pages_get(&v->dirty, pos / VFILE_PAGE);

        if (n > 0) {
            rc = read_backing(v, (uint8_t *)to + done, n, pos);
        } else {
            n = VFILE_PAGE - in_page < bytes - done ? VFILE_PAGE - in_page : bytes - done;
            memcpy((uint8_t *)to + done,
                   (page ? page : pages_get(&v->syncing, pos / VFILE_PAGE)) + in_page, n);
        }
        done += n;
    }
    pthread_mutex_unlock(&v->lock);
    return rc < 0 ? rc : (int)done;
}

int vfile_truncate(struct vfile *v, uint64_t size)
{
    uint8_t *page;
    int rc = 0;

    pthread_mutex_lock(&v->sync_lock); /* so that syncing is empty */
    pthread_mutex_lock(&v->lock);
    if (size < v->size && size % VFILE_PAGE) {
        rc = page_to_write(v, size / VFILE_PAGE, false, &page);
        if (rc == 0)
            memset(page + size % VFILE_PAGE, 0, VFILE_PAGE - size % VFILE_PAGE);
    }
    if (rc == 0) {
        pages_drop_from(&v->dirty, (size + VFILE_PAGE - 1) / VFILE_PAGE);
        if (size < v->backed)
            v->backed = size;
        v->size = size;
    }
    pthread_mutex_unlock(&v->lock);
    pthread_mutex_unlock(&v->sync_lock);
    return rc;
}

int vfile_allocate(struct vfile *v, int mode, uint64_t at, uint64_t bytes)
{
    if (mode & ~FALLOC_FL_KEEP_SIZE)
        return -EOPNOTSUPP;
    /* Space is taken at once; a longer size is volatile like any write. */
    if (fallocate(v->fd, FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)bytes) < 0)
        return -errno;
    pthread_mutex_lock(&v->lock);
    if (!(mode & FALLOC_FL_KEEP_SIZE) && at + bytes > v->size)
        v->size = at + bytes;
    pthread_mutex_unlock(&v->lock);
    return 0;
}

int vfile_stat(struct vfile *v, struct stat *st)
{
    if (fstat(v->fd, st) < 0)
        return -errno;
    pthread_mutex_lock(&v->lock);
    st->st_size = (off_t)v->size;
    pthread_mutex_unlock(&v->lock);
    return 0;
}

void vfile_fix_size(struct stat *st)
{
    struct vfile *v;

    pthread_mutex_lock(&table_lock);
    v = *table_find(st->st_ino);
    if (v) {
        pthread_mutex_lock(&v->lock);
        st->st_size = (off_t)v->size;
        pthread_mutex_unlock(&v->lock);
    }
    pthread_mutex_unlock(&table_lock);
}

/* ---- syncing ---- */

/* What one page leaves in the backing file, short at the file's end. */
static int put(const struct vfile *v, uint64_t at, const uint8_t *from, size_t bytes, uint64_t size)
{
    if (at >= size)
        return 0;
    if (bytes > size - at)
        bytes = (size_t)(size - at);
    return pwrite(v->fd, from, bytes, (off_t)at) == (ssize_t)bytes ? 0 : -EIO;
}

struct sync_ctx {
    struct vfile *v;
    uint64_t size;
};

static int sync_page(void *ctx, uint64_t index, uint8_t *page)
{
    struct sync_ctx *s = ctx;

    if (atomic_load(&cutting))
        return -EIO;
    return put(s->v, index * VFILE_PAGE, page, VFILE_PAGE, s->size);
}

/* Applies a truncation and then a growth that were only in memory. */
static int sync_size(const struct vfile *v, uint64_t backed, uint64_t size)
{
    struct stat st;

    if (fstat(v->fd, &st) < 0)
        return -errno;
    if (backed < (uint64_t)st.st_size && ftruncate(v->fd, (off_t)backed) < 0)
        return -errno;
    if (size != (uint64_t)st.st_size && ftruncate(v->fd, (off_t)size) < 0)
        return -errno;
    return 0;
}

int vfile_sync(struct vfile *v)
{
    struct sync_ctx s = { .v = v };
    uint64_t backed;
    int rc;

    pthread_mutex_lock(&v->sync_lock);
    pthread_mutex_lock(&v->lock);
    v->syncing = v->dirty; /* what arrives from here on is not covered */
    v->dirty = (struct pages){ 0 };
    s.size = v->size;
    backed = v->backed;
    pthread_mutex_unlock(&v->lock);

    disk_delay();
    rc = atomic_load(&cutting) ? -EIO : sync_size(v, backed, s.size);
    if (rc == 0)
        rc = pages_each(&v->syncing, sync_page, &s);
    if (rc == 0) { /* else the pages stay, for the cut to decide */
        pthread_mutex_lock(&v->lock);
        pages_fini(&v->syncing);
        v->backed = s.size;
        pthread_mutex_unlock(&v->lock);
    }
    pthread_mutex_unlock(&v->sync_lock);
    return rc;
}

void vfile_sync_all(void)
{
    for (unsigned i = 0; i < TABLE; i++)
        for (struct vfile *v = table[i]; v; v = v->next)
            (void)vfile_sync(v);
}

/* ---- the cut ---- */

void vfile_cut_begin(void)
{
    pthread_mutex_lock(&delay_lock);
    atomic_store(&cutting, true);
    pthread_cond_broadcast(&delay_wake);
    pthread_mutex_unlock(&delay_lock);
}

struct fate {
    struct vfile *v;
    struct rng *rng;
    struct vfile_cut *count;
    unsigned keep, tear; /* of 100 */
};

static int fate_of_page(void *ctx, uint64_t index, uint8_t *page)
{
    struct fate *f = ctx;
    uint64_t die = rng_below(f->rng, 100), at = index * VFILE_PAGE;

    if (die < f->keep) {
        f->count->kept++;
        return put(f->v, at, page, VFILE_PAGE, f->v->size);
    }
    if (die >= f->keep + f->tear) {
        f->count->dropped++;
        return 0;
    }
    f->count->torn++;
    for (unsigned i = 0; i < VFILE_PAGE; i += VFILE_SECTOR)
        if (rng_chance(f->rng, 1, 2) && put(f->v, at + i, page + i, VFILE_SECTOR, f->v->size) < 0)
            return -EIO;
    return 0;
}

/* Some cuts keep almost all, some almost nothing: a mean subset alone would leave both ends
 * untried. */
static const unsigned mixes[][2] = { { 45, 10 }, { 90, 8 }, { 5, 10 }, { 20, 60 }, { 0, 0 } };

static void cut_file(struct vfile *v, struct fate *f)
{
    struct stat st;

    f->v = v;
    if (fstat(v->fd, &st) == 0 && v->backed < (uint64_t)st.st_size && rng_chance(f->rng, 1, 2) &&
        ftruncate(v->fd, (off_t)v->backed) < 0)
        abort();
    /* An interrupted sync has put a prefix of its pages where they belong: those stay kept. */
    if (pages_each(&v->syncing, fate_of_page, f) < 0 || pages_each(&v->dirty, fate_of_page, f) < 0)
        abort(); /* the backing folder is full or broken: this test means nothing */
}

void vfile_cut_apply(struct rng *rng, struct vfile_cut *count)
{
    struct fate f = { .rng = rng, .count = count };
    const unsigned *mix = mixes[rng_below(rng, sizeof mixes / sizeof *mixes)];

    f.keep = mix[0];
    f.tear = mix[1];
    for (unsigned i = 0; i < TABLE; i++)
        for (struct vfile *v = table[i]; v; v = v->next)
            cut_file(v, &f);
}
