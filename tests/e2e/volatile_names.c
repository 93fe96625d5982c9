#include "tests/e2e/volatile_names.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/e2e/volatile_file.h"

enum change_kind { CREATED, REMOVED, FOLDER_REMOVED, RENAMED };

struct change {
    struct change *prev, *next;
    enum change_kind kind;
    char *path;
    char *to;       /* of a rename */
    unsigned mode;  /* of a removed folder */
    char saved[32]; /* the hidden name of what was removed or replaced; "" when nothing was */
};

static int root = -1;
static bool keep_all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct change *oldest, *newest;
static unsigned n_changes, n_saved;

int names_open(int root_fd, bool keep)
{
    root = root_fd;
    keep_all = keep;
    if (mkdirat(root, NAMES_HIDDEN, 0700) < 0 && errno != EEXIST)
        return -errno;
    return 0;
}

/* ---- the list ---- */

static void change_add(struct change c, const char *path, const char *to)
{
    struct change *n = malloc(sizeof *n);

    if (!n)
        abort();
    *n = c;
    n->path = strdup(path);
    n->to = to ? strdup(to) : NULL;
    n->prev = newest;
    n->next = NULL;
    *(newest ? &newest->next : &oldest) = n;
    newest = n;
    n_changes++;
}

static void change_drop(struct change *c)
{
    *(c->prev ? &c->prev->next : &oldest) = c->next;
    *(c->next ? &c->next->prev : &newest) = c->prev;
    n_changes--;
    free(c->path);
    free(c->to);
    free(c);
}

/* Removes a name for good. */
static void unlink_really(const char *path)
{
    struct stat st;

    if (fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    unlinkat(root, path, 0);
    vfile_unlinked(st.st_ino);
}

/* The oldest change lasts from now on. */
static void change_settle(struct change *c)
{
    if (c->saved[0])
        unlink_really(c->saved);
    change_drop(c);
}

/* Takes the newest change back. */
static int change_undo(struct change *c)
{
    int rc = 0;

    switch (c->kind) {
    case CREATED:
        if (unlinkat(root, c->path, 0) < 0)
            rc = unlinkat(root, c->path, AT_REMOVEDIR);
        break;
    case REMOVED:
        rc = renameat(root, c->saved, root, c->path);
        break;
    case FOLDER_REMOVED:
        rc = mkdirat(root, c->path, c->mode);
        break;
    case RENAMED:
        rc = renameat(root, c->to, root, c->path);
        if (rc == 0 && c->saved[0])
            rc = renameat(root, c->saved, root, c->to);
        break;
    }
    if (rc < 0)
        fprintf(stderr, "undo of %s: %s\n", c->path, strerror(errno));
    change_drop(c);
    return rc;
}

static bool in_folder(const char *path, const char *folder)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    return strlen(folder) == n && memcmp(path, folder, n) == 0;
}

/* ---- changes ---- */

void names_created(const char *path)
{
    pthread_mutex_lock(&lock);
    if (!keep_all)
        change_add((struct change){ .kind = CREATED }, path, NULL);
    pthread_mutex_unlock(&lock);
}

static void hide(struct change *c)
{
    snprintf(c->saved, sizeof c->saved, NAMES_HIDDEN "/%u", ++n_saved);
}

int names_unlink(const char *path)
{
    struct change c = { .kind = REMOVED };
    struct stat st;
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        rc = -errno;
    } else if (S_ISDIR(st.st_mode)) {
        rc = -EISDIR;
    } else if (keep_all) {
        unlink_really(path);
    } else {
        hide(&c);
        if (renameat(root, path, root, c.saved) < 0)
            rc = -errno;
        else
            change_add(c, path, NULL);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int names_rmdir(const char *path, unsigned mode)
{
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (unlinkat(root, path, AT_REMOVEDIR) < 0)
        rc = -errno;
    else if (!keep_all)
        change_add((struct change){ .kind = FOLDER_REMOVED, .mode = mode }, path, NULL);
    pthread_mutex_unlock(&lock);
    return rc;
}

static void settle_all(void)
{
    while (oldest)
        change_settle(oldest);
}

int names_rename(const char *from, const char *to)
{
    struct change c = { .kind = RENAMED };
    struct stat a, b;
    bool replaces;
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (fstatat(root, from, &a, AT_SYMLINK_NOFOLLOW) < 0) {
        rc = -errno;
        goto out;
    }
    replaces = fstatat(root, to, &b, AT_SYMLINK_NOFOLLOW) == 0;
    if (replaces && a.st_ino == b.st_ino)
        goto out; /* two links of one file: POSIX says that nothing happens */
    if (S_ISDIR(a.st_mode) || keep_all) {
        settle_all(); /* the paths on the list would no longer be right */
        rc = renameat(root, from, root, to) < 0 ? -errno : 0;
        if (replaces)
            vfile_unlinked(b.st_ino);
        goto out;
    }
    if (replaces) {
        hide(&c);
        if (linkat(root, to, root, c.saved, 0) < 0) {
            rc = -errno;
            goto out;
        }
    }
    if (renameat(root, from, root, to) < 0)
        rc = -errno;
    else
        change_add(c, from, to);
out:
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- lasting, or not ---- */

void names_sync(const char *folder)
{
    struct change *last = NULL;

    pthread_mutex_lock(&lock);
    for (struct change *c = oldest; c; c = c->next)
        if (in_folder(c->path, folder) || (c->to && in_folder(c->to, folder)))
            last = c;
    while (last) {
        struct change *c = oldest;

        if (c == last)
            last = NULL;
        change_settle(c);
    }
    pthread_mutex_unlock(&lock);
}

void names_sync_all(void)
{
    pthread_mutex_lock(&lock);
    settle_all();
    pthread_mutex_unlock(&lock);
}

unsigned names_cut(struct rng *rng, unsigned *of)
{
    unsigned undo;

    pthread_mutex_lock(&lock);
    *of = n_changes;
    undo = (unsigned)rng_below(rng, n_changes + 1);
    for (unsigned i = 0; i < undo; i++)
        if (change_undo(newest) < 0)
            abort(); /* the list is wrong: this test means nothing */
    settle_all();
    pthread_mutex_unlock(&lock);
    return undo;
}
