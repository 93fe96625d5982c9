#include "tests/gateways/conn_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"

static struct conn_fake *fake_of(struct conn *c)
{
    return (struct conn_fake *)c;
}

static void closed_run(struct task *t)
{
    struct conn_fake *f = (struct conn_fake *)((char *)t - offsetof(struct conn_fake, close_task));

    f->closed = true;
    if (f->conn.user)
        f->conn.handler->closed(&f->conn, f->conn.user);
}

static void fake_close(struct conn *c)
{
    struct conn_fake *f = fake_of(c);

    if (f->closing)
        return;
    f->closing = true;
    f->close_task.run = closed_run;
    loop_post(c->loop, &f->close_task);
}

static size_t offered(const struct conn_fake *f, size_t had)
{
    return f->piecemeal && had + 1 < f->in_bytes ? had + 1 : f->in_bytes;
}

/* Each arrival comes in a buffer of its own, exactly as long as the bytes, so that a sanitizer
 * sees a step beyond. */
static void deliver_run(struct task *t)
{
    struct conn_fake *f =
        (struct conn_fake *)((char *)t - offsetof(struct conn_fake, deliver_task));
    size_t n = 0;

    f->deliver_posted = false;
    while (!f->closing && !f->paused && n < f->in_bytes) {
        struct buf *b;
        int64_t used;

        n = offered(f, n);
        if (n < f->want && n < f->in_bytes)
            continue;
        if (n < f->want)
            return;
        b = buf_copy(f->in, n);
        used = f->conn.handler->data(&f->conn, f->conn.user, b, 0, (uint32_t)n);
        buf_unref(b);
        if (used < 0) {
            fake_close(&f->conn);
            return;
        }
        ASSERT((size_t)used <= n);
        if (used) {
            f->want = 0;
            memmove(f->in, f->in + used, f->in_bytes - (size_t)used);
            f->in_bytes -= (size_t)used;
            n = 0;
        }
    }
}

static void deliver(struct conn_fake *f)
{
    if (f->deliver_posted)
        return;
    f->deliver_posted = true;
    f->deliver_task.run = deliver_run;
    loop_post(f->conn.loop, &f->deliver_task);
}

static void fake_write(struct conn *c, const struct slice *slices, unsigned n)
{
    struct conn_fake *f = fake_of(c);

    f->n_writes++;
    for (unsigned i = 0; i < n; i++) {
        if (!f->closing) {
            f->out = mem_grow(f->out, f->out_bytes + slices[i].len);
            memcpy(f->out + f->out_bytes, slices[i].mem, slices[i].len);
            f->out_bytes += slices[i].len;
            f->stuck_bytes += f->stuck ? slices[i].len : 0;
        }
        buf_unref(slices[i].buf);
    }
}

static void fake_pause(struct conn *c, bool pause)
{
    struct conn_fake *f = fake_of(c);

    f->paused = pause;
    if (!pause)
        deliver(f);
}

static size_t fake_queued(struct conn *c)
{
    return fake_of(c)->stuck_bytes;
}

static void fake_want(struct conn *c, uint32_t bytes)
{
    fake_of(c)->want = bytes;
}

static const struct conn_ops fake_ops = { .write = fake_write,
                                          .pause = fake_pause,
                                          .close = fake_close,
                                          .queued = fake_queued,
                                          .want = fake_want };

struct conn_fake *conn_fake_new(const struct conn_door *door, struct loop *loop)
{
    struct conn_fake *f = mem_new(sizeof *f);

    f->conn.ops = &fake_ops;
    f->conn.loop = loop;
    f->conn.handler = door->handler;
    snprintf(f->conn.peer, sizeof f->conn.peer, "192.0.2.7:40000");
    snprintf(f->conn.local, sizeof f->conn.local, "192.0.2.1");
    f->conn.local_port = 9092;
    f->conn.user = door->accept(&f->conn, door->door);
    if (!f->conn.user)
        f->refused = f->closing = f->closed = true;
    return f;
}

void conn_fake_send(struct conn_fake *f, const void *mem, size_t bytes)
{
    f->in = mem_grow(f->in, f->in_bytes + bytes + 1);
    memcpy(f->in + f->in_bytes, mem, bytes);
    f->in_bytes += bytes;
    deliver(f);
}

void conn_fake_hang_up(struct conn_fake *f)
{
    fake_close(&f->conn);
}

void conn_fake_stick(struct conn_fake *f, bool on)
{
    f->stuck = on;
    if (on || !f->stuck_bytes)
        return;
    f->stuck_bytes = 0;
    f->conn.handler->drained(&f->conn, f->conn.user);
}

uint8_t *conn_fake_take(struct conn_fake *f, size_t *bytes)
{
    uint32_t size;
    uint8_t *body;

    if (f->out_bytes < 4)
        return NULL;
    size = get_u32be(f->out);
    if (f->out_bytes - 4 < size)
        return NULL;
    body = mem_new(size + 1);
    memcpy(body, f->out + 4, size);
    f->out_bytes -= 4 + (size_t)size;
    memmove(f->out, f->out + 4 + size, f->out_bytes);
    *bytes = size;
    return body;
}

void conn_fake_free(struct conn_fake *f)
{
    if (!f)
        return;
    ASSERT(f->closed);
    free(f->in);
    free(f->out);
    free(f);
}
