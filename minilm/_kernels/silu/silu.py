"""The sigmoid linear unit: x times its own logistic function, which "swish" is another name for.

    σ = 1 / (1 + exp(-x))        y = x σ

Backward:

    dx = dy σ (1 + x (1 - σ))

Saves x alone.  With e = exp(-|x|), σ is 1 / (1 + e) above 0 and e / (1 + e) below, and nothing overflows.  Beyond
±LARGE σ is 0 or 1 to the last bit, so x is held there, which makes y and dx right for infinities.
Derivation: silu.md.  Sources: Hendrycks & Gimpel (2016), arXiv:1606.08415; Elfwing, Uchibe & Doya (2017),
arXiv:1702.03118.
"""

import numpy as np

LARGE = 1000.0


def silu_forward(x):  # any shape
    return np.maximum(x, -LARGE) * _logistic(x), (x,)


def silu_backward(dy, saved, needs):
    if not needs[0]:
        return (None,)
    (x,) = saved
    σ = _logistic(x)
    return (dy * (σ * (1 + np.minimum(np.maximum(x, -LARGE), LARGE) * (1 - σ))),)


def _logistic(x):
    e = np.exp(np.where(x > 0, -x, x))
    return np.where(x > 0, 1, e) / (1 + e)


def silu_compiled(loops):
    """Wrap the compiled ``loops`` of silu_numba or silu_cython: lay out, allocate, call."""

    def forward(x):
        y = np.empty(x.shape, x.dtype)
        loops.forward(np.ascontiguousarray(x), None, y)
        return y, (x,)

    def backward(dy, saved, needs):
        if not needs[0]:
            return (None,)
        (x,) = saved
        dx = np.empty(x.shape, x.dtype)
        loops.backward(np.ascontiguousarray(dy), np.ascontiguousarray(x), None, dx, None)
        return (dx,)

    return forward, backward
