#include "base/loop.h"

#include <event2/event.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/check.h"

#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

static struct loop *new_loop(void)
{
    struct loop *l = NULL;
    struct err e = { 0 };
    int rc = loop_event_new(&l, 3, &e);

    alarm(60); /* a lost wake-up hangs: let it end with a name */
    REQUIRE(rc == 0);
    return l;
}

static void *run_main(void *loop)
{
    loop_event_run(loop);
    return NULL;
}

static pthread_t start(struct loop *l)
{
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, run_main, l) == 0);
    return thread;
}

/* --- tasks --- */

struct note {
    struct task task;
    struct loop *loop;
    struct task *then; /* posted by run */
    int id;
};

static int notes[16];
static unsigned n_notes;

static void write_note(struct task *t)
{
    struct note *n = CONTAINER(t, struct note, task);
    unsigned before = n_notes;

    REQUIRE(n_notes < 16);
    if (n->then)
        loop_post(n->loop, n->then);
    CHECK_EQ(n_notes, before); /* never inside the call */
    notes[n_notes++] = n->id;
}

static void test_tasks_run_in_order_and_never_inside_post(void)
{
    struct loop *l = new_loop();
    struct note c = { { 0, write_note }, l, NULL, 3 };
    struct note a = { { 0, write_note }, l, &c.task, 1 };
    struct note b = { { 0, write_note }, l, NULL, 2 };

    n_notes = 0;
    CHECK_EQ(l->index, 3);
    loop_post(l, &a.task);
    loop_post(l, &b.task);
    CHECK_EQ(n_notes, 0);
    loop_event_stop(l);
    loop_event_run(l); /* c is posted after the stop was asked, and still drained */
    CHECK_EQ(n_notes, 3);
    CHECK(notes[0] == 1 && notes[1] == 2 && notes[2] == 3);
    loop_event_free(l);
}

static void test_a_loop_can_run_again_after_stop(void)
{
    struct loop *l = new_loop();
    struct note a = { { 0, write_note }, l, NULL, 1 };

    n_notes = 0;
    loop_event_stop(l);
    loop_event_run(l);
    CHECK_EQ(n_notes, 0);
    loop_post(l, &a.task);
    loop_event_stop(l);
    loop_event_run(l);
    CHECK_EQ(n_notes, 1);
    loop_event_free(l);
}

enum { PRODUCERS = 4, PER_PRODUCER = 20000 };

struct numbered {
    struct task task;
    unsigned producer;
    unsigned number;
};

struct producer {
    struct loop *loop;
    unsigned index;
    struct numbered *tasks;
};

static unsigned next_number[PRODUCERS];
static unsigned out_of_order;
static unsigned arrived;
static struct loop *stop_at_end;

static void arrive(struct task *t)
{
    struct numbered *n = CONTAINER(t, struct numbered, task);

    out_of_order += n->number != next_number[n->producer];
    next_number[n->producer] = n->number + 1;
    if (++arrived == PRODUCERS * PER_PRODUCER)
        loop_event_stop(stop_at_end);
}

static void *produce(void *arg)
{
    struct producer *p = arg;

    for (unsigned i = 0; i < PER_PRODUCER; i++) {
        p->tasks[i] = (struct numbered){ { NULL, arrive }, p->index, i };
        loop_post(p->loop, &p->tasks[i].task);
    }
    return NULL;
}

static void test_each_producer_keeps_its_order_and_none_is_lost(void)
{
    struct producer producers[PRODUCERS];
    pthread_t threads[PRODUCERS];

    stop_at_end = new_loop();
    arrived = out_of_order = 0;
    memset(next_number, 0, sizeof next_number);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        producers[i] =
            (struct producer){ stop_at_end, i, calloc(PER_PRODUCER, sizeof(struct numbered)) };
        REQUIRE(pthread_create(&threads[i], NULL, produce, &producers[i]) == 0);
    }
    loop_event_run(stop_at_end);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_EQ(next_number[i], PER_PRODUCER);
        free(producers[i].tasks);
    }
    CHECK_EQ(arrived, PRODUCERS * PER_PRODUCER);
    CHECK_EQ(out_of_order, 0);
    loop_event_free(stop_at_end);
}

/* A ball between two loops: one is always asleep when the ball comes, so any lost wake-up hangs. */
struct ball {
    struct task task;
    struct loop *sides[2];
    unsigned passes;
    unsigned strangers; /* runs on the wrong loop */
};

enum { PASSES = 20000 };

static void pass(struct task *t)
{
    struct ball *b = CONTAINER(t, struct ball, task);
    struct loop *here = b->sides[b->passes % 2], *there = b->sides[(b->passes + 1) % 2];

    b->strangers += !here->ops->is_home(here) || there->ops->is_home(there);
    if (++b->passes == PASSES) {
        loop_event_stop(here);
        loop_event_stop(there);
        return;
    }
    loop_post(there, t);
}

static void test_a_post_wakes_a_sleeping_loop(void)
{
    struct ball b = { .task.run = pass, .sides = { new_loop(), new_loop() } };
    pthread_t threads[2] = { start(b.sides[0]), start(b.sides[1]) };

    /* Both run before the first pass: is_home is strict only then. */
    while (b.sides[0]->ops->is_home(b.sides[0]) || b.sides[1]->ops->is_home(b.sides[1]))
        sched_yield();
    loop_post(b.sides[0], &b.task);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(b.passes, PASSES);
    CHECK_EQ(b.strangers, 0);
    for (int i = 0; i < 2; i++)
        loop_event_free(b.sides[i]);
}

/* Posts to loops that sleep, more of them than are remembered, and does not return before they have run. */
enum { HEARERS = 20 };

struct call {
    struct task task;
    struct loop *loops[HEARERS], *own;
    struct task heard[HEARERS];
};

static atomic_uint n_heard;

static void heard_one(struct task *t)
{
    atomic_fetch_add(&n_heard, 1);
}

static void call_and_wait(struct task *t)
{
    struct call *c = CONTAINER(t, struct call, task);

    for (int i = 0; i < HEARERS; i++) {
        c->heard[i].run = heard_one;
        loop_post(c->loops[i], &c->heard[i]);
    }
    loop_event_wake();
    while (atomic_load(&n_heard) < HEARERS) /* or the alarm */
        sched_yield();
    for (int i = 0; i < HEARERS; i++)
        loop_event_stop(c->loops[i]);
    loop_event_stop(c->own);
}

static void test_a_loop_that_is_about_to_block_wakes_those_it_posted_to(void)
{
    struct call c = { .task.run = call_and_wait, .own = new_loop() };
    pthread_t threads[HEARERS];

    atomic_store(&n_heard, 0);
    for (int i = 0; i < HEARERS; i++) {
        c.loops[i] = new_loop();
        threads[i] = start(c.loops[i]);
    }
    loop_event_wake(); /* outside a loop: nothing */
    loop_post(c.own, &c.task);
    loop_event_run(c.own);
    for (int i = 0; i < HEARERS; i++) {
        pthread_join(threads[i], NULL);
        loop_event_free(c.loops[i]);
    }
    CHECK_EQ(atomic_load(&n_heard), HEARERS);
    loop_event_free(c.own);
}

/* Two posts a round from another thread: the first wakes the loop, the second comes at any
 * moment of what follows, also just when the loop has found nothing more to do and lies down.
 * The next round waits for both. */
enum { KNOCKS = 20000, KNOCK_SPINS = 6000 };

struct knock {
    struct task task;
    struct door *door;
};
struct door {
    struct loop *loop;
    struct knock knocks[2];
    atomic_uint heard;
};

static void hear(struct task *t)
{
    struct door *d = CONTAINER(t, struct knock, task)->door;

    if (atomic_fetch_add(&d->heard, 1) + 1 == 2 * KNOCKS)
        loop_event_stop(d->loop);
}

static void *knock_on(void *arg)
{
    struct door *d = arg;
    volatile unsigned spin;
    struct rng rng;

    rng_seed(&rng, 3);
    for (unsigned i = 0; i < KNOCKS; i++) {
        while (atomic_load(&d->heard) < 2 * i)
            continue;
        loop_post(d->loop, &d->knocks[0].task);
        for (spin = (unsigned)rng_below(&rng, KNOCK_SPINS); spin > 0; spin--)
            continue;
        loop_post(d->loop, &d->knocks[1].task);
    }
    return NULL;
}

static void test_a_post_while_the_loop_lies_down_is_heard(void)
{
    struct door d = { .loop = new_loop(), .knocks = { { { 0, hear }, &d }, { { 0, hear }, &d } } };
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, knock_on, &d) == 0);
    loop_event_run(d.loop);
    pthread_join(thread, NULL);
    CHECK_EQ(atomic_load(&d.heard), 2 * KNOCKS);
    loop_event_free(d.loop);
}

/* A socket callback that posts: the loop was asleep, the home needs no wake-up, and yet the task
 * must run. */
static struct note from_socket;

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    char c;

    CHECK_EQ(read(fd, &c, 1), 1);
    loop_post(from_socket.loop, &from_socket.task);
}

static void stop_by_note(struct task *t)
{
    write_note(t);
    loop_event_stop(from_socket.loop);
}

static void test_a_post_from_a_socket_callback_runs(void)
{
    struct loop *l = new_loop();
    struct event *ev;
    pthread_t thread;
    int fds[2];

    n_notes = 0;
    from_socket = (struct note){ { NULL, stop_by_note }, l, NULL, 1 };
    REQUIRE(pipe(fds) == 0);
    ev = event_new(loop_event_base(l), fds[0], EV_READ | EV_PERSIST, on_readable, NULL);
    REQUIRE(ev && event_add(ev, NULL) == 0);
    thread = start(l);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    pthread_join(thread, NULL);
    CHECK_EQ(n_notes, 1);
    event_free(ev);
    close(fds[0]);
    close(fds[1]);
    loop_event_free(l);
}

static void test_home_is_anywhere_until_the_loop_runs(void)
{
    struct loop *l = new_loop();
    pthread_t thread;

    CHECK(l->ops->is_home(l));
    thread = start(l);
    while (l->ops->is_home(l)) /* ends when the other thread has it */
        sched_yield();
    loop_event_stop(l);
    pthread_join(thread, NULL);
    CHECK(l->ops->is_home(l));
    loop_event_free(l);
}

static void test_clocks_go_on(void)
{
    struct loop *l = new_loop();
    uint64_t a = loop_now_us(l);
    int64_t wall = loop_wall_ms(l);
    time_t now = time(NULL);

    CHECK(loop_now_us(l) >= a);
    CHECK(wall / 1000 - now >= -2 && wall / 1000 - now <= 2);
    loop_event_free(l);
}

/* --- timers --- */

struct alarm_clock {
    struct loop_timer timer;
    struct loop_timer *stops; /* fire stops this one */
    struct loop_timer *sets;  /* fire sets this one, */
    uint64_t sets_us;         /* so much later */
    uint64_t due_us;          /* not before */
    uint64_t late_us;
    unsigned fired;
    unsigned early;
    int ends; /* stops the loop */
};

static int fired_order[8];
static unsigned n_fired;

static void ring(struct loop_timer *t)
{
    struct alarm_clock *a = CONTAINER(t, struct alarm_clock, timer);
    uint64_t now_us = loop_now_us(t->loop);

    a->fired++;
    a->early += now_us < a->due_us;
    a->late_us = now_us - a->due_us;
    if (n_fired < 8)
        fired_order[n_fired++] = a->ends;
    if (a->stops)
        loop_timer_stop(a->stops);
    if (a->sets)
        loop_timer_set(t->loop, a->sets, a->sets_us);
    if (a->ends)
        loop_event_stop(t->loop);
}

static void set(struct loop *l, struct alarm_clock *a, uint64_t delay_us)
{
    a->timer.fire = ring;
    a->due_us = loop_now_us(l) + delay_us;
    loop_timer_set(l, &a->timer, delay_us);
}

static void test_timers_fire_in_order_of_due_time(void)
{
    struct loop *l = new_loop();
    struct alarm_clock a = { 0 }, b = { 0 }, last = { .ends = 1 };

    n_fired = 0;
    set(l, &last, 9000);
    set(l, &b, 5000);
    set(l, &a, 1000);
    b.ends = 0;
    loop_event_run(l);
    CHECK(a.fired == 1 && b.fired == 1 && last.fired == 1);
    CHECK(n_fired == 3 && fired_order[2] == 1);
    CHECK_EQ(a.early + b.early + last.early, 0);
    CHECK_EQ(a.timer.due_us, 0);
    loop_event_free(l);
}

static void test_setting_again_moves_a_timer(void)
{
    struct loop *l = new_loop();
    struct alarm_clock later = { 0 }, sooner = { 0 }, last = { .ends = 1 };

    set(l, &sooner, 3600000000u);
    set(l, &later, 100);
    set(l, &last, 8000);
    set(l, &later, 4000);
    set(l, &sooner, 2000);
    loop_event_run(l);
    CHECK_EQ(sooner.fired, 1);
    CHECK_EQ(later.fired, 1);
    CHECK_EQ(later.early, 0);
    loop_event_free(l);
}

static void test_a_stopped_timer_never_fires(void)
{
    struct loop *l = new_loop();
    struct alarm_clock never = { 0 }, last = { .ends = 1 };

    loop_timer_stop(&never.timer); /* never set: harmless */
    set(l, &never, 500);
    loop_timer_stop(&never.timer);
    loop_timer_stop(&never.timer);
    set(l, &last, 3000);
    loop_event_run(l);
    CHECK_EQ(never.fired, 0);
    loop_event_free(l);
}

/* Both are due in the same turn; the first to fire stops the second. */
static void test_a_timer_stopped_by_one_due_with_it_does_not_fire(void)
{
    struct loop *l = new_loop();
    struct alarm_clock victim = { 0 }, last = { .ends = 1 };
    struct alarm_clock killer = { .stops = &victim.timer };

    set(l, &killer, 0);
    set(l, &victim, 1);
    set(l, &last, 3000);
    while (loop_now_us(l) <= victim.due_us)
        continue;
    loop_event_run(l);
    CHECK_EQ(killer.fired, 1);
    CHECK_EQ(victim.fired, 0);
    loop_event_free(l);
}

/* A timer that sets itself with no delay leaves room for tasks and for the others. */
static void stop_loop(struct task *t)
{
    struct note *n = CONTAINER(t, struct note, task);

    loop_event_stop(n->loop);
}

static void test_a_timer_set_in_its_own_fire_does_not_starve_tasks(void)
{
    struct loop *l = new_loop();
    struct alarm_clock eager = { .sets = &eager.timer };
    struct note stop = { { NULL, stop_loop }, l, NULL, 0 };

    set(l, &eager, 0);
    loop_post(l, &stop.task);
    loop_event_run(l);
    CHECK(eager.fired <= 2);
    loop_timer_stop(&eager.timer);
    loop_event_free(l);
}

static void test_a_nearer_timer_set_while_asleep_is_not_held_up(void)
{
    struct loop *l = new_loop();
    struct alarm_clock far = { 0 }, near = { .ends = 1 };
    struct alarm_clock first = { .sets = &near.timer, .sets_us = 700 };

    near.timer.fire = ring;
    set(l, &far, UINT64_MAX); /* does not wrap */
    set(l, &first, 300);
    loop_event_run(l); /* hangs, if the new due time is not armed */
    CHECK_EQ(near.fired, 1);
    CHECK_EQ(far.fired, 0);
    loop_timer_stop(&far.timer);
    loop_event_free(l);
}

/* Rounded up to a millisecond, 300 us would be at least 500 us late most times; the best of 50
 * tells. */
static void test_timers_are_finer_than_a_millisecond(void)
{
    struct loop *l = new_loop();
    uint64_t best_us = UINT64_MAX;

    for (int i = 0; i < 50; i++) {
        struct alarm_clock a = { .ends = 1 };

        set(l, &a, 300);
        loop_event_run(l);
        CHECK_EQ(a.early, 0);
        if (a.late_us < best_us)
            best_us = a.late_us;
    }
    CHECK(best_us < 300);
    loop_event_free(l);
}

enum { CLOCKS = 500 };

static uint64_t last_due_us;
static unsigned due_backwards;

static void ring_in_order(struct loop_timer *t)
{
    struct alarm_clock *a = CONTAINER(t, struct alarm_clock, timer);

    a->fired++;
    a->early += loop_now_us(t->loop) < a->due_us;
    due_backwards += a->due_us < last_due_us;
    last_due_us = a->due_us;
}

static void test_random_timers_fire_once_in_order_or_not_at_all(void)
{
    static struct alarm_clock clocks[CLOCKS];
    struct loop *l = new_loop();
    struct alarm_clock last = { .ends = 1 };
    unsigned n_set = 0, n_done = 0, early = 0, wrong = 0;
    struct rng rng;

    rng_seed(&rng, 5);
    last_due_us = due_backwards = 0;
    memset(clocks, 0, sizeof clocks);
    for (int i = 0; i < 20 * CLOCKS; i++) {
        struct alarm_clock *a = &clocks[rng_below(&rng, CLOCKS)];

        a->timer.fire = ring_in_order;
        if (rng_chance(&rng, 1, 3)) {
            loop_timer_stop(&a->timer);
            a->due_us = 0;
        } else {
            loop_timer_set(l, &a->timer, 20000 + rng_below(&rng, 5000));
            a->due_us = a->timer.due_us;
        }
    }
    set(l, &last, 60000);
    loop_event_run(l);
    for (int i = 0; i < CLOCKS; i++) {
        n_set += clocks[i].due_us != 0;
        n_done += clocks[i].fired;
        early += clocks[i].early;
        wrong += clocks[i].fired != (clocks[i].due_us != 0);
    }
    CHECK(n_set > CLOCKS / 2 && n_set < CLOCKS);
    CHECK_EQ(n_done, n_set);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(early, 0);
    CHECK_EQ(due_backwards, 0);
    loop_event_free(l);
}

static void test_one_loop_fewer_than_cores_and_at_least_one_are_asked_for(void)
{
    cpu_set_t all, some;
    unsigned n = 0;

    REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
    CPU_ZERO(&some);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_SET(cpu, &some);
        n++;
        REQUIRE(sched_setaffinity(0, sizeof some, &some) == 0);
        CHECK_EQ(loop_event_count(), n == 1 ? 1 : n - 1);
    }
    REQUIRE(sched_setaffinity(0, sizeof all, &all) == 0);
}

TEST_MAIN(T(one_loop_fewer_than_cores_and_at_least_one_are_asked_for) T(
    tasks_run_in_order_and_never_inside_post) T(a_loop_can_run_again_after_stop)
              T(each_producer_keeps_its_order_and_none_is_lost) T(a_post_wakes_a_sleeping_loop) T(
                  a_loop_that_is_about_to_block_wakes_those_it_posted_to)
                  T(a_post_while_the_loop_lies_down_is_heard) T(a_post_from_a_socket_callback_runs)
                      T(home_is_anywhere_until_the_loop_runs) T(clocks_go_on)
                          T(timers_fire_in_order_of_due_time) T(setting_again_moves_a_timer)
                              T(a_stopped_timer_never_fires)
                                  T(a_timer_stopped_by_one_due_with_it_does_not_fire)
                                      T(a_timer_set_in_its_own_fire_does_not_starve_tasks)
                                          T(a_nearer_timer_set_while_asleep_is_not_held_up)
                                              T(timers_are_finer_than_a_millisecond)
                                                  T(random_timers_fire_once_in_order_or_not_at_all))
