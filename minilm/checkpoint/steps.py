"""Checkpoints of a run: everything that the next step depends on, one folder for each step that was kept.

    checkpoints/step-00000250/   NAME.safetensors   arrays: weights, the optimizer's moments, ...
                                 state.json         numbers: generators, place in the data, early stopping, ...
                                 manifest.json      the size and SHA-256 of each of the above

A checkpoint is written under another name, synced, and renamed, so it is all there or not there.  It is never written
to again.  What is cut short or edited later is found by the sizes and sums of the manifest.  A broken newest one stops
the reader with an error that names it and the step before that is whole: going back is for the owner to decide, by
removing the broken folder.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import PARTIAL, CheckpointError, disk, sync, write_file
from .safetensors_file import read_arrays, write_arrays

MANIFEST, STATE = "manifest.json", "state.json"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after ``step`` updates: named groups of arrays, and a JSON object."""

    step: int
    arrays: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]


def save(folder: str | Path, step: int, arrays: Mapping[str, Arrays], state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint into ``folder``, then remove all but the newest ``keep``.  Return its path.

    CheckpointError where it does not fit on the disk: nothing half-written stays, and the older ones are untouched.
    """
    folder = Path(folder)
    final = _path(folder, step)
    partial = folder / f".{final.name}{PARTIAL}"
    with disk(final, "make room, then go on with --resume; the checkpoints before are whole"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove(partial)
            partial.mkdir()
            for name, group in arrays.items():
                write_arrays(partial / f"{name}.safetensors", group)
            write_file(partial / STATE, json.dumps(state).encode())
            written = {path.name: _seal(path) for path in sorted(partial.iterdir())}
            write_file(partial / MANIFEST, json.dumps({"step": step, "files": written}, indent=1).encode())
            sync(partial)
            _remove(final)  # of an earlier run through the same step
            partial.rename(final)
            sync(folder)
        finally:
            with suppress(OSError):
                _remove(partial)
        for old in steps(folder)[:-keep]:
            _remove(_path(folder, old))
    return final


def steps(folder: str | Path) -> list[int]:
    """Return the steps that have a checkpoint in ``folder``, broken or not, in order."""
    names = (path.name.removeprefix("step-") for path in Path(folder).glob("step-*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())


def load(folder: str | Path, step: int) -> Checkpoint:
    """Return the checkpoint of one step.  CheckpointError, naming the file, where it is not as it was written."""
    path = _path(Path(folder), step)
    for name, (size, digest) in _manifest(path, step).items():
        file = path / name
        if not file.is_file():
            raise _broken(file, "a file that is missing")
        if file.stat().st_size != size:
            raise _broken(file, f"{file.stat().st_size} bytes where {size} were written")
        if _seal(file)["sha256"] != digest:
            raise _broken(file, "other contents than were written (SHA-256)")
    arrays = {file.stem: read_arrays(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(step, arrays, json.loads((path / STATE).read_text()))


def newest(folder: str | Path) -> Checkpoint | None:
    """Return the newest checkpoint, or None where there is none.

    CheckpointError where it is broken, saying which one before it is whole.
    """
    found = steps(folder)
    if not found:
        return None
    try:
        return load(folder, found[-1])
    except CheckpointError as error:
        broken = _path(Path(folder), found[-1])
        whole = next((step for step in reversed(found[:-1]) if _whole(folder, step)), None)
        back = "begin anew with --overwrite" if whole is None else f"go back to step {whole}: rm -r {broken}"
        raise CheckpointError(f"{error}; put it back as it was, or {back}") from None


def clean(folder: str | Path) -> None:
    """Remove what a run that was killed left half-written or half-removed."""
    for path in Path(folder).glob(f".*{PARTIAL}"):
        _remove(path)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _whole(folder: str | Path, step: int) -> bool:
    try:
        load(folder, step)
    except CheckpointError:
        return False
    return True


def _manifest(path: Path, step: int) -> dict[str, tuple[int, str]]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
        fits = manifest["step"] == step and STATE in files
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise _broken(path / MANIFEST, "something else, or nothing")
    return files


def _broken(file: Path, got: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {file.parent} must be as it was written; got {got}: {file.name}")


def _seal(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _remove(path: Path) -> None:
    """Remove a folder; a checkpoint loses its name first, so that half of one never looks like one."""
    if not path.exists():
        return
    if not path.name.endswith(PARTIAL):
        path = path.rename(path.with_name(f".{path.name}.old{PARTIAL}"))
    shutil.rmtree(path)
