"""Which file of a folder counts, and hostile files: each gets one error that names it."""

import json
import shutil

import numpy as np
import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilm.text import Tokenizer

from .published import NASTY, PROSE, complaint, write_json


@pytest.fixture
def folder(root, tmp_path, request):
    """A copy of one published folder."""
    shutil.copytree(root / request.param, tmp_path / "copy")
    return tmp_path / "copy"


def of(name):
    return pytest.mark.parametrize("folder", [name], indirect=True)


@of("gpt2-json")
def test_tokenizer_json_comes_first_and_files_can_be_named(folder, root):
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(root / "roberta-files" / name, folder / name)
    shutil.copy(root / "bert-cased-files/vocab.txt", folder / "vocab.txt")
    whole = Tokenizer.load(folder)
    assert whole.encode("the").tolist() == Tokenizer.load(root / "gpt2-json").encode("the").tolist()
    assert Tokenizer.load(folder / "tokenizer.json").fingerprint == whole.fingerprint
    for name in ("vocab.json", "merges.txt"):
        assert Tokenizer.load(folder / name).token_to_id("<s>") == 0
    assert Tokenizer.load(folder / "vocab.txt").kind == "wordpiece"
    (folder / "tokenizer.json").unlink()
    assert Tokenizer.load(folder).kind == "bpe"
    (folder / "merges.txt").unlink()  # half a vocabulary is none
    assert Tokenizer.load(folder).kind == "wordpiece"


@of("bert-cased-json")
def test_the_configuration_overrules_the_file_as_in_transformers(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for flags in ({"do_lower_case": True}, {"do_lower_case": False, "strip_accents": True}):
        write_json(folder, "tokenizer_config.json", config | flags)
        ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
        for text in [*NASTY, *PROSE]:
            assert ours.encode(text).tolist() == theirs(text).input_ids


@of("roberta-json")
def test_the_space_before_a_text_too(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder, "tokenizer_config.json", config | {"add_prefix_space": True})
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*NASTY, *PROSE]:
        assert ours.encode(text).tolist() == theirs(text).input_ids
    assert not ours.cuts_at_spaces


@of("llama-prepend")
def test_a_tokenizer_json_of_llama_is_taken_as_it_is(folder):
    """transformers 5 gives one that names its LlamaTokenizer another rule for spaces; the file says how it was made."""
    want = [Tokenizer.load(folder).encode(text).tolist() for text in NASTY]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder, "tokenizer_config.json", config | {"tokenizer_class": "LlamaTokenizer"})
    assert [Tokenizer.load(folder).encode(text).tolist() for text in NASTY] == want


@of("gpt2-files")
def test_which_chat_template_counts(folder):
    def template():
        theirs = transformers.AutoTokenizer.from_pretrained(folder).chat_template
        ours = Tokenizer.load(folder).chat_template
        assert theirs in (ours, {"default": ours, "tool_use": "T"}, None)
        return ours

    write_json(folder, "chat_template.json", {"chat_template": "A"})
    assert template() == "A"  # which transformers reads for processors only
    write_json(folder, "tokenizer_config.json", {"chat_template": "B"})
    assert template() == "B"
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    write_json(folder, "tokenizer_config.json", {"chat_template": named})
    assert template() == "D"
    (folder / "chat_template.jinja").write_text("{# é #}C\n", encoding="utf-8")
    assert template() == "{# é #}C\n"


@of("roberta-files")
def test_offsets_are_those_of_transformers(folder):
    write_json(folder, "tokenizer_config.json", {"add_prefix_space": False})
    for name in (folder, folder.parent / "bert"):
        if name != folder:
            Tokenizer.load(folder).save(name)
        ours, theirs = Tokenizer.load(name), transformers.AutoTokenizer.from_pretrained(name)
        for text, pair in zip(NASTY, reversed(NASTY), strict=True):
            want = theirs(text, return_offsets_mapping=True)
            ids, spans, parts = ours.offsets(text)
            assert (ids.dtype, spans.dtype, parts.dtype) == (np.int64,) * 3
            assert ids.tolist() == want.input_ids
            assert [tuple(span) for span in spans.tolist()] == want.offset_mapping
            want = theirs([(text, pair)], return_offsets_mapping=True)
            ids, spans, parts = ours.offsets(text, pair)
            assert [tuple(span) for span in spans.tolist()] == want.offset_mapping[0]
            assert parts.tolist() == [-1 if part is None else part for part in want.sequence_ids(0)]


@of("t5")
def test_streamed_text_is_not_cleaned(folder):
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("is n't it , yes . it 's", add_special_tokens=False)
    assert tokenizer.decode(ids) == "isn't it, yes. it's"
    stream = tokenizer.stream()
    assert "".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode_raw(ids) == "is n't it , yes . it 's"


@of("bert-uncased-files")
def test_special_tokens_are_asked_for_by_role_or_spelling(folder):
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.special_id("mask") == tokenizer.special_id("[MASK]") == tokenizer.mask_id == 4
    for name in ("bos", "<|im_end|>", "the"):
        with pytest.raises(ValueError, match=rf"got '{name.replace('|', '.')}'; by role it has .*pad '\[PAD\]'"):
            tokenizer.special_id(name)


@pytest.mark.parametrize("call", ["encode", "encode_pair", "offsets"])
@pytest.mark.parametrize("folder", ["llama-prepend"], indirect=True)
def test_text_must_be_unicode(folder, call):
    tokenizer = Tokenizer.load(folder)
    arguments = ["b"] if call == "encode_pair" else []
    with pytest.raises(TypeError, match="text must be a str, got bytes"):
        getattr(tokenizer, call)(b"a", *arguments)
    with pytest.raises(ValueError, match="lone surrogate"):
        getattr(tokenizer, call)("\ud800", *arguments)


@pytest.mark.parametrize("name", ["tokenizer.model", "source.spm"])
def test_a_sentencepiece_model_alone_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x0a\x0b")
    (tmp_path / "vocab.json").write_text("{}")  # Marian's, without merges
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=rf"{name}, a SentencePiece model; let transformers convert it"):
            Tokenizer.load(path)


WRONG = [
    ("gpt2-files", "vocab.json", b"[1]", "vocab.json must be a JSON object; got list"),
    ("gpt2-files", "vocab.json", b'{"a": "x"}', r"vocab.json must map each token to an id from 0 up; got 'a': 'x'"),
    ("gpt2-files", "vocab.json", b'{"a": -1}', "vocab.json must map"),
    ("gpt2-files", "vocab.json", b'{"a": 1e3}', "vocab.json must map"),
    ("gpt2-files", "vocab.json", b'{"a": 99999999999}', "vocab.json must map"),
    ("gpt2-files", "vocab.json", b'{"a": 1, "b": 1}', "the same id twice"),
    ("gpt2-files", "vocab.json", b"[" * 100_000, "vocab.json must be a JSON object"),
    ("gpt2-files", "merges.txt", b"#version: 0.2\nzz b\n", "merges.txt, line 2 must be two tokens"),
    ("gpt2-files", "merges.txt", b"a b c\n", "merges.txt, line 1"),
    ("gpt2-files", "merges.txt", b"zz yy\n", "merges.txt, line 1"),
    ("gpt2-files", "merges.txt", b"\xff\xfe", "merges.txt must be a readable UTF-8 file"),
    ("gpt2-files", "config.json", b"3", "config.json must be a JSON object"),
    ("gpt2-files", "tokenizer_config.json", b'{"tokenizer_class": "CTRLTokenizer"}', "got 'CTRLTokenizer'; let tran"),
    ("gpt2-files", "tokenizer_config.json", b'{"add_prefix_space": 3}', "add_prefix_space must be bool; got int"),
    ("gpt2-files", "tokenizer_config.json", b'{"eos_token": 3}', "a special token must be a string"),
    ("gpt2-files", "tokenizer_config.json", b'{"eos_token": {"content": "x", "lstrip": 3}}', "true or false"),
    ("gpt2-files", "tokenizer_config.json", b'{"model_max_length": "x"}', "model_max_length must be int or float"),
    ("gpt2-files", "tokenizer_config.json", b'{"chat_template": 3}', "chat_template must be a string"),
    ("gpt2-files", "tokenizer_config.json", b'{"chat_template": [3]}', "chat_template must be a string or a list"),
    ("gpt2-files", "tokenizer_config.json", b'{"added_tokens_decoder": [3]}', "added_tokens_decoder must be an object"),
    ("gpt2-files", "tokenizer_config.json", b'{"added_tokens_decoder": {"7": "<x>"}}', "'<x>' must be token 7; the"),
    ("gpt2-files", "tokenizer_config.json", b'{"additional_special_tokens": 3}', "extra_special_tokens must be a list"),
    ("gpt2-files", "added_tokens.json", b'{"<x>": 3}', "'<x>' must be token 3; the vocabulary makes it"),
    ("gpt2-files", "added_tokens.json", b'{"<x>": "y"}', "added_tokens_decoder must be an object from ids"),
    ("roberta-files", "special_tokens_map.json", b'{"cls_token": null}', "RoBERTa's cls_token must be a token"),
    ("bert-cased-files", "vocab.txt", b"[PAD]\n\xff\n", "vocab.txt must be BERT's vocabulary, UTF-8"),
    ("bert-cased-files", "tokenizer_config.json", b'{"do_lower_case": "no"}', "do_lower_case must be bool; got str"),
    ("bert-cased-files", "tokenizer_config.json", b'{"cls_token": null}', "a special token must be a string"),
    ("bert-cased-json", "tokenizer.json", b"{}", "tokenizer.json as the tokenizers library writes it; got"),
    ("bert-cased-json", "tokenizer.json", b"\xff", "readable UTF-8"),
    ("t5", "chat_template.jinja", b"\xff", "chat_template.jinja must be a readable UTF-8 file"),
]


@pytest.mark.parametrize(("folder", "name", "content", "words"), WRONG, indirect=["folder"])
def test_a_wrong_file_is_named(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        Tokenizer.load(folder)
    assert str(folder) in str(caught.value)


FUZZED = ["bert-cased-json", "llama-prepend", "t5", "gpt2-files", "roberta-files", "bert-accents", "qwen2-files"]


@pytest.mark.parametrize("folder", FUZZED, indirect=True)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_are_read_or_refused(folder, data):
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = file.read_bytes()
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(broken)))
        broken[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"null", b"-1", b"9" * 12, b"[]", b'"', b"\n", b"{"])
        )
    if data.draw(st.booleans()):
        del broken[data.draw(st.integers(0, len(broken))) :]
    file.write_bytes(broken)
    try:
        said = complaint(use, folder)
    finally:
        file.write_bytes(whole)
    assert said is None or len(said) < 1500


def use(folder):
    tokenizer = Tokenizer.load(folder)
    for text in NASTY[:12]:
        tokenizer.decode(tokenizer.encode(text))


def keys(place):
    return sorted(place) if isinstance(place, dict) else range(len(place))


LEAVES = (
    st.none() | st.booleans() | st.integers(-1, 2**40) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
)


@pytest.mark.parametrize("folder", ["bert-cased-json", "llama-prepend", "t5", "llama3"], indirect=True)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_tokenizer_json_with_other_values_is_read_or_refused(folder, data):
    file = data.draw(st.sampled_from([folder / "tokenizer.json", folder / "tokenizer_config.json"]))
    whole = file.read_bytes()
    value = json.loads(whole)
    place = value
    for _ in range(data.draw(st.integers(0, 4))):
        inner = [key for key in keys(place) if isinstance(place[key], (dict, list)) and place[key]]
        if not inner:
            break
        place = place[data.draw(st.sampled_from(inner))]
    key = data.draw(st.sampled_from(keys(place)))
    place[key] = data.draw(LEAVES)
    file.write_text(json.dumps(value))
    try:
        complaint(use, folder)
    finally:
        file.write_bytes(whole)
