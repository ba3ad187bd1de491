"""Rotary position embedding: pairs of channels are turned, by angles that depend on the position.

For a pair (x₁, x₂) of one position, with the cos and sin of its angle:

    y₁ = x₁ cos - x₂ sin        y₂ = x₂ cos + x₁ sin

Backward, which for x is the turn by the opposite angle:

    dx₁ = dy₁ cos + dy₂ sin     dx₂ = dy₂ cos - dy₁ sin
    dcos = dy₁ x₁ + dy₂ x₂      dsin = dy₂ x₁ - dy₁ x₂         summed where cos and sin were broadcast

Only the first R of the D channels turn, R being twice the length of cos.  Pair i is (i, i + R/2), or (2i, 2i + 1) where
``interleaved``.  Saves x, cos and sin.
Derivation: rotary.md.  Source: Su et al. (2021), arXiv:2104.09864; in halves: GPT-NeoX and Llama; interleaved: GPT-J.
"""

import math

import numpy as np

from ..primitives.broadcasting import fit


def rotary_forward(x, cos, sin, *, interleaved):  # (..., D), and broadcastable to (..., R/2)
    return _turned(x, cos, sin, interleaved), (x, cos, sin, interleaved)


def rotary_backward(dy, saved, needs):
    x, cos, sin, interleaved = saved
    (x1, x2, _), (dy1, dy2, _) = (_pairs(a, 2 * cos.shape[-1], interleaved) for a in (x, dy))
    return (
        _turned(dy, cos, -sin, interleaved) if needs[0] else None,
        fit(dy1 * x1 + dy2 * x2, cos.shape) if needs[1] else None,
        fit(dy2 * x1 - dy1 * x2, sin.shape) if needs[2] else None,
    )


def _turned(x, cos, sin, interleaved):
    x1, x2, rest = _pairs(x, 2 * cos.shape[-1], interleaved)
    y1, y2 = x1 * cos - x2 * sin, x2 * cos + x1 * sin
    if not interleaved:
        return np.concatenate([y1, y2, rest], axis=-1)
    pairs = np.stack([y1, y2], axis=-1)  # (..., R/2, 2)
    return np.concatenate([pairs.reshape(*x.shape[:-1], 2 * cos.shape[-1]), rest], axis=-1)


def _pairs(x, R, interleaved):  # (..., R/2), (..., R/2), (..., D - R)
    if interleaved:
        return x[..., 0:R:2], x[..., 1:R:2], x[..., R:]
    return x[..., : R // 2], x[..., R // 2 : R], x[..., R:]


def rotary_compiled(loops):
    """Wrap the compiled ``loops``: see all with at most four axes, (B, H, T, D), allocate, call.

    x is read where it lies if its last axis is contiguous, and y lies in memory as x does.
    """

    def forward(x, cos, sin, *, interleaved):
        return turned(x, cos, sin, 1.0, interleaved), (x, cos, sin, interleaved)

    def backward(dy, saved, needs):
        _, cos, sin, interleaved = saved
        dx = turned(dy, cos, sin, -1.0, interleaved) if needs[0] else None
        if not (needs[1] or needs[2]):
            return dx, None, None
        return dx, *rotary_backward(dy, saved, (False, *needs[1:]))[1:]

    def turned(x, cos, sin, sign, interleaved):
        x = x if x.ndim <= 4 and x.strides[-1] == x.itemsize else np.ascontiguousarray(x)
        y = np.empty_like(x)  # in the same layout
        if y.strides[-1] != y.itemsize:  # x was broadcast
            y = np.empty(x.shape, x.dtype)
        if x.ndim > 4:
            cos, sin = (np.broadcast_to(a, (*x.shape[:-1], a.shape[-1])) for a in (cos, sin))
        cos, sin = np.ascontiguousarray(cos), np.ascontiguousarray(sin)
        loops.turn(_four(x), _four(cos), _four(sin), sign, interleaved, _four(y))
        return y

    return forward, backward


def _four(x):
    """x with at most four axes; a view of x if it has no more, or is contiguous."""
    return x if x.ndim <= 4 else x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
