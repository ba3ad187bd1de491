"""Operators and methods of a Tensor: each names the primitive that does the work."""

from typing import Any

import numpy as np

from . import core  # core imports this file first, so it is looked into only at run time


class Operators:
    """The methods that a NumPy user expects, in terms of primitives.  ``Tensor`` is its only subclass."""

    __slots__ = ()
    __hash__ = object.__hash__  # == compares entries, so identity is what a dict or set goes by

    def __add__(self, other):
        return _binary("add", self, other)

    def __radd__(self, other):
        return _binary("add", other, self)

    def __sub__(self, other):
        return _binary("subtract", self, other)

    def __rsub__(self, other):
        return _binary("subtract", other, self)

    def __mul__(self, other):
        return _binary("multiply", self, other)

    def __rmul__(self, other):
        return _binary("multiply", other, self)

    def __truediv__(self, other):
        return _binary("divide", self, other)

    def __rtruediv__(self, other):
        return _binary("divide", other, self)

    def __pow__(self, other):
        return _binary("power", self, other)

    def __rpow__(self, other):
        return _binary("power", other, self)

    def __matmul__(self, other):
        return _binary("matmul", self, other)

    def __rmatmul__(self, other):
        return _binary("matmul", other, self)

    def __neg__(self):
        return _unary("negative", self)

    def __pos__(self):
        return self

    def __abs__(self):
        return _unary("absolute", self)

    def __mod__(self, other):
        return np.remainder(self, other)

    def __floordiv__(self, other):
        return np.floor_divide(self, other)

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

    def __invert__(self):
        return np.invert(self)

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
        return _unary("add", self, 0)

    # ---- reductions

    def sum(self, axis=None, keepdims=False):
        return _unary("sum", self, axis=_axis("sum", self, axis), keepdims=keepdims)

    def mean(self, axis=None, keepdims=False):
        x = self if self.dtype.kind == "f" else self.astype(np.float64)
        return _unary("mean", x, axis=_axis("mean", self, axis), keepdims=keepdims)

    def max(self, axis=None, keepdims=False):
        return _unary("max", self, axis=_axis("max", self, axis), keepdims=keepdims)

    def min(self, axis=None, keepdims=False):
        return _unary("min", self, axis=_axis("min", self, axis), keepdims=keepdims)

    def prod(self, axis=None, keepdims=False):
        return _unary("prod", self, axis=_axis("prod", self, axis), keepdims=keepdims)

    def var(self, axis=None, keepdims=False, ddof=0):
        centred = self - self.mean(axis, keepdims=True)
        n = self.size // max(centred.sum(axis).size, 1)
        return (centred * centred).sum(axis, keepdims) / (n - ddof)

    def std(self, axis=None, keepdims=False, ddof=0):
        return self.var(axis, keepdims, ddof).sqrt()

    def cumsum(self, axis=None):
        x = self.reshape(-1) if axis is None else self
        return _unary("cumsum", x, axis=0 if axis is None else _axis("cumsum", self, axis))

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
        axes = None if not axes else tuple(axes)
        if axes is not None and sorted(a % max(self.ndim, 1) for a in axes) != list(range(self.ndim)):
            raise ValueError(f"transpose: axes must name each of the {self.ndim} axes once; got {axes}.")
        return _unary("transpose", self, axes=axes)

    @property
    def T(self):
        return self.transpose()

    @property
    def mT(self):
        return self.swapaxes(-1, -2)

    def swapaxes(self, a, b):
        order = list(range(self.ndim))
        a, b = _axis("swapaxes", self, (a, b))
        order[a], order[b] = order[b], order[a]
        return _unary("transpose", self, axes=tuple(order))

    def ravel(self):
        return self.reshape(-1)

    flatten = ravel

    def squeeze(self, axis=None):
        return self.reshape(np.squeeze(self._data, axis).shape)

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


def _unary(name: str, x: Any, *more: Any, **static: Any) -> Any:
    return core.primitive(name, x, *more, **static)


def _binary(name: str, a: Any, b: Any) -> Any:
    tensor = a if isinstance(a, core.Tensor) else b
    a, b = core.as_tensor(a, tensor), core.as_tensor(b, tensor)
    try:
        return core.apply(core.PRIMITIVES[name], a, b)
    except ValueError:
        raise ValueError(f"{name}: {_MUST[name == 'matmul']}; got {a.shape} and {b.shape}.") from None


_MUST = {
    False: "shapes must be equal, or 1, on every axis from the last",
    True: "the last axis of the first must be as long as the last but one of the second, and leading axes broadcast",
}


def _axis(op: str, x: Any, axis: Any) -> Any:
    """Check one axis or several, and count negative ones from the end."""
    if axis is None:
        return None
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    for a in axes:
        if not isinstance(a, (int, np.integer)) or not -x.ndim <= a < x.ndim:
            raise np.exceptions.AxisError(f"{op}: axis must lie in [-{x.ndim}, {x.ndim}) for shape {x.shape}; got {a}.")
    axes = tuple(int(a) % x.ndim for a in axes)
    if len(set(axes)) != len(axes) and op != "swapaxes":
        raise ValueError(f"{op}: an axis may be named once; got {axis}.")
    return axes if isinstance(axis, (tuple, list)) else axes[0]
