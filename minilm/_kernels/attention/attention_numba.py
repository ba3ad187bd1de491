"""The loops of attention, for Numba: one query at a time, whose scores are one row that stays in the cache.

The mathematics and the names are those of attention.py.  A row of ``pieces`` is t0, t1, s0, s1, offset, as
layout.pieces makes it.  The keys and values that a piece sees are copied once, transposed where the scores need
them so, and every inner loop runs along contiguous rows, four at a time to read and write the sum less often.
"""

import numpy as np
from numba import boolean, float32, float64, int64, njit, prange, types, uint64, void

from ..random_numba import HALF, LOW, philox

PIECES = types.Array(int64, 2, "C", readonly=True)
STATIC = PIECES, float64, boolean, int64, uint64, float64, uint64  # scale, causal, window, threshold, kept, seed
QUERIES = 256  # of one piece of the forward


def _read(real):
    return types.Array(real, 4, "A", readonly=True)


def _forward(real):
    return void(*[_read(real)] * 4, *STATIC, real[:, :, :, :], real[:, :, ::1])


def _backward(real):
    return void(*[_read(real)] * 6, types.Array(real, 3, "C"), *STATIC, *[real[:, :, :, :]] * 3, real[:, :, :, ::1])


@njit(cache=True, error_model="numpy")
def _accumulate(a, n, b, i0, j0, width, sum):
    """sum_j += Σ_i a_i b_(i0 + i, j0 + j) over n rows, for j < ``width``.

    Loops count from 0 everywhere, or Numba would ask of every index whether it is negative.
    """
    b, j1 = b[i0:], j0 + width
    i = 0
    while i + 4 <= n:
        a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
        b0, b1, b2, b3 = b[i, j0:j1], b[i + 1, j0:j1], b[i + 2, j0:j1], b[i + 3, j0:j1]
        for j in range(width):
            sum[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j]
        i += 4
    while i < n:
        b0 = b[i, j0:j1]
        for j in range(width):
            sum[j] += a[i] * b0[j]
        i += 1


@njit(cache=True, error_model="numpy")
def _draw(head, t, s0, n, threshold, kept, seed, keep):
    """keep_s = 1 / (1 - p) or 0, for the n keys from s0 on."""
    for block in range(s0 // 4, (s0 + n + 3) // 4):
        words = philox(np.uint64(block), np.uint64(t), np.uint64(head), np.uint64(1), seed & LOW, seed >> HALF)
        for s in range(max(4 * block, s0), min(4 * block + 4, s0 + n)):
            keep[s - s0] = kept if words[s % 4] >= threshold else keep.dtype.type(0)


@njit(cache=True, error_model="numpy")
def _seen(t, s0, s1, offset, causal, window):
    """The first key that query t of a piece sees, and how many it sees."""
    begin = max(s0, t + offset - window + 1)
    return begin, max((min(s1, t + 1 + offset) if causal else s1) - begin, 0)


@njit([_forward(float32), _forward(float64)], parallel=True, cache=True, error_model="numpy")
def forward(q, k, v, bias, pieces, scale, causal, window, threshold, kept, seed, o, lse):
    H, D, Dv, real = q.shape[1], q.shape[3], v.shape[3], q.dtype.type
    shared = H // max(k.shape[1], 1)
    for w in prange(q.shape[0] * H * len(pieces)):
        head = np.int64(w) // len(pieces)  # prange counts in uint64, which would turn every index into one
        b, h, g = head // H, head % H, head % H // shared
        t0, t1, s0, s1, offset = pieces[np.int64(w) % len(pieces)]
        first, _ = _seen(t0, s0, s1, offset, causal, window)  # the keys that the piece sees begin here,
        last, n = _seen(t1 - 1, s0, s1, offset, causal, window)
        S = max(last + n - first, 0)  # and are so many
        kT, vc = np.empty((D, S), q.dtype), np.empty((S, Dv), q.dtype)
        qt, A, ot, keep = np.empty(D, q.dtype), np.empty(S, q.dtype), np.empty(Dv, q.dtype), np.empty(S, q.dtype)
        for s in range(S):
            for d in range(D):
                kT[d, s] = k[b, g, first + s, d]
            for d in range(Dv):
                vc[s, d] = v[b, g, first + s, d]
        for t in range(t0, t1):
            begin, n = _seen(t, s0, s1, offset, causal, window)
            m = begin - first
            for d in range(D):
                qt[d] = q[b, h, t, d] * real(scale)
            for s in range(n):
                A[s] = bias[b, h, t, begin + s] if bias.shape[0] > 0 else real(0)
            for d in range(Dv):
                ot[d] = 0
            _accumulate(qt, D, kT, 0, m, n, A)
            top = real(-np.inf)
            for s in range(n):
                top = A[s] if A[s] > top else top
            top = real(0) if top == -np.inf else top
            total = 0.0
            for s in range(n):
                A[s] = np.exp(A[s] - top)
                total += A[s]
            lse[b, h, t] = top + np.log(total) if total != 0 else np.inf  # inf makes P zero in the backward
            if threshold > 0:
                _draw(head, t, begin, n, threshold, real(kept), seed, keep)
                for s in range(n):
                    A[s] *= keep[s]
            _accumulate(A, n, vc, m, 0, Dv, ot)
            for d in range(Dv):
                o[b, h, t, d] = ot[d] / real(total if total != 0 else 1.0)


@njit([_backward(float32), _backward(float64)], parallel=True, cache=True, error_model="numpy")
def backward(do, q, k, v, bias, o, lse, pieces, scale, causal, window, threshold, kept, seed, dq, dk, dv, dA):
    H, D = q.shape[1], q.shape[3]
    G, Dv, real = k.shape[1], v.shape[3], q.dtype.type
    for w in prange(q.shape[0] * G * len(pieces)):
        head = np.int64(w) // len(pieces)
        b, g = head // G, head % G
        t0, t1, s0, s1, offset = pieces[np.int64(w) % len(pieces)]
        S = s1 - s0
        kc, kT, dkc = np.empty((S, D), q.dtype), np.empty((D, S), q.dtype), np.empty((S, D), q.dtype)
        vT, dvc = np.empty((Dv, S), q.dtype), np.empty((S, Dv), q.dtype)
        qt, dqt, dot = np.empty(D, q.dtype), np.empty(D, q.dtype), np.empty(Dv, q.dtype)
        A, dR, keep = np.empty(S, q.dtype), np.empty(S, q.dtype), np.empty(S, q.dtype)
        for s in range(S):
            for d in range(D):
                kc[s, d] = kT[d, s] = k[b, g, s0 + s, d]
                dkc[s, d] = 0
            for d in range(Dv):
                vT[d, s] = v[b, g, s0 + s, d]
                dvc[s, d] = 0
        for h in range(g * (H // G), (g + 1) * (H // G)):
            for t in range(t0, t1):
                begin, n = _seen(t, s0, s1, offset, causal, window)
                m = begin - s0
                delta = 0.0
                for d in range(Dv):
                    dot[d] = do[b, h, t, d]
                    delta += dot[d] * o[b, h, t, d]
                for d in range(D):
                    qt[d] = q[b, h, t, d] * real(scale)
                    dqt[d] = 0
                for s in range(n):
                    A[s] = bias[b, h, t, begin + s] if bias.shape[0] > 0 else real(0)
                    dR[s] = 0
                    keep[s] = 1
                _accumulate(qt, D, kT, 0, m, n, A)
                _accumulate(dot, Dv, vT, 0, m, n, dR)
                if threshold > 0:
                    _draw(b * H + h, t, begin, n, threshold, real(kept), seed, keep)
                for s in range(n):
                    P = np.exp(A[s] - lse[b, h, t])
                    R = P * keep[s]
                    dR[s] = R * dR[s] - P * real(delta)  # dA
                    dvs, dks = dvc[m + s], dkc[m + s]
                    for d in range(dv.shape[3]):
                        dvs[d] += R * dot[d]
                    for d in range(dk.shape[3]):
                        dks[d] += dR[s] * qt[d]
                _accumulate(dR, n, kc, m, 0, D, dqt)
                if dA.shape[3] > 0:
                    for s in range(n):
                        dA[b, h, t, begin + s] = dR[s]
                for d in range(dq.shape[3]):
                    dq[b, h, t, d] = dqt[d] * real(scale)
        for s in range(S):
            for d in range(dk.shape[3]):
                dk[b, g, s0 + s, d] = dkc[s, d]
            for d in range(dv.shape[3]):
                dv[b, g, s0 + s, d] = dvc[s, d]
