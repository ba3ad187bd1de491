"""Llama: a causal Transformer with rotary positions, grouped heads, RMSNorm and a gated MLP.

With token ids t, blocks l = 1 .. L, the table of token vectors E, and U, which may be E:

    h⁰ = E[t]
    a  = hˡ⁻¹ + Attention(RMSNorm(hˡ⁻¹))
    hˡ = a + W_down (silu(W_gate n) ⊙ W_up n)      n = RMSNorm(a)
    logits = RMSNorm(hᴸ) Uᵀ

Positions enter where attention turns queries and keys (nn/rotary.py).  The block is nn/decoder.py's; Mistral, Qwen2 and
Qwen3 are this model with another attention.  Attributes are named as in the checkpoints, classes as in transformers.
Sources: Touvron et al. (2023), arXiv:2302.13971; Grattafiori et al. (2024), arXiv:2407.21783.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..nn import ACTIVATIONS, Embedding, KVCache, RMSNorm, Sequences, through_blocks
from ..nn.decoder import GatedMLP, RotaryAttention, RotaryBlock
from ..nn.rotary import Rotary, rope_parameters
from ..tensor import as_tensor
from .config import Config
from .decoders import CausalLM, LastTokenClassifier, QuestionAnswerer, TokenClassifier
from .model import Model
from .outputs import BaseModelOutput


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Config):
    """What Llama, Mistral, Qwen2 and Qwen3 have in common, under HF's names; the defaults are Llama's."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None  # None: as many as query heads
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    rope_parameters: dict[str, Any] = field(default_factory=dict)  # {}: rope_type "default", rope_theta 10000
    attention_dropout: float = 0.0
    classifier_dropout: float | None = None  # of token classification; None: 0.1
    tie_word_embeddings: bool = False

    mlp_bias = False  # an option of Llama's alone
    only = {"rope_interleaved": (False,), "mlp_bias": (False,), "pretraining_tp": (1, None)}
    inert = ("is_llama_config", "max_sequence_length", "transformers.js_config", "unsloth_fixed", "unsloth_version")

    @classmethod
    def translate(cls, config: dict[str, Any]) -> dict[str, Any]:
        config["rope_parameters"] = rope_parameters(config)
        return super().translate(config)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                         "max_position_embeddings")  # fmt: skip
        self.check_choice("hidden_act", ACTIVATIONS)
        self.check_rates("attention_dropout")
        if self.num_key_value_heads is None:
            self._set("num_key_value_heads", self.num_attention_heads)
        if self.head_dim is None:
            self.check_divides("num_attention_heads", "hidden_size")
            self._set("head_dim", self.hidden_size // self.num_attention_heads)
        self.check_sizes("num_key_value_heads", "head_dim")
        if self.num_key_value_heads is None or self.num_attention_heads % self.num_key_value_heads:
            self.refuse("num_key_value_heads", f"a divisor of num_attention_heads, {self.num_attention_heads}")
        if self.pad_token_id is not None and not -self.vocab_size <= self.pad_token_id < self.vocab_size:
            self.refuse("pad_token_id", f"None or a token below vocab_size, {self.vocab_size}")
        self._set("rope_parameters", rope_parameters({"rope_parameters": self.rope_parameters}))
        if self.rotary(np.float32).width != self.head_dim:
            raise ValueError(
                f"{type(self).__name__}: head_dim must be even, and every channel is turned; got head_dim "
                f"{self.head_dim} and rope_parameters {self.rope_parameters}."
            )

    def _set(self, option: str, value: Any) -> None:
        object.__setattr__(self, option, value)  # frozen for everybody else

    def rotary(self, dtype: Any) -> Rotary:
        assert self.head_dim is not None
        return Rotary(self.head_dim, self.rope_parameters, self.max_position_embeddings, dtype=dtype)

    @property
    def head_dropout(self) -> float:
        return 0.1 if self.classifier_dropout is None else self.classifier_dropout


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    attention_bias: bool = False  # of all four projections of attention
    mlp_bias: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    model_type = "llama"


class LlamaPreTrainedModel(Model):
    config: Any
    config_class: ClassVar[type[DecoderConfig]] = LlamaConfig
    base_model_prefix = "model"
    rename = {r"^transformer\.": "model."}  # what question answering calls it
    not_parameters = (r"(.*\.)?rotary_emb\.inv_freq",)  # in old files


class LlamaModel(LlamaPreTrainedModel):
    """The blocks between the embeddings and the last norm."""

    def __init__(self, config: Any, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        C, std = config.hidden_size, config.initializer_range
        self.embed_tokens = Embedding(config.vocab_size, C, config.pad_token_id, std=std, rng=rng, dtype=dtype)
        self.layers = [self.block(layer, std=std, rng=rng, dtype=dtype) for layer in range(config.num_hidden_layers)]
        self.norm = RMSNorm(C, config.rms_norm_eps, dtype=dtype)
        self.rotary = config.rotary(dtype)

    def block(self, layer: int, **drawn: Any) -> RotaryBlock:
        config = self.config
        C, eps = config.hidden_size, config.rms_norm_eps
        attention = RotaryAttention(
            hidden_size=C,
            H=config.num_attention_heads,
            G=config.num_key_value_heads,
            head_dim=config.head_dim,
            layer=layer,
            dropout=config.attention_dropout,
            **self.attention(layer),
            **drawn,
        )
        mlp = GatedMLP(C, config.intermediate_size, config.hidden_act, config.mlp_bias, **drawn)
        return RotaryBlock(C, eps, attention, mlp, dtype=drawn["dtype"])

    def attention(self, layer: int) -> dict[str, Any]:
        """Return what is a family's own in the attention of a layer: arguments of nn.decoder.RotaryAttention."""
        return {"qkv_bias": self.config.attention_bias, "o_bias": self.config.attention_bias}

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
            *(type(self).__name__, input_ids),
            dtype=self.dtype,
            attention_mask=attention_mask,
            lengths=lengths,
            cache=past_key_values,
        )
        positions = sequences.positions if position_ids is None else as_tensor(position_ids)._data
        if positions.shape not in ((B := sequences.B, T := sequences.T), (1, T)):
            raise ValueError(
                f"{type(self).__name__}: position_ids must be ({B}, {T}) or (1, {T}); got {positions.shape}."
            )
        turns = self.rotary(positions, sequences.lengths)
        x = self.embed_tokens(as_tensor(input_ids))  # (B, T, C)
        x, states = through_blocks(x, self.layers, self.norm, turns, sequences, keep=output_hidden_states)
        sequences.done()
        return BaseModelOutput(x, past_key_values, (*states, x) if output_hidden_states else None)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` sequences of up to ``capacity`` tokens.

        By default max_position_embeddings; more is allowed.
        """
        config = self.config
        capacity = config.max_position_embeddings if capacity is None else capacity
        return KVCache(
            config.num_hidden_layers, batch, config.num_key_value_heads, capacity, config.head_dim, self.dtype
        )


class LlamaForCausalLM(LlamaPreTrainedModel, CausalLM):
    base: ClassVar[type[LlamaModel]] = LlamaModel
    table = "embed_tokens"


class LlamaForSequenceClassification(LlamaPreTrainedModel, LastTokenClassifier):
    base: ClassVar[type[LlamaModel]] = LlamaModel


class LlamaForTokenClassification(LlamaPreTrainedModel, TokenClassifier):
    base: ClassVar[type[LlamaModel]] = LlamaModel
    head = "score"


class LlamaForQuestionAnswering(LlamaPreTrainedModel, QuestionAnswerer):
    base: ClassVar[type[LlamaModel]] = LlamaModel
    base_model_prefix = "transformer"
    rename = {r"^model\.": "transformer."}


TASKS = {
    "base": LlamaModel,
    "causal-lm": LlamaForCausalLM,
    "sequence-classification": LlamaForSequenceClassification,
    "token-classification": LlamaForTokenClassification,
    "question-answering": LlamaForQuestionAnswering,
}
