"""Several texts that one model reads at the same time, each in its row of one cache."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import autograd
from ..nn import KVCache


class Rows:
    """What a model has read, and how it reads on.

    ``texts[b]`` (n,) are the ids that row b's next token follows; of an encoder-decoder those of the decoder, whose
    encoder has read the prompt.  The cache is allocated once; rows that end are dropped from it.  ``limit`` is the
    longest text that fits the model's positions, at most what was asked for.
    """

    def __init__(self, model: Any, batch: int, capacity: int):
        self.model = model
        try:
            self.cache: KVCache = model.new_cache(batch, capacity)
        except MemoryError:
            raise ValueError(
                f"generate: the cache must fit into memory; got {batch} rows of {capacity} tokens. Ask for fewer."
            ) from None
        self.limit = min(capacity, self.cache.capacity)
        self._whole = self.cache.keys, self.cache.values  # with the rows that are not in use
        self._ids = np.zeros((batch, self.limit + 1), np.int64)  # the last token is chosen, and not read
        self._ends = np.zeros(batch, np.int64)

    @property
    def texts(self) -> list[np.ndarray]:
        return [ids[:n] for ids, n in zip(self._ids, self._ends.tolist(), strict=True)]

    def read(self, texts: Sequence[np.ndarray], copies: int = 1) -> np.ndarray:
        """Read whole texts (n,) into an empty cache; return the next token's logits (B copies, V), copies together.

        Texts of unequal length are read packed end to end, so that nothing is computed for padding.
        """
        B = len(texts)
        self._use(B)
        logits = self._predict(*_laid_out(texts))
        for row, text in enumerate(texts):
            self._ids[row, : len(text)] = text
        self._ends[:B] = [len(text) for text in texts]
        if copies == 1:
            return logits
        self._spread(B, copies)
        return np.repeat(logits, copies, axis=0)

    def answer(self, prompts: Sequence[np.ndarray], start: int, copies: int = 1) -> np.ndarray:
        """Let the encoder read the prompts, and the decoder its first token; return logits as ``read``."""
        ids, lengths = _laid_out(prompts)
        self._use(len(prompts))
        with autograd.no_grad():
            given = {} if lengths is None else {"lengths": lengths}
            self.model.remember(self.cache, self.model.encode(ids, **given), **given)
        return self.read([np.array([start])] * len(prompts), copies)

    def read_on(self, ids: np.ndarray) -> np.ndarray:
        """Read more tokens (B, T), the next of each row; return logits (B, V)."""
        T = ids.shape[1]
        for row, end in enumerate(self._ends.tolist()):
            self._ids[row, end : end + T] = ids[row]
        self._ends += T
        return self._predict(ids, None)

    def write(self, tokens: np.ndarray) -> None:
        """Put the chosen tokens (B,) at the end of each text, unread."""
        self._ids[np.arange(len(tokens)), self._ends] = tokens
        self._ends += 1

    def step(self) -> np.ndarray:
        """Read the token that was written last; return logits (B, V)."""
        return self._predict(self._ids[np.arange(len(self._ends)), self._ends - 1][:, None], None)

    def full(self) -> np.ndarray:
        """Return which rows (B,) cannot read what was written last."""
        return self._ends > self.limit

    def forget(self) -> np.ndarray:
        """Drop the older half of every text that is full, and read all anew; return logits (B, V)."""
        half = self.limit // 2 or 1
        texts = [t[-half:].copy() if over else t.copy() for t, over in zip(self.texts, self.full(), strict=True)]
        self.cache.rewind(0)
        return self.read(texts)

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some rows (ascending), and drop the others."""
        cache, end = self.cache, self.cache.length
        for new, old in enumerate(rows.tolist()):
            if new != old:
                cache.keys[:, new, :, :end] = cache.keys[:, old, :, :end]
                cache.values[:, new, :, :end] = cache.values[:, old, :, :end]
        self._select(rows)

    def reorder(self, rows: np.ndarray) -> None:
        """Let row b go on from what row rows[b] holds, of the same prompt."""
        if (rows == np.arange(len(rows))).all():
            return
        memory, mask = self.cache.memory, self.cache.memory_mask
        self.cache.memory, self.cache.memory_mask = {}, None  # the same for all rows of a prompt
        self.cache.reorder(rows)
        self.cache.memory, self.cache.memory_mask = memory, mask
        self._ids, self._ends = self._ids[rows], self._ends[rows]

    def rewind(self, length: int) -> None:
        """Forget every token from ``length`` on."""
        self.cache.rewind(length)
        self._ends = np.minimum(self._ends, length)

    def _predict(self, ids: np.ndarray, lengths: list[int] | None) -> np.ndarray:
        model = self.model
        name = "decoder_input_ids" if hasattr(model, "encode") else "input_ids"
        given: dict[str, Any] = {name: ids, "past_key_values": self.cache, "logits_to_keep": 1}
        if lengths is not None:
            given |= {"lengths": lengths, "logits_to_keep": np.cumsum(lengths) - 1}
        with autograd.no_grad():
            logits = model(**given).logits._data
        return logits[:, -1] if lengths is None else logits[0]

    def _use(self, batch: int) -> None:
        """Take the first rows of the allocated cache into use."""
        self.cache.keys, self.cache.values = (array[:, :batch] for array in self._whole)
        self.cache.lengths = np.zeros(batch, np.int64)

    def _spread(self, batch: int, copies: int) -> None:
        """Copy each row ``copies`` times, in place from the last on: row b to b copies, b copies + 1, ..."""
        rows = np.repeat(np.arange(batch), copies)
        end = self.cache.length
        for array in self._whole:
            for new in range(len(rows) - 1, 0, -1):
                array[:, new, :, :end] = array[:, rows[new], :, :end]
        self.cache.keys, self.cache.values = (array[:, : len(rows)] for array in self._whole)
        self._select(rows)

    def _select(self, rows: np.ndarray) -> None:
        """Let everything but keys and values follow rows."""
        cache = self.cache
        cache.keys, cache.values = (array[:, : len(rows)] for array in self._whole)
        cache.lengths = cache.lengths[rows]
        cache.memory = {layer: (k[rows], v[rows]) for layer, (k, v) in cache.memory.items()}
        cache.memory_mask = None if cache.memory_mask is None else cache.memory_mask[rows]
        self._ids, self._ends = self._ids[rows], self._ends[rows]


def _laid_out(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int] | None]:
    """Return rows (B, T) and None where all are of one length, or else one packed row (1, N) and the lengths."""
    lengths = [len(text) for text in texts]
    if len(set(lengths)) == 1:
        return np.stack(texts), None
    return np.concatenate(texts)[None], lengths
