"""The differentiable functions that models are written in.

Names, argument meanings and shapes are those of torch.nn.functional where it has the function.  Each checks its
arguments, then applies an op; the mathematics is in minilm/_kernels/<op>/.  Arrays are taken where Tensors are.
Randomness comes from ``rng``, a numpy.random.Generator.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import autograd
from .._kernels.registry import kernel
from ..tensor import Tensor, apply, as_tensor
from ..tensor.core import wrap
from . import checks

Lengths = Sequence[int] | np.ndarray  # rows of each of the sequences that lie end to end

LOGITS = 1 << 27  # bytes of logits that linear_cross_entropy holds at once

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "bias_gelu",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "gelu_linear",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "mse_loss",
    "relu",
    "rms_norm",
    "rotary",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "swiglu_linear",
]


def linear(input: Any, weight: Any, bias: Any = None, *, transposed: bool = True) -> Tensor:
    """Return input Wᵀ + bias.

    Shapes: input (..., C), weight (F, C), bias (F,) -> (..., F).  ``transposed=False`` takes the weight as (C, F), the
    way GPT-2's checkpoints keep it.  ValueError where the shapes do not fit.  Mathematics: _kernels/linear/linear.py.
    """
    x, w, b = as_tensor(input), as_tensor(weight), checks.optional(bias)
    checks.fits_matrix("linear", x, w, b, transposed)
    return apply(kernel("linear"), x, w, b, transposed=transposed)


def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> Tensor:
    """Look up rows of ``weight``: a table of vectors, one per token.

    Shapes: input (...) of integers in [0, V), weight (V, C) -> (..., C).  The row ``padding_idx`` gets no gradient.
    IndexError for a token id out of range.  Mathematics: _kernels/embedding/embedding.py.
    """
    ids, w = as_tensor(input), as_tensor(weight)
    checks.integers("embedding", "input", ids)
    if w._data.ndim != 2:
        raise ValueError(f"embedding: weight must be (V, C), one row per token; got {w.shape}.")
    V = w._data.shape[0]
    checks.in_range("embedding", "token ids", ids._data, V, "Was the text encoded with another vocabulary?")
    if padding_idx is not None and not -V <= padding_idx < V:
        raise IndexError(f"embedding: padding_idx must lie in [-{V}, {V}); got {padding_idx}.")
    return apply(kernel("embedding"), w, ids, padding_idx=None if padding_idx is None else padding_idx % V)


def layer_norm(input: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Normalize the last axis to mean 0 and variance 1, then scale and shift it.

    Shapes: input (..., C), weight (C,), bias (C,) -> (..., C).  Mathematics: _kernels/layer_norm/layer_norm.py.

    >>> one, zero = Tensor([1.0, 1.0]), Tensor([0.0, 0.0])
    >>> layer_norm(Tensor([[1.0, 3.0], [4.0, 0.0]]), one, zero, eps=0.0)
    Tensor([[-1.,  1.],
            [ 1., -1.]])
    """
    x, w, b = as_tensor(input), checks.optional(weight), checks.optional(bias)
    checks.last_axis("layer_norm", x, w, b)
    return apply(kernel("layer_norm"), x, w, b, eps=eps)


def add_layer_norm(x: Any, y: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Return x + y, a residual stream and what is added to it, and layer_norm(x + y), in one pass over memory.

    Shapes: x (..., C), y the same, weight (C,), bias (C,) -> (..., C) and (..., C).
    ValueError where the shapes do not fit.  Mathematics: _kernels/add_layer_norm/add_layer_norm.py.

    >>> total, normal = add_layer_norm(Tensor([[1.0, 2.0]]), Tensor([[0.0, 1.0]]), eps=0.0)
    >>> total, normal
    (Tensor([[1., 3.]]), Tensor([[-1.,  1.]]))
    """
    a, b = as_tensor(x), as_tensor(y)
    scale, shift = checks.optional(weight), checks.optional(bias)
    if a._data.shape != b._data.shape:
        raise ValueError(f"add_layer_norm: x and y must have one shape; got x {a.shape} and y {b.shape}.")
    checks.last_axis("add_layer_norm", a, scale, shift)
    checks.same_dtype("add_layer_norm", x=a, y=b)
    return apply(kernel("add_layer_norm"), a, b, scale, shift, eps=eps)


def rms_norm(input: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """Divide the last axis by its root mean square, then scale it.

    Shapes: input (..., C), weight (C,) -> (..., C).  ``eps`` defaults to the machine epsilon of the input's dtype.
    Mathematics: _kernels/rms_norm/rms_norm.py.
    """
    x, w = as_tensor(input), checks.optional(weight)
    checks.last_axis("rms_norm", x, w)
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    return apply(kernel("rms_norm"), x, w, eps=eps)


def add_rms_norm(x: Any, y: Any, weight: Any = None, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """Return x + y, a residual stream and what is added to it, and rms_norm(x + y), in one pass over memory.

    Shapes: x (..., C), y the same, weight (C,) -> (..., C) and (..., C).  ``eps`` as in rms_norm.
    ValueError where the shapes do not fit.  Mathematics: _kernels/add_rms_norm/add_rms_norm.py.

    >>> total, normal = add_rms_norm(Tensor([[1.0, 2.0]]), Tensor([[0.0, -3.0]]), eps=0.0)
    >>> total, normal
    (Tensor([[ 1., -1.]]), Tensor([[ 1., -1.]]))
    """
    a, b, scale = as_tensor(x), as_tensor(y), checks.optional(weight)
    if a._data.shape != b._data.shape:
        raise ValueError(f"add_rms_norm: x and y must have one shape; got x {a.shape} and y {b.shape}.")
    checks.last_axis("add_rms_norm", a, scale)
    checks.same_dtype("add_rms_norm", x=a, y=b)
    eps = float(np.finfo(a.dtype).eps) if eps is None else eps
    return apply(kernel("add_rms_norm"), a, b, scale, eps=eps)


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """Return x Φ(x), Φ being the normal distribution function; "tanh" approximates it, as GPT-2 does.

    Shape: any, kept.  Mathematics: _kernels/gelu/gelu.py.
    """
    checks.choice("gelu", "approximate", approximate, "none", "tanh")
    x = as_tensor(input)
    checks.floating("gelu", x)
    return apply(kernel("gelu"), x, approximate=approximate)


def bias_gelu(input: Any, bias: Any, approximate: str = "none") -> Tensor:
    """Return gelu(input + bias, approximate), in one pass: the bias of the linear layer that made the input.

    Shapes: input (..., C), bias (C,) -> (..., C).  ValueError where they do not fit.
    Mathematics: _kernels/bias_gelu/bias_gelu.py.

    >>> print(f"{bias_gelu(Tensor([[-1.0]]), Tensor([3.0])).item():.4f}")  # 2 times the probability of at most 2
    1.9545
    """
    checks.choice("bias_gelu", "approximate", approximate, "none", "tanh")
    x, b = as_tensor(input), as_tensor(bias)
    checks.last_axis("bias_gelu", x, b, names=("bias",))
    return apply(kernel("bias_gelu"), x, b, approximate=approximate)


def gelu_linear(
    input: Any, shift: Any | None, weight: Any, bias: Any = None, approximate: str = "none", *, transposed: bool = True
) -> Tensor:
    """Return linear(gelu(input + shift, approximate), weight, bias, transposed=transposed), the end of a feed-forward
    block, keeping ``input`` alone for the backward: what gelu gives is made again there.

    Shapes: input (..., C), shift (C,) or None, weight (F, C), or (C, F) where not ``transposed``, bias (F,) or None
    -> (..., F).
    ValueError where they do not fit.  Mathematics: _kernels/gelu_linear/gelu_linear.py.

    >>> print(gelu_linear([[-1.0]], [3.0], [[1.0], [2.0]]).data.round(4))  # 2 times the probability of at most 2
    [[1.9545 3.909 ]]
    """
    checks.choice("gelu_linear", "approximate", approximate, "none", "tanh")
    x, s, w, b = as_tensor(input), checks.optional(shift), as_tensor(weight), checks.optional(bias)
    checks.last_axis("gelu_linear", x, s, names=("shift",))
    checks.fits_matrix("gelu_linear", x, w, b, transposed)
    return apply(kernel("gelu_linear"), x, s, w, b, approximate=approximate, transposed=transposed)


def relu(input: Any) -> Tensor:
    """Return max(x, 0), with gradient 0 at 0.  Shape: any, kept.  Mathematics: _kernels/relu/relu.py."""
    x = as_tensor(input)
    checks.floating("relu", x)
    return apply(kernel("relu"), x)


def sigmoid(input: Any) -> Tensor:
    """Return 1 / (1 + e⁻ˣ), computed through tanh so that no x overflows."""
    x = as_tensor(input)
    return 0.5 * np.tanh(0.5 * x) + 0.5


def silu(input: Any) -> Tensor:
    """Return x / (1 + e⁻ˣ), of which swish is another name.  Shape: any, kept.  Mathematics: _kernels/silu/silu.py."""
    x = as_tensor(input)
    checks.floating("silu", x)
    return apply(kernel("silu"), x)


def swiglu_linear(gate: Any, up: Any, weight: Any, bias: Any = None, *, transposed: bool = True) -> Tensor:
    """Return linear(silu(gate) * up, weight, bias, transposed=transposed), the end of a gated feed-forward block,
    keeping ``gate`` and ``up`` alone for the backward: what the gate lets through is made again there.

    Shapes: gate (..., C), up the same, weight (F, C), or (C, F) where not ``transposed``, bias (F,) or None
    -> (..., F).
    ValueError where they do not fit.  Mathematics: _kernels/swiglu_linear/swiglu_linear.py.

    >>> print(swiglu_linear([[1.0, 2.0]], [[1.0, 0.0]], [[1.0, 1.0]]).data.round(4))  # 1 / (1 + 1 / e)
    [[0.7311]]
    """
    g, u, w, b = as_tensor(gate), as_tensor(up), as_tensor(weight), checks.optional(bias)
    if g._data.shape != u._data.shape:
        raise ValueError(f"swiglu_linear: gate and up must have one shape; got gate {g.shape} and up {u.shape}.")
    checks.same_dtype("swiglu_linear", gate=g, up=u)
    checks.fits_matrix("swiglu_linear", g, w, b, transposed)
    return apply(kernel("swiglu_linear"), g, u, w, b, transposed=transposed)


def softmax(input: Any, dim: int = -1) -> Tensor:
    """Return eˣ / Σ eˣ along ``dim``; a row of -inf gives zeros.  Mathematics: _kernels/softmax/softmax.py."""
    x = as_tensor(input)
    return apply(kernel("softmax"), x, axis=checks.axis("softmax", x, dim))


def log_softmax(input: Any, dim: int = -1) -> Tensor:
    """Return x - log Σ eˣ along ``dim``.  Mathematics: _kernels/log_softmax/log_softmax.py."""
    x = as_tensor(input)
    return apply(kernel("log_softmax"), x, axis=checks.axis("log_softmax", x, dim))


def cross_entropy(
    input: Any, target: Any, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """Return the negative log-probability, in nats, that softmax(input) gives to the labels ``target``.

    Shapes: input (V,), (N, V) or (N, V, d1, ...), target (), (N,) or (N, d1, ...) of integers in [0, V), or
    ``ignore_index`` where nothing is to be predicted.  ``reduction`` is "mean" over the labels that count, "sum", or
    "none", which keeps the target's shape.  With nothing that counts the mean is 0.
    ValueError where shapes do not fit; IndexError for a label out of range.
    Mathematics: _kernels/cross_entropy/cross_entropy.py.
    """
    z, t = as_tensor(input), as_tensor(target)
    checks.integers("cross_entropy", "target", t)
    checks.floating("cross_entropy", z)
    shape = z._data.shape
    if not shape or shape[:1] * (len(shape) > 1) + shape[2:] != t._data.shape:
        raise ValueError(
            "cross_entropy: input must be (N, V), or (N, V, d1, ...), with target (N,), or (N, d1, ...); "
            f"got input {z.shape} and target {t.shape}."
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}.")
    V = shape[1 if len(shape) > 1 else 0]
    checks.check_labels("cross_entropy", t, V, ignore_index, label_smoothing)
    if len(shape) != 2:
        z = z.reshape(1, V) if len(shape) == 1 else z.transpose(0, *range(2, len(shape)), 1).reshape(-1, V)
    loss = apply(
        kernel("cross_entropy"),
        z,
        t if len(shape) == 2 else wrap(t._data.reshape(-1)),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    return loss.reshape(t.shape) if reduction == "none" and len(shape) != 2 else loss


def linear_cross_entropy(
    input: Any,
    weight: Any,
    target: Any,
    bias: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return cross_entropy(linear(input, weight, bias), target) without ever holding all the logits.

    Shapes: input (..., C), weight (V, C), target (...) of integers in [0, V), or ``ignore_index`` where nothing is to
    be predicted, bias (V,) -> ().  ``reduction`` is "mean" over the labels that count, or "sum"; see ``cross_entropy``.
    Gradients are computed along with the loss, which takes three times as long as the loss alone: where they are not
    wanted, say so with ``no_grad``.
    ValueError where shapes do not fit; IndexError for a label out of range.
    Mathematics: _kernels/linear_cross_entropy/linear_cross_entropy.py.

    >>> x, w = np.eye(2, dtype=np.float32), np.zeros((4, 2), np.float32)
    >>> print(f"{linear_cross_entropy(x, w, np.array([3, 0])).item():.4f}")  # log 4
    1.3863
    """
    x, w, t, b = as_tensor(input), as_tensor(weight), as_tensor(target), checks.optional(bias)
    checks.integers("linear_cross_entropy", "target", t)
    checks.floating("linear_cross_entropy", x)
    if not x.ndim or w.ndim != 2 or x.shape != (*t.shape, w.shape[1]) or (b is not None and b.shape != w.shape[:1]):
        raise ValueError(
            "linear_cross_entropy: input must be (..., C), weight (V, C), target (...), and bias (V,); "
            f"got input {x.shape}, weight {w.shape}, target {t.shape}{'' if b is None else f' and bias {b.shape}'}."
        )
    checks.same_dtype("linear_cross_entropy", input=x, weight=w, bias=b)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"linear_cross_entropy: reduction must be 'mean' or 'sum'; got {reduction!r}.")
    checks.check_labels("linear_cross_entropy", t, w.shape[0], ignore_index, label_smoothing)
    return apply(
        kernel("linear_cross_entropy"),
        x if x.ndim == 2 else x.reshape(math.prod(t.shape), x.shape[-1]),
        w,
        b,
        t if t.ndim == 1 else wrap(t._data.reshape(-1)),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        rows=max(1, LOGITS // max(1, w.shape[0] * w.dtype.itemsize)),
        gradients=tuple(autograd.recording() and p is not None and p.requires_grad for p in (x, w, b)),
    )


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Return the mean, the sum, or ("none") each of the squared differences.  Shapes must be equal."""
    x, t = as_tensor(input), as_tensor(target)
    if x.shape != t.shape:
        raise ValueError(f"mse_loss: input and target must have one shape; got {x.shape} and {t.shape}.")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"mse_loss: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}.")
    squares = np.square(x - t)
    return squares if reduction == "none" else getattr(squares, reduction)()


def dropout(input: Any, p: float = 0.5, training: bool = True, *, rng: np.random.Generator | None = None) -> Tensor:
    """Zero each entry with probability ``p`` and divide the others by 1 - p.

    Not in training, or with p = 0, the input comes back as it is.  ``rng`` is required otherwise.
    Mathematics: _kernels/dropout/dropout.py.
    """
    x = as_tensor(input)
    if (seed := checks.seed("dropout", p, training, rng)) is None:
        return x
    checks.floating("dropout", x)
    return x * 0.0 if p == 1.0 else apply(kernel("dropout"), x, p=float(p), seed=seed)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    query_offset: int = 0,
    window: int | None = None,
    lengths: Lengths | tuple[Lengths, Lengths] | None = None,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Return softmax(query keyᵀ scale + mask) value, for every head.

    Shapes: query (..., H, T, D), key (..., G, S, D), value (..., G, S, Dv) -> (..., H, T, Dv).  G is H, or with
    ``enable_gqa`` a divisor of H: then H / G query heads share a key and value head.  ``attn_mask`` broadcasts to
    (..., H, T, S): boolean, True where a query may look, or added to the scores.  ``is_causal``: query t sees keys
    0 .. t + query_offset; with P keys in a cache before the first query, ``query_offset`` is P.  ``window``: query t
    sees no key before t + query_offset - window + 1, so that with ``is_causal`` it sees ``window`` keys, its own the
    last, as in Mistral.  All of these may be given together.
    ``lengths``: sequences lie end to end along T and S, and a query sees keys of its own sequence alone.  It is the
    number of rows of each, or a pair of such lists where query and key differ, the same for every batch row; some may
    be 0.  is_causal, query_offset and window then count from where each sequence starts; attn_mask does not.
    ``scale`` defaults to 1/√D.  A query that sees no key gives zeros.
    ValueError where the shapes or lengths do not fit.  Mathematics: _kernels/attention/attention.py.
    """
    q, k, v, bias = as_tensor(query), as_tensor(key), as_tensor(value), checks.optional(attn_mask)
    checks.check_attention(q, k, v, enable_gqa)
    checks.same_dtype("scaled_dot_product_attention", query=q, key=k, value=v)
    *lead, H, T, D = q._data.shape
    S = k._data.shape[-2]
    if window is not None and window < 1:
        raise ValueError(f"scaled_dot_product_attention: window must be at least 1, or None; got {window}.")
    packed = None if lengths is None else checks.packed(lengths, T, S)
    if bias is not None:
        bias = checks.additive(bias, q.dtype)
        if not checks.broadcasts(bias.shape, (*lead, H, T, S)):
            raise ValueError(
                "scaled_dot_product_attention: attn_mask must broadcast to (..., H, T, S) = "
                f"{(*lead, H, T, S)}; got {bias.shape}."
            )
    if len(lead) != 1:  # the op has one batch axis
        if bias is not None and bias.ndim > 3:
            bias = (bias + np.zeros((*lead, 1, 1, 1), bias.dtype)).reshape(-1, *bias.shape[-3:])
        q, k, v = (t.reshape(-1, *t.shape[-3:]) for t in (q, k, v))
    seed = checks.seed("scaled_dot_product_attention", dropout_p, True, rng)
    out = apply(
        kernel("attention"),
        q,
        k,
        v,
        bias,
        scale=1 / math.sqrt(D) if scale is None else float(scale),
        causal=is_causal,
        offset=query_offset,
        window=window,
        lengths=packed,
        dropout=float(dropout_p) if dropout_p < 1 else 0.0,
        seed=seed or 0,
    )
    out = out if dropout_p < 1 else out * 0.0
    return out if len(lead) == 1 else out.reshape(*lead, H, T, v.shape[-1])


def rotary(input: Any, cos: Any, sin: Any, interleaved: bool = False) -> Tensor:
    """Turn pairs of channels by angles whose cos and sin are given.

    Shapes: input (..., T, D), cos and sin broadcastable to (..., T, R/2) -> (..., T, D).  The first R <= D channels
    turn, the others pass through.  Pair i is channels i and i + R/2, as in Llama and GPT-NeoX, or with ``interleaved``
    2i and 2i + 1, as in GPT-J.  ValueError where the shapes do not fit.  Mathematics: _kernels/rotary/rotary.py.
    """
    x, c, s = as_tensor(input), as_tensor(cos), as_tensor(sin)
    checks.floating("rotary", x)
    checks.same_dtype("rotary", input=x, cos=c, sin=s)
    half = c.shape[-1] if c.ndim else -1
    fits = 0 <= 2 * half <= (x.shape[-1] if x.ndim else 0) and s.shape[-1:] == (half,)
    if not (fits and all(checks.broadcasts(a.shape, (*x.shape[:-1], half)) for a in (c, s))):
        raise ValueError(
            "rotary: cos and sin must broadcast to (..., T, R/2), R at most the D of input (..., T, D); "
            f"got input {x.shape}, cos {c.shape} and sin {s.shape}."
        )
    return apply(kernel("rotary"), x, c, s, interleaved=bool(interleaved))
