#include "journal/io/dev.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/logger.h"
#include "base/rng.h"
#include "tests/check.h"

enum { PAGE = DEV_PAGE, FILE_BYTES = 1 << 20 };

static char folder[256];

/* A new name for a folder, below build/ or where told; it does not exist yet. */
static void folder_new(const char *below)
{
    static unsigned serial;

    mkdir("build", 0755);
    snprintf(folder, sizeof folder, "%s/test-dev-%ld-%u", below, (long)getpid(), serial++);
}

static void folder_remove(void)
{
    char path[600];
    DIR *d = opendir(folder);
    const struct dirent *entry;

    while (d && (entry = readdir(d))) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(path) < 0)
            rmdir(path);
    }
    if (d)
        closedir(d);
    rmdir(folder);
}

static struct dev *dev_start(bool read_only)
{
    struct dev *d = NULL;
    struct err e = { 0 };
    int rc = dev_aio_open(&d, folder, &(struct dev_aio_conf){ .read_only = read_only }, &e);

    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    REQUIRE(rc == 0);
    return d;
}

static uint8_t *pages(size_t bytes, uint64_t seed)
{
    struct rng rng;
    void *mem;

    REQUIRE(posix_memalign(&mem, PAGE, bytes) == 0);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)mem)[i] = seed ? (uint8_t)rng_u64(&rng) : 0;
    return mem;
}

/* --- a request, and its loop, until done --- */

struct run {
    struct dev_req r;
    bool inside; /* submit has not returned */
    bool done;
};

static void run_done(struct dev_req *r)
{
    struct run *run = (struct run *)((char *)r - offsetof(struct run, r));

    CHECK(!run->inside);
    CHECK(!run->done);
    run->done = true;
    loop_event_stop(r->loop);
}

/* One loop a process, never freed: a pool's thread may still be inside loop_post when done runs. */
static struct loop *run_loop(void)
{
    static struct loop *loop;
    static pid_t owner;

    if (owner != getpid()) { /* a forked child must not share the parent's epoll */
        REQUIRE(loop_event_new(&loop, 0, NULL) == 0);
        owner = getpid();
    }
    return loop;
}

static int run_request(struct dev *d, enum dev_queue q, struct dev_io *io, unsigned n_io,
                       struct dev_file *sync)
{
    struct run run = { .inside = true };
    struct loop *loop = run_loop();

    run.r = (struct dev_req){ .loop = loop, .done = run_done, .io = io, .n_io = n_io };
    run.r.sync = &sync;
    run.r.n_sync = sync ? 1 : 0;
    run.r.rc = 1;
    dev_submit(d, &run.r, q);
    /* Pool work may be finished by now, but its done runs on this thread, which is still here. */
    run.inside = false;
    loop_event_run(loop);
    REQUIRE(run.done);
    return run.r.rc;
}

/* --- tests --- */

static void write_and_read_back(void)
{
    struct dev *d = dev_start(false);
    struct dev_file *f = NULL;
    uint8_t *out = pages(FILE_BYTES, 7), *in = pages(FILE_BYTES, 0);
    static const enum dev_queue write_queue[] = { DEV_COMMIT, DEV_BACKGROUND };
    static const enum dev_queue read_queue[] = { DEV_READ, DEV_COMMIT };

    REQUIRE(dev_create(d, "f", 4 * FILE_BYTES, &f, NULL) == 0);
    CHECK_EQ(f->bytes, 4 * FILE_BYTES);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t pos = i * 2u * FILE_BYTES + PAGE;
        struct dev_io io = {
            .file = f, .pos = pos, .mem = out, .bytes = FILE_BYTES, .write = true
        };

        CHECK_EQ(run_request(d, write_queue[i], &io, 1, f), 0);
        io.mem = in;
        io.write = false;
        memset(in, 0, FILE_BYTES);
        CHECK_EQ(run_request(d, read_queue[i], &io, 1, NULL), 0);
        CHECK(memcmp(in, out, FILE_BYTES) == 0);
    }
    CHECK_EQ(dev_write(d, f, 3 * PAGE, out, 2 * PAGE), 0);
    CHECK_EQ(dev_sync(d, f), 0);
    dev_close(d, f);
    REQUIRE(dev_open(d, "f", &f, NULL) == 0);
    CHECK_EQ(f->bytes, 4 * FILE_BYTES);
    CHECK_EQ(dev_read(d, f, 3 * PAGE, in, 2 * PAGE), 0);
    CHECK(memcmp(in, out, 2 * PAGE) == 0);
    CHECK_EQ(dev_read(d, f, 5 * PAGE, in, PAGE), 0); /* the neighbour is what it was */
    CHECK(memcmp(in, out + 4 * PAGE, PAGE) == 0);
    dev_close(d, f);
    dev_aio_close(d);
    free(out);
    free(in);
}

static void test_dev_aio_reads_back_what_each_queue_wrote(void)
{
    folder_new("build");
    write_and_read_back();
    folder_remove();
}

/* More transfers than one io_submit takes, over two files, in any order. */
static void test_dev_aio_commits_many_writes_at_once(void)
{
    enum { N = 300 };
    static struct dev_io io[N];
    struct dev_file *f[2] = { NULL, NULL };
    struct dev *d;
    uint8_t *out = pages(N * PAGE, 3), *in = pages(PAGE, 0);

    folder_new("build");
    d = dev_start(false);
    REQUIRE(dev_create(d, "a", N * PAGE, &f[0], NULL) == 0);
    REQUIRE(dev_create(d, "b", N * PAGE, &f[1], NULL) == 0);
    for (unsigned i = 0; i < N; i++)
        io[i] = (struct dev_io){ .file = f[i % 2],
                                 .pos = (i * 7u % N) * PAGE,
                                 .mem = out + i * PAGE,
                                 .bytes = PAGE,
                                 .write = true };
    CHECK_EQ(run_request(d, DEV_COMMIT, io, N, f[0]), 0);
    for (unsigned i = 0; i < N; i++) {
        CHECK_EQ(dev_read(d, io[i].file, io[i].pos, in, PAGE), 0);
        CHECK(memcmp(in, out + i * PAGE, PAGE) == 0);
    }
    dev_close(d, f[0]);
    dev_close(d, f[1]);
    dev_aio_close(d);
    free(out);
    free(in);
    folder_remove();
}

static void test_dev_aio_refuses_transfers_past_the_end(void)
{
    static const uint64_t pos[] = { 2 * PAGE, 3 * PAGE, 1 * PAGE, UINT64_MAX - PAGE + 1 };
    static const uint32_t bytes[] = { PAGE, PAGE, 2 * PAGE, 2 * PAGE };
    struct dev_file *f;
    struct dev *d;
    struct stat st;
    uint8_t *mem = pages(2 * PAGE, 1);
    char path[300];

    folder_new("build");
    d = dev_start(false);
    REQUIRE(dev_create(d, "f", 2 * PAGE, &f, NULL) == 0);
    for (unsigned i = 0; i < sizeof pos / sizeof pos[0]; i++) {
        CHECK_EQ(dev_read(d, f, pos[i], mem, bytes[i]), E_IO);
        CHECK_EQ(dev_write(d, f, pos[i], mem, bytes[i]), E_IO);
        for (int q = DEV_COMMIT; q <= DEV_BACKGROUND; q++)
            for (int write = 0; write < 2; write++) {
                struct dev_io io[2] = {
                    { .file = f, .pos = 0, .mem = mem, .bytes = PAGE, .write = write },
                    { .file = f, .pos = pos[i], .mem = mem, .bytes = bytes[i], .write = write },
                };
                CHECK_EQ(run_request(d, (enum dev_queue)q, io, 2, NULL), E_IO);
            }
    }
    CHECK_EQ(dev_read(d, f, PAGE, mem, PAGE), 0);
    snprintf(path, sizeof path, "%s/f", folder);
    CHECK(stat(path, &st) == 0 && st.st_size == 2 * PAGE);
    dev_close(d, f);
    dev_aio_close(d);
    free(mem);
    folder_remove();
}

/* A file cut short behind our back: bytes says one thing, the kernel another. */
static void test_dev_aio_short_read_is_an_error(void)
{
    struct dev_file *f;
    struct dev *d;
    uint8_t *mem = pages(4 * PAGE, 1);
    char path[300];

    folder_new("build");
    d = dev_start(false);
    REQUIRE(dev_create(d, "f", 4 * PAGE, &f, NULL) == 0);
    snprintf(path, sizeof path, "%s/f", folder);
    logger_to(-1);
    for (int odd = 0; odd < 2; odd++) {
        REQUIRE(truncate(path, 2 * PAGE + (odd ? 100 : 0)) == 0);
        CHECK_EQ(dev_read(d, f, 0, mem, 4 * PAGE), E_IO);
        for (int q = DEV_COMMIT; q <= DEV_BACKGROUND; q++) {
            struct dev_io io = { .file = f, .pos = 0, .mem = mem, .bytes = 4 * PAGE };

            CHECK_EQ(run_request(d, (enum dev_queue)q, &io, 1, NULL), E_IO);
        }
        CHECK_EQ(dev_read(d, f, 0, mem, 2 * PAGE), 0);
    }
    logger_to(2);
    dev_close(d, f);
    dev_aio_close(d);
    free(mem);
    folder_remove();
}

struct names {
    char text[256];
    unsigned n;
};

static void names_add(void *ctx, const char *name)
{
    struct names *n = ctx;

    strcat(n->text, name);
    strcat(n->text, " ");
    n->n++;
}

static void test_dev_aio_creates_renames_removes_and_lists(void)
{
    struct names names = { .n = 0 };
    struct dev_file *f = NULL, *g = NULL;
    struct err e = { 0 };
    struct dev *d;
    struct stat st;
    uint8_t *mem = pages(FILE_BYTES, 9), *zero = pages(FILE_BYTES, 0);
    char path[300];

    folder_new("build");
    d = dev_start(false);
    REQUIRE(dev_create(d, "one", FILE_BYTES, &f, NULL) == 0);
    CHECK_EQ(dev_read(d, f, 0, mem, FILE_BYTES), 0);
    CHECK(memcmp(mem, zero, FILE_BYTES) == 0);
    snprintf(path, sizeof path, "%s/one", folder);
    CHECK(stat(path, &st) == 0 && st.st_size == FILE_BYTES && st.st_blocks * 512L >= FILE_BYTES);
    CHECK_EQ(dev_create(d, "one", PAGE, &g, &e), E_EXISTS);
    CHECK(strstr(e.text, "one") != NULL);
    CHECK(stat(path, &st) == 0 && st.st_size == FILE_BYTES); /* and it is left alone */
    CHECK_EQ(dev_rename(d, "one", "two"), 0);
    CHECK_EQ(dev_open(d, "one", &g, NULL), E_NOTFOUND);
    CHECK_EQ(dev_rename(d, "one", "two"), E_NOTFOUND);
    CHECK_EQ(dev_remove(d, "one"), E_NOTFOUND);
    CHECK_EQ(dev_sync_names(d), 0);
    snprintf(path, sizeof path, "%s/below", folder);
    REQUIRE(mkdir(path, 0755) == 0);
    CHECK_EQ(dev_open(d, "below", &g, NULL) < 0, 1);
    CHECK_EQ(dev_list(d, names_add, &names), 0);
    CHECK_EQ(names.n, 1); /* neither the folder nor the lock */
    CHECK(strcmp(names.text, "two ") == 0);
    CHECK_EQ(dev_remove(d, "two"), 0);
    CHECK_EQ(dev_open(d, "two", &g, NULL), E_NOTFOUND);
    dev_close(d, f);
    dev_aio_close(d);
    free(mem);
    free(zero);
    folder_remove();
}

static void test_dev_aio_refuses_names_that_leave_the_folder(void)
{
    static const char *const bad[] = { "", ".", "..", ".hidden", "a/b", "/etc/passwd", "lock" };
    struct dev_file *f = NULL;
    struct dev *d;

    folder_new("build");
    d = dev_start(false);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(dev_open(d, bad[i], &f, NULL), E_INVALID);
        CHECK_EQ(dev_create(d, bad[i], PAGE, &f, NULL), E_INVALID);
        CHECK_EQ(dev_remove(d, bad[i]), E_INVALID);
        CHECK_EQ(dev_rename(d, "good", bad[i]), E_INVALID);
        CHECK_EQ(dev_rename(d, bad[i], "good"), E_INVALID);
    }
    dev_aio_close(d);
    folder_remove();
}

static void test_dev_aio_space_is_the_file_systems(void)
{
    struct dev_space s = { 0 };
    struct dev *d;

    folder_new("build");
    d = dev_start(false);
    CHECK_EQ(dev_space(d, &s), 0);
    CHECK(s.total > 0 && s.free <= s.total);
    dev_aio_close(d);
    folder_remove();
}

static int child_status(pid_t pid)
{
    int status = 0;

    REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status;
}

static void test_dev_aio_lock_names_who_holds_it(void)
{
    struct dev *d, *second = NULL;
    struct err e = { 0 };
    char pid_text[32];
    int go[2];
    pid_t pid;
    char byte;

    folder_new("build");
    REQUIRE(pipe(go) == 0);
    pid = fork();
    if (pid == 0) {
        if (dev_aio_open(&d, folder, &(struct dev_aio_conf){ 0 }, NULL) < 0)
            _exit(1);
        if (write(go[1], "x", 1) != 1)
            _exit(1);
        pause(); /* until killed, the lock held */
        _exit(0);
    }
    REQUIRE(read(go[0], &byte, 1) == 1);
    CHECK_EQ(dev_aio_open(&second, folder, &(struct dev_aio_conf){ 0 }, &e), E_LOCKED);
    snprintf(pid_text, sizeof pid_text, "process %ld", (long)pid);
    CHECK(strstr(e.text, pid_text) != NULL);
    CHECK(strstr(e.text, folder) != NULL);
    kill(pid, SIGKILL);
    child_status(pid);
    d = dev_start(false); /* a killed process holds nothing */
    CHECK_EQ(dev_aio_open(&second, folder, &(struct dev_aio_conf){ 0 }, &e), E_LOCKED);
    CHECK(strstr(e.text, "given twice") != NULL);
    dev_aio_close(d);
    dev_aio_close(dev_start(false));
    close(go[0]);
    close(go[1]);
    folder_remove();
}

static void test_dev_aio_read_only_reads_beside_a_writer(void)
{
    struct dev *d, *reader = NULL;
    struct dev_file *f, *g;
    uint8_t *out = pages(2 * PAGE, 5), *in = pages(2 * PAGE, 0);
    struct dev_io io;

    folder_new("build");
    CHECK_EQ(dev_aio_open(&reader, folder, &(struct dev_aio_conf){ .read_only = true }, NULL),
             E_NOTFOUND);
    CHECK(access(folder, F_OK) < 0);
    d = dev_start(false);
    REQUIRE(dev_create(d, "f", 2 * PAGE, &f, NULL) == 0);
    reader = dev_start(true);
    CHECK(reader->read_only);
    REQUIRE(dev_open(reader, "f", &g, NULL) == 0);
    REQUIRE(dev_write(d, f, 0, out, 2 * PAGE) == 0);
    io = (struct dev_io){ .file = g, .pos = 0, .mem = in, .bytes = 2 * PAGE };
    CHECK_EQ(run_request(reader, DEV_READ, &io, 1, NULL), 0);
    CHECK(memcmp(in, out, 2 * PAGE) == 0);
    dev_close(reader, g);
    dev_aio_close(reader);
    dev_close(d, f);
    dev_aio_close(d);
    free(out);
    free(in);
    folder_remove();
}

/* --- faults: a child whose kernel refuses one system call --- */

static void deny(int call, int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = 4, .filter = code };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        _exit(100);
}

/* The log of a child, for the parent to search. */
static int log_fd(void)
{
    char name[300];
    int fd;

    snprintf(name, sizeof name, "%s.log", folder);
    fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    REQUIRE(fd >= 0);
    unlink(name);
    return fd;
}

static unsigned log_count(int fd, const char *word)
{
    static char text[1 << 16];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    unsigned count = 0;

    text[n > 0 ? n : 0] = '\0';
    for (const char *at = text; (at = strstr(at, word)); at++)
        count++;
    return count;
}

/* Runs body in a child with call refused; gives the child's exit status. */
static int with_denied(int call, int error, int log, int (*body)(void))
{
    pid_t pid = fork();

    if (pid == 0) {
        logger_to(log);
        deny(call, error);
        _exit(body());
    }
    int status = child_status(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* 0, or the number of the step that went wrong. Ten commits of two writes, read back. */
static int body_commits(void)
{
    uint8_t *out = pages(2 * PAGE, 11), *in = pages(2 * PAGE, 0);
    struct dev_file *f;
    struct dev *d;

    if (dev_aio_open(&d, folder, &(struct dev_aio_conf){ 0 }, NULL) < 0)
        return 1;
    if (dev_create(d, "f", 20 * PAGE, &f, NULL) < 0)
        return 2;
    for (unsigned i = 0; i < 10; i++) {
        uint64_t pos = 2u * i * PAGE;
        struct dev_io io[2] = {
            { .file = f, .pos = pos, .mem = out, .bytes = PAGE, .write = true },
            { .file = f, .pos = pos + PAGE, .mem = out + PAGE, .bytes = PAGE, .write = true },
        };

        if (run_request(d, DEV_COMMIT, io, 2, f) < 0)
            return 3;
        if (dev_read(d, f, pos, in, 2 * PAGE) < 0 || memcmp(in, out, 2 * PAGE) != 0)
            return 4;
    }
    dev_close(d, f);
    dev_aio_close(d);
    free(out);
    free(in);
    return 0;
}

static void test_dev_aio_commits_without_libaio_and_warns_once(void)
{
    static const int call[] = { SYS_io_setup, SYS_io_submit };
    static const int error[] = { ENOSYS, EPERM, EINVAL };

    for (unsigned i = 0; i < 2; i++)
        for (unsigned j = 0; j < 3; j++) {
            int log;

            folder_new("build");
            log = log_fd();
            CHECK_EQ(with_denied(call[i], error[j], log, body_commits), 0);
            CHECK_EQ(log_count(log, "dev.no_libaio"), 1);
            close(log);
            folder_remove();
        }
}

/* A flush that fails must fail the request, on every way to it. Gives how many said E_IO. */
static int body_failing_flush(void)
{
    uint8_t *out = pages(PAGE, 11);
    struct dev_file *f;
    struct dev *d;
    int n = 0;

    if (dev_aio_open(&d, folder, &(struct dev_aio_conf){ 0 }, NULL) < 0 ||
        dev_create(d, "f", PAGE, &f, NULL) < 0)
        return 50;
    for (int q = DEV_COMMIT; q <= DEV_BACKGROUND; q++) {
        struct dev_io io = { .file = f, .pos = 0, .mem = out, .bytes = PAGE, .write = true };

        n += run_request(d, (enum dev_queue)q, &io, 1, f) == E_IO;
    }
    n += dev_sync(d, f) == E_IO;
    dev_close(d, f);
    dev_aio_close(d);
    free(out);
    return n;
}

static void test_dev_aio_failed_flush_fails_the_request(void)
{
    static const int error[] = { EIO, ENOSPC, EINTR };

    for (unsigned i = 0; i < 3; i++) {
        int log;

        folder_new("build");
        log = log_fd();
        CHECK_EQ(with_denied(SYS_fdatasync, error[i], log, body_failing_flush), 4);
        CHECK_EQ(log_count(log, "dev.failed"), 4); /* once each: no retry */
        close(log);
        folder_remove();
    }
}

/* Gives the errors' place in the house's table, so that it fits an exit status. */
static int body_failing_write(void)
{
    uint8_t *out = pages(PAGE, 11);
    struct dev_file *f;
    struct dev *d;
    int blocking, background;
    struct dev_io io;

    if (dev_aio_open(&d, folder, &(struct dev_aio_conf){ 0 }, NULL) < 0 ||
        dev_create(d, "f", PAGE, &f, NULL) < 0)
        return 50;
    io = (struct dev_io){ .file = f, .pos = 0, .mem = out, .bytes = PAGE, .write = true };
    blocking = dev_write(d, f, 0, out, PAGE);
    background = run_request(d, DEV_BACKGROUND, &io, 1, f);
    dev_close(d, f);
    dev_aio_close(d);
    free(out);
    return blocking == background ? -1000 - blocking : 51;
}

static void test_dev_aio_full_disk_is_not_a_broken_one(void)
{
    static const int error[] = { ENOSPC, EDQUOT, EIO, EROFS };
    static const int code[] = { E_NOSPACE, E_NOSPACE, E_IO, E_IO };

    for (unsigned i = 0; i < 4; i++) {
        int log;

        folder_new("build");
        log = log_fd();
        CHECK_EQ(with_denied(SYS_pwrite64, error[i], log, body_failing_write), -1000 - code[i]);
        close(log);
        folder_remove();
    }
}

/* libaio's own errors: a limit on file sizes refuses what lies beyond it and cuts what crosses it.
 * Gives how many commits said E_IO. */
static int body_limited(void)
{
    uint8_t *out = pages(4 * PAGE, 11);
    struct dev_file *f;
    struct dev *d;
    int n = 0;

    if (dev_aio_open(&d, folder, &(struct dev_aio_conf){ 0 }, NULL) < 0 ||
        dev_create(d, "f", 8 * PAGE, &f, NULL) < 0)
        return 50;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 3 * PAGE, 3 * PAGE });
    for (unsigned i = 0; i < 3; i++) {
        uint64_t pos = i == 0 ? 4 * PAGE : i == 1 ? 2 * PAGE : 1 * PAGE;
        struct dev_io io[2] = {
            { .file = f, .pos = 0, .mem = out, .bytes = PAGE, .write = true },
            { .file = f, .pos = pos, .mem = out, .bytes = 2 * PAGE, .write = true },
        };
        int rc = run_request(d, DEV_COMMIT, io, 2, f);

        if (i == 2 && rc != 0)
            return 51; /* the third stays below the limit */
        n += rc == E_IO;
    }
    dev_close(d, f);
    dev_aio_close(d);
    free(out);
    return n;
}

static void test_dev_aio_one_failed_write_fails_the_commit(void)
{
    pid_t pid;

    folder_new("build");
    pid = fork();
    if (pid == 0) {
        logger_to(-1);
        _exit(body_limited());
    }
    CHECK_EQ(WEXITSTATUS(child_status(pid)), 2);
    folder_remove();
}

static int body_create(void)
{
    uint8_t *in = pages(3 * PAGE, 4), *zero = pages(3 * PAGE, 0);
    struct dev_file *f;
    struct dev *d;
    int rc;

    if (dev_aio_open(&d, folder, &(struct dev_aio_conf){ 0 }, NULL) < 0)
        return 50;
    rc = dev_create(d, "f", 3 * PAGE, &f, NULL);
    if (rc == 0) {
        if (f->bytes != 3 * PAGE || dev_read(d, f, 0, in, 3 * PAGE) < 0 ||
            memcmp(in, zero, 3 * PAGE) != 0)
            return 51;
        dev_close(d, f);
    }
    dev_aio_close(d);
    free(in);
    free(zero);
    return rc == 0 ? 0 : -1000 - rc;
}

static void test_dev_aio_create_without_fallocate_writes_zeros(void)
{
    struct stat st;
    char path[300];
    int log;

    folder_new("build");
    log = log_fd();
    CHECK_EQ(with_denied(SYS_fallocate, EOPNOTSUPP, log, body_create), 0);
    snprintf(path, sizeof path, "%s/f", folder);
    CHECK(stat(path, &st) == 0 && st.st_blocks * 512L >= 3 * PAGE);
    close(log);
    folder_remove();
}

static void test_dev_aio_create_without_space_leaves_nothing(void)
{
    char path[300];
    int log;

    folder_new("build");
    log = log_fd();
    CHECK_EQ(with_denied(SYS_fallocate, ENOSPC, log, body_create), -1000 - E_NOSPACE);
    snprintf(path, sizeof path, "%s/f", folder);
    CHECK(access(path, F_OK) < 0);
    close(log);
    folder_remove();
}

/* --- memory file systems --- */

static int body_shm(void)
{
    unsigned before = CU_get_number_of_failures();

    write_and_read_back();
    return CU_get_number_of_failures() != before;
}

static void test_dev_aio_works_on_tmpfs_and_says_what_is_weaker(void)
{
    int log;
    pid_t pid;

    if (access("/dev/shm", W_OK) < 0) {
        puts("no /dev/shm: tmpfs is not tested");
        return;
    }
    folder_new("build");
    log = log_fd();
    folder_new("/dev/shm");
    pid = fork();
    if (pid == 0) {
        logger_to(log);
        _exit(body_shm());
    }
    CHECK_EQ(child_status(pid), 0);
    CHECK_EQ(log_count(log, "dev.weak_file_system"), 1);
    CHECK_EQ(log_count(log, "lost with power"), 1);
    close(log);
    folder_remove();
}

/* --- our own bugs --- */

static int aborts(void (*body)(struct dev *d, struct dev_file *f), bool read_only)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct dev_file *f;
        struct dev *d;
        int null = open("/dev/null", O_WRONLY);

        dup2(null, 2);
        signal(SIGABRT, SIG_DFL);
        if (dev_aio_open(&d, folder, &(struct dev_aio_conf){ .read_only = read_only }, NULL) < 0 ||
            dev_open(d, "f", &f, NULL) < 0)
            _exit(1);
        body(d, f);
        _exit(0);
    }
    status = child_status(pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static uint8_t page[2 * PAGE] __attribute__((aligned(PAGE)));

static void bug_memory(struct dev *d, struct dev_file *f)
{
    (void)!dev_read(d, f, 0, page + 512, PAGE);
}
static void bug_position(struct dev *d, struct dev_file *f)
{
    (void)!dev_read(d, f, 512, page, PAGE);
}
static void bug_length(struct dev *d, struct dev_file *f)
{
    (void)!dev_read(d, f, 0, page, 512);
}
static void bug_write(struct dev *d, struct dev_file *f)
{
    (void)!dev_write(d, f, 0, page, PAGE);
}
static void no_bug(struct dev *d, struct dev_file *f)
{
    (void)!dev_read(d, f, 0, page, PAGE);
}

static void test_dev_aio_stops_at_our_own_bugs(void)
{
    struct dev_file *f;
    struct dev *d;

    folder_new("build");
    d = dev_start(false);
    REQUIRE(dev_create(d, "f", 2 * PAGE, &f, NULL) == 0);
    dev_close(d, f);
    dev_aio_close(d);
    CHECK(aborts(bug_memory, false));
    CHECK(aborts(bug_position, false));
    CHECK(aborts(bug_length, false));
    CHECK(aborts(bug_write, true));
    CHECK(!aborts(no_bug, true));
    folder_remove();
}

// clang-format off
TEST_MAIN(T(dev_aio_reads_back_what_each_queue_wrote)
          T(dev_aio_commits_many_writes_at_once)
          T(dev_aio_refuses_transfers_past_the_end)
          T(dev_aio_short_read_is_an_error)
          T(dev_aio_creates_renames_removes_and_lists)
          T(dev_aio_refuses_names_that_leave_the_folder)
          T(dev_aio_space_is_the_file_systems)
          T(dev_aio_lock_names_who_holds_it)
          T(dev_aio_read_only_reads_beside_a_writer)
          T(dev_aio_commits_without_libaio_and_warns_once)
          T(dev_aio_failed_flush_fails_the_request)
          T(dev_aio_full_disk_is_not_a_broken_one)
          T(dev_aio_one_failed_write_fails_the_commit)
          T(dev_aio_create_without_fallocate_writes_zeros)
          T(dev_aio_create_without_space_leaves_nothing)
          T(dev_aio_works_on_tmpfs_and_says_what_is_weaker)
          T(dev_aio_stops_at_our_own_bugs))
