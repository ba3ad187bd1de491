"""T5 against transformers' own: every head, option and layout of tokens."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.activations import ACT2FN
from transformers.models.t5 import modeling_t5

import minilm
from minilm.models.t5 import T5Config
from minilm.nn import ACTIVATIONS
from minilm.nn.relative import relative_buckets
from tests.models import judge, pairs

EOS = 1
ENDED = pairs.SOURCE.copy()
ENDED[:, -1] = ENDED[1, 3] = ENDED[0, 1] = ENDED[2, 5] = EOS  # twice in every row, at other places
LM, CLASSES = transformers.T5ForConditionalGeneration, transformers.T5ForSequenceClassification


def norm(self, x):
    """T5LayerNorm without its detour over float32."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


judge.DOUBLED.append((modeling_t5.T5LayerNorm, "forward", norm))


def config(**changes):
    small = {"vocab_size": 31, "d_model": 20, "d_kv": 5, "d_ff": 22, "num_layers": 2, "num_heads": 3}
    few = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 7, "decoder_start_token_id": 0}
    return transformers.T5Config(**{**small, **few, **changes})


ODD = {"relative_attention_num_buckets": 5, "relative_attention_max_distance": 4}
CASES = [
    judge.Case(*case, scale=0.15)  # scores are not divided by √D: at 0.3 they saturate
    for case in (
        ("source and target", transformers.T5Model, config(num_decoder_layers=3), pairs.PLAIN),
        ("padding", LM, config(), pairs.PADDED),
        ("1.1", LM, config(tie_word_embeddings=False, feed_forward_proj="gated-gelu"), pairs.PLAIN, pairs.LABELS),
        ("gated silu", LM, config(feed_forward_proj="gated-silu"), pairs.PLAIN, pairs.LABELS),
        ("odd buckets, gelu", LM, config(**ODD, feed_forward_proj="gelu"), pairs.PLAIN),
        ("eps, one layer", LM, config(layer_norm_epsilon=0.1, num_decoder_layers=1), pairs.PLAIN),
        ("encoder", transformers.T5EncoderModel, config(), {k: pairs.PADDED[k] for k in list(pairs.PADDED)[:2]}),
        ("classes", CLASSES, config(num_labels=3), {"input_ids": ENDED}, {"labels": np.array([2, 0, 1])}),
        (
            "tokens",
            transformers.T5ForTokenClassification,
            config(num_labels=3),
            {"input_ids": pairs.SOURCE},
            {"labels": np.where(pairs.SOURCE % 4, pairs.SOURCE % 3, -100)},
        ),
        (
            "an answer",
            transformers.T5ForQuestionAnswering,
            config(),
            {"input_ids": pairs.SOURCE},
            {"start_positions": np.array([1, 6, 30]), "end_positions": np.array([3, 6, 30])},
        ),
    )
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_and_gradients(case, dtype, tmp_path):
    judge.judge(case, tmp_path, dtype)


@pytest.mark.parametrize("case", [next(c for c in CASES if c.cls is cls) for cls in {c.cls: 0 for c in CASES}], ids=str)
def test_round_trip(case, tmp_path):
    model = judge.checkpoint(tmp_path / "a", case.cls, case.config)
    judge.check_round_trip(tmp_path / "a", model, tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_packed_and_cached(dtype, tmp_path):
    judge.checkpoint(tmp_path, LM, config(num_decoder_layers=3))
    pairs.check_packed(tmp_path, dtype)
    pairs.check_packed_loss(tmp_path, dtype)
    pairs.check_cached(tmp_path, dtype)
    pairs.check_one_source_from_another(tmp_path)


def test_labels_alone_are_the_target_behind_the_start(tmp_path):
    pairs.check_labels_alone(tmp_path, judge.checkpoint(tmp_path, LM, config(decoder_start_token_id=5)))


HONOURED = {"vocab_size": 40, "d_model": 12, "d_kv": 3, "d_ff": 9, "num_layers": 1, "num_decoder_layers": 1,
            "num_heads": 2, "relative_attention_num_buckets": 4, "relative_attention_max_distance": 20,
            "layer_norm_epsilon": 0.1, "feed_forward_proj": "gated-tanh", "scale_decoder_outputs": False}  # fmt: skip
# By other tests: factors and rates are of training, ids of padding and ends; tying is judged by the case "1.1".
SETTLED = {"initializer_factor": 0.5, "dropout_rate": 0.3, "classifier_dropout": 0.3, "pad_token_id": 3,
           "eos_token_id": 3, "decoder_start_token_id": 3, "tie_word_embeddings": False}  # fmt: skip


def test_every_option_is_settled(tmp_path):
    pairs.check_options(T5Config, config(), {**HONOURED, **SETTLED})
    pairs.check_honoured(LM, config(), HONOURED, tmp_path)


@pytest.mark.parametrize("act", sorted(ACTIVATIONS.keys() & ACT2FN.keys()))
def test_every_activation(act, tmp_path):
    """As transformers names them: gated-gelu is gelu_new, gelu alone is not."""
    pairs.check_honoured(LM, config(), {"feed_forward_proj": f"gated-{act}"}, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_decoder_layers": 0}, "num_decoder_layers must be a whole number"),
        ({"d_kv": 2.5}, "d_kv must be a whole number"),
        ({"dropout_rate": 1.0}, "dropout_rate must be a rate"),
        ({"feed_forward_proj": "gated-sine"}, "feed_forward_proj must be one of"),
        ({"feed_forward_proj": 7}, "feed_forward_proj must be one of"),
        ({"feed_forward_proj": "gelu", "dense_act_fn": "gelu_new"}, "dense_act_fn must be what"),
        ({"is_gated_act": True}, "is_gated_act must be what feed_forward_proj says, False"),
        ({"relative_attention_num_buckets": 3}, "relative_attention_num_buckets must be at least 4"),
        ({"relative_attention_max_distance": 4}, "relative_attention_max_distance must be more than half"),
        ({"is_decoder": True}, "is_decoder must be False"),
    ],
    ids=str,
)
def test_refused_by_name(changes, words):
    known = pairs.options(config())
    with pytest.raises(ValueError, match=words):
        T5Config.from_dict({**known, **changes})


def test_what_published_configurations_hold():
    """t5-small, flan-t5-small and t5-v1_1-small have these besides, and not what came later."""
    known = config().to_dict()
    old = {"n_positions": 512, "output_past": True, "task_specific_params": {"summarization": {"prefix": "s: "}}}
    assert T5Config.from_dict({**known, **old}) == T5Config.from_dict(known)
    later = ("scale_decoder_outputs", "dense_act_fn", "is_gated_act", "num_decoder_layers", "tie_word_embeddings")
    small = {k: v for k, v in known.items() if k not in later}
    first = minilm.models.tasks("t5")["seq2seq-lm"](T5Config.from_dict(small), rng=np.random.default_rng(0))
    assert first.scale == 20**-0.5
    assert len(first.decoder.block) == 2


@pytest.mark.parametrize("said", [True, False])
def test_a_head_of_its_own_is_found_by_its_weights(said, tmp_path):
    """transformers 5 writes tie_word_embeddings true for T5 1.1 too, whose head is not tied: its files show it."""
    model = judge.checkpoint(tmp_path, LM, config(tie_word_embeddings=False, feed_forward_proj="gated-gelu"))
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = np.random.default_rng(3).standard_normal((31, 20)).astype(np.float32)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["tie_word_embeddings"] is True
    (tmp_path / "config.json").write_text(json.dumps({**written, "tie_word_embeddings": said}))
    model = LM.from_pretrained(tmp_path)
    ours = minilm.load(tmp_path)
    assert ours.lm_head.weight is not ours.shared.weight
    want = model(**{k: torch.tensor(v) for k, v in pairs.PLAIN.items()}).logits.detach().numpy()
    assert judge.error(ours(**pairs.PLAIN).logits.data, want) < judge.BARS[np.float32]
    minilm.save(ours, tmp_path / "again")
    again = LM.from_pretrained(tmp_path / "again").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again[name]), name


@pytest.mark.parametrize("causal", [True, False])
def test_buckets_of_distances(causal):
    """Those of transformers, edges of the logarithmic steps included."""
    near_and_far = np.arange(-1500, 1500)
    for n, m in ((32, 128), (4, 3), (5, 100), (8, 7), (33, 64), (64, 1000), (16, 256)):
        want = modeling_t5.T5Attention._relative_position_bucket(torch.tensor(near_and_far), not causal, n, m)
        np.testing.assert_array_equal(relative_buckets(near_and_far, n, m, causal), want.numpy(), err_msg=f"{n} {m}")


def quiet(model):
    for module in model.modules():
        if type(module).__name__ == "T5Attention":
            setattr(module, "dropout_rate" if hasattr(module, "dropout_rate") else "dropout", 0.0)


@pytest.mark.parametrize("cls", ["T5ForSequenceClassification", "T5ForTokenClassification"])
def test_dropout_is_where_transformers_has_it(cls, tmp_path, monkeypatch):
    case = next(c for c in CASES if c.cls.__name__ == cls)
    pairs.check_dropout(case, tmp_path, ["dropout_rate", "classifier_dropout"], quiet, monkeypatch)


def test_names_of_older_files(tmp_path):
    model = judge.checkpoint(tmp_path, LM, config(), scale=0.15)
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tables = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    pairs.check_old_file(tmp_path, model, {"shared.weight": tables}, {unused: np.zeros((8, 3), np.float32)})
    ours = minilm.load(tmp_path)
    assert ours.lm_head.weight is ours.shared.weight


def test_heads_load_from_each_others_files(tmp_path):
    judge.checkpoint(tmp_path / "lm", LM, config())
    judge.checkpoint(tmp_path / "classes", CLASSES, config())
    rng = np.random.default_rng(0)
    with minilm.no_grad():
        want = minilm.load(tmp_path / "lm", task="base")(**pairs.PLAIN)
        read = minilm.load(tmp_path / "lm", task="encoder")(pairs.SOURCE).last_hidden_state.data
        np.testing.assert_array_equal(read, want.encoder_last_hidden_state.data)
        for task in ("sequence-classification", "token-classification"):
            with pytest.raises(minilm.checkpoint.CheckpointError, match="classif"):
                minilm.load(tmp_path / "lm", task=task)
            model = minilm.load(tmp_path / "lm", task=task, rng=rng)
            np.testing.assert_array_equal(model.transformer.encoder(pairs.SOURCE).last_hidden_state.data, read)
        base = minilm.load(tmp_path / "classes", task="base")
        minilm.load(tmp_path / "classes", task="encoder")
    assert base.shared.weight.shape == (31, 20)


def test_packed_encoder(tmp_path):
    for cls in (transformers.T5EncoderModel, transformers.T5ForTokenClassification):
        judge.checkpoint(tmp_path, cls, config(), scale=0.15)
        judge.check_packed(tmp_path, [pairs.SOURCE[0], pairs.SOURCE[1, :1], pairs.SOURCE[2, :5]], dtype=np.float64)


def test_first_values():
    wide = config(vocab_size=90, d_model=64, d_kv=16, d_ff=70, initializer_factor=0.5, feed_forward_proj="gated-relu")
    model = minilm.models.tasks("t5")["sequence-classification"](
        T5Config.from_dict(wide.to_dict()), rng=np.random.default_rng(0)
    )
    torch.manual_seed(0)
    like = CLASSES(wide).state_dict()
    for name, p in model.named_parameters():
        assert p.dtype == np.float32, name
        if p.ndim == 2:
            assert abs(p.data.std() / like[name].numpy().std() - 1) < 5 / p.size**0.5, name
        else:
            assert (p.data == (0 if name.endswith("bias") else 1)).all(), name


def test_errors(tmp_path):
    judge.checkpoint(tmp_path, LM, config())
    pairs.check_errors(tmp_path)
    ours = minilm.load(tmp_path)
    with pytest.raises(ValueError, match="decoder_input_ids must be given"):
        ours(pairs.SOURCE)
    with pytest.raises(ValueError, match="capacity must be given"):
        ours.new_cache(2)
    judge.checkpoint(tmp_path, LM, config(decoder_start_token_id=None))
    with pytest.raises(ValueError, match="decoder_start_token_id must be set"):
        minilm.load(tmp_path)(pairs.SOURCE, labels=pairs.TARGET)
    made = T5Config.from_dict(config(num_labels=3).to_dict())
    with pytest.raises(ValueError, match="id2label must be two labels"):
        minilm.models.tasks("t5")["question-answering"](made, rng=np.random.default_rng(0))
