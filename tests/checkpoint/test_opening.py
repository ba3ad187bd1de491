"""What is opened, and at what cost: formats by their contents, and no second copy in memory."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from minilm.checkpoint import CheckpointError, open_weights, save_model


def test_formats_by_content_not_by_name(tmp_path):
    x = torch.arange(6.0).reshape(2, 3)
    save_file({"x": x}, tmp_path / "a.bin")
    torch.save({"x": x}, tmp_path / "b.safetensors")
    torch.save({"x": x}, tmp_path / "c.gguf", _use_new_zipfile_serialization=False)
    for name, format in (("a.bin", "safetensors"), ("b.safetensors", "pytorch"), ("c.gguf", "pytorch")):
        weights = open_weights(tmp_path / name)
        assert weights.format == format
        np.testing.assert_array_equal(weights["x"].read(), x.numpy())


def test_what_is_none_of_them(tmp_path):
    for data in (b"", b"\0" * 100, b"hello", os.urandom(64)[:7] + b"\0" * 60, b"{}", b"\x80\4.", b"GGUF", b"PK\3\4"):
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(CheckpointError, match=f"^{tmp_path / 'a'}: "):
            open_weights(tmp_path / "a")
    with pytest.raises(CheckpointError, match="the path must lead to a file; got none"):
        open_weights(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"the folder must hold one of model\.safetensors, .*; got none of them"):
        open_weights(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(CheckpointError, match="the path must lead to a file; got something else"):
        open_weights(tmp_path / "a")


def test_errors_carry_no_control_characters(tmp_path):
    name = "a\\u001b[31m\\n" + "b" * 1000
    header = f'{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,3]}}}}'.encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(3))
    with pytest.raises(CheckpointError) as error:
        open_weights(tmp_path / "a")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


TOUCHED = """
import sys
import numpy, ml_dtypes
from minilm.checkpoint import open_weights

def anonymous():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

before = anonymous()
weights = open_weights(sys.argv[1])
arrays = {name: entry.read() for name, entry in weights.items()}
total = sum(float(array.reshape(-1)[::512].astype("f4").sum()) for array in arrays.values())
read = anonymous() - before
for array in arrays.values():
    array.reshape(-1)[::512] += 1  # every page is written to
print(read, anonymous() - before, sum(entry.nbytes for entry in weights.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is measured in Linux's /proc")
@pytest.mark.parametrize("form", ["safetensors", "shards", "zip", "legacy"])
def test_memory_grows_by_the_file_at_most(tmp_path, form):
    tensors = {
        f"t{i}": torch.ones(1 << 20, dtype=dtype) for i, dtype in enumerate([torch.float32, torch.bfloat16] * 11)
    }
    path = tmp_path / "model"
    if form == "safetensors":
        save_file(tensors, path)
    elif form == "shards":
        path = tmp_path
        save_model(path, {}, {name: tensor.float().numpy() for name, tensor in tensors.items()}, 20_000_000)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    done = subprocess.run([sys.executable, "-c", TOUCHED, path], capture_output=True, text=True, check=True)
    read, written, size = map(int, done.stdout.split())
    assert size > 60_000_000
    assert written < 1.1 * size
    assert read < (1.1 if form == "legacy" else 0.05) * size  # legacy files are not aligned, and are copied
