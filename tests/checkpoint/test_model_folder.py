import stat

import numpy as np
import pytest

from minilm.checkpoint import CheckpointError, load_model, save_model

CONFIG = {"model_type": "gpt2", "n_layer": 1}
WEIGHTS = {"transformer.wte.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_round_trip(tmp_path):
    save_model(tmp_path / "model", CONFIG, WEIGHTS)
    config, weights = load_model(tmp_path / "model")
    assert config == CONFIG
    np.testing.assert_array_equal(weights["transformer.wte.weight"], WEIGHTS["transformer.wte.weight"])
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_others_may_read_it(tmp_path):
    save_model(tmp_path, CONFIG, WEIGHTS)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1


def test_torch_reads_it(tmp_path):
    import torch
    from safetensors.torch import load_file

    save_model(tmp_path, CONFIG, WEIGHTS)
    found = load_file(tmp_path / "model.safetensors")["transformer.wte.weight"]
    assert torch.equal(found, torch.from_numpy(WEIGHTS["transformer.wte.weight"]))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 60, -1])
def test_a_file_cut_short(tmp_path, cut):
    save_model(tmp_path, CONFIG, WEIGHTS)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(
        CheckpointError,
        match=r"model\.safetensors: (the file|the header's length|tensor .*wte.weight.: data_offsets) must ",
    ):
        load_model(tmp_path)


def test_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"a model must be a folder; got .*nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"without it; train one, or go on"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="must be a JSON object; got list"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: the file must be JSON; got Expecting"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"the folder must hold one of model\.safetensors, .*; got none of them"):
        load_model(tmp_path)
