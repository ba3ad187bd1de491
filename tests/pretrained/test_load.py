"""Loading, saving, converting and describing models: what fits, and what is refused by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import minilm
from minilm.models.gpt2 import GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model
from tests.models.judge import checkpoint

STORIES = Path(__file__).parents[3] / "shared" / "data" / "stories260k" / "checkpoint_legacy.bin"
IDS = np.array([[3, 1, 4, 1, 5]])


@pytest.fixture
def folder(tmp_path):
    """A GPT-2 as transformers writes it."""
    small = {"vocab_size": 37, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
    checkpoint(tmp_path / "gpt2", transformers.GPT2LMHeadModel, transformers.GPT2Config(**small))
    return tmp_path / "gpt2"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def logits(model):
    with minilm.no_grad():
        return model(IDS).logits.data


def test_the_head_is_the_one_it_was_saved_with_or_the_one_asked_for(folder):
    model = minilm.load(folder)
    assert type(model) is GPT2LMHeadModel
    assert not model.training
    base = minilm.load(folder, task="base")
    assert type(base) is GPT2Model
    np.testing.assert_array_equal(base.wte.weight.data, model.transformer.wte.weight.data)
    with pytest.raises(ValueError, match=r"missing score.weight \(1\); pass rng="):
        minilm.load(folder, task="sequence-classification")
    rng = np.random.default_rng(0)
    classifier = minilm.load(folder, task="sequence-classification", rng=rng)
    assert type(classifier) is GPT2ForSequenceClassification
    assert 0 < classifier.score.weight.data.std() < 0.1
    np.testing.assert_array_equal(classifier.transformer.wte.weight.data, model.transformer.wte.weight.data)
    with pytest.raises(ValueError, match="task of a gpt2 must be one of base, causal-lm"):
        minilm.load(folder, task="masked-lm")


def test_weights_lie_in_the_file_until_something_writes(folder):
    before = (folder / "model.safetensors").read_bytes()
    model = minilm.load(folder)
    want = logits(model)
    for p in model.parameters():
        assert not p._data.flags.owndata  # mapped
        p.writable()[...] += 1
    assert (folder / "model.safetensors").read_bytes() == before
    np.testing.assert_array_equal(logits(minilm.load(folder)), want)
    assert minilm.load(folder, dtype=np.float64).transformer.wte.weight.dtype == np.float64


def test_a_model_loaded_with_rng_trains(folder):
    model = minilm.load(folder, rng=np.random.default_rng(0)).train()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert all(np.isfinite(p.grad).all() for p in model.parameters())
    assert model(IDS, labels=IDS).loss.item() != loss.item()  # dropout draws anew


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_is_widened(folder, dtype):
    want = transformers.GPT2LMHeadModel.from_pretrained(folder)
    kind = {"F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    want.to(kind).save_pretrained(folder)
    theirs = {name: p.float().detach().numpy() for name, p in want.named_parameters()}
    for name, p in minilm.load(folder).named_parameters():
        np.testing.assert_array_equal(p.data, theirs[name])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt9"}, "model_type must be one of bert, "),
        ({"architectures": ["GPT2DoubleHeadsModel"]}, "architectures must name one of GPT2Model, .*Choose with task="),
        ({"n_heads": 3}, r"n_heads is no option of this family; got 3. Is n_head meant\?"),
        ({"add_cross_attention": True}, "add_cross_attention must be False here; got True"),
        ({"n_head": 5}, "n_embd must divide by n_head"),
        ({"n_head": "3"}, r"n_head must be a whole number, at least 1 and below 2\*\*24; got '3'"),
        ({"n_embd": 48}, r"must have shape \(.*\), by config.json"),
        ({"n_layer": 3}, r"missing transformer.h.2.*\(12\); take another copy"),
        ({"n_layer": 1}, r"every weight must have a place in GPT2LMHeadModel; got transformer.h.1.* \(12\) besides"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder, changes, words):
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        minilm.load(folder)
    assert str(folder) in str(caught.value)


def test_an_option_can_be_passed_over(folder):
    want = logits(minilm.load(folder))
    change_config(folder, made_by="somebody")
    with pytest.raises(ValueError, match="made_by is no option"):
        minilm.load(folder)
    np.testing.assert_array_equal(logits(minilm.load(folder, ignore=["made_by"])), want)


def test_nan_weights_are_found_on_request(folder):
    change_weights(folder, lambda weights: weights["transformer.ln_f.bias"].__setitem__(3, np.nan))
    minilm.load(folder)
    with pytest.raises(ValueError, match=r"transformer.ln_f.bias.* must be finite; got nan at \[3\]"):
        minilm.load(folder, check=True)


def test_a_name_that_is_nowhere_is_one_error(tmp_path):
    for name in (str(tmp_path / "none"), "../none", "a b"):
        with pytest.raises(ValueError, match="a model must be a folder, a file, or a name on the hub"):
            minilm.load(name)
    with pytest.raises(ValueError, match="a revision must be of a model on the hub; got 'main'"):
        minilm.load(tmp_path, revision="main")
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        minilm.load(tmp_path, dtype=np.float16)


@pytest.mark.parametrize("dtype", [None, "float64", "float16", "bfloat16"])
def test_convert(folder, tmp_path, dtype):
    transformers.GPT2LMHeadModel.from_pretrained(folder).save_pretrained(tmp_path / "bin")
    torch.save(
        transformers.GPT2LMHeadModel.from_pretrained(folder).transformer.state_dict(),
        tmp_path / "bin" / "pytorch_model.bin",
    )
    (tmp_path / "bin" / "model.safetensors").unlink()
    train_vocabulary(tmp_path / "bin")
    minilm.convert(tmp_path / "bin", tmp_path / "out", dtype=dtype, max_shard_bytes=20_000)
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    kind = getattr(torch, dtype or "float32")
    want = transformers.GPT2LMHeadModel.from_pretrained(folder).to(kind).state_dict()
    got = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out", dtype="auto")
    assert got.dtype == kind
    for name, value in got.state_dict().items():
        assert torch.equal(value, want[name]), name
    assert minilm.load_tokenizer(tmp_path / "out").vocab_size == minilm.load_tokenizer(tmp_path / "bin").vocab_size


def train_vocabulary(folder):
    from minilm.text import train_tokenizer

    train_tokenizer("character", ["the quick brown fox"]).save(folder)


def test_convert_refuses(folder):
    with pytest.raises(ValueError, match="dtype must be one of float64"):
        minilm.convert(folder, folder.parent / "out", dtype="int8")
    with pytest.raises(ValueError, match="must be another than the model's own"):
        minilm.convert(folder, folder)


def test_inspect_counts_what_transformers_counts(folder):
    found = minilm.inspect(folder)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder)
    assert found.architecture == "GPT2LMHeadModel"
    assert found.parameters == theirs.num_parameters() == sum(part.parameters for part in found.parts)
    assert found.stored == {"F32": theirs.num_parameters()}
    assert found.bytes_to_run == 4 * theirs.num_parameters()
    assert found.bytes_to_train == 16 * theirs.num_parameters()
    assert found.cache_bytes == 2 * 2 * 24 * 4  # layers, keys and values, channels, bytes
    assert found.refusal is None
    assert {part.name: part.copies for part in found.parts}["transformer.h.N.attn"] == 2
    change_config(folder, model_type="mamba")
    found = minilm.inspect(folder)
    assert "model_type must be one of" in found.refusal
    assert found.parameters == theirs.num_parameters()


def test_inspect_reads_no_weights(folder):
    """A hole in place of the weights: a file of a terabyte takes no time if nobody reads it."""
    path = folder / "model.safetensors"
    header = path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    fields = json.loads(header[8 : 8 + length])
    end = max(f["data_offsets"][1] for name, f in fields.items() if name != "__metadata__")
    fields["huge"] = {"dtype": "F32", "shape": [2**38], "data_offsets": [end, end + 2**40]}
    text = json.dumps(fields).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end + 2**40)
    assert minilm.inspect(folder).file_bytes == end + 2**40


@pytest.mark.skipif(not STORIES.exists(), reason="needs ../shared/data/stories260k")
def test_the_stories_model_writes_the_published_text(tmp_path):
    published = (
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
        "One day, she saw a big, red ball."
    )

    def text(path):
        from minilm.generate import generate

        (result,) = generate(
            *(minilm.load(path), [1]), max_new_tokens=60, temperature=0, tokenizer=minilm.load_tokenizer(path)
        )
        return result.text.strip()

    assert text(STORIES).startswith(published)
    minilm.convert(STORIES, tmp_path / "stories")
    assert text(tmp_path / "stories").startswith(published)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "stories")
    ours = minilm.load(STORIES)
    with minilm.no_grad(), torch.no_grad():
        got, want = ours(IDS).logits.data, theirs(torch.tensor(IDS)).logits.numpy()
    assert np.abs(got - want).max() < 2e-5 * np.abs(want).max()


MEMORY = """
import json, sys
import numpy as np
import minilm

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

model = minilm.load(sys.argv[1])
before = anonymous()
with minilm.no_grad():
    model(np.array([[1, 2, 3]]))
print(anonymous() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's account of memory")
def test_loading_makes_no_second_copy(tmp_path):
    config = transformers.GPT2Config(vocab_size=20_000, n_embd=768, n_layer=4, n_head=12, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=True)
    assert size > 150e6
    assert int(done.stdout) < 0.1 * size


def test_two_values_for_one_tied_weight_are_refused(folder):
    change_weights(folder, lambda w: w.__setitem__("lm_head.weight", w["transformer.wte.weight"].copy()))
    minilm.load(folder)
    change_weights(folder, lambda w: w["lm_head.weight"].__iadd__(1))
    with pytest.raises(ValueError, match=r"lm_head.weight must equal transformer.wte.weight.*tie_word_embeddings"):
        minilm.load(folder)
    change_config(folder, tie_word_embeddings=False)
    model = minilm.load(folder)
    np.testing.assert_array_equal(model.lm_head.weight.data, model.transformer.wte.weight.data + 1)


def test_a_pooled_head_starts_from_a_file_without_a_pooler(tmp_path):
    small = {"vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**small, intermediate_size=40, max_position_embeddings=16)
    checkpoint(tmp_path, transformers.BertForMaskedLM, config)
    assert minilm.load(tmp_path, task="base").pooler is None
    with pytest.raises(ValueError, match=r"missing bert.pooler.dense.weight.*pass rng="):
        minilm.load(tmp_path, task="sequence-classification")
    model = minilm.load(tmp_path, task="sequence-classification", rng=np.random.default_rng(0))
    with minilm.no_grad():
        assert np.isfinite(model(IDS).logits.data).all()


@pytest.mark.parametrize("family", ["GPT2", "Llama", "Bloom"])
def test_a_model_cast_is_the_model_loaded_in_that_dtype(tmp_path, family):
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 37}
    config = getattr(transformers, f"{family}Config")(**small, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    cls = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    checkpoint(tmp_path, getattr(transformers, cls), config)
    cast, loaded = minilm.load(tmp_path).astype(np.float64), minilm.load(tmp_path, dtype=np.float64)
    assert cast.new_cache(1, 4).keys.dtype == np.float64
    np.testing.assert_array_equal(logits(cast), logits(loaded))
