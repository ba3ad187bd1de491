"""From GGUF's names and metadata to Hugging Face's: architectures llama (Mistral too), qwen2 and qwen3.

Source: llama.cpp's convert_hf_to_gguf.py, which does the opposite, and gguf-py's table of names.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .reading import broken, short
from .rotary_rows import half_split
from .weights import Weights, changed

ARCHITECTURES = ("llama", "qwen2", "qwen3")
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
FACTORS = "rope_freqs.weight"
INSTEAD = "take the model as safetensors, which this project reads"
REQUIRED = object()
UNUSED = ("vocab_size", "expert_used_count", "rope.scaling.finetuned", "tensor_data_layout")  # say nothing of a model


def hf_weights(weights: Weights) -> Weights:
    """Return the tensors of a GGUF file under Hugging Face's names, with ``config`` in its form.

    Query and key rows of architecture llama, which lie in pairs in GGUF, are put back into Hugging Face's order.
    CheckpointError: another architecture, a variant that Hugging Face's model of that name has not, a tensor or a key
    that is missing, of the wrong kind or unknown.
    """
    config = _config(weights)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    entries = []
    for entry in weights.values():
        if entry.name == FACTORS:
            continue
        name = _name(weights, entry.name)
        change: Callable[[np.ndarray], np.ndarray] | None = None
        kind = name.split(".")[-2]
        if kind in heads and config["model_type"] in ("llama", "mistral"):
            if entry.shape[0] % (2 * heads[kind]):
                must = f"have an even number of rows for each of {heads[kind]} heads"
                raise broken(weights.path, f"tensor {short(entry.name)}", must, entry.shape[0])
            change = partial(half_split, heads=heads[kind])
        entries.append(changed(entry, name, change))
    return Weights(weights.path, "gguf", entries, weights.metadata, config)


def _name(weights: Weights, name: str) -> str:
    stem, _, ending = name.rpartition(".")
    block = re.fullmatch(r"blk\.(\d{1,6})\.(\w+)", stem)
    if ending in ("weight", "bias"):
        if block and block[2] in LAYER:
            return f"model.layers.{int(block[1])}.{LAYER[block[2]]}.{ending}"
        if stem in WHOLE:
            return f"{WHOLE[stem]}.{ending}"
    raise broken(weights.path, f"tensor {short(name)}", "be one of a Llama's or Qwen's", "another name", INSTEAD)


def _config(weights: Weights) -> dict[str, Any]:
    """Return what Hugging Face's config.json would say.  A number of float32 is given its shortest decimal."""
    path, metadata = weights.path, weights.metadata
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        got, must = short(architecture), f"be one of {', '.join(ARCHITECTURES)}"
        raise broken(path, "general.architecture", must, got, INSTEAD)

    known = {f"{architecture}.{key}" for key in (*UNUSED, "rope.scaling.type")}

    def of(key: str, kind: type, default: Any = REQUIRED) -> Any:
        known.add(f"{architecture}.{key}")
        return _value(weights, f"{architecture}.{key}", kind, default)

    for name in ("token_embd.weight", "output_norm.weight"):
        if name not in weights:
            raise broken(path, f"tensor {name!r}", "be there", "none")
    if of("expert_count", int, 0):
        raise broken(path, f"{architecture}.expert_count", "be 0", of("expert_count", int), INSTEAD)
    width, heads = of("embedding_length", int), of("attention.head_count", int)
    head = of("attention.key_length", int, width // max(1, heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if of(key, int, head) != head:
            raise broken(path, f"{architecture}.{key}", f"be {head}, as the width of a head", of(key, int), INSTEAD)
    window = of("attention.sliding_window", int, 0)
    config = {
        "model_type": "mistral" if architecture == "llama" and window else architecture,
        "hidden_size": width,
        "intermediate_size": of("feed_forward_length", int),
        "num_hidden_layers": of("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": of("attention.head_count_kv", int, heads),
        "head_dim": head,
        "vocab_size": weights["token_embd.weight"].shape[0],
        "max_position_embeddings": of("context_length", int),
        "rms_norm_eps": of("attention.layer_norm_rms_epsilon", float),
        "rope_theta": of("rope.freq_base", float, 10000.0),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in weights,
    }
    classes = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    config["architectures"] = [f"{classes[config['model_type']]}ForCausalLM"]
    if architecture == "qwen2":
        del config["head_dim"]  # this family's is always the width divided by the heads
        if head * heads != width:
            raise broken(path, "qwen2.attention.key_length", f"be {width} / {heads}", head, INSTEAD)
    if window:
        config["sliding_window"] = window
    if architecture != "llama" and window:
        config["use_sliding_window"] = True
    if config["model_type"] == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in weights
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in weights
    for name in ("bos", "eos"):
        token = _value(weights, f"tokenizer.ggml.{name}_token_id", int, None)
        config[f"{name}_token_id"] = token
    scaling = _rope_scaling(weights, config, of)
    for key in weights.metadata:
        if key.startswith(f"{architecture}.") and key not in known:
            raise broken(path, f"metadata {short(key)}", "be an option that is known", "another", INSTEAD)
    return config | ({"rope_scaling": scaling} if scaling else {})


def _value(weights: Weights, key: str, kind: type, default: Any) -> Any:
    """Return a number of the metadata, after checking its type and size: 0 only where that is the default."""
    found = weights.metadata.get(key, default)
    if found is REQUIRED:
        raise broken(weights.path, f"metadata {key!r}", "be there", "none")
    if found is default:
        return found
    if kind is float and type(found) in (int, float) and 1e-30 < found < 1e30:
        return float(str(np.float32(found)))
    if kind is int and type(found) is int and (0 if default in (0, None) else 1) <= found < 2**31:
        return found
    raise broken(weights.path, f"metadata {key!r}", f"be a positive number ({kind.__name__})", short(found))


def _rope_scaling(weights: Weights, config: Mapping[str, Any], of: Callable[..., Any]) -> dict[str, Any] | None:
    """Return the scaling of the rotary embedding in Hugging Face's words."""
    kind = weights.metadata.get(f"{weights.metadata['general.architecture']}.rope.scaling.type", "none")
    if FACTORS in weights:
        return _llama3(weights, config)
    if kind == "none":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": of("rope.scaling.factor", float)}
    if kind == "yarn":
        scaling = {"rope_type": "yarn", "factor": of("rope.scaling.factor", float)}
        original = of("rope.scaling.original_context_length", int, 0)
        return scaling | ({"original_max_position_embeddings": original} if original else {})
    raise broken(weights.path, "rope.scaling.type", "be none, linear or yarn", short(kind), INSTEAD)


def _llama3(weights: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return Llama 3's scaling, if the factors that GGUF stores are those of its published settings.

    f = 1 for wavelengths up to 8192 / 4, F from 8192 / 1 on, and between 1 / ((1 - s) / F + s), s = (8192 / w - 1) / 3.
    """
    F, low, high, original = 0.0, 1.0, 4.0, 8192
    found = weights[FACTORS].read(np.float64)
    half = config["head_dim"] // 2
    if found.shape == (half,) and half:
        F = float(found.max())
        w = 2 * np.pi * config["rope_theta"] ** (np.arange(half) / half)
        s = np.clip((original / w - low) / (high - low), 0, 1)
        if 1 <= F < 1e6 and np.allclose(found, 1 / ((1 - s) / F + s), rtol=1e-4, atol=0):
            scaling = {"rope_type": "llama3", "factor": F, "low_freq_factor": low, "high_freq_factor": high}
            return scaling | {"original_max_position_embeddings": original}
    must = "be the factors of Llama 3's scaling (frequencies 1 and 4, context 8192)"
    raise broken(weights.path, f"tensor {FACTORS!r}", must, "others", INSTEAD)
