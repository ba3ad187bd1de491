"""Train a model as a configuration says, in a run folder that is a model folder.

config.json  model.safetensors  tokenizer.json   the model, readable by others; see ``loop`` for which weights
train.toml                                       the configuration
log.jsonl  loss.png                              what happened
tokens.bin                                       the data as token ids
checkpoints/step-XXXXXXXX/                       what --resume goes on from
"""

from .loop import Result, run
from .report import Reporter
from .stopping import Interrupted

__all__ = ["Interrupted", "Reporter", "Result", "run"]
