/* Long reads of a device give way to its commits.
 *
 * A commit that comes while reads of a MiB are under way waits for all of them, in the device. So
 * while there are commits, long reads go in pieces, one at a time, each begun between two commits:
 * then a commit meets one piece at most. A piece does not wait for ever: where one commit follows
 * another it goes after GATE_WAIT_US all the same. Without commits nothing is held back. Any thread. */
#ifndef WEIR_JOURNAL_IO_GATE_H
#define WEIR_JOURNAL_IO_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    GATE_PIECE = 128 << 10,
    GATE_WAIT_US = 2000,
    GATE_RECENT_US = 20000 /* so long after a commit others are expected */
};

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool committing;
    unsigned reading;   /* pieces under way */
    uint64_t commit_us; /* when the last commit ended; 0: none has */
};

void gate_init(struct gate *g);
void gate_fini(struct gate *g);
void gate_commit_begin(struct gate *g);
void gate_commit_end(struct gate *g);
/* Waits for its turn. Bytes that may now be read: bytes, or a piece of them; then gate_read_end. */
uint32_t gate_read_begin(struct gate *g, uint32_t bytes);
void gate_read_end(struct gate *g);

#endif
