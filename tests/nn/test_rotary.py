"""Rotary angles against transformers' own: frequencies and attention factors of every type, cos and sin, old files."""

import math

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from minilm.nn.rotary import TYPES, Rotary, frequencies, rope_parameters

transformers.utils.logging.set_verbosity_error()
D, LIMIT, O = 16, 64, 24
PUBLISHED = [
    {"rope_type": "default"},
    {"rope_type": "default", "rope_theta": 500000.0},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "linear", "factor": 4.0, "partial_rotary_factor": 0.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 3, "partial_rotary_factor": 0.25},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": O},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": O, "attention_factor": 0.7},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": O, "beta_fast": 3, "beta_slow": 0.5},
    {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.8, "rope_theta": 100.0},
    {"rope_type": "yarn", "factor": 4.0, "truncate": False, "partial_rotary_factor": 0.75, "beta_fast": 2.5},
    {"rope_type": "yarn", "factor": 1.0, "beta_slow": 1, "beta_fast": 1},
    {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0 + i for i in range(8)], "factor": 4.0},
    {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2, 3, 4, 5],
        "original_max_position_embeddings": O,
        "partial_rotary_factor": 0.5,
    },
    {
        "rope_type": "longrope",
        "short_factor": [1.5] * 8,
        "long_factor": [2.5] * 8,
        "attention_factor": 1.19,
        "original_max_position_embeddings": O,
    },
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": O,
    },
    {
        "rope_type": "llama3",
        "factor": 32,
        "low_freq_factor": 0.5,
        "high_freq_factor": 2,
        "rope_theta": 50.0,
        "original_max_position_embeddings": 40,
    },
    {"rope_type": "proportional", "partial_rotary_factor": 0.25},
    {"rope_type": "proportional", "partial_rotary_factor": 0.8, "factor": 3.0},
]
assert {p["rope_type"] for p in PUBLISHED} == set(TYPES) == {"default", *ROPE_INIT_FUNCTIONS}


def llama(parameters, **changes):
    sizes = {"hidden_size": 4 * D, "num_attention_heads": 4, "max_position_embeddings": LIMIT}
    return transformers.LlamaConfig(**sizes, rope_parameters=dict(parameters), **changes)


@pytest.mark.parametrize("n", [1, O, O + 1, LIMIT, LIMIT + 1, 5 * LIMIT])
@pytest.mark.parametrize("parameters", PUBLISHED, ids=str)
def test_frequencies_are_those_of_transformers(parameters, n):
    parameters = {"rope_theta": 10000.0, **parameters}
    kind = parameters["rope_type"]
    compute = LlamaRotaryEmbedding.compute_default_rope_parameters if kind == "default" else ROPE_INIT_FUNCTIONS[kind]
    want, a = compute(llama(parameters), seq_len=n)
    omega, got_a = frequencies(D, parameters, LIMIT, n)
    assert omega.dtype == np.float64
    np.testing.assert_allclose(omega, want.numpy(), rtol=1e-6)
    assert got_a == pytest.approx(a, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", PUBLISHED, ids=str)
def test_cos_and_sin_are_those_of_transformers(parameters, dtype):
    parameters = {"rope_theta": 10000.0, **parameters}
    rotary = Rotary(D, parameters, LIMIT, dtype=dtype)
    for n in (3, LIMIT + 9, 7, O + 1, LIMIT):  # shorter, longer, shorter again
        positions = np.arange(n)[None] + np.zeros((2, 1), np.int64)
        want = LlamaRotaryEmbedding(llama(parameters))(torch.zeros(1), torch.tensor(positions))
        for got, its in zip(rotary(positions), want, strict=True):
            assert got.dtype == dtype
            assert got.shape == (2, 1, n, rotary.width // 2)
            half = its.numpy()[:, None, :, : rotary.width // 2]  # theirs comes twice, for either channel of a pair
            np.testing.assert_allclose(got.data, half, atol=3e-7 * n)  # their angle has float32's error


def test_a_share_of_the_channels_may_be_turned():
    sizes = {"hidden_size": 4 * D, "num_attention_heads": 4, "max_position_embeddings": LIMIT}
    config = transformers.GPTNeoXConfig(**sizes, rotary_pct=0.375, rotary_emb_base=5000)
    published = {"rotary_pct": 0.375, "rotary_emb_base": 5000, "rope_scaling": None}
    parameters = rope_parameters(published, theta_name="rotary_emb_base", partial=0.25, partial_name="rotary_pct")
    assert published == {}
    assert parameters == config.rope_parameters
    rotary = Rotary(D, parameters, LIMIT)
    want, _ = GPTNeoXRotaryEmbedding(config)(torch.zeros(1), torch.arange(9)[None])
    assert rotary.width == want.shape[-1] == 6
    np.testing.assert_allclose(rotary(np.arange(9)[None])[0].data[:, 0], want[..., :3].numpy(), atol=1e-6)


FILES = [  # as config.json says it, of transformers 4 and 5
    {},
    {"rope_theta": 500000.0},
    {"rope_theta": 1e6, "rope_scaling": None},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_theta": 30000.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
    {"rope_scaling": {"rope_type": "dynamic", "type": "dynamic", "factor": 2.0}, "rope_theta": 100.0},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    {"rope_parameters": None, "rope_theta": 99.0},
    {"rope_parameters": {"rope_theta": 99.0, "rope_type": "default"}, "rope_theta": 10000.0},
    {"rope_scaling": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5.0}, "rope_theta": 100.0},
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_old_and_new_files_say_the_same(file):
    want = transformers.LlamaConfig(**{k: v.copy() if isinstance(v, dict) else v for k, v in file.items()})
    got, want = rope_parameters(dict(file)), {k: v for k, v in want.rope_parameters.items() if k != "type"}
    assert got == want
    assert rope_parameters({"rope_parameters": got}) == got


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rope_type": "mrope"}, "rope_type must be one of default.*'mrope'"),
        ({"rope_type": "su"}, "longrope"),
        ({"rope_type": "default", "factor": 2.0}, "factor"),
        ({"rope_type": "default", "full_attention": {}}, "full_attention"),
        ({"rope_type": "linear"}, "must have rope_theta, factor"),
        ({"rope_type": "linear", "factor": 0}, "factor must be a number above 0; got 0"),
        ({"rope_type": "linear", "factor": math.nan}, "factor"),
        ({"rope_type": "linear", "factor": "2"}, "factor"),
        ({"rope_type": "linear", "factor": True}, "factor"),
        ({"rope_type": "linear", "factor": 2.0, "original_max_position_embeddings": 9}, "original_max_position"),
        ({"rope_type": "default", "rope_theta": 1.0}, "rope_theta must be a number above 1"),
        ({"rope_type": "default", "rope_theta": None}, "rope_theta"),
        ({"rope_type": "default", "partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.01}, "partial_rotary_factor"),
        ({"rope_type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.125}, "more than 2 channels"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": 1}, "truncate must be True or False"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": -1}, "beta_fast"),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1}, "whole number above 1"),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 9.5}, "whole number above 1"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 8}, "long_factor"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0] * 7}, "each of 8 pairs; got 7"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [0.0] * 8}, "long_factor must be a list"),
        ({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}, "above low_freq_factor"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(parameters, words):
    with pytest.raises(ValueError, match=words):
        Rotary(D, {"rope_theta": 10000.0, **parameters}, LIMIT)


def test_a_file_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="type and rope_type must agree"):
        rope_parameters({"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}})
    with pytest.raises(ValueError, match="rope_scaling must be a dict"):
        rope_parameters({"rope_scaling": [2.0]})


def test_the_table_grows_and_gives_the_same_bits():
    parameters = {"rope_type": "default", "rope_theta": 10000.0}
    grown, once = (Rotary(D, parameters, 5000) for _ in range(2))
    far = np.array([[4999, 0, 3]])
    for n in (1, 300, 301, 4000):
        grown(np.arange(n)[None])
    for a, b in zip(grown(far), once(far), strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_angles_are_exact_far_out_and_take_no_memory():
    """In float32 an angle of 10⁵ is known to 0.004 only; a position that nobody reaches makes no table."""
    rotary = Rotary(4, {"rope_type": "default", "rope_theta": 10000.0}, 1 << 40)
    for p in (131071, 99999):
        cos, sin = (x.data[0, 0, 0, 0] for x in rotary(np.array([[p]])))
        assert cos == pytest.approx(math.cos(p), abs=6e-8)
        assert sin == pytest.approx(math.sin(p), abs=6e-8)
    assert rotary(np.array([[10**12]]))[0].data[0, 0, 0, 0] == pytest.approx(math.cos(10**12), abs=1e-3)


def test_positions_are_checked():
    rotary = Rotary(D, {"rope_type": "default", "rope_theta": 10000.0}, LIMIT)
    with pytest.raises(IndexError, match="0 or more; got -1"):
        rotary(np.array([[0, -1]]))
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        rotary(np.arange(3))
    with pytest.raises(ValueError, match="integers"):
        rotary(np.zeros((1, 3)))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_each_row_and_each_packed_text_turns_by_its_own_length(kind):
    parameters = {"rope_theta": 10000.0, **next(p for p in PUBLISHED if p["rope_type"] == kind)}
    rotary = Rotary(D, {**parameters, **({"original_max_position_embeddings": O} if kind == "longrope" else {})}, LIMIT)
    short, long = np.arange(5)[None], np.arange(LIMIT + 5)[None]
    alone = [rotary(p)[0].data for p in (short, long)]
    packed = rotary(np.concatenate([short, long], axis=1), [5, LIMIT + 5])[0].data
    np.testing.assert_array_equal(packed, np.concatenate(alone, axis=2))
    rows = rotary(np.stack([long[0, :5], long[0, -5:]]))[0].data
    np.testing.assert_array_equal(rows[:1], alone[0])
    np.testing.assert_array_equal(rows[1:], alone[1][:, :, -5:])
