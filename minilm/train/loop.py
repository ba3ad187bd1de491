"""The training loop.

Which weights end in ``model.safetensors``: the last ones, or, with ``patience``, those of the best evaluation.

A run depends on its configuration alone.  The streams of random numbers are default_rng([seed, k]): k = 0 the order of
documents, 1 the training windows, 2 the evaluation windows, 3 the first weights and then the dropout.  Between two
steps a run is: weights, moments, where these streams stand, the best evaluation so far, and the size of the log.  That
is what a checkpoint holds, so a run that was killed goes on as if nothing had happened.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from .._kernels import registry
from .._kernels.process import tune_process
from .._kernels.registry import use_backend
from ..checkpoint import CheckpointError, newest, save, save_model, steps
from ..config import TrainConfig
from ..data import Windows, fixed_windows
from ..models.gpt2 import GPT2LMHeadModel
from ..optim import AdamW, clip_factor, global_norm, schedules
from ..tasks import causal_lm
from . import curves, folder
from .log import Log
from .report import Reporter
from .stopping import Diverged, Interrupted, Signals


@dataclass(frozen=True)
class Result:
    """What a finished run reports: losses in nats per token on the same validation tokens, and its speed."""

    folder: Path
    steps: int
    validation_loss: float
    bigram_loss: float
    seconds: float
    tokens_per_second: float
    stopped_early: bool
    drawn: bool


@dataclass
class _Best:
    """Early stopping: the best evaluation, the evaluations since, and the weights it was made with."""

    loss: float = math.inf
    step: int = 0
    since: int = 0
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def run(
    config: TrainConfig, *, resume: bool = False, overwrite: bool = False, reporter: Reporter | None = None
) -> Result:
    """Train as ``config`` says, in its run folder.

    ``resume`` goes on from the newest checkpoint, or from the start where there is none yet; ``overwrite`` replaces the
    run in the folder, once the new data has been read.

    ConfigError: a folder that is in use, a resumed run with other numbers.  DataError: data that cannot be used.
    CheckpointError: a damaged checkpoint, a full disk.  Diverged: a loss that is not finite.  BackendUnavailable.
    Interrupted: SIGINT or SIGTERM, after the step was finished and saved.
    """
    reporter = reporter or Reporter()
    folder.claim(config, resume, overwrite)
    with use_backend(config.backend or registry.backend()), _threads(config.threads):
        if registry.backend() != "auto":
            for op in registry.OPS + registry.UPDATES:  # before any work is done
                registry.load(op, registry.backend())
        tune_process()
        began = time.perf_counter()
        material = folder.prepare(config, resume, reporter.note)
        folder.sweep(config.folder)
        return _Run(config, material, reporter, resume, began).train()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    if count is None:
        yield
        return
    from .._kernels import threads

    before = threads.get_num_threads()
    threads.set_num_threads(count)
    try:
        yield
    finally:
        threads.set_num_threads(before)


class _Run:
    def __init__(self, config: TrainConfig, material: folder.Material, reporter: Reporter, resume: bool, began: float):
        self.config, self.material, self.reporter = config, material, reporter
        self.folder, self.checkpoints = config.folder, config.folder / "checkpoints"
        tokenizer = material.tokenizer
        for tokens in (material.train, material.validation):
            causal_lm.check_ids(tokens, tokenizer.vocab_size)
        rng = np.random.default_rng([config.seed, 3])
        self.model = causal_lm.build(config.model, tokenizer.vocab_size, config.block_size, tokenizer.eos_id, rng)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.model, config)
        self.rate = _schedule(config)
        self.windows = Windows(material.train, config.block_size, config.batch_size, config.seed)
        self.best = _Best()
        self.step, self.log_size = 0, 0
        self.seconds, self.training = 0.0, 0.0  # all of the run, and its steps alone
        self.saved: int | None = None
        self.clock = began
        if resume:
            self._restore()

    def train(self) -> Result:
        """Run the steps that are left, then evaluate."""
        config, shape = self.config, self.model.config
        self.reporter.note(
            f"model: {self.model.num_parameters():,} parameters, vocabulary of {shape.vocab_size:,}; "
            f"{len(self.material.train):,} tokens for training, {len(self.material.validation):,} for validation"
        )
        log = Log(self.folder / "log.jsonl", self.log_size)
        try:
            with Signals() as signals, self.reporter.start(self.step, config.steps), np.errstate(all="ignore"):
                while self.step < config.steps and not self._out_of_patience() and signals.received is None:
                    self._one_step(log)
                    if self.step % config.checkpoint_every == 0:
                        self._save(log)
                if self.saved != self.step:
                    self._save(log)
        finally:
            log.close()
        if signals.received is not None:
            curves.draw(log.path, self.folder / "loss.png")
            raise Interrupted(signals.received, self.step)
        return self._finish(log)

    def _one_step(self, log: Log) -> None:
        """Update the weights once; evaluate and log where it is time to."""
        config, step = self.config, self.step + 1
        began = time.perf_counter()
        lr = self.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        loss = causal_lm.accumulate(self.model, next(self.windows), config.accumulate)
        norm = global_norm(self.parameters)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._diverged(step, loss, norm)
        self.optimizer.step(grad_scale=clip_factor(norm, config.grad_clip) if config.grad_clip else 1.0)
        taken = time.perf_counter() - began
        self.step, self.training = step, self.training + taken
        speed = config.batch_size * config.block_size / taken
        validation = None
        if step % config.eval_every == 0 or step == config.steps:
            validation = self._evaluate()
        if step % config.log_every == 0 or validation is not None:
            log.write(
                step=step, loss=loss, val_loss=validation, lr=lr, grad_norm=norm, tokens_per_second=round(speed, 1)
            )
        self.reporter.step(step, loss, speed, validation)

    def _evaluate(self) -> float:
        config, best = self.config, self.best
        rows = max(1, config.batch_size // config.accumulate)
        batches = fixed_windows(
            self.material.validation, config.block_size, rows, config.eval_batches * config.accumulate, config.seed
        )
        validation = causal_lm.evaluate(self.model, batches)
        if validation < best.loss:
            best.loss, best.step, best.since = validation, self.step, 0
            if config.patience:
                best.weights = {name: array.copy() for name, array in self.model.state_dict().items()}
        else:
            best.since += 1
        return validation

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.best.since

    def _diverged(self, step: int, loss: float, norm: float) -> NoReturn:
        kept = steps(self.checkpoints)
        good = f"the last good checkpoint is step {kept[-1]} in {self.checkpoints}" if kept else "nothing is saved yet"
        raise Diverged(
            f"step {step}: the loss and the norm of its gradients must be finite; got {loss} and {norm}; {good}; "
            f"begin anew with a lower --lr (it was {self.config.lr:g}), a longer --warmup, or --grad-clip 1"
        )

    # ---- saving, and going on from what was saved

    def _save(self, log: Log) -> None:
        log.sync()
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        best = self.best
        optimizer = self.optimizer.state_dict(copy=False)
        arrays = {
            "model": self.model.state_dict(),
            "optimizer": {name: value for name, value in optimizer.items() if isinstance(value, np.ndarray)},
        }
        if best.weights and best.step != self.step:
            arrays["best"] = best.weights
        state = {
            "data": self.material.key,
            "optimizer": {name: value for name, value in optimizer.items() if not isinstance(value, np.ndarray)},
            "windows": self.windows.state,
            "dropout": self.model.rng.bit_generator.state,
            "best": {"loss": best.loss, "step": best.step, "since": best.since, "kept": bool(best.weights)},
            "log": log.size,
            "seconds": self.seconds,
            "training": self.training,
        }
        save(self.checkpoints, self.step, arrays, state, self.config.keep)
        config = {"architectures": [type(self.model).__name__], **self.model.config.to_dict()}
        save_model(self.folder, config, best.weights or arrays["model"])
        self.saved = self.step

    def _restore(self) -> None:
        """Take over the newest checkpoint, if there is one."""
        if (found := newest(self.checkpoints)) is None:
            return
        state = found.state
        if state["data"] != self.material.key:
            raise CheckpointError(
                "a resumed run must have the data that it began with; got other files, or other times of change; "
                "put them back, or begin anew with --overwrite"
            )
        self.model.load_state_dict(found.arrays["model"])
        self.optimizer.load_state_dict(found.arrays["optimizer"] | state["optimizer"])
        self.windows.state = state["windows"]
        self.model.rng.bit_generator.state = state["dropout"]
        best = state["best"]
        if best["kept"] or not self.config.patience:  # without its weights the best evaluation cannot be gone back to
            kept = best["kept"] and self.config.patience
            weights = found.arrays.get("best", found.arrays["model"]) if kept else {}
            self.best = _Best(best["loss"], best["step"], best["since"], weights)
        self.step, self.saved, self.log_size = found.step, found.step, state["log"]
        self.seconds, self.training = state["seconds"], state["training"]

    def _finish(self, log: Log) -> Result:
        config, material = self.config, self.material
        if self.best.weights:
            self.model.load_state_dict(self.best.weights)
        losses = causal_lm.final_losses(
            self.model, material.train, material.validation, config.block_size, config.final_tokens
        )
        drawn = curves.draw(log.path, self.folder / "loss.png", losses[1])
        return Result(
            self.folder,
            self.step,
            *losses,
            self.seconds + time.perf_counter() - self.clock,
            self.step * config.batch_size * config.block_size / max(self.training, 1e-9),
            self.step < config.steps,
            drawn,
        )


def _optimizer(model: GPT2LMHeadModel, config: TrainConfig) -> AdamW:
    """Return AdamW that decays what has two axes or more: matrices and tables, not biases and norms."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [(name, p) for name, p in named if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [(name, p) for name, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)


def _schedule(config: TrainConfig) -> schedules.Schedule:
    last = config.decay_steps or config.steps
    warmup = min(config.warmup, last)
    if config.schedule == "constant":
        return schedules.constant(config.lr, warmup=warmup)
    if config.schedule == "inverse_sqrt":
        return schedules.inverse_sqrt(config.lr, warmup=warmup)
    decay = schedules.linear if config.schedule == "linear" else schedules.cosine
    return decay(config.lr, steps=last, warmup=warmup, min_lr=config.min_lr)
