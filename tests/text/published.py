"""Tiny vocabularies as published, written by ``transformers`` and ``tokenizers``; strings that are hard to split."""

import json

import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

PROSE = [
    "The quick brown fox jumps over the lazy dog. It wasn't there; they've gone, I'm sure!\n" * 3,
    "Zoë said: «naïve café», 你好世界, 🙂👩‍👩‍👧!\r\n\tdef f(x):\n        return x  # 2² 1234567 00\n" * 2,
    "unaffable unaffordable affable  able   " * 3,
]
NASTY = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n \n",
    "hello",
    " hello",
    "  hello  world  ",
    "The quick brown fox, didn't IT'S we'Ve!",
    "Zoë naïve café ÀÉÎ İstanbul ﬁ",
    "Zoe\u0308 nai\u0308ve",
    "你好世界 こんにちは 안녕하세요 Привет مرحبا",
    "🙂👩‍👩‍👧🏳️‍🌈 a🙂b",
    "tab\tcr\r\nnul\x00bell\x07del\x7f nbsp\u00a0zwj\u200d bom\ufeff ls\u2028 nel\x85 ide\u3000 repl\ufffd",
    "123 4567 12,345.67 ²³ ½ Ⅳ",
    "<s>hello</s> <mask> x<mask>y <unk> <pad>",
    "[CLS] a [SEP] b [MASK] [mask] [UNK][PAD]",
    "a<|endoftext|>b <|endoftext|> c <|im_start|>user\nhi<|im_end|>\n",
    "▁under ▁▁two lower_case __init__",
    "x" * 150,
    "<0x41> <0x0A> <extra_id_0> a<extra_id_1>b",
    "http://a.b/c?d=e&f=%20#g  \\n {json: [1, 2]}",
    "<new> <NEW> <extra>word <extra> .",
    "it 's n't . , ? !",
]
ANGLED = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SQUARE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def complaint(call, *arguments):
    """Return what the ValueError of a call says, None where there is none."""
    try:
        call(*arguments)
    except ValueError as error:
        return str(error)
    return None


def trained_byte_level(special, size=420):
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = dict(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)  # noqa: C408
    library.train_from_iterator(PROSE, trainers.BpeTrainer(**options))
    model = json.loads(library.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def trained_wordpiece(lower):
    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=lower)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=SQUARE, show_progress=False)
    library.train_from_iterator(PROSE, trainer)
    return library.get_vocab()


def sentencepiece_bpe():
    """Merges and pieces of a SentencePiece-like vocabulary with bytes, as Llama's converted one."""
    library = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    library.train_from_iterator(
        PROSE[::2], trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    model = json.loads(library.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def write_vocabulary_files(folder, vocabulary, merges):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(folder, name, value):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_all(root):
    """Write one folder of each kind under ``root``."""
    end = "<|endoftext|>"
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}

    vocabulary, merges = trained_byte_level([end])
    write_vocabulary_files(root / "gpt2-files", vocabulary, merges)
    write_json(root / "gpt2-files", "config.json", {"model_type": "gpt2"})
    write_vocabulary_files(root / "gpt2-prefix", vocabulary, merges)
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "model_max_length": 1024}
    config["clean_up_tokenization_spaces"] = True  # which a BPE ignores
    write_json(root / "gpt2-prefix", "tokenizer_config.json", config)
    transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges).save_pretrained(root / "gpt2-json")
    transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges).save_pretrained(root / "qwen2-json")
    write_vocabulary_files(root / "qwen2-files", vocabulary, merges)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": end,
        "model_max_length": 32768,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "added_tokens_decoder": {
            str(len(vocabulary) + i): {"content": t, "special": i < 2, "normalized": False, "lstrip": i == 2}
            for i, t in enumerate(["<|im_start|>", "<|im_end|>", "<extra>"])
        },
    }
    write_json(root / "qwen2-files", "tokenizer_config.json", config)
    write_vocabulary_files(root / "opt-files", *trained_byte_level(ANGLED))
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "bos_token": {"__type": "AddedToken", "content": "</s>", "normalized": True},
        "eos_token": {"__type": "AddedToken", "content": "</s>", "normalized": True},
        "unk_token": {"__type": "AddedToken", "content": "</s>", "normalized": True},
        "pad_token": {"__type": "AddedToken", "content": "<pad>", "normalized": True},
    }
    write_json(root / "opt-files", "tokenizer_config.json", config)
    write_json(root / "opt-files", "config.json", {"model_type": "opt"})

    vocabulary, merges = trained_byte_level(ANGLED)
    write_vocabulary_files(root / "roberta-files", vocabulary, merges)
    write_json(root / "roberta-files", "config.json", {"model_type": "roberta"})
    write_json(root / "roberta-files", "special_tokens_map.json", {"mask_token": mask})
    write_json(root / "roberta-files", "added_tokens.json", {"<new>": len(vocabulary), "<extra>": len(vocabulary) + 1})
    write_vocabulary_files(root / "bart-files", vocabulary, merges)
    write_json(root / "bart-files", "tokenizer_config.json", {"tokenizer_class": "BartTokenizer"})
    roberta = transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, mask_token=AddedToken(**mask))
    roberta.save_pretrained(root / "roberta-json")

    for name, lower in (("bert-cased", False), ("bert-uncased", True)):
        vocabulary = trained_wordpiece(lower)
        lines = sorted(vocabulary, key=vocabulary.get)
        for kind, model in (("files", "bert"), ("distil", "distilbert")):
            folder = root / f"{name}-{kind}"
            write_json(folder, "config.json", {"model_type": model})
            write_json(folder, "tokenizer_config.json", {"do_lower_case": lower, "model_max_length": 512})
            (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            write_json(folder, "added_tokens.json", {"<New>": len(lines)})  # found in normalised text
        bert = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=lower)
        bert.save_pretrained(root / f"{name}-json")
    folder = root / "bert-accents"
    flags = {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False, "sep_token": "[SEP]"}
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizerFast", **flags})
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder, "special_tokens_map.json", {"additional_special_tokens": ["<new>"], "pad_token": "[PAD]"})

    write_llama(root)
    write_unigram(root)


def write_llama(root):
    vocabulary, merges = sentencepiece_bpe()
    metaspace = transformers.LlamaTokenizer(vocab=vocabulary, merges=merges)
    metaspace.save_pretrained(root / "llama-metaspace")
    library = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )  # as Llama 2's
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)])
    library.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=10**30,
        chat_template="{% for m in messages %}{{ bos_token }}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}",
    )
    fast.save_pretrained(root / "llama-prepend")
    vocabulary, merges = trained_byte_level([])
    library = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    split += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=library, bos_token="<|bot|>", eos_token="<|eot|>")
    fast.save_pretrained(root / "llama3")


def write_unigram(root):
    library = Tokenizer(models.Unigram())
    library.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    special = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(3))]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    library.train_from_iterator(PROSE, trainer)
    library.decoder = decoders.Metaspace(prepend_scheme="always")
    library.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=special[3:],
        clean_up_tokenization_spaces=True,
    )
    fast.save_pretrained(root / "t5")
