"""Models by their name on a hub, against a small server on localhost; each fetch in a process of its own."""

import os
import subprocess
import sys

import pytest
import transformers

from tests.models.judge import checkpoint
from tests.pretrained.hub_server import COMMIT, serving

FETCH = """
import sys
from minilm.pretrained import hub
for name in sys.argv[1:]:
    try:
        found = hub.fetch(name)
        files = sorted(str(f.relative_to(found)) for f in found.rglob("*") if f.is_file())
        print(found.name if found.is_dir() else found.read_text(), *files)
    except ValueError as error:
        print(error)
"""
LOAD = """
import sys
import numpy as np
import minilm
for path in sys.argv[1:]:
    with minilm.no_grad():
        print(minilm.load(path)(np.array([[3, 1, 4]])).logits.data.tobytes().hex())
"""
SMALL = {"config.json": "{}", "tokenizer.json": "{}", "vocab.txt": "a", "1_Pooling/config.json": "{}"}
BESIDES = {"README.md": "read me", "tf_model.h5": "weights of another library", "onnx/model.onnx": "and of another"}
SHARDS = {"model.safetensors.index.json": "{}", "model-00001-of-00001.safetensors": "shard"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with a few repositories; returns fetch(name, ...) -> lines, and the requests that came."""
    contents = {
        "org/both": {**SMALL, **BESIDES, "model.safetensors": "safe", "pytorch_model.bin": "pickle"},
        "org/shards": {**SMALL, **BESIDES, **SHARDS, "pytorch_model.bin": "pickle"},
        "org/pickle": {**SMALL, **BESIDES, "pytorch_model.bin": "pickle"},
        "org/files": {"README.md": "read me", "small.Q4_0.gguf": "gguf", "large.Q8_0.gguf": "gguf"},
    }
    for name, files in contents.items():
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    names = *contents, "org/real"
    small = {"vocab_size": 37, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
    checkpoint(tmp_path / "org/real", transformers.GPT2LMHeadModel, transformers.GPT2Config(**small))
    with serving({name: tmp_path / name for name in names}) as (address, requests):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}

        def fetch(*arguments, code=FETCH, **changes):
            command = [sys.executable, "-c", code, *arguments]
            done = subprocess.run(command, env={**environment, **changes}, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines()

        yield fetch, requests


def test_models_are_found_fetched_and_kept(hub):
    fetch, requests = hub
    small = {"config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json"}
    both, shards, pickle, file, files, none = fetch(
        *("org/both", "org/shards", "org/pickle", "org/files/small.Q4_0.gguf", "org/files", "org/none")
    )
    assert set(both.split()) == {COMMIT, *small, "model.safetensors"}
    assert set(shards.split()) == {COMMIT, *small, *SHARDS}
    assert set(pickle.split()) == {COMMIT, *small, "pytorch_model.bin"}
    assert file == "gguf"
    assert "choose a GGUF file as ORGANISATION/NAME/FILE" in files
    assert "'org/none' must be a folder, a file, or a model on the hub; got: no model of that name" in none
    requests.clear()
    assert fetch("org/both") == [both]
    assert not [r for r in requests if r.startswith("GET org/")]  # asked whether it has changed, not fetched again
    requests.clear()
    for changes in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):  # nobody listens there
        again, none = fetch("org/both", "org/none", **changes)
        assert again == both
        assert "no connection, and it is not in the cache" in none
    assert not requests


def test_a_model_is_loaded_by_its_name(hub, tmp_path):
    fetch, _ = hub
    by_name, by_folder = fetch("org/real", str(tmp_path / "org/real"), code=LOAD)
    assert by_name == by_folder
    assert fetch("org/real", code=LOAD, HF_HUB_OFFLINE="1") == [by_folder]
