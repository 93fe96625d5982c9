#include "tests/sim/disk_sim_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"

/* --- small things --- */

const uint8_t sim_zeros[DEV_PAGE];

struct blob *sim_blob_new(const void *mem)
{
    struct blob *b;

    if (!memcmp(mem, sim_zeros, DEV_PAGE))
        return NULL;
    b = malloc(sizeof *b);
    ASSERT(b);
    b->refs = 1;
    b->hash = 0;
    memcpy(b->mem, mem, DEV_PAGE);
    return b;
}

void sim_blob_unref(struct blob *b)
{
    if (b && --b->refs == 0)
        free(b);
}

/* Takes the reference. */
static void blob_set(struct blob **place, struct blob *b)
{
    sim_blob_unref(*place);
    *place = b;
}

/* Makes room for one more member. */
static void *array_room(void *array, unsigned n, unsigned *cap, size_t bytes)
{
    if (n < *cap)
        return array;
    *cap = *cap ? 2 * *cap : 4;
    return mem_grow(array, *cap * bytes);
}

void sim_disk_trace_mix(struct sim_disk *d, uint64_t value)
{
    d->trace = hash_mix(d->trace * 3 + value);
}

uint64_t sim_disk_trace(const struct sim_disk *d)
{
    return d->trace;
}

/* --- pages --- */

static void dirty_add(struct sim_file *f, uint32_t at)
{
    struct page *p = &f->pages[at];

    if (p->dirty_at)
        return;
    f->dirty = array_room(f->dirty, f->n_dirty, &f->cap_dirty, sizeof *f->dirty);
    f->dirty[f->n_dirty++] = at;
    p->dirty_at = f->n_dirty;
}

static void dirty_drop(struct sim_file *f, uint32_t at)
{
    struct page *p = &f->pages[at];
    uint32_t last = f->dirty[--f->n_dirty];

    f->dirty[p->dirty_at - 1] = last;
    f->pages[last].dirty_at = p->dirty_at;
    p->dirty_at = 0;
}

/* Forgets the n oldest. */
static void versions_drop(struct page *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        sim_blob_unref(p->versions[i].blob);
    p->n_versions -= n;
    if (p->n_versions) {
        memmove(p->versions, p->versions + n, p->n_versions * sizeof *p->versions);
        return;
    }
    free(p->versions);
    p->versions = NULL;
    p->cap_versions = 0;
}

static void page_write(struct sim_disk *d, struct sim_file *f, uint32_t at, const void *mem,
                       uint64_t req, bool lands)
{
    struct page *p = &f->pages[at];
    struct blob *b = sim_blob_new(mem);

    /* Zeros over durable zeros leave one state only: prewriting a slab stays cheap. */
    if (!b && !p->dirty_at && !p->durable)
        return;
    p->versions = array_room(p->versions, p->n_versions, &p->cap_versions, sizeof *p->versions);
    p->versions[p->n_versions++] = (struct version){ .blob = b, .serial = ++d->serial, .req = req };
    if (lands) {
        sim_blob_unref(p->before);
        p->before = p->now;
        p->now = sim_blob_ref(b);
    }
    dirty_add(f, at);
}

void sim_file_write(struct sim_disk *d, struct sim_file *f, uint64_t pos, const void *mem,
                    uint32_t bytes, uint64_t req, enum sim_fate fate)
{
    ASSERT(pos % DEV_PAGE == 0 && bytes % DEV_PAGE == 0 && pos + bytes <= f->bytes);
    for (uint32_t i = 0; i < bytes / DEV_PAGE; i++) {
        if (fate == FATE_HALF && rng_chance(&d->rng, 1, 2))
            continue;
        page_write(d, f, (uint32_t)(pos / DEV_PAGE) + i, (const uint8_t *)mem + i * DEV_PAGE, req,
                   fate != FATE_PERHAPS);
    }
}

void sim_file_read(const struct sim_file *f, uint64_t pos, void *mem, uint32_t bytes)
{
    ASSERT(pos % DEV_PAGE == 0 && bytes % DEV_PAGE == 0 && pos + bytes <= f->bytes);
    for (uint32_t i = 0; i < bytes / DEV_PAGE; i++)
        memcpy((uint8_t *)mem + i * DEV_PAGE, sim_blob_mem(f->pages[pos / DEV_PAGE + i].now),
               DEV_PAGE);
}

void sim_file_read_stale(const struct sim_file *f, uint64_t pos, void *mem, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes / DEV_PAGE; i++)
        memcpy((uint8_t *)mem + i * DEV_PAGE, sim_blob_mem(f->pages[pos / DEV_PAGE + i].before),
               DEV_PAGE);
}

/* --- syncs --- */

uint64_t sim_req_begin(struct sim_disk *d)
{
    d->open_reqs =
        array_room(d->open_reqs, d->n_open_reqs, &d->cap_open_reqs, sizeof *d->open_reqs);
    d->open_reqs[d->n_open_reqs++] = ++d->serial;
    return d->serial;
}

void sim_req_answered(struct sim_disk *d, uint64_t req)
{
    for (unsigned i = 0; i < d->n_open_reqs; i++)
        if (d->open_reqs[i] == req) {
            d->open_reqs[i] = d->open_reqs[--d->n_open_reqs];
            return;
        }
}

void sim_sync_begin(struct sim_disk *d, uint64_t req, struct sim_sync *s)
{
    *s = (struct sim_sync){ .serial = d->serial };
    for (unsigned i = 0; i < d->n_open_reqs; i++) {
        if (d->open_reqs[i] == req)
            continue;
        if (!s->open_reqs)
            s->open_reqs = mem_new(d->n_open_reqs * sizeof *s->open_reqs);
        s->open_reqs[s->n_open_reqs++] = d->open_reqs[i];
    }
}

static bool sync_covers(const struct sim_sync *s, const struct version *v)
{
    if (v->serial > s->serial)
        return false;
    for (unsigned i = 0; i < s->n_open_reqs; i++)
        if (s->open_reqs[i] == v->req)
            return false;
    return true;
}

static void page_sync(struct sim_disk *d, struct page *p, const struct sim_sync *s, bool ok)
{
    uint32_t n =
        p->n_versions; /* up to and with the last covered one; those below it are overwritten */

    while (n && !sync_covers(s, &p->versions[n - 1]))
        n--;
    if (!n)
        return;
    if (ok || rng_chance(&d->rng, 1, 2))
        blob_set(&p->durable, sim_blob_ref(p->versions[n - 1].blob));
    else
        d->counts.lost_pages++;
    versions_drop(p, n);
}

void sim_sync_end(struct sim_disk *d, struct sim_file *f, struct sim_sync *s, bool ok)
{
    for (uint32_t i = f->n_dirty; i-- > 0;) {
        uint32_t at = f->dirty[i];
        struct page *p = &f->pages[at];

        page_sync(d, p, s, ok);
        if (!p->n_versions && p->now == p->durable)
            dirty_drop(f, at);
    }
    sim_sync_free(s);
}

void sim_sync_free(struct sim_sync *s)
{
    free(s->open_reqs);
    *s = (struct sim_sync){ 0 };
}

/* --- files and folders --- */

struct sim_file *sim_file_new(uint64_t bytes)
{
    struct sim_file *f = mem_new(sizeof *f);

    f->bytes = bytes;
    f->refs = 1;
    f->pages = mem_new((bytes + DEV_PAGE - 1) / DEV_PAGE * sizeof *f->pages + 1);
    return f;
}

static struct sim_file *file_ref(struct sim_file *f)
{
    f->refs++;
    return f;
}

void sim_file_unref(struct sim_file *f)
{
    if (!f || --f->refs)
        return;
    for (uint64_t i = 0; i < f->bytes / DEV_PAGE; i++) {
        struct page *p = &f->pages[i];

        sim_blob_unref(p->now);
        sim_blob_unref(p->durable);
        sim_blob_unref(p->before);
        for (uint32_t v = 0; v < p->n_versions; v++)
            sim_blob_unref(p->versions[v].blob);
        free(p->versions);
    }
    free(f->pages);
    free(f->dirty);
    free(f);
}

uint64_t sim_file_bytes(const struct sim_file *f)
{
    return f->bytes;
}

struct name *sim_folder_find(const struct folder *fo, const char *name)
{
    for (unsigned i = 0; i < fo->n; i++)
        if (!strcmp(fo->rows[i].name, name))
            return &fo->rows[i];
    return NULL;
}

void sim_folder_put(struct folder *fo, const char *name, struct sim_file *f)
{
    fo->rows = array_room(fo->rows, fo->n, &fo->cap, sizeof *fo->rows);
    fo->rows[fo->n++] = (struct name){ .name = mem_str(name), .file = file_ref(f) };
}

static void folder_take(struct folder *fo, const char *name)
{
    struct name *row = sim_folder_find(fo, name);

    if (!row)
        return;
    free(row->name);
    sim_file_unref(row->file);
    fo->n--;
    memmove(row, row + 1, (size_t)(fo->rows + fo->n - row) * sizeof *row);
}

static void folder_rename(struct folder *fo, const char *from, const char *to)
{
    struct sim_file *f = file_ref(sim_folder_find(fo, from)->file);

    folder_take(fo, from);
    folder_take(fo, to);
    sim_folder_put(fo, to, f);
    sim_file_unref(f);
}

void sim_folder_apply(struct folder *fo, const struct name_change *c)
{
    if (c->op == NAME_CREATE)
        sim_folder_put(fo, c->name, c->file);
    else if (c->op == NAME_RENAME)
        folder_rename(fo, c->name, c->to);
    else
        folder_take(fo, c->name);
}

void sim_folder_free(struct folder *fo)
{
    while (fo->n)
        folder_take(fo, fo->rows[fo->n - 1].name);
    free(fo->rows);
    *fo = (struct folder){ 0 };
}

void sim_folder_copy(struct folder *to, const struct folder *from)
{
    sim_folder_free(to);
    for (unsigned i = 0; i < from->n; i++)
        sim_folder_put(to, from->rows[i].name, from->rows[i].file);
}

static void names_change(struct sim_disk *d, enum name_op op, const char *name, const char *to,
                         struct sim_file *file)
{
    struct sim_names *n = d->names;
    struct name_change c = { .op = op, .name = mem_str(name) };

    c.to = to ? mem_str(to) : NULL;
    c.file = file ? file_ref(file) : NULL;
    n->changes = array_room(n->changes, n->n_changes, &n->cap_changes, sizeof c);
    n->changes[n->n_changes++] = c;
    sim_folder_apply(&n->now, &c);
}

/* Makes the first n changes durable and forgets them all. */
static void names_settle(struct sim_names *n, unsigned keep)
{
    for (unsigned i = 0; i < n->n_changes; i++) {
        struct name_change *c = &n->changes[i];

        if (i < keep)
            sim_folder_apply(&n->durable, c);
        free(c->name);
        free(c->to);
        sim_file_unref(c->file);
    }
    n->n_changes = 0;
}

int sim_disk_open(struct sim_disk *d, const char *name, struct sim_file **out)
{
    struct name *row = sim_folder_find(&d->names->now, name);

    if (!row)
        return E_NOTFOUND;
    *out = file_ref(row->file);
    return 0;
}

int sim_disk_create(struct sim_disk *d, const char *name, uint64_t bytes, struct sim_file **out)
{
    if (sim_folder_find(&d->names->now, name))
        return E_EXISTS;
    if (d->capacity && sim_disk_used(d) + bytes > d->capacity)
        return E_NOSPACE;
    *out = sim_file_new(bytes);
    names_change(d, NAME_CREATE, name, NULL, *out);
    return 0;
}

int sim_disk_rename(struct sim_disk *d, const char *from, const char *to)
{
    if (!sim_folder_find(&d->names->now, from))
        return E_NOTFOUND;
    if (strcmp(from, to))
        names_change(d, NAME_RENAME, from, to, NULL);
    return 0;
}

int sim_disk_remove(struct sim_disk *d, const char *name)
{
    if (!sim_folder_find(&d->names->now, name))
        return E_NOTFOUND;
    names_change(d, NAME_REMOVE, name, NULL, NULL);
    return 0;
}

void sim_disk_sync_names(struct sim_disk *d)
{
    names_settle(d->names, d->names->n_changes);
}

void sim_disk_list(struct sim_disk *d, void (*fn)(void *ctx, const char *name), void *ctx)
{
    struct folder copy = { 0 };
    unsigned first;

    sim_folder_copy(&copy, &d->names->now);
    first = copy.n ? (unsigned)rng_below(&d->rng, copy.n) : 0;
    for (unsigned i = 0; i < copy.n; i++)
        fn(ctx, copy.rows[(first + i) % copy.n].name);
    sim_folder_free(&copy);
}

uint64_t sim_disk_used(const struct sim_disk *d)
{
    uint64_t used = 0;

    for (unsigned i = 0; i < d->names->now.n; i++)
        used += d->names->now.rows[i].file->bytes;
    return used;
}

/* --- power, faults --- */

void sim_disk_join(struct sim_disk *d, struct sim_client *c)
{
    c->next = d->clients;
    d->clients = c;
}

void sim_disk_leave(struct sim_disk *d, struct sim_client *c)
{
    struct sim_client **at = &d->clients;

    while (*at && *at != c)
        at = &(*at)->next;
    if (*at)
        *at = c->next;
}

/* No later operation of a client that was cut can reach the disk, so its requests are over too. */
static void clients_cut(struct sim_disk *d, enum sim_cut how)
{
    for (struct sim_client *c = d->clients; c; c = c->next)
        c->cut(c, how);
    d->n_open_reqs = 0;
}

void sim_disk_power_off(struct sim_disk *d)
{
    if (d->off)
        return;
    d->off = true;
    d->off_armed = false;
    d->counts.power_cuts++;
    clients_cut(d, SIM_CUT_POWER);
    for (struct sim_disk *p = d->peer; p && p != d; p = p->peer)
        if (!p->off)
            sim_disk_power_off(p);
}

void sim_disk_power_off_after(struct sim_disk *d, uint64_t n)
{
    d->off_armed = true;
    d->off_after = n;
}

enum sim_power sim_disk_use(struct sim_disk *d)
{
    if (d->off)
        return SIM_POWER_OFF;
    if (d->before)
        d->before(d->before_ctx);
    if (!d->off_armed || d->off_after-- > 0)
        return SIM_POWER_ON;
    sim_disk_power_off(d);
    return SIM_POWER_FAILS;
}

bool sim_disk_fault(struct sim_disk *d, enum sim_fault f)
{
    bool now = d->faults.nth[f] && --d->faults.nth[f] == 0;

    if (d->faults.chance[f] && rng_chance(&d->rng, d->faults.chance[f], 65536))
        now = true;
    if (now)
        d->counts.faults[f]++;
    return now;
}

bool sim_disk_silent(struct sim_disk *d, enum sim_fault fault, const struct sim_file *f,
                     uint64_t pos, uint64_t bytes, uint64_t to)
{
    struct sim_silent *s;

    if (!sim_disk_fault(d, fault))
        return false;
    d->ledger = mem_grow(d->ledger, (d->n_ledger + 1) * sizeof *d->ledger);
    s = &d->ledger[d->n_ledger++];
    *s = (struct sim_silent){ .fault = fault, .pos = pos, .bytes = bytes, .to = to };
    for (unsigned i = 0; i < d->names->now.n; i++)
        if (d->names->now.rows[i].file == f)
            snprintf(s->name, sizeof s->name, "%s", d->names->now.rows[i].name);
    return true;
}

void sim_disk_unstick(struct sim_disk *d)
{
    for (struct sim_client *c = d->clients; c; c = c->next)
        if (c->unstick)
            c->unstick(c);
}

int sim_disk_rot(struct sim_disk *d, const char *name, uint64_t pos)
{
    struct name *row = sim_folder_find(&d->names->now, name);
    struct page *p;
    struct blob *b;
    uint8_t mem[DEV_PAGE];

    if (!row)
        return E_NOTFOUND;
    if (pos >= row->file->bytes)
        return E_INVALID;
    p = &row->file->pages[pos / DEV_PAGE];
    memcpy(mem, sim_blob_mem(p->durable), DEV_PAGE);
    mem[pos % DEV_PAGE] ^= (uint8_t)(1 << rng_below(&d->rng, 8));
    b = sim_blob_new(mem);
    if (!p->dirty_at)
        blob_set(&p->now, sim_blob_ref(b));
    blob_set(&p->durable, b);
    return 0;
}

/* --- crashes --- */

/* How likely each end of an unsynced page is; one row holds for a whole crash, so that some crashes
 * are clean losses, some lose nothing, and some are a mess. */
struct mood {
    uint8_t drop, keep, any, torn;
};
static const struct mood moods[] = { { 1, 1, 1, 1 }, { 12, 1, 1, 2 }, { 1, 12, 1, 2 },
                                     { 1, 1, 1, 8 }, { 1, 0, 0, 0 },  { 0, 1, 0, 0 } };

static struct blob *page_torn(struct sim_disk *d, const struct page *p, struct rng *r)
{
    uint8_t mem[DEV_PAGE];
    uint64_t first = 0;
    bool torn = false;

    for (unsigned s = 0; s < SECTORS; s++) {
        uint64_t from = rng_below(r, p->n_versions + 1);
        const struct blob *b = from ? p->versions[from - 1].blob : p->durable;

        memcpy(mem + s * SECTOR, sim_blob_mem(b) + s * SECTOR, SECTOR);
        torn = torn || (s && from != first);
        first = s ? first : from;
    }
    d->counts.torn_pages += torn;
    return sim_blob_new(mem);
}

/* A reference on what the page comes back as. */
static struct blob *page_draw(struct sim_disk *d, const struct page *p, struct rng *r,
                              const struct mood *m)
{
    uint64_t at = rng_below(r, m->drop + m->keep + m->any + m->torn);
    uint64_t version;

    if (at < m->drop) {
        d->counts.dropped_pages++;
        return sim_blob_ref(p->durable);
    }
    at -= m->drop;
    if (at >= (uint64_t)m->keep + m->any)
        return page_torn(d, p, r);
    version = at < m->keep ? p->n_versions - 1 : rng_below(r, p->n_versions);
    d->counts.kept_pages++;
    return sim_blob_ref(p->versions[version].blob);
}

static void file_crash(struct sim_disk *d, struct sim_file *f, struct rng *r, const struct mood *m)
{
    while (f->n_dirty) {
        uint32_t at = f->dirty[f->n_dirty - 1];
        struct page *p = &f->pages[at];

        if (p->n_versions) {
            blob_set(&p->durable, page_draw(d, p, r, m));
            versions_drop(p, p->n_versions);
        }
        blob_set(&p->now, sim_blob_ref(p->durable));
        dirty_drop(f, at);
    }
}

static void names_crash(struct sim_disk *d, struct rng *r)
{
    struct sim_names *n = d->names;
    unsigned keep = (unsigned)rng_below(r, n->n_changes + 1);

    d->counts.lost_names += n->n_changes - keep;
    names_settle(n, keep);
    sim_folder_copy(&n->now, &n->durable);
}

void sim_disk_crash(struct sim_disk *d, struct rng *r)
{
    const struct mood *m = &moods[rng_below(r, sizeof moods / sizeof moods[0])];

    clients_cut(d, SIM_CUT_CRASH);
    names_crash(d, r);
    for (unsigned i = 0; i < d->names->now.n; i++)
        file_crash(d, d->names->now.rows[i].file, r, m);
    d->off = d->off_armed = false;
    d->counts.crashes++;
    sim_disk_trace_mix(d, d->counts.crashes);
}

static void disk_kill(struct sim_disk *d, enum sim_cut how)
{
    ASSERT(!d->off);
    clients_cut(d, how);
    d->off_armed = false;
    d->counts.kills++;
}

void sim_disk_kill(struct sim_disk *d)
{
    disk_kill(d, SIM_CUT_KILL);
}

void sim_disk_kill_answering(struct sim_disk *d)
{
    disk_kill(d, SIM_CUT_KILL_ANSWERING);
}

uint64_t sim_disk_unsynced_pages(const struct sim_disk *d)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < d->names->now.n; i++)
        n += d->names->now.rows[i].file->n_dirty;
    return n;
}

struct sim_disk *sim_disk_new(uint64_t seed, uint64_t capacity)
{
    struct sim_disk *d = mem_new(sizeof *d);

    rng_seed(&d->rng, seed);
    d->capacity = capacity;
    d->names = mem_new(sizeof *d->names);
    return d;
}

void sim_disk_free(struct sim_disk *d)
{
    if (!d)
        return;
    ASSERT(!d->clients);
    names_settle(d->names, 0);
    sim_folder_free(&d->names->now);
    sim_folder_free(&d->names->durable);
    free(d->names->changes);
    free(d->names);
    free(d->open_reqs);
    free(d->ledger);
    free(d);
}
