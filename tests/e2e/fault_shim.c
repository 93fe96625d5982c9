/* fault_shim: makes calls of a real process on its files fail. A library for LD_PRELOAD.
 *
 * FAULT_CONTROL names a file of at least 256 bytes that the test writes while the process runs, one line from its first byte on:
 *
 *   NUMBER CALL PART NTH COUNT WHAT
 *
 * A new NUMBER arms: from the NTH such call on a file whose path has PART in it, COUNT of them (0: all that follow) get WHAT: an error
 * (EIO, ENOSPC), SHORT (half of a read or write of more than a page, in whole pages), ODD (512 bytes less) or DELAYn, which is n ms. CALL is pread, pwrite, write, io_submit,
 * io_getevents, fdatasync, fsync, ftruncate, fallocate, rename or open (with O_CREAT). What was done is appended to the file's name
 * with ".hits" behind, one line each. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CONTROL_BYTES = 256, PAGE = 4096, SECTOR = 512, SHORT = -1, DELAY = -2, ODD = -3 };

static const volatile char *control;
static int hits = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned number, nth, count, seen;
    char call[32], part[128], what[16];
} armed;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("FAULT_CONTROL");
    char path[4096];
    int fd = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC) : -1;
    void *mem;

    if (fd < 0)
        return;
    mem = mmap(NULL, CONTROL_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    snprintf(path, sizeof path, "%s.hits", name);
    hits =
        (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (mem != MAP_FAILED)
        control = mem;
}

/* Takes over what the test has written. Under the lock. */
static void control_read(void)
{
    char line[CONTROL_BYTES];
    unsigned number;

    for (unsigned i = 0; i < sizeof line; i++)
        line[i] = control[i];
    line[sizeof line - 1] = 0;
    if (sscanf(line, "%u", &number) != 1 || number == armed.number || !strchr(line, '\n'))
        return;
    if (sscanf(line, "%u %31s %127s %u %u %15s", &number, armed.call, armed.part, &armed.nth,
               &armed.count, armed.what) != 6)
        return;
    armed.number = number;
    armed.seen = 0;
}

static bool path_fits(int fd, const char *path)
{
    char link[64], target[4096];
    ssize_t n;

    if (path)
        return strstr(path, armed.part) != NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, target, sizeof target - 1);
    if (n < 0)
        return false;
    target[n] = 0;
    return strstr(target, armed.part) != NULL;
}

static int what_is(const char *what)
{
    return strcmp(what, "EIO") == 0      ? EIO
           : strcmp(what, "ENOSPC") == 0 ? ENOSPC
           : strcmp(what, "SHORT") == 0  ? SHORT
           : strcmp(what, "ODD") == 0    ? ODD
                                         : DELAY;
}

/* What this call gets: 0: nothing, an errno, SHORT or ODD. Waits where it is a delay. */
static int fault(const char *call, int fd, const char *path)
{
    struct timespec delay = { 0 };
    int what = 0;
    char line[256];

    if (!control)
        return 0;
    pthread_mutex_lock(&lock);
    control_read();
    if (armed.number && strcmp(call, armed.call) == 0 && path_fits(fd, path) &&
        ++armed.seen >= armed.nth && (!armed.count || armed.seen < armed.nth + armed.count)) {
        what = what_is(armed.what);
        if (what == DELAY)
            delay.tv_nsec = atol(armed.what + strlen("DELAY")) * 1000000;
        snprintf(line, sizeof line, "%u %s %s %u\n", armed.number, call, armed.what, armed.seen);
        syscall(SYS_write, hits, line, strlen(line));
    }
    pthread_mutex_unlock(&lock);
    if (what == DELAY) {
        nanosleep(&delay, NULL);
        what = 0;
    }
    return what;
}

/* The call behind ours. */
#define NEXT(name)                                                                                 \
    static __typeof__(&name) next;                                                                 \
    if (!next)                                                                                     \
    *(void **)&next = dlsym(RTLD_NEXT, #name)

/* How much of n bytes is moved. */
static size_t cut(int what, size_t n)
{
    if (what == SHORT && n > PAGE)
        return n / 2 / PAGE * PAGE;
    return what == ODD && n > SECTOR ? n - SECTOR : n;
}

#define FAIL(call, fd, path)                                                                       \
    int what = fault(call, fd, path);                                                              \
    if (what > 0) {                                                                                \
        errno = what;                                                                              \
        return -1;                                                                                 \
    }

ssize_t pread(int fd, void *mem, size_t n, off_t pos)
{
    NEXT(pread);
    FAIL("pread", fd, NULL)
    return next(fd, mem, cut(what, n), pos);
}

ssize_t pwrite(int fd, const void *mem, size_t n, off_t pos)
{
    NEXT(pwrite);
    FAIL("pwrite", fd, NULL)
    return next(fd, mem, cut(what, n), pos);
}

ssize_t write(int fd, const void *mem, size_t n)
{
    NEXT(write);
    FAIL("write", fd, NULL)
    return next(fd, mem, cut(what, n));
}

int fdatasync(int fd)
{
    NEXT(fdatasync);
    FAIL("fdatasync", fd, NULL)
    return next(fd);
}

int fsync(int fd)
{
    NEXT(fsync);
    FAIL("fsync", fd, NULL)
    return next(fd);
}

int ftruncate(int fd, off_t n)
{
    NEXT(ftruncate);
    FAIL("ftruncate", fd, NULL)
    return next(fd, n);
}

int fallocate(int fd, int mode, off_t pos, off_t n)
{
    NEXT(fallocate);
    FAIL("fallocate", fd, NULL)
    return next(fd, mode, pos, n);
}

int rename(const char *from, const char *to)
{
    NEXT(rename);
    FAIL("rename", -1, to)
    return next(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    NEXT(renameat);
    FAIL("rename", -1, to)
    return next(from_fd, from, to_fd, to);
}

static mode_t mode_of(int flags, va_list ap)
{
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(ap, int) : 0;
}

int open(const char *path, int flags, ...)
{
    NEXT(open);
    mode_t mode;
    va_list ap;

    va_start(ap, flags);
    mode = mode_of(flags, ap);
    va_end(ap);
    if (flags & O_CREAT) {
        FAIL("open", -1, path)
    }
    return next(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    NEXT(openat);
    mode_t mode;
    va_list ap;

    va_start(ap, flags);
    mode = mode_of(flags, ap);
    va_end(ap);
    if (flags & O_CREAT) {
        FAIL("open", -1, path)
    }
    return next(folder, path, flags, mode);
}

/* libaio gives its errors as negative results. */
int io_submit(io_context_t ctx, long n, struct iocb **list)
{
    NEXT(io_submit);
    int what = n > 0 ? fault("io_submit", list[0]->aio_fildes, NULL) : 0;

    return what > 0 ? -what : next(ctx, n, list);
}

int io_getevents(io_context_t ctx, long least, long most, struct io_event *events,
                 struct timespec *timeout)
{
    NEXT(io_getevents);
    int n = next(ctx, least, most, events, timeout);
    int what = n > 0 ? fault("io_getevents", events[0].obj->aio_fildes, NULL) : 0;

    if (what > 0)
        events[0].res = (unsigned long)-what;
    else if (n > 0)
        events[0].res = cut(what, events[0].res);
    return n;
}
