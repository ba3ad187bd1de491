"""Tools for checking kernels: inputs of every awkward size, and a gradient check that needs no other library."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .tensor import Tensor
from .tensor.core import as_tensor

# The one tolerance table, relative to the largest entry expected (DESIGN section 4).
AGAINST_DIFFERENCES = 1e-6  # float64
AGAINST_TAPE = 1e-12  # float64
AGAINST_PYTORCH = {np.float32: 1e-5, np.float64: 1e-10}
AGAINST_REFERENCE = {np.float32: 2e-6, np.float64: 1e-12}

# op -> size -> ({array name: what it is}, static arguments).  A tuple of lengths is an array of normal numbers; None is
# an array left out; ids(...) are integers; several(...) is a list of arrays.  Tests use all but the model sizes,
# benchmarks those.
MODEL_SIZES = ("nanogpt", "gpt2", "bert", "llama", "gptj", "decode", "packed lines")


class ids:
    """Integers below ``high``; every seventh is ``ignored``, if that is given.  ``shape`` may be ()."""

    def __init__(self, shape: tuple[int, ...], high: int, ignored: int | None = None):
        self.shape, self.high, self.ignored = shape, high, ignored

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        values = np.asarray(rng.integers(0, self.high, self.shape))
        if self.ignored is not None:
            values.reshape(-1)[::7] = self.ignored
        return values


class masked:
    """Normal numbers of ``shape``, a third of them -inf, and all of the first row, if there are rows."""

    def __init__(self, *shape: int):
        self.shape = shape

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        values = rng.standard_normal(self.shape)
        values[rng.random(self.shape) < 1 / 3] = -np.inf
        if values.ndim > 1:
            values[(0,) * (values.ndim - 1)] = -np.inf
        return values


class several(list):
    """A list of arrays of normal numbers, of these shapes."""


def _attention(q, k, v, bias=None, *, scale=0.3, **more):
    static = {"causal": False, "offset": 0, "window": None, "lengths": None, "dropout": 0.0, "seed": 0}
    return {"q": q, "k": k, "v": v, "bias": bias}, {"scale": scale, **static, **more}


def _packed(queries, keys=None, *, B=1, H=2, G=2, D=4, **more):
    """Sequences of so many queries and keys, end to end."""
    keys = queries if keys is None else keys
    T, S = sum(queries), sum(keys)
    return _attention((B, H, T, D), (B, G, S, D), (B, G, S, D), lengths=(queries, keys), **more)


def _rotary(*shape, turned, cos=None, interleaved=False):
    """The first ``turned`` channels of x (``shape``) turn; cos and sin have the axes ``cos`` of it before their own."""
    angles = (*(shape[-2:-1] if cos is None else cos), turned // 2)
    return {"x": shape, "cos": angles, "sin": angles}, {"interleaved": interleaved}


def _cross_entropy(N, V, *, ignored=None, smoothing=0.0, reduction="mean"):
    static = {"ignore_index": -100 if ignored is None else ignored, "label_smoothing": smoothing}
    return {"z": (N, V), "target": ids((N,), V, ignored)}, {**static, "reduction": reduction}


def _linear_cross_entropy(N, C, V, *, bias=True, ignored=None, smoothing=0.0, reduction="mean", rows=64, early=True):
    static = {"ignore_index": -100 if ignored is None else ignored, "label_smoothing": smoothing}
    arrays = {"x": (N, C), "w": (V, C), "b": (V,) if bias else None, "target": ids((N,), V, ignored)}
    return arrays, {**static, "reduction": reduction, "rows": rows, "gradients": (early, early, early and bias)}


def _adamw(*shapes, steps=None, weight_decay=0.1, grad_scale=0.5):
    static = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": weight_decay}
    steps = [3] * len(shapes) if steps is None else steps
    return dict.fromkeys("pgmv", several(shapes)), {**static, "steps": steps, "grad_scale": grad_scale}


def _add_layer_norm(*shape, w=True, b=True, eps=1e-5):
    C = shape[-1:]
    return {"x": shape, "y": shape, "w": C if w else None, "b": C if b else None}, {"eps": eps}


SIZES: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "accumulate": {
        "one": ({"to": (1,), "x": (1,)}, {}),
        "scalar": ({"to": (), "x": ()}, {}),
        "empty": ({"to": (0, 4), "x": (0, 4)}, {}),
        "odd": ({"to": (3, 5, 7), "x": (3, 5, 7)}, {}),
        "chunks": ({"to": (257, 1001), "x": (257, 1001)}, {}),
        "copy": ({"to": None, "x": (257, 1001)}, {}),
        "small copy": ({"to": None, "x": (3, 5, 7)}, {}),
        "gpt2": ({"to": (50257, 768), "x": (50257, 768)}, {}),
    },
    "add_layer_norm": {
        "one": _add_layer_norm(1, 1),
        "odd": _add_layer_norm(3, 5, 7),
        "vector": _add_layer_norm(13),
        "plain": _add_layer_norm(5, 33, w=False, b=False),
        "no bias": _add_layer_norm(40, 19, b=False, eps=1e-3),
        "no weight": _add_layer_norm(40, 19, w=False, eps=1e-3),
        "empty": _add_layer_norm(0, 4),
        "wide": _add_layer_norm(70, 1031),
        "nanogpt": _add_layer_norm(768, 128, b=False),
        "gpt2": _add_layer_norm(2048, 768),
    },
    "add_rms_norm": {
        size: ({"x": shape, "y": shape, "w": shape[-1:] if size != "plain" else None}, {"eps": 1e-5})
        for size, shape in {
            "one": (1, 1),
            "odd": (3, 5, 7),
            "vector": (13,),
            "plain": (5, 33),
            "empty": (0, 4),
            "wide": (70, 1031),
            "gpt2": (2048, 768),
        }.items()
    },
    "adamw": {
        "one": _adamw((1,), steps=[1]),
        "odd": _adamw((3, 5, 7)),
        "plain": _adamw((131,), weight_decay=0.0, grad_scale=1.0),
        "empty": _adamw((0, 4)),
        "nothing": _adamw(),
        "chunks": _adamw((70, 1001)),
        "several": _adamw((0,), (3, 5), (), (127, 129), (2, 0), (70, 1001), (1,), steps=[1, 3, 1, 2, 9, 300, 10**6]),
        "gpt2": _adamw((768, 3072), (3072,), (3072, 768), (768,), (768, 2304), (2304,)),
    },
    "attention": {
        "one": _attention((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)),
        "odd": _attention((2, 3, 5, 7), (2, 3, 5, 7), (2, 3, 5, 7), causal=True),
        "cross": _attention((2, 3, 4, 5), (2, 3, 9, 5), (2, 3, 9, 6)),
        "cached": _attention((2, 2, 3, 8), (2, 2, 11, 8), (2, 2, 11, 8), causal=True, offset=8),
        "unseen": _attention((1, 2, 6, 4), (1, 2, 4, 4), (1, 2, 4, 4), causal=True, offset=-2),
        "grouped": _attention((2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 3), (6, 5, 7)),
        "padding": _attention((2, 2, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4), masked(2, 1, 1, 7), causal=True, offset=2),
        "additive": _attention((2, 2, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4), masked(2, 2, 5, 7)),
        "dropout": _attention((2, 2, 9, 4), (2, 2, 9, 4), (2, 2, 9, 4), (9,), causal=True, dropout=0.3, seed=2**40 + 7),
        "tiles": _attention((1, 2, 133, 16), (1, 1, 150, 16), (1, 1, 150, 16), causal=True, offset=17),
        "tall": _attention((1, 2, 130, 33), (1, 2, 130, 33), (1, 2, 130, 33), (130, 1), dropout=0.1, seed=5),
        "query": _attention((2, 4, 1, 19), (2, 2, 137, 19), (2, 2, 137, 18), (2, 1, 1, 137)),
        "window": _attention((1, 2, 70, 4), (1, 2, 70, 4), (1, 2, 70, 4), causal=True, window=9),
        "window across": _attention((1, 2, 66, 4), (1, 2, 131, 4), (1, 2, 131, 4), causal=True, offset=65, window=70),
        "window ahead": _attention((1, 2, 6, 4), (1, 2, 13, 4), (1, 2, 13, 4), offset=3, window=2, dropout=0.2, seed=3),
        "window of one": _attention((2, 2, 9, 4), (2, 2, 9, 4), (2, 2, 9, 4), causal=True, window=1),
        "packed": _packed((3, 0, 1, 63, 65), B=2, causal=True),
        "packed freely": _packed((5, 66, 1, 0), H=6, D=7, bias=(6, 1, 72), dropout=0.3, seed=9),
        "packed across": _packed((3, 0, 1, 2), (5, 2, 0, 70), causal=True, offset=2, window=3, dropout=0.3, seed=8),
        "packed nothing": _packed((), ()),
        "no queries": _attention((2, 2, 0, 4), (2, 2, 3, 4), (2, 2, 3, 4)),
        "no keys": _attention((2, 2, 3, 4), (2, 2, 0, 4), (2, 2, 0, 4)),
        "decode": _attention(
            (1, 12, 1, 64), (1, 12, 1024, 64), (1, 12, 1024, 64), scale=0.125, causal=True, offset=1023
        ),
        "packed lines": _packed(tuple(range(5, 65, 2)), H=12, G=12, D=64, scale=0.125),
        "nanogpt": _attention((12, 4, 64, 32), (12, 4, 64, 32), (12, 4, 64, 32), scale=32**-0.5, causal=True),
        "gpt2": _attention((4, 12, 512, 64), (4, 12, 512, 64), (4, 12, 512, 64), scale=0.125, causal=True),
        "bert": _attention((8, 12, 128, 64), (8, 12, 128, 64), (8, 12, 128, 64), (8, 1, 1, 128), dropout=0.1, seed=1),
    },
    "bias_gelu": {
        size: ({"x": shape, "b": shape[-1:]}, {"approximate": approximate})
        for approximate in ("none", "tanh")
        for size, shape in {
            f"one {approximate}": (1, 1),
            f"odd {approximate}": (3, 5, 7),
            f"vector {approximate}": (13,),
            f"empty {approximate}": (0, 4),
            f"no columns {approximate}": (4, 0),
            f"rows {approximate}": (19, 331),
            f"wide {approximate}": (5, 2503),
        }.items()
    }
    | {
        "nanogpt": ({"x": (768, 512), "b": (512,)}, {"approximate": "none"}),
        "gpt2": ({"x": (2048, 3072), "b": (3072,)}, {"approximate": "tanh"}),
    },
    "cross_entropy": {
        "one": _cross_entropy(1, 1),
        "odd": _cross_entropy(5, 7),
        "ignored": _cross_entropy(13, 9, ignored=-100),
        "ignored class": _cross_entropy(13, 9, ignored=0, reduction="sum"),
        "all ignored": _cross_entropy(1, 9, ignored=-1),
        "smooth": _cross_entropy(13, 9, ignored=-100, smoothing=0.1),
        "each": _cross_entropy(13, 65, ignored=-100, smoothing=0.3, reduction="none"),
        "wide": _cross_entropy(3, 1501, smoothing=0.2),
        "empty": _cross_entropy(0, 4, reduction="sum"),
        "nanogpt": _cross_entropy(768, 65),
        "gpt2": _cross_entropy(256, 50257),
    },
    "dropout": {
        "one": ({"x": (1,)}, {"p": 0.5, "seed": 1}),
        "odd": ({"x": (3, 5, 7)}, {"p": 0.1, "seed": 2**63 + 11}),
        "none": ({"x": (9,)}, {"p": 0.0, "seed": 3}),
        "empty": ({"x": (0, 4)}, {"p": 0.5, "seed": 4}),
        "gpt2": ({"x": (256, 3072)}, {"p": 0.1, "seed": 5}),
    },
    "embedding": {
        "one": ({"w": (1, 1), "ids": ids((1,), 1)}, {"padding_idx": None}),
        "odd": ({"w": (11, 7), "ids": ids((3, 5), 11)}, {"padding_idx": None}),
        "padding": ({"w": (5, 3), "ids": ids((4, 9), 5)}, {"padding_idx": 2}),
        "scalar": ({"w": (5, 3), "ids": ids((), 5)}, {"padding_idx": None}),
        "empty": ({"w": (5, 3), "ids": ids((0, 2), 5)}, {"padding_idx": None}),
        "repeats": ({"w": (3, 65), "ids": ids((301,), 3)}, {"padding_idx": 0}),
        "nanogpt": ({"w": (65, 128), "ids": ids((12, 64), 65)}, {"padding_idx": None}),
        "gpt2": ({"w": (50257, 768), "ids": ids((4, 64), 50257)}, {"padding_idx": None}),
    },
    "gelu": {
        size: ({"x": shape}, {"approximate": approximate})
        for approximate in ("none", "tanh")
        for size, shape in {
            f"one {approximate}": (1,),
            f"odd {approximate}": (3, 5, 7),
            f"scalar {approximate}": (),
            f"empty {approximate}": (0, 4),
            f"chunks {approximate}": (3, 5003),
        }.items()
    }
    | {
        "nanogpt": ({"x": (768, 512)}, {"approximate": "none"}),
        "gpt2": ({"x": (2048, 3072)}, {"approximate": "tanh"}),
    },
    "gelu_linear": {
        "one": ({"x": (1, 1), "s": (1,), "w": (1, 1), "b": (1,)}, {"approximate": "none", "transposed": True}),
        "odd": ({"x": (3, 5, 7), "s": (7,), "w": (4, 7), "b": (4,)}, {"approximate": "none", "transposed": True}),
        "conv1d": ({"x": (3, 5, 7), "s": (7,), "w": (7, 4), "b": (4,)}, {"approximate": "tanh", "transposed": False}),
        "plain": ({"x": (9, 7), "s": (7,), "w": (4, 7), "b": None}, {"approximate": "tanh", "transposed": True}),
        "vector": ({"x": (7,), "s": (7,), "w": (4, 7), "b": (4,)}, {"approximate": "tanh", "transposed": True}),
        "empty": ({"x": (0, 7), "s": (7,), "w": (4, 7), "b": (4,)}, {"approximate": "tanh", "transposed": True}),
        "no shift": ({"x": (9, 7), "s": None, "w": (4, 7), "b": (4,)}, {"approximate": "none", "transposed": True}),
        "rows": (
            {"x": (97, 331), "s": (331,), "w": (65, 331), "b": (65,)},
            {"approximate": "none", "transposed": True},
        ),
        "nanogpt": (
            {"x": (768, 512), "s": None, "w": (128, 512), "b": None},
            {"approximate": "none", "transposed": True},
        ),
        "gpt2": (
            {"x": (2048, 3072), "s": (3072,), "w": (3072, 768), "b": (768,)},
            {"approximate": "tanh", "transposed": False},
        ),
    },
    "layer_norm": {
        "one": ({"x": (1, 1), "w": (1,), "b": (1,)}, {"eps": 1e-5}),
        "odd": ({"x": (3, 5, 7), "w": (7,), "b": (7,)}, {"eps": 1e-5}),
        "vector": ({"x": (13,), "w": (13,), "b": (13,)}, {"eps": 1e-5}),
        "plain": ({"x": (5, 33), "w": None, "b": None}, {"eps": 1e-5}),
        "no bias": ({"x": (40, 19), "w": (19,), "b": None}, {"eps": 1e-3}),
        "no weight": ({"x": (40, 19), "w": None, "b": (19,)}, {"eps": 1e-3}),
        "empty": ({"x": (0, 4), "w": (4,), "b": (4,)}, {"eps": 1e-5}),
        "wide": ({"x": (17, 1031), "w": (1031,), "b": (1031,)}, {"eps": 1e-5}),
        "nanogpt": ({"x": (768, 128), "w": (128,), "b": None}, {"eps": 1e-5}),
        "gpt2": ({"x": (2048, 768), "w": (768,), "b": (768,)}, {"eps": 1e-5}),
    },
    "linear": {
        "one": ({"x": (1, 1), "w": (1, 1), "b": (1,)}, {"transposed": True}),
        "odd": ({"x": (3, 5, 7), "w": (4, 7), "b": (4,)}, {"transposed": True}),
        "conv1d": ({"x": (3, 5, 7), "w": (7, 4), "b": (4,)}, {"transposed": False}),
        "vector": ({"x": (7,), "w": (4, 7), "b": None}, {"transposed": True}),
        "empty": ({"x": (0, 7), "w": (4, 7), "b": (4,)}, {"transposed": True}),
        "no inputs": ({"x": (3, 0), "w": (4, 0), "b": (4,)}, {"transposed": True}),
        "wide": ({"x": (17, 5), "w": (1031, 5), "b": (1031,)}, {"transposed": True}),
        "tall": (
            {"x": (8195, 3), "w": (65, 3), "b": (65,)},
            {"transposed": True},
        ),  # BLAS would cut its sums by threads
        "nanogpt": ({"x": (12, 64, 128), "w": (512, 128), "b": None}, {"transposed": True}),
        "gpt2": ({"x": (256, 768), "w": (768, 3072), "b": (3072,)}, {"transposed": False}),
    },
    "linear_cross_entropy": {
        "one": _linear_cross_entropy(1, 1, 1),
        "odd": _linear_cross_entropy(5, 3, 7),
        "late": _linear_cross_entropy(5, 3, 7, smoothing=0.1, early=False),
        "ignored": _linear_cross_entropy(13, 4, 9, bias=False, ignored=-100),
        "ignored class": _linear_cross_entropy(13, 4, 9, ignored=0, reduction="sum"),
        "all ignored": _linear_cross_entropy(1, 4, 9, ignored=-1),
        "chunks": _linear_cross_entropy(13, 5, 65, ignored=-100, smoothing=0.1, rows=4),
        "chunks of one": _linear_cross_entropy(5, 3, 7, bias=False, reduction="sum", rows=1),
        "blocks": _linear_cross_entropy(5, 65, 8101, smoothing=0.2, rows=2),  # dW is added in more than one
        "empty": _linear_cross_entropy(0, 3, 4, reduction="sum"),
        "no inputs": _linear_cross_entropy(3, 0, 4),
        "nanogpt": _linear_cross_entropy(768, 128, 65, bias=False, rows=10**6),
        "gpt2": _linear_cross_entropy(2048, 768, 50257, bias=False, rows=512),
    },
    "rms_norm": {
        "one": ({"x": (1, 1), "w": (1,)}, {"eps": 1e-5}),
        "odd": ({"x": (3, 5, 7), "w": (7,)}, {"eps": 1e-5}),
        "plain": ({"x": (5, 33), "w": None}, {"eps": 1e-6}),
        "empty": ({"x": (0, 4), "w": (4,)}, {"eps": 1e-5}),
        "wide": ({"x": (40, 1031), "w": (1031,)}, {"eps": 1e-5}),
        "gpt2": ({"x": (2048, 768), "w": (768,)}, {"eps": 1e-5}),
    },
    "rotary": {
        "one": _rotary(1, 2, turned=2),
        "odd": _rotary(2, 3, 5, 14, turned=14),
        "odd pairs": _rotary(2, 3, 5, 14, turned=14, interleaved=True),
        "part": _rotary(2, 3, 5, 13, turned=6),
        "part pairs": _rotary(2, 3, 5, 13, turned=6, cos=(2, 1, 5), interleaved=True),
        "vector": _rotary(7, turned=4),
        "deep": _rotary(2, 1, 3, 2, 6, turned=4, cos=(1, 3, 1)),
        "rows": _rotary(3, 400, 34, turned=32, cos=(3, 1)),
        "none": _rotary(2, 3, 5, turned=0),
        "empty": _rotary(2, 0, 4, turned=4),
        "llama": _rotary(4, 12, 512, 64, turned=64),
        "gptj": _rotary(4, 12, 512, 64, turned=64, interleaved=True),
    },
    "relu": {
        "one": ({"x": (1,)}, {}),
        "odd": ({"x": (3, 5, 7)}, {}),
        "scalar": ({"x": ()}, {}),
        "empty": ({"x": (0, 4)}, {}),
        "chunks": ({"x": (3, 9001)}, {}),
        "gpt2": ({"x": (2048, 3072)}, {}),
    },
    "silu": {
        "one": ({"x": (1,)}, {}),
        "odd": ({"x": (3, 5, 7)}, {}),
        "scalar": ({"x": ()}, {}),
        "empty": ({"x": (0, 4)}, {}),
        "chunks": ({"x": (3, 5003)}, {}),
        "llama": ({"x": (2048, 3072)}, {}),
    },
    "sum_of_squares": {
        "one": ({"arrays": several([(1,)])}, {}),
        "nothing": ({"arrays": several()}, {}),
        "several": ({"arrays": several([(0,), (3, 5), (), (127, 129), (2, 0), (70, 1001), (1,)])}, {}),
        "gpt2": ({"arrays": several([(768, 3072), (3072,), (3072, 768), (768,), (768, 2304), (2304,)])}, {}),
    },
}
SIZES["swiglu_linear"] = {
    size: ({"g": shape, "u": shape, "w": w, "b": b}, {"transposed": size not in ("conv1d", "rows")})
    for size, shape, w, b in (
        ("one", (1, 1), (1, 1), (1,)),
        ("odd", (3, 5, 7), (4, 7), (4,)),
        ("conv1d", (3, 5, 7), (7, 4), (4,)),
        ("plain", (9, 7), (4, 7), None),
        ("vector", (7,), (4, 7), (4,)),
        ("empty", (0, 7), (4, 7), (4,)),
        ("rows", (97, 331), (331, 65), None),
        ("llama", (2048, 1536), (576, 1536), None),
    )
}
for _op in ("softmax", "log_softmax"):
    SIZES[_op] = {
        "one": ({"x": (1,)}, {"axis": 0}),
        "odd": ({"x": (3, 5, 7)}, {"axis": 2}),
        "middle": ({"x": (3, 5, 7)}, {"axis": 1}),
        "first": ({"x": (33, 2)}, {"axis": 0}),
        "masked": ({"x": masked(6, 9)}, {"axis": 1}),
        "wide": ({"x": (3, 1501)}, {"axis": -1}),
        "empty": ({"x": (0, 4)}, {"axis": 1}),
        "nanogpt": ({"x": (3072, 64)}, {"axis": 1}),
        "gpt2": ({"x": (64, 50257)}, {"axis": 1}),
    }


def sample(op: str, size: str, dtype: Any = np.float64, seed: int = 0) -> tuple[list[Any], dict[str, Any]]:
    """Return the arrays and the static arguments of one case, always the same for the same arguments."""
    arrays, static = SIZES[op][size]
    rng = np.random.default_rng(seed)
    drawn: list[Any] = []
    for name, what in arrays.items():
        if what is None:
            drawn.append(None)
        elif isinstance(what, ids):
            drawn.append(what.draw(rng))
        elif isinstance(what, several):
            column = [rng.standard_normal(shape) for shape in what]
            drawn.append([np.asarray(np.square(a) if (op, name) == ("adamw", "v") else a, dtype) for a in column])
        else:
            drawn.append(np.asarray(what.draw(rng) if isinstance(what, masked) else rng.standard_normal(what), dtype))
    return drawn, static


def outputs(out: Any) -> tuple:
    """Return what an op gave as a tuple, of one output or of several."""
    return out if type(out) is tuple else (out,)


def uses(n: int) -> list[tuple[int, ...]]:
    """Return the choices of outputs, of ``n``, that a gradient is judged for: all of them, and each alone."""
    return [tuple(range(n)), *((i,) for i in range(n) if n > 1)]


def joined(out: Any, used: Sequence[int], concatenate: Callable = np.concatenate) -> Any:
    """Return the outputs that are used as one Tensor: end to end, or, where it is only one, as it is."""
    parts = [outputs(out)[i] for i in used]
    return parts[0] if len(parts) == 1 else concatenate([part.reshape(-1) for part in parts])


def check_grad(
    function: Callable[..., Tensor],
    *arrays: np.ndarray,
    step: float = 1e-6,
    rtol: float = AGAINST_DIFFERENCES,
    seed: int = 0,
) -> None:
    """Check backward() of ``function(*tensors)`` along one random direction, against a central difference.

    One direction costs two forward passes whatever the number of inputs, and catches any wrong gradient with
    probability one.  Arrays must be float64: in float32 the difference itself is wrong by about 1e-3.  Entries of -inf
    do not move.  AssertionError where the two differ by more than ``rtol`` of the sum of what was added up.
    """
    rng = np.random.default_rng(seed)
    tensors = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    out = function(*tensors)
    dy = np.where(np.isfinite(out._data), rng.standard_normal(out.shape), 0.0)  # an infinity does not move
    directions = [np.where(np.isfinite(a), rng.standard_normal(a.shape), 0.0) for a in arrays]
    moves = [t.requires_grad for t in tensors]
    if out.requires_grad:
        out.backward(dy)

    def along(t):
        moved = (a + t * d if m else a for a, d, m in zip(arrays, directions, moves, strict=True))
        return function(*(as_tensor(np.asarray(a)) for a in moved)).data

    with np.errstate(invalid="ignore"):
        change = along(step) - along(-step)
    terms = np.where(np.isfinite(change), dy * change, 0.0) / (2 * step)
    parts = [np.sum(t.grad * d) for t, d in zip(tensors, directions, strict=True) if t.grad is not None]
    scale = max(1.0, float(np.abs(terms).sum()), *(abs(float(p)) for p in parts))
    error = abs(float(terms.sum()) - float(sum(parts)))
    assert error <= rtol * scale, f"backward() gives {sum(parts)}, differences give {terms.sum()} (scale {scale:.3g})"


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float, name: str = "") -> None:
    """Check shape, dtype, and every entry to ``tolerance`` times the largest finite entry expected (at least 1).

    Infinities must be where they are expected.  AssertionError says how far off, and where.
    """
    expected = np.asarray(expected)
    assert np.shape(got) == expected.shape, f"{name}: shape {np.shape(got)}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"{name}: dtype {got.dtype}, expected {expected.dtype}"
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(1.0, finite.max(initial=0.0)), err_msg=name)
