/* Bounded cursors over bytes. A reader remembers that it ran short, so parse straight down and ask rd_ok once,
 * before a length is used. A writer likewise: past the end it writes nothing and wr_ok says so. */
#ifndef WEIR_BASE_RD_H
#define WEIR_BASE_RD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rd {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

static inline struct rd rd_of(const void *mem, size_t bytes)
{
    return (struct rd){ .at = mem, .end = (const uint8_t *)mem + bytes };
}

static inline bool rd_ok(const struct rd *r)
{
    return !r->bad;
}

static inline size_t rd_left(const struct rd *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->at);
}

/* The next bytes in place, NULL (and bad) when there are fewer. */
static inline const uint8_t *rd_bytes(struct rd *r, size_t bytes)
{
    const uint8_t *p = r->at;

    if (r->bad || (size_t)(r->end - r->at) < bytes) {
        r->bad = true;
        return NULL;
    }
    r->at += bytes;
    return p;
}

static inline uint64_t rd_le_(struct rd *r, unsigned n)
{
    const uint8_t *p = rd_bytes(r, n);
    uint64_t v = 0;

    if (p)
        for (unsigned i = n; i-- > 0;)
            v = v << 8 | p[i];
    return v;
}

static inline uint64_t rd_be_(struct rd *r, unsigned n)
{
    const uint8_t *p = rd_bytes(r, n);
    uint64_t v = 0;

    if (p)
        for (unsigned i = 0; i < n; i++)
            v = v << 8 | p[i];
    return v;
}

static inline uint8_t rd_u8(struct rd *r)
{
    return (uint8_t)rd_le_(r, 1);
}
static inline uint16_t rd_u16le(struct rd *r)
{
    return (uint16_t)rd_le_(r, 2);
}
static inline uint32_t rd_u32le(struct rd *r)
{
    return (uint32_t)rd_le_(r, 4);
}
static inline uint64_t rd_u64le(struct rd *r)
{
    return rd_le_(r, 8);
}
static inline uint16_t rd_u16be(struct rd *r)
{
    return (uint16_t)rd_be_(r, 2);
}
static inline uint32_t rd_u32be(struct rd *r)
{
    return (uint32_t)rd_be_(r, 4);
}
static inline uint64_t rd_u64be(struct rd *r)
{
    return rd_be_(r, 8);
}

/* LEB128, as Kafka's and protobuf's varints; bad when longer than the type. Signed ones are zigzag. */
uint64_t rd_uvarint(struct rd *r, unsigned max_bytes);
int64_t rd_varint(struct rd *r, unsigned max_bytes);

struct wr {
    uint8_t *start;
    uint8_t *at;
    uint8_t *end;
    bool bad;
};

static inline struct wr wr_of(void *mem, size_t bytes)
{
    return (struct wr){ .start = mem, .at = mem, .end = (uint8_t *)mem + bytes };
}

static inline bool wr_ok(const struct wr *w)
{
    return !w->bad;
}

static inline size_t wr_used(const struct wr *w)
{
    return (size_t)(w->at - w->start);
}

/* Room for bytes, advanced past; NULL (and bad) when there is less. */
static inline uint8_t *wr_room(struct wr *w, size_t bytes)
{
    uint8_t *p = w->at;

    if (w->bad || (size_t)(w->end - w->at) < bytes) {
        w->bad = true;
        return NULL;
    }
    w->at += bytes;
    return p;
}

static inline void wr_bytes(struct wr *w, const void *mem, size_t bytes)
{
    uint8_t *p = wr_room(w, bytes);

    if (p && bytes)
        memcpy(p, mem, bytes);
}

static inline void wr_le_(struct wr *w, uint64_t v, unsigned n)
{
    uint8_t *p = wr_room(w, n);

    if (p)
        for (unsigned i = 0; i < n; i++, v >>= 8)
            p[i] = (uint8_t)v;
}

static inline void wr_be_(struct wr *w, uint64_t v, unsigned n)
{
    uint8_t *p = wr_room(w, n);

    if (p)
        for (unsigned i = n; i-- > 0; v >>= 8)
            p[i] = (uint8_t)v;
}

static inline void wr_u8(struct wr *w, uint8_t v)
{
    wr_le_(w, v, 1);
}
static inline void wr_u16le(struct wr *w, uint16_t v)
{
    wr_le_(w, v, 2);
}
static inline void wr_u32le(struct wr *w, uint32_t v)
{
    wr_le_(w, v, 4);
}
static inline void wr_u64le(struct wr *w, uint64_t v)
{
    wr_le_(w, v, 8);
}
static inline void wr_u16be(struct wr *w, uint16_t v)
{
    wr_be_(w, v, 2);
}
static inline void wr_u32be(struct wr *w, uint32_t v)
{
    wr_be_(w, v, 4);
}
static inline void wr_u64be(struct wr *w, uint64_t v)
{
    wr_be_(w, v, 8);
}
/* Zeros up to a multiple of align from the start. */
static inline void wr_pad(struct wr *w, size_t align)
{
    size_t n = (align - wr_used(w) % align) % align;
    uint8_t *p = wr_room(w, n);

    if (p)
        memset(p, 0, n);
}
void wr_uvarint(struct wr *w, uint64_t v);
void wr_varint(struct wr *w, int64_t v);

/* Loads and stores at a place known to be inside. */
static inline uint32_t get_u32be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t get_u64be(const uint8_t *p)
{
    return (uint64_t)get_u32be(p) << 32 | get_u32be(p + 4);
}
static inline void put_u32be(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}
static inline void put_u64be(uint8_t *p, uint64_t v)
{
    put_u32be(p, (uint32_t)(v >> 32));
    put_u32be(p + 4, (uint32_t)v);
}

#endif
