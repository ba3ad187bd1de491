"""Which files are read, in which order, and what is said of those that cannot be."""

import os
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import DataError, documents, reading
from minilm.text import train_tokenizer


def make(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def refused(path, *words):
    with pytest.raises(DataError) as caught:
        documents(path)
    message = str(caught.value)
    assert "\n" not in message
    assert re.fullmatch(r".+ must .+; got .+; .+", message), "what must hold; what was got; what to try"
    for word in words:
        assert word in message


def test_a_file_is_read_as_it_is(tmp_path):
    text = "first\r\nsecond\rthird\n\ttail \u2028 ends without newline"
    make(tmp_path, {"a.txt": text, "marked.txt": b"\xef\xbb\xbfb\xef\xbb\xbf"})
    corpus = documents(tmp_path / "a.txt")
    assert [document.name for document in corpus] == ["a.txt"]
    assert corpus.documents[0].text() == text
    assert corpus.size == len(text.encode())
    assert documents(str(tmp_path / "marked.txt")).documents[0].text() == "b\ufeff"


def test_a_folder_is_read_through_in_order(tmp_path):
    files = ["z.txt", "b/2.md", "a.txt", "b/10", "b/c/x.rst", "b.txt", ".git/HEAD", "b/.hidden"]
    corpus = documents(make(tmp_path, dict.fromkeys(files, "text")))
    assert [document.name for document in corpus] == ["a.txt", "b/10", "b/2.md", "b/c/x.rst", "b.txt", "z.txt"]
    assert corpus.notice is None


def test_a_glob(tmp_path, monkeypatch):
    make(tmp_path, {"a.txt": "a", "b.md": "b", "sub/c.txt": "c", "sub.txt/d.md": "d", "odd[1].txt": "odd"})
    names = [document.path.name for document in documents(f"{tmp_path}/**/*.txt")]
    assert names == ["a.txt", "odd[1].txt", "c.txt"]
    assert documents(tmp_path / "odd[1].txt").documents[0].text() == "odd"
    monkeypatch.chdir(tmp_path)
    assert [document.name for document in documents("*.md")] == ["b.md"]
    refused(f"{tmp_path}/*.rst", "matches none")


def test_what_is_not_text_in_a_folder_is_left_out_and_told(tmp_path):
    folder = make(
        tmp_path / "d", {"a.txt": "good", "b.bin": b"\0", "c.txt": b"caf\xe9", "d.txt": b"", "e.gz": b"\x1f\x8b8"}
    )
    (folder / "f.txt").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "g")
    corpus = documents(folder)
    assert [document.name for document in corpus] == ["a.txt"]
    assert [name for name, _ in corpus.skipped] == ["b.bin", "c.txt", "d.txt", "e.gz", "f.txt", "g"]
    assert corpus.notice == (
        f"left out 6 of 7 files in {folder}: b.bin (a binary file (a NUL byte at offset 0)), "
        "c.txt (byte 0xE9 at offset 3 (unexpected end of data)), d.txt (an empty file (0 bytes)) and 3 more"
    )
    (folder / "a.txt").unlink()
    refused(folder, "none that can be used, e.g. b.bin: a binary file")


def test_missing_files_are_guessed(tmp_path):
    make(tmp_path, {"corpus/input.txt": "text"})
    refused(tmp_path / "corpus/imput.txt", f"did you mean '{tmp_path}/corpus/input.txt'?")
    refused(tmp_path / "corpse/input.txt", f"did you mean '{tmp_path}/corpus/input.txt'?")
    refused(tmp_path / "qqq", "check the spelling")
    refused("no-such-file-here.txt", "check the spelling")
    refused("", "an empty name")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty file (0 bytes)"]),
        (b"text\0more", ["binary file (a NUL byte at offset 4)"]),
        (b"caf\xe9 noir", ["byte 0xE9 at offset 3", "iconv -f LATIN1 -t UTF-8"]),
        (b"x" * (reading.CHUNK - 1) + b"\xc3\xa9 \xff", [f"byte 0xFF at offset {reading.CHUNK + 2}"]),
        (b"x" * (reading.CHUNK - 1) + b"\xe2\x82z", [f"byte 0xE2 at offset {reading.CHUNK - 1}"]),
        (b"x" * reading.CHUNK + b"\xf0\x9f\x99", [f"byte 0xF0 at offset {reading.CHUNK}", "unexpected end"]),
        (b"x" * reading.CHUNK + b"\0", [f"NUL byte at offset {reading.CHUNK}"]),
        ("text".encode("utf-16"), ["UTF-16", "iconv -f UTF-16"]),
        ("text".encode("utf-32"), ["UTF-32", "iconv -f UTF-32"]),
        (b"\x1f\x8b\x08", ["gzip", "gunzip -c"]),
    ],
)
def test_a_named_file_that_is_not_utf8_is_refused(tmp_path, content, words):
    refused(make(tmp_path, {"data.txt": content}) / "data.txt", *words)


def test_folders_and_files_that_cannot_be_read(tmp_path, monkeypatch):
    make(tmp_path, {"f/a.txt": "a"})
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "an empty folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "a device, pipe or socket")
    refused(tmp_path / ("n" * 300), "File name too long")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(args[0]))

    monkeypatch.setattr("builtins.open", denied)  # root may read whatever the permissions are
    refused(tmp_path / "f/a.txt", "Permission denied", "permissions")
    monkeypatch.setattr(os, "scandir", denied)
    refused(tmp_path / "f", "Permission denied", "every folder of the data must be readable")


def test_a_file_that_changes_is_noticed(tmp_path):
    corpus = documents(make(tmp_path, {"a.txt": "before"}))
    before = corpus.fingerprint
    make(tmp_path, {"a.txt": "after it"})
    with pytest.raises(DataError, match="must stay as it is"):
        corpus.documents[0].text()
    assert documents(tmp_path).fingerprint != before


def test_the_default_is_the_standard_library():
    corpus = documents()
    names = [document.name for document in corpus]
    assert {"os.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert all(name.endswith(".py") for name in names)
    assert not [name for name in names if set(name.split("/")) & {"site-packages", "test", "idlelib", "lib2to3"}]
    assert corpus.notice is None
    assert 4e6 < corpus.size < 4e7
    with open(os.__file__, encoding="utf-8", newline="") as file:
        assert corpus.documents[names.index("os.py")].text() == file.read()


def test_a_python_without_its_sources(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path / "python.zip")})
    refused(None, "python.zip", "--data")


def test_a_sample_is_spread_over_the_corpus(tmp_path):
    make(tmp_path, {f"{i:03}.txt": f"{i:03} " * 100 for i in range(100)})
    corpus = documents(tmp_path)
    sample = list(corpus.sample(10_000))
    assert 10_000 <= sum(map(len, sample)) <= 10_400
    assert {text[0] for text in sample} == {"0"}
    assert len({text[1] for text in sample}) == 10
    assert "".join(corpus.sample(1e9)) == "".join(corpus.texts())


TOKENIZERS = {
    "bpe": train_tokenizer("bpe", ["to be or not to be, it's 42  then\n\n  so", " \n    \n  to    be" * 9], 300),
    "wordpiece": train_tokenizer("wordpiece", ["to be or not to be, it's 42 then so"], 100),
}
words = st.lists(
    st.sampled_from(["to", "be", " ", "  ", "\n", "\n\n  ", "é", "42", "'s", ", ", "\u3000", "ß", "中"]), max_size=60
)


@given(words.map("".join), st.integers(3, 12), st.integers(1, 20))
def test_pieces_have_the_tokens_of_the_whole(text, size, chunk):
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    parts = list(reading.pieces(chunks, size))
    assert "".join(parts) == text
    assert all(parts)
    cut_in_words = any(len(part) >= reading.LONGEST * size for part in parts)
    for tokenizer in () if cut_in_words else TOKENIZERS.values():
        got = [i for part in tokenizer.encode_batch(parts, add_special_tokens=False) for i in part]
        assert got == tokenizer.encode(text, add_special_tokens=False).tolist()


def test_text_without_a_place_to_cut_is_still_read_in_pieces():
    parts = list(reading.pieces(["x" * 1000] * 100, 100))
    assert "".join(parts) == "x" * 100_000
    assert max(map(len, parts)) == reading.LONGEST * 100


@pytest.mark.skipif(sys.platform == "win32", reason="a file in use")
def test_a_large_file_is_never_held_whole(tmp_path):
    import tracemalloc

    make(tmp_path, {"big.txt": b"some words and more of them\n" * 1_000_000})
    corpus = documents(tmp_path / "big.txt")
    tracemalloc.start()
    assert sum(map(len, corpus.texts())) == corpus.size == 28_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6
