"""One strategy per NumPy function that a Tensor takes: the same call is made on arrays and on Tensors."""

import operator

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from . import draws
from .draws import Case, anything, away_from_zero, between, distinct, on_grid
from .primitive_cases import divisors, remaining


@st.composite
def calls(draw, *functions, least=0, most=3, side=0, numbers=anything):
    """One array, and one of the functions of one array."""
    x = draw(draws.arrays(draws.shapes(least, most, side), numbers))
    f = draw(st.sampled_from(functions))
    return Case([x], f, f, what="call")


@st.composite
def along(draw, function, least=1, side=0, numbers=anything, flat=False):
    """function(x, axis)."""
    x = draw(draws.arrays(draws.shapes(least, 3, side), numbers))
    axis = draw(draws.axis_of(x) | st.none() if flat else draws.axis_of(x))

    def f(x):
        return function(x, axis)

    return Case([x], f, f, what=f"axis {axis}")


@st.composite
def reduces(draw, function, side=0, numbers=anything, longest=5):
    """function(x, axis=, keepdims=)."""
    x = draw(draws.arrays(draws.shapes(1, 3, side, longest), numbers))
    static = draw(draws.reductions(x.ndim))
    assume(not side or draws.taken_together(x.shape, static["axis"]) > 1)

    def f(x):
        return function(x, **static)

    return Case([x], f, f, what=str(static))


@st.composite
def joins(draw, function, least=0, most=3):
    """function([x, y, ...]) of parts of one shape, and sometimes one part twice."""
    shape = draw(draws.shapes(least, most))
    parts = [draw(draws.arrays(shape)) for _ in range(draw(st.integers(1, 3)))]

    def f(*parts):
        return function([*parts, parts[0]])

    return Case(parts, f, f, what="join")


@st.composite
def pairs(draw, function, left=anything, right=anything, signature=None, most=3):
    """function(x, y) of shapes that broadcast, or fit ``signature``."""
    if signature:
        together = npst.mutually_broadcastable_shapes(signature=signature, max_dims=1, min_side=0, max_side=3)
    else:
        together = npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=most, min_side=0, max_side=4)
    a, b = (draw(draws.arrays(s, n)) for s, n in zip(draw(together).input_shapes, (left, right), strict=True))
    return Case([a, b], function, function, what="pair")


@st.composite
def products(draw, function):
    """function(x, y), where the last axis of x is as long as the one of y that NumPy's function multiplies it by."""
    n = draw(st.integers(0, 3))
    a = (*draw(draws.shapes(0, 2)), n)
    b = draw(draws.shapes(0, 2))
    b = (*b, n) if function is np.inner or not b else (*b[:-1], n, b[-1])
    a, b = (draw(draws.arrays(s if draw(st.integers(0, 5)) else ())) for s in (a, b))
    return Case([a, b], function, function, what="product")


@st.composite
def tensordot(draw):
    lengths = draw(st.lists(st.integers(0, 3), max_size=2))
    a, b = draw(draws.shapes(0, 2)), draw(draws.shapes(0, 2))
    if draw(st.booleans()):
        shapes, axes = ((*a, *lengths), (*lengths, *b)), len(lengths)
    else:
        shapes = (*lengths, *a), (*b, *reversed(lengths))
        axes = tuple(range(len(lengths))), tuple(range(-1, -len(lengths) - 1, -1))
    arrays = [draw(draws.arrays(s)) for s in shapes]

    def f(a, b):
        return np.tensordot(a, b, axes)

    return Case(arrays, f, f, what=f"axes {axes}")


@st.composite
def where(draw):
    shapes = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4)).input_shapes
    condition = draws.generator(draw).random(shapes[0]) < 0.5
    x = draw(draws.arrays(shapes[1]))
    f = draw(st.sampled_from([lambda x: np.where(condition, x, 2), lambda x: np.where(condition, 0.0, x)]))
    return Case([x], f, f, what="where")


@st.composite
def clip(draw):
    """The bounds are Tensors on the tape."""
    x = draw(draws.arrays(draws.shapes(0, 3), on_grid()))
    low = draw(draws.arrays(x.shape[1:], on_grid(-1.25)))
    high = draw(draws.arrays(x.shape[-1:] if x.ndim else (), on_grid(1.3)))
    f = draw(st.sampled_from([np.clip, lambda x, low, high: np.clip(x, low, None) + x.clip(max=high)]))
    return Case([x, low, high], f, f, what="clip")


@st.composite
def cuts(draw, function, axis=None):
    x = draw(draws.arrays(draws.shapes(3 if axis == 2 else 1, 3)))
    axis = draw(draws.axis_of(x)) if axis is None else axis if x.ndim > 1 else 0
    n = x.shape[axis]
    if draw(st.booleans()):
        where = sorted(draw(st.lists(st.integers(-n, n + 1), max_size=3)))
    else:
        where = draw(st.integers(1, 4))
        assume(function is np.array_split or n % where == 0)
    arguments = (axis,) if function in (np.split, np.array_split) else ()

    def f(x):
        return function(x, where, *arguments)

    return Case([x], f, f, what=f"cut at {where}")


@st.composite
def expand_dims(draw):
    x = draw(draws.arrays(draws.shapes(0, 3)))
    axis = draw(st.integers(-x.ndim - 1, x.ndim) | st.sampled_from([(0, -1), (0, 1), ()]))

    def f(x):
        return np.expand_dims(x, axis)

    return Case([x], f, f, what=f"axis {axis}")


@st.composite
def moveaxis(draw):
    x = draw(draws.arrays(draws.shapes(1, 4)))
    n = draw(st.integers(1, x.ndim))
    source, destination = (
        tuple(a - x.ndim if draw(st.booleans()) else a for a in draw(st.permutations(range(x.ndim)))[:n]) for _ in "sd"
    )
    source, destination = (source[0], destination[0]) if n == 1 else (source, destination)

    def f(x):
        return np.moveaxis(x, source, destination)

    return Case([x], f, f, what=f"{source} to {destination}")


@st.composite
def take(draw, along_axis=False):
    x = draw(draws.arrays(draws.shapes(1, 3, side=1)))
    axis = draw(draws.axis_of(x) | st.none())
    n = x.size if axis is None else x.shape[axis]
    shape = draw(draws.shapes(0, 2))
    if along_axis and axis is None:
        shape = (draw(st.integers(0, 4)),)
    elif along_axis:
        shape = [length if draw(st.booleans()) else 1 for length in x.shape]
        shape[axis] = draw(st.integers(0, 4))
    places = draws.generator(draw).integers(-n, n, shape)

    def f(x):
        return np.take_along_axis(x, places, axis) if along_axis else np.take(x, places, axis)

    return Case([x], f, f, what=f"axis {axis}")


@st.composite
def flip(draw):
    x = draw(draws.arrays(draws.shapes(0, 3)))
    axis = draw(st.none() | npst.valid_tuple_axes(x.ndim)) if x.ndim else None

    def f(x):
        return np.flip(x, axis)

    return Case([x], f, f, what=f"axis {axis}")


@st.composite
def pad(draw):
    x = draw(draws.arrays(draws.shapes(1, 3)))
    widths = draw(st.integers(0, 3) | st.just((1, 2)) | st.just([(i, 2 - i % 2) for i in range(x.ndim)]))
    fill = draw(st.sampled_from([{}, {"constant_values": 3.0}, {"constant_values": (1, 2)}]))

    def f(x):
        return np.pad(x, widths, **fill)

    return Case([x], f, f, what=f"widths {widths}")


@st.composite
def norm(draw):
    x = draw(draws.arrays(draws.shapes(1, 3, side=1), draws.distinct))
    x = x + 0.1  # no entry at 0, where |x| has a kink, and no two of one size, where the largest has
    axis = draw(st.none() | draws.axis_of(x) | st.just((0, 1)[: x.ndim]))
    one = isinstance(axis, int) or len(axis or x.shape) == 1
    order = draw(st.sampled_from([None, 2, 1, np.inf] if one else [None, "fro"]))
    assume(order is None or axis is not None or x.ndim <= 2)
    assume(isinstance(axis, int) or order is None or len(axis or x.shape) == (1 if order in (1, 2, np.inf) else 2))
    axis = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
    keep = draw(st.booleans())

    def f(x):
        return np.linalg.norm(x, order, axis, keepdims=keep)

    return Case([x], f, f, what=f"ord {order}, axis {axis}")


@st.composite
def average(draw):
    x = draw(draws.arrays(draws.shapes(1, 3, side=1)))
    axis = draw(draws.axis_of(x))
    weights = draw(draws.arrays(x.shape if draw(st.booleans()) else x.shape[axis % x.ndim :][:1], between(0.5, 1.5)))

    def f(x, weights):
        return np.average(x, axis, weights)

    return Case([x, weights], f, f, what=f"axis {axis}")


def matrices(*functions, **kwargs):
    return calls(*functions, least=2, **kwargs)


FUNCTIONS = {
    "where": where(),
    "clip": clip(),
    "einsum": pairs(lambda a, b: np.einsum("ij,jk", a, b, optimize=True), signature="(i,j),(j,k)->(i,k)").filter(
        lambda case: case.arrays[0].ndim == case.arrays[1].ndim == 2
    ),
    "concatenate": joins(lambda parts: np.concatenate(parts, axis=-1), least=1)
    | joins(lambda parts: np.concatenate(parts, axis=None)),
    "stack": joins(lambda parts: np.stack(parts, -1)),
    "vstack": joins(np.vstack),
    "hstack": joins(np.hstack),
    "dstack": joins(np.dstack),
    "column_stack": joins(np.column_stack, least=1),
    "unstack": calls(lambda x: np.unstack(x, axis=-1), least=1).filter(lambda case: case.arrays[0].shape[-1] > 0),
    "split": cuts(np.split),
    "array_split": cuts(np.array_split),
    "vsplit": cuts(np.vsplit, 0).filter(lambda case: case.arrays[0].ndim > 1),
    "hsplit": cuts(np.hsplit, 1),
    "dsplit": cuts(np.dsplit, 2),
    "reshape": calls(lambda x: np.reshape(x, -1), lambda x: np.reshape(x, shape=(1, *x.shape))),
    "transpose": matrices(np.transpose, lambda x: np.transpose(x, axes=[*range(1, x.ndim), 0])),
    "broadcast_to": calls(
        lambda x: np.broadcast_to(x, (2, *x.shape)), lambda x: np.broadcast_to(x[:0], (0, *x.shape[1:])), least=1
    ),
    "broadcast_arrays": pairs(np.broadcast_arrays),
    "expand_dims": expand_dims(),
    "atleast_1d": calls(np.atleast_1d, lambda x: np.atleast_1d(x, x * 2)),
    "atleast_2d": calls(np.atleast_2d),
    "atleast_3d": calls(np.atleast_3d),
    "moveaxis": moveaxis(),
    "take": take(),
    "take_along_axis": take(along_axis=True),
    "flip": flip(),
    "fliplr": matrices(np.fliplr),
    "flipud": calls(np.flipud, least=1),
    "roll": along(lambda x, axis: np.roll(x, 2, axis), flat=True),
    "rot90": matrices(lambda x: np.rot90(x), lambda x: np.rot90(x, k=-1, axes=(1, 0))),
    "repeat": along(lambda x, axis: np.repeat(x, 3, axis=axis), flat=True),
    "tile": calls(lambda x: np.tile(x, 2), lambda x: np.tile(x, (2, 1, 3))),
    "diagonal": matrices(np.diagonal, lambda x: np.diagonal(x, 1, 1, 0)),
    "trace": matrices(np.trace, lambda x: np.trace(x, offset=-1)),
    "delete": along(lambda x, axis: np.delete(x, 0, axis), side=1),
    "resize": calls(lambda x: np.resize(x, (2, 7)), side=1),
    "tril": matrices(np.tril, lambda x: np.tril(x, 1)),
    "triu": matrices(np.triu, lambda x: np.triu(x, k=-1)),
    "pad": pad(),
    "diff": along(lambda x, axis: np.diff(x, axis=axis)) | calls(lambda x: np.diff(x, 2), least=1),
    "dot": products(np.dot),
    "inner": products(np.inner),
    "vdot": pairs(np.vdot, signature="(i),(i)->()").filter(lambda case: case.arrays[0].shape == case.arrays[1].shape),
    "tensordot": tensordot(),
    "outer": pairs(np.outer),
    "norm": norm(),
    "ptp": reduces(np.ptp, side=1, numbers=distinct),
    "sort": along(np.sort, numbers=distinct, flat=True),
    "average": average() | along(np.average, side=1),
}
METHODS = {
    "sum": reduces(np.sum),
    "mean": reduces(np.mean, side=1),
    "prod": reduces(np.prod, longest=3),
    "var": reduces(np.var, side=1) | reduces(lambda x, **static: np.var(x, ddof=1, **static), side=1),
    "std": reduces(np.std, side=1, numbers=distinct),
    "max": reduces(np.max, side=1, numbers=distinct),
    "min": reduces(np.min, side=1, numbers=distinct),
    "amax": reduces(np.amax, side=1, numbers=distinct),
    "amin": reduces(np.amin, side=1, numbers=distinct),
    "cumsum": along(np.cumsum, flat=True),
    "swapaxes": matrices(lambda x: np.swapaxes(x, 0, -1)),
    "squeeze": calls(np.squeeze, lambda x: np.squeeze(x[None], 0), lambda x: np.squeeze(x[..., None], (-1,))),
    "ravel": calls(np.ravel),
    "copy": calls(np.copy),
}
COMPOSED = {
    "fabs": calls(np.fabs, numbers=away_from_zero()),
    "positive": calls(np.positive),
    "deg2rad": calls(np.deg2rad),
    "radians": calls(np.radians),
    "rad2deg": calls(np.rad2deg),
    "degrees": calls(np.degrees),
    "divmod": pairs(np.divmod, remaining, divisors),
    "vecdot": pairs(np.vecdot, signature="(i),(i)->()"),
}
REDUCES = {
    "add": along(np.add.reduce) | along(np.add.accumulate),
    "multiply": along(np.multiply.reduce),
    "maximum": along(np.maximum.reduce, side=1, numbers=distinct),
    "minimum": along(np.minimum.reduce, side=1, numbers=distinct),
}


def of_numbers(f):
    """A method that arrays do not have, as the function that they go to."""
    return lambda x: getattr(x, f.__name__)() if hasattr(x, f.__name__) else f(x)


OPERATORS = {
    "__add__": pairs(operator.add),
    "__radd__": calls(lambda x: 2 + x),
    "__sub__": pairs(operator.sub),
    "__rsub__": calls(lambda x: 2 - x),
    "__mul__": pairs(operator.mul),
    "__rmul__": calls(lambda x: 2.5 * x),
    "__truediv__": pairs(operator.truediv, right=away_from_zero()),
    "__rtruediv__": calls(lambda x: 2 / x, numbers=away_from_zero()),
    "__pow__": pairs(operator.pow, left=between(0.3, 2.0))
    | calls(*(lambda x, n=n: x**n for n in (2, 3, 0.5, -1, 1.5, 0)), numbers=between(0.3, 2.0)),
    "__rpow__": calls(lambda x: 2**x),
    "__matmul__": pairs(operator.matmul, signature="(i,j),(j,k)->(i,k)"),
    "__rmatmul__": calls(lambda x: np.ones((2, x.shape[0])) @ x, least=1, most=2),
    "__mod__": pairs(operator.mod, remaining, divisors),
    "__rmod__": calls(lambda x: 7.3 % x, numbers=divisors),
    "__divmod__": pairs(divmod, remaining, divisors),
    "__rdivmod__": calls(lambda x: divmod(7.3, x), numbers=divisors),
    "__neg__": calls(operator.neg),
    "__pos__": calls(operator.pos),
    "__abs__": calls(abs, numbers=away_from_zero()),
    "exp": calls(of_numbers(np.exp)),
    "log": calls(of_numbers(np.log), numbers=between(0.3, 2.0)),
    "sqrt": calls(of_numbers(np.sqrt), numbers=between(0.3, 2.0)),
    "tanh": calls(of_numbers(np.tanh)),
    "abs": calls(of_numbers(np.abs), numbers=away_from_zero()),
    "clip": calls(lambda x: x.clip(-1.25, 1.25), lambda x: x.clip(max=0.25), numbers=on_grid()),
    "astype": calls(lambda x: x.astype(np.float64), lambda x: x.astype(x.dtype)),
    "copy": calls(lambda x: x.copy()),
    "sum": calls(lambda x: x.sum(), lambda x: x.sum(-1), least=1),
    "mean": calls(lambda x: x.mean(), lambda x: x.mean(axis=0), least=1, side=1),
    "max": calls(lambda x: x.max(), lambda x: x.max(axis=0), least=1, side=1, numbers=distinct),
    "min": calls(lambda x: x.min(), lambda x: x.min(axis=0), least=1, side=1, numbers=distinct),
    "prod": calls(lambda x: x.prod(), lambda x: x.prod(axis=0), least=1, most=1),
    "var": calls(lambda x: x.var(), lambda x: x.var(-1, ddof=0), least=1, side=1),
    "std": calls(lambda x: x.std(), least=1, side=2, numbers=distinct),
    "cumsum": calls(lambda x: x.cumsum(), lambda x: x.cumsum(0), least=1),
    "reshape": calls(lambda x: x.reshape(-1), lambda x: x.reshape(1, *x.shape), lambda x: x.reshape([1, x.size])),
    "transpose": matrices(
        lambda x: x.transpose(), lambda x: x.transpose(None), lambda x: x.transpose(*range(x.ndim)[::-1])
    ),
    "T": calls(lambda x: x.T),
    "mT": matrices(lambda x: x.mT),
    "swapaxes": matrices(lambda x: x.swapaxes(0, 1), lambda x: x.swapaxes(-1, -1)),
    "ravel": calls(lambda x: x.ravel()),
    "flatten": calls(lambda x: x.flatten()),
    "squeeze": calls(lambda x: x.squeeze(), lambda x: x[None].squeeze(axis=0)),
    "take": calls(lambda x: x.take([0, -1, 0]), lambda x: x.take(np.array([0, 0]), axis=0), least=1, side=1),
    "repeat": calls(lambda x: x.repeat(2), lambda x: x.repeat(2, axis=-1), least=1),
    "diagonal": matrices(lambda x: x.diagonal(), lambda x: x.diagonal(1, 0, 1)),
    "trace": matrices(lambda x: x.trace()),
    "dot": products(lambda a, b: a.dot(b)).filter(lambda case: case.arrays[0].ndim and case.arrays[1].ndim == 1),
}
