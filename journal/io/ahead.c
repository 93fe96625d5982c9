#include "journal/io/ahead.h"

enum { READ_PIECE = 4 << 20 };

static void *ahead_run(void *arg)
{
    struct ahead *a = arg;

    a->rc = 0;
    for (uint64_t at = 0; a->rc >= 0 && at < a->bytes; at += READ_PIECE) {
        uint64_t n = a->bytes - at < READ_PIECE ? a->bytes - at : READ_PIECE;

        a->rc = dev_read(a->dev, a->file, a->pos + at, a->mem + at, (uint32_t)n);
    }
    return NULL;
}

void ahead_start(struct ahead *a, struct dev *dev, struct dev_file *file, uint64_t pos, void *mem,
                 uint64_t bytes)
{
    ASSERT(!a->file);
    *a = (struct ahead){ .dev = dev, .file = file, .pos = pos, .mem = mem, .bytes = bytes };
    a->threaded = dev->threads && pthread_create(&a->thread, NULL, ahead_run, a) == 0;
}

int ahead_wait(struct ahead *a)
{
    if (!a->file)
        return 0;
    if (a->threaded)
        pthread_join(a->thread, NULL);
    else
        ahead_run(a);
    a->file = NULL;
    return a->rc;
}
