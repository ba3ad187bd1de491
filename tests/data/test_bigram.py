"""The bigram model against one written with dictionaries, and against the number known for tinyshakespeare."""

import math
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minilm.data import Bigram, bigram, split

SHAKESPEARE = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt"
V = 7
TRAIN = np.minimum(np.random.default_rng(0).geometric(0.4, size=500), 6).astype(np.uint16)  # 0 never occurs
VALIDATION = np.random.default_rng(1).integers(0, V, size=100).astype(np.uint16)


def by_dictionaries(train, validation, a):
    pairs = Counter(zip(train[:-1].tolist(), train[1:].tolist(), strict=True))
    first, second = Counter(train[:-1].tolist()), Counter(train[1:].tolist())
    loss = 0.0
    for x, y in zip(validation[:-1].tolist(), validation[1:].tolist(), strict=True):
        unigram = (second[y] + 1) / (len(train) - 1 + V)
        loss -= math.log((pairs[x, y] + a * unigram) / (first[x] + a))
    return loss / (len(validation) - 1)


def left_out_by_dictionaries(train, a):
    """Score each pair by a model of all the others, built anew each time."""
    score = 0.0
    everything = list(zip(train[:-1].tolist(), train[1:].tolist(), strict=True))
    for i, (x, y) in enumerate(everything):
        others = everything[:i] + everything[i + 1 :]
        unigram = (sum(second == y for _, second in others) + 1) / (len(others) + V)
        n_x = sum(first == x for first, _ in others)
        score += math.log((sum(pair == (x, y) for pair in others) + a * unigram) / (n_x + a))
    return score


@pytest.mark.parametrize("dense", [0, 1 << 20], ids=["sorted", "table"])
@pytest.mark.parametrize("chunk", [1, 3, 99, 1 << 20])
@pytest.mark.parametrize("a", [0.5, 30.0])
def test_loss_is_that_of_dictionaries(monkeypatch, dense, chunk, a):
    monkeypatch.setattr(bigram, "DENSE", dense)
    monkeypatch.setattr(bigram, "CHUNK", chunk)
    got = Bigram(TRAIN, V, strength=a).loss(VALIDATION)
    assert got == pytest.approx(by_dictionaries(TRAIN, VALIDATION, a), rel=1e-12)


@pytest.mark.parametrize("tokens", [TRAIN[:80], np.arange(80) % 5, VALIDATION])
def test_strength_is_that_of_leaving_each_pair_out(tokens):
    model = Bigram(tokens, V)
    scores = {a: left_out_by_dictionaries(tokens, a) for a in bigram.STRENGTHS}
    assert model._left_out(2.0) == pytest.approx(scores[2.0], rel=1e-12)
    assert model.strength == max(scores, key=scores.get)


def test_probabilities_sum_to_one_after_every_token():
    x, y = np.mgrid[:V, :V]
    model = Bigram(TRAIN, V)
    np.testing.assert_allclose(np.exp(model.log_probability(x, y)).sum(1), 1.0, rtol=1e-12, atol=0)
    assert model.log_probability(x, y).dtype == np.float64


def test_loss_of_batches_is_the_same_model():
    model = Bigram(TRAIN, V)
    x, y = VALIDATION[:-1].reshape(9, 11), VALIDATION[1:].reshape(9, 11)
    assert -model.log_probability(x, y).mean() == pytest.approx(model.loss(VALIDATION), rel=1e-12)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="../shared/data/tinyshakespeare is not here")
def test_tinyshakespeare():
    """Karpathy's neural bigram of characters ends near 2.5 on this text; counting is a little better."""
    text = np.frombuffer(SHAKESPEARE.read_bytes(), dtype=np.uint8)
    tokens = np.unique(text, return_inverse=True)[1].astype(np.uint16)
    train, validation = split(tokens)
    assert 2.45 < Bigram(train, 65).loss(validation) < 2.50


def test_memory_follows_the_pairs_and_not_the_square_of_the_vocabulary():
    tokens = np.random.default_rng(0).integers(100_000, size=200_000).astype(np.uint32)
    tracemalloc.start()
    model = Bigram(tokens, 100_000)
    assert model.loss(tokens[:1000]) < math.log(100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # a table would be 80 GB


def test_arguments():
    for tokens in ([], [1]):
        with pytest.raises(ValueError, match="must hold a pair"):
            Bigram(np.array(tokens, dtype=np.uint16), V)
    with pytest.raises(ValueError, match="strength must be positive, got 0"):
        Bigram(TRAIN, V, strength=0)
    with pytest.raises(ValueError, match="must hold a pair"):
        Bigram(TRAIN, V).loss(TRAIN[:1])
    assert Bigram(np.array([3, 3]), V).loss(np.array([3, 3])) < math.log(V)
