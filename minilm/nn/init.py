"""First values of parameters: each returns a new array of ``shape`` drawn from ``rng``.

``fan_in`` and ``fan_out`` are a matrix's inputs and outputs, the last and the first axis, as in torch.nn.init.
Inside ``unset()`` nothing is drawn: parameters are NaN that take no memory, until weights from a file take their place.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

Shape = tuple[int, ...]
_unset: ContextVar[bool] = ContextVar("unset", default=False)


@contextmanager
def unset() -> Iterator[None]:
    """Build modules whose values are to be loaded: no randomness is drawn and no memory taken."""
    token = _unset.set(True)
    try:
        yield
    finally:
        _unset.reset(token)


def is_unset(array: np.ndarray) -> bool:
    """Whether this is a parameter's value from inside ``unset()``, which nothing has replaced yet."""
    return array.ndim > 0 and not array.flags.writeable and not any(array.strides)


def _hole(shape: Shape, dtype: Any) -> np.ndarray:
    return np.broadcast_to(np.array(np.nan, dtype), shape)


def zeros(shape: Shape, dtype: Any = np.float32) -> np.ndarray:
    return _hole(shape, dtype) if _unset.get() else np.zeros(shape, dtype)


def ones(shape: Shape, dtype: Any = np.float32) -> np.ndarray:
    return _hole(shape, dtype) if _unset.get() else np.ones(shape, dtype)


def normal(
    rng: np.random.Generator, shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: Any = np.float32
) -> np.ndarray:
    """Draw from N(mean, std²)."""
    if _unset.get():
        return _hole(shape, dtype)
    return (mean + std * rng.standard_normal(shape)).astype(dtype)


def uniform(
    rng: np.random.Generator, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: Any = np.float32
) -> np.ndarray:
    """Draw from U[low, high)."""
    if _unset.get():
        return _hole(shape, dtype)
    return rng.uniform(low, high, shape).astype(dtype)


def trunc_normal(
    rng: np.random.Generator,
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: Any = np.float32,
) -> np.ndarray:
    """Draw from N(mean, std²), again where a number falls outside [low, high].

    ValueError where the interval lies more than 6 std from the mean, where drawing again would not end.
    """
    if not (low < high and low < mean + 6 * std and high > mean - 6 * std):
        raise ValueError(
            f"trunc_normal: [low, high] must hold likely values of N({mean}, {std}²); got [{low}, {high}]."
        )
    if _unset.get():
        return _hole(shape, dtype)
    values = mean + std * rng.standard_normal(shape)
    while (outside := (values < low) | (values > high)).any():
        values[outside] = mean + std * rng.standard_normal(int(outside.sum()))
    return values.astype(dtype)


def xavier_uniform(rng: np.random.Generator, shape: Shape, gain: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
    """Draw from U[-a, a), a = gain √(6 / (fan_in + fan_out)).  Source: Glorot & Bengio (2010)."""
    bound = gain * math.sqrt(6 / sum(_fans(shape)))
    return uniform(rng, shape, -bound, bound, dtype)


def xavier_normal(rng: np.random.Generator, shape: Shape, gain: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
    """Draw from N(0, gain² 2 / (fan_in + fan_out)).  Source: Glorot & Bengio (2010)."""
    return normal(rng, shape, 0.0, gain * math.sqrt(2 / sum(_fans(shape))), dtype)


def kaiming_uniform(rng: np.random.Generator, shape: Shape, a: float = 0.0, dtype: Any = np.float32) -> np.ndarray:
    """Draw from U[-b, b), b = √(6 / ((1 + a²) fan_in)), ``a`` the slope of a leaky ReLU below 0.

    Source: He et al. (2015), arXiv:1502.01852.  torch.nn.Linear starts from a = √5, which is b = 1 / √fan_in.
    """
    bound = math.sqrt(6 / ((1 + a * a) * _fans(shape)[0]))
    return uniform(rng, shape, -bound, bound, dtype)


def kaiming_normal(rng: np.random.Generator, shape: Shape, a: float = 0.0, dtype: Any = np.float32) -> np.ndarray:
    """Draw from N(0, 2 / ((1 + a²) fan_in)).  Source: He et al. (2015), arXiv:1502.01852."""
    return normal(rng, shape, 0.0, math.sqrt(2 / ((1 + a * a) * _fans(shape)[0])), dtype)


def _fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight (out, in, *window)."""
    if len(shape) < 2:
        raise ValueError(f"fan_in and fan_out need a shape with 2 or more axes, (out, in, ...); got {shape}.")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window
