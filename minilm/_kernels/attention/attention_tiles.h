/* The products of attention_cython.pyx: a few rows of c = a b or c += a b, with c held in registers; and rows times a
 * vector.
 *
 * Included once per type, with REAL and NAME(x) defined.  Vectors are GCC's and Clang's extension, as wide as the
 * processor's; any other compiler gets vectors of one element.
 */
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR 64
#elif defined(__AVX__)
#define VECTOR 32
#else
#define VECTOR 16
#endif

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));
#define INLINE static inline __attribute__((always_inline))
#else
typedef REAL NAME(vec);
#define INLINE static inline
#endif
#define LANES ((long)(sizeof(NAME(vec)) / sizeof(REAL)))

/* c (rows, vectors * LANES) of a (rows, K) and b (K, ...); both counts are constants where this is inlined. */
INLINE void NAME(block)(const int rows, const int vectors, long K, const REAL *a, long a_row, long a_col,
                        const REAL *b, long b_row, REAL *c, long c_row, int add) {
    NAME(vec) sum[8][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) sum[i][j] = (NAME(vec)){0};
    for (long k = 0; k < K; k++) {
        NAME(vec) row[2];
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) row[j] = *(const NAME(vec) *)(b + k * b_row + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] += a[i * a_row + k * a_col] * row[j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) {
            NAME(vec) *out = (NAME(vec) *)(c + i * c_row + j * LANES);
            if (add) sum[i][j] += *out;
            *out = sum[i][j];
        }
}

/* All N columns of a fixed number of rows; the last N % LANES one by one. */
INLINE void NAME(band)(const int rows, long N, long K, const REAL *a, long a_row, long a_col,
                       const REAL *b, long b_row, REAL *c, long c_row, int add) {
    long j = 0;
    for (; j + 2 * LANES <= N; j += 2 * LANES)
        NAME(block)(rows, 2, K, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
    for (; j + LANES <= N; j += LANES)
        NAME(block)(rows, 1, K, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
    for (; j < N; j++) {
        REAL sum[8] = {0};
        for (long k = 0; k < K; k++)
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) sum[i] += a[i * a_row + k * a_col] * b[k * b_row + j];
        for (int i = 0; i < rows; i++) c[i * c_row + j] = add ? c[i * c_row + j] + sum[i] : sum[i];
    }
}

/* a (M, K) has strides a_row and a_col, b (K, N) rows b_row apart, c (M, N) rows c_row apart; M is at most ROWS = 8. */
static void NAME(product)(long M, long N, long K, const REAL *a, long a_row, long a_col,
                          const REAL *b, long b_row, REAL *c, long c_row, int add) {
#if defined(__AVX512F__) /* 32 registers: 16 sums; otherwise 16: 8 sums */
    for (; M >= 8; M -= 8, a += 8 * a_row, c += 8 * c_row) NAME(band)(8, N, K, a, a_row, a_col, b, b_row, c, c_row, add);
#endif
    for (; M >= 4; M -= 4, a += 4 * a_row, c += 4 * c_row) NAME(band)(4, N, K, a, a_row, a_col, b, b_row, c, c_row, add);
    for (; M >= 1; M -= 1, a += a_row, c += c_row) NAME(band)(1, N, K, a, a_row, a_col, b, b_row, c, c_row, add);
}

/* y_i = c <a_i, x>, for M rows of K numbers, a_row apart: four rows at a time hide the time that a sum takes. */
INLINE void NAME(dot_rows)(const int rows, long K, const REAL *a, long a_row, const REAL *x, REAL c, REAL *y) {
    NAME(vec) sum[4];
    REAL lanes[4][sizeof(NAME(vec)) / sizeof(REAL)];
    long k = 0;
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) sum[i] = (NAME(vec)){0};
    for (; k + LANES <= K; k += LANES)
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) sum[i] += *(const NAME(vec) *)(a + i * a_row + k) * *(const NAME(vec) *)(x + k);
    for (int i = 0; i < rows; i++) {
        memcpy(lanes[i], &sum[i], sizeof sum[i]);
        for (long half = LANES / 2; half; half /= 2)
            for (long l = 0; l < half; l++) lanes[i][l] += lanes[i][l + half];
        for (long l = k; l < K; l++) lanes[i][0] += a[i * a_row + l] * x[l];
        y[i] = c * lanes[i][0];
    }
}

static void NAME(dots)(long M, long K, const REAL *a, long a_row, const REAL *x, REAL c, REAL *y) {
    for (; M >= 4; M -= 4, a += 4 * a_row, y += 4) NAME(dot_rows)(4, K, a, a_row, x, c, y);
    for (; M >= 1; M -= 1, a += a_row, y += 1) NAME(dot_rows)(1, K, a, a_row, x, c, y);
}

#undef VECTOR
#undef LANES
#undef INLINE
