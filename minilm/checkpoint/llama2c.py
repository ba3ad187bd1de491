"""The legacy file of llama2.c: seven integers, then the weights of a Llama in float32, end to end.

    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: an output matrix of its own), seq_len: int32
    embedding | attention norms | wq | wk | wv | wo | feed-forward norms | w1 | w2 | w3, each for all layers |
    final norm | cosines | sines of the rotary embedding, which are computed here | output matrix, if it has its own

Nothing at its beginning says what it is; it is known by having exactly the size that its integers ask for.
Source: https://github.com/karpathy/llama2.c, export.py (legacy_export) and run.c.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .reading import broken, map_file
from .rotary_rows import half_split
from .weights import Entry, Weights, changed, plain

FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
HEADER = 4 * len(FIELDS)


def is_llama2c(path: Path) -> bool:
    """Return whether a file has the size that its first seven integers ask for."""
    file = map_file(path)
    header = _header(file)
    return bool(header) and _size(header) == len(file)


def open_llama2c(path: Path) -> Weights:
    """Return the tensors under the names of Hugging Face's Llama, q and k in its order, with ``config`` in its form.

    CheckpointError: integers that make no model, or another size than they ask for.
    """
    file = map_file(path)
    header = _header(file)
    if not header:
        got = dict(zip(FIELDS, file[:HEADER].view("<i4").tolist(), strict=True)) if len(file) >= HEADER else "less"
        raise broken(path, "the header", f"be seven integers of a model ({', '.join(FIELDS)})", got)
    if _size(header) != len(file):
        raise broken(path, "the file", f"have the {_size(header)} bytes that its header asks for", len(file))
    entries, place = [], HEADER
    for name, shape in _parts(header):
        nbytes = 4 * math.prod(shape)
        if name:
            entries.append(plain(name, "F32", shape, path, file[place : place + nbytes]))
        place += nbytes
    heads = {"q_proj": header["n_heads"], "k_proj": header["n_kv_heads"]}
    return Weights(path, "llama2.c", [_in_order(entry, heads) for entry in entries], config=_config(header))


def _header(file: np.ndarray) -> dict[str, int]:
    """Return the header by its fields, and whether the head is "tied"; nothing where it cannot be one of a model."""
    if len(file) < HEADER:
        return {}
    header = dict(zip(FIELDS, file[:HEADER].view("<i4").tolist(), strict=True))
    header["tied"] = header["vocab_size"] > 0
    header["vocab_size"] = abs(header["vocab_size"])
    if min(header[field] for field in FIELDS) < 1 or header["n_layers"] > len(file):
        return {}
    dim, heads, kv_heads = header["dim"], header["n_heads"], header["n_kv_heads"]
    return header if dim % (2 * heads) == 0 and heads % kv_heads == 0 else {}


def _parts(header: dict[str, int]) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and shape of each part of the file in order; no name for what is not a weight."""
    dim, hidden, layers, vocab = (header[field] for field in ("dim", "hidden_dim", "n_layers", "vocab_size"))
    kv = dim // header["n_heads"] * header["n_kv_heads"]
    tables = header["seq_len"] * (dim // header["n_heads"] // 2)

    def each(name: str, *shape: int) -> list[tuple[str, tuple[int, ...]]]:
        return [(f"model.layers.{layer}.{name}.weight", shape) for layer in range(layers)]

    return [
        ("model.embed_tokens.weight", (vocab, dim)),
        *each("input_layernorm", dim),
        *each("self_attn.q_proj", dim, dim),
        *each("self_attn.k_proj", kv, dim),
        *each("self_attn.v_proj", kv, dim),
        *each("self_attn.o_proj", dim, dim),
        *each("post_attention_layernorm", dim),
        *each("mlp.gate_proj", hidden, dim),
        *each("mlp.down_proj", dim, hidden),
        *each("mlp.up_proj", hidden, dim),
        ("model.norm.weight", (dim,)),
        ("", (tables,)),
        ("", (tables,)),
        *([] if header["tied"] else [("lm_head.weight", (vocab, dim))]),
    ]


def _size(header: dict[str, int]) -> int:
    """Return the bytes of the whole file; one layer stands for all, so that an absurd number of them costs nothing."""
    one, two = (sum(math.prod(shape) for _, shape in _parts(header | {"n_layers": n})) for n in (1, 2))
    return HEADER + 4 * (one + (header["n_layers"] - 1) * (two - one))


def _in_order(entry: Entry, heads: dict[str, int]) -> Entry:
    kind = entry.name.split(".")[-2]
    return changed(entry, entry.name, partial(half_split, heads=heads[kind])) if kind in heads else entry


def _config(header: dict[str, int]) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": header["dim"],
        "intermediate_size": header["hidden_dim"],
        "num_hidden_layers": header["n_layers"],
        "num_attention_heads": header["n_heads"],
        "num_key_value_heads": header["n_kv_heads"],
        "vocab_size": header["vocab_size"],
        "max_position_embeddings": header["seq_len"],
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": bool(header["tied"]),
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
