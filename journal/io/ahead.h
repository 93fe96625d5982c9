/* One read that goes on while its caller works: for scans that know what they will want next. On a
 * device whose calls may come from any thread it has a thread of its own; else it is made when it is
 * waited for. */
#ifndef WEIR_JOURNAL_IO_AHEAD_H
#define WEIR_JOURNAL_IO_AHEAD_H

#include <pthread.h>

#include "journal/io/dev.h"

/* Zeroed: nothing is under way. */
struct ahead {
    struct dev *dev;
    struct dev_file *file; /* NULL: nothing */
    uint64_t pos;
    uint8_t *mem; /* borrowed until ahead_wait */
    uint64_t bytes;
    pthread_t thread;
    bool threaded;
    int rc;
};

/* Reads [pos, pos + bytes) of file into mem. Nothing may be under way. */
void ahead_start(struct ahead *a, struct dev *dev, struct dev_file *file, uint64_t pos, void *mem,
                 uint64_t bytes);
/* Waits for it: 0 or what dev_read says; 0 also when nothing was under way. */
int ahead_wait(struct ahead *a);

#endif
