#include "journal/repair.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/batch.h"
#include "format/sum.h"
#include "journal/destage.h"
#include "journal/inspect_verify_int.h"
#include "journal/io/dev.h"

enum { WRITE_PIECE = 1 << 20 };

struct repair {
    const char *path;
    struct dev *dev; /* holds the lock; NULL: a dry run */
    struct inspect *in;
    void (*fn)(void *ctx, const struct repair_step *s);
    void *ctx;
    struct repair_step *steps; /* all so far */
    unsigned n_steps, n_lost;
    uint8_t *page, *again; /* PAGE_BYTES, aligned */
    bool rows_sound;
};

/* --- steps --- */

static struct repair_step *tell(struct repair *r, enum repair_state state,
                                const struct inspect_place *at, uint64_t bytes, uint64_t segment,
                                const char *fmt, ...) PRINTF_LIKE(6, 7);

static struct repair_step *tell(struct repair *r, enum repair_state state,
                                const struct inspect_place *at, uint64_t bytes, uint64_t segment,
                                const char *fmt, ...)
{
    struct repair_step *s;
    va_list ap;

    r->steps = mem_grow(r->steps, (r->n_steps + 1) * sizeof *r->steps);
    s = &r->steps[r->n_steps++];
    *s = (struct repair_step){ .state = state, .bytes = bytes, .segment = segment };
    if (at)
        s->at = *at;
    va_start(ap, fmt);
    vsnprintf(s->text, sizeof s->text, fmt, ap);
    va_end(ap);
    r->n_lost += state == REPAIR_LOST;
    r->fn(r->ctx, s);
    return s;
}

static enum repair_state done_state(const struct repair *r)
{
    return r->dev ? REPAIR_DONE : REPAIR_WOULD;
}

static bool is_planned(const struct repair *r, const struct inspect_damage *d)
{
    for (unsigned i = 0; i < r->n_steps; i++)
        if (r->steps[i].state != REPAIR_LOST && d->at.file[0] &&
            strcmp(r->steps[i].at.file, d->at.file) == 0 && r->steps[i].at.byte <= d->at.byte &&
            d->at.byte < r->steps[i].at.byte + r->steps[i].bytes)
            return true;
    return false;
}

/* Writes pages into a file of the store and flushes them. */
static int file_write(struct repair *r, const char *name, uint64_t pos, const uint8_t *mem,
                      uint64_t bytes)
{
    struct dev_file *file = NULL;
    int rc = r->dev ? dev_open(r->dev, name, &file, NULL) : 0;

    for (uint64_t at = 0; r->dev && rc >= 0 && at < bytes; at += WRITE_PIECE) {
        uint64_t n = bytes - at < WRITE_PIECE ? bytes - at : WRITE_PIECE;

        rc = dev_write(r->dev, file, pos + at, mem + at, (uint32_t)n);
    }
    if (r->dev && rc >= 0)
        rc = dev_sync(r->dev, file);
    if (r->dev)
        dev_close(r->dev, file);
    return rc;
}

/* --- the superblock --- */

static int super_repair(struct repair *r, struct err *e)
{
    struct inspect_place at = { .file = "superblock" };
    struct inspect_report report;
    struct dev_file *file = NULL;
    struct super s;
    int rc = inspect_verify(r->path, INSPECT_SUPER, 0, &report, e);

    if (rc < 0 || report.n == 0)
        return rc;
    if (r->dev) {
        rc = recover_super(r->dev, &file, &s, e);
        if (rc >= 0)
            rc = super_store(r->dev, file, &s);
        dev_close(r->dev, file);
    }
    if (rc >= 0)
        tell(r, done_state(r), &at, SUPER_COPIES * SUPER_BYTES, 0,
             "%u bad copies of the superblock are written again from the newest sound one",
             report.n);
    inspect_report_free(&report);
    return rc;
}

/* --- headers of slabs: before a view can be opened --- */

struct slab_names {
    uint32_t *list;
    unsigned n;
};

static void slab_seen(void *ctx, const char *name)
{
    struct slab_names *names = ctx;
    uint32_t number;

    if (!slab_name_parse(name, &number))
        return;
    names->list = mem_grow(names->list, (names->n + 1) * sizeof *names->list);
    names->list[names->n++] = number;
}

/* Whether an extent in the file says that it is this store's, at its place: then the file is. */
static bool slab_is_ours(struct dev *dev, struct dev_file *file, const struct super *s,
                         uint32_t number, uint8_t *page)
{
    for (uint64_t unit = 1; (unit + 1) * UNIT_BYTES <= file->bytes; unit++) {
        struct extent_head h;

        if (dev_read(dev, file, unit * UNIT_BYTES, page, PAGE_BYTES) >= 0 &&
            extent_head_read(&h, page) >= 0 && h.place == place_of(number, (uint32_t)unit) &&
            memcmp(&h.store, &s->store, sizeof h.store) == 0)
            return true;
    }
    return false;
}

static int slab_repair(struct repair *r, struct dev *dev, const struct super *s, uint32_t number)
{
    struct slab_head h, want = { .store = s->store, .number = number };
    struct inspect_place at = { 0 };
    struct dev_file *file = NULL;
    bool sound;
    int rc;

    slab_name(at.file, sizeof at.file, number, "");
    rc = dev_open(dev, at.file, &file, NULL);
    if (rc >= 0)
        rc = dev_read(dev, file, 0, r->page, PAGE_BYTES);
    if (rc < 0) {
        dev_close(dev, file);
        return rc;
    }
    want.bytes = file->bytes;
    slab_head_write(&want, r->again);
    sound = memcmp(r->page, r->again, PAGE_BYTES) == 0 || slab_head_read(&h, r->page) == E_VERSION;
    if (!sound && slab_is_ours(dev, file, s, number, r->page)) {
        slab_head_write(&want, r->again);
        rc = file_write(r, at.file, 0, r->again, PAGE_BYTES);
        if (rc >= 0)
            tell(r, done_state(r), &at, PAGE_BYTES, 0, "the slab's header is written again");
    } else if (!sound) {
        tell(r, REPAIR_LOST, &at, PAGE_BYTES, 0,
             "the slab's header is damaged, and nothing in the file says whose it is");
    }
    dev_close(dev, file);
    return rc;
}

static int slabs_repair(struct repair *r, struct err *e)
{
    struct slab_names names = { 0 };
    struct dev *dev = NULL;
    struct super s;
    int rc = dev_aio_open(&dev, r->path,
                          &(struct dev_aio_conf){ .read_threads = 1, .read_only = true }, e);

    if (rc >= 0)
        rc = inspect_super_now(dev, &s, e);
    if (rc >= 0)
        rc = dev_list(dev, slab_seen, &names);
    for (unsigned i = 0; rc >= 0 && i < names.n; i++)
        rc = slab_repair(r, dev, &s, names.list[i]);
    free(names.list);
    if (dev)
        dev_aio_close(dev);
    return rc;
}

/* --- segments --- */

/* The page at byte `inside` of an extent must be `again`; else it is written so. */
static int page_repair(struct repair *r, const struct segment *seg, const struct seg_extent *x,
                       uint64_t inside, const char *what)
{
    struct dev_file *file = slabs_file(&r->in->st->slabs, x->place, x->log2);
    struct inspect_place at;
    int rc = file ? dev_read(r->in->dev, file, place_pos(x->place) + inside, r->page, PAGE_BYTES)
                  : E_CORRUPT;

    if (rc < 0 || memcmp(r->page, r->again, PAGE_BYTES) == 0)
        return rc == E_NOMEM ? rc : 0;
    inspect_place_set(&at, x->place, inside);
    rc = file_write(r, at.file, at.byte, r->again, PAGE_BYTES);
    if (rc >= 0)
        tell(r, done_state(r), &at, PAGE_BYTES, seg->id, "%s is written again", what);
    return rc;
}

static int heads_repair(struct repair *r, const struct segment *seg)
{
    uint64_t pos = 0;
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < seg->row.n_extents; i++) {
        const struct seg_extent *x = &seg->row.extents[i];
        /* Begun while the segment was open, the header does not know how many there are. */
        uint16_t n = pos < seg->row.direct_bytes ? 0 : seg->row.n_extents;
        struct extent_head h = { .kind = EXTENT_SEGMENT,
                                 .store = r->in->super.store,
                                 .place = x->place,
                                 .log2 = x->log2,
                                 .group = seg->row.group,
                                 .segment = seg->id,
                                 .index = i,
                                 .n_extents = n,
                                 .pos = pos };

        extent_head_write(&h, r->again);
        rc = page_repair(r, seg, x, 0, "an extent's header");
        pos += seg_extent_room(x->log2);
    }
    return rc;
}

static int footer_repair(struct repair *r, const struct segment *seg, const struct seg_index *x)
{
    const struct row_segment *row = &seg->row;
    const struct seg_extent *last = &row->extents[row->n_extents - 1];
    struct seg_footer *f = mem_new(sizeof *f);

    *f = (struct seg_footer){ .version = row->version,
                              .store = r->in->super.store,
                              .group = row->group,
                              .segment = seg->id,
                              .first_entry = row->first_entry,
                              .last_entry = row->last_entry,
                              .data_bytes = row->data_bytes,
                              .index_pos = row->index_pos,
                              .index_bytes = row->index_bytes,
                              .n_batches = row->n_batches,
                              .min_ts = row->min_ts,
                              .max_ts = row->max_ts,
                              .identity = row->identity,
                              .created = row->created,
                              .n_extents = row->n_extents,
                              .direct_bytes = row->direct_bytes,
                              .sorted_pos = row->sorted_pos,
                              .segment_first = row->segment_first,
                              .flags = row->flags };
    for (uint32_t i = 0; i < x->n_runs; i++)
        f->n_offsets += x->runs[i].end - x->runs[i].base;
    memcpy(f->extents, row->extents, row->n_extents * sizeof f->extents[0]);
    seg_footer_write(f, r->again);
    free(f);
    return page_repair(r, seg, last, ((uint64_t)1 << last->log2) - PAGE_BYTES, "the footer");
}

/* Writes [pos, pos + bytes) of the segment's bytes. */
static int segment_rewrite(struct repair *r, const struct segment *seg, uint64_t pos,
                           const uint8_t *mem, uint64_t bytes)
{
    uint64_t first = 0;
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < seg->row.n_extents && bytes > 0; i++) {
        uint64_t room = seg_extent_room(seg->row.extents[i].log2);
        struct inspect_place at;

        if (pos < first + room) {
            uint64_t n = bytes < first + room - pos ? bytes : first + room - pos;

            inspect_place_set(&at, seg->row.extents[i].place, PAGE_BYTES + pos - first);
            rc = file_write(r, at.file, at.byte, mem, n);
            pos += n;
            mem += n;
            bytes -= n;
        }
        first += room;
    }
    return rc;
}

/* Where byte pos of the segment's bytes lies. */
static void segment_place(const struct segment *seg, uint64_t pos, struct inspect_place *at)
{
    for (unsigned i = 0; i < seg->row.n_extents; i++) {
        uint64_t room = seg_extent_room(seg->row.extents[i].log2);

        if (pos < room) {
            inspect_place_set(at, seg->row.extents[i].place, PAGE_BYTES + pos);
            return;
        }
        pos -= room;
    }
}

static bool index_is_sound(struct repair *r, const struct segment *seg, const uint8_t *mem)
{
    struct seg_index x = { 0 };
    uint8_t *again = mem_new(seg->row.index_bytes);
    bool sound = seg_index_read(&x, mem, seg->row.index_bytes) >= 0;

    if (sound) {
        seg_index_write(&x, again);
        sound = x.segment == seg->id && memcmp(again, mem, seg->row.index_bytes) == 0;
        seg_index_free(&x);
    }
    free(again);
    return sound;
}

/* Whether what the index names is what was sealed: in direct data may be runs that the index did not
 * name, and damaged ones are not found, so that counts alone do not tell. */
static bool index_is_that_sealed(struct repair *r, struct segment *seg, const struct seg_index *x)
{
    struct sum128_state *identity;
    struct sum128 sum;
    struct buf *data;
    uint32_t inside;

    if (segment_read(&r->in->st->segments, seg, 0, seg->row.data_bytes, &data, &inside) < 0)
        return false;
    identity = sum128_new();
    for (uint32_t i = 0; i < x->n_runs; i++) {
        const uint8_t *mem = data->mem + inside + x->runs[i].pos;
        struct batch_head h;

        for (uint64_t at = 0; at < x->runs[i].bytes; at += h.bytes) {
            if (batch_check(&h, mem + at, x->runs[i].bytes - at) < 0)
                break;
            inspect_verify_identity(identity, &seg->row, x->runs[i].shard, mem + at, h.bytes);
        }
    }
    sum = sum128_end(identity);
    buf_unref(data);
    return memcmp(&sum, &seg->row.identity, sizeof sum) == 0;
}

/* The index made anew from the data; NULL when the data do not give all of it. */
static struct buf *index_make(struct repair *r, struct segment *seg)
{
    struct seg_index x = { 0 };
    struct buf *out = NULL;
    uint64_t batches = 0;

    if (segment_index_rebuild(&r->in->st->segments, seg, &x) < 0)
        return NULL;
    for (uint32_t i = 0; i < x.n_runs; i++)
        batches += x.runs[i].n_batches;
    if (batches == seg->row.n_batches &&
        seg_index_bytes(x.n_runs, x.n_sparse, x.n_producers) == seg->row.index_bytes &&
        index_is_that_sealed(r, seg, &x))
        out = buf_new_aligned(seg->row.index_bytes);
    if (out)
        seg_index_write(&x, out->mem);
    seg_index_free(&x);
    return out;
}

static int index_repair(struct repair *r, struct segment *seg)
{
    struct buf *stored, *made;
    struct inspect_place at = { 0 };
    uint32_t inside;
    int rc = segment_read(&r->in->st->segments, seg, seg->row.index_pos, seg->row.index_bytes,
                          &stored, &inside);
    bool sound = rc >= 0 && index_is_sound(r, seg, stored->mem + inside);

    if (rc >= 0)
        buf_unref(stored);
    if (sound || rc == E_NOMEM)
        return rc;
    segment_place(seg, seg->row.index_pos, &at);
    made = index_make(r, seg);
    if (!made) {
        tell(r, REPAIR_LOST, &at, seg->row.index_bytes, seg->id,
             "the index is damaged, and the data do not give all of it");
        return 0;
    }
    rc = segment_rewrite(r, seg, seg->row.index_pos, made->mem, seg->row.index_bytes);
    buf_unref(made);
    if (rc >= 0)
        tell(r, done_state(r), &at, seg->row.index_bytes, seg->id,
             "the index is made anew from the data");
    return rc;
}

static int segments_repair(struct repair *r, unsigned parts)
{
    struct segments *t = &r->in->st->segments;
    uint64_t pos = 0, id;
    void *value;
    int rc = 0;

    while (rc >= 0 && hash_next(&t->by_id, &pos, &id, &value)) {
        struct segment *seg = value;
        const struct seg_index *x;

        if (seg->open) /* the WAL speaks for it: it has no index and no footer */
            continue;
        seg = segment_pin(t, id);
        if (parts & REPAIR_HEADERS)
            rc = heads_repair(r, seg);
        if (rc >= 0 && parts & REPAIR_INDEXES)
            rc = index_repair(r, seg);
        if (rc >= 0 && parts & REPAIR_HEADERS && segment_index(t, seg, &x) >= 0)
            rc = footer_repair(r, seg, x);
        segment_unpin(t, seg);
    }
    return rc;
}

/* --- rows --- */

static int folder_remove(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *n;
    int rc = 0;

    if (!d)
        return errno == ENOENT ? 0 : E_IO;
    while (rc >= 0 && (n = readdir(d)) != NULL) {
        if (strcmp(n->d_name, ".") == 0 || strcmp(n->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(d), n->d_name, 0) < 0) /* RocksDB makes no folders in its own */
            rc = E_IO;
    }
    closedir(d);
    return rc >= 0 && rmdir(path) < 0 ? E_IO : rc;
}

static int folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd >= 0 && fsync(fd) == 0 ? 0 : E_IO;

    if (fd >= 0)
        close(fd);
    return rc;
}

/* The new rows take the old ones' place when they are whole. Dying between the two names leaves a
 * store without rows, which the next start makes anew. */
static int rows_swap(const char *path, struct err *e)
{
    size_t room = strlen(path) + 16;
    char *now = mem_new(room), *fresh = mem_new(room), *old = mem_new(room);
    int rc;

    snprintf(now, room, "%s/rows", path);
    snprintf(fresh, room, "%s/rows.new", path);
    snprintf(old, room, "%s/rows.old", path);
    rc = folder_remove(fresh);
    if (rc >= 0)
        rc = folder_remove(old);
    if (rc >= 0)
        rc = inspect_rebuild_rows(path, fresh, e);
    if (rc >= 0 && rename(now, old) < 0 && errno != ENOENT)
        rc = E_IO;
    if (rc >= 0 && rename(fresh, now) < 0)
        rc = E_IO;
    if (rc >= 0)
        rc = folder_sync(path);
    if (rc >= 0)
        rc = folder_remove(old);
    free(now);
    free(fresh);
    free(old);
    return rc;
}

static int rows_repair(struct repair *r, bool anyway, struct err *e)
{
    struct inspect_report report = { 0 };
    struct inspect_info info;
    bool needed;
    int rc = inspect_verify(r->path, INSPECT_ROWS, 0, &report, e);

    if (rc < 0)
        return rc;
    inspect_info(r->in, &info);
    needed = anyway || report.n > 0 || info.rows_lost;
    inspect_report_free(&report);
    if (needed && r->dev)
        rc = rows_swap(r->path, e);
    if (needed && rc >= 0)
        tell(r, done_state(r), NULL, 0, 0,
             "the rows are made anew from catalogue, segments and WAL%s",
             info.rows_lost ? ": they are missing, or cannot be read" : "");
    r->rows_sound = !needed || r->dev;
    return rc;
}

/* --- what is left --- */

static int loss_tell(void *ctx, const struct inspect_loss *l)
{
    if (!l->accepted)
        tell(ctx, REPAIR_LOST, NULL, 0, 0,
             "group %" PRIu64 " is read-only: LSN %" PRIu64 " to %" PRIu64
             " of it is lost; to write to it again start the server with journal.accept_loss: "
             "%" PRIu64,
             l->group, l->lsn, l->end_lsn, l->group);
    return 0;
}

static int rest_tell(struct repair *r, struct err *e)
{
    struct inspect_report report = { 0 };
    int rc = inspect_verify(r->path, INSPECT_ALL, 0, &report, e);

    for (unsigned i = 0; rc >= 0 && i < report.n; i++) {
        const struct inspect_damage *d = &report.list[i];

        if (!is_planned(r, d) && (d->part != INSPECT_ROWS || r->rows_sound))
            tell(r, REPAIR_LOST, &d->at, d->bytes, d->segment, "%s", d->text);
    }
    inspect_report_free(&report);
    return rc;
}

static int view_open(struct repair *r, struct err *e)
{
    inspect_close(r->in);
    r->in = NULL;
    return inspect_open(&r->in, r->path, e);
}

static int repair_steps(struct repair *r, unsigned parts, struct err *e)
{
    int rc = parts & REPAIR_SUPER ? super_repair(r, e) : 0;

    if (rc >= 0 && parts & REPAIR_HEADERS)
        rc = slabs_repair(r, e);
    if (rc >= 0)
        rc = view_open(r, e);
    if (rc == E_CORRUPT && !r->dev && r->n_steps > 0) {
        tell(r, REPAIR_WOULD, NULL, 0, 0, "the rest can be looked at once that is done");
        return 0;
    }
    if (rc >= 0 && parts & (REPAIR_HEADERS | REPAIR_INDEXES))
        rc = segments_repair(r, parts);
    if (rc >= 0 && parts & (REPAIR_ROWS | REPAIR_ROWS_ANYWAY))
        rc = rows_repair(r, parts & REPAIR_ROWS_ANYWAY, e);
    if (rc >= 0 && r->dev)
        rc = view_open(r, e);
    if (rc >= 0)
        rc = inspect_losses(r->in, loss_tell, r);
    if (rc >= 0)
        rc = rest_tell(r, e);
    return rc;
}

/* That there is a store, before the device would make its folder. */
static int store_exists(const char *path, struct err *e)
{
    struct dev *dev = NULL;
    struct super s;
    int rc =
        dev_aio_open(&dev, path, &(struct dev_aio_conf){ .read_threads = 1, .read_only = true }, e);

    if (rc >= 0)
        rc = inspect_super_now(dev, &s, e);
    if (dev)
        dev_aio_close(dev);
    return rc;
}

int repair_run(const char *path, unsigned parts, bool dry,
               void (*fn)(void *ctx, const struct repair_step *s), void *ctx, unsigned *left,
               struct err *e)
{
    struct repair r = { .path = path, .fn = fn, .ctx = ctx, .rows_sound = true };
    struct buf *pages = buf_new_aligned((size_t)PAGE_BYTES * 2);
    int rc = pages ? store_exists(path, e) : E_NOMEM;

    if (rc >= 0 && !dry)
        rc = dev_aio_open(&r.dev, path, &(struct dev_aio_conf){ .read_threads = 1 }, e);
    if (rc >= 0) {
        r.page = pages->mem;
        r.again = pages->mem + PAGE_BYTES;
        rc = repair_steps(&r, parts, e);
    }
    *left = r.n_lost;
    inspect_close(r.in);
    if (r.dev)
        dev_aio_close(r.dev);
    buf_unref(pages);
    free(r.steps);
    return rc < 0 && e && !e->code ? err_set(e, rc, "%s: %s", path, err_text(rc)) : rc;
}
