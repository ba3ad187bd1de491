"""Text to token ids and back: character, byte-level BPE and WordPiece vocabularies, in the field's ``tokenizer.json``.

The ``tokenizers`` library does the work and is imported on first use.
"""

from .stream import StreamDecoder
from .tokenizer import Tokenizer
from .train import train_tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "train_tokenizer"]
