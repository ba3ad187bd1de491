"""A corpus as token ids in one memory-mapped file, so that it may be larger than memory.

    bytes 0-63   b"minilm tokens 1\\n", then three little-endian uint64: bytes per token, tokens, bytes of JSON; zeros
    tokens       uint16 where every id fits, else uint32, little-endian
    JSON         vocabulary, sources, seed: what the file was made from

One file, written beside and renamed, is either all there or not there at all.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .corpus import PIECE, Corpus
from .errors import DataError

MAGIC = b"minilm tokens 1\n"
HEAD = struct.Struct("<16s3Q24x")
BATCH = 1 << 21  # characters encoded at once
DTYPES: dict[int, np.dtype] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


@dataclass(frozen=True)
class TokenFile:
    """``tokens`` (N,), read-only and mapped from ``path``, and ``info``: what they were made from."""

    path: Path
    tokens: np.ndarray = field(repr=False)
    info: dict = field(repr=False)

    def __len__(self):
        return len(self.tokens)


def token_dtype(vocab_size):
    """Return uint16 where every id below ``vocab_size`` fits, that is up to 65,536 of them, else uint32."""
    return DTYPES[2 if vocab_size <= 1 << 16 else 4]


def tokenize(
    corpus: Corpus, tokenizer, path, *, seed=0, progress: Callable[[int, int], None] | None = None
) -> TokenFile:
    """Return the token ids of a corpus, from ``path`` if it was made of the same sources, vocabulary and seed.

    Otherwise they are written there.  Several documents are put in an order drawn from the seed, with the vocabulary's
    end-of-text token between them where it has one, so that the first 90 % of the tokens are a fair training split.
    ``progress(bytes done, bytes in all)`` is called after each batch; what it raises stops the work.
    DataError: a character outside the vocabulary, a full disk, no tokens.  Nothing half-written stays behind.
    """
    path = Path(path)
    info = {
        "vocabulary": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "documents": len(corpus),
        "bytes": corpus.size,
        "sources": corpus.fingerprint,
        "seed": seed if len(corpus) > 1 else None,  # one document has one order
    }
    key = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
    info |= {"key": key, "root": corpus.root}
    try:
        stored = open_tokens(path)
    except DataError:
        stored = None  # missing, broken, or something else: made anew
    if stored is not None and stored.info.get("key") == key:
        return stored
    _write(corpus, tokenizer, path, info, progress)
    return open_tokens(path)


def open_tokens(path) -> TokenFile:
    """Return the token file at ``path``, whatever it was made from.  DataError: missing, cut short, something else."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD.size)
            magic, itemsize, count, length = HEAD.unpack(head.ljust(HEAD.size, b"\0"))
            if magic != MAGIC or itemsize not in DTYPES or count == 0:
                raise DataError(f"{path} must be a token file of minilm", "something else", "remove it to make it anew")
            size, want = os.fstat(file.fileno()).st_size, HEAD.size + itemsize * count + length
            if size != want:
                raise DataError(f"{path} must be {want} bytes", f"{size}", "remove it to make it anew")
            file.seek(HEAD.size + itemsize * count)
            info = json.loads(file.read(length))
    except OSError as error:
        raise DataError(f"{path} must be a token file", error.strerror, "remove it to make it anew") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise DataError(f"{path} must end with JSON", "something else", "remove it to make it anew") from None
    mapped = np.memmap(path, dtype=DTYPES[itemsize], mode="r", offset=HEAD.size, shape=(count,))
    return TokenFile(path, mapped.view(np.ndarray), info)  # a plain view: np.memmap runs Python code for each result


def _write(corpus, tokenizer, path, info, progress):
    """Encode into ``path`` + .partial, then rename it; whatever stops the work, no .partial stays."""
    dtype = token_dtype(tokenizer.vocab_size)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with ExitStack() as stack:
            with _disk(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(partial, "wb"))
                file.write(bytes(HEAD.size))
            for ids, done in _encoded(corpus, tokenizer, info["seed"]):
                if ids.size and not 0 <= ids.min() <= ids.max() < tokenizer.vocab_size:
                    got = f"{ids.min()} to {ids.max()}"
                    raise DataError(f"ids of the vocabulary must be in [0, {tokenizer.vocab_size})", got, "mend it")
                with _disk(path):
                    file.write(memoryview(np.ascontiguousarray(ids, dtype=dtype)))
                count += len(ids)
                if progress is not None:
                    progress(done, corpus.size)
            if count == 0:
                raise DataError(f"data {corpus.root!r} must hold text", "not one token", "give another file")
            with _disk(path):
                text = json.dumps(info).encode()
                file.write(text)
                file.seek(0)
                file.write(HEAD.pack(MAGIC, dtype.itemsize, count, len(text)))
                file.flush()
                os.fsync(file.fileno())
        with _disk(path):
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def _disk(path):
    try:
        yield
    except OSError as error:
        hint = "make room there or choose another folder"
        raise DataError(f"the tokens must fit on the disk as {str(path)!r}", error.strerror, hint) from None


def _encoded(corpus, tokenizer, seed) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the ids of the corpus batch by batch, each with the bytes of the corpus that are done by then."""
    order = range(1) if seed is None else np.random.default_rng([seed, 0]).permutation(len(corpus))
    batch: list[tuple[str, str | None]] = []  # where a piece is from, and the piece; None between documents
    waiting = done = 0
    for place, index in enumerate(order):
        document = corpus.documents[index]
        if place:
            batch.append(("", None))
        start = 0
        for piece in document.pieces(PIECE if tokenizer.cuts_at_spaces else None):
            batch.append((f"{document.path}, from character {start} on", piece))
            start += len(piece)
            waiting += len(piece)
            done += len(piece.encode())
            if waiting >= BATCH:
                yield _ids(tokenizer, batch), done
                batch, waiting = [], 0
    yield _ids(tokenizer, batch), corpus.size


def _ids(tokenizer, batch):
    """Return the ids (N,) of a batch, with the end-of-text token, if there is one, where documents meet."""
    pieces = [piece for _, piece in batch if piece is not None]
    try:
        encoded = iter(tokenizer.encode_batch(pieces, add_special_tokens=False))
    except ValueError:
        for where, piece in batch:
            try:
                tokenizer.encode_batch([piece or ""], add_special_tokens=False)
            except ValueError as error:
                raise DataError(f"{where}, all must be in the vocabulary", str(error), "train a new one") from None
        raise
    between = np.array([] if tokenizer.eos_id is None else [tokenizer.eos_id], dtype=np.int64)
    return np.concatenate([between[:0], *(between if piece is None else next(encoded) for _, piece in batch)])
