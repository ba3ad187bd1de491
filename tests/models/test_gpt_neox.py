"""GPT-NeoX's numbers, names and options against transformers', by the judge of all families."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import minilm
from minilm.checkpoint import CheckpointError
from minilm.models import config as every
from minilm.models.gpt_neox import GPTNeoXConfig
from tests.models import judge
from tests.models.turned import IDS, MASK  # and with it what transformers computes in float32

HEADS = {
    "GPTNeoXModel": None,
    "GPTNeoXForCausalLM": {"labels": IDS},
    "GPTNeoXForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "GPTNeoXForTokenClassification": {"labels": np.where(IDS % 4, IDS % 3, -100)},
    "GPTNeoXForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
SCALINGS = {  # the nine positions of IDS pass every limit that a type has
    "linear": {"factor": 2.5},
    "dynamic": {"factor": 3.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 4, "beta_fast": 2, "beta_slow": 0.25},
    "longrope": {"short_factor": [1.0, 1.5, 2.0], "long_factor": [1.5, 3.0, 7.0], "factor": 2.0,
        "original_max_position_embeddings": 4},
    "llama3": {"factor": 8.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0, "original_max_position_embeddings": 4},
    "proportional": {},
}  # fmt: skip
TURNED = {  # half of twelve channels, in three pairs
    kind: {"rope_parameters": {"rope_type": kind, "rope_theta": 50.0, "partial_rotary_factor": 0.5, **numbers}}
    for kind, numbers in SCALINGS.items()
}
TURNED["dynamic"]["max_position_embeddings"] = 5
VARIANTS = {
    "plain": {},
    "in turn, no biases, all channels": {"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 1.0},
    "tied, narrow, odd epsilon": {"tie_word_embeddings": True, "intermediate_size": 17, "layer_norm_eps": 1e-3,
        "pad_token_id": 9},
    "relu, base 7, one layer, one head": {"hidden_act": "relu", "rotary_emb_base": 7, "num_hidden_layers": 1,
        "num_attention_heads": 1, "vocab_size": 41, "hidden_size": 20},
    "an odd share is turned": {"rotary_pct": 0.45},  # int(12 x 0.45) = 5: three pairs
}  # fmt: skip
RENAMED = {"renamed": {"lm_head": "embed_out"}}


def config(**changes):
    small = {"vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
    sizes = {"intermediate_size": 40, "max_position_embeddings": 16, "num_labels": 3}
    return transformers.GPTNeoXConfig(**{**small, **sizes, **changes})


def case(name, head, changes, **inputs):
    cls = getattr(transformers, head)
    return judge.Case(name, cls, config(**changes), {"input_ids": IDS, **inputs}, HEADS[head], RENAMED)


CASES = [case(name, head, changes) for name, changes in list(VARIANTS.items())[:2] for head in HEADS]
CASES += [case(name, "GPTNeoXForCausalLM", changes) for name, changes in [*VARIANTS.items(), *TURNED.items()][2:]]
CASES += [
    case("padded", "GPTNeoXForCausalLM", {}, attention_mask=MASK),
    case("padding inside", "GPTNeoXForSequenceClassification", VARIANTS["tied, narrow, odd epsilon"]),
    case("positions given", "GPTNeoXModel", {}, position_ids=np.random.default_rng(1).integers(0, 90, (3, 9)),
         attention_mask=np.ones((3, 9), np.int64)),  # without a mask, transformers reads packed texts off positions
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, head), config())
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_round_trip_of_what_is_turned(kind, tmp_path):
    model = judge.checkpoint(tmp_path / "a", transformers.GPTNeoXForCausalLM, config(**TURNED[kind]))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parallel", [True, False])
def test_packed_and_cached(parallel, dtype, tmp_path):
    judge.checkpoint(tmp_path, transformers.GPTNeoXForCausalLM, config(use_parallel_residual=parallel))
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :4]], dtype=dtype)
    judge.check_cached(tmp_path, IDS, dtype=dtype)


def test_padding_on_the_left(tmp_path):
    """As transformers generates from prompts of different length; positions count the padding too."""
    model = judge.checkpoint(tmp_path, transformers.GPTNeoXForCausalLM, config())
    ours, mask = minilm.load(tmp_path), MASK[:, ::-1].copy()
    with minilm.no_grad(), torch.no_grad():
        want = model(torch.tensor(IDS), attention_mask=torch.tensor(mask)).logits.numpy()
        cache = ours.new_cache(3)
        parts = [
            ours(IDS[:, a:b], attention_mask=mask[:, :b], past_key_values=cache) for a, b in ((0, 7), (7, 8), (8, 9))
        ]
    got = np.concatenate([part.logits.data for part in parts], axis=1)
    assert judge.error(got[mask == 1], want[mask == 1]) < judge.BARS[np.float32]


def test_every_option_is_judged_refused_or_changes_no_number():
    judged = {option for changes in (*VARIANTS.values(), *TURNED.values()) for option in changes}
    own = {f.name for f in dataclasses.fields(GPTNeoXConfig)}
    training = {"attention_dropout", "hidden_dropout", "classifier_dropout", "initializer_range"}
    special = {"bos_token_id", "eos_token_id", "decoder_start_token_id", "problem_type", "id2label"}
    assert own <= judged | training | special, own
    known = own | every.INERT | every.ONLY.keys() | GPTNeoXConfig.only.keys() | {"label2id"}
    assert set(config().to_dict()) <= known


@pytest.mark.parametrize(
    ("option", "value"),
    [("attention_probs_dropout_prob", 0.1), ("hidden_dropout_prob", 0.1), ("num_attention_heads", 5),
     ("hidden_act", "sine"), ("hidden_dropout", 1.0), ("intermediate_size", 0), ("num_key_value_heads", 1),
     ("rope_parameters", {"rope_type": "spiral"}), ("rope_parameters", 3), ("rope_scaling", {"type": "linear"})],
)  # fmt: skip
def test_refused_by_name(option, value):
    words = {"rope_parameters": "rope_", "rope_scaling": "factor"}.get(option, option)
    with pytest.raises(ValueError, match=words):
        GPTNeoXConfig.from_dict({**config().to_dict(), option: value})


def test_files_of_older_versions(tmp_path):
    """EleutherAI/pythia and gpt-neox-20b: other names of options, and buffers among the weights."""
    changes = {"rotary_pct": 0.5, "rotary_emb_base": 50, "hidden_act": "gelu_fast"}
    model = judge.checkpoint(tmp_path, transformers.GPTNeoXForCausalLM, config(**changes))
    want = model(torch.tensor(IDS)).logits.detach().numpy()
    weights = load_file(tmp_path / "model.safetensors")
    for layer in range(2):
        name = f"gpt_neox.layers.{layer}.attention"
        weights[f"{name}.bias"] = np.tri(16, dtype=bool)[None, None]
        weights[f"{name}.masked_bias"] = np.array(-1e9, np.float32)
        weights[f"{name}.rotary_emb.inv_freq"] = np.ones(3, np.float32)
    save_file(weights, tmp_path / "model.safetensors")
    old = {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": 37,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "attention_probs_dropout_prob": 0,
        "hidden_dropout_prob": 0,
        "rope_scaling": None,
        "is_decoder": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        **changes,
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert judge.error(minilm.load(tmp_path)(IDS).logits.data, want) < judge.BARS[np.float32]
    weights["lm_head.weight"] = weights.pop("embed_out.weight")
    save_file(weights, tmp_path / "model.safetensors")
    assert judge.error(minilm.load(tmp_path)(IDS).logits.data, want) < judge.BARS[np.float32]


def test_options_left_out_are_those_of_transformers():
    sparse = {"model_type": "gpt_neox", "hidden_size": 24, "num_attention_heads": 2}
    ours, theirs = GPTNeoXConfig.from_dict(sparse).to_dict(), transformers.GPTNeoXConfig(**sparse).to_dict()
    assert {k: v for k, v in ours.items() if k in theirs and k != "id2label"} == {
        k: theirs[k] for k in ours if k in theirs and k != "id2label"
    }


def test_a_head_on_the_base_model_and_the_base_model_of_a_head(tmp_path):
    base = judge.checkpoint(tmp_path / "base", transformers.GPTNeoXModel, config())
    want = base(torch.tensor(IDS)).last_hidden_state.detach().numpy()
    with pytest.raises(CheckpointError, match=r"embed_out\.weight"):
        minilm.load(tmp_path / "base", task="causal-lm")
    headed = minilm.load(tmp_path / "base", task="causal-lm", rng=np.random.default_rng(0))
    assert 0 < np.abs(headed.embed_out.weight.data).max() < 0.1  # N(0, 0.02²)
    assert judge.error(headed.gpt_neox(IDS).last_hidden_state.data, want) < judge.BARS[np.float32]
    judge.checkpoint(tmp_path / "lm", transformers.GPTNeoXForCausalLM, config())
    assert minilm.load(tmp_path / "lm", task="base")(IDS).last_hidden_state.shape == (3, 9, 24)


def test_dropout_in_training():
    small = GPTNeoXConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=9)
    judge.check_dropout(
        minilm.models.tasks("gpt_neox")["token-classification"],
        small,
        ["hidden_dropout", "attention_dropout", "classifier_dropout"],
    )


def test_first_values():
    model = minilm.models.tasks("gpt_neox")["token-classification"](
        GPTNeoXConfig(vocab_size=90, hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=70,
                      initializer_range=0.05),
        rng=np.random.default_rng(0),
        dtype=np.float64,
    )  # fmt: skip
    for name, p in model.named_parameters():
        assert p.dtype == np.float64, name
        if p.ndim == 2:
            assert abs(p.data.std() - 0.05) < 0.006, name
        else:
            assert (p.data == (1 if "norm.weight" in name else 0)).all(), name
