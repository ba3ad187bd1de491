"""Qwen3 against transformers, by the judge of all families."""

import numpy as np
import pytest
import transformers

from tests.models import judge, turned
from tests.models.turned import HEADS, IDS

SLIDING = {"use_sliding_window": True, "sliding_window": 4}
VARIANTS = {
    "windows from layer 1": {**SLIDING, "max_window_layers": 1},
    "windows by name, tied": {
        **SLIDING,
        "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-3,
    },
    "a window that is not used": {"use_sliding_window": False, "sliding_window": 2, "max_window_layers": 0},
    "one group, gelu, wide heads, biases": {
        "attention_bias": True,
        "num_key_value_heads": 1,
        "hidden_act": "gelu",
        "head_dim": 8,
    },
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
    "yarn": {
        "max_position_embeddings": 8,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 8,
            "attention_factor": 1.25,
        },
    },
}
CASES = [
    *turned.cases("Qwen3", VARIANTS),
    turned.case(
        "Qwen3", "ForCausalLM", "windows, padded", {"attention_mask": turned.MASK}, **SLIDING, max_window_layers=0
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    changes = VARIANTS["windows by name, tied"]
    model = judge.checkpoint(tmp_path / "a", getattr(transformers, "Qwen3" + head), turned.config("Qwen3", **changes))
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", ["windows from layer 1", "one group, gelu, wide heads, biases"])
def test_packed_and_cached(dtype, variant, tmp_path):
    judge.checkpoint(tmp_path, transformers.Qwen3ForCausalLM, turned.config("Qwen3", **VARIANTS[variant]))
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :5]], dtype=dtype)
    judge.check_cached(tmp_path, IDS, dtype=dtype)


def test_every_option_is_accounted_for():
    published = {  # what files of transformers 4 hold
        "architectures": ["Qwen3ForCausalLM"],
        "rope_theta": 1000000.0,
        "torch_dtype": "bfloat16",
        "max_window_layers": 21,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attention_dropout": 0.0,
        "use_cache": True,
        "use_sliding_window": False,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
    }
    turned.check_account("Qwen3", CASES, published)


def test_options_that_are_refused():
    turned.check_refused(
        "Qwen3",
        [
            ({"use_sliding_window": True, "sliding_window": 0}, "sliding_window"),
            ({"layer_types": ["sliding_attention"] * 2}, "use_sliding_window"),
            ({"layer_types": ["full_attention"]}, "layer_types"),
            ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
            ({"mlp_bias": True}, "mlp_bias"),
        ],
    )


def test_heads(tmp_path):
    turned.check_heads("Qwen3", tmp_path)


def test_first_values_and_dropout():
    turned.check_training("Qwen3")
