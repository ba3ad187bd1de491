"""Cross-entropy of a softmax over the last axis with a target class, the loss of a classifier and a language model.

One row z of V logits with target t at a time; ε is the label smoothing:

    L = log Σ_c exp z_c        loss = L - (1 - ε) z_t - (ε / V) Σ_c z_c

Backward, where w is the row's share of the gradient: dloss for 'none' and 'sum', dloss / (rows that count) for 'mean':

    dz_c = w (exp(z_c - L) - (1 - ε) [c = t] - ε / V)

A row whose target is ``ignore_index`` has loss 0, gradient 0 and does not count; if none counts, the mean is 0.
A class may be masked by z_c = -inf: it gets no probability, and its choice as target, or smoothing, an infinite loss.
Saves z, the targets and one number per row, L.
Derivation: cross_entropy.md.  Source of the smoothing: Szegedy et al. (2016), arXiv:1512.00567.
"""

import numpy as np


def cross_entropy_forward(z, target, *, ignore_index, label_smoothing, reduction):  # (N, V), (N,) -> () or (N,)
    N, V = z.shape
    counts = target != ignore_index  # (N,)
    t = np.where(counts, target, 0)
    top = z.max(axis=-1, keepdims=True)  # (N, 1)
    top = np.where(top == -np.inf, 0, top)
    total = np.exp(z - top).sum(axis=-1)  # (N,)
    L = top[:, 0] + np.log(np.where(total == 0, 1, total))
    loss = L - (1 - label_smoothing) * z[np.arange(N), t]
    if label_smoothing:  # 0 · -inf would be NaN
        loss = loss - label_smoothing / V * z.sum(axis=-1)
    loss = np.where(counts, loss, 0)
    share = 1 / max(int(counts.sum()), 1) if reduction == "mean" else 1.0
    out = loss if reduction == "none" else loss.sum() * share
    return out, (z, t, counts, L, label_smoothing, share)


def cross_entropy_backward(dloss, saved, needs):
    z, t, counts, L, label_smoothing, share = saved
    if not needs[0]:
        return None, None
    N, V = z.shape
    w = np.broadcast_to(dloss * share, (N,)) * counts
    hit = np.arange(V) == t[:, None]  # (N, V)
    p = np.exp(z - L[:, None])
    return w[:, None] * (p - (1 - label_smoothing) * hit.astype(z.dtype) - label_smoothing / V), None


def cross_entropy_compiled(loops):
    """Wrap the compiled ``loops``: lay out rows, allocate, call."""

    def forward(z, target, *, ignore_index, label_smoothing, reduction):
        z, target = np.ascontiguousarray(z), np.ascontiguousarray(target, np.int64)
        loss, L = np.empty(len(z), z.dtype), np.empty(len(z), z.dtype)
        total, counted = loops.forward_rows(z, target, ignore_index, label_smoothing, loss, L)
        share = 1 / max(counted, 1) if reduction == "mean" else 1.0
        out = loss if reduction == "none" else np.array(total * share, z.dtype)
        return out, (z, target, L, ignore_index, label_smoothing, share)

    def backward(dloss, saved, needs):
        z, target, L, ignore_index, label_smoothing, share = saved
        if not needs[0]:
            return None, None
        dz = np.empty_like(z)
        if z.size:
            w = np.ascontiguousarray(dloss * share, z.dtype)  # of every row, or one for all
            loops.backward_rows(z, target, L, w, ignore_index, label_smoothing, dz)
        return dz, None

    return forward, backward
