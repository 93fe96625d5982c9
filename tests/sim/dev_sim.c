#include "tests/sim/dev_sim.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum {
    DELAY_LEAST_US = 10,
    DELAY_USUAL_US = 400,
    DELAY_SELDOM_US = 20000,
    SLOW_FACTOR = 100,
    PIECES_MAX = 3,     /* an io lands in so many pieces at most */
    READ_GARBAGE = 0xdb /* what a failed read leaves in memory, lest someone looks at it */
};

struct handle {
    struct dev_file file;
    struct sim_file *of;
    struct handle *prev, *next;
};

/* Pages of one io that land, or are read, in one moment. */
struct piece {
    const struct dev_io *io;
    uint32_t at; /* bytes into the io */
    uint32_t bytes;
    bool fails;
};

struct request {
    struct dev_req *r;
    struct dev_sim *d;
    uint64_t id;
    struct sim_event *event; /* NULL: parked */
    struct piece *pieces;    /* to come */
    unsigned n_pieces;
    unsigned n_synced;
    struct sim_sync sync;
    bool syncing;
    unsigned stuck_in; /* parks before its step of this number; 0: never */
    unsigned factor;
    int rc;
    struct request *prev, *next;
};

struct dev_sim {
    struct dev dev;
    struct sim_client client;
    struct sim *sim;
    struct sim_disk *disk;
    bool dead; /* its process is */
    struct request *requests;
    unsigned n_requests;
    struct handle *handles;
};

static struct dev_sim *self(struct dev *d)
{
    return (struct dev_sim *)d;
}

static struct sim_file *file_of(struct dev_file *f)
{
    return ((struct handle *)f)->of;
}

static bool inside(struct dev_file *f, uint64_t pos, const void *mem, uint64_t bytes)
{
    ASSERT((uintptr_t)mem % DEV_PAGE == 0 && pos % DEV_PAGE == 0 && bytes % DEV_PAGE == 0);
    return pos + bytes <= sim_file_bytes(file_of(f));
}

/* Counts one operation, and makes it part of the trace. */
static enum sim_power use(struct dev_sim *d, uint64_t what)
{
    if (d->dead)
        return SIM_POWER_OFF;
    sim_disk_trace_mix(d->disk, what);
    return sim_disk_use(d->disk);
}

/* --- requests --- */

static void req_step(void *ctx);

static void req_later(struct request *q)
{
    struct rng *r = &q->d->disk->rng;
    uint64_t range = rng_chance(r, 1, 64) ? DELAY_SELDOM_US : DELAY_USUAL_US;

    q->event = sim_at(q->d->sim, (DELAY_LEAST_US + rng_below(r, range)) * q->factor, req_step, q);
}

/* Forgets a request; nobody answers it here. */
static void req_free(struct request *q)
{
    struct dev_sim *d = q->d;

    if (q->event)
        sim_cancel(d->sim, q->event);
    if (q->prev)
        q->prev->next = q->next;
    else
        d->requests = q->next;
    if (q->next)
        q->next->prev = q->prev;
    d->n_requests--;
    sim_req_answered(d->disk, q->id);
    sim_sync_free(&q->sync);
    free(q->pieces);
    free(q);
}

static void answer_run(struct task *t)
{
    struct work *w = (struct work *)((char *)t - offsetof(struct work, task));
    struct dev_req *r = (struct dev_req *)((char *)w - offsetof(struct dev_req, work));

    r->done(r);
}

static void answer(struct dev_req *r, int rc)
{
    r->rc = rc;
    r->work.task.run = answer_run;
    loop_post(r->loop, &r->work.task);
}

/* Cuts the io into pieces, which is where faults of single io are drawn. */
static void req_pieces(struct request *q, const struct dev_io *io)
{
    struct sim_disk *disk = q->d->disk;
    bool fails = sim_disk_fault(disk, io->write ? SIM_FAULT_WRITE : SIM_FAULT_READ);
    uint32_t pages = io->bytes / DEV_PAGE;
    uint32_t n = 1 + (uint32_t)rng_below(&disk->rng, PIECES_MAX);
    uint32_t each = (pages + n - 1) / n * DEV_PAGE;

    for (uint32_t at = 0; at < io->bytes; at += each)
        q->pieces[q->n_pieces++] =
            (struct piece){ io, at, io->bytes - at < each ? io->bytes - at : each, fails };
    if (fails)
        q->rc = E_IO;
}

static void req_cut_up(struct request *q)
{
    q->pieces = mem_new(((size_t)q->r->n_io * PIECES_MAX + 1) * sizeof *q->pieces);
    for (unsigned i = 0; i < q->r->n_io; i++) {
        const struct dev_io *io = &q->r->io[i];

        if (inside(io->file, io->pos, io->mem, io->bytes))
            req_pieces(q, io);
        else
            q->rc = E_IO;
    }
}

static void dev_sim_submit(struct dev *dev, struct dev_req *r, enum dev_queue queue)
{
    struct dev_sim *d = self(dev);
    struct request *q;
    unsigned steps;

    sim_disk_trace_mix(d->disk, (uint64_t)queue);
    if (d->dead || d->disk->off) {
        answer(r, E_IO);
        return;
    }
    q = mem_new(sizeof *q);
    *q = (struct request){ .r = r, .d = d, .id = sim_req_begin(d->disk), .next = d->requests };
    if (q->next)
        q->next->prev = q;
    d->requests = q;
    d->n_requests++;
    req_cut_up(q);
    q->factor = sim_disk_fault(d->disk, SIM_FAULT_SLOW) ? SLOW_FACTOR : 1;
    steps = q->n_pieces + r->n_sync;
    if (sim_disk_fault(d->disk, SIM_FAULT_STUCK))
        q->stuck_in = 1 + (unsigned)rng_below(&d->disk->rng, steps ? steps : 1);
    req_later(q);
}

/* A write that lands, unless it silently does not, or does elsewhere. */
static void write_pages(struct dev_sim *d, struct sim_file *f, uint64_t pos, const void *mem,
                        uint32_t bytes, uint64_t req, enum sim_fate fate)
{
    uint64_t pages = (sim_file_bytes(f) - bytes) / DEV_PAGE + 1, to = pos;

    if (fate == FATE_LANDS && sim_disk_silent(d->disk, SIM_FAULT_LOST, f, pos, bytes, 0))
        return;
    if (fate == FATE_LANDS &&
        (d->disk->faults.nth[SIM_FAULT_ASTRAY] || d->disk->faults.chance[SIM_FAULT_ASTRAY])) {
        to = rng_below(&d->disk->rng, pages) * DEV_PAGE;
        if (!sim_disk_silent(d->disk, SIM_FAULT_ASTRAY, f, pos, bytes, to))
            to = pos;
    }
    sim_file_write(d->disk, f, to, mem, bytes, req, fate);
}

static void piece_write(struct request *q, const struct piece *p, enum sim_fate fate)
{
    ASSERT(!q->d->dev.read_only);
    write_pages(q->d, file_of(p->io->file), p->io->pos + p->at, (const uint8_t *)p->io->mem + p->at,
                p->bytes, q->id, fate);
}

static void read_pages(struct dev_sim *d, struct sim_file *f, uint64_t pos, void *mem,
                       uint32_t bytes)
{
    if (sim_disk_silent(d->disk, SIM_FAULT_STALE, f, pos, bytes, 0))
        sim_file_read_stale(f, pos, mem, bytes);
    else
        sim_file_read(f, pos, mem, bytes);
}

/* One piece, any of those to come, lands or is read. */
static void req_piece(struct request *q)
{
    struct sim_disk *disk = q->d->disk;
    uint64_t at = rng_below(&disk->rng, q->n_pieces);
    struct piece p = q->pieces[at];
    uint8_t *mem = (uint8_t *)p.io->mem + p.at;

    q->pieces[at] = q->pieces[--q->n_pieces];
    sim_disk_trace_mix(disk, p.io->pos + p.at);
    if (p.io->write) {
        disk->counts.writes++;
        disk->counts.bytes_written += p.bytes;
        piece_write(q, &p, p.fails ? FATE_HALF : FATE_LANDS);
        return;
    }
    disk->counts.reads++;
    if (p.fails)
        memset(mem, READ_GARBAGE, p.bytes);
    else
        read_pages(q->d, file_of(p.io->file), p.io->pos + p.at, mem, p.bytes);
}

static int sync_file(struct dev_sim *d, struct dev_file *f, struct sim_sync *s)
{
    bool ok = !sim_disk_fault(d->disk, SIM_FAULT_SYNC);

    d->disk->counts.syncs++;
    if (ok &&
        sim_disk_silent(d->disk, SIM_FAULT_LIE, file_of(f), 0, sim_file_bytes(file_of(f)), 0)) {
        sim_sync_free(s);
        return 0;
    }
    sim_sync_end(d->disk, file_of(f), s, ok);
    return ok ? 0 : E_IO;
}

static void req_sync(struct request *q)
{
    q->syncing = false;
    q->rc = sync_file(q->d, q->r->sync[q->n_synced++], &q->sync);
}

static void req_step(void *ctx)
{
    struct request *q = ctx;
    struct dev_req *r = q->r;
    int rc;

    q->event = NULL;
    if (q->stuck_in && --q->stuck_in == 0)
        return;
    if (use(q->d, q->id) != SIM_POWER_ON)
        return; /* dev_sim_cut has answered it */
    if (q->n_pieces)
        req_piece(q);
    else if (q->syncing)
        req_sync(q);
    if (q->n_pieces) {
        req_later(q);
    } else if (!q->rc && q->n_synced < r->n_sync) {
        sim_sync_begin(q->d->disk, q->id, &q->sync);
        q->syncing = true;
        req_later(q);
    } else {
        rc = q->rc;
        req_free(q);
        answer(r, rc);
    }
}

static void dev_sim_cut(struct sim_client *c, enum sim_cut how)
{
    struct dev_sim *d = (struct dev_sim *)((char *)c - offsetof(struct dev_sim, client));

    while (d->requests) {
        struct request *q = d->requests;
        struct dev_req *r = q->r;

        for (unsigned i = 0; i < q->n_pieces; i++)
            if (q->pieces[i].io->write)
                piece_write(q, &q->pieces[i],
                            how == SIM_CUT_POWER || how == SIM_CUT_CRASH ? FATE_PERHAPS
                                                                         : FATE_HALF);
        req_free(q);
        if (how == SIM_CUT_POWER || how == SIM_CUT_KILL_ANSWERING)
            answer(r, E_IO);
    }
    if (how != SIM_CUT_POWER)
        d->dead = true;
}

static void dev_sim_unstick(struct sim_client *c)
{
    struct dev_sim *d = (struct dev_sim *)((char *)c - offsetof(struct dev_sim, client));

    for (struct request *q = d->requests; q; q = q->next)
        if (!q->event)
            req_later(q);
}

/* --- blocking calls --- */

static bool name_ok(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/');
}

static void handle_new(struct dev_sim *d, struct sim_file *f, struct dev_file **out)
{
    struct handle *h = mem_new(sizeof *h);

    *h = (struct handle){ .file.bytes = sim_file_bytes(f), .of = f, .next = d->handles };
    if (h->next)
        h->next->prev = h;
    d->handles = h;
    *out = &h->file;
}

static void dev_sim_close(struct dev *dev, struct dev_file *f)
{
    struct handle *h = (struct handle *)f;

    if (h->prev)
        h->prev->next = h->next;
    else
        self(dev)->handles = h->next;
    if (h->next)
        h->next->prev = h->prev;
    sim_file_unref(h->of);
    free(h);
}

static int dev_sim_open(struct dev *dev, const char *name, struct dev_file **out, struct err *e)
{
    struct dev_sim *d = self(dev);
    struct sim_file *f;
    int rc = use(d, 'o') == SIM_POWER_ON ? 0 : E_IO;

    if (!rc)
        rc = name_ok(name) ? sim_disk_open(d->disk, name, &f) : E_INVALID;
    if (rc < 0)
        return err_set(e, rc, "%s: %s", name, err_text(rc));
    handle_new(d, f, out);
    return 0;
}

static int create_file(struct dev_sim *d, const char *name, uint64_t bytes, struct sim_file **out)
{
    if (use(d, 'c') != SIM_POWER_ON)
        return E_IO;
    if (!name_ok(name) || bytes % DEV_PAGE)
        return E_INVALID;
    if (sim_disk_fault(d->disk, SIM_FAULT_CREATE))
        return E_NOSPACE;
    return sim_disk_create(d->disk, name, bytes, out);
}

static int dev_sim_create(struct dev *dev, const char *name, uint64_t bytes, struct dev_file **out,
                          struct err *e)
{
    struct dev_sim *d = self(dev);
    struct sim_file *f;
    int rc;

    ASSERT(!dev->read_only);
    rc = create_file(d, name, bytes, &f);
    if (rc < 0)
        return err_set(e, rc, "%s: %s", name, err_text(rc));
    handle_new(d, f, out);
    return 0;
}

static int dev_sim_read(struct dev *dev, struct dev_file *f, uint64_t pos, void *mem,
                        uint32_t bytes)
{
    struct dev_sim *d = self(dev);

    if (use(d, 'r' | pos << 8) != SIM_POWER_ON || !inside(f, pos, mem, bytes))
        return E_IO;
    d->disk->counts.reads++;
    if (sim_disk_fault(d->disk, SIM_FAULT_READ)) {
        memset(mem, READ_GARBAGE, bytes);
        return E_IO;
    }
    read_pages(d, file_of(f), pos, mem, bytes);
    return 0;
}

static int dev_sim_write(struct dev *dev, struct dev_file *f, uint64_t pos, const void *mem,
                         uint32_t bytes)
{
    struct dev_sim *d = self(dev);
    enum sim_power power = use(d, 'w' | pos << 8);
    enum sim_fate fate = FATE_LANDS;

    ASSERT(!dev->read_only);
    if (power == SIM_POWER_OFF || !inside(f, pos, mem, bytes))
        return E_IO;
    if (power == SIM_POWER_FAILS)
        fate = FATE_PERHAPS;
    else if (sim_disk_fault(d->disk, SIM_FAULT_WRITE))
        fate = FATE_HALF;
    d->disk->counts.writes++;
    d->disk->counts.bytes_written += bytes;
    write_pages(d, file_of(f), pos, mem, bytes, 0, fate);
    return fate == FATE_LANDS ? 0 : E_IO;
}

static int dev_sim_sync(struct dev *dev, struct dev_file *f)
{
    struct dev_sim *d = self(dev);
    struct sim_sync s;

    ASSERT(!dev->read_only);
    if (use(d, 's') != SIM_POWER_ON)
        return E_IO;
    sim_sync_begin(d->disk, 0, &s);
    return sync_file(d, f, &s);
}

/* E_IO or 0: whether a change of names may go on. */
static int names_use(struct dev_sim *d, uint64_t what)
{
    ASSERT(!d->dev.read_only);
    if (use(d, what) != SIM_POWER_ON || sim_disk_fault(d->disk, SIM_FAULT_NAMES))
        return E_IO;
    return 0;
}

static int dev_sim_rename(struct dev *dev, const char *from, const char *to)
{
    int rc = names_use(self(dev), 'n');

    if (!rc && (!name_ok(from) || !name_ok(to)))
        rc = E_INVALID;
    return rc ? rc : sim_disk_rename(self(dev)->disk, from, to);
}

static int dev_sim_remove(struct dev *dev, const char *name)
{
    int rc = names_use(self(dev), 'd');

    return rc ? rc : sim_disk_remove(self(dev)->disk, name);
}

static int dev_sim_sync_names(struct dev *dev)
{
    int rc = names_use(self(dev), 'y');

    if (!rc)
        sim_disk_sync_names(self(dev)->disk);
    return rc;
}

static int dev_sim_list(struct dev *dev, void (*fn)(void *ctx, const char *name), void *ctx)
{
    if (use(self(dev), 'l') != SIM_POWER_ON)
        return E_IO;
    sim_disk_list(self(dev)->disk, fn, ctx);
    return 0;
}

static int dev_sim_space(struct dev *dev, struct dev_space *s)
{
    const struct sim_disk *disk = self(dev)->disk;
    uint64_t used = sim_disk_used(disk);

    if (use(self(dev), 'f') != SIM_POWER_ON)
        return E_IO;
    s->total = disk->capacity ? disk->capacity : UINT64_C(1) << 40;
    s->free = s->total > used ? s->total - used : 0;
    return 0;
}

static const struct dev_ops dev_sim_ops = {
    .submit = dev_sim_submit,
    .open = dev_sim_open,
    .create = dev_sim_create,
    .close = dev_sim_close,
    .read = dev_sim_read,
    .write = dev_sim_write,
    .sync = dev_sim_sync,
    .rename = dev_sim_rename,
    .remove = dev_sim_remove,
    .sync_names = dev_sim_sync_names,
    .list = dev_sim_list,
    .space = dev_sim_space,
};

int dev_sim_new(struct dev **out, struct sim *s, struct sim_disk *disk)
{
    struct dev_sim *d = mem_new(sizeof *d);

    d->dev.ops = &dev_sim_ops;
    d->client.cut = dev_sim_cut;
    d->client.unstick = dev_sim_unstick;
    d->sim = s;
    d->disk = disk;
    sim_disk_join(disk, &d->client);
    *out = &d->dev;
    return 0;
}

void dev_sim_free(struct dev *dev)
{
    struct dev_sim *d = dev ? self(dev) : NULL;

    if (!d)
        return;
    while (d->requests)
        req_free(d->requests);
    while (d->handles)
        dev_sim_close(dev, &d->handles->file);
    sim_disk_leave(d->disk, &d->client);
    free(d);
}

unsigned dev_sim_in_flight(const struct dev *d)
{
    return ((const struct dev_sim *)d)->n_requests;
}
