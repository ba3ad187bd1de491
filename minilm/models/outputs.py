"""What models return, under HF's names, and the cache of keys and values that generation keeps."""

from dataclasses import dataclass

import numpy as np

from ..tensor import Tensor
from ..tensor.core import wrap


class KVCache:
    """Keys and values of the positions seen so far, for every layer, in arrays that are allocated once.

    Shapes: (layers, batch, heads, capacity, D) each.  ``length`` positions are filled; nothing is recorded on the tape.
    """

    def __init__(self, layers: int, batch: int, heads: int, capacity: int, D: int, dtype: np.dtype):
        self.keys = np.zeros((layers, batch, heads, capacity, D), dtype)
        self.values = np.zeros_like(self.keys)
        self.capacity, self.length = capacity, 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of T new positions of one layer; return those of all positions so far.

        Shapes: (B, H, T, D) -> (B, H, length + T, D).  ``advance`` moves ``length`` once every layer has written.
        """
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k._data
        self.values[layer, :, :, self.length : end] = v._data
        return wrap(self.keys[layer, :, :, :end]), wrap(self.values[layer, :, :, :end])

    def advance(self, T: int) -> None:
        self.length += T


@dataclass
class BaseModelOutput:
    last_hidden_state: Tensor  # (B, T, C)
    past_key_values: KVCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None  # the embeddings, then each block's output; the last one normalized


@dataclass
class CausalLMOutput:
    logits: Tensor  # (B, T, V)
    loss: Tensor | None = None
    past_key_values: KVCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
