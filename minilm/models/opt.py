"""OPT: a stack of causal Transformer blocks with learned positions, normalized before each part or after it.

With token ids t, positions p that count the tokens which are not padding, and E the table of token vectors, also used
at the top; W_in and W_out are there where token vectors are narrower than the blocks:

    h⁰ = W_in E[t] + P[p + 2]
    before it:  a = hˡ⁻¹ + Attention(LayerNorm(hˡ⁻¹))     after it:  a = LayerNorm(hˡ⁻¹ + Attention(hˡ⁻¹))
                hˡ = a + MLP(LayerNorm(a))                           hˡ = LayerNorm(a + MLP(a))
    logits = W_out LayerNorm(hᴸ) Eᵀ                       logits = W_out hᴸ Eᵀ,        MLP(x) = W₂ φ(W₁ x)

Attributes are named as in the published checkpoints, classes as in HF's transformers.
Source: Zhang et al. (2022), "OPT: Open Pre-trained Transformer Language Models", arXiv:2205.01068; the 350M model is
the one that normalizes after each part and has narrow token vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    split_heads,
)
from ..tensor import Tensor, as_tensor
from .config import Config
from .decoders import CausalLM, LastTokenClassifier, QuestionAnswerer
from .model import Model
from .outputs import BaseModelOutput

OFFSET = 2  # of the rows of P; row 1 is padding's, whose position is -1


@dataclass(frozen=True, kw_only=True)
class OPTConfig(Config):
    """Sizes and choices, under HF's names; the defaults are the 125M model's."""

    vocab_size: int = 50272
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    ffn_dim: int = 3072
    max_position_embeddings: int = 2048
    word_embed_proj_dim: int | None = None  # width of token vectors; None: hidden_size
    activation_function: str = "relu"
    do_layer_norm_before: bool = True
    _remove_final_layer_norm: bool = False  # of models fine-tuned before the last norm was found missing
    layer_norm_elementwise_affine: bool = True
    enable_bias: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.0
    layerdrop: float = 0.0  # the rate at which training leaves a block out
    init_std: float = 0.02
    pad_token_id: int | None = 1
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 2

    model_type = "opt"
    only = {"activation_dropout": (0.0,), "scale_embeddings": (False,), "learned_embeddings": (True,)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim")
        self.check_sizes(
            "max_position_embeddings", *(["word_embed_proj_dim"] if self.word_embed_proj_dim is not None else [])
        )
        self.check_divides("num_attention_heads", "hidden_size")
        self.check_choice("activation_function", ACTIVATIONS)
        self.check_rates("dropout", "attention_dropout", "layerdrop")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            self.refuse("pad_token_id", f"a row of the table of {self.vocab_size} token vectors, or None")

    @property
    def embedding_dim(self) -> int:
        return self.hidden_size if self.word_embed_proj_dim is None else self.word_embed_proj_dim


class OPTAttention(Module):
    def __init__(self, config: OPTConfig, layer: int, rng: np.random.Generator, dtype: Any):
        C, bias, std = config.hidden_size, config.enable_bias, config.init_std
        self.layer, self.heads = layer, config.num_attention_heads
        self.k_proj = Linear(C, C, bias, std=std, rng=rng, dtype=dtype)
        self.v_proj = Linear(C, C, bias, std=std, rng=rng, dtype=dtype)
        self.q_proj = Linear(C, C, bias, std=std, rng=rng, dtype=dtype)
        self.out_proj = Linear(C, C, bias, std=std, rng=rng, dtype=dtype)
        self.dropout_p, self.rng = config.attention_dropout, rng

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        q, k, v = (split_heads(project(x), self.heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        o = attend(
            *(q, k, v, sequences),  # (B, H, T, D)
            layer=self.layer,
            dropout_p=self.dropout_p if self.training else 0.0,
            rng=self.rng,
        )
        return self.out_proj(o)


class OPTDecoderLayer(Module):
    def __init__(self, config: OPTConfig, layer: int, rng: np.random.Generator, dtype: Any):
        C, bias, std, affine = (
            *(config.hidden_size, config.enable_bias, config.init_std),
            config.layer_norm_elementwise_affine,
        )
        self.self_attn = OPTAttention(config, layer, rng, dtype)
        self.self_attn_layer_norm = LayerNorm(C, elementwise_affine=affine, dtype=dtype)
        self.fc1 = Linear(C, config.ffn_dim, bias, std=std, rng=rng, dtype=dtype)
        self.fc2 = Linear(config.ffn_dim, C, bias, std=std, rng=rng, dtype=dtype)
        self.final_layer_norm = LayerNorm(C, elementwise_affine=affine, dtype=dtype)
        self.before, self.act = config.do_layer_norm_before, ACTIVATIONS[config.activation_function]
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        if self.before:
            y = self.dropout(self.self_attn(self.self_attn_layer_norm(x), sequences))
            x, n = self.final_layer_norm(x, y)  # the sum and its norm
            return x + self.mlp(n)
        _, x = self.self_attn_layer_norm(x, self.dropout(self.self_attn(x, sequences)))
        return self.final_layer_norm(x, self.mlp(x))[1]

    def mlp(self, x: Tensor) -> Tensor:
        return self.dropout(feed_forward(x, self.fc1, self.act, self.fc2))


class OPTDecoder(Module):
    """The blocks between the embeddings and the head."""

    def __init__(self, config: OPTConfig, rng: np.random.Generator, dtype: Any):
        C, E, std = config.hidden_size, config.embedding_dim, config.init_std
        self.layerdrop, self.rng = config.layerdrop, rng
        self.embed_tokens = Embedding(config.vocab_size, E, config.pad_token_id, std=std, rng=rng, dtype=dtype)
        self.embed_positions = Embedding(config.max_position_embeddings + OFFSET, C, std=std, rng=rng, dtype=dtype)
        self.project_out = Linear(C, E, bias=False, std=std, rng=rng, dtype=dtype) if E != C else None
        self.project_in = Linear(E, C, bias=False, std=std, rng=rng, dtype=dtype) if E != C else None
        last = config.do_layer_norm_before and not config._remove_final_layer_norm
        affine = config.layer_norm_elementwise_affine
        self.final_layer_norm = LayerNorm(C, elementwise_affine=affine, dtype=dtype) if last else None
        self.layers = [OPTDecoderLayer(config, layer, rng, dtype) for layer in range(config.num_hidden_layers)]

    def forward(self, input_ids: Any, positions: Any, sequences: Sequences) -> list[Tensor]:
        """Return the embeddings, (B, T, C), and what each block gives, the last (B, T, E) as the model returns it."""
        x = self.embed_tokens(as_tensor(input_ids))  # (B, T, E)
        x = x if self.project_in is None else self.project_in(x)  # (B, T, C)
        x = x + self.embed_positions(positions + OFFSET)
        states = [x]
        for layer in self.layers:
            if self.layerdrop and self.training and sequences.cache is None and self.rng.random() < self.layerdrop:
                continue
            x = layer(x, sequences)
            states.append(x)
        x = x if self.final_layer_norm is None else self.final_layer_norm(x)
        states[-1] = x if self.project_out is None else self.project_out(x)  # (B, T, E)
        return states


class OPTPreTrainedModel(Model):
    config: OPTConfig
    config_class = OPTConfig
    base_model_prefix = "model"

    def matrix(self, outputs: int, bias: bool = True) -> Linear:
        """Return a head's matrix, on vectors of the width that leaves the decoder."""
        config = self.config
        return Linear(config.embedding_dim, outputs, bias, std=config.init_std, rng=self.rng, dtype=self.dtype)


class OPTModel(OPTPreTrainedModel):
    """The decoder, under the name that checkpoints give it."""

    def __init__(self, config: OPTConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.decoder = OPTDecoder(config, rng, dtype)

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
        S counting the cached positions too; position_ids (B, T), by default a count of what the mask lets through; or
        input_ids (1, N), sequences of ``lengths`` end to end.  A cache (``new_cache``) is filled in place, off the
        tape.
        ValueError for a sequence that does not fit max_position_embeddings; IndexError for an id out of range.
        """
        sequences = Sequences(
            *("OPTModel", input_ids),
            dtype=self.dtype,
            attention_mask=attention_mask,
            lengths=lengths,
            cache=past_key_values,
            limit=self.config.max_position_embeddings,
        )
        positions: Any = sequences.positions
        if position_ids is not None:
            positions = as_tensor(position_ids)
        elif (visible := sequences.padding) is not None:
            positions = (visible.cumsum(axis=1) * visible - 1)[:, sequences.past :]  # -1 where it is padding
        states = self.decoder(input_ids, positions, sequences)
        sequences.done()
        return BaseModelOutput(states[-1], past_key_values, tuple(states) if output_hidden_states else None)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` sequences of up to ``capacity`` tokens, by default as many as fit."""
        config, heads = self.config, self.config.num_attention_heads
        limit = config.max_position_embeddings
        length = limit if capacity is None else min(capacity, limit)
        return KVCache(config.num_hidden_layers, batch, heads, length, config.hidden_size // heads, self.dtype)


class OPTForCausalLM(OPTPreTrainedModel, CausalLM):
    base = OPTModel
    table = "decoder.embed_tokens"


class OPTForSequenceClassification(OPTPreTrainedModel, LastTokenClassifier):
    base = OPTModel


class OPTForQuestionAnswering(OPTPreTrainedModel, QuestionAnswerer):
    base = OPTModel


TASKS = {
    "base": OPTModel,
    "causal-lm": OPTForCausalLM,
    "sequence-classification": OPTForSequenceClassification,
    "question-answering": OPTForQuestionAnswering,
}
