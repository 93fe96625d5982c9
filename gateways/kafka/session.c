/* One connection: cuts requests out of the bytes, gives them to their handlers, sends the
 * answers in order.
 *
 * What a client can make us hold is bounded: requests not yet answered (conn_pending_max,
 * KAFKA_REQUESTS_MAX), and answers promised, waiting for their turn or not yet read by the
 * client (twice fetch_max). Past a bound, or while the journal has too much to do, the
 * connection is not read. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/logger.h"
#include "gateways/kafka/api.h"
#include "gateways/kafka/kafka_int.h"

enum {
    SIZE_BYTES = 4,
    HEADER_MIN_BYTES = 10, /* key, version, correlation id, client id's length */
    ANSWER_HEADER_BYTES = 8
};

struct kafka_session {
    struct kafka_loop *kl;
    struct conn *conn; /* NULL: gone */
    struct kafka_session *prev, *next;
    struct kafka_request *head, *tail; /* not sent yet, in order */
    unsigned n_requests;               /* in that list */
    unsigned refs;                     /* requests that live, and the connection */
    unsigned blocks;
    uint64_t pending_bytes; /* of requests that live */
    uint64_t answer_bytes;  /* encoded, waiting for their turn */
    uint64_t promised;      /* by requests not answered */
    bool paused;
    bool backlogged; /* paused for the journal's sake: counted in kl */
    bool closing;    /* conn_close was called */
};

/* --- life of a session --- */

static void session_unref(struct kafka_session *s)
{
    struct kafka_loop *kl = s->kl;

    if (--s->refs)
        return;
    if (s->prev)
        s->prev->next = s->next;
    else
        kl->sessions = s->next;
    if (s->next)
        s->next->prev = s->prev;
    free(s);
    if (--kl->n_sessions == 0)
        kafka_loop_idle(kl);
}

void *kafka_session_accept(struct conn *c, void *door)
{
    struct kafka_loop *kl = kafka_loop_of(door, c->loop);
    struct kafka_session *s;

    if (!kl || kl->stopping)
        return NULL;
    s = mem_new(sizeof *s);
    s->kl = kl;
    s->conn = c;
    s->refs = 1;
    s->next = kl->sessions;
    if (s->next)
        s->next->prev = s;
    kl->sessions = s;
    kl->n_sessions++;
    return s;
}

static void set_backlogged(struct kafka_session *s, bool on)
{
    if (s->backlogged == on)
        return;
    s->backlogged = on;
    s->kl->n_backlogged += on ? 1 : -1u;
    if (on)
        kafka_loop_need_tick(s->kl);
}

static void session_close(struct kafka_session *s)
{
    if (s->closing || !s->conn)
        return;
    s->closing = true;
    set_backlogged(s, false);
    conn_close(s->conn);
}

/* Tells handlers that nobody waits any more. One that answers changes the list, so begin again. */
static void requests_gone(struct kafka_session *s)
{
    struct kafka_request *r = s->head;

    while (r) {
        void (*gone)(struct kafka_request *) = r->answered ? NULL : r->gone;

        if (!gone) {
            r = r->next;
            continue;
        }
        r->gone = NULL;
        gone(r);
        r = s->head;
    }
}

static void on_closed(struct conn *c, void *user)
{
    struct kafka_session *s = user;

    s->conn = NULL;
    set_backlogged(s, false);
    s->refs++;
    requests_gone(s);
    s->refs--;
    session_unref(s);
}

void kafka_sessions_close(struct kafka_loop *kl)
{
    struct kafka_session *s = kl->sessions;

    while (s) {
        struct kafka_session *next;

        s->refs++;
        session_close(s);
        requests_gone(s);
        next = s->next;
        session_unref(s);
        s = next;
    }
}

/* --- when to read on --- */

static bool must_wait(struct kafka_session *s)
{
    const struct kafka *k = s->kl->kafka;
    uint64_t room = 2 * (uint64_t)k->conf.fetch_max;
    bool backlogged;

    if (s->blocks || s->n_requests >= KAFKA_REQUESTS_MAX ||
        s->pending_bytes > k->conf.conn_pending_max)
        return true;
    if (s->promised + s->answer_bytes + conn_queued(s->conn) >= room)
        return true;
    backlogged = journal_backlogged(k->env.journal);
    set_backlogged(s, backlogged);
    return backlogged;
}

/* Something got less: perhaps the next request may be looked at. */
static void session_resume(struct kafka_session *s)
{
    if (!s->paused || !s->conn || s->closing || must_wait(s))
        return;
    s->paused = false;
    conn_pause(s->conn, false);
}

void kafka_sessions_tick(struct kafka_loop *kl)
{
    struct kafka_session *next;

    if (!kl->n_backlogged)
        return;
    for (struct kafka_session *s = kl->sessions; s; s = next) {
        next = s->next;
        if (s->backlogged)
            session_resume(s);
    }
}

static void on_drained(struct conn *c, void *user)
{
    session_resume(user);
}

void kafka_session_block(struct kafka_request *r)
{
    r->session->blocks++;
}

void kafka_session_unblock(struct kafka_request *r)
{
    ASSERT(r->session->blocks > 0);
    r->session->blocks--;
    session_resume(r->session);
}

/* --- requests --- */

static struct kafka_request *request_new(struct kafka_session *s, struct buf *in, uint32_t bytes)
{
    struct kafka_loop *kl = s->kl;
    struct kafka_request *r = kl->free;

    if (r) {
        kl->free = r->next;
        kl->n_free--;
    } else {
        r = mem_new(sizeof *r);
    }
    memset(r, 0, offsetof(struct kafka_request, arena));
    memset((uint8_t *)r + offsetof(struct kafka_request, own), 0,
           sizeof *r - offsetof(struct kafka_request, own));
    kafka_arena_init(&r->arena, kl->kafka->conf.request_max);
    r->kafka = kl->kafka;
    r->loop = kl->loop;
    r->session = s;
    r->buf = buf_ref(in);
    r->bytes = bytes;
    s->pending_bytes += bytes;
    s->refs++;
    s->n_requests++;
    if (s->tail)
        s->tail->next = r;
    else
        s->head = r;
    s->tail = r;
    return r;
}

static void request_free(struct kafka_request *r)
{
    struct kafka_session *s = r->session;
    struct kafka_loop *kl = s->kl;

    kafka_arena_fini(&r->arena);
    buf_unref(r->buf);
    s->pending_bytes -= r->bytes;
    if (kl->n_free < KAFKA_REQUESTS_KEPT) {
        r->next = kl->free;
        kl->free = r;
        kl->n_free++;
    } else {
        free(r);
    }
    session_resume(s);
    session_unref(s);
}

void kafka_requests_free(struct kafka_loop *kl)
{
    struct kafka_request *r;

    while ((r = kl->free)) {
        kl->free = r->next;
        free(r);
    }
    kl->n_free = 0;
}

void kafka_request_hold(struct kafka_request *r)
{
    r->holds++;
}

void kafka_request_drop(struct kafka_request *r)
{
    ASSERT(r->holds > 0);
    if (--r->holds == 0 && r->sent)
        request_free(r);
}

/* Sends what is answered, from the head on. */
static void session_flush(struct kafka_session *s)
{
    struct kafka_request *r;

    s->refs++;
    while ((r = s->head) && r->answered) {
        s->head = r->next;
        if (!s->head)
            s->tail = NULL;
        s->n_requests--;
        s->answer_bytes -= r->out_bytes;
        if (r->n_out && s->conn)
            conn_write(s->conn, r->out, r->n_out);
        else
            for (unsigned i = 0; i < r->n_out; i++)
                buf_unref(r->out[i].buf);
        r->sent = true;
        if (!r->holds)
            request_free(r);
    }
    session_unref(s);
}

static void request_answered(struct kafka_request *r)
{
    struct kafka_session *s = r->session;

    ASSERT(!r->answered);
    r->answered = true;
    r->gone = NULL;
    s->promised -= r->promised;
    r->promised = 0;
    s->answer_bytes += r->out_bytes;
    session_flush(s);
}

/* The answer as pieces in r->out; false when memory is short. */
static bool answer_encode(struct kafka_request *r, const void *response)
{
    struct kafka_size z = kafka_encoded_size(r->api->response, r->form, response);
    /* The answer of ApiVersions has the old header in all versions: a client reads it before
     * it knows ours. */
    unsigned tags = r->form.flex && r->api->key != KAFKA_API_VERSIONS_KEY;
    uint64_t total = ANSWER_HEADER_BYTES + tags + z.bytes;
    struct buf *b;
    struct wr w;

    if (total > INT32_MAX)
        return false;
    r->out = kafka_arena_take(&r->arena, (z.n_slices + z.n_records + 1) * sizeof *r->out);
    b = r->out ? buf_new(total - z.record_bytes) : NULL;
    if (!b)
        return false;
    w = wr_of(b->mem, total - z.record_bytes);
    wr_u32be(&w, (uint32_t)(total - SIZE_BYTES));
    wr_u32be(&w, (uint32_t)r->correlation_id);
    if (tags)
        wr_u8(&w, 0);
    r->n_out = kafka_encode(r->api->response, r->form, response, &w, b, r->out);
    b->len = (uint32_t)wr_used(&w);
    ASSERT(b->len == total - z.record_bytes);
    buf_unref(b);
    r->out_bytes = (uint32_t)total;
    return true;
}

void kafka_answer(struct kafka_request *r, const void *response)
{
    struct kafka_session *s = r->session;

    if (s->conn && !s->closing && !answer_encode(r, response)) {
        LOG_WARN("kafka.answer_dropped", F_STR("api", r->api->name), F_STR("peer", s->conn->peer));
        session_close(s);
    }
    request_answered(r);
}

void kafka_answer_none(struct kafka_request *r)
{
    request_answered(r);
}

void kafka_refuse(struct kafka_request *r)
{
    session_close(r->session);
    request_answered(r);
}

void kafka_request_grew(struct kafka_request *r, uint64_t bytes)
{
    r->bytes += bytes;
    r->session->pending_bytes += bytes;
}

void kafka_promise(struct kafka_request *r, uint64_t bytes)
{
    r->promised += bytes;
    r->session->promised += bytes;
}

/* --- dispatch --- */

static int read_header(struct kafka_request *r, struct rd *in)
{
    static const struct schema nothing = { .name = "header", .size = 1, .align = 1 };
    int16_t key = (int16_t)rd_u16be(in);
    int16_t version = (int16_t)rd_u16be(in);
    int16_t len;

    r->correlation_id = (int32_t)rd_u32be(in);
    len = (int16_t)rd_u16be(in);
    r->client_id = (struct kafka_str){ .len = len < 0 ? -1 : len };
    r->client_id.mem = (const char *)rd_bytes(in, len < 0 ? 0 : (size_t)len);
    r->api = kafka_api_find(key);
    if (!r->api || !rd_ok(in))
        return E_UNSUPPORTED;
    r->form = (struct kafka_form){ .version = version, .flex = version >= r->api->flex };
    if (version < r->api->min || version > r->api->max)
        return key == KAFKA_API_VERSIONS_KEY ? E_VERSION : E_UNSUPPORTED;
    return r->form.flex ? kafka_decode(&nothing, r->form, in, &r->arena, NULL) : 0;
}

static int read_body(struct kafka_request *r, struct rd *in)
{
    void *body = kafka_arena_take(&r->arena, r->api->request->size);

    r->body = body;
    return body ? kafka_decode(r->api->request, r->form, in, &r->arena, body) : E_NOMEM;
}

static void dispatch(struct kafka_session *s, struct buf *in, uint32_t at, uint32_t bytes)
{
    struct kafka_request *r = request_new(s, in, bytes);
    struct rd rd = rd_of(in->mem + at, bytes);
    int rc = read_header(r, &rd);

    if (rc == E_VERSION) {
        kafka_api_versions_unknown(r);
        return;
    }
    if (rc == 0)
        rc = read_body(r, &rd);
    if (rc == 0) {
        r->api->handle(r);
        return;
    }
    LOG_DEBUG("kafka.bad_request", F_ERR(rc), F_STR("peer", s->conn->peer),
              F_STR("api", r->api ? r->api->name : "unknown"), F_INT("version", r->form.version));
    kafka_refuse(r);
}

static int64_t on_data(struct conn *c, void *user, struct buf *in, uint32_t at, uint32_t bytes)
{
    struct kafka_session *s = user;
    uint32_t used = 0;

    while (!s->closing && bytes - used >= SIZE_BYTES) {
        uint32_t size = get_u32be(in->mem + at + used);

        if (size < HEADER_MIN_BYTES || size > s->kl->kafka->conf.request_max) {
            LOG_DEBUG("kafka.bad_size", F_INT("size", (int32_t)size), F_STR("peer", c->peer));
            return -1;
        }
        if (must_wait(s)) {
            s->paused = true;
            conn_pause(c, true);
            return used;
        }
        if (bytes - used - SIZE_BYTES < size) {
            conn_want(c, SIZE_BYTES + size);
            return used;
        }
        dispatch(s, in, at + used + SIZE_BYTES, size);
        used += SIZE_BYTES + size;
    }
    return s->closing ? bytes : used;
}

const struct conn_handler *kafka_session_handler(void)
{
    static const struct conn_handler handler = { .data = on_data,
                                                 .drained = on_drained,
                                                 .closed = on_closed };

    return &handler;
}

/* --- what handlers ask --- */

struct kafka_str kafka_client_host(struct kafka_request *r)
{
    const struct conn *c = r->session->conn;
    const char *peer = c ? c->peer : "";
    const char *colon = strrchr(peer, ':');
    size_t n = colon ? (size_t)(colon - peer) : strlen(peer);
    char *mem = kafka_arena_take(&r->arena, n + 1);

    if (!mem)
        return KAFKA_STR("");
    memcpy(mem, peer, n);
    return (struct kafka_str){ .mem = mem, .len = (int32_t)n };
}

struct kafka_str kafka_own_host(struct kafka_request *r)
{
    const struct kafka *k = r->kafka;

    if (k->conf.advertised_host)
        return kafka_str_of(k->conf.advertised_host);
    return kafka_str_of(r->session->conn ? r->session->conn->local : "");
}

int32_t kafka_own_port(struct kafka_request *r)
{
    const struct kafka *k = r->kafka;

    if (k->conf.advertised_port)
        return k->conf.advertised_port;
    return r->session->conn ? r->session->conn->local_port : 0;
}

void *kafka_take(struct kafka_request *r, size_t n, size_t size)
{
    void *mem = n > SIZE_MAX / 2 / size ? NULL : kafka_arena_take(&r->arena, n * size);

    if (!mem)
        kafka_refuse(r);
    return mem;
}

void *kafka_response_new(struct kafka_request *r)
{
    return kafka_response_array(r, r->api->response, 1);
}

void *kafka_response_array(struct kafka_request *r, const struct schema *s, size_t n)
{
    void *mem = kafka_message_new(&r->arena, s, n);

    if (!mem)
        kafka_refuse(r);
    return mem;
}
