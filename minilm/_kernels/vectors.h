/* Vectors as wide as the processor's, for attention_tiles.h and gemm.h, and memory that is far away.
 *
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

#endif
