"""Weights on disk: model folders as the field has them, and checkpoints from which training goes on bit for bit."""

from .files import CheckpointError
from .model_folder import load_model, save_model
from .steps import Checkpoint, clean, load, newest, save, steps

__all__ = ["Checkpoint", "CheckpointError", "clean", "load", "load_model", "newest", "save", "save_model", "steps"]
