"""Every primitive against NumPy's own result, differences of values, differences of gradients, and float32."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm._kernels.primitives import PRIMITIVES
from minilm.tensor import Tensor
from minilm.tensor.core import primitive

from . import judge
from .draws import Case
from .primitive_cases import CASES

ROUNDED = {"einsum": 1e-12, "matmul": 1e-12}  # sums in another order; the others are NumPy's calls, bit for bit but erf


def test_every_primitive_is_tested():
    assert set(CASES) == set(PRIMITIVES), "a primitive without a strategy in tests/tensor/primitive_cases.py"


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=20)
@given(data=st.data())
def test_values_and_gradient(name, data):
    case = data.draw(CASES[name])
    judge.check_values(case, ROUNDED.get(name, 1e-15))
    judge.check_gradient(case, np.random.default_rng(0))


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=8)
@given(data=st.data())
def test_second_derivative(name, data):
    judge.check_second(data.draw(CASES[name]), np.random.default_rng(0))


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=8)
@given(data=st.data())
def test_float32(name, data):
    judge.check_float32(data.draw(CASES[name]))


# ---- what the strategies keep away from: kinks, ties, borders


def gradients(name, *arrays, **static):
    tensors = [Tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]
    y = primitive(name, *tensors, **static)
    y.backward(np.ones(y.shape))
    return [t.grad.tolist() for t in tensors]


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_a_tie_of_two_gives_half_to_each(name):
    assert gradients(name, [1.0, 2.0], [1.0, 2.0]) == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("name", ["max", "min"])
def test_entries_that_tie_share_the_gradient(name):
    (dx,) = gradients(name, [[3.0, 3.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0]], axis=1)
    assert dx == [[0.25] * 4] * 2


def test_absolute_has_slope_0_at_0():
    assert gradients("absolute", [0.0, -1.0, 1.0]) == [[0.0, -1.0, 1.0]]


def test_the_gradient_passes_at_the_bounds_of_clip():
    assert gradients("clip", [0.0, 1.0, -0.5, 1.5, 0.5], low=0.0, high=1.0) == [[1.0, 1.0, 0.0, 0.0, 1.0]]


def test_clip_with_bounds_of_float64_gives_a_float32_input_its_gradient_in_float32():
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    y = np.clip(x, np.zeros(3), None)
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_the_gradient_of_a_product_holds_where_entries_are_zero(zeros, n):
    x = np.arange(1.0, n + 1)
    x[:zeros] = 0
    (dx,) = gradients("prod", x)
    assert dx == [np.prod(np.delete(x, i)) for i in range(n)]


def test_the_product_of_many_numbers_takes_memory_in_proportion():
    (dx,) = gradients("prod", np.ones(2**20))  # a matrix of them would be 8 TB
    assert dx == [1.0] * 2**20


def test_power_at_zero():
    assert gradients("power", [0.0, 0.0, 0.0], [2.0, 1.0, 0.0])[0] == [0.0, 1.0, 0.0]
    assert gradients("power", [0.0, 2.0], [2.0, 0.0]) == [[0.0, 0.0], [0.0, np.log(2.0)]]


def test_a_negative_number_to_a_constant_whole_power():
    x = Tensor(np.array([-2.0, -3.0]), requires_grad=True)
    np.power(x, np.array([3.0, 2.0])).sum().backward()
    assert x.grad.tolist() == [12.0, -6.0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_cast_gives_its_gradient_back_in_the_dtype_that_it_came_from(dtype):
    x = Tensor(np.arange(3, dtype=np.float32), requires_grad=True)
    y = x.astype(dtype)
    assert y.dtype == dtype
    y.backward(np.array([1.0, 2.0, 3.0]))
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "power", "hypot", "matmul"])
def test_each_input_gets_its_gradient_in_its_own_dtype(name):
    a = Tensor(np.full((2, 2), 2.0, np.float32), requires_grad=True)
    b = Tensor(np.full((2, 2), 3.0, np.float64), requires_grad=True)
    y = primitive(name, a, b)
    assert y.dtype == np.float64
    y.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_einsum_with_a_letter_of_its_own_and_dots_that_broadcast():
    shapes = (1, 3, 2), (4, 3), (1,)
    arrays = [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(shapes)]
    subscripts = "...ij,...i,...->..."
    judge.check_gradient(
        Case(
            arrays,
            lambda *xs: np.einsum(subscripts, *xs),
            lambda *xs: primitive("einsum", *xs, subscripts=subscripts),
        ),
        np.random.default_rng(0),
    )


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_gradients_do_not_overflow_where_the_result_does_not(scale):
    big = np.array([3.0, -4.0], np.float32) * np.float32(scale)
    for name in ("divide", "arctan2", "hypot"):
        a, b = Tensor(big[::-1].copy(), requires_grad=True), Tensor(big, requires_grad=True)
        y = primitive(name, a, b)
        y.sum().backward()
        exact = [np.array(g) for g in gradients(name, big[::-1], big)]
        np.testing.assert_allclose([a.grad, b.grad], exact, rtol=1e-5, atol=0)
