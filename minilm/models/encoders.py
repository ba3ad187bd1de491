"""What the encoder families share: the heads of masked LMs and of classifiers of sequences, and checks of ids.

Sequences of ``lengths`` may lie packed, (1, N); see nn/sequences.py.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..nn import Embedding, Linear, Module, init, parameter
from ..tensor import Tensor, as_tensor
from .heads import classification_loss, kept, token_loss
from .model import Model
from .outputs import BaseModelOutput, HeadOutput


class Parts(Module):
    """Modules and parameters under the names that a checkpoint has; what they do stands in the module above."""

    def __init__(self, /, **parts: Any):
        vars(self).update(parts)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class MaskedLM(Model):
    """A base model and a head that says which token stands at each position; a family defines ``logits``."""

    biases: ClassVar[tuple[str, ...]] = ()  # names of the head's bias: files hold it once or under each

    def forward(
        self, input_ids: Any, labels: Any = None, *, logits_to_keep: int | np.ndarray = 0, **kwargs: Any
    ) -> HeadOutput:
        """Return logits (B, T, V) and, with labels (B, T), the loss over those that are not -100.

        ``logits_to_keep`` computes logits, and judges labels, at the last so many positions only, or at those that an
        array of indices names: with packed sequences, the masked ones.  The other arguments are the base model's.
        """
        base = self.base_model(input_ids, **kwargs)
        logits = self.logits(kept(base.last_hidden_state, logits_to_keep))
        loss = None if labels is None else token_loss(logits, kept(as_tensor(labels), logits_to_keep))
        return HeadOutput(logits, loss, hidden_states=base.hidden_states)

    def logits(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def names(self, published: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """As of every model; a bias that the file holds under one of its names is found under the other too."""
        matched, unmatched = super().names(published)
        held = [matched[name] for name in self.biases if name in matched]
        return {**dict.fromkeys(self.biases, held[0]), **matched} if held else matched, unmatched


class SequenceClassifier(Model):
    """A class for each sequence; a family defines ``scores``."""

    def forward(
        self, input_ids: Any, labels: Any = None, *, lengths: Sequence[int] | None = None, **kwargs: Any
    ) -> HeadOutput:
        """Return logits (B, K) and, with labels, the loss (see ``classification_loss``)."""
        base = self.base_model(input_ids, lengths=lengths, **kwargs)
        logits = self.scores(base, lengths)
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutput(logits, loss, hidden_states=base.hidden_states)

    def scores(self, base: BaseModelOutput, lengths: Sequence[int] | None) -> Tensor:
        raise NotImplementedError

    def loss(self, logits: Tensor, labels: Any) -> Tensor:
        return classification_loss(logits, labels, self.config)


def decoder(table: Embedding, config: Any, std: float, rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
    """Return {"decoder": x Eᵀ + b, "bias": b}, E being the table of token vectors, if the configuration ties it.

    If not, both the matrix and b are the decoder's own, and files hold another "bias", which nothing reads.
    """
    V, C = table.weight.shape
    tied = config.tie_word_embeddings
    with init.unset() if tied else nullcontext():
        made = Linear(C, V, bias=False, std=std, rng=rng, dtype=dtype)
    bias = parameter(init.zeros((V,), dtype))
    made.weight, made.bias = (table.weight, bias) if tied else (made.weight, parameter(init.zeros((V,), dtype)))
    return {"bias": bias, "decoder": made}


def first_tokens(x: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """Return each sequence's first vector: (B, T, C) -> (sequences, C)."""
    return x[:, 0] if lengths is None else x[0, np.cumsum([0, *lengths[:-1]])]


def checked_ids(name: str, what: str, ids: Any, shape: tuple[int, int], limit: int) -> np.ndarray:
    """Return ids (B, T), or (1, T) for all rows alike, of integers in [0, limit)."""
    found = as_tensor(ids)._data
    if found.shape not in (shape, (1, shape[1])):
        raise ValueError(f"{name}: {what} must be (B, T) = {shape}, one per token; got {found.shape}.")
    if found.size and (found.min() < 0 or found.max() >= limit):
        bad = found[(found < 0) | (found >= limit)].flat[0]
        raise IndexError(f"{name}: {what} must lie in [0, {limit}); got {bad}.")
    return found
