"""The loops of attention, for Numba: one query at a time, whose scores are one row that stays in the cache.

The mathematics and the names are those of attention.py.  k and v of a head are copied once, transposed where the scores
need them so, and every inner loop runs along contiguous rows, four at a time to read and write the sum less often.
"""

import numpy as np
from numba import boolean, float32, float64, int64, njit, prange, types, uint64, void

from ..random_numba import HALF, LOW, philox

STATIC = float64, boolean, int64, uint64, float64, uint64  # scale, causal, offset, threshold, kept, seed


def _read(real):
    return types.Array(real, 4, "A", readonly=True)


def _forward(real):
    return void(*[_read(real)] * 4, *STATIC, real[:, :, :, :], real[:, :, ::1])


def _backward(real):
    return void(*[_read(real)] * 6, types.Array(real, 3, "C"), *STATIC, *[real[:, :, :, :]] * 3, real[:, :, :, ::1])


@njit(cache=True, error_model="numpy")
def _accumulate(a, n, b, width, sum):
    """sum += Σ_i a_i b_i over n rows b_i, of which the first ``width`` numbers."""
    i = 0
    while i + 4 <= n:
        a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
        b0, b1, b2, b3 = b[i], b[i + 1], b[i + 2], b[i + 3]
        for j in range(width):
            sum[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j]
        i += 4
    while i < n:
        for j in range(width):
            sum[j] += a[i] * b[i, j]
        i += 1


@njit(cache=True, error_model="numpy")
def _draw(head, t, n, threshold, kept, seed, keep):
    """keep_s = 1 / (1 - p) or 0, for the first n keys."""
    for block in range((n + 3) // 4):
        words = philox(np.uint64(block), np.uint64(t), np.uint64(head), np.uint64(1), seed & LOW, seed >> HALF)
        for s in range(4 * block, min(4 * block + 4, n)):
            keep[s] = kept if words[s % 4] >= threshold else keep.dtype.type(0)


@njit([_forward(float32), _forward(float64)], parallel=True, cache=True, error_model="numpy")
def forward(q, k, v, bias, scale, causal, offset, threshold, kept, seed, o, lse):
    B, H, T, D = q.shape
    S, Dv, shared, real = k.shape[2], v.shape[3], H // max(k.shape[1], 1), q.dtype.type
    for w in prange(B * H):
        head = np.int64(w)  # prange counts in uint64, which would turn every index into one
        b, h, g = head // H, head % H, head % H // shared
        kT, vc = np.empty((D, S), q.dtype), np.empty((S, Dv), q.dtype)
        qt, A, ot, keep = np.empty(D, q.dtype), np.empty(S, q.dtype), np.empty(Dv, q.dtype), np.empty(S, q.dtype)
        for s in range(S):
            for d in range(D):
                kT[d, s] = k[b, g, s, d]
            for d in range(Dv):
                vc[s, d] = v[b, g, s, d]
        for t in range(T):
            n = min(max(t + offset + 1, 0), S) if causal else S
            for d in range(D):
                qt[d] = q[b, h, t, d] * real(scale)
            for s in range(n):
                A[s] = bias[b, h, t, s] if bias.shape[0] > 0 else real(0)
            for d in range(Dv):
                ot[d] = 0
            _accumulate(qt, D, kT, n, A)
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
                _draw(head, t, n, threshold, real(kept), seed, keep)
                for s in range(n):
                    A[s] *= keep[s]
            _accumulate(A, n, vc, Dv, ot)
            for d in range(Dv):
                o[b, h, t, d] = ot[d] / real(total if total != 0 else 1.0)


@njit([_backward(float32), _backward(float64)], parallel=True, cache=True, error_model="numpy")
def backward(do, q, k, v, bias, o, lse, scale, causal, offset, threshold, kept, seed, dq, dk, dv, dA):
    B, H, T, D = q.shape
    G, S, Dv, real = k.shape[1], k.shape[2], v.shape[3], q.dtype.type
    for w in prange(B * G):
        b, g = np.int64(w) // G, np.int64(w) % G
        kc, kT, dkc = np.empty((S, D), q.dtype), np.empty((D, S), q.dtype), np.empty((S, D), q.dtype)
        vT, dvc = np.empty((Dv, S), q.dtype), np.empty((S, Dv), q.dtype)
        qt, dqt, dot = np.empty(D, q.dtype), np.empty(D, q.dtype), np.empty(Dv, q.dtype)
        A, dR, keep = np.empty(S, q.dtype), np.empty(S, q.dtype), np.empty(S, q.dtype)
        for s in range(S):
            for d in range(D):
                kc[s, d] = kT[d, s] = k[b, g, s, d]
                dkc[s, d] = 0
            for d in range(Dv):
                vT[d, s] = v[b, g, s, d]
                dvc[s, d] = 0
        for h in range(g * (H // G), (g + 1) * (H // G)):
            for t in range(T):
                n = min(max(t + offset + 1, 0), S) if causal else S
                delta = 0.0
                for d in range(Dv):
                    dot[d] = do[b, h, t, d]
                    delta += dot[d] * o[b, h, t, d]
                for d in range(D):
                    qt[d] = q[b, h, t, d] * real(scale)
                    dqt[d] = 0
                for s in range(n):
                    A[s] = bias[b, h, t, s] if bias.shape[0] > 0 else real(0)
                    dR[s] = 0
                    keep[s] = 1
                _accumulate(qt, D, kT, n, A)
                _accumulate(dot, Dv, vT, n, dR)
                if threshold > 0:
                    _draw(b * H + h, t, n, threshold, real(kept), seed, keep)
                for s in range(n):
                    P = np.exp(A[s] - lse[b, h, t])
                    R = P * keep[s]
                    dR[s] = R * dR[s] - P * real(delta)  # dA
                    for d in range(dv.shape[3]):
                        dvc[s, d] += R * dot[d]
                    for d in range(dk.shape[3]):
                        dkc[s, d] += dR[s] * qt[d]
                _accumulate(dR, n, kc, D, dqt)
                for s in range(min(n, dA.shape[3])):
                    dA[b, h, t, s] = dR[s]
                for d in range(dq.shape[3]):
                    dq[b, h, t, d] = dqt[d] * real(scale)
        for s in range(S):
            for d in range(dk.shape[3]):
                dk[b, g, s, d] = dkc[s, d]
            for d in range(dv.shape[3]):
                dv[b, g, s, d] = dvc[s, d]
