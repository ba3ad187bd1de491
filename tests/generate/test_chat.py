"""Conversations: what the model is given must be what the template says, and only the new part of it is computed."""

import numpy as np
import pytest

from minilm.generate import Chat, generate
from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tests.generate.models import bytes_vocabulary

TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role[0] + '>' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


class Counting(GPT2LMHeadModel):
    """A GPT-2 that notes how many tokens each call was given."""

    def forward(self, input_ids, *args, **kwargs):
        vars(self).setdefault("calls", []).append(np.shape(input_ids)[1])
        if vars(self).get("failing"):
            raise KeyboardInterrupt
        return super().forward(input_ids, *args, **kwargs)


@pytest.fixture(scope="module")
def tokenizer():
    made = bytes_vocabulary()
    made.chat_template = TEMPLATE
    return made


def model(n_positions=200):
    config = GPT2Config(vocab_size=257, n_positions=n_positions, n_embd=24, n_layer=2, n_head=3, initializer_range=0.5,
                        bos_token_id=None, eos_token_id=None)  # fmt: skip
    return Counting(config, rng=np.random.default_rng(0), dtype=np.float64).eval()


def afresh(made, tokenizer, messages, n):
    """What the model writes after the whole conversation, read anew."""
    ids = tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)
    return generate(made, ids, max_new_tokens=n, tokenizer=tokenizer)[0].text


def test_replies_are_those_of_the_whole_conversation(tokenizer):
    made = model()
    chat = Chat(made, tokenizer, "be kind", max_new_tokens=9)
    for text in ("hello", "and now?", "bye"):
        messages = [*chat.messages, {"role": "user", "content": text}]
        want = afresh(made, tokenizer, messages, 9)
        assert "".join(chat.reply(text)) == want
        assert chat.messages == [*messages, {"role": "assistant", "content": want}]
    assert [m["role"] for m in chat.messages] == ["system", *["user", "assistant"] * 3]
    assert chat.finish_reason == "length"


def test_only_new_tokens_are_computed(tokenizer):
    made = model()
    chat = Chat(made, tokenizer, "be kind", max_new_tokens=9, suppress_tokens=list(range(94, 257)))
    list(chat.reply("hello"))
    made.calls.clear()
    list(chat.reply("more"))
    assert made.calls == [len("\n<u>more\n<a>") + 1] + [1] * 8  # and the last token of the answer, not read before
    chat.messages = chat.messages[:1]  # as a user who clears the conversation
    made.calls.clear()
    list(chat.reply("other"))
    assert made.calls[0] == len("other\n<a>")


@pytest.mark.parametrize("close", ["close", "interrupt", "at once"])
def test_an_interrupted_reply_leaves_a_history_that_goes_on(tokenizer, close):
    made = model().train()
    chat = Chat(made, tokenizer, max_new_tokens=9, suppress_tokens=list(range(94, 257)))
    answer, said = chat.reply("hello"), ""
    if close != "at once":
        said = next(answer) + next(answer)
    if close == "interrupt":
        made.failing = True
        with pytest.raises(KeyboardInterrupt):
            next(answer)
        made.failing = False
    answer.close()
    assert made.training
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": said}]
    assert chat.messages == ([] if close == "at once" else turns)
    messages = [*chat.messages, {"role": "user", "content": "go on"}]
    ids = tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)
    want = generate(made, ids, max_new_tokens=9, suppress_tokens=list(range(94, 257)), tokenizer=tokenizer)[0].text
    assert "".join(chat.reply("go on")) == want


def test_the_oldest_turns_are_dropped(tokenizer):
    made = model(n_positions=64)
    chat = Chat(made, tokenizer, "sys", max_new_tokens=5)
    for i in range(8):
        messages, _ = chat._fitting([*chat.messages, {"role": "user", "content": f"turn {i}"}])
        assert messages[0]["role"] == "system"
        assert messages[1]["role"] == "user"
        want = afresh(made, tokenizer, messages, 5)
        assert "".join(chat.reply(f"turn {i}")) == want
    assert 3 <= len(chat.messages) < 17
    assert len("".join(chat.reply("x" * 50))) <= 5
    assert chat.messages[0]["role"] == "system"
    before = list(chat.messages)
    with pytest.raises(ValueError, match="a message must fit the context of 64 tokens; got 78"):
        chat.reply("x" * 64)
    assert chat.messages == before


def test_an_answer_may_fill_the_context(tokenizer):
    chat = Chat(model(n_positions=64), tokenizer, rng=np.random.default_rng(0), temperature=1.0)
    list(chat.reply("hi"))
    assert chat.finish_reason == "length"
    assert chat._rows.cache.length == 64


def test_answers_end_where_a_turn_ends_and_follow_from_the_seed(tokenizer):
    def talk(seed, **options):
        rng = np.random.default_rng(seed)
        chat = Chat(model(), tokenizer, rng=rng, temperature=1.5, max_new_tokens=20, **options)
        return ["".join(chat.reply(text)) for text in ("a", "b")], chat

    said, chat = talk(0)
    assert said == talk(0)[0] != talk(1)[0]
    assert chat.config.eos_token_id == (tokenizer.eos_id,)
    stop = said[0][3]
    cut, chat = talk(0, stop_strings=stop)
    assert cut[0] == said[0][: said[0].index(stop)]


def test_what_is_refused(tokenizer):
    with pytest.raises(ValueError, match="num_beams and num_return_sequences must be 1"):
        Chat(model(), tokenizer, num_beams=2)
    with pytest.raises(ValueError, match="sampling needs rng"):
        Chat(model(), tokenizer, temperature=0.5)
    bare = bytes_vocabulary()
    with pytest.raises(ValueError, match="chat template"):
        Chat(model(), bare).reply("hello")
