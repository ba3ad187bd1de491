"""The laws of encoder-decoders: a source packed with others, or read once and remembered, is the source read alone."""

import copy
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import minilm
from minilm.models.config import INERT, ONLY
from tests.models import judge

SOURCE = np.random.default_rng(0).integers(3, 31, (3, 7))
TARGET = np.random.default_rng(1).integers(3, 31, (3, 9))
MASK = np.arange(7) < np.array([[7], [4], [5]])
PADDED = {  # both sides with padding, of the source on the left and on the right
    "input_ids": SOURCE,
    "attention_mask": np.where([[True], [False], [True]], MASK, MASK[:, ::-1]).astype(np.int64),
    "decoder_input_ids": TARGET,
    "decoder_attention_mask": (np.arange(9) < np.array([[9], [6], [8]])).astype(np.int64),
}
PLAIN = {"input_ids": SOURCE, "decoder_input_ids": TARGET}
LABELS = {"labels": np.where(TARGET % 4, TARGET, -100)}
LENGTHS, WRITTEN = (7, 1, 4), (3, 9, 1)


def check_packed(folder, dtype, task=None, **options):
    """Pairs packed end to end give what each gives alone."""
    ours = minilm.load(folder, dtype=dtype, task=task, **options)
    sources = [row[:n] for row, n in zip(SOURCE, LENGTHS, strict=True)]
    targets = [row[:n] for row, n in zip(TARGET, WRITTEN, strict=True)]
    with minilm.no_grad():
        packed = judge.tensors(
            ours(
                input_ids=np.concatenate(sources)[None],
                decoder_input_ids=np.concatenate(targets)[None],
                lengths=LENGTHS,
                decoder_lengths=WRITTEN,
                output_hidden_states=True,
            )
        )
        assert packed
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            alone = ours(input_ids=source[None], decoder_input_ids=target[None], output_hidden_states=True)
            for name, value in judge.tensors(alone).items():
                end = np.cumsum(LENGTHS if name.startswith("encoder") else WRITTEN)[i]
                got = packed[name].data[0, end - value.shape[1] : end]
                assert judge.error(got, value.data[0]) < judge.PACKED[dtype], (name, i)


def check_packed_loss(folder, dtype):
    """The loss of packed labels is that of padded ones, and so is every gradient."""
    grads, losses = [], []
    for packed in (False, True):
        ours = minilm.load(folder, dtype=dtype)
        if packed:
            sources = np.concatenate([row[:n] for row, n in zip(SOURCE, LENGTHS, strict=True)])[None]
            labels = np.concatenate([row[:n] for row, n in zip(TARGET, WRITTEN, strict=True)])[None]
            out = ours(sources, labels=labels, lengths=LENGTHS, decoder_lengths=WRITTEN)
        else:
            mask = np.arange(7) < np.array(LENGTHS)[:, None]
            labels = np.where(np.arange(9) < np.array(WRITTEN)[:, None], TARGET, -100)
            out = ours(SOURCE, mask, labels=labels)
        out.loss.backward()
        losses.append(out.loss.item())
        grads.append({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    assert judge.error(losses[1], losses[0]) < judge.PACKED[dtype]
    assert grads[0].keys() == grads[1].keys()
    largest = max(np.abs(g).max() for g in grads[0].values())
    for name, g in grads[0].items():
        assert np.abs(grads[1][name] - g).max() < 10 * judge.PACKED[dtype] * largest, name


def check_cached(folder, dtype):
    """With a cache the logits are the same: in one go, in parts, of padded and of packed sources, and reordered."""
    ours = minilm.load(folder, dtype=dtype)
    mask = np.arange(7) < np.array(LENGTHS)[:, None]
    bar = judge.PACKED[dtype]
    with minilm.no_grad():
        want = ours(SOURCE, mask, TARGET).logits.data
        padded = ours.encode(SOURCE, mask)
        packed = ours.encode(np.concatenate([r[:n] for r, n in zip(SOURCE, LENGTHS, strict=True)])[None], None, LENGTHS)
        for parts in ((1,) * 9, (4, 5), (8, 1)):
            for read, how in ((padded, {"attention_mask": mask}), (packed, {"lengths": LENGTHS})):
                cache, got = ours.new_cache(3, 9), []
                ours.remember(cache, read, **how)
                for start, n in zip(np.cumsum((0, *parts)), parts, strict=False):
                    step = ours(decoder_input_ids=TARGET[:, start : start + n], past_key_values=cache)
                    got.append(step.logits.data)
                assert judge.error(np.concatenate(got, axis=1), want) < bar, (parts, how)
        assert cache.length == 9
        # The source beside an empty cache is remembered; then rows change places, as beam search asks.
        cache = ours.new_cache(3, 9)
        first = ours(SOURCE, mask, TARGET[:, :5], past_key_values=cache)
        assert judge.error(first.logits.data, want[:, :5]) < bar
        order = np.array([2, 0, 0])
        cache.reorder(order)
        got = ours(decoder_input_ids=TARGET[order, 5:], past_key_values=cache, logits_to_keep=1).logits.data
        assert judge.error(got, want[order, -1:]) < bar
        # Rows that have written unequally much go on each from its own end.
        cache.lengths = np.array([4, 2, 3])
        fresh = TARGET[order, [4, 2, 3]][:, None]
        got = ours(decoder_input_ids=fresh, past_key_values=cache).logits.data[:, 0]
        assert judge.error(got, want[order, [4, 2, 3]]) < bar


def check_labels_alone(folder, model):
    """Without a target, labels behind the start token are the target, -100 as padding."""
    inputs = {"input_ids": SOURCE, **LABELS}
    want = model(**{k: torch.tensor(v) for k, v in inputs.items()})
    got = minilm.load(folder)(**inputs)
    assert judge.error(got.logits.data, want.logits.detach().numpy()) < judge.BARS[np.float32]
    assert judge.error(got.loss.item(), want.loss.item()) < judge.BARS[np.float32]


def check_one_source_from_another(folder):
    """``encoder_outputs`` stand in for the source."""
    ours = minilm.load(folder)
    with minilm.no_grad():
        read = ours.encode(PADDED["input_ids"], PADDED["attention_mask"])
        inputs = {name: PADDED[name] for name in PADDED if name != "input_ids"}
        got, want = ours(encoder_outputs=read, **inputs), ours(**PADDED)
    np.testing.assert_array_equal(got.logits.data, want.logits.data)


def options(config):
    """What transformers writes, less what it derives from T5's feed_forward_proj."""
    return {k: v for k, v in config.to_dict().items() if k not in ("dense_act_fn", "is_gated_act")}


def check_options(ours, theirs, honoured):
    """Every option that transformers writes is a field, has one value, or changes no number; every field is tried.

    ``honoured``: {option: another value than in ``theirs``}, none of which may leave the configuration as it was.
    """
    only, own = {**ONLY, **ours.only}, {f.name for f in fields(ours)}
    written = options(theirs)
    known = own | only.keys() | INERT | set(ours.inert) | set(ours.aliases) | {"label2id"}
    assert written.keys() <= known, written.keys() - known
    said_elsewhere = {"id2label", "problem_type", "bos_token_id", "is_encoder_decoder"}
    assert own - said_elsewhere == honoured.keys(), (own - said_elsewhere) ^ honoured.keys()
    base = ours.from_dict(written)
    for option, value in honoured.items():
        assert getattr(ours.from_dict({**written, option: value}), option) == value != getattr(base, option), option
    for option, values in only.items():
        if option not in own:
            wrong = next(v for v in (True, False, 7) if v not in values)
            with pytest.raises(ValueError, match=f"{option} must be"):
                ours.from_dict({**written, option: wrong})
    for option in ours.inert:
        assert ours.from_dict({**written, option: 7}) == base, option
    with pytest.raises(ValueError, match="bogus is no option"):
        ours.from_dict({**written, "bogus": 1})


def check_honoured(cls, config, honoured, folder):
    """With each option changed, our logits are theirs, and not those of the configuration as it was."""
    inputs = {k: torch.tensor(v) for k, v in PLAIN.items()}

    def both(**changes):
        changed = copy.deepcopy(config)
        for option, value in changes.items():
            setattr(changed, option, value)
        model = judge.checkpoint(folder, cls, type(config)(**options(changed)), scale=0.15)
        with torch.no_grad(), minilm.no_grad():
            return minilm.load(folder)(**PLAIN).logits.data, model(**inputs).logits.numpy()

    before, _ = both()
    for option, value in honoured.items():
        got, want = both(**{option: value})
        assert judge.error(got, want) < judge.BARS[np.float32], option
        assert got.shape != before.shape or judge.error(got, before) > 1e-4, option


def check_dropout(case, folder, rates, quiet, monkeypatch):
    """In training mode each option drops where transformers drops: the numbers agree where both draw the same.

    ``quiet(model)`` switches attention's own dropout off, which happens inside of a kernel: with it, on our side alone,
    outputs change from call to call.
    """

    def drawn(shape, p):
        return (np.random.default_rng(int(1000 * p)).random(tuple(shape)) >= p) / (1 - p)

    def mine(self, x):
        return x * drawn(x.shape, self.p).astype(x.dtype) if self.training and self.p else x

    def its(x, p=0.5, training=True, inplace=False):
        return x * torch.tensor(drawn(x.shape, p), dtype=x.dtype) if training and p else x

    config = copy.deepcopy(case.config)
    for i, option in enumerate(rates):
        setattr(config, option, 0.1 * (i + 1))
    other = judge.checkpoint(folder, case.cls, config, scale=0.15).train()
    ours = minilm.load(folder, rng=np.random.default_rng(0)).train()
    monkeypatch.setattr(minilm.nn.Dropout, "forward", mine)
    monkeypatch.setattr(torch.nn.functional, "dropout", its)
    with torch.no_grad(), minilm.no_grad():
        once, twice = (judge.tensors(ours(**case.inputs)) for _ in range(2))
        assert all((once[name].data != twice[name].data).any() for name in once)
        quiet(ours)
        quiet(other)
        got, still = judge.tensors(ours(**case.inputs)), judge.tensors(ours.eval()(**case.inputs))
        want = judge.tensors(other(**{k: torch.tensor(v) for k, v in case.inputs.items()}))
    for name in got:
        assert judge.error(got[name].data, want[name].numpy()) < judge.BARS[np.float32], name
        assert judge.error(got[name].data, still[name].data) > 1e-3, name


def check_old_file(folder, model, duplicates, besides):
    """Files that hold shared tables under every name, and what is no parameter, give the same numbers."""
    want = model(**{k: torch.tensor(v) for k, v in PLAIN.items()}).logits.detach().numpy()
    weights = load_file(folder / "model.safetensors")
    for table, names in duplicates.items():
        weights |= {name: weights[table].copy() for name in names}
    save_file({**weights, **besides}, folder / "model.safetensors")
    assert judge.error(minilm.load(folder)(**PLAIN).logits.data, want) < judge.BARS[np.float32]


def check_errors(folder):
    """What does not fit is refused, and said."""
    ours = minilm.load(folder)
    with pytest.raises(ValueError, match="input_ids must be given"):
        ours(decoder_input_ids=TARGET)
    with pytest.raises(ValueError, match="a target for each source, 3 rows; got 2"):
        ours(SOURCE, decoder_input_ids=TARGET[:2])
    with pytest.raises(ValueError, match=r"attention_mask must be \(B, S\) = \(3, 7\)"):
        ours(SOURCE, np.ones((3, 6)), TARGET)
    with pytest.raises(ValueError, match="attention_mask must be"):
        ours(encoder_outputs=ours.encode(SOURCE), attention_mask=np.ones((3, 6)), decoder_input_ids=TARGET)
    with pytest.raises(ValueError, match="packed sources must have packed targets"):
        ours(SOURCE[:1], decoder_input_ids=TARGET[:1], lengths=[3, 4])
    with pytest.raises(ValueError, match="packed sources must have packed targets"):
        ours(SOURCE[:1], decoder_input_ids=TARGET[:1], lengths=[3, 4], decoder_lengths=[2, 3, 4])
    read = ours.encode(SOURCE[:1])
    with pytest.raises(ValueError, match="adding up to N"):
        ours(encoder_outputs=read, decoder_input_ids=TARGET[:1], lengths=[3, 5], decoder_lengths=[5, 4])
    with pytest.raises(ValueError, match="packed sources have no padding"):
        ours(
            encoder_outputs=read,
            attention_mask=np.ones((1, 7)),
            decoder_input_ids=TARGET[:1],
            lengths=[3, 4],
            decoder_lengths=[5, 4],
        )
    with pytest.raises(IndexError, match="31"):
        ours(SOURCE, decoder_input_ids=np.full((3, 2), 99))
    with minilm.no_grad():
        cache = ours.new_cache(2, 4)
        with pytest.raises(ValueError, match="a row for each source, 3; it has 2"):
            ours.remember(cache, ours.encode(SOURCE))
        ours.remember(cache, ours.encode(SOURCE[:2]))
        with pytest.raises(ValueError, match="beside a cache must be rows"):
            ours(decoder_input_ids=TARGET[:1, :2], past_key_values=cache, decoder_lengths=[1, 1])
        with pytest.raises(ValueError, match="the decoder: at most 4 positions fit, the size of this cache; got 5"):
            ours(decoder_input_ids=TARGET[:2, :5], past_key_values=cache)
