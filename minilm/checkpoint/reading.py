"""What every reader of files begins with: mapped bytes, strict JSON, and errors that name the file and the field."""

import json
import mmap
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .files import CheckpointError

# Linux sets memory aside for all that could be written to, and so would refuse a file that is larger than the memory,
# unless it is told not to.  Python names the flag from 3.13 on.
LINUX = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if LINUX else 0)
MOST_JSON = 100_000_000  # bytes; the safetensors format's own limit for its header
COPY = "take another copy of it"


def broken(path: Path, field: str, must: str, got: object, hint: str = COPY) -> CheckpointError:
    """Return the error: which field of which file; what must hold; what was got; what to try."""
    return CheckpointError(f"{path}: {field} must {must}; got {got}; {hint}")


def short(value: object) -> str:
    """Return the repr of something read from a file, short and without control characters."""
    if isinstance(value, (list, tuple, dict)) and len(value) > 16:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def map_file(path: Path) -> np.ndarray:
    """Return the bytes of a file, (size,) uint8, as memory that is read from the file when it is touched.

    Copy-on-write: who writes to the array gets pages of its own, and the file stays as it is.  The file must not
    become shorter while the array lives (writing a new file and renaming it over the old one is harmless).
    """
    if not path.is_file():  # opening a pipe would wait for its other end
        raise broken(path, "the path", "lead to a file", "none" if not path.exists() else "something else", "check it")
    try:
        with open(path, "rb") as file:
            if path.stat().st_size == 0:
                return np.zeros(0, np.uint8)
            if NO_RESERVE:
                private = {"flags": mmap.MAP_PRIVATE | NO_RESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
                return np.frombuffer(mmap.mmap(file.fileno(), 0, **private), np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except (OSError, ValueError, OverflowError) as error:
        raise broken(path, "the file", "be readable", error, "check its owner and mode") from None


def parse_json(path: Path, field: str, text: bytes) -> dict[str, Any]:
    """Return a JSON object.  CheckpointError: not UTF-8, not JSON, a key twice, NaN, nested out of all measure."""
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_int)
        if b"\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is a ValueError here, not in a print
    except RecursionError:
        raise broken(path, field, "be JSON", "brackets nested too deep") from None
    except ValueError as error:
        raise broken(path, field, "be JSON", error) from None
    if not isinstance(found, dict):
        raise broken(path, field, "be a JSON object", type(found).__name__)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds."""
    data = map_file(path)
    if len(data) > MOST_JSON:
        raise broken(path, "the file", f"be JSON of at most {MOST_JSON} bytes", len(data))
    return parse_json(path, "the file", data.tobytes())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {short(twice)} twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is not JSON")


def _int(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)
