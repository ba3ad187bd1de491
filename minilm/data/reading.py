"""One UTF-8 file, read in pieces, and what is wrong with one that is not."""

import codecs
import os
import stat

from .errors import DataError

CHUNK = 1 << 20  # bytes read at a time
LONGEST = 16  # pieces' worth of text without a place to cut, after which it is cut anywhere
MARKS = [  # the first bytes of what is often taken for text; the longer ones first
    (codecs.BOM_UTF32_LE, "UTF-32 text", "iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF32_BE, "UTF-32 text", "iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (b"\x1f\x8b", "a gzip archive", "gunzip -c"),
    (b"PK\x03\x04", "a zip archive", "unzip -p"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "zstd -dc"),
    (b"BZh", "a bzip2 archive", "bunzip2 -c"),
    (b"\xfd7zXZ\x00", "an xz archive", "xz -dc"),
]


def read_utf8(path, expected=None):
    """Yield the text of a file as it is, newlines kept, without a byte-order mark, a million characters at a time.

    ``expected`` is the (size, mtime_ns) that the file had.  DataError: unreadable, binary, not UTF-8, or changed since.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    try:
        with open(path, "rb") as file:
            if expected is not None and expected != signature(os.fstat(file.fileno())):
                raise DataError(f"{path} must stay as it is while it is used", "other contents", "start again")
            while chunk := file.read(CHUNK):
                if done == 0:
                    _refuse_marked(path, chunk)
                if (nul := chunk.find(b"\0")) >= 0:
                    got = f"a binary file (a NUL byte at offset {done + nul})"
                    raise DataError(f"{path} must be UTF-8 text", got, "give a text file")
                text = _decode(path, decoder, chunk, done)
                yield text.removeprefix("\ufeff") if done == 0 else text
                done += len(chunk)
    except OSError as error:
        raise DataError(f"{path} must be readable", error.strerror, "check its permissions and its disk") from None
    _decode(path, decoder, b"", done, final=True)


def check(path):
    """Return the (size, mtime_ns) of a file of UTF-8 text.  Anything else is a DataError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} must be readable", error.strerror, "check its name and its permissions") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} must be a file of text", "a device, pipe or socket", "save it to a file first")
    if status.st_size == 0:
        raise DataError(f"{path} must hold text", "an empty file (0 bytes)", "give another")
    for _ in read_utf8(path):
        pass
    return signature(status)


def signature(status):
    """Return what changes when a file is written."""
    return status.st_size, status.st_mtime_ns


def pieces(texts, size):
    """Cut a stream of text into pieces of about ``size`` characters that a vocabulary may encode one by one.

    A cut is made before a blank that follows a letter or digit: a word ends there for every pre-tokenizer with
    ``cuts_at_spaces``, so the pieces have the tokens of the whole.  Text without such a place is cut anywhere after
    16 * size characters; one word may then be split differently.

    >>> list(pieces(["to be, or ", "not to be"], 9))
    ['to be, or', ' not to', ' be']
    """
    rest = ""
    for text in texts:
        rest += text
        start = 0
        while len(rest) - start > size:
            at = _cut(rest, start, start + size)
            if at is None:
                if len(rest) - start <= LONGEST * size:
                    break
                at = start + LONGEST * size
            yield rest[start:at]
            start = at
        rest = rest[start:]
    if rest:
        yield rest


def _cut(text, start, end):
    """Return the last place to cut in text[start:end], or else the first one after it, or else None."""
    at = text.rfind(" ", start + 1, end + 1)
    while at > 0 and not text[at - 1].isalnum():
        at = text.rfind(" ", start + 1, at)
    if at > 0:
        return at
    at = text.find(" ", end)
    while at > 0 and not text[at - 1].isalnum():
        at = text.find(" ", at + 1)
    return at if at > 0 else None


def _decode(path, decoder, chunk, done, final=False):
    kept = len(decoder.getstate()[0])  # bytes of a character that began in the last chunk
    try:
        return decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        got = f"byte 0x{error.object[error.start]:02X} at offset {done - kept + error.start} ({error.reason})"
        hint = f"if it is Latin-1, convert it: iconv -f LATIN1 -t UTF-8 {path} > utf8.txt"
        raise DataError(f"{path} must be UTF-8 text", got, hint) from None


def _refuse_marked(path, chunk):
    for mark, what, command in MARKS:
        if chunk.startswith(mark):
            raise DataError(f"{path} must be UTF-8 text", what, f"convert it: {command} {path} > utf8.txt")
