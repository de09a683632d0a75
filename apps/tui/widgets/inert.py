"""The Markdown of a reply, read. Nothing in it can act: no links, no images, no HTML.

What links and images are written with stays visible as text, so a reader sees where they point.
Knows nothing of widgets.
"""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

# Entities could spell control characters behind the sanitizer's back; references would vanish.
_INERT = ("link", "image", "autolink", "entity", "html_inline", "html_block", "reference")
# What is nested deeper or larger than this costs the screen too much and is shown as it is written.
# The parser drops what is deeper than its own limit, which must therefore be the higher one.
_MAX_DEPTH, _PARSER_DEPTH = 12, 40
_MAX_COLUMNS, _MAX_CELLS = 16, 400
_LISTS = ("bullet_list_open", "ordered_list_open")


def top_blocks(source: str) -> list[SyntaxTreeNode]:
    """The blocks of `source`, each item of a list as a list of its own."""
    return SyntaxTreeNode(_parser().parse(source)).children


@cache
def _parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough, without whatever acts or hides."""
    parser = MarkdownIt("commonmark", {"maxNesting": _PARSER_DEPTH, "html": False})
    parser.enable(["table", "strikethrough"])
    parser.disable(_INERT)
    parser.core.ruler.push("edgellm_blocks", _rearrange)
    return parser


def _rearrange(state: StateCore) -> None:
    """Blocks as the screen wants them: nothing too large, and one list for every item of a list (so
    that only the last item is made anew while a list grows)."""
    tokens: list[Token] = []
    block: list[Token] = []
    for token in state.tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            tokens += [_as_written(state.src, block)] if _too_large(block) else _split_list(block)
            block = []
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
    if opening.type not in _LISTS:
        return block
    split: list[Token] = []
    for token in block[1:-1]:
        if token.level == 1 and token.type == "list_item_open":
            split.append(opening.copy(map=token.map))
        split.append(token)
        if token.level == 1 and token.type == "list_item_close":
            split.append(closing.copy())
    return split
