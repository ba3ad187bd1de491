"""RoBERTa against transformers' own, by the judge of all families."""

import numpy as np
import pytest
import transformers

import minilm
from minilm.checkpoint import CheckpointError
from minilm.models.roberta import RobertaConfig, RobertaForMaskedLM
from tests.models import encoder_laws, judge

RNG = np.random.default_rng(0)
IDS = RNG.integers(2, 37, (3, 9))
MASK = np.array([[1] * 9, [1] * 5 + [0] * 4, [0, 0, 1, 1, 1, 1, 1, 1, 0]])
PADDED = np.where(MASK, IDS, 1)  # 1 is padding: it takes no position, at the left or right
PADDED[0, 4] = 1  # nor in the middle, where it is seen
INPUTS = {"input_ids": PADDED, "attention_mask": MASK, "token_type_ids": RNG.integers(0, 2, (3, 9))}
HEADS = {
    "RobertaModel": None,
    "RobertaForMaskedLM": {"labels": np.where(IDS % 4, -100, IDS)},
    "RobertaForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "RobertaForTokenClassification": {"labels": np.where(IDS % 4, IDS % 3, -100)},
    "RobertaForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
PLAIN = {
    "vocab_size": 37,
    "max_position_embeddings": 16,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
}
VARIANTS = {
    "plain": {},
    "untied, narrow, relu, one head": {
        "tie_word_embeddings": False,
        "hidden_act": "relu",  # of the blocks: the masked-LM head keeps gelu
        "num_attention_heads": 1,
        "intermediate_size": 17,
        "num_hidden_layers": 1,
        "layer_norm_eps": 1e-3,
    },
    "odd sizes, padding 5": {
        "hidden_size": 21,
        "vocab_size": 41,
        "type_vocab_size": 5,
        "max_position_embeddings": 15,
        "pad_token_id": 5,
        "num_attention_heads": 7,
    },
}
DROPOUTS = ("hidden_dropout_prob", "classifier_dropout")


def config(head="", **changes):
    return transformers.RobertaConfig(**{**PLAIN, "num_labels": 2 if "Answering" in head else 3, **changes})


def several(labels, **changes):
    cls = transformers.RobertaForSequenceClassification
    return judge.Case(f"sequence loss {changes}", cls, config(**changes), INPUTS, {"labels": labels.astype(np.float32)})


CASES = [
    judge.Case(name, getattr(transformers, head), config(head, **changes), INPUTS, labels)
    for name, changes in VARIANTS.items()
    for head, labels in HEADS.items()
]
CASES += [
    judge.Case("no segments", transformers.RobertaModel, config(type_vocab_size=1), {"input_ids": PADDED}),
    judge.Case("positions", transformers.RobertaModel, config(), {**INPUTS, "position_ids": IDS % 16}),
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
    model = judge.checkpoint(tmp_path / "a", transformers.RobertaForMaskedLM, config(tie_word_embeddings=False))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("head", HEADS)
def test_packed(head, dtype, tmp_path):
    judge.checkpoint(tmp_path, getattr(transformers, head), config(head))
    names = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")
    types = INPUTS["token_type_ids"].ravel()[:16]
    sequences = [PADDED[0], np.array([1]), PADDED[2, 2:6], np.array([1, 7])]  # padding inside, alone and first
    judge.check_packed(tmp_path, sequences, dtype=dtype, outputs=names, token_type_ids=types)


def test_as_many_tokens_fit_as_there_are_positions_after_paddings(tmp_path):
    other = judge.checkpoint(tmp_path, transformers.RobertaModel, config())
    ours = minilm.load(tmp_path)
    with minilm.no_grad():
        ours(np.full((1, 14), 5))
        ours(np.where(np.arange(16) < 14, 5, 1)[None])  # padding needs no position
    with pytest.raises(ValueError, match="RobertaModel: at most 14 positions fit; got 15"):
        ours(np.full((1, 15), 5))
    assert other.config.max_position_embeddings == 16


def test_logits_at_masked_positions_only(tmp_path):
    judge.checkpoint(tmp_path, transformers.RobertaForMaskedLM, config())
    encoder_laws.check_logits_to_keep(tmp_path, INPUTS, IDS)


def test_every_option_is_settled():
    changed = {option for changes in VARIANTS.values() for option in changes} | {"problem_type"}
    drawn = {*DROPOUTS, "attention_probs_dropout_prob", "initializer_range", "bos_token_id", "eos_token_id"}
    encoder_laws.check_every_option_is_settled(RobertaConfig, transformers.RobertaConfig, changed, drawn)
    theirs = transformers.RobertaConfig().to_dict()
    for option, value in RobertaConfig().to_dict().items():
        assert theirs.get(option, value) == value or option in encoder_laws.DERIVED, option


@pytest.mark.parametrize("pad", [None, 511, -1])
def test_padding_must_leave_room_for_positions(pad):
    with pytest.raises(ValueError, match="RobertaConfig: pad_token_id must be"):
        RobertaConfig(pad_token_id=pad)


@pytest.mark.parametrize("head", ["RobertaForSequenceClassification", "RobertaForTokenClassification"])
def test_dropout_is_where_transformers_has_it(head, tmp_path, monkeypatch):
    case = judge.Case("dropout", getattr(transformers, head), config(), INPUTS)
    encoder_laws.check_dropout(case, tmp_path, DROPOUTS, "attention_probs_dropout_prob", monkeypatch)


def test_first_values():
    small = RobertaConfig.from_dict({**config(vocab_size=211).to_dict(), "initializer_range": 0.3})
    model = encoder_laws.check_first_values(RobertaForMaskedLM, small, 0.3)
    assert (model.roberta.embeddings.position_embeddings.weight.data[1] == 0).all()  # the position of padding


def old_names(name, array):
    """As in files of 2019: positions counted out, the tied matrix once more, a pooler that no head reads."""
    if name.endswith("word_embeddings.weight"):
        pooler = {"roberta.pooler.dense.weight": np.eye(24), "roberta.pooler.dense.bias": np.zeros(24)}
        positions = {"roberta.embeddings.position_ids": np.arange(16)[None]}
        return {name: array, "lm_head.decoder.weight": array, **pooler, **positions}
    return {name: array}


def test_names_and_options_of_old_files(tmp_path):
    judge.checkpoint(tmp_path, transformers.RobertaForMaskedLM, config())
    era = {"output_past": True, "_num_labels": 3, "gradient_checkpointing": False, "language": "english"}
    era |= {"name": "Roberta", "position_embedding_type": "absolute", "use_cache": True, "classifier_dropout": None}
    encoder_laws.check_same(tmp_path, old_names, INPUTS, **era)


@pytest.mark.parametrize("tied", [True, False])
def test_the_bias_of_the_masked_lm_head_has_two_names(tied, tmp_path):
    judge.checkpoint(tmp_path, transformers.RobertaForMaskedLM, config(tie_word_embeddings=tied))
    used, other = ("bias", "decoder.bias") if tied else ("decoder.bias", "bias")

    def change(old, array):
        if old == f"lm_head.{other}":
            return {}
        return {f"lm_head.{other}" if old == f"lm_head.{used}" else old: array}

    encoder_laws.check_same(tmp_path, change, INPUTS)


def test_base_and_head_load_from_each_others_files(tmp_path):
    judge.checkpoint(tmp_path / "base", transformers.RobertaModel, config())
    judge.checkpoint(tmp_path / "head", transformers.RobertaForMaskedLM, config())
    head = minilm.load(tmp_path / "head")
    from_head = minilm.load(tmp_path / "head", task="base")
    assert from_head.pooler is None
    got, want = (encoder_laws.outputs(m, INPUTS)["last_hidden_state"] for m in (from_head, head.roberta))
    np.testing.assert_array_equal(got, want)
    with pytest.raises(CheckpointError, match="pass rng="):
        minilm.load(tmp_path / "base", task="sequence-classification")
    rng = np.random.default_rng(0)
    fresh = minilm.load(tmp_path / "base", task="sequence-classification", rng=rng)
    base = minilm.load(tmp_path / "base")
    got, want = (encoder_laws.outputs(m, INPUTS)["last_hidden_state"] for m in (fresh.roberta, base))
    np.testing.assert_array_equal(got, want)
    assert 0.01 < fresh.classifier.dense.weight.data.std() < 0.03


def test_wrong_input_is_refused_with_what_must_hold(tmp_path):
    judge.checkpoint(tmp_path, transformers.RobertaModel, config())
    encoder_laws.check_wrong_input(tmp_path, 14)
