"""Marian against transformers' own: both models, every option and layout of tokens."""

import numpy as np
import pytest
import torch
import transformers

import minilm
from minilm.models.marian import MarianConfig
from tests.models import judge, pairs

LM = transformers.MarianMTModel


def config(**changes):
    small = {"vocab_size": 31, "max_position_embeddings": 12, "d_model": 24, "encoder_layers": 3, "decoder_layers": 2}
    small |= {"encoder_ffn_dim": 20, "decoder_ffn_dim": 17, "encoder_attention_heads": 2, "decoder_attention_heads": 3}
    return transformers.MarianConfig(**{**small, "pad_token_id": 30, "decoder_start_token_id": 30, **changes})


TWO = {"share_encoder_decoder_embeddings": False}
APART = {**TWO, "decoder_vocab_size": 37}
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


HONOURED = {"vocab_size": 40, "decoder_vocab_size": 40, "d_model": 12, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_ffn_dim": 5, "decoder_ffn_dim": 5, "encoder_attention_heads": 3, "decoder_attention_heads": 2,
            "activation_function": "swish", "scale_embedding": True, "tie_word_embeddings": False,
            "share_encoder_decoder_embeddings": False}  # fmt: skip
# By other tests, here and BART's: positions are a limit, rates and init_std are of training, ids of padding and ends.
SETTLED = {"max_position_embeddings": 9, "init_std": 0.3, "pad_token_id": 0, "eos_token_id": 3,
           "decoder_start_token_id": 3, "encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5, "dropout": 0.3,
           "attention_dropout": 0.3, "activation_dropout": 0.3, "classifier_dropout": 0.3}  # fmt: skip


def test_every_option_is_settled(tmp_path):
    tables = {option: HONOURED[option] for option in ("vocab_size", "decoder_vocab_size")}  # one is as the other
    rest = {option: value for option, value in HONOURED.items() if option not in tables}
    pairs.check_options(MarianConfig, config(**TWO), {**HONOURED, **SETTLED, "share_encoder_decoder_embeddings": True})
    pairs.check_honoured(LM, config(), rest, tmp_path)
    pairs.check_honoured(LM, config(**APART), tables, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder_vocab_size": 32}, "decoder_vocab_size must be vocab_size, 31, where source and target share"),
        ({"decoder_vocab_size": 0, **TWO}, "decoder_vocab_size must be a whole number"),
        ({"decoder_vocab_size": 9, **TWO}, "pad_token_id must be a row of the target's table too, below 9"),
        ({"static_position_embeddings": False}, "static_position_embeddings must be True"),
        ({"normalize_embedding": True}, "normalize_embedding must be False"),
        ({"add_final_layer_norm": True}, "add_final_layer_norm must be False"),
        ({"model_type": "bart"}, "model_type must be 'marian'"),
    ],
    ids=str,
)
def test_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        MarianConfig.from_dict({**config().to_dict(), **changes})


def test_what_published_configurations_hold():
    """Helsinki-NLP/opus-mt-en-de and its sisters have these besides."""
    old = {"_num_labels": 3, "add_bias_logits": False, "add_final_layer_norm": False, "classif_dropout": 0.0,
           "bad_words_ids": [[30]], "extra_pos_embeddings": 31, "force_bos_token_to_be_generated": False,
           "gradient_checkpointing": False, "max_length": 512, "normalize_before": False, "normalize_embedding": False,
           "num_beams": 6, "num_hidden_layers": 3, "output_past": True, "static_position_embeddings": True,
           "tokenizer_class": "MarianTokenizer", "forced_eos_token_id": 0}  # fmt: skip
    known = config().to_dict()
    assert MarianConfig.from_dict({**known, **old}) == MarianConfig.from_dict(known)
    del known["decoder_vocab_size"]  # which came later
    assert MarianConfig.from_dict(known).target_vocab_size == 31


def test_names_of_older_files(tmp_path):
    """They hold the sinusoids, which are used as they are: here other numbers, to see it."""
    model = judge.checkpoint(tmp_path, LM, config(), scale=0.15)
    other = np.random.default_rng(0).standard_normal((12, 24)).astype(np.float32)
    for side in (model.model.encoder, model.model.decoder):
        side.embed_positions.weight.data.copy_(torch.tensor(other))
    positions = {f"model.{side}.embed_positions.weight": other for side in ("encoder", "decoder")}
    tables = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    pairs.check_old_file(tmp_path, model, {"model.shared.weight": tables}, positions)
    ours = minilm.load(tmp_path)
    learned = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert not {name for name in learned if "positions" in name or "final_logits_bias" in name}


def test_base_and_head_load_from_each_others_files(tmp_path):
    judge.checkpoint(tmp_path / "lm", LM, config(), scale=0.15)
    base = judge.checkpoint(tmp_path / "base", transformers.MarianModel, config(), scale=0.15)
    want = base(**{k: torch.tensor(v) for k, v in pairs.PLAIN.items()}).last_hidden_state.detach().numpy()
    with minilm.no_grad():
        head = minilm.load(tmp_path / "base", task="seq2seq-lm")
        assert judge.error(head.model(**pairs.PLAIN).last_hidden_state.data, want) < judge.BARS[np.float32]
        assert not head.final_logits_bias.data.any()
        assert minilm.load(tmp_path / "lm", task="base")(**pairs.PLAIN).last_hidden_state.shape == (3, 9, 24)


def test_errors(tmp_path):
    judge.checkpoint(tmp_path, LM, config())
    pairs.check_errors(tmp_path)
    with pytest.raises(ValueError, match="decoder_input_ids must be given"):
        minilm.load(tmp_path)(pairs.SOURCE)
