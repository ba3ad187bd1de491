"""Commands that read, describe and convert published models."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter


def add(app: App) -> None:
    app.command(fill_mask)
    app.command(embed)
    app.command(convert)
    app.command(inspect)


def fill_mask(model: str, text: str, /, *, top_k: int = 5) -> None:
    """Guess the masked words of a text.

    Parameters
    ----------
    model: str
        A BERT, RoBERTa or DistilBERT with its masked-LM head: a folder, or a name on the hub.
    text: str
        With the model's mask token in it, for example "Paris is the [MASK] of France."
    top_k: int
        Guesses for each mask.
    """
    from rich.console import Console
    from rich.table import Table

    from ..generate import fill_mask as guess
    from ..pretrained import load, load_tokenizer, locate

    path = locate(model)
    found = guess(load(path, task="masked-lm"), load_tokenizer(path), text, top_k)
    for i, guesses in enumerate(found):
        table = Table("probability", "token", "text", title=f"mask {i + 1}" if len(found) > 1 else None, box=None)
        for one in guesses:
            table.add_row(f"{one.probability:.4f}", one.token, one.text)
        Console().print(table, markup=False)


def embed(
    model: str,
    file: Path,
    /,
    *,
    out: Path | None = None,
    batch_tokens: int = 2048,
) -> None:
    """Turn each line of a file into a vector.

    Parameters
    ----------
    model: str
        A sentence-transformers folder, any encoder's folder (then the mean over tokens is taken), or a name on the hub.
    file: Path
        Text, a sentence on each line; - reads what is piped in.
    out: Path
        An .npy file, (lines, width) float32, or a .jsonl file. Default: JSON lines on the terminal.
    batch_tokens: int
        Tokens that are computed at once.
    """
    import numpy as np

    from .._kernels.process import tune_process
    from ..checkpoint.files import replacing
    from ..embed import load_embedder

    if out is not None and out.suffix not in (".npy", ".jsonl"):
        raise ValueError(f"--out must end in .npy or .jsonl; got {str(out)!r}")
    tune_process()
    lines = (sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")).splitlines()
    vectors = load_embedder(model).encode(lines, batch_tokens=batch_tokens)
    if out is not None and out.suffix == ".npy":
        with replacing(out) as path, path.open("wb") as target:
            np.save(target, vectors)
        return
    pairs = zip(lines, vectors.tolist(), strict=True)
    text = (json.dumps({"text": line, "embedding": vector}, ensure_ascii=False) + "\n" for line, vector in pairs)
    if out is not None:
        with replacing(out) as path, path.open("w", encoding="utf-8") as target:
            target.writelines(text)
    else:
        sys.stdout.writelines(text)


def convert(model: str, folder: Path, /, *, dtype: str | None = None, max_shard_size: int | None = None) -> None:
    """Write a model of any format as config.json, model.safetensors and tokenizer.json.

    Parameters
    ----------
    model: str
        A folder, a GGUF or llama2.c file, or a name on the hub.
    folder: Path
        Where to write to.
    dtype: str
        float64, float32, float16 or bfloat16. Default: as the numbers are stored; quantised ones become float32.
    max_shard_size: int
        Bytes: weights that are larger are written as several files.
    """
    from ..pretrained import convert as write

    print(write(model, folder, dtype=dtype, max_shard_bytes=max_shard_size))


def inspect(model: str, /, *, jsonl: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """Tell what a model is, and what memory it takes, without reading its weights.

    Parameters
    ----------
    model: str
        A folder, a file of weights, or a name on the hub.
    jsonl: bool
        Print JSON.
    """
    from dataclasses import asdict

    from ..pretrained import inspect as describe

    found = describe(model)
    if jsonl:
        values = asdict(found) | {"bytes_to_run": found.bytes_to_run, "bytes_to_train": found.bytes_to_train}
        print(json.dumps(values, default=str, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console, facts = Console(), Table(box=None, show_header=False)
    rows: dict[str, Any] = {
        "model": str(found.path),
        "format": found.format,
        "architecture": found.architecture or f"not one that minilm runs: {found.refusal}",
        "tasks": ", ".join(found.tasks),
        "parameters": f"{found.parameters:,}",
        "stored as": ", ".join(f"{kind} {count:,}" for kind, count in found.stored.items()),
        "files": size(found.file_bytes),
        "memory to run": f"{size(found.bytes_to_run)} in float32",
        "memory to train": f"{size(found.bytes_to_train)}: weights, gradients, AdamW's moments; activations besides",
    }
    if found.cache_bytes:
        rows["memory to run"] += f", and {size(found.cache_bytes)} for each token in the cache"
    for name, value in rows.items():
        facts.add_row(name, value)
    options = Table("option", "value", title="configuration", box=None, title_justify="left")
    for name, value in found.config.items():
        shown = json.dumps(value, default=str)
        options.add_row(name, shown if len(shown) <= 60 else shown[:60] + " ...")
    parts = Table("part", "copies", "parameters", title="parameters", box=None, title_justify="left")
    for part in found.parts:
        parts.add_row(part.name, str(part.copies), f"{part.parameters:,}")
    for table in (facts, options, parts):
        console.print(table, markup=False)
        console.print()


def size(count: int) -> str:
    """Bytes in the unit that leaves one to four digits before the point."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
