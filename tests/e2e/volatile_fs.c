/* volatile_fs: a FUSE file system that behaves like a disk with a volatile write cache.
 *
 *   volatile_fs [--seed N] [--sync-us N] [--keep-names] BACKING MOUNT
 *
 * It shows the folder BACKING at MOUNT, in the foreground, until it is unmounted. Writes, O_DIRECT
 * or not, stay in memory until their file is synced; names until their folder is (volatile_file.h,
 * volatile_names.h). SIGUSR1, or any write to MOUNT/.cut, cuts the power: from then on every call
 * answers EIO, and BACKING holds what a disk might. A clean unmount loses nothing. --sync-us makes
 * each sync take that long. */
#define FUSE_USE_VERSION 35
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/e2e/volatile_file.h"
#include "tests/e2e/volatile_names.h"

static const char cut_file[] = "/.cut";

static int root;
static struct rng rng;
static atomic_bool dead;                                 /* the power is off, or going */
static pthread_rwlock_t on = PTHREAD_RWLOCK_INITIALIZER; /* held shared by every call */

/* Each call that touches the disk is between these. */
static int enter(void)
{
    if (atomic_load(&dead))
        return -EIO;
    pthread_rwlock_rdlock(&on);
    if (atomic_load(&dead)) {
        pthread_rwlock_unlock(&on);
        return -EIO;
    }
    return 0;
}

static int leave(int rc)
{
    pthread_rwlock_unlock(&on);
    return rc;
}

static void cut_power(void)
{
    struct vfile_cut pages = { 0 };
    unsigned undone, changes;

    if (atomic_exchange(&dead, true))
        return;
    vfile_cut_begin();
    pthread_rwlock_wrlock(&on);
    vfile_cut_apply(&rng, &pages);
    undone = names_cut(&rng, &changes);
    pthread_rwlock_unlock(&on);
    fprintf(stderr, "cut: pages kept %llu torn %llu dropped %llu, names undone %u of %u\n",
            (unsigned long long)pages.kept, (unsigned long long)pages.torn,
            (unsigned long long)pages.dropped, undone, changes);
}

static const char *rel(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static int result(int rc)
{
    return rc < 0 ? -errno : 0;
}

static bool is_cut_file(const char *path)
{
    return path && strcmp(path, cut_file) == 0;
}

static struct vfile *file_of(const struct fuse_file_info *fi)
{
    return (struct vfile *)(uintptr_t)fi->fh;
}

/* ---- attributes ---- */

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    int rc;

    if (is_cut_file(path)) {
        *st = (struct stat){ .st_mode = S_IFREG | 0200, .st_nlink = 1 };
        return 0;
    }
    if ((rc = enter()) < 0)
        return rc;
    if (fi && fi->fh)
        return leave(vfile_stat(file_of(fi), st));
    rc = result(fstatat(root, rel(path), st, AT_SYMLINK_NOFOLLOW));
    if (rc == 0)
        vfile_fix_size(st);
    return leave(rc);
}

static int op_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    int rc = enter();

    return rc < 0 ? rc : leave(path ? result(fchmodat(root, rel(path), mode, 0)) : 0);
}

static int op_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
    int rc = enter();

    if (rc < 0)
        return rc;
    return leave(path ? result(fchownat(root, rel(path), uid, gid, AT_SYMLINK_NOFOLLOW)) : 0);
}

static int op_utimens(const char *path, const struct timespec tv[2], struct fuse_file_info *fi)
{
    int rc = enter();

    return rc < 0 ? rc : leave(path ? result(utimensat(root, rel(path), tv, 0)) : 0);
}

static int op_statfs(const char *path, struct statvfs *st)
{
    int rc = enter();

    return rc < 0 ? rc : leave(result(fstatvfs(root, st)));
}

static int op_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    struct vfile *v;
    int rc;

    if (is_cut_file(path))
        return 0;
    if ((rc = enter()) < 0)
        return rc;
    if (fi && fi->fh)
        return leave(vfile_truncate(file_of(fi), (uint64_t)size));
    rc = vfile_open(root, rel(path), 0, 0, &v);
    if (rc == 0) {
        rc = vfile_truncate(v, (uint64_t)size);
        vfile_close(v);
    }
    return leave(rc);
}

/* ---- files ---- */

static int op_open(const char *path, struct fuse_file_info *fi)
{
    struct vfile *v;
    int rc;

    fi->direct_io = 1;
    fi->fh = 0;
    if (is_cut_file(path))
        return 0;
    if ((rc = enter()) < 0)
        return rc;
    rc = vfile_open(root, rel(path), 0, 0, &v);
    if (rc == 0)
        fi->fh = (uintptr_t)v;
    return leave(rc);
}

static int op_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    struct stat st;
    struct vfile *v;
    bool existed;
    int rc = enter();

    if (rc < 0)
        return rc;
    fi->direct_io = 1;
    existed = fstatat(root, rel(path), &st, AT_SYMLINK_NOFOLLOW) == 0;
    rc = vfile_open(root, rel(path), O_CREAT | (fi->flags & O_EXCL), mode, &v);
    if (rc == 0) {
        fi->fh = (uintptr_t)v;
        if (!existed)
            names_created(rel(path));
    }
    return leave(rc);
}

static int op_release(const char *path, struct fuse_file_info *fi)
{
    if (fi->fh && enter() == 0) {
        vfile_close(file_of(fi));
        leave(0);
    }
    return 0;
}

static int op_read(const char *path, char *to, size_t bytes, off_t at, struct fuse_file_info *fi)
{
    int rc = enter();

    if (rc < 0)
        return rc;
    return leave(fi->fh ? vfile_read(file_of(fi), to, bytes, (uint64_t)at) : 0);
}

static int op_write(const char *path, const char *from, size_t bytes, off_t at,
                    struct fuse_file_info *fi)
{
    int rc;

    if (!fi->fh) {
        cut_power();
        return (int)bytes;
    }
    if ((rc = enter()) < 0)
        return rc;
    rc = vfile_write(file_of(fi), from, bytes, (uint64_t)at);
    if (rc > 0 && (fi->flags & O_DSYNC)) {
        int synced = vfile_sync(file_of(fi));

        if (synced < 0)
            rc = synced;
    }
    return leave(rc);
}

static int op_fallocate(const char *path, int mode, off_t at, off_t bytes,
                        struct fuse_file_info *fi)
{
    int rc = enter();

    if (rc < 0)
        return rc;
    return leave(vfile_allocate(file_of(fi), mode, (uint64_t)at, (uint64_t)bytes));
}

static int op_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
    int rc = enter();

    return rc < 0 ? rc : leave(fi->fh ? vfile_sync(file_of(fi)) : 0);
}

/* ---- names ---- */

static int op_readlink(const char *path, char *to, size_t bytes)
{
    ssize_t n;
    int rc = enter();

    if (rc < 0)
        return rc;
    n = readlinkat(root, rel(path), to, bytes - 1);
    if (n < 0)
        return leave(-errno);
    to[n] = '\0';
    return leave(0);
}

/* A call that made path, or failed with errno. */
static int created(int rc, const char *path)
{
    if (rc < 0)
        return -errno;
    names_created(rel(path));
    return 0;
}

static int op_mkdir(const char *path, mode_t mode)
{
    int rc = enter();

    return rc < 0 ? rc : leave(created(mkdirat(root, rel(path), mode), path));
}

static int op_symlink(const char *to, const char *path)
{
    int rc = enter();

    return rc < 0 ? rc : leave(created(symlinkat(to, root, rel(path)), path));
}

static int op_link(const char *from, const char *to)
{
    int rc = enter();

    return rc < 0 ? rc : leave(created(linkat(root, rel(from), root, rel(to), 0), to));
}

static int op_unlink(const char *path)
{
    int rc = enter();

    return rc < 0 ? rc : leave(names_unlink(rel(path)));
}

static int op_rmdir(const char *path)
{
    struct stat st;
    int rc = enter();

    if (rc < 0)
        return rc;
    if (fstatat(root, rel(path), &st, AT_SYMLINK_NOFOLLOW) < 0)
        return leave(-errno);
    return leave(names_rmdir(rel(path), st.st_mode & 07777));
}

static int op_rename(const char *from, const char *to, unsigned flags)
{
    struct stat st;
    int rc = enter();

    if (rc < 0)
        return rc;
    if (flags & ~1u) /* 1 is RENAME_NOREPLACE */
        return leave(-EINVAL);
    if (flags && fstatat(root, rel(to), &st, AT_SYMLINK_NOFOLLOW) == 0)
        return leave(-EEXIST);
    return leave(names_rename(rel(from), rel(to)));
}

static int op_opendir(const char *path, struct fuse_file_info *fi)
{
    fi->fh = (uintptr_t)strdup(path + 1);
    return fi->fh ? 0 : -ENOMEM;
}

static int op_releasedir(const char *path, struct fuse_file_info *fi)
{
    free((char *)(uintptr_t)fi->fh);
    return 0;
}

static int op_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t at,
                      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    const char *name = (const char *)(uintptr_t)fi->fh;
    struct dirent *d;
    DIR *dir;
    int fd, rc = enter();

    if (rc < 0)
        return rc;
    fd = openat(root, name[0] ? name : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return leave(-errno);
    while ((d = readdir(dir)))
        if (name[0] || strcmp(d->d_name, NAMES_HIDDEN) != 0)
            fill(buf, d->d_name, NULL, 0, 0);
    closedir(dir);
    return leave(0);
}

static int op_fsyncdir(const char *path, int data_only, struct fuse_file_info *fi)
{
    int rc = enter();

    if (rc < 0)
        return rc;
    names_sync((const char *)(uintptr_t)fi->fh);
    return leave(0);
}

/* ---- the program ---- */

static void *wait_for_signal(void *arg)
{
    sigset_t set;
    int sig;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    while (sigwait(&set, &sig) == 0)
        cut_power();
    return NULL;
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *conf)
{
    conf->hard_remove = 1; /* no hidden renames of our own making */
    conf->nullpath_ok = 1;
    conf->entry_timeout = conf->attr_timeout = conf->negative_timeout = 0;
    conn->max_write = 1 << 20;
    conn->want &= ~(unsigned)(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_WRITEBACK_CACHE);
    conn->want |= conn->capable & FUSE_CAP_ASYNC_DIO;
    return NULL;
}

static void op_destroy(void *data)
{
    if (enter() < 0)
        return;
    vfile_sync_all();
    names_sync_all();
    leave(0);
}

static const struct fuse_operations ops = {
    .getattr = op_getattr,
    .readlink = op_readlink,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .chmod = op_chmod,
    .chown = op_chown,
    .truncate = op_truncate,
    .open = op_open,
    .create = op_create,
    .read = op_read,
    .write = op_write,
    .statfs = op_statfs,
    .release = op_release,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .init = op_init,
    .destroy = op_destroy,
    .utimens = op_utimens,
    .fallocate = op_fallocate,
};

static int serve(const char *mount)
{
    static char name[] = "volatile_fs", opt[] = "-o", opts[] = "fsname=volatile,subtype=volatile";
    char *argv[] = { name, opt, opts, NULL };
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    struct fuse_loop_config loop = { .clone_fd = 0, .max_idle_threads = 16 };
    struct fuse *f = fuse_new(&args, &ops, sizeof ops, NULL);
    pthread_t thread;
    sigset_t set;
    int rc;

    if (!f || fuse_mount(f, mount) < 0)
        return 3; /* the caller's cue to skip */
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&thread, NULL, wait_for_signal, NULL);
    fuse_set_signal_handlers(fuse_get_session(f));
    rc = fuse_loop_mt(f, &loop);
    fuse_unmount(f);
    fuse_destroy(f);
    fuse_opt_free_args(&args);
    return rc < 0 ? 1 : 0;
}

static int usage(void)
{
    fputs("usage: volatile_fs [--seed N] [--sync-us N] [--keep-names] BACKING MOUNT\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = { { "seed", required_argument, NULL, 's' },
                                           { "sync-us", required_argument, NULL, 'u' },
                                           { "keep-names", no_argument, NULL, 'k' },
                                           { 0 } };
    bool keep = false;
    int c;

    rng_seed(&rng, 1);
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 's')
            rng_seed(&rng, strtoull(optarg, NULL, 0));
        else if (c == 'u')
            vfile_set_delay((unsigned)strtoul(optarg, NULL, 0));
        else if (c == 'k')
            keep = true;
        else
            return usage();
    }
    if (argc - optind != 2)
        return usage();
    umask(0);
    root = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || names_open(root, keep) < 0) {
        perror(argv[optind]);
        return 1;
    }
    return serve(argv[optind + 1]);
}
