import dataclasses
import json
import math

import numpy as np
import pytest

from minilm import config as configuration
from minilm import use_backend
from minilm.checkpoint import CheckpointError, load, load_model, steps
from minilm.config import ConfigError
from minilm.data import DataError
from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel
from minilm.tasks import causal_lm
from minilm.text import Tokenizer
from minilm.train import curves, loop, run
from minilm.train.stopping import Diverged

from .small import log_of, small


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Say nothing, and draw nothing but where a test asks for it: matplotlib takes a second to load."""
    monkeypatch.setattr(loop.Reporter, "note", lambda self, text: None)
    if not hasattr(quiet, "draw"):
        quiet.draw = curves.draw
    monkeypatch.setattr(curves, "draw", lambda *args: False)


def test_the_run_folder_is_a_model_folder(tmp_path):
    config = small(tmp_path)
    result = run(config)
    names = {path.name for path in config.folder.iterdir()}
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "log.jsonl"}
    assert names == expected | {"train.toml", "tokens.bin", "checkpoints"}
    assert steps(config.folder / "checkpoints") == [35, 40]
    assert configuration.read(config.folder / "train.toml") == config

    settings, weights = load_model(config.folder)
    assert settings["architectures"] == ["GPT2LMHeadModel"]
    assert (settings["model_type"], settings["n_positions"], settings["n_layer"]) == ("gpt2", 8, 1)
    tokenizer = Tokenizer.load(config.folder)
    assert settings["vocab_size"] == tokenizer.vocab_size
    model = GPT2LMHeadModel(GPT2Config.from_dict(settings), rng=np.random.default_rng(9))
    model.load_state_dict(weights)
    tokens = tokenizer.encode((tmp_path / "text.txt").read_text())
    at = int(0.9 * len(tokens))
    with use_backend(config.backend):  # to the bit
        losses = causal_lm.final_losses(model, tokens[:at], tokens[at:], 8, 0)
    assert losses == (result.validation_loss, result.bigram_loss)


def test_the_log(tmp_path):
    config = small(tmp_path)
    run(config)
    lines = [json.loads(line) for line in (config.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    for line in lines:
        evaluated = {"val_loss"} if line["step"] % 7 == 0 or line["step"] == 40 else set()
        assert set(line) == {"step", "loss", "lr", "grad_norm", "tokens_per_second"} | evaluated
        assert all(math.isfinite(value) for value in line.values())
    rates = [line["lr"] for line in lines]
    assert rates[:5] == pytest.approx([1e-3 * k / 6 for k in range(1, 6)])  # warm-up, as nanoGPT's
    assert rates[5] == 1e-3
    assert rates[-1] == pytest.approx(1e-4, rel=0.05)


def test_lines_every_so_often(tmp_path):
    config = small(tmp_path, log_every=10, steps=25, eval_every=100)
    run(config)
    assert [line["step"] for line in log_of(config.folder)] == [10, 20, 25]


def test_it_learns(tmp_path):
    config = small(tmp_path, steps=400, lr=1e-2, model__dropout=0, eval_every=100, checkpoint_every=400)
    result = run(config)
    first, last = (log_of(config.folder)[i]["loss"] for i in (0, -1))
    assert first == pytest.approx(math.log(Tokenizer.load(config.folder).vocab_size), abs=0.1)
    assert last < 0.7 * first
    assert result.validation_loss < result.bigram_loss


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_training_is_training_on_the_whole_batch(tmp_path, parts):
    for accumulate in (1, parts):
        run(small(tmp_path, steps=10, accumulate=accumulate, model__dropout=0, out=str(tmp_path / str(accumulate))))
    one, many = ([line["loss"] for line in log_of(tmp_path / str(n))] for n in (1, parts))
    np.testing.assert_allclose(many, one, rtol=1e-5)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = small(tmp_path, out=str(tmp_path / name), seed=seed, steps=10)
        run(config)
        weights.append((config.folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_decay_spares_vectors(tmp_path):
    model = causal_lm.build(small(tmp_path).model, 11, 8, None, np.random.default_rng(0))
    groups = loop._optimizer(model, small(tmp_path)).param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["param_names"]}
    assert {decays[name] for name, p in model.named_parameters() if p.ndim == 1} == {0.0}
    assert {decays[name] for name, p in model.named_parameters() if p.ndim > 1} == {0.1}
    assert len(decays) == len(list(model.parameters()))


# ---- early stopping


def script(monkeypatch, losses):
    """Let the evaluations in training give these losses."""
    given = iter(losses)
    monkeypatch.setattr(causal_lm, "evaluate", lambda model, batches: next(given))
    monkeypatch.setattr(causal_lm, "final_losses", lambda *args: (0.0, 0.0))


def test_patience_stops_and_keeps_the_best_weights(tmp_path, monkeypatch):
    script(monkeypatch, [3.0, 3.5, 2.0, 2.5, 2.0, 1.0])
    judged = []
    monkeypatch.setattr(causal_lm, "final_losses", lambda model, *_: judged.append(model.state_dict()) or (0.0, 0.0))
    config = small(tmp_path, eval_every=3, patience=2, checkpoint_every=3, keep=9)
    result = run(config)
    assert (result.steps, result.stopped_early) == (15, True)
    best, last = (load(config.folder / "checkpoints", step).arrays for step in (9, 15))
    kept = load_model(config.folder)[1]
    for name, array in kept.items():
        np.testing.assert_array_equal(array, best["model"][name])
        np.testing.assert_array_equal(array, last["best"][name])
        np.testing.assert_array_equal(array, judged[0][name])
    assert any((kept[name] != array).any() for name, array in last["model"].items())
    assert "best" not in best


def test_patience_is_kept_over_a_resumption(tmp_path, monkeypatch):
    config = small(tmp_path, eval_every=3, patience=2, checkpoint_every=3, steps=9)
    script(monkeypatch, [3.0, 2.0, 2.5])
    assert run(config).steps == 9
    script(monkeypatch, [2.4])
    longer = dataclasses.replace(config, steps=40)
    result = run(longer, resume=True)
    assert (result.steps, result.stopped_early) == (12, True)
    best = load(config.folder / "checkpoints", 12).arrays["best"]
    for name, array in load_model(config.folder)[1].items():
        np.testing.assert_array_equal(array, best[name])
    script(monkeypatch, [])
    assert run(longer, resume=True).steps == 12  # still out of patience


def test_without_patience_the_last_weights_are_kept(tmp_path, monkeypatch):
    script(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    config = small(tmp_path, eval_every=3, steps=9)
    run(config)
    last = load(config.folder / "checkpoints", 9).arrays
    assert set(last) == {"model", "optimizer"}
    for name, array in load_model(config.folder)[1].items():
        np.testing.assert_array_equal(array, last["model"][name])


# ---- going on


def test_more_steps_go_on_from_the_end(tmp_path):
    config = small(tmp_path, steps=20, schedule="constant")
    run(config)
    run(dataclasses.replace(config, steps=40), resume=True)
    other = small(tmp_path, steps=40, schedule="constant", out=str(tmp_path / "other"))
    run(other)
    assert load_model(config.folder)[1].keys() == load_model(other.folder)[1].keys()
    assert (config.folder / "model.safetensors").read_bytes() == (other.folder / "model.safetensors").read_bytes()
    assert configuration.read(config.folder / "train.toml").steps == 40
    lines = [line | {"val_loss": 0} for line in log_of(config.folder)]  # the end of the first run was evaluated
    assert lines == [line | {"val_loss": 0} for line in log_of(other.folder)]


def test_a_finished_run_may_be_resumed(tmp_path):
    config = small(tmp_path)
    first = run(config)
    files = {path: path.read_bytes() for path in config.folder.rglob("*") if path.is_file()}
    second = run(config, resume=True)
    assert (first.validation_loss, first.bigram_loss) == (second.validation_loss, second.bigram_loss)
    assert files == {path: path.read_bytes() for path in config.folder.rglob("*") if path.is_file()}


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path):
    config = small(tmp_path)
    run(config)
    lines = log_of(config.folder)
    with open(config.folder / "log.jsonl", "a") as file:
        file.write('{"step": 41, "loss": 1.0}\n{"step": 4')
    run(config, resume=True)
    assert log_of(config.folder) == lines


def test_changed_numbers_are_refused_by_name(tmp_path):
    config = small(tmp_path)
    run(config)
    with pytest.raises(ConfigError, match=r"got lr \(was 0.001, now 0.002\); leave it out"):
        run(dataclasses.replace(config, lr=2e-3), resume=True)


def test_a_damaged_checkpoint_stops_the_run_until_it_is_removed(tmp_path):
    config = small(tmp_path)
    run(config)
    weights = (config.folder / "model.safetensors").read_bytes()
    broken = config.folder / "checkpoints/step-00000040"
    file = broken / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"step-00000040 must be as it was written.*go back to step 35: rm -r"):
        run(config, resume=True)
    for path in broken.iterdir():
        path.unlink()
    broken.rmdir()
    run(config, resume=True)
    assert (config.folder / "model.safetensors").read_bytes() == weights


def test_tokens_that_were_removed_are_made_anew(tmp_path):
    config = small(tmp_path)
    run(config)
    weights = (config.folder / "model.safetensors").read_bytes()
    (config.folder / "tokens.bin").unlink()
    run(config, resume=True)
    (config.folder / "tokens.bin").unlink()
    text = tmp_path / "text.txt"
    text.write_text(text.read_text() + "the end")
    with pytest.raises(CheckpointError, match="must have the data that it began with"):
        run(config, resume=True)
    assert (config.folder / "model.safetensors").read_bytes() == weights


# ---- ends


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    config = small(tmp_path)
    accumulate, calls = causal_lm.accumulate, iter(range(99))

    def bad(model, batch, parts):
        loss = accumulate(model, batch, parts)
        return math.nan if next(calls) == 11 else loss

    monkeypatch.setattr(causal_lm, "accumulate", bad)
    with pytest.raises(Diverged, match=r"step 12: .* must be finite; got nan .* the last good checkpoint is step 10"):
        run(config)
    assert steps(config.folder / "checkpoints") == [5, 10]
    assert log_of(config.folder)[-1]["step"] == 11
    monkeypatch.undo()
    monkeypatch.setattr(loop.Reporter, "note", lambda self, text: None)
    assert run(config, resume=True).steps == 40


def test_real_divergence(tmp_path):
    config = small(tmp_path, lr=1e30, min_lr=0, warmup=0, grad_clip=0)
    with pytest.raises(Diverged, match=r"step \d+: .* must be finite; .*nothing is saved yet; begin anew"):
        run(config)


def test_the_picture(tmp_path):
    config = small(tmp_path, steps=5)
    run(config)
    assert quiet.draw(config.folder / "log.jsonl", tmp_path / "loss.png", 2.0)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_no_picture_without_matplotlib(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert quiet.draw(tmp_path / "log.jsonl", tmp_path / "loss.png") is False


# ---- the run folder and the data


def test_a_run_folder_is_never_overwritten_unasked(tmp_path):
    config = small(tmp_path, steps=5)
    run(config)
    with pytest.raises(ConfigError, match=r"the run folder must be new; got .* --resume, replace it with --overwrite"):
        run(config)
    (config.folder / "mine.txt").write_text("mine")
    run(dataclasses.replace(config, steps=6), overwrite=True)
    assert len(log_of(config.folder)) == 6
    assert steps(config.folder / "checkpoints") == [5, 6]
    assert (config.folder / "mine.txt").exists()


def test_bad_data_does_not_cost_the_run_that_was_to_be_replaced(tmp_path):
    config = small(tmp_path, steps=5)
    run(config)
    files = {path: path.read_bytes() for path in config.folder.rglob("*") if path.is_file()}
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(DataError):
        run(dataclasses.replace(config, data=str(tmp_path / "short.txt")), overwrite=True)
    assert files == {path: path.read_bytes() for path in config.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "must hold text; got an empty file"),
        (None, "must be a file, folder or glob that exists"),
        (b"text\0text", "must be UTF-8 text; got a binary file"),
        ("naïve".encode("latin-1"), "must be UTF-8 text; got byte 0xEF at offset 2"),
        (b"too short for a window", "validation split must hold one window of block_size"),
    ],
)
def test_bad_data_leaves_nothing_behind(tmp_path, content, told):
    file = tmp_path / "data.txt"
    if content is not None:
        file.write_bytes(content)
    config = small(tmp_path, data=str(file))
    with pytest.raises(DataError) as error:
        run(config)
    assert told in str(error.value)
    assert not config.folder.exists()


def test_resume_needs_a_run(tmp_path):
    config = small(tmp_path)
    with pytest.raises(ConfigError, match=r"--resume needs a run folder; got .*; check --out"):
        run(config, resume=True)
    config.folder.mkdir()
    with pytest.raises(ConfigError, match=r"without train\.toml"):
        run(config, resume=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        run(config, resume=True, overwrite=True)


def test_a_vocabulary_of_ones_own(tmp_path):
    first = small(tmp_path, tokenizer="bpe", vocab_size=260, steps=2)
    run(first)
    second = small(tmp_path, tokenizer=str(first.folder / "tokenizer.json"), steps=2, out=str(tmp_path / "second"))
    run(second)
    assert (second.folder / "tokenizer.json").read_bytes() == (first.folder / "tokenizer.json").read_bytes()
    with pytest.raises(ValueError, match=r"a vocabulary must be a tokenizer.json"):
        run(small(tmp_path, tokenizer="none.json", out=str(tmp_path / "third")))
