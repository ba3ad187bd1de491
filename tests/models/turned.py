"""What the tests of families with rotary positions share: their judge, their heads, and an account of their options."""

from dataclasses import fields

import numpy as np
import pytest
import torch
import transformers
from transformers import modeling_rope_utils as rope

import minilm
from minilm.checkpoint import CheckpointError
from minilm.models import config as shared
from minilm.models import tasks
from tests.models import judge

IDS = np.random.default_rng(0).integers(1, 37, (3, 9))
MASK = np.array([[1] * 9, [1] * 6 + [0] * 3, [1] * 8 + [0]])
HEADS = {
    "Model": None,
    "ForCausalLM": {"labels": IDS},
    "ForSequenceClassification": {"labels": np.array([2, 0, 1])},
    "ForTokenClassification": {"labels": np.where(IDS % 4, IDS % 3, -100)},
    "ForQuestionAnswering": {"start_positions": np.array([1, 8, 30]), "end_positions": np.array([3, 8, 30])},
}
SMALL = {
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "num_labels": 3,
    "head_dim": 6,
}


def theirs(model, dtype, plain=judge.theirs):
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.__init__(module.config)  # its frequencies anew
    return plain(model, dtype)


def dynamic(config, device=None, seq_len=None, plain=rope.ROPE_INIT_FUNCTIONS["dynamic"], **kwargs):
    return plain(config, device, None if seq_len is None else int(seq_len), **kwargs)


# transformers computes angles and norms in float32, whatever the model's dtype: here float32 then means float64, and a
# length is a number, for a tensor of one whole number times a float is float32.
judge.DOUBLED += [
    *((torch, name, torch.float64) for name in ("float", "float32")),
    (torch.Tensor, "float", torch.Tensor.double),
    (rope, "ROPE_INIT_FUNCTIONS", {**rope.ROPE_INIT_FUNCTIONS, "dynamic": dynamic}),
    (judge, "theirs", theirs),
]


def config(family, **changes):
    return getattr(transformers, f"{family}Config")(**{**SMALL, **changes})


def case(family, head, name, inputs=None, **changes):
    ids = {"input_ids": IDS, **(inputs or {})}
    return judge.Case(name, getattr(transformers, family + head), config(family, **changes), ids, HEADS[head])


def cases(family, variants):
    """Every head of the plain model, and the language model of every variant, {name: changes}."""
    stepped = {"attention_mask": np.ones_like(IDS), "position_ids": np.arange(9) * 2 + np.arange(3)[:, None]}
    return [
        *(case(family, head, "plain") for head in HEADS),
        case(family, "ForCausalLM", "padded", {"attention_mask": MASK}),
        case(family, "Model", "positions of its own", stepped),
        *(case(family, "ForCausalLM", name, **changes) for name, changes in variants.items()),
    ]


def check_account(family, cases, published):
    """Every option of transformers, and of ``published`` files, is known; its fields are judged by cases.

    Left to ``check_training``: what acts in training alone.
    """
    plain = config(family).to_dict()
    cls = tasks(plain["model_type"])["base"].config_class
    own = {f.name for f in fields(cls)}
    known = own | cls.only.keys() | shared.ONLY.keys() | shared.INERT | set(cls.inert) | {"label2id"}
    assert set(plain) <= known
    read = cls.from_dict({"model_type": plain["model_type"], **published})
    for option, value in published.items():
        if option in own:
            assert getattr(read, option) == value, option
    dicts = [c.config.to_dict() for c in cases]
    varied = {name for name in own if len({repr(d.get(name)) for d in dicts}) > 1}
    every_family_has = {f.name for f in fields(shared.Config)} - {"tie_word_embeddings"}
    assert own - varied - every_family_has == {"attention_dropout", "classifier_dropout", "initializer_range"}
    for option in ("quantization_config", "add_cross_attention", "wavelength"):
        with pytest.raises(ValueError, match=option):
            cls.from_dict({**plain, option: True})


def check_refused(family, refused):
    """Each of [(changes, words of the error), ...] is refused by name."""
    plain = config(family).to_dict()
    cls = tasks(plain["model_type"])["base"].config_class
    for changes, words in refused:
        with pytest.raises(ValueError, match=words):
            cls.from_dict({**plain, **changes})


def check_heads(family, folder):
    """A base model's file gives every head, with first values of its own, and every head's file the base model."""
    name = family.lower()
    model = judge.checkpoint(folder / "base", getattr(transformers, f"{family}Model"), config(family))
    table = model.embed_tokens.weight.detach().numpy()
    for task, cls in tasks(name).items():
        if task == "base":
            continue
        with pytest.raises(CheckpointError, match="rng"):
            minilm.load(folder / "base", task=task)
        ours = minilm.load(folder / "base", task=task, rng=np.random.default_rng(1))
        assert type(ours) is cls
        np.testing.assert_array_equal(ours.base_model.embed_tokens.weight.data, table)
        minilm.save(ours, folder / task)
        again = minilm.load(folder / task, task="base")
        np.testing.assert_array_equal(again.norm.weight.data, model.norm.weight.detach().numpy())
        other = "token-classification" if task == "question-answering" else "question-answering"
        moved = minilm.load(folder / task, task=other, rng=np.random.default_rng(2))
        np.testing.assert_array_equal(moved.base_model.embed_tokens.weight.data, table)


def check_training(family):
    """First values are transformers', a padding row is 0, dropout of attention acts in training alone."""
    name = family.lower()
    ours = tasks(name)["token-classification"].config_class.from_dict(
        config(family, hidden_size=96, attention_dropout=0.5, initializer_range=0.3).to_dict()
    )
    model = tasks(name)["base"](ours, rng=np.random.default_rng(0), dtype=np.float64)
    for parameter, p in model.named_parameters():
        if "norm" in parameter:
            assert (p.data == 1).all(), parameter
        elif parameter.endswith("bias"):
            assert (p.data == 0).all(), parameter
        else:
            assert abs(p.data.std() / 0.3 - 1) < 0.1, parameter
            assert abs(p.data.mean()) < 0.03, parameter
    assert not model.embed_tokens.weight.data[0].any()
    first, second = (model(IDS).last_hidden_state.data for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    model.eval()
    first, second = (model(IDS).last_hidden_state.data for _ in range(2))
    np.testing.assert_array_equal(first, second)
