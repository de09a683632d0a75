"""TemplateSandbox: jinja2 for templates that nobody has read.

jinja2's immutable sandbox keeps a template from Python's internals, but lets it loop for ever and
make giant strings. Here the code generator charges loops and macros, every string that is made is
charged, and filters, tests, globals and methods are those listed here. Gives what transformers
gives for every template that stays inside. Imports jinja2: import this module only when needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from threading import RLock
from types import GeneratorType
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from . import template_allowed as allowed
from . import template_limits as limits
from .errors import TemplateError
from .placeholders import Marks

MAX_SOURCE_BYTES = 64 << 10
_MAX_WORDS = 3500  # lexical tokens outside plain text
_BLOCK = re.compile(r"\{[{%].*?[}%]\}", re.DOTALL)
_WORD = re.compile(r"\w+|'[^']*'|\"[^\"]*\"|[^\w\s]")


def _cost(statements: list[nodes.Node]) -> int:
    """Ticks of one pass over `statements`: the dearest branch of an if, one pass of inner loops."""

    def weight(node: nodes.Node) -> int:
        if isinstance(node, nodes.TemplateData):
            return 1 + len(node.data) // 16
        if isinstance(node, nodes.Output):
            return 8 * len(node.nodes) + sum(map(weight, node.nodes))
        if isinstance(node, nodes.If):
            branches = [sum(map(weight, node.body)), sum(map(weight, node.else_))]
            tests = weight(node.test)
            for other in node.elif_:
                tests += weight(other.test)
                branches.append(sum(map(weight, other.body)))
            return tests + max(branches)
        return 1 + sum(map(weight, node.iter_child_nodes()))

    return 4 + sum(map(weight, statements)) // 2


class _ChargingGenerator(CodeGenerator):
    """Writes a charge into every loop turn, macro, comparison, slice and join."""

    environment: _Environment

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        node.body.insert(0, self._tick(_cost(node.body)))
        if node.test is not None:
            paid = nodes.EnvironmentAttribute(f"budget.tick({_cost([node.test])})")
            node.test = nodes.And(paid, node.test).set_lineno(node.lineno)
        super().visit_For(node, frame)

    def visit_Macro(self, node: nodes.Macro, frame: Frame) -> None:
        node.body.insert(0, self._tick(4 + _cost(node.body)))
        super().visit_Macro(node, frame)

    def visit_CallBlock(self, node: nodes.CallBlock, frame: Frame) -> None:
        node.body.insert(0, self._tick(4 + _cost(node.body)))
        super().visit_CallBlock(node, frame)

    def visit_ScopedEvalContextModifier(
        self,
        node: nodes.ScopedEvalContextModifier,
        frame: Frame,  # noqa: ARG002
    ) -> None:
        self.fail("autoescape blocks are not for chat templates", node.lineno)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concatenated((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._charged(node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        self.write(f" {operators[node.op]} ")
        self._charged(node.expr, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.sliced(")
        self.visit(node.node, frame)
        for bound in (node.arg.start, node.arg.stop, node.arg.step):
            self.write(", ")
            self.visit(bound if bound is not None else nodes.Const(None), frame)
        self.write(")")

    def _charged(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write("environment.budget.looked_at(")
        self.visit(node, frame)
        self.write(")")

    @staticmethod
    def _tick(n_ticks: int) -> nodes.Stmt:
        return nodes.ExprStmt(nodes.EnvironmentAttribute(f"budget.tick({n_ticks})"))


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the model wrote; for rendering it is its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_content")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    @staticmethod
    def _content(caller: Macro) -> str:
        return str(caller())


class _TemplateNamespace(Namespace):
    """A namespace without private names."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **values)
        for name in attributes:
            _check_public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace holds no private name {name!r}")


class _Refusal(jinja2.TemplateError):
    """raise_exception() of a template."""


class _Environment(ImmutableSandboxedEnvironment):
    """One per template, since the generated code finds its budget here."""

    code_generator_class = _ChargingGenerator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[_Generation, jinja2.ext.loopcontrols],
            finalize=self._printed,
        )
        self.budget = limits.Budget()
        self.marks: Marks | None = None
        self.now: Callable[[], datetime] = datetime.now
        known = self.filters
        self.filters = {name: self._limited(name, known[name]) for name in allowed.FILTERS}
        self.filters["tojson"] = lambda value, **how: limits.to_json(self.budget, value, **how)
        known = self.tests
        self.tests = {
            name: known[name] if name in allowed.CHEAP_TESTS else self._charged(known[name])
            for name in allowed.TESTS
        }
        self.globals.clear()
        self.globals |= {
            "range": self._range,
            "dict": self._dict,
            "namespace": _TemplateNamespace,
            "raise_exception": self._refuse,
            "strftime_now": lambda form: self.budget.made(self.now().strftime(form[:1024])),
        }

    # --- called by generated code -------------------------------------------------------------

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        limits.checked_operator(self.budget, operator, left, right)
        return self.budget.made(super().call_binop(context, operator, left, right))

    def concatenated(self, parts: tuple[Any, ...]) -> str:
        """`a ~ b`."""
        return limits.text_of(self.budget, parts)

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]`."""
        self.budget.looked_at(value)
        part = self.budget.made(value[start:stop:step])
        return self._guarded(part, (value,)) if step not in (None, 1) else part

    def call(self, context: Any, function: Any, /, *args: Any, **named: Any) -> Any:
        self.budget.tick(2)
        return super().call(context, function, *args, **named)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self._wrapped(obj, attribute, super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self._wrapped(obj, argument, super().getitem(obj, argument))

    def wrap_str_format(self, value: Any) -> None:
        """str.format is not among the methods."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, str):
            return attr in allowed.STRING_METHODS
        if isinstance(obj, dict):
            return attr in allowed.DICT_METHODS
        if isinstance(obj, list | tuple):
            return attr in allowed.LIST_METHODS
        return isinstance(obj, LoopContext | Macro | Namespace | Undefined)

    # --- what templates call ------------------------------------------------------------------

    def _wrapped(self, obj: Any, name: Any, value: Any) -> Any:
        if not isinstance(obj, str) or not callable(value) or isinstance(value, Undefined):
            return value

        def method(*args: Any, **named: Any) -> Any:
            every = (*args, *named.values())
            limits.check_method(self.budget, obj, name, every)
            if name == "join":
                parts = list(self.budget.each(args[0]))
                return self._guarded(limits.text_of(self.budget, parts, str(obj)), parts)
            made = self.budget.made(value(*args, **named))
            return self._guarded(made, (obj, *every)) if name in allowed.RECOMBINING else made

        return method

    def _limited(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passes = getattr(function, "jinja_pass_arg", None)

        def limited(*args: Any, **named: Any) -> Any:
            first = 0 if passes is None else 1
            value, rest = args[first], (*args[first + 1 :], *named.values())
            limits.check_filter(self.budget, name, value, rest)
            if name in ("string", "join"):
                value = self._countable(value)
                self.budget.check_chars(self.budget.measure(value))
                if name == "join" and rest:
                    n_items = len(value) if hasattr(value, "__len__") else 0
                    self.budget.check_chars(n_items * len(str(rest[0])))
                args = (*args[:first], value, *args[first + 1 :])
            made = self.budget.made(function(*args, **named))
            if isinstance(made, GeneratorType):
                return self.budget.each(made)
            if name in allowed.RECOMBINING:
                inputs = (*value, *rest) if name == "join" else (value, *rest)
                return self._guarded(made, inputs)
            return made

        if passes is not None:
            limited.jinja_pass_arg = passes  # type: ignore[attr-defined]
        return limited

    def _charged(self, test: Any) -> Callable[..., bool]:
        def charged(*values: Any) -> bool:
            return bool(test(*map(self.budget.looked_at, values)))

        return charged

    def _countable(self, value: Any) -> Any:
        return list(self.budget.each(value)) if isinstance(value, GeneratorType) else value

    def _guarded(self, made: Any, inputs: Any) -> Any:
        if self.marks is None or type(made) is not str:
            return made
        self.budget.tick(len(made) >> 4)
        return self.marks.guard(made, inputs)

    def _printed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.budget.made(value)
        return value if isinstance(value, Undefined) else self.budget.as_text(value)

    def _range(self, *bounds: int) -> range:
        if len(numbers := range(*bounds)) > limits.MAX_TICKS:
            raise self.budget.limited(f"range of {len(numbers)}")
        return numbers

    def _dict(self, *args: Any, **named: Any) -> dict[Any, Any]:
        for value in args:
            self.budget.looked_at(value)
        return dict(*args, **named)

    @staticmethod
    def _refuse(message: object) -> None:
        raise _Refusal(str(message)[:2000])


class TemplateSandbox:
    """One compiled template. Threads may share it: renderings take turns."""

    def __init__(self, source: str) -> None:
        n_bytes = len(source.encode("utf-8", "surrogatepass"))
        if n_bytes > MAX_SOURCE_BYTES:
            message = f"the chat template has {n_bytes} bytes, at most {MAX_SOURCE_BYTES}"
            raise TemplateError(message, code="template_too_large")
        n_words = sum(len(_WORD.findall(block)) for block in _BLOCK.findall(source))
        if n_words > _MAX_WORDS:
            message = f"the chat template has {n_words} words of code, at most {_MAX_WORDS}"
            raise TemplateError(message, code="template_too_large")
        self._lock = RLock()
        self._environment = _Environment()
        try:
            self._template = self._environment.from_string(source)
        except Exception as error:
            raise _typed(error, self._environment.budget, "template_syntax") from error

    def render(
        self,
        variables: Mapping[str, Any],
        *,
        marks: Marks | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> str:
        """The text for `variables`, plain data; TemplateError says why there is none."""
        with self._lock:
            environment = self._environment
            environment.budget = budget = limits.Budget()
            environment.marks, environment.now = marks, now
            chunks, n_chars = [], 0
            try:
                for chunk in self._template.generate(variables):
                    chunks.append(chunk)
                    n_chars += len(chunk)
                    if n_chars > limits.MAX_OUTPUT_CHARS:
                        raise budget.limited(f"more than {limits.MAX_OUTPUT_CHARS} characters")
            except Exception as error:
                raise _typed(error, budget, "template_failed") from error
            if budget.failure is not None:
                raise budget.failure
        return "".join(chunks)


def _typed(error: Exception, budget: limits.Budget, otherwise: str) -> TemplateError:
    """The TemplateError for whatever came out of jinja2."""
    if budget.failure is not None:
        return budget.failure
    if isinstance(error, TemplateError):
        return error
    line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    text = str(error)[:500]
    if isinstance(error, _Refusal):
        return TemplateError(
            f"the chat template refuses this conversation: {text}", code="template_refused"
        )
    if isinstance(error, RecursionError | MemoryError):
        return budget.limited("it nests too deeply" if isinstance(error, RecursionError) else text)
    forbidden = isinstance(
        error, jinja2.exceptions.SecurityError | jinja2.TemplateAssertionError
    ) or (isinstance(error, jinja2.TemplateRuntimeError | TypeError) and "no loader" in text)
    code = "template_forbidden" if forbidden or text.startswith("No filter named") else otherwise
    message = f"the chat template cannot be used{line}: {json.dumps(text, ensure_ascii=False)}"
    return TemplateError(message, code=code)
