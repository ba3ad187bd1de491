"""What stands on a base model: heads that several families share, and the losses of all.

A labelled position n with logits z_n costs -log softmax(z_n)[label_n]; a loss is the mean over the labels that are not
-100.  Sequences of ``lengths`` may lie packed, (1, N); see nn/sequences.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import functional as F
from ..nn import KVCache, Linear
from ..tensor import Tensor, as_tensor
from .model import Model
from .outputs import HeadOutput, QuestionAnsweringOutput


class CausalLM(Model):
    """A base model and a matrix that gives each next token's logits; a family names both and ties them or not."""

    head: str = "lm_head"

    def tie(self, table: Any) -> None:
        """Take the table of token vectors as the head's matrix, if the configuration says so."""
        if self.config.tie_word_embeddings:
            getattr(self, self.head).weight = table.weight

    def forward(
        self,
        input_ids: Any,
        labels: Any = None,
        *,
        lengths: Sequence[int] | None = None,
        logits_to_keep: int | np.ndarray = 0,
        **kwargs: Any,
    ) -> HeadOutput:
        """Return logits (B, T, V) and, with labels (B, T), the loss: position t is judged by labels[t + 1].

        Labels of -100 are left out.  ``logits_to_keep`` computes logits for the last so many positions only, or for
        those that an array names.  The other arguments are the base model's.
        """
        base = self.base_model(input_ids, lengths=lengths, **kwargs)
        logits = self.logits(kept(base.last_hidden_state, logits_to_keep))
        loss = None if labels is None else next_token_loss(logits, labels, lengths)
        return HeadOutput(logits, loss, base.past_key_values, base.hidden_states)

    def logits(self, x: Tensor) -> Tensor:
        return getattr(self, self.head)(x)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        return self.base_model.new_cache(batch, capacity)


class LastTokenClassifier(Model):
    """Sequence classification by a decoder: the last token that is not padding has read everything."""

    head: str = "score"

    def forward(
        self,
        input_ids: Any,
        labels: Any = None,
        *,
        attention_mask: Any = None,
        lengths: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> HeadOutput:
        """Return logits (B, K) and, with labels, the loss (see ``classification_loss``).

        Without packing, the last token is the last that is not ``pad_token_id``, as transformers finds it.
        ValueError for several sequences in rows and no pad_token_id.
        """
        base = self.base_model(input_ids, attention_mask=attention_mask, lengths=lengths, **kwargs)
        logits = getattr(self, self.head)(base.last_hidden_state)  # (B, T, K)
        if lengths is not None:
            pooled = logits[0, np.cumsum(lengths) - 1]
        else:
            pooled = logits[np.arange(len(logits)), self._last(as_tensor(input_ids)._data)]
        loss = None if labels is None else classification_loss(pooled, labels, self.config)
        return HeadOutput(pooled, loss, base.past_key_values, base.hidden_states)

    def _last(self, ids: np.ndarray) -> np.ndarray:
        pad = self.config.pad_token_id
        if pad is not None:
            return (np.arange(ids.shape[1]) * (ids != pad)).argmax(axis=-1)
        if len(ids) > 1:
            raise ValueError(
                f"{type(self).__name__}: with several sequences the configuration must have pad_token_id; got None. "
                "Pack them instead: input_ids (1, N) and lengths."
            )
        return np.array([ids.shape[1] - 1])


class TokenClassifier(Model):
    """A class for every token: dropout, where the family has it, and a linear layer."""

    head: str = "classifier"

    def forward(self, input_ids: Any, labels: Any = None, **kwargs: Any) -> HeadOutput:
        """Return logits (B, T, K) and, with labels (B, T), the loss over those that are not -100."""
        base = self.base_model(input_ids, **kwargs)
        x = base.last_hidden_state
        logits = getattr(self, self.head)(self.dropout(x) if hasattr(self, "dropout") else x)
        loss = None if labels is None else token_loss(logits, labels)
        return HeadOutput(logits, loss, base.past_key_values, base.hidden_states)


class QuestionAnswerer(Model):
    """Where an answer starts and ends: dropout, where the family has it, and two logits for every token."""

    qa_outputs: Linear

    def forward(
        self, input_ids: Any, start_positions: Any = None, end_positions: Any = None, **kwargs: Any
    ) -> QuestionAnsweringOutput:
        """Return start and end logits (B, T) and, with both positions (B,), the mean of the two losses.

        A position at or past T, where the text was cut, is left out.
        """
        base = self.base_model(input_ids, **kwargs)
        x = base.last_hidden_state
        logits = self.qa_outputs(self.dropout(x) if hasattr(self, "dropout") else x)  # (B, T, 2)
        start, end = logits[..., 0], logits[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = 0.5 * (span_loss(start, start_positions) + span_loss(end, end_positions))
        return QuestionAnsweringOutput(start, end, loss, base.hidden_states)


def kept(x: Tensor, logits_to_keep: int | np.ndarray) -> Tensor:
    """Return the positions of x (B, T, C) whose logits are asked for: all for 0, the last n, or those of an array."""
    if isinstance(logits_to_keep, np.ndarray):
        return x[:, logits_to_keep]
    return x[:, -logits_to_keep:] if logits_to_keep else x


def next_token_loss(logits: Tensor, labels: Any, lengths: Sequence[int] | None = None) -> Tensor:
    """Return the mean negative log-probability of each next label: logits (B, T, V), labels (B, T) -> ()."""
    labels = as_tensor(labels)
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels must have the shape of input_ids, {logits.shape[:2]}; got {labels.shape}.")
    following = np.full(labels.shape, -100, np.int64)  # the last position has no next token
    following[:, :-1] = labels._data[:, 1:]
    if lengths is not None:
        following[0, np.cumsum(lengths) - 1] = -100
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), following.reshape(-1))


def token_loss(logits: Tensor, labels: Any) -> Tensor:
    """Return the mean over labelled positions: logits (B, T, K), labels (B, T), -100 where there is none -> ()."""
    labels = as_tensor(labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels must have the shape of input_ids, {logits.shape[:-1]}; got {labels.shape}.")
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def span_loss(logits: Tensor, positions: Any) -> Tensor:
    """Return the mean over sequences: logits (B, T), positions (B,), left out at or past T -> ()."""
    T = logits.shape[1]
    where = np.asarray(positions)
    return F.cross_entropy(logits, np.where(where < T, where, T), ignore_index=T)


def classification_loss(logits: Tensor, labels: Any, config: Any) -> Tensor:
    """Return the loss of sequence classification, logits (B, K), by ``problem_type``.

    "regression": the mean squared difference from labels (B,) or (B, K).  "single_label_classification": cross-entropy,
    labels (B,).  "multi_label_classification": the mean over B K of the binary cross-entropy of sigmoid(z),
    max(z, 0) - z y + log(1 + e^-|z|), labels (B, K) in [0, 1].  None: as transformers chooses it, by K and by dtype.
    """
    y, K = as_tensor(labels), logits.shape[-1]
    kind = config.problem_type or (
        "regression"
        if K == 1
        else "single_label_classification"
        if y.dtype.kind in "iu"
        else "multi_label_classification"
    )
    if kind == "single_label_classification":
        return F.cross_entropy(logits, y.reshape(-1))
    y = y.astype(logits.dtype)
    if y.size != logits.size:
        raise ValueError(f"labels must be one number per logit, {logits.shape}; got {y.shape}.")
    y = y.reshape(logits.shape)
    if kind == "regression":
        return F.mse_loss(logits, y)
    return (np.maximum(logits, 0) - logits * y + np.log1p(np.exp(-abs(logits)))).mean()
