"""Every NumPy function, method and operator of a Tensor against NumPy's own result and differences, by name."""

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.tensor import Tensor, numpy_functions, numpy_protocol
from minilm.tensor.operators import Operators

from . import draws, function_cases, judge

TABLES = {
    "FUNCTIONS": (function_cases.FUNCTIONS, numpy_functions.FUNCTIONS),
    "METHODS": (function_cases.METHODS, numpy_protocol._METHODS),
    "COMPOSED": (function_cases.COMPOSED, numpy_protocol._COMPOSED),
    "REDUCES": (function_cases.REDUCES, numpy_protocol._REDUCES),
}
CALLS = {f"{table}-{name}": case for table, (cases, _) in TABLES.items() for name, case in cases.items()}
CALLS |= {f"OPERATORS-{name}": case for name, case in function_cases.OPERATORS.items()}

# What looks at values or shapes, and what is piecewise constant: the same on Tensors as on arrays, and off the tape.
VALUES = {
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "__lt__": operator.lt,
    "__le__": operator.le,
    "__gt__": operator.gt,
    "__ge__": operator.ge,
    "__and__": lambda x, y: (x > 0) & (y > 0),
    "__rand__": lambda x, y: np.True_ & (y > 0),
    "__or__": lambda x, y: (x > 0) | (y > 0),
    "__ror__": lambda x, y: True | (y > 0),
    "__xor__": lambda x, y: (x > 0) ^ (y > 0),
    "__rxor__": lambda x, y: True ^ (y > 0),
    "__invert__": lambda x, y: ~(x > 0),
    "__floordiv__": operator.floordiv,
    "__rfloordiv__": lambda x, y: 7.3 // y,
    "__contains__": lambda x, y: np.asarray(0.5 in x),
    "__round__": lambda x, y: round(x, 1) if isinstance(x, Tensor) else np.round(x, 1),
    "round": lambda x, y: x.round(1),
    "any": lambda x, y: (x > 0).any(axis=0),
    "all": lambda x, y: (x > 0).all(keepdims=True),
    "argmax": lambda x, y: x.argmax(-1),
    "argmin": lambda x, y: x.argmin(axis=0, keepdims=True),
    "argsort": lambda x, y: x.argsort(),
    "nonzero": lambda x, y: np.stack(x.nonzero()),
    **{name: getattr(np, name) for name in numpy_protocol._CONSTANT if "bit" not in name and name != "invert"},
    **{name: lambda x, y, name=name: getattr(np, name)(x > 0, y > 0) for name in ("bitwise_and", "bitwise_or")},
    "bitwise_xor": lambda x, y: np.bitwise_xor(x > 0, y > 0),
    "invert": lambda x, y: np.invert(x > 0),
    "signbit": lambda x, y: np.signbit(x),
    **{name: lambda x, y, name=name: getattr(np, name)(x) for name in ("count_nonzero", "flatnonzero", "argwhere")},
    **{name: lambda x, y, name=name: getattr(np, name)(x) for name in ("shape", "ndim", "size", "min_scalar_type")},
    **{name: lambda x, y, name=name: getattr(np, name)(x) for name in ("zeros_like", "ones_like", "unique", "fix")},
    **{name: lambda x, y, name=name: getattr(np, name)(x) for name in ("iscomplexobj", "isrealobj", "around")},
    **{name: lambda x, y, name=name: getattr(np, name)(x, y) for name in ("allclose", "array_equal", "array_equiv")},
    **{name: lambda x, y, name=name: getattr(np, name)(x, y) for name in ("isclose", "isin", "result_type")},
    **{name: lambda x, y, name=name: getattr(np, name)(x, y) for name in ("may_share_memory", "shares_memory")},
    **{name: lambda x, y, name=name: getattr(np, name)(x) for name in ("array_repr", "array_str", "array2string")},
    "empty_like": lambda x, y: np.empty_like(x).shape,
    "full_like": lambda x, y: np.full_like(x, 3),
    "searchsorted": lambda x, y: np.searchsorted(np.sort(x.ravel()), y),
    "digitize": lambda x, y: np.digitize(x, np.array([-1.0, 0.0, 1.0])),
    "bincount": lambda x, y: np.bincount(x.ravel().astype(int) + 9),
}


def test_every_function_is_tested():
    for cases, functions in TABLES.values():
        assert set(cases) == set(functions)
    values = numpy_protocol._CONSTANT | numpy_protocol._OF_VALUES
    public = {name for name, what in vars(Operators).items() if callable(what) or isinstance(what, property)}
    public -= {"__hash__", "__getitem__", "scatter", "erf"}  # tested as primitives
    assert public - set(VALUES) == set(function_cases.OPERATORS)
    assert set(VALUES) - public == values - public


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=8)
@given(data=st.data())
def test_values_and_gradient(name, data):
    case = data.draw(CALLS[name])
    judge.check_values(case, 1e-12)
    judge.check_gradient(case, np.random.default_rng(0))


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=3)
@given(data=st.data())
def test_second_derivative_and_float32(name, data):
    case = data.draw(CALLS[name])
    judge.check_second(case, np.random.default_rng(0))
    judge.check_float32(case)


@pytest.mark.parametrize("name", VALUES)
@settings(max_examples=6)
@given(data=st.data())
def test_functions_of_values_are_off_the_tape(name, data):
    numbers = draws.on_grid(0.25)
    x = data.draw(draws.arrays(draws.shapes(1, 3, side=1), numbers))
    y = data.draw(draws.arrays(x.shape, numbers))
    f = VALUES[name]
    f = (lambda x, y: VALUES[name](x)) if isinstance(f, np.ufunc) and f.nin == 1 else f
    expected = f(x, y)
    actual = f(Tensor(x, requires_grad=True), Tensor(y, requires_grad=True))
    if isinstance(actual, Tensor):
        assert actual.node is None
        assert isinstance(actual._data, np.ndarray)
        actual = actual.numpy()
    np.testing.assert_array_equal(actual, expected)
    assert np.asarray(actual).dtype == np.asarray(expected).dtype


# ---- indexing through Tensor's own brackets: lists, Tensors, and what they come to


@settings(max_examples=60)
@given(data=st.data())
def test_indexing(data):
    x = data.draw(draws.arrays(draws.shapes(), repeats=True))
    given, plain = data.draw(draws.indices(x.shape))
    case = draws.Case([x], lambda x: x[plain], lambda x: x[given], what=f"[{given}]")
    judge.check_values(case, 0)
    judge.check_gradient(case, np.random.default_rng(0))


@settings(max_examples=20)
@given(data=st.data())
def test_writing_at_an_index(data):
    x = data.draw(draws.arrays(draws.shapes())).copy()
    given, plain = data.draw(draws.indices(x.shape))
    y, t = x.copy(), Tensor(x)
    y[plain] = 7
    t[given] = 7
    np.testing.assert_array_equal(t._data, y)


def test_reading_an_index_written_to_later_makes_no_difference():
    x, places = Tensor(np.arange(4.0), requires_grad=True), np.array([0, 0, 2])
    y = x[places]
    places[:] = 3
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 1.0, 0.0]


def test_an_empty_list_is_an_index():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    assert x[[]].shape == (0, 3)
    assert x[:, []].shape == (2, 0)


def test_parts_read_several_times_over_gather_every_gradient():
    x = Tensor(np.arange(4.0), requires_grad=True)
    again = np.array([0, 0, 2])
    (x[again].sum() + x[again[:2]].sum() + x[1:].sum() + x[x > 2].sum() + x[again].sum() + x.sum()).backward()
    assert x.grad.tolist() == [7.0, 2.0, 4.0, 3.0]


# ---- what a NumPy user expects besides


def test_iteration_length_and_numbers():
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    rows = list(x)
    assert len(x) == len(rows) == 2
    (rows[0] * rows[1]).sum().backward()
    assert x.grad.tolist() == [[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]]
    assert float(x[1, 2]) == 5.0 == x[1, 2].item()
    assert int(x[1, 1]) == 4
    assert [10, 20, 30][Tensor(np.array(1))] == 20
    assert bool(x[0, 1])
    assert f"{x[1, 2]:.2f}" == "5.00"
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    with pytest.raises(TypeError, match="without axes"):
        iter(x[0, 0])


def test_comparison_with_none_and_words_is_of_objects():
    x = Tensor(np.ones(2))
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    assert (x == "x") is False
    assert x in {x}


def test_assignment_operators_bind_a_new_tensor_and_are_recorded():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = x
    y += 1
    y *= x
    y /= 2.0
    y -= x
    y **= 2
    assert x.tolist() == [1.0, 2.0]
    y.sum().backward()
    x0 = np.array([1.0, 2.0])
    np.testing.assert_allclose(x.grad, 2 * ((x0 + 1) * x0 / 2 - x0) * ((2 * x0 + 1) / 2 - 1), rtol=1e-14, atol=0)


def test_an_array_on_the_left_is_recorded_and_in_place_on_the_left_refuses():
    x, a = Tensor(np.ones(3), requires_grad=True), np.arange(3.0)
    assert isinstance(a * x, Tensor)
    assert isinstance(a @ x, Tensor)
    assert isinstance(np.float64(2) * x, Tensor)
    with pytest.raises(TypeError, match="out"):
        a += x


def test_whole_numbers_keep_numpys_promotion():
    i, x = Tensor(np.arange(3)), Tensor(np.ones(3, np.float32))
    assert (i * 2).dtype == np.int64
    assert (i * 2.5).dtype == np.float64
    assert (i / 2).dtype == np.float64
    assert (i * x).dtype == np.float64
    assert (x * 2.5).dtype == (2.5 * x).dtype == (x * True).dtype == np.float32
    assert (Tensor(np.arange(3, dtype=np.int8)) * x).dtype == np.float32
    assert i.mean().dtype == np.float64
    assert i.sum().dtype == np.int64
    assert Tensor(np.array([True, False])).copy().dtype == bool


def test_a_copy_is_a_copy_and_keeps_the_sign_of_zero():
    x = Tensor(np.array([-0.0, 1.0]))
    y = x.copy()
    assert not np.shares_memory(x._data, y._data)
    assert np.signbit(y._data[0])


def test_one_tensor_several_times_in_one_call_gathers_every_gradient():
    x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    (np.concatenate([x, x, 2 * x]).sum() + np.stack([x, x]).sum() + np.einsum("i,i,i", x, x, x)).backward()
    np.testing.assert_allclose(x.grad, 6 + 3 * np.array([1.0, 2.0, 3.0]) ** 2, rtol=1e-15, atol=0)
