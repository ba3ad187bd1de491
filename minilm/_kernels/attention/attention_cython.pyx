# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of attention, for Cython: blocks of 64 queries against blocks of 64 keys, with an online softmax.

The mathematics and the names are those of attention.py.  A block of scores is kept transposed, A[i, j] for key s0 + i
and query t0 + j, so that the softmax of 64 queries runs along vectors and only q (and do) is ever transposed.  Under
``causal`` the columns below ``first`` of a row of the block are hidden; they are neither computed nor read.  A row of
``pieces`` is t0, t1, s0, s1, offset, as layout.pieces makes it: blocks never reach beyond the keys that a piece sees.
A single query, which is what decoding asks for, has a loop of its own over the rows of k and v.

Each thread takes heads that follow each other.  Rows of neighbouring heads share lines of the cache, which two cores
would take from one another; and the rows that a thread makes are those that it multiplies in the next product.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY, log
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

cdef extern from "vecmath.h" nogil:
    float vm_decayf(float)
    double vm_decay(double)

cdef extern from "philox.h" nogil:
    void philox(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                uint32_t*, uint32_t*, uint32_t*, uint32_t*)

cdef extern from * nogil:
    """
    #include <stddef.h>
    #if defined(__GNUC__)
    #define PREFETCH __builtin_prefetch
    #else
    #define PREFETCH(p)
    #endif
    /* Ask for n bytes that will be read soon: rows of a cache come from memory, and two streams take turns. */
    static inline void soon(const void *p, size_t n) {
        for (size_t i = 0; i < n; i += 64) PREFETCH((const char *) p + i);
    }
    #define REAL float
    #define DECAY vm_decayf
    #define NAME(x) x##_f
    #include "attention/attention_tiles.h"
    #undef REAL
    #undef DECAY
    #undef NAME
    #define REAL double
    #define DECAY vm_decay
    #define NAME(x) x##_d
    #include "attention/attention_tiles.h"
    #undef REAL
    #undef DECAY
    #undef NAME
    """
    enum:
        BLOCK
        ROWS
        STEP
    void soon(const void*, size_t)
    void product_f(long, long, long, const float*, long, long, const float*, long, float*, long, int)
    void product_d(long, long, long, const double*, long, long, const double*, long, double*, long, int)
    void dots_f(long, long, const float*, long, const float*, float, float*)
    void dots_d(long, long, const double*, long, const double*, double, double*)
    long first_column(long, long)
    void hide_f(long, long, long, long, float*)
    void hide_d(long, long, long, long, double*)
    void softmax_f(long, long, long, float*, float*, float*, double*)
    void softmax_d(long, long, long, double*, double*, double*, double*)
    void slopes_f(long, long, const float*, const float*, const float*, float, float*, float*)
    void slopes_d(long, long, const double*, const double*, const double*, double, double*, double*)
    void transpose_f(long, long, const float*, long, float, float*)
    void transpose_d(long, long, const double*, long, double, double*)
    float dot_f(long, const float*, const float*)
    double dot_d(long, const double*, const double*)

QUERIES = BLOCK  # of one piece of the forward


def forward(const floating[:, :, :, :] q, const floating[:, :, :, :] k, const floating[:, :, :, :] v,
            const floating[:, :, :, :] bias, const int64_t[:, ::1] pieces, double scale, bint causal,
            Py_ssize_t window, uint32_t threshold, double kept, uint64_t seed, floating[:, :, :, :] o,
            floating[:, :, ::1] lse):
    cdef Py_ssize_t H = q.shape[1], n = pieces.shape[0], w, i, work = q.shape[0] * H * n
    cdef int failed = 0
    for w in prange(work, nogil=True, schedule="static"):
        i = w % n
        if pieces[i, 1] - pieces[i, 0] == 1 and not threshold:
            _forward_query(w // n // H, w // n % H, &pieces[i, 0], q, k, v, bias, scale, causal, window, o, lse)
        elif pieces[i, 1] > pieces[i, 0]:
            failed += _forward_block(w // n // H, w // n % H, &pieces[i, 0], q, k, v, bias, scale, causal, window,
                                     threshold, kept, seed, o, lse)
    if failed:
        raise MemoryError("attention: no memory for a block of scores")


cdef inline Py_ssize_t _begin(const int64_t *piece, Py_ssize_t window) noexcept nogil:
    """The first key that any query of the piece sees."""
    return max(piece[2], piece[0] + piece[4] - window + 1)


cdef inline Py_ssize_t _end(const int64_t *piece, Py_ssize_t t1, bint causal) noexcept nogil:
    """The key after the last that any query of the piece before t1 sees."""
    return max(min(piece[3], t1 + piece[4]), piece[2]) if causal else piece[3]


cdef void _forward_query(Py_ssize_t b, Py_ssize_t h, const int64_t *piece, const floating[:, :, :, :] q,
                         const floating[:, :, :, :] k, const floating[:, :, :, :] v,
                         const floating[:, :, :, :] bias, double scale, bint causal, Py_ssize_t window,
                         floating[:, :, :, :] o, floating[:, :, ::1] lse) noexcept nogil:
    """One query, without dropout: every key between the first and the last that it sees counts, and no other."""
    cdef Py_ssize_t t = piece[0], D = q.shape[3], Dv = v.shape[3], g = h // (q.shape[1] // k.shape[1])
    cdef Py_ssize_t i, d, s0, m, end = _end(piece, t + 1, causal), unit = sizeof(floating)
    cdef Py_ssize_t k_row = k.strides[2] // unit
    cdef floating A[64]  # BLOCK
    cdef const floating *query = &q[b, h, t, 0] if D else NULL
    cdef const floating *keys
    cdef floating top = -INFINITY, base, shrink
    cdef double total = 0
    cdef floating *row = &o[b, h, t, 0] if Dv else NULL
    for d in range(Dv):
        row[d] = 0
    for s0 in range(_begin(piece, window), end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        keys = &k[b, g, s0, 0] if D else NULL
        if Dv and v.strides[2] == Dv * unit:
            soon(&v[b, g, s0, 0], m * Dv * unit)
        if floating is float:
            dots_f(m, D, keys, k_row, query, <float> scale, A)
        else:
            dots_d(m, D, keys, k_row, query, scale, A)
        if bias.shape[0]:
            for i in range(m):
                A[i] += bias[b, h, t, s0 + i]
        shrink = top
        for i in range(m):
            top = A[i] if A[i] > top else top
        base = 0 if top == -INFINITY else top
        shrink = _exp(shrink - base)
        for i in range(m):
            A[i] = _exp(A[i] - base)
        total *= shrink
        for i in range(m):
            total += A[i]
        for d in range(Dv):
            row[d] *= shrink
        if D and s0 + 64 < end and k_row == D:
            soon(&k[b, g, s0 + 64, 0], min(<Py_ssize_t> 64, end - s0 - 64) * D * unit)
        if Dv:
            _product(1, Dv, m, A, 1, 1, &v[b, g, s0, 0], v.strides[2] // unit, row, Dv, True)
    if total == 0:  # saw no key; lse = inf makes its P zero in the backward
        lse[b, h, t] = INFINITY
        return
    lse[b, h, t] = <floating> (top + log(total))
    base = <floating> (1 / total)
    for d in range(Dv):
        row[d] *= base


cdef int _forward_block(Py_ssize_t b, Py_ssize_t h, const int64_t *piece, const floating[:, :, :, :] q,
                         const floating[:, :, :, :] k, const floating[:, :, :, :] v,
                         const floating[:, :, :, :] bias, double scale, bint causal, Py_ssize_t window,
                         uint32_t threshold, double kept, uint64_t seed, floating[:, :, :, :] o,
                         floating[:, :, ::1] lse) noexcept nogil:
    cdef Py_ssize_t D = q.shape[3], Dv = v.shape[3], t0 = piece[0], n = piece[1] - t0, offset = piece[4]
    cdef Py_ssize_t g = h // (q.shape[1] // k.shape[1]), unit = sizeof(floating), width = (n + STEP - 1) // STEP * STEP
    cdef Py_ssize_t begin = _begin(piece, window), end = _end(piece, t0 + n, causal)
    cdef Py_ssize_t i, j, d, s0, m, diagonal, visible, o_row = o.strides[2] // unit, v_row = v.strides[2] // unit
    cdef floating *scratch = <floating *> malloc((BLOCK * (D + 2 * BLOCK + 6) + STEP) * sizeof(floating))
    cdef floating *qT = _aligned(scratch)  # (D, BLOCK), times scale
    cdef floating *A = qT + D * BLOCK  # (BLOCK, BLOCK)
    cdef floating *keep = A + BLOCK * BLOCK  # (BLOCK + 4, BLOCK)
    cdef floating *top = keep + (BLOCK + 4) * BLOCK
    cdef floating *shrink = top + BLOCK
    cdef double total[BLOCK]  # a double: an error of the sum would be one of δ, and every row of dA would add up to it
    cdef floating *row
    cdef floating *kept_row
    cdef floating x
    if scratch == NULL:
        return 1
    _transpose(&q[b, h, t0, 0] if D else NULL, n, D, q.strides[2] // unit, <floating> scale, qT)
    for j in range(BLOCK):
        top[j] = -INFINITY
        total[j] = 0
    if begin >= end:
        _clear(b, h, t0, t0 + n, o)
    for s0 in range(begin, end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        diagonal = s0 - offset - t0 if causal else -BLOCK
        _scores(b, h, g, t0, n, s0, m, k, bias, causal, offset, window, qT, A)
        _softmax(m, width, diagonal, A, top, shrink, total)
        if threshold:
            _draw(b * q.shape[1] + h, t0, s0, m, width, diagonal, threshold, <floating> kept, seed, keep)
            for i in range(m):
                row = A + i * BLOCK
                kept_row = keep + (s0 % 4 + i) * BLOCK
                for j in range(first_column(i, diagonal), width):
                    row[j] *= kept_row[j]
        if Dv == 0:
            continue
        for j in range(0, n, 8):  # ROWS
            if s0 > begin:
                for i in range(j, min(j + ROWS, n)):
                    row = &o[b, h, t0 + i, 0]
                    for d in range(Dv):
                        row[d] *= shrink[i]
            visible = max(min(m, t0 + min(j + ROWS, n) + offset - s0), 0) if causal else m
            _product(min(<Py_ssize_t> ROWS, n - j), Dv, visible, A + j, 1, BLOCK, &v[b, g, s0, 0], v_row,
                     &o[b, h, t0 + j, 0], o_row, s0 > begin)
    for j in range(n):
        if total[j] == 0:  # saw no key; lse = inf makes its P zero in the backward
            lse[b, h, t0 + j] = INFINITY
            continue
        lse[b, h, t0 + j] = <floating> (top[j] + log(total[j]))
        x = <floating> (1 / total[j])
        row = &o[b, h, t0 + j, 0] if Dv else NULL
        for d in range(Dv):
            row[d] *= x
    free(scratch)
    return 0


def backward(const floating[:, :, :, :] do, const floating[:, :, :, :] q, const floating[:, :, :, :] k,
             const floating[:, :, :, :] v, const floating[:, :, :, :] bias,
             const floating[:, :, :, :] o, const floating[:, :, ::1] lse, const int64_t[:, ::1] pieces,
             double scale, bint causal, Py_ssize_t window, uint32_t threshold, double kept, uint64_t seed,
             floating[:, :, :, :] dq, floating[:, :, :, :] dk, floating[:, :, :, :] dv, floating[:, :, :, ::1] dA):
    cdef Py_ssize_t G = k.shape[1], n = pieces.shape[0], w, work = k.shape[0] * G * n
    cdef int failed = 0
    for w in prange(work, nogil=True, schedule="static"):
        failed += _backward_piece(w // n // G, w // n % G, &pieces[w % n, 0], do, q, k, v, bias, o, lse, scale, causal,
                                  window, threshold, kept, seed, dq, dk, dv, dA)
    if failed:
        raise MemoryError("attention: no memory for a block of scores")


cdef int _backward_piece(Py_ssize_t b, Py_ssize_t g, const int64_t *piece, const floating[:, :, :, :] do,
                        const floating[:, :, :, :] q, const floating[:, :, :, :] k,
                        const floating[:, :, :, :] v, const floating[:, :, :, :] bias,
                        const floating[:, :, :, :] o, const floating[:, :, ::1] lse, double scale, bint causal,
                        Py_ssize_t window, uint32_t threshold, double kept, uint64_t seed,
                        floating[:, :, :, :] dq, floating[:, :, :, :] dk, floating[:, :, :, :] dv,
                        floating[:, :, :, ::1] dA) noexcept nogil:
    cdef Py_ssize_t h, t0, shared = q.shape[1] // k.shape[1]
    cdef floating *scratch = <floating *> malloc(
        (BLOCK * (q.shape[3] + v.shape[3] + 3 * BLOCK + 6) + STEP) * sizeof(floating))
    if scratch == NULL:
        return 1
    _clear(b, g, piece[2], piece[3], dk)
    _clear(b, g, piece[2], piece[3], dv)
    for h in range(g * shared, (g + 1) * shared):
        for t0 in range(piece[0], piece[1], 64):  # BLOCK
            _backward_block(b, g, h, t0, piece, do, q, k, v, bias, o, lse, scale, causal, window, threshold, kept,
                            seed, dq, dk, dv, dA, _aligned(scratch))
    free(scratch)
    return 0


cdef void _backward_block(Py_ssize_t b, Py_ssize_t g, Py_ssize_t h, Py_ssize_t t0, const int64_t *piece,
                          const floating[:, :, :, :] do, const floating[:, :, :, :] q, const floating[:, :, :, :] k,
                          const floating[:, :, :, :] v, const floating[:, :, :, :] bias,
                          const floating[:, :, :, :] o, const floating[:, :, ::1] lse, double scale, bint causal,
                          Py_ssize_t window, uint32_t threshold, double kept, uint64_t seed,
                          floating[:, :, :, :] dq, floating[:, :, :, :] dk, floating[:, :, :, :] dv,
                          floating[:, :, :, ::1] dA, floating *scratch) noexcept nogil:
    cdef Py_ssize_t D = q.shape[3], Dv = v.shape[3], n = min(<Py_ssize_t> BLOCK, piece[1] - t0), offset = piece[4]
    cdef Py_ssize_t begin = max(piece[2], t0 + offset - window + 1), end = _end(piece, t0 + n, causal)
    cdef Py_ssize_t unit = sizeof(floating), width = (n + STEP - 1) // STEP * STEP
    cdef Py_ssize_t i, j, s0, m, first, diagonal, visible, seen, rows
    cdef Py_ssize_t q_row = q.strides[2] // unit, k_row = k.strides[2] // unit, v_row = v.strides[2] // unit
    cdef Py_ssize_t do_row = do.strides[2] // unit
    cdef floating *qT = scratch  # (D, BLOCK), times scale
    cdef floating *doT = qT + D * BLOCK  # (Dv, BLOCK)
    cdef floating *P = doT + Dv * BLOCK  # (BLOCK, BLOCK), then R
    cdef floating *dR = P + BLOCK * BLOCK  # then dA c
    cdef floating *keep = dR + BLOCK * BLOCK
    cdef floating *delta = keep + (BLOCK + 4) * BLOCK
    cdef floating *L = delta + BLOCK
    cdef floating *row
    cdef floating *grad
    cdef floating *kept_row
    cdef floating c = <floating> scale
    _transpose(&q[b, h, t0, 0] if D else NULL, n, D, q_row, c, qT)
    _transpose(&do[b, h, t0, 0] if Dv else NULL, n, Dv, do_row, 1, doT)
    for j in range(BLOCK):
        delta[j] = _dot(Dv, &do[b, h, t0 + j, 0], &o[b, h, t0 + j, 0]) if Dv and j < n else 0
        L[j] = lse[b, h, t0 + j] if j < n else INFINITY
    if begin >= end:
        _clear(b, h, t0, t0 + n, dq)
    for s0 in range(begin, end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        diagonal = s0 - offset - t0 if causal else -BLOCK
        _scores(b, h, g, t0, n, s0, m, k, bias, causal, offset, window, qT, P)
        for i in range(0, m, 8):  # ROWS
            first = first_column(i, diagonal)
            if first < width:
                _product(min(<Py_ssize_t> ROWS, m - i), width - first, Dv, &v[b, g, s0 + i, 0] if Dv else NULL, v_row,
                         1, doT + first, BLOCK, dR + i * BLOCK + first, BLOCK, False)
        if threshold:
            _draw(b * q.shape[1] + h, t0, s0, m, width, diagonal, threshold, <floating> kept, seed, keep)
        for i in range(m):
            row = P + i * BLOCK
            grad = dR + i * BLOCK
            first = first_column(i, diagonal)
            _slopes(first, width, L, delta, keep + (s0 % 4 + i) * BLOCK if threshold else NULL,
                    1 if dA.shape[3] else c, row, grad)
            if dA.shape[3]:
                for j in range(first, n):
                    dA[b, h, t0 + j, s0 + i] = grad[j]
                for j in range(first, width):
                    grad[j] *= c
        for i in range(0, m, 8):  # ROWS
            rows = min(<Py_ssize_t> ROWS, m - i)
            seen = max(s0 + i - offset - t0, 0) if causal else 0  # the first query that sees one of these keys
            if seen < n:
                if dv.shape[3]:
                    _product(rows, Dv, n - seen, P + i * BLOCK + seen, BLOCK, 1, &do[b, h, t0 + seen, 0], do_row,
                             &dv[b, g, s0 + i, 0], dv.strides[2] // unit, True)
                if dk.shape[3]:
                    _product(rows, D, n - seen, dR + i * BLOCK + seen, BLOCK, 1, &q[b, h, t0 + seen, 0], q_row,
                             &dk[b, g, s0 + i, 0], dk.strides[2] // unit, True)
        for j in range(0, n, 8):  # ROWS
            visible = max(min(m, t0 + min(j + ROWS, n) + offset - s0), 0) if causal else m
            if dq.shape[3]:
                _product(min(<Py_ssize_t> ROWS, n - j), D, visible, dR + j, 1, BLOCK, &k[b, g, s0, 0], k_row,
                         &dq[b, h, t0 + j, 0], dq.strides[2] // unit, s0 > begin)


cdef void _scores(Py_ssize_t b, Py_ssize_t h, Py_ssize_t g, Py_ssize_t t0, Py_ssize_t n, Py_ssize_t s0, Py_ssize_t m,
                  const floating[:, :, :, :] k, const floating[:, :, :, :] bias, bint causal, Py_ssize_t offset,
                  Py_ssize_t window, const floating *qT, floating *A) noexcept nogil:
    """A[i, j] = c ⟨k_i, q_j⟩ + bias, or -inf where hidden, from column ``first`` of each row on."""
    cdef Py_ssize_t i, j, D = k.shape[3], first, width = (n + STEP - 1) // STEP * STEP, unit = sizeof(floating)
    cdef Py_ssize_t seen, diagonal = s0 - offset - t0 if causal else -BLOCK
    cdef floating extra
    for i in range(0, m, 8):  # ROWS
        first = first_column(i, diagonal)
        if first < width:
            _product(min(<Py_ssize_t> ROWS, m - i), width - first, D, &k[b, g, s0 + i, 0] if D else NULL,
                     k.strides[2] // unit, 1, qT + first, BLOCK, A + i * BLOCK + first, BLOCK, False)
    if bias.shape[0]:
        for i in range(m):
            first = first_column(i, diagonal)
            if bias.strides[2] == 0:
                extra = bias[b, h, t0, s0 + i]
                for j in range(first, width):
                    A[i * BLOCK + j] += extra
            else:
                for j in range(first, n):
                    A[i * BLOCK + j] += bias[b, h, t0 + j, s0 + i]
    for i in range(m):
        seen = s0 + i - offset - t0  # under ``causal`` by this query first; from seen + window on by none
        first = first_column(i, diagonal)
        if seen + window < width or causal and seen > first:
            _hide(first, width, seen if causal else 0, seen + window, A + i * BLOCK)


cdef void _draw(Py_ssize_t head, Py_ssize_t t0, Py_ssize_t s0, Py_ssize_t m, Py_ssize_t width, Py_ssize_t diagonal,
                uint32_t threshold, floating kept, uint64_t seed, floating *keep) noexcept nogil:
    """keep[s0 % 4 + i, j] = 1 / (1 - p) or 0; each counter serves four rows, the first of which is a multiple of 4."""
    cdef Py_ssize_t i, j
    cdef uint32_t w0, w1, w2, w3, k0 = <uint32_t> seed, k1 = <uint32_t> (seed >> 32)
    cdef floating *row
    for i in range(0, s0 % 4 + m, 4):
        row = keep + i * BLOCK
        for j in range(first_column(max(i - s0 % 4, 0), diagonal), width):
            philox(<uint32_t> (s0 // 4 + i // 4), <uint32_t> (t0 + j), <uint32_t> head, 1, k0, k1, &w0, &w1, &w2, &w3)
            row[j] = kept if w0 >= threshold else 0
            row[j + BLOCK] = kept if w1 >= threshold else 0
            row[j + 2 * BLOCK] = kept if w2 >= threshold else 0
            row[j + 3 * BLOCK] = kept if w3 >= threshold else 0


cdef void _clear(Py_ssize_t b, Py_ssize_t g, Py_ssize_t s0, Py_ssize_t s1, floating[:, :, :, :] x) noexcept nogil:
    cdef Py_ssize_t s, d
    cdef floating *row
    for s in range(s0, s1):
        row = &x[b, g, s, 0] if x.shape[3] else NULL
        for d in range(x.shape[3]):
            row[d] = 0


cdef inline floating *_aligned(floating *x) noexcept nogil:
    """The first address from x on that starts a cache line."""
    return <floating *> ((<size_t> x + 63) // 64 * 64)


cdef inline void _product(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const floating *a, Py_ssize_t a_row,
                          Py_ssize_t a_col, const floating *b, Py_ssize_t b_row, floating *c, Py_ssize_t c_row,
                          bint add) noexcept nogil:
    if floating is float:
        product_f(M, N, K, a, a_row, a_col, b, b_row, c, c_row, add)
    else:
        product_d(M, N, K, a, a_row, a_col, b, b_row, c, c_row, add)


cdef inline void _hide(Py_ssize_t first, Py_ssize_t width, Py_ssize_t seen, Py_ssize_t gone,
                       floating *row) noexcept nogil:
    if floating is float:
        hide_f(first, width, seen, gone, row)
    else:
        hide_d(first, width, seen, gone, row)


cdef inline void _softmax(Py_ssize_t m, Py_ssize_t width, Py_ssize_t diagonal, floating *A, floating *top,
                          floating *shrink, double *total) noexcept nogil:
    if floating is float:
        softmax_f(m, width, diagonal, A, top, shrink, total)
    else:
        softmax_d(m, width, diagonal, A, top, shrink, total)


cdef inline void _slopes(Py_ssize_t first, Py_ssize_t width, const floating *L, const floating *delta,
                         const floating *keep, floating c, floating *A, floating *dR) noexcept nogil:
    if floating is float:
        slopes_f(first, width, L, delta, keep, c, A, dR)
    else:
        slopes_d(first, width, L, delta, keep, c, A, dR)


cdef inline void _transpose(const floating *x, Py_ssize_t n, Py_ssize_t D, Py_ssize_t x_row, floating c,
                            floating *xT) noexcept nogil:
    if floating is float:
        transpose_f(n, D, x, x_row, c, xT)
    else:
        transpose_d(n, D, x, x_row, c, xT)


cdef inline floating _dot(Py_ssize_t n, const floating *a, const floating *b) noexcept nogil:
    if floating is float:
        return dot_f(n, a, b)
    else:
        return dot_d(n, a, b)


cdef inline floating _exp(floating x) noexcept nogil:
    if floating is float:
        return vm_decayf(x)
    else:
        return vm_decay(x)
