"""Heads on an encoder and a decoder (seq2seq.py): what is written, a class, an answer; with their losses."""

from typing import Any

import numpy as np

from .. import functional as F
from ..nn import Dropout, KVCache, Linear, Module, Parameter, init
from ..tensor import Tensor, as_tensor
from .heads import classification_loss, kept, span_loss, token_loss
from .model import Model
from .outputs import BaseModelOutput, Seq2SeqOutput, Seq2SeqQuestionAnsweringOutput
from .seq2seq import EncoderDecoder, Lengths, shift_right


class Seq2SeqHead(Model):
    """A head on an encoder and a decoder; how to read and remember is the base model's."""

    config: Any
    base_model: Any

    def read_and_write(self, *args: Any, **kwargs: Any) -> Any:
        """Run the base model, or this one as a base model: T5's heads stand beside encoder and decoder."""
        if self.base_model is not self:
            return self.base_model(*args, **kwargs)
        return EncoderDecoder.forward(self, *args, **kwargs)

    def encode(self, *args: Any, **kwargs: Any) -> BaseModelOutput:
        return self.base_model.encode(*args, **kwargs)

    def remember(self, *args: Any, **kwargs: Any) -> None:
        self.base_model.remember(*args, **kwargs)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        return self.base_model.new_cache(batch, capacity)


class Seq2SeqLM(Seq2SeqHead):
    """The logits of each token of the target; a family defines ``logits``."""

    lm_head: Linear

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        labels: Any = None,
        *,
        decoder_lengths: Lengths = None,
        logits_to_keep: int | np.ndarray = 0,
        **kwargs: Any,
    ) -> Seq2SeqOutput:
        """Return logits (B, T, V) and, with labels (B, T), the mean loss over those that are not -100.

        Labels without decoder_input_ids are also the target, behind the start token.  ``logits_to_keep`` computes the
        logits of the last so many positions only, or of those that an array names.  The rest is the base model's.
        """
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = shift_right(labels, self.config, decoder_lengths)
        out = self.read_and_write(
            *(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask),
            decoder_lengths=decoder_lengths,
            **kwargs,
        )
        out.logits = self.logits(kept(out.last_hidden_state, logits_to_keep))
        out.loss = None if labels is None else token_loss(out.logits, labels)
        out.last_hidden_state = None
        return out

    def logits(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def add_head(self, V: int, C: int, std: float, table: Parameter | None) -> None:
        """Set the matrix, which is ``table`` or its own."""
        rng = self.rng if table is None else np.random.default_rng(0)  # first values that are not kept
        self.lm_head = Linear(C, V, bias=False, std=std, rng=rng, dtype=self.dtype)
        if table is not None:
            self.lm_head.weight = table

    def untie(self) -> None:
        """Give the head a matrix of its own, to be loaded."""
        V, C = self.lm_head.weight.shape
        with init.unset():
            self.lm_head = Linear(C, V, bias=False, rng=self.rng, dtype=self.dtype)


class BiasedSeq2SeqLM(Seq2SeqLM):
    """A head whose logits have a bias (1, V) that comes with the file, 0 where it does not, and is not learned."""

    final_logits_bias: Parameter

    def add_head(self, V: int, C: int, std: float, table: Parameter | None) -> None:
        super().add_head(V, C, std, table)
        self.final_logits_bias = Parameter(np.zeros((1, V), self.dtype), requires_grad=False)

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.lm_head.weight, self.final_logits_bias[0])


class EosClassifier(Seq2SeqHead):
    """Sequence classification: the source is written again, and its last end-of-text token has seen all of it."""

    classification_head: "ClassificationHead"

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        labels: Any = None,
        *,
        lengths: Lengths = None,
        decoder_lengths: Lengths = None,
        **kwargs: Any,
    ) -> Seq2SeqOutput:
        """Return logits (B, K) and, with labels, the loss (see ``classification_loss``).

        ValueError unless every source has eos_token_id, and equally often, as transformers asks.
        """
        if decoder_input_ids is None:
            decoder_input_ids, decoder_lengths = shift_right(input_ids, self.config, lengths), lengths
        out = self.read_and_write(
            *(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask),
            lengths=lengths,
            decoder_lengths=decoder_lengths,
            **kwargs,
        )
        rows, columns = self._ends(as_tensor(input_ids)._data, lengths)
        out.logits = self.classification_head(out.last_hidden_state[rows, columns])
        out.loss = None if labels is None else classification_loss(out.logits, labels, self.config)
        out.last_hidden_state = None
        return out

    def _ends(self, ids: np.ndarray, lengths: Lengths) -> tuple[np.ndarray, np.ndarray]:
        """Return the row and column of each sequence's last end."""
        rows, columns = np.nonzero(ids == self.config.eos_token_id)
        owner = rows if lengths is None else np.searchsorted(np.cumsum(lengths), columns, side="right")
        counts = np.bincount(owner, minlength=len(ids) if lengths is None else len(lengths))
        if not counts.all() or (counts != counts[0]).any():
            raise ValueError(
                f"{type(self).__name__}: every sequence must have eos_token_id {self.config.eos_token_id}, all equally "
                f"often; got it {', '.join(map(str, counts))} times."
            )
        last = np.cumsum(counts) - 1
        return rows[last], columns[last]


class Seq2SeqQuestionAnswerer(Seq2SeqHead):
    """Where an answer starts and ends: the source is written again, with two logits for every token."""

    qa_outputs: Linear

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        *,
        lengths: Lengths = None,
        decoder_lengths: Lengths = None,
        **kwargs: Any,
    ) -> Seq2SeqQuestionAnsweringOutput:
        """Return start and end logits (B, T) and, with both positions (B,), the mean of the two losses.

        A position at or past T, where the text was cut, is left out.
        """
        if decoder_input_ids is None:
            decoder_input_ids, decoder_lengths = shift_right(input_ids, self.config, lengths), lengths
        out = self.read_and_write(
            *(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask),
            lengths=lengths,
            decoder_lengths=decoder_lengths,
            **kwargs,
        )
        logits = self.qa_outputs(out.last_hidden_state)  # (B, T, 2)
        start, end = logits[..., 0], logits[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = 0.5 * (span_loss(start, start_positions) + span_loss(end, end_positions))
        read = out.decoder_hidden_states, out.encoder_last_hidden_state, out.encoder_hidden_states
        return Seq2SeqQuestionAnsweringOutput(start, end, loss, *read)


class ClassificationHead(Module):
    """W₂ tanh(W₁ x), with dropout before both."""

    def __init__(self, C: int, labels: int, dropout: float, std: float, rng: np.random.Generator, dtype: Any):
        self.dense = Linear(C, C, std=std, rng=rng, dtype=dtype)
        self.dropout = Dropout(dropout, rng=rng)
        self.out_proj = Linear(C, labels, std=std, rng=rng, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.dropout(np.tanh(self.dense(self.dropout(x)))))
