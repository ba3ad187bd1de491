"""The text of tokens as they come, against the text of all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from minilm.generate.texts import Writer
from minilm.text import Tokenizer
from tests.generate.models import bytes_vocabulary

BYTES = bytes_vocabulary()


@pytest.fixture(scope="module")
def words():
    """As Llama's: a word begins with a space, which is not written where a text begins."""
    pieces = ["▁the", "▁cat", "s", "▁sat", ".", "<unk>"]
    library = Library(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return Tokenizer(library)


def test_what_follows_a_prompt_keeps_its_space(words):
    assert words.decode([1, 2, 3]) == "cats sat"
    writer = Writer(words, np.array([0]), ())
    assert [writer.push(i)[0] for i in (1, 2, 3, 4)] == [" cat", "s", " sat", "."]
    writer = Writer(words, np.array([], np.int64), ())
    assert [writer.push(i)[0] for i in (1, 2, 3, 4)] == ["cat", "s", " sat", "."]


@settings(deadline=None)
@given(st.text("abé", max_size=30), st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
def test_stop_strings_however_they_arrive(text, stops):
    """Shown is what stands before the first stop string to be complete; if several end together, before the longest."""
    writer, shown = Writer(BYTES, np.array([], np.int64), stops), ""
    for token in BYTES.encode(text):
        piece, found = writer.push(token)
        shown += piece
        if found:
            break
    else:
        shown += writer.flush()
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)]
    whole = text[: min(ends)] if ends else text
    cut = max((len(stop) for stop in stops if whole.endswith(stop)), default=0) if ends else 0
    assert shown == whole[: len(whole) - cut]
