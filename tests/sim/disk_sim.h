/* The simulator's disk: files in memory that survive crashes, and know for every 4 KiB page which
 * states it may then have.
 *
 * A page has what reads see, what is durable, and each version written since, in order. A sync
 * makes durable the writes that had been answered before it began. A crash gives every page with
 * unsynced versions its durable state, one of the versions, or a mix of them by 512 B sectors; a
 * prefix of the unsynced name changes survives. Devices (dev_sim.h) and rows (rows_sim.h) come and
 * go over one disk. Everything is drawn from the disk's own seed, or from the source a call
 * names. */
#ifndef WEIR_TESTS_SIM_DISK_SIM_H
#define WEIR_TESTS_SIM_DISK_SIM_H

#include "base/rng.h"
#include "journal/io/dev.h"

/* What may go wrong. READ, WRITE, SYNC, NAMES (rename, remove, sync_names) give E_IO, CREATE gives
 * E_NOSPACE, SLOW and STUCK are for requests: a hundred times as long, or no end before
 * sim_disk_unstick. A failed write may have landed in part. What a failed sync covered is durable,
 * or lost: reads may show it until the crash, and no later sync brings it back. */
enum sim_fault {
    SIM_FAULT_READ,
    SIM_FAULT_WRITE,
    SIM_FAULT_SYNC,
    SIM_FAULT_NAMES,
    SIM_FAULT_CREATE,
    SIM_FAULT_SLOW,
    SIM_FAULT_STUCK,
    /* The silent ones: answered as if nothing were wrong, and written down in the ledger. */
    SIM_FAULT_LOST,   /* a write that is never done */
    SIM_FAULT_ASTRAY, /* a write that lands somewhere else in its file */
    SIM_FAULT_STALE,  /* a read that gives pages as they were before they were last written */
    SIM_FAULT_LIE,    /* a sync that makes nothing durable; the next honest one does */
    SIM_FAULT_COUNT
};

/* What a silent fault did: to bytes [pos, pos + bytes) of a file. */
struct sim_silent {
    enum sim_fault fault;
    char name[32];
    uint64_t pos, bytes;
    uint64_t to; /* ASTRAY: where they went */
};
struct sim_faults {
    uint32_t chance[SIM_FAULT_COUNT]; /* out of 65536 */
    uint32_t nth[SIM_FAULT_COUNT]; /* 1: the next such operation, 2: the one after ..., 0: none */
};

/* What happened, for a run to print. */
struct sim_disk_counts {
    uint64_t reads, writes, syncs, bytes_written;
    uint64_t crashes, kills, power_cuts;
    uint64_t kept_pages, dropped_pages, torn_pages, lost_pages; /* lost: by a failed sync */
    uint64_t lost_names;
    uint64_t faults[SIM_FAULT_COUNT];
};

struct sim_names;
struct sim_client;

struct sim_disk {
    struct sim_faults faults;
    struct sim_disk_counts counts;
    uint64_t capacity;     /* bytes of all files together; 0: no limit */
    struct sim_disk *peer; /* a ring of disks that lose power together; NULL: alone */
    /* Called before every operation, while there is power; may be NULL. */
    void (*before)(void *ctx);
    void *before_ctx;
    struct sim_silent *ledger;
    unsigned n_ledger;
    /* The rest is the disk's. */
    struct rng rng;
    uint64_t trace;
    bool off;
    bool off_armed;
    uint64_t off_after;
    uint64_t serial;
    struct sim_names *names;
    struct sim_client *clients;
    uint64_t *open_reqs; /* requests submitted and not answered */
    unsigned n_open_reqs;
    unsigned cap_open_reqs;
};

struct sim_disk *sim_disk_new(uint64_t seed, uint64_t capacity);
/* Devices over it must be freed before. */
void sim_disk_free(struct sim_disk *d);

/* Power fails and comes back: what is in flight may have landed in part, unsynced pages and names
 * are drawn from r, what is left is durable. Devices made before answer E_IO from then on; their
 * requests in flight are never answered. */
void sim_disk_crash(struct sim_disk *d, struct rng *r);
/* The process is killed: as above, but what had landed stays as it is, unsynced, for a later crash
 * to draw. */
void sim_disk_kill(struct sim_disk *d);
/* The same for a process whose memory is to be given back: its requests in flight are answered
 * E_IO. */
void sim_disk_kill_answering(struct sim_disk *d);
/* From now on every operation gives E_IO and changes nothing, and requests in flight are answered
 * so. Ends with a crash. */
void sim_disk_power_off(struct sim_disk *d);
/* The same after n more operations. The one that power fails in may land in part. */
void sim_disk_power_off_after(struct sim_disk *d, uint64_t n);
/* Lets stuck requests go on. */
void sim_disk_unstick(struct sim_disk *d);
/* Flips one bit of the durable byte at pos; reads see it unless the page has been written since.
 * E_NOTFOUND, E_INVALID. */
int sim_disk_rot(struct sim_disk *d, const char *name, uint64_t pos) MUST_USE;
/* Pages with more than one state to come back in, in all files. */
uint64_t sim_disk_unsynced_pages(const struct sim_disk *d);
/* A hash over every operation so far. */
uint64_t sim_disk_trace(const struct sim_disk *d);

/* --- for what stands on the disk: devices and rows --- */

enum sim_power {
    SIM_POWER_ON,
    SIM_POWER_FAILS, /* during this very operation */
    SIM_POWER_OFF
};
/* Counts one operation. */
enum sim_power sim_disk_use(struct sim_disk *d);
/* True when this operation is to fail so; counted. */
bool sim_disk_fault(struct sim_disk *d, enum sim_fault f);
void sim_disk_trace_mix(struct sim_disk *d, uint64_t value);

/* Why requests in flight end. */
enum sim_cut {
    SIM_CUT_POWER, /* unlanded pages are put down as FATE_PERHAPS, requests are answered E_IO */
    SIM_CUT_CRASH, /* the same, and no answers, for ever */
    SIM_CUT_KILL,  /* unlanded pages land or not, no answers, for ever */
    SIM_CUT_KILL_ANSWERING /* the same, but requests in flight are answered E_IO */
};
struct sim_client {
    void (*cut)(struct sim_client *c, enum sim_cut how);
    void (*unstick)(struct sim_client *c);
    struct sim_client *next;
};
void sim_disk_join(struct sim_disk *d, struct sim_client *c);
void sim_disk_leave(struct sim_disk *d, struct sim_client *c);

struct sim_file;

/* Files by name. open and create give a reference, to be given back with sim_file_unref. */
int sim_disk_open(struct sim_disk *d, const char *name, struct sim_file **out) MUST_USE;
int sim_disk_create(struct sim_disk *d, const char *name, uint64_t bytes,
                    struct sim_file **out) MUST_USE;
int sim_disk_rename(struct sim_disk *d, const char *from, const char *to) MUST_USE;
int sim_disk_remove(struct sim_disk *d, const char *name) MUST_USE;
void sim_disk_sync_names(struct sim_disk *d);
/* fn may change names. */
void sim_disk_list(struct sim_disk *d, void (*fn)(void *ctx, const char *name), void *ctx);
/* Bytes of all files that have a name. */
uint64_t sim_disk_used(const struct sim_disk *d);
void sim_file_unref(struct sim_file *f);
uint64_t sim_file_bytes(const struct sim_file *f);

/* How a write of some pages ends. */
enum sim_fate {
    FATE_LANDS,
    FATE_HALF,   /* page by page: lands or not */
    FATE_PERHAPS /* not seen by reads, but a state after a crash */
};
/* Whole pages, inside the file. req is the request's number, 0: answered at once. */
void sim_file_write(struct sim_disk *d, struct sim_file *f, uint64_t pos, const void *mem,
                    uint32_t bytes, uint64_t req, enum sim_fate fate);
void sim_file_read(const struct sim_file *f, uint64_t pos, void *mem, uint32_t bytes);
/* The same before the last write of each page. */
void sim_file_read_stale(const struct sim_file *f, uint64_t pos, void *mem, uint32_t bytes);
/* Draws whether this silent fault happens now, and writes it down. */
bool sim_disk_silent(struct sim_disk *d, enum sim_fault fault, const struct sim_file *f,
                     uint64_t pos, uint64_t bytes, uint64_t to);

/* Numbers a request that is in flight until sim_req_answered. */
uint64_t sim_req_begin(struct sim_disk *d);
void sim_req_answered(struct sim_disk *d, uint64_t req);

/* A sync covers what had landed at its begin, except for other requests that were not answered
 * then. */
struct sim_sync {
    uint64_t serial;
    uint64_t *open_reqs;
    unsigned n_open_reqs;
};
void sim_sync_begin(struct sim_disk *d, uint64_t req, struct sim_sync *s);
/* Makes it durable, or with ok false some of it, and frees s. */
void sim_sync_end(struct sim_disk *d, struct sim_file *f, struct sim_sync *s, bool ok);
void sim_sync_free(struct sim_sync *s);

#endif
