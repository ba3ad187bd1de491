"""Outputs and gradients against PyTorch, the outside authority."""

import numpy as np
import pytest
import torch

from minilm import Tensor
from minilm._kernels import registry
from minilm._kernels.dropout.dropout import dropout_forward
from minilm._kernels.random import keep_attention
from minilm.tensor import apply
from minilm.testing import AGAINST_PYTORCH, MODEL_SIZES, SIZES, assert_close, joined, outputs, sample, uses

F = torch.nn.functional


def torch_visible(T, S, causal, offset, window, lengths):
    """One block for each sequence, on the diagonal."""
    see = torch.zeros(T, S, dtype=torch.bool)
    t = s = 0
    for n, m in zip(*(lengths or ((T,), (S,))), strict=True):
        block = torch.ones(n, m, dtype=torch.bool)
        block = block.tril(offset) if causal else block
        see[t : t + n, s : s + m] = block if window is None else block.triu(offset - window + 1)
        t, s = t + n, s + m
    return see


def torch_attention(q, k, v, bias, *, scale, causal, offset, window, lengths, dropout, seed):
    """PyTorch's own function where it has the case; its softmax where it would give NaN or a dropout of its own."""
    T, S, H = q.shape[-2], k.shape[-2], q.shape[1]
    k, v = (t.repeat_interleave(H // t.shape[1], dim=1) for t in (k, v))
    visible = torch_visible(T, S, causal, offset, window, lengths)
    mask = torch.zeros(T, S, dtype=q.dtype).masked_fill(~visible, -torch.inf)
    mask = mask if bias is None else mask + bias
    mask = mask.expand(*q.shape[:-1], S)
    blind = (mask == -torch.inf).all(-1, keepdim=True)  # queries that see nothing: ours give zeros, PyTorch's NaN
    if not dropout and not blind.any():
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    P = torch.softmax(q @ k.transpose(-1, -2) * scale + mask.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)
    if dropout:
        P = P * torch.tensor(keep_attention(*P.shape, dropout, seed)) / (1 - dropout)
    return P @ v


def torch_add_layer_norm(x, y, w, b, *, eps):
    return x + y, F.layer_norm(x + y, x.shape[-1:], w, b, eps)


def torch_cross_entropy(z, target, *, ignore_index, label_smoothing, reduction):
    out = F.cross_entropy(z, target, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction)
    return out.nan_to_num(0.0) if (target == ignore_index).all() else out  # ours: the mean of nothing is 0


def torch_linear_cross_entropy(x, w, b, target, *, rows, gradients, **loss):
    return torch_cross_entropy(F.linear(x, w, b), target, **loss)


def torch_dropout(x, *, p, seed):
    """The mask is ours (its distribution is judged in kernels/test_random.py); what is done with it is PyTorch's."""
    kept = dropout_forward(np.ones(x.shape), p=p, seed=seed)[0] > 0
    return x.masked_fill(torch.tensor(~kept), 0.0) / (1 - p)


def torch_rotary(x, cos, sin, *, interleaved):
    """A pair of channels is a complex number, multiplied by cos + i sin."""
    R = 2 * cos.shape[-1]
    pairs = torch.complex(x[..., 0:R:2], x[..., 1:R:2]) if interleaved else torch.complex(*x[..., :R].chunk(2, -1))
    turned = pairs * torch.complex(cos, sin)
    parts = [torch.view_as_real(turned).flatten(-2)] if interleaved else [turned.real, turned.imag]
    return torch.cat([*parts, x[..., R:]], -1)


def torch_softmax(name):
    def oracle(x, *, axis):
        blind = (x == -torch.inf).all(axis, keepdim=True)  # rows of -inf: ours have no gradient, PyTorch's is NaN
        out = getattr(torch, name)(x.masked_fill(blind, 0.0), axis)
        return out.masked_fill(blind, 0.0 if name == "softmax" else -torch.inf)

    return oracle


def torch_gelu_linear(x, s, w, b, *, approximate, transposed):
    return F.linear(F.gelu(x if s is None else x + s, approximate=approximate), w if transposed else w.T, b)


ORACLES = {
    "add_layer_norm": torch_add_layer_norm,
    "add_rms_norm": lambda x, y, w, eps: (x + y, F.rms_norm(x + y, x.shape[-1:], w, eps)),
    "attention": torch_attention,
    "bias_gelu": lambda x, b, approximate: F.gelu(x + b, approximate=approximate),
    "cross_entropy": torch_cross_entropy,
    "dropout": torch_dropout,
    "embedding": lambda w, ids, padding_idx: F.embedding(ids, w, padding_idx),
    "gelu": lambda x, approximate: F.gelu(x, approximate=approximate),
    "gelu_linear": torch_gelu_linear,
    "layer_norm": lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, b, eps),
    "linear": lambda x, w, b, transposed: F.linear(x, w if transposed else w.T, b),
    "linear_cross_entropy": torch_linear_cross_entropy,
    "log_softmax": torch_softmax("log_softmax"),
    "relu": F.relu,
    "rms_norm": lambda x, w, eps: F.rms_norm(x, x.shape[-1:], w, eps),
    "rotary": torch_rotary,
    "silu": F.silu,
    "softmax": torch_softmax("softmax"),
    "swiglu_linear": lambda g, u, w, b, transposed: F.linear(F.silu(g) * u, w if transposed else w.T, b),
}
CASES = [(op, size) for op in registry.OPS for size in SIZES[op] if size not in MODEL_SIZES]


def test_every_op_has_an_oracle():
    assert set(ORACLES) == set(registry.OPS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("op", "size"), CASES, ids=lambda part: part.replace(" ", "-"))
def test_agrees_with_pytorch(op, size, dtype, backend):
    arrays, static = sample(op, size, dtype)
    several = outputs(ORACLES[op](*(None if a is None else torch.tensor(a) for a in arrays), **static))
    for used in uses(len(several)):
        ours = [None if a is None else Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        theirs = [None if a is None else torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        out = apply(registry.kernel(op), *ours, **static)
        want = ORACLES[op](*theirs, **static)
        for i, (mine, its) in enumerate(zip(outputs(out), outputs(want), strict=True)):
            assert_close(mine.data, its.detach().numpy(), AGAINST_PYTORCH[dtype], f"out {i}")
        mine, its = joined(out, used), joined(want, used, torch.cat)
        dy = np.asarray(np.random.default_rng(1).standard_normal(mine.shape)).astype(dtype)
        mine.backward(dy)
        its.backward(torch.tensor(dy))
        for name, mine, its in zip(SIZES[op][size][0], ours, theirs, strict=True):
            if mine is None or not mine.requires_grad or (mine.grad is None and its.grad is None):
                continue
            expected = np.zeros_like(mine.data) if its.grad is None else its.grad.nan_to_num(0.0).numpy()
            assert_close(mine.grad, expected, AGAINST_PYTORCH[dtype], f"d{name} of {used}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_adamw_agrees_with_pytorch(dtype, backend):
    arrays, static = sample("adamw", "odd", dtype)
    p, _, m, v = (column[0] for column in arrays)
    m[...], v[...] = 0, 0
    theirs = torch.nn.Parameter(torch.tensor(p))
    betas = static["beta1"], static["beta2"]
    optimizer = torch.optim.AdamW([theirs], static["lr"], betas, static["eps"], static["weight_decay"])
    for step in range(1, 11):
        g = np.random.default_rng(step).standard_normal(p.shape).astype(dtype)
        registry.kernel("adamw").forward([p], [g], [m], [v], **{**static, "steps": [step]})
        theirs.grad = torch.tensor(g) * 0.5
        optimizer.step()
    assert_close(p, theirs.detach().numpy(), AGAINST_PYTORCH[dtype], "p")
    state = optimizer.state[theirs]
    assert_close(m, state["exp_avg"].numpy(), AGAINST_PYTORCH[dtype], "m")
    assert_close(v, state["exp_avg_sq"].numpy(), AGAINST_PYTORCH[dtype], "v")
