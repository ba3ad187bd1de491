"""What a person sees of a run: a progress bar on a terminal, or plain lines; and a summary at the end."""

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

REFRESH = 0.25  # seconds between pictures of the bar: drawing one costs milliseconds
LINES = 20  # plain lines in a run at least every so many of its steps; and one per evaluation


class Reporter:
    """Write to ``console``, which decides between a bar and lines.  Used as a context around the steps."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._drawn = 0.0
        self._validation = ""

    def note(self, text: str) -> None:
        """Write one line."""
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def start(self, done: int, steps: int) -> "Reporter":
        """Say how many of the steps are done already."""
        self._done, self._steps, self._began = done, steps, time.perf_counter()
        if self.console.is_terminal:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(None), TextColumn("{task.fields[told]}"))
            self._bar = Progress(*columns, console=self.console, auto_refresh=False)
            self._task = self._bar.add_task("", total=steps, completed=done, told="")
        return self

    def __enter__(self) -> "Reporter":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, step: int, loss: float, speed: float, validation: float | None = None) -> None:
        """Tell of one step: its loss, tokens per second, and the validation loss where it was evaluated."""
        now = time.perf_counter()
        if validation is not None:
            self._validation = f"  val {validation:.3f}"
        if self._bar is None:
            if validation is not None or step % max(1, self._steps // LINES) == 0 or step == self._steps:
                shown = self._validation if validation is not None else ""
                self.note(f"step {step}/{self._steps}  loss {loss:.3f}{shown}  {self._rate(step, speed, now)}")
        elif now - self._drawn >= REFRESH or step == self._steps:
            self._drawn = now
            told = f"loss {loss:.3f}{self._validation}  {self._rate(step, speed, now)}"
            self._bar.update(self._task, completed=step, told=told)
            self._bar.refresh()

    def _rate(self, step: int, speed: float, now: float) -> str:
        left = (now - self._began) / max(1, step - self._done) * (self._steps - step)
        return f"{speed:,.0f} tokens/s  {clock(left)} left"


def clock(seconds: float) -> str:
    """Return a time as people write it.

    >>> clock(75), clock(7265)
    ('1:15', '2:01:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def summary(rows: dict[str, str]) -> Table:
    """Return the numbers at the end of a run as a table without a frame."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    return table
