"""The logarithm of softmax along one axis, without ever dividing by or taking the logarithm of a tiny number.

    y = x - max x - log Σ exp(x - max x)

Backward:

    dx = dy - exp(y) Σ dy

An entry of -inf stays -inf, the logarithm of probability 0.  So does a whole row of them, and its dx is 0.
Saves y alone.
Derivation: log_softmax.md.  Source: Blanchard, Higham & Higham (2021), doi:10.1093/imanum/draa038.
"""

import numpy as np

from ..softmax.softmax import softmax_compiled


def log_softmax_forward(x, *, axis):
    if x.shape[axis] == 0:
        return x * 1, (x * 1, axis)  # nothing has no largest entry
    top = x.max(axis=axis, keepdims=True)
    x = x - np.where(top == -np.inf, 0, top)
    total = np.exp(x).sum(axis=axis, keepdims=True)
    y = np.where(total == 0, -np.inf, x - np.log(np.where(total == 0, 1, total)))
    return y, (y, axis)


def log_softmax_backward(dy, saved, needs):
    y, axis = saved
    if not needs[0]:
        return (None,)
    p = np.exp(y)
    dx = dy - p * dy.sum(axis=axis, keepdims=True)
    return (np.where(p.sum(axis=axis, keepdims=True) == 0, 0, dx),)


log_softmax_compiled = softmax_compiled  # rows in, rows out: the same wrapper around other loops
