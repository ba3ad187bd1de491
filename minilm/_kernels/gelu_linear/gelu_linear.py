"""Add a bias, apply gelu, multiply by a matrix: what is left of a feed-forward block after its first product.

With x of N rows and C columns (all leading axes are rows), s of C numbers, W (C, F) as in linear.py, and Φ and φ as in
gelu.py:

    h = x + s        a = h Φ(h)        y = a W + b

Backward:

    da = dy Wᵀ        dW = aᵀ dy        db = Σ_rows dy        dx = da (Φ(h) + h φ(h))        ds = Σ_rows dx

s may be missing, and is 0 then.  Saves x, s and W.  As two ops, bias_gelu and linear would keep x and a, a quarter of
all that a Transformer's block keeps; a is made again instead, when dW is asked for.
Derivation: gelu_linear.md.
"""

from ..bias_gelu.bias_gelu import bias_gelu_compiled
from ..gelu.gelu import gelu_backward, gelu_compiled, gelu_forward
from ..linear.linear import linear_backward, linear_compiled, linear_forward

LOOPS = "gelu", "linear"  # the ops whose loops these are


def gelu_linear_forward(  # (..., C), (C,), (F, C) or (C, F), (F,) -> (..., F)
    x, s, w, b, *, approximate, transposed
):
    a, _ = gelu_forward(x if s is None else x + s, approximate=approximate)
    y, _ = linear_forward(a, w, b, transposed=transposed)
    return y, (x, s, w, approximate, transposed)


def gelu_linear_backward(dy, saved, needs):
    x, s, w, approximate, transposed = saved
    a, of_gelu = gelu_forward(x if s is None else x + s, approximate=approximate)
    da, dw, db = linear_backward(dy, (a, w, transposed), (needs[0] or needs[1], *needs[2:]))
    dx = ds = None
    if da is not None:
        (dx,) = gelu_backward(da, of_gelu, (True,))
        if needs[1] and s is not None:
            ds = dx.sum(axis=tuple(range(x.ndim - 1)))
    return dx if needs[0] else None, ds, dw, db


def gelu_linear_compiled(loops, loops_of_linear):
    """Wrap the ``loops`` of gelu and of linear, by way of the wrappers of gelu, bias_gelu and linear."""
    bend, bend_back = gelu_compiled(loops)
    shift_and_bend, shift_and_bend_back = bias_gelu_compiled(loops)
    product, product_back = linear_compiled(loops_of_linear)

    def bent(x, s, approximate):
        y, _ = bend(x, approximate=approximate) if s is None else shift_and_bend(x, s, approximate=approximate)
        return y

    def forward(x, s, w, b, *, approximate, transposed):
        y, _ = product(bent(x, s, approximate), w, b, transposed=transposed)
        return y, (x, s, w, approximate, transposed)

    def backward(dy, saved, needs, into=(None,) * 4):
        x, s, w, approximate, transposed = saved
        a = bent(x, s, approximate) if needs[2] else x  # da asks for its shape alone
        da, dw, db = product_back(dy, (a, w, transposed), (needs[0] or needs[1], *needs[2:]), (None, *into[2:]))
        del a
        dx = ds = None
        if da is not None and s is None:
            (dx,) = bend_back(da, (x, approximate), needs[:1])
        elif da is not None:
            dx, ds = shift_and_bend_back(da, (x, s, approximate), needs[:2])
        return dx, ds, dw, db

    return forward, backward
