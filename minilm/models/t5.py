"""T5: an encoder and a decoder that are normalized before each part and know positions as a bias of their scores.

With token ids t, E the table of token vectors of both, and blocks l = 1 .. L:

    h⁰ = E[t]
    a  = hˡ⁻¹ + Attention(n(hˡ⁻¹))            n(x) = w x / √(mean x² + ε)
    c  = a + Across(n(a), m)                  in the decoder: m is the encoder's output
    hˡ = c + W₂ φ(W₁ n(c))                    or, gated, W₂ (φ(W₁ n(c)) ⊙ W₃ n(c))
    logits = W n(hᴸ)                          W = E and n(hᴸ)/√C in T5 1.0; a matrix of its own in 1.1

Attention is softmax(q kᵀ + b) v, without 1/√D.  b depends on the distance s - t alone, through buckets that grow with
it: half of them for each near distance, the other half for logarithmic steps up to ``max_distance``, beyond which all
are one; in the encoder each half serves two directions.  The first block's b is every block's; across there is none.
Sources: Raffel et al. (2020), arXiv:1910.10683; Shazeer (2020), arXiv:2002.05202 (gated units).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import ACTIVATIONS, Dropout, Embedding, KVCache, Linear, Module, RMSNorm, Sequences
from ..nn.layers import add_and_norm, through_blocks
from ..nn.relative import attend_biased, distances, relative_buckets
from ..nn.sequences import attend_across, split_heads
from ..tensor import Tensor, as_tensor
from .config import Config
from .heads import TokenClassifier
from .model import Model
from .outputs import BaseModelOutput
from .seq2seq import EncoderDecoder, KeysValues, Lengths, Memory
from .seq2seq_heads import ClassificationHead, EosClassifier, Seq2SeqLM, Seq2SeqQuestionAnswerer


@dataclass(frozen=True, kw_only=True)
class T5Config(Config):
    """Sizes and choices, under HF's names; the defaults are T5 small's."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None  # None: num_layers
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    feed_forward_proj: str = "relu"  # the name of φ, or "gated-" and its name
    dropout_rate: float = 0.1
    classifier_dropout: float = 0.0
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0  # of the first values of all matrices
    scale_decoder_outputs: bool | None = None  # None: as tie_word_embeddings
    is_encoder_decoder: bool = True  # False in files of an encoder alone
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1

    model_type = "t5"
    aliases = {"hidden_size": "d_model", "head_dim": "d_kv", "num_attention_heads": "num_heads",
               "num_hidden_layers": "num_layers"}  # fmt: skip
    inert = ("n_positions", "output_past")  # how long texts were in training; nothing

    @classmethod
    def translate(cls, config: dict[str, Any]) -> dict[str, Any]:
        gated, act = _activation(str(config.get("feed_forward_proj", cls.feed_forward_proj)))
        for option, said in (("is_gated_act", gated), ("dense_act_fn", act)):
            if config.pop(option, said) != said:
                raise ValueError(f"{cls.__name__}: {option} must be what feed_forward_proj says, {said!r}.")
        return super().translate(config)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "relative_attention_num_buckets")
        self.check_sizes("num_layers", *([] if self.num_decoder_layers is None else ["num_decoder_layers"]))
        self.check_rates("dropout_rate", "classifier_dropout")
        if _activation(str(self.feed_forward_proj))[1] not in ACTIVATIONS:
            self.refuse("feed_forward_proj", f"one of {', '.join(ACTIVATIONS)}, alone or behind 'gated-'")
        if self.relative_attention_num_buckets < 4:
            self.refuse("relative_attention_num_buckets", "at least 4")
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 2:
            self.refuse("relative_attention_max_distance", "more than half of relative_attention_num_buckets")


def _activation(feed_forward_proj: str) -> tuple[bool, str]:
    """Return whether the feed-forward part is gated, and the name of φ."""
    act = feed_forward_proj.removeprefix("gated-")
    return act != feed_forward_proj, "gelu_new" if feed_forward_proj == "gated-gelu" else act


class T5Attention(Module):
    def __init__(self, config: T5Config, layer: int, causal: bool, biased: bool, rng: np.random.Generator, dtype: Any):
        C, H, D, std = config.d_model, config.num_heads, config.d_kv, config.initializer_factor
        self.H, self.layer, self.causal = H, layer, causal
        self.q = Linear(C, H * D, bias=False, std=std * (C * D) ** -0.5, rng=rng, dtype=dtype)
        self.k = Linear(C, H * D, bias=False, std=std * C**-0.5, rng=rng, dtype=dtype)
        self.v = Linear(C, H * D, bias=False, std=std * C**-0.5, rng=rng, dtype=dtype)
        self.o = Linear(H * D, C, bias=False, std=std * (H * D) ** -0.5, rng=rng, dtype=dtype)
        self.buckets = config.relative_attention_num_buckets, config.relative_attention_max_distance
        if biased:
            self.relative_attention_bias = Embedding(self.buckets[0], H, std=std * C**-0.5, rng=rng, dtype=dtype)
        self.dropout_rate, self.rng = config.dropout_rate, rng

    def forward(self, x: Tensor, sequences: Any = None, bias: Any = None, memory: Memory | None = None) -> Tensor:
        """Attend to the tokens themselves, or across to what was read."""
        q = split_heads(self.q(x), self.H)  # (B, H, T, D)
        options: Any = {"scale": 1.0, "dropout_p": self.dropout_rate if self.training else 0.0, "rng": self.rng}
        if memory is not None:
            k, v = memory.keys_values(self.keys_values, self.layer)  # (B, H, S, D)
            return self.o(attend_across(q, k, v, mask=memory.mask, lengths=memory.lengths, **options))
        k, v = self.keys_values(x)
        return self.o(attend_biased(q, k, v, sequences, bias, layer=self.layer, causal=self.causal, **options))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.k(x), self.H), split_heads(self.v(x), self.H)

    def bias(self, sequences: Sequences) -> Tensor:
        """Return b (B or 1, H, T, S), that of the longest where sequences lie packed."""
        found = relative_buckets(distances(sequences), *self.buckets, causal=self.causal)
        return self.relative_attention_bias(found).transpose(0, 3, 1, 2)


class T5FeedForward(Module):
    def __init__(self, config: T5Config, rng: np.random.Generator, dtype: Any):
        C, inner, std = config.d_model, config.d_ff, config.initializer_factor
        gated, act = _activation(config.feed_forward_proj)
        self.wide = ("wi_0", "wi_1") if gated else ("wi",)
        for name in self.wide:
            setattr(self, name, Linear(C, inner, bias=False, std=std * C**-0.5, rng=rng, dtype=dtype))
        self.wo = Linear(inner, C, bias=False, std=std * inner**-0.5, rng=rng, dtype=dtype)
        self.dropout = Dropout(config.dropout_rate, rng=rng)
        self.act = ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        y, *gate = (getattr(self, name)(x) for name in self.wide)
        return self.wo(self.dropout(self.act(y) * gate[0] if gate else self.act(y)))


class T5Part(Module):
    """One part of a block under its name in checkpoints, with the norm before it."""

    def __init__(self, config: T5Config, dtype: Any, **part: Module):
        ((name, module),) = part.items()
        setattr(self, name, module)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon, dtype=dtype)


class T5Block(Module):
    layer: list[Any]

    def __init__(self, config: T5Config, layer: int, across: bool, rng: np.random.Generator, dtype: Any):
        own = T5Attention(config, layer, across, layer == 0, rng, dtype)
        self.layer = [T5Part(config, dtype, SelfAttention=own)]
        if across:
            self.layer += [T5Part(config, dtype, EncDecAttention=T5Attention(config, layer, False, False, rng, dtype))]
        self.layer += [T5Part(config, dtype, DenseReluDense=T5FeedForward(config, rng, dtype))]
        self.dropout = Dropout(config.dropout_rate, rng=rng)

    def forward(self, x: Tensor, update: Any, sequences: Sequences, bias: Tensor, memory: Memory | None) -> Any:
        own, *across, last = self.layer
        x, n = add_and_norm(x, update, own.layer_norm)
        update = self.dropout(own.SelfAttention(n, sequences, bias))
        for part in across:
            x, n = add_and_norm(x, update, part.layer_norm)
            update = self.dropout(part.EncDecAttention(n, memory=memory))
        x, n = add_and_norm(x, update, last.layer_norm)
        return x, self.dropout(last.DenseReluDense(n))


class T5Stack(Module):
    """The encoder's blocks or, with attention across, the decoder's."""

    def __init__(self, config: T5Config, across: bool, tokens: Embedding, rng: np.random.Generator, dtype: Any):
        layers = (across and config.num_decoder_layers) or config.num_layers
        self.name, self.dtype = "the decoder" if across else "the encoder", dtype
        self.embed_tokens = tokens
        self.block = [T5Block(config, layer, across, rng, dtype) for layer in range(layers)]
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon, dtype=dtype)
        self.dropout = Dropout(config.dropout_rate, rng=rng)

    def forward(
        self, input_ids: Any, memory: Memory | None = None, *, output_hidden_states: bool = False, **layout: Any
    ) -> BaseModelOutput:
        sequences = Sequences(self.name, input_ids, dtype=self.dtype, **layout)
        bias = self.block[0].layer[0].SelfAttention.bias(sequences)  # (B or 1, H, T, S)
        x = self.dropout(self.embed_tokens(as_tensor(input_ids)))  # (B, T, C)
        blocks = self.block, self.final_layer_norm, sequences, bias, memory
        x, states = through_blocks(x, *blocks, keep=output_hidden_states)
        x = self.dropout(x)
        sequences.done()
        return BaseModelOutput(x, sequences.cache, (*states, x) if output_hidden_states else None)

    def readers(self) -> list[KeysValues]:
        return [block.layer[1].EncDecAttention.keys_values for block in self.block]


class T5PreTrainedModel(Model):
    config: T5Config
    config_class = T5Config
    base_model_prefix = "transformer"
    # Files of the first models have a bias that nothing adds.
    not_parameters = (r"(transformer\.)?decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)


class T5Model(T5PreTrainedModel, EncoderDecoder):
    """Encoder and decoder on one table of token vectors."""

    def __init__(self, config: T5Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.shared = Embedding(config.vocab_size, config.d_model, std=config.initializer_factor, rng=rng, dtype=dtype)
        self.encoder = T5Stack(config, False, self.shared, rng, dtype)
        self.decoder = T5Stack(config, True, self.shared, rng, dtype)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` targets of up to ``capacity`` tokens; T5 itself knows no longest."""
        if capacity is None:
            raise ValueError("T5: capacity must be given, the most tokens that a target may have; got None.")
        return KVCache(len(self.decoder.block), batch, self.config.num_heads, capacity, self.config.d_kv, self.dtype)


class T5ForConditionalGeneration(T5Model, Seq2SeqLM):
    head_parts = ("lm_head",)
    forward = Seq2SeqLM.forward

    def __init__(self, config: T5Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        tied = config.tie_word_embeddings
        table = self.shared.weight if tied else None
        self.add_head(config.vocab_size, config.d_model, config.initializer_factor, table)
        scales = tied if config.scale_decoder_outputs is None else config.scale_decoder_outputs
        self.scale = config.d_model**-0.5 if scales else 1.0

    def logits(self, x: Tensor) -> Tensor:
        return self.lm_head(x * self.scale if self.scale != 1.0 else x)

    def names(self, published: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """As of every model; but transformers 5 calls T5 1.1 tied too: that its head is not, the file shows."""
        published = list(published)
        tied = self.lm_head.weight is self.shared.weight
        if tied and self.config.scale_decoder_outputs is False and "lm_head.weight" in published:
            self.untie()
        return super().names(published)


class T5ForQuestionAnswering(T5Model, Seq2SeqQuestionAnswerer):
    head_parts = ("qa_outputs",)
    forward = Seq2SeqQuestionAnswerer.forward  # type: ignore[assignment]

    def __init__(self, config: T5Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        if config.num_labels != 2:
            config.refuse("id2label", "two labels for question answering, a start and an end")
        super().__init__(config, rng=rng, dtype=dtype)
        std = config.initializer_factor * config.d_model**-0.5
        self.qa_outputs = Linear(config.d_model, 2, std=std, rng=rng, dtype=dtype)


class T5ForSequenceClassification(T5PreTrainedModel, EosClassifier):
    def __init__(self, config: T5Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.transformer = T5Model(config, rng=rng, dtype=dtype)
        p, std = config.classifier_dropout, config.initializer_factor * config.d_model**-0.5
        self.classification_head = ClassificationHead(config.d_model, config.num_labels, p, std, rng, dtype)


class T5EncoderModel(T5PreTrainedModel):
    """The encoder alone."""

    not_parameters = (r"(transformer\.)?decoder\..*",)

    def __init__(self, config: T5Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.shared = Embedding(config.vocab_size, config.d_model, std=config.initializer_factor, rng=rng, dtype=dtype)
        self.encoder = T5Stack(config, False, self.shared, rng, dtype)

    def forward(
        self, input_ids: Any, attention_mask: Any = None, lengths: Lengths = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the encoder: input_ids (B, T) with attention_mask -> (B, T, C), or (1, N) with lengths -> (1, N, C)."""
        options = {"lengths": lengths, "output_hidden_states": output_hidden_states}
        return self.encoder(input_ids, attention_mask=attention_mask, **options)


class T5ForTokenClassification(T5PreTrainedModel, TokenClassifier):
    not_parameters = T5EncoderModel.not_parameters

    def __init__(self, config: T5Config, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.transformer = T5EncoderModel(config, rng=rng, dtype=dtype)
        self.dropout = Dropout(config.classifier_dropout, rng=rng)
        self.classifier = Linear(config.d_model, config.num_labels, std=config.initializer_factor, rng=rng, dtype=dtype)


TASKS = {
    "base": T5Model,
    "seq2seq-lm": T5ForConditionalGeneration,
    "encoder": T5EncoderModel,
    "sequence-classification": T5ForSequenceClassification,
    "token-classification": T5ForTokenClassification,
    "question-answering": T5ForQuestionAnswering,
}
