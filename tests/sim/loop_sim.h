/* The simulator's time and turns: logical loops, timers, a clock and a pool, all run in one thread
 * from a seed.
 *
 * A step is one task, one timer, one pool work or one event of a device. Which loop goes next is
 * drawn from the seed; tasks of one loop stay in order. Virtual time stands still while anything
 * can run, then jumps to the next event. Nothing here reads a real clock or orders by an address,
 * so one seed is one run. */
#ifndef WEIR_TESTS_SIM_LOOP_SIM_H
#define WEIR_TESTS_SIM_LOOP_SIM_H

#include "base/loop.h"
#include "base/rng.h"

enum { SIM_LOOPS_MAX = 64 };
#define SIM_WALL_START_MS INT64_C(1700000000000)

struct sim;
struct sim_event;

struct sim *sim_new(uint64_t seed);
/* Frees it with all its loops; what is pending never runs. Devices on it must be freed before. */
void sim_free(struct sim *s);

/* Loop number index, made when first asked for; index < SIM_LOOPS_MAX. */
struct loop *sim_loop(struct sim *s, unsigned index);
/* A pool whose works run one at a time, each in a turn of its own some time after it was
 * submitted. */
struct pool *sim_pool(struct sim *s);

/* Runs one thing, moving the clock if nothing is due; false: there is nothing at all to run. */
bool sim_step(struct sim *s);
/* Steps until fn says true, before the first step too; false: max_steps went by, or nothing is left
 * to run. */
bool sim_run_until(struct sim *s, bool (*fn)(void *ctx), void *ctx, uint64_t max_steps);
/* Runs all that happens in the next us of virtual time; false: max_steps went by before. */
bool sim_run_for(struct sim *s, uint64_t us, uint64_t max_steps);

uint64_t sim_now_us(const struct sim *s);
/* Moves the wall clock, not the monotonic one, by ms; below 0: back. */
void sim_wall_jump(struct sim *s, int64_t ms);
/* Draws for tests that want to share the run's source. */
struct rng *sim_rng(struct sim *s);

/* The process dies: posted tasks, timers and works are forgotten, clock and device events go on.
 * Timers' memory must still be there: they are marked as not set. Crash the disk (sim_disk_crash)
 * first, while requests in flight can be read. */
void sim_crash(struct sim *s);

/* A hash over every step so far, and over what others mix in: two runs of one seed have the
 * same. */
uint64_t sim_trace(const struct sim *s);
void sim_trace_mix(struct sim *s, uint64_t value);
uint64_t sim_steps(const struct sim *s);

/* For devices: runs fire once after delay_us, on no loop. The event is gone when fire is called. */
struct sim_event *sim_at(struct sim *s, uint64_t delay_us, void (*fire)(void *ctx), void *ctx);
void sim_cancel(struct sim *s, struct sim_event *e);

#endif
