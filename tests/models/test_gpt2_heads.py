"""GPT-2's heads and options against transformers', by the judge of all families."""

import numpy as np
import pytest
import transformers

from tests.models import judge

IDS = np.random.default_rng(0).integers(1, 37, (3, 9))
HEADS = {
    "GPT2Model": None,
    "GPT2LMHeadModel": {"labels": IDS},
    "GPT2ForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "GPT2ForTokenClassification": {"labels": np.where(IDS % 4, IDS % 3, -100)},
    "GPT2ForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
VARIANTS = {
    "plain": {},
    "untied, erf, narrow": {"tie_word_embeddings": False, "activation_function": "gelu", "n_inner": 17},
    "unscaled, relu": {"scale_attn_weights": False, "activation_function": "relu", "layer_norm_epsilon": 1e-3},
    "by layer, silu": {"scale_attn_by_inverse_layer_idx": True, "activation_function": "silu"},
}


def config(**changes):
    small = {"vocab_size": 37, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3, "pad_token_id": 0}
    return transformers.GPT2Config(**{**small, "num_labels": 3, **changes})


CASES = [
    judge.Case(name, getattr(transformers, head), config(**changes), {"input_ids": IDS}, labels)
    for name, changes in VARIANTS.items()
    for head, labels in HEADS.items()
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, head), config())
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_packed_and_cached(dtype, tmp_path):
    judge.checkpoint(tmp_path, transformers.GPT2LMHeadModel, config())
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :4]], dtype=dtype)
    judge.check_cached(tmp_path, IDS, dtype=dtype)
