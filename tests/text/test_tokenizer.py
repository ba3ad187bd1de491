"""Vocabularies against the ``tokenizers`` library's own reading of the saved file, and against published numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from minilm.text import Tokenizer, train_tokenizer

SHAKESPEARE = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt"
PROSE = [
    "The quick brown fox jumps over the lazy dog.\n" * 3,
    "Zoë said: «naïve café», 你好, 🙂👩‍👩‍👧!\r\n\tdef f(x):\n        return x  # 2²\n",
    "unaffable unaffordable affable  able   \x1c\x85\u2028 end <|endoftext|> [MASK]",
]
SIZES = {"character": None, "bpe": 400, "wordpiece": 200}
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
mixed_text = st.lists(st.sampled_from(["<|endoftext|>", "[SEP]", " ", "\n", "é", "🙂", "the"]) | unicode_text).map(
    "".join
)


@pytest.fixture(scope="module")
def made():
    return {kind: train_tokenizer(kind, PROSE, size) for kind, size in SIZES.items()}


@pytest.fixture(scope="module")
def reread(made, tmp_path_factory):
    """The saved files as the library reads them by itself."""
    folder = tmp_path_factory.mktemp("vocabularies")
    for kind, tokenizer in made.items():
        tokenizer.save(folder / kind)
    return {kind: tokenizers.Tokenizer.from_file(str(folder / kind / "tokenizer.json")) for kind in made}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
@given(text=mixed_text)
def test_the_library_reads_the_file_and_agrees(made, reread, kind, text):
    for special in (True, False):
        want = reread[kind].encode(text, add_special_tokens=special).ids
        got = made[kind].encode(text, add_special_tokens=special)
        assert got.dtype == np.int64
        assert got.tolist() == want
        assert made[kind].decode(got) == reread[kind].decode(want, skip_special_tokens=False)


@given(data=st.data())
def test_looked_up_characters_are_those_of_the_library(made, reread, data):
    text = data.draw(st.text(st.sampled_from("".join(PROSE)), max_size=80))
    ids = made["character"].encode(text)
    assert ids.dtype == np.int64
    assert ids.tolist() == reread["character"].encode(text).ids
    assert made["character"].decode(ids) == reread["character"].decode(ids.tolist()) == text


@given(text=mixed_text)
def test_bpe_loses_nothing(made, text):
    assert made["bpe"].decode(made["bpe"].encode(text)) == text


@pytest.mark.parametrize("kind", SIZES)
def test_load_after_save_is_the_same_vocabulary(made, tmp_path, kind):
    tokenizer = made[kind]
    tokenizer.save(tmp_path / "run")
    tokenizer.save(tmp_path / "alone.json")
    for path in (tmp_path / "run", tmp_path / "run/tokenizer.json", tmp_path / "alone.json"):
        again = Tokenizer.load(path)
        assert (again.fingerprint, again.kind, again.eos_id) == (tokenizer.fingerprint, kind, tokenizer.eos_id)
        assert again.encode("The fox").tolist() == tokenizer.encode("The fox").tolist()
        assert again.cuts_at_spaces == tokenizer.cuts_at_spaces is True
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == [
        "alone.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_transformers_reads_the_folder_and_agrees(made, tmp_path):
    import transformers

    for kind, tokenizer in made.items():
        tokenizer.save(tmp_path / kind)
        (tmp_path / kind / "config.json").write_text('{"model_type": "gpt2"}')  # which would add <|endoftext|>
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / kind)
        assert len(theirs) == tokenizer.vocab_size
        assert theirs.eos_token_id == tokenizer.eos_id
        text = "The quick naïve fox\n\n  def f(x):" if kind != "character" else "The quick fox\n\n  def f(x):"
        assert theirs(text).input_ids == tokenizer.encode(text).tolist()
        assert theirs.decode(theirs(text).input_ids) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="../shared/data/tinyshakespeare is not here")
def test_tinyshakespeare_has_the_65_characters_of_nanogpt():
    text = SHAKESPEARE.read_bytes().decode()
    tokenizer = train_tokenizer("character", [text[:500_000], text[500_000:]])
    assert tokenizer.vocab_size == len(tokenizer) == 65
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert (
        "".join(map(tokenizer.id_to_token, range(65))) == "\n !$&',-.3:;?" + letters
    )  # nanoGPT's prepare.py prints it
    assert tokenizer.special_tokens == {}
    assert tokenizer.eos_id is None
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_first_merges_are_those_of_sennrich():
    """The dictionary of Sennrich et al. 2016, Algorithm 1; its merges, but for those of the end-of-word sign."""
    words = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    tokenizer = train_tokenizer("bpe", words, 261)
    assert [tokenizer.id_to_token(i) for i in range(257, 261)] == ["es", "est", "lo", "low"]
    assert tokenizer.token_to_id("<|endoftext|>") == tokenizer.eos_id == 0


def test_wordpiece_is_framed_and_cleaned_as_bert(made):
    tokenizer = made["wordpiece"]
    assert [tokenizer.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.special_tokens == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert tokenizer.encode("NAÏVE").tolist() == tokenizer.encode("naive").tolist()
    assert tokenizer.encode("the [MASK] Ω").tolist() == [2, tokenizer.token_to_id("the"), 4, 1, 3]
    cased = train_tokenizer("wordpiece", PROSE, 400, lowercase=False)
    assert cased.decode(cased.encode("Zoë", add_special_tokens=False)) == "Zoë"


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_size_is_kept_and_small_text_gives_less(kind):
    assert train_tokenizer(kind, PROSE, 300).vocab_size == 300 if kind == "bpe" else True
    assert train_tokenizer(kind, ["ab ab"], 5000).vocab_size < 300
    many = ["".join(map(chr, range(0x4E00, 0x4E00 + 3000)))]  # more characters than the vocabulary may have tokens
    assert train_tokenizer(kind, many, 300).vocab_size <= 300


def test_every_process_makes_the_same_vocabulary():
    code = (
        "from minilm.text import train_tokenizer; import sys; text = sys.stdin.buffer.read().decode();"
        "print(*[train_tokenizer(k, [text], n).fingerprint for k, n in (('bpe', 400), ('wordpiece', 300))])"
    )
    text = Path(__file__).read_bytes()
    prints = {
        subprocess.run(
            [sys.executable, "-c", code], input=text, stdout=subprocess.PIPE, check=True, env=os.environ | extra
        ).stdout
        for extra in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "RAYON_NUM_THREADS": "1"}, {})
    }
    assert len(prints) == 1


def test_holes_in_the_ids_have_rows_too():
    library = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 9, "?": 3}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(library)
    assert tokenizer.vocab_size == 10
    assert tokenizer.encode("a b z").tolist() == [0, 9, 3]


def test_truncation_and_padding_of_a_file_are_dropped(made, tmp_path):
    library = tokenizers.Tokenizer.from_str(made["bpe"]._tokenizer.to_str())
    library.enable_truncation(2)
    library.enable_padding(length=9)
    library.save(str(tmp_path / "tokenizer.json"))
    for text in ("x", PROSE[0]):
        assert Tokenizer.load(tmp_path).encode(text).tolist() == made["bpe"].encode(text).tolist()


def test_end_of_text_is_what_the_configuration_says(made, tmp_path):
    made["wordpiece"].save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    assert json.loads(config.read_text())["eos_token"] == "[SEP]"
    config.write_text('{"eos_token": {"content": "[MASK]"}}')
    assert Tokenizer.load(tmp_path).eos_id == 4
    config.write_text('{"eos_token": "[NONE]"}')
    assert Tokenizer.load(tmp_path).eos_id == made["wordpiece"].vocab_size  # added behind, as transformers does
    config.write_text("[")
    with pytest.raises(ValueError, match="must be a JSON object"):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_that_puts_a_space_first_does_not_cut_at_spaces():
    for step in (pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel(add_prefix_space=True)):
        library = tokenizers.Tokenizer(models.BPE())
        library.pre_tokenizer = step
        assert not Tokenizer(library).cuts_at_spaces
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert not Tokenizer(library).cuts_at_spaces


def test_a_split_that_is_not_at_every_character_is_not_looked_up():
    library = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "ab": 2}))
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    library.decoder = decoders.Fuse()
    assert Tokenizer(library).kind == "word"
    library.model = models.WordLevel({"a": 0, "b": 1})
    assert Tokenizer(library).kind == "character"
    library.model = models.WordLevel({"a": 0, "?": 1}, unk_token="?")
    assert Tokenizer(library).kind == "word"
    assert Tokenizer(library).encode("az").tolist() == [0, 1]
    library.model = models.WordLevel({"a": 0, "b": 1})
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"."), "isolated")
    assert Tokenizer(library).kind == "word"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("hello wörlδ", ValueError, r"'δ' \(U\+03B4\) at position 10; leave it out"),
        ("\ud800", ValueError, r"got '\\ud800' \(U\+D800\) at position 0"),
        (b"bytes", TypeError, "text must be a str, got bytes"),
    ],
)
def test_text_that_characters_cannot_encode(text, error, words):
    tokenizer = train_tokenizer("character", ["hello wörld"])
    with pytest.raises(error, match=words):
        tokenizer.encode(text)


def test_characters_above_and_below_the_alphabet_are_refused():
    tokenizer = train_tokenizer("character", ["bd"])
    for text in ("a", "c", "e", "\U0010ffff", "\0"):
        with pytest.raises(ValueError, match="at position 1"):
            tokenizer.encode("b" + text)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_lone_surrogate_is_named(made, kind):
    with pytest.raises(ValueError, match=r"lone surrogate '\\udcff' at position 2"):
        made[kind].encode("ab\udcff")


@pytest.mark.parametrize("kind", SIZES)
def test_ids_outside_the_vocabulary_are_refused(made, kind):
    size = made[kind].vocab_size
    for ids in ([0, size], np.array([-1]), [2**40]):
        with pytest.raises(ValueError, match=rf"token ids must be in \[0, {size}\), got {ids[-1]}"):
            made[kind].decode(ids)
    with pytest.raises(TypeError, match="integers, got float64"):
        made[kind].decode([0.5])
    assert made[kind].decode([]) == ""
    assert made[kind].id_to_token(size) is None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("words", ["a"], 300), ValueError, "one of character, bpe, wordpiece; got 'words'"),
        (("bpe", ["a"], 256), ValueError, "integer of 257 or more; got 256"),
        (("bpe", ["a"]), ValueError, "integer of 257 or more; got None"),
        (("wordpiece", ["a"], 3), ValueError, "64 or more; got 3"),
        (("character", ["a"], 65), ValueError, "leave it out"),
        (("character", "a"), TypeError, "iterable of str, got one str"),
        (("bpe", [], 300), ValueError, "documents must hold text; got none"),
        (("character", ["", ""]), ValueError, "documents must hold text; got none"),
    ],
)
def test_arguments_of_training(arguments, error, words):
    with pytest.raises(error, match=words):
        train_tokenizer(*arguments)


def test_files_that_are_not_vocabularies(tmp_path):
    with pytest.raises(ValueError, match=r"must be a tokenizer\.json or a folder with one"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "mod')
    with pytest.raises(ValueError, match="as the tokenizers library writes it; got"):
        Tokenizer.load(tmp_path)


def test_the_library_is_imported_on_first_use():
    code = "import minilm.text, minilm.data, sys; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
