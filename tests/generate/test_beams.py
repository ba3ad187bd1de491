"""Beam search against transformers': the same texts in the same order, with the same scores."""

import numpy as np
import pytest
import torch

from minilm.generate import GenerationConfig, generate
from minilm.generate.beams import Beams
from tests.generate.models import bytes_vocabulary, pair, prompts, want

ENDS = list(range(3, 40))
CASES = [
    {"early_stopping": False, "length_penalty": 1.0},
    {"early_stopping": True, "length_penalty": 1.0},
    {"early_stopping": "never", "length_penalty": 1.0},
    {"early_stopping": "never", "length_penalty": -0.5},
    {"early_stopping": False, "length_penalty": 2.0},
    {"early_stopping": True, "length_penalty": 0.0},
    {"eos_token_id": 3, "min_new_tokens": 3},
    {"eos_token_id": None},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "bad_words_ids": [[20], [30, 31]]},
    {"forced_bos_token_id": 7, "forced_eos_token_id": 5, "renormalize_logits": True},
]


@pytest.fixture(scope="module", params=["gpt2", "bart", "t5"])
def models(request, tmp_path_factory):
    return [pair(request.param, tmp_path_factory.mktemp(f"{request.param}{seed}"), seed=seed) for seed in range(2)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_beams_are_transformers(models, case):
    options = {"max_new_tokens": 8, "num_beams": 4, "num_return_sequences": 3, "eos_token_id": ENDS, **case}
    own = {**options, "eos_token_id": options["eos_token_id"] or ()}
    ended = []
    for theirs, ours in models:
        given = prompts((5, 1))
        results = generate(ours, given, logprobs=True, **own)
        for i, prompt in enumerate(given):
            texts, worth = want(theirs, prompt, **options)
            for result, text, score in zip(results[3 * i : 3 * i + 3], texts, worth.tolist(), strict=True):
                n = len(result.ids)
                assert result.ids.tolist() == text[:n]
                assert set(text[n:]) <= {60, 3}, "only padding may follow"
                assert abs(result.score - score) < 2e-5 * max(1, abs(score))
                if "no_repeat_ngram_size" not in case and "forced_bos_token_id" not in case:
                    penalty = case.get("length_penalty", 1.0)
                    assert abs(result.logprobs.sum() / n**penalty - result.score) < 1e-9
                ended.append(result.finish_reason)
    if "eos_token_id" in case:
        assert case["eos_token_id"] == 3 or set(ended) == {"length"}
    else:
        assert "stop" in ended


def test_the_text_and_where_positions_end(models):
    theirs, ours = models[0]
    tokenizer = bytes_vocabulary()
    given = prompts((45, 20))
    if not hasattr(ours, "encode"):
        results = generate(ours, given, max_new_tokens=40, num_beams=3, eos_token_id=(), tokenizer=tokenizer)
        assert [len(result.ids) for result in results] == [4, 29]
        for prompt, result in zip(given, results, strict=True):
            texts, _ = want(theirs, prompt, max_new_tokens=49 - len(prompt), num_beams=3, eos_token_id=None)
            assert result.ids.tolist() == texts[0]
            assert result.text == tokenizer.decode(result.ids)


def test_sampled_beams_follow_from_the_seed(models):
    ours = models[0][1]
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": True, "temperature": 1.5, "top_k": 20}
    given = prompts((5, 3))
    one, same, other = (generate(ours, given, rng=np.random.default_rng(seed), **options) for seed in (0, 0, 1))
    assert [r.ids.tolist() for r in one] == [r.ids.tolist() for r in same] != [r.ids.tolist() for r in other]


def test_sampled_beams_are_drawn_without_replacement():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    beams = Beams(GenerationConfig(num_beams=2, do_sample=True), 5, (), np.random.default_rng(0))
    pairs = [tuple(beams._chosen(np.log(p), 2)) for _ in range(4000)]
    torch.manual_seed(0)
    want = torch.multinomial(torch.tensor(p).expand(200000, 4), 2).numpy()
    for pair_ in [(0, 1), (1, 0), (2, 0), (3, 1)]:
        share = (want == pair_).all(axis=1).mean()
        assert abs(pairs.count(pair_) / 4000 - share) < 4 * np.sqrt(share / 4000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_return_sequences": 4}, "num_return_sequences must be at most num_beams, 3; got 4"),
        ({"stop_strings": "x"}, "stop_strings must be left out with beams"),
        ({"early_stopping": "soon"}, "early_stopping must be True, False or \"never\"; got 'soon'"),
        ({"num_beams": 0}, "num_beams must be a whole number, at least 1; got 0"),
    ],
)
def test_what_is_refused(models, options, words):
    with pytest.raises(ValueError, match=words):
        generate(models[0][1], [5], **{"num_beams": 3, **options})
