"""The vocabulary of a model: text to ids and back, read from published files and written to ``tokenizer.json``."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from .byte_level import frame
from .characters import CharacterTable
from .chat import render_chat
from .files import library_reads, rules, write_text
from .gguf import read_gguf
from .published import read_published
from .sentencepiece import read_llama2c
from .special import ROLES, Settings
from .stream import StreamDecoder

KINDS = {"BPE": "bpe", "WordPiece": "wordpiece", "WordLevel": "word", "Unigram": "unigram"}
NO_SETTINGS = Settings()
CLEANED = [(f" {mark}", mark) for mark in ".?!,"] + [(" ' ", "'")]  # as transformers cleans decoded text
CLEANED += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]


class Tokenizer:
    """A vocabulary and its rules, around a ``tokenizers.Tokenizer``.  Ids are its ids, one for one.

    ``bos_token``, ``eos_token``, ``unk_token``, ``sep_token``, ``pad_token``, ``cls_token`` and ``mask_token`` are its
    special tokens by their roles and ``bos_id`` ... ``mask_id`` their ids, None where it has none: as the files name
    them, or else the usual one (``special.USUAL``) among its special tokens.  ``special_tokens`` are all of them.
    ``max_length`` is how many tokens the model takes and ``chat_template`` the Jinja source of its conversations, both
    None where the files do not say.

    Characters are looked up with NumPy, which gives the same ids.  Truncation and padding that a file asks for are
    dropped, as ``transformers`` drops them: they belong to a call, not to a vocabulary.

    >>> from minilm.text import train_tokenizer
    >>> tokenizer = train_tokenizer("character", ["hello"])
    >>> tokenizer.encode("hole")
    array([1, 3, 2, 0])
    >>> tokenizer.decode([1, 0])
    'he'
    """

    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    sep_token: str | None
    pad_token: str | None
    cls_token: str | None
    mask_token: str | None
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    sep_id: int | None
    pad_id: int | None
    cls_id: int | None
    mask_id: int | None

    def __init__(self, tokenizer, settings=NO_SETTINGS):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._characters = CharacterTable.of(tokenizer)
        vocabulary = tokenizer.get_vocab()
        self.kind = "character" if self._characters else KINDS[type(tokenizer.model).__name__]
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)  # ids may have holes; a model needs a row for each
        added = sorted(tokenizer.get_added_tokens_decoder().items())
        self.special_tokens = {token.content: i for i, token in added if token.special}
        for role, token in settings.named(self.special_tokens).items():
            if token is not None and token not in vocabulary:
                raise ValueError(
                    f"{role}_token must be in the vocabulary, got {token!r}; have {[*self.special_tokens]}"
                )
            setattr(self, f"{role}_token", token)
            setattr(self, f"{role}_id", vocabulary.get(token))
        self.chat_template = settings.chat_template
        self.max_length = settings.max_length
        self._cleans = settings.clean_up and self.kind != "bpe"  # transformers: it would spoil the text of a BPE

    @cached_property
    def fingerprint(self):
        """The SHA-256 of all that makes the ids."""
        written = json.loads(self._tokenizer.to_str())
        return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()

    @classmethod
    def load(cls, path):
        """Read a folder as it was published, or one file of it.

        In a folder the first of these is read: tokenizer.json; vocab.json + merges.txt (GPT-2, RoBERTa, BART, OPT,
        Qwen2); vocab.txt (BERT, DistilBERT).  Beside it tokenizer_config.json, special_tokens_map.json,
        added_tokens.json and chat_template.jinja count, as for ``transformers.AutoTokenizer``, whose ids it gives; a
        token that they name and the vocabulary lacks is added behind it.  A missing or broken file, and a folder with
        only a SentencePiece model, is a ValueError that names it.
        """
        return cls(*read_published(path))

    @classmethod
    def from_gguf(cls, metadata):
        """Return the vocabulary inside a GGUF file, from its metadata: a mapping of plain values, lists or arrays.

        Models "gpt2" (byte-level BPE, of the families in ``byte_level.WORDS``) and "llama" (SentencePiece BPE).
        Anything else, or wrong, is a ValueError that names the key.
        """
        return cls(*read_gguf(metadata))

    @classmethod
    def from_llama2c(cls, source, vocab_size):
        """Return the vocabulary of llama2.c's tokenizer.bin, a path or its bytes; <s> is put before each text.

        ``vocab_size`` is that of the model's header: the file does not say.  A broken file is a ValueError.
        """
        library = read_llama2c(source, vocab_size)
        frame(library, bos="<s>")
        return cls(library)

    def save(self, path):
        """Write ``path`` if it ends in .json; or else ``tokenizer.json`` and ``tokenizer_config.json`` in that folder.

        The second file lets ``transformers.AutoTokenizer`` take the vocabulary as it is: without it, a GPT-2 config
        would make it add a ``<|endoftext|>`` to a vocabulary of characters.
        """
        path = Path(path)
        if path.suffix == ".json":
            write_text(path, self._tokenizer.to_str(pretty=True))
            return
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "tokenizer.json", self._tokenizer.to_str(pretty=True))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": self._cleans}
        config |= {f"{role}_token": None for role, token in NO_SETTINGS.named(self.special_tokens).items() if token}
        config |= {f"{role}_token": token for role, token in self._roles().items()}
        if self.max_length is not None:
            config["model_max_length"] = self.max_length
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_text(path / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    def _roles(self):
        tokens = {role: getattr(self, f"{role}_token") for role in ROLES}
        return {role: token for role, token in tokens.items() if token is not None}

    def encode(self, text, add_special_tokens=True):
        """Return the int64 ids (T,) of one string; ``add_special_tokens`` is whether BERT's [CLS] and [SEP] are added.

        A string with a lone surrogate, or with a character that a vocabulary of characters lacks, is a ValueError.
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(self, texts, add_special_tokens=True):
        """Return the int64 ids (T,) of each string.  The work is shared between threads, in a fixed order."""
        if self._characters:
            _check_texts(texts)
            return [self._characters.encode(text) for text in texts]
        encodings = self._encoded(self._tokenizer.encode_batch_fast, texts, texts, add_special_tokens)
        return [_array(encoding.ids) for encoding in encodings]

    def encode_pair(self, text, pair, add_special_tokens=True):
        """Return the int64 ids (T,) and type ids (T,) of two strings in one sequence: BERT's [CLS] a [SEP] b [SEP]."""
        encode = self._tokenizer.encode_batch_fast
        encoding = self._encoded(encode, [(text, pair)], [text, pair], add_special_tokens)[0]
        return _array(encoding.ids), _array(encoding.type_ids)

    def offsets(self, text, pair=None, add_special_tokens=True):
        """Return the ids (T,), the characters (T, 2) from start to end that each covers, and its part (T,), all int64.

        The part is 0 for ``text``, 1 for ``pair``, and -1 for a special token that was put around them, which covers
        no characters.
        """
        texts = [text] if pair is None else [text, pair]
        inputs = texts if pair is None else [(text, pair)]
        encoding = self._encoded(self._tokenizer.encode_batch, inputs, texts, add_special_tokens)[0]
        parts = [-1 if part is None else part for part in encoding.sequence_ids]
        return _array(encoding.ids), _array(encoding.offsets).reshape(-1, 2), _array(parts)

    def _encoded(self, encode, inputs, texts, add_special_tokens):
        _check_texts(texts)
        try:
            with library_reads("text", "of this vocabulary"):  # a WordLevel may have no unknown token
                return encode(inputs, add_special_tokens=add_special_tokens)
        except ValueError:
            for text in texts:
                _check_surrogates(text)
            raise

    def decode(self, ids, skip_special_tokens=False):
        """Return the text of ids, a list or an array (T,).  An id outside the vocabulary is a ValueError.

        Where the files ask for ``clean_up_tokenization_spaces``, the space before punctuation is dropped.
        """
        text = self.decode_raw(ids, skip_special_tokens)
        for spaced, tight in CLEANED if self._cleans else ():
            text = text.replace(spaced, tight)
        return text

    def decode_raw(self, ids, skip_special_tokens=False):
        """Return what ``decode`` does before it cleans up spaces: the text of tokens that arrive one by one."""
        ids = np.asarray(ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise TypeError(f"token ids must be integers, got {ids.dtype}")
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            bad = ids[(ids < 0) | (ids >= self.vocab_size)].flat[0]
            raise ValueError(
                f"token ids must be in [0, {self.vocab_size}), got {bad}; is this the model's own vocabulary?"
            )
        with library_reads("token ids", "of this vocabulary"):
            return self._tokenizer.decode(ids.ravel().tolist(), skip_special_tokens=skip_special_tokens)

    def stream(self, skip_special_tokens=False):
        """Return a ``StreamDecoder``: ids in one by one, text out as soon as it is whole."""
        return StreamDecoder(self, skip_special_tokens)

    def apply_chat_template(self, messages, add_generation_prompt=True, **variables):
        """Return a conversation as the text that the model was trained on.

        ``messages`` is a list of {"role": "user", "content": "..."}; ``add_generation_prompt`` asks for the beginning
        of the answer; ``variables`` go to the template as JSON, after the special tokens by their roles.  The text has
        its special tokens in it: encode it with ``add_special_tokens=False``.  A vocabulary without a template, one
        that fails, and messages of another form are a ValueError.
        """
        if self.chat_template is None:
            raise ValueError(
                "the vocabulary must have a chat template to lay out messages; this one has none; "
                "prompt the model with plain text, or set tokenizer.chat_template"
            )
        tokens = {f"{role}_token": token for role, token in self._roles().items()}
        return render_chat(self.chat_template, messages, add_generation_prompt, **(tokens | variables))

    def special_id(self, name):
        """Return the id of a special token by its role ("pad") or its spelling ("<|im_end|>"); ValueError if none."""
        token_id = getattr(self, f"{name}_id") if name in ROLES else self.special_tokens.get(name)
        if token_id is None:
            roles = ", ".join(f"{role} {token!r}" for role, token in self._roles().items())
            raise ValueError(
                f"a special token must be one of this vocabulary; got {name!r}; by role it has {roles or 'none'}; "
                f"in all {[*self.special_tokens][:50]}"
            )
        return token_id

    def token_to_id(self, token):
        """Return the id of a token as the vocabulary spells it, or None."""
        return self._tokenizer.token_to_id(token)

    def id_to_token(self, token_id):
        """Return the token of an id as the vocabulary spells it, or None."""
        return self._tokenizer.id_to_token(int(token_id)) if 0 <= token_id < self.vocab_size else None

    def __len__(self):
        return self.vocab_size

    def __repr__(self):
        return f"Tokenizer(kind={self.kind!r}, vocab_size={self.vocab_size}, eos_token={self.eos_token!r})"

    @cached_property
    def cuts_at_spaces(self):
        """Whether text cut before a space that follows a letter or digit encodes to the same ids as the whole.

        True where every such place is the end of a word for the pre-tokenizer.  A vocabulary that puts a space before
        each text (Llama's and T5's) would put one before each piece.
        """
        if self._characters:
            return True
        first = rules(self._tokenizer.pre_tokenizer)
        steps = first.get("pretokenizers", [first])
        if rules(self._tokenizer.normalizer).get("type") not in (None, "NFC", "NFKC", "Lowercase", "BertNormalizer"):
            return False
        if any(" " in token.content for token in self._tokenizer.get_added_tokens_decoder().values()):
            return False
        known = {"BertPreTokenizer", "ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"}
        return (
            all(step.get("type") in known for step in steps)
            and not any(step.get("add_prefix_space") for step in steps)
            and any(step.get("use_regex") or step["type"] not in ("ByteLevel", "Digits") for step in steps)
        )


def _array(values):
    return np.array(values, dtype=np.int64)


def _check_texts(texts):
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}")


def _check_surrogates(text):
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be Unicode characters; got the lone surrogate {text[error.start]!r} at position {error.start}; "
            "read the file as UTF-8 without errors='surrogateescape'"
        ) from None
