"""The matrix product of gemm.h against NumPy's BLAS: sizes around its tiles, panels and bands, and any strides."""

import sys

import numpy as np
import pytest

import minilm
from minilm._kernels import cpu, registry
from minilm._kernels.linear.linear import product_of
from tests.conftest import REQUIRED

TYPES = {"float32": np.float32, "float64": np.float64}
SIZES = [  # M, K, N: tiles have 12 or 6 rows and 8 to 32 columns; sums are cut at 768 or 384 terms, rows at 768;
    # b is copied before from 385 rows a thread on; rows of a are copied where they lie a multiple of 4 KB apart
    (8, 8, 512), (12, 33, 32), (13, 64, 65), (23, 257, 31), (64, 384, 257), (97, 769, 16), (511, 40, 40),
    (1100, 47, 33), (8, 4096, 9), (31, 32, 1031), (25, 1153, 37), (1200, 800, 70), (400, 40, 1100),
]  # fmt: skip


def load(backend):
    try:
        return registry._LOOPS[backend]("linear")
    except ImportError as error:
        (pytest.fail if backend in REQUIRED else pytest.skip)(f"{backend}: {error}")


@pytest.fixture
def loops():
    found = load("cython")
    if not found.GEMM:
        lost = "cython" in REQUIRED and sys.platform == "linux" and cpu.isa() in ("x86_64_v3", "x86_64_v4")
        (pytest.fail if lost else pytest.skip)(f"gemm.h was not built for {cpu.isa()}: BLAS makes the products")
    return found


def laid_out(x, layout):
    """The numbers of x, lying in memory in another way."""
    if layout == "columns":
        return np.asfortranarray(x)
    if layout == "every third":
        wide = np.full((x.shape[0], 3 * x.shape[1]), np.nan, x.dtype)
        wide[:, ::3] = x
        return wide[:, ::3]
    if layout == "backwards":
        return np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    if layout == "one row, repeated":
        return np.broadcast_to(x[:1], x.shape)
    if layout == "one column, repeated":
        return np.broadcast_to(x[:, :1], x.shape)
    return x


def judge(c, a, b, before=0.0):
    """Every entry within the bound of a sum made term by term (Higham, Accuracy and Stability, section 3.1)."""
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble) + before
    bound = (a.shape[1] + 4) * np.finfo(c.dtype).eps * (abs(a) @ abs(b) + abs(np.asarray(before)))
    assert np.isfinite(c).all()
    assert (abs(c - exact) <= bound).all(), f"off by {(abs(c - exact) / bound).max():.3g} times the bound"


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(loops, size, dtype):
    M, K, N = size
    rng = np.random.default_rng(M * N)
    a, b = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
    bias, before = rng.standard_normal(N).astype(dtype), rng.standard_normal((M, N)).astype(dtype)
    for shift in (None, bias):
        for start in (None, before):
            c = np.full((M, N), np.nan, dtype) if start is None else start.copy()
            loops.product(a, b, c, shift, start is not None)
            judge(c, a, b, (0 if shift is None else shift) + (np.zeros((M, N), dtype) if start is None else start))


LAYOUTS = ["rows", "columns", "every third", "backwards", "one row, repeated", "one column, repeated"]


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
def test_layouts(loops, of_a, of_b, dtype):
    rng = np.random.default_rng(0)
    a = laid_out(rng.standard_normal((45, 397)).astype(dtype), of_a)
    b = laid_out(rng.standard_normal((397, 77)).astype(dtype), of_b)
    a.flags.writeable = b.flags.writeable = False
    c = np.full((45, 77), np.nan, dtype)
    loops.product(a, b, c, None, False)
    judge(c, a, b)


@pytest.mark.parametrize(
    "size", [*SIZES, (999, 700, 1600), (900, 790, 1450), (768, 128, 128), (128, 768, 384), (128, 768, 128)], ids=str
)
def test_the_bits_are_the_same_on_any_number_of_threads(loops, size):
    M, K, N = size
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((M, K)).astype(np.float32), rng.standard_normal((K, N)).astype(np.float32)
    bias, found = rng.standard_normal(N).astype(np.float32), []
    before = minilm.get_num_threads()
    try:
        for threads in (1, 2, 3, 4, 6, 7):
            minilm.set_num_threads(threads)
            for x in (a, np.asfortranarray(a)):
                for y in (b, np.asfortranarray(b)):
                    found.append(np.full((2, M, N), np.nan, np.float32))
                    loops.product(x, y, found[-1][0], bias, False)
                    loops.product(x, y, found[-1][1], None, False)  # in two halves, where c is small
    finally:
        minilm.set_num_threads(before)
    assert all((c == found[0]).all() for c in found)


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("N", [1072, 1088])  # the last panel of 32 columns is half of one, or whole
def test_lines_written_past_the_cache_hold_the_same_bits(loops, N, dtype):
    """c of more than 4 MB that begins with a line of the cache is not fetched before it is written."""
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((1000, 40)).astype(dtype), rng.standard_normal((40, N)).astype(dtype)
    bias, found = rng.standard_normal(N).astype(dtype), []
    room = np.empty(1000 * N + 128 // a.itemsize, dtype)
    start = -room.ctypes.data % 64 // a.itemsize
    for first in (start, start + 1):
        room.fill(np.nan)
        c = room[first : first + 1000 * N].reshape(1000, N)
        loops.product(a, b, c, bias, False)
        found.append(c.copy())
        assert np.isnan(room[:first]).all()
        assert np.isnan(room[first + c.size :]).all()
    judge(found[0], a, b, np.broadcast_to(bias, c.shape))
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("start", [0, 1])  # numbers before the first line of the cache: written past it, or not
def test_rows_of_c_may_lie_apart(loops, start, dtype):
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((1000, 40)).astype(dtype), rng.standard_normal((40, 1077)).astype(dtype)
    bias, room = rng.standard_normal(1077).astype(dtype), np.empty(1000 * 1104 + 128, dtype)
    start += -room.ctypes.data % 64 // room.itemsize
    wide = room[start : start + 1000 * 1104].reshape(1000, 1104)  # rows of whole lines
    room.fill(np.nan)
    loops.product(a, b, wide[:, :1077], bias, False)
    judge(wide[:, :1077], a, b, np.broadcast_to(bias, (1000, 1077)))
    loops.product(a, b, wide[:, :1077], bias, True)
    judge(wide[:, :1077], a, b, 2 * bias.astype(np.longdouble) + a.astype(np.longdouble) @ b.astype(np.longdouble))
    few = wide[:5, :1077]  # which BLAS makes
    product_of(loops)(a[:5], b, few, bias)
    judge(few, a[:5], b, np.broadcast_to(bias, few.shape))
    assert np.isnan(wide[:, 1077:]).all()
    assert np.isnan(room[:start]).all()


FOLDED = {
    "whole": (lambda x: x[:, :, :40], True),
    "of a wider one": (lambda x: x[:, :, 3:43], True),
    "one of the axes alone": (lambda x: x[:1, :, :40], True),
    "every other": (lambda x: x[:, ::2, :40], True),
    "cut": (lambda x: x[:, 1:12, :40], False),
    "exchanged": (lambda x: x[:, :, :40].swapaxes(0, 1), False),
    "backwards": (lambda x: x[::-1, :, :40], False),
    "four axes": (lambda x: x.reshape(3, 8, 2, 50)[..., :40], True),
    "four, the third cut": (lambda x: x.reshape(3, 4, 4, 50)[:, :, :3, :40], False),
}


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("how", FOLDED)
def test_all_axes_but_the_last_are_rows(loops, how, turned, dtype):
    """Where they lie at equal distances; otherwise nothing is done, and the caller makes a copy."""
    view, fits = FOLDED[how]
    rng = np.random.default_rng(8)
    a = view(rng.standard_normal((3, 16, 50)).astype(dtype))
    rows = a.reshape(-1, 40)
    of = rng.standard_normal((len(rows) if turned else 40, 70)).astype(dtype)
    b = of.reshape(*a.shape[:-1], 70) if turned else of
    left = rows.T if turned else rows
    c = np.full((40, 70) if turned else (*a.shape[:-1], 70), np.nan, dtype)
    assert loops.product(a, b, c, None, False, turned) == fits
    assert np.isnan(c).all() != fits
    product_of(loops)(a, b, c, turned=turned)
    judge(c.reshape(-1, 70), left, of)
    whole = np.empty_like(c)
    assert loops.product(a.copy(), b, whole, None, False, turned)
    assert (c == whole).all()  # from a copy, by the same loops: its bits are theirs
    product_of(loops)(a, b, c, add=True, turned=turned)
    judge(c.reshape(-1, 70), left, 2 * of)


def test_rows_of_c_that_cannot_be_one_matrix_are_refused(loops):
    """A copy of them would be written, and lost."""
    a, b, c = np.ones((3, 11, 40)), np.ones((40, 70)), np.zeros((3, 16, 70))
    with pytest.raises(ValueError, match="copy"):
        product_of(loops)(a, b, c[:, 1:12])
    assert (c == 0).all()


def test_what_a_product_does_not_take_is_refused(loops):
    a, b, c = np.ones((8, 4), np.float32), np.ones((4, 6), np.float32), np.ones((8, 12), np.float32)
    with pytest.raises(ValueError, match="in one piece"):
        loops.product(a, b, c[:, ::2], None, False)
    with pytest.raises(ValueError, match="in one piece"):
        loops.add_bias(c[:, ::2], b[0])
    for x, y, z in [(a, b[:3], c[:, :6]), (a, b, c[:7, :6]), (a, b, c[:, :5]), (a, b.astype(np.float64), c[:, :6])]:
        with pytest.raises(TypeError, match="of one dtype"):
            loops.product(x, y, z, None, False)
    assert (c == 1).all()


def test_a_stride_that_is_no_multiple_of_a_number_is_left_to_blas(loops):
    record = np.zeros(64, np.dtype([("x", np.float32, 64), ("flag", np.int8)]))
    a = record["x"]
    a[:] = np.random.default_rng(2).standard_normal((64, 64))
    b, c = np.eye(64, dtype=np.float32), np.zeros((64, 64), np.float32)
    product_of(loops)(a, b, c)
    assert (c == a).all()


def test_infinities_and_nan_arrive(loops):
    a, b = np.ones((32, 40), np.float32), np.ones((40, 32), np.float32)
    a[3, 5], a[7, 0], b[0, 9] = np.inf, np.nan, -np.inf
    c = np.empty((32, 32), np.float32)
    loops.product(a, b, c, None, False)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(c, a @ b)


@pytest.mark.parametrize("backend", ["numba", "cython"])
def test_products_that_blas_makes_add_as_well(backend):
    """Few rows, little to do, or no gemm.h: the same arguments mean the same."""
    product = product_of(load(backend))
    rng = np.random.default_rng(3)
    for M, K, N in [(3, 700, 900), (9, 9, 9), (1500, 3, 1200), (5, 0, 4), (0, 5, 4)]:
        a, b = rng.standard_normal((M, K)).astype(np.float32), rng.standard_normal((K, N)).astype(np.float32)
        bias, before = rng.standard_normal(N).astype(np.float32), rng.standard_normal((M, N)).astype(np.float32)
        c = np.full((M, N), np.nan, np.float32)
        product(a, b, c, bias)
        judge(c, a, b, np.broadcast_to(bias, c.shape))
        c = before.copy()
        product(a, b, c, add=True)
        judge(c, a, b, before)
