"""Reading at an index, and its adjoint: adding at an index."""

import numpy as np


def getitem_forward(x, *, index):
    return x[index], (x.shape, _own(index))


def getitem_backward(dy, saved, needs, into=(None,)):
    shape, index = saved
    (dx,) = into
    if dx is None:
        return (scatter(dy, shape, index),)
    if _may_repeat(index):  # the parts of a split fill one array
        np.add.at(dx, index, dy)
    else:
        dx[index] += dy
    return (dx,)


def scatter(dy, shape, index):
    """Return zeros of ``shape`` with ``dy`` added at ``index``; an entry named twice receives both."""
    return dy.scatter(shape, index) if hasattr(dy, "scatter") else scatter_forward(dy, shape=shape, index=index)[0]


def scatter_forward(dy, *, shape, index):
    x = np.zeros(shape, dy.dtype)
    if _may_repeat(index):
        np.add.at(x, index, dy)
    else:
        x[index] = dy
    return x, (_own(index),)


def scatter_backward(dx, saved, needs):
    return (dx[saved[0]],)


def _own(index):
    """Copy the arrays of an index, which the caller may write to before the backward reads them."""
    if isinstance(index, tuple):
        return tuple(_own(part) for part in index)
    return index.copy() if isinstance(index, np.ndarray) else index


def _may_repeat(index):
    """Only integer arrays can name an entry twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, (np.ndarray, list)) and np.asarray(part).dtype != bool for part in parts)
