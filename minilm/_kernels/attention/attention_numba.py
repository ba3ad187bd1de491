"""The loops of attention, for Numba: four queries of a head at a time, whose scores are rows that stay in the cache.

The mathematics and the names are those of attention.py.  A row of ``pieces`` is t0, t1, s0, s1, offset, as
layout.pieces makes it; the keys that a query sees are begin ... begin + n - 1, those that four see together are
lo ... lo + n - 1.  Every product adds rows, four to four, so that what was read is used four times: for the scores
these are rows of the transposed keys, a copy, but where queries are few, products along D.

What belongs to the channels of four queries is one array (panels, 4, WIDE): the distance of its rows is known when the
loops are compiled, or each would ask first whether they overlap.  Scratch is made by np.zeros, which costs nothing
beside the work: np.empty is replaced in tests, by a function that Numba does not know.
"""

import numpy as np
from numba import boolean, float32, float64, int64, njit, prange, types, uint64, void

from ..random_numba import draw
from ..vecmath_numba import EXACT, PART, SUM, contiguous, dot, exp, largest

PIECES = types.Array(int64, 2, "C", readonly=True)
STATIC = PIECES, float64, boolean, int64, uint64, float64, uint64  # scale, causal, window, threshold, kept, seed
QUERIES = 256  # of one piece of the forward
WIDE = 128  # channels of a panel
MANY = 8  # queries for which a transposed copy of the keys is worth it


def _read(real):
    return types.Array(real, 4, "A", readonly=True)


def _forward(real):
    return void(*[_read(real)] * 4, *STATIC, real[:, :, :, :], real[:, :, ::1])


def _backward(real):
    return void(*[_read(real)] * 6, types.Array(real, 3, "C"), *STATIC, *[real[:, :, :, :]] * 3, real[:, :, :, ::1])


def _gather_of(real):
    return void(real[:, ::1], int64, types.Array(real, 2, "A", readonly=True), int64, real[::1])


@njit
def _zero(x, first, last):
    for i in range(first, last):
        row = contiguous(x[i])
        for j in range(len(row)):
            row[j] = 0


@njit
def _panels(D, like):
    return np.zeros((D + WIDE - 1) // WIDE * 4 * WIDE, like.dtype)


@njit(**EXACT)
def _load(x, t, queries, scale, panels):  # (T, D)
    """Rows t ... of x, times ``scale``, into the panels; zeros for the queries that there are not."""
    panels[:] = 0
    for q in range(queries):
        row = contiguous(x[t + q])
        for d0 in range(0, len(row), WIDE):
            part, to = row[d0 : d0 + WIDE], panels[(4 * (d0 // WIDE) + q) * WIDE :]
            for d in range(len(part)):
                to[d] = part[d] * scale


@njit(**EXACT)
def _store(panels, t, queries, scale, x):  # (T, D)
    for q in range(queries):
        row = contiguous(x[t + q])
        for d0 in range(0, len(row), WIDE):
            part, of = row[d0 : d0 + WIDE], panels[(4 * (d0 // WIDE) + q) * WIDE :]
            for d in range(len(part)):
                part[d] = of[d] * scale[q]


@njit(**SUM)
def _dot4(q, row):
    """The products of a row with four others."""
    sum0 = sum1 = sum2 = sum3 = row.dtype.type(0)
    for d in range(len(row)):
        sum0 += q[d] * row[d]
        sum1 += q[d + WIDE] * row[d]
        sum2 += q[d + 2 * WIDE] * row[d]
        sum3 += q[d + 3 * WIDE] * row[d]
    return sum0, sum1, sum2, sum3


@njit(**EXACT)
def _add_dots(panels, rows, lo, n, A):  # (S, D), (4, n)
    """A_qs += ⟨q, row_s⟩."""
    A0, A1, A2, A3 = A[0], A[1], A[2], A[3]
    for d0 in range(0, rows.shape[1], WIDE):
        q = panels[4 * d0 : 4 * (d0 + WIDE)]
        for s in range(n):
            sum0, sum1, sum2, sum3 = _dot4(q, contiguous(rows[lo + s])[d0 : d0 + WIDE])
            A0[s] += sum0
            A1[s] += sum1
            A2[s] += sum2
            A3[s] += sum3


@njit([_gather_of(float32), _gather_of(float64)], cache=True, **EXACT)
def _gather(A, n, rows, lo, panels):  # (4, n), (S, D)
    """q += Σ_s A_qs row_s."""
    A0, A1, A2, A3 = A[0], A[1], A[2], A[3]
    for d0 in range(0, rows.shape[1], WIDE):
        q, d1 = panels[4 * d0 : 4 * (d0 + WIDE)], min(d0 + WIDE, rows.shape[1])
        s = 0
        while s + 4 <= n:
            row0, row1 = contiguous(rows[lo + s])[d0:d1], contiguous(rows[lo + s + 1])[d0:d1]
            row2, row3 = contiguous(rows[lo + s + 2])[d0:d1], contiguous(rows[lo + s + 3])[d0:d1]
            a0, a1, a2, a3 = A0[s : s + 4], A1[s : s + 4], A2[s : s + 4], A3[s : s + 4]
            a00, a01, a02, a03 = a0[0], a0[1], a0[2], a0[3]
            a10, a11, a12, a13 = a1[0], a1[1], a1[2], a1[3]
            a20, a21, a22, a23 = a2[0], a2[1], a2[2], a2[3]
            a30, a31, a32, a33 = a3[0], a3[1], a3[2], a3[3]
            for d in range(d1 - d0):
                x0, x1, x2, x3 = row0[d], row1[d], row2[d], row3[d]
                q[d] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                q[d + WIDE] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                q[d + 2 * WIDE] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                q[d + 3 * WIDE] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
            s += 4
        while s < n:
            row, a0, a1, a2, a3 = contiguous(rows[lo + s])[d0:d1], A0[s], A1[s], A2[s], A3[s]
            for d in range(d1 - d0):
                q[d] += a0 * row[d]
                q[d + WIDE] += a1 * row[d]
                q[d + 2 * WIDE] += a2 * row[d]
                q[d + 3 * WIDE] += a3 * row[d]
            s += 1


@njit
def _transposed(rows, lo, hi):  # (S, D) -> (D, hi - lo)
    """Rows lo ... hi - 1 as columns, sixteen at a time: a line of the cache, or the strides of both are in its way."""
    turned = np.zeros((rows.shape[1], hi - lo), rows.dtype)
    for s0 in range(0, hi - lo, 16):
        for d in range(rows.shape[1]):
            for s in range(s0, min(s0 + 16, hi - lo)):
                turned[d, s] = rows[lo + s, d]
    return turned


@njit(**EXACT)
def _add_products(panels, columns, lo, n, sums, A):  # (D, S), (4, n)
    """A_qs += ⟨q, column_s⟩, as sums of the rows of ``columns``."""
    D = len(columns)
    sums[:] = 0
    for d0 in range(0, D, WIDE):
        q = panels[4 * d0 : 4 * (d0 + WIDE)].reshape(4, WIDE)
        _gather(q, min(WIDE, D - d0), columns[d0:, lo : lo + n], 0, sums)
    for s0 in range(0, n, WIDE):
        for i in range(4):
            to, part = A[i, s0 : min(s0 + WIDE, n)], sums[4 * s0 + i * WIDE :]
            for s in range(len(to)):
                to[s] += part[s]


@njit(**EXACT)
def _spread(A, n, panels, rows, lo):  # (4, n), (S, D)
    """row_s += Σ_q A_qs q."""
    A0, A1, A2, A3 = A[0], A[1], A[2], A[3]
    for d0 in range(0, rows.shape[1], WIDE):
        q = panels[4 * d0 : 4 * (d0 + WIDE)]
        for s in range(n):
            row, a0, a1, a2, a3 = contiguous(rows[lo + s])[d0 : d0 + WIDE], A0[s], A1[s], A2[s], A3[s]
            for d in range(len(row)):
                row[d] += a0 * q[d] + a1 * q[d + WIDE] + a2 * q[d + 2 * WIDE] + a3 * q[d + 3 * WIDE]


@njit(**SUM)
def _exponentials(A, top):
    """A = exp(A - top), and their sum."""
    total = top - top
    for s in range(len(A)):
        A[s] = exp(A[s] - top)
        total += A[s]
    return total


@njit
def _scale(A, keep):
    for s in range(len(A)):
        A[s] *= keep[s]


@njit(**EXACT)
def _gradient(A, dR, keep, lse, delta):
    """R in the place of A and dA in the place of dR."""
    for s in range(len(A)):
        P = exp(A[s] - lse)
        R = P * keep[s]
        A[s], dR[s] = R, R * dR[s] - P * delta


@njit
def _seen(t, s0, s1, offset, causal, window):
    """The first key that query t of a piece sees, and the one after the last."""
    begin = max(s0, t + offset - window + 1)
    return begin, max(min(s1, t + 1 + offset) if causal else s1, begin)


@njit
def _start(bias, t, queries, lo, n, A):
    """The scores before the products: the bias, or 0."""
    for q in range(4):
        row = A[q, :n]
        row[:] = 0
        if q < queries and bias.size > 0:
            for s in range(n):
                row[s] = bias[t + q, lo + s]


@njit
def _hide(row, lo, begin, end):
    for s in range(begin - lo):
        row[s] = -np.inf
    for s in range(end - lo, len(row)):
        row[s] = -np.inf


@njit(**EXACT)
def _forward_piece(head, q, k, v, bias, piece, scale, causal, window, threshold, kept, seed, o, lse):
    t0, t1, s0, s1, offset = piece
    real = q.dtype.type
    Q, O, A = _panels(q.shape[1], q), _panels(v.shape[1], q), np.zeros((4, s1 - s0), q.dtype)
    keep, factor = np.zeros(s1 - s0 + 3, q.dtype), np.zeros(4, q.dtype)
    first = _seen(t0, s0, s1, offset, causal, window)[0]
    last = max(_seen(t1 - 1, s0, s1, offset, causal, window)[1], first)
    many = t1 - t0 >= MANY
    kT, sums = _transposed(k, first, last if many else first), _panels(last - first if many else 0, q)
    for t in range(t0, t1, 4):
        queries = min(4, t1 - t)
        lo = _seen(t, s0, s1, offset, causal, window)[0]
        n = max(_seen(t + queries - 1, s0, s1, offset, causal, window)[1] - lo, 0)
        _load(q, t, queries, real(scale), Q)
        _start(bias, t, queries, lo, n, A)
        if many:
            _add_products(Q, kT, lo - first, n, sums, A)
        else:
            _add_dots(Q, k, lo, n, A)
        for i in range(queries):
            row = A[i, :n]
            begin, end = _seen(t + i, s0, s1, offset, causal, window)
            _hide(row, lo, begin, end)
            top, total = real(-np.inf), 0.0
            if n > 0:
                top = largest(row)
            if top == -np.inf:
                top = real(0)
            for s in range(0, n, PART):
                total += _exponentials(row[s : s + PART], top)
            lse[t + i] = top + np.log(total) if total != 0 else np.inf  # inf makes P zero in the backward
            factor[i] = 1 / total if total != 0 else 0
            if threshold > 0:
                draw(lo // 4, t + i, head, 1, seed, threshold, real(kept), keep[: lo % 4 + n])
                _scale(row, keep[lo % 4 :])
        O[:] = 0
        _gather(A, n, v, lo, O)
        _store(O, t, queries, factor, o)


@njit(**EXACT)
def _backward_piece(
    head, do, q, k, v, bias, o, lse, piece, scale, causal, window, threshold, kept, seed, dq, dk, dv, dA
):
    t0, t1, s0, s1, offset = piece
    real = q.dtype.type
    Q, dQ, dO = _panels(q.shape[1], q), _panels(q.shape[1], q), _panels(v.shape[1], q)
    A, dR = np.zeros((4, s1 - s0), q.dtype), np.zeros((4, s1 - s0), q.dtype)
    keep, factor = np.ones(s1 - s0 + 3, q.dtype), np.full(4, scale).astype(q.dtype)
    last = s1 if t1 - t0 >= MANY else s0
    kT, vT, sums = _transposed(k, s0, last), _transposed(v, s0, last), _panels(last - s0, q)
    for t in range(t0, t1, 4):
        queries = min(4, t1 - t)
        lo = _seen(t, s0, s1, offset, causal, window)[0]
        n = max(_seen(t + queries - 1, s0, s1, offset, causal, window)[1] - lo, 0)
        _load(q, t, queries, real(scale), Q)
        _load(do, t, queries, real(1), dO)
        _start(bias, t, queries, lo, n, A)
        _zero(dR[:, :n], 0, 4)
        if last > s0:
            _add_products(Q, kT, lo - s0, n, sums, A)
            _add_products(dO, vT, lo - s0, n, sums, dR)
        else:
            _add_dots(Q, k, lo, n, A)
            _add_dots(dO, v, lo, n, dR)
        for i in range(queries):
            begin, end = _seen(t + i, s0, s1, offset, causal, window)
            _hide(A[i, :n], lo, begin, end)
            if threshold > 0:
                draw(lo // 4, t + i, head, 1, seed, threshold, real(kept), keep[: lo % 4 + n])
            delta = real(dot(contiguous(do[t + i]), contiguous(o[t + i])))
            _gradient(A[i, :n], dR[i, :n], keep[lo % 4 :], lse[t + i], delta)
            if dA.size > 0:
                for s in range(n):
                    dA[t + i, lo + s] = dR[i, s]
        _zero(A[:, :n], queries, 4)
        _zero(dR[:, :n], queries, 4)
        if dv.size > 0:
            _spread(A, n, dO, dv, lo)
        if dk.size > 0:
            _spread(dR, n, Q, dk, lo)
        if dq.size > 0:
            dQ[:] = 0
            _gather(dR, n, k, lo, dQ)
            _store(dQ, t, queries, factor, dq)


@njit([_forward(float32), _forward(float64)], parallel=True, cache=True, error_model="numpy")
def forward(q, k, v, bias, pieces, scale, causal, window, threshold, kept, seed, o, lse):
    H, shared = q.shape[1], q.shape[1] // max(k.shape[1], 1)
    for w in prange(q.shape[0] * H * len(pieces)):
        head = np.int64(w) // len(pieces)  # prange counts in uint64, which would turn every index into one
        b, h, g = head // H, head % H, head % H // shared
        piece = pieces[np.int64(w) % len(pieces)]
        static = scale, causal, window, threshold, kept, seed
        _forward_piece(head, q[b, h], k[b, g], v[b, g], bias[b, h], piece, *static, o[b, h], lse[b, h])


@njit([_backward(float32), _backward(float64)], parallel=True, cache=True, error_model="numpy")
def backward(do, q, k, v, bias, o, lse, pieces, scale, causal, window, threshold, kept, seed, dq, dk, dv, dA):
    H, G = q.shape[1], k.shape[1]
    for w in prange(q.shape[0] * G * len(pieces)):
        head, piece = np.int64(w) // len(pieces), pieces[np.int64(w) % len(pieces)]
        b, g = head // G, head % G
        _zero(dk[b, g], piece[2], piece[3])
        _zero(dv[b, g], piece[2], piece[3])
        for h in range(g * (H // G), (g + 1) * (H // G)):
            arrays = do[b, h], q[b, h], k[b, g], v[b, g], bias[b, h], o[b, h], lse[b, h]
            static = scale, causal, window, threshold, kept, seed
            grads = dq[b, h], dk[b, g], dv[b, g], dA[b, h]
            _backward_piece(b * H + h, *arrays, piece, *static, *grads)
