"""Text in files to batches of token ids: corpora, token files, windows, and the bigram model to compare with.

A vocabulary is whatever has ``encode_batch(texts, add_special_tokens)``, ``vocab_size``, ``eos_id``, ``fingerprint``
and ``cuts_at_spaces``: see ``minilm.text.Tokenizer``.
"""

from .bigram import Bigram
from .corpus import Corpus, Document, documents
from .errors import DataError
from .store import TokenFile, open_tokens, tokenize
from .windows import Windows, consecutive_windows, fixed_windows, split

__all__ = [
    "Bigram",
    "Corpus",
    "DataError",
    "Document",
    "TokenFile",
    "Windows",
    "consecutive_windows",
    "documents",
    "fixed_windows",
    "open_tokens",
    "split",
    "tokenize",
]
