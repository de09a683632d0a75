"""Reference pages made from the source: what is public in Python, and the verbs.

Knows nothing of how pages are published. ValueError where something public has no docstring.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

WIDTH_COLUMNS = 100  # of the help texts


def python_page(module: ModuleType, besides: Iterable[type] = ()) -> str:
    """Everything that `module.__all__` names, classes with their public members; besides: classes
    that those mention."""
    functions, classes, errors = [], [], []
    public = {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}
    public |= {one.__name__: one for one in besides}
    for name, found in sorted(public.items()):
        if not inspect.isclass(found):
            functions.append(_function(name, found, "##"))
        elif issubclass(found, Exception):
            errors.append(_class(name, found))
        else:
            classes.append(_class(name, found))
    intro = (
        "Made from the docstrings of the package; what is not here is not public. What the codes "
        "of errors mean: [errors](ERRORS.md).\n"
    )
    parts = ["# Python reference\n", intro, *functions, *classes, *errors]
    return "\n".join(parts)


def verbs_page(verbs: dict[str, str]) -> str:
    """The help text of every verb, as a terminal shows it."""
    intro = (
        "What `edgellm VERB --help` says. What exit codes mean: [troubleshooting]"
        "(TROUBLESHOOTING.md).\n"
    )
    parts = ["# Command line reference\n", intro]
    for verb in verbs:
        parts.append(f"## {verb}\n\n```text\n{_help(verb)}\n```\n")
    return "\n".join(parts)


def _help(verb: str) -> str:
    environment = {**os.environ, "COLUMNS": str(WIDTH_COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "edgellm", verb, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def _class(name: str, found: type) -> str:
    head = f"## {name}\n\n"
    bases = [base.__name__ for base in found.__bases__ if base.__module__.startswith("edgellm.")]
    if is_dataclass(found) or "__init__" in vars(found):
        head += _signature(name, found)
    if bases:
        head += f"Extends {', '.join(f'`{base}`' for base in bases)}.\n\n"
    parts = [head + _doc(name, found)]
    parts += [_member(f"{name}.{at}", member) for at, member in _members(found)]
    return "\n".join(parts)


def _members(found: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of the class and of those of ours that it is made of."""
    seen: dict[str, Any] = {}
    for one in found.__mro__:
        if one.__module__.startswith("edgellm."):
            for name, member in vars(one).items():
                if not name.startswith("_"):
                    seen.setdefault(name, member)
    fields = getattr(found, "__dataclass_fields__", {})
    for name in sorted(seen):
        member = seen[name]
        if name not in fields and (_is_callable(member) or isinstance(member, property)):
            yield name, member


def _is_callable(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, classmethod | staticmethod)


def _member(name: str, member: Any) -> str:
    if isinstance(member, property):
        kind = inspect.signature(member.fget).return_annotation if member.fget else ""
        return f"### {name}\n\n```python\n{name}: {kind}\n```\n\n{_doc(name, member)}"
    return _function(name, getattr(member, "__func__", member), "###")


def _function(name: str, found: Any, level: str) -> str:
    return f"{level} {name}\n\n{_signature(name, found)}{_doc(name, found)}"


def _signature(name: str, found: Any) -> str:
    """As it stands in the source, defaults and all; a class's is that of its fields or __init__."""
    if inspect.isclass(found):
        inner = vars(found).get("__init__")
        if is_dataclass(found):
            fields = "".join(f"    {line},\n" for line in _fields(found))
            return f"```python\n{name}(\n{fields})\n```\n\n"
        return _signature(name, inner).replace(") -> None", ")")
    node = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), name
    given = node.args
    given.args = [one for one in given.args if one.arg not in ("self", "cls")]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = f"{name}({ast.unparse(given)}){returns}"
    if len(text) > WIDTH_COLUMNS:
        inside = "".join(f"    {one},\n" for one in _arguments(given))
        text = f"{name}(\n{inside}){returns}"
    return f"```python\n{text}\n```\n\n"


def _arguments(given: ast.arguments) -> Iterator[str]:
    """One by one, lone stars and slashes left where they are."""
    depth, text = 0, ""
    for character in ast.unparse(given):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            yield _spaced(text.strip())
            text = ""
        else:
            text += character
    yield _spaced(text.strip())


def _spaced(argument: str) -> str:
    """Blanks around the sign before a default, as they stand where there is an annotation."""
    return re.sub(r"^(\w+: [^=]+)=", r"\1 = ", argument)


def _fields(found: type) -> Iterator[str]:
    for one in reversed(found.__mro__):
        if "__dataclass_fields__" in vars(one):
            node = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
            assert isinstance(node, ast.ClassDef)
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and not ast.unparse(line.target).startswith("_"):
                    yield ast.unparse(line)


def _doc(name: str, found: Any) -> str:
    text = inspect.getdoc(found)
    if not text:
        raise ValueError(f"{name} is public and has no docstring")
    return _as_markdown(text) + "\n"


def _as_markdown(text: str) -> str:
    """Indented blocks become code; angle brackets outside code stay text."""
    lines, is_code = [], False
    for line in text.splitlines():
        is_indented = line.startswith("    ")
        if is_indented and not is_code:
            lines += ["```text"]
        elif is_code and line.strip() and not is_indented:
            lines += ["```", ""]
        is_code = is_indented or (is_code and not line.strip())
        lines.append(line if is_code else line.replace("<", "&lt;"))
    if is_code:
        lines.append("```")
    return "\n".join(lines)
