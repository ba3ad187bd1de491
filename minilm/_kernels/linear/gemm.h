/* The matrix product, for linear_cython.pyx: c (M, N) = a (M, K) b (K, N), or c + a b, on all threads.
 *
 * An entry of c is the sum over k, in that order or in two halves, of blocks of STEP terms or a few less, or of all:
 * which thread makes it, and in which tile, changes nothing, so its bits depend on the shapes alone.  A tile of c, TALL
 * rows of two vectors, stays in registers while k runs; every step of k reads two vectors of b and one number for each
 * row.  b is copied first, a few panels of two vectors' width at a time, so that a tile reads one line after another
 * and pages change seldom; or many, by all threads together, where many bands of rows would each copy them.  A few rows
 * of a meet all panels that were copied before the next rows do.  They are read where they lie, unless a's columns lie
 * in one piece, or its rows are badly placed: then a band of them is copied.
 * Sources: Goto and van de Geijn (2008), doi:10.1145/1356052.1356053; Van Zee and van de Geijn (2015),
 * doi:10.1145/2764454 (BLIS).
 *
 * Included once per type, with REAL and NAME(x) defined.  Vectors are GCC's and Clang's extension.
 */
#include "vectors.h"

#ifndef STEP
#include <stdlib.h>
#include <string.h>

#include "openmp.h"

/* Elsewhere NumPy's BLAS is the better one; and Windows has no aligned_alloc. */
#if defined(_OPENMP) && defined(__GNUC__) && defined(__FMA__) && !defined(_WIN32)
#define HAS_GEMM 1
#define TALL (VECTOR == 64 ? 12 : 6) /* 24 sums in 32 registers, or 12 in 16 */
#else
#define HAS_GEMM 0
#endif

#define MANY 384 /* rows for each thread, for which all of them copy b together before */
#define STEP (VECTOR == 64 ? 768 : 384) /* terms of a sum between two visits to c */
#define BAND 768 /* rows of a that one thread multiplies by all panels before it goes on: they stay in its cache */
#define THIN 256 /* the same where b was copied before: then a longer band saves nothing */
#define PANELS 4 /* that are copied together */
#define RUN 24 /* rows, whole tiles of them, that meet all of those in turn while the nearest cache holds them */
#define AHEAD 16 /* rows of b, when it is copied, that are asked for before they are needed */
#define HALVES 768 /* terms of a sum that are worth two halves */
#define ENOUGH (1L << 17) /* multiplications that are worth a thread */

static inline long lesser(long x, long y) { return x < y ? x : y; }
static inline long parts_of(long x, long most) { return (x + most - 1) / most; }
static inline long step_of(long K) { return parts_of(K, parts_of(K, STEP)); }

#if HAS_GEMM
static void *spare = NULL; /* memory that waits for the next product, so that its pages need not be asked for again */
#endif
#endif

#if HAS_GEMM
#define WIDE (2 * LANES)
#define APART (STEP + LANES) /* of rows of a that were copied */

/* What happens to c: it is replaced, or added to; and after the last term, a bias is added.  ``stream`` writes whole
 * lines to memory, without fetching them first. */
typedef struct { REAL *c; long row; int add, stream; const REAL *bias; } NAME(target);

/* A term more for every sum of a tile. */
INLINE void NAME(term)(const int rows, const REAL *a, long a_row, const REAL *b, NAME(vec) (*sum)[2]) {
    const NAME(vec) left = *(const NAME(vec) *)b, right = *(const NAME(vec) *)(b + LANES);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        sum[i][0] += a[i * a_row] * left;
        sum[i][1] += a[i * a_row] * right;
    }
}

/* rows of c, one panel wide.  ``rows`` is a constant where this is inlined. */
INLINE void NAME(tile)(const int rows, long K, const REAL *a, long a_row, long a_col, const REAL *b,
                       NAME(target) to) {
    NAME(vec) sum[TALL][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        if (!to.stream) { /* c may be far away, and is wanted when the sums are done */
            PREFETCH(to.c + i * to.row);
            PREFETCH(to.c + i * to.row + LANES);
        }
        sum[i][0] = sum[i][1] = (NAME(vec)){0};
    }
    long k = 0;
    for (; k + 1 < K; k += 2, b += 2 * WIDE) { /* two at a time: one at a time takes 3 % longer */
        NAME(term)(rows, a + k * a_col, a_row, b, sum);
        NAME(term)(rows, a + (k + 1) * a_col, a_row, b + WIDE, sum);
    }
    if (k < K) NAME(term)(rows, a + k * a_col, a_row, b, sum);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            NAME(vec) *out = (NAME(vec) *)(to.c + i * to.row + j * LANES);
            if (to.add) sum[i][j] += *out;
            if (to.bias) sum[i][j] += *(const NAME(vec) *)(to.bias + j * LANES);
            if (to.stream)
                STREAM(out, sum[i][j]);
            else
                *out = sum[i][j];
        }
}

#define TILES(rows) \
    for (; M >= rows; M -= rows, a += rows * a_row, to.c += rows * to.row) \
        NAME(tile)(rows, K, a, a_row, a_col, b, to);

INLINE void NAME(tiles)(long M, long K, const REAL *a, long a_row, long a_col, const REAL *b, NAME(target) to) {
    TILES(TALL)
    if (TALL > 8) { TILES(8) }
    TILES(4)
    TILES(2)
    TILES(1)
}

/* M rows of c, one panel wide, with the rows of a where they lie; and with a copied by pack_columns. */
static void NAME(of_rows)(long M, long K, const REAL *a, long a_row, const REAL *b, NAME(target) to) {
    NAME(tiles)(M, K, a, a_row, 1, b, to);
}

static void NAME(of_columns)(long M, long K, const REAL *a, const REAL *b, NAME(target) to) {
    for (; M >= TALL; M -= TALL, a += TALL * K, to.c += TALL * to.row) NAME(tile)(TALL, K, a, 1, TALL, b, to);
    NAME(tiles)(M, K, a, 1, TALL, b, to);
}

/* M rows of c, N columns: a panel, or what is left of the last one.  ``a_col`` says in which of those ways a lies. */
static void NAME(by_panel)(long M, long N, long K, const REAL *a, long a_row, long a_col, const REAL *b,
                           NAME(target) to) {
    REAL edge[RUN * WIDE];
    const NAME(target) whole = N == WIDE ? to : (NAME(target)){edge, WIDE, 0, 0, NULL};
    if (a_col == 1)
        NAME(of_rows)(M, K, a, a_row, b, whole);
    else
        NAME(of_columns)(M, K, a, b, whole);
    for (long i = 0; i < M && N < WIDE; i++)
        for (long j = 0; j < N; j++) {
            REAL *const out = to.c + i * to.row + j;
            *out = (to.add ? *out + edge[i * WIDE + j] : edge[i * WIDE + j]) + (to.bias ? to.bias[j] : 0);
        }
}

/* a (M, K) as panels of TALL rows, in each of which k comes first: to[panel][k][row]. */
static void NAME(pack_columns)(long M, long K, const REAL *a, long a_row, long a_col, REAL *to) {
    for (long begin = 0; begin < K; begin += 16) /* few at a time: a line holds numbers of the next panel, too */
        for (long i = 0; i < M; i += TALL) {
            const long rows = lesser(TALL, M - i), end = lesser(K, begin + 16);
            const REAL *const x = a + i * a_row;
            REAL *const panel = to + i * K;
            long k = begin;
            if (a_row == 1 && M - i >= TALL + LANES) /* whole vectors: what is too much is overwritten by the next k */
                for (; k < lesser(end, K - 1); k++)
#pragma GCC unroll 4
                    for (long l = 0; l < TALL; l += LANES)
                        *(NAME(vec) *)(panel + k * TALL + l) = *(const NAME(vec) *)(x + k * a_col + l);
            for (; k < end; k++)
                for (long l = 0; l < rows; l++) panel[k * TALL + l] = x[l * a_row + k * a_col];
        }
}

/* b (K, N) as panels of WIDE columns, the last one filled up with zeros: to[panel][k][column]. */
static void NAME(pack_panels)(long N, long K, const REAL *b, long b_row, long b_col, REAL *to) {
    const long whole = N / WIDE * WIDE;
    if (b_row == 1) /* its columns lie in one piece */
        for (long j = 0; j < N; j += LANES)
            for (long k = 0; k < K; k += LANES) {
                const long n = lesser(LANES, N - j), terms = lesser(LANES, K - k);
                const REAL *const x = b + j * b_col + k;
                REAL *const column = to + j / WIDE * WIDE * K + k * WIDE + j % WIDE;
                for (long l = 0; l < LANES; l++) PREFETCH(x + (LANES + l) * b_col, 0, 2); /* 16 lines may share a set */
                if (n == LANES && terms == LANES)
                    NAME(turn_square)(x, b_col, column, WIDE);
                else
                    for (long l = 0; l < n; l++)
                        for (long i = 0; i < terms; i++) column[i * WIDE + l] = x[l * b_col + i];
            }
    else
        for (long k = 0; k < K; k++) {
            const REAL *x = b + k * b_row;
            long j = 0;
            if (b_col == 1)
                for (; j < whole; j += WIDE) {
                    for (long l = 0; l < WIDE; l += LINE / sizeof(REAL)) PREFETCH(x + AHEAD * b_row + j + l);
                    NAME(vec) *row = (NAME(vec) *)(to + j * K + k * WIDE);
                    const NAME(vec) left = *(const NAME(vec) *)(x + j), right = *(const NAME(vec) *)(x + j + LANES);
                    row[0] = left;
                    row[1] = right;
                }
            for (; j < N; j++) to[j / WIDE * WIDE * K + k * WIDE + j % WIDE] = x[j * b_col];
        }
    for (long k = 0; k < K && whole < N; k++)
        for (long j = N - whole; j < WIDE; j++) to[whole * K + k * WIDE + j] = 0;
}

/* How many groups share the rows of c, where the other threads share its panels: the way with the least work.  To copy
 * a panel of b takes as long as ``of_b`` rows of it, to copy as many rows of a as ``of_a``. */
static long NAME(groups)(long M, long panels, long threads, long of_a, long of_b) {
    long best = 1, least = 0;
    for (long g = threads; g >= 1; g--) {
        const long work = (parts_of(M, g * 4) * 4 + of_b) * parts_of(panels, threads / g) + M / g * of_a / WIDE;
        if (threads % g == 0 && (least == 0 || work < least - least / 32)) best = g, least = work;
    }
    return best;
}

/* One thread's part of a copy of b that is made together: ready[panel][k][column]. */
static void NAME(pack_part)(long me, long threads, long N, long K, const REAL *b, long b_row, long b_col, REAL *ready) {
    const long panels = parts_of(N, WIDE), j = panels * me / threads * WIDE;
    const long end = lesser(N, panels * (me + 1) / threads * WIDE);
    if (j < end) NAME(pack_panels)(end - j, K, b + j * b_col, b_row, b_col, ready + j * K);
}

/* What one thread of several does; its scratch holds PANELS panels of b, unless that is ready, and a BAND of a. */
static void NAME(share)(long me, long threads, long M, long N, long K, const REAL *a, long a_row, long a_col,
                        const REAL *b, long b_row, long b_col, REAL *c, long c_row, const REAL *bias, int add,
                        REAL *scratch, const REAL *ready) {
    const long panels = parts_of(N, WIDE), step = step_of(K);
    const long copy = K * N * (long)sizeof(REAL) > NEAR ? 40 : 12; /* a panel: it is far away, or near */
    const long across = NAME(groups)(M, panels, threads, a_col == 1 ? 0 : copy, ready ? 0 : copy);
    const long along = threads / across;
    const long top = M * (me % across) / across, bottom = M * (me % across + 1) / across;
    const long first = panels * (me / across) / along, end = panels * (me / across + 1) / along;
    const long bands = parts_of(bottom - top, ready ? THIN : BAND);
    /* Rows that lie a multiple of 4 KB apart would push each other out of the nearest cache. */
    const int copied = a_col == 1 && a_row * sizeof(REAL) % 4096 == 0;
    const int far = M * c_row * (long)sizeof(REAL) > NEAR; /* no cache would keep c for its reader */
    const int stream = far && !add && K <= step && (size_t)c % LINE == 0 && c_row * sizeof(REAL) % LINE == 0;
    REAL *const near_a = scratch + PANELS * STEP * WIDE;
    for (long band = 0; band < bands; band++) {
        const long i = top + (bottom - top) * band / bands, m = top + (bottom - top) * (band + 1) / bands - i;
        for (long k = 0; k < K; k += step) {
            const long terms = lesser(step, K - k);
            const REAL *const here = a + i * a_row + k * a_col, *const shift = k + terms == K ? bias : NULL;
            const REAL *const from = copied || a_col != 1 ? near_a : here;
            const long from_row = a_col != 1 ? terms : copied ? APART : a_row;
            if (a_col != 1) NAME(pack_columns)(m, terms, here, a_row, a_col, near_a);
            for (long x = 0; x < m && copied; x++) memcpy(near_a + x * APART, here + x * a_row, terms * sizeof(REAL));
            for (long p = first; p < end; p += PANELS) {
                const long last = lesser(end, p + PANELS), j = p * WIDE;
                const REAL *panel = ready ? ready + j * terms : scratch;
                if (!ready)
                    NAME(pack_panels)(lesser(N, last * WIDE) - j, terms, b + k * b_row + j * b_col, b_row, b_col, scratch);
                for (long x = 0; x < m; x += RUN)
                    for (long y = j; y < last * WIDE; y += WIDE) {
                        const NAME(target) to = {c + (i + x) * c_row + y, c_row, add || k, stream,
                                                 shift ? shift + y : NULL};
                        NAME(by_panel)(lesser(RUN, m - x), lesser(WIDE, N - y), terms, from + x * from_row, from_row,
                                       a_col, panel + (y - j) * terms, to);
                    }
            }
        }
    }
    if (stream) fence(); /* before another thread may read c */
}

/* Whether the terms are summed in two halves, each by half of the threads, and the halves added: where c is small
 * beside a and b, as the gradient of a weight is.  A thread then reads the rows of a batch that it made itself. */
static int NAME(halves)(long M, long N, long K, const REAL *bias) {
    return K >= HALVES && 6 * M * N <= (M + N) * K && (M + N) * K * (long)sizeof(REAL) <= NEAR && !bias;
}

static void NAME(both_halves)(long me, long threads, long M, long N, long K, const REAL *a, long a_row, long a_col,
                        const REAL *b, long b_row, long b_col, REAL *c, long c_row, int add, REAL *second,
                        REAL *scratch) {
    const long K0 = K / 2, teams = threads % 2 ? 1 : 2, team = threads / teams;
    if (teams == 1 || me < team)
        NAME(share)(me % team, team, M, N, K0, a, a_row, a_col, b, b_row, b_col, c, c_row, NULL, add, scratch, NULL);
    if (teams == 1 || me >= team)
        NAME(share)(me % team, team, M, N, K - K0, a + K0 * a_col, a_row, a_col, b + K0 * b_row, b_row, b_col, second,
                    N, NULL, 0, scratch, NULL);
#pragma omp barrier
    for (long i = M * me / threads; i < M * (me + 1) / threads; i++) {
        REAL *const row = c + i * c_row;
        const REAL *const more = second + i * N;
        for (long j = 0; j < N; j++) row[j] += more[j];
    }
}

/* Return 0, or 1 where there was no memory.  a and b may have any strides; rows of c are c_row apart. */
static int NAME(gemm)(long M, long N, long K, const REAL *a, long a_row, long a_col, const REAL *b, long b_row,
                      long b_col, REAL *c, long c_row, const REAL *bias, int add) {
    const long most = lesser(omp_get_max_threads(), 1 + M * N / ENOUGH * K + M * N % ENOUGH * K / ENOUGH);
    const int halves = NAME(halves)(M, N, K, bias);
    const size_t numbers = PANELS * STEP * WIDE + (lesser(M, BAND) + TALL) * APART + 2 * LANES;
    const size_t each = (numbers * sizeof(REAL) + LINE - 1) / LINE * LINE;
    const long step = step_of(K), panel = step * WIDE * (long)sizeof(REAL), panels = parts_of(N, WIDE);
    const int once = !halves && M > MANY * most;
    const long wide = once ? lesser(panels, NEAR / panel) * WIDE : N; /* columns of b that are copied by all together */
    /* The second halves of sums, or that copy. */
    const long more = halves ? M * N * (long)sizeof(REAL) : once ? wide / WIDE * panel : 0;
    const size_t size = (most * each + more + 2 * LINE - 1) / LINE * LINE;
    char *block = (char *)__atomic_exchange_n(&spare, NULL, __ATOMIC_ACQ_REL);
    if (block && *(size_t *)block < size) {
        free(block);
        block = NULL;
    }
    if (!block) {
        block = (char *)aligned_alloc(LINE, size);
        if (!block) return 1;
        *(size_t *)block = size;
    }
#pragma omp parallel num_threads((int)most) if (most > 1)
    {
        const long me = omp_get_thread_num(), threads = omp_get_num_threads();
        REAL *const scratch = (REAL *)(block + LINE + me * each), *const rest = (REAL *)(block + LINE + most * each);
        if (halves)
            NAME(both_halves)(me, threads, M, N, K, a, a_row, a_col, b, b_row, b_col, c, c_row, add, rest, scratch);
        if (!halves && !once)
            NAME(share)(me, threads, M, N, K, a, a_row, a_col, b, b_row, b_col, c, c_row, bias, add, scratch, NULL);
        for (long k = 0; k < K && once; k += step)
            for (long j = 0; j < N; j += wide) {
                const long terms = lesser(step, K - k), n = lesser(wide, N - j);
#pragma omp barrier /* nobody reads the last copy any more */
                NAME(pack_part)(me, threads, n, terms, b + k * b_row + j * b_col, b_row, b_col, rest);
#pragma omp barrier
                NAME(share)(me, threads, M, n, terms, a + k * a_col, a_row, a_col, NULL, 0, 0, c + j, c_row,
                            bias && k + terms == K ? bias + j : NULL, add || k, scratch, rest);
            }
    }
    free(__atomic_exchange_n(&spare, block, __ATOMIC_ACQ_REL));
    return 0;
}

#undef WIDE
#undef APART
#undef TILES
#else
static int NAME(gemm)(long M, long N, long K, const REAL *a, long a_row, long a_col, const REAL *b, long b_row,
                      long b_col, REAL *c, long c_row, const REAL *bias, int add) {
    return 1;
}
#endif
