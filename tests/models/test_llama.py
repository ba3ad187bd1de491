"""Llama against transformers, by the judge of all families; and a published model that tells a story."""

import struct
from pathlib import Path

import numpy as np
import pytest
import transformers

import minilm
from minilm.models import tasks
from minilm.nn import ACTIVATIONS
from tests.models import judge, turned
from tests.models.turned import HEADS, IDS

TYPES = {  # of rotary scaling; the nine positions of IDS pass every limit that a type has
    "linear": {"factor": 2.5},
    "dynamic": {"factor": 3.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 4, "beta_fast": 2, "beta_slow": 0.25},
    "longrope": {
        "short_factor": [1.0, 1.5, 2.0],
        "long_factor": [1.5, 3.0, 7.0],
        "factor": 2.0,
        "original_max_position_embeddings": 4,
    },
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 0.5,
        "high_freq_factor": 2.0,
        "original_max_position_embeddings": 4,
    },
    "proportional": {"partial_rotary_factor": 0.5},
}
VARIANTS = {
    "tied, biases": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "wide heads in one group": {"head_dim": 10, "num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    "no groups, odd sizes": {
        "hidden_size": 15,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "head_dim": 4,
        "intermediate_size": 13,
        "vocab_size": 41,
        "num_hidden_layers": 1,
        "pad_token_id": None,
    },
    **{
        f"rotary {kind}": {
            "max_position_embeddings": 6,
            "rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **numbers},
        }
        for kind, numbers in TYPES.items()
    },
    **{f"act {act}": {"hidden_act": act, "num_hidden_layers": 1} for act in ACTIVATIONS if act != "silu"},
}
CASES = turned.cases("Llama", VARIANTS)
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball."
)
STORIES = Path(__file__).parents[2].parent / "shared" / "data" / "stories260k"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    changes = VARIANTS["rotary yarn"] | VARIANTS["tied, biases"]
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, "Llama" + head), turned.config("Llama", **changes))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", ["tied, biases", "wide heads in one group", "rotary llama3"])
def test_packed_and_cached(dtype, variant, tmp_path):
    judge.checkpoint(tmp_path, transformers.LlamaForCausalLM, turned.config("Llama", **VARIANTS[variant]))
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :4]], dtype=dtype)
    judge.check_cached(tmp_path, IDS, dtype=dtype)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_packed_texts_turn_by_their_own_length(kind, tmp_path):
    """Where frequencies depend on the length, a short text keeps its own beside a longer one."""
    judge.checkpoint(tmp_path, transformers.LlamaModel, turned.config("Llama", **VARIANTS[f"rotary {kind}"]))
    model = minilm.load(tmp_path, dtype=np.float64)
    packed = model(np.concatenate([IDS[0], IDS[1, :3]])[None], lengths=[9, 3]).last_hidden_state.data[0]
    np.testing.assert_allclose(packed[:9], model(IDS[:1]).last_hidden_state.data[0], atol=1e-12)
    np.testing.assert_allclose(packed[9:], model(IDS[1:2, :3]).last_hidden_state.data[0], atol=1e-12)


def test_every_option_is_accounted_for():
    published = {  # what files of transformers 4 hold
        "architectures": ["LlamaForCausalLM"],
        "is_llama_config": True,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "rope_interleaved": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "max_sequence_length": 2048,
        "_name_or_path": "x",
        "rope_theta": 500000.0,
        "eos_token_id": [2, 3],
        "attention_bias": True,
        "hidden_size": 48,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    turned.check_account("Llama", CASES, published)
    cls = tasks("llama")["base"].config_class
    assert cls.from_dict({"rope_theta": 5e5, "rope_scaling": None}).rope_parameters["rope_theta"] == 5e5


def test_options_that_are_refused():
    def rope(**changes):
        return {"rope_parameters": {"rope_theta": 1e4, **changes}}

    turned.check_refused(
        "Llama",
        [
            ({"pretraining_tp": 2}, "pretraining_tp"),
            ({"rope_interleaved": True}, "rope_interleaved"),
            ({"hidden_act": "sin"}, "hidden_act"),
            ({"num_key_value_heads": 3}, "num_key_value_heads"),
            ({"head_dim": 5}, "head_dim must be even"),
            ({"head_dim": None, "hidden_size": 26}, "hidden_size must divide"),
            ({"head_dim": 0}, "head_dim"),
            ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
            ({"rms_norm_eps": "small"}, "rms_norm_eps must be a finite number"),
            ({"pad_token_id": 37}, "pad_token_id"),
            ({"token_classification_bias": False}, "token_classification_bias"),
            ({"attention_dropout": 1.5}, "attention_dropout"),
            (rope(rope_type="mrope"), "mrope"),
            (rope(rope_type="default", partial_rotary_factor=0.5), "every channel is turned"),
            (rope(rope_type="linear"), "factor"),
            (rope(rope_type="linear", factor=2.0, beta_fast=3), "beta_fast"),
        ],
    )


def test_heads_and_old_names(tmp_path):
    turned.check_heads("Llama", tmp_path)
    cls = tasks("llama")["causal-lm"]
    model = cls(cls.config_class(**{k: v for k, v in turned.SMALL.items() if k != "num_labels"}),
                rng=np.random.default_rng(0))  # fmt: skip
    old = "model.layers.0.self_attn.rotary_emb.inv_freq"
    matched, unmatched = model.names([old, "model.norm.weight", "transformer.norm.weight"])
    assert matched == {"model.norm.weight": "model.norm.weight"}
    assert unmatched == ["transformer.norm.weight"]


def test_first_values_and_dropout():
    turned.check_training("Llama")


def test_a_text_may_be_longer_than_the_model_is_made_for(tmp_path):
    other = judge.checkpoint(tmp_path, transformers.LlamaForCausalLM, turned.config("Llama", max_position_embeddings=4))
    ours = minilm.load(tmp_path)
    want = other(judge.torch.tensor(IDS)).logits.detach().numpy()
    assert judge.error(ours(IDS).logits.data, want) < 2e-5
    with minilm.no_grad():
        with pytest.raises(ValueError, match="at most 4 positions fit, the size of this cache"):
            ours(IDS, past_key_values=ours.new_cache(3))
        assert judge.error(ours(IDS, past_key_values=ours.new_cache(3, 9)).logits.data, want) < 2e-5


def test_position_ids_must_fit(tmp_path):
    judge.checkpoint(tmp_path, transformers.LlamaModel, turned.config("Llama"))
    ours = minilm.load(tmp_path)
    want = ours(IDS).last_hidden_state.data
    np.testing.assert_array_equal(ours(IDS, position_ids=np.arange(9)[None]).last_hidden_state.data, want)
    with pytest.raises(ValueError, match=r"position_ids must be \(3, 9\) or \(1, 9\); got \(2, 9\)"):
        ours(IDS, position_ids=np.zeros((2, 9), np.int64))
    with pytest.raises(IndexError, match="position_ids must be 0 or more"):
        ours(IDS, position_ids=np.full((3, 9), -1))


# ---- the published stories260K


def pieces():
    """Read the vocabulary: the longest piece's length, then a score, a length and the bytes of each."""
    raw, at, found = (STORIES / "tokenizer.bin").read_bytes(), 4, []
    while at < len(raw):
        n = struct.unpack_from("i", raw, at + 4)[0]
        found.append(raw[at + 8 : at + 8 + n])
        at += 8 + n
    return found


@pytest.mark.skipif(not STORIES.exists(), reason="../shared/data/stories260k is not here")
def test_a_published_model_tells_its_story():
    model, piece = minilm.load(STORIES / "checkpoint_legacy.bin"), pieces()
    ids, text = np.array([[1]]), b""
    with minilm.no_grad():
        cache = model.new_cache(1)
        while len(text) < len(STORY) + 1:
            ids = model(ids, past_key_values=cache, logits_to_keep=1).logits.data.argmax(axis=-1)
            text += piece[ids.item()]
    assert text.decode().strip().startswith(STORY)
