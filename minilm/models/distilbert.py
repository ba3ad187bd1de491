"""DistilBERT: half as many of BERT's blocks, without segments and pooler, taught by BERT.

With token ids t, positions i, blocks l = 1 .. L, and E the table of token vectors, also used at the top:

    h⁰ = LayerNorm(E[t] + P[i])
    a  = LayerNorm(hˡ⁻¹ + W_o Attention(hˡ⁻¹))
    hˡ = LayerNorm(a + W₂ gelu(W₁ a))
    masked LM: logits = LayerNorm(gelu(W_t hᴸ)) Eᵀ + b
    sequence classification: logits = W_c relu(W_p hᴸ₀)          hᴸ₀, the first token's, [CLS]

Attributes are named as in the published checkpoints, classes as in HF's transformers.
Source: Sanh et al. (2019), "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from ..nn import (
    ACTIVATIONS,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Module,
    Sequences,
    attend,
    feed_forward,
    init,
    linear_act,
    parameter,
    split_heads,
)
from ..tensor import Tensor, as_tensor
from .config import Config
from .encoders import MaskedLM, Parts, SequenceClassifier, checked_ids, decoder, first_tokens
from .heads import QuestionAnswerer, TokenClassifier
from .model import Model
from .outputs import BaseModelOutput

EPS = 1e-12  # of every norm; no option


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig(Config):
    """Sizes and choices, under HF's names; the defaults are those of DistilBERT base, uncased."""

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False  # whether positions start from sines and cosines
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    activation: str = "gelu"
    initializer_range: float = 0.02
    pad_token_id: int | None = 0

    model_type = "distilbert"
    aliases = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
    only = {"tie_weights_": (True,)}
    # Of transformers 2, which no longer reads them; notes that other programs leave.
    inert = ("output_past", "_num_labels", "language", "name", "sentence_transformers")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("vocab_size", "max_position_embeddings", "n_layers", "n_heads", "dim", "hidden_dim")
        self.check_divides("n_heads", "dim")
        self.check_choice("activation", ACTIVATIONS)
        self.check_rates("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            self.refuse("pad_token_id", f"the id of a token, in [0, {self.vocab_size}), or None")


def sinusoids(T: int, C: int, dtype: Any) -> np.ndarray:
    """Return sin(t ω_j) in the channels 2j and cos(t ω_j) in 2j + 1, ω_j = 10000^(-2j/C): (T, C).

    Source: Vaswani et al. (2017), "Attention Is All You Need", 3.5.
    """
    angle = np.arange(T)[:, None] / 10000 ** (np.arange(C) // 2 * 2 / C)  # (T, C)
    return np.where(np.arange(C) % 2, np.cos(angle), np.sin(angle)).astype(dtype)


class DistilBertEmbeddings(Module):
    def __init__(self, config: DistilBertConfig, rng: np.random.Generator, dtype: Any):
        T, C, std = config.max_position_embeddings, config.dim, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, C, config.pad_token_id, std=std, rng=rng, dtype=dtype)
        self.position_embeddings = Embedding(T, C, std=std, rng=rng, dtype=dtype)
        if config.sinusoidal_pos_embds and not init.is_unset(self.position_embeddings.weight._data):
            self.position_embeddings.weight = parameter(sinusoids(T, C, dtype))
        self.LayerNorm = LayerNorm(C, EPS, dtype=dtype)
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, ids: Any, positions: Any) -> Tensor:
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(positions)))


class DistilBertSelfAttention(Module):
    def __init__(self, config: DistilBertConfig, rng: np.random.Generator, dtype: Any):
        C, std = config.dim, config.initializer_range
        self.n_heads = config.n_heads
        self.q_lin = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.k_lin = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.v_lin = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.out_lin = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.p, self.rng = config.attention_dropout, rng

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        q, k, v = (split_heads(part(x), self.n_heads) for part in (self.q_lin, self.k_lin, self.v_lin))  # (B, H, T, D)
        o = attend(q, k, v, sequences, causal=False, dropout_p=self.p if self.training else 0.0, rng=self.rng)
        return self.out_lin(o)


class TransformerBlock(Module):
    def __init__(self, config: DistilBertConfig, rng: np.random.Generator, dtype: Any):
        C, inner, std = config.dim, config.hidden_dim, config.initializer_range
        self.attention = DistilBertSelfAttention(config, rng, dtype)
        self.sa_layer_norm = LayerNorm(C, EPS, dtype=dtype)
        self.ffn = Parts(
            lin1=Linear(C, inner, std=std, rng=rng, dtype=dtype),
            lin2=Linear(inner, C, std=std, rng=rng, dtype=dtype),
        )
        self.output_layer_norm = LayerNorm(C, EPS, dtype=dtype)
        self.act = ACTIVATIONS[config.activation]
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        _, x = self.sa_layer_norm(x, self.attention(x, sequences))  # the norm of the sum
        return self.output_layer_norm(x, self.dropout(feed_forward(x, self.ffn.lin1, self.act, self.ffn.lin2)))[1]


class DistilBertPreTrainedModel(Model):
    config: DistilBertConfig
    config_class = DistilBertConfig
    base_model_prefix = "distilbert"
    not_parameters = (r"(.*\.)?embeddings\.position_ids",)


class DistilBertModel(DistilBertPreTrainedModel):
    """The blocks on the embeddings."""

    def __init__(self, config: DistilBertConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.embeddings = DistilBertEmbeddings(config, rng, self.dtype)
        self.transformer = Parts(layer=[TransformerBlock(config, rng, dtype) for _ in range(config.n_layers)])

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        output_hidden_states: bool = False,
        lengths: Sequence[int] | None = None,
    ) -> BaseModelOutput:
        """Run the blocks.

        Shapes: input_ids (B, T) of integers below vocab_size; attention_mask (B, T), 0 or False where a key is padding;
        position_ids (B, T), by default 0, 1, ...; or all of them (1, N), sequences of ``lengths`` end to end.
        ValueError for a sequence that does not fit max_position_embeddings; IndexError for an id out of range.
        """
        most = self.config.max_position_embeddings
        sequences = Sequences(
            *("DistilBertModel", input_ids),
            dtype=self.dtype,
            attention_mask=attention_mask,
            lengths=lengths,
            limit=most,
        )
        positions = sequences.positions
        if position_ids is not None:
            positions = checked_ids("DistilBertModel", "position_ids", position_ids, (sequences.B, sequences.T), most)
        x = self.embeddings(as_tensor(input_ids), positions)  # (B, T, C)
        states: tuple[Tensor, ...] = (x,)
        for layer in self.transformer.layer:
            x = layer(x, sequences)
            states = (*states, x) if output_hidden_states else ()
        return BaseModelOutput(x, None, states or None)


class DistilBertForMaskedLM(DistilBertPreTrainedModel, MaskedLM):
    def __init__(self, config: DistilBertConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        C, std = config.dim, config.initializer_range
        self.distilbert = DistilBertModel(config, rng=rng, dtype=dtype)
        self.vocab_transform = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.vocab_layer_norm = LayerNorm(C, EPS, dtype=dtype)
        table = self.distilbert.embeddings.word_embeddings
        self.vocab_projector = decoder(table, config, std, rng, dtype)["decoder"]
        self.act = ACTIVATIONS[config.activation]

    def logits(self, x: Tensor) -> Tensor:
        return self.vocab_projector(self.vocab_layer_norm(linear_act(x, self.vocab_transform, self.act)))


class DistilBertForSequenceClassification(DistilBertPreTrainedModel, SequenceClassifier):
    def __init__(self, config: DistilBertConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        C, std = config.dim, config.initializer_range
        self.distilbert = DistilBertModel(config, rng=rng, dtype=dtype)
        self.pre_classifier = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.classifier = Linear(C, config.num_labels, std=std, rng=rng, dtype=dtype)
        self.dropout = Dropout(config.seq_classif_dropout, rng=rng)

    def scores(self, base: BaseModelOutput, lengths: Sequence[int] | None) -> Tensor:
        first = F.relu(self.pre_classifier(first_tokens(base.last_hidden_state, lengths)))  # (B, C)
        return self.classifier(self.dropout(first))


class DistilBertForTokenClassification(DistilBertPreTrainedModel, TokenClassifier):
    def __init__(self, config: DistilBertConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.distilbert = DistilBertModel(config, rng=rng, dtype=dtype)
        self.dropout = Dropout(config.dropout, rng=rng)
        std = config.initializer_range
        self.classifier = Linear(config.dim, config.num_labels, std=std, rng=rng, dtype=dtype)


class DistilBertForQuestionAnswering(DistilBertPreTrainedModel, QuestionAnswerer):
    def __init__(self, config: DistilBertConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.distilbert = DistilBertModel(config, rng=rng, dtype=dtype)
        self.dropout = Dropout(config.qa_dropout, rng=rng)
        self.qa_outputs = Linear(config.dim, 2, std=config.initializer_range, rng=rng, dtype=dtype)


TASKS = {
    "base": DistilBertModel,
    "masked-lm": DistilBertForMaskedLM,
    "sequence-classification": DistilBertForSequenceClassification,
    "token-classification": DistilBertForTokenClassification,
    "question-answering": DistilBertForQuestionAnswering,
}
