"""BART: an encoder that sees everything and a decoder that writes, both normalized after each part.

With token ids t and positions i, E the table of token vectors, which all three uses share, and P one of each side:

    h⁰ = LayerNorm(√C? E[t] + P[i + 2])
    a  = LayerNorm(hˡ⁻¹ + Attention(hˡ⁻¹))                     (causal in the decoder)
    c  = LayerNorm(a + Attention(a, m))                        in the decoder: m is the encoder's last h
    hˡ = LayerNorm(c + W₂ gelu(W₁ c))
    logits = hᴸ Eᵀ + b

√C is there with ``scale_embedding``; b is data of the checkpoint that is not learned.
Source: Lewis et al. (2019), arXiv:1910.13461.
"""

import math
from dataclasses import dataclass, field, replace
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
    attend_across,
    feed_forward,
    split_heads,
)
from ..tensor import Tensor, as_tensor
from .config import Config
from .model import Model
from .outputs import BaseModelOutput
from .seq2seq import EncoderDecoder, KeysValues, Memory
from .seq2seq_heads import BiasedSeq2SeqLM, ClassificationHead, EosClassifier, Seq2SeqQuestionAnswerer


@dataclass(frozen=True, kw_only=True)
class BartConfig(Config):
    """Sizes and choices, under HF's names; the defaults are those of BART large."""

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    d_model: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    encoder_layerdrop: float = 0.0  # how often training leaves out a layer
    decoder_layerdrop: float = 0.0
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    classifier_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    bos_token_id: int | None = 0
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 2
    id2label: dict[int, str] = field(default_factory=lambda: {i: f"LABEL_{i}" for i in range(3)})

    model_type = "bart"
    aliases = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads",
               "classif_dropout": "classifier_dropout"}  # fmt: skip
    only = {
        "is_encoder_decoder": (True,),
        "add_final_layer_norm": (False,),
        "normalize_before": (False,),
        "normalize_embedding": (True,),
        "static_position_embeddings": (False,),
    }
    # add_bias_logits: the bias is added in any case.  extra_pos_embeddings: always 2.  The others: of generation, of
    # how a student was made, or said by id2label.
    inert = ("add_bias_logits", "extra_pos_embeddings", "force_bos_token_to_be_generated", "output_past", "_num_labels",
             "student_encoder_layers", "student_decoder_layers", "replacing_rate", "save_step")  # fmt: skip

    @classmethod
    def translate(cls, config: dict[str, Any]) -> dict[str, Any]:
        if "classifier_dropout" in config:
            config.pop("classif_dropout", None)  # its old name; files of one time hold both
        layers = config.pop("num_hidden_layers", None)
        if layers is not None and layers != config.setdefault("encoder_layers", layers):
            raise ValueError(
                f"{cls.__name__}: num_hidden_layers must be encoder_layers, {config['encoder_layers']}; got {layers}."
            )
        return super().translate(config)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "max_position_embeddings", "d_model", "encoder_layers", "decoder_layers")
        self.check_sizes("encoder_ffn_dim", "decoder_ffn_dim", "encoder_attention_heads", "decoder_attention_heads")
        self.check_divides("encoder_attention_heads", "d_model")
        self.check_divides("decoder_attention_heads", "d_model")
        self.check_rates("dropout", "attention_dropout", "activation_dropout", "classifier_dropout")
        self.check_rates("encoder_layerdrop", "decoder_layerdrop")
        self.check_choice("activation_function", ACTIVATIONS)
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            self.refuse("pad_token_id", f"a row of the table of token vectors, below {self.vocab_size}, or None")


class BartPositions(Embedding):
    """Learned vectors of positions; the first two rows of the table are not used, a heritage of padding ids."""

    def __init__(self, config: Any, rng: np.random.Generator, dtype: Any):
        super().__init__(config.max_position_embeddings + 2, config.d_model, std=config.init_std, rng=rng, dtype=dtype)

    def forward(self, positions: Any) -> Tensor:
        return super().forward(positions + 2)


class BartAttention(Module):
    def __init__(self, config: Any, heads: int, layer: int, causal: bool, rng: np.random.Generator, dtype: Any):
        C, std = config.d_model, config.init_std
        self.heads, self.layer, self.causal = heads, layer, causal
        self.k_proj = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.v_proj = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.q_proj = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.out_proj = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.attention_dropout, self.rng = config.attention_dropout, rng

    def forward(self, x: Tensor, sequences: Sequences | None = None, memory: Memory | None = None) -> Tensor:
        """Attend to the tokens themselves, or across to what was read."""
        q = split_heads(self.q_proj(x), self.heads)  # (B, H, T, D)
        p = self.attention_dropout if self.training else 0.0
        if sequences is not None:
            k, v = self.keys_values(x)
            o = attend(q, k, v, sequences, layer=self.layer, causal=self.causal, dropout_p=p, rng=self.rng)
        else:
            assert memory is not None
            k, v = memory.keys_values(self.keys_values, self.layer)  # (B, H, S, D)
            o = attend_across(q, k, v, mask=memory.mask, lengths=memory.lengths, dropout_p=p, rng=self.rng)
        return self.out_proj(o)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.k_proj(x), self.heads), split_heads(self.v_proj(x), self.heads)


class BartLayer(Module):
    """One layer of the encoder, or, with attention across, of the decoder."""

    def __init__(self, config: Any, layer: int, across: bool, rng: np.random.Generator, dtype: Any):
        C, std = config.d_model, config.init_std
        heads = config.decoder_attention_heads if across else config.encoder_attention_heads
        inner = config.decoder_ffn_dim if across else config.encoder_ffn_dim
        self.self_attn = BartAttention(config, heads, layer, across, rng, dtype)
        self.self_attn_layer_norm = LayerNorm(C, dtype=dtype)
        if across:
            self.encoder_attn = BartAttention(config, heads, layer, False, rng, dtype)
            self.encoder_attn_layer_norm = LayerNorm(C, dtype=dtype)
        self.fc1 = Linear(C, inner, std=std, rng=rng, dtype=dtype)
        self.fc2 = Linear(inner, C, std=std, rng=rng, dtype=dtype)
        self.final_layer_norm = LayerNorm(C, dtype=dtype)
        self.act = ACTIVATIONS[config.activation_function]
        self.dropout = Dropout(config.dropout, rng=rng)
        self.activation_dropout = Dropout(config.activation_dropout, rng=rng)

    def forward(self, x: Tensor, sequences: Sequences, memory: Memory | None = None) -> Tensor:
        _, x = self.self_attn_layer_norm(x, self.dropout(self.self_attn(x, sequences)))  # the norm of the sum
        if memory is not None:
            _, x = self.encoder_attn_layer_norm(x, self.dropout(self.encoder_attn(x, memory=memory)))
        y = feed_forward(x, self.fc1, self.act, self.fc2, self.activation_dropout)
        return self.final_layer_norm(x, self.dropout(y))[1]


class BartStack(Module):
    """The layers of the encoder or, with attention across, of the decoder."""

    def __init__(
        self,
        config: Any,
        across: bool,
        tokens: Embedding,
        positions: Module,
        norm: LayerNorm | None,
        rng: Any,
        dtype: Any,
    ):
        layers = config.decoder_layers if across else config.encoder_layers
        self.name = "the decoder" if across else "the encoder"
        self.limit, self.rng, self.dtype = config.max_position_embeddings, rng, dtype
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.layerdrop = config.decoder_layerdrop if across else config.encoder_layerdrop
        self.embed_tokens, self.embed_positions = tokens, positions
        self.layers = [BartLayer(config, layer, across, rng, dtype) for layer in range(layers)]
        self.layernorm_embedding = norm
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(
        self, input_ids: Any, memory: Memory | None = None, *, output_hidden_states: bool = False, **layout: Any
    ) -> BaseModelOutput:
        sequences = Sequences(self.name, input_ids, dtype=self.dtype, limit=self.limit, **layout)
        x = self.embed_tokens(as_tensor(input_ids))  # (B, T, C)
        x = (x * self.scale if self.scale != 1.0 else x) + self.embed_positions(sequences.positions)
        x = self.dropout(x if self.layernorm_embedding is None else self.layernorm_embedding(x))
        states = [x]
        for layer in self.layers:
            if self.layerdrop and self.training and sequences.cache is None and self.rng.random() < self.layerdrop:
                continue
            x = layer(x, sequences, memory)
            states.append(x)
        sequences.done()
        return BaseModelOutput(x, sequences.cache, tuple(states) if output_hidden_states else None)

    def readers(self) -> list[KeysValues]:
        return [layer.encoder_attn.keys_values for layer in self.layers]


class BartPreTrainedModel(Model):
    config: BartConfig
    config_class = BartConfig
    base_model_prefix = "model"
    not_parameters = (r"(model\.)?(encoder|decoder)\.version",)  # in old files


class BartBase(EncoderDecoder):
    """An encoder and a decoder that are BartStacks."""

    config: Any

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` targets of up to ``capacity`` tokens, by default as many as fit."""
        config = self.config
        limit, heads = config.max_position_embeddings, config.decoder_attention_heads
        length = limit if capacity is None else min(capacity, limit)
        return KVCache(config.decoder_layers, batch, heads, length, config.d_model // heads, self.dtype)


class BartModel(BartPreTrainedModel, BartBase):
    """Encoder and decoder on one table of token vectors, or, untied, on two, beside one that is not used."""

    copies = True

    def __init__(self, config: BartConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)

        def tokens() -> Embedding:
            V, C = config.vocab_size, config.d_model
            return Embedding(V, C, config.pad_token_id, std=config.init_std, rng=rng, dtype=dtype)

        self.shared = tokens()
        self.encoder, self.decoder = (
            BartStack(
                *(config, across),
                self.shared if config.tie_word_embeddings else tokens(),
                BartPositions(config, rng, dtype),
                LayerNorm(config.d_model, dtype=dtype),
                *(rng, dtype),
            )
            for across in (False, True)
        )


class BartForConditionalGeneration(BartPreTrainedModel, BiasedSeq2SeqLM):
    """BART with the head that says what is written."""

    def __init__(self, config: BartConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.model = BartModel(config, rng=rng, dtype=dtype)
        table = self.model.shared.weight if config.tie_word_embeddings else None
        self.add_head(config.vocab_size, config.d_model, config.init_std, table)


class BartForSequenceClassification(BartPreTrainedModel, EosClassifier):
    def __init__(self, config: BartConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.model = BartModel(config, rng=rng, dtype=dtype)
        p, std = config.classifier_dropout, config.init_std
        self.classification_head = ClassificationHead(config.d_model, config.num_labels, p, std, rng, dtype)


class BartForQuestionAnswering(BartPreTrainedModel, Seq2SeqQuestionAnswerer):
    def __init__(self, config: BartConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        config = replace(config, id2label={0: "LABEL_0", 1: "LABEL_1"})
        super().__init__(config, rng=rng, dtype=dtype)
        self.model = BartModel(config, rng=rng, dtype=dtype)
        self.qa_outputs = Linear(config.d_model, 2, std=config.init_std, rng=rng, dtype=dtype)


TASKS = {
    "base": BartModel,
    "seq2seq-lm": BartForConditionalGeneration,
    "sequence-classification": BartForSequenceClassification,
    "question-answering": BartForQuestionAnswering,
}
