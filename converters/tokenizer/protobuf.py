"""A strict reader of protobuf's wire format: fields of one message, in order.

Knows nothing of any schema. Groups, which no current writer makes, are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from edgellm.errors import FormatError

Value = int | bytes
_MAX_VARINT_BYTES = 10


class Message:
    """`data` is one message of the file `path`; `base` is where it starts there."""

    def __init__(self, path: Path, data: memoryview, base: int = 0) -> None:
        self.path, self.data, self.base = path, data, base

    def error(self, position: int, what: str) -> FormatError:
        return FormatError(
            f"{self.path}: byte {self.base + position}: {what}", code="tokenizer_invalid"
        )

    def _varint(self, position: int) -> tuple[int, int]:
        value = 0
        for i in range(_MAX_VARINT_BYTES):
            if position + i >= len(self.data):
                raise self.error(position, "a number is cut short")
            byte = self.data[position + i]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if value >> 64:
                    break
                return value, position + i + 1
        raise self.error(position, "a number is longer than 64 bits")

    def fields(self) -> Iterator[tuple[int, int, Value, int]]:
        """(number, wire type, value, position of the value) of each field."""
        position = 0
        while position < len(self.data):
            begin = position
            key, position = self._varint(position)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise self.error(begin, f"field number {number}")
            value: Value
            if wire == 0:
                at = position
                value, position = self._varint(position)
            elif wire in (1, 2, 5):
                n_bytes = {1: 8, 5: 4}.get(wire, 0)
                if wire == 2:
                    n_bytes, position = self._varint(position)
                if n_bytes > len(self.data) - position:
                    raise self.error(begin, f"field {number} is cut short")
                at = position
                value = bytes(self.data[position : position + n_bytes])
                position += n_bytes
            else:
                raise self.error(begin, f"field {number} has the wire type {wire}")
            yield number, wire, value, at

    def typed(self, number: int, wire: int, expected: int, position: int) -> None:
        if wire != expected:
            raise self.error(position, f"field {number} has the wire type {wire}, not {expected}")

    def sub(self, value: Value, position: int) -> Message:
        assert isinstance(value, bytes)
        return Message(self.path, memoryview(value), self.base + position)


def as_text(message: Message, value: Value, position: int) -> str:
    assert isinstance(value, bytes)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise message.error(position, "a text is not UTF-8") from None


def as_float(value: Value) -> float:
    assert isinstance(value, bytes)
    return float(struct.unpack("<f", value)[0])


def as_int32(value: Value) -> int:
    """Negative numbers are sign-extended to 64 bits on the wire."""
    assert isinstance(value, int)
    return (value & 0xFFFFFFFF) - ((value & 0x80000000) << 1)
