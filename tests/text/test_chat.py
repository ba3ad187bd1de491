"""Chat templates, judged by ``transformers``; and hostile ones, which must neither escape nor hang."""

import json
import subprocess
import sys
import time

import pytest
import transformers
from tokenizers import Tokenizer as Library
from tokenizers import models

from minilm.text import Tokenizer
from minilm.text.chat import render_chat
from minilm.text.special import Settings

TALK = [
    {"role": "system", "content": "Be <b>brief</b> & kind."},
    {"role": "user", "content": '  Hi, "you" — 你好 🙂\n\n'},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Who are you?"},
]
CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
INST = """{% if messages[0]['role'] == 'system' %}
    {% set loop_messages = messages[1:] %}
    {% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{% else %}
    {% set loop_messages = messages %}{% set system = '' %}
{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if message['role'] == 'user' %}
{{ bos_token ~ '[INST] ' ~ (system if loop.first else '') ~ message['content'].strip() ~ ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}
        {{ ' ' + message['content'].strip() + ' ' + eos_token }}
    {% endif %}
{% endfor %}"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
TOOLS = """{%- set ns = namespace(last=-1, text='', seen=[]) %}
{%- macro show(m, depth=0) %}{{ '>' * depth }}{{ m.content | tojson }}{% endmacro %}
{%- for m in messages[::-1] %}
    {%- if m.role == 'tool' %}{% continue %}{% endif %}
    {%- set ns.text = ns.text ~ loop.index ~ '/' ~ loop.length ~ show(m, loop.index0) %}
    {%- set ns.seen = ns.seen + [m.role] %}
    {%- if loop.index == 3 %}{% break %}{% endif %}
{%- endfor %}
{%- if tools is not none and tools %}{{ tools | tojson(indent=2) }}{% endif %}
{{- ns.text }} {{ ns.seen | join(',') | upper }} {{ pad_token is defined }} {{ undefined_name }}
{%- generation %}{{ messages | map(attribute='role') | unique | list }}{% endgeneration %}
{%- set block %} {{ 'a%sb' % 3 }}{{ '{}-{x}'.format(1, x=2) }} {% endset %}
{%- for key, value in {'a': 1, 'b': [2, (3, 4)]}.items() %}{{ key }}={{ value }};{% endfor %}
{{- block | trim | length if block != '' and 'a' in block else 7 ** 2 // 3 }}{{ enable_thinking | default(true) }}"""
TEMPLATES = {"chatml": CHATML, "inst": INST, "zephyr": ZEPHYR, "tools": TOOLS}


def vocabulary():
    return Library(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))


def ours(template):
    return Tokenizer(vocabulary(), Settings({"bos": "<s>", "eos": "</s>"}, template))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("turns", [TALK, TALK[1:], TALK[:2], TALK[1:2]])
@pytest.mark.parametrize("prompt", [True, False])
def test_text_is_that_of_transformers(name, turns, prompt):
    template = TEMPLATES[name]
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=vocabulary(), bos_token="<s>", eos_token="</s>")
    more = {"tools": [{"type": "function", "ü": "<x>"}], "enable_thinking": False} if name == "tools" else {}
    want = theirs.apply_chat_template(
        turns, chat_template=template, add_generation_prompt=prompt, tokenize=False, **more
    )
    assert ours(template).apply_chat_template(turns, add_generation_prompt=prompt, **more) == want
    assert len(want) > 20


def test_a_template_refuses_messages():
    with pytest.raises(ValueError, match="Roles must alternate"):
        ours(INST).apply_chat_template([TALK[1], TALK[1]])


def test_the_date_is_there():
    assert render_chat("{{ strftime_now('%Y') }}", TALK) == time.strftime("%Y")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages must be a list of one or more"),
        ("hello", "messages must be a list of one or more"),
        (["hello"], "message 0 must be"),
        ([TALK[0], {"role": "user"}], "message 1 must be"),
        ([{"role": "user", "content": ["x"]}], "message 0 must be"),
        ([{"role": 1, "content": "x"}], "message 0 must be"),
        ([{"role": "user", "content": "x", "image": object()}], "must be JSON"),
    ],
)
def test_messages_are_checked(messages, words):
    with pytest.raises(ValueError, match=words):
        ours(CHATML).apply_chat_template(messages)


def test_a_vocabulary_without_a_template_says_so():
    with pytest.raises(ValueError, match="this one has none; prompt the model with plain text"):
        ours(None).apply_chat_template(TALK)


ESCAPES = """
{{ ''.__class__.__mro__[1].__subclasses__() }}
{{ raise_exception.__globals__['json'] }}
{{ (messages|attr('__class__'))() }}
{{ cycler.__init__.__globals__.os.system('true') }}
{{ self.__init__.__globals__ }}
{{ strftime_now.__func__.__globals__.x }}
{{ namespace(__class__=1) }}
{{ messages.append({'role': 'x'}) }}
{{ messages[0].update(role='x') }}
{{ '{0.__class__.__mro__.x}'.format(1) }}
{% include '/etc/passwd' %}
{% import 'os' as os %}
{% for %}
{{ messages.nothing.there }}
{{ 1 / 0 }}
{{ messages[0]['content'] + 1 }}
"""
DOUBLE = "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = WAY %}{% endfor %}{{ ns.s }}"
WAYS = """
ns.s ~ ns.s
ns.s + ns.s
ns.s * 2
'%s%s' % (ns.s, ns.s)
'{0}{0}'.format(ns.s)
'{x}{x}'.format_map({'x': ns.s})
[ns.s, ns.s]
[ns.s, ns.s] | join
(ns.s, ns.s) | list
dict(a=ns.s, b=ns.s)
ns.s.replace('b', ns.s)
ns.s | replace('b', ns.s)
ns.s.join([ns.s, ns.s, ns.s])
'%s' | format(ns.s ~ ns.s)
(ns.s ~ ns.s) | upper
ns.s | map('replace', 'b', ns.s) | join
{'a': ns.s, 'b': ns.s}
"""
HEAVY = r"""
{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}
{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}
{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}
{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}
{% for i in range(99999) %}{% for j in range(99) %}some text that is printed again and again{% endfor %}{% endfor %}
{% set s = [0] * 1900000 %}{% set t = [0] * 1900000 %}{% for i in range(99999) %}{% set y = s == t %}{% endfor %}
{% set s = [0] * 1900000 %}{% for i in range(99999) %}{% set y = s[1:] %}{% endfor %}
{% set s = 'ab' * 1000000 %}{% for i in range(99999) %}{% set y = s.upper() %}{% endfor %}
{% set s = 'ab' * 1000000 %}{% for i in range(99999) %}{% set y = s is upper %}{% endfor %}
{% set s = 'ab' * 1000000 %}{% for i in range(99999) %}{% set y = s | lower %}{% endfor %}
{{ 'a' * 9999999999 }}
{{ [0] * 9999999999 }}
{{ 9 ** 99999999 }}
{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}
{{ 'a' | center(9999999999) }}
{{ 'a'.ljust(9999999999) }}
{{ '%9999999999d' % 1 }}
{{ '%*d' % (9999999999, 1) }}
{{ '{:9999999999}'.format(1) }}
{{ ('\n' * 99999) | indent(99999) }}
{{ ('\t' * 99999).expandtabs(99999) }}
{{ messages | tojson(indent=9999999999) }}
{{ range(9999999999) | list }}
{{ strftime_now('%9999999999Y') }}
{{ lipsum(99999) }}
"""


@pytest.mark.parametrize("template", ESCAPES.strip().splitlines())
def test_templates_do_not_escape(template):
    with pytest.raises(ValueError, match="the chat template must lay out these messages; got: "):
        render_chat(template, TALK)


def test_heavy_templates_are_stopped():
    """In a process of its own with 1 GiB, so that a memory grab is a failure and no more."""
    doubling = [DOUBLE.replace("WAY", way) for way in WAYS.strip().splitlines()]
    doubling.append(DOUBLE.replace("{% set ns.s = WAY %}", "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"))
    doubling.append("{% set l = [1] %}" + "{% set l = [l, l] %}" * 60 + "{{ l == l }}")
    code = """if True:
        import json, resource, sys, time
        from minilm.text import sandbox
        from minilm.text.chat import render_chat
        sandbox.WORK //= 50  # less work, and less time for this test
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        for template in json.load(sys.stdin):
            start = time.process_time()
            try:
                text = render_chat(template, [{"role": "user", "content": "x"}])
                print("not stopped:", template, len(text))
            except ValueError as error:
                said = str(error)
                print("memory:", template) if "memory" in said.lower() else None
            if time.process_time() - start > 2:
                print("slow:", template)
    """
    given = json.dumps(doubling + HEAVY.strip().splitlines())
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_long_conversation_is_within_the_bounds():
    turns = [{"role": ("user", "assistant")[i % 2], "content": "words and words " * 300} for i in range(200)]
    for template in (CHATML, INST, ZEPHYR):
        assert len(ours(template).apply_chat_template(turns)) > 900_000


def test_jinja_is_imported_on_first_use():
    code = "import minilm.text, sys; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
