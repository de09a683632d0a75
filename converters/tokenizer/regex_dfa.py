"""Regex tree -> DFA with leftmost-first semantics, and the code point classes it reads.

A DFA state is an ordered list of NFA states, as in RE2: earlier ones have priority and everything
after a match is cut. Transitions look at the class of the *next* code point (the end of the text is
a class too), so that a one-character lookahead is decided exactly. Each (state, class) gives the
next state and whether a match ends before that code point; the last such place is the match's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import UnsupportedError

from .regex_syntax import Alternatives, CharSet, Lookahead, Node, Repeat, Sequence_
from .unicode_classes import N_CODE_POINTS, Mask

MATCH_BIT = 0x8000
DEAD = 0
START = 1
_MAX_STATES = 0x7FFF
_MAX_CLASSES = 255


@dataclass(frozen=True)
class Partition:
    """The coarsest classes of code points that tell all sets of all regexes apart."""

    class_of: NDArray[np.uint8]  # [N_CODE_POINTS]
    n_classes: int
    representatives: NDArray[np.int64]  # [n_classes] one code point of each class

    def members(self, mask: Mask) -> frozenset[int]:
        return frozenset(np.flatnonzero(mask[self.representatives]).tolist())


@dataclass(frozen=True)
class Dfa:
    transitions: NDArray[np.uint16]  # [n_states, n_classes + 1], last column = end of text


def _masks(node: Node) -> Iterator[Mask]:
    if isinstance(node, CharSet | Lookahead):
        yield node.mask
    elif isinstance(node, Repeat):
        yield from _masks(node.body)
    else:
        for child in node.parts if isinstance(node, Sequence_) else node.options:
            yield from _masks(child)


def make_partition(nodes: Sequence[Node]) -> Partition:
    labels = np.zeros(N_CODE_POINTS, dtype=np.int64)
    seen: set[bytes] = set()
    for node in nodes:
        for mask in _masks(node):
            key = np.packbits(mask).tobytes()
            if key in seen:
                continue
            seen.add(key)
            keys = labels * 2 + mask
            # np.unique by counting: the keys are few, the code points a million.
            present = np.bincount(keys) > 0
            labels = (np.cumsum(present) - 1)[keys]
    n_classes = int(labels.max()) + 1
    if n_classes > _MAX_CLASSES:
        raise UnsupportedError(
            f"the pre-tokenizer tells {n_classes} classes of characters apart, at most "
            f"{_MAX_CLASSES} are supported",
            code="tokenizer_unsupported",
        )
    representatives = np.empty(n_classes, dtype=np.int64)
    representatives[labels[::-1]] = np.arange(N_CODE_POINTS - 1, -1, -1)  # the first one stays
    return Partition(labels.astype(np.uint8), n_classes, representatives)


@dataclass
class _NfaState:
    kind: str  # "set", "look", "split" or "match"
    members: frozenset[int] = frozenset()  # classes
    negated: bool = False
    outs: tuple[int, ...] = ()  # in order of priority


class _Nfa:
    def __init__(self, node: Node, partition: Partition) -> None:
        self.partition = partition
        self.states = [_NfaState("match")]
        self.start = self.build(node, 0)

    def add(self, state: _NfaState) -> int:
        self.states.append(state)
        if len(self.states) > 8 * _MAX_STATES:
            raise UnsupportedError("the regex is too large", code="tokenizer_unsupported")
        return len(self.states) - 1

    def build(self, node: Node, follow: int) -> int:
        """The state that matches `node` and goes on at `follow`."""
        if isinstance(node, CharSet):
            return self.add(_NfaState("set", self.partition.members(node.mask), outs=(follow,)))
        if isinstance(node, Lookahead):
            members = self.partition.members(node.mask)
            return self.add(_NfaState("look", members, node.negated, (follow,)))
        if isinstance(node, Sequence_):
            for part in reversed(node.parts):
                follow = self.build(part, follow)
            return follow
        if isinstance(node, Alternatives):
            options = tuple(self.build(option, follow) for option in node.options)
            return self.add(_NfaState("split", outs=options))
        return self.build_repeat(node, follow)

    def build_repeat(self, node: Repeat, follow: int) -> int:
        entry = follow
        if node.maximum is None:
            entry = self.add(_NfaState("split"))
            body = self.build(node.body, entry)
            self.states[entry].outs = (body, follow) if node.greedy else (follow, body)
        else:
            for _ in range(node.maximum - node.minimum):
                body = self.build(node.body, entry)
                outs = (body, follow) if node.greedy else (follow, body)
                entry = self.add(_NfaState("split", outs=outs))
        for _ in range(node.minimum):
            entry = self.build(node.body, entry)
        return entry

    def step(self, kernel: tuple[int, ...], class_: int) -> tuple[tuple[int, ...], bool]:
        """Kernel after a code point of `class_`, and whether a match ends before it."""
        seen: set[int] = set()
        advanced: dict[int, None] = {}
        stack = list(reversed(kernel))
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            state = self.states[index]
            if state.kind == "match":
                return tuple(advanced), True
            if state.kind == "split":
                stack.extend(reversed(state.outs))
            elif state.kind == "look":
                if (class_ in state.members) != state.negated:
                    stack.append(state.outs[0])
            elif class_ in state.members:
                advanced.setdefault(state.outs[0])
        return tuple(advanced), False


def compile_dfa(node: Node, partition: Partition) -> Dfa:
    nfa = _Nfa(node, partition)
    numbers: dict[tuple[int, ...], int] = {(): DEAD, (nfa.start,): START}
    kernels: list[tuple[int, ...]] = [(), (nfa.start,)]
    rows: list[list[int]] = []
    while len(rows) < len(kernels):
        kernel = kernels[len(rows)]
        row = []
        for class_ in range(partition.n_classes):
            following, matched = nfa.step(kernel, class_)
            if following not in numbers:
                numbers[following] = len(kernels)
                kernels.append(following)
            row.append(numbers[following] | (MATCH_BIT if matched else 0))
        # The end of the text is in no set, so nothing advances over it.
        _, matched = nfa.step(kernel, partition.n_classes)
        row.append(DEAD | (MATCH_BIT if matched else 0))
        rows.append(row)
        if len(kernels) > _MAX_STATES:
            raise UnsupportedError("the regex has too many states", code="tokenizer_unsupported")
    return Dfa(_merge_equal_states(np.array(rows, dtype=np.uint16)))


def _merge_equal_states(transitions: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Moore's minimisation; dead stays state 0 and the start stays state 1."""
    targets = (transitions & ~np.uint16(MATCH_BIT)).astype(np.int64)
    matched = (transitions & MATCH_BIT).astype(np.int64)
    block = np.zeros(len(transitions), dtype=np.int64)
    while True:
        signature = np.concatenate([block[:, None], block[targets] * 2 + (matched > 0)], axis=1)
        _, refined = np.unique(signature, axis=0, return_inverse=True)
        refined = refined.reshape(-1)
        if refined.max() == block.max():
            break
        block = refined
    order = {int(block[DEAD]): DEAD, int(block[START]): START}
    for label in block.tolist():
        order.setdefault(label, len(order))
    number = np.array([order[int(label)] for label in block])
    merged = np.zeros((len(order), transitions.shape[1]), dtype=np.uint16)
    merged[number] = number[targets] | matched
    return merged


def find_pieces(dfa: Dfa, partition: Partition, text: str) -> list[tuple[str, bool]]:
    """(piece, is a match) over all of `text`: the definition of the native splitter."""
    table = dfa.transitions.tolist()
    classes = [int(partition.class_of[ord(c)]) for c in text] + [partition.n_classes]
    pieces: list[tuple[str, bool]] = []
    gap = begin = 0
    while begin < len(text):
        end, state = begin, START
        for position in range(begin, len(text) + 1):
            entry = table[state][classes[position]]
            if entry & MATCH_BIT:
                end = position
            state = entry & ~MATCH_BIT
            if state == DEAD:
                break
        if end == begin:
            begin += 1
            continue
        if gap < begin:
            pieces.append((text[gap:begin], False))
        pieces.append((text[begin:end], True))
        gap = begin = end
    if gap < len(text):
        pieces.append((text[gap:], False))
    return pieces
