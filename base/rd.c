#include "base/rd.h"

/* How many bits a varint of at most max_bytes may carry: 5 bytes stand for 32 bits, 10 for 64. */
static unsigned varint_bits(unsigned max_bytes)
{
    if (max_bytes >= 10)
        return 64;
    return max_bytes == 5 ? 32 : max_bytes * 7;
}

uint64_t rd_uvarint(struct rd *r, unsigned max_bytes)
{
    unsigned bits = varint_bits(max_bytes), n_bytes = max_bytes < 10 ? max_bytes : 10;
    uint64_t v = 0;

    for (unsigned i = 0; i < n_bytes && !r->bad; i++) {
        unsigned shift = i * 7;
        uint64_t piece;

        if (r->at == r->end)
            break;
        piece = *r->at & 0x7f;
        /* Only the last byte can hold bits that the type has no room for. */
        if (bits - shift < 7 && piece >> (bits - shift))
            break;
        v |= piece << shift;
        if (!(*r->at++ & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}

int64_t rd_varint(struct rd *r, unsigned max_bytes)
{
    uint64_t v = rd_uvarint(r, max_bytes);

    return (int64_t)(v >> 1 ^ (0 - (v & 1)));
}

void wr_uvarint(struct wr *w, uint64_t v)
{
    uint8_t mem[10];
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        mem[n++] = (uint8_t)(v | 0x80);
    mem[n++] = (uint8_t)v;
    wr_bytes(w, mem, n);
}

void wr_varint(struct wr *w, int64_t v)
{
    wr_uvarint(w, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0));
}
