"""A run of milliseconds a step, with what a resumed run could get wrong: dropout and accumulation."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import minilm
from minilm import config

ROOT = Path(minilm.__file__).parent.parent
WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "two",
    "birds",
    "fly",
    "over",
    "an",
    "old",
    "stone",
    "wall",
)
OPTIONS = {
    "tokenizer": "character",
    "steps": 40,
    "batch_size": 4,
    "accumulate": 2,
    "block_size": 8,
    "lr": 1e-3,
    "warmup": 5,
    "eval_every": 7,
    "eval_batches": 2,
    "checkpoint_every": 5,
    "backend": "numpy",
    "model.n-layer": 1,
    "model.n-head": 2,
    "model.n-embd": 16,
    "model.dropout": 0.2,
    "model.bias": True,
}


def write_text(path, words=800):
    """Write a text of words in an order that is always the same; return its path."""
    order = np.random.default_rng(0).integers(len(WORDS), size=words)
    path.write_text(" ".join(WORDS[i] for i in order) + "\n", encoding="utf-8")
    return path


def options(folder, **changed):
    """Return the arguments of a small run that trains on folder/text.txt into folder/run."""
    text = folder / "text.txt"
    if not text.exists():
        write_text(text)
    values = OPTIONS | {"data": str(text), "out": str(folder / "run")}
    values |= {name.replace("__", ".").replace("_", "-"): value for name, value in changed.items()}
    values = {name.replace("_", "-"): value for name, value in values.items()}
    return [
        f"--{name}={str(value).lower() if value is True else value}"
        for name, value in values.items()
        if value is not None
    ]


def small(folder, **changed):
    """Return the configuration of a small run."""
    return config.read(overrides=options(folder, **changed))


def python(*arguments, **kwargs):
    """Run Python with minilm in reach, in a process of its own; return it when it has ended."""
    return subprocess.run([sys.executable, *arguments], env=environment(), capture_output=True, text=True, **kwargs)


def start(*arguments):
    """Start the command minilm in a process of its own, and return it at once.

    It hears SIGINT, though we may have been started in the background of a shell, which ignores it.
    """
    command = [sys.executable, "-m", "minilm", *arguments]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


def environment():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def log_of(folder):
    """Return the lines of a log without the timings."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "tokens_per_second"} for line in lines]
