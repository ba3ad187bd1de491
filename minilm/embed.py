"""Vectors of whole texts: what a model makes of their tokens, pooled as a sentence-transformers folder asks.

Of a text with n token vectors x₁ ... xₙ, special tokens included:

    cls                   x₁
    max                   the largest of each channel
    mean                  Σ xᵢ / n
    mean_sqrt_len_tokens  Σ xᵢ / √n
    weightedmean          Σ i xᵢ / Σ i
    lasttoken             xₙ

Source: Reimers and Gurevych (2019), "Sentence-BERT", arXiv:1908.10084, and the files of sentence-transformers.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from . import autograd
from .pretrained import load, load_tokenizer, locate

POOLING = {  # mode -> the option of older files, in their order
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
}
BATCH_TOKENS = 2048  # few enough that what one layer makes stays in the cache


@dataclass(frozen=True, kw_only=True)
class Dense:
    """f(x Wᵀ + b) on pooled vectors: weight (out, in), bias (out,) or None, activation a name in ACTIVATIONS."""

    weight: np.ndarray
    bias: np.ndarray | None
    activation: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = x @ self.weight.T
        return ACTIVATIONS[self.activation](y if self.bias is None else y + self.bias)


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How token vectors become one vector of a text; the default is the mean, as it is.

    ``pooling``: one or more of POOLING; several are put side by side, in this order.  ``normalize``: to length 1.
    ``max_length``: tokens of a text that are read, special tokens included; without it as many as the tokenizer and the
    model's positions allow.  ``lower``: lower-case the text.  ``prompt``: what to put before each text.  ``dense``:
    layers between pooling and normalizing.
    """

    pooling: str | Sequence[str] = "mean"
    normalize: bool = False
    max_length: int | None = None
    lower: bool = False
    prompt: str = ""
    dense: Sequence[Dense] = ()

    def __post_init__(self) -> None:
        if not self.modes or not set(self.modes) <= POOLING.keys():
            raise ValueError(f"embed: pooling must be one or more of {', '.join(POOLING)}; got {self.pooling!r}.")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"embed: max_length must be at least 1; got {self.max_length}.")

    @property
    def modes(self) -> list[str]:
        return [self.pooling] if isinstance(self.pooling, str) else list(self.pooling)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read modules.json and what it names; without it, the default.

        ValueError for a broken file and for a part that is not supported, by name.
        """
        folder = Path(folder)
        found: dict[str, Any] = {}
        dense: list[Dense] = []
        includes_prompt = True
        if not (folder / "modules.json").is_file():
            return cls(**_transformer(folder))
        for module in _json(folder / "modules.json", list):
            if not isinstance(module, dict) or not all(isinstance(module.get(k), str) for k in ("path", "type")):
                raise ValueError(
                    f'{folder / "modules.json"}: each must be {{"path": ..., "type": ...}}; got {module!r}.'
                )
            kind, path = module["type"].rpartition(".")[2], folder / module["path"]
            if folder.resolve() not in (path.resolve(), *path.resolve().parents):
                raise ValueError(f"{folder / 'modules.json'}: paths must lie in the folder; got {module['path']!r}.")
            if kind == "Transformer":
                found |= _transformer(path)
            elif kind == "Pooling":
                found["pooling"], includes_prompt = _pooling(path / "config.json")
            elif kind == "Dense" and not found.get("normalize"):
                dense.append(_dense(path))
            elif kind == "Normalize":
                found["normalize"] = True
            else:
                raise ValueError(
                    f"{folder / 'modules.json'}: {module['type']} is not supported, at this place at least."
                )
        file = folder / "config_sentence_transformers.json"
        if file.is_file():
            options = _json(file, dict)
            name = options.get("default_prompt_name")
            if name is not None:
                found["prompt"] = (options.get("prompts") or {}).get(name, "")
        if found.get("prompt") and not includes_prompt:
            raise ValueError(f"{folder}: a prompt that pooling leaves out (include_prompt) is not supported.")
        return cls(**found, dense=tuple(dense))


def embed(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    config: EmbeddingConfig | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
    **options: Any,
) -> np.ndarray:
    """Return one vector of each text, float32 (n, C).

    The base model is read, whatever its head; of an encoder-decoder the encoder.  Texts are sorted by length and run
    packed end to end, about ``batch_tokens`` together, so that nothing is computed for padding.  ``options``: fields of
    EmbeddingConfig, which win over ``config``.  A text that is too long for max_length or for the model's positions
    loses its end, not the special tokens.
    TypeError for what is not a str; ValueError for an option out of range, and a text that has no tokens.
    """
    config = replace(config or EmbeddingConfig(), **options)
    if isinstance(texts, str):
        raise TypeError("embed: texts must be several strings; got one. Put it into a list.")
    base = model.base_model
    encoded = _tokens(tokenizer, [config.prompt + (t.lower() if config.lower else t) for t in texts], config, base)
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    vectors: dict[int, np.ndarray] = {}
    training = model.training
    model.eval()
    try:
        for batch in _batches(order, encoded, batch_tokens):
            lengths = [len(encoded[i]) for i in batch]
            ids = np.concatenate([encoded[i] for i in batch])[None]  # (1, N)
            with autograd.no_grad():
                read = getattr(base, "encode", base)(ids, lengths=lengths)
            pooled = _finished(pool(read.last_hidden_state._data[0], lengths, config.modes), config)
            vectors |= dict(zip(batch, pooled, strict=True))
    finally:
        model.train(training)
    if not vectors:
        return np.zeros((0, 0), np.float32)
    return np.stack([vectors[i] for i in range(len(encoded))])


@dataclass
class Embedder:
    """A model with its vocabulary, and how its folder asks for texts to be turned into vectors."""

    model: Any
    tokenizer: Any
    config: EmbeddingConfig

    def encode(self, texts: Sequence[str], *, batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
        """See ``embed``."""
        return embed(self.model, self.tokenizer, texts, self.config, batch_tokens=batch_tokens)


def load_embedder(name: str | Path) -> Embedder:
    """Load a sentence-transformers folder, any other model's (then the mean is taken), or one from the hub.

    ValueError (CheckpointError) for what cannot be read or is not supported.
    """
    path = locate(name)
    config = EmbeddingConfig.from_folder(path) if path.is_dir() else EmbeddingConfig()
    return Embedder(load(path, task="base"), load_tokenizer(path), config)


def pool(x: np.ndarray, lengths: Sequence[int], modes: Sequence[str] = ("mean",)) -> np.ndarray:
    """Return one vector of each packed sequence: x (N, C) -> (sequences, C for each mode)."""
    n = np.array(lengths)[:, None]
    ends = np.cumsum(np.array(lengths, np.int64))
    starts = ends - np.array(lengths, np.int64)
    parts = []
    for mode in modes:
        if mode == "cls":
            parts.append(x[starts])
        elif mode == "lasttoken":
            parts.append(x[ends - 1])
        elif mode == "max":
            parts.append(np.maximum.reduceat(x, starts))
        elif mode == "weightedmean":
            i = np.concatenate([np.arange(1, m + 1) for m in lengths]).astype(x.dtype)[:, None]
            parts.append(np.add.reduceat(i * x, starts) / np.add.reduceat(i, starts))
        else:
            weight = n if mode == "mean" else np.sqrt(n)
            parts.append(np.add.reduceat(x, starts) / weight.astype(x.dtype))
    return np.concatenate(parts, axis=1)


def _finished(x: np.ndarray, config: EmbeddingConfig) -> np.ndarray:
    for layer in config.dense:
        x = layer(x)
    if config.normalize:
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return x.astype(np.float32)


def _batches(order: list[int], encoded: list[np.ndarray], most: int) -> Iterator[list[int]]:
    """Yield consecutive parts of ``order`` with about ``most`` tokens, one text at least."""
    batch: list[int] = []
    total = 0
    for i in order:
        if batch and total + len(encoded[i]) > most:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += len(encoded[i])
    if batch:
        yield batch


def _tokens(tokenizer: Any, texts: list[str], config: EmbeddingConfig, base: Any) -> list[np.ndarray]:
    positions = getattr(base.config, "max_position_embeddings", None)
    limits = [n for n in (config.max_length, tokenizer.max_length, positions) if n is not None]
    if config.max_length is not None:
        limits = [n for n in (config.max_length, positions) if n is not None]
    limit = min(limits, default=None)
    encoded = tokenizer.encode_batch(texts)
    for i, ids in enumerate(encoded):
        if not len(ids):
            raise ValueError(f"embed: a text must have at least one token; text {i} has none: {texts[i]!r:.80}.")
        if limit is not None and len(ids) > limit:
            encoded[i] = _cut(ids, tokenizer.encode(texts[i], add_special_tokens=False), limit)
    return encoded


def _cut(ids: np.ndarray, content: np.ndarray, limit: int) -> np.ndarray:
    """Drop the end of the content, not the special tokens around it."""
    around = len(ids) - len(content)
    before = next((n for n in range(around + 1) if (ids[n : n + len(content)] == content).all()), 0)
    after = around - before
    return np.concatenate([ids[: max(limit - after, 0)], ids[len(ids) - after :]])[:limit]


def _transformer(folder: Path) -> dict[str, Any]:
    """Read sentence_bert_config.json, or the like for another family."""
    for file in sorted(folder.glob("sentence_*_config.json")):
        options = _json(file, dict)
        if options.get("transformer_task", "feature-extraction") != "feature-extraction":
            raise ValueError(
                f"{file}: transformer_task must be 'feature-extraction'; got {options['transformer_task']!r}."
            )
        return {"max_length": options.get("max_seq_length"), "lower": bool(options.get("do_lower_case"))}
    return {}


def _pooling(file: Path) -> tuple[list[str], bool]:
    """Return the modes, and whether the tokens of a prompt count."""
    options = _json(file, dict)
    named = options.pop("pooling_mode", None)
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    else:
        modes = [mode for mode, option in POOLING.items() if options.get(option)]
    if not modes or not set(modes) <= POOLING.keys():
        raise ValueError(f"{file}: pooling must be one or more of {', '.join(POOLING)}; got {options}.")
    known = {*POOLING.values(), "word_embedding_dimension", "embedding_dimension", "include_prompt"}
    _refuse_others(file, options, known)
    return modes, options.get("include_prompt") is not False


def _refuse_others(file: Path, options: dict[str, Any], known: Collection[str]) -> None:
    """Refuse an option that is set and not known."""
    for name, value in options.items():
        if name not in known and value:
            raise ValueError(f"{file}: {name} is not supported; got {value!r:.80}.")


def _dense(folder: Path) -> Dense:
    from .checkpoint import open_weights

    file = folder / "config.json"
    options = _json(file, dict)
    _refuse_others(file, options, ("in_features", "out_features", "bias", "activation_function"))
    activation = str(options.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ValueError(f"{file}: activation_function must be one of {', '.join(ACTIVATIONS)}; got {activation!r}.")
    weights = open_weights(folder)
    unread = sorted(set(weights) - {"linear.weight", "linear.bias"})
    if "linear.weight" not in weights or unread:
        raise ValueError(f"{folder}: a dense layer must hold linear.weight and linear.bias; got {list(weights)}.")
    bias = weights["linear.bias"].read(np.float32) if "linear.bias" in weights else None
    return Dense(weight=weights["linear.weight"].read(np.float32), bias=bias, activation=activation)


def _json(file: Path, kind: type) -> Any:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: it must be there to be read; got: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: it must be JSON; got: {error}.") from None
    if not isinstance(found, kind):
        raise ValueError(f"{file}: it must be a JSON {'list' if kind is list else 'object'}; got {found!r:.80}.")
    return found
