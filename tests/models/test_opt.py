"""OPT's numbers, names and options against transformers', by the judge of all families."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import minilm
from minilm.checkpoint import CheckpointError
from minilm.models import config as every
from minilm.models.opt import OPTConfig
from tests.models import judge

IDS = np.random.default_rng(0).integers(2, 37, (3, 9))
MASK = (np.arange(9) < [[9], [6], [3]]).astype(np.int64)  # padding on the right
HEADS = {
    "OPTModel": None,
    "OPTForCausalLM": {"labels": IDS},
    "OPTForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "OPTForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
VARIANTS = {
    "plain": {},
    "normalized after, narrow vectors": {"do_layer_norm_before": False, "word_embed_proj_dim": 10, "ffn_dim": 33},
    "no biases, plain norms, gelu, wide vectors": {"enable_bias": False, "layer_norm_elementwise_affine": False,
        "activation_function": "gelu", "word_embed_proj_dim": 30, "num_attention_heads": 1},
    "no last norm, untied, silu": {"_remove_final_layer_norm": True, "tie_word_embeddings": False,
        "activation_function": "silu", "pad_token_id": 5, "num_hidden_layers": 1, "max_position_embeddings": 9},
    "mean squares": {"problem_type": "regression", "num_labels": 1, "vocab_size": 41, "hidden_size": 18},
}  # fmt: skip


def config(**changes):
    small = {"vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 40}
    return transformers.OPTConfig(**{**small, "max_position_embeddings": 16, "num_labels": 3, **changes})


def labels(head, changes):
    if head == "OPTForSequenceClassification" and changes.get("problem_type") == "regression":
        return {"labels": np.array([0.5, -1.0, 2.0], np.float32)}
    return HEADS[head]


CASES = [
    judge.Case(name, getattr(transformers, head), config(**changes), {"input_ids": IDS}, labels(head, changes))
    for name, changes in VARIANTS.items()
    for head in HEADS
]
CASES += [
    judge.Case("padded", transformers.OPTForCausalLM, config(), {"input_ids": IDS, "attention_mask": MASK}),
    judge.Case(
        *("positions given", transformers.OPTForCausalLM, config()),
        {"input_ids": IDS, "position_ids": np.random.default_rng(1).integers(0, 16, (3, 9))},
    ),
    judge.Case(
        "padding inside", transformers.OPTForSequenceClassification, config(), {"input_ids": IDS * MASK + 1 - MASK}
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, head), config(word_embed_proj_dim=10))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_packed_and_cached(dtype, tmp_path):
    judge.checkpoint(tmp_path, transformers.OPTForCausalLM, config(word_embed_proj_dim=10))
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :4]], dtype=dtype)
    judge.check_cached(tmp_path, IDS, dtype=dtype)


@pytest.mark.parametrize("cached", [False, True])
def test_positions_count_what_the_mask_lets_through(cached, tmp_path):
    """Prompts that are padded on the left, as transformers generates from them."""
    model = judge.checkpoint(tmp_path, transformers.OPTForCausalLM, config())
    ours, mask = minilm.load(tmp_path), MASK[:, ::-1].copy()
    ids, torched = np.where(mask, IDS, 1), torch.tensor(mask)
    with minilm.no_grad(), torch.no_grad():
        want = model(torch.tensor(ids), attention_mask=torched).logits.numpy()
        if not cached:
            got = ours(ids, attention_mask=mask).logits.data
        else:
            cache = ours.new_cache(3)
            parts = [
                ours(ids[:, a:b], attention_mask=mask[:, :b], past_key_values=cache)
                for a, b in ((0, 7), (7, 8), (8, 9))
            ]
            got = np.concatenate([part.logits.data for part in parts], axis=1)
    assert judge.error(got[mask == 1], want[mask == 1]) < judge.BARS[np.float32]


def test_every_option_is_judged_refused_or_changes_no_number():
    judged = {option for changes in VARIANTS.values() for option in changes}
    own = {f.name for f in dataclasses.fields(OPTConfig)}
    training = {"dropout", "attention_dropout", "layerdrop", "init_std"}
    special = {"bos_token_id", "eos_token_id", "decoder_start_token_id"}  # for who generates
    assert own <= judged | training | special | {"id2label"}, own
    for option, value in config().to_dict().items():
        known = own | every.INERT | every.ONLY.keys() | OPTConfig.only.keys() | {"label2id"}
        assert option in known, (option, value)


@pytest.mark.parametrize(
    ("option", "value"),
    [("activation_dropout", 0.1), ("scale_embeddings", True), ("learned_embeddings", False), ("relative", 1),
     ("num_attention_heads", 5), ("activation_function", "sine"), ("dropout", 1.5), ("word_embed_proj_dim", 0),
     ("pad_token_id", 37), ("ffn_dim", 0), ("layerdrop", -0.5), ("hidden_size", "24")],
)  # fmt: skip
def test_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option if option != "hidden_size" else "hidden_size must be"):
        OPTConfig.from_dict({**config().to_dict(), option: value})


def test_what_published_configurations_hold():
    """facebook/opt-125m, facebook/opt-350m and facebook/galactica have these besides."""
    old = {"activation_dropout": 0.0, "prefix": "</s>", "scale_embeddings": False, "learned_embeddings": True}
    assert OPTConfig.from_dict({**config().to_dict(), **old}) == OPTConfig.from_dict(config().to_dict())


def test_options_left_out_are_those_of_transformers():
    sparse = {"model_type": "opt", "word_embed_proj_dim": 768}
    ours, theirs = OPTConfig.from_dict(sparse).to_dict(), transformers.OPTConfig(**sparse).to_dict()
    assert {k: v for k, v in ours.items() if k in theirs and k != "id2label"} == {
        k: theirs[k] for k in ours if k in theirs and k != "id2label"
    }


def test_dropped_blocks(tmp_path):
    """In training a block is left out at the rate ``layerdrop``; never in evaluation, never under a cache."""
    judge.checkpoint(tmp_path, transformers.OPTModel, config(layerdrop=0.5, dropout=0.0, num_hidden_layers=20))
    model = minilm.load(tmp_path, rng=np.random.default_rng(0))
    blocks = [len(model(IDS, output_hidden_states=True).hidden_states) - 1]
    model.train()
    kept = [len(model(IDS[:1, :2], output_hidden_states=True).hidden_states) - 1 for _ in range(20)]
    with minilm.no_grad():
        blocks.append(len(model(IDS, output_hidden_states=True, past_key_values=model.new_cache(3)).hidden_states) - 1)
    assert blocks == [20, 20]
    assert 150 < sum(kept) < 250  # of 400


def test_names_of_older_files(tmp_path):
    """Files of the first release lack the prefix of the language model, or hold the tied head besides."""
    model = judge.checkpoint(tmp_path, transformers.OPTForCausalLM, config())
    want = model(torch.tensor(IDS)).logits.detach().numpy()
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name.removeprefix("model."): w for name, w in weights.items()}, tmp_path / "model.safetensors")
    assert judge.error(minilm.load(tmp_path)(IDS).logits.data, want) < judge.BARS[np.float32]
    weights["lm_head.weight"] = weights["model.decoder.embed_tokens.weight"].copy()
    save_file(weights, tmp_path / "model.safetensors")
    assert judge.error(minilm.load(tmp_path)(IDS).logits.data, want) < judge.BARS[np.float32]


def test_a_head_on_the_base_model_and_the_base_model_of_a_head(tmp_path):
    base = judge.checkpoint(tmp_path / "base", transformers.OPTModel, config())
    want = base(torch.tensor(IDS)).last_hidden_state.detach().numpy()
    with pytest.raises(CheckpointError, match=r"score\.weight"):
        minilm.load(tmp_path / "base", task="sequence-classification")
    headed = minilm.load(tmp_path / "base", task="sequence-classification", rng=np.random.default_rng(0))
    assert 0 < np.abs(headed.score.weight.data).max() < 0.1  # N(0, 0.02²)
    assert judge.error(headed.model(IDS).last_hidden_state.data, want) < judge.BARS[np.float32]
    judge.checkpoint(tmp_path / "lm", transformers.OPTForCausalLM, config())
    assert minilm.load(tmp_path / "lm", task="base")(IDS).last_hidden_state.shape == (3, 9, 24)


def test_dropout_in_training():
    small = OPTConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=9)
    judge.check_dropout(minilm.models.tasks("opt")["sequence-classification"], small, ["dropout", "attention_dropout"])


def test_first_values():
    model = minilm.models.tasks("opt")["causal-lm"](
        OPTConfig(vocab_size=90, hidden_size=48, num_hidden_layers=1, num_attention_heads=2, ffn_dim=70, init_std=0.05),
        rng=np.random.default_rng(0),
    )
    for name, p in model.named_parameters():
        assert p.dtype == np.float32, name
        if p.ndim == 2:
            assert abs(p.data.std() - 0.05) < 0.005, name
        else:
            assert (p.data == (1 if name.endswith("norm.weight") else 0)).all(), name
    assert not model.model.decoder.embed_tokens.weight.data[1].any()  # padding's row


def test_errors():
    model = minilm.models.tasks("opt")["base"](
        OPTConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=5),
        rng=np.random.default_rng(0),
    )
    with pytest.raises(ValueError, match="at most 5 positions"):
        model(np.ones((1, 6), np.int64))
    with pytest.raises(IndexError):
        model(np.full((1, 2), 9))
    with pytest.raises(ValueError, match="attention_mask must be"):
        model(np.ones((1, 3), np.int64), attention_mask=np.ones((1, 2)))
