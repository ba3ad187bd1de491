"""Where a model comes from: its configuration, weights and vocabulary, whatever the format and wherever it lies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import CheckpointError, Weights, open_weights
from ..checkpoint.model_folder import read_config
from ..text import Tokenizer
from . import hub


@dataclass(frozen=True)
class Source:
    """``config`` as in config.json, ``weights`` under Hugging Face's names, read when asked for."""

    path: Path
    config: dict[str, Any]
    weights: Weights


def locate(path: str | Path, revision: str | None = None) -> Path:
    """Return a path that exists as it is; fetch what looks like the name of a model on the hub.

    CheckpointError where it is neither.
    """
    found = Path(path)
    if found.exists():
        if revision is not None:
            raise CheckpointError(
                f"a revision must be of a model on the hub; got {revision!r}, and {str(path)!r} is here"
            )
        return found
    if isinstance(path, str) and hub.is_id(path):
        return hub.fetch(path, revision)
    raise CheckpointError(f"a model must be a folder, a file, or a name on the hub; got {str(path)!r}; check its name")


def open_source(path: str | Path, revision: str | None = None) -> Source:
    """Open a model without reading its weights.  CheckpointError, naming the file and the field, where it cannot be."""
    found = locate(path, revision)
    if found.is_dir():
        gguf = sorted(found.glob("*.gguf"))
        if (found / "config.json").is_file() or len(gguf) != 1:
            return Source(found, read_config(found), open_weights(found))
        found = gguf[0]
    weights = open_weights(found)
    if weights.format == "gguf":
        from ..checkpoint.gguf_names import hf_weights

        weights = hf_weights(weights)
    if weights.config is not None:
        return Source(found, weights.config, weights)
    return Source(found, read_config(found.parent), weights)


def load_tokenizer(path: str | Path, revision: str | None = None) -> Tokenizer:
    """Load the vocabulary of a published model: from its folder, from inside a GGUF file, or beside a llama2.c file.

    ValueError where there is none, or one that cannot be read.
    """
    found = locate(path, revision)
    if found.is_dir():
        gguf = sorted(found.glob("*.gguf"))
        if (found / "config.json").is_file() or (found / "tokenizer.json").is_file() or len(gguf) != 1:
            return Tokenizer.load(found)
        found = gguf[0]
    if found.suffix == ".json":
        return Tokenizer.load(found)
    weights = open_weights(found)
    if weights.format == "gguf":
        return Tokenizer.from_gguf(weights.metadata)
    if weights.format == "llama2.c":
        assert weights.config is not None
        beside = found.with_name("tokenizer.bin")
        if not beside.is_file():
            raise CheckpointError(f"{found}: tokenizer.bin must lie beside it, for its vocabulary; got none")
        return Tokenizer.from_llama2c(beside, weights.config["vocab_size"])
    return Tokenizer.load(found.parent)
