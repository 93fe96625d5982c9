#include "gateways/net/listener.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "gateways/net/conn_tcp.h"

enum {
    SOCKETS_MAX = 8,
    ACCEPT_TURN = 64,   /* accepted in a row before the loop's other work gets its turn */
    RETRY_US = 100000,  /* out of descriptors: so long nobody is accepted */
    TELL_US = 10000000, /* a warning that repeats, at most so often */
    OWN_FILES = 512     /* slabs, rows, loops */
};

/* In `live`: the last to leave says so. */
#define ENDING (1u << 31)

struct net_socket {
    int fd;
    struct event event; /* accept loop */
};

struct net_listener {
    struct loop *loop; /* where connections are accepted: the first */
    struct net_socket sockets[SOCKETS_MAX];
    unsigned n_sockets;
    struct conn_tcp_home *homes;
    unsigned n_homes;
    uint32_t max_connections;
    uint16_t port;
    struct task start;
    struct task stop;
    struct net_listener_stop *stopped;
    struct net_listener_stop *ended; /* set before ENDING is */
    struct end *ends;
    /* Connections; once it has ENDING, also one for each home that has not ended and one for the
     * call. */
    atomic_uint live;

    /* accept loop */
    unsigned next_home;
    uint64_t told_us; /* when the last warning was written */
    struct loop_timer retry;
    bool running;
};

/* A connection on its way to its home. */
struct arrival {
    struct task task;
    struct conn_tcp_home *home;
    struct sockaddr_storage peer;
    int fd;
};

struct end {
    struct task task;
    struct conn_tcp_home *home;
};

/* --- the end --- */

static void run_ended(struct task *task)
{
    struct net_listener_stop *s = (struct net_listener_stop *)task;

    s->fn(s);
}

static void drop_live(struct net_listener *l)
{
    if (atomic_fetch_sub(&l->live, 1) == ENDING + 1) {
        l->ended->task.run = run_ended;
        loop_post(l->ended->loop, &l->ended->task);
    }
}

static void conn_gone(struct conn_tcp_home *h)
{
    drop_live(h->ctx);
}

static void run_end(struct task *task)
{
    struct end *end = (struct end *)task;

    conn_tcp_home_end(end->home);
    drop_live(end->home->ctx);
}

void net_listener_end(struct net_listener *l, struct net_listener_stop *done)
{
    ASSERT(!l->running && !l->ends);
    l->ends = mem_new(l->n_homes * sizeof *l->ends);
    l->ended = done;
    atomic_fetch_add(&l->live, ENDING + l->n_homes + 1);
    for (unsigned i = 0; i < l->n_homes; i++) {
        l->ends[i] = (struct end){ .task = { .run = run_end }, .home = &l->homes[i] };
        loop_post(l->homes[i].loop, &l->ends[i].task);
    }
    drop_live(l);
}

/* --- accepting --- */

static void run_arrival(struct task *task)
{
    struct arrival *a = (struct arrival *)task;

    conn_tcp_open(a->home, a->fd, &a->peer);
    free(a);
}

/* Whether a warning of this kind may be written again. */
static bool may_tell(struct net_listener *l)
{
    uint64_t now = loop_now_us(l->loop);

    if (l->told_us && now - l->told_us < TELL_US)
        return false;
    l->told_us = now;
    return true;
}

static void hand_on(struct net_listener *l, int fd, const struct sockaddr_storage *peer)
{
    struct arrival *a;

    if (atomic_fetch_add(&l->live, 1) >= l->max_connections) {
        atomic_fetch_sub(&l->live, 1);
        close(fd);
        if (may_tell(l))
            LOG_WARN("net.too_many_connections", F_INT("max", l->max_connections));
        return;
    }
    a = mem_new(sizeof *a);
    a->task.run = run_arrival;
    a->home = &l->homes[l->next_home++ % l->n_homes];
    a->peer = *peer;
    a->fd = fd;
    loop_post(a->home->loop, &a->task);
}

static void listen_events(struct net_listener *l, bool on)
{
    for (unsigned i = 0; i < l->n_sockets; i++) {
        int rc = on ? event_add(&l->sockets[i].event, NULL) : event_del(&l->sockets[i].event);

        if (rc < 0)
            LOG_ERROR("net.listen_event", F_INT("port", l->port));
    }
}

static void run_retry(struct loop_timer *timer)
{
    struct net_listener *l =
        (struct net_listener *)((char *)timer - offsetof(struct net_listener, retry));

    listen_events(l, true);
}

/* Nothing can be accepted, and the sockets stay readable: asking again at once would only burn the
 * core. */
static void pause_accept(struct net_listener *l, int err)
{
    if (may_tell(l))
        LOG_WARN("net.accept_paused", F_STR("why", strerror(err)),
                 F_INT("retry_ms", RETRY_US / 1000));
    listen_events(l, false);
    loop_timer_set(l->loop, &l->retry, RETRY_US);
}

static void on_connection(evutil_socket_t fd, short what, void *arg)
{
    struct net_listener *l = arg;

    for (int i = 0; i < ACCEPT_TURN; i++) {
        struct sockaddr_storage peer = { .ss_family = AF_INET };
        socklen_t n = sizeof peer;
        int conn = accept4(fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (conn >= 0) {
            hand_on(l, conn, &peer);
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accept(l, errno);
            return;
        }
        /* The rest is about one connection that went before it was taken. */
    }
}

/* --- starting and stopping --- */

static void run_start(struct task *task)
{
    struct net_listener *l =
        (struct net_listener *)((char *)task - offsetof(struct net_listener, start));

    for (unsigned i = 0; i < l->n_sockets; i++)
        event_assign(&l->sockets[i].event, loop_event_base(l->loop), l->sockets[i].fd,
                     EV_READ | EV_PERSIST, on_connection, l);
    listen_events(l, true);
}

void net_listener_start(struct net_listener *l)
{
    l->running = true;
    l->start.run = run_start;
    loop_post(l->loop, &l->start);
}

static void close_sockets(struct net_listener *l)
{
    for (unsigned i = 0; i < l->n_sockets; i++)
        close(l->sockets[i].fd);
    l->n_sockets = 0;
}

static void run_stop(struct task *task)
{
    struct net_listener *l =
        (struct net_listener *)((char *)task - offsetof(struct net_listener, stop));

    listen_events(l, false);
    loop_timer_stop(&l->retry);
    close_sockets(l);
    l->running = false;
    l->stopped->task.run = run_ended;
    loop_post(l->stopped->loop, &l->stopped->task);
}

void net_listener_stop(struct net_listener *l, struct net_listener_stop *done)
{
    l->stopped = done;
    l->stop.run = run_stop;
    loop_post(l->loop, &l->stop);
}

/* --- opening --- */

/* The port that a socket was given. */
static uint16_t bound_port(int fd)
{
    struct sockaddr_storage sa = { .ss_family = AF_INET };
    socklen_t n = sizeof sa;
    char name[64];

    if (getsockname(fd, (struct sockaddr *)&sa, &n) < 0)
        return 0;
    return conn_tcp_address(name, sizeof name, &sa, false);
}

static void set_port(struct sockaddr_storage *sa, uint16_t port)
{
    if (sa->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)sa)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)sa)->sin_port = htons(port);
}

/* Whether this is "::": it then takes IPv4 too. */
static bool is_any6(const struct sockaddr_storage *sa)
{
    return sa->ss_family == AF_INET6 &&
           IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

/* A listening descriptor, or -1 with errno. */
static int listen_on(const struct sockaddr_storage *sa, socklen_t n, unsigned backlog)
{
    int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1, only6 = !is_any6(sa);
    int err;

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (sa->ss_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only6, sizeof only6) == 0) &&
        bind(fd, (const struct sockaddr *)sa, n) == 0 && listen(fd, (int)backlog) == 0)
        return fd;
    err = errno;
    close(fd);
    errno = err;
    return -1;
}

/* One address of the name. A family that this machine has not got is left out while another one
 * works. */
static int add_socket(struct net_listener *l, const struct addrinfo *ai, unsigned backlog,
                      struct err *e)
{
    struct sockaddr_storage sa = { .ss_family = AF_INET };
    char name[64];
    int fd, err;

    memcpy(&sa, ai->ai_addr, ai->ai_addrlen);
    set_port(&sa, l->port);
    conn_tcp_address(name, sizeof name, &sa, true);
    fd = listen_on(&sa, ai->ai_addrlen, backlog);
    if (fd >= 0) {
        l->sockets[l->n_sockets++].fd = fd;
        l->port = bound_port(fd);
        return 0;
    }
    err = errno;
    LOG_DEBUG("net.address_skipped", F_STR("address", name), F_STR("why", strerror(err)));
    err_set(e, err == EADDRINUSE ? E_LOCKED : E_SYSTEM, "cannot listen on %s: %s", name,
            strerror(err));
    return err == EAFNOSUPPORT || err == EADDRNOTAVAIL ? 0 : e->code;
}

static int add_sockets(struct net_listener *l, const struct net_listener_conf *conf, struct err *e)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list;
    struct err last = { 0 };
    int rc = getaddrinfo(conf->host, NULL, &hints, &list);

    if (rc != 0)
        return err_set(e, E_SYSTEM, "cannot listen on %s: %s", conf->host,
                       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    for (const struct addrinfo *ai = list; rc == 0 && ai && l->n_sockets < SOCKETS_MAX;
         ai = ai->ai_next)
        if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6)
            rc = add_socket(l, ai, conf->backlog, &last);
    freeaddrinfo(list);
    if (rc == 0 && l->n_sockets == 0)
        rc = last.code ? last.code : E_SYSTEM;
    if (rc < 0)
        err_set(e, rc, "%s", last.code ? last.text : "no address to listen on");
    return rc;
}

int net_listener_open(struct net_listener **out, const struct net_listener_conf *conf,
                      struct loop **loops, unsigned n_loops, struct conn_door door, struct err *e)
{
    struct net_listener *l = mem_new(sizeof *l);
    int rc;

    *out = NULL;
    l->loop = loops[0];
    l->port = conf->port;
    l->max_connections = conf->max_connections;
    l->retry.fire = run_retry;
    rc = add_sockets(l, conf, e);
    if (rc < 0) {
        net_listener_free(l);
        return rc;
    }
    l->n_homes = n_loops;
    l->homes = mem_new(n_loops * sizeof *l->homes);
    for (unsigned i = 0; i < n_loops; i++)
        conn_tcp_home_init(&l->homes[i], loops[i], door, conf->idle_close_ms, conn_gone, l);
    *out = l;
    return 0;
}

uint16_t net_listener_port(const struct net_listener *l)
{
    return l->port;
}

uint32_t net_listener_count(const struct net_listener *l)
{
    return atomic_load(&l->live) & ~ENDING;
}

void net_listener_free(struct net_listener *l)
{
    if (!l)
        return;
    ASSERT(!l->running);
    close_sockets(l);
    for (unsigned i = 0; i < l->n_homes; i++)
        conn_tcp_home_fini(&l->homes[i]);
    free(l->homes);
    free(l->ends);
    free(l);
}

uint32_t net_listener_fit(uint32_t wanted)
{
    struct rlimit limit;
    rlim_t reserve;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return wanted;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 && getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return wanted;
    if (limit.rlim_cur == RLIM_INFINITY)
        return wanted;
    reserve = limit.rlim_cur / 2 < OWN_FILES ? limit.rlim_cur / 2 : OWN_FILES;
    return limit.rlim_cur - reserve < wanted ? (uint32_t)(limit.rlim_cur - reserve) : wanted;
}
