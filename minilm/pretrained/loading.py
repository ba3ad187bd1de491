"""Weights from a file into a model: names matched, shapes checked and, where dtypes agree, nothing copied."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import CheckpointError
from ..models import Model, model_class
from ..nn import init
from .source import Source, open_source

LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers"),
    *("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"),
)


def load(
    path: str | Path,
    *,
    task: str | None = None,
    dtype: Any = np.float32,
    rng: np.random.Generator | None = None,
    ignore: Collection[str] = (),
    check: bool = False,
    revision: str | None = None,
) -> Model:
    """Load a published model: a folder with config.json, a GGUF or llama2.c file, or the name of one on the hub.

    ``task``: which head to put on it, as in ``minilm.models.tasks``; by default the one it was saved with.  ``dtype``:
    float32 or float64; weights that are stored in it are used where they lie in the file, others are converted.
    ``rng`` draws dropout, and the first values of a head that the file does not have, for fine-tuning; without it such
    a head is an error.  ``ignore``: options of the configuration to pass over.  ``check`` reads everything and refuses
    NaN and infinities.  ``revision``: a branch, tag or commit on the hub.
    The model comes in evaluation mode; ``train()`` switches dropout on.

    ValueError (CheckpointError) for files that cannot be read, names or shapes that do not fit, an option that is not
    supported; each names the file and the field.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"load: dtype must be float32 or float64, what the kernels compute in; got {dtype}.")
    source = open_source(path, revision)
    if check:
        source.weights.check()
    model = build(source, task, dtype=dtype, rng=rng, ignore=ignore)
    matched = match(model, source, chosen=task is not None)
    arrays = {ours: source.weights[theirs].read(dtype) for ours, theirs in matched.items()}
    _check_ties(model, arrays, source)
    model.load_state_dict(arrays, strict=False, assign=True)
    missing = [name for name, p in model.named_parameters() if init.is_unset(p._data)]
    if missing:
        _start_head(model, missing, source, rng)
    model.eval()
    return model


def build(
    source: Source,
    task: str | None = None,
    *,
    dtype: Any = np.float32,
    rng: np.random.Generator | None = None,
    ignore: Collection[str] = (),
) -> Model:
    """Return the model of a configuration, its parameters unset.  CheckpointError for one that cannot be."""
    try:
        cls = model_class(source.config, task)
        config = cls.config_class.from_dict(source.config, ignore)
        for option in LAYERS:  # each would take time and memory
            if (count := getattr(config, option, None) or 0) > len(source.weights):
                raise ValueError(f"{option} must not be more than the {len(source.weights)} weights; got {count}")
        with init.unset():
            return cls(config, rng=rng, dtype=dtype)  # type: ignore[arg-type]
    except (ValueError, MemoryError, OverflowError) as error:
        said = str(error) or "sizes that no memory holds"
        raise CheckpointError(f"{source.path}: {said}") from None


def match(model: Model, source: Source, chosen: bool = False) -> dict[str, str]:
    """Return {name of a parameter: its name in the file}; parts that the file may lack, and does, become None.

    ``chosen``: the head was asked for, so weights of other heads may stay unread.
    CheckpointError for a weight that has no place, or another shape.
    """
    matched, unmatched = model.names(source.weights)
    base, prefix = model.base_model, f"{model.base_model_prefix}."
    for part in model.optional_parts:
        if getattr(base, part) is not None and not any(_inside(name, prefix, part) for name in matched):
            setattr(base, part, None)
    surplus = [
        name
        for name in unmatched
        if not any(_inside(name, prefix, part) for part in model.optional_parts)
        and not (chosen and not name.startswith(prefix))
    ]
    if surplus:
        raise CheckpointError(
            f"{source.path}: every weight must have a place in {type(model).__name__}; got {_some(surplus)} besides. "
            "Is it another architecture? A head is chosen with task=."
        )
    shapes = {name: p.shape for name, p in model.named_parameters(remove_duplicate=False)}
    for ours, theirs in matched.items():
        if ours in shapes and tuple(source.weights[theirs].shape) != shapes[ours]:
            raise CheckpointError(
                f"{source.path}: {theirs} must have shape {shapes[ours]}, by config.json; got "
                f"{tuple(source.weights[theirs].shape)}."
            )
    return {ours: theirs for ours, theirs in matched.items() if ours in shapes}


def _check_ties(model: Model, arrays: dict[str, np.ndarray], source: Source) -> None:
    """Refuse one weight that the file holds under two names with two values: which one is meant?"""
    first: dict[int, str] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        other = first.setdefault(id(p), name) if name in arrays else name
        if other != name and not np.array_equal(arrays[other], arrays[name], equal_nan=True):
            raise CheckpointError(
                f"{source.path}: {name} must equal {other}, for config.json ties them; got other numbers. "
                "If they are two weights, set tie_word_embeddings to false there."
            )


def _start_head(model: Model, missing: list[str], source: Source, rng: np.random.Generator | None) -> None:
    """Draw the first values of a head, or an optional part, that the file does not have; refuse if more is missing."""
    base, prefix = model.base_model, f"{model.base_model_prefix}."
    inside = [
        name
        for name in missing
        if (name.startswith(prefix) or base is model)
        and not any(_inside(name, prefix, part) for part in (*base.optional_parts, *model.head_parts))
    ]
    if inside or rng is None:
        hint = "take another copy of it" if inside else "pass rng=, a numpy.random.Generator, to start them anew"
        raise CheckpointError(
            f"{source.path}: {type(model).__name__} must find all its weights; missing {_some(inside or missing)}; "
            + hint
        )
    fresh = dict(type(model)(model.config, rng=rng, dtype=model.dtype).named_parameters())
    model.load_state_dict({name: fresh[name] for name in missing}, strict=False, assign=True)


def _inside(name: str, prefix: str, part: str) -> bool:
    return re.match(rf"({re.escape(prefix)})?{re.escape(part)}\.", name) is not None


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''} ({len(names)})"
