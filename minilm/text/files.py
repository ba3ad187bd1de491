"""Reading the files of a vocabulary: whatever is wrong with one is a ValueError that names it."""

import json
from contextlib import contextmanager


def read_text(file):
    """Return the text of a UTF-8 file."""
    try:
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} must be a readable UTF-8 file; got: {error}; download it again") from None


def read_object(file):
    """Return the JSON object of a file as a dict, or an empty dict where there is no such file."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} must be a JSON object; got: {error}; download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file} must be a JSON object; got {type(value).__name__}; download it again")
    return value


def field(settings, name, kind, file):
    """Return ``settings[name]`` if it is a ``kind``, None where it is absent or null."""
    value = settings.get(name)
    if value is not None and not isinstance(value, kind):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{file}: {name} must be {wanted}; got {type(value).__name__}")
    return value


def rules(part):
    """Return the settings of a part of a ``tokenizers.Tokenizer``, {} for None: they are what it is pickled as."""
    return {} if part is None else json.loads(part.__getstate__())


@contextmanager
def library_reads(file, form):
    """Turn what the tokenizers library raises (bare Exception, or a panic of its Rust code) into a ValueError."""
    try:
        yield
    except ValueError:
        raise  # ours
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # Ctrl-C
        message = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"{file} must be {form}; got: {message[0][:300]}") from None


def write_text(path, text):
    """Write beside and rename, so that a reader or a crash never meets half a file."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
