"""The keys and values that generation keeps, so that a token is computed once."""

from typing import Any

import numpy as np

from ..tensor import Tensor
from ..tensor.core import wrap


class KVCache:
    """Keys and values of the positions seen so far, for every layer, in arrays that are allocated once.

    Shapes: ``keys`` and ``values`` (layers, batch, heads, capacity, D).  Row b holds ``lengths[b]`` positions: prompts
    of different length lie each at the start of its row.  An encoder-decoder also keeps the keys and values of the text
    that was read, in ``memory``, with the mask of its padding.  Nothing is recorded on the tape.
    """

    def __init__(self, layers: int, batch: int, heads: int, capacity: int, D: int, dtype: Any):
        self.keys = np.zeros((layers, batch, heads, capacity, D), dtype)  # zeros take pages when written, not now
        self.values = np.zeros(self.keys.shape, dtype)
        self.lengths = np.zeros(batch, np.int64)
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys and values (batch, heads, S, D)
        self.memory_mask: Any = None  # (batch, S), False where it is padding; None where nothing is

    @property
    def batch(self) -> int:
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @lengths.setter
    def lengths(self, lengths: np.ndarray) -> None:
        """``length``: the number of positions in the fullest row.  ``even``: whether all rows hold as many."""
        self._lengths = lengths.copy()
        self._lengths.flags.writeable = False  # a write would pass by the two numbers below
        self.length = int(lengths.max(initial=0))
        self.even = bool((lengths == self.length).all())

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of T new positions of one layer after those of each row; return all up to the last.

        Shapes: (B, G, T, D) -> (B, G, length + T, D).  ``advance`` moves ``lengths`` once every layer has written.
        """
        T = k.shape[2]
        if self.even:
            start = self.length
            self.keys[layer, :, :, start : start + T] = k._data
            self.values[layer, :, :, start : start + T] = v._data
        else:
            for b, start in enumerate(self.lengths.tolist()):
                self.keys[layer, b, :, start : start + T] = k._data[b]
                self.values[layer, b, :, start : start + T] = v._data[b]
        end = self.length + T
        return wrap(self.keys[layer, :, :, :end]), wrap(self.values[layer, :, :, :end])

    def fill(self, layer: int, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> None:
        """Write packed keys and values (1, G, N, D) of whole sequences, each to the start of its row."""
        start: int = 0
        for b, n in enumerate(lengths):
            self.keys[layer, b, :, :n] = k._data[0, :, start : start + n]
            self.values[layer, b, :, :n] = v._data[0, :, start : start + n]
            start += n

    def advance(self, T: int | tuple[int, ...]) -> None:
        """Count T new positions in every row, or so many in each."""
        self.lengths = self.lengths + np.asarray(T)

    def reorder(self, rows: np.ndarray) -> None:
        """Let row b go on from what row ``rows[b]`` holds, as beam search asks."""
        end = self.length
        self.keys[:, :, :, :end] = self.keys[:, rows, :, :end]
        self.values[:, :, :, :end] = self.values[:, rows, :, :end]
        self.lengths = self.lengths[rows]
        self.memory = {layer: (wrap(k._data[rows]), wrap(v._data[rows])) for layer, (k, v) in self.memory.items()}
        self.memory_mask = None if self.memory_mask is None else self.memory_mask[rows]

    def rewind(self, length: int) -> None:
        """Forget every position from ``length`` on."""
        self.lengths = np.minimum(self.lengths, length)
