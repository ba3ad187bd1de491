"""Options, and the generation_config.json of published models."""

import json

import pytest
import transformers

from minilm.generate import GenerationConfig
from minilm.generate.options import INERT, ONLY

MARIAN = {  # as Helsinki-NLP's models have it
    "bad_words_ids": [[62801]], "bos_token_id": 0, "decoder_start_token_id": 62801, "eos_token_id": 0,
    "forced_eos_token_id": 0, "max_length": 512, "num_beams": 6, "pad_token_id": 62801, "renormalize_logits": True,
    "transformers_version": "4.32.0",
}  # fmt: skip


def test_every_option_of_transformers_is_honoured_or_refused_by_name():
    known = set(GenerationConfig.__dataclass_fields__) | INERT | set(ONLY)
    theirs = {name for name in vars(transformers.GenerationConfig()) if name != "_original_object_hash"}
    assert theirs - known == set()


def test_what_transformers_writes_is_read(tmp_path):
    given = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [3, 4], "max_new_tokens": 7}
    transformers.GenerationConfig(**given).save_pretrained(tmp_path)
    config = GenerationConfig.from_folder(tmp_path)
    assert {name: getattr(config, name) for name in given} == given
    assert config.top_k == 50  # transformers' default, where the file says nothing
    defaults = transformers.GenerationConfig(**transformers.GenerationConfig._get_default_generation_params())
    defaults.save_pretrained(tmp_path)
    assert not GenerationConfig.from_folder(tmp_path).samples


def test_published_files(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(MARIAN))
    config = GenerationConfig.from_folder(tmp_path)
    assert (config.num_beams, config.max_length, config.forced_eos_token_id) == (6, 512, 0)
    assert (config.bad_words_ids, config.renormalize_logits) == ([[62801]], True)
    assert (config.new_tokens(1), GenerationConfig().new_tokens(9)) == (511, 20)


def test_an_older_model_has_them_in_its_configuration(tmp_path):
    bart = {"model_type": "bart", "d_model": 16, "max_length": 142, "min_length": 56, "no_repeat_ngram_size": 3,
            "num_beams": 4, "early_stopping": True, "length_penalty": 2.0, "forced_bos_token_id": 0}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(bart))
    config = GenerationConfig.from_folder(tmp_path)
    assert {name: getattr(config, name) for name in bart if name not in ("model_type", "d_model")} == {
        name: value for name, value in bart.items() if name not in ("model_type", "d_model")
    }
    assert GenerationConfig.from_folder(tmp_path / "nothing") == GenerationConfig()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"penalty_alpha": 0.6}, r"penalty_alpha must be 0.0 here; got 0.6. Pass over it with ignore="),
        ({"typical_p": 0.2}, "typical_p must be 1.0 here; got 0.2"),
        ({"guidance_scale": 3.0}, "guidance_scale must be 1.0 here"),
        ({"temprature": 1.0}, "temprature is no option here; got 1.0. Is temperature meant?"),
        ({"chat_format": "x"}, "chat_format is no option here"),
        ({"sequence_bias": [3]}, "sequence_bias must be"),
        ({"temperature": -1.0}, "temperature must be 0, or from 1e-6 on, and finite; got -1.0"),
        ({"temperature": float("nan")}, "temperature must be 0, or from 1e-6 on, and finite; got nan"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\]"),
        ({"top_k": -1}, "top_k must be a whole number, at least 0; got -1"),
        ({"min_p": 2.0}, "min_p must be in"),
        ({"max_new_tokens": "many"}, "max_new_tokens must be a whole number"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id"),
        ({"bad_words_ids": [[]]}, "bad_words_ids must be lists of token ids"),
        ({"stop_strings": [""]}, "stop_strings must be texts, not empty"),
        ({"num_return_sequences": 2}, "num_return_sequences must be 1 without sampling or beams"),
    ],
)
def test_what_is_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        GenerationConfig.from_dict(options)
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps(options))
    with pytest.raises(ValueError, match=f"generation_config.json: .*{words}"):
        GenerationConfig.from_folder(tmp_path)
    assert GenerationConfig.from_dict(options, ignore=list(options)) == GenerationConfig.from_dict({})


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100000])
def test_broken_files_are_named(tmp_path, text):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"generation_config\.json: it must be a JSON object"):
        GenerationConfig.from_folder(tmp_path)


def test_when_tokens_are_drawn():
    assert not GenerationConfig().samples
    assert GenerationConfig(top_p=0.9).samples
    assert not GenerationConfig(top_p=0.9, do_sample=False).samples
    assert not GenerationConfig(temperature=0, do_sample=True).samples
    assert GenerationConfig().with_options(do_sample=True).samples
