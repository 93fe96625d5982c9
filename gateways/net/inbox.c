#include "gateways/net/inbox.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum {
    COPY_MAX = 16 << 10, /* a longer rest keeps the room's buffer instead of being copied, */
    COPY_PART = 64,      /* and than this part of it */
    GROW_STEP = 1 << 20, /* a larger message's buffer grows as its bytes really come */
    OWN_MAX = INT32_MAX, /* of a buffer */
    SMALL_READS = 8      /* in a row, before reads get smaller */
};

/* One read, the buffer it goes into, and the least space for which that buffer is still used. */
static const struct room_size {
    uint32_t read;
    uint32_t cap;
    uint32_t least;
} sizes[NET_ROOM_SIZES] = {
    { 16 << 10, 64 << 10, 16 << 10 },
    { 64 << 10, 256 << 10, 64 << 10 },
    { 256 << 10, 1 << 20, 128 << 10 },
    { 1 << 20, 4 << 20, 256 << 10 }, /* several messages of a MiB, and few rests to copy */
};

static bool shared(struct buf *b)
{
    return atomic_load_explicit(&b->refs, memory_order_acquire) > 1;
}

/* len says cap at once: positions are kept here, and readers on other threads may look at it. */
static struct buf *new_buf(uint32_t cap)
{
    struct buf *b = buf_new(cap);

    if (b)
        b->len = b->cap;
    return b;
}

/* Reads grow at once with what comes, and shrink when several in a row were small. */
static void adapt(struct net_inbox *in, uint32_t asked, uint32_t got)
{
    if (got == asked && in->size + 1 < NET_ROOM_SIZES) {
        in->size++;
        in->n_small = 0;
    } else if (in->size > 0 && got < sizes[in->size].read / 8) {
        if (++in->n_small >= SMALL_READS) {
            in->size--;
            in->n_small = 0;
        }
    } else {
        in->n_small = 0;
    }
}

static int64_t recv_into(int fd, uint8_t *mem, uint32_t bytes)
{
    ssize_t n;

    do
        n = recv(fd, mem, bytes, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK ? E_BUSY : E_IO;
}

/* A room with space for a read. */
static int room_ready(struct net_room *room, const struct room_size *size)
{
    if (room->buf && !shared(room->buf))
        room->at = 0;
    if (room->buf && room->buf->cap - room->at < size->least) {
        buf_unref(room->buf);
        room->buf = NULL;
    }
    if (!room->buf) {
        room->buf = new_buf(size->cap);
        room->at = 0;
    }
    return room->buf ? 0 : E_NOMEM;
}

/* How large the message's buffer should be by now. What a peer only claims costs nothing: a large
 * one grows as bytes come. */
static uint64_t own_goal(const struct net_inbox *in)
{
    uint32_t left = net_inbox_left(in);
    uint64_t goal = (uint64_t)left * 2;

    if (in->want > left) {
        if (goal < GROW_STEP)
            goal = GROW_STEP;
        if (goal > in->want)
            goal = in->want;
    }
    return goal;
}

/* Moves what is left over to a new buffer. */
static int own_move(struct net_inbox *in, uint64_t cap)
{
    uint32_t left = net_inbox_left(in);
    struct buf *b;

    if (cap < sizes[in->size].read)
        cap = sizes[in->size].read;
    if (cap > OWN_MAX || left >= cap)
        return E_NOMEM;
    b = new_buf((uint32_t)cap);
    if (!b)
        return E_NOMEM;
    memcpy(b->mem, in->own->mem + in->at, left);
    buf_unref(in->own);
    in->own = b;
    in->at = 0;
    in->end = left;
    return 0;
}

/* Space behind what is left over, in one piece with it. */
static int own_ready(struct net_inbox *in)
{
    uint64_t goal = own_goal(in);
    uint32_t left = net_inbox_left(in);

    if (in->end < in->own->cap && in->at + goal <= in->own->cap)
        return 0;
    if (goal <= in->own->cap && left < in->own->cap && !shared(in->own)) {
        memmove(in->own->mem, in->own->mem + in->at, left);
        in->at = 0;
        in->end = left;
        return 0;
    }
    return own_move(in, goal);
}

static int64_t recv_own(struct net_inbox *in, int fd, struct net_arrival *a)
{
    uint32_t asked;
    int64_t n = own_ready(in);

    if (n < 0)
        return n;
    asked = in->own->cap - in->end;
    if (asked > sizes[NET_ROOM_SIZES - 1].read)
        asked = sizes[NET_ROOM_SIZES - 1].read;
    n = recv_into(fd, in->own->mem + in->end, asked);
    if (n <= 0)
        return n;
    adapt(in, asked, (uint32_t)n);
    in->end += (uint32_t)n;
    *a = net_inbox_again(in);
    a->fresh = (uint32_t)n;
    return n;
}

static int64_t recv_room(struct net_inbox *in, struct net_rooms *rooms, int fd,
                         struct net_arrival *a)
{
    const struct room_size *size = &sizes[in->size];
    struct net_room *room = &rooms->room[in->size];
    uint32_t asked;
    int64_t n = room_ready(room, size);

    if (n < 0)
        return n;
    asked = room->buf->cap - room->at;
    if (asked > size->read)
        asked = size->read;
    n = recv_into(fd, room->buf->mem + room->at, asked);
    if (n <= 0)
        return n;
    *a = (struct net_arrival){ room->buf, room->at, (uint32_t)n, (uint32_t)n };
    room->at += (uint32_t)n;
    buf_ref(a->buf); /* ours until net_inbox_used */
    adapt(in, asked, (uint32_t)n);
    return n;
}

int64_t net_inbox_recv(struct net_inbox *in, struct net_rooms *rooms, int fd, struct net_arrival *a)
{
    return in->own ? recv_own(in, fd, a) : recv_room(in, rooms, fd, a);
}

struct net_arrival net_inbox_again(const struct net_inbox *in)
{
    return (struct net_arrival){ in->own, in->at, net_inbox_left(in), 0 };
}

/* The room's arrival was not used whole: its rest becomes the connection's own. Takes our reference
 * on a->buf. */
static int keep_rest(struct net_inbox *in, struct net_rooms *rooms, const struct net_arrival *a,
                     uint32_t used)
{
    in->own = a->buf;
    in->at = a->at + used;
    in->end = a->at + a->bytes;
    if (net_inbox_left(in) <= COPY_MAX || net_inbox_left(in) <= a->buf->cap / COPY_PART)
        return own_move(in, own_goal(in));
    /* Nobody else may write behind a rest that grows in place. */
    for (unsigned i = 0; i < NET_ROOM_SIZES; i++)
        if (rooms->room[i].buf == a->buf) {
            buf_unref(a->buf);
            rooms->room[i] = (struct net_room){ 0 };
        }
    return 0;
}

int net_inbox_used(struct net_inbox *in, struct net_rooms *rooms, const struct net_arrival *a,
                   uint32_t used)
{
    ASSERT(used <= a->bytes);
    if (used > 0 && !in->wanted)
        in->want = 0;
    in->wanted = false;
    if (in->own) {
        in->at += used;
        if (in->at == in->end)
            net_inbox_fini(in);
        return 0;
    }
    if (used < a->bytes)
        return keep_rest(in, rooms, a, used);
    buf_unref(a->buf);
    return 0;
}

void net_inbox_want(struct net_inbox *in, uint32_t bytes)
{
    in->want = bytes;
    in->wanted = true;
}

void net_inbox_fini(struct net_inbox *in)
{
    buf_unref(in->own);
    in->own = NULL;
    in->at = in->end = 0;
}

void net_rooms_fini(struct net_rooms *rooms)
{
    for (unsigned i = 0; i < NET_ROOM_SIZES; i++)
        buf_unref(rooms->room[i].buf);
    *rooms = (struct net_rooms){ 0 };
}
