"""BLOOM: a stack of causal Transformer blocks without position vectors; attention itself prefers what is near.

With token ids t, blocks l = 1 .. L, and E the table of token vectors, also used at the top:

    h⁰ = LayerNorm(E[t])
    x  = LayerNorm(hˡ⁻¹)        a  = hˡ⁻¹ + Attention(x)        Attention scores: q kᵀ / √D + m s, see nn/alibi.py
    y  = LayerNorm(a)           hˡ = a + MLP(y)                 MLP(x) = W₂ gelu(W₁ x), with the tanh approximation
    logits = LayerNorm(hᴸ) Eᵀ

``apply_residual_connection_post_layernorm`` adds to x and y instead of hˡ⁻¹ and a.
Attributes are named as in the published checkpoints, classes as in HF's transformers.
Source: BigScience (2022), "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model", arXiv:2211.05100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import (
    Dropout,
    Embedding,
    KVCache,
    LayerNorm,
    Linear,
    Module,
    Sequences,
    alibi,
    alibi_slopes,
    attend,
    feed_forward,
    gelu_tanh,
    split_fused_heads,
)
from ..tensor import Tensor, as_tensor
from .config import Config
from .decoders import CausalLM, LastTokenClassifier, QuestionAnswerer, TokenClassifier
from .model import Model
from .outputs import BaseModelOutput


@dataclass(frozen=True, kw_only=True)
class BloomConfig(Config):
    """Sizes and choices, under HF's names, with its defaults."""

    vocab_size: int = 250880
    hidden_size: int = 64
    n_layer: int = 2
    n_head: int = 8
    apply_residual_connection_post_layernorm: bool = False
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    classifier_dropout: float | None = None  # of token classification; None: hidden_dropout
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    model_type = "bloom"
    aliases = {"n_embed": "hidden_size", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}
    # With slow_but_exact, transformers leaves two biases out where pretraining_tp is above 1; n_inner is 4 hidden_size.
    only = {"slow_but_exact": (False,), "n_inner": (None,)}
    inert = ("seq_length", "offset_alibi", "unk_token_id", "skip_bias_add", "skip_bias_add_qkv", "bias_dropout_fusion",
             "attention_softmax_in_fp32", "masked_softmax_fusion")  # how it was trained  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "hidden_size", "n_layer", "n_head")
        self.check_divides("n_head", "hidden_size")
        self.check_rates("hidden_dropout", "attention_dropout")
        if self.classifier_dropout is not None:
            self.check_rates("classifier_dropout")

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout if self.classifier_dropout is None else self.classifier_dropout


class BloomAttention(Module):
    def __init__(self, config: BloomConfig, layer: int, rng: np.random.Generator, dtype: Any):
        C, std = config.hidden_size, config.initializer_range
        self.layer, self.heads = layer, config.n_head
        self.query_key_value = Linear(C, 3 * C, std=std, rng=rng, dtype=dtype)
        self.dense = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.dropout_p, self.rng = config.attention_dropout, rng

    def forward(self, x: Tensor, sequences: Sequences, bias: Tensor) -> Tensor:
        q, k, v = split_fused_heads(self.query_key_value(x), self.heads, by_head=True)  # (B, H, T, D)
        o = attend(
            *(q, k, v, sequences),
            layer=self.layer,
            bias=bias,
            dropout_p=self.dropout_p if self.training else 0.0,
            rng=self.rng,
        )
        return self.dense(o)


class BloomMLP(Module):
    def __init__(self, config: BloomConfig, rng: np.random.Generator, dtype: Any):
        C, std = config.hidden_size, config.initializer_range
        self.dense_h_to_4h = Linear(C, 4 * C, std=std, rng=rng, dtype=dtype)
        self.dense_4h_to_h = Linear(4 * C, C, std=std, rng=rng, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return feed_forward(x, self.dense_h_to_4h, gelu_tanh, self.dense_4h_to_h)


class BloomBlock(Module):
    def __init__(self, config: BloomConfig, layer: int, rng: np.random.Generator, dtype: Any):
        C, eps = config.hidden_size, config.layer_norm_epsilon
        self.input_layernorm = LayerNorm(C, eps, dtype=dtype)
        self.self_attention = BloomAttention(config, layer, rng, dtype)
        self.post_attention_layernorm = LayerNorm(C, eps, dtype=dtype)
        self.mlp = BloomMLP(config, rng, dtype)
        self.dropout = Dropout(config.hidden_dropout, rng=rng)
        self.normalized = config.apply_residual_connection_post_layernorm

    def forward(self, h: Tensor, sequences: Sequences, bias: Tensor) -> Tensor:
        x = self.input_layernorm(h)
        b = self.dropout(self.self_attention(x, sequences, bias))
        a, y = self.post_attention_layernorm(x if self.normalized else h, b)  # the sum and its norm
        return (y if self.normalized else a) + self.dropout(self.mlp(y))


class BloomPreTrainedModel(Model):
    config: BloomConfig
    config_class = BloomConfig
    base_model_prefix = "transformer"


class BloomModel(BloomPreTrainedModel):
    """The blocks between the embeddings and the last norm."""

    def __init__(self, config: BloomConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        C, eps = config.hidden_size, config.layer_norm_epsilon
        self.word_embeddings = Embedding(config.vocab_size, C, std=config.initializer_range, rng=rng, dtype=dtype)
        self.word_embeddings_layernorm = LayerNorm(C, eps, dtype=dtype)
        self.h = [BloomBlock(config, layer, rng, dtype) for layer in range(config.n_layer)]
        self.ln_f = LayerNorm(C, eps, dtype=dtype)
        self.slopes = alibi_slopes(config.n_head)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        past_key_values: KVCache | None = None,
        output_hidden_states: bool = False,
        lengths: Sequence[int] | None = None,
    ) -> BaseModelOutput:
        """Run the blocks.

        Shapes: input_ids (B, T) of integers below vocab_size; attention_mask (B, S), 0 or False where a key is padding,
        S counting the cached positions too; or input_ids (1, N), sequences of ``lengths`` end to end.  A cache
        (``new_cache``) is filled in place, off the tape.  No sequence is too long.
        IndexError for an id out of range.
        """
        sequences = Sequences(
            *("BloomModel", input_ids),
            dtype=self.dtype,
            attention_mask=attention_mask,
            lengths=lengths,
            cache=past_key_values,
        )
        bias = alibi(self.slopes, sequences, self.dtype)  # (B or 1, H, 1, S)
        x = self.word_embeddings_layernorm(self.word_embeddings(as_tensor(input_ids)))  # (B, T, C)
        states = [x]
        for block in self.h:
            x = block(x, sequences, bias)
            states.append(x)
        x = states[-1] = self.ln_f(x)
        sequences.done()
        return BaseModelOutput(x, past_key_values, tuple(states) if output_hidden_states else None)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` sequences of up to ``capacity`` tokens.  ValueError without capacity."""
        if capacity is None:
            raise ValueError("BloomModel: a cache must have a capacity, for no sequence is too long; got None.")
        config = self.config
        D = config.hidden_size // config.n_head
        return KVCache(config.n_layer, batch, config.n_head, capacity, D, self.dtype)


class BloomForCausalLM(BloomPreTrainedModel, CausalLM):
    base = BloomModel
    table = "word_embeddings"


class BloomForSequenceClassification(BloomPreTrainedModel, LastTokenClassifier):
    base = BloomModel


class BloomForTokenClassification(BloomPreTrainedModel, TokenClassifier):
    base = BloomModel


class BloomForQuestionAnswering(BloomPreTrainedModel, QuestionAnswerer):
    base = BloomModel


TASKS = {
    "base": BloomModel,
    "causal-lm": BloomForCausalLM,
    "sequence-classification": BloomForSequenceClassification,
    "token-classification": BloomForTokenClassification,
    "question-answering": BloomForQuestionAnswering,
}
