"""The text of tokens as they come, up to where it must stop."""

from collections.abc import Collection
from typing import Any

import numpy as np

BEHIND = 8  # tokens of the prompt that tell a decoder whether the first new word begins with a space


class Writer:
    """Turn one text's tokens into what may be shown of it.

    Nothing of a stop string is shown, even if its characters arrive one by one: what may be its beginning is kept back
    until it is certain.
    """

    def __init__(self, tokenizer: Any, prompt: np.ndarray, stops: Collection[str]):
        self._stream = tokenizer.stream(skip_special_tokens=True)
        for token in prompt[-BEHIND:].tolist():
            self._stream.push(token)
        self._stops, self._kept = stops, ""

    def push(self, token: int) -> tuple[str, bool]:
        """Return the text that ``token`` allows to be shown, and whether a stop string has come."""
        return self._shown(self._stream.push(token), final=False)

    def flush(self) -> str:
        """Return what was kept back, when no more tokens come."""
        return self._shown(self._stream.flush(), final=True)[0]

    def _shown(self, piece: str, final: bool) -> tuple[str, bool]:
        text = self._kept + piece
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self._kept = ""
            return text[: min(found)], True
        back = 0 if final else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._kept = text[len(text) - back :]
        return text[: len(text) - back], False


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that ``stop`` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
