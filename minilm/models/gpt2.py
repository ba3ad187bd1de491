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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import (
    ACTIVATIONS,
    Conv1D,
    Dropout,
    Embedding,
    KVCache,
    LayerNorm,
    Module,
    Sequences,
    add_and_norm,
    attend,
    feed_forward,
    split_fused_heads,
    through_blocks,
)
from ..tensor import Tensor, as_tensor
from .config import Config
from .decoders import CausalLM, LastTokenClassifier, QuestionAnswerer, TokenClassifier
from .model import Model
from .outputs import BaseModelOutput


@dataclass(frozen=True, kw_only=True)
class GPT2Config(Config):
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
    classifier_dropout: float | None = None  # of token classification; None: 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    bias: bool = True  # ours: False leaves the biases out of linear layers and norms, as nanoGPT does

    model_type = "gpt2"
    aliases = {"hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
               "num_hidden_layers": "n_layer"}  # fmt: skip
    only = {"reorder_and_upcast_attn": (False,)}
    inert = ("n_ctx", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
             "summary_use_proj")  # of the double-heads model; n_ctx repeats n_positions  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        self.check_sizes(*([] if self.n_inner is None else ["n_inner"]))
        self.check_divides("n_head", "n_embd")
        self.check_choice("activation_function", ACTIVATIONS)
        self.check_rates("resid_pdrop", "embd_pdrop", "attn_pdrop")

    @property
    def hidden_size(self) -> int:
        return self.n_embd

    @property
    def head_dropout(self) -> float:
        return 0.1 if self.classifier_dropout is None else self.classifier_dropout


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

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        q, k, v = split_fused_heads(self.c_attn(x), self.n_head)  # (B, H, T, D)
        o = attend(
            *(q, k, v, sequences),
            layer=self.layer,
            scale=self.scale,
            dropout_p=self.attn_pdrop if self.training else 0.0,
            rng=self.rng,
        )
        return self.resid_dropout(self.c_proj(o))


class GPT2MLP(Module):
    def __init__(self, config: GPT2Config, rng: np.random.Generator, dtype: Any):
        C, std = config.n_embd, config.initializer_range
        inner = config.n_inner or 4 * C
        self.c_fc = Conv1D(inner, C, config.bias, std=std, rng=rng, dtype=dtype)
        self.c_proj = Conv1D(C, inner, config.bias, std=std / math.sqrt(2 * config.n_layer), rng=rng, dtype=dtype)
        self.act = ACTIVATIONS[config.activation_function]
        self.dropout = Dropout(config.resid_pdrop, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(feed_forward(x, self.c_fc, self.act, self.c_proj))


class GPT2Block(Module):
    """A layer of the residual stream x, as nn.through_blocks runs it."""

    def __init__(self, config: GPT2Config, layer: int, rng: np.random.Generator, dtype: Any):
        C, eps = config.n_embd, config.layer_norm_epsilon
        self.ln_1 = LayerNorm(C, eps, bias=config.bias, dtype=dtype)
        self.attn = GPT2Attention(config, layer, rng, dtype)
        self.ln_2 = LayerNorm(C, eps, bias=config.bias, dtype=dtype)
        self.mlp = GPT2MLP(config, rng, dtype)

    def forward(self, x: Tensor, update: Tensor | None, sequences: Sequences) -> tuple[Tensor, Tensor]:
        x, n = add_and_norm(x, update, self.ln_1)
        x, n = add_and_norm(x, self.attn(n, sequences), self.ln_2)
        return x, self.mlp(n)


class GPT2PreTrainedModel(Model):
    config: GPT2Config
    config_class = GPT2Config
    base_model_prefix = "transformer"
    not_parameters = (r"(.*\.)?h\.\d+\.attn\.(bias|masked_bias)",)  # the causal mask, in old files


class GPT2Model(GPT2PreTrainedModel):
    """The blocks between the embeddings and the last norm."""

    def __init__(self, config: GPT2Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
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
        lengths: Sequence[int] | None = None,
    ) -> BaseModelOutput:
        """Run the blocks.

        Shapes: input_ids (B, T) of integers below vocab_size; attention_mask (B, S), 0 or False where a key is padding,
        S counting the cached positions too; position_ids (B, T), by default those that follow the cache; or input_ids
        (1, N), sequences of ``lengths`` end to end.  A cache (``new_cache``) is filled in place, off the tape.
        ValueError for a sequence that does not fit n_positions; IndexError for an id out of range.
        """
        sequences = Sequences(
            *("GPT2Model", input_ids),
            dtype=self.dtype,
            attention_mask=attention_mask,
            lengths=lengths,
            cache=past_key_values,
            limit=self.config.n_positions,
        )
        positions = sequences.positions if position_ids is None else position_ids
        x = self.drop(self.wte(as_tensor(input_ids)) + self.wpe(positions))  # (B, T, C)
        x, states = through_blocks(x, self.h, self.ln_f, sequences, keep=output_hidden_states)
        sequences.done()
        return BaseModelOutput(x, past_key_values, (*states, x) if output_hidden_states else None)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` sequences of up to ``capacity`` tokens, by default n_positions."""
        config = self.config
        length = config.n_positions if capacity is None else min(capacity, config.n_positions)
        return KVCache(config.n_layer, batch, config.n_head, length, config.n_embd // config.n_head, self.dtype)


class GPT2LMHeadModel(GPT2PreTrainedModel, CausalLM):
    base = GPT2Model
    table = "wte"


class GPT2ForSequenceClassification(GPT2PreTrainedModel, LastTokenClassifier):
    base = GPT2Model


class GPT2ForTokenClassification(GPT2PreTrainedModel, TokenClassifier):
    base = GPT2Model


class GPT2ForQuestionAnswering(GPT2PreTrainedModel, QuestionAnswerer):
    base = GPT2Model


TASKS = {
    "base": GPT2Model,
    "causal-lm": GPT2LMHeadModel,
    "sequence-classification": GPT2ForSequenceClassification,
    "token-classification": GPT2ForTokenClassification,
    "question-answering": GPT2ForQuestionAnswering,
}
