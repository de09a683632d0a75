"""What chat templates may use: methods, filters and tests. Add a name only with its worst cost
charged in `template_limits`."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STRING_METHODS = _words(
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit"
    " islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix"
    " removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith"
    " strip swapcase title upper"
)
DICT_METHODS = _words("get items keys values copy")
LIST_METHODS = _words("count index")
FILTERS = _words(
    "abs capitalize count d default dictsort e escape first float groupby indent int items join"
    " last length list lower map max min reject rejectattr replace reverse round safe select"
    " selectattr sort string title trim truncate unique upper wordcount"
)
TESTS = _words(
    "boolean callable defined divisibleby eq equalto == even false float ge >= greaterthan"
    " gt > in integer iterable le <= lessthan lower lt < mapping ne != none number odd sameas"
    " sequence string true undefined upper"
)
CHEAP_TESTS = _words(
    "boolean callable defined false float integer iterable mapping none number sequence string true"
    " undefined"
)
# What these make can hold a special-token string that no part of it held.
RECOMBINING = _words("replace lower upper capitalize title casefold swapcase join reverse")
