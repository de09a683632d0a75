"""Markdown that comes in pieces: the same lines, wherever it was cut, and only its end is new."""

from __future__ import annotations

import random

import pytest
from edgellm.tui.widgets.blocks import Painter
from edgellm.tui.widgets.growing import GrowingMarkdown
from rich.cells import cell_len
from textual.style import Style

PAINTER = Painter({name: Style() for name in (*Painter.STYLES, *Painter.OVERLAYS)})
DOCUMENT = """# A title

Some *words* of `prose` that are **long enough** to be wrapped more than once,
with a line break.

- one
- two, with code:

  ```sh
  ls
  ```
- three
  1. nested
  2. again

```python
def f(x):

    return x


```
~~~~ text
```
still code
~~~~

| a | long name | 中文 |
|---|:-:|---|
| 1 | `x` | **y** and some more words that do not fit in it |
| 2 | | 🙂 |

> a quote
> > of a quote

---

    indented code

1. one
10. ten
last words
===
"""


def texts(markdown: GrowingMarkdown) -> list[str]:
    return [line.text.rstrip() for line in markdown.lines]


def whole(source: str, width: int) -> list[str]:
    markdown = GrowingMarkdown(PAINTER, width)
    markdown.feed(source)
    return texts(markdown)


@pytest.mark.parametrize("width", [30, 76, 136])
def test_pieces_give_the_same_lines_as_the_whole(width):
    rng = random.Random(width)
    for _ in range(10):
        markdown = GrowingMarkdown(PAINTER, width)
        at = 0
        while at < len(DOCUMENT):
            n = rng.randrange(1, 30)
            markdown.feed(DOCUMENT[at : at + n])
            at += n
        assert texts(markdown) == whole(DOCUMENT, width)
        markdown.resize(PAINTER, 50)
        assert texts(markdown) == whole(DOCUMENT, 50)


@pytest.mark.parametrize("width", [20, 24, 33, 60, 76, 136])
def test_every_line_is_as_wide_as_it_should_be(width):
    markdown = GrowingMarkdown(PAINTER, width)
    markdown.feed(DOCUMENT)
    assert {cell_len(line.text) for line in markdown.lines} == {0, width}  # 0: between blocks


def test_a_piece_says_from_where_on_lines_are_other_ones():
    markdown = GrowingMarkdown(PAINTER, 40)
    for at in range(0, len(DOCUMENT), 7):
        before = list(markdown.lines)
        first = markdown.feed(DOCUMENT[at : at + 7])
        assert markdown.lines[:first] == before[:first]  # the same objects


def test_a_long_block_of_code_is_read_from_its_last_lines_on(monkeypatch):
    import edgellm.tui.widgets.growing as growing

    read: list[int] = []

    def counted(source: str) -> object:
        read.append(len(source))
        return real(source)

    real = growing.top_blocks
    monkeypatch.setattr(growing, "top_blocks", counted)
    markdown = GrowingMarkdown(PAINTER, 40)
    markdown.feed("words\n\n  ```python x\n")
    for n in range(300):
        markdown.feed(f"  line {n}\n\n" if n % 3 else f"    line {n}\n")
    assert max(read[20:]) < 100
    markdown.feed("  ```\n\nafter")
    lines = texts(markdown)
    assert lines[:3] == ["words", "", "   line 0"]
    assert lines[-3:] == [" line 299" if 299 % 3 else "   line 299", "", "after"]
    assert lines == whole(markdown.source, 40)


def test_a_block_that_is_too_large_or_too_deep_is_shown_as_it_is_written():
    deep = ">" * 30 + " deep"
    assert whole(deep, 60) == [" " + deep]
    wide = "|a" * 20 + "|\n" + "|-" * 20 + "|"
    assert whole(wide, 60) == [" " + line for line in wide.split("\n")]
