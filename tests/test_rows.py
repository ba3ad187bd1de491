"""softmax, log_softmax and cross_entropy against PyTorch where rows are awkward: their lengths, and what is in them.

The loops take numbers in groups, parts and several rows at a time; a row may end anywhere in these.
"""

from functools import partial

import numpy as np
import pytest
import torch

from minilm import Tensor
from minilm import functional as F
from minilm.testing import AGAINST_PYTORCH, assert_close

LENGTHS = [*range(1, 19), 31, 32, 33, 64, 65, 1023, 1024, 1025, 1041, 2049]


def table(rows, C, dtype, far=1e4, low=-1e30):
    """Return rows of a few sizes of numbers; the first ones hold what is special, where there is room for it."""
    rng = np.random.default_rng(C)
    x = rng.standard_normal((rows, C)) * rng.choice([1e-3, 1.0, 30.0], (rows, 1))
    x[0, (C + 1) // 2 :] = -np.inf
    x[1] += far
    x[2] = low
    x[3, -1] = 200.0  # the top comes last
    return x.astype(dtype)


def both(ours, theirs, x, dy):
    a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    return (y.data, z.detach().numpy()), (a.grad, b.grad.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_rows_of_every_length(op, dtype, backend):
    for C in LENGTHS:
        x = table(19, C, dtype)
        dy = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
        for got, want in both(partial(getattr(F, op), dim=-1), partial(getattr(torch, op), dim=-1), x, dy):
            assert_close(got, want, AGAINST_PYTORCH[dtype], f"{op} of {C}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_rows_of_every_length(smoothing, dtype, backend):
    for V in LENGTHS:
        x = table(37, V, dtype, far=100, low=-100)[1:]
        target = np.random.default_rng(2).integers(0, V, len(x))
        target[[4, 5, 9, 20, -1]] = -100  # rows that count stand alone, in pairs and in runs
        dy = np.random.default_rng(1).standard_normal(len(x)).astype(dtype)
        ours = partial(F.cross_entropy, target=target, reduction="none", label_smoothing=smoothing)
        theirs = partial(
            torch.nn.functional.cross_entropy,
            target=torch.tensor(target),
            reduction="none",
            label_smoothing=smoothing,
        )
        for got, want in both(ours, theirs, x, dy):
            assert_close(got, want, AGAINST_PYTORCH[dtype], f"cross_entropy of {V}")


@pytest.mark.parametrize("place", [0, 15, 16, 63, 64, 1030])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_what_is_not_a_number_spoils_its_own_row_alone(op, value, place, backend):
    x = np.random.default_rng(0).standard_normal((40, max(65, place + 3))).astype(np.float32)
    clean = getattr(F, op)(x, dim=-1).data
    x[7, place] = value
    with np.errstate(invalid="ignore"):
        y = getattr(F, op)(x, dim=-1).data
        want = getattr(torch, op)(torch.tensor(x[7]), -1).numpy()
    np.testing.assert_array_equal(np.isnan(y[7]), np.isnan(want))
    np.testing.assert_array_equal(np.delete(y, 7, 0), np.delete(clean, 7, 0))
