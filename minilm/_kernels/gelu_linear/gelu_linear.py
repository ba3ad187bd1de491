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

from ..bias_gelu.bias_gelu import bias_gelu_backward, bias_gelu_compiled, bias_gelu_forward
from ..gelu.gelu import gelu_backward, gelu_compiled, gelu_forward
from ..linear.linear import linear_backward, linear_compiled, linear_forward

LOOPS = "gelu", "linear"  # the ops whose loops these are


def _one_after_the_other(gelu, bias_gelu, linear):
    """Return the forward and the backward of the op, of those of gelu, where s is None, bias_gelu and linear."""
    (bend, bend_back), (shift_and_bend, shift_and_bend_back), (product, product_back) = gelu, bias_gelu, linear

    def bent(x, s, approximate):
        given = (x,) if s is None else (x, s)
        return (bend if s is None else shift_and_bend)(*given, approximate=approximate)[0]

    def forward(x, s, w, b, *, approximate, transposed):  # (..., C), (C,), (F, C) or (C, F), (F,) -> (..., F)
        y, _ = product(bent(x, s, approximate), w, b, transposed=transposed)
        return y, (x, s, w, approximate, transposed)

    def backward(dy, saved, needs):
        x, s, w, approximate, transposed = saved
        a = bent(x, s, approximate) if needs[2] else x  # da asks for its shape alone
        da, dw, db = product_back(dy, (a, w, transposed), (needs[0] or needs[1], *needs[2:]))
        del a
        dx = ds = None
        if da is not None and s is None:
            (dx,) = bend_back(da, (x, approximate), needs[:1])
        elif da is not None:
            dx, ds = shift_and_bend_back(da, (x, s, approximate), needs[:2])
        return dx, ds, dw, db

    return forward, backward


gelu_linear_forward, gelu_linear_backward = _one_after_the_other(
    (gelu_forward, gelu_backward), (bias_gelu_forward, bias_gelu_backward), (linear_forward, linear_backward)
)


def gelu_linear_compiled(loops, loops_of_linear):
    """Wrap the ``loops`` of gelu and of linear."""
    return _one_after_the_other(gelu_compiled(loops), bias_gelu_compiled(loops), linear_compiled(loops_of_linear))
