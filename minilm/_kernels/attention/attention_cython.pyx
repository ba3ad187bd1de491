# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of attention, for Cython: blocks of 64 queries against blocks of 64 keys, with an online softmax.

The mathematics and the names are those of attention.py.  A block of scores is kept transposed, A[i, j] for key s0 + i
and query t0 + j, so that the softmax of 64 queries runs along vectors and only q (and do) is ever transposed.  Under
``causal`` the columns below ``first`` of a row of the block are hidden; they are neither computed nor read.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY, log
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

cdef extern from "vecmath.h" nogil:
    float vm_expf(float)
    double vm_exp(double)

cdef extern from "philox.h" nogil:
    void philox(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                uint32_t*, uint32_t*, uint32_t*, uint32_t*)

cdef extern from * nogil:
    """
    #define REAL float
    #define NAME(x) x##_f
    #include "attention/attention_tiles.h"
    #undef REAL
    #undef NAME
    #define REAL double
    #define NAME(x) x##_d
    #include "attention/attention_tiles.h"
    #undef REAL
    #undef NAME
    """
    void product_f(long, long, long, const float*, long, long, const float*, long, float*, long, int)
    void product_d(long, long, long, const double*, long, long, const double*, long, double*, long, int)

cdef enum:
    BLOCK = 64  # queries, and keys, of a block
    ROWS = 8  # rows of one product
    STEP = 16  # ``first`` is a multiple of this: of every vector's length, and of ROWS


def forward(const floating[:, :, :, :] q, const floating[:, :, :, :] k, const floating[:, :, :, :] v,
                   const floating[:, :, :, :] bias, double scale, bint causal, Py_ssize_t offset,
                   uint32_t threshold, double kept, uint64_t seed, floating[:, :, :, :] o, floating[:, :, ::1] lse):
    cdef Py_ssize_t H = q.shape[1], T = q.shape[2], blocks = (T + BLOCK - 1) // BLOCK
    cdef Py_ssize_t w, work = q.shape[0] * H * blocks
    cdef int failed = 0
    for w in prange(work, nogil=True, schedule="dynamic", chunksize=1):
        failed += _forward_block(w // blocks // H, w // blocks % H, w % blocks * BLOCK, q, k, v, bias, scale, causal,
                                 offset, threshold, kept, seed, o, lse)
    if failed:
        raise MemoryError("attention: no memory for a block of scores")


cdef int _forward_block(Py_ssize_t b, Py_ssize_t h, Py_ssize_t t0, const floating[:, :, :, :] q,
                         const floating[:, :, :, :] k, const floating[:, :, :, :] v,
                         const floating[:, :, :, :] bias, double scale, bint causal, Py_ssize_t offset,
                         uint32_t threshold, double kept, uint64_t seed, floating[:, :, :, :] o,
                         floating[:, :, ::1] lse) noexcept nogil:
    cdef Py_ssize_t T = q.shape[2], D = q.shape[3], S = k.shape[2], Dv = v.shape[3]
    cdef Py_ssize_t g = h // (q.shape[1] // k.shape[1]), n = min(<Py_ssize_t> BLOCK, T - t0), unit = sizeof(floating)
    cdef Py_ssize_t end = max(min(S, t0 + n + offset), 0) if causal else S
    cdef Py_ssize_t i, j, d, s0, m, first, visible, o_row = o.strides[2] // unit, v_row = v.strides[2] // unit
    cdef floating *scratch = <floating *> malloc((BLOCK * (D + 2 * BLOCK + 2) + STEP) * sizeof(floating))
    cdef floating *qT = _aligned(scratch)  # (D, BLOCK), times scale
    cdef floating *A = qT + D * BLOCK  # (BLOCK, BLOCK)
    cdef floating *keep = A + BLOCK * BLOCK
    cdef floating *top = keep + BLOCK * BLOCK
    cdef floating *shrink = top + BLOCK
    cdef double total[BLOCK]  # a double: an error of the sum would be one of δ, and every row of dA would add up to it
    cdef floating *row
    cdef floating x, base
    if scratch == NULL:
        return 1
    _transpose(&q[b, h, t0, 0] if D else NULL, n, D, q.strides[2] // unit, <floating> scale, qT)
    for j in range(BLOCK):
        top[j] = -INFINITY
        total[j] = 0
    for j in range(n):
        row = &o[b, h, t0 + j, 0] if Dv else NULL
        for d in range(Dv):
            row[d] = 0
    for s0 in range(0, end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        _scores(b, h, g, t0, n, s0, m, k, bias, causal, offset, qT, A)
        for j in range(BLOCK):
            shrink[j] = top[j]
        for i in range(m):
            row = A + i * BLOCK
            for j in range(_first(i, s0, t0, causal, offset), BLOCK):
                top[j] = row[j] if row[j] > top[j] else top[j]
        for j in range(BLOCK):
            shrink[j] = _exp(shrink[j] - (0 if top[j] == -INFINITY else top[j]))
            total[j] *= shrink[j]
        for i in range(m):
            row = A + i * BLOCK
            for j in range(_first(i, s0, t0, causal, offset), BLOCK):
                base = 0 if top[j] == -INFINITY else top[j]
                x = _exp(row[j] - base)
                total[j] += x
                row[j] = x
        if threshold:
            _draw(b * q.shape[1] + h, t0, s0, m, threshold, <floating> kept, seed, keep)
            for i in range(m):
                row = A + i * BLOCK
                for j in range(_first(i, s0, t0, causal, offset), BLOCK):
                    row[j] *= keep[i * BLOCK + j]
        if Dv == 0:
            continue
        for j in range(0, n, 8):  # ROWS
            if s0:
                for i in range(j, min(j + ROWS, n)):
                    row = &o[b, h, t0 + i, 0]
                    for d in range(Dv):
                        row[d] *= shrink[i]
            visible = min(m, t0 + min(j + ROWS, n) + offset - s0) if causal else m
            if visible > 0:
                _product(min(<Py_ssize_t> ROWS, n - j), Dv, visible, A + j, 1, BLOCK, &v[b, g, s0, 0], v_row,
                         &o[b, h, t0 + j, 0], o_row, True)
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
                    const floating[:, :, :, :] o, const floating[:, :, ::1] lse, double scale, bint causal,
                    Py_ssize_t offset, uint32_t threshold, double kept, uint64_t seed, floating[:, :, :, :] dq,
                    floating[:, :, :, :] dk, floating[:, :, :, :] dv, floating[:, :, :, ::1] dA):
    cdef Py_ssize_t G = k.shape[1]
    cdef Py_ssize_t w, work = k.shape[0] * G
    cdef int failed = 0
    for w in prange(work, nogil=True, schedule="dynamic", chunksize=1):
        failed += _backward_head(w // G, w % G, do, q, k, v, bias, o, lse, scale, causal, offset, threshold, kept, seed,
                                 dq, dk, dv, dA)
    if failed:
        raise MemoryError("attention: no memory for a block of scores")


cdef int _backward_head(Py_ssize_t b, Py_ssize_t g, const floating[:, :, :, :] do,
                        const floating[:, :, :, :] q, const floating[:, :, :, :] k,
                        const floating[:, :, :, :] v, const floating[:, :, :, :] bias,
                        const floating[:, :, :, :] o, const floating[:, :, ::1] lse, double scale, bint causal,
                        Py_ssize_t offset, uint32_t threshold, double kept, uint64_t seed,
                        floating[:, :, :, :] dq, floating[:, :, :, :] dk, floating[:, :, :, :] dv,
                        floating[:, :, :, ::1] dA) noexcept nogil:
    cdef Py_ssize_t h, t0, shared = q.shape[1] // k.shape[1]
    cdef floating *scratch = <floating *> malloc(
        (BLOCK * (q.shape[3] + v.shape[3] + 3 * BLOCK + 2) + STEP) * sizeof(floating))
    if scratch == NULL:
        return 1
    _clear(b, g, dk)
    _clear(b, g, dv)
    for h in range(g * shared, (g + 1) * shared):
        for t0 in range(0, q.shape[2], 64):  # BLOCK
            _backward_block(b, g, h, t0, do, q, k, v, bias, o, lse, scale, causal, offset, threshold, kept, seed,
                            dq, dk, dv, dA, _aligned(scratch))
    free(scratch)
    return 0


cdef void _backward_block(Py_ssize_t b, Py_ssize_t g, Py_ssize_t h, Py_ssize_t t0, const floating[:, :, :, :] do,
                          const floating[:, :, :, :] q, const floating[:, :, :, :] k,
                          const floating[:, :, :, :] v, const floating[:, :, :, :] bias,
                          const floating[:, :, :, :] o, const floating[:, :, ::1] lse, double scale, bint causal,
                          Py_ssize_t offset, uint32_t threshold, double kept, uint64_t seed,
                          floating[:, :, :, :] dq, floating[:, :, :, :] dk, floating[:, :, :, :] dv,
                          floating[:, :, :, ::1] dA, floating *scratch) noexcept nogil:
    cdef Py_ssize_t T = q.shape[2], D = q.shape[3], S = k.shape[2], Dv = v.shape[3]
    cdef Py_ssize_t n = min(<Py_ssize_t> BLOCK, T - t0), unit = sizeof(floating)
    cdef Py_ssize_t end = max(min(S, t0 + n + offset), 0) if causal else S
    cdef Py_ssize_t i, j, d, s0, m, first, visible, seen, rows, width = (n + STEP - 1) // STEP * STEP
    cdef Py_ssize_t q_row = q.strides[2] // unit, k_row = k.strides[2] // unit, v_row = v.strides[2] // unit, do_row = do.strides[2] // unit
    cdef floating *qT = scratch  # (D, BLOCK), times scale
    cdef floating *doT = qT + D * BLOCK  # (Dv, BLOCK)
    cdef floating *P = doT + Dv * BLOCK  # (BLOCK, BLOCK), then R
    cdef floating *dR = P + BLOCK * BLOCK  # then dA c
    cdef floating *keep = dR + BLOCK * BLOCK
    cdef floating *delta = keep + BLOCK * BLOCK
    cdef floating *L = delta + BLOCK
    cdef floating *row
    cdef floating *grad
    cdef floating c = <floating> scale
    _transpose(&q[b, h, t0, 0] if D else NULL, n, D, q_row, c, qT)
    _transpose(&do[b, h, t0, 0] if Dv else NULL, n, Dv, do_row, 1, doT)
    for j in range(BLOCK):
        delta[j] = _dot(Dv, &do[b, h, t0 + j, 0], &o[b, h, t0 + j, 0]) if Dv and j < n else 0
        L[j] = lse[b, h, t0 + j] if j < n else INFINITY
    for j in range(n):
        row = &dq[b, h, t0 + j, 0] if dq.shape[3] else NULL
        for d in range(dq.shape[3]):
            row[d] = 0
    for s0 in range(0, end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        _scores(b, h, g, t0, n, s0, m, k, bias, causal, offset, qT, P)
        for i in range(0, m, 8):  # ROWS
            first = _first(i, s0, t0, causal, offset)
            if first < width:
                _product(min(<Py_ssize_t> ROWS, m - i), width - first, Dv, &v[b, g, s0 + i, 0] if Dv else NULL, v_row,
                         1, doT + first, BLOCK, dR + i * BLOCK + first, BLOCK, False)
        if threshold:
            _draw(b * q.shape[1] + h, t0, s0, m, threshold, <floating> kept, seed, keep)
        for i in range(m):
            row = P + i * BLOCK
            grad = dR + i * BLOCK
            first = _first(i, s0, t0, causal, offset)
            for j in range(first, width):
                row[j] = _exp(row[j] - L[j])
            if threshold:
                for j in range(first, width):
                    grad[j] = row[j] * (grad[j] * keep[i * BLOCK + j] - delta[j])
                    row[j] *= keep[i * BLOCK + j]
            else:
                for j in range(first, width):
                    grad[j] = row[j] * (grad[j] - delta[j])
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
            visible = min(m, t0 + min(j + ROWS, n) + offset - s0) if causal else m
            if visible > 0 and dq.shape[3]:
                _product(min(<Py_ssize_t> ROWS, n - j), D, visible, dR + j, 1, BLOCK, &k[b, g, s0, 0], k_row,
                         &dq[b, h, t0 + j, 0], dq.strides[2] // unit, True)


cdef void _scores(Py_ssize_t b, Py_ssize_t h, Py_ssize_t g, Py_ssize_t t0, Py_ssize_t n, Py_ssize_t s0, Py_ssize_t m,
                  const floating[:, :, :, :] k, const floating[:, :, :, :] bias, bint causal, Py_ssize_t offset,
                  const floating *qT, floating *A) noexcept nogil:
    """A[i, j] = c ⟨k_i, q_j⟩ + bias, or -inf where hidden, from column ``first`` of each row on."""
    cdef Py_ssize_t i, j, D = k.shape[3], first, width = (n + STEP - 1) // STEP * STEP, unit = sizeof(floating)
    cdef floating extra
    for i in range(0, m, 8):  # ROWS
        first = _first(i, s0, t0, causal, offset)
        if first < width:
            _product(min(<Py_ssize_t> ROWS, m - i), width - first, D, &k[b, g, s0 + i, 0] if D else NULL, k.strides[2] // unit, 1,
                     qT + first, BLOCK, A + i * BLOCK + first, BLOCK, False)
    if bias.shape[0]:
        for i in range(m):
            first = _first(i, s0, t0, causal, offset)
            if bias.strides[2] == 0:
                extra = bias[b, h, t0, s0 + i]
                for j in range(first, width):
                    A[i * BLOCK + j] += extra
            else:
                for j in range(first, n):
                    A[i * BLOCK + j] += bias[b, h, t0 + j, s0 + i]
    for i in range(m):
        for j in range(width, BLOCK):
            A[i * BLOCK + j] = 0
        if causal:
            for j in range(_first(i, s0, t0, causal, offset), min(s0 + i - offset - t0, <Py_ssize_t> BLOCK)):
                A[i * BLOCK + j] = -INFINITY


cdef inline Py_ssize_t _first(Py_ssize_t i, Py_ssize_t s0, Py_ssize_t t0, bint causal, Py_ssize_t offset) noexcept nogil:
    """The first column of row i of a block that is computed: the first query that sees a key of its band, rounded down."""
    if not causal:
        return 0
    return min(max(s0 + i // ROWS * ROWS - offset - t0, 0), <Py_ssize_t> BLOCK) // STEP * STEP


cdef void _draw(Py_ssize_t head, Py_ssize_t t0, Py_ssize_t s0, Py_ssize_t m, uint32_t threshold, floating kept,
                uint64_t seed, floating *keep) noexcept nogil:
    """keep[i, j] = 1 / (1 - p) or 0; a block starts at a multiple of 4 keys, so each counter serves four rows."""
    cdef Py_ssize_t i, j
    cdef uint32_t w0, w1, w2, w3, k0 = <uint32_t> seed, k1 = <uint32_t> (seed >> 32)
    cdef floating *row
    for i in range(0, m, 4):
        row = keep + i * BLOCK
        for j in range(BLOCK):
            philox(<uint32_t> ((s0 + i) // 4), <uint32_t> (t0 + j), <uint32_t> head, 1, k0, k1, &w0, &w1, &w2, &w3)
            row[j] = kept if w0 >= threshold else 0
            row[j + BLOCK] = kept if w1 >= threshold else 0
            row[j + 2 * BLOCK] = kept if w2 >= threshold else 0
            row[j + 3 * BLOCK] = kept if w3 >= threshold else 0


cdef void _transpose(const floating *x, Py_ssize_t n, Py_ssize_t D, Py_ssize_t x_row, floating c,
                     floating *xT) noexcept nogil:
    """xT (D, BLOCK) = c x (n, D), with zeros for the queries that are not there."""
    cdef Py_ssize_t d, j
    for d in range(D):
        for j in range(n):
            xT[d * BLOCK + j] = c * x[j * x_row + d]
        for j in range(n, BLOCK):
            xT[d * BLOCK + j] = 0


cdef void _clear(Py_ssize_t b, Py_ssize_t g, floating[:, :, :, :] x) noexcept nogil:
    cdef Py_ssize_t s, d
    cdef floating *row
    for s in range(x.shape[2]):
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


cdef floating _dot(Py_ssize_t n, const floating *a, const floating *b) noexcept nogil:
    """⟨a, b⟩, summed in double: the rows of dA add up to 0 as exactly as this agrees with the sum of R dR."""
    cdef Py_ssize_t d, l, whole = n // 8 * 8
    cdef double lanes[8]
    for l in range(8):
        lanes[l] = 0
    for d in range(0, whole, 8):
        for l in range(8):
            lanes[l] += <double> a[d + l] * b[d + l]
    for d in range(whole, n):
        lanes[0] += <double> a[d] * b[d]
    return <floating> ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + (lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))


cdef inline floating _exp(floating x) noexcept nogil:
    if floating is float:
        return vm_expf(x)
    else:
        return vm_exp(x)
