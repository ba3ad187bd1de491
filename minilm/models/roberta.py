"""RoBERTa: BERT's blocks, trained without next sentences; what differs is where positions start, and the heads.

With token ids t and p the id of padding, the i-th token of a text that is not padding, i = 1, 2, ..., stands at
position p + i, and padding at position p.  Blocks and pooler: bert.py.

    masked LM:                 logits = LayerNorm(gelu(W_t hᴸ)) Eᵀ + b
    sequence classification:   logits = W₂ tanh(W₁ hᴸ₀)                     hᴸ₀, the first token's, <s>

Attributes are named as in the published checkpoints, classes as in HF's transformers.
Source: Liu et al. (2019), "RoBERTa: A Robustly Optimized BERT Pretraining Approach".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import functional as F
from ..nn import Dropout, LayerNorm, Sequences, linear_act
from ..tensor import Tensor
from .bert import (
    BertConfig,
    BertEmbeddings,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertModel,
    BertPreTrainedModel,
    BertWithHead,
)
from .encoders import MaskedLM, Parts, SequenceClassifier, decoder, first_tokens
from .outputs import BaseModelOutput


@dataclass(frozen=True, kw_only=True)
class RobertaConfig(BertConfig):
    """BERT's options; the defaults that differ are HF's, and published files set max_position_embeddings to 514."""

    vocab_size: int = 50265
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2

    model_type = "roberta"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pad_token_id is None or self.pad_token_id >= self.max_position_embeddings - 1:
            self.refuse("pad_token_id", "a token's id, below max_position_embeddings - 1: positions start after it")


class RobertaPreTrainedModel(BertPreTrainedModel):
    config: RobertaConfig
    config_class = RobertaConfig
    base_model_prefix = "roberta"


class RobertaModel(RobertaPreTrainedModel, BertModel):
    """BERT's blocks and pooler, on other positions."""

    def new_embeddings(self) -> BertEmbeddings:
        return BertEmbeddings(self.config, self.rng, self.dtype, position_padding=self.config.pad_token_id)

    def positions(self, ids: np.ndarray, sequences: Sequences) -> np.ndarray:
        """Number the tokens of each sequence that are not padding: ids (B, T) -> (B, T)."""
        pad, most = self.config.pad_token_id, self.config.max_position_embeddings
        assert pad is not None
        real = (ids != pad).astype(np.int64)
        count = real.cumsum(axis=1)
        if sequences.lengths:
            lengths = np.array(sequences.lengths)
            before = count[0, lengths.cumsum() - lengths] - real[0, lengths.cumsum() - lengths]  # one per sequence
            count -= before.repeat(lengths)
        if pad + count.max(initial=0) >= most:
            raise ValueError(
                f"{type(self).__name__}: at most {most - pad - 1} positions fit; got {count.max()}. Keep the last ones."
            )
        return pad + count * real


class RobertaWithHead(RobertaPreTrainedModel, BertWithHead):
    roberta: RobertaModel
    base = RobertaModel


class RobertaForMaskedLM(RobertaWithHead, MaskedLM):
    biases = ("lm_head.bias", "lm_head.decoder.bias")

    def add_head(self, config: BertConfig) -> None:
        C, eps, std = config.hidden_size, config.layer_norm_eps, config.initializer_range
        head = {"dense": self.linear(C), "layer_norm": LayerNorm(C, eps, dtype=self.dtype)}
        table = self.roberta.embeddings.word_embeddings
        self.lm_head = Parts(**head, **decoder(table, config, std, self.rng, self.dtype))

    def logits(self, x: Tensor) -> Tensor:
        head = self.lm_head
        return head.decoder(head.layer_norm(linear_act(x, head.dense, F.gelu)))  # gelu, whatever hidden_act is


class RobertaForSequenceClassification(RobertaWithHead, SequenceClassifier):
    def add_head(self, config: BertConfig) -> None:
        self.dropout = Dropout(config.head_dropout, rng=self.rng)
        self.classifier = Parts(dense=self.linear(config.hidden_size), out_proj=self.linear(config.num_labels))

    def scores(self, base: BaseModelOutput, lengths: Sequence[int] | None) -> Tensor:
        first = self.dropout(first_tokens(base.last_hidden_state, lengths))  # (B, C)
        return self.classifier.out_proj(self.dropout(np.tanh(self.classifier.dense(first))))


class RobertaForTokenClassification(RobertaWithHead, BertForTokenClassification):
    """A class for every token, as BERT."""


class RobertaForQuestionAnswering(RobertaWithHead, BertForQuestionAnswering):
    """Where an answer starts and ends, as BERT."""


TASKS = {
    "base": RobertaModel,
    "masked-lm": RobertaForMaskedLM,
    "sequence-classification": RobertaForSequenceClassification,
    "token-classification": RobertaForTokenClassification,
    "question-answering": RobertaForQuestionAnswering,
}
