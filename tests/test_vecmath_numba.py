"""exp, the normal tail and the sums of the Numba loops, against NumPy in more digits."""

import math

import numpy as np
import pytest
from numba import njit

from minilm._kernels import vecmath_numba as vm

TINY = np.finfo(np.float32).smallest_subnormal
EDGES = [
    0,
    1,
    TINY,
    1e-40,
    1.1754944e-38,
    87.33654,
    88.72283,
    88.72284,
    103.27893,
    103.97208,
    104,
    1e30,
    np.inf,
    np.nan,
]


@njit
def exp(x, y):
    for i in range(len(x)):
        y[i] = vm.exp(x[i])


@njit
def decay(x, y):
    for i in range(len(x)):
        y[i] = vm.decay(x[i])


@njit
def normal_tail(a, e, y):
    for i in range(len(a)):
        y[i] = vm.normal_tail(a[i], e[i])


@njit
def largest(x):
    return vm.largest(x)


def every(step):
    """Every ``step``-th float32, of both signs, subnormals, infinities and NaN among them, and the edges."""
    edges = np.array(EDGES, np.float32)
    return np.concatenate([np.arange(0, 2**32, step, np.uint32).view(np.float32), edges, -edges])


def ulps(got, exact):
    """The distance of finite numbers, in units in the last place of the exact result rounded to got's type."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = exact.astype(got.dtype)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))  # infinities and NaN must be where they belong
    assert np.isfinite(got[~same]).all()
    assert np.isfinite(rounded[~same]).all()
    units = np.spacing(np.abs(rounded[~same])).astype(exact.dtype)
    return float((np.abs(got[~same] - exact[~same]) / units).max(initial=0.0))


def run(loop, x):
    y = np.empty_like(x)
    loop(x, y)
    return y


def test_exp_of_every_kind_of_float32():
    x = every(1021)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        assert ulps(run(exp, x), np.exp(x.astype(np.float64))) < 1.5


def test_decay_of_every_kind_of_float32_that_a_softmax_has():
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        x = every(1021)
        x = x[~(x > 88)]
        y, far = run(decay, x), x < -87
        assert (y[far] == 0).all()
        assert ulps(y[~far], np.exp(x[~far].astype(np.float64))) < 1.5


def test_exp_of_float64():
    x = np.concatenate([np.random.default_rng(0).uniform(-745, 709, 200_000), EDGES, [-750.0, 709.9, -np.inf]])
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        assert ulps(run(exp, x), np.exp(x.astype(np.longdouble))) < 4


def test_normal_tail():
    """Given e = exp(-a²/2), whose own rounding is not the tail's."""
    a = np.concatenate([np.linspace(0, 12, 100_001, dtype=np.float32), np.float32([np.inf, np.nan])])
    exact = np.exp(-0.5 * a.astype(np.float64) ** 2)
    e = exact.astype(np.float32)
    y = np.empty_like(a)
    normal_tail(a, e, y)
    want = np.array([0.5 * math.erfc(x / math.sqrt(2)) for x in a[:-2].tolist()]) * (e[:-2] / exact[:-2])
    assert ulps(y[:-2], want) < 5
    assert y[-2] == 0
    assert np.isnan(y[-1])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 64, 65, 1501])
def test_sums_and_the_largest_of_a_row(n, real):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, n)).astype(real)
    wide, tolerance = np.longdouble, n**0.5 * 4 * float(np.finfo(real).eps)
    assert vm.total(x) == pytest.approx(float(x.astype(wide).sum()), abs=tolerance)
    assert vm.dot(x, y) == pytest.approx(float((x.astype(wide) * y).sum()), abs=tolerance)
    expected = float(np.exp(x.astype(wide) - 1).sum())
    assert vm.exponentials(x, real(1)) == pytest.approx(expected, rel=4 * float(np.finfo(real).eps))
    assert largest(x) == x.max()
    x[n // 2] = np.inf
    assert largest(x) == np.inf
    assert largest(np.full(n, -np.inf, real)) == -np.inf


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_row_with_nan_sums_to_nan(real, sign):
    x = np.zeros(70, real)
    x[33] = np.copysign(np.nan, sign)
    assert np.isnan(vm.exponentials(x, largest(x)))
    assert np.isnan(vm.total(x))
