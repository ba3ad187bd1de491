/* Vectors as wide as the processor's, for attention_tiles.h and gemm.h; and memory that is far away.
 *
 * Included once per type, with REAL and NAME(x) defined.
 * VECTOR is their length in bytes.  They are GCC's and Clang's extension; any other compiler gets vectors of one number.
 * STREAM writes a vector, which must begin at a multiple of its length, to memory and past the caches, which then do not
 * fetch the line first: for what is too large to be found there by its reader.  A fence makes it seen by other threads.
 */
#ifndef MINILM_VECTORS_H
#define MINILM_VECTORS_H
#include <stddef.h>

#define LINE 64 /* bytes, of the caches */
#define NEAR (1L << 22) /* bytes that may still be in the caches of the threads that made them */

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define RESTRICT __restrict__
#define PREFETCH __builtin_prefetch
#else
#define INLINE static inline
#define RESTRICT
#define PREFETCH(...)
#endif

#if defined(__GNUC__) && defined(__SSE2__)
#include <immintrin.h>
static inline void fence(void) { _mm_sfence(); }
#else
static inline void fence(void) {}
#endif

#if defined(__AVX512F__)
#define VECTOR 64
#define STREAM(to, x) _mm512_stream_si512((__m512i *)(to), (__m512i)(x))
#elif defined(__AVX__)
#define VECTOR 32
#define STREAM(to, x) _mm256_stream_si256((__m256i *)(to), (__m256i)(x))
#elif defined(__GNUC__) && defined(__SSE2__)
#define VECTOR 16
#define STREAM(to, x) _mm_stream_si128((__m128i *)(to), (__m128i)(x))
#else
#define VECTOR 16
#define STREAM(to, x) (*(to) = (x))
#endif

#define LANES ((long)(sizeof(NAME(vec)) / sizeof(REAL)))
#endif

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));
typedef REAL NAME(four) __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

/* Four rows of four numbers become columns, times c. */
INLINE void NAME(turn)(const REAL *x, long x_row, REAL c, REAL *to, long to_row) {
    const NAME(four) w = *(const NAME(four) *)x * c, y = *(const NAME(four) *)(x + 2 * x_row) * c;
    const NAME(four) v = *(const NAME(four) *)(x + x_row) * c, z = *(const NAME(four) *)(x + 3 * x_row) * c;
    const NAME(four) a = {w[0], v[0], w[1], v[1]}, b = {y[0], z[0], y[1], z[1]};
    const NAME(four) e = {w[2], v[2], w[3], v[3]}, f = {y[2], z[2], y[3], z[3]};
    *(NAME(four) *)to = (NAME(four)){a[0], a[1], b[0], b[1]};
    *(NAME(four) *)(to + to_row) = (NAME(four)){a[2], a[3], b[2], b[3]};
    *(NAME(four) *)(to + 2 * to_row) = (NAME(four)){e[0], e[1], f[0], f[1]};
    *(NAME(four) *)(to + 3 * to_row) = (NAME(four)){e[2], e[3], f[2], f[3]};
}

/* As many rows as a vector has numbers, and as many numbers of each, become columns. */
INLINE void NAME(turn_square)(const REAL *x, long x_row, REAL *to, long to_row) {
#if VECTOR == 64
    if (sizeof(REAL) == 4) { /* in quarters of a vector as in turn, then the quarters themselves */
        __m512 rows[16], turned[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) rows[i] = (__m512) * (const NAME(vec) *)(x + i * x_row);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) { /* turned[i + 4 q] holds numbers q, 4 + q, 8 + q, 12 + q of rows 4 i to 4 i + 3 */
            const __m512 *const r = rows + 4 * i;
            const __m512d a = (__m512d)_mm512_unpacklo_ps(r[0], r[1]), b = (__m512d)_mm512_unpackhi_ps(r[0], r[1]);
            const __m512d e = (__m512d)_mm512_unpacklo_ps(r[2], r[3]), f = (__m512d)_mm512_unpackhi_ps(r[2], r[3]);
            turned[i] = (__m512)_mm512_unpacklo_pd(a, e);
            turned[i + 4] = (__m512)_mm512_unpackhi_pd(a, e);
            turned[i + 8] = (__m512)_mm512_unpacklo_pd(b, f);
            turned[i + 12] = (__m512)_mm512_unpackhi_pd(b, f);
        }
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            const __m512 *const t = turned + 4 * q;
            const __m512 a = _mm512_shuffle_f32x4(t[0], t[1], 0x44), b = _mm512_shuffle_f32x4(t[0], t[1], 0xee);
            const __m512 e = _mm512_shuffle_f32x4(t[2], t[3], 0x44), f = _mm512_shuffle_f32x4(t[2], t[3], 0xee);
            *(NAME(vec) *)(to + q * to_row) = (NAME(vec))_mm512_shuffle_f32x4(a, e, 0x88);
            *(NAME(vec) *)(to + (q + 4) * to_row) = (NAME(vec))_mm512_shuffle_f32x4(a, e, 0xdd);
            *(NAME(vec) *)(to + (q + 8) * to_row) = (NAME(vec))_mm512_shuffle_f32x4(b, f, 0x88);
            *(NAME(vec) *)(to + (q + 12) * to_row) = (NAME(vec))_mm512_shuffle_f32x4(b, f, 0xdd);
        }
        return;
    }
#endif
    for (long i = 0; i < LANES; i += 4)
        for (long k = 0; k < LANES; k += 4) NAME(turn)(x + i * x_row + k, x_row, 1, to + k * to_row + i, to_row);
}
#else
typedef REAL NAME(vec);
#endif
