"""Tests are stricter than life: no backend is skipped unseen, no hole in an output goes unnoticed, no state leaks."""

import os
from contextlib import suppress

import numpy as np
import pytest

from minilm import autograd
from minilm._kernels import registry

REQUIRED = os.environ.get("MINILM_REQUIRE", "").split()  # CI names every backend: there a skip would hide a failure


@pytest.fixture(params=registry.BACKENDS)
def backend(request):
    """Run the test on every backend that can run here; a backend that cannot is a visible skip."""
    try:
        registry.load("gelu", request.param)
    except registry.BackendUnavailable as error:
        if request.param in REQUIRED:
            pytest.fail(f"{request.param} is required here: {error}")
        pytest.skip(str(error))
    with registry.use_backend(request.param):
        yield request.param


empty, empty_like = np.empty, np.empty_like


def poison(array):
    if array.dtype.kind == "f":
        array.fill(np.nan)
    return array


def poisoned(*args, **kwargs):
    return poison(empty(*args, **kwargs))


with suppress(ImportError):
    from numba.extending import overload

    @overload(poisoned)
    def of_numba(shape, dtype=float):
        """Loops that Numba compiles during a test find this in np.empty's place, as does its own np.zeros."""
        return lambda shape, dtype=float: empty(shape, dtype)


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    """Fill np.empty with NaN, so that a kernel that leaves a hole in its output is caught every time."""
    monkeypatch.setattr(np, "empty", poisoned)
    monkeypatch.setattr(np, "empty_like", lambda *args, **kwargs: poison(empty_like(*args, **kwargs)))


@pytest.fixture(autouse=True)
def sealed_state():
    """Check that a test leaves the backend, the tape and NumPy's error state as they were; errors raise meanwhile."""
    before = registry.backend(), autograd.recording(), autograd.is_decomposed()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield
    assert before == (registry.backend(), autograd.recording(), autograd.is_decomposed())
