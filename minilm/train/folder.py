"""The run folder: who may write into it, and the vocabulary and tokens that are made in it."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checkpoint import CheckpointError, clean
from ..checkpoint.files import disk, replacing, write_file
from ..config import STORED, ConfigError, TrainConfig, dump, read, refuse_changes
from ..data import DataError, documents, open_tokens, split, tokenize
from ..text import Tokenizer, train_tokenizer

NEW = ".new.partial"  # where a run is prepared; moved when all is well
OURS: tuple[str, ...] = (
    STORED,
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "log.jsonl",
    "loss.png",
)
OURS += ("tokens.bin", "checkpoints")
SAMPLE = 1 << 22  # characters that a vocabulary is trained on


@dataclass(frozen=True)
class Material:
    """What a run works on: the vocabulary, and the tokens of the two splits, memory-mapped."""

    tokenizer: Tokenizer
    train: np.ndarray
    validation: np.ndarray
    key: str  # a hash of what the tokens were made from


def claim(config: TrainConfig, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder that is in use, or one to be resumed with another configuration."""
    folder = config.folder
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; got both; leave one out")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"the run folder must be a folder; got {str(folder)!r}, a file; give another --out")
    if resume:
        if not (folder / STORED).is_file():
            hint = "check --out, or leave --resume out to begin"
            raise ConfigError(f"--resume needs a run folder; got {str(folder)!r} without {STORED}; {hint}")
        refuse_changes(read(folder / STORED), config)
    elif not (overwrite or _unused(folder)):
        hint = "go on with --resume, replace it with --overwrite, or give another --out"
        raise ConfigError(f"the run folder must be new; got {str(folder)!r}, which has files in it; {hint}")


def _unused(folder: Path) -> bool:
    """Whether nothing is there, or only what a run that was killed before its first step left."""
    return not folder.exists() or not any(folder.iterdir()) or _half_prepared(folder)


def _half_prepared(folder: Path) -> bool:
    return (folder / NEW).exists() and not (folder / STORED).exists()


def prepare(config: TrainConfig, resume: bool, note: Callable[[str], None]) -> Material:
    """Return what the run works on, made from ``config.data`` or, on resuming, as it lies in the run folder.

    A new run replaces what was in the folder only when its own data turned out to be good.
    """
    folder = config.folder
    if resume:
        with suppress(DataError):
            material = _material(config, Tokenizer.load(folder), folder)
            if dump(config) != (folder / STORED).read_text(encoding="utf-8"):  # more steps, say
                with disk(folder / STORED, "make room, then go on with --resume"), replacing(folder / STORED) as path:
                    write_file(path, dump(config).encode())
            return material
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    new = folder / NEW
    try:
        _writable(new)
        corpus = documents(config.data)
        if corpus.notice:
            note(corpus.notice)
        if resume:  # the tokens are gone or broken: made anew from the same vocabulary
            note(f"tokens.bin is missing or broken in {folder}: made anew")
            tokenizer = Tokenizer.load(folder)
        else:
            note(f"data: {len(corpus)} files, {corpus.size / 1e6:.1f} MB from {corpus.root}")
            tokenizer = _tokenizer(config, corpus)
        tokenizer.save(new)
        tokenize(corpus, tokenizer, new / "tokens.bin", seed=config.seed)
        _material(config, tokenizer, new)  # refuses what is too short before anything is replaced
        (new / STORED).write_text(dump(config), encoding="utf-8")
        if not resume:
            for name in OURS:
                _remove(folder / name)
        for path in sorted(new.iterdir(), key=lambda path: path.name == STORED):  # the mark of a whole run comes last
            path.replace(folder / path.name)
        return _material(config, tokenizer, folder)
    except OSError as error:
        raise CheckpointError(
            f"the run folder must be writable; got {error.strerror or error}: {error.filename or folder}; "
            "make room, or give another --out"
        ) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
        with suppress(OSError):
            for place in made:
                place.rmdir()  # only where it stayed empty


def _material(config: TrainConfig, tokenizer: Tokenizer, folder: Path) -> Material:
    stored = open_tokens(folder / "tokens.bin")
    train, validation = split(stored.tokens, config.train_fraction)
    for part, name in ((train, "training split"), (validation, "validation split")):
        if len(part) < config.block_size + 1:
            raise DataError(
                f"the {name} must hold one window of block_size + 1 = {config.block_size + 1} tokens",
                str(len(part)),
                "give more text, or a smaller --block-size",
            )
    return Material(tokenizer, train, validation, stored.info["key"])


def _tokenizer(config, corpus):
    if config.tokenizer in ("bpe", "character", "wordpiece"):
        size = None if config.tokenizer == "character" else config.vocab_size
        texts = corpus.texts() if config.tokenizer == "character" else corpus.sample(SAMPLE)
        return train_tokenizer(config.tokenizer, texts, vocab_size=size)
    return Tokenizer.load(config.tokenizer)


def _writable(new: Path) -> None:
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    shutil.rmtree(folder / NEW, ignore_errors=True)
    clean(folder / "checkpoints")
    for path in folder.glob(".*.partial"):
        path.unlink()
