"""What stands on a base model: heads that several families share, and the losses of all.

A labelled position n with logits z_n costs -log softmax(z_n)[label_n]; a loss is the mean over the labels that are not
-100.  Sequences of ``lengths`` may lie packed, (1, N); see nn/sequences.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import functional as F
from ..nn import Linear
from ..tensor import Tensor, as_tensor
from .model import Model
from .outputs import HeadOutput, QuestionAnsweringOutput


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
