"""The vocabulary of a model: text to ids and ids to text, read from and written to ``tokenizer.json``."""

import hashlib
import json
from pathlib import Path

import numpy as np

from .characters import CharacterTable
from .stream import StreamDecoder

END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")  # the field's names, first found wins
KINDS = {"BPE": "bpe", "WordPiece": "wordpiece", "WordLevel": "word", "Unigram": "unigram"}


class Tokenizer:
    """A vocabulary and its rules, around a ``tokenizers.Tokenizer``.  Ids are its ids, one for one.

    Characters are looked up with NumPy, which gives the same ids.  Truncation and padding that a file asks for are
    dropped, as ``transformers`` drops them: they belong to a call, not to a vocabulary.

    >>> from minilm.text import train_tokenizer
    >>> tokenizer = train_tokenizer("character", ["hello"])
    >>> tokenizer.encode("hole")
    array([1, 3, 2, 0])
    >>> tokenizer.decode([1, 0])
    'he'
    """

    def __init__(self, tokenizer, eos_token=None):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._characters = CharacterTable.of(tokenizer)
        settings = json.loads(tokenizer.to_str())
        vocabulary = tokenizer.get_vocab()
        self.kind = "character" if self._characters else KINDS[settings["model"]["type"]]
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)  # ids may have holes; a model needs a row for each
        self.special_tokens = {t["content"]: t["id"] for t in settings["added_tokens"] if t["special"]}
        if eos_token is not None and eos_token not in vocabulary:
            raise ValueError(f"eos_token must be in the vocabulary, got {eos_token!r}; have {[*self.special_tokens]}")
        self.eos_token = eos_token or next((t for t in END_OF_TEXT if t in self.special_tokens), None)
        self.eos_id = vocabulary.get(self.eos_token)
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.cuts_at_spaces = self._cuts_at_spaces(settings)

    @classmethod
    def load(cls, path):
        """Read a ``tokenizer.json`` or the folder that holds one.

        The end-of-text token is the one that ``tokenizer_config.json`` beside it names, or else the first of
        ``END_OF_TEXT`` that is a special token.  A missing or broken file is a ValueError.
        """
        from tokenizers import Tokenizer as Library

        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.is_file():
            raise ValueError(
                f"a vocabulary must be a tokenizer.json or a folder with one; got {str(path)!r}, not there"
            )
        try:
            tokenizer = Library.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(
                f"{file} must be a tokenizer.json as the tokenizers library writes it; got: {error}"
            ) from None
        return cls(tokenizer, eos_token=_configured_eos(file.with_name("tokenizer_config.json")))

    def save(self, path):
        """Write ``path`` if it ends in .json; or else ``tokenizer.json`` and ``tokenizer_config.json`` in that folder.

        The second file lets ``transformers.AutoTokenizer`` take the vocabulary as it is: without it, a GPT-2 config
        would make it add a ``<|endoftext|>`` to a vocabulary of characters.
        """
        path = Path(path)
        if path.suffix == ".json":
            _write(path, self._tokenizer.to_str(pretty=True))
            return
        path.mkdir(parents=True, exist_ok=True)
        _write(path / "tokenizer.json", self._tokenizer.to_str(pretty=True))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        names = {"[UNK]": "unk_token", "[CLS]": "cls_token", "[SEP]": "sep_token", "[PAD]": "pad_token"}
        names |= {"[MASK]": "mask_token"}
        config |= {names[token]: token for token in self.special_tokens if token in names}
        if self.eos_token:
            config["eos_token"] = self.eos_token
        _write(path / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")

    def encode(self, text, add_special_tokens=True):
        """Return the int64 ids (T,) of one string; ``add_special_tokens`` is whether BERT's [CLS] and [SEP] are added.

        A string with a lone surrogate, or with a character that a vocabulary of characters lacks, is a ValueError.
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(self, texts, add_special_tokens=True):
        """Return the int64 ids (T,) of each string.  The work is shared between threads, in a fixed order."""
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"text must be a str, got {type(text).__name__}")
        if self._characters:
            return [self._characters.encode(text) for text in texts]
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        except TypeError:
            for text in texts:
                _check_surrogates(text)
            raise
        except Exception as error:  # the library raises bare Exception, e.g. where a WordLevel has no unknown token
            raise ValueError(f"text must be of this vocabulary; the tokenizers library says: {error}") from None
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids, skip_special_tokens=False):
        """Return the text of ids, a list or an array (T,).  An id outside the vocabulary is a ValueError."""
        ids = np.asarray(ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise TypeError(f"token ids must be integers, got {ids.dtype}")
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            bad = ids[(ids < 0) | (ids >= self.vocab_size)].flat[0]
            raise ValueError(
                f"token ids must be in [0, {self.vocab_size}), got {bad}; is this the model's own vocabulary?"
            )
        return self._tokenizer.decode(ids.astype(np.int64).ravel().tolist(), skip_special_tokens=skip_special_tokens)

    def stream(self, skip_special_tokens=False):
        """Return a ``StreamDecoder``: ids in one by one, text out as soon as it is whole."""
        return StreamDecoder(self, skip_special_tokens)

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

    def _cuts_at_spaces(self, settings):
        """Whether text cut before a space that follows a letter or digit encodes to the same ids as the whole.

        True where every such place is the end of a word for the pre-tokenizer.  A vocabulary that puts a space before
        each text (Llama's and T5's) would put one before each piece.
        """
        if self._characters:
            return True
        first = settings["pre_tokenizer"] or {}
        steps = first.get("pretokenizers", [first])
        normal = (settings["normalizer"] or {}).get("type")
        if normal not in (None, "NFC", "NFKC", "Lowercase", "BertNormalizer"):
            return False
        known = {"BertPreTokenizer", "ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"}
        return (
            all(step.get("type") in known for step in steps)
            and not any(step.get("add_prefix_space") for step in steps)
            and any(step.get("use_regex") or step["type"] not in ("ByteLevel", "Digits") for step in steps)
        )


def _configured_eos(file):
    """Return the ``eos_token`` that a tokenizer_config.json names, or None."""
    if not file.is_file():
        return None
    try:
        token = json.loads(file.read_text(encoding="utf-8")).get("eos_token")
    except (ValueError, AttributeError):
        raise ValueError(f"{file} must be a JSON object; got something else; remove it to do without") from None
    return token.get("content") if isinstance(token, dict) else token


def _check_surrogates(text):
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be Unicode characters; got the lone surrogate {text[error.start]!r} at position {error.start}; "
            "read the file as UTF-8 without errors='surrogateescape'"
        ) from None


def _write(path, text):
    """Write beside and rename, so that a reader or a crash never meets half a file."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
