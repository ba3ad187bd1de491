"""One file per architecture, named by its ``model_type``, each to be read from top to bottom."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .config import Config
from .model import Model

MODEL_TYPES = (
    *("bert", "roberta", "distilbert"),
    *("gpt2", "opt", "bloom", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"),
    *("t5", "bart", "marian"),
)


RENAMED = {"T5WithLMHeadModel": "T5ForConditionalGeneration"}  # architectures as older files name them


def tasks(model_type: str) -> dict[str, type[Model]]:
    """Return {task: class} of a family: "base", "causal-lm", "masked-lm", "sequence-classification", ...

    ValueError for a family that is not here.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type must be one of {', '.join(MODEL_TYPES)}; got {model_type!r}.")
    return import_module(f".{model_type}", __package__).TASKS


def model_class(config: Mapping[str, Any], task: str | None = None) -> type[Model]:
    """Return the class for a config.json: the one for ``task``, or else the one that ``architectures`` names.

    ValueError for a family, a task or an architecture that is not here.
    """
    found = tasks(config.get("model_type", ""))
    if task is not None:
        if task not in found:
            raise ValueError(f"task of a {config['model_type']} must be one of {', '.join(found)}; got {task!r}.")
        return found[task]
    named = config.get("architectures") or ["base"]
    by_name = {"base": found["base"], **{cls.__name__: cls for cls in found.values()}}
    name = RENAMED.get(named[0], named[0]) if isinstance(named, list) and isinstance(named[0], str) else ""
    if name not in by_name:
        raise ValueError(
            f"architectures must name one of {', '.join(cls.__name__ for cls in found.values())}; got {named!r}. "
            f"Choose with task=, one of {', '.join(found)}."
        )
    return by_name[name]


__all__ = ["MODEL_TYPES", "Config", "Model", "model_class", "tasks"]
