/* One row of n numbers: its largest entry and its sums, for softmax, log_softmax and cross_entropy; rows.pxd names them.
 *
 * A sum is made in LANES partial sums, so that it vectorises without -ffast-math, and after every PART numbers these go
 * into a double, so that a long row loses nothing.  The order of a sum depends on n alone.
 */
#ifndef REAL
#ifndef MINILM_ROWS_H
#define MINILM_ROWS_H

#include "vecmath.h"

#define LANES 16
#define PART 1024 /* numbers, 4 or 8 KB: they stay in the first cache from one pass to the next */
#define ROWS 16 /* that are worked on together, at most: as many as fit a part */

/* Without it gcc unrolls a loop of LANES before it looks for vectors, and finds none in a largest entry. */
#define SIMD _Pragma("omp simd")

#define PLUS(a, b) ((a) + (b))
#define LARGER(a, b) ((b) > (a) ? (b) : (a)) /* a where b is NaN */

/* lanes[0] = lanes[0] OP lanes[1] OP ..., by halves. */
#define FOLD(lanes, OP)                                                        \
    SIMD                                                                       \
    for (int l = 0; l < 8; l++) lanes[l] = OP(lanes[l], lanes[l + 8]);         \
    SIMD                                                                       \
    for (int l = 0; l < 4; l++) lanes[l] = OP(lanes[l], lanes[l + 4]);         \
    lanes[0] = OP(OP(lanes[0], lanes[2]), OP(lanes[1], lanes[3]))

/* Define NAME(name), the sum over i < n of a term in i. */
#define SUM(name, arguments, term)                                             \
    static inline double NAME(name) arguments {                                \
        double total = 0;                                                      \
        for (long start = 0; start < n; start += PART) {                       \
            const long end = n - start < PART ? n : start + PART;              \
            REAL lanes[LANES] = {0};                                           \
            long i = start;                                                    \
            for (; i + LANES <= end; i += LANES)                               \
                SIMD                                                           \
                for (int l = 0; l < LANES; l++) lanes[l] += term(i + l);       \
            if (i < end && end >= LANES) {                                     \
                REAL last[2 * LANES] = {0}; /* the last LANES, then zeros */   \
                SIMD                                                           \
                for (int l = 0; l < LANES; l++) last[l] = term(end - LANES + l); \
                const REAL *rest = last + (i - (end - LANES));                 \
                SIMD                                                           \
                for (int l = 0; l < LANES; l++) lanes[l] += rest[l];           \
            } else                                                             \
                for (; i < end; i++) lanes[0] += term(i);                      \
            FOLD(lanes, PLUS);                                                 \
            total += lanes[0];                                                 \
        }                                                                      \
        return total;                                                          \
    }
#define ENTRY(i) x[i]
#define PRODUCT(i) (x[i] * y[i])
#define POWER(i) EXP(x[i] - top)
#define POWER_KEPT(i) (y[i] = EXP(x[i] - top))

#define REAL float
#define NAME(x) x##_f
#define EXP vm_decayf /* of what is at most 0, or rounded from that */
#define LOG vm_logf
#include "rows.h"
#undef REAL
#undef NAME
#undef EXP
#undef LOG
#define REAL double
#define NAME(x) x##_d
#define EXP vm_decay
#define LOG vm_log
#include "rows.h"

#endif
#else

SUM(sum, (long n, const REAL *x), ENTRY)
SUM(dot, (long n, const REAL *x, const REAL *y), PRODUCT)
SUM(sum_exp, (long n, const REAL *x, REAL top), POWER)
SUM(exp_row, (long n, const REAL *x, REAL top, REAL *restrict y), POWER_KEPT) /* y = exp(x - top), and its sum */

/* The largest of the entries and least; no NaN. */
static inline REAL NAME(largest)(long n, const REAL *x, REAL least) {
    REAL lanes[LANES];
    long i = 0;
    for (int l = 0; l < LANES; l++) lanes[l] = least;
    for (; i + LANES <= n; i += LANES)
        SIMD
        for (int l = 0; l < LANES; l++) lanes[l] = LARGER(lanes[l], x[i + l]);
    if (i < n && n >= LANES) {
        SIMD
        for (int l = 0; l < LANES; l++) lanes[l] = LARGER(lanes[l], x[n - LANES + l]);
    } else
        for (; i < n; i++) lanes[0] = LARGER(lanes[0], x[i]);
    FOLD(lanes, LARGER);
    return lanes[0];
}

/* For each of at most ROWS rows of n numbers, ``apart`` numbers from one to the next: top, the largest entry, or 0 where
 * that is -inf, and log_total, the log of the sum of exp(x - top), or 0 where that is 0.  A row is read once, in parts:
 * what was summed before shrinks when the top rises.  A short row is mostly waiting for one number; rows side by side
 * wait together. */
static void NAME(log_sum_exp)(long rows, long n, const REAL *x, long apart, REAL *top, REAL *log_total) {
    REAL before[ROWS], highest[ROWS];
    double total[ROWS] = {0};
    for (long r = 0; r < ROWS; r++) highest[r] = -INFINITY, top[r] = 0;
    for (long start = 0; start < n; start += PART) {
        const long size = n - start < PART ? n - start : PART;
        for (long r = 0; r < rows; r++) {
            before[r] = highest[r];
            highest[r] = NAME(largest)(size, x + r * apart + start, before[r]);
        }
        for (long r = 0; r < rows; r++) {
            if (highest[r] > before[r]) {
                top[r] = highest[r];
                if (total[r] > 0) total[r] *= vm_exp((double)before[r] - highest[r]);
            }
            total[r] += NAME(sum_exp)(size, x + r * apart + start, top[r]);
        }
    }
    SIMD
    for (int r = 0; r < ROWS; r++) log_total[r] = LOG(total[r] == 0 ? 1 : (REAL)total[r]);
}

/* y = w (exp(x - L) - shift); y may be x. */
static inline void NAME(pull)(long n, const REAL *x, REAL L, REAL w, REAL shift, REAL *y) {
    SIMD
    for (long i = 0; i < n; i++) y[i] = w * (EXP(x[i] - L) - shift);
}

#endif
