"""A model as the field keeps it: ``config.json`` and ``model.safetensors`` in one folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import CheckpointError, disk, read_arrays, replacing, write_arrays, write_file

HINT = "make room, or choose another folder; what was there before is untouched"


def save_model(folder: str | Path, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
    """Write ``config`` to config.json and ``weights`` to model.safetensors, each whole or not at all.

    CheckpointError where the disk is full or the folder cannot be written to.
    """
    folder = Path(folder)
    with disk(folder, HINT):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.safetensors") as path:
            write_arrays(path, weights)
        with replacing(folder / "config.json") as path:
            write_file(path, (json.dumps(config, indent=2) + "\n").encode())


def load_model(folder: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the configuration and the weights of a model folder.

    CheckpointError: no such folder, a file that is missing, cut short or something else.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"a model must be a folder; got {str(folder)!r}, which is none; check its name")
    path = folder / "config.json"
    if not path.is_file():
        hint = "train one, or go on with its training: minilm train --resume --out " + str(folder)
        raise CheckpointError(f"a model folder must hold config.json; got {str(folder)!r} without it; {hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} must be JSON; got: {error}; take another copy of it") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must be a JSON object; got {type(config).__name__}; take another copy of it")
    return config, read_arrays(folder / "model.safetensors")
