"""Text of tokens that arrive one at a time, never half a character."""

REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not a character, or not yet


class StreamDecoder:
    """Turn token ids into text as they come.

    One token of a byte-level vocabulary may hold part of a character, and a WordPiece token may or may not begin with a
    space.  So each token is decoded behind the tokens of the piece printed last, and text that ends in U+FFFD is kept
    until more tokens have completed it.  All pieces with the last ``flush`` joined are
    ``tokenizer.decode_raw(all ids)``: cleaning up spaces would change what was printed already.

    A vocabulary may drop the space before the first of all tokens: push the end of a prompt before what follows it.

    >>> from minilm.text import train_tokenizer
    >>> tokenizer = train_tokenizer("bpe", ["no merges"], vocab_size=257)
    >>> stream = StreamDecoder(tokenizer)
    >>> [stream.push(i) for i in tokenizer.encode("dé")]
    ['d', '', 'é']
    """

    def __init__(self, tokenizer, skip_special_tokens=False):
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._printed = []  # the ids of the piece that was printed last
        self._pending = []  # the ids that came after it

    def push(self, token_id):
        """Return the text that ``token_id`` completes: often one piece, sometimes the empty string."""
        self._pending.append(int(token_id))
        piece = self._piece()
        if not piece or piece.endswith(REPLACEMENT):
            return ""
        self._printed, self._pending = self._pending, []
        return piece

    def flush(self):
        """Return what is still kept back (U+FFFD for half a character) and start anew."""
        piece = self._piece()
        self._printed, self._pending = [], []
        return piece

    def _piece(self):
        before = self._tokenizer.decode_raw(self._printed, self._skip)
        both = self._tokenizer.decode_raw(self._printed + self._pending, self._skip)
        return both[len(before) :]
