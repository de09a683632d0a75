"""Markdown of a reply, as it comes. Nothing in it can act: no links, no images, no HTML.

What links and images are written with stays visible as text, so a reader sees where they point.
"""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from rich.segment import Segment
from textual.app import ComposeResult
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownBlock, MarkdownFence

from edgellm.sanitize import visible

# Entities could spell control characters behind the sanitizer's back; references would vanish.
_INERT = ("link", "image", "autolink", "entity", "html_inline", "html_block", "reference")
_MARK = "edgellm_mark"
# What is nested deeper or larger than this costs the screen too much and is shown as it is written.
# The parser drops what is deeper than its own limit, which must therefore be the higher one.
_MAX_DEPTH, _PARSER_DEPTH = 12, 40
_MAX_COLUMNS, _MAX_CELLS = 16, 400


class _Growing(MarkdownBlock):
    """A block of one widget that, while it grows within its last line, moves nothing else: laying
    the screen out anew is most of what a batch of text costs."""

    def set_content(self, content: Content) -> None:
        """Another text, usually the old one and more."""
        same = False
        if self.is_mounted:  # else to ask for the size would lay everything out
            n_rows, n_columns = self.content_size.height, self.content_size.width
            same = n_rows > 0 and content.get_height({}, n_columns) == n_rows
        self._content = content
        self.update(content, layout=not same)


class Paragraph(_Growing):
    """A paragraph, or an item of a list that holds one paragraph: then with a mark before it."""

    def __init__(self, markdown: Markdown, token: Token) -> None:
        super().__init__(markdown, token)
        self._set_mark(token)

    def _set_mark(self, token: Token) -> None:
        self._mark = str(token.meta.get(_MARK, ""))
        self.set_class(bool(self._mark), "-item")
        if self._mark:
            self.styles.padding = (0, 0, 0, len(self._mark))

    async def _update_from_block(self, block: MarkdownBlock) -> None:
        if isinstance(block, Paragraph) and bool(block._mark) == bool(self._mark):
            self.set_content(block._content)
            self._copy_context(block)
            self._set_mark(block._token)
        else:
            await super()._update_from_block(block)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The mark stands in the padding of the first line."""
        strips = super().render_lines(crop)
        if self._mark and crop.y == 0 and crop.x == 0 and strips:
            n_cells = len(self._mark)
            mark = Strip([Segment(self._mark, self.visual_style.rich_style)], n_cells)
            strips[0] = Strip.join([mark, strips[0].crop(n_cells)])
        return strips


class CodeBlock(MarkdownFence, _Growing):
    """A fenced or indented block of code, as one widget; long lines are wrapped."""

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        """One colour: more of them cost a seventh of all drawing, anew for every batch of a growing
        block, and run Pygments' regular expressions over whatever a model writes."""
        del language, ansi, dark
        return Content(code)

    def compose(self) -> ComposeResult:
        """No parts: the code is the widget's own content."""
        self.set_content(self._highlighted_code)
        yield from ()

    def set_content(self, content: Content) -> None:
        """As of every block that grows."""
        _Growing.set_content(self, content)


class InertMarkdown(Markdown):
    """Grows by `feed()`; only the block at the end is looked at again."""

    BLOCKS = {  # noqa: RUF012
        **Markdown.BLOCKS,
        "paragraph_open": Paragraph,
        "fence": CodeBlock,
        "code_block": CodeBlock,
    }

    def __init__(self) -> None:
        super().__init__(parser_factory=inert_parser, open_links=False)

    async def feed(self, text: str) -> None:
        """Append a piece of a stream, wherever it was cut."""
        await self.append(visible(text))
        if self.children and not self.children[0].has_class("-first"):
            self.children[0].add_class("-first")


@cache
def inert_parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough, without whatever acts or hides."""
    parser = MarkdownIt("commonmark", {"maxNesting": _PARSER_DEPTH, "html": False})
    parser.enable(["table", "strikethrough"])
    parser.disable(_INERT)
    parser.core.ruler.push("edgellm_blocks", _rearrange)
    return parser


def _rearrange(state: StateCore) -> None:
    """Blocks as the screen wants them: nothing too large, one list for every item of a list (so
    that only the last item is made anew while a list grows), and line breaks kept."""
    tokens: list[Token] = []
    block: list[Token] = []
    for token in state.tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            tokens += [_as_written(state.src, block)] if _too_large(block) else _split_list(block)
            block = []
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":  # models mean their line breaks: verse, addresses, steps
                child.type = "hardbreak"
    state.tokens = tokens


def _too_large(block: list[Token]) -> bool:
    types = [token.type for token in block]
    n_cells = types.count("td_open") + types.count("th_open")
    return (
        max(token.level for token in block) > _MAX_DEPTH
        or types.count("th_open") > _MAX_COLUMNS
        or n_cells > _MAX_CELLS
    )


def _as_written(source: str, block: list[Token]) -> Token:
    start, end = block[0].map or (0, 0)
    text = "\n".join(source.split("\n")[start:end])
    return Token("code_block", "code", 0, content=text, map=[start, end], block=True)


def _split_list(block: list[Token]) -> list[Token]:
    opening, closing = block[0], block[-1]
    if opening.type not in ("bullet_list_open", "ordered_list_open"):
        return block
    split: list[Token] = []
    item: list[Token] = []
    for token in block[1:-1]:
        item.append(token)
        if token.level == 1 and token.type == "list_item_close":
            if [t.type for t in item[1:-1]] == ["paragraph_open", "inline", "paragraph_close"]:
                split += _marked(item)
            else:
                split += [opening.copy(map=item[0].map), *item, closing]
            item = []
    return split


def _marked(item: list[Token]) -> list[Token]:
    """The paragraph of an item as a block of the top level, with its mark."""
    opening, inline, closing = item[1:-1]
    mark = f" {item[0].info}. " if item[0].info else " • "
    return [
        opening.copy(level=0, map=item[0].map, meta={_MARK: mark}),
        inline.copy(level=1),
        closing.copy(level=0),
    ]
