"""BART against transformers' own: every head, option and layout of tokens."""

import numpy as np
import pytest
import torch
import transformers

import minilm
from minilm.models.bart import BartConfig, BartForConditionalGeneration
from tests.models import judge, pairs

EOS = 2
ENDED = pairs.SOURCE.copy()
ENDED[:, -1] = ENDED[1, 3] = ENDED[0, 1] = ENDED[2, 5] = EOS  # twice in every row, at other places
LM, CLASSES = transformers.BartForConditionalGeneration, transformers.BartForSequenceClassification


def config(**changes):
    small = {"vocab_size": 31, "max_position_embeddings": 12, "d_model": 24, "encoder_layers": 2, "decoder_layers": 3}
    small |= {"encoder_ffn_dim": 20, "decoder_ffn_dim": 17, "encoder_attention_heads": 3, "decoder_attention_heads": 2}
    return transformers.BartConfig(**{**small, **changes})


CASES = [
    judge.Case(*case, scale=0.2)  # at 0.3 the decoder's last scores saturate
    for case in (
        ("source and target", transformers.BartModel, config(), pairs.PLAIN),
        ("source alone", transformers.BartModel, config(), {"input_ids": pairs.SOURCE}),
        ("padding", LM, config(), pairs.PADDED),
        ("untied", LM, config(tie_word_embeddings=False), pairs.PLAIN, pairs.LABELS),
        ("scaled, gelu_new", LM, config(scale_embedding=True, activation_function="gelu_new"), pairs.PLAIN),
        ("no padding token, relu", LM, config(pad_token_id=None, activation_function="relu"), pairs.PLAIN),
        ("classes", CLASSES, config(), {"input_ids": ENDED}, {"labels": np.array([2, 0, 1])}),
        ("a number", CLASSES, config(num_labels=1), {"input_ids": ENDED}, {"labels": np.array([0.5, 2, -1])}),
        (
            "an answer",
            transformers.BartForQuestionAnswering,
            config(),
            {"input_ids": pairs.SOURCE},
            {"start_positions": np.array([1, 6, 30]), "end_positions": np.array([3, 6, 30])},
        ),
    )
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("case", [next(c for c in CASES if c.cls is cls) for cls in {c.cls: 0 for c in CASES}], ids=str)
def test_round_trip(case, tmp_path):
    model = judge.checkpoint(tmp_path / "a", case.cls, case.config)
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("changes", [{}, {"scale_embedding": True, "tie_word_embeddings": False}], ids=str)
def test_packed_and_cached(changes, dtype, tmp_path):
    judge.checkpoint(tmp_path, LM, config(**changes))
    pairs.check_packed(tmp_path, dtype)
    pairs.check_packed_loss(tmp_path, dtype)
    pairs.check_cached(tmp_path, dtype)
    pairs.check_one_source_from_another(tmp_path)


def test_labels_alone_are_the_target_behind_the_start(tmp_path):
    pairs.check_labels_alone(tmp_path, judge.checkpoint(tmp_path, LM, config(decoder_start_token_id=5)))


HONOURED = {"vocab_size": 40, "d_model": 12, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 5,
            "decoder_ffn_dim": 5, "encoder_attention_heads": 2, "decoder_attention_heads": 3,
            "activation_function": "tanh", "scale_embedding": True, "tie_word_embeddings": False}  # fmt: skip
# By other tests: positions are a limit, rates and init_std are of training, ids of padding and ends.
SETTLED = {"max_position_embeddings": 9, "init_std": 0.3, "pad_token_id": 0, "eos_token_id": 3,
           "decoder_start_token_id": 3, "encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5, "dropout": 0.3,
           "attention_dropout": 0.3, "activation_dropout": 0.3, "classifier_dropout": 0.3}  # fmt: skip


def test_every_option_is_settled(tmp_path):
    pairs.check_options(BartConfig, config(), {**HONOURED, **SETTLED})
    pairs.check_honoured(LM, config(), HONOURED, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_layers": 0}, "encoder_layers must be a whole number"),
        ({"d_model": 25}, "d_model must divide by encoder_attention_heads"),
        ({"decoder_attention_heads": 5}, "d_model must divide by decoder_attention_heads"),
        ({"dropout": 1.0}, "dropout must be a rate"),
        ({"encoder_layerdrop": -0.1}, "encoder_layerdrop must be a rate"),
        ({"activation_function": "sine"}, "activation_function must be one of"),
        ({"pad_token_id": 31}, "pad_token_id must be a row"),
        ({"num_hidden_layers": 5}, "num_hidden_layers must be encoder_layers, 2; got 5"),
        ({"normalize_before": True}, "normalize_before must be False"),
    ],
    ids=str,
)
def test_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        BartConfig.from_dict({**config().to_dict(), **changes})


def test_what_published_configurations_hold():
    """facebook/bart-large, bart-large-cnn, bart-large-mnli and sshleifer/distilbart-cnn-12-6 have these besides."""
    old = {"_num_labels": 3, "add_bias_logits": False, "add_final_layer_norm": False, "classif_dropout": 0.1,
           "force_bos_token_to_be_generated": True, "gradient_checkpointing": False, "normalize_before": False,
           "normalize_embedding": True, "num_hidden_layers": 2, "output_past": True, "extra_pos_embeddings": 2,
           "static_position_embeddings": False, "task_specific_params": {"summarization": {"num_beams": 4}},
           "prefix": " ", "num_beams": 4, "no_repeat_ngram_size": 3, "early_stopping": True, "forced_bos_token_id": 0,
           "replacing_rate": 0, "student_decoder_layers": None, "student_encoder_layers": None}  # fmt: skip
    known = config().to_dict()
    assert BartConfig.from_dict({**known, **old}) == BartConfig.from_dict(known)
    del known["classifier_dropout"]  # of a time before it had this name
    assert BartConfig.from_dict({**known, "classif_dropout": 0.1}).classifier_dropout == 0.1


def quiet(model):
    for module in model.modules():
        if type(module).__name__ == "BartAttention":
            setattr(module, "attention_dropout" if hasattr(module, "attention_dropout") else "dropout", 0.0)


def test_dropout_is_where_transformers_has_it(tmp_path, monkeypatch):
    case = next(c for c in CASES if c.cls is CLASSES)
    options = ["dropout", "activation_dropout", "classifier_dropout", "attention_dropout"]
    pairs.check_dropout(case, tmp_path, options, quiet, monkeypatch)


def test_dropped_layers(tmp_path):
    """In training a layer is left out at its side's rate; never in evaluation."""
    few = config(encoder_layers=12, decoder_layers=10, dropout=0.0, encoder_layerdrop=0.25, decoder_layerdrop=0.75)
    judge.checkpoint(tmp_path, transformers.BartModel, few)
    model = minilm.load(tmp_path, rng=np.random.default_rng(0))
    short = {"input_ids": pairs.SOURCE[:1, :2], "output_hidden_states": True}

    def layers():
        out = model(**short)
        return len(out.encoder_hidden_states) - 1, len(out.decoder_hidden_states) - 1

    assert layers() == (12, 10)
    model.train()
    read, written = np.mean([layers() for _ in range(30)], axis=0)
    assert 8 < read < 10  # 9 of 12, with a standard error of 0.27
    assert 1.7 < written < 3.3  # 2.5 of 10, 0.25


def test_names_of_older_files(tmp_path):
    model = judge.checkpoint(tmp_path, LM, config(), scale=0.15)
    tables = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    version = {f"model.{side}.version": np.array([3.0], np.float32) for side in ("encoder", "decoder")}
    pairs.check_old_file(tmp_path, model, {"model.shared.weight": tables}, version)


def test_a_file_without_the_bias_has_none(tmp_path):
    judge.checkpoint(tmp_path, transformers.BartModel, config(), scale=0.15)
    model = transformers.BartForConditionalGeneration.from_pretrained(tmp_path)
    inputs = {k: torch.tensor(v) for k, v in pairs.PLAIN.items()}
    got = minilm.load(tmp_path, task="seq2seq-lm")(**pairs.PLAIN).logits.data
    assert judge.error(got, model(**inputs).logits.detach().numpy()) < judge.BARS[np.float32]


def test_base_and_heads_load_from_each_others_files(tmp_path):
    judge.checkpoint(tmp_path, LM, config())
    base = minilm.load(tmp_path, task="base")
    with minilm.no_grad():
        want = base(**pairs.PLAIN).last_hidden_state.data
        with pytest.raises(minilm.checkpoint.CheckpointError, match="qa_outputs"):
            minilm.load(tmp_path, task="question-answering")
        for task in ("question-answering", "sequence-classification", "seq2seq-lm"):
            model = minilm.load(tmp_path, task=task, rng=np.random.default_rng(0))
            np.testing.assert_array_equal(model.model(**pairs.PLAIN).last_hidden_state.data, want)
    model.requires_grad_(False)
    assert not model.final_logits_bias.requires_grad


def test_first_values():
    made = BartConfig.from_dict(config(vocab_size=90, d_model=48, init_std=0.05, tie_word_embeddings=False).to_dict())
    model = BartForConditionalGeneration(made, rng=np.random.default_rng(0))
    for name, p in model.named_parameters():
        assert p.dtype == np.float32, name
        if p.ndim == 2 and name != "final_logits_bias":
            assert abs(p.data.std() - 0.05) < 0.006, name
        else:
            assert (p.data == (1 if "norm" in name and name.endswith("weight") else 0)).all(), name
    assert not model.model.shared.weight.data[1].any()  # padding's row


def test_errors(tmp_path):
    judge.checkpoint(tmp_path / "lm", LM, config())
    pairs.check_errors(tmp_path / "lm")
    ours = minilm.load(tmp_path / "lm")
    with pytest.raises(ValueError, match="the encoder: at most 12 positions fit; got 13"):
        ours(np.full((1, 13), 5))
    judge.checkpoint(tmp_path / "classes", CLASSES, config())
    ours = minilm.load(tmp_path / "classes")
    with pytest.raises(ValueError, match="eos_token_id 2, all equally often; got it 2, 1, 2 times"):
        ours(np.where(np.arange(7) + 7 * np.arange(3)[:, None] == 10, 5, ENDED))
    with pytest.raises(ValueError, match="got it 0 times"):
        ours(np.full((1, 4), 5))


def test_a_packed_source_is_classified_as_alone(tmp_path):
    judge.checkpoint(tmp_path, CLASSES, config())
    ours = minilm.load(tmp_path)
    sources = ENDED[0], ENDED[1], ENDED[2, 2:]
    with minilm.no_grad():
        packed = ours(np.concatenate(sources)[None], lengths=[7, 7, 5]).logits.data
        for got, source in zip(packed, sources, strict=True):
            assert judge.error(got, ours(source[None]).logits.data[0]) < judge.PACKED[np.float32]
