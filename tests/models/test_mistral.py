"""Mistral against transformers, by the judge of all families."""

import numpy as np
import pytest
import transformers

from tests.models import judge, turned
from tests.models.turned import HEADS, IDS

VARIANTS = {
    "window of 3": {"sliding_window": 3},
    "window of 2, tied": {"sliding_window": 2, "tie_word_embeddings": True, "hidden_act": "gelu"},
    "no window, wide heads": {"sliding_window": None, "head_dim": 8, "rms_norm_eps": 1e-3},
    "window as long as the text, no groups, odd sizes": {
        "sliding_window": 9,
        "hidden_size": 15,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "head_dim": 4,
        "intermediate_size": 13,
        "vocab_size": 41,
        "num_hidden_layers": 1,
        "pad_token_id": None,
    },
    "window of 4, yarn": {
        "sliding_window": 4,
        "max_position_embeddings": 8,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 100.0,
            "factor": 2.0,
            "original_max_position_embeddings": 4,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
            "truncate": False,
        },
    },
}
CASES = [
    *turned.cases("Mistral", VARIANTS),
    turned.case("Mistral", "ForCausalLM", "window of 4, padded", {"attention_mask": turned.MASK}, sliding_window=4),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head, tmp_path):
    changes = VARIANTS["window of 4, yarn"]
    model = judge.checkpoint(
        tmp_path / "a", getattr(transformers, "Mistral" + head), turned.config("Mistral", **changes)
    )
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", ["window of 3", "window of 2, tied", "no window, wide heads"])
def test_packed_and_cached(dtype, variant, tmp_path):
    judge.checkpoint(tmp_path, transformers.MistralForCausalLM, turned.config("Mistral", **VARIANTS[variant]))
    judge.check_packed(tmp_path, [IDS[0], IDS[1, :1], IDS[2, :5]], dtype=dtype)
    judge.check_cached(tmp_path, IDS, dtype=dtype)


def test_every_option_is_accounted_for():
    published = {  # what files of transformers 4 hold
        "architectures": ["MistralForCausalLM"],
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "sliding_window": 1024,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "transformers_version": "4.34.0.dev0",
        "use_cache": True,
        "attention_dropout": 0.0,
    }
    turned.check_account("Mistral", CASES, published)


def test_options_that_are_refused():
    turned.check_refused(
        "Mistral",
        [
            ({"sliding_window": 0}, "sliding_window"),
            ({"attention_bias": True}, "attention_bias"),
            ({"mlp_bias": True}, "mlp_bias"),
            ({"layer_types": ["full_attention"] * 2}, "layer_types"),
        ],
    )


def test_heads(tmp_path):
    turned.check_heads("Mistral", tmp_path)


def test_first_values_and_dropout():
    turned.check_training("Mistral")
