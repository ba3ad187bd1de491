"""What models write: greedy, sampled or searched with beams, in batches, streams and conversations."""

from .chat import Chat
from .fill import Guess, fill_mask
from .options import GenerationConfig
from .writing import Piece, Result, generate, stream

__all__ = ["Chat", "GenerationConfig", "Guess", "Piece", "Result", "fill_mask", "generate", "stream"]
