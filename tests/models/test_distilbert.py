"""DistilBERT against transformers' own, by the judge of all families."""

import numpy as np
import pytest
import transformers

import minilm
from minilm.checkpoint import CheckpointError
from minilm.models.distilbert import DistilBertConfig, DistilBertForMaskedLM, DistilBertModel
from tests.models import encoder_laws, judge

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 37, (3, 9))
MASK = np.array([[1] * 9, [1] * 5 + [0] * 4, [0, 1, 1, 0, 1, 1, 1, 1, 0]])
INPUTS = {"input_ids": IDS, "attention_mask": MASK}
HEADS = {
    "DistilBertModel": None,
    "DistilBertForMaskedLM": {"labels": np.where(IDS % 4, -100, IDS)},
    "DistilBertForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "DistilBertForTokenClassification": {"labels": np.where(IDS % 4, IDS % 3, -100)},
    "DistilBertForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
PLAIN = {"vocab_size": 37, "max_position_embeddings": 16, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40}
VARIANTS = {
    "plain": {},
    "untied, narrow, relu, one head": {
        "tie_word_embeddings": False,
        "activation": "relu",
        "n_heads": 1,
        "hidden_dim": 17,
        "n_layers": 1,
    },
    "odd sizes, sines": {
        "dim": 21,
        "vocab_size": 41,
        "max_position_embeddings": 9,
        "pad_token_id": 5,
        "n_heads": 7,
        "sinusoidal_pos_embds": True,
    },
}
DROPOUTS = ("dropout", "qa_dropout", "seq_classif_dropout")


def config(head="", **changes):
    return transformers.DistilBertConfig(**{**PLAIN, "num_labels": 2 if "Answering" in head else 3, **changes})


def several(labels, **changes):
    cls = transformers.DistilBertForSequenceClassification
    return judge.Case(f"sequence loss {changes}", cls, config(**changes), INPUTS, {"labels": labels.astype(np.float32)})


CASES = [
    judge.Case(name, getattr(transformers, head), config(head, **changes), INPUTS, labels)
    for name, changes in VARIANTS.items()
    for head, labels in HEADS.items()
]
CASES += [
    judge.Case("no mask, gelu_new", transformers.DistilBertModel, config(activation="gelu_new"), {"input_ids": IDS}),
    judge.Case("positions", transformers.DistilBertModel, config(), {**INPUTS, "position_ids": IDS % 16}),
    judge.Case("no padding token", transformers.DistilBertModel, config(pad_token_id=None), INPUTS),
    several(RNG.standard_normal(3), num_labels=1),
    several(RNG.integers(0, 2, (3, 3)), problem_type="multi_label_classification"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, head), config(head))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


def test_round_trip_untied(tmp_path):
    model = judge.checkpoint(tmp_path / "a", transformers.DistilBertForMaskedLM, config(tie_word_embeddings=False))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("head", HEADS)
def test_packed(head, dtype, tmp_path):
    judge.checkpoint(tmp_path, getattr(transformers, head), config(head))
    names = ("last_hidden_state", "logits", "start_logits", "end_logits")
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :4]], dtype=dtype, outputs=names)


def test_logits_at_masked_positions_only(tmp_path):
    judge.checkpoint(tmp_path, transformers.DistilBertForMaskedLM, config())
    encoder_laws.check_logits_to_keep(tmp_path, INPUTS, IDS)


def test_every_option_is_settled():
    changed = {option for changes in VARIANTS.values() for option in changes} | {"problem_type"}
    drawn = {*DROPOUTS, "attention_dropout", "initializer_range", "bos_token_id", "eos_token_id"}
    encoder_laws.check_every_option_is_settled(DistilBertConfig, transformers.DistilBertConfig, changed, drawn)
    theirs = transformers.DistilBertConfig().to_dict()
    for option, value in DistilBertConfig().to_dict().items():
        assert theirs.get(option, value) == value or option in encoder_laws.DERIVED, option


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_heads": 5}, "dim must divide by n_heads"),
        ({"num_attention_heads": 5}, "dim must divide by n_heads"),
        ({"activation": "gleu"}, "activation must be one of"),
        ({"qa_dropout": 1.0}, "qa_dropout must be a rate"),
        ({"hidden_dim": 0}, "hidden_dim must be a whole number"),
        ({"pad_token_id": -1}, "pad_token_id must be the id of a token"),
        ({"tie_weights_": False}, "tie_weights_ must be True"),
        ({"type_vocab_size": 2}, "type_vocab_size is no option of this family"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        DistilBertConfig.from_dict(change)


@pytest.mark.parametrize("head", list(HEADS)[2:])
def test_dropout_is_where_transformers_has_it(head, tmp_path, monkeypatch):
    case = judge.Case("dropout", getattr(transformers, head), config(head), INPUTS)
    encoder_laws.check_dropout(case, tmp_path, DROPOUTS, "attention_dropout", monkeypatch)


def test_first_values():
    small = DistilBertConfig.from_dict({**config(vocab_size=211).to_dict(), "initializer_range": 0.3})
    encoder_laws.check_first_values(DistilBertForMaskedLM, small, 0.3)


@pytest.mark.parametrize("dim", [24, 21])
def test_positions_may_start_from_sines_and_cosines(dim):
    theirs = config(sinusoidal_pos_embds=True, dim=dim)
    want = transformers.DistilBertModel(theirs).embeddings.position_embeddings.weight.detach().numpy()
    ours = DistilBertModel(DistilBertConfig.from_dict(theirs.to_dict()), rng=np.random.default_rng(0))
    got = ours.embeddings.position_embeddings.weight.data
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-7)


def old_names(name, array):
    """As in files of 2019: positions counted out and the tied matrix once more."""
    if name.endswith("word_embeddings.weight"):
        positions = {"distilbert.embeddings.position_ids": np.arange(16)[None]}
        return {name: array, "vocab_projector.weight": array, **positions}
    return {name: array}


def test_names_and_options_of_old_files(tmp_path):
    judge.checkpoint(tmp_path, transformers.DistilBertForMaskedLM, config())
    era = {"output_past": True, "tie_weights_": True, "finetuning_task": "sst-2", "gradient_checkpointing": False}
    encoder_laws.check_same(tmp_path, old_names, INPUTS, **era)


def test_base_and_head_load_from_each_others_files(tmp_path):
    judge.checkpoint(tmp_path / "base", transformers.DistilBertModel, config())
    judge.checkpoint(tmp_path / "head", transformers.DistilBertForMaskedLM, config())
    head = minilm.load(tmp_path / "head")
    from_head = minilm.load(tmp_path / "head", task="base")
    got, want = (encoder_laws.outputs(m, INPUTS)["last_hidden_state"] for m in (from_head, head.distilbert))
    np.testing.assert_array_equal(got, want)
    with pytest.raises(CheckpointError, match="pass rng="):
        minilm.load(tmp_path / "base", task="question-answering")
    fresh = minilm.load(tmp_path / "base", task="token-classification", rng=np.random.default_rng(0))
    base = minilm.load(tmp_path / "base")
    got, want = (encoder_laws.outputs(m, INPUTS)["last_hidden_state"] for m in (fresh.distilbert, base))
    np.testing.assert_array_equal(got, want)
    assert 0.01 < fresh.classifier.weight.data.std() < 0.03


def test_wrong_input_is_refused_with_what_must_hold(tmp_path):
    judge.checkpoint(tmp_path, transformers.DistilBertModel, config())
    encoder_laws.check_wrong_input(tmp_path, 16)
