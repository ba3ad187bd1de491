"""A run that is saved, restored and continued ends with the same bits; what does not fit is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as write_arrays

from minilm import Tensor
from minilm.optim import SGD, Adam, AdamW

from .reference import STEPS, give, gradients, in_groups, parameters, set_lr

RULES = {
    "sgd": (SGD, {}, {}),
    "momentum": (SGD, {"momentum": 0.9, "nesterov": True}, {"nesterov": False}),
    "adam": (Adam, {"betas": (0.9, 0.95), "weight_decay": 0.1}, {"eps": 1e-3}),
    "adamw": (AdamW, {"lr": 1 / 3, "weight_decay": 0.1}, {"weight_decay": 0.0}),
}


def run(optimizer, params, steps, dtype):
    for step, grads in enumerate(gradients(dtype)):
        if step in steps:
            give(params, grads)
            set_lr(optimizer, step)
            optimizer.step(grad_scale=0.7)


def through_files(saved):
    arrays = {key: value for key, value in saved.items() if isinstance(value, np.ndarray)}
    rest = {key: value for key, value in saved.items() if key not in arrays}
    return read_arrays(write_arrays(arrays)) | json.loads(json.dumps(rest))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("middle", [0, 2, 13])
@pytest.mark.parametrize("rule", RULES)
def test_restored_is_uninterrupted(rule, middle, dtype, backend):
    cls, options, second = RULES[rule]
    params = parameters(dtype)
    optimizer = cls(in_groups(params, **second), **options)
    run(optimizer, params, range(middle), dtype)
    saved = through_files(optimizer.state_dict(copy=False))
    weights = {name: p.data.copy() for name, p in params.items()}
    run(optimizer, params, range(middle, STEPS), dtype)

    again = {name: Tensor(weights[name], requires_grad=True) for name in params}
    restored = cls(in_groups(again))  # its options come from what was saved
    restored.load_state_dict(saved)
    run(restored, again, range(middle, STEPS), dtype)
    for name, p in params.items():
        np.testing.assert_array_equal(again[name].data, p.data, strict=True)
    for mine, theirs in zip(restored.param_groups, optimizer.param_groups, strict=True):
        assert {k: v for k, v in mine.items() if k != "params"} == {k: v for k, v in theirs.items() if k != "params"}
    assert_same(restored.state_dict(), optimizer.state_dict())


def assert_same(left, right):
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert type(value) is type(right[key])
        np.testing.assert_array_equal(value, right[key], strict=True)


def trained():
    params = parameters(np.float32)
    optimizer = AdamW(in_groups(params, weight_decay=0.0), weight_decay=0.1)
    run(optimizer, params, range(5), np.float32)
    return optimizer, params


@pytest.mark.parametrize("rule", RULES)
def test_numbers_may_come_back_as_arrays(rule):
    cls, options, second = RULES[rule]
    params = parameters(np.float32)
    optimizer = cls(in_groups(params, **second), **options)
    run(optimizer, params, range(3), np.float32)
    saved = optimizer.state_dict()
    restored = cls(in_groups(params))
    restored.load_state_dict({key: np.asarray(value) for key, value in saved.items()})
    assert_same(restored.state_dict(), saved)


def test_what_is_saved_is_named_after_the_parameters():
    optimizer, params = trained()
    saved = optimizer.state_dict()
    assert saved["options.0.weight_decay"] == 0.1
    assert saved["options.1.betas.1"] == 0.999
    assert saved["group.ln_f"] == 1
    assert saved["step.wte.weight"] == 5
    assert saved["step.h.0.bias"] == 2  # had no gradient three times
    assert saved["exp_avg.wte.weight"].shape == params["wte.weight"].shape
    assert all(type(value) in (np.ndarray, int, float) for value in saved.values())


@pytest.mark.parametrize("rule", RULES)
def test_what_is_saved_is_a_copy_and_so_is_what_is_loaded(rule):
    cls, options, second = RULES[rule]
    params = parameters(np.float32)
    optimizer = cls(in_groups(params, **second), **options)
    run(optimizer, params, range(5), np.float32)
    saved = optimizer.state_dict()
    before = {key: np.copy(value) for key, value in saved.items()}
    run(optimizer, params, range(5, 8), np.float32)
    optimizer.load_state_dict(saved)
    run(optimizer, params, range(5, 8), np.float32)
    for key, value in before.items():
        np.testing.assert_array_equal(saved[key], value)
    if optimizer.state["scale"]:
        own = optimizer.state_dict(copy=False)
        slot = next(s for s, kind in cls.slots.items() if kind is np.ndarray)
        assert own[f"{slot}.scale"] is optimizer.state["scale"][slot]


def changed(**changes):
    def change(saved):
        for key, value in changes.items():
            if value is None:
                del saved[key]
            else:
                saved[key] = value
        return saved

    return change


BAD = {
    "other class": ({"optimizer.AdamW": None, "optimizer.SGD": 1}, "must have been saved by AdamW, got that of SGD"),
    "not a state": ({"optimizer.AdamW": None}, "got that of something else"),
    "layout": ({"optimizer.AdamW": 2}, "must be of layout 1, got 2"),
    "missing parameter": ({"group.ln_f": None}, "parameters must be those of this optimizer; .* there is no ln_f"),
    "more parameters": ({"group.other": 0}, "there is also other"),
    "both": ({"group.ln_f": None, "group.other": 0}, "there is no ln_f and also other"),
    "other group": ({"group.ln_f": 0}, "ln_f must be in group 0 as it was saved, got group 1"),
    "fewer options": ({"options.1.betas.0": None}, r"options must be those of 2 groups; .* no options\.1\.betas\.0"),
    "more groups": ({"options.2.lr": 0.1}, r"there is also options\.2\.lr"),
    "bad option": ({"options.0.lr": -1.0}, "lr must be 0 or more, got -1"),
    "half a state": ({"exp_avg.ln_f": None}, "state of ln_f must hold step, exp_avg, exp_avg_sq, got no exp_avg"),
    "shape": ({"exp_avg.ln_f": np.zeros((2, 2), np.float32)}, r"exp_avg of ln_f must be float32 of shape \(1,\)"),
    "dtype": ({"exp_avg.ln_f": np.zeros(1)}, r"of shape \(1,\), got float64 of shape \(1,\)"),
    "no array": ({"exp_avg.ln_f": 3.0}, r"exp_avg of ln_f must be float32 of shape \(1,\), got 3.0"),
    "count": ({"step.ln_f": 2.5}, "step of ln_f must be a whole number from 1 on, got 2.5"),
    "no count": ({"step.ln_f": 0}, "step of ln_f must be a whole number from 1 on, got 0"),
    "nan count": ({"step.ln_f": float("nan")}, "step of ln_f must be a whole number from 1 on, got nan"),
    "stray": ({"exp_avg.other": np.zeros(1)}, "must belong to a parameter; .* also exp_avg.other"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_and_changes_nothing(case):
    optimizer, _ = trained()
    before = optimizer.state_dict()
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=f"^AdamW: .*{message}"):
        optimizer.load_state_dict(changed(**changes)(optimizer.state_dict()))
    assert_same(optimizer.state_dict(), before)


def test_the_state_keeps_the_layout_of_its_parameter():
    p = Tensor(np.asfortranarray(np.ones((3, 2), np.float32)), requires_grad=True)
    p.grad = np.ones((3, 2), np.float32)
    optimizer = AdamW([p])
    optimizer.step()
    restored = AdamW([p])
    restored.load_state_dict(optimizer.state_dict())
    assert restored.state["0"]["exp_avg"].strides == p.data.strides == optimizer.state["0"]["exp_avg"].strides


@pytest.mark.parametrize("cls", [Adam, AdamW])
def test_moments_of_parameters_that_start_together_lie_end_to_end(cls):
    shapes = {"w": (3, 2), "late": (4,), "empty": (0, 3), "b": (), "f": (2, 3)}
    params = {name: Tensor(np.ones(shape, np.float32), requires_grad=True) for name, shape in shapes.items()}
    params["f"].data = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    params["d"] = Tensor(np.ones(5), requires_grad=True)
    optimizer = cls(params.items())
    for name in ("w", "empty", "b", "f", "d"):
        params[name].grad = np.full(params[name].shape, 2.0)
    optimizer.step()
    params["late"].grad = np.ones(4)
    optimizer.step()

    def check(optimizer, together, alone):
        for slot in ("exp_avg", "exp_avg_sq"):
            kept = {name: state[slot] for name, state in optimizer.state.items()}
            buffer = kept["w"].base
            assert buffer.shape == (sum(kept[name].size for name in together),)
            np.testing.assert_array_equal(np.concatenate([kept[name].ravel(order="K") for name in together]), buffer)
            assert not any(np.shares_memory(kept[name], buffer) for name in alone)
            assert kept["f"].strides == params["f"].data.strides

    check(optimizer, ["w", "empty", "b", "f"], ["late", "d"])
    restored = cls(params.items())
    restored.load_state_dict(optimizer.state_dict())
    check(restored, ["w", "late", "empty", "b", "f"], ["d"])
    assert_same(restored.state_dict(), optimizer.state_dict())
