"""From any format that is read to the one that is written: a folder that transformers loads."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ..checkpoint import CheckpointError, Weights, save_model
from ..checkpoint.weights import NAMES, numpy_dtype
from ..models import model_class
from ..nn import init
from .source import load_tokenizer, open_source


class _Converted(Mapping[str, np.ndarray]):
    """Arrays under their new names, each read and cast when it is asked for, so that one at a time is in memory."""

    def __init__(self, weights: Weights, names: Mapping[str, str], dtype: np.dtype | None):
        self.weights, self.names, self.dtype = weights, names, dtype

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.weights[self.names[name]]
        array = entry.read()
        floating = array.dtype.kind not in "iub"
        return array.astype(self.dtype) if self.dtype is not None and floating and array.dtype != self.dtype else array

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def convert(
    path: str | Path, folder: str | Path, *, dtype: str | None = None, max_shard_bytes: int | None = None
) -> Path:
    """Write a model of any format as config.json, model.safetensors and tokenizer.json in ``folder``; return it.

    ``dtype``: "float64", "float32", "float16" or "bfloat16"; by default numbers stay as they are stored, and quantised
    ones become float32.  Weights pass through memory one tensor at a time.
    CheckpointError for a model that cannot be read or a disk that is full; ValueError for another dtype.
    """
    kinds = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    if dtype is not None and dtype not in kinds:
        raise ValueError(f"convert: dtype must be one of {', '.join(kinds)}; got {dtype!r}.")
    source = open_source(path)
    if Path(folder).resolve() in (source.path.resolve(), source.path.resolve().parent):
        raise ValueError(f"convert: the new folder must be another than the model's own; got {str(folder)!r}.")
    try:
        cls = model_class(source.config)
        config = cls.config_class.from_dict(source.config)
    except ValueError as error:
        raise CheckpointError(f"{source.path}: {error}") from None
    with init.unset():
        model = cls(config, rng=None)  # type: ignore[arg-type]
    matched, surplus = model.names(source.weights)
    own = {name for name, _ in model.named_parameters()}
    if surplus or (missing := own - matched.keys()):
        what = f"no place for {surplus[0]}" if surplus else f"no {sorted(missing)[0]}"
        raise CheckpointError(f"{source.path}: its weights must be those of a {cls.__name__}; got {what}")
    names = {ours: theirs for ours, theirs in matched.items() if ours in own}
    arrays = _Converted(source.weights, names, None if dtype is None else numpy_dtype(kinds[dtype]))
    kept = {str(arrays[name].dtype) for name in names} if dtype is None else {dtype}
    written = {"architectures": [cls.__name__], "dtype": max(kept, key=_width), **config.to_dict()}
    tokenizer = load_tokenizer(path)
    save_model(folder, written, arrays, max_shard_bytes)
    tokenizer.save(folder)
    return Path(folder)


def _width(dtype: str) -> int:
    return numpy_dtype(NAMES[dtype]).itemsize
