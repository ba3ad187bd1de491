"""What models return, under HF's names; what a model was not asked for, or does not have, is None."""

from dataclasses import dataclass

from ..nn import KVCache
from ..tensor import Tensor

States = tuple[Tensor, ...]  # the embeddings, then each block's output; the last one as the model returns it


@dataclass
class BaseModelOutput:
    last_hidden_state: Tensor  # (B, T, C)
    past_key_values: KVCache | None = None
    hidden_states: States | None = None
    pooler_output: Tensor | None = None  # (B, C)


@dataclass
class HeadOutput:
    """Of a language model (B, T, V), a classifier of sequences (B, K) or of tokens (B, T, K)."""

    logits: Tensor
    loss: Tensor | None = None
    past_key_values: KVCache | None = None
    hidden_states: States | None = None


@dataclass
class QuestionAnsweringOutput:
    start_logits: Tensor  # (B, T)
    end_logits: Tensor  # (B, T)
    loss: Tensor | None = None
    hidden_states: States | None = None


@dataclass
class PreTrainingOutput:
    prediction_logits: Tensor  # (B, T, V)
    seq_relationship_logits: Tensor  # (B, 2): is the second sentence the one that followed?
    loss: Tensor | None = None
    hidden_states: States | None = None


@dataclass
class Seq2SeqOutput:
    """Of an encoder-decoder: ``last_hidden_state`` (B, T, C) of the base model, ``logits`` of one with a head."""

    last_hidden_state: Tensor | None = None
    logits: Tensor | None = None
    loss: Tensor | None = None
    past_key_values: KVCache | None = None
    decoder_hidden_states: States | None = None
    encoder_last_hidden_state: Tensor | None = None  # (B, S, C)
    encoder_hidden_states: States | None = None


@dataclass
class Seq2SeqQuestionAnsweringOutput:
    start_logits: Tensor  # (B, T)
    end_logits: Tensor  # (B, T)
    loss: Tensor | None = None
    decoder_hidden_states: States | None = None
    encoder_last_hidden_state: Tensor | None = None  # (B, S, C)
    encoder_hidden_states: States | None = None
