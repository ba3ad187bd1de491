"""BLOOM's numbers, names and options against transformers', by the judge of all families."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.models.bloom import modeling_bloom

import minilm
from minilm.checkpoint import CheckpointError
from minilm.models import config as every
from minilm.models.bloom import BloomConfig
from minilm.nn import alibi_slopes
from tests.models import judge

IDS = np.random.default_rng(0).integers(1, 37, (3, 9))
MASK = (np.arange(9) < [[9], [6], [3]]).astype(np.int64)  # padding on the right
HOLES = np.array([[1] * 9, [1, 1, 0, 0, 1, 1, 1, 0, 1], [1, 0, 1, 1, 1, 0, 0, 0, 0]])
HEADS = {
    "BloomModel": None,
    "BloomForCausalLM": {"labels": IDS},
    "BloomForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "BloomForTokenClassification": {"labels": np.where(IDS % 4, IDS % 3, -100)},
    "BloomForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
VARIANTS = {
    "plain": {},
    "six heads, residual after the norm": {"n_head": 6, "apply_residual_connection_post_layernorm": True},
    "untied, one head, one layer": {"tie_word_embeddings": False, "n_head": 1, "n_layer": 1, "vocab_size": 41},
    "eleven heads, odd, wide epsilon": {"hidden_size": 33, "n_head": 11, "layer_norm_epsilon": 1e-3, "pad_token_id": 7},
}


def slopes(heads, device):
    """transformers' formula, which it evaluates in float32, in float64."""
    n = 2 ** int(np.log2(heads))
    first = [2 ** (-8 / n * i) for i in range(1, n + 1)]
    rest = [2 ** (-4 / n * i) for i in range(1, 2 * (heads - n), 2)]
    return torch.tensor(first + rest, dtype=torch.float64, device=device)


def gelu(self, x):  # theirs has √(2/π) and its derivative's constant with eight digits
    return torch.nn.functional.gelu(x, approximate="tanh")


judge.DOUBLED += [(modeling_bloom, "_get_alibi_slopes", slopes), (modeling_bloom.BloomGelu, "forward", gelu)]


def config(**changes):
    small = {"vocab_size": 37, "hidden_size": 24, "n_layer": 2, "n_head": 4, "pad_token_id": 0}
    return transformers.BloomConfig(**{**small, "num_labels": 3, **changes})


CASES = [
    judge.Case(name, getattr(transformers, head), config(**changes), {"input_ids": IDS}, labels)
    for name, changes in VARIANTS.items()
    for head, labels in HEADS.items()
]
CASES += [
    judge.Case(name, transformers.BloomForCausalLM, config(n_head=3), {"input_ids": IDS, "attention_mask": mask})
    for name, mask in {"padded": MASK, "holes in the mask": HOLES}.items()
]
CASES.append(
    judge.Case(
        *("mean squares", transformers.BloomForSequenceClassification),
        config(problem_type="regression", num_labels=1),
        {"input_ids": IDS * MASK, "attention_mask": MASK},
        {"labels": np.array([0.5, -1.0, 2.0], np.float32)},
    )
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("heads", [1, 2, 3, 7, 8, 12, 16, 112])
def test_slopes(heads):
    """Those of transformers; 112 heads has the published 176B model."""
    want = modeling_bloom._get_alibi_slopes(heads, "cpu").numpy()
    np.testing.assert_allclose(alibi_slopes(heads), want, rtol=1e-5, atol=0)  # a power of a rounded base


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, head), config())
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("heads", [4, 6])
def test_packed_and_cached(heads, dtype, tmp_path):
    judge.checkpoint(tmp_path, transformers.BloomForCausalLM, config(n_head=heads))
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :4]], dtype=dtype)
    judge.check_cached(tmp_path, IDS, dtype=dtype)


@pytest.mark.parametrize("cached", [False, True])
def test_padding_on_the_left(cached, tmp_path):
    """As transformers generates from prompts of different length."""
    model = judge.checkpoint(tmp_path, transformers.BloomForCausalLM, config(n_head=6))
    ours, mask = minilm.load(tmp_path), MASK[:, ::-1].copy()
    with minilm.no_grad(), torch.no_grad():
        want = model(torch.tensor(IDS), attention_mask=torch.tensor(mask)).logits.numpy()
        cache = ours.new_cache(3, 9) if cached else None
        parts = [
            ours(IDS[:, a:b], attention_mask=mask[:, :b], past_key_values=cache)
            for a, b in (((0, 7), (7, 8), (8, 9)) if cached else ((0, 9),))
        ]
    got = np.concatenate([part.logits.data for part in parts], axis=1)
    assert judge.error(got[mask == 1], want[mask == 1]) < judge.BARS[np.float32]


def test_every_option_is_judged_refused_or_changes_no_number():
    judged = {option for changes in VARIANTS.values() for option in changes} | {"problem_type", "id2label"}
    own = {f.name for f in dataclasses.fields(BloomConfig)}
    training = {"hidden_dropout", "attention_dropout", "classifier_dropout", "initializer_range"}
    special = {"bos_token_id", "eos_token_id", "decoder_start_token_id"}  # for who generates
    assert own <= judged | training | special, own
    known = own | every.INERT | every.ONLY.keys() | BloomConfig.only.keys() | {"label2id"}
    assert set(config().to_dict()) <= known


@pytest.mark.parametrize(
    ("option", "value"),
    [("slow_but_exact", True), ("n_inner", 50), ("n_head", 5), ("hidden_dropout", 1.0), ("classifier_dropout", -1),
     ("n_layer", 0), ("hidden_act", "relu"), ("rope_theta", 1e4), ("problem_type", "guess")],
)  # fmt: skip
def test_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        BloomConfig.from_dict({**config().to_dict(), option: value})


def test_options_left_out_are_those_of_transformers():
    sparse = {"model_type": "bloom"}
    ours, theirs = BloomConfig.from_dict(sparse).to_dict(), transformers.BloomConfig(**sparse).to_dict()
    assert {k: v for k, v in ours.items() if k in theirs and k != "id2label"} == {
        k: theirs[k] for k in ours if k in theirs and k != "id2label"
    }


def test_names_of_older_files(tmp_path):
    """bigscience/bloom-560m: a base model's names under a language model's architecture, and old options."""
    model = judge.checkpoint(tmp_path, transformers.BloomForCausalLM, config())
    want = model(torch.tensor(IDS)).logits.detach().numpy()
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name.removeprefix("transformer."): w for name, w in weights.items()}, tmp_path / "model.safetensors")
    old = {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "vocab_size": 37,
        "n_embed": 24,
        "n_layer": 2,
        "num_attention_heads": 4,
        "n_inner": None,
        "offset_alibi": 100,
        "seq_length": 2048,
        "pretraining_tp": 2,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "attention_softmax_in_fp32": True,
        "unk_token_id": 0,
        "bias_dropout_fusion": True,
        "masked_softmax_fusion": True,
        "slow_but_exact": False,
        "pad_token_id": 3,
        "layer_norm_epsilon": 1e-05,
        "initializer_range": 0.02,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "apply_residual_connection_post_layernorm": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    ours = minilm.load(tmp_path)
    assert judge.error(ours(IDS).logits.data, want) < judge.BARS[np.float32]
    assert (ours.config.hidden_size, ours.config.n_head, ours.config.pad_token_id) == (24, 4, 3)


def test_a_head_on_the_base_model_and_the_base_model_of_a_head(tmp_path):
    base = judge.checkpoint(tmp_path / "base", transformers.BloomModel, config())
    want = base(torch.tensor(IDS)).last_hidden_state.detach().numpy()
    with pytest.raises(CheckpointError, match=r"classifier\.weight"):
        minilm.load(tmp_path / "base", task="token-classification")
    headed = minilm.load(tmp_path / "base", task="token-classification", rng=np.random.default_rng(0))
    assert 0 < np.abs(headed.classifier.weight.data).max() < 0.1  # N(0, 0.02²)
    assert judge.error(headed.transformer(IDS).last_hidden_state.data, want) < judge.BARS[np.float32]
    tied = minilm.load(tmp_path / "base", task="causal-lm")  # the head is the table: nothing is missing
    assert tied.lm_head.weight is tied.transformer.word_embeddings.weight
    judge.checkpoint(tmp_path / "lm", transformers.BloomForCausalLM, config(tie_word_embeddings=False))
    assert minilm.load(tmp_path / "lm", task="base")(IDS).last_hidden_state.shape == (3, 9, 24)


def test_dropout_of_the_token_classifier():
    cls = minilm.models.tasks("bloom")["token-classification"]
    small = {"vocab_size": 9, "hidden_size": 8, "n_head": 2, "n_layer": 1}
    for given, want in (({"hidden_dropout": 0.3}, 0.3), ({"hidden_dropout": 0.3, "classifier_dropout": 0.0}, 0.0)):
        made = cls(BloomConfig(**small, **given), rng=np.random.default_rng(0))
        theirs = transformers.BloomForTokenClassification(transformers.BloomConfig(**small, **given))
        assert made.dropout.p == theirs.dropout.p == want


def test_dropout_in_training():
    small = BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2)
    judge.check_dropout(
        minilm.models.tasks("bloom")["token-classification"],
        small,
        ["hidden_dropout", "attention_dropout", "classifier_dropout"],
    )


def test_first_values():
    model = minilm.models.tasks("bloom")["token-classification"](
        BloomConfig(vocab_size=90, hidden_size=48, n_layer=1, n_head=2, initializer_range=0.05),
        rng=np.random.default_rng(0),
        dtype=np.float64,
    )
    for name, p in model.named_parameters():
        assert p.dtype == np.float64, name
        if p.ndim == 2:
            assert abs(p.data.std() - 0.05) < 0.006, name
        else:
            assert (p.data == (1 if "ln_f.weight" in name or "layernorm.weight" in name else 0)).all(), name


def test_errors():
    model = minilm.models.tasks("bloom")["causal-lm"](
        BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2), rng=np.random.default_rng(0)
    )
    with pytest.raises(ValueError, match="capacity"):
        model.new_cache(1)
    with pytest.raises(IndexError):
        model(np.full((1, 2), 9))
    with pytest.raises(ValueError, match="input_ids must be"):
        model(np.ones(3, np.int64))
    with minilm.no_grad(), pytest.raises(ValueError, match="at most 2 positions fit"):
        model(np.ones((1, 3), np.int64), past_key_values=model.new_cache(1, 2))
