"""Each op as a model calls it, for benchmarks.kernels: arrays and static arguments as in minilm/testing.py.

What learns is a parameter, whose array is the library's own.  An array that a user has handed in, or looked at, would
also be read once each way by the guard against writes (minilm/guard.py), which no layer of a model pays.
"""

from minilm import Tensor, optim
from minilm import functional as F
from minilm.nn.module import parameter


def _attention(q, k, v, bias, *, scale, causal, offset, window, lengths, dropout, rng, **_):
    return F.scaled_dot_product_attention(
        q, k, v, bias, dropout, causal, scale, query_offset=offset, window=window, lengths=lengths, rng=rng
    )


def _linear_cross_entropy(x, w, b, target, *, ignore_index, label_smoothing, reduction, **_):
    return F.linear_cross_entropy(x, w, target, b, ignore_index, reduction, label_smoothing)


FUNCTIONS = {
    "add_layer_norm": lambda x, y, w, b, *, eps, **_: F.add_layer_norm(x, y, w, b, eps)[1],
    "add_rms_norm": lambda x, y, w, *, eps, **_: F.add_rms_norm(x, y, w, eps)[1],
    "attention": _attention,
    "bias_gelu": lambda x, b, *, approximate, **_: F.bias_gelu(x, b, approximate=approximate),
    "gelu_linear": lambda x, s, w, b, *, approximate, transposed, **_: F.gelu_linear(
        x, s, w, b, approximate, transposed=transposed
    ),
    "cross_entropy": lambda z, target, *, rng, **static: F.cross_entropy(z, target, **static),
    "dropout": lambda x, *, p, rng, **_: F.dropout(x, p, rng=rng),
    "embedding": lambda w, ids, *, padding_idx, **_: F.embedding(ids, w, padding_idx),
    "gelu": lambda x, *, approximate, **_: F.gelu(x, approximate),
    "layer_norm": lambda x, w, b, *, eps, **_: F.layer_norm(x, w, b, eps),
    "linear": lambda x, w, b, *, transposed, **_: F.linear(x, w, b, transposed=transposed),
    "linear_cross_entropy": _linear_cross_entropy,
    "log_softmax": lambda x, *, axis, **_: F.log_softmax(x, axis),
    "relu": lambda x, **_: F.relu(x),
    "rms_norm": lambda x, w, *, eps, **_: F.rms_norm(x, w, eps),
    "rotary": lambda x, cos, sin, *, interleaved, **_: F.rotary(x, cos, sin, interleaved),
    "silu": lambda x, **_: F.silu(x),
    "softmax": lambda x, *, axis, **_: F.softmax(x, axis),
    "swiglu_linear": lambda g, u, w, b, *, transposed, **_: F.swiglu_linear(g, u, w, b, transposed=transposed),
}


def both_ways(op, arrays, learns, static, upstream, rng):
    """Return a function that runs forward and backward once; it returns the output and the gradients of what learns.

    ``upstream(shape)`` is the gradient of the output.  Dropout draws from ``rng``.
    """
    pairs = list(zip(arrays, learns, strict=True))
    tensors = [None if a is None else parameter(a) if need else Tensor(a) for a, need in pairs]
    wanted = [t for t, need in zip(tensors, learns, strict=True) if need]
    function = FUNCTIONS[op]

    def run():
        for t in wanted:
            t.grad = None
        out = function(*tensors, rng=rng, **static)
        out.backward(upstream(out.shape))
        return [out._data, *(t.grad for t in wanted)]

    return run


def adamw(parameters, gradients, max_norm, options):
    """Return a function that clips by global norm and does one step; it returns the parameters."""
    tensors = [parameter(p) for p in parameters]
    for p, g in zip(tensors, gradients, strict=True):
        p.grad = g
    optimizer = optim.AdamW(tensors, **options)

    def run():
        optimizer.step(grad_scale=optim.clip_factor(optim.global_norm(tensors), max_norm))
        return [p._data for p in tensors]

    return run
