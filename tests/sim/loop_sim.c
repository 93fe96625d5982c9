#include "tests/sim/loop_sim.h"

#include <stddef.h>
#include <stdlib.h>

#include "base/buf.h"

enum {
    CLOCK_START_US = 1000000, /* not 0: a timer's due_us of 0 means that it is not set */
    POOL_USUAL_US = 500,
    POOL_SELDOM_US = 20000,
    NO_LOOP = SIM_LOOPS_MAX
};

enum event_kind { EVENT_DEVICE, EVENT_TIMER, EVENT_WORK };

struct sim_event {
    uint64_t due_us;
    uint64_t tie; /* drawn: events due together come in no order that code could lean on */
    uint64_t serial;
    unsigned at; /* place in the heap */
    enum event_kind kind;
    struct loop *loop; /* timers */
    void (*fire)(void *ctx);
    void *ctx; /* the timer, the work, or the device's own */
};

struct sim_loop {
    struct loop loop;
    struct sim *sim;
    struct task *head;
    struct task **tail;
};

struct sim_pool {
    struct pool pool;
    struct sim *sim;
};

struct sim {
    struct rng rng;
    uint64_t now_us;
    int64_t wall_shift_ms;
    uint64_t trace;
    uint64_t steps;
    uint64_t serial;
    struct sim_loop *loops[SIM_LOOPS_MAX];
    unsigned n_loops;
    unsigned lazy;              /* a loop that runs only when nothing else can, or NO_LOOP */
    const struct loop *running; /* NULL: none, the test itself */
    struct loop elsewhere;      /* what "runs" while a pool work or a device event does */
    struct sim_pool pool;
    struct sim_event **heap; /* least (due, tie, serial) first */
    unsigned n_heap;
    unsigned cap_heap;
    struct sim_event **spare;
    unsigned n_spare;
    unsigned cap_spare;
};

void sim_trace_mix(struct sim *s, uint64_t value)
{
    uint64_t h = (s->trace ^ value) * UINT64_C(0x9e3779b97f4a7c15);

    s->trace = h ^ h >> 29;
}

/* --- events: a heap that can lose any of its members --- */

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
    if (a->due_us != b->due_us)
        return a->due_us < b->due_us;
    if (a->tie != b->tie)
        return a->tie < b->tie;
    return a->serial < b->serial;
}

static void heap_set(struct sim *s, unsigned at, struct sim_event *e)
{
    s->heap[at] = e;
    e->at = at;
}

static void heap_up(struct sim *s, unsigned at, struct sim_event *e)
{
    while (at && event_before(e, s->heap[(at - 1) / 2])) {
        heap_set(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_set(s, at, e);
}

static void heap_down(struct sim *s, unsigned at, struct sim_event *e)
{
    for (;;) {
        unsigned child = 2 * at + 1;

        if (child + 1 < s->n_heap && event_before(s->heap[child + 1], s->heap[child]))
            child++;
        if (child >= s->n_heap || !event_before(s->heap[child], e))
            break;
        heap_set(s, at, s->heap[child]);
        at = child;
    }
    heap_set(s, at, e);
}

/* Makes room for one more pointer. */
static void room(struct sim_event ***array, unsigned n, unsigned *cap)
{
    if (n < *cap)
        return;
    *cap = *cap ? 2 * *cap : 64;
    *array = mem_grow(*array, *cap * sizeof **array);
}

static void event_recycle(struct sim *s, struct sim_event *e)
{
    room(&s->spare, s->n_spare, &s->cap_spare);
    s->spare[s->n_spare++] = e;
}

static struct sim_event *event_add(struct sim *s, uint64_t delay_us, enum event_kind kind,
                                   void *ctx)
{
    struct sim_event *e = s->n_spare ? s->spare[--s->n_spare] : mem_new(sizeof *e);

    *e = (struct sim_event){ .due_us = s->now_us + delay_us, .kind = kind, .ctx = ctx };
    e->tie = rng_u64(&s->rng);
    e->serial = ++s->serial;
    room(&s->heap, s->n_heap, &s->cap_heap);
    heap_up(s, s->n_heap++, e);
    return e;
}

void sim_cancel(struct sim *s, struct sim_event *e)
{
    struct sim_event *last = s->heap[--s->n_heap];

    ASSERT(e->at <= s->n_heap);
    if (last != e) {
        heap_down(s, e->at, last);
        heap_up(s, last->at, last);
    }
    event_recycle(s, e);
}

struct sim_event *sim_at(struct sim *s, uint64_t delay_us, void (*fire)(void *ctx), void *ctx)
{
    struct sim_event *e = event_add(s, delay_us, EVENT_DEVICE, ctx);

    e->fire = fire;
    return e;
}

/* --- loops --- */

static struct sim *sim_of(struct loop *l)
{
    return ((struct sim_loop *)l)->sim;
}

static void loop_sim_post(struct loop *l, struct task *t)
{
    struct sim_loop *sl = (struct sim_loop *)l;

    t->next = NULL;
    *sl->tail = t;
    sl->tail = &t->next;
}

static bool loop_sim_is_home(struct loop *l)
{
    const struct loop *running = sim_of(l)->running;

    return !running || running == l;
}

static void loop_sim_timer_stop(struct loop_timer *t)
{
    if (t->impl) {
        ASSERT(loop_sim_is_home(t->loop));
        sim_cancel(sim_of(t->loop), t->impl);
    }
    t->impl = NULL;
    t->due_us = 0;
}

static void loop_sim_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_us)
{
    struct sim_event *e;

    ASSERT(loop_sim_is_home(l));
    loop_timer_stop(t);
    e = event_add(sim_of(l), delay_us, EVENT_TIMER, t);
    e->loop = l;
    t->loop = l;
    t->impl = e;
    t->due_us = e->due_us;
    t->serial = e->serial;
}

static uint64_t loop_sim_now_us(struct loop *l)
{
    return sim_of(l)->now_us;
}

static int64_t loop_sim_wall_ms(struct loop *l)
{
    const struct sim *s = sim_of(l);

    return SIM_WALL_START_MS + (int64_t)(s->now_us / 1000) + s->wall_shift_ms;
}

static const struct loop_ops loop_sim_ops = {
    .post = loop_sim_post,
    .timer_set = loop_sim_timer_set,
    .timer_stop = loop_sim_timer_stop,
    .now_us = loop_sim_now_us,
    .wall_ms = loop_sim_wall_ms,
    .is_home = loop_sim_is_home,
};

struct loop *sim_loop(struct sim *s, unsigned index)
{
    struct sim_loop *l;

    ASSERT(index < SIM_LOOPS_MAX);
    if (!s->loops[index]) {
        l = mem_new(sizeof *l);
        *l = (struct sim_loop){ .loop = { .ops = &loop_sim_ops, .index = index }, .sim = s };
        l->tail = &l->head;
        s->loops[index] = l;
        if (index >= s->n_loops)
            s->n_loops = index + 1;
    }
    return &s->loops[index]->loop;
}

/* --- pool --- */

static void pool_sim_submit(struct pool *p, struct work *w)
{
    struct sim *s = ((struct sim_pool *)p)->sim;
    bool seldom = rng_chance(&s->rng, 1, 32);

    event_add(s, rng_below(&s->rng, seldom ? POOL_SELDOM_US + 1 : POOL_USUAL_US + 1), EVENT_WORK,
              w);
}

static void work_done(struct task *t)
{
    struct work *w = (struct work *)((char *)t - offsetof(struct work, task));

    w->done(w);
}

/* Without a done, run may free the work: what comes after it needs no more than these two. */
static void work_run(struct work *w)
{
    bool answers = w->done != NULL;

    w->run(w);
    if (!answers)
        return;
    w->task.run = work_done;
    loop_post(w->loop, &w->task);
}

static const struct pool_ops pool_sim_ops = { .submit = pool_sim_submit };

struct pool *sim_pool(struct sim *s)
{
    return &s->pool.pool;
}

/* --- the run --- */

struct sim *sim_new(uint64_t seed)
{
    struct sim *s = mem_new(sizeof *s);

    rng_seed(&s->rng, seed);
    s->now_us = CLOCK_START_US;
    s->lazy = NO_LOOP;
    s->pool.pool.ops = &pool_sim_ops;
    s->pool.sim = s;
    return s;
}

void sim_free(struct sim *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->n_loops; i++)
        free(s->loops[i]);
    for (unsigned i = 0; i < s->n_heap; i++)
        free(s->heap[i]);
    for (unsigned i = 0; i < s->n_spare; i++)
        free(s->spare[i]);
    free(s->heap);
    free(s->spare);
    free(s);
}

static void run_task(struct sim *s, struct sim_loop *l)
{
    struct task *t = l->head;

    l->head = t->next;
    if (!l->head)
        l->tail = &l->head;
    s->running = &l->loop;
    t->run(t);
}

static void run_timer(struct sim *s, struct loop *l, struct loop_timer *t)
{
    t->impl = NULL;
    t->due_us = 0;
    s->running = l;
    t->fire(t);
}

static void run_event(struct sim *s)
{
    struct sim_event e = *s->heap[0];

    sim_cancel(s, s->heap[0]);
    sim_trace_mix(s, e.serial);
    s->running = &s->elsewhere;
    if (e.kind == EVENT_TIMER)
        run_timer(s, e.loop, e.ctx);
    else if (e.kind == EVENT_WORK)
        work_run(e.ctx);
    else
        e.fire(e.ctx);
}

/* Fills ready with the loops that have tasks, and NO_LOOP when an event is due. The lazy one is
 * left out beside others, so that some interleavings starve a loop for long. */
static unsigned find_ready(struct sim *s, unsigned *ready)
{
    unsigned n = 0;
    bool lazy_too = false;

    for (unsigned i = 0; i < s->n_loops; i++) {
        if (!s->loops[i] || !s->loops[i]->head)
            continue;
        if (i == s->lazy)
            lazy_too = true;
        else
            ready[n++] = i;
    }
    if (s->n_heap && s->heap[0]->due_us <= s->now_us)
        ready[n++] = NO_LOOP;
    if (!n && lazy_too)
        ready[n++] = s->lazy;
    return n;
}

static void draw_lazy(struct sim *s)
{
    if (s->n_loops && rng_chance(&s->rng, 1, 32))
        s->lazy = rng_chance(&s->rng, 1, 2) ? NO_LOOP : (unsigned)rng_below(&s->rng, s->n_loops);
}

bool sim_step(struct sim *s)
{
    unsigned ready[SIM_LOOPS_MAX + 1];
    const struct loop *before = s->running;
    unsigned n, next;

    draw_lazy(s);
    n = find_ready(s, ready);
    if (!n && !s->n_heap)
        return false;
    if (!n)
        s->now_us = s->heap[0]->due_us;
    next = n ? ready[rng_below(&s->rng, n)] : NO_LOOP;
    s->steps++;
    sim_trace_mix(s, s->now_us << 8 | next);
    if (next == NO_LOOP)
        run_event(s);
    else
        run_task(s, s->loops[next]);
    s->running = before;
    return true;
}

bool sim_run_until(struct sim *s, bool (*fn)(void *ctx), void *ctx, uint64_t max_steps)
{
    for (;;) {
        if (fn(ctx))
            return true;
        if (max_steps-- == 0 || !sim_step(s))
            return false;
    }
}

bool sim_run_for(struct sim *s, uint64_t us, uint64_t max_steps)
{
    unsigned ready[SIM_LOOPS_MAX + 1];
    uint64_t end_us = s->now_us + us;

    while (find_ready(s, ready) || (s->n_heap && s->heap[0]->due_us <= end_us)) {
        if (max_steps-- == 0)
            return false;
        sim_step(s);
    }
    s->now_us = end_us;
    return true;
}

/* Only devices outlive the process. */
void sim_crash(struct sim *s)
{
    unsigned n = s->n_heap;

    for (unsigned i = 0; i < s->n_loops; i++)
        if (s->loops[i]) {
            s->loops[i]->head = NULL;
            s->loops[i]->tail = &s->loops[i]->head;
        }
    s->n_heap = 0;
    for (unsigned i = 0; i < n; i++) {
        struct sim_event *e = s->heap[i];

        if (e->kind == EVENT_DEVICE) {
            heap_up(s, s->n_heap++, e);
            continue;
        }
        if (e->kind == EVENT_TIMER) {
            ((struct loop_timer *)e->ctx)->impl = NULL;
            ((struct loop_timer *)e->ctx)->due_us = 0;
        }
        event_recycle(s, e);
    }
    s->running = NULL;
}

uint64_t sim_now_us(const struct sim *s)
{
    return s->now_us;
}

void sim_wall_jump(struct sim *s, int64_t ms)
{
    s->wall_shift_ms += ms;
}

struct rng *sim_rng(struct sim *s)
{
    return &s->rng;
}

uint64_t sim_trace(const struct sim *s)
{
    return s->trace;
}

uint64_t sim_steps(const struct sim *s)
{
    return s->steps;
}
