"""A run that is killed and resumed ends with the bytes of one that was not."""

import signal
import time

import numpy as np
import pytest

from minilm.checkpoint import load, steps

from .small import log_of, options, python, start

FILES = ("model.safetensors", "config.json", "tokenizer.json")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = python("-m", "minilm", "train", *options(folder, out=str(folder / "run")))
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def folder(tmp_path, uninterrupted):
    """A folder with the very data file of the uninterrupted run, for a run of its own."""
    (tmp_path / "text.txt").symlink_to(uninterrupted.parent / "text.txt")
    return tmp_path


def same(run, other):
    """Check that two runs ended alike: every byte of the model and of the state, and the log but for the timings."""
    assert log_of(run) == log_of(other)
    for name in FILES:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    kept = steps(other / "checkpoints")
    assert steps(run / "checkpoints") == kept
    for step in kept:
        for name in ("model.safetensors", "optimizer.safetensors"):
            path = f"checkpoints/step-{step:08d}/{name}"
            assert (run / path).read_bytes() == (other / path).read_bytes(), path
        one, two = (load(place / "checkpoints", step).state for place in (run, other))
        timings = ("seconds", "training", "log")  # the log has timings of various lengths in it
        assert {k: v for k, v in one.items() if k not in timings} == {k: v for k, v in two.items() if k not in timings}


def kill_at_random(folder, moments, seed):
    """Start a run, kill it ``moments`` times at random moments, each time resuming it; then let it end."""
    rng = np.random.default_rng(seed)
    run, killed = folder / "run", 0
    while killed < moments:
        resume = ["--resume"] if (run / "train.toml").exists() else []
        process = start("train", *options(folder), *resume)
        log = run / "log.jsonl"
        while not log.exists() and process.poll() is None:
            time.sleep(0.001)
        before = log.read_bytes().count(b"\n")
        target = before + rng.integers(1, 12)  # about this many lines later, wherever the run then is
        while process.poll() is None and log.read_bytes().count(b"\n") < target:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    done = python("-m", "minilm", "train", *options(folder), "--resume")
    assert done.returncode == 0, done.stderr
    return killed


def test_killed_at_random_moments(folder, uninterrupted):
    assert kill_at_random(folder, 3, seed=0) >= 2
    same(folder / "run", uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
def test_killed_at_many_random_moments(folder, uninterrupted, seed):
    kill_at_random(folder, 3, seed)
    same(folder / "run", uninterrupted)


# A run that kills itself when the disk is asked for something for the Nth time: every state that a file can be left in.
DYING = """
import os, signal, sys
from minilm.cli import main

left = int(sys.argv[1])

def counted(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
sys.exit(main(sys.argv[2:]))
"""


def die_at(call, folder, uninterrupted):
    died = python("-c", DYING, str(call), "train", *options(folder))
    if died.returncode == 0:
        return False
    assert died.returncode == -signal.SIGKILL, died.stderr
    again = ["--resume"] if (folder / "run/train.toml").exists() else []
    done = python("-m", "minilm", "train", *options(folder), *again)
    assert done.returncode == 0, done.stderr
    same(folder / "run", uninterrupted)
    names = [path.name for path in (folder / "run").rglob("*")]
    assert not [name for name in names if name.endswith(".partial")]
    return True


@pytest.mark.parametrize("call", [25, 48])
def test_killed_while_a_checkpoint_is_written(folder, uninterrupted, call):
    assert die_at(call, folder, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("call", [*range(1, 70), 90, 110, 130])
def test_killed_at_every_call_to_the_disk(folder, uninterrupted, call):
    die_at(call, folder, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_says_how_to_go_on(folder, uninterrupted, number):
    process = start("train", *options(folder))
    log = folder / "run/log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        time.sleep(0.0005)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number, errors
    run = folder / "run"
    last = errors.splitlines()[-1]
    assert last.startswith(f"stopped by {number.name} after step ")
    assert last.endswith(f"go on with: minilm train --resume --out {run}")
    step = steps(run / "checkpoints")[-1]
    assert f"after step {step} of 40" in last
    assert len(log_of(run)) == step
    done = python("-m", "minilm", "train", "--resume", "--out", str(run))
    assert done.returncode == 0, done.stderr
    assert (run / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()
    assert log_of(run) == log_of(uninterrupted)
