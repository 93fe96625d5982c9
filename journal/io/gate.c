#include "journal/io/gate.h"

#include <errno.h>
#include <time.h>

#include "base/err.h"

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void gate_init(struct gate *g)
{
    pthread_condattr_t attr;

    *g = (struct gate){ 0 };
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->moved, &attr);
    pthread_condattr_destroy(&attr);
}

void gate_fini(struct gate *g)
{
    ASSERT(!g->committing && g->reading == 0);
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
}

void gate_commit_begin(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->committing = true;
    pthread_mutex_unlock(&g->lock);
}

void gate_commit_end(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->committing = false;
    g->commit_us = now_us();
    pthread_cond_signal(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

/* Under lock. */
static bool commits_come(const struct gate *g, uint64_t now)
{
    return g->committing || (g->commit_us && now < g->commit_us + GATE_RECENT_US);
}

uint32_t gate_read_begin(struct gate *g, uint32_t bytes)
{
    uint64_t now = now_us(), until = now + GATE_WAIT_US;
    struct timespec due = { .tv_sec = (time_t)(until / 1000000),
                            .tv_nsec = (long)(until % 1000000 * 1000) };
    bool come, late = false;

    pthread_mutex_lock(&g->lock);
    while ((come = commits_come(g, now)) && (g->committing || g->reading > 0) && !late) {
        late = pthread_cond_timedwait(&g->moved, &g->lock, &due) == ETIMEDOUT;
        now = now_us();
    }
    g->reading++;
    pthread_mutex_unlock(&g->lock);
    return come && bytes > GATE_PIECE ? GATE_PIECE : bytes;
}

void gate_read_end(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->reading--;
    pthread_cond_signal(&g->moved);
    pthread_mutex_unlock(&g->lock);
}
