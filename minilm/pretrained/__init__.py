"""Models as people publish them: find, load, save, convert and describe them."""

from .load import load
from .save import save

__all__ = ["load", "save"]
