"""The same numbers in another shape, order or company.  All but the joins return views, as NumPy does."""

import numpy as np

from ..layout import side_by_side
from .broadcasting import fit


def reshape_forward(x, *, shape):
    return x.reshape(shape), (x.shape,)


def reshape_backward(dy, saved, needs):
    return (dy.reshape(saved[0]),)


def transpose_forward(x, *, axes):
    return x.transpose(axes), (axes,)


def transpose_backward(dy, saved, needs):
    (axes,) = saved
    return (dy.transpose() if axes is None else dy.transpose(_inverse(axes)),)


def _inverse(axes):
    inverse = [0] * len(axes)
    for i, axis in enumerate(axes):  # a negative axis counts from the end, as an index of the list does
        inverse[axis] = i
    return inverse


def rearrange_forward(x, *, shape, axes, to, apart):
    """The heads of attention, split and merged: x.reshape(shape).transpose(axes).reshape(to) as one op of one step.

    ``to`` may be None, for the shape that it has then.  ``apart``: one output for each index of the first axis.
    """
    y = x.reshape(shape).transpose(axes)
    turned = y.shape
    if to is not None:
        y = y.reshape(to)
    return tuple(y) if apart else y, (x.shape, x.dtype, turned, axes, y.shape)


def rearrange_backward(dy, saved, needs):
    shape, dtype, turned, axes, to = saved
    if type(dy) is list:
        dy = _together(dy, to, dtype)
    return (dy.reshape(turned).transpose(_inverse(axes)).reshape(shape),)


def broadcast_to_forward(x, *, shape):
    return np.broadcast_to(x, shape), (x.shape,)


def broadcast_to_backward(dy, saved, needs):
    return (fit(dy, saved[0]),)


def concatenate_forward(*parts, axis):
    return np.concatenate(parts, axis=axis), (axis, tuple(p.shape[axis] for p in parts), tuple(p.dtype for p in parts))


def concatenate_backward(dy, saved, needs):
    axis, lengths, dtypes = saved
    before, start, grads = (slice(None),) * (axis % dy.ndim), 0, []
    for need, length, dtype in zip(needs, lengths, dtypes, strict=True):
        part = dy[(*before, slice(start, start + length))] if need else None
        grads.append(part if part is None or part.dtype == dtype else part.astype(dtype))
        start += length
    return tuple(grads)


def stack_forward(*parts, axis):
    return np.stack(parts, axis=axis), (axis, tuple(p.dtype for p in parts))


def stack_backward(dy, saved, needs):
    axis, dtypes = saved
    before, grads = (slice(None),) * (axis % dy.ndim), []
    for i, (need, dtype) in enumerate(zip(needs, dtypes, strict=True)):
        part = dy[(*before, i)] if need else None
        grads.append(part if part is None or part.dtype == dtype else part.astype(dtype))
    return tuple(grads)


def unstack_forward(x):  # (n, ...) -> n of (...)
    return tuple(x), (x.shape, x.dtype)


def unstack_backward(dys, saved, needs):
    return (_together(dys, *saved),)


def _together(dys, shape, dtype):
    """The gradients of all outputs, where None stands for zeros, as one array of ``shape``; where they lie, if so."""
    if (dx := side_by_side(dys)) is None:
        dx = np.stack([np.zeros(shape[1:], dtype) if dy is None else dy for dy in dys])
    return dx
