"""Make a vocabulary from text.  The same text gives the same vocabulary, byte for byte.

character   one token per Unicode character of the text, sorted by code point; no special tokens
bpe         byte-level byte-pair encoding, as GPT-2: 256 bytes, ``<|endoftext|>``, then merges.  Loses nothing, ever
wordpiece   BERT's: [PAD] [UNK] [CLS] [SEP] [MASK], characters, then pieces; ``##`` marks a piece inside a word

Sources: Sennrich et al. 2016 (arXiv:1508.07909) and Radford et al. 2019 for BPE over bytes; Schuster and Nakajima 2012
and Devlin et al. 2018 (arXiv:1810.04805) for WordPiece.  The merges are counted by the ``tokenizers`` library.
"""

from collections import Counter
from itertools import chain

from .characters import character_tokenizer
from .tokenizer import Tokenizer

GPT2_SPECIAL = "<|endoftext|>"
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT_ALPHABET = 1000  # characters that WordPiece keeps at most, the most frequent ones, as BERT


def train_tokenizer(kind, documents, vocab_size=None, *, lowercase=True):
    """Return a ``Tokenizer`` of ``kind`` made from ``documents``, an iterable of str that is read once.

    ``vocab_size`` is the most tokens it may have, special ones included: short text may give fewer.  It belongs to
    "bpe" (257 or more) and "wordpiece" (64 or more); the size of "character" is that of the text's alphabet.
    ``lowercase`` belongs to "wordpiece", and strips accents too, as BERT's uncased vocabulary does.  "wordpiece" holds
    the text in memory, the others do not: give it a sample of a large corpus.  Anything else is a ValueError.

    >>> train_tokenizer("bpe", ["to be or not to be"], vocab_size=260)
    Tokenizer(kind='bpe', vocab_size=260, eos_token='<|endoftext|>')
    """
    if kind not in LEAST_SIZE:
        raise ValueError(f"a vocabulary's kind must be one of {', '.join(LEAST_SIZE)}; got {kind!r}")
    if isinstance(documents, str):
        raise TypeError("documents must be an iterable of str, got one str; put it in a list")
    least = LEAST_SIZE[kind]
    if least is None and vocab_size is not None:
        raise ValueError(f"vocab_size of characters is given by the text; got vocab_size={vocab_size}; leave it out")
    if least is not None and (type(vocab_size) is not int or vocab_size < least):
        raise ValueError(f"vocab_size of {kind} must be an integer of {least} or more; got {vocab_size!r}")
    documents = iter(documents)
    first = next((document for document in documents if document), None)
    if first is None:
        raise ValueError("documents must hold text; got none; a vocabulary cannot be made from nothing")
    documents = chain([first], documents)
    if kind == "character":
        return _characters(documents)
    if kind == "bpe":
        return _byte_level_bpe(documents, vocab_size)
    return _wordpiece(documents, vocab_size, lowercase)


LEAST_SIZE = {"character": None, "bpe": 257, "wordpiece": 64}


def _characters(documents):
    alphabet = sorted(set().union(*map(set, documents)))
    return Tokenizer(character_tokenizer("".join(alphabet)))


def _byte_level_bpe(documents, vocab_size):
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = Library(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[GPT2_SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # all 256, so that no text is unknown
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return Tokenizer(tokenizer)


def _wordpiece(documents, vocab_size, lowercase):
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from tokenizers import Tokenizer as Library

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    splitter = pre_tokenizers.BertPreTokenizer()

    def words(documents, counts):
        for document in documents:
            text = normalizer.normalize_str(document)
            counts.update(text)
            yield text

    counts = Counter()
    texts = list(words(documents, counts))
    del counts[" "]  # the normalizer has made every white space a blank
    limit = min(BERT_ALPHABET, vocab_size // 4)
    alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:limit])
    inside = [c for c in alphabet if len(splitter.pre_tokenize_str(f"a{c}a")) == 1]  # not punctuation: never inside
    # The trainer numbers the ##x of the alphabet in the order of a hash table that is seeded anew in each process, and
    # breaks ties by number.  Giving it the whole alphabet as special tokens fixes the numbers, and so the merges.
    fixed = [*BERT_SPECIAL, *alphabet, *(f"##{c}" for c in inside)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    counter = Library(models.WordPiece(unk_token="[UNK]"))
    counter.pre_tokenizer = splitter
    counter.train_from_iterator(texts, trainer)

    vocabulary = counter.get_vocab()
    tokenizer = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in BERT_SPECIAL])
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return Tokenizer(tokenizer)
