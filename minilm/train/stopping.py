"""How a run ends before its last step: by a signal, or by a loss that is no number."""

import os
import signal
import threading
from types import FrameType
from typing import Any

NOTICE = b"\nfinishing this step, then saving; press Ctrl-C again to stop at once\n"


class Interrupted(Exception):
    """A signal stopped the run after ``step``, which is saved."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum, self.step = signum, step


class Diverged(ValueError):
    """The loss or the norm of its gradients is not a finite number: what must hold; what was got; what to try."""


class Signals:
    """Note the first SIGINT or SIGTERM for the loop to see; the second raises KeyboardInterrupt.

    Elsewhere than in the main thread, where Python allows no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signum
        os.write(2, NOTICE)  # print is not safe in a signal handler
