#include "gateways/net/conn_tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/logger.h"
#include "gateways/net/outbox.h"

enum {
    CLOSE_WAIT_US = 5000000, /* conn_close gives a slow peer so long to take what is queued */
    IDLE_GRAIN_US = 500000,  /* how exactly the last traffic is known */
    DISCARD_BYTES = 64 << 10
};

/* OPEN to CLOSING (what is queued is still sent) to DEAD (the last task is posted); any to DEAD. */
enum conn_tcp_state { CONN_OPEN, CONN_CLOSING, CONN_DEAD };

struct conn_tcp {
    struct conn conn; /* first */
    struct conn_tcp_home *home;
    struct conn_tcp *prev, *next; /* in the home's list by last traffic */
    struct conn_tcp *next_flush;
    uint64_t last_us; /* traffic */
    struct event readable;
    struct event writable;
    struct loop_timer close_timer;
    struct task last;   /* the end */
    struct task resume; /* gives what is left over again */
    struct net_outbox out;
    struct net_inbox in;
    int fd;
    uint8_t state; /* enum conn_tcp_state */
    bool paused;
    bool blocked; /* the socket is full; writable is waited for */
    bool to_flush;
    bool above_high;
    bool resume_posted;
};

static struct conn_tcp *tcp_of(struct conn *c)
{
    return (struct conn_tcp *)c;
}

/* --- the home's list, oldest traffic first --- */

static void list_take(struct conn_tcp *t)
{
    struct conn_tcp_home *h = t->home;

    *(t->prev ? &t->prev->next : &h->oldest) = t->next;
    *(t->next ? &t->next->prev : &h->newest) = t->prev;
    t->prev = t->next = NULL;
}

static void list_add(struct conn_tcp *t)
{
    struct conn_tcp_home *h = t->home;

    t->prev = h->newest;
    *(t->prev ? &t->prev->next : &h->oldest) = t;
    h->newest = t;
}

static uint64_t idle_grain(const struct conn_tcp_home *h)
{
    return h->idle_us / 8 < IDLE_GRAIN_US ? h->idle_us / 8 : IDLE_GRAIN_US;
}

static void touch(struct conn_tcp *t)
{
    uint64_t now = loop_now_us(t->home->loop);

    if (now - t->last_us < idle_grain(t->home))
        return;
    t->last_us = now;
    list_take(t);
    list_add(t);
}

/* --- the end of a connection --- */

static void run_last(struct task *task)
{
    struct conn_tcp *t = (struct conn_tcp *)((char *)task - offsetof(struct conn_tcp, last));
    struct conn_tcp_home *h = t->home;

    /* Both were posted before this task, and tasks run in order. */
    ASSERT(!t->to_flush && !t->resume_posted);
    close(t->fd);
    if (t->conn.handler->closed)
        t->conn.handler->closed(&t->conn, t->conn.user);
    list_take(t);
    net_inbox_fini(&t->in);
    net_outbox_fini(&t->out);
    free(t);
    h->gone(h);
}

static void die(struct conn_tcp *t)
{
    if (t->state == CONN_DEAD)
        return;
    t->state = CONN_DEAD;
    event_del(&t->readable);
    event_del(&t->writable);
    loop_timer_stop(&t->close_timer);
    net_outbox_fini(&t->out);
    loop_post(t->home->loop, &t->last);
}

/* All was sent. Bytes that nobody will read are taken off the socket, because a close over them
 * would become a reset, and that can overtake what was sent last. */
static void die_politely(struct conn_tcp *t)
{
    char sink[4096];
    int left = DISCARD_BYTES;
    ssize_t n;

    shutdown(t->fd, SHUT_WR);
    while (left > 0 && (n = recv(t->fd, sink, sizeof sink, MSG_DONTWAIT)) > 0)
        left -= (int)n;
    die(t);
}

static void close_expired(struct loop_timer *timer)
{
    die((struct conn_tcp *)((char *)timer - offsetof(struct conn_tcp, close_timer)));
}

static void begin_close(struct conn_tcp *t)
{
    if (t->state != CONN_OPEN)
        return;
    t->state = CONN_CLOSING;
    event_del(&t->readable);
    if (t->out.bytes == 0)
        die_politely(t);
    else
        loop_timer_set(t->home->loop, &t->close_timer, CLOSE_WAIT_US);
}

/* --- sending --- */

static void flush_soon(struct conn_tcp *t)
{
    struct conn_tcp_home *h = t->home;

    if (t->to_flush)
        return;
    t->to_flush = true;
    t->next_flush = h->to_flush;
    h->to_flush = t;
    if (!h->flush_posted) {
        h->flush_posted = true;
        loop_post(h->loop, &h->flush);
    }
}

static void tell_drained(struct conn_tcp *t)
{
    if (!t->above_high || t->out.bytes >= CONN_LOW_MARK || t->state != CONN_OPEN)
        return;
    t->above_high = false;
    if (t->conn.handler->drained)
        t->conn.handler->drained(&t->conn, t->conn.user);
}

static void send_queued(struct conn_tcp *t)
{
    size_t before = t->out.bytes;
    int rc;

    if (t->state == CONN_DEAD || before == 0)
        return;
    rc = net_outbox_send(&t->out, t->fd);
    if (rc < 0) {
        die(t);
        return;
    }
    if (t->out.bytes < before)
        touch(t);
    t->blocked = rc == NET_OUTBOX_FULL_SOCKET;
    if (t->blocked && event_add(&t->writable, NULL) < 0)
        die(t);
    else if (rc == NET_OUTBOX_MORE)
        flush_soon(t);
    else if (rc == NET_OUTBOX_EMPTY && t->state == CONN_CLOSING)
        die_politely(t);
    tell_drained(t);
}

static void run_flush(struct task *task)
{
    struct conn_tcp_home *h =
        (struct conn_tcp_home *)((char *)task - offsetof(struct conn_tcp_home, flush));
    struct conn_tcp *t = h->to_flush;
    struct conn_tcp *next;

    h->to_flush = NULL;
    h->flush_posted = false;
    for (; t; t = next) {
        next = t->next_flush;
        t->to_flush = false;
        if (!t->blocked)
            send_queued(t);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct conn_tcp *t = arg;

    t->blocked = false;
    send_queued(t);
}

/* --- receiving --- */

/* Shows the door what there is; 0, or the connection is closing or dead. */
static void give(struct conn_tcp *t, const struct net_arrival *a)
{
    int64_t used = t->conn.handler->data(&t->conn, t->conn.user, a->buf, a->at, a->bytes);

    if (used < 0)
        begin_close(t);
    if (net_inbox_used(&t->in, &t->home->rooms, a, used < 0 ? a->bytes : (uint32_t)used) < 0) {
        LOG_WARN("net.no_memory", F_STR("peer", t->conn.peer), F_BYTES(a->bytes));
        die(t);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct conn_tcp *t = arg;
    struct net_arrival a;
    int64_t n;

    /* What is left over goes first: the end of the stream may be all that comes after it. */
    if (t->state != CONN_OPEN || t->paused || t->resume_posted)
        return;
    n = net_inbox_recv(&t->in, &t->home->rooms, t->fd, &a);
    if (n > 0) {
        touch(t);
        give(t, &a);
        return;
    }
    if (n == 0) {
        begin_close(t); /* what is queued may still be read by a peer that only stopped sending */
    } else if (n != E_BUSY) {
        if (n == E_NOMEM)
            LOG_WARN("net.no_memory", F_STR("peer", t->conn.peer));
        die(t);
    }
}

static void run_resume(struct task *task)
{
    struct conn_tcp *t = (struct conn_tcp *)((char *)task - offsetof(struct conn_tcp, resume));
    struct net_arrival a;

    t->resume_posted = false;
    if (t->state != CONN_OPEN || t->paused || net_inbox_left(&t->in) == 0)
        return;
    a = net_inbox_again(&t->in);
    give(t, &a);
}

/* --- conn_ops --- */

static void tcp_write(struct conn *c, const struct slice *slices, unsigned n)
{
    struct conn_tcp *t = tcp_of(c);

    ASSERT_HOME(c->loop);
    if (t->state != CONN_OPEN) {
        for (unsigned i = 0; i < n; i++)
            buf_unref(slices[i].buf);
        return;
    }
    net_outbox_push(&t->out, slices, n);
    if (t->out.bytes > CONN_HIGH_MARK)
        t->above_high = true;
    if (!t->blocked)
        flush_soon(t);
}

static void tcp_pause(struct conn *c, bool pause)
{
    struct conn_tcp *t = tcp_of(c);

    ASSERT_HOME(c->loop);
    if (t->paused == pause || t->state != CONN_OPEN)
        return;
    t->paused = pause;
    if (pause) {
        event_del(&t->readable);
        return;
    }
    if (event_add(&t->readable, NULL) < 0) {
        die(t);
        return;
    }
    if (!t->resume_posted) {
        t->resume_posted = true;
        loop_post(t->home->loop, &t->resume);
    }
}

static void tcp_close(struct conn *c)
{
    ASSERT_HOME(c->loop);
    begin_close(tcp_of(c));
}

static size_t tcp_queued(struct conn *c)
{
    return tcp_of(c)->out.bytes;
}

static void tcp_want(struct conn *c, uint32_t bytes)
{
    net_inbox_want(&tcp_of(c)->in, bytes);
}

static const struct conn_ops tcp_ops = {
    .write = tcp_write,
    .pause = tcp_pause,
    .close = tcp_close,
    .queued = tcp_queued,
    .want = tcp_want,
};

/* --- opening --- */

uint16_t conn_tcp_address(char *out, size_t bytes, const struct sockaddr_storage *sa,
                          bool with_port)
{
    const struct sockaddr_in *v4 = (const void *)sa;
    const struct sockaddr_in6 *v6 = (const void *)sa;
    bool is_v6 = sa->ss_family == AF_INET6;
    bool mapped = is_v6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
    uint16_t port = ntohs(is_v6 ? v6->sin6_port : v4->sin_port);
    char host[INET6_ADDRSTRLEN] = "?";

    if (mapped)
        inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, host, sizeof host);
    else if (is_v6)
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
    else
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
    if (!with_port)
        snprintf(out, bytes, "%s", host);
    else
        snprintf(out, bytes, is_v6 && !mapped ? "[%s]:%u" : "%s:%u", host, port);
    return port;
}

static void set_options(int fd)
{
    int on = 1;

    /* Neither is needed for being right: a socket that refuses them still serves. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static void name_ends(struct conn_tcp *t, const struct sockaddr_storage *peer)
{
    struct sockaddr_storage local = { .ss_family = AF_INET };
    socklen_t n = sizeof local;

    conn_tcp_address(t->conn.peer, sizeof t->conn.peer, peer, true);
    (void)getsockname(t->fd, (struct sockaddr *)&local, &n);
    t->conn.local_port = conn_tcp_address(t->conn.local, sizeof t->conn.local, &local, false);
}

static struct conn_tcp *new_conn(struct conn_tcp_home *h, int fd,
                                 const struct sockaddr_storage *peer)
{
    struct event_base *base = loop_event_base(h->loop);
    struct conn_tcp *t = mem_new(sizeof *t);

    t->conn = (struct conn){ .ops = &tcp_ops, .loop = h->loop, .handler = h->door.handler };
    t->home = h;
    t->fd = fd;
    t->last.run = run_last;
    t->resume.run = run_resume;
    t->close_timer.fire = close_expired;
    t->last_us = loop_now_us(h->loop);
    event_assign(&t->readable, base, fd, EV_READ | EV_PERSIST, on_readable, t);
    event_assign(&t->writable, base, fd, EV_WRITE, on_writable, t);
    set_options(fd);
    name_ends(t, peer);
    return t;
}

void conn_tcp_open(struct conn_tcp_home *h, int fd, const struct sockaddr_storage *peer)
{
    struct conn_tcp *t;

    ASSERT_HOME(h->loop);
    if (h->ended) {
        close(fd);
        h->gone(h);
        return;
    }
    t = new_conn(h, fd, peer);
    list_add(t);
    if (h->idle.due_us == 0)
        loop_timer_set(h->loop, &h->idle, h->idle_us);
    t->conn.user = h->door.accept(&t->conn, h->door.door);
    if (!t->conn.user) {
        static const struct conn_handler nobody;

        t->conn.handler = &nobody; /* refused: closed must not run */
        die(t);
    } else if (t->state == CONN_OPEN && !t->paused && event_add(&t->readable, NULL) < 0) {
        die(t);
    }
}

/* --- the home --- */

static void run_idle(struct loop_timer *timer)
{
    struct conn_tcp_home *h =
        (struct conn_tcp_home *)((char *)timer - offsetof(struct conn_tcp_home, idle));
    uint64_t now = loop_now_us(h->loop);
    struct conn_tcp *t = h->oldest;

    /* Dead ones leave the list a little later. */
    for (; t && t->last_us + h->idle_us <= now; t = t->next) {
        if (t->state != CONN_DEAD)
            LOG_DEBUG("net.idle_closed", F_STR("peer", t->conn.peer));
        die(t);
    }
    if (t)
        loop_timer_set(h->loop, &h->idle, t->last_us + h->idle_us - now);
}

void conn_tcp_home_init(struct conn_tcp_home *h, struct loop *loop, struct conn_door door,
                        uint32_t idle_ms, void (*gone)(struct conn_tcp_home *h), void *ctx)
{
    *h = (struct conn_tcp_home){ .loop = loop,
                                 .door = door,
                                 .idle_us = (uint64_t)idle_ms * 1000,
                                 .gone = gone,
                                 .ctx = ctx,
                                 .flush = { .run = run_flush },
                                 .idle = { .fire = run_idle } };
}

void conn_tcp_home_end(struct conn_tcp_home *h)
{
    ASSERT_HOME(h->loop);
    h->ended = true;
    for (struct conn_tcp *t = h->oldest; t; t = t->next)
        die(t);
    loop_timer_stop(&h->idle);
}

void conn_tcp_home_fini(struct conn_tcp_home *h)
{
    ASSERT(!h->oldest);
    loop_timer_stop(&h->idle);
    net_rooms_fini(&h->rooms);
}
