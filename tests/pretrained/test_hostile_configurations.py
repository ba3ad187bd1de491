"""Whatever a config.json holds, the answer is a model or one error that names it: no crash, no hang, no memory."""

import dataclasses
import resource
from importlib import import_module
from pathlib import Path

import pytest

from minilm.checkpoint import CheckpointError, Entry, Weights
from minilm.models import MODEL_TYPES
from minilm.pretrained.loading import build
from minilm.pretrained.source import Source

VALUES = (None, -1, 0, 1, 7, 2**31, 10**12, 10**30, 1.5, -0.5, 1e308, True, "x", "", [], [1], ["x"], {}, {"x": 1})


@pytest.fixture
def little_memory():
    """4 GB of addresses for the whole process, more than these tests need."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def source(config):
    """A model folder with a hundred weights, which are not looked at."""
    entries = [Entry(str(i), "F32", (1,), 4, Path("file"), lambda: None) for i in range(100)]
    return Source(Path("folder"), config, Weights(Path("folder"), "safetensors", entries))


@pytest.mark.parametrize("family", MODEL_TYPES)
def test_any_value_of_any_option(family, little_memory):
    module = import_module(f"tests.models.test_{'gpt2_heads' if family == 'gpt2' else family}")
    plain = {**module.CASES[0].config.to_dict(), "architectures": [module.CASES[0].cls.__name__]}
    build(source(plain))
    cls = import_module(f"minilm.models.{family}").TASKS["base"].config_class
    options = {*plain, *(f.name for f in dataclasses.fields(cls)), "architectures", "model_type", "unheard_of"}
    refused = []
    for option in sorted(options):
        for value in VALUES:
            try:
                build(source({**plain, option: value}))
            except CheckpointError as error:
                refused.append(str(error))
    assert len(refused) > len(options)
    assert all(said.startswith("folder: ") for said in refused)
