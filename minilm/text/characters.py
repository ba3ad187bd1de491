"""One token per Unicode character, as a ``tokenizer.json`` and as one NumPy look-up.

The file form is a ``WordLevel`` model behind a ``Split`` at every character, newlines included (``.`` would keep lines
together), and a ``Fuse`` decoder, since the default one puts a space between tokens.  The look-up gives the same ids;
``tokenizers`` reads 2 MB of characters a second, the look-up about fifty times as much.
"""

import json

import numpy as np

ANY_CHARACTER = r"[\s\S]"


def character_tokenizer(alphabet):
    """Return the ``tokenizers.Tokenizer`` whose ids are the places of the characters in the string ``alphabet``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({character: i for i, character in enumerate(alphabet)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(ANY_CHARACTER), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


class CharacterTable:
    """Ids of characters by their code points: ``ids[code]``, or -1 where the vocabulary lacks the character."""

    def __init__(self, vocabulary):
        codes = np.array([ord(character) for character in vocabulary], dtype=np.int64)
        self.size = len(codes)
        self.ids = np.full(codes.max(initial=0) + 2, -1, dtype=np.int64)  # the last row stands for all codes above
        self.ids[codes] = np.fromiter(vocabulary.values(), dtype=np.int64, count=self.size)

    @classmethod
    def of(cls, tokenizer):
        """Return the table of a ``tokenizers.Tokenizer``, or None where a look-up would not give the same ids."""
        if type(tokenizer.model).__name__ != "WordLevel":
            return None  # without writing out a vocabulary of hundreds of thousands
        settings = json.loads(tokenizer.to_str())
        model, split = settings["model"], settings["pre_tokenizer"]
        characters = (
            all(len(token) == 1 for token in model["vocab"])
            and split is not None
            and split.get("pattern") == {"Regex": ANY_CHARACTER}
            and split["behavior"] == "Isolated"
            and not split["invert"]
            and not (settings["added_tokens"] or settings["normalizer"] or settings["post_processor"])
            and model["unk_token"] not in model["vocab"]
        )
        return cls(model["vocab"]) if characters else None

    def encode(self, text):
        """Return int64 ids (T,).  A character outside the vocabulary is a ValueError that names it and its position."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")  # (T,)
        ids = self.ids[np.minimum(codes, len(self.ids) - 1)]
        if ids.size and ids.min() < 0:
            at = int(np.argmax(ids < 0))
            raise ValueError(
                f"text: every character must be one of the {self.size} of the vocabulary; "
                f"got {text[at]!r} (U+{ord(text[at]):04X}) at position {at}; "
                "leave it out, or train a vocabulary on text that has it"
            )
        return ids
