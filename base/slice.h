/* How long the scheduler lets a thread run before others get their turn.
 *
 * A thread that answers clients sleeps often and works briefly. With the scheduler's own slice (some
 * milliseconds) it waits behind a background thread that computes, until the next tick; who asks for a
 * shorter slice than the one that runs goes first (Linux 6.12 on, sched_setattr(2); older ones ignore
 * it). */
#ifndef WEIR_BASE_SLICE_H
#define WEIR_BASE_SLICE_H

/* The calling thread's. Its nice value stays. Where the system refuses, nothing changes. */
void slice_set_us(unsigned us);

#endif
