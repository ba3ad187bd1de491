"""The vocabulary inside a GGUF file, from the file's metadata.

``tokenizer.ggml.model`` is "gpt2" (byte-level BPE; ``tokenizer.ggml.pre`` names the family's way to cut words) or
"llama" (SentencePiece's BPE).  What files that do not say add at the ends is as in llama.cpp.

Source: github.com/ggml-org/ggml/blob/master/docs/gguf.md; llama.cpp's src/llama-vocab.cpp.
"""

import numpy as np

from .byte_level import WORDS, byte_level_bpe, frame
from .files import library_reads
from .sentencepiece import BYTE, BYTE_PIECE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, scored_bpe
from .special import Settings

IDS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator", "cls": "cls", "mask": "mask"}
LLAMA_IDS = {"bos": 1, "eos": 2, "unk": 0}  # where a SentencePiece vocabulary does not say
PREFIX = "tokenizer.ggml."


def read_gguf(metadata):
    """Return the ``tokenizers.Tokenizer`` and the ``Settings`` of a GGUF file's metadata, a mapping of plain values.

    Wrong types, ids outside the vocabulary, an unknown model or pre-tokenizer are a ValueError that names the key.
    """
    model = metadata.get(PREFIX + "model")
    if model not in ("gpt2", "llama"):
        raise ValueError(
            f"{PREFIX}model must be gpt2 (byte-level BPE) or llama (SentencePiece BPE); got {model!r:.80}; "
            "take the vocabulary from the folder that the file was made of"
        )
    tokens = _array(metadata, "tokens", str)
    kinds = _array(metadata, "token_type", int, len(tokens))
    roles = {} if model == "gpt2" else {r: i for r, i in LLAMA_IDS.items() if i < len(tokens)}
    roles |= {role: i for role, key in IDS.items() if (i := _id(metadata, f"{key}_token_id", len(tokens))) is not None}
    if kinds is None:
        kinds = [BYTE if model == "llama" and BYTE_PIECE.fullmatch(token) else NORMAL for token in tokens]
        for role, i in roles.items():
            kinds[i] = UNKNOWN if role == "unk" and model == "llama" else CONTROL
    with library_reads("the GGUF file's vocabulary", "one that the tokenizers library can build"):
        if model == "gpt2":
            library, bos = _byte_level(metadata, tokens, kinds)
        else:
            scores = _array(metadata, "scores", float, len(tokens))
            if scores is None:
                raise ValueError(f"{PREFIX}scores must be there for a SentencePiece vocabulary; got none")
            prefix = _flag(metadata, "add_space_prefix", True)
            library, bos = scored_bpe(tokens, scores, kinds, add_space_prefix=prefix), True
    special = {role: tokens[i] for role, i in roles.items()}
    add = {"bos": _flag(metadata, "add_bos_token", bos), "eos": _flag(metadata, "add_eos_token", False)}
    frame(library, *(special.get(role) if add[role] else None for role in ("bos", "eos")))
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"tokenizer.chat_template must be a string; got {type(template).__name__}")
    return library, Settings(special={"bos": None, "eos": None} | special, chat_template=template)


def _byte_level(metadata, tokens, kinds):
    from tokenizers import AddedToken

    pre = metadata.get(PREFIX + "pre", "default")
    if not isinstance(pre, str) or pre not in WORDS:
        raise ValueError(f"{PREFIX}pre must be one of {', '.join(WORDS)}; got {pre!r:.80}")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise ValueError(f"{PREFIX}tokens must hold each token once; got {twice!r:.80} twice")
    merges = [tuple(merge.split(" ")) for merge in _array(metadata, "merges", str)]
    wrong = next((i for i, m in enumerate(merges) if len(m) != 2 or not {*m, "".join(m)} <= vocabulary.keys()), None)
    if wrong is not None:
        raise ValueError(f"{PREFIX}merges must be two tokens that make a third; got {merges[wrong]!r:.80} at {wrong}")
    library = byte_level_bpe(vocabulary, merges, WORDS[pre])
    added = [
        AddedToken(token, special=kind != USER_DEFINED, normalized=False)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED) and token
    ]
    library.add_tokens(added)
    return library, WORDS[pre].bos


def _array(metadata, key, kind, length=None):
    """Return a list of ``kind``; None where an array whose ``length`` is given by the tokens is absent."""
    values = metadata.get(PREFIX + key)
    if values is None and length is not None:
        return None
    values = values.tolist() if isinstance(values, np.ndarray) else values
    allowed = (int, float) if kind is float else kind
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, allowed) and v == v for v in values):
        raise ValueError(f"{PREFIX}{key} must be an array of {kind.__name__}; got {type(values).__name__}")
    if length is not None and len(values) != length:
        raise ValueError(f"{PREFIX}{key} must have one entry for each of the {length} tokens; got {len(values)}")
    return list(values)


def _id(metadata, key, size):
    value = metadata.get(PREFIX + key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < size:
        raise ValueError(f"{PREFIX}{key} must be the id of one of the {size} tokens; got {value!r:.80}")
    return int(value)


def _flag(metadata, key, default):
    value = metadata.get(PREFIX + key, default)
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{PREFIX}{key} must be true or false; got {value!r:.80}")
    return bool(value)
