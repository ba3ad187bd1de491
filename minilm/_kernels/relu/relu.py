"""The rectified linear unit: what is above 0.

    y = max(x, 0)

Backward:

    dx = dy where y > 0, else 0

so the gradient at 0 is 0.  NaN stays NaN, and hands its gradient on, as in PyTorch.  Saves y alone, which the layer
that reads it saves too: nothing more is kept.
Derivation: relu.md.  Source: Nair & Hinton (2010), "Rectified linear units improve restricted Boltzmann machines".
"""

import numpy as np


def relu_forward(x):  # any shape
    y = np.where(x <= 0, x.dtype.type(0), x)
    return y, (y,)


def relu_backward(dy, saved, needs):
    if not needs[0]:
        return (None,)
    (y,) = saved
    return (np.where(y == 0, y.dtype.type(0), dy),)


def relu_compiled(loops):
    """Wrap the compiled ``loops`` of relu_numba or relu_cython: lay out, allocate, call."""

    def forward(x):
        y = np.empty(x.shape, x.dtype)
        loops.forward(np.ascontiguousarray(x), y)
        return y, (y,)

    def backward(dy, saved, needs):
        if not needs[0]:
            return (None,)
        (y,) = saved
        dx = np.empty(y.shape, y.dtype)
        loops.backward(np.ascontiguousarray(dy), y, dx)
        return (dx,)

    return forward, backward
