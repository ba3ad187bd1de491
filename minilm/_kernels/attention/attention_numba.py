"""The loops of attention, for Numba: blocks of 64 queries against blocks of 64 keys, with an online softmax.

The mathematics and the names are those of attention.py.  As in attention_cython.pyx, a block of scores is kept
transposed, A[i, j] for key s0 + i and query t0 + j, so that the softmax of 64 queries runs along rows and only q (and
do) is ever transposed.  Row i of a block is seen from column ``hidden`` + i on: the columns below ``first`` are neither
computed nor read.  A row of ``pieces`` is t0, t1, s0, s1, offset, as layout.pieces makes it.  A single query has a loop
of its own.

Scratch is an array x of rows of 64 numbers: the constants below say which rows are what.  The loops over a block are
inlined by Numba, which compiles a function once more for each that calls it.
"""

from typing import Any

import numpy as np
from numba import boolean, float32, float64, int64, njit, prange, types, uint64, void

from ..random_numba import HALF, LOW, _philox
from ..vecmath_numba import EXACT, PART, SUM, contiguous, decay, dot, largest
from .attention_tiles_numba import BLOCK, STEP, add_product, rows, scratch, transpose

PIECES = types.Array(int64, 2, "C", readonly=True)
STATIC = PIECES, float64, boolean, int64, uint64, float64, uint64  # scale, causal, window, threshold, kept, seed
QUERIES = BLOCK  # of one piece of the forward
BAND = 8  # rows of scores that begin at the same column
philox = njit(forceinline=True)(_philox.py_func)  # or its loop does not vectorise
INSIDE: dict[str, Any] = {**EXACT, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # called by loops alone

A_, TOP, BASE, SHRINK, SUMS = 0, BLOCK, BLOCK + 1, BLOCK + 2, BLOCK + 3
L_, DELTA, DR, KEEP, ALL = TOP, BASE, BLOCK + 4, 2 * BLOCK + 4, 3 * BLOCK + 8


def _read(real):
    return types.Array(real, 4, "A", readonly=True)


def _forward(real):
    return void(*[_read(real)] * 4, *STATIC, real[:, :, :, :], real[:, :, ::1])


def _backward(real):
    return void(*[_read(real)] * 6, types.Array(real, 3, "C"), *STATIC, *[real[:, :, :, :]] * 3, real[:, :, :, ::1])


@njit(**INSIDE)
def _zero(x, first, last):
    for i in range(first, last):
        row = contiguous(x[i])
        for j in range(len(row)):
            row[j] = 0


@njit(**INSIDE)
def _range(t0, t1, s0, s1, offset, causal, window):
    """The first key that any query t0 <= t < t1 of a piece sees, and the one after the last."""
    return max(s0, t0 + offset - window + 1), (min(s1, t1 + offset) if causal else s1)


@njit(**INSIDE)
def _first(i, hidden):
    """The first column of row i that is computed, where row 0 is seen from column ``hidden`` on."""
    return min(max(hidden + i // BAND * BAND, 0), BLOCK) & -STEP


@njit(inline="always")
def _clear(row, m, hidden, width, x):
    for i in range(m):
        first = _first(i, hidden)
        A = rows(x, row + i, first)[0]
        for j in range(width - first):
            A[j] = 0


@njit(inline="always")
def _add_dots(y, s0, m, hidden, width, xT, to):  # (S, D), (D, BLOCK) -> (m, BLOCK)
    """to_ij += ⟨y_i, x_j⟩ from the first column of each row on."""
    band = BAND if hidden > -BLOCK else BLOCK
    for i in range(0, m, band):
        first, last = _first(i, hidden), min(i + band, m)
        if first < width:
            add_product(y[s0 + i : s0 + last], rows(xT, 0, 0)[: y.shape[1], first:width], to[i:last, first:width])


@njit(inline="always")
def _scores(qT, k, bias, t0, n, s0, m, diagonal, causal, window, width, x):
    """A_ij = c ⟨k_i, q_j⟩ + bias_ji, or -inf where hidden, from the first column of each row on."""
    hidden = diagonal if causal else -BLOCK
    if bias.size > 0:
        transpose(bias[t0 : t0 + n, s0 : s0 + m], qT.dtype.type(1), rows(x, A_, 0))
    else:
        _clear(A_, m, hidden, width, x)
    _add_dots(k, s0, m, hidden, width, qT, rows(x, A_, 0))
    if hidden > -BLOCK or diagonal + window < width:
        for i in range(m):
            first = _first(i, hidden)
            A, seen = rows(x, A_ + i, first)[0], diagonal + i - first  # under ``causal`` by this query first
            for j in range(width - first):
                A[j] = -np.inf if (causal and j < seen) or j >= seen + window else A[j]


@njit(inline="always")
def _draw(head, t0, s0, m, hidden, width, threshold, kept, seed, x):
    """keep[s0 % 4 + i, j] = 1 / (1 - p) or 0; each counter serves four rows, the first of which is a multiple of 4."""
    k0, k1, zero = seed & LOW, seed >> HALF, x.dtype.type(0)
    for i in range(0, s0 % 4 + m, 4):
        c0, first = np.uint64((s0 + i) // 4), _first(max(i - s0 % 4, 0), hidden)
        keep = rows(x, KEEP + i, first)
        for j in range(width - first):
            w0, w1, w2, w3 = philox(c0, np.uint64(t0 + first + j), np.uint64(head), np.uint64(1), k0, k1)
            keep[0, j] = kept if w0 >= threshold else zero
            keep[1, j] = kept if w1 >= threshold else zero
            keep[2, j] = kept if w2 >= threshold else zero
            keep[3, j] = kept if w3 >= threshold else zero


@njit(inline="always")
def _softmax(m, hidden, width, x, total):
    """Online softmax of a block, a row for each key: what was summed so far is to be multiplied by ``shrink``."""
    top, base, shrink = rows(x, TOP, 0)[0], rows(x, BASE, 0)[0], rows(x, SHRINK, 0)[0]
    for j in range(width):
        shrink[j] = top[j]
    for i in range(m):
        first = _first(i, hidden)
        A, most = rows(x, A_ + i, first)[0], rows(x, TOP, first)[0]
        for j in range(width - first):
            most[j] = A[j] if A[j] > most[j] else most[j]
    for j in range(width):
        base[j] = top[j] if top[j] > -np.inf else 0
        shrink[j] = decay(shrink[j] - base[j])
        total[j] *= shrink[j]
    for i0 in range(0, m, BAND):
        first = _first(i0, hidden)
        less, sums = rows(x, BASE, first)[0], rows(x, SUMS, first)[0]
        for j in range(width - first):
            sums[j] = 0
        for i in range(i0, min(i0 + BAND, m)):
            A = rows(x, A_ + i, first)[0]
            for j in range(width - first):
                P = decay(A[j] - less[j])
                A[j] = P
                sums[j] += P
        for j in range(width - first):
            total[first + j] += sums[j]


@njit(inline="always")
def _keep(s0, m, hidden, width, x):
    for i in range(m):
        first = _first(i, hidden)
        A, keep = rows(x, A_ + i, first)[0], rows(x, KEEP + s0 % 4 + i, first)[0]
        for j in range(width - first):
            A[j] *= keep[j]


@njit(inline="always")
def _slopes(s0, m, hidden, width, c, dropout, x):
    """R in the place of the scores, and c dA in the place of dR."""
    for i in range(m):
        first = _first(i, hidden)
        A, dR, keep = rows(x, A_ + i, first)[0], rows(x, DR + i, first)[0], rows(x, KEEP + s0 % 4 + i, first)[0]
        L, delta = rows(x, L_, first)[0], rows(x, DELTA, first)[0]
        if dropout:
            for j in range(width - first):
                P = decay(A[j] - L[j])
                A[j] = P * keep[j]
                dR[j] = P * (dR[j] * keep[j] - delta[j]) * c
        else:
            for j in range(width - first):
                P = decay(A[j] - L[j])
                A[j] = P
                dR[j] = P * (dR[j] - delta[j]) * c


@njit(**INSIDE)
def _forward_block(head, q, k, v, bias, piece, scale, causal, window, threshold, kept, seed, o, lse):
    t0, t1, s0, s1, offset = piece
    real, n = q.dtype.type, t1 - t0
    width = (n + STEP - 1) // STEP * STEP
    qT, x, total = scratch(q, q.shape[1]), scratch(q, DR if threshold == 0 else ALL), np.zeros(BLOCK)
    A, top, shrink = rows(x, A_, 0), rows(x, TOP, 0)[0], rows(x, SHRINK, 0)[0]
    for j in range(BLOCK):
        top[j] = -np.inf
    transpose(q[t0:t1], real(scale), rows(qT, 0, 0))
    _zero(o, t0, t1)
    begin, end = _range(t0, t1, s0, s1, offset, causal, window)
    for s in range(begin, end, BLOCK):
        m, diagonal = min(BLOCK, end - s), s - offset - t0
        hidden = diagonal if causal else -BLOCK
        _scores(qT, k, bias, t0, n, s, m, diagonal, causal, window, width, x)
        _softmax(m, hidden, width, x, total)
        if threshold > 0:
            _draw(head, t0, s, m, hidden, width, threshold, real(kept), seed, x)
            _keep(s, m, hidden, width, x)
        if s > begin:
            for j in range(n):
                row = contiguous(o[t0 + j])
                for d in range(len(row)):
                    row[d] *= shrink[j]
        band = BAND if hidden > -BLOCK else BLOCK
        for j in range(0, n, band):
            last = min(j + band, n)
            seen = max(min(m, last - diagonal), 0) if causal else m
            add_product(A[:seen, j:last].T, v[s : s + seen], o[t0 + j : t0 + last])
    for j in range(n):
        lse[t0 + j] = top[j] + np.log(total[j]) if total[j] != 0 else np.inf  # inf makes P zero in the backward
        row, factor = contiguous(o[t0 + j]), real(1 / total[j] if total[j] != 0 else 0.0)
        for d in range(len(row)):
            row[d] *= factor


@njit(**SUM)
def _dot4(x, a, b, c, d):
    """The products of a row with four others."""
    sum_a = sum_b = sum_c = sum_d = x.dtype.type(0)
    for i in range(len(x)):
        sum_a += a[i] * x[i]
        sum_b += b[i] * x[i]
        sum_c += c[i] * x[i]
        sum_d += d[i] * x[i]
    return sum_a, sum_b, sum_c, sum_d


@njit(**SUM)
def _exponentials(A, top):
    """A = exp(A - top), and their sum."""
    total = top - top
    for s in range(len(A)):
        A[s] = decay(A[s] - top)
        total += A[s]
    return total


@njit(**INSIDE)
def _forward_query(q, k, v, bias, piece, scale, causal, window, o, lse):
    """One query, without dropout: every key between the first and the last that it sees counts, and no other."""
    t, real = piece[0], q.dtype.type
    begin, end = _range(*piece, causal, window)
    n, row = max(end - begin, 0), contiguous(q[t])
    A = np.zeros((1, n), q.dtype)
    a = A[0]
    for s in range(0, n - n % 4, 4):
        row0, row1, row2, row3 = k[begin + s], k[begin + s + 1], k[begin + s + 2], k[begin + s + 3]
        four = contiguous(row0), contiguous(row1), contiguous(row2), contiguous(row3)
        a[s], a[s + 1], a[s + 2], a[s + 3] = _dot4(row, *four)
    for s in range(n - n % 4, n):
        a[s] = dot(row, contiguous(k[begin + s]))
    for s in range(n):
        a[s] = a[s] * real(scale) + (bias[t, begin + s] if bias.size > 0 else real(0))
    top, total = largest(a) if n > 0 else real(-np.inf), 0.0
    if top == -np.inf:
        top = real(0)
    for s in range(0, n, PART):
        total += _exponentials(a[s : s + PART], top)
    factor = real(1 / total if total != 0 else 0.0)
    for s in range(n):
        a[s] *= factor
    _zero(o, t, t + 1)
    for s in range(0, n, BLOCK):
        add_product(A[:, s : s + BLOCK], v[begin + s : begin + min(s + BLOCK, n)], o[t : t + 1])
    lse[t] = top + np.log(total) if total != 0 else np.inf


@njit(**INSIDE)
def _backward_block(
    head, t0, do, q, k, v, bias, o, lse, piece, scale, causal, window, threshold, kept, seed, dq, dk, dv, dA, qT, doT, x
):
    t1, s0, s1, offset, real = min(piece[1], t0 + BLOCK), piece[2], piece[3], piece[4], q.dtype.type
    n, c = t1 - t0, real(scale)
    width = (n + STEP - 1) // STEP * STEP
    A, dR, L, delta = rows(x, A_, 0), rows(x, DR, 0), rows(x, L_, 0)[0], rows(x, DELTA, 0)[0]
    transpose(q[t0:t1], c, rows(qT, 0, 0))
    transpose(do[t0:t1], real(1), rows(doT, 0, 0))
    for j in range(BLOCK):
        delta[j], L[j] = 0, np.inf
    for j in range(n):
        delta[j], L[j] = dot(contiguous(do[t0 + j]), contiguous(o[t0 + j])), lse[t0 + j]
    _zero(dq, t0, t1)
    begin, end = _range(t0, t1, s0, s1, offset, causal, window)
    for s in range(begin, end, BLOCK):
        m, diagonal = min(BLOCK, end - s), s - offset - t0
        hidden = diagonal if causal else -BLOCK
        band = BAND if hidden > -BLOCK else BLOCK
        _scores(qT, k, bias, t0, n, s, m, diagonal, causal, window, width, x)
        _clear(DR, m, hidden, width, x)
        _add_dots(v, s, m, hidden, width, doT, dR)
        if threshold > 0:
            _draw(head, t0, s, m, hidden, width, threshold, real(kept), seed, x)
        _slopes(s, m, hidden, width, c if dA.size == 0 else real(1), threshold > 0, x)
        if dA.size > 0:
            for i in range(m):
                for j in range(_first(i, hidden), n):
                    dA[t0 + j, s + i] = dR[i, j]
                    dR[i, j] *= c
        for i in range(0, m, band):
            seen, last = max(diagonal + i, 0) if causal else 0, min(i + band, m)  # by this query first
            if seen < n:
                add_product(A[i:last, seen:n], do[t0 + seen : t1], dv[s + i : s + last])
                add_product(dR[i:last, seen:n], q[t0 + seen : t1], dk[s + i : s + last])
        for j in range(0, n, band):
            last = min(j + band, n)
            seen = max(min(m, last - diagonal), 0) if causal else m
            add_product(dR[:seen, j:last].T, k[s : s + seen], dq[t0 + j : t0 + last])


@njit([_forward(float32), _forward(float64)], parallel=True, cache=True, error_model="numpy")
def forward(q, k, v, bias, pieces, scale, causal, window, threshold, kept, seed, o, lse):
    H, shared = q.shape[1], q.shape[1] // max(k.shape[1], 1)
    for w in prange(q.shape[0] * H * len(pieces)):
        head = np.int64(w) // len(pieces)  # prange counts in uint64, which would turn every index into one
        b, h, g, i = head // H, head % H, head % H // shared, np.int64(w) % len(pieces)
        piece = pieces[i, 0], pieces[i, 1], pieces[i, 2], pieces[i, 3], pieces[i, 4]
        arrays, out = (q[b, h], k[b, g], v[b, g], bias[b, h], piece, scale, causal, window), (o[b, h], lse[b, h])
        if piece[1] - piece[0] == 1 and threshold == 0:
            _forward_query(*arrays, *out)
        elif piece[1] > piece[0]:
            _forward_block(head, *arrays, threshold, kept, seed, *out)


@njit([_backward(float32), _backward(float64)], parallel=True, cache=True, error_model="numpy")
def backward(do, q, k, v, bias, o, lse, pieces, scale, causal, window, threshold, kept, seed, dq, dk, dv, dA):
    H, G = q.shape[1], k.shape[1]
    for w in prange(q.shape[0] * G * len(pieces)):
        head, i = np.int64(w) // len(pieces), np.int64(w) % len(pieces)
        piece = pieces[i, 0], pieces[i, 1], pieces[i, 2], pieces[i, 3], pieces[i, 4]
        b, g = head // G, head % G
        qT, doT, x = scratch(q, q.shape[3]), scratch(q, v.shape[3]), scratch(q, KEEP if threshold == 0 else ALL)
        _zero(dk[b, g], piece[2], piece[3])
        _zero(dv[b, g], piece[2], piece[3])
        for h in range(g * (H // G), (g + 1) * (H // G)):
            arrays = do[b, h], q[b, h], k[b, g], v[b, g], bias[b, h], o[b, h], lse[b, h]
            static = scale, causal, window, threshold, kept, seed
            grads = dq[b, h], dk[b, g], dv[b, g], dA[b, h]
            for t0 in range(piece[0], piece[1], BLOCK):
                _backward_block(b * H + h, t0, *arrays, piece, *static, *grads, qT, doT, x)
