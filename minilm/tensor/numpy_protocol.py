"""NumPy's functions on Tensors: which primitive, or which few lines of them, each one is."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._kernels.primitives import PRIMITIVES
from .core import Tensor, as_tensor, primitive, unsupported, wrap

# ---- universal functions.  Those that are primitives carry the primitive's name.

_CONSTANT = frozenset(  # piecewise constant or boolean: the result is off the tape
    "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not logical_xor isfinite "
    "isinf isnan sign signbit floor ceil rint trunc floor_divide bitwise_and bitwise_or bitwise_xor invert".split()
)
_COMPOSED: dict[str, Callable] = {
    "fabs": np.absolute,
    "positive": lambda x: x,
    "exp2": lambda x: np.exp(x * math.log(2)),
    "hypot": lambda a, b: np.sqrt(a * a + b * b),
    "remainder": lambda a, b: a - b * np.floor_divide(a, b),
    "deg2rad": lambda x: x * (math.pi / 180),
    "rad2deg": lambda x: x * (180 / math.pi),
    "arcsin": lambda x: np.arctan2(x, np.sqrt(1 - x * x)),
    "arccos": lambda x: np.arctan2(np.sqrt(1 - x * x), x),
    "arcsinh": lambda x: np.log(x + np.sqrt(x * x + 1)),
    "arctanh": lambda x: 0.5 * (np.log1p(x) - np.log1p(-x)),
}
_REDUCES = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one of NumPy's universal functions with a Tensor among its inputs."""
    name = ufunc.__name__
    if method == "reduce" and name in _REDUCES:
        axis = kwargs.pop("axis", 0)
        return getattr(inputs[0], _REDUCES[name])(axis=axis, **_only("keepdims", kwargs, f"np.{name}.reduce"))
    if method == "accumulate" and name == "add":
        return inputs[0].cumsum(kwargs.pop("axis", 0))
    if method in ("reduce", "accumulate") and name in _CONSTANT:
        return wrap(np.asarray(getattr(ufunc, method)(inputs[0]._data, **kwargs)))
    if method != "__call__" or kwargs:
        unsupported(f"np.{name}" + (f".{method}" if method != "__call__" else f" with {', '.join(kwargs)}"))
    if name in PRIMITIVES:
        return primitive(name, *inputs)
    if name in _CONSTANT:
        like = next(t for t in inputs if isinstance(t, Tensor))
        return wrap(np.asarray(ufunc(*(as_tensor(t, like)._data for t in inputs))))
    if name in _COMPOSED:
        like = next(t for t in inputs if isinstance(t, Tensor))
        return _COMPOSED[name](*(as_tensor(t, like) for t in inputs))
    return unsupported(f"np.{name}")


def call_function(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one of NumPy's other functions with a Tensor among its arguments."""
    name = function.__name__
    if name in _METHODS:
        return getattr(as_tensor(args[0]), _METHODS[name])(*args[1:], **kwargs)
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](*args, **kwargs)
    if name in _OF_VALUES:
        result = function(*_plain(args), **_plain(kwargs))
        return wrap(result) if isinstance(result, (np.ndarray, np.generic)) and name not in _GIVES_ARRAYS else result
    return unsupported(f"np.{name}")


# ---- functions that are methods, and functions that look at values or shapes only

_METHODS = {
    **{name: name for name in "sum mean prod var std cumsum reshape swapaxes squeeze ravel transpose copy".split()},
    **{"amax": "max", "max": "max", "amin": "min", "min": "min"},
}
_OF_VALUES = frozenset(
    "any all argmax argmin argsort count_nonzero nonzero searchsorted shape ndim size allclose array_equal isclose "
    "zeros_like ones_like empty_like full_like result_type array_repr array_str isin unique iscomplexobj "
    "may_share_memory shares_memory array2string can_cast min_scalar_type bincount".split()
)
_GIVES_ARRAYS = frozenset("zeros_like ones_like empty_like full_like nonzero unique bincount".split())


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._data
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(v) for v in value)
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _only(allowed: str, kwargs: dict[str, Any], what: str) -> dict[str, Any]:
    if extra := set(kwargs) - set(allowed.split()):
        unsupported(f"{what} with {', '.join(sorted(extra))}")
    return kwargs


# ---- functions written in primitives


def where(condition, *branches):
    condition = _plain(condition)
    if len(branches) != 2:
        return np.where(condition)
    like = next((t for t in branches if isinstance(t, Tensor)), None)
    if like is None:
        return wrap(np.where(condition, *branches))
    return primitive("where", *(as_tensor(t, like) for t in branches), condition=np.asarray(condition))


def clip(a, a_min=None, a_max=None, *, min=None, max=None):
    low, high = a_min if min is None else min, a_max if max is None else max
    if any(isinstance(t, Tensor) and t.node is not None for t in (low, high)):
        a = a if low is None else np.maximum(a, low)
        return a if high is None else np.minimum(a, high)
    a, low, high = as_tensor(a), _plain(low), _plain(high)
    if any(np.ndim(bound) > 0 for bound in (low, high)):  # bounds may be wider than a
        a = np.broadcast_to(a, np.broadcast_shapes(a.shape, np.shape(low), np.shape(high)))
    return primitive("clip", a, low=low, high=high)


def einsum(subscripts, *operands, **kwargs):
    if not isinstance(subscripts, str):
        unsupported("np.einsum with a list of axes in place of a string")
    _only("optimize", kwargs, "np.einsum")
    operands = [as_tensor(t) for t in operands]
    try:
        return primitive("einsum", *operands, subscripts=subscripts)
    except ValueError as error:
        shapes = ", ".join(str(t.shape) for t in operands)
        raise ValueError(f"einsum: {subscripts!r} must fit the operands' shapes; got {shapes} ({error}).") from None


def concatenate(arrays, axis=0, **kwargs):
    _only("", kwargs, "np.concatenate")
    tensors = [as_tensor(t) for t in arrays]
    if axis is None:
        tensors, axis = [t.ravel() for t in tensors], 0
    try:
        return primitive("concatenate", *tensors, axis=axis)
    except ValueError:
        shapes = ", ".join(str(t.shape) for t in tensors)
        raise ValueError(f"concatenate: shapes must be equal but for axis {axis}; got {shapes}.") from None


def stack(arrays, axis=0, **kwargs):
    _only("", kwargs, "np.stack")
    tensors = [as_tensor(t) for t in arrays]
    try:
        return primitive("stack", *tensors, axis=axis)
    except ValueError:
        raise ValueError(f"stack: shapes must be equal; got {', '.join(str(t.shape) for t in tensors)}.") from None


def _join(axis, at_least):
    """np.vstack and its family: give every tensor ``at_least`` axes, then join."""

    def joined(arrays):
        tensors = [as_tensor(t) for t in arrays]
        if at_least == 2:
            tensors = [t.reshape(1, -1) if t.ndim < 2 else t for t in tensors]
        tensors = [t.reshape(-1) if t.ndim == 0 else t for t in tensors]
        return concatenate(tensors, axis=0 if tensors[0].ndim == 1 else axis)

    return joined


def split(ary, indices_or_sections, axis=0):
    if isinstance(indices_or_sections, (int, np.integer)) and ary.shape[axis] % indices_or_sections:
        raise ValueError(
            f"split: axis {axis} of length {ary.shape[axis]} must divide into {indices_or_sections} equal parts. "
            "For unequal ones use np.array_split."
        )
    return array_split(ary, indices_or_sections, axis)


def array_split(ary, indices_or_sections, axis=0):
    # NumPy decides where the cuts are, on the numbers 0, 1, 2, ... along the axis.
    parts = np.array_split(np.arange(ary.shape[axis]), indices_or_sections)
    before = (slice(None),) * (axis % ary.ndim)
    return [ary[(*before, slice(int(p[0]), int(p[-1]) + 1) if len(p) else slice(0, 0))] for p in parts]


def broadcast_to(array, shape, subok=False):
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    try:
        return primitive("broadcast_to", array, shape=shape)
    except ValueError:
        raise ValueError(f"broadcast_to: {np.shape(array)} must broadcast to the shape asked for; got {shape}.") from None


def expand_dims(a, axis):
    return a.reshape(np.expand_dims(a._data, axis).shape)


def moveaxis(a, source, destination):
    one = isinstance(source, (int, np.integer))
    source, destination = ([i % a.ndim for i in ([x] if one else x)] for x in (source, destination))
    order = [i for i in range(a.ndim) if i not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return a.transpose(order)


def take(a, indices, axis=None):
    indices = _plain(indices)
    if axis is None:
        return a.ravel()[indices]
    return a[(slice(None),) * (axis % a.ndim) + (np.asarray(indices),)]


def take_along_axis(arr, indices, axis=-1):
    indices = np.asarray(_plain(indices))
    if axis is None:
        return arr.ravel()[indices]
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis % arr.ndim] = indices
    return arr[tuple(grid)]


def flip(m, axis=None):
    axes = range(m.ndim) if axis is None else {a % m.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    return m[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(m.ndim))]


def _gathered(name):
    """A rearrangement along axes: let NumPy rearrange the places 0, 1, 2, ..., then read there."""

    def rearranged(x, *args, **kwargs):
        places = getattr(np, name)(np.arange(x.size).reshape(x.shape), *_plain(args), **_plain(kwargs))
        return x.ravel()[places]

    return rearranged


def _masked(name):
    def triangle(m, k=0):
        return where(getattr(np, name)(np.ones(m.shape[-2:], bool), k), m, np.zeros((), m.dtype))

    return triangle


def pad(array, pad_width, mode="constant", **kwargs):
    if mode != "constant" or set(kwargs) - {"constant_values"}:
        unsupported(f"np.pad with mode={mode!r}")
    inside = np.pad(np.ones(array.shape, bool), pad_width)
    filled = np.pad(np.zeros(array.shape, array.dtype), pad_width, **kwargs)
    widths = np.broadcast_to(pad_width, (array.ndim, 2))
    index = tuple(slice(int(a), int(a) + n) for (a, _), n in zip(widths, array.shape, strict=True))
    return where(inside, array.scatter(inside.shape, index), filled)


def dot(a, b):
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return a @ b if b.ndim <= 2 else tensordot(a, b, ((a.ndim - 1,), (b.ndim - 2,)))


def tensordot(a, b, axes=2):
    a, b = as_tensor(a), as_tensor(b)
    if isinstance(axes, (int, np.integer)):
        axes = (tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes)))
    left, right = ([i % t.ndim for i in np.atleast_1d(x)] for x, t in zip(axes, (a, b), strict=True))
    letters = "abcdefghijklmnopqrstuvwxyz"
    of_a, of_b = list(letters[: a.ndim]), list(letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(left, right, strict=True):
        of_b[j] = of_a[i]
    rest = [x for x in of_a if x not in of_b] + [x for x in of_b if x not in of_a]
    return einsum(f"{''.join(of_a)},{''.join(of_b)}->{''.join(rest)}", a, b)


def outer(a, b):
    return as_tensor(a).reshape(-1, 1) * as_tensor(b).reshape(1, -1)


def norm(x, ord=None, axis=None, keepdims=False):
    if ord not in (None, 2, "fro") or (ord == 2 and axis is None and x.ndim > 1):
        unsupported(f"np.linalg.norm with ord={ord!r}")
    return np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))


def sort(a, axis=-1):
    a, axis = (a.ravel(), 0) if axis is None else (a, axis)
    return take_along_axis(a, np.argsort(a._data, axis=axis), axis)


_FUNCTIONS = {
    **{f.__name__: f for f in (where, clip, einsum, concatenate, stack, split, array_split, broadcast_to, expand_dims)},
    **{f.__name__: f for f in (moveaxis, take, take_along_axis, flip, pad, dot, tensordot, outer, norm, sort)},
    **{name: _gathered(name) for name in ("roll", "rot90", "repeat", "tile", "diagonal", "delete", "resize")},
    **{name: _masked(name) for name in ("tril", "triu")},
    "vstack": _join(0, 2),
    "hstack": _join(1, 1),
    "trace": lambda a: np.diagonal(a).sum(-1),
    "atleast_1d": lambda a: a.reshape(1) if a.ndim == 0 else a,
}
