"""Open weights wherever they lie: which file of a folder, and which format a file has."""

from pathlib import Path

from .reading import broken, map_file, short
from .safetensors_file import open_safetensors
from .shards import open_shards
from .weights import Weights

LAYOUTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def open_weights(path: str | Path) -> Weights:
    """Return the tensors of a model folder or of a file, without reading them.

    A folder: the first of LAYOUTS that it has.  A file: recognised by what it holds, whatever its name: safetensors,
    torch.save's (zip, or the form before it), GGUF (under GGUF's own names: see gguf_names), llama2.c's legacy file
    (under Hugging Face's), or an index of shards.

    CheckpointError, naming the file and the field: whatever is missing, damaged, hostile or of another format.
    """
    path = Path(path)
    if not path.is_dir():
        return _open_index(path) if path.name.endswith(".index.json") else _open_file(path)
    for name in LAYOUTS:
        if (path / name).is_file():
            if name.endswith(".index.json"):
                return _open_index(path / name)
            return open_safetensors(path / name) if name == "model.safetensors" else _open_torch(path / name)
    raise broken(path, "the folder", f"hold one of {', '.join(LAYOUTS)}", "none of them", "is it a model's folder?")


def _open_index(path: Path) -> Weights:
    return open_shards(path, open_safetensors if path.name.endswith(".safetensors.index.json") else _open_torch)


def _open_torch(path: Path) -> Weights:
    from .torch_file import open_torch

    return open_torch(path)


def _open_file(path: Path) -> Weights:
    head = map_file(path)[:9].tobytes()
    if head[8:9] == b"{":
        return open_safetensors(path)
    if head[:4] == b"PK\3\4" or head[:1] == b"\x80":
        return _open_torch(path)
    if head[:4] == b"GGUF":
        from .gguf_file import open_gguf

        return open_gguf(path)
    from .llama2c import is_llama2c, open_llama2c

    if is_llama2c(path):
        return open_llama2c(path)
    raise broken(path, "the file", "be safetensors, torch.save's, GGUF or llama2.c's", f"one that begins {short(head)}")
