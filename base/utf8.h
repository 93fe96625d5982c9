/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef WEIR_BASE_UTF8_H
#define WEIR_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { UTF8_MAX_BYTES = 4 };

/* The character at mem, of which there are `left` bytes, at least one: its length, and itself in *c
 * (may be NULL). 0: there is no whole one. */
size_t utf8_char(const void *mem, size_t left, uint32_t *c);

#endif
