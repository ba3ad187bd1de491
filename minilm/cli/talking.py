"""Commands that write text: on their own, and in answer."""

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

if TYPE_CHECKING:
    import numpy as np

    from ..generate import GenerationConfig


WRITERS = ("seq2seq-lm", "causal-lm")


def add(app: App) -> None:
    app.command(generate)
    app.command(chat)


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How tokens are chosen.

    What is not given is as the model's generation_config.json says; where that does not say how to choose, tokens of a
    decoder are drawn at temperature 0.8 from the 200 likeliest.
    """

    max_new_tokens: int | None = None
    "Tokens to write at most."
    temperature: float | None = None
    "Below 1 likely tokens become likelier; 0 takes the likeliest."
    top_k: int | None = None
    "Draw from so many of the likeliest tokens."
    top_p: float | None = None
    "Draw from the likeliest tokens that together have this probability."
    min_p: float | None = None
    "Draw from tokens at least so likely, as a share of the likeliest one's probability."
    repetition_penalty: float | None = None
    "Above 1, tokens that have been there become less likely."
    presence_penalty: float | None = None
    "Taken from the score of each token that has been written."
    frequency_penalty: float | None = None
    "Taken from the score of each token for every time that it has been written."
    no_repeat_ngram_size: int | None = None
    "So many tokens in a row are not written twice."
    min_new_tokens: int | None = None
    "The text does not end before."
    stop: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = ()
    "The text ends before this; may be given several times."
    seed: int | None = None
    "Decides the text. Default: another one each time."


def generate(
    model: str,
    /,
    writing: Annotated[Writing, Parameter(name="*")] = Writing(),
    *,
    prompt: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    bad_words: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    num_beams: int | None = None,
    length_penalty: float | None = None,
    num_return_sequences: int = 1,
    logprobs: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    jsonl: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Write text with a model.

    Parameters
    ----------
    model: str
        A run folder, a model folder as the field keeps it, a GGUF or llama2.c file, or a model's name on the hub.
    prompt: tuple[str, ...]
        What the text begins with; of an encoder-decoder, what it reads. May be given several times, for several texts
        at once. Default: the token that begins a text, or a line break.
    bad_words: tuple[str, ...]
        Words that are not written. May be given several times.
    num_beams: int
        Above 1: search for the likeliest text with so many candidates.
    length_penalty: float
        Of beams: above 0 longer texts win more easily.
    num_return_sequences: int
        Texts for each prompt.
    logprobs: bool
        With --jsonl: the log-probability of each token.
    jsonl: bool
        Print a JSON object for each text, when it is done: prompt, text, ids, finish_reason, score, logprobs.
    """
    from ..generate import generate as write
    from ..generate import stream

    if logprobs and not jsonl:
        raise ValueError("--logprobs must come with --jsonl, which has a place for them; got it alone")
    loaded, tokenizer, config, rng = _ready(model, writing, max_new_tokens=200)
    texts = prompt or ("",)
    ids = [_ids(tokenizer, text, answers=hasattr(loaded, "encode")) for text in texts]
    words = [tokenizer.encode(form, add_special_tokens=False).tolist() for w in bad_words for form in (w, " " + w)]
    beams = {"num_beams": num_beams, "length_penalty": length_penalty}
    config = config.with_options(
        bad_words_ids=[*config.bad_words_ids, *(word for word in words if word)],
        num_return_sequences=num_return_sequences,
        logprobs=logprobs,
        when_full="stop" if hasattr(loaded, "encode") else "forget",
        **{name: value for name, value in beams.items() if value is not None},
    )
    shown = [text if not hasattr(loaded, "encode") else "" for text in texts for _ in range(num_return_sequences)]
    if len(shown) == 1 and config.num_beams == 1 and not jsonl:
        sys.stdout.write(shown[0])
        for piece in stream(loaded, ids, config, rng=rng, tokenizer=tokenizer):
            sys.stdout.write(piece.text or "")
            sys.stdout.flush()
        print()
        return
    results = write(loaded, ids, config, rng=rng, tokenizer=tokenizer)
    for i, (text, result) in enumerate(zip(shown, results, strict=True)):
        if jsonl:
            line = {"prompt": texts[i // num_return_sequences], **asdict(result), "ids": result.ids.tolist()}
            line["logprobs"] = None if result.logprobs is None else result.logprobs.tolist()
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(f"--- {i + 1}\n{text}{result.text}")


def chat(
    model: str, /, writing: Annotated[Writing, Parameter(name="*")] = Writing(), *, system: str | None = None
) -> None:
    """Talk with a model.

    Ctrl-C ends an answer, and at the prompt the conversation, as Ctrl-D does. /clear forgets what was said.

    Parameters
    ----------
    model: str
        A model folder as the field keeps it, a GGUF file, or a model's name on the hub; it must have a chat template.
    system: str
        What the model is told before the conversation.
    """
    from ..generate import Chat

    loaded, tokenizer, config, rng = _ready(model, writing, max_new_tokens=None)
    talk = Chat(loaded, tokenizer, system, config, rng=rng)
    first = list(talk.messages)
    terminal = sys.stdin.isatty()
    if terminal:
        print("Ctrl-C ends an answer; /clear forgets what was said; Ctrl-D ends the conversation.", file=sys.stderr)
    while True:
        try:
            said = input("> " if terminal else "")
        except EOFError:
            if terminal:
                print()
            return
        if said.strip() == "/clear":
            talk.messages = list(first)
        elif said.strip():
            _answer(talk, said)


def _answer(talk: Any, said: str) -> None:
    pieces = talk.reply(said)
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pieces.close()
        sys.stdout.write(" ...")
    print()


def _ready(
    name: str, writing: Writing, max_new_tokens: int | None
) -> tuple[Any, Any, "GenerationConfig", "np.random.Generator"]:
    """Load what writes: the model, its vocabulary, the options, and the generator that draws."""
    import numpy as np

    from .._kernels.process import tune_process
    from ..generate import GenerationConfig
    from ..models import model_class, tasks
    from ..pretrained import load, load_tokenizer, locate
    from ..pretrained.source import open_source

    tune_process()
    path = locate(name)
    saved = open_source(path).config
    writers = {task: cls for task, cls in tasks(saved.get("model_type", "")).items() if task in WRITERS}
    if not writers:
        raise ValueError(f"a model that writes text must be a decoder; got a {saved['model_type']}, {name}")
    loaded = load(path, task=None if model_class(saved) in writers.values() else next(iter(writers)))
    tokenizer = load_tokenizer(path)
    config = GenerationConfig.from_folder(path) if path.is_dir() else GenerationConfig()
    choice = config.do_sample, config.temperature, config.top_k, config.top_p, config.min_p
    if not any(choice) and config.num_beams == 1 and not hasattr(loaded, "encode"):
        config = config.with_options(temperature=0.8, top_k=200)
    if config.max_new_tokens is None and config.max_length is None and max_new_tokens is not None:
        config = config.with_options(max_new_tokens=max_new_tokens)
    given = {name: value for name, value in asdict(writing).items() if value is not None}
    seed, given["stop_strings"] = given.pop("seed", None), given.pop("stop")
    if config.eos_token_id is None and loaded.config.eos_token_id is None and tokenizer.eos_id is not None:
        given["eos_token_id"] = tokenizer.eos_id
    if given.keys() & {"temperature", "top_k", "top_p", "min_p"}:  # a file that does not say do_sample means False
        given["do_sample"] = given.get("temperature") != 0
    return loaded, tokenizer, config.with_options(**given), np.random.default_rng(seed)


def _ids(tokenizer: Any, text: str, answers: bool) -> "np.ndarray":
    """Return the ids of a prompt; of none: the token that begins or ends a text, or a line break."""
    import numpy as np

    if text or answers:
        return tokenizer.encode(text)
    newline = tokenizer.token_to_id("\n")
    first = next((i for i in (tokenizer.bos_id, tokenizer.eos_id, newline) if i is not None), 0)
    return np.array([first])
