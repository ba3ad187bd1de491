"""Checks of the arguments of the functions, before any op is applied, and what is made of arguments on the way in."""

from operator import index
from typing import Any

import numpy as np

from .. import seeds
from .._kernels.ranges import lie_below, outside
from ..tensor import Tensor, as_tensor


def check_attention(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool) -> None:
    if q._data.shape == k._data.shape == v._data.shape and q._data.ndim > 2:  # the usual case
        return
    op, shapes = "scaled_dot_product_attention", f"got query {q.shape}, key {k.shape}, value {v.shape}."
    if min(q.ndim, k.ndim, v.ndim) < 3:
        raise ValueError(f"{op}: query, key and value must be (..., H, T, D); {shapes}")
    if q.shape[:-3] != k.shape[:-3] or k.shape[:-1] != v.shape[:-1] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"{op}: leading axes must be equal, key and value must agree in heads and length, query and key in D; "
            + shapes
        )
    H, G = q.shape[-3], k.shape[-3]
    if H != G and not (enable_gqa and G and H % G == 0):
        raise ValueError(
            f"{op}: query's {H} heads must be key's {G}, or, with enable_gqa=True, a multiple of them; {shapes}"
        )


def packed(lengths: Any, T: int, S: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the lengths of the sequences of queries, and of those of keys."""
    pair = lengths if len(lengths) == 2 and all(np.ndim(part) for part in lengths) else (lengths, lengths)
    queries, keys = (tuple(map(index, part)) for part in pair)
    shortest = min((*queries, *keys), default=0)
    if len(queries) != len(keys) or shortest < 0 or (sum(queries), sum(keys)) != (T, S):
        raise ValueError(
            "scaled_dot_product_attention: lengths must be the rows of each sequence, none negative, as many of "
            f"queries as of keys, and sum to {T} queries and {S} keys; got {len(queries)} of {sum(queries)} "
            f"queries and {len(keys)} of {sum(keys)} keys, the shortest {shortest}."
        )
    return queries, keys


def additive(mask: Tensor, dtype: np.dtype) -> Tensor:
    """Turn a boolean mask into 0 where a query may look and -inf where it may not."""
    if mask.dtype == bool:
        return as_tensor(np.where(mask._data, 0.0, -np.inf).astype(dtype))
    return mask.astype(dtype)


def seed(op: str, p: float, training: bool, rng: np.random.Generator | None) -> int | None:
    """Draw the seed of a dropout, or return None where nothing is dropped."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{op}: the probability of dropping must lie in [0, 1]; got {p}.")
    if p == 0.0 or not training:
        return None
    if rng is None:
        raise ValueError(f"{op}: dropping at random needs rng, a numpy.random.Generator; pass rng or training=False.")
    return seeds.draw(rng)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    if shape == to[len(to) - len(shape) :]:  # the usual case
        return True
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False))


def optional(value: Any) -> Tensor | None:
    return None if value is None else as_tensor(value)


def floating(op: str, x: Tensor) -> None:
    if x._data.dtype.kind != "f":
        raise TypeError(f"{op}: the input must be floating-point; got {x.dtype}. Cast with x.astype(np.float32).")


def integers(op: str, name: str, x: Tensor) -> None:
    if x._data.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} must be integers; got {x.dtype}. Cast with x.astype(np.int64).")


def in_range(op: str, what: str, ids: np.ndarray, V: int, hint: str, ignored: int | None = None) -> None:
    if not lie_below(ids, V, ignored):
        bad = ids[outside(ids, V, ignored)].flat[0]
        raise IndexError(f"{op}: {what} must lie in [0, {V}); got {bad}. {hint}")


def check_labels(op: str, t: Tensor, V: int, ignore_index: int, label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{op}: label_smoothing must lie in [0, 1]; got {label_smoothing}.")
    in_range(op, "labels", t._data, V, f"Labels to leave out must be ignore_index, {ignore_index}.", ignore_index)


def last_axis(op: str, x: Tensor, *vectors: Tensor | None, names: tuple[str, ...] = ("weight", "bias")) -> None:
    """Check that x is of floats, and that the ``vectors``, which have these names, fit its last axis."""
    axis, dtype = x._data.shape[-1:], x._data.dtype
    for v in vectors:
        if v is not None and (v._data.shape != axis or v._data.dtype is not dtype):
            break
    else:
        if axis and dtype.kind == "f":
            return
    floating(op, x)
    named = dict(zip(names, vectors, strict=False))
    if not axis or any(v is not None and v.shape != axis for v in vectors):
        got = ", ".join(f"{name} {v.shape}" for name, v in named.items() if v is not None)
        raise ValueError(
            f"{op}: {' and '.join(named)} must have the shape of the last axis of input {x.shape}; got {got}."
        )
    same_dtype(op, input=x, **named)


def fits_matrix(op: str, x: Tensor, w: Tensor, b: Tensor | None, transposed: bool) -> None:
    """Check that x (..., C) can be multiplied by w, (F, C) if ``transposed``, otherwise (C, F), and b (F,) be added."""
    shape = w._data.shape
    if len(shape) != 2 or x._data.shape[-1:] != (shape[1 if transposed else 0],):
        rows = "(F, C)" if transposed else "(C, F)"
        raise ValueError(
            f"{op}: input (..., C) and weight {rows} must agree in C; got input {x.shape} and weight {w.shape}."
        )
    F = shape[0 if transposed else 1]
    if b is not None and b._data.shape != (F,):
        raise ValueError(f"{op}: bias must have shape ({F},), one per output; got {b.shape}.")
    same_dtype(op, input=x, weight=w, bias=b)


def same_dtype(op: str, **tensors: Tensor | None) -> None:
    first = None
    for t in tensors.values():
        if t is not None:
            dtype = t._data.dtype
            if first is None:
                first = dtype
            elif dtype is not first and dtype != first:  # most dtypes are one object: comparing takes longer
                break
    else:
        return
    got = ", ".join(f"{name} {t.dtype}" for name, t in tensors.items() if t is not None)
    raise TypeError(f"{op}: all must have one dtype; got {got}. Cast with x.astype(...).")


def axis(op: str, x: Tensor, axis: int) -> int:
    floating(op, x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{op}: dim must lie in [-{x.ndim}, {x.ndim}) for shape {x.shape}; got {axis}.")
    return axis % x.ndim


def choice(op: str, name: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise ValueError(f"{op}: {name} must be {' or '.join(map(repr, choices))}; got {value!r}.")
