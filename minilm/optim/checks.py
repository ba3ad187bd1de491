"""What must hold for options and gradients, and the errors that say so."""

import math
import numbers
from typing import Any

import numpy as np

from ..tensor import Tensor


def plain(value: Any) -> Any:
    """Return an array or NumPy scalar of size 1 as a Python number, and all else as it is."""
    return value.item() if isinstance(value, (np.ndarray, np.generic)) and value.size == 1 else value


def number(who: str, name: str, value: Any) -> float:
    """Return ``value`` as a Python float, which does not promote float32 arrays as NumPy's own scalars do."""
    if type(value) is not float:
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{who}: {name} must be a number, got {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"{who}: {name} must be finite, got {value!r}.")
    return float(value)


def not_negative(who: str, name: str, value: Any) -> float:
    if (value := number(who, name, value)) < 0:
        raise ValueError(f"{who}: {name} must be 0 or more, got {value}.")
    return value


def decay_rates(who: str, name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{who}: {name} must be a pair of numbers such as (0.9, 0.999), got {value!r}.")
    first, second = (number(who, f"{name}[{i}]", beta) for i, beta in enumerate(value))
    for i, beta in enumerate((first, second)):
        if not 0 <= beta < 1:
            raise ValueError(f"{who}: {name}[{i}] must be at least 0 and below 1, got {beta}.")
    return first, second


def flag(who: str, name: str, value: Any) -> bool:
    if not isinstance(value := plain(value), bool):
        raise TypeError(f"{who}: {name} must be True or False, got {value!r}.")
    return value


def gradient(who: str, name: str, p: Tensor) -> np.ndarray | None:
    """Return the gradient of parameter ``name``, or None; raise unless it has the parameter's shape and dtype."""
    g, data = p.node and p.node.grad, p._data
    if type(g) is np.ndarray and g.shape == data.shape and (g.dtype is data.dtype or g.dtype == data.dtype):
        return g
    if g is None:
        return None
    if isinstance(g, Tensor):  # as backward(create_graph=True) leaves it
        g = g._data
    if not isinstance(g, np.ndarray):
        raise TypeError(f"{who}: the gradient of parameter {name} must be an array, got {g!r}.")
    if g.shape != p.shape:
        raise ValueError(
            f"{who}: the gradient of parameter {name} must have the parameter's shape {p.shape}, got {g.shape}. "
            "Was the parameter's data replaced after backward? Call zero_grad() and run backward again."
        )
    if g.dtype != p.dtype:
        raise TypeError(
            f"{who}: the gradient of parameter {name} must have the parameter's dtype {p.dtype}, got {g.dtype}. "
            "Was the parameter's data replaced after backward? Call zero_grad() and run backward again."
        )
    return g
