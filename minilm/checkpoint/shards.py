"""Weights spread over several files, with an index that says which tensor lies where.

    model.safetensors.index.json    {"metadata": {"total_size": ...}, "weight_map": {TENSOR: FILE, ...}}
    model-00001-of-00003.safetensors ...

The index comes from strangers, so the files it names must lie beside it: a plain name, and where that is a symbolic
link, one that leads to a file of the same folder or into the ``blobs`` of the Hugging Face cache that the folder is
part of (``blobs/HASH`` beside ``snapshots/REVISION/``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .reading import broken, read_json, short
from .weights import Entry, Weights

Opener = Callable[[Path], Weights]


def open_shards(index: Path, open_file: Opener) -> Weights:
    """Return the tensors of all shards, in the order of the index.

    CheckpointError: a file name that leads elsewhere, a shard that is missing or broken, a tensor that is not in its
    shard, or one in a shard that the index does not have there.
    """
    content = read_json(index)
    weight_map, metadata = content.get("weight_map"), content.get("metadata", {})
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise broken(index, "weight_map", "be a JSON object of file names", short(weight_map))
    if not isinstance(metadata, dict):
        raise broken(index, "metadata", "be a JSON object", short(metadata))
    paths = {file: _beside(index, file) for file in sorted(set(weight_map.values()))}
    shards = {file: open_file(path) for file, path in paths.items()}
    for file, shard in shards.items():
        for name in shard:
            if weight_map.get(name) != file:
                told = f"in {short(weight_map[name])}" if name in weight_map else "nowhere"
                raise broken(index, f"weight_map: {short(name)}", f"be in {file}, which holds it", told)

    def entry(name: str) -> Entry:
        shard = shards[weight_map[name]]
        if name not in shard:
            raise broken(index, f"weight_map: {short(name)}", f"be in {short(weight_map[name])}", "a shard without it")
        return shard[name]

    format = next((shard.format for shard in shards.values()), "safetensors")
    return Weights(index, format, [entry(name) for name in weight_map], metadata)


def _beside(index: Path, file: str) -> Path:
    """Return the path of a shard.  CheckpointError where the name leads out of the folder."""
    field = f"weight_map: the file name {short(file)}"
    if not file or file in (".", "..") or set(file) & set("/\\:\0"):
        raise broken(index, field, "be a plain name, without a folder", "another", "do not trust this model")
    path = index.parent / file
    try:
        folder, end = index.parent.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise broken(index, field, "lead to a file", error) from None
    allowed = {folder}
    if folder.parent.name == "snapshots":
        allowed.add(folder.parent.parent / "blobs")
    if end.parent not in allowed:
        must = "lead to a file of its folder, or of the blobs of the cache around it"
        raise broken(index, field, must, "a link to elsewhere", "put the file itself there")
    if not path.is_file():
        raise broken(index, field, "lead to a file", "none", "fetch the shard that is missing")
    return path


def plan(sizes: dict[str, int], most: int) -> list[list[str]]:
    """Return the names of each shard: in order, at most ``most`` bytes in each, one that is larger alone.

    >>> plan({"a": 4, "b": 4, "c": 9, "d": 1}, 8)
    [['a', 'b'], ['c'], ['d']]
    """
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards


def shard_name(number: int, of: int) -> str:
    return f"model-{number:05d}-of-{of:05d}.safetensors"


def index_content(plan: list[list[str]], sizes: dict[str, int]) -> dict[str, Any]:
    """Return what the index of shards named by shard_name holds."""
    weight_map = {name: shard_name(i, len(plan)) for i, names in enumerate(plan, 1) for name in names}
    return {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
