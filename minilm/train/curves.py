"""A picture of the loss over the steps."""

from pathlib import Path

import numpy as np

from .log import read_log

SMOOTH = 50  # about so many points in the smoothed curve's window, at most a twentieth of the run


def draw(log: Path, path: Path, bigram: float | None = None) -> bool:
    """Draw the training and validation loss of ``log`` as a PNG at ``path``; False where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    lines = read_log(log)
    if not lines:
        return True
    steps = np.array([line["step"] for line in lines])
    losses = np.array([line["loss"] for line in lines])
    evaluated = [(line["step"], line["val_loss"]) for line in lines if "val_loss" in line]

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    width = max(1, min(SMOOTH, len(losses) // 20))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(steps[width // 2 :][: len(smooth)], smooth, color="tab:blue", linewidth=1.5, label="training")
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), "o-", color="tab:orange", markersize=4, label="validation")
    if bigram is not None:
        axes.axhline(bigram, color="gray", linestyle="--", linewidth=1, label="bigram model, validation")
    axes.set(xlabel="step", ylabel="loss (nats per token)", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    beside = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(beside, format="png", metadata={"Software": None})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return True
