/* The volatile device's files, without FUSE between: the kernel lets no write pass a sync of the
 * same file. */
#include "tests/e2e/volatile_file.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

enum { SEEDS = 60 };

/* How often each end was seen. */
struct tally {
    unsigned broken, old, new, torn;
};

struct life {
    struct vfile *v;
    int raw; /* the backing file, past the cache */
    atomic_bool synced;
};

/* What a page holds: every byte a or b, or sectors of both; 'X' for anything else. */
static char page_state(int raw, unsigned index, uint8_t a, uint8_t b)
{
    uint8_t page[VFILE_PAGE];
    unsigned n_b = 0;

    if (pread(raw, page, sizeof page, (off_t)index * VFILE_PAGE) != VFILE_PAGE)
        return 'X';
    for (unsigned s = 0; s < VFILE_PAGE; s += VFILE_SECTOR) {
        if (page[s] != a && page[s] != b)
            return 'X';
        for (unsigned i = 1; i < VFILE_SECTOR; i++)
            if (page[s + i] != page[s])
                return 'X';
        n_b += page[s] == b;
    }
    return n_b == 0 ? 'a' : n_b == VFILE_PAGE / VFILE_SECTOR ? 'b' : 't';
}

static void put_page(struct life *l, unsigned index, uint8_t byte)
{
    uint8_t page[VFILE_PAGE];

    memset(page, byte, sizeof page);
    if (vfile_write(l->v, page, sizeof page, (uint64_t)index * VFILE_PAGE) != VFILE_PAGE)
        _exit(9);
}

static void cut(uint64_t seed)
{
    struct vfile_cut count = { 0 };
    struct rng rng;

    rng_seed(&rng, seed);
    vfile_cut_begin();
    vfile_cut_apply(&rng, &count);
}

/* A cut is for ever: each seed gets a process. fn's page_state comes back and is counted. */
static struct tally over_seeds(char (*fn)(struct life *l, uint64_t seed))
{
    struct tally t = { 0 };
    char path[] = "/tmp/volatile.XXXXXX";

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct life l = { 0 };
        int fd = mkstemp(path), status = 0;
        pid_t pid = fork();

        if (pid == 0) {
            if (vfile_open(AT_FDCWD, path, 0, 0, &l.v) < 0)
                _exit(9);
            l.raw = fd;
            _exit(fn(&l, seed));
        }
        waitpid(pid, &status, 0);
        unlink(path);
        close(fd);
        memcpy(path + sizeof path - 7, "XXXXXX", 6);
        switch (WIFEXITED(status) ? WEXITSTATUS(status) : 0) {
        case 'a':
            t.old++;
            break;
        case 'b':
            t.new ++;
            break;
        case 't':
            t.torn++;
            break;
        default:
            t.broken++;
        }
    }
    return t;
}

static char synced_then_cut(struct life *l, uint64_t seed)
{
    put_page(l, 0, 'a');
    put_page(l, 0, 'b');
    if (vfile_sync(l->v) < 0)
        return 9;
    cut(seed);
    return page_state(l->raw, 0, 'a', 'b');
}

static void test_synced_page_survives_every_cut(void)
{
    struct tally t = over_seeds(synced_then_cut);

    CHECK_EQ(t.new, SEEDS);
}

static char overwritten_then_cut(struct life *l, uint64_t seed)
{
    put_page(l, 0, 'a');
    if (vfile_sync(l->v) < 0)
        return 9;
    put_page(l, 0, 'b');
    cut(seed);
    return page_state(l->raw, 0, 'a', 'b');
}

static void test_unsynced_page_is_kept_or_dropped_or_torn(void)
{
    struct tally t = over_seeds(overwritten_then_cut);

    CHECK_EQ(t.broken, 0);
    CHECK(t.old > 0);
    CHECK(t.new > 0);
    CHECK(t.torn > 0);
}

static void *sync_it(void *arg)
{
    struct life *l = arg;

    if (vfile_sync(l->v) < 0)
        _exit(9);
    atomic_store(&l->synced, true);
    return NULL;
}

/* Page 1 is written again and again, each time another byte, from before the sync until after it:
 * the last write is later than what the sync took, though the sync ended after it. */
static char written_during_sync(struct life *l, uint64_t seed)
{
    unsigned survived = 0;
    uint8_t last = 0, sector[1];
    pthread_t thread;

    put_page(l, 0, 'b');
    vfile_set_delay(20000);
    pthread_create(&thread, NULL, sync_it, l);
    do
        put_page(l, 1, ++last);
    while (!atomic_load(&l->synced));
    pthread_join(thread, NULL);
    cut(seed);
    for (unsigned s = 0; s < VFILE_PAGE; s += VFILE_SECTOR)
        survived += pread(l->raw, sector, 1, VFILE_PAGE + (off_t)s) == 1 && sector[0] == last;
    if (page_state(l->raw, 0, 'a', 'b') != 'b')
        return 'X';
    return survived == 0 ? 'a' : survived == VFILE_PAGE / VFILE_SECTOR ? 'b' : 't';
}

static void test_write_during_a_sync_may_be_lost(void)
{
    struct tally t = over_seeds(written_during_sync);

    CHECK_EQ(t.broken, 0);
    CHECK(t.old > 0);
    CHECK(t.new > 0);
}

/* A sync that the cut meets fails, and what it was writing is as unsynced as the rest. */
static char cut_during_sync(struct life *l, uint64_t seed)
{
    put_page(l, 0, 'a');
    if (vfile_sync(l->v) < 0)
        return 9;
    put_page(l, 0, 'b');
    vfile_cut_begin();
    if (vfile_sync(l->v) >= 0)
        return 9;
    cut(seed);
    return page_state(l->raw, 0, 'a', 'b');
}

static void test_sync_that_meets_the_cut_fails_and_promises_nothing(void)
{
    struct tally t = over_seeds(cut_during_sync);

    CHECK_EQ(t.broken, 0);
    CHECK(t.old > 0);
}

TEST_MAIN(T(synced_page_survives_every_cut) T(unsynced_page_is_kept_or_dropped_or_torn)
              T(write_during_a_sync_may_be_lost)
                  T(sync_that_meets_the_cut_fails_and_promises_nothing))
