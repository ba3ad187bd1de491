"""Where a model comes from: its configuration and its weights, whatever the format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import load_model


@dataclass
class Source:
    where: str  # for messages
    config: dict[str, Any]
    weights: Any


class _Read:
    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def read(self, dtype):
        return self.array.astype(dtype)


def open_source(path: str | Path) -> Source:
    config, weights = load_model(path)
    return Source(str(path), config, {name: _Read(array) for name, array in weights.items()})
