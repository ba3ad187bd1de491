"""Add a bias to the last axis, then apply gelu: what a linear layer and its activation leave to do after the product.

With x of N rows and C columns (all leading axes are rows), and Φ and φ as in gelu.py:

    h = x + b        y = h Φ(h)

Backward:

    dx = dy (Φ(h) + h φ(h))        db = Σ_rows dx

Saves x and b: their sum is cheaper to make again than to keep.  The compiled form reads x once each way, and sums the
columns of dx, in chunks of rows, while they are in the cache.
Derivation: bias_gelu.md.
"""

import numpy as np

from ..gelu.gelu import gelu_backward, gelu_forward
from ..layout import chunks_of

LOOPS = "gelu"  # the op whose loops these are


def bias_gelu_forward(x, b, *, approximate):  # (..., C), (C,) -> (..., C)
    y, _ = gelu_forward(x + b, approximate=approximate)
    return y, (x, b, approximate)


def bias_gelu_backward(dy, saved, needs):
    x, b, approximate = saved
    (dx,) = gelu_backward(dy, (x + b, approximate), (True,))
    return dx if needs[0] else None, dx.sum(axis=tuple(range(x.ndim - 1))) if needs[1] else None


def bias_gelu_compiled(loops):
    """Wrap the ``loops`` of gelu: lay out, allocate, call."""

    def forward(x, b, *, approximate):
        y = np.empty(x.shape, x.dtype)
        loops.forward(np.ascontiguousarray(x), np.ascontiguousarray(b), y, approximate == "tanh")
        return y, (x, b, approximate)

    def backward(dy, saved, needs):
        x, b, approximate = saved
        dx, db = np.empty(x.shape, x.dtype), np.empty(b.shape, b.dtype) if needs[1] else None
        dy, x, b = np.ascontiguousarray(dy), np.ascontiguousarray(x), np.ascontiguousarray(b)
        loops.backward(dy, x, b, dx, chunks_of(x), db, approximate == "tanh")
        return dx if needs[0] else None, db

    return forward, backward
