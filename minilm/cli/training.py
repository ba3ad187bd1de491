"""Commands that train, and that tell what training runs on."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ..config import TrainConfig, sources
from .talking import Writing

SAMPLE = 256  # tokens of the sample at the end of training


def add(app: App) -> None:
    app.command(train, config=sources)
    app.command(backends)


def train(
    settings: Annotated[TrainConfig, Parameter(name="*")] | None = None,
    *,
    config: Path | None = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a GPT on text, and write a sample.

    Options win over the TOML file, which wins over the preset.

    Parameters
    ----------
    config: Path
        A TOML file with any of the options here, for example steps = 500, and [model] n_layer = 4.
    resume: bool
        Go on with the run in the run folder, with its own configuration; it ends as if it had never stopped.
    overwrite: bool
        Replace the run in the run folder.
    """
    from ..lab.backends import missing
    from ..train import Interrupted, Reporter, run
    from ..train.report import clock, summary

    settings = settings or TrainConfig()
    reporter = Reporter()
    if settings.backend in (None, "auto") and (notice := missing()) is not None:
        reporter.note(notice)
    try:
        result = run(settings, resume=resume, overwrite=overwrite, reporter=reporter)
    except Interrupted as stop:
        reporter.note(f"{stop} of {settings.steps}; go on with: minilm train --resume --out {settings.folder}")
        raise SystemExit(128 + stop.signum) from None
    if not result.drawn:
        reporter.note("loss.png was not drawn, which needs matplotlib: pip install 'minilm[plot]'")
    from rich.console import Console

    early = " (stopped early)" if result.stopped_early else ""
    rows = {
        "steps": f"{result.steps:,}{early}",
        "validation loss": f"{result.validation_loss:.4f}",
        "bigram model's": f"{result.bigram_loss:.4f}",
        "time": clock(result.seconds),
        "tokens per second": f"{result.tokens_per_second:,.0f}",
        "model": str(result.folder),
    }
    Console().print(summary(rows))
    print("\n--- a sample")
    from .talking import generate

    generate(str(result.folder), Writing(max_new_tokens=SAMPLE, seed=settings.seed))


def backends() -> None:
    """Tell which kernels run here on which backend, and why one does not."""
    from ..lab.backends import show

    show()
