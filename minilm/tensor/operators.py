"""Operators and methods of a Tensor: each names the primitive that does the work."""

import math
from typing import Any

import numpy as np

from . import core  # core imports this file first, so it is looked into only at run time


class Operators:
    """The methods that a NumPy user expects, in terms of primitives.  ``Tensor`` is its only subclass."""

    __slots__ = ()
    __hash__ = object.__hash__  # == compares entries, so identity is what a dict or set goes by

    def __add__(self, other):
        return binary("add", self, other)

    def __radd__(self, other):
        return binary("add", other, self)

    def __sub__(self, other):
        return binary("subtract", self, other)

    def __rsub__(self, other):
        return binary("subtract", other, self)

    def __mul__(self, other):
        return binary("multiply", self, other)

    def __rmul__(self, other):
        return binary("multiply", other, self)

    def __truediv__(self, other):
        return binary("divide", self, other)

    def __rtruediv__(self, other):
        return binary("divide", other, self)

    def __pow__(self, other):
        if type(other) in (int, float) and other in _POWERS and self._data.dtype.kind == "f":
            return _unary(_POWERS[other], self)  # as NumPy does: exact, and much faster than a power
        return binary("power", self, other)

    def __rpow__(self, other):
        return binary("power", other, self)

    def __matmul__(self, other):
        return binary("matmul", self, other)

    def __rmatmul__(self, other):
        return binary("matmul", other, self)

    def __neg__(self):
        return _unary("negative", self)

    def __pos__(self):
        return self

    def __abs__(self):
        return _unary("absolute", self)

    def __mod__(self, other):
        return binary("remainder", self, other)

    def __rmod__(self, other):
        return binary("remainder", other, self)

    def __floordiv__(self, other):
        return np.floor_divide(self, other)

    def __rfloordiv__(self, other):
        return np.floor_divide(other, self)

    def __divmod__(self, other):
        return self // other, self % other

    def __rdivmod__(self, other):
        return other // self, other % self

    # ---- comparisons and logic: constants, without a gradient

    def __eq__(self, other):
        return NotImplemented if other is None or isinstance(other, str) else np.equal(self, other)

    def __ne__(self, other):
        return NotImplemented if other is None or isinstance(other, str) else np.not_equal(self, other)

    def __lt__(self, other):
        return np.less(self, other)

    def __le__(self, other):
        return np.less_equal(self, other)

    def __gt__(self, other):
        return np.greater(self, other)

    def __ge__(self, other):
        return np.greater_equal(self, other)

    def __and__(self, other):
        return np.bitwise_and(self, other)

    def __rand__(self, other):
        return np.bitwise_and(other, self)

    def __or__(self, other):
        return np.bitwise_or(self, other)

    def __ror__(self, other):
        return np.bitwise_or(other, self)

    def __xor__(self, other):
        return np.bitwise_xor(self, other)

    def __rxor__(self, other):
        return np.bitwise_xor(other, self)

    def __invert__(self):
        return np.invert(self)

    def __contains__(self, value):
        return bool(np.any(np.equal(self, value)))

    def any(self, axis=None, keepdims=False):
        return np.any(self, axis=axis, keepdims=keepdims)

    def all(self, axis=None, keepdims=False):
        return np.all(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis=None, keepdims=False):
        return np.argmax(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis=None, keepdims=False):
        return np.argmin(self, axis=axis, keepdims=keepdims)

    def argsort(self, axis=-1):
        return np.argsort(self, axis=axis)

    def nonzero(self):
        return np.nonzero(self)

    def round(self, decimals=0):
        return np.round(self, decimals)

    def __round__(self, decimals=0):
        return np.round(self, decimals)

    # ---- elementwise

    def exp(self):
        return _unary("exp", self)

    def log(self):
        return _unary("log", self)

    def sqrt(self):
        return _unary("sqrt", self)

    def tanh(self):
        return _unary("tanh", self)

    def erf(self):
        return _unary("erf", self)

    def abs(self):
        return _unary("absolute", self)

    def clip(self, min=None, max=None):
        return np.clip(self, min, max)

    def astype(self, dtype):
        """Cast.  A cast to integers or booleans has no gradient, and leaves the tape."""
        dtype = np.dtype(dtype)
        if dtype == self.dtype:
            return self
        return _unary("astype", self, dtype=dtype) if dtype.kind == "f" else core.wrap(self._data.astype(dtype))

    def copy(self):
        """Return a copy that stays on the tape."""
        return _unary("astype", self, dtype=self.dtype)

    # ---- reductions

    def sum(self, axis=None, keepdims=False):
        return _unary("sum", self, axis=check_axis("sum", self, axis), keepdims=keepdims)

    def mean(self, axis=None, keepdims=False):
        x = self if self.dtype.kind == "f" else self.astype(np.float64)
        return _unary("mean", x, axis=check_axis("mean", self, axis), keepdims=keepdims)

    def max(self, axis=None, keepdims=False):
        return _extreme("max", self, axis, keepdims)

    def min(self, axis=None, keepdims=False):
        return _extreme("min", self, axis, keepdims)

    def prod(self, axis=None, keepdims=False):
        return _unary("prod", self, axis=check_axis("prod", self, axis), keepdims=keepdims)

    def var(self, axis=None, keepdims=False, ddof=0):
        axis = check_axis("var", self, axis)
        centred = self - self.mean(axis, keepdims=True)
        n = math.prod(self.shape[a] for a in axes_named(axis, self.ndim))
        return (centred * centred).sum(axis, keepdims) / max(n - ddof, 0)

    def std(self, axis=None, keepdims=False, ddof=0):
        return self.var(axis, keepdims, ddof).sqrt()

    def cumsum(self, axis=None):
        x = self.reshape(-1) if axis is None else self
        return _unary("cumsum", x, axis=0 if axis is None else check_axis("cumsum", self, axis))

    # ---- shapes

    def reshape(self, *shape):
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        try:
            return _unary("reshape", self, shape=tuple(shape))
        except ValueError:
            raise ValueError(
                f"reshape: the new shape must hold {self.size} entries as {self.shape} does; got {tuple(shape)}."
            ) from None

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))) else axes
        axes = None if not axes else check_axis("transpose", self, tuple(axes))
        if axes is not None and len(axes) != self.ndim:
            raise ValueError(f"transpose: axes must name each of the {self.ndim} axes once; got {axes}.")
        return _unary("transpose", self, axes=axes)

    @property
    def T(self):
        return self.transpose()

    @property
    def mT(self):
        return self.swapaxes(-1, -2)

    def swapaxes(self, axis1, axis2):
        order = list(range(self.ndim))
        i, j = check_axis("swapaxes", self, (axis1, axis2))
        order[i], order[j] = j, i
        return _unary("transpose", self, axes=tuple(order))

    def ravel(self):
        return self.reshape(-1)

    flatten = ravel

    def squeeze(self, axis=None):
        chosen = axes_named(check_axis("squeeze", self, axis), self.ndim)
        if axis is not None and any(self.shape[a] != 1 for a in chosen):
            raise ValueError(f"squeeze: the axes named must have length 1; got axis {axis} of shape {self.shape}.")
        return self.reshape(tuple(n for a, n in enumerate(self.shape) if a not in chosen or n != 1))

    def __getitem__(self, index):
        index = core.plain_index(index)
        try:
            return _unary("getitem", self, index=index)
        except IndexError as error:
            raise IndexError(f"index of a tensor of shape {self.shape}: {error}") from None

    def scatter(self, shape, index):
        """Return zeros of ``shape`` with this tensor added at ``index``: the adjoint of indexing."""
        return _unary("scatter", self, shape=shape, index=index)

    def take(self, indices, axis=None):
        return np.take(self, indices, axis=axis)

    def repeat(self, repeats, axis=None):
        return np.repeat(self, repeats, axis=axis)

    def diagonal(self, offset=0, axis1=0, axis2=1):
        return np.diagonal(self, offset, axis1, axis2)

    def trace(self, offset=0, axis1=0, axis2=1):
        return np.trace(self, offset, axis1, axis2)

    def dot(self, other):
        return np.dot(self, other)


def _unary(name: str, x: Any, **static: Any) -> Any:
    return core.apply(core.PRIMITIVES[name], x, **static)


def binary(name: str, a: Any, b: Any) -> Any:
    tensor = a if isinstance(a, core.Tensor) else b
    a, b = core.as_tensor(a, tensor), core.as_tensor(b, tensor)
    try:
        return core.apply(core.PRIMITIVES[name], a, b)
    except ValueError as error:
        raise ValueError(explain(name, error, a, b)) from None


def explain(name: str, error: Exception, *inputs: Any) -> str:
    """Say which op it was and what shapes it got; NumPy's own words where it is not a matter of shapes."""
    shapes = " and ".join(str(x.shape) for x in inputs)
    if name == "matmul":
        return (
            "matmul: the last axis of the first must be as long as the last but one of the second, and leading axes "
            f"broadcast; got {shapes}."
        )
    try:
        np.broadcast_shapes(*(x.shape for x in inputs))
    except ValueError:
        return f"{name}: shapes must be equal, or 1, on every axis from the last; got {shapes}."
    return f"{name}: {error}"


def _extreme(name: str, x: Any, axis: Any, keepdims: bool) -> Any:
    axis = check_axis(name, x, axis)
    if not x.size and any(x.shape[a] == 0 for a in axes_named(axis, x.ndim)):
        raise ValueError(f"{name}: there must be at least one entry to choose from; got shape {x.shape}, axis {axis}.")
    return _unary(name, x, axis=axis, keepdims=keepdims)


_POWERS = {2: "square", 0.5: "sqrt", -1: "reciprocal"}


def axes_named(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes that ``axis``, which may be None for all, one or several, names."""
    if axis is None:
        return tuple(range(ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def check_axis(op: str, x: Any, axis: Any) -> Any:
    """Check one axis or several, and count negative ones from the end."""
    if axis is None:
        return None
    if type(axis) is int and -x.ndim <= axis < x.ndim:  # the usual case
        return axis % x.ndim
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    for a in axes:
        if not isinstance(a, (int, np.integer)):
            raise TypeError(f"{op}: an axis must be an integer; got {a!r}.")
        if not -x.ndim <= a < x.ndim:
            raise np.exceptions.AxisError(f"{op}: axis must lie in [-{x.ndim}, {x.ndim}) for shape {x.shape}; got {a}.")
    axes = tuple(int(a) % x.ndim for a in axes)
    if len(set(axes)) != len(axes) and op != "swapaxes":
        raise ValueError(f"{op}: an axis may be named once; got {axis}.")
    return axes if isinstance(axis, (tuple, list)) else axes[0]
