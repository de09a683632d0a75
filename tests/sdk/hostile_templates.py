"""Families of templates that try to cost too much or to get out."""

from __future__ import annotations

from collections.abc import Iterator


def hostile_templates() -> Iterator[str]:
    """More than 200 sources."""
    yield from _loops()
    yield from _strings()
    yield from _doubling()
    yield from _macros()
    yield from _escapes()
    yield from _names()
    yield from _sources()


def _loops() -> Iterator[str]:
    for depth in range(2, 12):
        opening = "".join(f"{{% for v{i} in range(1000) %}}" for i in range(depth))
        yield opening + "x" + "{% endfor %}" * depth
        yield opening + "{% endfor %}" * depth
        yield opening + "{% if v0 == v1 %}{{ v0 ~ v1 }}{% endif %}" + "{% endfor %}" * depth
    for n in (10**6, 10**9, 10**18):
        yield f"{{% for i in range({n}) %}}x{{% endfor %}}"
        yield f"{{{{ range({n})|list }}}}"
        yield f"{{% for i in range(-{n}, 0) %}}x{{% endfor %}}"
    empty = "{% for i in range(99999) if false %}{% endfor %}"
    yield empty * 20
    yield "{% for a in range(99999) %}" + empty + "{% endfor %}"
    body = "{{ a }}" * 400
    yield "{% for a in range(90000) %}" + body + "{% endfor %}"
    yield "{% for a in range(90000) %}" + "x" * 60000 + "{% endfor %}"
    yield "{% for a in range(90000) %}{% if a is odd and a in [1,2,3] %}{% endif %}{% endfor %}" * 3
    yield "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}"
    yield "{% for a in [1, 2] recursive %}{{ loop([1, 2]) ~ loop([1, 2]) }}{% endfor %}"
    for name in ("length", "list", "sort", "unique", "join", "map('string')|list", "max", "sum"):
        yield "{% for a in range(90000) %}{{ range(90000)|" + name + " }}{% endfor %}"


def _strings() -> Iterator[str]:
    for n in (10**7, 10**9, 10**12, 10**18):
        yield f"{{{{ 'a' * {n} }}}}"
        yield f"{{{{ {n} * 'a' }}}}"
        yield f"{{{{ ([0] * {n})|length }}}}"
        yield f"{{% set x = 'ab' * {n} %}}"
        yield f"{{{{ ('%{n}d' % 1)|length }}}}"
        yield f"{{{{ '%*d' % ({n}, 1) }}}}"
        yield f"{{{{ '%.{n}f' % 1.5 }}}}"
        yield f"{{{{ 'a'|indent({n}) }}}}"
        yield f"{{{{ 'a'.ljust({n}) }}}}"
        yield f"{{{{ 'a'.center({n}) }}}}"
        yield f"{{{{ 'a'.zfill({n}) }}}}"
        yield f"{{{{ 'a'.rjust({n}) }}}}"
        yield f"{{{{ 'a\\tb'.expandtabs({n}) }}}}"
        yield f"{{{{ 'a'|center({n}) }}}}"
        yield f"{{{{ '{{:{n}}}'.format(1) }}}}"
        yield f"{{{{ '{{a:{n}}}'.format_map({{'a': 1}}) }}}}"
        yield f"{{{{ [[1]]|tojson(indent={n}) }}}}"
        yield f"{{{{ 1.5|round({n}) }}}}"
        yield f"{{{{ 1.5|round({n}, 'floor') }}}}"
        yield f"{{{{ 10 ** {n} }}}}"
        yield f"{{{{ 10 ** 10 ** {n} }}}}"
        yield f"{{{{ [1]|batch({n}, 0)|list }}}}"
        yield f"{{{{ [1]|slice({n})|list }}}}"
        yield f"{{{{ lipsum({n}) }}}}"
        yield f"{{{{ (1).to_bytes({n}, 'big') }}}}"


def _doubling() -> Iterator[str]:
    start = "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}"
    for step in (
        "n.x + n.x",
        "n.x ~ n.x",
        "[n.x, n.x]|join",
        "[n.x, n.x]|join('-')",
        "'-'.join([n.x, n.x])",
        "n.x|replace('a', 'aaaa')",
        "n.x.replace('a', 'aaaa')",
        "n.x.replace('', 'aaaa')",
        "'%s%s' % (n.x, n.x)",
        "n.x * 3",
        "(n.x ~ n.x)|upper",
        "[n.x, n.x]|string",
        "[n.x, n.x]|tojson",
        "n.x|list|join('aaaa')",
    ):
        yield start + "{% set n.x = " + step + " %}{% endfor %}{{ n.x }}"
    yield start + "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}"
    lists = "{% set n = namespace(x=['a']) %}{% for i in range(60) %}"
    for step in ("[n.x, n.x]", "n.x + n.x", "n.x * 4", "{'a': n.x, 'b': n.x}", "(n.x, n.x)"):
        for use in (
            "{{ n.x }}",
            "{{ n.x|tojson }}",
            "{{ n.x|string|length }}",
            "{{ n.x == n.x }}{{ [n.x] == [[n.x]] }}",
            "{{ n.x ~ '' }}",
            "{{ '%s' % (n.x,) }}",
            "{{ n.x|join|length }}",
        ):
            yield lists + "{% set n.x = " + step + " %}{% endfor %}" + use
    yield start + "{% set n.x = 7 %}{% endfor %}" + _squaring()
    big = "{% set s = 'ab ' * 300000 %}"
    yield big + "{% for i in range(90000) %}{% if s == s ~ '' %}{% endif %}{% endfor %}"
    yield big + "{% for i in range(90000) %}{% if 'zz' in s %}{% endif %}{% endfor %}"
    yield big + "{% for i in range(9000) %}{{ s.count('b a') }}{% endfor %}"
    yield big + "{{ s.split() }}{{ s.split() }}"
    yield big + "{{ s.split(' ')|length }}{{ s.split('b')|length }}"
    yield big + "{{ s.strip(s) }}{{ s|trim(s) }}"
    yield big + "{% for i in range(999) %}{{ s|upper|length }}{{ s[1:] is lower }}{% endfor %}"
    yield big + "{{ s|list|sort|length }}"
    wide = "{% set s = '\U0001f642' * 1000000 %}"
    yield wide + "{% set a = [s ~ '', s ~ '1', s ~ '2', s ~ '3'] %}{{ a }}"


def _squaring() -> str:
    return (
        "{% set n = namespace(k=3) %}{% for i in range(60) %}{% set n.k = n.k * n.k %}{% endfor %}"
    )


def _macros() -> Iterator[str]:
    yield "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"
    yield "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}"
    yield "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ g() }}"
    fan = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    for n in (20, 50, 100, 5000):
        yield fan + f"{{{{ f({n}) }}}}"
    yield (
        "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{{ " + "f(" * 40 + "'aaaa'" + ")" * 40 + " }}"
    )
    yield (
        "{% macro f() %}{{ caller() }}{% endmacro %}" + "{% call f() %}" * 90 + "{% endcall %}" * 89
    )
    yield "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}"
    for depth in (200, 1000, 5000):
        yield "{{ " + "(" * depth + "1" + ")" * depth + " }}"
        yield "{{ " + "[" * depth + "]" * depth + " }}"
        yield "{{ " + "not " * (5 * depth) + "1 }}"
        yield "{{ x" + ".a" * depth + " }}"
        yield "{% if 1 %}" * depth + "{% endif %}" * depth


def _escapes() -> Iterator[str]:
    for start in (
        "''",
        "[]",
        "{}",
        "1",
        "messages",
        "range",
        "dict",
        "namespace()",
        "raise_exception",
    ):
        yield "{{ " + start + ".__class__.__mro__[1].__subclasses__() }}"
        yield "{{ " + start + "|attr('__class__') }}"
        yield "{{ " + start + "['__class__']['__base__']() }}"
        yield "{{ [" + start + "]|map(attribute='__class__')|list|first() }}{{ x.y.z }}"
    for start in ("raise_exception", "strftime_now", "range", "namespace", "''.join", "loop"):
        yield "{{ " + start + ".__globals__['os'].system('true') }}"
    yield "{{ self.__init__.__globals__.x }}"
    yield "{{ self._TemplateReference__context.x }}"
    yield "{{ cycler.__init__.__globals__.os.popen('id').read() }}"
    yield "{{ namespace(__class__=1) }}"
    yield "{% set n = namespace() %}{% set n.__class__ = 1 %}"
    yield "{{ messages.append(1) }}"
    yield "{{ messages.clear() }}"
    yield "{{ messages[0].update(a=1) }}"
    yield "{{ messages[0].pop('role') }}"
    yield "{% include 'x' %}"
    yield "{% import 'x' as y %}"
    yield "{% from 'x' import y %}"
    yield "{% extends 'x' %}"
    yield "{% autoescape true %}{{ '<' }}{% endautoescape %}"
    yield "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__.x }}"
    yield "{% for a in [1] %}{{ loop.__init__.__globals__.x }}{% endfor %}"


def _names() -> Iterator[str]:
    for name in (
        "attr",
        "batch",
        "center",
        "filesizeformat",
        "format",
        "pprint",
        "random",
        "slice",
        "striptags",
        "sum",
        "urlencode",
        "urlize",
        "wordwrap",
        "xmlattr",
        "forceescape",
    ):
        yield "{{ 'a'|" + name + " }}"
    for name in (
        "center",
        "encode",
        "expandtabs",
        "format",
        "format_map",
        "ljust",
        "maketrans",
        "rjust",
        "translate",
        "zfill",
        "isidentifier",
    ):
        yield "{{ 'a'." + name + "(1) }}"
    for name in ("lipsum", "cycler", "joiner", "open", "exec", "__import__"):
        yield "{{ " + name + "(1) }}"


def _sources() -> Iterator[str]:
    yield "x" * (64 * 1024 + 1)
    yield "é" * 33000
    yield "{{ a }}" * 9000
    yield "{{ 1" + "+1" * 30000 + " }}"
    yield "{{ 'a'" + "~'a'" * 15000 + " }}"
    yield "{% if 1 %}" * 6000
    yield "{{ '" + "a" * 10
    yield "{% for %}"
    yield "{% endfor %}"
    yield "{{ }}"
    yield "{% set x = %}"
    yield "{% unknown %}"
