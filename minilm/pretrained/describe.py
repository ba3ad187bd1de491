"""What a model is, from its configuration and the headers of its files: no weight is read."""

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..checkpoint import Entry
from ..models import tasks as tasks_of
from .loading import build
from .source import open_source

TRAINING = 16  # bytes a parameter: float32 value, gradient and AdamW's two moments


@dataclass(frozen=True)
class Part:
    """Some of a model's tensors: how many there are alike (the layers of a stack), and their parameters in all."""

    name: str
    copies: int
    parameters: int


@dataclass(frozen=True)
class Description:
    """What ``inspect`` tells.

    ``bytes_to_run``: the weights in float32.  ``bytes_to_train``: weights, gradients and AdamW's moments, beside
    activations.  ``cache_bytes``: keys and values of one token; None where there is no cache.  ``refusal``: why minilm
    does not run this model, or None.
    """

    path: Path
    format: str
    config: dict[str, Any]
    architecture: str | None
    tasks: tuple[str, ...]
    parts: tuple[Part, ...]
    stored: dict[str, int]  # parameters by the type they are stored in
    file_bytes: int
    parameters: int
    cache_bytes: int | None
    refusal: str | None

    @property
    def bytes_to_run(self) -> int:
        return 4 * self.parameters

    @property
    def bytes_to_train(self) -> int:
        return TRAINING * self.parameters


def inspect(path: str | Path, revision: str | None = None) -> Description:
    """Describe a model folder, a file, or a model on the hub.  CheckpointError where its files cannot be read."""
    source = open_source(path, revision)
    entries = [e for e in source.weights.values() if e.dtype[0] in "FBQ" and e.dtype != "BOOL"]
    stored: dict[str, int] = {}
    for entry in entries:
        stored[entry.dtype] = stored.get(entry.dtype, 0) + prod(entry.shape)
    architecture, cache_bytes, refusal = None, None, None
    tasks: tuple[str, ...] = ()
    try:
        model = build(source)
        architecture, tasks = type(model).__name__, tuple(tasks_of(model.config.model_type))
        try:
            cache = model.new_cache(1, 1)
            cache_bytes = cache.keys.nbytes + cache.values.nbytes
        except ValueError:
            pass  # a model that does not generate
        surplus = model.names(source.weights)[1]
        entries = [entry for entry in entries if entry.name not in surplus]
    except ValueError as error:
        refusal = str(error)
    return Description(
        *(source.path, source.weights.format, source.config, architecture, tasks, _parts(entries), stored),
        source.weights.nbytes,
        sum(prod(entry.shape) for entry in entries),
        cache_bytes,
        refusal,
    )


def _parts(entries: list[Entry]) -> tuple[Part, ...]:
    """Group tensors by the module they belong to; the layers of a stack, numbered, count as copies of one part."""
    found: dict[str, tuple[set[str], int]] = {}
    for entry in entries:
        numbered = re.match(r"(.*?\.)(\d+)\.([^.]+)", entry.name)
        if numbered:
            name, copy = f"{numbered[1]}N.{numbered[3]}", numbered[2]
        else:
            name, copy = entry.name.rsplit(".", 1)[0], ""
        copies, count = found.get(name, (set(), 0))
        found[name] = copies | {copy}, count + prod(entry.shape)
    return tuple(Part(name, len(copies), count) for name, (copies, count) in found.items())
