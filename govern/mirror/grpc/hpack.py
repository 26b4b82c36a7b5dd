"""Header blocks of one direction of an HTTP/2 connection, read as they pass (HPACK, RFC 7541)."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Final

from govern.mirror.grpc.hpack_tables import HUFFMAN, STATIC

Field = tuple[bytes, bytes]

#: What an entry of the dynamic table counts beside its name and value (section 4.1).
_ENTRY_OVERHEAD_BYTES: Final = 32
_DEFAULT_TABLE_BYTES: Final = 4096
#: The largest dynamic table that is kept for a peer; servers allow 4 KB, some 64 KB.
_TABLE_BYTES_MAX: Final = 1 << 20
#: Continuation bytes of an integer: no size or index needs more.
_INTEGER_BYTES_MAX: Final = 5
_CODE_BITS_MIN: Final = 5
_CODE_BITS_MAX: Final = 30
#: Packed strings that are remembered: the names and the constant values of a few clients.
_STRINGS_REMEMBERED: Final = 1024
_REMEMBERED_BYTES_MAX: Final = 128
#: Whole blocks that are remembered by each direction of a connection.
_BLOCKS_REMEMBERED: Final = 32


class BadHeaders(ValueError):
    """A block that is no HPACK, so that this and all later blocks of the connection cannot be read."""


class HeaderReader:
    """Reads the blocks of one direction, in order: each may change the table that later ones refer to."""

    def __init__(self) -> None:
        #: The newest entry first.
        self._table: deque[Field] = deque()
        self._size = 0
        self._limit = _DEFAULT_TABLE_BYTES
        #: Blocks that were read since the table last changed, and do not change it themselves: most calls of a client
        #: have the same headers.
        self._read: dict[bytes, list[Field]] = {}
        self._changed = False

    def read(self, block: bytes) -> list[Field]:
        """The fields of a block, in order; names are in lower case, as HTTP/2 has them. The list is not to be changed.

        Raises:
            BadHeaders: the block is malformed.
        """
        fields = self._read.get(block)
        if fields is None:
            self._changed = False
            fields = self._fields(block)
            if self._changed or len(self._read) >= _BLOCKS_REMEMBERED:
                self._read.clear()
            if not self._changed and len(block) <= _REMEMBERED_BYTES_MAX:
                self._read[block] = fields
        return fields

    def _fields(self, block: bytes) -> list[Field]:
        fields: list[Field] = []
        at = 0
        try:
            while at < len(block):
                first = block[at]
                if first & 0x80:
                    index, at = _integer(block, at, 7)
                    fields.append(self._entry(index))
                elif first & 0xE0 == 0x20:
                    limit, at = _integer(block, at, 5)
                    self._resize(limit)
                else:
                    keep = bool(first & 0x40)
                    index, at = _integer(block, at, 6 if keep else 4)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    fields.append((name, value))
                    if keep:
                        self._add(name, value)
        except IndexError as error:
            raise BadHeaders("the block ends within a field, or refers to an entry that is not there") from error
        return fields

    def _entry(self, index: int) -> Field:
        if index == 0:
            raise BadHeaders("index 0")
        return STATIC[index - 1] if index <= len(STATIC) else self._table[index - len(STATIC) - 1]

    def _add(self, name: bytes, value: bytes) -> None:
        self._changed = True
        self._table.appendleft((name, value))
        self._size += len(name) + len(value) + _ENTRY_OVERHEAD_BYTES
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > _TABLE_BYTES_MAX:
            raise BadHeaders(f"a table of {limit} bytes")
        self._changed = True
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _ENTRY_OVERHEAD_BYTES


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer whose first `bits` bits end the byte at `at` (section 5.1), and where it ends."""
    mask = (1 << bits) - 1
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _INTEGER_BYTES_MAX, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise BadHeaders("an integer without end")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    packed = block[at] & 0x80
    length, at = _integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise BadHeaders("a string is longer than its block")
    data = block[at:end]
    if packed:
        data = unpacked(data) if length > _REMEMBERED_BYTES_MAX else _remembered(data)
    return data, end


def unpacked(data: bytes) -> bytes:
    """What a Huffman-coded string stands for (section 5.2).

    Raises:
        BadHeaders: it is no such string.
    """
    text = bytearray()
    bits = width = 0
    for byte in data:
        bits = bits << 8 | byte
        width += 8
        while width >= _CODE_BITS_MIN:
            for length in range(_CODE_BITS_MIN, min(_CODE_BITS_MAX, width) + 1):
                found = HUFFMAN.get((length, bits >> (width - length)))
                if found is not None:
                    text.append(found)
                    width -= length
                    bits &= (1 << width) - 1
                    break
            else:
                break
    if width > 7 or bits != (1 << width) - 1:
        raise BadHeaders("a packed string does not end with padding")
    return bytes(text)


_remembered: Final = lru_cache(_STRINGS_REMEMBERED)(unpacked)
