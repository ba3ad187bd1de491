"""Dropout: each element is zero with probability p; the others grow so that the mean stays.

    y = x keep / (1 - p)        dx = dy keep / (1 - p)

``keep`` is a function of the seed and of the element's place alone (see random.py): the backward draws it again, and
nothing of the size of x is saved.
Derivation: dropout.md.  Source: Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from
overfitting".
"""

import numpy as np

from ..random import keep_linear, threshold


def dropout_forward(x, *, p, seed):
    return x * _scale(x, p, seed), (p, seed)


def dropout_backward(dy, saved, needs):
    return (dy * _scale(dy, *saved) if needs[0] else None,)


def _scale(x, p, seed):
    """keep / (1 - p): what every element is multiplied by."""
    return keep_linear(x.shape, p, seed).astype(x.dtype) * (1 / (1 - p))


def dropout_compiled(loops):
    """Wrap the compiled ``loops``: lay out, allocate, call.  The backward is the forward on dy."""

    def forward(x, *, p, seed):
        y = np.empty(x.shape, x.dtype)
        loops.drop(np.ascontiguousarray(x), threshold(p), 1 / (1 - p), seed & (2**64 - 1), y)
        return y, (p, seed)

    def backward(dy, saved, needs):
        p, seed = saved
        return (forward(dy, p=p, seed=seed)[0] if needs[0] else None,)

    return forward, backward
