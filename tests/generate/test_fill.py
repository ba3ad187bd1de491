"""Masks filled, against transformers' pipeline."""

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, processors

import minilm
from minilm.generate import fill_mask
from minilm.text import Tokenizer
from tests.models.judge import checkpoint

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on a mat dog ran far ##s ##ing .".split()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                                     intermediate_size=32, max_position_embeddings=20)  # fmt: skip
    checkpoint(folder, transformers.BertForMaskedLM, config)
    vocabulary = Library(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    vocabulary.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    vocabulary.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    vocabulary.add_special_tokens(WORDS[:5])
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=vocabulary, mask_token="[MASK]", **roles)
    theirs.save_pretrained(folder)
    return folder, theirs


@pytest.mark.parametrize("text", ["the cat [MASK] on a mat.", "[MASK] dog ran [MASK]", "a [MASK]"])
def test_the_guesses_are_transformers(both, text):
    folder, theirs = both
    model = transformers.BertForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        want = transformers.pipeline("fill-mask", model=model, tokenizer=theirs, top_k=4)(text)
    want = want if isinstance(want[0], list) else [want]
    got = fill_mask(minilm.load(folder), Tokenizer.load(folder), text, top_k=4)
    assert len(got) == len(want) == text.count("[MASK]")
    for ours, its in zip(got, want, strict=True):
        assert [g.id for g in ours] == [w["token"] for w in its]
        assert [g.token for g in ours] == [w["token_str"] for w in its]
        assert [g.text.replace(" [PAD]", "") for g in ours] == [w["sequence"] for w in its]
        np.testing.assert_allclose([g.probability for g in ours], [w["score"] for w in its], rtol=2e-5)


def test_what_is_refused(both):
    folder, _ = both
    model, tokenizer = minilm.load(folder), Tokenizer.load(folder)
    with pytest.raises(ValueError, match=r"the text must hold \[MASK\], at least once; got 'a cat'"):
        fill_mask(model, tokenizer, "a cat")
    with pytest.raises(ValueError, match="top_k must be at least 1; got 0"):
        fill_mask(model, tokenizer, "a [MASK]", top_k=0)
    with pytest.raises(ValueError, match=r"must have a masked-LM head; got BertModel. Load it with task='masked-lm'"):
        fill_mask(minilm.load(folder, task="base"), tokenizer, "a [MASK]")
    assert len(fill_mask(model, tokenizer, "a [MASK]", top_k=1000)[0]) == len(WORDS)
