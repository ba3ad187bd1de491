"""The parts that models are built of.  Names, attributes and first values are torch.nn's where it has the part."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from . import init
from .module import Module, parameter


class Linear(Module):
    """y = x Wᵀ + b, with weight W of shape (out_features, in_features) and bias b, or None, of (out_features,).

    Both start in U[-1/√in_features, 1/√in_features), as in torch.nn.Linear; with ``std`` W starts from N(0, std²) and
    b from 0, as Transformers do.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        std: float | None = None,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        if std is not None:
            self.weight = parameter(init.normal(rng, (out_features, in_features), 0.0, std, dtype))
            self.bias = parameter(init.zeros((out_features,), dtype)) if bias else None
            return
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = parameter(init.uniform(rng, (out_features, in_features), -bound, bound, dtype))
        self.bias = parameter(init.uniform(rng, (out_features,), -bound, bound, dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Conv1D(Module):
    """y = x W + b, with weight W of shape (in_features, out_features): how GPT-2's checkpoints keep a linear layer.

    The name is HF's.  W starts from N(0, std²), b from 0.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        bias: bool = True,
        *,
        std: float = 0.02,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        self.weight = parameter(init.normal(rng, (in_features, out_features), 0.0, std, dtype))
        self.bias = parameter(init.zeros((out_features,), dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias, transposed=False)


class Embedding(Module):
    """Row ``ids`` of a table, weight, of shape (num_embeddings, embedding_dim), which starts from N(0, std²)."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        std: float = 1.0,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        weight = init.normal(rng, (num_embeddings, embedding_dim), 0.0, std, dtype)
        if padding_idx is not None and not init.is_unset(weight):
            weight[padding_idx] = 0
        self.padding_idx = padding_idx
        self.weight = parameter(weight)

    def forward(self, ids: Any) -> Tensor:
        return F.embedding(ids, self.weight, self.padding_idx)


class LayerNorm(Module):
    """The last axis with mean 0 and variance 1, times weight plus bias, which start at 1 and 0; either may be None.

    Called with a residual stream and what is added to it, it returns their sum and the sum's norm, made in one pass.
    """

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
    ):
        self.eps = eps
        self.weight = parameter(init.ones((normalized_shape,), dtype)) if elementwise_affine else None
        self.bias = parameter(init.zeros((normalized_shape,), dtype)) if elementwise_affine and bias else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        if y is None:
            return F.layer_norm(x, self.weight, self.bias, self.eps)
        return F.add_layer_norm(x, y, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """The last axis over its root mean square, times weight, which starts at 1.

    Called with a residual stream and what is added to it, it returns their sum and the sum's norm, made in one pass.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6, *, dtype: Any = np.float32):
        self.eps = eps
        self.weight = parameter(init.ones((normalized_shape,), dtype))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        if y is None:
            return F.rms_norm(x, self.weight, self.eps)
        return F.add_rms_norm(x, y, self.weight, self.eps)


def add_and_norm(x: Tensor, update: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Return x + update, made in the pass of the norm that reads it, or x if nothing is to be added; and its norm."""
    return (x, norm(x)) if update is None else norm(x, update)


def through_blocks(x: Tensor, blocks: Any, norm: Any, *given: Any, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """Return the norm of what the blocks make of x, and, to ``keep``, x and what each block but the last made of it.

    For blocks that normalize first: block(x, update, *given) reads x + update, where update may be None, and returns
    such a pair.  What was added last is still to be added: the norm that reads the sum makes it.
    """
    update, states = None, []
    for block in blocks:
        if keep:
            states.append(x if update is None else x + update)
        x, update = block(x, update, *given)
    return add_and_norm(x, update, norm)[1], states


class Dropout(Module):
    """Zeros with probability p in training, nothing in evaluation.  Draws its seeds from ``rng``."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator):
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, rng=self.rng) if self.training else x


class Sequential(Module):
    """One module after another; their names are 0, 1, ...  Functions of one Tensor may stand among them."""

    def __init__(self, *parts: Any):
        for i, part in enumerate(parts):
            if isinstance(part, Module):
                setattr(self, str(i), part)
        self._steps = tuple(str(i) if isinstance(part, Module) else part for i, part in enumerate(parts))

    def forward(self, x: Any) -> Any:
        for step in self._steps:
            x = getattr(self, step)(x) if isinstance(step, str) else step(x)
        return x


def gelu_tanh(x: Any) -> Tensor:
    """GELU with the tanh approximation."""
    return F.gelu(x, "tanh")


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {  # under the names of HF's configurations
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_10": lambda x: np.minimum(np.maximum(F.gelu(x), -10.0), 10.0),
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_python_tanh": gelu_tanh,
    "quick_gelu": lambda x: x * F.sigmoid(1.702 * x),
    "leaky_relu": lambda x: np.maximum(x, 0.01 * x),
    "linear": lambda x: x,
    "mish": lambda x: x * np.tanh(np.maximum(x, 0.0) + np.log1p(np.exp(-abs(x)))),
    "relu": F.relu,
    "relu2": lambda x: np.square(F.relu(x)),
    "relu6": lambda x: np.minimum(F.relu(x), 6.0),
    "sigmoid": F.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": np.tanh,
}

GELUS = {F.gelu: "none", gelu_tanh: "tanh"}  # the activations that are GELU, and how


def linear_act(x: Tensor, linear: Any, act: Callable[[Any], Any]) -> Tensor:
    """Return act(linear(x)).

    Where ``act`` is GELU, the layer makes its product alone, and its bias is added in the activation's pass over it.
    A layer with hooks, or of another class, is called, so that it does what it should.
    """
    if act not in GELUS or not _is_plain(linear) or linear.bias is None:
        return act(linear(x))
    return F.bias_gelu(_product(x, linear), linear.bias, GELUS[act])


def feed_forward(
    x: Tensor, up: Any, act: Callable[[Any], Any], down: Any, dropout: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return down(dropout(act(up(x)))), what a Transformer's block does to each of its rows.

    Where ``act`` is GELU and nothing is dropped, what it gives is not kept for the backward but made again.  Layers
    with hooks, or of other classes, are called.
    """
    if act not in GELUS or not (_is_plain(up) and _is_plain(down)) or (dropout is not None and not _is_idle(dropout)):
        h = linear_act(x, up, act)
        return down(h if dropout is None else dropout(h))
    of = down.weight, down.bias, GELUS[act]
    return F.gelu_linear(_product(x, up), up.bias, *of, transposed=type(down) is Linear)


def gated_feed_forward(x: Tensor, gate: Any, act: Callable[[Any], Any], up: Any, down: Any) -> Tensor:
    """Return down(act(gate(x)) * up(x)), what a block of Llama does to each of its rows.

    Where ``act`` is silu, what the gate lets through is not kept for the backward but made again.  A last layer with
    hooks, or of another class, is called.
    """
    if act is not F.silu or not _is_plain(down):
        return down(linear_act(x, gate, act) * up(x))
    return F.swiglu_linear(gate(x), up(x), down.weight, down.bias, transposed=type(down) is Linear)


def _is_plain(layer: Any) -> bool:
    """Whether the layer does nothing but multiply by its weight and add its bias."""
    return type(layer) in (Linear, Conv1D) and not vars(layer).get("_hooks")


def _is_idle(layer: Any) -> bool:
    """Whether the layer is a dropout that drops nothing now."""
    return type(layer) is Dropout and not (layer.training and layer.p) and not vars(layer).get("_hooks")


def _product(x: Tensor, layer: Any) -> Tensor:
    return F.linear(x, layer.weight, transposed=type(layer) is Linear)
