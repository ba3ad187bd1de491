"""Files that are either all there or not there at all: written beside, made to reach the disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"


class CheckpointError(ValueError):
    """A checkpoint or model folder that cannot be read or written: what must hold; what was got; what to try."""


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one go, and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # folders cannot be opened on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; when the body has succeeded, it takes the place of ``path``."""
    beside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        yield beside
        os.replace(beside, path)
        sync(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def disk(path: Path, hint: str) -> Iterator[None]:
    """Turn what the disk refuses (full, read-only, gone) into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} must fit on the disk; got: {error.strerror or error}; {hint}") from None
