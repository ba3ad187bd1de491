"""Scaled dot-product attention.

Every head of every sequence on its own; rows t are queries, columns s are keys, c is ``scale``:

    A = q kᵀ c + bias        P = softmax(A) along s        R = P keep / (1 - p)        o = R v

Backward, with δ_t = Σ_s R_ts dR_ts, which is ⟨do_t, o_t⟩:

    dv = Rᵀ do        dR = do vᵀ        dA = R dR - P δ        dq = dA k c        dk = dAᵀ q c        dbias = dA

Query head h uses key/value head h // (H / G), whose gradient is the sum over its query heads.  A key is hidden by
bias = -inf; by ``causal``, under which query t sees the keys s ≤ t + ``offset``; or by ``window``, under which it sees
the keys s > t + ``offset`` - ``window``.  With ``lengths``, the rows of q and the rows of k of each sequence, sequences
lie end to end along T and S: a query sees keys of its own sequence alone, and t and s count from where that starts.  A
query that sees no key attends to nothing: its output and its gradients are zero, not NaN.  ``keep`` is drawn from the
seed with probability 1 - p.
Saves q, k, v and P, which is T·S numbers per head; the compiled loops save o and one number per query instead (the log
of the softmax's denominator), recompute P, and get δ from o.
Derivation: attention.md.  Sources: Vaswani et al. (2017), arXiv:1706.03762; Ainslie et al. (2023), arXiv:2305.13245
(grouped heads); Dao et al. (2022), arXiv:2205.14135; Beltagy et al. (2020), arXiv:2004.05150 (windows).
"""

import numpy as np

from ..layout import laid_out_as, pieces
from ..primitives.broadcasting import fit
from ..random import keep_attention, threshold

EVERYTHING = 2**62  # a window that hides nothing


# (B, H, T, D), (B, G, S, D), (B, G, S, Dv), broadcastable to (B, H, T, S) -> (B, H, T, Dv)
def attention_forward(q, k, v, bias, *, scale, causal, offset, window, lengths, dropout, seed):
    B, H, T, _ = q.shape
    G, S = k.shape[1:3]
    A = (_grouped(q, G) @ _grouped(k, G).swapaxes(-1, -2)).reshape(B, H, T, S) * scale
    if bias is not None:
        A = A + bias
    if causal or window is not None or lengths is not None:
        A = np.where(_visible(T, S, causal, offset, window, lengths), A, -np.inf)
    top = A.max(axis=-1, keepdims=True) if S else A.sum(axis=-1, keepdims=True)
    P = np.exp(A - np.where(top == -np.inf, 0, top))
    total = P.sum(axis=-1, keepdims=True)
    P = P / np.where(total == 0, 1, total)
    keep = keep_attention(B, H, T, S, dropout, seed).astype(q.dtype) * (1 / (1 - dropout)) if dropout else None
    R = P if keep is None else P * keep
    o = (_grouped(R, G) @ _grouped(v, G)).reshape(B, H, T, v.shape[-1])
    return o, (q, k, v, P, keep, scale, None if bias is None else bias.shape)


def attention_backward(do, saved, needs):
    q, k, v, P, keep, scale, bias_shape = saved
    G = k.shape[1]
    R = P if keep is None else P * keep
    dR = (_grouped(do, G) @ _grouped(v, G).swapaxes(-1, -2)).reshape(P.shape)  # (B, H, T, S)
    dA = R * dR - P * (R * dR).sum(axis=-1, keepdims=True)
    dq = dk = dv = dbias = None
    if needs[0]:
        dq = (_grouped(dA, G) @ _grouped(k, G)).reshape(q.shape) * scale
    if needs[1]:
        dk = (_grouped(dA, G).swapaxes(-1, -2) @ _grouped(q, G)).sum(axis=2) * scale
    if needs[2]:
        dv = (_grouped(R, G).swapaxes(-1, -2) @ _grouped(do, G)).sum(axis=2)
    if needs[3] and bias_shape is not None:
        dbias = fit(dA, bias_shape)
    return dq, dk, dv, dbias


def _visible(T, S, causal, offset, window, lengths):  # (T, S)
    """Which keys each query sees."""
    (row, t), (column, s) = (_places(np.asarray(n, np.int64)) for n in lengths or ((T,), (S,)))
    t = t[:, None]
    see = row[:, None] == column
    if causal:
        see = see & (s <= t + offset)
    return see if window is None else see & (s > t + offset - window)


def _places(lengths):
    """The sequence of each row, and its place there."""
    of = np.repeat(np.arange(len(lengths)), lengths)
    return of, np.arange(len(of)) - (np.cumsum(lengths) - lengths)[of]


def _grouped(x, G):
    """(B, H, ...) -> (B, G, H/G, ...): query heads beside the key/value head that they share."""
    B, H, *rest = x.shape
    return x.reshape(B, G, H // G, *rest)


def attention_compiled(loops):
    """Wrap the compiled ``loops``: lay out rows, allocate, call.

    q, k, v and do are read where they lie if their last axis is contiguous.  out, dq, dk and dv lie in memory as
    (B, T, H, D) and are seen as (B, H, T, D), so that merging the heads again costs no copy; where q, k and v lie in
    one array, so do their gradients.
    """

    def forward(q, k, v, bias, *, scale, causal, offset, window, lengths, dropout, seed):
        q, k, v = _rows(q), _rows(k), _rows(v)
        B, H, T, _ = q.shape
        S = k.shape[2]
        wide = _wide(bias, (B, H, T, S), q.dtype)
        o, lse = _empty_heads((B, H, T, v.shape[3]), q.dtype), np.empty((B, H, T), q.dtype)
        where = (*(((T,), (S,)) if lengths is None else lengths), offset)
        window = EVERYTHING if window is None else min(window, EVERYTHING)
        static = scale, causal, window, threshold(dropout), 1 / (1 - dropout), seed & (2**64 - 1)
        loops.forward(q, k, v, wide, pieces(*where, loops.QUERIES), *static, o, lse)
        return o, (q, k, v, wide, o, lse, where, static, None if bias is None else bias.shape)

    def backward(do, saved, needs):
        q, k, v, wide, o, lse, where, static, bias_shape = saved
        need_q, need_k, need_v, need_bias = needs
        need_bias = need_bias and bias_shape is not None
        if not (need_q or need_k or need_v or need_bias):
            return None, None, None, None
        if not (need_q and need_k and need_v) or (grads := laid_out_as((q, k, v))) is None:
            like = zip((q, k, v), needs, strict=False)
            grads = [_empty_heads(x.shape if need else (*x.shape[:3], 0), x.dtype) for x, need in like]
        dq, dk, dv = grads
        dA = np.zeros((*q.shape[:3], k.shape[2]) if need_bias else (0, 0, 0, 0), q.dtype)
        loops.backward(_rows(do), q, k, v, wide, o, lse, pieces(*where, q.shape[2]), *static, dq, dk, dv, dA)
        return (
            dq if need_q else None,
            dk if need_k else None,
            dv if need_v else None,
            fit(dA, bias_shape) if need_bias else None,
        )

    return forward, backward


def _rows(x):
    """x where it lies if its last axis is contiguous; otherwise a copy."""
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def _wide(bias, shape, dtype):
    """bias seen with the full shape (B, H, T, S), the axes along which it is broadcast having stride 0; or nothing."""
    if bias is None:
        return np.empty((0, 0, 0, 0), dtype)
    return np.broadcast_to(_rows(np.broadcast_to(bias, (*bias.shape[:-1], shape[-1]))), shape)


def _empty_heads(shape, dtype):
    """An array of its own, not a view of one: the tape may then keep it as a gradient without a copy."""
    _, H, T, D = shape
    unit = dtype.itemsize
    return np.ndarray(shape, dtype, strides=(T * H * D * unit, D * unit, H * D * unit, unit))
