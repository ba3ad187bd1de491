"""Groups, the tape's guard, and what is refused at the door."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from minilm import Tensor
from minilm._kernels import registry
from minilm.optim import SGD, Adam, AdamW, Optimizer, clip_factor, global_norm

from .reference import give, gradients, parameters


def parameter(*shape, dtype=np.float32):
    return Tensor(np.ones(shape, dtype), requires_grad=True)


def with_gradient(*shape):
    p = parameter(*shape)
    p.grad = np.ones(shape, np.float32)
    return p


ALL = pytest.mark.parametrize("cls", [SGD, Adam, AdamW])


@ALL
def test_groups_take_tensors_pairs_and_dicts(cls):
    p, q, r = (parameter(2) for _ in range(3))
    plain = cls(iter([p, q]), lr=0.5)
    assert plain.param_groups[0]["params"][1] is q
    assert plain.param_groups[0]["param_names"] == ["0", "1"]
    named = cls([("w", p), ("b", q)])
    assert named.param_groups[0]["param_names"] == ["w", "b"]
    given = {"params": [("w", p)], "lr": 0.25}
    groups = cls([given, {"params": [("b", q)]}, {"params": []}], lr=0.5, weight_decay=0.125)
    assert [g["lr"] for g in groups.param_groups] == [0.25, 0.5, 0.5]
    assert [g["weight_decay"] for g in groups.param_groups] == [0.125] * 3
    groups.add_param_group({"params": r, "weight_decay": 0})
    assert groups.param_groups[3]["param_names"] == ["2"]
    assert given == {"params": [("w", p)], "lr": 0.25}
    assert "3 parameters" not in repr(groups)
    assert "weight_decay=0.125" in repr(groups)


@ALL
def test_parameters_without_gradient_are_skipped(cls):
    p, q = with_gradient(2), parameter(2)
    optimizer = cls([p, q])
    optimizer.step()
    assert (p.data != 1).all()
    assert (q.data == 1).all()
    assert "1" not in optimizer.state
    optimizer.zero_grad()
    assert p.grad is None
    q.requires_grad = False  # frozen later
    optimizer.zero_grad()
    optimizer.step()


@ALL
def test_numpy_numbers_as_options_do_not_promote(cls):
    p = with_gradient(2)
    optimizer = cls([p], lr=np.float64(0.1))
    optimizer.param_groups[0]["lr"] = np.array(0.2)
    optimizer.step(grad_scale=np.float64(0.5))
    assert p.dtype == np.float32
    q = with_gradient(2)
    other = cls([q], lr=Fraction(1, 5))
    assert type(other.param_groups[0]["lr"]) is float
    other.step(grad_scale=0.5)
    np.testing.assert_array_equal(p.data, q.data)


@ALL
def test_a_gradient_left_on_the_tape_is_taken(cls):
    p, q = with_gradient(2), with_gradient(2)
    p.grad = Tensor(p.grad)
    for one in p, q:
        cls([one]).step()
    np.testing.assert_array_equal(p.data, q.data)


@ALL
@pytest.mark.parametrize("array", [list, np.array], ids=["the library's own array", "an array of the user's"])
def test_a_step_between_forward_and_backward_is_caught(cls, array):
    p, x = (Tensor(array([1.0, 2.0, 3.0]), requires_grad=True) for _ in range(2))
    y = (p * x).sum()
    p.grad = np.ones(3)
    cls([p]).step()
    with pytest.raises(RuntimeError, match="multiply"):
        y.backward()
    (p * x).sum().backward()  # a forward pass after the step is fine


@ALL
def test_nothing_is_written_when_one_gradient_is_wrong(cls):
    p, q = with_gradient(2), with_gradient(2)
    optimizer = cls([p, q])
    q.node.grad = np.ones(2)  # past the setter, which casts
    with pytest.raises(
        TypeError, match=r"gradient of parameter 1 must have the parameter's dtype float32, got float64"
    ):
        optimizer.step()
    q.grad = np.ones(2, np.float32)
    q.data = np.ones((2, 2), np.float32)
    with pytest.raises(
        ValueError, match=r"gradient of parameter 1 must have the parameter's shape \(2, 2\), got \(2,\)"
    ):
        optimizer.step()
    q.data = np.ones(2, np.float32)
    q.data.flags.writeable = False
    with pytest.raises(ValueError, match="parameter 1 must be writable"):
        optimizer.step()
    q.node.grad = [1.0, 1.0]
    with pytest.raises(TypeError, match=r"gradient of parameter 1 must be an array, got \[1.0, 1.0\]"):
        optimizer.step()
    assert (p.data == 1).all()
    assert not optimizer.state


@pytest.mark.parametrize("cls", [Adam, AdamW, partial(SGD, momentum=0.9)])
@pytest.mark.parametrize("new", [np.ones(3, np.float32), np.ones(2)], ids=["shape", "dtype"])
def test_a_parameter_keeps_its_shape_and_dtype(cls, new):
    p = with_gradient(2)
    optimizer = cls([p])
    optimizer.step()
    p.data = new
    p.node.grad = np.ones_like(new)
    with pytest.raises(
        ValueError, match=r"parameter 0 must stay float32 of shape \(2,\) .*, got .* Make a new optimizer"
    ):
        optimizer.step()
    assert (p.data == 1).all()


def computed():
    return parameter(2) * 2


TWICE = parameter(2)
REFUSED = {
    "negative lr": (lambda c: c([parameter(2)], lr=-0.1), ValueError, "lr must be 0 or more, got -0.1"),
    "lr of text": (lambda c: c([parameter(2)], lr="0.1"), TypeError, "lr must be a number, got '0.1'"),
    "lr of many": (lambda c: c([parameter(2)], lr=np.ones(2)), TypeError, "lr must be a number"),
    "nan lr": (lambda c: c([parameter(2)], lr=float("nan")), ValueError, "lr must be finite, got nan"),
    "decay": (lambda c: c([parameter(2)], weight_decay=-1), ValueError, "weight_decay must be 0 or more, got -1"),
    "empty": (lambda c: c([]), ValueError, "got an empty list"),
    "empty groups": (lambda c: c([{"params": []}]), ValueError, "got an empty list"),
    "array": (lambda c: c([np.ones(2)]), TypeError, r"must be Tensors or \(name, Tensor\) pairs, got array"),
    "tensor": (lambda c: c(parameter(2)), TypeError, "must be a list of Tensors.*got a Tensor. Try"),
    "dict": (lambda c: c({"params": [parameter(2)]}), TypeError, "must be a list.*got a dict"),
    "set": (lambda c: c([{"params": {parameter(2)}}]), TypeError, "an order that lasts"),
    "mixed": (lambda c: c([{"params": [parameter(2)]}, parameter(2)]), TypeError, "a group must be a dict"),
    "no params": (lambda c: c([{"lr": 1.0}]), TypeError, 'a group must be a dict with "params"'),
    "frozen": (lambda c: c([Tensor(np.ones(2))]), ValueError, "parameter 0 must require a gradient"),
    "computed": (lambda c: c([("w", computed())]), ValueError, "parameter w must require .* computed from others"),
    "twice": (lambda c: c([TWICE, TWICE]), ValueError, "1 is 0 again"),
    "two groups": (lambda c: c([{"params": [("a", TWICE)]}, {"params": [("b", TWICE)]}]), ValueError, "b is a again"),
    "one name": (lambda c: c([("w", parameter(2)), ("w", parameter(2))]), ValueError, "names must differ, got w"),
    "no name": (lambda c: c([(1, parameter(2))]), TypeError, "name of a parameter must be a string, got 1"),
    "option": (lambda c: c([{"params": [parameter(2)], "weightdecay": 0}]), ValueError, "Did you mean 'weight_decay'?"),
    "group lr": (lambda c: c([{"params": [parameter(2)], "lr": -1}]), ValueError, "lr must be 0 or more"),
    "scale": (lambda c: c([parameter(2)]).step(grad_scale=float("inf")), ValueError, "grad_scale must be finite"),
}


@ALL
@pytest.mark.parametrize("case", REFUSED)
def test_refused(cls, case):
    build, error, message = REFUSED[case]
    with pytest.raises(error, match=f"^{cls.__name__}: .*{message}"):
        build(cls)


@pytest.mark.parametrize("cls", [Adam, AdamW])
@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, 1.5)])
def test_betas_out_of_range(cls, betas):
    with pytest.raises(ValueError, match=r"betas\[[01]\] must be at least 0 and below 1, got"):
        cls([parameter(2)], betas=betas)
    with pytest.raises(TypeError, match="betas must be a pair"):
        cls([parameter(2)], betas=0.9)
    with pytest.raises(ValueError, match="eps must be 0 or more, got -1"):
        cls([parameter(2)], eps=-1)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_momentum(options):
    with pytest.raises(ValueError, match="nesterov needs momentum above 0 and dampening 0, got"):
        SGD([parameter(2)], nesterov=True, **options)
    with pytest.raises(ValueError, match="momentum must be 0 or more"):
        SGD([parameter(2)], momentum=-0.1)
    with pytest.raises(TypeError, match="nesterov must be True or False, got 'yes'"):
        SGD([parameter(2)], momentum=0.9, nesterov="yes")


@ALL
def test_options_changed_by_hand_are_checked_at_the_step(cls):
    p = with_gradient(2)
    optimizer = cls([p])
    group = optimizer.param_groups[0]
    group["lr"] = -1
    with pytest.raises(ValueError, match="lr must be 0 or more, got -1"):
        optimizer.step()
    group["lr"] = 1
    group["learning_rate"] = 1
    with pytest.raises(ValueError, match=r"options of a group are lr, .* got 'learning_rate'"):
        optimizer.step()
    del group["learning_rate"], group["weight_decay"]
    with pytest.raises(ValueError, match="a group must have every option, got no weight_decay"):
        optimizer.step()
    assert (p.data == 1).all()


def test_no_rule_is_made_from_another():
    for cls in (SGD, Adam, AdamW):
        assert cls.__bases__ == (Optimizer,)
    with pytest.raises(TypeError):
        Optimizer([parameter(2)])


def test_adam_and_adamw_agree_without_decay(backend):
    ours, theirs = parameters(np.float32), parameters(np.float32)
    pair = Adam(ours.items()), AdamW(theirs.items(), weight_decay=0.0)
    for grads in gradients(np.float32):
        give(ours, grads)
        give(theirs, grads)
        for optimizer in pair:
            optimizer.step()
    for name, p in ours.items():
        np.testing.assert_array_equal(p.data, theirs[name].data)


@pytest.mark.parametrize("cls", [Adam, AdamW])
def test_one_call_of_a_kernel_for_a_whole_group_and_for_the_norm(cls, monkeypatch):
    params = [with_gradient(i % 3, 2) for i in range(10)]
    optimizer = cls([{"params": params[:6]}, {"params": params[6:], "lr": 0.1}, {"params": parameter(2)}])
    asked, kernel = [], registry.kernel
    monkeypatch.setattr(registry, "kernel", lambda op: asked.append(op) or kernel(op))
    for _ in range(2):
        optimizer.step(grad_scale=clip_factor(global_norm(params), 1.0))
    assert asked == ["sum_of_squares", "adamw", "adamw"] * 2
