"""The command ``minilm``: one typed command per job.  What a job needs is imported when it runs."""

import os
import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from .. import __version__
from ..config import message
from . import models, talking, training

app = App(
    name="minilm",
    version=__version__,
    help="Train small language models, and run those that others have published.",
    suppress_keyboard_interrupt=False,
)
training.add(app)
talking.add(app)
models.add(app)


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
