"""Functions that take an axis, or all axes, down to one number; and running sums.

``kept`` is the shape of the output had every reduced axis been kept with length 1.
"""

import math

import numpy as np


def _kept(shape, axis):
    if axis is None:
        return (1,) * len(shape)
    axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))} if shape else ()
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


# y = Σ x


def sum_forward(x, *, axis=None, keepdims=False):
    return x.sum(axis=axis, keepdims=keepdims), (x.shape, x.dtype, _kept(x.shape, axis))


def sum_backward(dy, saved, needs):
    shape, dtype, kept = saved
    dy = dy.reshape(kept)
    return (np.broadcast_to(dy if dy.dtype == dtype else dy.astype(dtype), shape),)


# y = Σ x / n


def mean_forward(x, *, axis=None, keepdims=False):
    return x.mean(axis=axis, keepdims=keepdims), (x.shape, x.dtype, _kept(x.shape, axis))


def mean_backward(dy, saved, needs):
    shape, dtype, kept = saved
    n = 1
    for length, one in zip(shape, kept, strict=True):
        n *= length if one == 1 else 1
    dy = dy.reshape(kept) / n if n else dy.reshape(kept)  # no entries: nothing will receive it
    return (np.broadcast_to(dy if dy.dtype == dtype else dy.astype(dtype), shape),)


# y = max x, y = min x: entries that tie share the gradient


def max_forward(x, *, axis=None, keepdims=False):
    y = x.max(axis=axis, keepdims=keepdims)
    return y, (x, y, axis, _kept(x.shape, axis))


def max_backward(dy, saved, needs):
    x, y, axis, kept = saved
    best = (x == y.reshape(kept)).astype(dy.dtype)
    return (dy.reshape(kept) * best / best.sum(axis=axis, keepdims=True),)


def min_forward(x, *, axis=None, keepdims=False):
    y = x.min(axis=axis, keepdims=keepdims)
    return y, (x, y, axis, _kept(x.shape, axis))


min_backward = max_backward


# y = Π x: each entry receives the product of all the others, which y / x is not where an entry is 0


def prod_forward(x, *, axis=None, keepdims=False):
    return x.prod(axis=axis, keepdims=keepdims), (x, axis, _kept(x.shape, axis))


def prod_backward(dy, saved, needs):
    x, axis, kept = saved
    axes = range(x.ndim) if axis is None else sorted(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    order = [i for i in range(x.ndim) if i not in axes] + list(axes)
    moved = x.transpose(order)
    rows = moved.reshape(*moved.shape[: x.ndim - len(axes)], math.prod(x.shape[a] for a in axes))  # (..., n)
    back = [order.index(i) for i in range(x.ndim)]
    return (dy.reshape(kept) * _products_of_others(rows).reshape(moved.shape).transpose(back),)


def _products_of_others(x):  # (..., n): twice as many products as entries, taken in pairs, pairs of pairs, ...
    *rows, n = x.shape
    if n <= 1 or not x.size:
        return np.ones(x.shape, x.dtype)
    if n % 2:
        x = np.concatenate([x, np.ones((*rows, 1), x.dtype)], axis=-1)
    pairs = x.reshape(*rows, (n + 1) // 2, 2)
    outside = _products_of_others(pairs[..., 0] * pairs[..., 1])  # (..., n/2)
    return (outside[..., None] * pairs[..., ::-1]).reshape(x.shape)[..., :n]


# y_i = x_0 + ... + x_i


def cumsum_forward(x, *, axis):
    return x.cumsum(axis=axis), (axis,)


def cumsum_backward(dy, saved, needs):
    (axis,) = saved
    backwards = (slice(None),) * (axis % dy.ndim) + (slice(None, None, -1),)
    return (dy[backwards].cumsum(axis=axis)[backwards],)
