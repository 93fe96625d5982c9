#include "journal/wal.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

void wal_init(struct wal *w, struct slabs *slabs, uint32_t log2)
{
    *w = (struct wal){ .slabs = slabs, .log2 = log2, .ready = true };
    pthread_mutex_init(&w->lock, NULL);
}

static void extent_free(struct wal_extent *x)
{
    free(x->marks);
    free(x->direct);
    free(x->cuts);
    free(x);
}

void wal_fini(struct wal *w)
{
    if (!w->ready)
        return;
    for (unsigned i = 0; i < w->n; i++)
        extent_free(w->list[i]);
    free(w->list);
    pthread_mutex_destroy(&w->lock);
    *w = (struct wal){ 0 };
}

void wal_add(struct wal *w, uint64_t place, uint64_t incarnation, uint64_t salt, uint64_t first_lsn)
{
    struct wal_extent *x = mem_new(sizeof *x);

    *x = (struct wal_extent){ .place = place,
                              .incarnation = incarnation,
                              .salt = salt,
                              .first_lsn = first_lsn,
                              .end_lsn = LSN_OPEN };
    pthread_mutex_lock(&w->lock);
    /* Rot may have left a gap, never an overlap. */
    ASSERT(w->n == 0 || w->list[w->n - 1]->end_lsn <= first_lsn);
    if (w->n == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 16;
        w->list = mem_grow(w->list, w->cap * sizeof(*w->list));
    }
    w->list[w->n++] = x;
    pthread_mutex_unlock(&w->lock);
}

void wal_end(struct wal *w, uint64_t end_lsn, struct wal_mark *marks, unsigned n_marks)
{
    struct wal_extent *x;

    pthread_mutex_lock(&w->lock);
    ASSERT(w->n > 0);
    x = w->list[w->n - 1];
    ASSERT(x->end_lsn == LSN_OPEN && end_lsn >= x->first_lsn);
    x->end_lsn = end_lsn;
    x->marks = marks;
    x->n_marks = n_marks;
    pthread_mutex_unlock(&w->lock);
}

void wal_cut(struct wal *w, uint64_t group, uint64_t entry, uint64_t end_lsn)
{
    struct wal_extent *x;

    pthread_mutex_lock(&w->lock);
    ASSERT(w->n > 0);
    x = w->list[w->n - 1];
    x->cuts = mem_grow(x->cuts, (x->n_cuts + 1) * sizeof *x->cuts);
    x->cuts[x->n_cuts++] = (struct wal_cut){ group, entry, end_lsn };
    pthread_mutex_unlock(&w->lock);
}

/* The last extent that begins at or before lsn; under lock. */
static struct wal_extent *extent_of(struct wal *w, uint64_t lsn)
{
    unsigned low = 0, high = w->n;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (w->list[mid]->first_lsn <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    /* An incarnation may leave an empty extent behind: two then begin at one LSN, and the later one
     * holds it. */
    return low ? w->list[low - 1] : NULL;
}

void wal_direct(struct wal *w, uint64_t lsn, uint64_t group, uint64_t segment, uint64_t bytes)
{
    struct wal_extent *x;
    unsigned i = 0;

    pthread_mutex_lock(&w->lock);
    x = extent_of(w, lsn);
    ASSERT(x);
    while (i < x->n_direct && x->direct[i].segment != segment)
        i++;
    if (i == x->n_direct) {
        x->direct = mem_grow(x->direct, (i + 1) * sizeof *x->direct);
        x->direct[x->n_direct++] = (struct wal_direct){ group, segment };
    }
    x->direct_bytes += bytes;
    pthread_mutex_unlock(&w->lock);
}

int wal_pin(struct wal *w, uint64_t lsn, uint64_t bytes, struct wal_extent **out)
{
    struct wal_extent *x;
    int rc = E_NOTFOUND;

    pthread_mutex_lock(&w->lock);
    x = extent_of(w, lsn);
    if (x && !x->passed && (x->end_lsn == LSN_OPEN || lsn + bytes <= x->end_lsn)) {
        x->pins++;
        *out = x;
        rc = 0;
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

void wal_unpin(struct wal *w, struct wal_extent *x)
{
    bool last;

    pthread_mutex_lock(&w->lock);
    ASSERT(x->pins > 0);
    last = --x->pins == 0 && x->passed;
    pthread_mutex_unlock(&w->lock);
    if (last) {
        slabs_give(w->slabs, x->place, w->log2);
        extent_free(x);
    }
}

struct dev_file *wal_at(struct wal *w, const struct wal_extent *x, uint64_t lsn, uint64_t *pos)
{
    *pos = place_pos(x->place) + PAGE_BYTES + (lsn - x->first_lsn);
    return slabs_file(w->slabs, x->place, w->log2);
}

uint64_t wal_closed_bytes(struct wal *w, const struct wal_extent *x)
{
    uint64_t bytes;

    pthread_mutex_lock(&w->lock);
    bytes = x->end_lsn == LSN_OPEN ? 0 : x->end_lsn - x->first_lsn;
    pthread_mutex_unlock(&w->lock);
    return bytes;
}

uint64_t wal_last_place(struct wal *w)
{
    uint64_t place;

    pthread_mutex_lock(&w->lock);
    place = w->n ? w->list[w->n - 1]->place : PLACE_NONE;
    pthread_mutex_unlock(&w->lock);
    return place;
}

struct wal_live wal_live(struct wal *w)
{
    struct wal_live l = { 0 };

    pthread_mutex_lock(&w->lock);
    l.n_extents = w->n;
    for (unsigned i = 0; i < w->n; i++) {
        const struct wal_extent *x = w->list[i];

        l.n_cuts += x->n_cuts;
        if (x->end_lsn != LSN_OPEN) {
            l.closed_bytes += (uint64_t)1 << w->log2;
            l.closed_direct += x->direct_bytes;
        } else {
            l.open_direct += x->direct_bytes;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return l;
}

bool wal_aged(struct wal *w, uint64_t now_us, uint64_t age_us, uint64_t *open_lsn)
{
    bool aged = false;

    *open_lsn = 0;
    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < w->n; i++) {
        struct wal_extent *x = w->list[i];

        if (!x->seen_us)
            x->seen_us = now_us;
        if (now_us - x->seen_us < age_us)
            continue;
        if (x->end_lsn == LSN_OPEN)
            *open_lsn = x->first_lsn;
        else
            aged = true;
    }
    pthread_mutex_unlock(&w->lock);
    return aged;
}

unsigned wal_oldest(struct wal *w, struct wal_extent **out, unsigned max)
{
    unsigned n = 0;

    pthread_mutex_lock(&w->lock);
    while (n < max && n < w->n && w->list[n]->end_lsn != LSN_OPEN) {
        out[n] = w->list[n];
        n++;
    }
    pthread_mutex_unlock(&w->lock);
    return n;
}

void wal_passed(struct wal *w, uint64_t lsn)
{
    struct wal_extent **gone;
    unsigned n_gone = 0, n = 0;

    pthread_mutex_lock(&w->lock);
    gone = mem_new((w->n + 1) * sizeof(*gone));
    while (n < w->n && w->list[n]->end_lsn != LSN_OPEN && w->list[n]->end_lsn <= lsn) {
        struct wal_extent *x = w->list[n++];

        x->passed = true;
        if (x->pins == 0)
            gone[n_gone++] = x;
    }
    w->n -= n;
    memmove(w->list, w->list + n, w->n * sizeof(*w->list));
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < n_gone; i++) {
        slabs_give(w->slabs, gone[i]->place, w->log2);
        extent_free(gone[i]);
    }
    free(gone);
}

uint64_t wal_place_after(struct wal *w, uint64_t incarnation, uint64_t lsn)
{
    uint64_t place = PLACE_NONE;

    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; place == PLACE_NONE && i < w->n; i++)
        if (w->list[i]->incarnation == incarnation && w->list[i]->end_lsn > lsn)
            place = w->list[i]->place;
    pthread_mutex_unlock(&w->lock);
    return place;
}
