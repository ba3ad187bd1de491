"""The block of Llama and its kin: grouped attention with rotary positions, then a gated MLP, each after an RMSNorm.

    a = x + Attention(RMSNorm(x))
    y = a + W_down (act(W_gate n) ⊙ W_up n)       n = RMSNorm(a)

In attention every query head h attends with key and value head h // (H/G); queries and keys are turned by their
positions (rotary.py), after an RMSNorm over each head's channels where the family has one.
Sources: Touvron et al. (2023), arXiv:2302.13971; Ainslie et al. (2023), arXiv:2305.13245 (groups); Shazeer (2020),
arXiv:2002.05202 (gates).  Attributes are named as in the checkpoints that transformers writes.
"""

from typing import Any

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from .layers import ACTIVATIONS, Linear, RMSNorm, add_and_norm, gated_feed_forward
from .module import Module
from .sequences import Sequences, attend, split_heads

Turns = tuple[Tensor, Tensor]  # cos and sin, (B or 1, 1, T, R/2)


class RotaryAttention(Module):
    """Causal attention of H query heads and G key and value heads, all of ``head_dim`` channels.

    ``norm_eps``: RMSNorm over the channels of each query and key head.  ``window``: a token sees the last so many.
    """

    def __init__(
        self,
        hidden_size: int,
        H: int,
        G: int,
        head_dim: int,
        *,
        layer: int,
        qkv_bias: bool = False,
        o_bias: bool = False,
        norm_eps: float | None = None,
        window: int | None = None,
        dropout: float = 0.0,
        std: float,
        rng: np.random.Generator,
        dtype: Any,
    ):
        self.layer, self.H, self.G, self.window, self.dropout, self.rng = layer, H, G, window, dropout, rng
        self.q_proj = Linear(hidden_size, H * head_dim, qkv_bias, std=std, rng=rng, dtype=dtype)
        self.k_proj = Linear(hidden_size, G * head_dim, qkv_bias, std=std, rng=rng, dtype=dtype)
        self.v_proj = Linear(hidden_size, G * head_dim, qkv_bias, std=std, rng=rng, dtype=dtype)
        self.o_proj = Linear(H * head_dim, hidden_size, o_bias, std=std, rng=rng, dtype=dtype)
        self.q_norm = None if norm_eps is None else RMSNorm(head_dim, norm_eps, dtype=dtype)
        self.k_norm = None if norm_eps is None else RMSNorm(head_dim, norm_eps, dtype=dtype)

    def forward(self, x: Tensor, turns: Turns, sequences: Sequences) -> Tensor:
        q = split_heads(self.q_proj(x), self.H)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.G)  # (B, G, T, D)
        v = split_heads(self.v_proj(x), self.G)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        o = attend(
            *(F.rotary(q, *turns), F.rotary(k, *turns), v, sequences),
            layer=self.layer,
            window=self.window,
            dropout_p=self.dropout if self.training else 0.0,
            rng=self.rng,
        )
        return self.o_proj(o)


class GatedMLP(Module):
    """W_down (act(W_gate x) ⊙ W_up x)."""

    def __init__(
        self, hidden_size: int, inner: int, act: str, bias: bool, *, std: float, rng: np.random.Generator, dtype: Any
    ):
        self.gate_proj = Linear(hidden_size, inner, bias, std=std, rng=rng, dtype=dtype)
        self.up_proj = Linear(hidden_size, inner, bias, std=std, rng=rng, dtype=dtype)
        self.down_proj = Linear(inner, hidden_size, bias, std=std, rng=rng, dtype=dtype)
        self.act = ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        return gated_feed_forward(x, self.gate_proj, self.act, self.up_proj, self.down_proj)


class RotaryBlock(Module):
    """Attention and MLP, each added to the residual stream x that it read, as through_blocks runs it."""

    def __init__(self, hidden_size: int, eps: float, attention: RotaryAttention, mlp: GatedMLP, *, dtype: Any):
        self.self_attn = attention
        self.mlp = mlp
        self.input_layernorm = RMSNorm(hidden_size, eps, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(hidden_size, eps, dtype=dtype)

    def forward(self, x: Tensor, update: Tensor | None, turns: Turns, sequences: Sequences) -> tuple[Tensor, Tensor]:
        x, n = add_and_norm(x, update, self.input_layernorm)
        x, n = add_and_norm(x, self.self_attn(n, turns, sequences), self.post_attention_layernorm)
        return x, self.mlp(n)
