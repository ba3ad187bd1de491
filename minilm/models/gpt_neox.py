"""GPT-NeoX: causal Transformer blocks with rotary positions, whose attention and MLP may read the same states.

With token ids t, blocks l = 1 .. L, the table of token vectors E, and U, which may be E:

    h⁰ = E[t]
    parallel:  hˡ = hˡ⁻¹ + Attention(LayerNorm(hˡ⁻¹)) + MLP(LayerNorm'(hˡ⁻¹))
    in turn:   a  = hˡ⁻¹ + Attention(LayerNorm(hˡ⁻¹)),   hˡ = a + MLP(LayerNorm'(a))       MLP(x) = W₂ φ(W₁ x)
    logits = LayerNorm(hᴸ) Uᵀ

Positions enter where attention turns the first channels of each head's queries and keys (nn/rotary.py).
Attributes are named as in the published checkpoints, classes as in HF's transformers.
Source: Black et al. (2022), "GPT-NeoX-20B: An Open-Source Autoregressive Language Model", arXiv:2204.06745.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import functional as F
from ..nn import (
    ACTIVATIONS,
    Dropout,
    Embedding,
    KVCache,
    LayerNorm,
    Linear,
    Module,
    Sequences,
    attend,
    feed_forward,
    split_fused_heads,
)
from ..nn.rotary import Rotary, rope_parameters
from ..tensor import Tensor, as_tensor
from .config import Config
from .decoders import CausalLM, LastTokenClassifier, QuestionAnswerer, TokenClassifier
from .model import Model
from .outputs import BaseModelOutput


@dataclass(frozen=True, kw_only=True)
class GPTNeoXConfig(Config):
    """Sizes and choices, under HF's names; the defaults are the 20B model's."""

    vocab_size: int = 50432
    hidden_size: int = 6144
    num_hidden_layers: int = 44
    num_attention_heads: int = 64
    intermediate_size: int = 24576
    max_position_embeddings: int = 2048
    rope_parameters: dict[str, Any] = field(default_factory=dict)  # {}: a quarter of the channels, rope_theta 10000
    use_parallel_residual: bool = True
    attention_bias: bool = True  # of attention's two matrices
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    classifier_dropout: float = 0.1
    initializer_range: float = 0.02
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False

    model_type = "gpt_neox"
    only = {"attention_probs_dropout_prob": (0,), "hidden_dropout_prob": (0,),
            "is_decoder": (False, True, None)}  # it always is one  # fmt: skip
    inert = ("custom_pipelines",)

    @classmethod
    def translate(cls, config: dict[str, Any]) -> dict[str, Any]:
        config["rope_parameters"] = _turned(config)
        return super().translate(config)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        self.check_sizes("max_position_embeddings")
        self.check_divides("num_attention_heads", "hidden_size")
        self.check_choice("hidden_act", ACTIVATIONS)
        self.check_rates("attention_dropout", "hidden_dropout", "classifier_dropout")
        object.__setattr__(self, "rope_parameters", _turned({"rope_parameters": self.rope_parameters}))
        if self.rotary(np.float32).width > self.head_dim:
            self.refuse("rope_parameters", f"such that an even number of {self.head_dim} channels is turned")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def head_dropout(self) -> float:
        return self.classifier_dropout

    def rotary(self, dtype: Any) -> Rotary:
        return Rotary(self.head_dim, self.rope_parameters, self.max_position_embeddings, dtype=dtype)


def _turned(config: dict[str, Any]) -> dict[str, Any]:
    return rope_parameters(config, theta_name="rotary_emb_base", partial=0.25, partial_name="rotary_pct")


class GPTNeoXAttention(Module):
    def __init__(self, config: GPTNeoXConfig, layer: int, rng: np.random.Generator, dtype: Any):
        C, bias, std = config.hidden_size, config.attention_bias, config.initializer_range
        self.layer, self.heads = layer, config.num_attention_heads
        self.query_key_value = Linear(C, 3 * C, bias, std=std, rng=rng, dtype=dtype)
        self.dense = Linear(C, C, bias, std=std, rng=rng, dtype=dtype)
        self.dropout_p, self.rng = config.attention_dropout, rng

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], sequences: Sequences) -> Tensor:
        q, k, v = split_fused_heads(self.query_key_value(x), self.heads, by_head=True)  # (B, H, T, D)
        o = attend(
            *(F.rotary(q, *turns), F.rotary(k, *turns), v, sequences),
            layer=self.layer,
            dropout_p=self.dropout_p if self.training else 0.0,
            rng=self.rng,
        )
        return self.dense(o)


class GPTNeoXMLP(Module):
    def __init__(self, config: GPTNeoXConfig, rng: np.random.Generator, dtype: Any):
        C, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.dense_h_to_4h = Linear(C, inner, std=std, rng=rng, dtype=dtype)
        self.dense_4h_to_h = Linear(inner, C, std=std, rng=rng, dtype=dtype)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return feed_forward(x, self.dense_h_to_4h, self.act, self.dense_4h_to_h)


class GPTNeoXLayer(Module):
    def __init__(self, config: GPTNeoXConfig, layer: int, rng: np.random.Generator, dtype: Any):
        C, eps = config.hidden_size, config.layer_norm_eps
        self.input_layernorm = LayerNorm(C, eps, dtype=dtype)
        self.post_attention_layernorm = LayerNorm(C, eps, dtype=dtype)
        self.attention = GPTNeoXAttention(config, layer, rng, dtype)
        self.mlp = GPTNeoXMLP(config, rng, dtype)
        self.dropout = Dropout(config.hidden_dropout, rng=rng)
        self.parallel = config.use_parallel_residual

    def forward(self, h: Tensor, turns: tuple[Tensor, Tensor], sequences: Sequences) -> Tensor:
        b = self.dropout(self.attention(self.input_layernorm(h), turns, sequences))
        a, n = (h + b, self.post_attention_layernorm(h)) if self.parallel else self.post_attention_layernorm(h, b)
        return a + self.dropout(self.mlp(n))


class GPTNeoXPreTrainedModel(Model):
    config: GPTNeoXConfig
    config_class = GPTNeoXConfig
    base_model_prefix = "gpt_neox"
    rename = {r"^lm_head\.": "embed_out."}  # transformers calls it that in memory, though not in its files
    not_parameters = (r"(.*\.)?attention\.(bias|masked_bias|rotary_emb\.inv_freq)",)  # in old files


class GPTNeoXModel(GPTNeoXPreTrainedModel):
    """The blocks between the embeddings and the last norm."""

    def __init__(self, config: GPTNeoXConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        C, std = config.hidden_size, config.initializer_range
        self.embed_in = Embedding(config.vocab_size, C, std=std, rng=rng, dtype=dtype)
        self.emb_dropout = Dropout(config.hidden_dropout, rng=rng)
        self.layers = [GPTNeoXLayer(config, layer, rng, dtype) for layer in range(config.num_hidden_layers)]
        self.final_layer_norm = LayerNorm(C, config.layer_norm_eps, dtype=dtype)
        self.rotary = config.rotary(dtype)

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
        A sequence may be longer than max_position_embeddings: it is computed as transformers does, though the model was
        not made for it.
        ValueError for shapes that do not fit, or a cache that is full; IndexError for an id out of range.
        """
        sequences = Sequences(
            *("GPTNeoXModel", input_ids),
            dtype=self.dtype,
            attention_mask=attention_mask,
            lengths=lengths,
            cache=past_key_values,
        )
        turns = self.rotary(sequences.positions if position_ids is None else position_ids, sequences.lengths)
        x = self.emb_dropout(self.embed_in(as_tensor(input_ids)))  # (B, T, C)
        states = [x]
        for layer in self.layers:
            x = layer(x, turns, sequences)
            states.append(x)
        x = states[-1] = self.final_layer_norm(x)
        sequences.done()
        return BaseModelOutput(x, past_key_values, tuple(states) if output_hidden_states else None)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` sequences of up to ``capacity`` tokens.

        By default max_position_embeddings; more is allowed.
        """
        config = self.config
        capacity = config.max_position_embeddings if capacity is None else capacity
        return KVCache(
            *(config.num_hidden_layers, batch, config.num_attention_heads, capacity, config.head_dim), self.dtype
        )


class GPTNeoXForCausalLM(GPTNeoXPreTrainedModel, CausalLM):
    base = GPTNeoXModel
    table = "embed_in"
    head = "embed_out"


class GPTNeoXForSequenceClassification(GPTNeoXPreTrainedModel, LastTokenClassifier):
    base = GPTNeoXModel


class GPTNeoXForTokenClassification(GPTNeoXPreTrainedModel, TokenClassifier):
    base = GPTNeoXModel


class GPTNeoXForQuestionAnswering(GPTNeoXPreTrainedModel, QuestionAnswerer):
    base = GPTNeoXModel


TASKS = {
    "base": GPTNeoXModel,
    "causal-lm": GPTNeoXForCausalLM,
    "sequence-classification": GPTNeoXForSequenceClassification,
    "token-classification": GPTNeoXForTokenClassification,
    "question-answering": GPTNeoXForQuestionAnswering,
}
