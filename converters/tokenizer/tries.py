"""Tries over bytes as tables of the blob: the layout that native/src/tokenizer/trie.h reads."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

NO_VALUE = 0xFFFFFFFF
MAX_DEPTH = 512


def pack_trie(values: Mapping[bytes, int]) -> bytes:
    """Nodes in breadth-first order: where their children begin, their values, their labels."""
    keys = sorted(values)
    numbers = [NO_VALUE]
    labels = bytearray(1)
    first_child: list[int] = []
    # Of each node of one depth: the range of `keys` that begin with its path.
    level = [(0, len(keys))]
    depth = 0
    while level:
        n_known = len(numbers)
        following: list[tuple[int, int]] = []
        for begin, end in level:
            first_child.append(n_known + len(following))
            at = begin + (begin < end and len(keys[begin]) == depth)
            while at < end:
                label = keys[at][depth]
                start = at
                while at < end and keys[at][depth] == label:
                    at += 1
                following.append((start, at))
                labels.append(label)
        depth += 1
        numbers += [
            values[keys[begin]] if len(keys[begin]) == depth else NO_VALUE for begin, _ in following
        ]
        level = following
    first_child.append(len(numbers))
    body = np.array([*first_child, *numbers], dtype="<u4").tobytes() + bytes(labels)
    return struct.pack("<I", len(numbers)) + body + bytes(-len(labels) % 4)


def read_trie(data: bytes, position: int) -> tuple[dict[bytes, int], int]:
    """What pack_trie() packed at `position`, and where it ends."""
    (n_nodes,) = struct.unpack_from("<I", data, position)
    first_child = np.frombuffer(data, "<u4", n_nodes + 1, position + 4).tolist()
    position += 4 + 4 * (n_nodes + 1)
    numbers = np.frombuffer(data, "<u4", n_nodes, position).tolist()
    position += 4 * n_nodes
    labels = data[position : position + n_nodes]
    paths = [b""] * n_nodes
    for node in range(n_nodes):
        for child in range(first_child[node], first_child[node + 1]):
            paths[child] = paths[node] + labels[child : child + 1]
    found = {paths[i]: number for i, number in enumerate(numbers) if number != NO_VALUE}
    return found, position + (n_nodes + 3) // 4 * 4
