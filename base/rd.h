/* Bounded cursors over bytes. A reader remembers that it ran short, so parse straight down and ask
 * rd_ok once,
 * before a length is used. A writer likewise: past the end it writes nothing and wr_ok says so. */
#ifndef WEIR_BASE_RD_H
#define WEIR_BASE_RD_H

#include <endian.h>
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

static inline uint8_t rd_u8(struct rd *r)
{
    const uint8_t *p = rd_bytes(r, 1);

    return p ? *p : 0;
}

#define RD_FN_(name, type, conv)                                                                   \
    static inline type name(struct rd *r)                                                          \
    {                                                                                              \
        const uint8_t *p = rd_bytes(r, sizeof(type));                                              \
        type v = 0;                                                                                \
                                                                                                   \
        if (p)                                                                                     \
            memcpy(&v, p, sizeof v);                                                               \
        return conv(v);                                                                            \
    }
RD_FN_(rd_u16le, uint16_t, le16toh)
RD_FN_(rd_u32le, uint32_t, le32toh)
RD_FN_(rd_u64le, uint64_t, le64toh)
RD_FN_(rd_u16be, uint16_t, be16toh)
RD_FN_(rd_u32be, uint32_t, be32toh)
RD_FN_(rd_u64be, uint64_t, be64toh)
#undef RD_FN_

/* LEB128, as Kafka's and protobuf's varints; bad when longer than the type. Signed ones are zigzag.
 * */
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

static inline void wr_u8(struct wr *w, uint8_t v)
{
    uint8_t *p = wr_room(w, 1);

    if (p)
        *p = v;
}

#define WR_FN_(name, type, conv)                                                                   \
    static inline void name(struct wr *w, type v)                                                  \
    {                                                                                              \
        uint8_t *p = wr_room(w, sizeof v);                                                         \
                                                                                                   \
        v = conv(v);                                                                               \
        if (p)                                                                                     \
            memcpy(p, &v, sizeof v);                                                               \
    }
WR_FN_(wr_u16le, uint16_t, htole16)
WR_FN_(wr_u32le, uint32_t, htole32)
WR_FN_(wr_u64le, uint64_t, htole64)
WR_FN_(wr_u16be, uint16_t, htobe16)
WR_FN_(wr_u32be, uint32_t, htobe32)
WR_FN_(wr_u64be, uint64_t, htobe64)
#undef WR_FN_

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
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return be32toh(v);
}
static inline uint64_t get_u64be(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return be64toh(v);
}
static inline void put_u32be(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof v);
}
static inline void put_u64be(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
}

#endif
