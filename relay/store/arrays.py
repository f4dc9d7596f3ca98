"""Array parameters in PostgreSQL's binary format, packed a whole column at a time.

psycopg dumps a list element by element in Python (1-5 µs each, 164 µs for a text with quotes); a settle batch has
fifteen columns. One `struct.pack` or `join` a column costs about 0.1 µs an element. Format: array_send() in
PostgreSQL's src/backend/utils/adt/arrayfuncs.c.
"""

from __future__ import annotations

import struct
from itertools import chain, repeat
from typing import TYPE_CHECKING, ClassVar, Self

from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.abc import AdaptContext

__all__ = ["Bigints", "Byteas", "Floats", "Integers", "Smallints", "Texts", "Timestamps", "Uuids", "register"]

_NULL = b"\xff\xff\xff\xff"


class _Array(bytes):
    """The packed value; its class tells psycopg which array type it is."""

    element_oid: ClassVar[int]
    array_oid: ClassVar[int]

    @classmethod
    def _with_header(cls, count: int, packed: bytes, *, nulls: bool) -> bytes:
        if not count:
            return struct.pack(">iii", 0, 0, cls.element_oid)
        return struct.pack(">iiiii", 1, nulls, cls.element_oid, count, 1) + packed


class _Fixed(_Array):
    """Elements of one width, given as numbers that `code` packs."""

    code: ClassVar[str]

    def __new__(cls, values: Sequence[float | None]) -> Self:
        width = struct.calcsize(">" + cls.code)
        if None in values:
            element = struct.Struct(">i" + cls.code)
            packed = b"".join([_NULL if value is None else element.pack(width, value) for value in values])
            return super().__new__(cls, cls._with_header(len(values), packed, nulls=True))
        pairs = chain.from_iterable(zip(repeat(width), values, strict=False))
        packed = struct.pack(">" + ("i" + cls.code) * len(values), *pairs)
        return super().__new__(cls, cls._with_header(len(values), packed, nulls=False))


class _Sized(_Array):
    """Elements given as bytes, each with its own length."""

    def __new__(cls, values: Sequence[bytes | None]) -> Self:
        length = struct.Struct(">i").pack
        packed = b"".join([_NULL if value is None else length(len(value)) + value for value in values])
        return super().__new__(cls, cls._with_header(len(values), packed, nulls=None in values))


class Smallints(_Fixed):
    """smallint[]."""

    element_oid, array_oid, code = 21, 1005, "h"


class Integers(_Fixed):
    """integer[]."""

    element_oid, array_oid, code = 23, 1007, "i"


class Bigints(_Fixed):
    """bigint[]."""

    element_oid, array_oid, code = 20, 1016, "q"


class Floats(_Fixed):
    """double precision[]."""

    element_oid, array_oid, code = 701, 1022, "d"


class Uuids(_Sized):
    """uuid[], of 16 bytes each."""

    element_oid, array_oid = 2950, 2951


class Timestamps(_Sized):
    """timestamptz[], each as the 8 bytes the server sent: the data plane never reads them."""

    element_oid, array_oid = 1184, 1185


class Byteas(_Sized):
    """bytea[]."""

    element_oid, array_oid = 17, 1001


class Texts(_Sized):
    """text[], each as UTF-8."""

    element_oid, array_oid = 25, 1009


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def __init__(self, cls: type[_Array], context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self.oid = cls.array_oid

    def dump(self, obj: _Array) -> bytes:
        return obj


def register(context: AdaptContext) -> None:
    """Teach a connection to send these arrays."""
    for array in (Smallints, Integers, Bigints, Floats, Uuids, Timestamps, Byteas, Texts):
        context.adapters.register_dumper(array, _ArrayDumper)
