"""Write a model as the field keeps it, so that transformers loads it."""

from pathlib import Path
from typing import Any

from ..checkpoint import save_model
from ..models import Model


def save(model: Model, folder: str | Path, tokenizer: Any = None, *, max_shard_bytes: int | None = None) -> None:
    """Write config.json and model.safetensors, and the tokenizer's files if it is given, each whole or not at all.

    With ``max_shard_bytes``, weights that are larger are written in parts with an index, as the field does.

    CheckpointError where the disk is full or the folder cannot be written to.
    """
    config = {"architectures": [type(model).__name__], "dtype": str(model.dtype), **model.config.to_dict()}
    save_model(folder, config, model.state_dict(), max_shard_bytes)
    if tokenizer is not None:
        tokenizer.save(folder)
