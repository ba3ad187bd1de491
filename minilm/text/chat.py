"""Conversations as text: the chat template of a model, a Jinja program that came with its files, run in a sandbox."""

import json
from collections.abc import Mapping


def render_chat(template, messages, add_generation_prompt=True, **variables):
    """Return the text of ``messages``, a list of {"role": str, "content": str, ...}, as ``template`` lays it out.

    ``add_generation_prompt`` asks for the beginning of the answer; ``variables`` are passed to the template as JSON.
    A template that fails, refuses the messages or does too much is a ValueError with what it said.
    """
    _check(messages)
    try:
        given = json.loads(json.dumps({"tools": None, "documents": None, **variables, "messages": list(messages)}))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"what a chat template is given must be JSON; got: {error}") from None
    from .sandbox import run

    try:
        return run(template, {**given, "add_generation_prompt": add_generation_prompt})
    except Exception as error:  # it runs a stranger's program: whatever Python can raise
        said = str(error) or type(error).__name__
        raise ValueError(f"the chat template must lay out these messages; got: {said[:500]}") from None


def _check(messages):
    if not isinstance(messages, (list, tuple)) or not messages:
        raise ValueError(
            f"messages must be a list of one or more {{'role': ..., 'content': ...}}; got {messages!r:.80}"
        )
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError(f"message {i} must be {{'role': str, 'content': str}}; got {message!r:.80}")
