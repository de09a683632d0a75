"""Markdown of a reply, as it comes. Nothing in it can act: no links, no images, no HTML.

What links and images are written with stays visible as text, so a reader sees where they point.
"""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from textual.content import Content
from textual.highlight import HighlightTheme
from textual.highlight import highlight as highlighted
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownBlock, MarkdownFence

from edgellm.sanitize import visible

# Entities could spell control characters behind the sanitizer's back; references would vanish.
_INERT = ("link", "image", "autolink", "entity", "html_inline", "html_block", "reference")
# What is nested deeper or larger than this costs the screen too much and is shown as it is written.
# The parser drops what is deeper than its own limit, which must therefore be the higher one.
_MAX_DEPTH, _PARSER_DEPTH = 12, 40
_MAX_COLUMNS, _MAX_CELLS = 16, 400
# Colours are worked out anew for every batch of a growing block, by Pygments' regular expressions:
# for known languages and reasonable sizes only.
_MAX_COLOURED_CHARS = 4096
_COLOURED = {"bash", "c", "c++", "console", "cpp", "csharp", "css", "diff", "go", "html", "ini"}
_COLOURED |= {"java", "javascript", "js", "json", "kotlin", "py", "python", "rust", "sh", "shell"}
_COLOURED |= {"sql", "swift", "toml", "ts", "typescript", "xml", "yaml"}


class CodeBlock(MarkdownFence):
    """A fenced or indented block of code."""

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        """Coloured if that is cheap and sure, else plain."""
        del ansi, dark
        name = language.strip().split(" ")[0].lower()
        if name not in _COLOURED or len(code) > _MAX_COLOURED_CHARS:
            return Content(code)
        return highlighted(code, language=name, theme=HighlightTheme)


class Paragraph(MarkdownBlock):
    """A paragraph that, while it grows within its last line, moves nothing else."""

    def set_content(self, content: Content) -> None:
        """Laying the screen out anew is most of what a batch of text costs."""
        n_rows, n_columns = self.size.height, self.size.width
        same = n_rows > 0 and content.get_height({}, n_columns) == n_rows
        self._content = content
        self.update(content, layout=not same)

    async def _update_from_block(self, block: MarkdownBlock) -> None:
        if isinstance(block, Paragraph):
            self.set_content(block._content)
            self._copy_context(block)
        else:
            await super()._update_from_block(block)


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
    for token in block[1:-1]:
        if token.level == 1 and token.type == "list_item_open":
            split.append(opening.copy(map=token.map))
        split.append(token)
        if token.level == 1 and token.type == "list_item_close":
            split.append(closing)
    return split
