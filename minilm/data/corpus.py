"""Which files a corpus is made of: one file, a folder, a glob, or the sources of Python's own standard library.

Policy: a file that is named is read or refused.  In a folder or glob, what is not text is left out and told: files that
are empty, binary, not UTF-8 or not regular are listed in ``Corpus.skipped``, one line for all of them in
``Corpus.notice``; hidden files and folders (``.git``) are passed over without a word.
A folder or glob without one usable file is refused.
"""

import glob
import hashlib
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from . import reading
from .errors import DataError

PIECE = 1 << 18  # characters of a document that are held at once
SAMPLE_PIECE = 1 << 16
# Not code that one would learn from: tests, other people's packages, tables of characters, and help pages as strings.
NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
NOT_LIBRARY |= {"encodings", "pydoc_data"}


@dataclass(frozen=True)
class Document:
    """One file: ``name`` relative to the corpus, ``path`` to open, and the size and time it had when it was checked."""

    name: str
    path: Path
    size: int
    mtime_ns: int

    def pieces(self, size=PIECE) -> Iterator[str]:
        """Yield the text in pieces of about ``size`` characters, cut between words; with size None, in one piece."""
        texts = reading.read_utf8(self.path, expected=(self.size, self.mtime_ns))
        return iter(["".join(texts)]) if size is None else reading.pieces(texts, size)

    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.pieces(None))


@dataclass(frozen=True)
class Corpus:
    """Checked files in a fixed order: ``documents``, and ``skipped``, a (name, reason) for each file left out."""

    root: str
    documents: tuple[Document, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self):
        return len(self.documents)

    def __iter__(self):
        return iter(self.documents)

    @cached_property
    def size(self):
        """Bytes of all documents together."""
        return sum(document.size for document in self.documents)

    @cached_property
    def fingerprint(self):
        """A hash of names, sizes and times of change: equal for the same files, without reading them again."""
        lines = "".join(f"{d.name}\0{d.size}\0{d.mtime_ns}\n" for d in self.documents)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def notice(self):
        """One line about the files that were left out, or None."""
        if not self.skipped:
            return None
        shown = ", ".join(f"{name} ({reason})" for name, reason in self.skipped[:3])
        more = f" and {len(self.skipped) - 3} more" if len(self.skipped) > 3 else ""
        return f"left out {len(self.skipped)} of {len(self.skipped) + len(self)} files in {self.root}: {shown}{more}"

    def texts(self, size=PIECE) -> Iterator[str]:
        """Yield the text of all documents, piece by piece: what ``train_tokenizer`` reads."""
        for document in self.documents:
            yield from document.pieces(size)

    def sample(self, characters) -> Iterator[str]:
        """Yield about ``characters`` characters spread evenly over the corpus: enough to train a vocabulary on."""
        share = min(1.0, characters / self.size)  # a character is one byte or more
        seen = kept = 0
        for piece in self.texts(SAMPLE_PIECE):
            if kept <= seen * share:
                kept += len(piece)
                yield piece
            seen += len(piece)


def documents(path=None) -> Corpus:
    """Return the corpus at ``path``: a file, a folder (read through, sorted), a glob (``**`` too), or None.

    None stands for the ``.py`` files of Python's standard library without tests, tables of characters and other
    people's packages: real code, found wherever Python is.  Every file is read through once, so that what is wrong is
    known before any work is done.  DataError: nothing there, or nothing that is text.
    """
    if path is None:
        return _standard_library()
    if not str(path):
        raise DataError("data must be a file, folder or glob", "an empty name", "leave --data out for the default")
    path = Path(path).expanduser()
    try:
        there = path.exists()
    except OSError as error:  # a folder on the way that may not be read, or a name that is too long
        raise DataError("data must be readable", f"{str(path)!r}: {error.strerror}", "check its permissions") from None
    if there:
        one = not path.is_dir()
        return Corpus(str(path), (_document(path.name, path),)) if one else _gather(str(path), _files(path), path)
    if glob.has_magic(str(path)):
        found = sorted(match for match in glob.glob(str(path), recursive=True) if not os.path.isdir(match))
        if not found:
            raise DataError(
                "data must match files that exist", f"{str(path)!r}, which matches none", "check the pattern"
            )
        return _gather(str(path), found, None)
    raise DataError("data must be a file, folder or glob that exists", repr(str(path)), _near(path))


def _standard_library():
    root = Path(sysconfig.get_paths()["stdlib"])
    files = _files(root, NOT_LIBRARY) if root.is_dir() else []
    found = [file for file in files if file.endswith(".py") and os.path.getsize(file) > 0]  # empty ones mark packages
    if not found:
        must = "the default data, the sources of Python's standard library, must be installed"
        raise DataError(must, f"none in {str(root)!r}", "give a file or folder of text with --data")
    return _gather(str(root), found, root)


def _files(root, without=()):
    """Return every file under root that is not hidden, sorted by path; links to folders are not followed."""

    def refuse(error):
        got = f"{error.filename}: {error.strerror}"
        raise DataError("every folder of the data must be readable", got, "check its permissions") from None

    found = []
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in without]
        found += [os.path.join(folder, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: os.path.relpath(file, root).split(os.sep))


def _gather(name, files, root):
    kept, skipped = [], []
    for file in files:
        label = Path(file).relative_to(root).as_posix() if root else Path(file).as_posix()
        try:
            kept.append(_document(label, Path(file)))
        except DataError as error:
            skipped.append((label, error.got))
    if not kept:
        got = f"none that can be used, e.g. {': '.join(skipped[0])}" if skipped else "an empty folder"
        raise DataError(f"data {name!r} must hold files of UTF-8 text", got, "give another file or folder")
    return Corpus(name, tuple(kept), tuple(skipped))


def _document(name, path):
    size, mtime_ns = reading.check(path)
    return Document(name, path, size, mtime_ns)


def _near(path):
    """Return a hint: the name most like the first part of ``path`` that is missing, among its neighbours."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        names = os.listdir(missing.parent)
    except OSError:
        names = []
    close = get_close_matches(missing.name, names, n=1)
    if close:
        return f"did you mean {str(missing.parent / close[0] / path.relative_to(missing))!r}?"
    return f"check the spelling: {str(missing.parent.absolute())!r} has no {missing.name!r}"
