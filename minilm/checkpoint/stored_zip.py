"""Zip archives whose members are stored as they are, so that they can be mapped: as torch.save writes them.

Python's zipfile makes an object of 600 bytes for each 46 bytes of an archive's directory, so a file could ask for 13
times its own size in memory, and it unpacks what is compressed.  This reads a limited directory and unpacks nothing.
Source: PKWARE's APPNOTE.TXT.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .reading import broken, short

MOST_MEMBERS = 1_000_000
REPACK = "save it with torch.save"
LARGE = 0xFFFFFFFF  # in a field of 32 bits: the number is in the member's zip64 field


class Member(NamedTuple):
    """What the directory says of a member; ``header`` is the place of its own header."""

    flags: int
    method: int
    packed: int
    size: int
    header: int


def directory(path: Path, file: np.ndarray) -> dict[str, Member]:
    """Return what an archive holds.  CheckpointError: damaged, too many members, a name twice, larger than the file."""
    tail = file[-65557:].tobytes()
    end = len(file) - len(tail) + tail.rfind(b"PK\5\6")
    if b"PK\5\6" not in tail or end > len(file) - 22:
        raise broken(path, "the zip archive", "end with its directory", "none: it is cut short")
    count, size, start = struct.unpack_from("<HLL", file.data, end + 10)
    if end >= 20 and file[end - 20 : end - 16].tobytes() == b"PK\6\7":  # zip64
        (far,) = struct.unpack_from("<Q", file.data, end - 12)
        if far > len(file) - 56 or file[far : far + 4].tobytes() != b"PK\6\6":
            raise broken(path, "the zip archive's directory", "lie in the file", f"byte {far}")
        count, size, start = struct.unpack_from("<QQQ", file.data, far + 32)
    if start + size > len(file) or count * 46 > size or count > MOST_MEMBERS:
        must = f"lie in the {len(file)} bytes of the file, with at most {MOST_MEMBERS} members"
        raise broken(path, "the zip archive's directory", must, f"{count} members in {size} bytes at {start}")
    entries, place = file[start : start + size].tobytes(), 0
    found: dict[str, Member] = {}
    for i in range(count):
        try:
            name, one, place = _entry(entries, place)
        except (struct.error, UnicodeDecodeError):
            raise broken(path, f"zip member {i}", "be in the archive's directory", "other bytes") from None
        if name in found:
            raise broken(path, f"zip member {short(name)}", "be there once", "it again")
        found[name] = one
    total = sum(one.size for one in found.values())
    if total > len(file):
        raise broken(path, "the zip archive's members", f"be no larger than its {len(file)} bytes", f"{total} bytes")
    return found


def _entry(entries: bytes, place: int) -> tuple[str, Member, int]:
    """Return the name, the member and the end of one entry of the directory."""
    fields = struct.unpack_from("<4s4xHH8xLLHHH8xL", entries, place)
    magic, flags, method, packed, size, name_length, extra_length, comment_length, header = fields
    if magic != b"PK\1\2":
        raise struct.error
    place += 46
    name = entries[place : place + name_length].decode()
    place += name_length
    stop = place + extra_length
    while place + 4 <= stop:
        kind, length = struct.unpack_from("<HH", entries, place)
        if kind == 1:  # zip64: those of the three that did not fit, in this order
            wide, at = [size, packed, header], place + 4
            for i, value in enumerate(wide):
                if value == LARGE:
                    (wide[i],) = struct.unpack_from("<Q", entries, at)
                    at += 8
            size, packed, header = wide
        place += 4 + length
    return name, Member(flags, method, packed, size, header), stop + comment_length


def member(path: Path, file: np.ndarray, found: dict[str, Member], name: str) -> np.ndarray:
    """Return the bytes of a member, uint8, where they lie in the file.  CheckpointError: none, compressed, damaged."""
    if name not in found:
        raise broken(path, f"zip member {short(name)}", "be there", "none")
    flags, method, packed, size, header = found[name]
    if method != 0 or packed != size or flags & 1:
        raise broken(path, f"zip member {short(name)}", "be stored as it is", "one compressed or encrypted", REPACK)
    if header + 30 <= len(file) and file[header : header + 4].tobytes() == b"PK\3\4":
        begin = (
            header + 30 + sum(struct.unpack_from("<2H", file.data, header + 26))
        )  # after the name and the extra field
        if begin + size <= len(file):
            return file[begin : begin + size]
    raise broken(path, f"zip member {short(name)}", f"lie in the {len(file)} bytes of the file", f"byte {header}")
