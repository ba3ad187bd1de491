"""Byte-level BPE: how each published family cuts text into words before its merges apply.

Every byte is written as a printable character, so no text is unknown.  A family differs from GPT-2 in the pattern that
cuts words, in whether digits stand alone, in the normalisation, and in whether a word that is a token is left whole.

Sources: Radford et al. 2019 (GPT-2); the patterns are those of the families' published ``tokenizer.json`` files.
"""

from typing import NamedTuple

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
QWEN35 = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + r"+{end}|[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + "*{end}"
REST = r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = CASED.replace("{end}", "") + REST % r"\p{N}"
GPT4O = CASED.replace("{end}", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?") + REST % r"\p{N}{1,3}"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


class Words(NamedTuple):
    """How text becomes words.  Without a ``pattern`` it is GPT-2's, which is built into the library."""

    pattern: str | None = None
    digits: bool = False  # each digit is a word
    nfc: bool = False  # é as one character, however it was typed
    whole: bool = False  # a word that is a token is that token, whatever the merges say
    bos: bool = False  # whether files that do not say add a beginning-of-text token


GPT2 = Words()
WORDS = {  # by the name that GGUF files give in tokenizer.ggml.pre
    **dict.fromkeys(("default", "gpt-2", "phi-2"), GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact"), Words(digits=True)),
    "command-r": Words(digits=True, nfc=True),
    **dict.fromkeys(("mpt", "olmo"), Words(nfc=True)),  # GPT-NeoX
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Words(LLAMA3, whole=True, bos=True)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Words(QWEN2, nfc=True)),
    "qwen35": Words(QWEN35, nfc=True),
    "tekken": Words(TEKKEN, whole=True, bos=True),
    **dict.fromkeys(("gpt-4o", "llama4"), Words(GPT4O)),
    "bloom": Words(BLOOM),
}


def byte_level_bpe(vocabulary, merges, words=GPT2, add_prefix_space=False):
    """Return the ``tokenizers.Tokenizer`` of ``vocabulary`` {token: id} and ``merges`` [(left, right), ...]."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    model = models.BPE(
        vocabulary,
        merges,
        continuing_subword_prefix="",
        end_of_word_suffix="",
        fuse_unk=False,
        ignore_merges=words.whole,
    )
    tokenizer = Tokenizer(model)
    if words.nfc:
        tokenizer.normalizer = normalizers.NFC()
    spell = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=words.pattern is None)
    first = []
    if words.digits:
        first.append(pre_tokenizers.Digits(individual_digits=True))
    if words.pattern:
        first.append(pre_tokenizers.Split(Regex(words.pattern), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, spell]) if first else spell
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def frame(tokenizer, bos=None, eos=None):
    """Make ``tokenizer`` put the tokens ``bos`` before and ``eos`` after each text, where they are not None."""
    from tokenizers import processors

    def around(text, part):
        steps = [bos and f"{bos}:{part}", f"${text}:{part}", eos and f"{eos}:{part}"]
        return [step for step in steps if step]

    tokenizer.post_processor = processors.TemplateProcessing(
        single=around("A", 0),
        pair=around("A", 0) + around("B", 1),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in {bos, eos} - {None}],
    )
