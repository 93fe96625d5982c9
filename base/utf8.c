#include "base/utf8.h"

size_t utf8_char(const void *mem, size_t left, uint32_t *c)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const uint8_t *s = mem;
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    uint32_t v = s[0];

    if (n > 1) {
        if (s[0] < 0xc2 || s[0] > 0xf4 || n > left)
            return 0;
        v &= 0x7fu >> n;
        for (size_t i = 1; i < n; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            v = v << 6 | (s[i] & 0x3f);
        }
        if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
            return 0;
    }
    if (c)
        *c = v;
    return n;
}
