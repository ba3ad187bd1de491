"""From any format that is read to the one that is written: a folder that transformers loads."""

from pathlib import Path

from ..checkpoint import CheckpointError, save_model
from ..checkpoint.weights import converted, numpy_dtype
from .loading import build, match
from .source import load_tokenizer, open_source

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def convert(
    path: str | Path, folder: str | Path, *, dtype: str | None = None, max_shard_bytes: int | None = None
) -> Path:
    """Write a model of any format as config.json, model.safetensors and tokenizer.json in ``folder``; return it.

    ``dtype``: "float64", "float32", "float16" or "bfloat16"; by default numbers stay as they are stored, and quantised
    ones become float32.  Weights pass through memory one tensor at a time.
    CheckpointError for a model that cannot be read or a disk that is full; ValueError for another dtype.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"convert: dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    source = open_source(path)
    if Path(folder).resolve() in (source.path.resolve(), source.path.resolve().parent):
        raise ValueError(f"convert: the new folder must be another than the model's own; got {str(folder)!r}.")
    model = build(source)
    matched, own = match(model, source), dict(model.named_parameters())
    if missing := sorted(own.keys() - matched.keys()):
        raise CheckpointError(
            f"{source.path}: a {type(model).__name__} must find all its weights; missing {missing[0]}"
        )
    entries = {ours: source.weights[theirs] for ours, theirs in matched.items() if ours in own}
    if dtype is not None:
        kind = numpy_dtype(DTYPES[dtype])
        entries = {name: converted(e, kind) if e.numpy_dtype.kind not in "iub" else e for name, e in entries.items()}
    widest = max((e.numpy_dtype for e in entries.values()), key=lambda kind: kind.itemsize)
    written = {"architectures": [type(model).__name__], "dtype": str(widest), **model.config.to_dict()}
    tokenizer = load_tokenizer(path)
    save_model(folder, written, entries, max_shard_bytes)
    tokenizer.save(folder)
    return Path(folder)
