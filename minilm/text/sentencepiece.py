"""SentencePiece's BPE: a vocabulary with scores in place of merges, spaces as characters, bytes for the unknown.

The encoder joins, again and again, the adjacent pair of pieces whose joint piece has the highest score, the leftmost of
equals.  The ``tokenizers`` library wants ranked merges: every way to cut a piece into two pieces is a merge, ranked by
the score of the whole.  Text gets a space in front, where the model was trained so, and spaces become ``space``.

Sources: Kudo and Richardson 2018 (arXiv:1808.06226); github.com/karpathy/llama2.c (tokenizer.bin, run.c).
"""

import re
import struct
from pathlib import Path

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces, numbered as SentencePiece does
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
LONGEST = 1024  # bytes of a piece: the search for its merges takes their square


def scored_bpe(pieces, scores, kinds, space="\u2581", add_space_prefix=True):
    """Return the ``tokenizers.Tokenizer`` of pieces (V,) with their scores (V,) and kinds (V,).

    Control and unknown pieces become special tokens, user-defined ones added tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        twice = next(piece for i, piece in enumerate(pieces) if vocabulary[piece] != i)
        raise ValueError(f"each piece must be there once; got {twice!r:.80} twice")
    unknown = next((piece for piece, kind in zip(pieces, kinds, strict=True) if kind == UNKNOWN), None)
    model = models.BPE(
        vocabulary, _merges(pieces, scores, kinds), unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in kinds
    )
    tokenizer = Tokenizer(model)
    steps = [normalizers.Prepend(space)] if add_space_prefix else []
    steps += [normalizers.Replace(" ", space)] if space != " " else []
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    back = [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if add_space_prefix else back)
    added = [
        AddedToken(piece, special=kind != USER_DEFINED, normalized=False)
        for piece, kind in zip(pieces, kinds, strict=True)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED) and piece
    ]
    tokenizer.add_tokens(added)
    return tokenizer


def _merges(pieces, scores, kinds):
    """Return [(left, right), ...], best first."""
    score = {p: s for p, s, kind in zip(pieces, scores, kinds, strict=True) if kind in (NORMAL, UNUSED)}
    longest = max(map(len, score), default=0)
    if longest > LONGEST:
        raise ValueError(f"a piece must have at most {LONGEST} characters; got one of {longest}")
    cuts = [
        (-s, len(piece[:cut]), piece[:cut], piece[cut:])
        for piece, s in score.items()
        for cut in range(1, len(piece))
        if piece[:cut] in score and piece[cut:] in score
    ]
    cuts.sort(key=lambda cut: cut[:2])  # a stable sort: pieces of equal score stay in the order of their ids
    return [cut[2:] for cut in cuts]


def read_llama2c(source, vocab_size):
    """Return the ``tokenizers.Tokenizer`` of llama2.c's tokenizer.bin, a path or its bytes.

    int32 length of the longest token, then ``vocab_size`` times: float32 score, int32 length, bytes.  Ids 0, 1, 2 are
    <unk>, <s>, </s>; 3 to 258 the bytes; spaces stand for themselves.
    """
    name = "tokenizer.bin" if isinstance(source, (bytes, bytearray, memoryview)) else str(source)
    try:
        data = bytes(source) if name == "tokenizer.bin" and not isinstance(source, (str, Path)) else _read(source)
    except OSError as error:
        raise ValueError(f"{name} must be a readable file; got: {error}") from None
    if type(vocab_size) is not int or vocab_size < 259:
        raise ValueError(f"vocab_size of a llama2.c vocabulary must be an integer of 259 or more; got {vocab_size!r}")
    if len(data) < 4 + 8 * vocab_size:
        raise ValueError(
            f"{name} must have {4 + 8 * vocab_size} bytes or more for vocab_size {vocab_size}; got {len(data)}; "
            "is this the vocabulary of the model, whole?"
        )
    longest = struct.unpack_from("<i", data)[0]
    if not 0 < longest <= LONGEST:
        raise ValueError(f"{name}: max_token_length must be in [1, {LONGEST}]; got {longest}; is it a tokenizer.bin?")
    pieces, scores, at = [], [], 4
    for i in range(vocab_size):
        if at + 8 > len(data):
            raise ValueError(f"{name}: the score of token {i} must be at byte {at}; the file ends at {len(data)}")
        score, length = struct.unpack_from("<fi", data, at)
        at += 8
        if not 0 <= length <= LONGEST or at + length > len(data):
            raise ValueError(
                f"{name}: the length of token {i} must be in [0, {LONGEST}] and end within the file; got {length}"
            )
        if score != score:
            raise ValueError(f"{name}: the score of token {i} must be a number; got NaN")
        try:
            pieces.append(data[at : at + length].decode("utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"{name}: token {i} must be UTF-8; got {data[at : at + length]!r:.80}") from None
        scores.append(score)
        at += length
    if at != len(data):
        raise ValueError(f"{name} must end after token {vocab_size - 1}, at byte {at}; got {len(data)} bytes")
    pieces[:3] = "<unk>", "<s>", "</s>"  # llama2.c spells the latter two with line ends around
    if pieces[3:259] != [f"<0x{byte:02X}>" for byte in range(256)]:
        raise ValueError(f"{name}: tokens 3 to 258 must be the bytes <0x00> to <0xFF>; got {pieces[3]!r:.80} ...")
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (vocab_size - 259)]
    try:
        return scored_bpe(pieces, scores, kinds, space=" ")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read(source):
    with open(source, "rb") as file:
        return file.read()
