/* Which folder is which device of the set: by what their superblocks say, whatever the order in which
 * they are given.
 *
 * Device 0's store uuid names the set, and its superblock says how many devices there are: those must
 * all be given. A folder without a superblock becomes the next device. Its superblock is made first,
 * device 0's is raised when all new ones are durable; so a device that says a number at or above device
 * 0's count is one whose joining was cut short, holds nothing yet, and joins again. */
#ifndef WEIR_JOURNAL_DEVICES_H
#define WEIR_JOURNAL_DEVICES_H

#include "format/super.h"
#include "journal/journal.h"

enum { DEVICE_SHIFT = 56 };

static inline unsigned device_of(uint64_t id)
{
    return (unsigned)(id >> DEVICE_SHIFT);
}

/* One folder's place in the set. */
struct device_place {
    struct jrn_device device;
    bool fresh;        /* its store is still to be made */
    struct uuid store; /* unless fresh */
};

struct devices {
    struct device_place list[JRN_DEVICES_MAX]; /* by number */
    unsigned n;
};

/* Reads every superblock, writes nothing. Blocks. E_INVALID with a sentence that names the folder:
 * a device is missing, given twice, or of another set; and what reading a superblock gives. */
int devices_find(struct devices *d, const struct journal_env *env, struct err *e) MUST_USE;

/* What people call a device's folder. */
const char *device_name(const struct dev *dev);

#endif
