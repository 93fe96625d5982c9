/* Event loops, timers, mailboxes and the pool for what may block.
 *
 * Every long-lived object has a home loop and is touched only there. What crosses loops is a task,
 * posted from any thread and run
 * once on the target loop; tasks posted from one thread to one loop run in order. Clock, timers and
 * pool all hang on
 * the loop, so that the simulator (tests/sim) can stand in for them: production loops are
 * libevent's (loop_event.c). */
#ifndef WEIR_BASE_LOOP_H
#define WEIR_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct event_base;

/* A piece of work; embed it, one post at a time. It may be freed or posted again inside run. */
struct task {
    struct task *next;
    void (*run)(struct task *t);
};

/* A one-shot timer; embed it, zeroed. Home loop only. */
struct loop_timer {
    void (*fire)(struct loop_timer *t);
    struct loop *loop;
    void *impl;      /* the loop's own */
    uint64_t due_us; /* 0: not set */
    uint64_t serial; /* the loop's own */
};

struct loop_ops {
    void (*post)(struct loop *l, struct task *t);
    void (*timer_set)(struct loop *l, struct loop_timer *t, uint64_t delay_us);
    void (*timer_stop)(struct loop_timer *t);
    uint64_t (*now_us)(struct loop *l);
    int64_t (*wall_ms)(struct loop *l);
    bool (*is_home)(struct loop *l);
};

struct loop {
    const struct loop_ops *ops;
    unsigned index; /* 0.. among the server's loops */
};

/* Runs t on l, later, never inside this call. Any thread. */
static inline void loop_post(struct loop *l, struct task *t)
{
    l->ops->post(l, t);
}
/* Sets (or sets anew) a timer; fire runs once on l after delay_us. */
static inline void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_us)
{
    l->ops->timer_set(l, t, delay_us);
}
/* Stops a timer; harmless when not set. After it returns fire will not run. */
static inline void loop_timer_stop(struct loop_timer *t)
{
    if (t->loop)
        t->loop->ops->timer_stop(t);
}
/* Monotonic microseconds. Any thread. */
static inline uint64_t loop_now_us(struct loop *l)
{
    return l->ops->now_us(l);
}
/* Milliseconds since 1970. Any thread. */
static inline int64_t loop_wall_ms(struct loop *l)
{
    return l->ops->wall_ms(l);
}
#define ASSERT_HOME(l) ASSERT_SLOW((l)->ops->is_home(l))

/* --- production loops (loop_event.c) --- */

/* A libevent loop; runs on whatever thread calls loop_event_run. */
int loop_event_new(struct loop **out, unsigned index, struct err *e) MUST_USE;
/* As many loops as cores less one, which is the committers' and the pools', and at least one:
 * docs/decisions/loops.md. */
unsigned loop_event_count(void);
/* Runs until loop_event_stop; drains what is posted before it returns. */
void loop_event_run(struct loop *l);
/* Asks the loop to return. Any thread. */
void loop_event_stop(struct loop *l);
/* What a loop posts wakes others at the end of the loop's turn; this wakes them now, ahead of a call that
 * blocks. Anywhere; does nothing outside a loop. */
void loop_event_wake(void);
/* The libevent base, for sockets. Home only. */
struct event_base *loop_event_base(struct loop *l);
/* Frees a loop that does not run and that nobody posts to any more: pools are freed, and the loops that posted to
 * it have returned. */
void loop_event_free(struct loop *l);

/* --- a pool for what may block --- */

struct work {
    struct task task;             /* the pool's, then the loop's */
    void (*run)(struct work *w);  /* on a pool thread */
    void (*done)(struct work *w); /* on loop, after run; NULL: none */
    struct loop *loop;
};

struct pool;
struct pool_ops {
    void (*submit)(struct pool *p, struct work *w);
};
struct pool {
    const struct pool_ops *ops;
};

/* Runs w->run on a pool thread, then w->done on w->loop. Any thread. */
static inline void pool_submit(struct pool *p, struct work *w)
{
    p->ops->submit(p, w);
}

/* n threads, FIFO (pool_thread.c). */
int pool_thread_new(struct pool **out, unsigned n_threads, const char *name,
                    struct err *e) MUST_USE;
/* Finishes what is queued, joins the threads, frees. */
void pool_thread_free(struct pool *p);

#endif
