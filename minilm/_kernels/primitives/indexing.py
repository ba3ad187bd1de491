"""Reading at an index, and its adjoint: adding at an index."""

import numpy as np


def getitem_forward(x, *, index):
    return x[index], (x.shape, index)


def getitem_backward(dy, saved, needs):
    shape, index = saved
    return (scatter(dy, shape, index),)


def scatter(dy, shape, index):
    """Return zeros of ``shape`` with ``dy`` added at ``index``; an entry named twice receives both."""
    return dy.scatter(shape, index) if hasattr(dy, "scatter") else scatter_forward(dy, shape=shape, index=index)[0]


def scatter_forward(dy, *, shape, index):
    x = np.zeros(shape, dy.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, (np.ndarray, list)) and np.asarray(part).dtype != bool for part in parts):
        np.add.at(x, index, dy)  # integer arrays may name an entry twice
    else:
        x[index] = dy
    return x, (index,)


def scatter_backward(dx, saved, needs):
    return (dx[saved[0]],)
