"""How arrays reach the compiled loops: what does not fit is refused before a number is read; size changes nothing."""

import numpy as np
import pytest

from minilm._kernels import ranges, registry
from minilm._kernels.layout import FEW
from minilm.testing import AGAINST_REFERENCE


def layer_norm(x=None, w=None, y=None):
    """Call the loop itself, with one array replaced."""
    of = {"x": np.ones((3, 4)), "w": np.ones(4), "y": np.empty((3, 4))}
    given = {name: of[name] if a is None else a for name, a in {"x": x, "w": w, "y": y}.items()}
    loops = registry._cython_loops("layer_norm")
    loops.forward_rows(given["x"], None, given["w"], np.zeros(4), 1e-5, None, given["y"], np.empty((2, 3)), True)
    return given["y"]


UNFIT = {
    "half precision": ({"x": np.ones((3, 4), np.float16)}, TypeError, "float32 and float64; got float16"),
    "integers": ({"x": np.ones((3, 4), np.int64)}, TypeError, "got int64"),
    "the other byte order": ({"x": np.ones((3, 4)).astype(">f8")}, TypeError, "got >f8"),
    "another float": ({"w": np.ones(4, np.float32)}, ValueError, r"32 bytes here; got float32 \(4,\)"),
    "another length": ({"w": np.ones(3)}, ValueError, r"32 bytes here; got float64 \(3,\)"),
    "an output too short": ({"y": np.empty((2, 4))}, ValueError, r"96 bytes here; got float64 \(2, 4\)"),
    "steps": ({"x": np.ones((3, 8))[:, ::2]}, ValueError, "contiguous"),
    "an output to be read only": ({"y": np.broadcast_to(1.0, (3, 4)).copy(order="K")}, ValueError, "read-only"),
}
UNFIT["an output to be read only"][0]["y"].flags.writeable = False


@pytest.mark.parametrize("backend", ["cython"], indirect=True)
@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused(case, backend):
    given, error, says = UNFIT[case]
    with pytest.raises(error, match=says):
        layer_norm(**given)
    np.testing.assert_array_equal(layer_norm(), np.zeros((3, 4)))


@pytest.mark.parametrize("backend", ["numba", "cython"], indirect=True)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [FEW // 64, FEW // 64 + 1])
def test_small_and_large_arrays_are_summed_alike(rows, dtype, backend):
    rng = np.random.default_rng(0)
    x, y, dy, ds = (rng.standard_normal((rows, 64)).astype(dtype) for _ in range(4))
    w, b = rng.standard_normal((2, 64)).astype(dtype)
    for op, arrays, d, static in [
        ("layer_norm", (x, w, b), dy, {"eps": 1e-5}),
        ("add_layer_norm", (x, y, w, b), [ds, dy], {"eps": 1e-5}),
        ("rms_norm", (x, w), dy, {"eps": 1e-5}),
        ("add_rms_norm", (x, y, w), [ds, dy], {"eps": 1e-5}),
        ("bias_gelu", (x, b), dy, {"approximate": "tanh"}),
    ]:
        found = []
        for kernel in registry.load(op, "numpy"), registry.load(op, backend):
            _, saved = kernel.forward(*arrays, **static)
            found.append(kernel.backward(d, saved, (True,) * len(arrays)))
        for expected, got in zip(*found, strict=True):
            assert abs(got - expected).max() <= AGAINST_REFERENCE[dtype] * abs(expected).max(), op


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("compiled", [True, False])
def test_ids_lie_in_their_range(dtype, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(ranges, "_compiled", lambda: None)
    ids = np.array([[0, 1, 2], [4, 3, 0]], dtype)
    for given in ids, ids[:, ::-1], ids[1], ids[0, 0], ids[:0]:
        assert ranges.lie_below(given, 5)
        assert ranges.lie_below(given, 5, -1)
    assert not ranges.lie_below(ids, 4)
    assert ranges.lie_below(ids, 4, 4)
    assert not ranges.lie_below(ids, 3, 4)
    if dtype != np.uint8:
        assert not ranges.lie_below(ids - 1, 5)
        assert ranges.lie_below(ids - 1, 5, -1)
    assert ranges.lie_below(ids[:0], 0)
    assert not ranges.lie_below(ids[:1, :1], 0)
