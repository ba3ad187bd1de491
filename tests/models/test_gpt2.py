"""GPT-2 against transformers' own, and the laws that hold whatever the weights are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import minilm
from minilm import nn
from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel
from minilm.testing import AGAINST_PYTORCH, assert_close, check_grad
from tests.golden import gpt2_training

TINY = {"vocab_size": 31, "n_positions": 12, "n_embd": 24, "n_layer": 2, "n_head": 3, "initializer_range": 0.3}
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
VARIANTS = {
    "plain": {},
    "erf": {"activation_function": "gelu", "layer_norm_epsilon": 1e-3},
    "untied": {"tie_word_embeddings": False},
    "unscaled": {"scale_attn_weights": False, "n_inner": 17},
    "by layer": {"scale_attn_by_inverse_layer_idx": True},
    "one head": {"n_head": 1},
}


def model(dtype=np.float64, seed=0, **changes):
    config = GPT2Config(**{**TINY, **STILL, **changes})
    made = GPT2LMHeadModel(config, rng=np.random.default_rng(seed), dtype=dtype)
    draw = np.random.default_rng(seed + 1)
    for name, p in made.named_parameters():  # biases and norms away from 0 and 1, where a mistake could hide
        if "ln_" in name or name.endswith("bias"):
            p.writable()[...] += 0.2 * draw.standard_normal(p.shape)
    return made


def theirs(ours):
    """transformers' model with the same configuration and weights."""
    given = {k: v for k, v in ours.config.to_dict().items() if k not in ("bias", "architectures", "model_type")}
    config = transformers.GPT2Config(**given, attn_implementation="eager")
    other = transformers.GPT2LMHeadModel(config).to(torch.float64).eval()
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    return other


def batch(B=3, T=9, seed=2):
    return np.random.default_rng(seed).integers(0, TINY["vocab_size"], (B, T))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_loss_and_every_gradient_agree_with_transformers(variant, backend):
    ours = model(**VARIANTS[variant])
    other = theirs(ours)
    ids = batch()
    labels = ids.copy()
    labels[0, 3:5] = -100
    out = ours(ids, labels=labels, output_hidden_states=True)
    want = other(torch.tensor(ids), output_hidden_states=True)
    loss = gpt2_training.torch_loss(want.logits, torch.tensor(labels))
    assert_close(out.logits.data, want.logits.detach().numpy(), AGAINST_PYTORCH[np.float64], "logits")
    assert_close(out.loss.data, loss.detach().numpy(), AGAINST_PYTORCH[np.float64], "loss")
    for i, (mine, its) in enumerate(zip(out.hidden_states, want.hidden_states, strict=True)):
        assert_close(mine.data, its.detach().numpy(), AGAINST_PYTORCH[np.float64], f"hidden state {i}")
    out.loss.backward()
    loss.backward()
    gradients = dict(other.named_parameters())
    for name, p in ours.named_parameters():
        assert_close(p.grad, gradients[name].grad.numpy(), AGAINST_PYTORCH[np.float64], name)


def test_padding_on_the_left_agrees_with_transformers(backend):
    ours, ids = model(), batch()
    mask = np.ones_like(ids)
    mask[0, :4] = 0
    positions = np.maximum(mask.cumsum(-1) - 1, 0)
    with minilm.no_grad():
        got = ours(ids, attention_mask=mask, position_ids=positions).logits.data
    want = theirs(ours)(
        torch.tensor(ids), attention_mask=torch.tensor(mask), position_ids=torch.tensor(positions)
    ).logits.detach()
    # Queries that are padding themselves see no key: ours give zeros there, transformers' the mean of all values.
    seen = mask.astype(bool)
    assert_close(got[seen], want.numpy()[seen], AGAINST_PYTORCH[np.float64])


def test_a_later_token_never_changes_an_earlier_output(backend):
    ours, ids = model(np.float32), batch()
    changed = ids.copy()
    changed[:, 6:] = (changed[:, 6:] + 1) % TINY["vocab_size"]
    with minilm.no_grad():
        before, after = ours(ids).logits.data, ours(changed).logits.data
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] != after[:, 6:]).any()


@pytest.mark.parametrize("steps", [(1,) * 9, (4, 5), (8, 1)], ids=str)
def test_with_a_cache_the_outputs_are_the_same(steps, backend):
    ours, ids = model(), batch()
    with minilm.no_grad():
        want = ours(ids).logits.data
        cache, parts, start = ours.new_cache(len(ids)), [], 0
        for n in steps:
            parts.append(ours(ids[:, start : start + n], past_key_values=cache).logits.data)
            start += n
    assert cache.length == ids.shape[1]
    assert_close(np.concatenate(parts, axis=1), want, 1e-12)


def test_tied_weights_are_one_parameter():
    ours = model()
    assert ours.lm_head.weight is ours.transformer.wte.weight
    assert [n for n, _ in ours.named_parameters()].count("transformer.wte.weight") == 1
    assert "lm_head.weight" not in ours.state_dict()
    untied = model(tie_word_embeddings=False)
    assert "lm_head.weight" in untied.state_dict()
    assert untied.num_parameters() == ours.num_parameters() + 31 * 24


def test_dropout_is_drawn_from_the_models_generator_alone(backend):
    def losses(seed):
        ours = model(np.float32, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)
        ours.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        return [ours(batch(), labels=batch()).loss.item() for _ in range(3)]

    assert losses(5) == losses(5)
    assert len(set(losses(5) + losses(6))) == 6
    ours = model(np.float32, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1).eval()
    assert ours(batch(), labels=batch()).loss.item() == ours(batch(), labels=batch()).loss.item()


def test_first_values_are_those_of_the_paper():
    config = GPT2Config(vocab_size=500, n_positions=64, n_embd=64, n_layer=8, n_head=2)
    weights = GPT2LMHeadModel(config, rng=np.random.default_rng(0)).state_dict()
    for name, std in {"wte": 0.02, "h.0.attn.c_attn": 0.02, "h.3.attn.c_proj": 0.005, "h.7.mlp.c_proj": 0.005}.items():
        array = weights[f"transformer.{name}.weight"]
        # the standard error of a standard deviation is std / √(2n); 5 of them
        assert abs(array.std() - std) < 5 * std / np.sqrt(2 * array.size), name
    assert all((a == 0).all() for n, a in weights.items() if n.endswith("bias"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_head": 5}, "n_embd must divide by n_head"),
        ({"activation_function": "gleu"}, "activation_function must be one of"),
        ({"attn_pdrop": 1.5}, "attn_pdrop must be a rate in"),
        ({"n_layer": 0}, "n_layer must be a whole number, at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        GPT2Config(**{**TINY, **change})


def test_wrong_input_is_refused_with_what_must_hold():
    ours = model()
    with pytest.raises(ValueError, match=r"at most 12 positions fit; got 13"):
        ours(batch(T=13))
    with pytest.raises(IndexError, match=r"token ids must lie in \[0, 31\); got 31"):
        ours(np.full((1, 2), 31))
    with pytest.raises(ValueError, match=r"input_ids must be \(B, T\)"):
        ours(np.zeros(3, int))
    with pytest.raises(ValueError, match=r"labels must have the shape"):
        ours(batch(), labels=batch(T=4))
    with pytest.raises(RuntimeError, match="no_grad"):
        ours(batch(), past_key_values=ours.new_cache(3))


def test_the_gradient_through_the_whole_model_agrees_with_differences(backend):
    ours = model()
    names, values = zip(*((n, p.data) for n, p in ours.named_parameters()), strict=True)
    ids = batch(2, 5)
    check_grad(lambda *w: nn.functional_call(ours, dict(zip(names, w, strict=True)), ids, labels=ids).loss, *values)


def test_second_derivatives_through_the_whole_model_agree_with_pytorch():
    ours, ids = model(), batch(2, 5)
    other = theirs(ours)
    parameters = dict(ours.named_parameters())
    rng = np.random.default_rng(7)
    tangents = {name: rng.standard_normal(p.shape) for name, p in parameters.items()}
    values = {name: p.detach() for name, p in parameters.items()}
    got = minilm.hvp(lambda w: nn.functional_call(ours, w, ids, labels=ids).loss, (values,), (tangents,))
    its = dict(other.named_parameters())
    loss = gpt2_training.torch_loss(other(torch.tensor(ids)).logits, torch.tensor(ids))
    first = torch.autograd.grad(loss, [its[name] for name in parameters], create_graph=True)
    along = sum((g * torch.tensor(tangents[name])).sum() for name, g in zip(parameters, first, strict=True))
    second = torch.autograd.grad(along, [its[name] for name in parameters])
    for name, want in zip(parameters, second, strict=True):
        assert_close(got[name].data, want.numpy(), AGAINST_PYTORCH[np.float64], name)


GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "gpt2_training.json").read_text())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", GOLDEN["losses"])
def test_ten_training_losses_equal_pytorchs(case, dtype, backend):
    # Losses near 4 that have gone through 10 steps: 1e-5 and 1e-10, absolute, are the bars of the project.
    np.testing.assert_allclose(
        gpt2_training.ours(case, dtype),
        GOLDEN["losses"][case][dtype],
        rtol=0,
        atol={"float32": 1e-5, "float64": 1e-10}[dtype],
    )


def test_the_golden_losses_are_what_this_pytorch_gives():
    for case, losses in GOLDEN["losses"].items():
        np.testing.assert_allclose(gpt2_training.pytorch(case, "float64"), losses["float64"], rtol=0, atol=1e-10)
