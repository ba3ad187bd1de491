"""log.jsonl: one line of JSON per log step, each written at once and whole."""

import json
import os
from pathlib import Path
from typing import Any

from ..checkpoint import CheckpointError


class Log:
    """Append lines to a file.  ``size`` bytes of it are kept: those that belong to the checkpoint resumed."""

    def __init__(self, path: Path, size: int = 0):
        self.path = path
        self.size = min(size, path.stat().st_size) if path.exists() else 0
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._file.truncate(self.size)

    def write(self, **fields: Any) -> None:
        """Write one line, leaving out what is None.  CheckpointError where the disk is full."""
        line = json.dumps({name: value for name, value in fields.items() if value is not None}).encode() + b"\n"
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(None, "No space left on device")
        except OSError as error:
            hint = "make room, then go on with --resume"
            raise CheckpointError(f"{self.path} must fit on the disk; got: {error.strerror}; {hint}") from None
        self.size += len(line)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a last one that is not whole is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
