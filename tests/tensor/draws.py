"""What hypothesis draws: shapes, numbers, layouts in memory, axes and index expressions.

Values come from a seeded generator, so that hypothesis spends its search on shapes and arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minilm.tensor import Tensor


@dataclass
class Case:
    """One call: ``numpy(*arrays)`` is what NumPy says, ``tensor(*tensors)`` what must agree with it.

    ``differentiable`` says for which of the arrays; the others are constants.
    """

    arrays: list[np.ndarray]
    numpy: Callable
    tensor: Callable
    differentiable: list[int] = field(default_factory=list)
    what: str = ""

    def __post_init__(self):
        self.differentiable = self.differentiable or [i for i, a in enumerate(self.arrays) if a.dtype.kind == "f"]

    def __repr__(self):
        arrays = ", ".join(f"{a.dtype}{a.shape} strides {a.strides}" for a in self.arrays)
        return f"Case({self.what} of {arrays})"


def generator(draw):
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def shapes(least=0, most=4, side=0, longest=5):
    return npst.array_shapes(min_dims=least, max_dims=most, min_side=side, max_side=longest)


# ---- numbers


def between(low, high):
    return lambda rng, shape: rng.uniform(low, high, shape)


def away_from_zero(low=0.4, high=2.0):
    return lambda rng, shape: rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape)


def on_grid(offset=0.0):
    """Multiples of ½ plus ``offset``: numbers from grids of different offsets are never close."""
    return lambda rng, shape: 0.5 * rng.integers(-4, 5, shape) + offset


def distinct(rng, shape):
    """No two entries closer than ¼."""
    n = int(np.prod(shape))
    return (0.25 * rng.permutation(n) - 0.125 * n).reshape(shape)


anything = between(-2.0, 2.0)


# ---- layouts


@st.composite
def layouts(draw, array, repeats=False):
    """The same numbers in another order or with gaps in memory, read backwards, or read-only.

    ``repeats`` allows stride 0 as well, which makes entries along one axis equal.
    """
    if draw(st.booleans()):
        return array
    if repeats and array.ndim and draw(st.booleans()):
        axis = draw(st.integers(0, array.ndim - 1))
        if array.shape[axis]:
            first = array[(slice(None),) * axis + (slice(0, 1),)]
            return np.broadcast_to(first, array.shape)
    order = draw(st.permutations(range(array.ndim)))
    steps = [draw(st.sampled_from([1, 2, -1, -2])) for _ in order]
    lengths = [array.shape[axis] for axis in order]
    room = np.full([n * abs(step) for n, step in zip(lengths, steps, strict=True)], 7, array.dtype)
    view = room[(*(slice(None, None, step) for step in steps), ...)]
    view = view.transpose([order.index(axis) for axis in range(array.ndim)])
    view[...] = array
    view.flags.writeable = draw(st.booleans())
    return view


@st.composite
def arrays(draw, shape, numbers=anything, repeats=False, dtype=np.float64):
    shape = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    values = np.asarray(numbers(generator(draw), shape), dtype)
    return draw(layouts(values, repeats=repeats))


def integers(low, high):
    return lambda rng, shape: rng.integers(low, high, shape)


# ---- axes


def axis_of(array):
    return st.integers(-array.ndim, array.ndim - 1)


@st.composite
def reductions(draw, ndim):
    """axis and keepdims: None, one, or several, from either end."""
    kind = draw(st.sampled_from(["none", "one", "several"])) if ndim else "none"
    axis: Any = None
    if kind == "one":
        axis = draw(st.integers(-ndim, ndim - 1))
    elif kind == "several":
        axis = draw(npst.valid_tuple_axes(ndim))
    return {"axis": axis, "keepdims": draw(st.booleans())}


def taken_together(shape, axis):
    """How many entries are reduced to one."""
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return int(np.prod([shape[a] for a in axes]))


# ---- index expressions


@st.composite
def indices(draw, shape, tensors=True):
    """An index for ``shape``, as given to a Tensor, and the same for an array."""
    kind = draw(st.sampled_from(["basic", "mask", "mixed", "mixed"]))
    if kind == "basic":
        index = draw(npst.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
        return index, index
    if kind == "mask":
        axes = draw(st.integers(0, len(shape)))
        mask = generator(draw).random(shape[:axes]) < 0.5
        return _dressed(draw, mask, tensors), mask
    return draw(_mixed(shape, tensors))


@st.composite
def _mixed(draw, shape, tensors):
    """An integer, slice, array or mask for each of the first axes, and after an Ellipsis of the last; None anywhere."""
    together = draw(npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    first = draw(st.integers(0, len(shape)))
    last = draw(st.integers(0, len(shape) - first))
    given, plain, masked = [], [], False
    for n in shape[:first] + shape[len(shape) - last :]:
        kind = draw(st.sampled_from(["slice", "integer", "array", "mask"]))
        if kind == "integer" and n:
            part = whole = draw(st.integers(-n, n - 1))
        elif kind == "array" and n and not masked:
            of = together if draw(st.booleans()) else (1,) * len(together)
            whole = generator(draw).integers(-n, n, of)  # places come up twice, and are counted from either end
            part = _dressed(draw, whole, tensors)
        elif kind == "mask" and not any(isinstance(p, np.ndarray) for p in plain):
            masked, whole = True, generator(draw).random(n) < 0.5
            part = _dressed(draw, whole, tensors)
        else:
            part = whole = draw(st.slices(n))
        given.append(part)
        plain.append(whole)
    extras = [(first, Ellipsis)] if last or draw(st.booleans()) else []
    if draw(st.booleans()):
        extras.append((draw(st.integers(0, len(given))), None))
    for place, extra in extras:
        given.insert(place, extra)
        plain.insert(place, extra)
    return tuple(given), tuple(plain)


def _dressed(draw, array, tensors):
    """An index array as an array, a Tensor or a list."""
    dress = draw(st.sampled_from([np.asarray, Tensor, np.ndarray.tolist] if tensors else [np.asarray]))
    return array if dress is np.ndarray.tolist and (array.ndim == 0 or not array.size) else dress(array)
