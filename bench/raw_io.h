/* The device without us: O_DIRECT on prewritten blocks. What every figure of the journal is held
 * against.
 *
 * All end the program when something fails. */
#ifndef WEIR_BENCH_RAW_IO_H
#define WEIR_BENCH_RAW_IO_H

#include <stdbool.h>
#include <stdint.h>

enum { RAW_PAGE = 4096 };

struct raw_file {
    int fd;
    const char *path; /* borrowed */
    uint64_t bytes;
    uint64_t pos; /* of the next write; begins anew at the end */
    void *mem;    /* what is written */
    uint32_t mem_bytes;
    bool direct; /* false: the file system refused O_DIRECT, and said so once */
};

/* Makes a file of that size, written through with bytes that do not compress, and synced;
 * max_write is the largest write that will be asked for. */
void raw_create(struct raw_file *f, const char *path, uint64_t bytes, uint32_t max_write);
/* From now on it writes from huge pages, where the system has them: fewer pieces for the device than
 * a plain program's memory. */
void raw_use_huge(struct raw_file *f);
/* One pwrite of bytes, rounded up to RAW_PAGE, at the next place, then fdatasync. Gives the
 * seconds that both took. */
double raw_write_sync(struct raw_file *f, uint32_t bytes);
/* The same without the fdatasync. */
double raw_write(struct raw_file *f, uint32_t bytes);
/* libaio: writes of `bytes` each, `depth` at once, without a sync, for so many seconds. Gives
 * bytes a second. */
double raw_stream(struct raw_file *f, uint32_t bytes, unsigned depth, double seconds);
/* The same with reads. */
double raw_read_stream(struct raw_file *f, uint32_t bytes, unsigned depth, double seconds);
/* Closes and removes it. */
void raw_remove(struct raw_file *f);

struct raw_scan {
    uint64_t bytes; /* read, at most what was asked for */
    double seconds;
    uint32_t crc; /* of all of it, so that no compiler leaves it out */
};
/* Reads up to max bytes of the files, one after the other, 4 MiB at a time in one thread, with
 * crc32c over them. */
struct raw_scan raw_scan(char *const *paths, unsigned n, uint64_t max);

#endif
