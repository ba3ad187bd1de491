"""NumPy's functions on Tensors: which primitive, or which few lines of them, each one is."""

import math
from collections.abc import Callable
from functools import cache
from inspect import Signature, signature
from typing import Any

import numpy as np

from .._kernels.primitives import PRIMITIVES
from .core import Tensor, as_tensor, primitive, unsupported, wrap
from .numpy_functions import FUNCTIONS, plain
from .operators import binary, explain


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---- universal functions.  Those that are primitives carry the primitive's name.

_CONSTANT = _names(  # piecewise constant or boolean: the result is off the tape
    "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not logical_xor isfinite "
    "isinf isnan sign signbit floor ceil rint trunc floor_divide bitwise_and bitwise_or bitwise_xor invert"
)
_COMPOSED: dict[str, Callable] = {
    "fabs": np.absolute,
    "positive": lambda x: x,
    "deg2rad": lambda x: x * (math.pi / 180),
    "radians": lambda x: x * (math.pi / 180),
    "rad2deg": lambda x: x * (180 / math.pi),
    "degrees": lambda x: x * (180 / math.pi),
    "divmod": lambda a, b: (np.floor_divide(a, b), np.remainder(a, b)),
    "vecdot": lambda a, b: (a * b).sum(-1),
}
_REDUCES = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one of NumPy's universal functions with a Tensor among its inputs."""
    name = ufunc.__name__
    if method == "reduce" and name in _REDUCES:
        axis = kwargs.pop("axis", 0)
        return getattr(inputs[0], _REDUCES[name])(axis=axis, **_only("keepdims", kwargs, f"np.{name}.reduce"))
    if method == "accumulate" and name == "add":
        axis = kwargs.pop("axis", 0)
        return inputs[0].cumsum(axis, **_only("", kwargs, "np.add.accumulate"))
    if method in ("reduce", "accumulate") and name in _CONSTANT:
        return wrap(np.asarray(getattr(ufunc, method)(inputs[0]._data, **kwargs)))
    if method != "__call__" or kwargs:
        unsupported(f"np.{name}" + (f".{method}" if method != "__call__" else f" with {', '.join(kwargs)}"))
    if name in PRIMITIVES:
        return binary(name, *inputs) if len(inputs) == 2 else primitive(name, *inputs)
    like = next(t for t in inputs if isinstance(t, Tensor))
    if name in _CONSTANT:
        tensors = [as_tensor(t, like) for t in inputs]
        try:
            return wrap(np.asarray(ufunc(*(t._data for t in tensors))))
        except ValueError as error:
            raise ValueError(explain(name, error, *tensors)) from None
    if name in _COMPOSED:
        return _COMPOSED[name](*(as_tensor(t, like) for t in inputs))
    return unsupported(f"np.{name}")


def call_function(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one of NumPy's other functions with a Tensor among its arguments."""
    name = function.__name__
    if name in _METHODS:
        return _call_method(_METHODS[name], function, args, kwargs)
    if name in FUNCTIONS:
        if extra := set(kwargs) - set(_signature(FUNCTIONS[name]).parameters):
            unsupported(f"np.{name} with {', '.join(sorted(extra))}")
        return FUNCTIONS[name](*args, **kwargs)
    if name in _OF_VALUES:
        result = function(*plain(args), **plain(kwargs))
        keep = name in _GIVES_ARRAYS or not isinstance(result, (np.ndarray, np.generic))
        return result if keep else wrap(np.asarray(result))
    return unsupported(f"np.{name}")


def _call_method(method: str, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a Tensor's method with the arguments in the places and names of NumPy's function."""
    given = _signature(function).bind(*args, **kwargs).arguments
    x = as_tensor(given.pop(next(iter(given))))
    known = _signature(getattr(Tensor, method)).parameters
    if extra := [name for name, value in given.items() if name not in known and value is not None]:
        unsupported(f"np.{function.__name__} with {', '.join(extra)}")
    return getattr(x, method)(**{name: value for name, value in given.items() if name in known})


_signature: Callable[[Callable], Signature] = cache(signature)


# ---- functions that are methods, and functions that look at values or shapes only

_METHODS = {
    **{name: name for name in _names("sum mean prod var std cumsum max min swapaxes squeeze ravel copy")},
    "amax": "max",
    "amin": "min",
}
_OF_VALUES = _names(
    "any all argmax argmin argsort count_nonzero nonzero flatnonzero argwhere searchsorted digitize shape ndim size "
    "allclose array_equal array_equiv isclose zeros_like ones_like empty_like full_like result_type array_repr "
    "array_str isin unique iscomplexobj isrealobj may_share_memory shares_memory array2string "
    "min_scalar_type bincount round around fix"
)
_GIVES_ARRAYS = _names("zeros_like ones_like empty_like full_like nonzero flatnonzero argwhere unique bincount")


def _only(allowed: str, kwargs: dict[str, Any], what: str) -> dict[str, Any]:
    if extra := set(kwargs) - set(allowed.split()):
        unsupported(f"{what} with {', '.join(sorted(extra))}")
    return kwargs
