"""The sandbox of chat templates: Jinja's own, and a meter, since that one bounds neither time nor memory.

The environment is the one that templates are written for (``transformers``): blocks trimmed, ``break`` and
``continue``, ``raise_exception``, ``strftime_now``, a ``tojson`` that leaves HTML alone, ``{% generation %}``.  Jinja's
immutable sandbox keeps a template from Python's attributes and from changing what it is given.

The meter: the template's syntax tree is rewritten so that every turn of a loop, every call of a macro and every value
that an operator, filter, test, call or ``{{ }}`` takes is paid for by its size.  No text or list may grow beyond
``LONGEST``, no number given to a function beyond ``WIDEST``, all work not beyond ``WORK``: a few seconds.
"""

import json
import re
import types
from datetime import datetime
from functools import wraps

import jinja2.sandbox
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.utils import Namespace

LONGEST = 4_000_000  # characters of a text, items of a list with all that is in it
WIDEST = 100_000  # a width, a count
WORK = 10_000_000  # values looked at; a character, which is copied quickly, counts a 64th; a turn of a loop, ten
WIDE_FORMAT = re.compile(r"\d{5}|\*")  # a width of 10,000 or more in a format string
GROWING = {"replace", "join", "translate", "expandtabs", "indent", "tojson", "wordwrap", "format"}
OPERANDS = {  # the children of a syntax node whose values are paid for
    nodes.Output: ("nodes",),
    nodes.Concat: ("nodes",),
    nodes.List: ("items",),
    nodes.Compare: ("expr",),
    nodes.Operand: ("expr",),
    nodes.For: ("iter",),
}


def run(template, variables):
    """Return what the Jinja source ``template`` prints.  Any exception may come out of it."""
    environment = Environment()
    pieces, length = [], 0
    for piece in environment.from_string(template).generate(variables):
        pieces.append(piece)
        length += len(piece)
        environment.meter.bound(length)
    return "".join(pieces)


class Meter(Extension):
    """What the rewritten template calls, and ``{% generation %} ... {% endgeneration %}``, which holds its body."""

    tags = {"generation"}  # noqa: RUF012 -- as Jinja declares it

    def __init__(self, environment):
        super().__init__(environment)
        self.work = 0

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def spend(self, amount=1):
        self.work += amount
        if self.work > WORK:
            raise SecurityError(f"it did more than {WORK} steps of work")

    def bound(self, length):
        if length > LONGEST:
            raise SecurityError(f"it made a text or list of more than {LONGEST}")

    def size(self, value):
        """Return the characters and items of a value and all in it, and pay for them."""
        total, waiting = 0, [value]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                total += len(value) + 1
                self.spend(1 + len(value) // 64)
            else:
                total += 1
                self.spend()
                if isinstance(value, (list, tuple)):
                    waiting += value
                elif isinstance(value, dict):
                    waiting += value
                    waiting += value.values()
                elif isinstance(value, int):
                    total += value.bit_length() // 3
            self.bound(total + len(waiting))
        return total

    def weigh(self, value):
        self.size(value)
        return value

    def turn(self, printed):
        """Pay for one turn of a loop or one call, which prints ``printed`` characters of the template itself."""
        self.spend(10 + printed // 64)
        return ""

    def join(self, *parts):
        self.bound(sum(map(self.size, parts)))
        return "".join(map(str, parts))

    def call(self, function_name, subject, arguments):
        """Pay for a call of a filter, test or method, and refuse what would make much of little."""
        sizes = [self.size(value) for value in [subject, *arguments]]
        for value in arguments:
            if isinstance(value, int) and abs(value) > WIDEST:
                raise SecurityError(f"a function or filter may be given numbers up to {WIDEST}; got {value!r:.40}")
        if function_name in GROWING:
            widths = [abs(value) for value in arguments if isinstance(value, int)]
            self.bound(sizes[0] * max([*widths, *sizes[1:], 1]))
        if function_name == "format" and isinstance(subject, str):
            self.check_format(subject)

    def check_format(self, form):
        if WIDE_FORMAT.search(form):
            raise SecurityError(f"a format may ask for widths below 10000; got {form!r:.80}")

    def lazily(self, values):
        for value in values:
            yield self.weigh(value)

    def metered(self, name, function):
        """Return a filter or test that is paid for."""
        passed = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja passes its context or environment first

        @wraps(function)
        def paid(*args, **kwargs):
            first = list(args)
            for i, value in enumerate(first[passed:], passed):
                if isinstance(value, types.GeneratorType):
                    first[i] = self.lazily(value) if name != "join" else list(self.lazily(value))
            subject, *rest = first[passed:] or [None]
            self.call(name, subject, [*rest, *kwargs.values()])
            return function(*first, **kwargs)

        return paid


class PublicNamespace(Namespace):
    """A namespace whose names do not begin with an underscore, and that does not print what it holds."""

    def __init__(*args, **kwargs):
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        _public(name)
        super().__setitem__(name, value)

    def __repr__(self):
        return "<namespace>"


def _public(name):
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r:.40}, which begins with an underscore")


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])  # these are not computed while compiling either

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Meter, loopcontrols])
        self.meter = self.extensions[Meter.identifier]
        self.filters["tojson"] = _tojson
        self.filters = {name: self.meter.metered(name, function) for name, function in self.filters.items()}
        self.tests = {name: self.meter.metered(name, function) for name, function in self.tests.items()}
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise, "strftime_now": self.strftime_now, "namespace": PublicNamespace}
        self.globals["dict"] = _dict

    def _parse(self, source, name, filename):
        return _rewrite(super()._parse(source, name, filename), self.meter).set_environment(self)

    def call_binop(self, context, operator, left, right):
        a, b = self.meter.size(left), self.meter.size(right)
        texts = isinstance(left, (str, list, tuple)), isinstance(right, (str, list, tuple))
        if operator == "%" and isinstance(left, str):
            self.meter.check_format(left)
            self.meter.bound(a * b)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self.meter.bound(abs(left).bit_length() * abs(right) // 3)
        elif operator == "*" and any(texts):
            many, times = (a, right) if texts[0] else (b, left)
            self.meter.bound(many * times if isinstance(times, int) else 0)
        else:
            self.meter.bound(a + b)
        return super().call_binop(context, operator, left, right)

    def call(self, context, function, *args, **kwargs):  # of what the template calls by itself
        if getattr(function, "__self__", None) is not self.meter:
            owner = getattr(function, "__self__", None)
            self.meter.spend(20)
            self.meter.call(getattr(function, "__name__", ""), owner, [*args, *kwargs.values()])
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value):
        """Return Jinja's safe str.format or format_map with its work paid for, None for anything else."""
        safe = super().wrap_str_format(value)
        if safe is None:
            return None

        @wraps(safe)
        def paid(*args, **kwargs):
            self.meter.call("format", value.__self__, [*args, *kwargs.values()])
            return safe(*args, **kwargs)

        return paid

    def strftime_now(self, form):
        self.meter.check_format(form)
        return datetime.now().strftime(form)


def _rewrite(node, meter):
    """Return the syntax tree with the meter in it."""
    for name, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_rewrite(child, meter) if isinstance(child, nodes.Node) else child for child in value]
        elif isinstance(value, nodes.Node):
            setattr(node, name, _rewrite(value, meter))
    for name in next((fields for kind, fields in OPERANDS.items() if isinstance(node, kind)), ()):
        value = getattr(node, name)
        if isinstance(value, list):
            value[:] = [_weighed(child, meter) for child in value]
        else:
            setattr(node, name, _weighed(value, meter))
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node.node = _weighed(node.node, meter)
    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
        printed = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        turn = meter.call_method("turn", [nodes.Const(printed)], lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(turn, lineno=node.lineno))
    if isinstance(node, nodes.Concat):
        return meter.call_method("join", node.nodes, lineno=node.lineno)
    if isinstance(node, (nodes.List, nodes.Dict)) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
        return _weighed(node, meter)
    return node


def _weighed(node, meter):
    if isinstance(node, (nodes.TemplateData, nodes.Const)):
        return node
    return meter.call_method("weigh", [node], lineno=node.lineno)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _dict(*args, **kwargs):
    return dict(*args, **kwargs)


def _raise(message):
    raise TemplateError(message)
