"""Benchmarks do not rot: each side computes the same, the command runs, and nothing that it starts outlives it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import minilm
from benchmarks import kernels, overhead, sides, torch_gpt, train_step
from minilm._kernels import registry
from minilm.testing import AGAINST_PYTORCH, SIZES, assert_close, ids

ROOT = Path(__file__).parent.parent
LOSSES = 4.21274, 4.22910, 4.22012, 4.20878, 4.19306  # of PyTorch, the batch whole


def run(tmp_path, *arguments):
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", *arguments, "--threads", "1", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize("parts", [1, 3])
def test_a_training_step(parts, tmp_path):
    found = run(
        tmp_path,
        "benchmarks.train_step",
        "--sides",
        "torch-eager",
        "--steps",
        "1",
        "--rounds",
        "1",
        "--parts",
        str(parts),
    )
    ours, theirs = found["sides"]["minilm"], found["sides"]["torch-eager"]
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=2e-4)
    assert ours["losses"] == pytest.approx(LOSSES, rel=2e-4)  # of a whole batch or of its parts
    assert found["better"] == {"torch out of the box": "torch-eager"}
    assert found["ratio"] == {"torch-eager": [ours["step"][0] / theirs["step"][0]]}
    for side in (ours, theirs):
        phases = [side[phase][0] for phase in ("forward", "backward", "optimizer")]
        assert min(phases) > 0
        assert sum(phases) == pytest.approx(side["step"][0])  # of one step, which is its own median
        assert 0 < side["share of sgemm"][0] < 1
        assert side["peak"][0] > 20  # megabytes: NumPy alone takes more
        assert side["tokens per second"][0] == pytest.approx(12 * 64 / side["step"][0])


def test_a_step_op_by_op(tmp_path):
    """Nothing is counted twice: what was timed are the kernels of one step, and they fit into it."""
    found = run(tmp_path, "benchmarks.profile", "--steps", "3")
    calls = {op: {way: it["calls"] for way, it in ways.items()} for op, ways in found["ops"].items()}
    assert calls["linear"] == {"forward": 12, "backward": 12}  # three a block, and four blocks
    assert calls["add_layer_norm"] == {"forward": 8, "backward": 8}
    assert calls["adamw"] == {"forward": 1}
    seconds = sum(it["seconds"] for ways in found["ops"].values() for it in ways.values())
    assert 0.5 * found["step"] < seconds < found["step"]


def test_an_op(tmp_path):
    (row,) = run(tmp_path, "benchmarks.kernels", "rms_norm", "--backend", "auto", "--rounds", "1")["rows"]
    assert row["row"] == "rms_norm gpt2"
    for side in ("auto", "numpy", "torch"):
        assert row["seconds"][side][0] > 0
        assert row["grown"][side] > 2 * 2048 * 768 * 4 / 1e6  # the output and the gradient of x, at least


def test_floating_point_operations_are_those_that_pytorch_counts():
    layers, heads, C, T, B, V, *more = train_step.SIZES["nanogpt-cpu"]
    model = torch_gpt.GPT(layers, heads, C, T, B, V, *more)
    data = torch.from_numpy(train_step.batches("nanogpt-cpu", 1)[0])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*data).backward()
    counted = {op.__name__.split(".")[0]: n for op, n in counter.get_flop_counts()["Global"].items()}
    assert set(counted) == {"mm", "bmm"}
    assert train_step.flops("nanogpt-cpu") == counted["mm"] + counted["bmm"] / 2  # causality hides half


def small(what):
    """The same array with no axis longer than 5."""
    if isinstance(what, ids):
        return ids(small(what.shape), min(what.high, 5))
    return None if what is None else tuple(min(n, 5) for n in what)


ODD = {op: next(size for size in SIZES[op] if size.startswith("odd")) for op in registry.OPS if op != "attention"}
ROWS = {f"{op} {size}": (op, *SIZES[op][size]) for op, size in ODD.items()} | {
    name: (op, {key: small(what) for key, what in arrays.items()}, static)
    for name, (op, arrays, static) in (kernels.table() | {"bert": ("attention", *SIZES["attention"]["bert"])}).items()
    if op in registry.OPS + registry.UPDATES
}


@pytest.mark.parametrize("row", ROWS)
def test_both_sides_compute_the_same(row):
    """Also where entries are dropped, and PyTorch is timed with other ones than it is compared with."""
    got, expected = (kernels.runner(side, *ROWS[row])[1]() for side in ("auto", "torch"))
    assert len(got) == len(expected) > 1
    for a, b in zip(got, expected, strict=True):
        assert_close(np.asarray(a), b, AGAINST_PYTORCH[np.float32], row)
    kernels.runner("torch", *ROWS[row])[0]()  # what is timed runs, too


def test_the_table_holds_gpt2():
    assert sum(int(np.prod(shape)) for shape in kernels.GPT2) == 124_439_808  # of the published gpt2


def test_small_ops_compute_the_same():
    ours, _ = overhead.minilm_ops(minilm.get_num_threads())
    theirs, array = overhead.torch_ops(torch.get_num_threads())
    for name, (x, function) in ours.items():
        y, its = theirs[name]
        out, want = function(x), its(y)
        assert_close(out.data, want.detach().numpy(), AGAINST_PYTORCH[np.float32], name)
        out.backward(np.ones(out.shape, np.float32))
        want.backward(array(np.ones(out.shape, np.float32)))
        assert_close(x.grad, y.grad.numpy(), AGAINST_PYTORCH[np.float32], name)
        x.grad = y.grad = None


def test_a_side_that_dies_ends_them_all(monkeypatch):
    monkeypatch.chdir(ROOT)
    missing = ["minilm", "--weights", "no such file"]
    with (
        pytest.raises(SystemExit, match="The side second died with exit status 1"),
        sides.started("benchmarks.train_step", {"first": missing, "second": missing}, 1) as running,
    ):
        running["second"].ask(1)
    assert all(side.process.returncode is not None for side in running.values())
