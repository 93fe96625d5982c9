#include "journal/slab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/logger.h"

enum { PREWRITE_BYTES = 1 << 20 };

struct names {
    uint32_t numbers[SLABS_MAX];
    unsigned n;
    bool too_many;
};

void slab_name(char *name, size_t bytes, uint32_t number, const char *tail)
{
    snprintf(name, bytes, "slab-%06" PRIu32 "%s", number, tail);
}

bool slab_name_parse(const char *name, uint32_t *number)
{
    char tail;

    return sscanf(name, "slab-%6" SCNu32 "%c", number, &tail) == 1;
}

static void name_seen(void *ctx, const char *name)
{
    struct names *names = ctx;
    uint32_t number;

    if (!slab_name_parse(name, &number))
        return;
    if (names->n == SLABS_MAX)
        names->too_many = true;
    else
        names->numbers[names->n++] = number;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Adds an open, checked file to the list. */
static void slab_add(struct slabs *s, struct dev_file *file, uint32_t number, uint64_t bytes)
{
    struct slab *n;

    pthread_mutex_lock(&s->lock);
    n = &s->list[s->n];
    *n = (struct slab){ .file = file, .number = number };
    n->n_units = (uint32_t)(bytes / UNIT_BYTES);
    n->n_free = n->n_units - 1;
    n->used = mem_new(n->n_units);
    n->used[0] = 1;
    s->n++;
    s->total_units += n->n_free;
    s->free_units += n->n_free;
    pthread_mutex_unlock(&s->lock);
}

static int slab_open_one(struct slabs *s, uint32_t number, struct err *e)
{
    struct dev_file *file = NULL;
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    struct slab_head head;
    char name[32];
    int rc;

    slab_name(name, sizeof name, number, "");
    rc = page ? dev_open(s->dev, name, &file, e) : E_NOMEM;
    if (rc >= 0)
        rc = dev_read(s->dev, file, 0, page->mem, PAGE_BYTES);
    if (rc >= 0)
        rc = slab_head_read(&head, page->mem);
    if (rc >= 0 && (memcmp(&head.store, &s->store, sizeof head.store) != 0 ||
                    head.number != number || head.bytes > file->bytes))
        rc = E_CORRUPT;
    if (rc >= 0)
        slab_add(s, file, number, head.bytes);
    else
        dev_close(s->dev, file);
    buf_unref(page);
    return rc < 0 ? err_set(e, rc, "%s: %s", name, err_text(rc)) : 0;
}

int slabs_open(struct slabs *s, struct dev *dev, const struct uuid *store, struct err *e)
{
    struct names *names = mem_new(sizeof *names);
    int rc;

    s->dev = dev;
    s->store = *store;
    pthread_mutex_init(&s->lock, NULL);
    s->locked_init = true;
    s->list = mem_new(SLABS_MAX * sizeof *s->list);
    rc = dev_list(dev, name_seen, names);
    if (rc >= 0 && names->too_many)
        rc = err_set(e, E_TOOBIG, "more than %d slab files", SLABS_MAX);
    qsort(names->numbers, names->n, sizeof names->numbers[0], by_number);
    for (unsigned i = 0; rc >= 0 && i < names->n; i++)
        rc = slab_open_one(s, names->numbers[i], e);
    free(names);
    return rc < 0 ? rc : 0;
}

void slabs_close(struct slabs *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        dev_close(s->dev, s->list[i].file);
        free(s->list[i].used);
    }
    free(s->list);
    s->list = NULL;
    s->n = 0;
    if (s->locked_init)
        pthread_mutex_destroy(&s->lock);
    s->locked_init = false;
}

/* How large the next file should be: as large as all so far, within limits. */
static int next_bytes(struct slabs *s, uint64_t at_least, uint64_t *bytes, struct err *e)
{
    uint64_t have = (s->total_units + s->n) * UNIT_BYTES; /* the headers' units, too */
    uint64_t need = at_least * 2; /* an aligned extent behind the header's unit */
    struct dev_space space;
    int rc = dev_space(s->dev, &space);

    if (rc < 0)
        return rc;
    *bytes = have > s->first_bytes ? have : s->first_bytes;
    if (*bytes > s->max_bytes)
        *bytes = s->max_bytes;
    if (*bytes < need)
        *bytes = need;
    if (s->space_max && have + *bytes > s->space_max)
        *bytes = s->space_max > have ? s->space_max - have : 0;
    if (space.free < s->space_floor + *bytes)
        *bytes = space.free > s->space_floor ? space.free - s->space_floor : 0;
    *bytes = *bytes / UNIT_BYTES * UNIT_BYTES;
    if (*bytes < need)
        return err_set(e, E_NOSPACE,
                       "no room for another slab of %" PRIu64 " bytes: %" PRIu64
                       " bytes free on the file system, %" PRIu64 " kept for the rows%s",
                       need, space.free, s->space_floor,
                       s->space_max && have + need > s->space_max ? "; space_max is reached" : "");
    return 0;
}

static int prewrite(struct slabs *s, struct dev_file *file, uint32_t number, uint64_t bytes)
{
    struct buf *zeros = buf_new_aligned(PREWRITE_BYTES);
    struct slab_head head = { .store = s->store, .number = number, .bytes = bytes };
    int rc = 0;

    if (!zeros)
        return E_NOMEM;
    memset(zeros->mem, 0, PREWRITE_BYTES);
    for (uint64_t at = 0; rc >= 0 && at < bytes; at += PREWRITE_BYTES) {
        uint64_t left = bytes - at;

        rc = dev_write(s->dev, file, at, zeros->mem,
                       (uint32_t)(left < PREWRITE_BYTES ? left : PREWRITE_BYTES));
    }
    slab_head_write(&head, zeros->mem);
    if (rc >= 0)
        rc = dev_write(s->dev, file, 0, zeros->mem, PAGE_BYTES);
    if (rc >= 0)
        rc = dev_sync(s->dev, file);
    buf_unref(zeros);
    return rc;
}

int slabs_grow(struct slabs *s, uint64_t at_least, struct err *e)
{
    struct dev_file *file = NULL;
    char name[32], final[32];
    uint64_t bytes;
    uint32_t number = s->n ? s->list[s->n - 1].number + 1 : 0;
    int rc;

    if (s->n == SLABS_MAX)
        return err_set(e, E_NOSPACE, "%d slab files are the limit", SLABS_MAX);
    rc = next_bytes(s, at_least, &bytes, e);
    if (rc < 0)
        return rc;
    slab_name(name, sizeof name, number, ".tmp");
    slab_name(final, sizeof final, number, "");
    rc = dev_remove(s->dev, name); /* what a crash left */
    if (rc < 0 && rc != E_NOTFOUND)
        return err_set(e, rc, "%s: %s", name, err_text(rc));
    rc = dev_create(s->dev, name, bytes, &file, e);
    if (rc >= 0)
        rc = prewrite(s, file, number, bytes);
    if (rc >= 0)
        rc = dev_rename(s->dev, name, final);
    if (rc >= 0)
        rc = dev_sync_names(s->dev);
    if (rc < 0) {
        dev_close(s->dev, file);
        if (dev_remove(s->dev, name) < 0)
            LOG_DEBUG("slab.remove_failed", F_STR("file", name));
        return err_set(e, rc, "%s: %s", name, err_text(rc));
    }
    slab_add(s, file, number, bytes);
    LOG_INFO("slab.grown", F_STR("file", final), F_BYTES(bytes));
    return 0;
}

static bool run_is_free(const struct slab *n, uint32_t unit, uint32_t units)
{
    return memchr(n->used + unit, 1, units) == NULL;
}

/* True when the WAL-sized place around unit is free as a whole: a smaller extent should not break
 * it. */
static bool is_whole(const struct slab *n, uint32_t unit, uint32_t whole)
{
    uint32_t start = unit / whole * whole;

    return start + whole <= n->n_units && run_is_free(n, start, whole);
}

/* Large extents from the front, small ones from the back, so that neither scatters the other; and small
 * ones, while they can (keep_whole), only where a WAL extent would not fit any more. */
static bool slab_find(const struct slab *n, uint32_t units, uint32_t whole, bool keep_whole,
                      uint32_t *unit)
{
    uint32_t slots = n->n_units / units;

    if (n->n_free < units)
        return false;
    for (uint32_t i = 0; i < slots; i++) {
        *unit = (units < whole ? slots - 1 - i : i) * units;
        if (run_is_free(n, *unit, units) && !(keep_whole && is_whole(n, *unit, whole)))
            return true;
    }
    return false;
}

bool slabs_has_whole(struct slabs *s, unsigned count)
{
    uint32_t whole = s->whole_units ? s->whole_units : 1;

    pthread_mutex_lock(&s->lock);
    for (unsigned i = s->n; count > 0 && i-- > 0;)
        for (uint32_t unit = 0; count > 0 && unit + whole <= s->list[i].n_units; unit += whole)
            count -= run_is_free(&s->list[i], unit, whole);
    pthread_mutex_unlock(&s->lock);
    return count == 0;
}

/* Under lock. */
static uint64_t slab_take(struct slabs *s, struct slab *n, uint32_t unit, uint32_t units)
{
    memset(n->used + unit, 1, units);
    n->n_free -= units;
    s->free_units -= units;
    return place_of(n->number, unit);
}

uint64_t slabs_roomiest(struct slabs *s)
{
    uint64_t place = PLACE_NONE;
    uint32_t most = 0;

    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->n; i++) {
        if (place != PLACE_NONE && s->list[i].n_free <= most)
            continue;
        place = place_of(s->list[i].number, 0);
        most = s->list[i].n_free;
    }
    pthread_mutex_unlock(&s->lock);
    return place;
}

int slabs_take(struct slabs *s, uint32_t log2, uint64_t *place)
{
    return slabs_take_near(s, log2, PLACE_NONE, place);
}

int slabs_take_near(struct slabs *s, uint32_t log2, uint64_t near, uint64_t *place)
{
    uint32_t units = 1u << (log2 - UNIT_LOG2), unit;
    bool small = units < s->whole_units;
    int rc = E_NOSPACE;

    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; near != PLACE_NONE && rc < 0 && i < s->n; i++) {
        struct slab *n = &s->list[i];

        if (n->number == place_slab(near) && slab_find(n, units, s->whole_units, small, &unit)) {
            *place = slab_take(s, n, unit, units);
            rc = 0;
        }
    }
    for (unsigned k = small ? 0 : s->n; rc < 0 && k < 2 * s->n; k++) {
        struct slab *n = &s->list[k % s->n];

        if (!slab_find(n, units, s->whole_units, k < s->n, &unit))
            continue;
        *place = slab_take(s, n, unit, units);
        rc = 0;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* Under lock. */
static struct slab *slab_at(struct slabs *s, uint64_t place, uint32_t log2)
{
    uint32_t unit = (uint32_t)place, units;

    if (log2 < UNIT_LOG2 || log2 > EXTENT_MAX_LOG2)
        return NULL;
    units = 1u << (log2 - UNIT_LOG2);
    for (unsigned i = 0; i < s->n; i++) {
        struct slab *n = &s->list[i];

        if (n->number == place_slab(place))
            return unit < n->n_units && units <= n->n_units - unit && unit % units == 0 ? n : NULL;
    }
    return NULL;
}

void slabs_give(struct slabs *s, uint64_t place, uint32_t log2)
{
    uint32_t units = 1u << (log2 - UNIT_LOG2);
    struct slab *n;

    pthread_mutex_lock(&s->lock);
    n = slab_at(s, place, log2);
    ASSERT(n && n->used[(uint32_t)place]);
    memset(n->used + (uint32_t)place, 0, units);
    n->n_free += units;
    s->free_units += units;
    pthread_mutex_unlock(&s->lock);
}

int slabs_mark(struct slabs *s, uint64_t place, uint32_t log2)
{
    struct slab *n;
    int rc = E_CORRUPT;

    pthread_mutex_lock(&s->lock);
    n = slab_at(s, place, log2);
    if (n && run_is_free(n, (uint32_t)place, 1u << (log2 - UNIT_LOG2))) {
        uint32_t units = 1u << (log2 - UNIT_LOG2);

        memset(n->used + (uint32_t)place, 1, units);
        n->n_free -= units;
        s->free_units -= units;
        rc = 0;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

struct dev_file *slabs_file(struct slabs *s, uint64_t place, uint32_t log2)
{
    struct slab *n;
    struct dev_file *file;

    pthread_mutex_lock(&s->lock);
    n = slab_at(s, place, log2);
    file = n ? n->file : NULL;
    pthread_mutex_unlock(&s->lock);
    return file;
}

void slabs_space(struct slabs *s, uint64_t *total, uint64_t *free_bytes)
{
    pthread_mutex_lock(&s->lock);
    *total = s->total_units * UNIT_BYTES;
    *free_bytes = s->free_units * UNIT_BYTES;
    pthread_mutex_unlock(&s->lock);
}
