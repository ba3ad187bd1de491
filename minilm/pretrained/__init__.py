"""Models as people publish them: find, load, save, convert and describe them."""

from .converting import convert
from .describe import Description, inspect
from .loading import load
from .saving import save
from .source import load_tokenizer, locate

__all__ = ["Description", "convert", "inspect", "load", "load_tokenizer", "locate", "save"]
