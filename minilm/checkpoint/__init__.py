"""Weights on disk: model folders as the field has them, and checkpoints from which training goes on bit for bit."""

from .files import CheckpointError
from .model_folder import load_model, save_model
from .opening import open_weights
from .steps import Checkpoint, clean, load, newest, save, steps
from .weights import Entry, Weights

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Entry",
    "Weights",
    "clean",
    "load",
    "load_model",
    "newest",
    "open_weights",
    "save",
    "save_model",
    "steps",
]
