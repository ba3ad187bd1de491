"""Text that comes token by token is the text of all tokens, and never half a character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.text import Tokenizer, train_tokenizer

PROSE = ["the cat, the hat; don't! 你好 🙂 é\n" * 4, "def f(x):\n    return x\n"]
SIZES = {"character": None, "bpe": 300, "wordpiece": 150}


@pytest.fixture(scope="module")
def made():
    return {kind: train_tokenizer(kind, PROSE, size) for kind, size in SIZES.items()}


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", SIZES)
@given(data=st.data())
def test_pieces_joined_are_the_whole(made, kind, skip, data):
    tokenizer = made[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    stream = tokenizer.stream(skip)
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids, skip)
    assert stream.flush() == ""


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40))
def test_no_piece_has_half_a_character(made, text):
    stream = made["bpe"].stream()
    pieces = [stream.push(i) for i in made["bpe"].encode(text)]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text
    assert stream.flush() == ""


def test_text_comes_as_soon_as_it_is_whole():
    tokenizer = train_tokenizer("bpe", PROSE, 257)  # one token per byte
    stream = tokenizer.stream()
    assert [stream.push(i) for i in tokenizer.encode("a🦊b")] == ["a", "", "", "", "🦊", "b"]
    for token_id in tokenizer.encode("🦊")[:3]:
        assert stream.push(token_id) == ""
    assert stream.flush() == "\ufffd"
    assert stream.push(tokenizer.encode("c")[0]) == "c"


def test_a_stream_goes_on_from_a_prompt(root):
    tokenizer = Tokenizer.load(root / "llama-prepend")  # which drops the space before the first of all tokens
    ids = tokenizer.encode("The quick brown 你 fox", add_special_tokens=False)
    for cut in range(len(ids)):
        stream = tokenizer.stream()
        for i in ids[:cut]:
            stream.push(i)
        text = "".join([*map(stream.push, ids[cut:]), stream.flush()])
        if not tokenizer.decode(ids[:cut]).endswith("\ufffd"):
            assert tokenizer.decode(ids[:cut]) + text == "The quick brown 你 fox"
