"""The judge of every family: small random checkpoints written by transformers, loaded here, compared number by number.

What is compared, in float32 and float64: every output (logits, hidden states, pooler, cross-attended states), the loss,
and the gradient of one number made of all outputs with respect to every parameter.
"""

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import minilm

BARS = {np.float32: 2e-5, np.float64: 1e-10}  # of the largest entry
PACKED = {np.float32: 1e-5, np.float64: 1e-12}  # the same sums, of other lengths and so in another order
transformers.utils.logging.set_verbosity_error()


@dataclass
class Case:
    """One checkpoint to be judged: a transformers class, its configuration, and what both sides are called with."""

    name: str
    cls: Any  # of transformers
    config: Any  # of transformers
    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray] | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of ``compare``
    scale: float = 0.3  # of the random numbers: smaller where a softmax that they saturate loses float32's digits

    def __str__(self):
        return f"{self.cls.__name__}, {self.name}"


def judge(case, folder, dtype):
    """Write the case's checkpoint, load it here, and hold every error to the bar; return the errors."""
    model = checkpoint(folder, case.cls, case.config, scale=case.scale)
    return check(folder, model, case.inputs, dtype=dtype, labels=case.labels, **case.options)


def checkpoint(folder, cls, config, seed=0, scale=0.3):
    """Write a random checkpoint of a transformers class; no parameter is left at the 0 or 1 that it starts from."""
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        data = [model.final_logits_bias] if hasattr(model, "final_logits_bias") else []  # not learned, but in the file
        for p in (*(p for p in model.parameters() if p.requires_grad), *data):
            p.add_(scale * torch.randn(p.shape, dtype=p.dtype))
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    model.save_pretrained(folder)
    return model


def theirs(model, dtype):
    return model.to(torch.float64 if dtype == np.float64 else torch.float32)


def error(got, want):
    """The largest difference over the largest entry."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    assert np.isfinite(got).all()
    return float(np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-30))


def tensors(output):
    """{name: Tensor} of all that an output holds; tuples of states as name.0, name.1, ..."""
    found = {}
    for name, value in vars(output).items() if not isinstance(output, dict) else output.items():
        if name in ("past_key_values", "loss", "attentions", "cross_attentions", "decoder_attentions") or value is None:
            continue
        if isinstance(value, (tuple, list)):
            found |= {f"{name}.{i}": v for i, v in enumerate(value)}
        elif hasattr(value, "shape"):
            found[name] = value
    return found


def softmax(input, dim=None, dtype=None, plain=torch.nn.functional.softmax, **kwargs):
    return plain(input, dim=dim, dtype=None if input.dtype == torch.float64 else dtype, **kwargs)


# What transformers computes in float32, or with few digits, even of a float64 model: (where, name, what replaces it
# while a float64 model is judged).  A family's test adds its own.
DOUBLED: list[tuple[Any, str, Any]] = [(torch.nn.functional, "softmax", softmax)]


@contextmanager
def in_double(dtype):
    with pytest.MonkeyPatch.context() as patch:
        for where, name, replacement in DOUBLED if dtype == np.float64 else ():
            patch.setattr(where, name, replacement)
        yield


def compare(folder, model, inputs, *, dtype, task=None, labels=None, skip=(), ignore=(), renamed=None):
    """Compare the transformers ``model``, as saved in ``folder``, with ours; return {what: error}.

    ``inputs`` and ``labels``: {argument: NumPy array}, under the names that both sides have.  ``skip``: outputs that
    only one side gives.  ``renamed``: {prefix of a parameter's name in transformers: in its files}, where they differ.
    """
    ours = minilm.load(folder, dtype=dtype, task=task, ignore=ignore)
    other = theirs(model, dtype)
    mine = ours(**inputs, **(labels or {}), output_hidden_states=True)
    torched = {k: torch.tensor(v) for k, v in inputs.items()}
    want = other(**torched, output_hidden_states=True, return_dict=True)
    a, b = tensors(mine), tensors(want)
    assert a.keys() - set(skip) == b.keys() - set(skip), (sorted(a), sorted(b))
    names = [name for name in a if name in b]
    errors = {name: error(a[name].data, b[name].detach().numpy()) for name in names}
    if labels:
        loss = other(**torched, **{k: torch.tensor(v) for k, v in labels.items()}, return_dict=True).loss
        errors["loss"] = error(mine.loss.item(), loss.item()) if dtype == np.float32 else 0.0  # theirs is in float32
        assert abs(mine.loss.item() - loss.item()) < 1e-5 * max(1, abs(loss.item()))
    errors |= gradient_errors(ours, other, [a[n] for n in names], [b[n] for n in names], renamed or {})
    return errors


def gradient_errors(ours, other, mine, want, renamed):
    """Differentiate Σ r y over all outputs y, with random r; compare the gradients of every parameter."""
    rng = np.random.default_rng(5)
    total, its = 0.0, 0.0
    for a, b in zip(mine, want, strict=True):
        if not b.requires_grad:
            continue
        r = rng.standard_normal(a.shape) / a.size
        total = total + (a * r.astype(a.dtype)).sum()
        its = its + (b * torch.tensor(r, dtype=b.dtype)).sum()
    total.backward()
    other.zero_grad()
    its.backward()
    gradients = {name: p.grad for name, p in other.named_parameters(remove_duplicate=False)}
    for theirs, filed in renamed.items():
        gradients = {re.sub(f"^{theirs}", filed, name): g for name, g in gradients.items()}
    largest = max(float(g.abs().max()) for g in gradients.values() if g is not None)
    errors = {}
    for name, p in ours.named_parameters():
        if not p.requires_grad:
            continue
        g = gradients[name]
        want_g = np.zeros(p.shape) if g is None else g.numpy()
        got_g = np.zeros(p.shape) if p.grad is None else p.grad
        # A gradient that is 0 on paper (a key's bias) is rounding noise of the others: measured against them.  A bias
        # is one more column of its matrix, whose gradient is a sum of terms as large.
        matrix = gradients.get(name.removesuffix("bias") + "weight")
        beside = float(matrix.abs().max()) if matrix is not None and matrix.ndim == 2 else 0.0
        floor = max(np.abs(want_g).max(initial=0), beside, 1e-3 * largest)
        errors[f"gradient of {name}"] = float(np.abs(got_g - want_g).max(initial=0) / floor)
    missing = {n for n, g in gradients.items() if g is not None} - set(
        dict(ours.named_parameters(remove_duplicate=False))
    )
    assert not missing, missing
    return errors


def check(folder, model, inputs, *, dtype, **options):
    """``compare`` and hold every error to the bar; return the largest of outputs and of gradients."""
    with in_double(dtype):
        errors = compare(folder, model, inputs, dtype=dtype, **options)
    worst = {name: e for name, e in errors.items() if not e <= BARS[dtype]}
    assert not worst, worst
    return errors


def check_round_trip(folder, model, out: Path):
    """Load ours, save it, load that in transformers: the same bits under the same names, nothing missing."""
    ours = minilm.load(folder)
    minilm.save(ours, out)
    model = model.to(torch.float32)
    again, info = type(model).from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    written = json.loads((out / "config.json").read_text())
    assert written["architectures"] == [type(model).__name__]
    reread, known = type(model.config).from_pretrained(out).to_dict(), model.config.to_dict()
    changed = {k: (known[k], reread.get(k)) for k in known if k not in UNSAVED and known[k] != reread.get(k)}
    assert not changed, changed


UNSAVED = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "architectures", "use_cache"}


def check_packed(folder, sequences, *, dtype, task=None, outputs=("last_hidden_state", "logits"), **extra):
    """Sequences packed end to end give what each gives alone, and what padded rows give where there is no padding.

    ``extra``: further arguments of shape (N,), packed like the ids, cut and padded here alongside.
    """
    ours = minilm.load(folder, dtype=dtype, task=task)
    lengths = [len(s) for s in sequences]
    ends = np.cumsum(lengths)
    T = max(lengths)
    rows, mask = np.zeros((len(lengths), T), np.int64), np.zeros((len(lengths), T), np.int64)
    padded = {k: np.zeros((len(lengths), T), np.asarray(v).dtype) for k, v in extra.items()}
    for i, s in enumerate(sequences):
        rows[i, : len(s)], mask[i, : len(s)] = s, 1
        for k, v in extra.items():
            padded[k][i, : len(s)] = v[ends[i] - len(s) : ends[i]]
    with minilm.no_grad():
        along = {k: v[None] for k, v in extra.items()}
        packed = tensors(ours(np.concatenate(sequences)[None], lengths=lengths, **along))
        full = tensors(ours(rows, attention_mask=mask, **padded))
        for i, s in enumerate(sequences):
            cut = slice(ends[i] - len(s), ends[i])
            alone = tensors(ours(np.array(s)[None], **{k: v[cut][None] for k, v in extra.items()}))
            for name in packed:
                if name not in outputs:
                    continue
                got = packed[name].data
                got = got[0, cut] if got.shape[1:2] == (sum(lengths),) else got[i]
                assert error(got, alone[name].data[0]) < PACKED[dtype], (name, i)
                in_rows = full[name].data[i]
                in_rows = in_rows[: len(s)] if in_rows.shape[0] == T and in_rows.ndim == got.ndim else in_rows
                assert error(got, in_rows) < PACKED[dtype], (name, i)


def check_cached(folder, ids, *, dtype, task="causal-lm", steps=((1,) * 9, (4, 5), (8, 1))):
    """With a cache the outputs are the same, in one go or in parts; also after prompts of different length, packed."""
    ours = minilm.load(folder, dtype=dtype, task=task)
    ids = np.asarray(ids)
    with minilm.no_grad():
        want = ours(ids).logits.data
        for parts in steps:
            cache, got, start = ours.new_cache(len(ids), ids.shape[1]), [], 0
            for n in parts:
                got.append(ours(ids[:, start : start + n], past_key_values=cache).logits.data)
                start += n
            assert error(np.concatenate(got, axis=1), want[:, :start]) < PACKED[dtype]
        lengths = [1 + (3 * b + 1) % (ids.shape[1] - 3) for b in range(len(ids))]
        cache = ours.new_cache(len(ids), ids.shape[1])
        first = np.concatenate([row[:n] for row, n in zip(ids, lengths, strict=True)])[None]
        packed = ours(first, lengths=lengths, past_key_values=cache).logits.data[0]
        for b, end in enumerate(np.cumsum(lengths)):
            assert error(packed[end - lengths[b] : end], want[b, : lengths[b]]) < PACKED[dtype]
        for step in range(2):
            fresh = np.array([[row[n + step]] for row, n in zip(ids, lengths, strict=True)])
            got = ours(fresh, past_key_values=cache).logits.data[:, 0]
            for b, n in enumerate(lengths):
                assert error(got[b], want[b, n + step]) < PACKED[dtype], (b, step)


def check_dropout(cls, config, rates):
    """Each of a configuration's rates, all others 0, changes what the model gives in training, and there alone."""
    ids = np.arange(8)[None]
    for rate in rates:
        chosen = replace(config, **{name: 0.5 if name == rate else 0.0 for name in rates})
        model = cls(chosen, rng=np.random.default_rng(0))
        with minilm.no_grad():
            first, second = (next(iter(tensors(model(ids)).values())).data for _ in range(2))
            assert not np.array_equal(first, second), rate
            model.eval()
            first, second = (next(iter(tensors(model(ids)).values())).data for _ in range(2))
            np.testing.assert_array_equal(first, second)
