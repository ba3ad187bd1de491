import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from minilm import __version__, cli
from minilm.checkpoint import steps
from minilm.train import curves

from .train.small import environment, log_of, options, python, start, write_text


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda *args: False)  # matplotlib takes a second to load


def minilm(capsys, *arguments):
    """Run the command in this process; return its exit code, its output and what it wrote to stderr."""
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    done = python("-m", "minilm", "train", *options(folder))
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def test_what_training_prints(trained):
    run, done = trained
    for name in ("steps", "validation loss", "bigram model's", "time", "tokens per second", str(run), "--- a sample"):
        assert name in done.stdout
    told = done.stderr.splitlines()
    assert told[0].startswith("data: 1 files, 0.0 MB from ")
    assert told[1].startswith("model: ")
    assert told[-1].startswith("step 40/40  loss ")
    assert "tokens/s  0:00 left" in told[-1]
    assert " val " in told[-1]
    assert len(log_of(run)) == 40


def test_generate_is_decided_by_its_seed(capsys, trained):
    run, _ = trained
    arguments = ("generate", run, "--prompt", "the cat", "--max-new-tokens", 20, "--top-p", 0.95, "--temperature", 0.8)
    code, text, errors = minilm(capsys, *arguments, "--top-k", 200, "--seed", 1)
    assert (code, errors) == (0, "")
    assert text.startswith("the cat")
    assert len(text) == len("the cat") + 20 + len("\n")
    assert minilm(capsys, *arguments, "--top-k", 200, "--seed", 1)[1] == text
    assert minilm(capsys, *arguments, "--top-k", 200, "--seed", 2)[1] != text
    greedy = ("generate", run, "--temperature", 0, "--max-new-tokens", 5)
    assert minilm(capsys, *greedy)[1] == minilm(capsys, *greedy)[1]


def test_generate_streams(trained):
    run, _ = trained
    process = start("generate", str(run), "--max-new-tokens", "100000", "--seed", "1")
    assert len(process.stdout.read(5)) == 5  # long before the end
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "minilm: stopped"
    assert "Traceback" not in errors


def test_a_reader_that_has_gone_ends_it_quietly(trained):
    run, _ = trained
    command = [sys.executable, "-m", "minilm", "generate", str(run), "--max-new-tokens", "100000", "--seed", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    process.stdout.read(5)
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


WRONG = [
    (["trian"], 'Unknown command "trian". Did you mean "train"?'),
    (["train", "--step", "3"], "Unknown option: --step. Did you mean --steps?"),
    (["train", "--model.n-hed", "3"], "Did you mean --model.n-head?"),
    (["train", "--preset", "tyny"], 'Did you mean "tiny"?'),
    (["train", "--backend", "nmpy"], 'Did you mean "numpy"?'),
    (["train", "--model.n-head", "3"], "model.n_head must divide model.n_embd"),
    (["train", "--batch-size", "5", "--accumulate", "2"], "accumulate must divide batch_size"),
    (["train", "--config", "none.toml"], "'none.toml' must be a TOML file; got: No such file or directory"),
    (["train", "--data", "none.txt"], "data must be a file, folder or glob that exists; got 'none.txt'"),
    (["train", "--resume", "--out", "none"], "--resume needs a run folder; got 'none' without train.toml"),
    (["generate", "./none"], "a model must be a folder, a file, or a name on the hub; got './none'"),
    (["generate"], "requires an argument"),
    (["generate", "none", "--max-new-tokens", "many"], "unable to convert"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_what_is_wrong_is_one_line(capsys, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, output, errors = minilm(capsys, *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("minilm: error: ")
    assert errors.count("\n") == 1
    assert told in errors
    assert not list(tmp_path.iterdir())


def test_a_run_folder_that_exists(capsys, tmp_path, trained):
    run, _ = trained
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, _, errors = minilm(capsys, "train", *options(tmp_path, out=run))
    assert code == 2
    assert "the run folder must be new" in errors
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_prompt_that_the_vocabulary_lacks(capsys, trained):
    code, _, errors = minilm(capsys, "generate", trained[0], "--prompt", "Ω")
    assert code == 2
    assert "got 'Ω' (U+03A9) at position 0" in errors


def test_a_model_and_a_vocabulary_that_do_not_belong_together(capsys, tmp_path, trained):
    from minilm.text import train_tokenizer

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((trained[0] / name).read_bytes())
    train_tokenizer("bpe", ["the cat sat"], vocab_size=300).save(tmp_path)
    code, _, errors = minilm(capsys, "generate", tmp_path, "--prompt", "the cat")
    assert code == 2
    assert "embedding: token ids must lie in [0, " in errors


def test_weights_of_another_shape(capsys, tmp_path, trained):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((trained[0] / name).read_bytes())
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"n_embd": 16', '"n_embd": 32'))
    code, _, errors = minilm(capsys, "generate", tmp_path)
    assert code == 2
    assert "must have shape" in errors
    assert "by config.json; got" in errors


def test_a_full_disk(tmp_path):
    """Files may grow to 30 kB: enough to begin with, too little for a checkpoint."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    arguments = options(tmp_path, model__n_embd=32)
    done = python("-m", "minilm", "train", *arguments, preexec_fn=limit)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("minilm: error: ")
    assert "step-00000005 must fit on the disk; got: " in line
    assert steps(tmp_path / "run/checkpoints") == []
    assert python("-m", "minilm", "train", *arguments, "--resume").returncode == 0


@pytest.mark.parametrize("what", ["log", "tokens"])
def test_a_disk_that_is_full_elsewhere(capsys, tmp_path, monkeypatch, what):
    arguments = options(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if what == "log":
        from minilm.train import log

        opened = open

        class Full:
            def __init__(self, *args, **kwargs):
                self.file, self.left = opened(*args, **kwargs), 7

            def write(self, line):
                self.left -= 1
                if not self.left:
                    raise full
                return self.file.write(line)

            def __getattr__(self, name):
                return getattr(self.file, name)

        monkeypatch.setattr(log, "open", Full, raising=False)
    else:

        def fsync(_):
            raise full

        monkeypatch.setattr(os, "fsync", fsync)
    code, _, errors = minilm(capsys, "train", *arguments)
    assert code == 2
    assert errors.splitlines()[-1].startswith("minilm: error: ")
    assert "must fit on the disk" in errors.splitlines()[-1]
    assert "No space left on device" in errors
    monkeypatch.undo()
    assert steps(tmp_path / "run/checkpoints") == ([5] if what == "log" else [])
    assert (tmp_path / "run").exists() == (what == "log")


def test_a_backend_that_cannot_run(capsys, tmp_path, monkeypatch):
    from minilm._kernels import registry

    def unavailable(op, backend):
        raise registry.BackendUnavailable(f"{op} on {backend}: missing. Install it with: pip install 'minilm[numba]'")

    monkeypatch.setattr(registry, "load", unavailable)
    code, _, errors = minilm(capsys, "train", *options(tmp_path, backend="numba"))
    assert code == 2
    assert errors == "minilm: error: add_layer_norm on numba: missing. Install it with: pip install 'minilm[numba]'\n"
    assert not (tmp_path / "run").exists()


def test_a_second_interrupt_stops_at_once(tmp_path):
    write_text(tmp_path / "text.txt", words=4000)
    arguments = options(tmp_path, steps=9, batch_size=512, accumulate=1, block_size=256, model__n_embd=64)
    process = start("train", *arguments)
    while process.poll() is None and not (tmp_path / "run/log.jsonl").exists():
        time.sleep(0.001)
    time.sleep(0.3)  # in the first step, which takes seconds
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "press Ctrl-C again to stop at once" in errors
    assert errors.splitlines()[-1] == "minilm: stopped"
    assert "Traceback" not in errors
    assert steps(tmp_path / "run/checkpoints") == []


def test_backends(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, output, errors = minilm(capsys, "backends")
    assert (code, errors) == (0, "")
    for word in ("attention", "adamw", "numpy", "numba", "cython", "threads", "BLAS", "instruction set"):
        assert word in output


def test_backends_tells_why_one_does_not_run():
    hidden = "import sys; sys.modules['numba'] = None; from minilm.cli import main; sys.exit(main(['backends']))"
    done = python("-c", hidden)
    assert done.returncode == 0, done.stderr
    assert "pip install 'minilm[numba]'" in done.stdout


def test_without_compiled_kernels_training_says_so_once(tmp_path):
    hidden = (
        "import sys; sys.modules['numba'] = sys.modules['minilm._kernels.machine_cython'] = None; "
        "from minilm.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = python("-c", hidden, "train", *options(tmp_path, steps=3, backend=None))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run on NumPy, which is slower: ") == 1
    assert "compiler" in done.stderr


def test_help_and_version_are_light():
    done = python("-X", "importtime", "-m", "minilm", "--help")
    assert done.returncode == 0
    for heavy in ("numba", "tokenizers", "torch", "matplotlib", "safetensors"):
        assert f" {heavy}\n" not in done.stderr
    assert python("-m", "minilm", "--version").stdout.strip() == __version__


def test_every_option_is_explained(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, output, _ = minilm(capsys, "train", "--help")
    assert code == 0
    rows = [line for line in output.splitlines() if line.startswith("│ --")]
    assert len(rows) >= 39
    for row in rows:
        words = [word for word in row.strip("│ ").split() if not word.startswith("--") and not word.isupper()]
        assert len(words) >= 2, row
