"""Each op by PyTorch's own best function for it, for benchmarks.kernels: arguments as in minilm/testing.py.

PyTorch's dropout draws its own numbers, so what is compared before it is timed is its arithmetic with minilm's.
"""

import numpy as np
import torch
from torch.nn import functional as F


def _attention(q, k, v, bias, *, scale, causal, offset, window, lengths, dropout, **_):
    """Of a cached prefix only the last query is meant, which sees all keys; packed sequences are taken one by one."""
    assert window is None
    assert not causal or offset == k.shape[2] - q.shape[2]
    assert not causal or not offset or q.shape[2] == 1
    if lengths is None:
        return F.scaled_dot_product_attention(q, k, v, bias, dropout, causal and not offset, scale=scale)
    parts = zip(q.split(lengths[0], 2), k.split(lengths[1], 2), v.split(lengths[1], 2), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part, is_causal=causal, scale=scale) for part in parts], 2)


def _linear_cross_entropy(x, w, b, target, *, ignore_index, label_smoothing, reduction, **_):
    loss = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "reduction": reduction}
    return F.cross_entropy(F.linear(x, w, b), target, **loss)


def _rotary(x, cos, sin, *, interleaved):
    if interleaved:
        turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.complex(cos, sin)
        return torch.view_as_real(turned).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


FUNCTIONS = {
    "add_layer_norm": lambda x, y, w, b, *, eps: F.layer_norm(x + y, x.shape[-1:], w, b, eps),
    "add_rms_norm": lambda x, y, w, *, eps: F.rms_norm(x + y, x.shape[-1:], w, eps),
    "attention": _attention,
    "bias_gelu": lambda x, b, *, approximate: F.gelu(x + b, approximate=approximate),
    "gelu_linear": lambda x, s, w, b, *, approximate, transposed: F.linear(
        F.gelu(x if s is None else x + s, approximate=approximate), w if transposed else w.T, b
    ),
    "cross_entropy": F.cross_entropy,
    "dropout": lambda x, *, p, seed: F.dropout(x, p),
    "embedding": lambda w, ids, *, padding_idx: F.embedding(ids, w, padding_idx),
    "gelu": F.gelu,
    "layer_norm": lambda x, w, b, *, eps: F.layer_norm(x, x.shape[-1:], w, b, eps),
    "linear": lambda x, w, b, *, transposed: F.linear(x, w if transposed else w.T, b),
    "linear_cross_entropy": _linear_cross_entropy,
    "log_softmax": lambda x, *, axis: F.log_softmax(x, axis),
    "relu": F.relu,
    "rms_norm": lambda x, w, *, eps: F.rms_norm(x, x.shape[-1:], w, eps),
    "rotary": _rotary,
    "silu": F.silu,
    "softmax": lambda x, *, axis: F.softmax(x, axis),
    "swiglu_linear": lambda g, u, w, b, *, transposed: F.linear(F.silu(g) * u, w if transposed else w.T, b),
}


def _attention_dropping(q, k, v, bias, *, scale, causal, dropout, seed, **_):
    """Compute attention with the entries that minilm drops, plainly."""
    from minilm._kernels.random import keep_attention

    z = q @ k.transpose(-1, -2) * scale + (0.0 if bias is None else bias)
    if causal:
        z = z.masked_fill(~torch.ones(z.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    return torch.softmax(z, -1) * torch.from_numpy(keep_attention(*z.shape, dropout, seed)) / (1 - dropout) @ v


def _dropout_dropping(x, *, p, seed):
    from minilm._kernels.dropout.dropout import dropout_forward

    kept = dropout_forward(np.ones(x.shape, np.float32), p=p, seed=seed)[0] > 0
    return x.masked_fill(torch.from_numpy(~kept), 0.0) / (1 - p)


def both_ways(op, arrays, learns, static, upstream, rng=None):
    """Return a function that runs forward and backward once; it returns the output and the gradients of what learns.

    ``upstream(shape)`` is the gradient of the output.  With ``rng``, what minilm drops is dropped here too.
    """
    tensors = [
        None if a is None else torch.from_numpy(a).requires_grad_(need) for a, need in zip(arrays, learns, strict=True)
    ]
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    function = FUNCTIONS[op]
    if rng is not None:
        from minilm import seeds

        function = {"attention": _attention_dropping, "dropout": _dropout_dropping}[op]
        static = static | {"seed": seeds.draw(rng)}

    def run():
        for t in wanted:
            t.grad = None
        out = function(*tensors, **static)
        out.backward(torch.from_numpy(upstream(tuple(out.shape))))
        return [out.detach().numpy(), *(t.grad.numpy() for t in wanted)]

    return run


def adamw(parameters, gradients, max_norm, options):
    """Return a function that clips by global norm and does one step; it returns the parameters."""
    tensors = [torch.nn.Parameter(torch.from_numpy(p)) for p in parameters]
    for p, g in zip(tensors, gradients, strict=True):
        p.grad = torch.from_numpy(g)
    optimizer = torch.optim.AdamW(tensors, **options, fused=True)

    def run():
        torch.nn.utils.clip_grad_norm_(tensors, max_norm)
        optimizer.step()
        return [p.detach().numpy() for p in tensors]

    return run
