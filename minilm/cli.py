"""The command ``minilm``: one typed command per job.  What a job needs is imported when it runs."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from . import __version__
from .config import TrainConfig, message, sources

SAMPLE = 256  # tokens of the sample at the end of training
app = App(
    name="minilm",
    version=__version__,
    help="Train small language models, and write text with them.",
    suppress_keyboard_interrupt=False,
)


@app.command(config=sources)
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
    from .lab.backends import missing
    from .train import Interrupted, Reporter, run
    from .train.report import clock, summary

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
    _write(result.folder, None, SAMPLE, 0.8, 200, None, settings.seed)


@app.command
def generate(
    run: Path,
    /,
    *,
    prompt: str | None = None,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = 200,
    top_p: float | None = None,
    seed: int | None = None,
) -> None:
    """Write text with a trained model.

    Parameters
    ----------
    run: Path
        A run folder, or any folder with config.json, model.safetensors and tokenizer.json of a GPT-2.
    prompt: str
        What the text begins with. Default: the end-of-text token, or a line break.
    max_new_tokens: int
        Tokens to write at most.
    temperature: float
        Below 1 likely tokens become likelier; 0 takes the likeliest.
    top_k: int
        Draw from so many of the likeliest tokens.
    top_p: float
        Draw from the likeliest tokens that together have this probability.
    seed: int
        Decides the text. Default: another one each time.
    """
    _write(run, prompt, max_new_tokens, temperature, top_k, top_p, seed)


@app.command
def backends() -> None:
    """Tell which kernels run here on which backend, and why one does not."""
    from .lab.backends import show

    show()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0; 2 after one line that says what is wrong; 130 after Ctrl-C."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("\nminilm: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except CycloptsError as error:
        return _fail(message(error))
    except (ValueError, IndexError, KeyError, OSError, ImportError) as error:
        return _fail(_told(error))
    return 0


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())


def _fail(text: str) -> int:
    print(f"minilm: error: {text}", file=sys.stderr)
    return 2


def _write(
    folder: Path,
    prompt: str | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
) -> None:
    """Print the prompt and what the model in ``folder`` writes after it, as it comes."""
    import numpy as np

    from .checkpoint import load_model
    from .generate import generate
    from .models.gpt2 import GPT2Config, GPT2LMHeadModel
    from .text import Tokenizer

    config, weights = load_model(folder)
    model = GPT2LMHeadModel(GPT2Config.from_dict(config), rng=np.random.default_rng(0))
    model.load_state_dict(weights)
    tokenizer = Tokenizer.load(folder)
    if prompt:
        ids = tokenizer.encode(prompt)
    elif tokenizer.eos_id is not None:
        ids = np.array([tokenizer.eos_id])
    else:
        newline = tokenizer.token_to_id("\n")
        ids = np.array([0 if newline is None else newline])
    rng = np.random.default_rng(seed)
    stop = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    tokens = generate(
        model,
        ids,
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        rng=rng,
        stop_tokens=stop,
    )
    if prompt:
        sys.stdout.write(prompt)
    stream = tokenizer.stream(skip_special_tokens=True)
    for token in tokens:
        sys.stdout.write(stream.push(token))
        sys.stdout.flush()
    sys.stdout.write(stream.flush() + "\n")
    sys.stdout.flush()
