"""Text to token ids and back: vocabularies as they are published, or made from text; conversations as text.

The ``tokenizers`` library does the work, Jinja lays out conversations; both are imported on first use.
"""

from .stream import StreamDecoder
from .tokenizer import Tokenizer
from .train import train_tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "train_tokenizer"]
