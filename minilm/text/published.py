"""The vocabulary of a folder as it was published: tokenizer.json, vocab.json + merges.txt, or vocab.txt.

Where several are there, the first of these is read.  Byte-level BPE comes in GPT-2's, RoBERTa's and Qwen2's form,
WordPiece in BERT's.  Which one a folder holds is said by ``tokenizer_class`` in tokenizer_config.json, or else by
``model_type`` in config.json, or else by whether its special tokens include a "cls" as RoBERTa's do.

A tokenizer.json says all by itself and is taken as it is, except for what tokenizer_config.json says otherwise of lower
case, accents, Chinese characters and the space before a text, where ``transformers`` too believes the latter.  (That
builds some classes anew from the vocabulary alone: for a Llama whose file puts a space before each stretch of text, and
for a BERT that is silent about lower case, its ids may differ from what the file says.)
"""

from pathlib import Path

from .byte_level import GPT2, WORDS, byte_level_bpe, frame
from .files import field, library_reads, read_object, read_text, rules
from .special import ROLES, add_tokens, content, read_config, settings_of

ANGLED = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
END = "<|endoftext|>"
USUAL_TOKENS = {  # what a class of transformers takes where the files are silent
    "BertTokenizer": {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
    "GPT2Tokenizer": {"bos": END, "eos": END, "unk": END},
    "RobertaTokenizer": ANGLED,
    "Qwen2Tokenizer": {"eos": END, "unk": END, "pad": END},
    "GPTNeoXTokenizer": {"bos": END, "eos": END, "unk": END, "pad": "<|padding|>"},
    "T5Tokenizer": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "LlamaTokenizer": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
}
SAME = {
    "DistilBertTokenizer": "BertTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "BartTokenizer": "RobertaTokenizer",
}
CLASS_OF_MODEL = {
    **dict.fromkeys(("bert", "distilbert"), "BertTokenizer"),
    **dict.fromkeys(("gpt2", "opt"), "GPT2Tokenizer"),
    **dict.fromkeys(("roberta", "bart"), "RobertaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
    "gpt_neox": "GPTNeoXTokenizer",
    "t5": "T5Tokenizer",
    "llama": "LlamaTokenizer",
}
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")  # classes that say nothing
WORDS_OF_CLASS = {"GPT2Tokenizer": GPT2, "RobertaTokenizer": GPT2, "Qwen2Tokenizer": WORDS["qwen2"]}
HIGHEST_ID = 2**31 - 1


def read_published(path):
    """Return the ``tokenizers.Tokenizer`` and the ``Settings`` of a folder, or of one file of it."""
    path = Path(path)
    try:
        with library_reads(path, "a vocabulary as it is published"):
            return _read(path)
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from None


def _read(path):
    folder = path if path.is_dir() else path.parent
    file = _vocabulary_file(path)
    config = read_config(folder)
    kind = _class(config, folder, complete=file.name not in ("vocab.json", "vocab.txt"))
    usual = {}
    if file.name == "vocab.txt":
        library = _wordpiece(file, config)
    elif file.name == "vocab.json":
        library = _byte_level(file, config, kind)
    else:
        library = _library_file(file)
        _overrule(library, config, kind)
        add_tokens(library, config)
        usual = {r: t for r, t in USUAL_TOKENS.get(kind, {}).items() if library.token_to_id(t) is not None}
    return library, settings_of(config, folder, usual)


def _vocabulary_file(path):
    """Return the file to read.  A missing one, and one that is SentencePiece's own, is a ValueError."""
    if path.is_dir():
        for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
            complete = name != "vocab.json" or (path / "merges.txt").is_file()
            if (path / name).is_file() and complete:
                return path / name
        pieces = sorted(file for ending in ("*.model", "*.spm") for file in path.glob(ending))
    else:
        if path.is_file() and path.suffix not in (".model", ".spm"):
            return path.with_name("vocab.json") if path.name == "merges.txt" else path
        pieces = [path] if path.is_file() else []
    if pieces:
        raise ValueError(
            f"a vocabulary must be a tokenizer.json, vocab.json + merges.txt or vocab.txt; got only {pieces[0]}, "
            "a SentencePiece model; let transformers convert it: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes a tokenizer.json"
        )
    raise ValueError(
        f"a vocabulary must be a tokenizer.json or a folder with one, or with vocab.json + merges.txt or vocab.txt; "
        f"got {str(path)!r}, not there"
    )


def _class(config, folder, complete):
    """Return the name of transformers' class for the folder, without Fast, or None.

    A class that says nothing settles it for a ``complete`` file; or else the model's configuration is asked.
    """
    model = read_object(folder / "config.json")
    for name in (config.get("tokenizer_class"), model.get("tokenizer_class")):
        if isinstance(name, str):
            name = name.removesuffix("Fast")
            name = SAME.get(name, name)
            if name not in GENERIC:
                return name
            if complete:
                return None
    return CLASS_OF_MODEL.get(str(model.get("model_type")))


def _library_file(file):
    from tokenizers import Tokenizer

    text = read_text(file)
    with library_reads(file, "a tokenizer.json as the tokenizers library writes it"):
        library = Tokenizer.from_str(text)
        library.encode("", "")  # what is put around texts may be missing
    return library


def _overrule(library, config, kind):
    """Change what tokenizer_config.json says otherwise than tokenizer.json."""
    normal, first = rules(library.normalizer), rules(library.pre_tokenizer)
    names = {"do_lower_case": "lowercase", "strip_accents": "strip_accents"}
    names["tokenize_chinese_chars"] = "handle_chinese_chars"
    file = "tokenizer_config.json"
    if kind == "BertTokenizer" and normal.get("type") == "BertNormalizer":
        for name, attribute in names.items():
            value = field(config, name, bool, file)
            if value is not None or (name in config and name == "strip_accents"):  # null: as lower case says
                setattr(library.normalizer, attribute, value)
    if kind in ("GPT2Tokenizer", "RobertaTokenizer") and first.get("type") == "ByteLevel":
        prefix = field(config, "add_prefix_space", bool, file)
        if prefix is not None:
            library.pre_tokenizer.add_prefix_space = prefix


def _wordpiece(file, config):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    flags = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}
    lower, chinese, strip = (config.get(name, default) for name, default in flags.items())
    for name in flags:
        field(config, name, bool, file.with_name("tokenizer_config.json"))
    config |= _with_usual(config, "BertTokenizer")
    with library_reads(file, "BERT's vocabulary, UTF-8, one token a line"):
        vocabulary = models.WordPiece.read_file(str(file))
        library = Tokenizer(models.WordPiece(vocabulary, unk_token=content(config["unk_token"])))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=bool(chinese), strip_accents=strip, lowercase=bool(lower)
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    add_tokens(library, config)
    cls, sep = content(config["cls_token"]), content(config["sep_token"])
    library.post_processor = processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(token, library.token_to_id(token)) for token in {cls, sep}],
    )
    return library


def _byte_level(file, config, kind):
    """Return the library's tokenizer of vocab.json and the merges.txt beside it."""
    from tokenizers import processors

    if kind is None:
        kind = "RobertaTokenizer" if config.get("cls_token") else "GPT2Tokenizer"
    if kind not in WORDS_OF_CLASS:
        raise ValueError(
            f"the tokenizer_class of vocab.json + merges.txt must be one of {', '.join(WORDS_OF_CLASS)}; got {kind!r}; "
            "let transformers write a tokenizer.json: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    vocabulary = _read_vocabulary(file)
    merges = _read_merges(file.with_name("merges.txt"), vocabulary)
    prefix = bool(field(config, "add_prefix_space", bool, file.with_name("tokenizer_config.json")))
    library = byte_level_bpe(vocabulary, merges, WORDS_OF_CLASS[kind], prefix)
    config |= _with_usual(config, kind)
    add_tokens(library, config)
    token = {role: config.get(f"{role}_token") and content(config[f"{role}_token"]) for role in ROLES}
    if kind == "RobertaTokenizer":
        for role in ("sep", "cls"):
            if token[role] is None:
                raise ValueError(f"RoBERTa's {role}_token must be a token; got null in tokenizer_config.json")
        ends = [(token[role], library.token_to_id(token[role])) for role in ("sep", "cls")]
        library.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=prefix)
    else:
        frame(library, *(config.get(f"add_{role}_token") and token[role] for role in ("bos", "eos")))
    return library


def _with_usual(config, kind):
    """Return the tokens of the roles that ``config`` leaves out."""
    return {f"{r}_token": t for r, t in USUAL_TOKENS[kind].items() if f"{r}_token" not in config}


def _read_vocabulary(file):
    vocabulary = read_object(file)
    wrong = [(t, i) for t, i in vocabulary.items() if type(i) is not int or not 0 <= i <= HIGHEST_ID]
    if wrong:
        raise ValueError(f"{file} must map each token to an id from 0 up; got {wrong[0][0]!r:.80}: {wrong[0][1]!r:.80}")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise ValueError(f"{file} must give each token an id of its own; got the same id twice")
    return vocabulary


def _read_merges(file, vocabulary):
    """Return [(left, right), ...].  A line is two tokens with a blank between; the first may be a #version."""
    merges = []
    for number, line in enumerate(read_text(file).removesuffix("\n").split("\n"), 1):
        line = line.removesuffix("\r")
        if line.startswith("#version"):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not all(token in vocabulary for token in (*pair, "".join(pair))):
            raise ValueError(
                f"{file}, line {number} must be two tokens of vocab.json, with a blank between, that make a third; "
                f"got {line!r:.80}; download both files again"
            )
        merges.append(pair)
    return merges
