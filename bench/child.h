/* A child process whose output is watched and which ends by SIGKILL. Ends this program when something
 * else happens. */
#ifndef WEIR_BENCH_CHILD_H
#define WEIR_BENCH_CHILD_H

#include <sys/resource.h>

/* A child and what it wrote. */
struct child {
    char text[65536];
    double began, said; /* when it was started; when it had said what was waited for */
    struct rusage usage;
};

/* Runs a program that ends by SIGKILL: its own, or ours once it has said `until`. */
void child_run(struct child *c, const char *const *argv, const char *until);

#endif
