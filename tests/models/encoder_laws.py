"""What must hold of every encoder family, beside the numbers: its options, its dropout, its first values, old files."""

import copy
import itertools
import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import minilm
from minilm.models.config import INERT, ONLY
from tests.models import judge

DERIVED = {"label2id", "id2label", "model_type"}  # id2label is judged with num_labels, model_type chooses the family


def check_every_option_is_settled(ours, theirs, judged, drawn):
    """Each option that transformers writes is judged by a case, tried with dropout, refused, or changes no number."""
    written = set(theirs().to_dict()) - DERIVED
    only = {**ONLY, **ours.only}
    settled = set(judged) | set(drawn) | set(only) | INERT | set(ours.inert)
    assert written <= settled, written - settled
    own = {f.name for f in fields(ours)} - {"id2label", "decoder_start_token_id"}
    assert own <= written, own - written  # no option that transformers does not have
    for option in written & set(only) - own:
        value = next(v for v in (True, 7) if v not in only[option])
        with pytest.raises(ValueError, match=f"{option} must be"):
            ours.from_dict({option: value})


def check_dropout(case, folder, options, attention, monkeypatch):
    """In training mode each option drops where transformers drops: the numbers agree where both draw the same.

    ``options`` get rates of their own; ``attention``, which drops inside of a kernel, is tried alone: there, outputs
    must change from call to call, as theirs do.
    """

    def drawn(shape, p):
        return (np.random.default_rng(int(1000 * p)).random(tuple(shape)) >= p) / (1 - p)

    def mine(self, x):
        return x * drawn(x.shape, self.p).astype(x.dtype) if self.training and self.p else x

    def its(self, x):
        return x * torch.tensor(drawn(x.shape, self.p), dtype=x.dtype) if self.training and self.p else x

    inputs = {k: torch.tensor(v) for k, v in case.inputs.items()}

    def both(**rates):
        config = copy.deepcopy(case.config)
        for option, rate in {**dict.fromkeys((*options, attention), 0.0), **rates}.items():
            setattr(config, option, rate)
        other = judge.checkpoint(folder, case.cls, config).train()
        ours = minilm.load(folder, rng=np.random.default_rng(0)).train()
        while True:
            out = judge.tensors(other(**inputs, output_hidden_states=True, return_dict=True))
            yield outputs(ours, case.inputs), {name: t.detach().numpy() for name, t in out.items()}

    (got, want), (again, and_again) = itertools.islice(both(**{attention: 0.5}), 2)
    for name in got:
        assert (got[name] != again[name]).any(), name
        assert (want[name] != and_again[name]).any(), name
    monkeypatch.setattr(minilm.nn.Dropout, "forward", mine)
    monkeypatch.setattr(torch.nn.Dropout, "forward", its)
    got, want = next(both(**{option: 0.1 * (i + 1) for i, option in enumerate(options)}))
    still, _ = next(both())
    for name in got:
        assert judge.error(got[name], want[name]) < judge.BARS[np.float32], name
        assert judge.error(got[name], still[name]) > 1e-3, name


def check_first_values(cls, config, std):
    """Matrices and tables start from N(0, std²), biases at 0, norms at 1, padding rows at 0."""
    model = cls(config, rng=np.random.default_rng(0))
    for name, p in model.named_parameters():
        array = p.data
        if name.endswith("bias"):
            assert (array == 0).all(), name
        elif "LayerNorm" in name or "layer_norm" in name:
            assert (array == 1).all(), name
        else:  # the standard error of a standard deviation is std / √(2n); 5 of them, and a row of padding
            assert abs(array.std() - std) < 5 * std / np.sqrt(2 * array.size) + std / len(array), name
    embeddings = model.base_model.embeddings
    assert (embeddings.word_embeddings.weight.data[config.pad_token_id] == 0).all()
    assert (embeddings.word_embeddings.weight.data.any(axis=1)).sum() == config.vocab_size - 1
    return model


def rewrite(folder, change, **options):
    """Give the tensors of a checkpoint other names, change(name, array) -> {name: array}, and set options."""
    old = load_file(folder / "model.safetensors")
    made = {}
    for name, array in old.items():
        made |= {k: np.ascontiguousarray(v) for k, v in change(name, array).items()}
    save_file(made, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **options}))


def outputs(model, inputs):
    with minilm.no_grad():
        return {name: t.data for name, t in judge.tensors(model(**inputs)).items()}


def check_same(folder, change, inputs, **options):
    """A checkpoint under other names, with other options beside its own, gives the same bits."""
    before = outputs(minilm.load(folder), inputs)
    rewrite(folder, change, **options)
    after = outputs(minilm.load(folder), inputs)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def check_logits_to_keep(folder, inputs, labels):
    """Logits at some positions only are those of all, and their loss is that of their labels."""
    model = minilm.load(folder)
    where = np.array([1, 3, 4])
    elsewhere = np.ones(labels.shape[1], bool)
    elsewhere[where] = False
    with minilm.no_grad():
        full = model(**inputs, labels=np.where(elsewhere, -100, labels))
        some = model(**inputs, labels=labels, logits_to_keep=where)
        last = model(**inputs, logits_to_keep=2)
    np.testing.assert_allclose(last.logits.data, full.logits.data[:, -2:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(some.logits.data, full.logits.data[:, where], rtol=1e-5, atol=1e-5)
    assert abs(some.loss.item() - full.loss.item()) < 1e-5


def check_wrong_input(folder, family_limit):
    """What does not fit is refused by name."""
    model = minilm.load(folder)
    name, V = type(model).__name__, model.config.vocab_size
    with pytest.raises(ValueError, match=f"{name}: at most {family_limit} positions fit"):
        model(np.full((1, family_limit + 1), 5))
    with pytest.raises(IndexError, match=rf"token ids must lie in \[0, {V}\); got {V}"):
        model(np.full((1, 2), V))
    with pytest.raises(ValueError, match=rf"{name}: input_ids must be \(B, T\)"):
        model(np.arange(3))
    with pytest.raises(ValueError, match=rf"{name}: attention_mask must be"):
        model(np.full((1, 3), 5), attention_mask=np.ones((1, 4)))
    most = model.config.max_position_embeddings
    with pytest.raises(IndexError, match=rf"{name}: position_ids must lie in \[0, {most}\); got {most}"):
        model(np.full((1, 2), 5), position_ids=np.array([[0, most]]))
    with pytest.raises(ValueError, match=rf"{name}: position_ids must be \(B, T\) = \(1, 2\)"):
        model(np.full((1, 2), 5), position_ids=np.arange(2))
    with pytest.raises(ValueError, match="lengths"):
        model(np.full((1, 5), 5), lengths=[2, 2])
