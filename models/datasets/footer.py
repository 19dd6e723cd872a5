"""How many numbers a Parquet file says that it holds, read from its footer in plain Python.

pyarrow's own view of a column's metadata ends the whole process where a footer is damaged
(`RowGroupMetaData.column`, seen with 25.0): what is not trusted must not be asked there. The footer
is Thrift's compact protocol (Apache Thrift, thrift-compact-protocol.md; parquet-format,
parquet.thrift).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MAGIC = b"PAR1"
LONGEST = 64 * 2**20
DEEPEST = 16
# Fields of parquet.thrift: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData.
ROW_GROUPS, COLUMNS, META_DATA, PATH, NUM_VALUES = 4, 1, 3, 3, 5


def count_values(path: Path, column: str) -> int:
    """Return the numbers in all lists of a column, missing ones included.

    Raises ValueError or LookupError where the footer is damaged.
    """
    groups = _list(_footer(path).get(ROW_GROUPS))
    chunks = [_struct(chunk) for group in groups for chunk in _list(_struct(group).get(COLUMNS))]
    facts = [_struct(chunk.get(META_DATA)) for chunk in chunks]
    counts = [fact[NUM_VALUES] for fact in facts if _list(fact[PATH])[0] == column.encode()]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        msg = "damaged footer"
        raise ValueError(msg)
    return sum(counts)


def _footer(path: Path) -> dict[int, Any]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > min(LONGEST, size - 8):
            msg = "damaged footer, or one that is encrypted"
            raise ValueError(msg)
        file.seek(size - 8 - length)
        return _Compact(file.read(length)).struct(0)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _struct(value: Any) -> dict[int, Any]:
    return value if isinstance(value, dict) else {}


class _Compact:
    """A reader of Thrift's compact protocol; IndexError at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def _byte(self) -> int:
        self._place += 1
        return self._data[self._place - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 70:  # noqa: PLR2004 - ten bytes hold 64 bits
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004
                break
            shift += 7
        return value

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _bytes(self, count: int) -> bytes:
        if self._place + count > len(self._data):
            raise IndexError
        self._place += count
        return self._data[self._place - count : self._place]

    def struct(self, depth: int) -> dict[int, Any]:
        """Read fields by their number, up to the stop."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:  # noqa: PLR0911 - a return a type
        if depth > DEEPEST:
            raise ValueError(depth)
        if kind in (1, 2, 3):  # truth values in a list, bytes
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:  # noqa: PLR2004 - a double
            return self._bytes(8)
        if kind == 8:  # noqa: PLR2004 - text
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()  # noqa: PLR2004
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == 11:  # noqa: PLR2004 - a map
            count = self._unsigned()
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._value(kinds >> 4, depth + 1)
                self._value(kinds & 15, depth + 1)
            return None
        if kind == 12:  # noqa: PLR2004
            return self.struct(depth + 1)
        raise ValueError(kind)
