"""Special tokens and the settings beside a vocabulary, as ``tokenizer_config.json`` and its relatives give them.

A token is written as a string or as an object {"content": ..., "lstrip": ..., ...}.  Which file wins, and which tokens
are added to the vocabulary with which flags, is as in ``transformers`` 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .files import field as typed
from .files import read_object, read_text

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
USUAL = {  # the field's names, first found wins, for a role that no file names
    "bos": ("<|begin_of_text|>", "<s>", "<bos>"),
    "eos": ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]"),
    "unk": ("[UNK]", "<unk>"),
    "sep": ("[SEP]",),
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]",),
    "mask": ("[MASK]", "<mask>"),
}
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
LONGEST = 2**31  # a model_max_length above it (1e30 is common) says that there is none


@dataclass(frozen=True)
class Settings:
    """What is known of a vocabulary besides its ids.

    special        token of each role in ``ROLES`` that a file names; None where a file says that there is none
    chat_template  Jinja source, or None
    max_length     tokens that the model takes, or None
    clean_up       whether decoded text loses the space before punctuation
    """

    special: Mapping[str, str | None] = field(default_factory=dict)
    chat_template: str | None = None
    max_length: int | None = None
    clean_up: bool = False

    def named(self, special_tokens):
        """Return the token of each role: as named, or the usual one if it is among ``special_tokens``, or None."""
        usual = {role: next((t for t in USUAL[role] if t in special_tokens), None) for role in ROLES}
        return usual | dict(self.special)


def read_config(folder):
    """Return tokenizer_config.json of ``folder`` with special_tokens_map.json and added_tokens.json merged in.

    The latter two count only where the first has no ``added_tokens_decoder``, as in ``transformers``.
    """
    config = read_object(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= read_object(folder / "special_tokens_map.json")
        extra = read_object(folder / "added_tokens.json")
        special = {content(token) for token in [*named_tokens(config).values(), *extra_tokens(config)] if token}
        config["added_tokens_decoder"] = {
            str(i): {"content": token, "special": token in special, "normalized": token not in special}
            for token, i in extra.items()
        }
    return config


def named_tokens(config):
    """Return {key: token} of the keys that end in _token: the roles first, then those of one model (image_token)."""
    roles = {f"{role}_token": config[f"{role}_token"] for role in ROLES if f"{role}_token" in config}
    return roles | {k: v for k, v in config.items() if k.endswith("_token") and isinstance(v, (str, dict))}


def extra_tokens(config):
    tokens = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    if isinstance(tokens, dict):
        tokens = [*tokens.values()]
    if not isinstance(tokens, list):
        raise ValueError(f"extra_special_tokens must be a list or an object; got {type(tokens).__name__}")
    return tokens


def content(token):
    """Return the spelling of a token that is a string or an object with a "content"."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) or not text:
        raise ValueError(f"a special token must be a string, or an object with a string 'content'; got {token!r:.80}")
    return text


def add_tokens(library, config):
    """Add the tokens that ``config`` names to a ``tokenizers.Tokenizer``: at the ids it gives, the rest at the end.

    A token of a role that the vocabulary lacks is added at its end, as ``transformers`` does.
    """
    named = [token for token in named_tokens(config).values() if token is not None]
    always_special = {content(token) for token in named}
    placed = _by_id(config.get("added_tokens_decoder") or {})
    special = [content(t) in always_special or bool(isinstance(t, dict) and t.get("special")) for _, t in placed]
    library.add_tokens([_added(token, yes) for (_, token), yes in zip(placed, special, strict=True)])
    for i, token in placed:
        got = library.token_to_id(content(token))
        if got != i:
            raise ValueError(f"added tokens: {content(token)!r} must be token {i}; the vocabulary makes it {got}")
    known = {token.content for token in library.get_added_tokens_decoder().values()}
    library.add_tokens(
        [_added(token, True) for token in [*named, *extra_tokens(config)] if content(token) not in known]
    )


def _by_id(decoder):
    try:
        return sorted(((int(i), token) for i, token in decoder.items()), key=lambda pair: pair[0])
    except (AttributeError, TypeError, ValueError):
        raise ValueError("added_tokens_decoder must be an object from ids to tokens; got something else") from None


def _added(token, special):
    from tokenizers import AddedToken

    options = {k: v for k, v in token.items() if k in FLAGS} if isinstance(token, dict) else {}
    if not all(type(v) is bool for v in options.values()):
        raise ValueError(f"the flags {', '.join(FLAGS)} of a token must be true or false; got {token!r:.120}")
    return AddedToken(content(token), special=special, **options)


def settings_of(config, folder, usual):
    """Return the ``Settings`` that a merged ``config`` and the template files of ``folder`` give.

    ``usual`` are the tokens of roles that ``config`` leaves out.
    """
    file = folder / "tokenizer_config.json"
    roles = {role: config[f"{role}_token"] for role in ROLES if f"{role}_token" in config}
    longest = typed(config, "model_max_length", (int, float), file)
    return Settings(
        special=usual | {role: token and content(token) for role, token in roles.items()},
        chat_template=_chat_template(config, folder),
        max_length=int(longest) if longest is not None and 0 < longest < LONGEST else None,
        clean_up=bool(typed(config, "clean_up_tokenization_spaces", bool, file)),
    )


def _chat_template(config, folder):
    """Return the template: of chat_template.jinja, tokenizer_config.json, chat_template.json; the first found wins.

    Of several named ones it is "default", or the only one.
    """
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    template = config.get("chat_template") or read_object(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        if not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in template):
            raise ValueError(f"{folder}: chat_template must be a string or a list of objects with 'name', 'template'")
        template = {t["name"]: t.get("template") for t in template}
    if isinstance(template, dict):
        template = template.get("default") or (next(iter(template.values())) if len(template) == 1 else None)
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{folder}: chat_template must be a string; got {type(template).__name__}")
    return template
