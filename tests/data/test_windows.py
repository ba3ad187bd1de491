"""Windows of tokens: where they may begin, what they hold, and that the seed alone decides."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import DataError, Windows, consecutive_windows, documents, fixed_windows, split, tokenize
from minilm.text import train_tokenizer

SHAKESPEARE = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt"
TOKENS = np.arange(1000, dtype=np.uint16)
TOKENS.setflags(write=False)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="../shared/data/tinyshakespeare is not here")
def test_tinyshakespeare_is_split_as_in_nanogpt(tmp_path):
    corpus = documents(SHAKESPEARE)
    tokenizer = train_tokenizer("character", corpus.texts())
    train, validation = split(tokenize(corpus, tokenizer, tmp_path / "t.bin", seed=9).tokens)
    text = SHAKESPEARE.read_bytes().decode()
    assert (len(train), len(validation)) == (1_003_854, 111_540)  # printed by nanoGPT's prepare.py
    assert tokenizer.decode(train) == text[:1_003_854]
    assert tokenizer.decode(validation) == text[1_003_854:]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_targets_are_the_inputs_one_place_later(dtype):
    tokens = np.random.default_rng(0).integers(60_000, size=200).astype(dtype)
    rows = {tuple(tokens[i : i + 9].tolist()) for i in range(192)}
    windows = Windows(tokens, block_size=8, batch_size=5, seed=0)
    for _ in range(20):
        inputs, targets = next(windows)
        assert inputs.shape == targets.shape == (5, 8)
        assert inputs.dtype == targets.dtype == np.int64
        assert inputs.flags.c_contiguous
        assert targets.flags.c_contiguous
        for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert (*x, y[-1]) in rows
            assert x[1:] == y[:-1]


def test_every_window_may_be_drawn_and_none_beyond_the_end():
    windows = Windows(np.arange(10), block_size=4, batch_size=200, seed=0)
    inputs, targets = next(windows)
    assert set(inputs[:, 0].tolist()) == set(range(6))
    assert targets.max() == 9
    inputs, targets = next(Windows(np.arange(5), block_size=4, batch_size=3, seed=0))
    assert (targets[:, -1] == 4).all()


def test_the_seed_alone_decides():
    def draw(seed, n=3):
        windows = Windows(TOKENS, 8, 4, seed)
        return np.concatenate([next(windows)[0] for _ in range(n)])

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize("drawn", [0, 1, 7])
def test_a_resumed_stream_draws_the_same(drawn):
    """An odd batch leaves half a draw in the generator's buffer, which is part of its state."""
    windows = Windows(TOKENS, 8, 3, seed=5)
    for _ in range(drawn):
        next(windows)
    kept = json.dumps(windows.state)
    want = [next(windows) for _ in range(5)]
    resumed = Windows(TOKENS, 8, 3, seed=99)
    resumed.state = json.loads(kept)
    for (x, y), (a, b) in zip(want, resumed, strict=False):
        np.testing.assert_array_equal(a, x)
        np.testing.assert_array_equal(b, y)


@pytest.mark.parametrize("state", [{}, None, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64", "state": 1}])
def test_a_state_that_is_not_one_is_refused_and_nothing_changes(state):
    windows, same = Windows(TOKENS, 8, 3, seed=5), Windows(TOKENS, 8, 3, seed=5)
    with pytest.raises(ValueError, match=r"state must be what Windows\.state gave"):
        windows.state = state
    np.testing.assert_array_equal(next(windows)[0], next(same)[0])


def test_fixed_windows_are_fixed():
    first, again = (list(fixed_windows(TOKENS, 8, 4, batches=6, seed=1)) for _ in range(2))
    fewer = list(fixed_windows(TOKENS, 8, 4, batches=2, seed=1))
    assert (len(first), len(fewer)) == (6, 2)
    for (x, y), (a, b) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, x)
        np.testing.assert_array_equal(b, y)
        np.testing.assert_array_equal(y, x + 1)
    np.testing.assert_array_equal(fewer[1][0], first[1][0])
    assert (first[0][0] != next(iter(fixed_windows(TOKENS, 8, 4, 1, seed=2)))[0]).any()
    assert (first[0][0] != next(Windows(TOKENS, 8, 4, seed=1))[0]).any()


@given(st.integers(2, 80), st.integers(1, 9), st.integers(1, 5))
def test_consecutive_windows_have_every_target_once(n, block_size, batch_size):
    tokens = np.arange(n, dtype=np.uint16)
    if n < block_size + 1:
        with pytest.raises(DataError, match="must hold one window"):
            consecutive_windows(tokens, block_size, batch_size)
        return
    batches = list(consecutive_windows(tokens, block_size, batch_size))
    assert np.concatenate([y.ravel() for _, y in batches]).tolist() == list(range(1, n))
    assert np.concatenate([x.ravel() for x, _ in batches]).tolist() == list(range(n - 1))
    assert all(x.shape[0] <= batch_size and x.shape[1] <= block_size and x.size for x, _ in batches)


@pytest.mark.parametrize(
    "make",
    [
        lambda tokens: Windows(tokens, 8, 2, 0, name="validation split"),
        lambda tokens: fixed_windows(tokens, 8, 2, 3, 0),
        lambda tokens: consecutive_windows(tokens, 8, 2),
    ],
)
def test_tokens_shorter_than_a_window_are_refused(make):
    make(TOKENS[:9])
    with pytest.raises(DataError, match=r"validation split must hold .* 9 tokens; got 8; give more text or a smaller"):
        make(TOKENS[:8])


def test_sizes_and_fractions_are_checked():
    for block_size, batch_size, name in [(0, 1, "block_size"), (1, 0, "batch_size")]:
        with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
            Windows(TOKENS, block_size, batch_size, 0)
    for fraction in (0, 1, -1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split(TOKENS, fraction)
