/* volatile_writer: what tests/e2e/test_volatile_fs.sh puts on the volatile device, and looks for
 * after the cut.
 *
 *   volatile_writer write DIR LOG     writes until a call fails (that is the power cut: exit 0)
 *   volatile_writer check DIR LOG     DIR is the backing folder; exit 1: something synced is gone
 *
 * One thread rewrites a ring of pages, each 512-byte sector carrying the page's sequence number;
 * another syncs them, again and again, and after each sync that succeeded logs "synced S": S had
 * been written when it began. It also creates numbered files and replaces the file CURRENT through
 * a rename, and logs how far the folder was synced. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, SECTOR = 512, RING = 1024 };

static atomic_ullong written;
static atomic_bool stop;
static int dir_fd, ring_fd;

/* Every word of a sector follows from the sequence number and the sector's place. */
static uint64_t word(uint64_t seq, unsigned sector, unsigned i)
{
    return i == 0 ? seq : (seq * 8 + sector) * 0x9E3779B97F4A7C15u + i;
}

static void fill(uint64_t *page, uint64_t seq)
{
    for (unsigned s = 0; s < PAGE / SECTOR; s++)
        for (unsigned i = 0; i < SECTOR / 8; i++)
            page[s * (SECTOR / 8) + i] = word(seq, s, i);
}

static void *write_ring(void *arg)
{
    uint64_t *page = aligned_alloc(PAGE, PAGE);

    for (uint64_t seq = RING; !atomic_load(&stop); seq++) {
        fill(page, seq);
        if (pwrite(ring_fd, page, PAGE, (off_t)(seq % RING) * PAGE) != PAGE)
            break;
        atomic_store(&written, seq);
    }
    free(page);
    return NULL;
}

/* The ring's first content is synced before anything counts. */
static bool prepare_ring(const char *dir, bool direct)
{
    uint64_t *page = aligned_alloc(PAGE, PAGE);
    bool ok;

    dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
    ring_fd = openat(dir_fd, "ring", O_RDWR | O_CREAT | O_EXCL | (direct ? O_DIRECT : 0), 0600);
    ok = dir_fd >= 0 && ring_fd >= 0;
    for (uint64_t seq = 0; ok && seq < RING; seq++) {
        fill(page, seq);
        ok = pwrite(ring_fd, page, PAGE, (off_t)seq * PAGE) == PAGE;
    }
    atomic_store(&written, RING - 1);
    free(page);
    return ok && fsync(ring_fd) == 0 && fsync(dir_fd) == 0;
}

static bool put_file(const char *name, unsigned n)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char text[32];
    int len = snprintf(text, sizeof text, "%u\n", n);
    bool ok = fd >= 0 && write(fd, text, (size_t)len) == len && fsync(fd) == 0;

    if (fd >= 0)
        close(fd);
    return ok;
}

/* A new numbered file and a new CURRENT; every third time they are made to last. */
static bool put_names(unsigned n, FILE *log)
{
    char name[32];

    snprintf(name, sizeof name, "n%u", n);
    if (!put_file(name, n) || !put_file("CURRENT.new", n) ||
        renameat(dir_fd, "CURRENT.new", dir_fd, "CURRENT") < 0)
        return false;
    fprintf(log, "made %u\n", n);
    if (n % 3)
        return true;
    if (fsync(dir_fd) < 0)
        return false;
    fprintf(log, "named %u\n", n);
    return fflush(log) == 0;
}

static int do_write(const char *dir, const char *log_path)
{
    FILE *log = fopen(log_path, "w");
    unsigned long long before;
    pthread_t thread;

    if (!log || !prepare_ring(dir, getenv("WRITER_BUFFERED") == NULL)) {
        perror(dir);
        return 1;
    }
    pthread_create(&thread, NULL, write_ring, NULL);
    for (unsigned n = 1;; n++) {
        before = atomic_load(&written);
        if (fdatasync(ring_fd) < 0)
            break;
        fprintf(log, "synced %llu\n", before);
        fflush(log);
        if (n % 4 == 0 && !put_names(n / 4, log))
            break;
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    fprintf(log, "written %llu\n", (unsigned long long)atomic_load(&written));
    return fclose(log) == 0 ? 0 : 1;
}

/* ---- check ---- */

struct promise {
    unsigned long long safe, written; /* sequence numbers */
    unsigned named, made;
};

static bool read_log(const char *path, struct promise *p)
{
    FILE *log = fopen(path, "r");
    char line[128];

    if (!log)
        return false;
    while (fgets(line, sizeof line, log)) {
        (void)(sscanf(line, "synced %llu", &p->safe) == 1 ||
               sscanf(line, "named %u", &p->named) == 1 || sscanf(line, "made %u", &p->made) == 1 ||
               sscanf(line, "written %llu", &p->written) == 1);
    }
    fclose(log);
    return p->written > 0;
}

/* The newest sequence number at or below `seq` that was written to page p. */
static uint64_t newest(uint64_t seq, uint64_t p)
{
    return seq - (seq + RING - p) % RING;
}

/* Gives the lowest and highest sequence number in the page's sectors; false for a sector that
 * nobody wrote. */
static bool sectors(const uint64_t *page, uint64_t *low, uint64_t *high)
{
    *low = UINT64_MAX;
    *high = 0;
    for (unsigned s = 0; s < PAGE / SECTOR; s++) {
        const uint64_t *w = page + s * (SECTOR / 8);

        for (unsigned i = 0; i < SECTOR / 8; i++)
            if (w[i] != word(w[0], s, i))
                return false;
        *low = w[0] < *low ? w[0] : *low;
        *high = w[0] > *high ? w[0] : *high;
    }
    return true;
}

struct found {
    unsigned bad, kept, torn, lost;
};

static void check_page(const struct promise *p, uint64_t index, const uint64_t *page,
                       struct found *f)
{
    /* A write that failed at the cut may have reached the device: one page more than `written`. */
    uint64_t last = newest(p->written + 1, index), safe = newest(p->safe, index);
    uint64_t low, high;

    if (!sectors(page, &low, &high) || low < safe || high > last || low % RING != index) {
        fprintf(stderr, "page %llu: synced %llu is not there\n", (unsigned long long)index,
                (unsigned long long)safe);
        f->bad++;
        return;
    }
    last = newest(p->written, index);
    if (last > safe) {
        f->kept += low >= last;
        f->torn += low < high;
        f->lost += high < last;
    }
}

static unsigned check_ring(const char *dir, const struct promise *p, struct found *f)
{
    char path[4096];
    uint64_t page[PAGE / 8];
    FILE *file;

    snprintf(path, sizeof path, "%s/ring", dir);
    file = fopen(path, "r");
    for (uint64_t i = 0; i < RING; i++) {
        if (!file || fread(page, PAGE, 1, file) != 1) {
            fprintf(stderr, "%s: page %llu cannot be read\n", path, (unsigned long long)i);
            f->bad++;
            break;
        }
        check_page(p, i, page, f);
    }
    if (file)
        fclose(file);
    return f->bad;
}

/* The number in a file; 0 when it is missing or not whole. */
static unsigned number_in(const char *dir, const char *name)
{
    char path[4096];
    unsigned n = 0;
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%u", &n) != 1)
            n = 0;
        fclose(file);
    }
    return n;
}

static unsigned check_names(const char *dir, const struct promise *p, unsigned *lost)
{
    unsigned bad = 0, current = number_in(dir, "CURRENT");
    char name[32];

    for (unsigned n = 1; n <= p->named; n++) {
        snprintf(name, sizeof name, "n%u", n);
        bad += number_in(dir, name) != n;
    }
    bad += current < p->named;
    *lost = 0;
    for (unsigned n = p->named + 1; n <= p->made; n++) {
        snprintf(name, sizeof name, "n%u", n);
        *lost += number_in(dir, name) == 0;
    }
    if (bad)
        fprintf(stderr, "%u synced names are missing\n", bad);
    return bad;
}

static int do_check(const char *dir, const char *log)
{
    struct promise p = { 0 };
    struct found f = { 0 };
    unsigned names_lost, bad;

    if (!read_log(log, &p)) {
        fprintf(stderr, "%s: no end\n", log);
        return 2;
    }
    bad = check_ring(dir, &p, &f) + check_names(dir, &p, &names_lost);
    printf("bad %u kept %u torn %u lost %u names_lost %u\n", bad, f.kept, f.torn, f.lost,
           names_lost);
    return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "write") == 0)
        return do_write(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "check") == 0)
        return do_check(argv[2], argv[3]);
    fputs("usage: volatile_writer write|check DIR LOG\n", stderr);
    return 2;
}
