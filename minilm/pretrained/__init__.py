"""Models as people publish them: find, load, save, convert and describe them."""

from .convert import convert
from .describe import Description, inspect
from .load import load
from .save import save
from .source import load_tokenizer, locate

__all__ = ["Description", "convert", "inspect", "load", "load_tokenizer", "locate", "save"]
