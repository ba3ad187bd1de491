"""Gate by silu, multiply by a matrix: what is left of a gated feed-forward block after its first two products.

With g and u of N rows and C columns (all leading axes are rows), W (C, F) as in linear.py, and σ as in silu.py:

    s = g σ(g)        a = s ⊙ u        y = a W + b

Backward:

    da = dy Wᵀ        dW = aᵀ dy        db = Σ_rows dy        du = da ⊙ s        dg = da ⊙ u ⊙ σ(g) (1 + g (1 - σ(g)))

Saves g, u and W.  As three ops, silu, a product of arrays and linear would keep s and a as well, as much again; a is
made again instead, when dW is asked for.
Derivation: swiglu_linear.md.  Source: Shazeer (2020), arXiv:2002.05202.
"""

import numpy as np

from ..linear.linear import linear_backward, linear_compiled, linear_forward
from ..silu.silu import silu_backward, silu_forward

LOOPS = "silu", "linear"  # the ops whose loops these are


def swiglu_linear_forward(g, u, w, b, *, transposed):  # (..., C), (..., C), (F, C) or (C, F), (F,) -> (..., F)
    s, _ = silu_forward(g)
    y, _ = linear_forward(s * u, w, b, transposed=transposed)
    return y, (g, u, w, transposed)


def swiglu_linear_backward(dy, saved, needs):
    g, u, w, transposed = saved
    s, of_silu = silu_forward(g)
    da, dw, db = linear_backward(dy, (s * u, w, transposed), (needs[0] or needs[1], *needs[2:]))
    dg = du = None
    if needs[0]:
        (dg,) = silu_backward(da * u, of_silu, (True,))
    if needs[1]:
        du = da * s
    return dg, du, dw, db


def swiglu_linear_compiled(loops, loops_of_linear):
    """Wrap the ``loops`` of silu, which gate as well, and those of linear, by way of its wrapper."""
    product, product_back = linear_compiled(loops_of_linear)

    def gated(g, u):
        a = np.empty(g.shape, g.dtype)
        loops.forward(np.ascontiguousarray(g), np.ascontiguousarray(u), a)
        return a

    def forward(g, u, w, b, *, transposed):
        y, _ = product(gated(g, u), w, b, transposed=transposed)
        return y, (g, u, w, transposed)

    def backward(dy, saved, needs, into=(None,) * 4):
        g, u, w, transposed = saved
        a = gated(g, u) if needs[2] else g  # da asks for its shape alone
        da, dw, db = product_back(dy, (a, w, transposed), (needs[0] or needs[1], *needs[2:]), (None, *into[2:]))
        del a
        dg = du = None
        if da is not None:
            dg, du = np.empty(g.shape, g.dtype), np.empty(u.shape, u.dtype)
            loops.backward(da, np.ascontiguousarray(g), np.ascontiguousarray(u), dg, du)
        return dg if needs[0] else None, du if needs[1] else None, dw, db

    return forward, backward
