/* The insides of the simulator's disk, for what looks at all the states that it may come back in (crash_states.c). */
#ifndef WEIR_TESTS_SIM_DISK_SIM_INT_H
#define WEIR_TESTS_SIM_DISK_SIM_INT_H

#include "tests/sim/disk_sim.h"

enum { SECTOR = 512, SECTORS = DEV_PAGE / SECTOR };

/* Page contents are shared, never changed; NULL stands for a page of zeros. */
struct blob {
    uint32_t refs;
    uint64_t hash; /* of mem, where somebody has asked (crash_states.c); 0: nobody has */
    uint8_t mem[DEV_PAGE];
};

struct version {
    struct blob *blob;
    uint64_t serial;
    uint64_t req;
};

struct page {
    struct blob *now;
    struct blob *durable;
    struct blob *before;      /* what reads saw before the last write */
    struct version *versions; /* oldest first */
    uint32_t n_versions;
    uint32_t cap_versions;
    uint32_t dirty_at; /* 1 + place in the file's dirty list; 0: not there, now is durable */
};

struct sim_file {
    uint64_t bytes;
    uint32_t refs;
    struct page *pages;
    uint32_t *dirty; /* pages that a crash may change */
    uint32_t n_dirty;
    uint32_t cap_dirty;
};

/* --- names: two tables and the changes between them --- */

struct name {
    char *name;
    struct sim_file *file;
};

struct folder {
    struct name *rows; /* in order of creation */
    unsigned n;
    unsigned cap;
};

enum name_op { NAME_CREATE, NAME_RENAME, NAME_REMOVE };

struct name_change {
    enum name_op op;
    char *name;
    char *to;              /* RENAME */
    struct sim_file *file; /* CREATE */
};

struct sim_names {
    struct folder now;
    struct folder durable;
    struct name_change *changes; /* since the last sync_names */
    unsigned n_changes;
    unsigned cap_changes;
};

extern const uint8_t sim_zeros[DEV_PAGE];

/* NULL for zeros. */
struct blob *sim_blob_new(const void *mem);
void sim_blob_unref(struct blob *b);

static inline struct blob *sim_blob_ref(struct blob *b)
{
    if (b)
        b->refs++;
    return b;
}

static inline const uint8_t *sim_blob_mem(const struct blob *b)
{
    return b ? b->mem : sim_zeros;
}

/* An empty file, one reference. */
struct sim_file *sim_file_new(uint64_t bytes);
struct name *sim_folder_find(const struct folder *fo, const char *name);
void sim_folder_put(struct folder *fo, const char *name, struct sim_file *f);
void sim_folder_apply(struct folder *fo, const struct name_change *c);
void sim_folder_copy(struct folder *to, const struct folder *from);
void sim_folder_free(struct folder *fo);

#endif
