import errno
import json
import os

import numpy as np
import pytest

from minilm.checkpoint import CheckpointError, clean, load, newest, save, steps

STATE = {"place": {"state": 2**127 + 1}, "loss": 0.1, "none": None}


def arrays(step):
    w = np.arange(6, dtype=np.float32).reshape(2, 3) + step
    return {"model": {"w": w, "transposed": w.T}, "optimizer": {"m": w.astype(np.float64)}}


def saved(folder, *at, keep=9):
    for step in at:
        save(folder, step, arrays(step), STATE, keep)


def test_round_trip(tmp_path):
    saved(tmp_path, 7)
    found = newest(tmp_path)
    assert found.step == 7
    assert found.state == STATE
    for group, members in arrays(7).items():
        for name, array in members.items():
            assert found.arrays[group][name].dtype == array.dtype
            np.testing.assert_array_equal(found.arrays[group][name], array)


def test_same_state_same_bytes(tmp_path):
    saved(tmp_path / "a", 1)
    save(tmp_path / "b", 1, {name: dict(reversed(group.items())) for name, group in arrays(1).items()}, STATE)
    for file in (tmp_path / "a/step-00000001").iterdir():
        assert file.read_bytes() == (tmp_path / "b/step-00000001" / file.name).read_bytes()


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 30, 100_000_000, keep=2)
    assert steps(tmp_path) == [30, 100_000_000]
    assert newest(tmp_path).step == 100_000_000
    assert len(list(tmp_path.iterdir())) == 2


def test_none_yet(tmp_path):
    assert newest(tmp_path / "nowhere") is None


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def missing(file):
    file.unlink()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip, empty, missing])
def test_damage_is_named_and_the_way_back_told(tmp_path, name, damage):
    saved(tmp_path, 5, 10, 15)
    damage(tmp_path / "step-00000015" / name)
    with pytest.raises(CheckpointError) as error:
        newest(tmp_path)
    text = str(error.value)
    assert "step-00000015 must be as it was written; got " in text
    assert name in text
    assert f"go back to step 10: rm -r {tmp_path}/step-00000015" in text
    assert load(tmp_path, 10).step == 10
    damage(tmp_path / "step-00000010" / name)
    with pytest.raises(CheckpointError, match="go back to step 5"):
        newest(tmp_path)


def test_nothing_to_go_back_to(tmp_path):
    saved(tmp_path, 5)
    empty(tmp_path / "step-00000005/state.json")
    with pytest.raises(CheckpointError, match="begin anew with --overwrite"):
        newest(tmp_path)


def test_one_with_another_name_is_broken(tmp_path):
    saved(tmp_path, 5)
    (tmp_path / "step-00000005").rename(tmp_path / "step-00000009")
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        newest(tmp_path)


@pytest.mark.parametrize("call", range(6))  # three files, the manifest, their folder, and after the renaming its folder
def test_full_disk_leaves_the_older_ones_whole(tmp_path, monkeypatch, call):
    saved(tmp_path, 1)
    left = iter(range(call))
    fsync = os.fsync

    def full(handle):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError) as error:
        saved(tmp_path, 2)
    monkeypatch.undo()
    assert "must fit on the disk; got: No space left on device; make room" in str(error.value)
    assert not list(tmp_path.glob(".*"))
    assert newest(tmp_path).step == (1 if call < 5 else 2)
    assert load(tmp_path, 1).state == STATE


def test_what_a_kill_leaves_is_no_checkpoint(tmp_path):
    saved(tmp_path, 1)
    for name in (".step-00000002.partial", ".step-00000001.old.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    assert steps(tmp_path) == [1]
    clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_manifest_has_sizes_and_sums(tmp_path):
    saved(tmp_path, 3)
    manifest = json.loads((tmp_path / "step-00000003/manifest.json").read_text())
    assert set(manifest["files"]) == {"model.safetensors", "optimizer.safetensors", "state.json"}
