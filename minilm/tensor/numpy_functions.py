"""NumPy's functions that take several lines of primitives: joins, splits, gathers, products and the like.

Names and arguments are NumPy's; arguments that make no sense on the tape (out, dtype, ...) are left out.
"""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from .. import guard
from .core import Tensor, as_tensor, primitive, unsupported, wrap
from .operators import axes_named, check_axis, explain


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._data
    if isinstance(value, (tuple, list)):
        return type(value)(plain(v) for v in value)
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def held(value: Any) -> Any:
    """The plain value; an array that the caller may write to later is announced to the guard."""
    value = plain(value)
    return guard.expose(value) if isinstance(value, np.ndarray) else value


def where(condition, *branches):
    if len(branches) != 2:
        return np.where(plain(condition))
    condition = np.asarray(held(condition))
    like = next((t for t in branches if isinstance(t, Tensor)), None)
    tensors = [as_tensor(t, like) for t in branches]
    try:
        return primitive("where", *tensors, condition=condition)
    except ValueError as error:
        raise ValueError(explain("where", error, wrap(condition), *tensors)) from None


def clip(a, a_min=None, a_max=None, *, min=None, max=None):
    low, high = a_min if min is None else min, a_max if max is None else max
    if any(isinstance(t, Tensor) and t.node is not None for t in (low, high)):
        a = a if low is None else np.maximum(a, low)
        return a if high is None else np.minimum(a, high)
    a, low, high = as_tensor(a), held(low), held(high)
    shapes = a.shape, np.shape(low), np.shape(high)
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError("clip: the bounds must broadcast with x; got {}, {} and {}.".format(*shapes)) from None
    if shape != a.shape:  # bounds may be wider than a
        a = np.broadcast_to(a, shape)
    return primitive("clip", a, low=low, high=high)


def einsum(subscripts, *operands, optimize=False):
    if not isinstance(subscripts, str):
        unsupported("np.einsum with a list of axes in place of a string")
    operands = [as_tensor(t) for t in operands]
    try:
        return primitive("einsum", *operands, subscripts=subscripts)
    except ValueError as error:
        shapes = ", ".join(str(t.shape) for t in operands)
        raise ValueError(f"einsum: {subscripts!r} must fit the operands' shapes; got {shapes} ({error}).") from None


def concatenate(arrays, axis=0):
    tensors = [as_tensor(t) for t in arrays]
    if axis is None:
        tensors, axis = [t.ravel() for t in tensors], 0
    axis = check_axis("concatenate", tensors[0], axis)
    if len({t.shape[:axis] + t.shape[axis + 1 :] for t in tensors}) > 1 or len({t.ndim for t in tensors}) > 1:
        shapes = ", ".join(str(t.shape) for t in tensors)
        raise ValueError(f"concatenate: shapes must be equal but for axis {axis}; got {shapes}.")
    return primitive("concatenate", *tensors, axis=axis)


def stack(arrays, axis=0):
    tensors = [as_tensor(t) for t in arrays]
    if len({t.shape for t in tensors}) > 1:
        raise ValueError(f"stack: shapes must be equal; got {', '.join(str(t.shape) for t in tensors)}.")
    return primitive("stack", *tensors, axis=_new_axis("stack", tensors[0], axis))


def unstack(x, /, *, axis=0):
    axis = check_axis("unstack", x, axis)
    return primitive("unstack", moveaxis(x, axis, 0))


def _new_axis(op, x, axis):
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise np.exceptions.AxisError(f"{op}: a new axis must lie in [-{x.ndim + 1}, {x.ndim}]; got {axis}.")
    return axis % (x.ndim + 1)


def _join(axis, least):
    """np.vstack and its family: give every tensor ``least`` axes, as NumPy's family does, then join."""

    def joined(tup):
        tensors = [_AT_LEAST[least](as_tensor(t)) for t in tup]
        return concatenate(tensors, axis=0 if tensors[0].ndim == 1 else axis)

    return joined


def column_stack(tup):
    tensors = [as_tensor(t) for t in tup]
    return concatenate([t.reshape(-1, 1) if t.ndim < 2 else t for t in tensors], axis=1)


_AT_LEAST: dict[int, Callable] = {
    1: lambda x: x.reshape(1) if x.ndim == 0 else x,
    2: lambda x: x if x.ndim >= 2 else x.reshape(1, x.size),
    3: lambda x: x if x.ndim >= 3 else x.reshape(*x.shape, 1) if x.ndim == 2 else x.reshape(1, x.size, 1),
}


def _at_least(least):
    def widened(*arys):
        tensors = tuple(_AT_LEAST[least](as_tensor(t)) for t in arys)
        return tensors if len(tensors) > 1 else tensors[0]

    return widened


def split(ary, indices_or_sections, axis=0):
    axis = check_axis("split", ary, axis)
    if isinstance(indices_or_sections, (int, np.integer)) and ary.shape[axis] % indices_or_sections:
        raise ValueError(
            f"split: axis {axis} of length {ary.shape[axis]} must divide into {indices_or_sections} equal parts. "
            "For unequal ones use np.array_split."
        )
    return array_split(ary, indices_or_sections, axis)


def array_split(ary, indices_or_sections, axis=0):
    # NumPy decides where the cuts are, on the numbers 0, 1, 2, ... along the axis.
    axis = check_axis("array_split", ary, axis)
    parts = np.array_split(np.arange(ary.shape[axis]), plain(indices_or_sections))
    before = (slice(None),) * axis
    return [ary[(*before, slice(int(p[0]), int(p[-1]) + 1) if len(p) else slice(0, 0))] for p in parts]


def _split_at(axis):
    def cut(ary, indices_or_sections):
        return split(ary, indices_or_sections, 0 if ary.ndim == 1 else axis)

    return cut


def reshape(a, /, shape):
    return as_tensor(a).reshape(shape)


def transpose(a, axes=None):
    return as_tensor(a).transpose(axes)


def broadcast_to(array, shape, subok=False):
    array = as_tensor(array)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    try:
        return primitive("broadcast_to", array, shape=shape)
    except ValueError:
        raise ValueError(f"broadcast_to: {array.shape} must broadcast to the shape asked for; got {shape}.") from None


def broadcast_arrays(*args):
    shape = np.broadcast_shapes(*(np.shape(t) for t in args))
    return tuple(broadcast_to(t, shape) for t in args)


def expand_dims(a, axis):
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    ndim = a.ndim + len(axes)
    if any(not -ndim <= i < ndim for i in axes) or len({i % ndim for i in axes}) != len(axes):
        raise np.exceptions.AxisError(f"expand_dims: axes must differ and lie in [-{ndim}, {ndim}); got {axis}.")
    new, lengths = {i % ndim for i in axes}, iter(a.shape)
    return a.reshape(tuple(1 if i in new else next(lengths) for i in range(ndim)))


def moveaxis(a, source, destination):
    source = axes_named(check_axis("moveaxis", a, source), a.ndim)
    destination = axes_named(check_axis("moveaxis", a, destination), a.ndim)
    if len(source) != len(destination):
        raise ValueError(f"moveaxis: as many places to move to as axes to move; got {destination} for {source}.")
    order = [i for i in range(a.ndim) if i not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return a.transpose(order)


def take(a, indices, axis=None):
    a, indices = as_tensor(a), np.asarray(plain(indices))
    indices = indices.astype(np.intp) if not indices.size else indices
    if axis is None:
        return a.ravel()[indices]
    return a[(slice(None),) * check_axis("take", a, axis) + (indices,)]


def take_along_axis(arr, indices, axis=-1):
    arr, indices = as_tensor(arr), np.asarray(plain(indices))
    if axis is None:
        return arr.ravel()[indices]
    axis = check_axis("take_along_axis", arr, axis)
    if indices.ndim != arr.ndim:
        raise ValueError(f"take_along_axis: as many axes of indices as of x; got {indices.shape} and {arr.shape}.")
    places = [np.arange(n).reshape((-1,) + (1,) * (arr.ndim - 1 - i)) for i, n in enumerate(arr.shape)]
    places[axis] = indices
    return arr[tuple(places)]


def flip(m, axis=None):
    axes = axes_named(check_axis("flip", m, axis), m.ndim)
    return m[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(m.ndim))]


def _gathered(name):
    """A rearrangement along axes: let NumPy rearrange the places 0, 1, 2, ..., then read there."""

    def rearranged(x, *args, **kwargs):
        x = as_tensor(x)
        places = getattr(np, name)(np.arange(x.size).reshape(x.shape), *plain(args), **plain(kwargs))
        return x.ravel()[places]

    rearranged.__signature__ = signature(getattr(np, name))
    return rearranged


def _masked(name):
    def triangle(m, k=0):
        inside = getattr(np, name)(np.ones(m.shape[-2:], bool), k)
        return primitive("where", m, np.zeros((), m.dtype), condition=inside)

    return triangle


def diff(a, n=1, axis=-1):
    axis = check_axis("diff", a, axis)
    before = (slice(None),) * axis
    for _ in range(n):
        a = a[(*before, slice(1, None))] - a[(*before, slice(None, -1))]
    return a


def pad(array, pad_width, mode="constant", *, constant_values=0):
    if mode != "constant":
        unsupported(f"np.pad with mode={mode!r}")
    inside = np.pad(np.ones(array.shape, bool), pad_width)
    filled = np.pad(np.zeros(array.shape, array.dtype), pad_width, constant_values=plain(constant_values))
    widths = np.broadcast_to(pad_width, (array.ndim, 2))
    index = tuple(slice(int(a), int(a) + n) for (a, _), n in zip(widths, array.shape, strict=True))
    return primitive("where", array.scatter(inside.shape, index), filled, condition=inside)


def dot(a, b):
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return a @ b if b.ndim <= 2 else tensordot(a, b, ((a.ndim - 1,), (b.ndim - 2,)))


def inner(a, b):
    a, b = as_tensor(a), as_tensor(b)
    return a * b if a.ndim == 0 or b.ndim == 0 else tensordot(a, b, ((a.ndim - 1,), (b.ndim - 1,)))


def vdot(a, b):
    return as_tensor(a).ravel() @ as_tensor(b).ravel()


def tensordot(a, b, axes=2):
    a, b = as_tensor(a), as_tensor(b)
    if isinstance(axes, (int, np.integer)):
        axes = (tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes)))
    left, right = (axes_named(check_axis("tensordot", t, x), t.ndim) for x, t in zip(axes, (a, b), strict=True))
    if [a.shape[i] for i in left] != [b.shape[i] for i in right]:
        raise ValueError(f"tensordot: the axes {left} and {right} must be equally long; got {a.shape} and {b.shape}.")
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    of_a, of_b = list(letters[: a.ndim]), list(letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(left, right, strict=True):
        of_b[j] = of_a[i]
    rest = [x for x in of_a if x not in of_b] + [x for x in of_b if x not in of_a]
    return einsum(f"{''.join(of_a)},{''.join(of_b)}->{''.join(rest)}", a, b)


def outer(a, b):
    return as_tensor(a).reshape(-1, 1) * as_tensor(b).reshape(1, -1)


def trace(a, offset=0, axis1=0, axis2=1):
    return np.diagonal(a, offset, axis1, axis2).sum(-1)


def norm(x, ord=None, axis=None, keepdims=False):
    axes = axes_named(check_axis("norm", x, axis), x.ndim)
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))
    if len(axes) == 1 and ord in (1, np.inf):
        return abs(x).sum(axis, keepdims) if ord == 1 else abs(x).max(axis, keepdims)
    return unsupported(f"np.linalg.norm with ord={ord!r} over {len(axes)} axes")


def ptp(a, axis=None, keepdims=False):
    return a.max(axis, keepdims) - a.min(axis, keepdims)


def sort(a, axis=-1, *, stable=None):
    a, axis = (a.ravel(), 0) if axis is None else (a, check_axis("sort", a, axis))
    return take_along_axis(a, np.argsort(a._data, axis=axis, stable=stable), axis)


def average(a, axis=None, weights=None):
    if weights is None:
        return a.mean(axis)
    a, weights = as_tensor(a), as_tensor(weights)
    if a.shape != weights.shape:
        if not isinstance(axis, (int, np.integer)) or weights.shape != (a.shape[check_axis("average", a, axis)],):
            raise ValueError(f"average: weights must fit x or its axis {axis}; got {weights.shape} and {a.shape}.")
        weights = weights.reshape([n if i == axis % a.ndim else 1 for i, n in enumerate(a.shape)])
    return (a * weights).sum(axis) / np.broadcast_to(weights, a.shape).sum(axis)


FUNCTIONS: dict[str, Callable] = {
    **{f.__name__: f for f in (where, clip, einsum, concatenate, stack, split, array_split, broadcast_to, expand_dims)},
    **{f.__name__: f for f in (moveaxis, take, take_along_axis, flip, pad, dot, tensordot, outer, norm, sort, diff)},
    **{
        f.__name__: f
        for f in (reshape, transpose, broadcast_arrays, column_stack, unstack, inner, vdot, trace, ptp, average)
    },
    **{name: _gathered(name) for name in ("roll", "rot90", "repeat", "tile", "diagonal", "delete", "resize")},
    **{name: _masked(name) for name in ("tril", "triu")},
    **{f"atleast_{n}d": _at_least(n) for n in (1, 2, 3)},
    "vstack": _join(0, 2),
    "hstack": _join(1, 1),
    "dstack": _join(2, 3),
    "vsplit": _split_at(0),
    "hsplit": _split_at(1),
    "dsplit": _split_at(2),
    "fliplr": lambda m: flip(m, 1),
    "flipud": lambda m: flip(m, 0),
}
