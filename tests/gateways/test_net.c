/* Listener and socket connections, over real loopback sockets: a door that speaks frames (u32be
 * length, then that many bytes, the first of which says what to do) on two loops with threads of
 * their own, and clients that block. */
#include "gateways/net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/logger.h"
#include "base/rd.h"
#include "base/rng.h"
#include "gateways/net/conn_tcp.h"
#include "gateways/net/outbox.h"
#include "tests/check.h"

enum { N_LOOPS = 2, WAIT_S = 60, REPLY_BYTES = 8 << 20, QUEUE_MAX = 1 << 20, FRAME_MAX = 64 << 20 };

/* --- the door --- */

struct peer {
    struct conn *c;
    struct peer *next;
    unsigned n_data; /* calls of data */
    unsigned n_frames;
    size_t max_queued;
    bool stalled; /* paused because too much is queued */
    bool gone;
    struct task unpause;
    struct slice held[4096];
    unsigned n_held;
};

static struct world {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct loop *loops[N_LOOPS];
    pthread_t threads[N_LOOPS];
    struct net_listener *listener;
    struct buf *reply;  /* REPLY_BYTES of a pattern */
    struct peer *peers; /* newest first */
    unsigned n_accepted, n_closed, n_stalls, n_paused;
    unsigned on_loop[N_LOOPS];
    uint64_t most_wanted;
    bool refuse;
} w = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i % 251);
}

static void say(unsigned *counter)
{
    pthread_mutex_lock(&w.lock);
    ++*counter;
    pthread_cond_broadcast(&w.changed);
    pthread_mutex_unlock(&w.lock);
}

/* Waits until a counter of the world's is at least n; false after a minute. */
static bool reaches(const unsigned *counter, unsigned n)
{
    struct timespec until;
    bool ok;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&w.lock);
    while (*counter < n && pthread_cond_timedwait(&w.changed, &w.lock, &until) == 0)
        ;
    ok = *counter >= n;
    pthread_mutex_unlock(&w.lock);
    return ok;
}

static void *door_accept(struct conn *c, void *door)
{
    struct peer *p;

    if (w.refuse) {
        say(&w.n_accepted);
        return NULL;
    }
    p = calloc(1, sizeof *p);
    p->c = c;
    pthread_mutex_lock(&w.lock);
    p->next = w.peers;
    w.peers = p;
    w.on_loop[c->loop->index]++;
    pthread_mutex_unlock(&w.lock);
    say(&w.n_accepted);
    return p;
}

static void reply(struct peer *p, uint32_t bytes)
{
    struct slice s = { .buf = buf_ref(w.reply), .mem = w.reply->mem, .len = bytes };

    conn_write(p->c, &s, 1);
    if (conn_queued(p->c) > p->max_queued)
        p->max_queued = conn_queued(p->c);
}

/* One frame: frame[0..bytes) with its length. Below 0: close. */
static int door_frame(struct peer *p, struct buf *in, const uint8_t *frame, uint32_t bytes)
{
    struct slice s = { .buf = in, .mem = frame, .len = bytes };
    uint32_t arg = bytes >= 9 ? get_u32be(frame + 5) : 0;

    p->n_frames++;
    switch (bytes > 4 ? frame[4] : 'E') {
    case 'E':
    case 'C':
        buf_ref(in);
        conn_write(p->c, &s, 1);
        if (bytes > 4 && frame[4] == 'C') {
            conn_close(p->c);
            conn_close(p->c);
            buf_ref(in); /* after the close it must come back */
            conn_write(p->c, &s, 1);
        }
        return 0;
    case 'R':
        reply(p, arg);
        return 0;
    case 'B':
        reply(p, arg);
        conn_close(p->c);
        return 0;
    case 'H':
        buf_ref(in);
        p->held[p->n_held++] = s;
        return 0;
    case 'P':
        conn_pause(p->c, true);
        say(&w.n_paused);
        return 0;
    default:
        return -1;
    }
}

static int64_t door_data(struct conn *c, void *user, struct buf *in, uint32_t at, uint32_t bytes)
{
    struct peer *p = user;
    uint32_t used = 0;

    p->n_data++;
    while (bytes - used >= 4) {
        uint32_t frame = 4 + get_u32be(in->mem + at + used);

        if (frame > FRAME_MAX + 4)
            return -1;
        if (bytes - used < frame) {
            conn_want(c, frame);
            pthread_mutex_lock(&w.lock);
            w.most_wanted = frame > w.most_wanted ? frame : w.most_wanted;
            pthread_cond_broadcast(&w.changed);
            pthread_mutex_unlock(&w.lock);
            break;
        }
        if (door_frame(p, in, in->mem + at + used, frame) < 0)
            return -1;
        used += frame;
        if (in->mem[at + used - frame + 4] == 'P' && frame > 4)
            break;
        if (conn_queued(c) > QUEUE_MAX) {
            p->stalled = true;
            conn_pause(c, true);
            say(&w.n_stalls);
            break;
        }
    }
    return used;
}

static void door_drained(struct conn *c, void *user)
{
    struct peer *p = user;

    if (p->stalled) {
        p->stalled = false;
        conn_pause(c, false);
    }
}

static void door_closed(struct conn *c, void *user)
{
    struct peer *p = user;

    CHECK(!p->gone);
    p->gone = true;
    p->c = NULL;
    say(&w.n_closed);
}

static const struct conn_handler handler = { door_data, door_drained, door_closed };

/* --- the world: loops and listener, made anew for each test --- */

static void *run_loop(void *arg)
{
    loop_event_run(arg);
    return NULL;
}

struct gate {
    struct net_listener_stop stop; /* first */
    sem_t sem;
};

static void gate_open(struct net_listener_stop *s)
{
    sem_post(&((struct gate *)s)->sem);
}

static uint16_t begin_with(struct net_listener_conf conf)
{
    struct conn_door door = { .handler = &handler, .accept = door_accept };
    struct err e = { 0 };
    int rc = 0;

    w.peers = NULL;
    w.n_accepted = w.n_closed = w.n_stalls = w.n_paused = 0;
    w.most_wanted = 0;
    w.refuse = false;
    memset(w.on_loop, 0, sizeof w.on_loop);
    w.reply = buf_new(REPLY_BYTES);
    for (size_t i = 0; i < REPLY_BYTES; i++)
        w.reply->mem[i] = pattern(i);
    for (unsigned i = 0; i < N_LOOPS; i++) {
        REQUIRE(loop_event_new(&w.loops[i], i, &e) == 0);
        REQUIRE(pthread_create(&w.threads[i], NULL, run_loop, w.loops[i]) == 0);
    }
    rc = net_listener_open(&w.listener, &conf, w.loops, N_LOOPS, door, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    REQUIRE(rc == 0);
    net_listener_start(w.listener);
    return net_listener_port(w.listener);
}

static struct net_listener_conf usual(void)
{
    return (struct net_listener_conf){
        .host = "127.0.0.1", .backlog = 1024, .max_connections = 5000, .idle_close_ms = 600000
    };
}

static uint16_t begin(void)
{
    return begin_with(usual());
}

static void gate_wait(struct gate *g)
{
    while (sem_wait(&g->sem) < 0)
        ;
    sem_destroy(&g->sem);
}

/* Stops everything; every connection must have been closed, and every byte be given back. */
static void end_world(void)
{
    struct gate g = { .stop = { .fn = gate_open, .loop = w.loops[1] } };
    struct gate h = { .stop = { .fn = gate_open, .loop = w.loops[0] } };
    struct peer *next;

    sem_init(&g.sem, 0, 0);
    net_listener_stop(w.listener, &g.stop);
    gate_wait(&g);
    sem_init(&h.sem, 0, 0);
    net_listener_end(w.listener, &h.stop);
    gate_wait(&h);
    CHECK_EQ(net_listener_count(w.listener), 0);
    net_listener_free(w.listener);
    for (unsigned i = 0; i < N_LOOPS; i++) {
        loop_event_stop(w.loops[i]);
        pthread_join(w.threads[i], NULL);
        loop_event_free(w.loops[i]);
    }
    if (!w.refuse)
        CHECK_EQ(w.n_closed, w.n_accepted);
    for (struct peer *p = w.peers; p; p = next) {
        next = p->next;
        for (unsigned i = 0; i < p->n_held; i++)
            buf_unref(p->held[i].buf);
        free(p);
    }
    CHECK_EQ(atomic_load(&w.reply->refs), 1);
    buf_unref(w.reply);
    CHECK_EQ(buf_total_bytes(), 0);
}

/* --- clients --- */

static int client(uint16_t port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct timeval limit = { .tv_sec = WAIT_S };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    REQUIRE(fd >= 0);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    REQUIRE(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    return fd;
}

static bool put(int fd, const void *mem, size_t bytes)
{
    const uint8_t *p = mem;

    while (bytes > 0) {
        ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool take(int fd, void *mem, size_t bytes)
{
    uint8_t *p = mem;

    while (bytes > 0) {
        ssize_t n = recv(fd, p, bytes, 0);

        if (n <= 0)
            return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* Whether the server closed in order, after nothing more. */
static bool at_end(int fd)
{
    char c;

    return recv(fd, &c, 1, 0) == 0;
}

/* Writes a frame of an op and an argument, 9 bytes. */
static bool put_op(int fd, char op, uint32_t arg)
{
    uint8_t f[9];

    put_u32be(f, 5);
    f[4] = (uint8_t)op;
    put_u32be(f + 5, arg);
    return put(fd, f, sizeof f);
}

/* A frame of n payload bytes with op 'E' and a seeded content; the whole has n + 4. */
static uint8_t *make_frame(uint32_t n, char op, uint64_t seed)
{
    uint8_t *f = malloc(n + 4);
    struct rng r;

    rng_seed(&r, seed);
    put_u32be(f, n);
    for (uint32_t i = 4; i < n + 4; i++)
        f[i] = (uint8_t)rng_u64(&r);
    if (n)
        f[4] = (uint8_t)op;
    return f;
}

static bool echoes(int fd, uint32_t n, uint64_t seed)
{
    uint8_t *f = make_frame(n, 'E', seed);
    uint8_t *back = malloc(n + 4);
    bool ok = put(fd, f, n + 4) && take(fd, back, n + 4) && memcmp(f, back, n + 4) == 0;

    free(f);
    free(back);
    return ok;
}

static bool takes_pattern(int fd, uint32_t bytes)
{
    uint8_t *mem = malloc(bytes);
    bool ok = take(fd, mem, bytes);

    for (uint32_t i = 0; ok && i < bytes; i++)
        ok = mem[i] == pattern(i);
    free(mem);
    return ok;
}

/* --- tests --- */

static void test_net_echoes_and_spreads_connections_evenly(void)
{
    uint16_t port = begin();
    int fd[4];

    for (int i = 0; i < 4; i++) {
        fd[i] = client(port);
        CHECK(echoes(fd[i], 100, (uint64_t)i));
    }
    CHECK_EQ(w.on_loop[0], 2);
    CHECK_EQ(w.on_loop[1], 2);
    CHECK_EQ(net_listener_count(w.listener), 4);
    for (int i = 0; i < 4; i++)
        CHECK(echoes(fd[i], 0, 1));
    for (int i = 0; i < 4; i++)
        close(fd[i]);
    CHECK(reaches(&w.n_closed, 4));
    end_world();
}

static void test_net_names_both_ends(void)
{
    uint16_t port = begin();
    int fd = client(port);
    struct sockaddr_in sa;
    socklen_t n = sizeof sa;
    char mine[64];

    CHECK(echoes(fd, 1, 1));
    getsockname(fd, (struct sockaddr *)&sa, &n);
    snprintf(mine, sizeof mine, "127.0.0.1:%u", ntohs(sa.sin_port));
    CHECK(strcmp(w.peers->c->peer, mine) == 0);
    CHECK(strcmp(w.peers->c->local, "127.0.0.1") == 0);
    CHECK_EQ(w.peers->c->local_port, port);
    close(fd);
    end_world();
}

static void test_net_large_messages_arrive_whole(void)
{
    static const uint32_t sizes[] = { 16380, 16384, 65536, 100000, 1 << 20, 3000001, 20 << 20 };
    uint16_t port = begin();
    int fd = client(port);

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *f = make_frame(sizes[i], 'E', i);
        uint8_t *back = malloc(sizes[i] + 4);

        /* The door answers only when it has all of it, so that writing cannot block for ever. */
        CHECK(put(fd, f, sizes[i] + 4));
        CHECK(take(fd, back, sizes[i] + 4));
        CHECK(memcmp(f, back, sizes[i] + 4) == 0);
        free(f);
        free(back);
    }
    close(fd);
    end_world();
}

static void test_net_a_claimed_size_alone_takes_no_memory(void)
{
    uint16_t port = begin();
    uint64_t before;
    int fd[20];

    before = buf_total_bytes();
    for (int i = 0; i < 20; i++) {
        uint8_t head[8] = { 0 };

        fd[i] = client(port);
        put_u32be(head, FRAME_MAX);
        CHECK(put(fd[i], head, sizeof head));
    }
    /* The answers below come after the claims were seen, on both loops. */
    CHECK(reaches(&w.n_accepted, 20));
    for (int i = 0; i < 20; i++)
        CHECK(put(fd[i], "abcd", 4));
    for (int i = 0; i < N_LOOPS; i++) {
        int other = client(port);

        CHECK(echoes(other, 10, 1));
        close(other);
    }
    CHECK_EQ(w.most_wanted, FRAME_MAX + 4);
    CHECK(buf_total_bytes() - before <= 20 * (1 << 20) + N_LOOPS * (2 << 20));
    for (int i = 0; i < 20; i++)
        close(fd[i]);
    end_world();
}

static void test_net_a_message_in_single_bytes_is_put_together(void)
{
    uint16_t port = begin();
    int fd = client(port);
    uint8_t *f = make_frame(300, 'E', 7), back[304];

    for (int i = 0; i < 304; i++)
        CHECK(put(fd, f + i, 1));
    CHECK(take(fd, back, sizeof back));
    CHECK(memcmp(f, back, sizeof back) == 0);
    free(f);
    close(fd);
    end_world();
}

struct writer {
    int fd;
    const uint8_t *mem;
    size_t bytes;
    uint64_t seed;
    size_t chunk;
};

static void *run_writer(void *arg)
{
    struct writer *wr = arg;
    struct rng r;
    size_t at = 0;

    rng_seed(&r, wr->seed);
    while (at < wr->bytes) {
        size_t n = 1 + rng_below(&r, wr->chunk);

        if (n > wr->bytes - at)
            n = wr->bytes - at;
        if (!put(wr->fd, wr->mem + at, n))
            break;
        at += n;
    }
    return NULL;
}

/* n frames of op and up to max payload bytes, one behind the other. */
static uint8_t *make_stream(unsigned n, uint32_t max, char op, uint64_t seed, size_t *bytes)
{
    uint8_t *mem = malloc((size_t)n * (max + 4));
    struct rng r;

    rng_seed(&r, seed);
    *bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        uint32_t size = 1 + (uint32_t)rng_below(&r, max);
        uint8_t *f = make_frame(size, op, seed + i);

        memcpy(mem + *bytes, f, size + 4);
        *bytes += size + 4;
        free(f);
    }
    return mem;
}

static void test_net_pipelined_streams_come_back_in_order(void)
{
    static const struct {
        unsigned n;
        uint32_t max;
        size_t chunk;
    } streams[] = { { 5000, 60, 50 }, { 5000, 3000, 70000 }, { 60, 600000, 900000 } };
    uint16_t port = begin();

    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        int fd = client(port);
        size_t bytes;
        uint8_t *mem = make_stream(streams[i].n, streams[i].max, 'E', 100 * (i + 1), &bytes);
        uint8_t *back = malloc(bytes);
        struct writer wr = { fd, mem, bytes, i, streams[i].chunk };
        pthread_t t;

        pthread_create(&t, NULL, run_writer, &wr);
        CHECK(take(fd, back, bytes));
        CHECK(memcmp(mem, back, bytes) == 0);
        pthread_join(t, NULL);
        free(mem);
        free(back);
        close(fd);
    }
    end_world();
}

static void run_unpause(struct task *t)
{
    struct peer *p = (struct peer *)((char *)t - offsetof(struct peer, unpause));

    if (p->c)
        conn_pause(p->c, false);
}

static void unpause(struct peer *p)
{
    p->unpause.run = run_unpause;
    loop_post(p->c->loop, &p->unpause);
}

static void test_net_many_waiting_messages_are_taken_by_few_reads(void)
{
    enum { N = 500, BYTES = 100 };
    uint16_t port = begin();
    int fd = client(port);
    uint8_t *f = make_frame(BYTES, 'E', 3), back[BYTES + 4];
    unsigned before;

    CHECK(put_op(fd, 'P', 0));
    CHECK(reaches(&w.n_paused, 1));
    before = w.peers->n_data;
    for (int i = 0; i < N; i++)
        CHECK(put(fd, f, BYTES + 4));
    unpause(w.peers);
    for (int i = 0; i < N; i++)
        CHECK(take(fd, back, sizeof back) && memcmp(back, f, sizeof back) == 0);
    /* 52,000 bytes, all there: at 16 KiB a read that is 4, and never more as reads only grow. */
    CHECK(w.peers->n_data - before <= 4);
    free(f);
    close(fd);
    end_world();
}

static void test_net_slices_that_a_door_keeps_never_change(void)
{
    enum { CONNS = 6, N = 600 };
    uint16_t port = begin();
    struct writer wr[CONNS];
    pthread_t t[CONNS];
    size_t bytes[CONNS];
    uint8_t *mem[CONNS];

    for (int i = 0; i < CONNS; i++) {
        mem[i] = make_stream(N, i < 3 ? 200 : 40000, 'H', 1000 * (uint64_t)(i + 1), &bytes[i]);
        wr[i] =
            (struct writer){ client(port), mem[i], bytes[i], (uint64_t)i, i % 2 ? 300000 : 900 };
        pthread_create(&t[i], NULL, run_writer, &wr[i]);
    }
    for (int i = 0; i < CONNS; i++) {
        pthread_join(t[i], NULL);
        CHECK(echoes(wr[i].fd, 20, 1)); /* behind all that was held */
    }
    for (struct peer *p = w.peers; p; p = p->next) {
        bool found = false;

        CHECK_EQ(p->n_held, N);
        /* Whose stream it was, its first frame tells. */
        for (int i = 0; i < CONNS && !found; i++) {
            size_t at = 0;

            if (memcmp(p->held[0].mem, mem[i], p->held[0].len) != 0)
                continue;
            found = true;
            for (unsigned k = 0; k < p->n_held; k++) {
                CHECK(memcmp(p->held[k].mem, mem[i] + at, p->held[k].len) == 0);
                at += p->held[k].len;
            }
            CHECK_EQ(at, bytes[i]);
        }
        CHECK(found);
    }
    for (int i = 0; i < CONNS; i++) {
        free(mem[i]);
        close(wr[i].fd);
    }
    end_world();
}

static void test_net_a_slow_reader_holds_a_bounded_queue(void)
{
    enum { N = 120, BYTES = 300000 };
    uint16_t port = begin();
    int fd = client(port);

    for (int i = 0; i < N; i++)
        CHECK(put_op(fd, 'R', BYTES));
    CHECK(reaches(&w.n_stalls, 1));
    for (int i = 0; i < N; i++)
        CHECK(takes_pattern(fd, BYTES));
    CHECK(echoes(fd, 10, 1));
    CHECK(w.peers->max_queued > QUEUE_MAX);
    CHECK(w.peers->max_queued <= QUEUE_MAX + BYTES);
    CHECK_EQ(w.peers->n_frames, N + 1);
    close(fd);
    end_world();
}

static void test_net_more_slices_than_one_call_takes_are_sent_in_order(void)
{
    struct net_outbox o = { 0 };
    struct buf *b = buf_new(100000);
    uint8_t back[4096];
    size_t at = 0, pushed = 0;
    struct rng r;
    int fd[2], small = 4096, rc = NET_OUTBOX_EMPTY;

    rng_seed(&r, 5);
    for (size_t i = 0; i < 100000; i++)
        b->mem[i] = pattern(i);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
    setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    while (at < 100000) {
        struct slice s[100];
        unsigned n = 0;
        ssize_t got;

        while (n < 100 && pushed < 100000) {
            uint32_t len = (uint32_t)rng_below(&r, 300);

            if (len > 100000 - pushed)
                len = (uint32_t)(100000 - pushed);
            s[n++] = (struct slice){ buf_ref(b), b->mem + pushed, len };
            pushed += len;
        }
        net_outbox_push(&o, s, n);
        rc = net_outbox_send(&o, fd[0]);
        CHECK(rc == NET_OUTBOX_EMPTY || rc == NET_OUTBOX_FULL_SOCKET);
        CHECK((rc == NET_OUTBOX_EMPTY) == (o.bytes == 0));
        while ((got = recv(fd[1], back, sizeof back, 0)) > 0)
            for (ssize_t i = 0; i < got; i++, at++)
                CHECK(back[i] == pattern(at));
    }
    CHECK_EQ(at, 100000);
    CHECK_EQ(o.bytes, 0);
    CHECK_EQ(atomic_load(&b->refs), 1);
    net_outbox_push(&o, &(struct slice){ buf_ref(b), b->mem, 5 }, 1);
    close(fd[1]);
    CHECK_EQ(net_outbox_send(&o, fd[0]), E_IO);
    net_outbox_fini(&o);
    CHECK_EQ(atomic_load(&b->refs), 1);
    buf_unref(b);
    close(fd[0]);
}

static void test_net_a_half_closed_peer_gets_what_was_queued(void)
{
    uint16_t port = begin();
    int fd = client(port);

    CHECK(put_op(fd, 'R', 5 << 20));
    CHECK(put_op(fd, 'R', 1000));
    shutdown(fd, SHUT_WR);
    CHECK(takes_pattern(fd, 5 << 20));
    CHECK(takes_pattern(fd, 1000));
    CHECK(at_end(fd));
    CHECK(reaches(&w.n_closed, 1));
    close(fd);
    end_world();
}

static void test_net_a_reset_peer_is_closed_and_its_queue_given_back(void)
{
    struct linger hard = { .l_onoff = 1 };
    uint16_t port = begin();
    int fd = client(port);

    for (int i = 0; i < 8; i++)
        CHECK(put_op(fd, 'R', REPLY_BYTES));
    CHECK(reaches(&w.n_stalls, 1)); /* it is full, and waits for us */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    CHECK(reaches(&w.n_closed, 1));
    end_world();
}

static void test_net_half_a_request_ends_with_its_peer(void)
{
    uint16_t port = begin();
    int fd = client(port);
    uint8_t head[100] = { 0, 0, 1, 0 };

    CHECK(put(fd, head, sizeof head));
    close(fd);
    CHECK(reaches(&w.n_closed, 1));
    CHECK_EQ(w.peers->n_frames, 0);
    end_world();
}

static void test_net_close_sends_what_is_queued_first(void)
{
    uint16_t port = begin();
    int fd = client(port);
    uint8_t *f = make_frame(1000, 'C', 9), back[1004];

    CHECK(put_op(fd, 'B', REPLY_BYTES));
    CHECK(takes_pattern(fd, REPLY_BYTES));
    CHECK(at_end(fd));
    close(fd);
    fd = client(port);
    CHECK(put(fd, f, 1004));
    CHECK(take(fd, back, sizeof back));
    CHECK(memcmp(f, back, sizeof back) == 0);
    CHECK(at_end(fd));
    CHECK(reaches(&w.n_closed, 2));
    free(f);
    close(fd);
    end_world();
}

/* Requests that nobody will read must not turn the close into a reset that eats the last answer. */
static void test_net_close_with_unread_requests_still_delivers_the_answer(void)
{
    uint16_t port = begin();
    size_t bytes;
    uint8_t *more = make_stream(400, 100, 'E', 4, &bytes);

    for (int i = 0; i < 20; i++) {
        int fd = client(port);

        CHECK(put_op(fd, 'P', 0));
        CHECK(reaches(&w.n_paused, (unsigned)i + 1));
        CHECK(put_op(fd, 'B', 100000));
        CHECK(put(fd, more, bytes));
        unpause(w.peers);
        CHECK(takes_pattern(fd, 100000));
        CHECK(at_end(fd));
        close(fd);
    }
    free(more);
    end_world();
}

static void test_net_close_gives_up_on_a_peer_that_reads_nothing(void)
{
    uint16_t port = begin();
    int fd = client(port);
    struct timespec from, to;

    for (int i = 0; i < 2; i++)
        CHECK(put_op(fd, 'P', 0));
    CHECK(reaches(&w.n_paused, 1));
    for (int i = 0; i < 1; i++)
        CHECK(put_op(fd, 'B', REPLY_BYTES));
    clock_gettime(CLOCK_MONOTONIC, &from);
    unpause(w.peers);
    CHECK(reaches(&w.n_paused, 2));
    unpause(w.peers);
    CHECK(reaches(&w.n_closed, 1));
    clock_gettime(CLOCK_MONOTONIC, &to);
    CHECK(to.tv_sec - from.tv_sec >= 4);
    close(fd);
    end_world();
}

static void test_net_nothing_is_read_while_paused_and_all_of_it_after(void)
{
    uint16_t port = begin();
    int fd = client(port), other[N_LOOPS];
    uint8_t both[9 + 104];
    uint8_t *f = make_frame(100, 'E', 8), back[104];
    unsigned seen;

    CHECK(reaches(&w.n_accepted, 1));
    /* The pause and a frame behind it in one piece: the frame is left over. */
    put_u32be(both, 5);
    memcpy(both + 4, "P    ", 5);
    memcpy(both + 9, f, 104);
    CHECK(put(fd, both, sizeof both));
    CHECK(reaches(&w.n_paused, 1));
    seen = w.peers->n_data;
    CHECK(put(fd, f, 104));
    /* Other connections on both loops go round: the paused one had its chance. */
    struct peer *paused = w.peers;
    for (int i = 0; i < N_LOOPS; i++) {
        other[i] = client(port);
        for (int k = 0; k < 10; k++)
            CHECK(echoes(other[i], 10, 1));
    }
    CHECK_EQ(paused->n_data, seen);
    CHECK_EQ(paused->n_frames, 1);
    unpause(paused);
    for (int i = 0; i < 2; i++)
        CHECK(take(fd, back, sizeof back) && memcmp(back, f, sizeof back) == 0);
    CHECK(echoes(fd, 10, 2));
    free(f);
    close(fd);
    for (int i = 0; i < N_LOOPS; i++)
        close(other[i]);
    end_world();
}

static void test_net_a_door_that_says_no_closes_the_connection(void)
{
    uint16_t port = begin();
    int fd = client(port), big = client(port);
    uint8_t head[4] = { 0xff, 0xff, 0xff, 0xf0 };

    CHECK(put_op(fd, 'X', 0));
    CHECK(at_end(fd));
    CHECK(put(big, head, sizeof head));
    CHECK(at_end(big));
    CHECK(reaches(&w.n_closed, 2));
    close(fd);
    close(big);
    end_world();
}

static void test_net_a_refused_connection_is_closed_and_closed_does_not_run(void)
{
    uint16_t port = begin();
    int fd;

    w.refuse = true;
    fd = client(port);
    CHECK(at_end(fd));
    CHECK_EQ(w.n_accepted, 1);
    close(fd);
    end_world();
    CHECK_EQ(w.n_closed, 0);
}

static void test_net_a_thousand_connections_hold_no_buffers_while_idle(void)
{
    enum { N = 1000 };
    struct rlimit files;
    uint16_t port;
    int *fd = malloc(N * sizeof *fd);

    CHECK_EQ(net_listener_fit(10), 10);
    getrlimit(RLIMIT_NOFILE, &files);
    CHECK(files.rlim_cur == files.rlim_max);
    port = begin();
    for (int i = 0; i < N; i++)
        fd[i] = client(port);
    for (int i = 0; i < N; i++)
        CHECK(echoes(fd[i], 1 + (uint32_t)i * 13, (uint64_t)i));
    CHECK_EQ(w.on_loop[0], N / 2);
    CHECK_EQ(w.on_loop[1], N / 2);
    CHECK_EQ(net_listener_count(w.listener), N);
    /* At most one buffer of each size and loop, beside the reply that the door keeps. */
    CHECK(buf_total_bytes() <=
          REPLY_BYTES + N_LOOPS * ((64 << 10) + (256 << 10) + (2 << 20)) + 65536);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    CHECK(reaches(&w.n_closed, N));
    free(fd);
    end_world();
}

static void test_net_idle_connections_are_closed_and_busy_ones_are_not(void)
{
    struct net_listener_conf conf = usual();
    struct timespec from, to;
    uint16_t port;
    int idle, busy, n = 0;
    char c;

    conf.idle_close_ms = 400;
    port = begin_with(conf);
    clock_gettime(CLOCK_MONOTONIC, &from);
    busy = client(port);
    idle = client(port);
    do {
        CHECK(echoes(busy, 10, 1));
        n++;
    } while (recv(idle, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    clock_gettime(CLOCK_MONOTONIC, &to);
    CHECK((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 390);
    CHECK(n > 1);
    CHECK(echoes(busy, 10, 2));
    CHECK(reaches(&w.n_closed, 1));
    CHECK_EQ(w.n_closed, 1);
    /* And then the busy one, once it is idle, though nothing else happens on its loop. */
    CHECK(at_end(busy));
    close(idle);
    close(busy);
    end_world();
}

/* Asks until an echo comes: the place of a connection that closed is free a moment later. */
static bool gets_in(uint16_t port, int *fd)
{
    for (int i = 0; i < 100000; i++) {
        *fd = client(port);
        if (echoes(*fd, 10, 1))
            return true;
        close(*fd);
    }
    return false;
}

static void test_net_connections_above_the_maximum_are_closed(void)
{
    struct net_listener_conf conf = usual();
    uint16_t port;
    int a, b, c;

    conf.max_connections = 2;
    logger_to(-1);
    port = begin_with(conf);
    a = client(port);
    b = client(port);
    CHECK(echoes(a, 10, 1) && echoes(b, 10, 1));
    c = client(port);
    CHECK(at_end(c));
    close(c);
    CHECK_EQ(w.n_accepted, 2);
    close(a);
    CHECK(reaches(&w.n_closed, 1));
    CHECK(gets_in(port, &a));
    CHECK(echoes(b, 10, 1));
    close(a);
    close(b);
    end_world();
    logger_to(STDERR_FILENO);
}

static void test_net_out_of_descriptors_pauses_accepting_and_goes_on_later(void)
{
    struct rlimit whole, tight;
    uint16_t port = begin();
    int told[2], fd = client(port);
    char line[4096] = { 0 };
    struct pollfd p;

    CHECK(echoes(fd, 10, 1));
    REQUIRE(pipe(told) == 0);
    logger_to(told[1]);
    getrlimit(RLIMIT_NOFILE, &whole);
    int next = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tight = whole;
    tight.rlim_cur = (rlim_t)next + 1; /* every lower one is in use */
    REQUIRE(setrlimit(RLIMIT_NOFILE, &tight) == 0);
    REQUIRE(connect(next, (struct sockaddr *)&sa, sizeof sa) == 0);
    p = (struct pollfd){ .fd = told[0], .events = POLLIN };
    CHECK_EQ(poll(&p, 1, WAIT_S * 1000), 1);
    CHECK(read(told[0], line, sizeof line - 1) > 0);
    CHECK(strstr(line, "net.accept_paused") != NULL);
    CHECK(echoes(fd, 10, 2)); /* the others are served */
    REQUIRE(setrlimit(RLIMIT_NOFILE, &whole) == 0);
    CHECK(echoes(next, 10, 3));
    logger_to(STDERR_FILENO);
    close(told[0]);
    close(told[1]);
    close(fd);
    close(next);
    end_world();
}

static void test_net_a_taken_port_is_refused_with_a_sentence(void)
{
    struct net_listener_conf conf = usual();
    struct net_listener *second = NULL;
    struct err e = { 0 };
    char expected[100];

    conf.port = begin();
    CHECK_EQ(
        net_listener_open(&second, &conf, w.loops, N_LOOPS, (struct conn_door){ &handler }, &e),
        E_LOCKED);
    snprintf(expected, sizeof expected, "cannot listen on 127.0.0.1:%u: Address already in use",
             conf.port);
    CHECK(strcmp(e.text, expected) == 0);
    CHECK(second == NULL);
    conf.host = "no-such-host.invalid";
    CHECK(net_listener_open(&second, &conf, w.loops, N_LOOPS, (struct conn_door){ &handler }, &e) <
          0);
    CHECK(strncmp(e.text, "cannot listen on no-such-host.invalid: ", 39) == 0);
    end_world();
}

static void test_net_listens_on_names_and_ipv6(void)
{
    struct net_listener_conf conf = usual();
    struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int probe = socket(AF_INET6, SOCK_STREAM, 0);
    bool has6 = probe >= 0 && bind(probe, (struct sockaddr *)&sa, sizeof sa) == 0;
    struct addrinfo *names;
    uint16_t port;
    int fd;

    if (probe >= 0)
        close(probe);
    /* A bare machine may have no /etc/hosts; then there is no name to listen on. */
    if (getaddrinfo("localhost", NULL, NULL, &names) != 0) {
        puts("SKIP: the name localhost");
        return;
    }
    freeaddrinfo(names);
    conf.host = "localhost";
    port = begin_with(conf);
    fd = client(port);
    CHECK(echoes(fd, 10, 1));
    close(fd);
    end_world();
    if (!has6)
        return; /* this machine has no IPv6 */
    conf.host = "::";
    port = begin_with(conf);
    fd = client(port); /* IPv4, into the IPv6 socket */
    CHECK(echoes(fd, 10, 1));
    CHECK(strcmp(w.peers->c->local, "127.0.0.1") == 0);
    close(fd);
    sa.sin6_port = htons(port);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    REQUIRE(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    CHECK(echoes(fd, 10, 1));
    CHECK(strncmp(w.peers->c->peer, "[::1]:", 6) == 0);
    CHECK(strcmp(w.peers->c->local, "::1") == 0);
    close(fd);
    end_world();
}

static void test_net_the_end_drops_what_is_open(void)
{
    uint16_t port = begin();
    int fd[10];

    for (int i = 0; i < 10; i++) {
        fd[i] = client(port);
        CHECK(echoes(fd[i], 10, 1));
        CHECK(put_op(fd[i], 'R', REPLY_BYTES)); /* some have a queue */
    }
    end_world(); /* checks that each was closed once and every reference came back */
    for (int i = 0; i < 10; i++)
        close(fd[i]);
}

/* clang-format off */
TEST_MAIN(T(net_echoes_and_spreads_connections_evenly)
          T(net_names_both_ends)
          T(net_large_messages_arrive_whole)
          T(net_a_claimed_size_alone_takes_no_memory)
          T(net_a_message_in_single_bytes_is_put_together)
          T(net_pipelined_streams_come_back_in_order)
          T(net_many_waiting_messages_are_taken_by_few_reads)
          T(net_slices_that_a_door_keeps_never_change)
          T(net_a_slow_reader_holds_a_bounded_queue)
          T(net_more_slices_than_one_call_takes_are_sent_in_order)
          T(net_a_half_closed_peer_gets_what_was_queued)
          T(net_a_reset_peer_is_closed_and_its_queue_given_back)
          T(net_half_a_request_ends_with_its_peer)
          T(net_close_sends_what_is_queued_first)
          T(net_close_with_unread_requests_still_delivers_the_answer)
          T(net_close_gives_up_on_a_peer_that_reads_nothing)
          T(net_nothing_is_read_while_paused_and_all_of_it_after)
          T(net_a_door_that_says_no_closes_the_connection)
          T(net_a_refused_connection_is_closed_and_closed_does_not_run)
          T(net_a_thousand_connections_hold_no_buffers_while_idle)
          T(net_idle_connections_are_closed_and_busy_ones_are_not)
          T(net_connections_above_the_maximum_are_closed)
          T(net_out_of_descriptors_pauses_accepting_and_goes_on_later)
          T(net_a_taken_port_is_refused_with_a_sentence)
          T(net_listens_on_names_and_ipv6)
          T(net_the_end_drops_what_is_open))
/* clang-format on */
