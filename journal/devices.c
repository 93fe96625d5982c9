#include "journal/devices.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "journal/recover.h"

const char *device_name(const struct dev *dev)
{
    return dev->name ? dev->name : "a device";
}

/* One folder as it was given. */
struct given {
    struct jrn_device device;
    bool found;
    struct uuid store, set;
    uint16_t number, n_devices;
};

struct finding {
    struct given list[JRN_DEVICES_MAX];
    unsigned n;
    const struct given *first; /* device 0, when it is there */
};

static bool uuid_same(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static int look(struct given *g, struct err *e)
{
    struct super *s = mem_new(sizeof *s);
    struct dev_file *file = NULL;
    int rc = recover_super(g->device.dev, &file, s, e);

    dev_close(g->device.dev, file);
    if (rc >= 0) {
        g->found = true;
        g->store = s->store;
        g->set = s->set;
        g->number = s->device;
        g->n_devices = s->n_devices;
    } else if (rc == E_NOTFOUND) {
        if (e)
            *e = (struct err){ 0 }; /* nothing is wrong yet */
        rc = 0;
    } else if (g->device.dev->name) {
        err_prefix(e, "%s: ", g->device.dev->name);
    }
    free(s);
    return rc;
}

static int look_all(struct finding *f, const struct journal_env *env, struct err *e)
{
    int rc = 0;

    if (env->n_more >= JRN_DEVICES_MAX)
        return err_set(e, E_INVALID, "%u devices: %d are the limit", env->n_more + 1,
                       JRN_DEVICES_MAX);
    f->list[0].device = (struct jrn_device){ env->dev, env->rows, env->commit_loop };
    for (unsigned i = 0; i < env->n_more; i++)
        f->list[i + 1].device = env->more[i];
    f->n = env->n_more + 1;
    for (unsigned i = 0; rc >= 0 && i < f->n; i++)
        rc = look(&f->list[i], e);
    return rc < 0 ? rc : 0;
}

/* Device 0 must be there, unless everything is new. */
static int first_find(struct finding *f, struct err *e)
{
    const struct given *other = NULL;

    for (unsigned i = 0; i < f->n; i++) {
        const struct given *g = &f->list[i];

        if (!g->found)
            continue;
        if (g->number > 0) {
            other = g;
            continue;
        }
        if (f->first)
            return err_set(
                e, E_INVALID,
                uuid_same(&f->first->store, &g->store)
                    ? "%s and %s are copies of one device"
                    : "%s and %s are both the first device of a set, of two different ones",
                device_name(f->first->device.dev), device_name(g->device.dev));
        f->first = g;
    }
    if (other && !f->first)
        return err_set(e, E_INVALID,
                       "%s is device %u of a set, and device 0, which keeps its topics, is missing",
                       device_name(other->device.dev), other->number);
    return 0;
}

/* Puts what was found at its number. */
static int places_fill(const struct finding *f, struct devices *d, struct err *e)
{
    for (unsigned i = 0; i < f->n; i++) {
        const struct given *g = &f->list[i];
        struct device_place *p = &d->list[g->number];

        if (!g->found)
            continue;
        if (g->number > 0 && !uuid_same(&g->set, &f->first->store))
            return err_set(e, E_INVALID, "%s belongs to another set than %s",
                           device_name(g->device.dev), device_name(f->first->device.dev));
        if (p->device.dev)
            return err_set(e, E_INVALID, "device %u is there twice: %s and %s", g->number,
                           device_name(p->device.dev), device_name(g->device.dev));
        *p = (struct device_place){ g->device, false, g->store };
    }
    return 0;
}

/* New folders take the numbers that no device of the set has had yet. */
static int places_new(const struct finding *f, struct devices *d, struct err *e)
{
    unsigned known = f->first ? f->first->n_devices : 0, next = known;

    for (unsigned k = 0; k < known; k++)
        if (!d->list[k].device.dev)
            return err_set(e, E_INVALID,
                           "device %u of the %u of this set is missing: its folder is not among "
                           "those given (%s is there)",
                           k, known, device_name(f->first->device.dev));
    for (unsigned i = 0; i < f->n; i++) {
        if (f->list[i].found)
            continue;
        while (next < JRN_DEVICES_MAX && d->list[next].device.dev)
            next++;
        ASSERT(next < JRN_DEVICES_MAX); /* at most so many were given */
        d->list[next] = (struct device_place){ .device = f->list[i].device, .fresh = true };
    }
    while (d->n < JRN_DEVICES_MAX && d->list[d->n].device.dev)
        d->n++;
    if (d->n < f->n)
        return err_set(e, E_INVALID,
                       "device %u of this set is missing: one with a higher number is there", d->n);
    return 0;
}

int devices_find(struct devices *d, const struct journal_env *env, struct err *e)
{
    struct finding *f = mem_new(sizeof *f);
    int rc = look_all(f, env, e);

    *d = (struct devices){ 0 };
    if (rc >= 0)
        rc = first_find(f, e);
    if (rc >= 0)
        rc = places_fill(f, d, e);
    if (rc >= 0)
        rc = places_new(f, d, e);
    free(f);
    return rc;
}
