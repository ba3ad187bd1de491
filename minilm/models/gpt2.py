"""GPT-2: a stack of causal Transformer blocks, normalized before each part.

With token ids t and positions i, blocks l = 1 .. L, and E the table of token vectors, also used at the top:

    h⁰ = E[t] + P[i]
    a  = hˡ⁻¹ + Attention(LayerNorm(hˡ⁻¹))
    hˡ = a + MLP(LayerNorm(a))                MLP(x) = W₂ gelu(W₁ x)
    logits = LayerNorm(hᴸ) Eᵀ

Attributes are named as in the published checkpoints, classes as in HF's transformers.
Source: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners".
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .. import autograd
from .. import functional as F
from ..nn import ACTIVATIONS, Conv1D, Dropout, Embedding, LayerNorm, Linear, Module
from ..tensor import Tensor, as_tensor
from .outputs import BaseModelOutput, CausalLMOutput, KVCache


@dataclass(frozen=True)
class GPT2Config:
    """Sizes and choices, under HF's names; the defaults are the 124M model's."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width inside the MLP; None: 4 n_embd
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | None = 50256
    bias: bool = True  # ours: False leaves the biases out of linear layers and norms, as nanoGPT does

    model_type = "gpt2"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            if getattr(self, name) < 1:
                raise ValueError(f"GPT2Config: {name} must be at least 1; got {getattr(self, name)}.")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"GPT2Config: n_embd must divide by n_head, one equal share of the channels per head; "
                f"got n_embd {self.n_embd} and n_head {self.n_head}."
            )
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"GPT2Config: activation_function must be one of {', '.join(ACTIVATIONS)}; "
                f"got {self.activation_function!r}."
            )
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"GPT2Config: {name} must lie in [0, 1); got {getattr(self, name)}.")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "GPT2Config":
        """Read a config.json.  ValueError for another model_type, or an option that would change the numbers."""
        if config.get("model_type", "gpt2") != "gpt2":
            raise ValueError(f"GPT2Config: model_type must be 'gpt2'; got {config['model_type']!r}.")
        for name in ("reorder_and_upcast_attn", "add_cross_attention"):
            if config.get(name):
                raise ValueError(f"GPT2Config: {name} is not supported here; got {config[name]!r}.")
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds, as transformers writes it."""
        return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **asdict(self)}


class GPT2Attention(Module):
    def __init__(self, config: GPT2Config, layer: int, rng: np.random.Generator, dtype: Any):
        C, std = config.n_embd, config.initializer_range
        self.layer, self.n_head = layer, config.n_head
        self.c_attn = Conv1D(3 * C, C, config.bias, std=std, rng=rng, dtype=dtype)
        self.c_proj = Conv1D(C, C, config.bias, std=std / math.sqrt(2 * config.n_layer), rng=rng, dtype=dtype)
        self.resid_dropout = Dropout(config.resid_pdrop, rng=rng)
        self.attn_pdrop, self.rng = config.attn_pdrop, rng
        self.scale = (C // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        B, T, C = x.shape
        qkv: Any = np.split(self.c_attn(x), 3, axis=-1)  # 3 x (B, T, C)
        q, k, v = (t.reshape(B, T, self.n_head, C // self.n_head).swapaxes(1, 2) for t in qkv)  # (B, H, T, D)
        past = 0
        if cache is not None:
            past = cache.length
            k, v = cache.extend(self.layer, k, v)  # (B, H, S, D)
        o = F.scaled_dot_product_attention(
            *(q, k, v, mask),
            dropout_p=self.attn_pdrop if self.training else 0.0,
            is_causal=True,
            scale=self.scale,
            query_offset=past,
            rng=self.rng,
        )
        return self.resid_dropout(self.c_proj(o.swapaxes(1, 2).reshape(B, T, C)))


class GPT2MLP(Module):
    def __init__(self, config: GPT2Config, rng: np.random.Generator, dtype: Any):
        C, std = config.n_embd, config.initializer_range
        inner = config.n_inner or 4 * C
        self.c_fc = Conv1D(inner, C, config.bias, std=std, rng=rng, dtype=dtype)
        self.c_proj = Conv1D(C, inner, config.bias, std=std / math.sqrt(2 * config.n_layer), rng=rng, dtype=dtype)
        self.act = ACTIVATIONS[config.activation_function]
        self.dropout = Dropout(config.resid_pdrop, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class GPT2Block(Module):
    def __init__(self, config: GPT2Config, layer: int, rng: np.random.Generator, dtype: Any):
        C, eps = config.n_embd, config.layer_norm_epsilon
        self.ln_1 = LayerNorm(C, eps, bias=config.bias, dtype=dtype)
        self.attn = GPT2Attention(config, layer, rng, dtype)
        self.ln_2 = LayerNorm(C, eps, bias=config.bias, dtype=dtype)
        self.mlp = GPT2MLP(config, rng, dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask, cache)
        return x + self.mlp(self.ln_2(x))


class GPT2Model(Module):
    """The blocks between the embeddings and the last norm.  All randomness, first values and dropout, is ``rng``'s."""

    def __init__(self, config: GPT2Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        self.config, self.rng = config, rng
        C, std = config.n_embd, config.initializer_range
        self.wte = Embedding(config.vocab_size, C, std=std, rng=rng, dtype=dtype)
        self.wpe = Embedding(config.n_positions, C, std=std, rng=rng, dtype=dtype)
        self.drop = Dropout(config.embd_pdrop, rng=rng)
        self.h = [GPT2Block(config, layer, rng, dtype) for layer in range(config.n_layer)]
        self.ln_f = LayerNorm(C, config.layer_norm_epsilon, bias=config.bias, dtype=dtype)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: KVCache | None = None,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Run the blocks.

        Shapes: input_ids (B, T) of integers below vocab_size; attention_mask (B, S), 0 or False where a key is padding,
        S counting the cached positions too; position_ids (B, T), by default those that follow the cache.  A cache
        (``new_cache``) is filled in place, and nothing is recorded then.
        ValueError for a sequence that does not fit n_positions; IndexError for an id out of range.
        """
        ids, cache = as_tensor(input_ids), past_key_values
        if ids.ndim != 2:
            raise ValueError(f"GPT2Model: input_ids must be (B, T), a batch of sequences; got shape {ids.shape}.")
        (B, T), past = ids.shape, cache.length if cache is not None else 0
        if past + T > (cache.capacity if cache is not None else self.config.n_positions):
            raise ValueError(
                f"GPT2Model: at most n_positions = {self.config.n_positions} tokens fit"
                + (f" (this cache: {cache.capacity})" if cache is not None else "")
                + f"; got {past + T}. Keep the last ones, or train with a larger n_positions."
            )
        if cache is not None and autograd.recording():
            raise RuntimeError("GPT2Model: a cache is for generation; call under minilm.no_grad().")
        positions = np.arange(past, past + T) if position_ids is None else position_ids
        x = self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C)
        mask = None if attention_mask is None else _key_mask(attention_mask, B, past + T)
        states = [x]
        for block in self.h:
            x = block(x, mask, cache)
            states.append(x)
        x = states[-1] = self.ln_f(x)
        if cache is not None:
            cache.advance(T)
        return BaseModelOutput(x, cache, tuple(states) if output_hidden_states else None)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` sequences of up to ``capacity`` tokens, by default n_positions."""
        config = self.config
        D = config.n_embd // config.n_head
        length = config.n_positions if capacity is None else min(capacity, config.n_positions)
        return KVCache(config.n_layer, batch, config.n_head, length, D, self.wte.weight.dtype)


class GPT2LMHeadModel(Module):
    """GPT-2 with the head that predicts the next token; the head's matrix is the table of token vectors."""

    def __init__(self, config: GPT2Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        self.config, self.rng = config, rng
        self.transformer = GPT2Model(config, rng=rng, dtype=dtype)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, rng=np.random.default_rng(0), dtype=dtype)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight
        else:
            self.lm_head.weight._data[...] = config.initializer_range * rng.standard_normal(self.lm_head.weight.shape)

    def forward(self, input_ids: Any, labels: Any = None, **kwargs: Any) -> CausalLMOutput:
        """Return logits (B, T, V) and, with labels (B, T), the loss: position t is judged by labels[t + 1].

        Labels of -100 are left out.  The other arguments are GPT2Model's.
        """
        base = self.transformer(input_ids, **kwargs)
        logits = self.lm_head(base.last_hidden_state)
        loss = None if labels is None else next_token_loss(logits, labels)
        return CausalLMOutput(logits, loss, base.past_key_values, base.hidden_states)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        return self.transformer.new_cache(batch, capacity)


def next_token_loss(logits: Tensor, labels: Any) -> Tensor:
    """Return the mean negative log-probability of each next label: logits (B, T, V), labels (B, T) -> ()."""
    labels = as_tensor(labels)
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels must have the shape of input_ids, {logits.shape[:2]}; got {labels.shape}.")
    following = np.full(labels.shape, -100, np.int64)  # the last position has no next token
    following[:, :-1] = labels._data[:, 1:]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), following.reshape(-1))


def _key_mask(attention_mask: Any, B: int, S: int) -> Tensor:
    mask = as_tensor(attention_mask)
    if mask.shape != (B, S):
        raise ValueError(f"GPT2Model: attention_mask must be (B, S) = ({B}, {S}); got {mask.shape}.")
    return as_tensor(mask._data.astype(bool)[:, None, None, :])  # (B, 1, 1, S)
