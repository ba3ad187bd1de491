"""What the decoder families share: their heads, each a matrix on the base model, under the name that checkpoints have.

Sequences of ``lengths`` may lie packed, (1, N); see nn/sequences.py.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from ..nn import Dropout, KVCache, Linear, init
from ..tensor import Tensor, as_tensor
from . import heads
from .heads import classification_loss, kept, next_token_loss
from .model import Model
from .outputs import HeadOutput


class DecoderHead(Model):
    """``base``: the family's base model, kept as ``base_model_prefix``; ``add_head`` puts the matrix on it."""

    base: ClassVar[Callable[..., Model]]

    def __init__(self, config: Any, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        setattr(self, self.base_model_prefix, self.base(config, rng=rng, dtype=dtype))
        self.add_head()

    def add_head(self) -> None:
        raise NotImplementedError

    def matrix(self, outputs: int, bias: bool = True) -> Linear:
        config = self.config
        return Linear(config.hidden_size, outputs, bias, std=config.initializer_range, rng=self.rng, dtype=self.dtype)


class CausalLM(DecoderHead):
    """The logits of each next token.  ``table``: the token vectors of the base model, which may be the matrix too."""

    head: ClassVar[str] = "lm_head"
    table: ClassVar[str]

    def add_head(self) -> None:
        tied = self.config.tie_word_embeddings
        with init.unset() if tied else nullcontext():
            setattr(self, self.head, self.matrix(self.config.vocab_size, bias=False))
        if tied:
            getattr(self, self.head).weight = attrgetter(self.table)(self.base_model).weight

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


class LastTokenClassifier(DecoderHead):
    """Sequence classification: the last token that is not padding has read everything."""

    def add_head(self) -> None:
        self.score = self.matrix(self.config.num_labels, bias=False)

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
        logits = self.score(base.last_hidden_state)  # (B, T, K)
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


class TokenClassifier(DecoderHead, heads.TokenClassifier):
    def add_head(self) -> None:
        self.dropout = Dropout(self.config.head_dropout, rng=self.rng)
        setattr(self, self.head, self.matrix(self.config.num_labels))


class QuestionAnswerer(DecoderHead, heads.QuestionAnswerer):
    def add_head(self) -> None:
        self.qa_outputs = self.matrix(2)
