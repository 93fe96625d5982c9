/* The production loop: libevent for sockets, a lock-free mailbox, and a timer heap over one
 * timerfd.
 *
 * Own timers, because libevent's either round to a millisecond or cost a system call in every
 * turn: here the timerfd is armed only when the earliest due time comes nearer than what is
 * armed. */
#include "base/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/slice.h"

enum { TURNS_A_POLL = 4, WAKES_MAX = 16, SLICE_US = 500 };

struct loop_event {
    struct loop loop;
    struct event_base *base;   /* home */
    struct event *wake_event;  /* home */
    struct event *timer_event; /* home */
    int wake_fd;
    int timer_fd;

    _Atomic(struct task *) posted; /* any; newest first */
    atomic_bool asleep;            /* any; the home may be blocked, so that a post must wake it */
    atomic_bool stop;              /* any */
    atomic_bool running;           /* any */

    /* home: a binary heap by (due_us, serial); a timer's impl holds its place + 1 */
    struct loop_timer **heap;
    size_t n_timers;
    size_t heap_cap;
    uint64_t serial;
    uint64_t armed_us; /* what timer_fd is set to; UINT64_MAX: nothing */

    /* home: loops that got news in this turn, and are to be woken at its end */
    struct loop_event *to_wake[WAKES_MAX];
    unsigned n_to_wake;
};

/* The loop that this thread runs. */
static _Thread_local struct loop_event *running_here;

static struct loop_event *event_of(struct loop *l)
{
    return (struct loop_event *)l;
}

/* --- clocks --- */

static uint64_t event_now_us(struct loop *l)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int64_t event_wall_ms(struct loop *l)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A loop that nobody runs (before start, after the join) is at home everywhere. */
static bool event_is_home(struct loop *l)
{
    return running_here == event_of(l) || !atomic_load(&event_of(l)->running);
}

/* --- mailbox --- */

static void wake(struct loop_event *le)
{
    uint64_t one = 1;

    /* EAGAIN would mean 2^64-2 wake-ups pending; EINTR cannot happen to an eventfd that does not
     * block. */
    if (write(le->wake_fd, &one, sizeof one) != sizeof one)
        ASSERT(errno == EAGAIN);
}

/* Wakes the home if it may be blocked. Whoever finds asleep set clears it, so that a burst costs
 * one write. The order matters: the poster stores its news and then reads asleep, the home
 * stores asleep and then looks for news, all sequentially consistent; one of the two sees the
 * other. */
static void wake_if_asleep(struct loop_event *le)
{
    if (!atomic_load(&le->asleep))
        return;
    if (running_here == le)
        atomic_store(&le->asleep, false); /* in a callback: awake, and drains before it sleeps */
    else if (atomic_exchange(&le->asleep, false))
        wake(le);
}

/* A loop that posts to another one wakes it at the end of its turn: all that the turn has for it is
 * then there, and the other needs one turn for it instead of several. */
static void wake_later(struct loop_event *le)
{
    struct loop_event *here = running_here;

    if (!here || here == le) {
        wake_if_asleep(le);
        return;
    }
    if (!atomic_load(&le->asleep))
        return;
    for (unsigned i = 0; i < here->n_to_wake; i++)
        if (here->to_wake[i] == le)
            return;
    if (here->n_to_wake == WAKES_MAX)
        loop_event_wake();
    here->to_wake[here->n_to_wake++] = le;
}

void loop_event_wake(void)
{
    struct loop_event *here = running_here;

    for (unsigned i = 0; here && i < here->n_to_wake; i++)
        wake_if_asleep(here->to_wake[i]);
    if (here)
        here->n_to_wake = 0;
}

static void event_post(struct loop *l, struct task *t)
{
    struct loop_event *le = event_of(l);
    struct task *head = atomic_load_explicit(&le->posted, memory_order_relaxed);

    do
        t->next = head;
    while (!atomic_compare_exchange_weak(&le->posted, &head, t));
    /* t may be gone already. */
    wake_later(le);
}

/* Runs all that was posted before the call; what they post waits for the next turn. */
static void drain(struct loop_event *le)
{
    struct task *newest, *oldest = NULL, *next;

    if (!atomic_load_explicit(&le->posted, memory_order_relaxed))
        return;
    newest = atomic_exchange_explicit(&le->posted, NULL, memory_order_acquire);
    for (; newest; newest = next) {
        next = newest->next;
        newest->next = oldest;
        oldest = newest;
    }
    for (; oldest; oldest = next) {
        next = oldest->next; /* run may free or post it */
        oldest->run(oldest);
    }
}

/* Each write is an edge of its own, so nobody needs to read. */
static void on_wake(evutil_socket_t fd, short what, void *arg)
{
}

/* --- timers --- */

static bool timer_before(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->serial < b->serial;
}

static size_t timer_place(const struct loop_timer *t)
{
    return (uintptr_t)t->impl - 1;
}

static void heap_put(struct loop_event *le, size_t at, struct loop_timer *t)
{
    le->heap[at] = t;
    t->impl = (void *)(uintptr_t)(at + 1);
}

static void heap_up(struct loop_event *le, size_t at, struct loop_timer *t)
{
    for (; at > 0 && timer_before(t, le->heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap_put(le, at, le->heap[(at - 1) / 2]);
    heap_put(le, at, t);
}

static void heap_down(struct loop_event *le, size_t at, struct loop_timer *t)
{
    size_t child;

    for (; (child = at * 2 + 1) < le->n_timers; at = child) {
        if (child + 1 < le->n_timers && timer_before(le->heap[child + 1], le->heap[child]))
            child++;
        if (!timer_before(le->heap[child], t))
            break;
        heap_put(le, at, le->heap[child]);
    }
    heap_put(le, at, t);
}

static void heap_take(struct loop_event *le, struct loop_timer *t)
{
    size_t at = timer_place(t);
    struct loop_timer *last;

    ASSERT(at < le->n_timers && le->heap[at] == t);
    last = le->heap[--le->n_timers];
    t->impl = NULL;
    t->due_us = 0;
    if (last == t)
        return;
    if (at > 0 && timer_before(last, le->heap[(at - 1) / 2]))
        heap_up(le, at, last);
    else
        heap_down(le, at, last);
}

/* Sets timer_fd to a time, or to nothing; either also forgets that it has fired. */
static void timer_arm(struct loop_event *le, uint64_t due_us)
{
    struct itimerspec at = { 0 };

    le->armed_us = due_us;
    if (due_us != UINT64_MAX) {
        at.it_value.tv_sec = (time_t)(due_us / 1000000);
        at.it_value.tv_nsec = (long)(due_us % 1000000 * 1000);
    }
    if (timerfd_settime(le->timer_fd, TFD_TIMER_ABSTIME, &at, NULL) < 0)
        ASSERT(!"timerfd_settime");
}

static void event_timer_stop(struct loop_timer *t)
{
    struct loop_event *le = event_of(t->loop);

    /* timer_fd stays armed: one idle wake-up at most is cheaper than a system call for each
     * stop. */
    if (t->due_us == 0)
        return;
    ASSERT_HOME(&le->loop);
    heap_take(le, t);
}

static void event_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_us)
{
    const uint64_t far_us = (uint64_t)1 << 60;
    struct loop_event *le = event_of(l);

    ASSERT_HOME(l);
    loop_timer_stop(t);
    t->loop = l;
    t->due_us = event_now_us(l) + (delay_us < far_us ? delay_us : far_us);
    t->serial = le->serial++;
    if (le->n_timers == le->heap_cap) {
        le->heap_cap = le->heap_cap ? le->heap_cap * 2 : 64;
        le->heap = mem_grow(le->heap, le->heap_cap * sizeof le->heap[0]);
    }
    le->n_timers++;
    heap_up(le, le->n_timers - 1, t);
    if (t->due_us < le->armed_us)
        timer_arm(le, t->due_us);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct loop_event *le = arg;
    uint64_t now_us = event_now_us(&le->loop), serial = le->serial;

    /* A timer set from now on, even with no delay, waits for the next turn: sockets and tasks
     * get theirs. */
    le->armed_us = 0; /* settime waits until all have run */
    while (le->n_timers > 0) {
        struct loop_timer *t = le->heap[0];

        if (t->due_us > now_us || t->serial >= serial)
            break;
        heap_take(le, t);
        t->fire(t);
    }
    timer_arm(le, le->n_timers > 0 ? le->heap[0]->due_us : UINT64_MAX);
}

/* --- the loop --- */

static const struct loop_ops event_ops = {
    .post = event_post,
    .timer_set = event_timer_set,
    .timer_stop = event_timer_stop,
    .now_us = event_now_us,
    .wall_ms = event_wall_ms,
    .is_home = event_is_home,
};

static void use_threads(void)
{
    if (evthread_use_pthreads() < 0)
        ASSERT(!"evthread_use_pthreads");
}

static struct event_base *base_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config && event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0)
        base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    return base;
}

static struct event *watch(struct loop_event *le, int fd, short edge, event_callback_fn fn)
{
    struct event *ev = event_new(le->base, fd, EV_READ | EV_PERSIST | edge, fn, le);

    if (ev && event_add(ev, NULL) < 0) {
        event_free(ev);
        ev = NULL;
    }
    return ev;
}

int loop_event_new(struct loop **out, unsigned index, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct loop_event *le = mem_new(sizeof *le);
    int rc = 0;

    pthread_once(&once, use_threads);
    *out = NULL;
    le->loop = (struct loop){ .ops = &event_ops, .index = index };
    le->armed_us = UINT64_MAX;
    le->timer_fd = -1;
    le->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (le->wake_fd < 0)
        rc = err_set(e, E_SYSTEM, "eventfd: %s", strerror(errno));
    else if ((le->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) < 0)
        rc = err_set(e, E_SYSTEM, "timerfd_create: %s", strerror(errno));
    else if (!(le->base = base_new()) ||
             !(le->wake_event = watch(le, le->wake_fd, EV_ET, on_wake)) ||
             !(le->timer_event = watch(le, le->timer_fd, 0, on_timer)))
        rc = err_set(e, E_SYSTEM, "event loop %u: libevent: %s", index, strerror(errno));
    if (rc < 0) {
        loop_event_free(&le->loop);
        return rc;
    }
    *out = &le->loop;
    return 0;
}

static bool has_news(struct loop_event *le)
{
    return atomic_load(&le->posted) || atomic_load(&le->stop);
}

/* Sockets and timers once, waiting for them only when nothing else is to do. */
static void poll_events(struct loop_event *le)
{
    bool block = !has_news(le);

    if (block) {
        atomic_store(&le->asleep, true);
        block = !has_news(le);
    }
    if (!block)
        atomic_store(&le->asleep, false);
    /* EVLOOP_ONCE in either case: alone, EVLOOP_NONBLOCK goes on as long as anything is ready. */
    if (event_base_loop(le->base, EVLOOP_ONCE | (block ? 0 : EVLOOP_NONBLOCK)) < 0)
        ASSERT(!"event_base_loop");
    if (block)
        atomic_store(&le->asleep, false);
    loop_event_wake();
}

void loop_event_run(struct loop *l)
{
    struct loop_event *le = event_of(l);
    struct loop_event *outer = running_here;

    ASSERT(!atomic_exchange(&le->running, true));
    running_here = le;
    slice_set_us(SLICE_US);
    do {
        poll_events(le);
        /* A few turns of what tasks post to their own loop, before the sockets are asked again: that
         * is a system call. */
        for (int i = 0; i < TURNS_A_POLL && atomic_load_explicit(&le->posted, memory_order_relaxed);
             i++) {
            drain(le);
            loop_event_wake();
        }
    } while (!atomic_load(&le->stop) || atomic_load(&le->posted));
    atomic_store(&le->stop, false); /* may be run again */
    running_here = outer;
    atomic_store(&le->running, false);
}

void loop_event_stop(struct loop *l)
{
    struct loop_event *le = event_of(l);

    atomic_store(&le->stop, true);
    wake_if_asleep(le);
}

struct event_base *loop_event_base(struct loop *l)
{
    return event_of(l)->base;
}

void loop_event_free(struct loop *l)
{
    struct loop_event *le = event_of(l);

    if (!l)
        return;
    ASSERT(!atomic_load(&le->running));
    if (le->wake_event)
        event_free(le->wake_event);
    if (le->timer_event)
        event_free(le->timer_event);
    if (le->base)
        event_base_free(le->base);
    if (le->timer_fd >= 0)
        close(le->timer_fd);
    if (le->wake_fd >= 0)
        close(le->wake_fd);
    free(le->heap);
    free(le);
}

unsigned loop_event_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) < 0 ? 1 : CPU_COUNT(&set);

    return n > 1 ? (unsigned)n - 1 : 1;
}
