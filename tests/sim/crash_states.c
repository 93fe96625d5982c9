#include "tests/sim/crash_states.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/buf.h"
#include "tests/sim/disk_sim_int.h"

enum { TORN = -1, PREFIXES_MAX = 6 };

/* A page with more than one state, and which it gets: 0: durable, n: its n-th version, TORN. */
struct open_page {
    const struct sim_file *file;
    uint32_t at;
    int choice;
};

/* One choice of all that is open. */
struct picture {
    struct folder folder; /* with the disk's own files */
    struct open_page *pages;
    unsigned n_pages;
    unsigned n_rows; /* batches kept */
};

/* --- what is open --- */

static void pages_find(struct picture *p)
{
    for (unsigned i = 0; i < p->folder.n; i++) {
        const struct sim_file *f = p->folder.rows[i].file;

        for (uint32_t k = 0; k < f->n_dirty; k++) {
            if (f->pages[f->dirty[k]].n_versions == 0)
                continue;
            p->pages = mem_grow(p->pages, (p->n_pages + 1) * sizeof *p->pages);
            p->pages[p->n_pages++] = (struct open_page){ f, f->dirty[k], 0 };
        }
    }
}

static void picture_init(struct picture *p, const struct crash_states *c, unsigned n_names)
{
    *p = (struct picture){ 0 };
    sim_folder_copy(&p->folder, &c->disk->names->durable);
    for (unsigned i = 0; i < n_names; i++)
        sim_folder_apply(&p->folder, &c->disk->names->changes[i]);
    pages_find(p);
}

static void picture_fini(struct picture *p)
{
    sim_folder_free(&p->folder);
    free(p->pages);
}

static unsigned versions_of(const struct open_page *o)
{
    return o->file->pages[o->at].n_versions;
}

/* --- a state --- */

static struct blob *torn(struct crash_states *c, const struct page *p)
{
    uint8_t mem[DEV_PAGE];

    for (unsigned s = 0; s < SECTORS; s++) {
        uint64_t from = rng_below(&c->rng, p->n_versions + 1);
        const struct blob *b = from ? p->versions[from - 1].blob : p->durable;

        memcpy(mem + s * SECTOR, sim_blob_mem(b) + s * SECTOR, SECTOR);
    }
    return sim_blob_new(mem);
}

/* A reference on what the page is. */
static struct blob *chosen(struct crash_states *c, const struct open_page *o)
{
    const struct page *p = &o->file->pages[o->at];

    if (o->choice == TORN)
        return torn(c, p);
    return sim_blob_ref(o->choice ? p->versions[o->choice - 1].blob : p->durable);
}

static struct sim_file *file_copy(struct crash_states *c, const struct picture *p,
                                  const struct sim_file *f)
{
    struct sim_file *to = sim_file_new(f->bytes);

    for (uint64_t i = 0; i < f->bytes / DEV_PAGE; i++)
        to->pages[i].durable = sim_blob_ref(f->pages[i].durable);
    for (unsigned i = 0; i < p->n_pages; i++) {
        struct page *page = &to->pages[p->pages[i].at];

        if (p->pages[i].file != f)
            continue;
        sim_blob_unref(page->durable);
        page->durable = chosen(c, &p->pages[i]);
    }
    for (uint64_t i = 0; i < f->bytes / DEV_PAGE; i++)
        to->pages[i].now = sim_blob_ref(to->pages[i].durable);
    return to;
}

static struct sim_disk *disk_make(struct crash_states *c, const struct picture *p)
{
    struct sim_disk *d = sim_disk_new(rng_u64(&c->rng), c->disk->capacity);

    for (unsigned i = 0; i < p->folder.n; i++) {
        struct sim_file *f = file_copy(c, p, p->folder.rows[i].file);

        sim_folder_put(&d->names->now, p->folder.rows[i].name, f);
        sim_folder_put(&d->names->durable, p->folder.rows[i].name, f);
        sim_file_unref(f);
    }
    return d;
}

static uint64_t blob_hash(struct blob *b)
{
    if (b && !b->hash)
        b->hash = XXH3_64bits(b->mem, DEV_PAGE) | 1;
    return b ? b->hash : 0;
}

static uint64_t state_hash(const struct crash_states *c, const struct sim_disk *d, uint64_t rows)
{
    uint64_t hash = hash_mix(c->stamp + rows * 0x9e3779b97f4a7c15);

    for (unsigned i = 0; i < d->names->now.n; i++) {
        const struct name *n = &d->names->now.rows[i];

        hash = hash_mix(hash ^ XXH3_64bits(n->name, strlen(n->name)));
        for (uint64_t k = 0; k < n->file->bytes / DEV_PAGE; k++)
            hash = hash * 3 + blob_hash(n->file->pages[k].durable);
        hash = hash_mix(hash);
    }
    return hash | 1;
}

static void emit(struct crash_states *c, const struct picture *p)
{
    struct sim_disk *d = disk_make(c, p);
    uint64_t left = sim_rows_serial(c->rows) - (sim_rows_unflushed(c->rows) - p->n_rows);
    uint64_t hash = state_hash(c, d, left);

    if (hash_get(&c->seen, hash)) {
        c->repeats++;
        sim_disk_free(d);
        return;
    }
    hash_put(&c->seen, hash, c);
    c->states++;
    for (unsigned i = 0; i < p->n_pages; i++)
        if (p->pages[i].choice == TORN) {
            c->torn_states++;
            break;
        }
    c->fn(c->ctx, d, sim_rows_store_copy(c->rows, d, p->n_rows));
}

/* --- which states --- */

/* All combinations of the pages' versions. */
static void pages_all(struct crash_states *c, struct picture *p)
{
    unsigned i;

    do {
        emit(c, p);
        for (i = 0; i < p->n_pages; i++) {
            struct open_page *o = &p->pages[i];

            if (o->choice < (int)versions_of(o)) {
                o->choice++;
                break;
            }
            o->choice = 0;
        }
    } while (i < p->n_pages);
}

enum fill { NONE, ALL, RANDOM };

static void pages_fill(struct crash_states *c, struct picture *p, enum fill how)
{
    for (unsigned i = 0; i < p->n_pages; i++) {
        struct open_page *o = &p->pages[i];

        o->choice = how == NONE  ? 0
                    : how == ALL ? (int)versions_of(o)
                                 : (int)rng_below(&c->rng, versions_of(o) + 1);
    }
}

static void rows_draw(struct crash_states *c, struct picture *p)
{
    p->n_rows = (unsigned)rng_below(&c->rng, sim_rows_unflushed(c->rows) + 1);
}

/* Too many to try all. */
static void pages_sampled(struct crash_states *c, struct picture *p)
{
    for (unsigned i = 0; i < p->n_pages; i++)
        for (enum fill how = NONE; how <= ALL; how++) { /* alone, and missing */
            pages_fill(c, p, how);
            p->pages[i].choice = how == NONE ? (int)versions_of(&p->pages[i]) : 0;
            rows_draw(c, p);
            emit(c, p);
        }
    for (unsigned i = 0; i < c->samples; i++) {
        pages_fill(c, p, RANDOM);
        rows_draw(c, p);
        emit(c, p);
    }
}

static void pages_torn(struct crash_states *c, struct picture *p)
{
    for (unsigned i = 0; i < c->torn && p->n_pages > 0; i++) {
        unsigned at =
            i < p->n_pages && p->n_pages <= c->torn ? i : (unsigned)rng_below(&c->rng, p->n_pages);

        pages_fill(c, p, rng_chance(&c->rng, 1, 2) ? ALL : RANDOM);
        p->pages[at].choice = TORN;
        rows_draw(c, p);
        emit(c, p);
    }
}

/* Product of all choices, or more than most. */
static uint64_t combinations(const struct picture *p, uint64_t most)
{
    uint64_t n = 1;

    for (unsigned i = 0; i < p->n_pages && n <= most; i++)
        n *= versions_of(&p->pages[i]) + 1;
    return n;
}

/* One prefix of the names; true when all combinations were tried. */
static bool names_try(struct crash_states *c, unsigned n_names)
{
    unsigned n_rows = sim_rows_unflushed(c->rows);
    struct picture p;
    bool all;

    picture_init(&p, c, n_names);
    all = combinations(&p, c->all_max) * (n_rows + 1) <= c->all_max;
    for (p.n_rows = 0; all && p.n_rows <= n_rows; p.n_rows++)
        pages_all(c, &p);
    for (unsigned i = 0; !all && i <= n_rows && i <= PREFIXES_MAX; i++)
        for (enum fill how = NONE; how <= ALL; how++) {
            p.n_rows = n_rows <= PREFIXES_MAX ? i : n_rows * i / PREFIXES_MAX;
            pages_fill(c, &p, how);
            emit(c, &p);
        }
    if (!all)
        pages_sampled(c, &p);
    pages_torn(c, &p);
    picture_fini(&p);
    return all;
}

void crash_states_try(struct crash_states *c)
{
    unsigned n = c->disk->names->n_changes;
    bool all = true;

    c->moments++;
    for (unsigned i = 0; i <= n; i++)
        all = names_try(c, i) && all;
    c->whole += all;
}

void crash_states_fini(struct crash_states *c)
{
    hash_free(&c->seen);
}

struct sim_disk *crash_states_copy(const struct sim_disk *d, uint64_t seed)
{
    struct crash_states c = { .disk = d };
    struct sim_disk *to;
    struct picture p;

    rng_seed(&c.rng, seed);
    picture_init(&p, &c, d->names->n_changes);
    ASSERT(p.n_pages == 0);
    to = disk_make(&c, &p);
    picture_fini(&p);
    return to;
}
