"""Token files: what is in them, when they are made anew, and that they are never torn."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from minilm.data import DataError, documents, open_tokens, store, tokenize
from minilm.text import train_tokenizer


class Codes:
    """A vocabulary of code points, with an end-of-text token or without."""

    cuts_at_spaces = True

    def __init__(self, vocab_size=128, eos_id=None, name="codes"):
        self.vocab_size, self.eos_id, self.fingerprint = vocab_size, eos_id, name
        self.calls = 0
        self.texts = []

    def encode_batch(self, texts, add_special_tokens):
        assert add_special_tokens is False
        self.calls += 1
        self.texts += texts
        return [np.array([ord(c) for c in text], dtype=np.int64) for text in texts]


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02}.txt").write_text(chr(ord("a") + i) * (i + 1))
    return documents(folder)


def text_of(tokens):
    return "".join(map(chr, tokens.tolist()))


def test_one_document_is_kept_in_order(tmp_path):
    (tmp_path / "a.txt").write_text("one document, in order")
    made = tokenize(documents(tmp_path / "a.txt"), Codes(eos_id=0), tmp_path / "run/tokens.bin", seed=3)
    assert text_of(made.tokens) == "one document, in order"  # and no end-of-text token
    assert len(made) == 22
    assert type(made.tokens) is np.ndarray
    assert not made.tokens.flags.writeable
    np.testing.assert_array_equal(made.tokens, np.fromfile(made.path, "<u2", count=22, offset=64))
    assert os.listdir(tmp_path / "run") == ["tokens.bin"]


def test_documents_are_shuffled_by_the_seed_and_kept_apart(corpus, tmp_path):
    whole = [document.text() for document in corpus]
    orders = []
    for seed in (0, 1, 0):
        made = tokenize(corpus, Codes(eos_id=1), tmp_path / f"{len(orders)}.bin", seed=seed)
        orders.append(text_of(made.tokens).split("\1"))
        assert sorted(orders[-1]) == whole
    assert orders[0] == orders[2] != orders[1] != whole
    joined = tokenize(corpus, Codes(), tmp_path / "joined.bin", seed=0)
    assert text_of(joined.tokens) == "".join(orders[0])


@pytest.mark.parametrize("batch", [1, 7, 50, 1 << 21])
def test_batches_change_nothing(corpus, tmp_path, monkeypatch, batch):
    want = tokenize(corpus, Codes(eos_id=1), tmp_path / "want.bin", seed=5)
    monkeypatch.setattr(store, "BATCH", batch)
    seen = []
    got = tokenize(corpus, Codes(eos_id=1), tmp_path / "got.bin", seed=5, progress=lambda *a: seen.append(a))
    np.testing.assert_array_equal(got.tokens, want.tokens)
    assert got.info == want.info
    assert seen == sorted(seen)
    assert seen[-1] == (corpus.size, corpus.size) == (210, 210)
    assert len(seen) == (1 if batch > 210 else seen.index(seen[-1]) + seen.count(seen[-1]))


def test_the_same_is_read_and_anything_else_is_made_anew(corpus, tmp_path, monkeypatch):
    path = tmp_path / "tokens.bin"

    def calls(corpus=corpus, seed=0, **vocabulary):
        codes = Codes(**vocabulary)
        tokenize(corpus, codes, path, seed=seed)
        return codes.calls

    assert calls() == 1
    assert calls() == 0
    monkeypatch.chdir(tmp_path)
    assert calls(documents("texts")) == 0  # the same files by another name of their folder
    assert calls(seed=1) == 1
    assert calls(seed=1, name="other") == 1
    assert calls(seed=1, name="other") == 0
    first = corpus.documents[0].path
    first.write_text("b")  # the same size
    os.utime(first, ns=(0, corpus.documents[0].mtime_ns + 1))
    assert calls(documents(corpus.root), seed=1, name="other") == 1
    path.write_bytes(path.read_bytes()[:-1])
    assert calls(documents(corpus.root), seed=1, name="other") == 1
    assert calls(documents(corpus.root), seed=1, name="other") == 0


def test_info_says_what_the_tokens_are_of(corpus, tmp_path):
    info = open_tokens(tokenize(corpus, Codes(), tmp_path / "t.bin", seed=4).path).info
    assert json.loads(json.dumps(info)) == info
    assert (info["vocabulary"], info["vocab_size"], info["seed"]) == ("codes", 128, 4)
    assert (info["root"], info["documents"], info["bytes"]) == (corpus.root, 20, 210)


@pytest.mark.parametrize(
    ("vocab_size", "character", "dtype"),
    [(65_535, 0xFFFE, "<u2"), (65_536, 0xFFFF, "<u2"), (65_537, 0x10000, "<u4"), (0x110000, 0x10FFFF, "<u4")],
)
def test_the_largest_id_decides_the_dtype(tmp_path, vocab_size, character, dtype):
    (tmp_path / "a.txt").write_text("a" + chr(character), encoding="utf-8")
    made = tokenize(documents(tmp_path / "a.txt"), Codes(vocab_size), tmp_path / "t.bin")
    assert made.tokens.dtype == dtype
    assert made.tokens.tolist() == [97, character] == [97, vocab_size - 1]


def test_an_id_outside_the_vocabulary_is_not_wrapped(tmp_path):
    (tmp_path / "a.txt").write_text("a\U00010000", encoding="utf-8")
    with pytest.raises(DataError, match=r"must be in \[0, 65536\); got 97 to 65536"):
        tokenize(documents(tmp_path / "a.txt"), Codes(65_536), tmp_path / "t.bin")
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, BrokenPipeError])
def test_an_interruption_leaves_what_was_there(corpus, tmp_path, monkeypatch, error):
    path = tmp_path / "run/tokens.bin"
    monkeypatch.setattr(store, "BATCH", 20)
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == 3:
            assert (tmp_path / "run/tokens.bin.partial").exists()
            raise error

    with pytest.raises(error):
        tokenize(corpus, Codes(), path, progress=stop)
    assert os.listdir(tmp_path / "run") == []
    before = tokenize(corpus, Codes(), path)
    content = path.read_bytes()
    calls.clear()
    with pytest.raises(error):
        tokenize(corpus, Codes(name="other"), path, progress=stop)
    assert os.listdir(tmp_path / "run") == ["tokens.bin"]
    assert path.read_bytes() == content
    assert text_of(before.tokens) == text_of(open_tokens(path).tokens)


FULL = """
import resource, sys
from minilm.data import DataError, documents, tokenize
from minilm.text import train_tokenizer
corpus = documents(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the system's own refusal, at a known size
try:
    tokenize(corpus, train_tokenizer("character", corpus.texts()), sys.argv[2])
except DataError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_file_that_does_not_fit_is_told_and_removed(tmp_path):
    (tmp_path / "a.txt").write_text("text " * 50_000)
    (tmp_path / "run").mkdir()
    arguments = [sys.executable, "-c", FULL, tmp_path / "a.txt", tmp_path / "run/t.bin"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "must fit on the disk" in done.stderr
    assert "File too large; make room there" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_last_moment(corpus, tmp_path, monkeypatch, name):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(DataError, match="No space left on device; make room there"):
        tokenize(corpus, Codes(), tmp_path / "run/t.bin")
    assert os.listdir(tmp_path / "run") == []


def test_a_folder_that_cannot_be_made(corpus, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(DataError, match="must fit on the disk"):
        tokenize(corpus, Codes(), tmp_path / "run/t.bin")


def test_files_that_are_not_token_files(corpus, tmp_path):
    path = tmp_path / "t.bin"
    good = tokenize(corpus, Codes(), path).path.read_bytes()
    for content, words in [
        (good[:-1], f"must be {len(good)} bytes; got {len(good) - 1}"),
        (good[:100], "must be"),
        (good + b"x", "must be"),
        (good[:30], "must be"),
        (b"", "must be a token file of minilm"),
        (b"x" * 2000, "must be a token file of minilm"),
        (good[:-1] + b"!", "must end with JSON"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            open_tokens(path)
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        open_tokens(path)


def test_a_text_without_tokens(tmp_path):
    (tmp_path / "a.txt").write_text(" \n ")
    tokenizer = train_tokenizer("wordpiece", ["some words"], 64)
    with pytest.raises(DataError, match="must hold text; got not one token"):
        tokenize(documents(tmp_path), tokenizer, tmp_path / "t.bin")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_character_outside_the_vocabulary_is_found(tmp_path):
    for name, text in {"a.txt": "good", "b.txt": "ba\u00e9d"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    tokenizer = train_tokenizer("character", ["good bad"])
    with pytest.raises(DataError, match=r"b\.txt, from character 0 on, .* got 'é' \(U\+00E9\) at position 2"):
        tokenize(documents(tmp_path), tokenizer, tmp_path / "t.bin")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "character"])
def test_tokens_are_those_of_the_whole_text(tmp_path, monkeypatch, kind):
    text = "".join(f"{i} words, don't\n\n    and more of them {i * i}; " for i in range(300))
    (tmp_path / "a.txt").write_text(text)
    tokenizer = train_tokenizer(kind, [text], None if kind == "character" else 300)
    monkeypatch.setattr(store, "PIECE", 100)
    monkeypatch.setattr(store, "BATCH", 1000)
    made = tokenize(documents(tmp_path / "a.txt"), tokenizer, tmp_path / "t.bin")
    assert made.tokens.tolist() == tokenizer.encode(text, add_special_tokens=False).tolist()


def test_a_document_is_cut_only_where_the_vocabulary_allows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PIECE", 10)
    (tmp_path / "a.txt").write_text("some words " * 40)
    codes = Codes()
    tokenize(documents(tmp_path / "a.txt"), codes, tmp_path / "cut.bin")
    assert max(map(len, codes.texts)) <= 10
    codes = Codes(name="whole")
    codes.cuts_at_spaces = False
    tokenize(documents(tmp_path / "a.txt"), codes, tmp_path / "whole.bin")
    assert codes.texts == ["some words " * 40]
