"""BERT: Transformer blocks in which every token sees the whole text, normalized after each part.

With token ids t, positions i, segments s, blocks l = 1 .. L, and E the table of token vectors, also used at the top:

    h⁰ = LayerNorm(E[t] + S[s] + P[i])
    a  = LayerNorm(hˡ⁻¹ + W_o Attention(hˡ⁻¹))
    hˡ = LayerNorm(a + W₂ gelu(W₁ a))
    pooled = tanh(W_p hᴸ₀)                                     hᴸ₀, the first token's, [CLS]
    masked LM: logits = LayerNorm(gelu(W_t hᴸ)) Eᵀ + b         next sentence: logits = W_n pooled

Attributes are named as in the published checkpoints, classes as in HF's transformers.
Source: Devlin et al. (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..nn import ACTIVATIONS, Dropout, Embedding, LayerNorm, Linear, Module, Sequences, attend, split_heads
from ..nn.layers import feed_forward, linear_act
from ..tensor import Tensor, as_tensor
from .config import Config
from .encoders import MaskedLM, Parts, SequenceClassifier, checked_ids, decoder, first_tokens
from .heads import QuestionAnswerer, TokenClassifier, kept, token_loss
from .model import Model
from .outputs import BaseModelOutput, PreTrainingOutput


@dataclass(frozen=True, kw_only=True)
class BertConfig(Config):
    """Sizes and choices, under HF's names; the defaults are those of BERT base, uncased."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # of the classifiers; None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    model_type = "bert"
    # Of Google's pooler and of transformers 2, neither of which reads them; notes that other programs leave.
    inert = ("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
             "pooler_size_per_head", "pooler_type", "output_past", "_num_labels", "language", "name",
             "sentence_transformers")  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        self.check_sizes("max_position_embeddings", "type_vocab_size")
        self.check_divides("num_attention_heads", "hidden_size")
        self.check_choice("hidden_act", ACTIVATIONS)
        self.check_rates("hidden_dropout_prob", "attention_probs_dropout_prob")
        if self.classifier_dropout is not None:
            self.check_rates("classifier_dropout")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            self.refuse("pad_token_id", f"the id of a token, in [0, {self.vocab_size}), or None")

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


class BertEmbeddings(Module):
    def __init__(self, config: BertConfig, rng: np.random.Generator, dtype: Any, position_padding: int | None = None):
        C, how = config.hidden_size, {"std": config.initializer_range, "rng": rng, "dtype": dtype}
        self.word_embeddings = Embedding(config.vocab_size, C, config.pad_token_id, **how)
        self.position_embeddings = Embedding(config.max_position_embeddings, C, position_padding, **how)
        self.token_type_embeddings = Embedding(config.type_vocab_size, C, **how)
        self.LayerNorm = LayerNorm(C, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, rng=rng)

    def forward(self, ids: Any, types: Any, positions: Any) -> Tensor:
        """Shapes: ids (B, T), types and positions that broadcast to it -> (B, T, C)."""
        x = self.word_embeddings(ids) + self.token_type_embeddings(types) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(x))


class BertSelfAttention(Module):
    def __init__(self, config: BertConfig, rng: np.random.Generator, dtype: Any):
        C, std = config.hidden_size, config.initializer_range
        self.heads = config.num_attention_heads
        self.query = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.key = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.value = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.p, self.rng = config.attention_probs_dropout_prob, rng

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        q, k, v = (split_heads(part(x), self.heads) for part in (self.query, self.key, self.value))  # (B, H, T, D)
        return attend(q, k, v, sequences, causal=False, dropout_p=self.p if self.training else 0.0, rng=self.rng)


class BertAddNorm(Module):
    """LayerNorm(x + W y), what ends both parts of a block; or LayerNorm(x + W f(up(y))), the second part whole."""

    def __init__(self, config: BertConfig, inner: int, rng: np.random.Generator, dtype: Any):
        self.dense = Linear(inner, config.hidden_size, std=config.initializer_range, rng=rng, dtype=dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob, rng=rng)

    def forward(self, y: Tensor, x: Tensor, up: Linear | None = None, f: Any = None) -> Tensor:
        return self.LayerNorm(x, self.dropout(self.dense(y) if up is None else feed_forward(y, up, f, self.dense)))[1]


class BertLayer(Module):
    def __init__(self, config: BertConfig, rng: np.random.Generator, dtype: Any):
        C, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.attention = Parts(self=BertSelfAttention(config, rng, dtype), output=BertAddNorm(config, C, rng, dtype))
        self.intermediate = Parts(dense=Linear(C, inner, std=std, rng=rng, dtype=dtype))
        self.output = BertAddNorm(config, inner, rng, dtype)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        x = self.attention.output(self.attention.self(x, sequences), x)
        return self.output(x, x, self.intermediate.dense, self.act)


class BertPreTrainedModel(Model):
    config: BertConfig
    config_class = BertConfig
    base_model_prefix = "bert"
    rename = {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"}  # TensorFlow's names
    not_parameters: ClassVar[tuple[str, ...]] = (r"(.*\.)?embeddings\.(position_ids|token_type_ids)",)
    optional_parts: ClassVar[tuple[str, ...]] = ("pooler",)

    def linear(self, outputs: int) -> Linear:
        """Return a matrix on top of the blocks."""
        config = self.config
        return Linear(config.hidden_size, outputs, std=config.initializer_range, rng=self.rng, dtype=self.dtype)


class BertModel(BertPreTrainedModel):
    """The blocks on the embeddings, and the pooler, where it is asked for and the file has it."""

    def __init__(
        self, config: BertConfig, add_pooling_layer: bool = True, *, rng: np.random.Generator, dtype: Any = np.float32
    ):
        super().__init__(config, rng=rng, dtype=dtype)
        self.embeddings = self.new_embeddings()
        self.encoder = Parts(layer=[BertLayer(config, rng, dtype) for _ in range(config.num_hidden_layers)])
        self.pooler = Parts(dense=self.linear(config.hidden_size)) if add_pooling_layer else None

    def new_embeddings(self) -> BertEmbeddings:
        return BertEmbeddings(self.config, self.rng, self.dtype)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        output_hidden_states: bool = False,
        lengths: Sequence[int] | None = None,
    ) -> BaseModelOutput:
        """Run the blocks.

        Shapes: input_ids (B, T) of integers below vocab_size; attention_mask (B, T), 0 or False where a key is padding;
        token_type_ids (B, T), the segment of each token, by default 0; position_ids (B, T), by default 0, 1, ...; or
        all of them (1, N), sequences of ``lengths`` end to end.
        ValueError for a sequence that does not fit max_position_embeddings; IndexError for an id out of range.
        """
        config, ids, name = self.config, as_tensor(input_ids), type(self).__name__
        given: dict[str, Any] = {"attention_mask": attention_mask, "lengths": lengths}
        sequences = Sequences(name, ids, dtype=self.dtype, limit=config.max_position_embeddings, **given)
        shape, types = (sequences.B, sequences.T), np.zeros((1, 1), np.int64)
        if token_type_ids is not None:
            types = checked_ids(name, "token_type_ids", token_type_ids, shape, config.type_vocab_size)
        if position_ids is None:
            positions = self.positions(ids._data, sequences)
        else:
            positions = checked_ids(name, "position_ids", position_ids, shape, config.max_position_embeddings)
        x = self.embeddings(ids, types, positions)  # (B, T, C)
        states: tuple[Tensor, ...] = (x,)
        for layer in self.encoder.layer:
            x = layer(x, sequences)
            states = (*states, x) if output_hidden_states else ()
        pooled = None if self.pooler is None else np.tanh(self.pooler.dense(first_tokens(x, lengths)))  # (B, C)
        return BaseModelOutput(x, None, states or None, pooled)

    def positions(self, ids: np.ndarray, sequences: Sequences) -> np.ndarray:
        return sequences.positions


class BertWithHead(BertPreTrainedModel):
    """The blocks, with the pooler if the head reads it, and the head that ``add_head`` puts on."""

    base: ClassVar[type[BertModel]] = BertModel
    pooled: ClassVar[bool] = False

    def __init__(self, config: BertConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        setattr(self, self.base_model_prefix, self.base(config, self.pooled, rng=rng, dtype=dtype))
        self.add_head(config)

    def add_head(self, config: BertConfig) -> None:
        raise NotImplementedError


class BertForMaskedLM(BertWithHead, MaskedLM):
    bert: BertModel
    biases = ("cls.predictions.bias", "cls.predictions.decoder.bias")
    not_parameters = (*BertPreTrainedModel.not_parameters, r"cls\.seq_relationship\..*")  # files hold both heads

    def add_head(self, config: BertConfig) -> None:
        table, C, std = self.bert.embeddings.word_embeddings, config.hidden_size, config.initializer_range
        transform = Parts(dense=self.linear(C), LayerNorm=LayerNorm(C, config.layer_norm_eps, dtype=self.dtype))
        self.cls = Parts(predictions=Parts(transform=transform, **decoder(table, config, std, self.rng, self.dtype)))
        self.act = ACTIVATIONS[config.hidden_act]

    def logits(self, x: Tensor) -> Tensor:
        head = self.cls.predictions
        return head.decoder(head.transform.LayerNorm(linear_act(x, head.transform.dense, self.act)))


class BertForPreTraining(BertForMaskedLM):
    pooled, optional_parts = True, ()
    not_parameters = BertPreTrainedModel.not_parameters

    def add_head(self, config: BertConfig) -> None:
        super().add_head(config)
        self.cls.seq_relationship = self.linear(2)

    def forward(  # type: ignore[override]
        self,
        input_ids: Any,
        labels: Any = None,
        next_sentence_label: Any = None,
        *,
        logits_to_keep: Any = 0,
        **kwargs: Any,
    ) -> PreTrainingOutput:
        """Return the logits of both heads and the sum of the losses that labels are given for.

        Shapes: labels (B, T), as of BertForMaskedLM; next_sentence_label (B,), 0 if the second sentence follows, or 1.
        """
        base = self.bert(input_ids, **kwargs)
        predictions = self.logits(kept(base.last_hidden_state, logits_to_keep))
        relation = self.cls.seq_relationship(base.pooler_output)
        loss = None if labels is None else token_loss(predictions, kept(as_tensor(labels), logits_to_keep))
        if next_sentence_label is not None:
            following = F.cross_entropy(relation, next_sentence_label)
            loss = following if loss is None else loss + following
        return PreTrainingOutput(predictions, relation, loss, base.hidden_states)


class BertForNextSentencePrediction(BertWithHead, SequenceClassifier):
    pooled, optional_parts = True, ()
    not_parameters = (*BertPreTrainedModel.not_parameters, r"cls\.predictions\..*")

    def add_head(self, config: BertConfig) -> None:
        self.cls = Parts(seq_relationship=self.linear(2))

    def scores(self, base: BaseModelOutput, lengths: Sequence[int] | None) -> Tensor:
        return self.cls.seq_relationship(base.pooler_output)

    def loss(self, logits: Tensor, labels: Any) -> Tensor:
        return F.cross_entropy(logits, labels)


class BertForSequenceClassification(BertWithHead, SequenceClassifier):
    pooled, optional_parts = True, ()

    def add_head(self, config: BertConfig) -> None:
        self.dropout = Dropout(config.head_dropout, rng=self.rng)
        self.classifier = self.linear(config.num_labels)

    def scores(self, base: BaseModelOutput, lengths: Sequence[int] | None) -> Tensor:
        return self.classifier(self.dropout(base.pooler_output))


class BertForTokenClassification(BertWithHead, TokenClassifier):
    def add_head(self, config: BertConfig) -> None:
        self.dropout = Dropout(config.head_dropout, rng=self.rng)
        self.classifier = self.linear(config.num_labels)


class BertForQuestionAnswering(BertWithHead, QuestionAnswerer):
    def add_head(self, config: BertConfig) -> None:
        self.qa_outputs = self.linear(2)


TASKS = {
    "base": BertModel,
    "pre-training": BertForPreTraining,
    "masked-lm": BertForMaskedLM,
    "next-sentence": BertForNextSentencePrediction,
    "sequence-classification": BertForSequenceClassification,
    "token-classification": BertForTokenClassification,
    "question-answering": BertForQuestionAnswering,
}
