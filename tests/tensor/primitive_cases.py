"""One strategy per primitive: what to call it on, and NumPy's way of saying the same."""

import math

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minilm.tensor.core import primitive

from . import draws
from .draws import Case, anything, away_from_zero, between, distinct, on_grid


def case(name, arrays, numpy, differentiable=(), **static):
    def tensor(*tensors):
        return primitive(name, *tensors, **static)

    return Case(arrays, numpy, tensor, list(differentiable), f"{name}({static})")


@st.composite
def unary(draw, name, numbers=anything, numpy=None):
    x = draw(draws.arrays(draws.shapes(), numbers, repeats=True))
    return case(name, [x], numpy or getattr(np, name))


@st.composite
def binary(draw, name, left=anything, right=anything, constants=True):
    """Two shapes that broadcast; now and then one of them holds integers or booleans, which are constants."""
    together = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=5))
    a, b = (draw(draws.arrays(s, n, repeats=True)) for s, n in zip(together.input_shapes, (left, right), strict=True))
    constant = draw(st.sampled_from([None, None, 0, 1])) if constants else None
    if constant is not None:
        kind = draw(st.sampled_from([np.int64, np.int8, np.bool_, np.float32]))
        if kind is np.float32:
            a, b = (a.astype(kind), b) if constant == 0 else (a, b.astype(kind))
        else:
            whole = draw(draws.arrays((a, b)[constant].shape, draws.integers(1, 4), dtype=kind))
            a, b = (whole, b) if constant == 0 else (a, whole)
    moving = [i for i, x in enumerate((a, b)) if x.dtype == np.float64]
    return case(name, [a, b], getattr(np, name), moving)


@st.composite
def where(draw):
    shapes = draw(npst.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, min_side=0, max_side=4)).input_shapes
    a, b = (draw(draws.arrays(s, repeats=True)) for s in shapes[1:])
    condition = draws.generator(draw).random(shapes[0]) < 0.5
    return case("where", [a, b], lambda a, b: np.where(condition, a, b), condition=condition)


@st.composite
def clip(draw):
    x = draw(draws.arrays(draws.shapes(), on_grid()))

    def bound(offset):
        kind = draw(st.sampled_from(["none", "number", "array"]))
        if kind == "none":
            return None
        shape = x.shape[draw(st.integers(0, x.ndim)) :] if kind == "array" else ()
        values = on_grid(offset)(draws.generator(draw), shape)
        return values if kind == "array" else float(values)

    low, high = bound(-0.75), bound(0.75)
    assume(not (low is None and high is None))
    return case("clip", [x], lambda x: np.clip(x, low, high), low=low, high=high)


@st.composite
def astype(draw):
    x = draw(draws.arrays(draws.shapes(), repeats=True))
    return case("astype", [x], lambda x: x.astype(np.float64), dtype=np.dtype(np.float64))


@st.composite
def reduction(draw, name, numbers=anything, empty=True, ties=True, most=4, longest=5):
    x = draw(draws.arrays(draws.shapes(0, most, longest=longest), numbers, repeats=ties))
    static = draw(draws.reductions(x.ndim))
    assume(empty or draws.taken_together(x.shape, static["axis"]))
    return case(name, [x], lambda x: getattr(np, name)(x, **static), **static)


@st.composite
def cumsum(draw):
    x = draw(draws.arrays(draws.shapes(1), repeats=True))
    axis = draw(draws.axis_of(x))
    return case("cumsum", [x], lambda x: np.cumsum(x, axis), axis=axis)


@st.composite
def reshape(draw):
    shape = draw(draws.shapes())
    x = draw(draws.arrays(shape, repeats=True))
    lengths = list(draw(st.permutations(shape)))
    while len(lengths) > 1 and draw(st.booleans()):  # merge two neighbours
        place = draw(st.integers(0, len(lengths) - 2))
        lengths[place : place + 2] = [lengths[place] * lengths[place + 1]]
    for _ in range(draw(st.integers(0, 2))):
        lengths.insert(draw(st.integers(0, len(lengths))), 1)
    if lengths and x.size and draw(st.booleans()):
        lengths[draw(st.integers(0, len(lengths) - 1))] = -1
    new = tuple(lengths)
    return case("reshape", [x], lambda x: x.reshape(new), shape=new)


@st.composite
def transpose(draw):
    x = draw(draws.arrays(draws.shapes(), repeats=True))
    axes = draw(st.none() | st.permutations(range(x.ndim)).map(tuple)) if x.ndim else None
    if axes is not None:
        axes = tuple(a - x.ndim if draw(st.booleans()) else a for a in axes)
    return case("transpose", [x], lambda x: np.transpose(x, axes), axes=axes)


@st.composite
def rearrange(draw):
    """Reshaped, transposed, reshaped; or taken apart in the end, of which some parts in another order are used."""
    x = draw(draws.arrays(draws.shapes(1), repeats=True))
    shape = (*x.shape[:-1], *draw(st.sampled_from([(x.shape[-1],), (1, x.shape[-1]), (x.shape[-1], 1)])))
    axes = tuple(draw(st.permutations(range(len(shape)))))
    turned = x.reshape(shape).transpose(axes)
    to = draw(st.sampled_from([None, (turned.size,), (*turned.shape, 1)]))
    apart = draw(st.booleans())
    static = {"shape": shape, "axes": axes, "to": to, "apart": apart}

    def plain(x):
        y = x.reshape(shape).transpose(axes)
        return y if to is None else y.reshape(to)

    if not apart:
        return case("rearrange", [x], plain, **static)
    n = len(plain(x))
    order = draw(st.permutations(range(n)))[: draw(st.integers(1, max(1, n)))] if n else []

    def tensor(x):
        parts = primitive("rearrange", x, **static)
        assert len(parts) == n
        return np.stack([parts[i] for i in order]) if order else x * 0

    return Case([x], lambda x: plain(x)[order] if order else x * 0, tensor, [], f"rearrange({static})[{order}]")


@st.composite
def broadcast_to(draw):
    together = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=4))
    x, to = draw(draws.arrays(together.input_shapes[0], repeats=True)), together.result_shape
    return case("broadcast_to", [x], lambda x: np.broadcast_to(x, to), shape=to)


@st.composite
def concatenate(draw):
    shape = draw(draws.shapes(1))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        lengths = list(shape)
        lengths[axis] = draw(st.integers(0, 3))
        parts.append(draw(draws.arrays(tuple(lengths), repeats=True)))
    return case("concatenate", parts, lambda *parts: np.concatenate(parts, axis), axis=axis)


@st.composite
def stack(draw):
    shape = draw(draws.shapes(0, 3))
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    parts = [draw(draws.arrays(shape, repeats=True)) for _ in range(draw(st.integers(1, 4)))]
    return case("stack", parts, lambda *parts: np.stack(parts, axis), axis=axis)


@st.composite
def unstack(draw):
    """Some of the parts, in another order: those left out have no gradient."""
    x = draw(draws.arrays(draws.shapes(1), repeats=True))
    order = draw(st.permutations(range(len(x)))) if len(x) else []
    order = order[: draw(st.integers(1, max(1, len(order))))]

    def tensor(x):
        parts = primitive("unstack", x)
        assert len(parts) == len(x)
        return np.stack([parts[i] for i in order]) if order else x * 0

    return Case([x], lambda x: x[order] if order else x * 0, tensor, [], f"unstack[{order}]")


@st.composite
def getitem(draw):
    x = draw(draws.arrays(draws.shapes(), repeats=True))
    _, index = draw(draws.indices(x.shape, tensors=False))
    return case("getitem", [x], lambda x: x[index], index=index)


@st.composite
def scatter(draw):
    shape = draw(draws.shapes())
    _, index = draw(draws.indices(shape, tensors=False))
    x = draw(draws.arrays(np.zeros(shape)[index].shape, repeats=True))

    def added(x):
        y = np.zeros(shape, x.dtype)
        np.add.at(y, index, x)
        return y

    return case("scatter", [x], added, shape=shape, index=index)


@st.composite
def matmul(draw):
    together = draw(
        npst.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, min_side=0, max_side=4)
    )
    a, b = (draw(draws.arrays(shape, repeats=True)) for shape in together.input_shapes)
    return case("matmul", [a, b], np.matmul)


@st.composite
def einsum(draw):
    lengths = {letter: draw(st.integers(0, 3)) for letter in "ijkl"}
    dots = draw(draws.shapes(0, 2))
    terms, arrays = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = "".join(draw(st.lists(st.sampled_from("ijkl"), max_size=3)))
        shape = tuple(lengths[letter] for letter in letters)
        if draw(st.booleans()):
            place, lead = draw(st.integers(0, len(letters))), dots[draw(st.integers(0, len(dots))) :]
            lead = tuple(1 if draw(st.booleans()) else n for n in lead)  # the axes behind the dots broadcast
            shape = shape[:place] + lead + shape[place:]
            letters = letters[:place] + "..." + letters[place:]
        terms.append(letters)
        arrays.append(draw(draws.arrays(shape, repeats=True)))
    subscripts = ",".join(terms)
    if draw(st.booleans()):
        seen = sorted(set(subscripts) - set(",."))
        kept = draw(st.permutations(seen))[: draw(st.integers(0, len(seen)))]
        kept.insert(draw(st.integers(0, len(kept))), "..." if "..." in subscripts else "")
        subscripts += "->" + "".join(kept)
    return case("einsum", arrays, lambda *arrays: np.einsum(subscripts, *arrays), subscripts=subscripts)


def remaining(rng, shape):
    """Dividends whose quotient by ½, 1 or 2 is never near a whole number."""
    return rng.integers(-4, 4, shape) + rng.uniform(0.55, 0.7, shape)


def divisors(rng, shape):
    return rng.choice([0.5, 1.0, 2.0], shape)


_erf = np.vectorize(math.erf, otypes=[np.float64])

CASES = {
    "add": binary("add"),
    "subtract": binary("subtract", constants=False),
    "multiply": binary("multiply"),
    "divide": binary("divide", right=away_from_zero()),
    "power": binary("power", between(0.3, 2.0)),
    "maximum": binary("maximum", on_grid(), on_grid(0.25), constants=False),
    "minimum": binary("minimum", on_grid(), on_grid(0.25), constants=False),
    "remainder": binary("remainder", remaining, divisors, constants=False),
    "hypot": binary("hypot", away_from_zero(), away_from_zero()),
    "arctan2": binary("arctan2", away_from_zero(), away_from_zero()),
    "logaddexp": binary("logaddexp"),
    "where": where(),
    "negative": unary("negative"),
    "absolute": unary("absolute", away_from_zero()),
    "square": unary("square"),
    "sqrt": unary("sqrt", between(0.3, 3.0)),
    "reciprocal": unary("reciprocal", away_from_zero()),
    "exp": unary("exp"),
    "exp2": unary("exp2"),
    "expm1": unary("expm1"),
    "log": unary("log", between(0.3, 3.0)),
    "log2": unary("log2", between(0.3, 3.0)),
    "log10": unary("log10", between(0.3, 3.0)),
    "log1p": unary("log1p", between(-0.6, 3.0)),
    "sin": unary("sin"),
    "cos": unary("cos"),
    "tan": unary("tan", between(-0.8, 0.8)),
    "arctan": unary("arctan"),
    "arcsin": unary("arcsin", between(-0.7, 0.7)),
    "arccos": unary("arccos", between(-0.7, 0.7)),
    "sinh": unary("sinh"),
    "cosh": unary("cosh"),
    "tanh": unary("tanh"),
    "arcsinh": unary("arcsinh"),
    "arccosh": unary("arccosh", between(1.5, 3.0)),
    "arctanh": unary("arctanh", between(-0.7, 0.7)),
    "erf": unary("erf", numpy=lambda x: _erf(x).astype(x.dtype).reshape(x.shape)),
    "clip": clip(),
    "astype": astype(),
    "sum": reduction("sum"),
    "mean": reduction("mean", empty=False),
    "max": reduction("max", distinct, empty=False, ties=False),
    "min": reduction("min", distinct, empty=False, ties=False),
    "prod": reduction("prod", between(-1.5, 1.5), most=3, longest=3),  # few: it is of high degree
    "cumsum": cumsum(),
    "reshape": reshape(),
    "transpose": transpose(),
    "rearrange": rearrange(),
    "broadcast_to": broadcast_to(),
    "concatenate": concatenate(),
    "stack": stack(),
    "unstack": unstack(),
    "getitem": getitem(),
    "scatter": scatter(),
    "matmul": matmul(),
    "einsum": einsum(),
}
