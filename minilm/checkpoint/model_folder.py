"""A model as the field keeps it: ``config.json`` and ``model.safetensors``, or its shards, in one folder."""

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .files import CheckpointError, disk, replacing, write_file
from .opening import open_weights
from .reading import read_json
from .safetensors_file import stored_sizes, write_arrays
from .shards import index_content, plan, shard_name
from .weights import Entry

HINT = "make room, or choose another folder; what was there before is untouched"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def save_model(
    folder: str | Path,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray | Entry],
    max_shard_bytes: int | None = None,
) -> None:
    """Write ``config`` to config.json and ``weights`` as safetensors in their own dtypes, each whole or not at all.

    One model.safetensors; or, where ``max_shard_bytes`` is given and less than all, as many shards as it takes, with
    an index, named as Hugging Face names them.  Arrays are written one at a time, and entries of open weights read as
    it goes, so memory does not grow.  Weights that were in the folder are replaced when all the new ones are on the
    disk.

    CheckpointError where the disk is full or the folder cannot be written to, or for a dtype that the format lacks.
    """
    folder = Path(folder)
    sizes = stored_sizes(folder, weights)
    shards = [list(weights)] if max_shard_bytes is None else plan(sizes, max_shard_bytes)
    with disk(folder, HINT):
        folder.mkdir(parents=True, exist_ok=True)
        if len(shards) <= 1:
            with replacing(folder / WHOLE) as path:
                write_arrays(path, weights)
            _remove_shards(folder, keep=set())
        else:
            _save_shards(folder, weights, shards, sizes)
        with replacing(folder / "config.json") as path:
            write_file(path, (json.dumps(config, indent=2) + "\n").encode())


def _save_shards(
    folder: Path, weights: Mapping[str, np.ndarray | Entry], shards: list[list[str]], sizes: dict[str, int]
) -> None:
    """Write every shard beside its place; then put the shards in place, and last the index.

    Shards of an earlier save that bear the same names would mix with the new ones if the process were killed between
    two renamings.  Their index is therefore removed before: the folder is then refused, never misread.
    """
    finals = [folder / shard_name(i, len(shards)) for i in range(1, len(shards) + 1)]
    with ExitStack() as renamed_last_first:
        index = renamed_last_first.enter_context(replacing(folder / INDEX))
        paths = [renamed_last_first.enter_context(replacing(final)) for final in finals]
        for path, names in zip(paths, shards, strict=True):
            write_arrays(path, {name: weights[name] for name in names})
        write_file(index, (json.dumps(index_content(shards, sizes), indent=2) + "\n").encode())
        if any(final.exists() for final in finals):
            (folder / INDEX).unlink(missing_ok=True)
    (folder / WHOLE).unlink(missing_ok=True)
    _remove_shards(folder, keep={INDEX, *(final.name for final in finals)})


def _remove_shards(folder: Path, keep: set[str]) -> None:
    """Remove the index and the shards that an earlier save left, but for those to keep."""
    for path in [folder / INDEX, *folder.glob("model-*-of-*.safetensors")]:
        if path.name not in keep and (path.name == INDEX or SHARD.fullmatch(path.name)):
            path.unlink(missing_ok=True)


def load_model(folder: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the configuration and the weights of a model folder, each array mapped and in the dtype of its file.

    CheckpointError: no such folder, a file that is missing, cut short or something else.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"a model must be a folder; got {str(folder)!r}, which is none; check its name")
    return read_config(folder), {name: entry.read() for name, entry in open_weights(folder).items()}


def read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json in a model folder holds.  CheckpointError: it is missing, or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        hint = "train one, or go on with its training: minilm train --resume --out " + str(folder)
        raise CheckpointError(f"a model folder must hold config.json; got {str(folder)!r} without it; {hint}")
    return read_json(path)
