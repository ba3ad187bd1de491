"""Writes into arrays that the tape has saved: each is an error at backward that names the op, and nothing else is."""

import gc
import sys

import numpy as np
import pytest

import minilm
from minilm import Tensor, guard, no_grad
from minilm import functional as F
from minilm.tensor.core import wrap


def made_by_library(*shape):
    """A leaf whose array no user has seen, as a model's parameters are."""
    return wrap(np.arange(1.0, 1 + np.prod(shape)).reshape(shape), minilm.autograd.Node())


def refused(op, out):
    with pytest.raises(RuntimeError, match=rf"^{op}: .*written to since.*copy, or call backward first"):
        out.sum().backward()


# ---- every way to write


def through_data(x):
    x.data[...] = 0


def through_data_after_reading_part(x):
    x.detach()[:2].data  # noqa: B018 - this exposes a part; the write is elsewhere
    x.data[-1] = 0


def through_numpy(x):
    x.numpy()[0] += 1


def through_asarray(x):
    with no_grad():
        np.asarray(x)[1] = -1


def through_a_view(x):
    x.data.reshape(2, 3)[1:, ::2].T[...] = 9


def through_a_tensor_that_shares_it(x):
    x.detach().data[2] = 7


def through_a_reshaped_tensor(x):
    x.detach().reshape(3, 2).data[2] = 7


def through_setitem(x):
    with no_grad():
        x[1:3] = 5


def through_setitem_of_a_view(x):
    with no_grad():
        x[1:3][0] = 5


def through_writable(x):
    x.writable()[...] *= 2


def through_out(x):
    np.add(x.data, 1, out=x.data)


def through_fill(x):
    x.data.fill(3)


def through_sort(x):
    x.data[::-1].sort()


WAYS = [f for name, f in list(vars().items()) if name.startswith("through_")]


@pytest.mark.parametrize("write", WAYS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("seen", [True, False], ids=["given by the user", "made by the library"])
def test_a_write_after_the_op_is_caught(write, seen):
    x = Tensor(np.arange(1.0, 7.0), requires_grad=True) if seen else made_by_library(6)
    out = np.log(x)
    write(x)
    refused("log", out)
    assert x.grad is None


@pytest.mark.parametrize("write", WAYS, ids=lambda f: f.__name__)
def test_a_write_before_the_op_or_after_backward_is_fine(write):
    x = made_by_library(6)
    x.data  # noqa: B018
    write(x)
    expected = 2 * x._data
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, expected)
    write(x)
    x.grad = None
    expected = 2 * x._data
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, expected)


@pytest.mark.parametrize("owner", ["array", "view", "bytes", "torch"])
def test_a_write_through_what_was_given_to_tensor_is_caught(owner):
    if owner == "torch":
        import torch

        theirs = torch.ones(4, dtype=torch.float64)
        x = Tensor(theirs)
    elif owner == "bytes":
        theirs = np.frombuffer(bytearray(np.ones(4).tobytes()))
        x = Tensor(np.frombuffer(theirs.base))
    else:
        theirs = np.ones((4, 2))
        x = Tensor(theirs[:, 0] if owner == "view" else theirs)
    out = np.exp(Tensor(np.ones(x.shape), requires_grad=True) * x)
    theirs[0] = 5
    refused("multiply", out)


def test_a_write_through_an_array_used_without_a_tensor_is_caught():
    x, a = Tensor(np.ones(3), requires_grad=True), np.ones(3)
    out = x * a
    a[0] = 2
    refused("multiply", out)


def test_a_write_into_an_ops_own_output_is_caught():
    for op, f in {"exp": np.exp, "tanh": np.tanh, "softmax": F.softmax, "max": lambda x: x.max(axis=0)}.items():
        y = f(Tensor(np.ones((2, 3)), requires_grad=True))
        y.data[0] = 5
        refused(op, y)


def test_the_error_tells_which_array_and_which_op():
    x, w = Tensor(np.ones((2, 3), np.float32), requires_grad=True), made_by_library(4, 3)
    w.writable()[...] = 1
    y = F.linear(x, w.astype(np.float32))
    x.data[0] = 3
    with pytest.raises(RuntimeError, match=r"^linear: .*shape \(2, 3\) and dtype float32"):
        y.sum().backward()


CONSTANTS = {
    "where": (np.array([True, False, True, True]), lambda x, c: np.where(c, x, 0.0)),
    "clip": (np.array([1.0, 0.0, 5.0, 1.0]), lambda x, c: np.clip(x, c, None)),
    "maximum": (np.array([1.0, 0.0, 5.0, 1.0]), np.maximum),
    "einsum": (np.array([1.0, 0.0, 5.0, 1.0]), lambda x, c: np.einsum("i,i->i", x, c)),
    "embedding": (np.array([1, 0, 2, 1]), lambda x, c: F.embedding(c, x.reshape(4, 1))),
    "cross_entropy": (np.array([1, 0, 2, 1]), lambda x, c: F.cross_entropy(x.reshape(4, 1) * np.ones(3), c)),
}


@pytest.mark.parametrize("op", CONSTANTS)
def test_constants_are_guarded_too(op):
    c, call = CONSTANTS[op]
    out = call(Tensor(np.arange(4.0), requires_grad=True), c)
    c[...] = c[::-1].copy() * 0
    refused(op, out)


@pytest.mark.parametrize("through", ["data", "asarray", "a tensor of data"])
def test_integers_that_were_made_here_and_read_later_are_guarded(through):
    ids = wrap(np.array([1, 0, 2, 1]))  # as np.argmax of a Tensor leaves them: no user has seen them
    out = F.embedding(ids, Tensor(np.arange(4.0).reshape(4, 1), requires_grad=True))
    seen = {
        "data": lambda: ids.data,
        "asarray": lambda: np.asarray(ids),
        "a tensor of data": lambda: Tensor(ids.data).data,
    }
    seen[through]()[...] = 3
    refused("embedding", out)


# ---- no false alarms


def test_labels_that_are_given_after_the_forward_send_no_node_looking():
    """Every batch has some; each node of the tape would go through all that it saved."""
    tokens = np.arange(12).reshape(3, 4)
    x = made_by_library(3)
    out = np.exp(x)
    Tensor(tokens[:, 1:])
    Tensor(tokens[:, :-1])  # another view of the same
    Tensor(np.arange(5))
    assert out.node.seal is guard._now
    Tensor(np.ones(3))  # floats may be a parameter's, as state_dict hands them out
    assert out.node.seal is not guard._now


def test_writes_elsewhere_do_not_matter():
    x, y = made_by_library(4), Tensor(np.ones(4), requires_grad=True)
    out = (x * x).sum()
    y.data[...] = 3
    y.writable()[...] = 4
    with no_grad():
        Tensor(np.zeros(4))[...] = 1
    np.ones(4)[...] = 2
    x.data  # noqa: B018 - looking is allowed
    out.backward()
    np.testing.assert_array_equal(x.grad, 2 * x._data)


def test_writes_into_what_no_op_needs_do_not_matter():
    x = Tensor(np.ones(4), requires_grad=True)
    y = x + 1  # needs shapes only
    z = np.exp(y)  # needs its output only
    x.data[...] = 7
    y.data[...] = 7
    z.sum().backward()
    np.testing.assert_allclose(x.grad, np.exp([2.0] * 4), rtol=1e-15, atol=0)


def test_a_write_beside_the_part_that_was_saved_does_not_matter():
    a = np.ones(6)
    x = Tensor(a[:3], requires_grad=True)
    out = (x * x).sum()
    a[3:] = 9
    out.backward()


def test_reading_a_part_and_writing_beside_what_was_saved_does_not_matter():
    x = made_by_library(8)
    out = (x[:2] * x[:2]).sum()
    part = x.detach()[6:]
    part.data[...] = 9
    out.backward()


def test_parameters_updated_in_place_step_after_step():
    w, x = made_by_library(3, 2), Tensor(np.ones((4, 3)))
    for _ in range(3):
        loss = (x @ w).sum()
        loss.backward()
        w.writable()[...] -= 0.1 * w.grad
        w.grad = None
        w.data.mean()  # someone watches
    with no_grad():
        w[...] = 0


def test_an_unchanged_write_is_no_alarm_for_arrays_in_the_users_hands():
    x = Tensor(np.ones(3), requires_grad=True)
    out = x * x
    x.data[...] = 5
    x.data[...] = 1  # and back
    out.sum().backward()


@pytest.mark.parametrize(
    "array",
    [np.ones(()), np.ones((0, 3)), np.broadcast_to(np.ones(2), (3, 2)), np.ones((3, 4))[::-2, 1::2], np.ones((2, 3)).T],
    ids=["number", "empty", "broadcast", "strided", "transposed"],
)
def test_arrays_of_every_layout_are_sealed(array):
    array = array.copy(order="K") if array.flags.writeable else array
    x = Tensor(array, requires_grad=True)
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * array)
    if array.size and array.flags.writeable:
        out = x * x
        array[...] = 4
        refused("multiply", out)


# ---- no leaks, no price


def test_entries_vanish_with_their_arrays():
    gc.collect()
    before = len(guard._written), len(guard._exposed)
    for _ in range(10):
        x = Tensor(np.ones(3), requires_grad=True)
        y = np.exp(x * np.arange(3.0))
        y.data  # noqa: B018
        x.writable()
        with no_grad():
            x[0] = 1
        np.where(np.array([True, False, True]), x, 0.0).sum().backward()
    del x, y
    assert (len(guard._written), len(guard._exposed)) == before


def test_looking_at_one_array_often_is_one_entry():
    x = made_by_library(4)
    for _ in range(5):
        x.data  # noqa: B018
        x.detach().data  # noqa: B018
    assert len(guard._exposed[id(guard._owner(x._data))].seen) == 1


def test_arrays_that_no_user_has_seen_are_never_read(monkeypatch):
    def never(array):
        raise AssertionError("a checksum was taken")

    monkeypatch.setattr(guard, "_checksum", never)
    w = made_by_library(3)
    np.exp(w * w).sum().backward()
    w.writable()[...] = 1


def test_no_python_code_runs_when_an_array_dies():
    """A Ctrl-C that arrives in a callback of a dying object is reported and ignored: generation went on."""
    x = Tensor(np.zeros(3))
    x.writable()
    called = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        del x
    finally:
        sys.setprofile(None)
    assert called == []
