"""Marian against transformers' own: both models, every option and layout of tokens."""

import numpy as np
import pytest
import transformers

from tests.models import judge, pairs

LM = transformers.MarianMTModel


def config(**changes):
    small = {"vocab_size": 31, "max_position_embeddings": 12, "d_model": 24, "encoder_layers": 3, "decoder_layers": 2}
    small |= {"encoder_ffn_dim": 20, "decoder_ffn_dim": 17, "encoder_attention_heads": 2, "decoder_attention_heads": 3}
    return transformers.MarianConfig(**{**small, "pad_token_id": 30, "decoder_start_token_id": 30, **changes})


APART = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 37}
CASES = [
    judge.Case(*case, scale=0.15)  # at 0.3 the decoder's last scores saturate
    for case in (
        ("source and target", transformers.MarianModel, config(), pairs.PLAIN),
        ("two tables, base", transformers.MarianModel, config(**APART), pairs.PLAIN),
        ("padding", LM, config(), pairs.PADDED),
        ("as published", LM, config(scale_embedding=True, activation_function="swish"), pairs.PLAIN, pairs.LABELS),
        ("untied", LM, config(tie_word_embeddings=False), pairs.PLAIN, pairs.LABELS),
        ("two tables", LM, config(**APART), pairs.PLAIN, pairs.LABELS),
        ("two tables, untied", LM, config(**APART, tie_word_embeddings=False), pairs.PLAIN, pairs.LABELS),
        ("odd width", LM, config(d_model=15, encoder_attention_heads=3, activation_function="relu"), pairs.PLAIN),
    )
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_round_trip(case, tmp_path):
    model = judge.checkpoint(tmp_path / "a", case.cls, case.config)
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("changes", [{}, {**APART, "scale_embedding": True}], ids=str)
def test_packed_and_cached(changes, dtype, tmp_path):
    judge.checkpoint(tmp_path, LM, config(**changes))
    pairs.check_packed(tmp_path, dtype)
    pairs.check_packed_loss(tmp_path, dtype)
    pairs.check_cached(tmp_path, dtype)
    pairs.check_one_source_from_another(tmp_path)


def test_labels_alone_are_the_target_behind_the_start(tmp_path):
    pairs.check_labels_alone(tmp_path, judge.checkpoint(tmp_path, LM, config(decoder_start_token_id=5)))
