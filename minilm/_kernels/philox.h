/* Philox4x32-10 of random.py, for loops that a C compiler vectorises over counters. */
#ifndef MINILM_PHILOX_H
#define MINILM_PHILOX_H

#include <stdint.h>

static inline void philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1,
                          uint32_t *w0, uint32_t *w1, uint32_t *w2, uint32_t *w3) {
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        const uint64_t left = (uint64_t)c0 * 0xD2511F53u, right = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(right >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)right;
        c2 = (uint32_t)(left >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)left;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    *w0 = c0, *w1 = c1, *w2 = c2, *w3 = c3;
}

#endif
