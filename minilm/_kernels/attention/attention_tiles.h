/* What attention_cython.pyx does with a block: products, a few rows of c = a b or c += a b with c held in registers;
 * rows times a vector; and the steps of the softmax, which take 8 rows at once so that what belongs to a column stays
 * in a register.
 *
 * Included once per type, with REAL, NAME(x) and DECAY, its e^x for x <= 88, defined.  Vectors are GCC's and Clang's
 * extension, as wide as the processor's; any other compiler gets vectors of one element.  With -fwrapv, which Python's
 * own flags bring, a loop vectorises if its index is long or if its bounds are int too.
 */
#include <math.h>
#include <string.h>

#include "philox.h"
#include "vectors.h"

#ifndef BLOCK
#define BLOCK 64 /* queries, and keys, of a block */
#define ROWS 8 /* of one product */
#define STEP 16 /* the first column of a row is a multiple of this: of every vector's length, and of ROWS */

/* The first column of row i that is computed, where row 0 is seen from column ``diagonal`` on: one for ROWS rows. */
static inline long first_column(long i, long diagonal) {
    const long first = diagonal + i / ROWS * ROWS;
    return first < 0 ? 0 : first > BLOCK ? BLOCK : first / STEP * STEP;
}

/* Ask for n bytes that will be read soon: rows of a cache come from memory, and two streams take turns. */
static inline void soon(const void *p, size_t n) {
    for (size_t i = 0; i < n; i += LINE) PREFETCH((const char *)p + i);
}

/* Rows of some arrays that will be read when this piece is done: ``each`` of them are asked for at a time. */
typedef struct { const char *at[5]; long row[5], bytes[5]; long arrays, left, each; } ahead;

static inline void ask(ahead *next) {
    for (long n = next->each; n > 0 && next->left > 0; n--, next->left--)
        for (long i = 0; i < next->arrays; i++, next->at[i - 1] += next->row[i - 1])
            for (long byte = 0; byte < next->bytes[i]; byte += LINE) PREFETCH(next->at[i] + byte, 0, 2);
}

/* Whether so many rows, one after the other, are whole lines of the cache and too many for it. */
static inline int far_away(const void *at, long bytes, long rows) {
    return (size_t)at % LINE == 0 && bytes % LINE == 0 && bytes * rows > NEAR;
}
#endif

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

/* -inf in a row of scores for the queries before ``seen`` and from ``gone`` on. */
static void NAME(hide)(long first, long width, long seen, long gone, REAL *row) {
    const int from = (int)(seen < 0 ? 0 : seen < BLOCK ? seen : BLOCK);
    const int to = (int)(gone < 0 ? 0 : gone < BLOCK ? gone : BLOCK), end = (int)width;
    for (int j = (int)first; j < end; j++) row[j] = (j < from) | (j >= to) ? -INFINITY : row[j];
}

/* top_j = the largest of top_j and column j of A (rows, BLOCK), for first <= j < width. */
INLINE void NAME(rise)(const int rows, long first, long width, const REAL *RESTRICT A, REAL *RESTRICT top) {
    for (long j = first; j < width; j++) {
        REAL best = top[j];
#pragma GCC unroll 8
        for (long i = 0; i < rows; i++) best = A[i * BLOCK + j] > best ? A[i * BLOCK + j] : best;
        top[j] = best;
    }
}

/* A_ij = exp(A_ij - top_j), added to total_j; a top of -inf counts as 0. */
INLINE void NAME(exponentials)(const int rows, long first, long width, REAL *RESTRICT A, const REAL *RESTRICT top,
                               double *RESTRICT total) {
    for (long j = first; j < width; j++) {
        const REAL base = top[j] == -INFINITY ? 0 : top[j];
        double sum = total[j];
#pragma GCC unroll 8
        for (long i = 0; i < rows; i++) sum += A[i * BLOCK + j] = DECAY(A[i * BLOCK + j] - base);
        total[j] = sum;
    }
}

/* Online softmax of a block A (m, BLOCK), a row for each key: what was summed so far is to be multiplied by shrink. */
static void NAME(softmax)(long m, long width, long diagonal, REAL *RESTRICT A, REAL *RESTRICT top,
                          REAL *RESTRICT shrink, double *RESTRICT total) {
    const long whole = m / ROWS * ROWS;
    for (long j = 0; j < width; j++) shrink[j] = top[j];
    for (long i = 0; i < whole; i += ROWS) NAME(rise)(ROWS, first_column(i, diagonal), width, A + i * BLOCK, top);
    for (long i = whole; i < m; i++) NAME(rise)(1, first_column(i, diagonal), width, A + i * BLOCK, top);
    for (long j = 0; j < width; j++) {
        shrink[j] = DECAY(shrink[j] - (top[j] == -INFINITY ? 0 : top[j]));
        total[j] *= shrink[j];
    }
    for (long i = 0; i < whole; i += ROWS)
        NAME(exponentials)(ROWS, first_column(i, diagonal), width, A + i * BLOCK, top, total);
    for (long i = whole; i < m; i++)
        NAME(exponentials)(1, first_column(i, diagonal), width, A + i * BLOCK, top, total);
}

/* One row: P = exp(A - L), where A is; then c dA = c P (dR keep - delta), where dR is, and R = P keep, where P is. */
static void NAME(slopes)(long first, long width, const REAL *RESTRICT L, const REAL *RESTRICT delta,
                         const REAL *RESTRICT keep, REAL c, REAL *RESTRICT A, REAL *RESTRICT dR) {
    if (keep)
        for (long j = first; j < width; j++) {
            const REAL P = DECAY(A[j] - L[j]);
            dR[j] = P * (dR[j] * keep[j] - delta[j]) * c;
            A[j] = P * keep[j];
        }
    else
        for (long j = first; j < width; j++) {
            A[j] = DECAY(A[j] - L[j]);
            dR[j] = A[j] * (dR[j] - delta[j]) * c;
        }
}

/* keep[s0 % 4 + i, j] = kept or 0; each counter serves four rows, the first of which is a multiple of 4. */
static void NAME(draw)(uint64_t seed, uint32_t threshold, REAL kept, long head, long t0, long s0, long m, long width,
                       long diagonal, REAL *RESTRICT keep) {
    const uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (long i = 0; i < s0 % 4 + m; i += 4) {
        REAL *const row = keep + i * BLOCK;
        for (long j = first_column(i < s0 % 4 ? 0 : i - s0 % 4, diagonal); j < width; j++) {
            uint32_t w0, w1, w2, w3;
            philox((uint32_t)(s0 / 4 + i / 4), (uint32_t)(t0 + j), (uint32_t)head, 1, k0, k1, &w0, &w1, &w2, &w3);
            row[j] = w0 >= threshold ? kept : 0;
            row[j + BLOCK] = w1 >= threshold ? kept : 0;
            row[j + 2 * BLOCK] = w2 >= threshold ? kept : 0;
            row[j + 3 * BLOCK] = w3 >= threshold ? kept : 0;
        }
    }
}

/* xT (D, BLOCK) = c x (n, D), with zeros for the rows that are not there. */
static void NAME(transpose)(long n, long D, const REAL *x, long x_row, REAL c, REAL *xT) {
    long j = 0;
#if defined(__GNUC__)
    for (; j + 4 <= n; j += 4) {
        long d = 0;
        for (; d + 4 <= D; d += 4) NAME(turn)(x + j * x_row + d, x_row, c, xT + d * BLOCK + j, BLOCK);
        for (; d < D; d++)
            for (long i = j; i < j + 4; i++) xT[d * BLOCK + i] = c * x[i * x_row + d];
    }
#endif
    for (long d = 0; d < D && j < BLOCK; d++) {
        for (long i = j; i < n; i++) xT[d * BLOCK + i] = c * x[i * x_row + d];
        for (long i = n; i < BLOCK; i++) xT[d * BLOCK + i] = 0;
    }
}

/* to = x (n, D), or row i of it times c_i. */
static void NAME(rows)(long n, long D, const REAL *x, long x_row, const REAL *c, REAL *to, long to_row, int stream) {
    for (long i = 0; i < n; i++, x += x_row, to += to_row) {
        const REAL factor = c ? c[i] : 1;
        long d = 0;
        if (stream)
            for (; d + LANES <= D; d += LANES) STREAM((NAME(vec) *)(to + d), *(const NAME(vec) *)(x + d) * factor);
        for (; d + LANES <= D; d += LANES) *(NAME(vec) *)(to + d) = *(const NAME(vec) *)(x + d) * factor;
        for (; d < D; d++) to[d] = x[d] * factor;
    }
}

/* <a, b>, summed in double: the rows of dA add up to 0 as exactly as this agrees with the sum of R dR. */
static REAL NAME(dot)(long n, const REAL *a, const REAL *b) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long d = 0; d < n; d++) sum += (double)a[d] * b[d];
    return (REAL)sum;
}
