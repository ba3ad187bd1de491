import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm._kernels import registry
from minilm.config import (
    CHANGEABLE,
    PRESETS,
    Backend,
    ConfigError,
    ModelConfig,
    TrainConfig,
    dump,
    read,
    refuse_changes,
)


def test_defaults_are_the_preset_tiny():
    assert read() == TrainConfig()
    assert PRESETS["tiny"] == {}


def test_nanogpt_cpu_is_the_command_of_nanogpts_readme():
    config = read(overrides=["--preset", "nanogpt-cpu"])
    model = ModelConfig(n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False, activation="gelu")
    assert config.model == model
    expected = {"block_size": 64, "batch_size": 12, "steps": 2000, "lr": 1e-3, "min_lr": 1e-4, "warmup": 100}
    expected |= {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "grad_clip": 1.0, "tokenizer": "character"}
    expected |= {"eval_every": 250, "eval_batches": 20, "schedule": "cosine", "decay_steps": None, "final_tokens": 0}
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_come_back_from_toml(tmp_path, preset):
    config = read(overrides=["--preset", preset])
    (tmp_path / "c.toml").write_text(dump(config), encoding="utf-8")
    assert read(tmp_path / "c.toml") == config


def test_arguments_win_over_file_over_preset_over_defaults(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('preset = "nanogpt-char"\nsteps = 7\nbatch_size = 8\n[model]\nn_layer = 2\nn_head = 2\n')
    config = read(file, ["--steps", "9", "--model.n-layer", "3"])
    assert (config.steps, config.batch_size, config.block_size, config.seed) == (9, 8, 256, 1)
    assert config.model == ModelConfig(n_layer=3, n_head=2, n_embd=384, dropout=0.2, bias=False)
    assert read(file, ["--preset", "tiny"]).block_size == TrainConfig().block_size


def test_typed_overrides():
    arguments = ["--lr", "3e-4", "--seed=0", "--model.no-bias", "--schedule", "linear", "--data=a.txt", "--threads=2"]
    config = read(overrides=arguments)
    assert (config.lr, config.seed, config.model.bias, config.schedule) == (3e-4, 0, False, "linear")
    assert (config.data, config.threads) == ("a.txt", 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--step 3", "Did you mean --steps?"),
        ("--model.n-layr 3", "Did you mean --model.n-layer?"),
        ("--preset tny", 'Did you mean "tiny"?'),
        ("--backend cyton", 'Did you mean "cython"?'),
        ("--schedule cosin", 'Did you mean "cosine"?'),
        ("--steps 3.5", "--steps must be an integer; got '3.5'"),
        ("--steps many", "--steps must be an integer; got 'many'"),
        ("--lr fast", "unable to convert"),
        ("--steps", "--steps requires an argument"),
        ("--steps 1 --steps 2", "multiple times"),
        ("--steps 0", "steps must be 1 or more; got 0"),
        ("--lr 0", "lr must be positive"),
        ("--lr nan", "lr must be positive and finite; got nan"),
        ("--lr 1e-5", "min_lr must be at most lr"),
        ("--beta2 1", "beta2 must lie in [0, 1)"),
        ("--train-fraction 1", "train_fraction must lie in (0, 1)"),
        ("--model.n-head 3", "model.n_head must divide model.n_embd; got 128 and 3; try --model.n-head 2"),
        ("--batch-size 12 --accumulate 5", "accumulate must divide batch_size; got 12 and 5; try --batch-size 15"),
        ("--model.dropout 1", "model.dropout must lie in [0, 1)"),
        ("--model 3", "--model has fields of its own"),
        ("corpus.txt", "must be written as --name value; got 'corpus.txt' left over"),
    ],
)
def test_wrong_arguments(arguments, told):
    with pytest.raises(ConfigError) as error:
        read(overrides=arguments.split())
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stepps = 3", "got stepps; did you mean steps?"),
        ("[model]\nn_layr = 3", "got model.n_layr; did you mean model.n_layer?"),
        ("[modell]\nn_layer = 3", "got modell; did you mean model?"),
        ("steps = 3.5", "steps must be of type int; got 3.5"),
        ("steps = '3'", "steps must be of type int; got '3'"),
        ("steps = true", "steps must be of type int; got True"),
        ("lr = 'x'", "lr must be of type float"),
        ("model = 3", "model must be a table; got 3"),
        ("[model]\nbias = 1", "model.bias must be of type bool; got 1"),
        ("backend = 'cuda'", "Choose from"),
        ("steps = ", "must be TOML; got "),
        ("\xff", "must be TOML; got "),
    ],
)
def test_wrong_files(tmp_path, text, told):
    file = tmp_path / "c.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError) as error:
        read(file)
    assert told in str(error.value)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="must be a TOML file; got: No such file"):
        read(tmp_path / "none.toml")


def test_integers_are_numbers_too(tmp_path):
    (tmp_path / "c.toml").write_text("lr = 1")
    assert read(tmp_path / "c.toml").lr == 1.0


def test_backends_are_the_registrys():
    assert Backend.__args__ == ("auto", *registry.BACKENDS)


numbers = st.integers(1, 10**9)
positive = st.floats(1e-9, 1e9)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
configs = st.builds(
    TrainConfig,
    data=st.none() | texts,
    out=st.none() | texts,
    seed=st.integers(0, 2**62),
    steps=numbers,
    lr=positive,
    min_lr=st.just(0.0),
    eps=positive,
    decay_steps=st.none() | numbers,
    schedule=st.sampled_from(["constant", "linear", "cosine", "inverse_sqrt"]),
    model=st.builds(ModelConfig, n_layer=numbers, dropout=st.floats(0, 0.99), bias=st.booleans()),
    backend=st.none() | st.sampled_from(["auto", "numpy", "numba", "cython"]),
    threads=st.none() | numbers,
)


@given(config=configs)
def test_every_configuration_comes_back_from_toml(tmp_path_factory, config):
    file = tmp_path_factory.mktemp("config") / "c.toml"
    file.write_text(dump(config), encoding="utf-8", newline="")
    assert read(file) == config


def test_a_resumed_run_may_change_only_what_does_not_decide_the_numbers():
    old = read(overrides=["--preset", "nanogpt-cpu"])
    refuse_changes(old, dataclasses.replace(old, steps=1, out="elsewhere", keep=9, backend="numpy", threads=1))
    changed = dataclasses.replace(old, lr=5e-4, model=dataclasses.replace(old.model, n_layer=2))
    with pytest.raises(ConfigError) as error:
        refuse_changes(old, changed)
    assert "model.n_layer (was 4, now 2)" in str(error.value)
    assert "lr (was 0.001, now 0.0005)" in str(error.value)
    assert set(CHANGEABLE) <= {field.name for field in dataclasses.fields(TrainConfig)}


def test_the_run_folder():
    assert TrainConfig().folder.as_posix() == "runs/tiny"
    assert TrainConfig(preset="gpt2").folder.as_posix() == "runs/gpt2"
    assert TrainConfig(out="here").folder.as_posix() == "here"
