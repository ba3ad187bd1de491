"""The legacy file of llama2.c: the published model writes the published text, and sizes are what tells it."""

import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from minilm.checkpoint import CheckpointError, open_weights
from minilm.checkpoint.llama2c import FIELDS, open_llama2c

from .damage import damaged

STORIES = Path(__file__).parents[3] / "shared/data/stories260k"
TEXT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
)
TEXT += "big, red ball."


def test_the_published_text():
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES} is absent")
    weights = open_weights(STORIES / "checkpoint_legacy.bin")
    assert weights.format == "llama2.c"
    model = LlamaForCausalLM(LlamaConfig(**weights.config)).eval()
    state = {name: torch.from_numpy(entry.read()) for name, entry in weights.items()}
    model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    ids = model.generate(torch.tensor([[1]]), max_new_tokens=50, do_sample=False)[0].tolist()
    data = (STORIES / "tokenizer.bin").read_bytes()
    vocabulary, place = [], 4
    while place < len(data):
        (length,) = struct.unpack_from("<i", data, place + 4)
        vocabulary.append(data[place + 8 : place + 8 + length].decode())
        place += 8 + length
    assert "".join(vocabulary[i] for i in ids[1:]).strip().startswith(TEXT)


def small(tied=True, **changes):
    """Return a file of a model with every number in it different: 0, 1, 2, ... in the order of the file."""
    header = {"dim": 8, "hidden_dim": 6, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 5, "seq_len": 3}
    header |= {"vocab_size": 5 if tied else -5} | changes
    layer = 8 + 64 + 32 + 32 + 64 + 8 + 3 * 48
    count = 40 + 2 * layer + 8 + 2 * 3 * 2 + (0 if tied else 40)
    return struct.pack("<7i", *(header[field] for field in FIELDS)) + np.arange(count, dtype="<f4").tobytes()


@pytest.mark.parametrize("tied", [True, False])
def test_each_part_in_its_place(tmp_path, tied):
    (tmp_path / "a.bin").write_bytes(small(tied))
    weights = open_weights(tmp_path / "a.bin")
    assert (weights.config["vocab_size"], weights.config["tie_word_embeddings"]) == (5, tied)
    assert ("lm_head.weight" in weights) is not tied
    flat = np.arange(2000, dtype=np.float32)
    begins = {  # counted by hand: embedding 40; norms 16; q 128; k 64; v 64; o 128; norms 16; w1 96; w2 96; w3 96
        "model.embed_tokens.weight": (0, (5, 8)),
        "model.layers.1.input_layernorm.weight": (48, (8,)),
        "model.layers.0.self_attn.v_proj.weight": (248, (4, 8)),
        "model.layers.1.self_attn.o_proj.weight": (376, (8, 8)),
        "model.layers.0.post_attention_layernorm.weight": (440, (8,)),
        "model.layers.1.mlp.gate_proj.weight": (504, (6, 8)),
        "model.layers.0.mlp.down_proj.weight": (552, (8, 6)),
        "model.layers.1.mlp.up_proj.weight": (696, (6, 8)),
        "model.norm.weight": (744, (8,)),
    } | ({} if tied else {"lm_head.weight": (764, (5, 8))})
    for name, (begin, shape) in begins.items():
        expected = flat[begin : begin + np.prod(shape)].reshape(shape)
        np.testing.assert_array_equal(weights[name].read(), expected, err_msg=name)
    q = flat[56 + 64 : 56 + 128].reshape(8, 8)  # of layer 1; heads of 4 rows, of which 0, 2 then 1, 3
    np.testing.assert_array_equal(weights["model.layers.1.self_attn.q_proj.weight"].read(), q[[0, 2, 1, 3, 4, 6, 5, 7]])
    k = flat[184 : 184 + 32].reshape(4, 8)
    np.testing.assert_array_equal(weights["model.layers.0.self_attn.k_proj.weight"].read(), k[[0, 2, 1, 3]])


@pytest.mark.parametrize("cut", [0, 27, 28, 100, -1, -4])
def test_cut_short(tmp_path, cut):
    (tmp_path / "a.bin").write_bytes(small()[:cut])
    with pytest.raises(CheckpointError, match=r"the file must be safetensors, torch\.save's, GGUF or llama2.c's"):
        open_weights(tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"the file must have the|the header must be seven integers"):
        open_llama2c(tmp_path / "a.bin")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [0, -1, 7, 2**31 - 1, -(2**31)])
def test_absurd_integers(tmp_path, field, value):
    (tmp_path / "a.bin").write_bytes(small(**{field: value}))
    with pytest.raises(CheckpointError, match=r"must be safetensors, torch\.save's, GGUF or llama2\.c's"):
        open_weights(tmp_path / "a.bin")


def fuzz(path, runs):
    draw = random.Random(0)
    read = 0
    for _ in range(runs):
        path.write_bytes(damaged(small(), draw))
        try:
            arrays = [entry.read() for entry in open_weights(path).values()]
        except CheckpointError:
            continue
        read += 1
        assert sum(array.nbytes for array in arrays) <= len(small())
    return read / runs


def test_damaged_files(tmp_path):
    assert 0.05 < fuzz(tmp_path / "a", 300) < 0.95


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    assert 0.05 < fuzz(tmp_path / "a", 5_000) < 0.95
