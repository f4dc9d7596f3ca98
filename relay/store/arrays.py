"""Array parameters in PostgreSQL's binary format, packed a whole column at a time.

psycopg dumps a list element by element in Python (1-5 µs each, 164 µs for a text with quotes); a settle batch has
fifteen columns. Here nothing is done in Python for each number or id, and little for each text. Format: array_send() in
PostgreSQL's src/backend/utils/adt/arrayfuncs.c; each element has four bytes of length before it.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TYPE_CHECKING, Any, ClassVar, Self

from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.abc import AdaptContext

__all__ = ["Bigints", "Byteas", "Floats", "Integers", "Smallints", "Texts", "Timestamps", "Uuids", "register"]

_NULL = b"\xff\xff\xff\xff"
_length = struct.Struct(">i").pack


class _Array(bytes):
    """The packed value; its class tells psycopg which array type it is."""

    element_oid: ClassVar[int]
    array_oid: ClassVar[int]

    def __new__(cls, values: Sequence[Any]) -> Self:
        """Pack a column; None is NULL."""
        count = len(values)
        if not count:
            return super().__new__(cls, struct.pack(">iii", 0, 0, cls.element_oid))
        nulls = values.count(None)
        if not nulls:
            packed = cls._packed(values)
        elif nulls == count:
            packed = _NULL * count
        else:
            packed = b"".join([_NULL if value is None else cls._element(value) for value in values])
        return super().__new__(cls, struct.pack(">iiiii", 1, nulls > 0, cls.element_oid, count, 1) + packed)

    @classmethod
    def _packed(cls, values: Sequence[Any]) -> bytes:
        """Return these elements, none of which is NULL, each behind its length."""
        raise NotImplementedError

    @classmethod
    def _element(cls, value: Any) -> bytes:
        """Return one element behind its length."""
        return cls._packed((value,))


class _Fixed(_Array):
    """Elements of one width, given as numbers; `code` is theirs in the modules array and struct."""

    code: ClassVar[str]

    @classmethod
    def _packed(cls, values: Sequence[float]) -> bytes:
        try:
            numbers = array(cls.code, values)
        except OverflowError as error:
            raise struct.error(str(error)) from None
        if sys.byteorder == "little":
            numbers.byteswap()
        unit = "h" if numbers.itemsize == 2 else "i"  # a number is one of them or two, a length two of them or one
        units, empty = array(unit, numbers.tobytes()), array(unit, _length(numbers.itemsize) + bytes(numbers.itemsize))
        packed, each = empty * len(values), len(units) // len(values)
        for at in range(each):
            packed[len(empty) - each + at :: len(empty)] = units[at::each]
        return packed.tobytes()

    @classmethod
    def _element(cls, value: float) -> bytes:
        packed = struct.pack(">" + cls.code, value)
        return _length(len(packed)) + packed


class _Wide(_Array):
    """Elements given as bytes, each `width` long."""

    width: ClassVar[int]

    @classmethod
    def _packed(cls, values: Sequence[bytes]) -> bytes:
        length = _length(cls.width)
        packed = length + length.join(values)
        if len(packed) != (len(length) + cls.width) * len(values):
            raise ValueError(f"each element must have {cls.width} bytes")
        return packed


class _Sized(_Array):
    """Elements given as bytes, each with its own length."""

    @classmethod
    def _packed(cls, values: Sequence[bytes]) -> bytes:
        return b"".join([_length(len(value)) + value for value in values])


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


class Uuids(_Wide):
    """uuid[], of 16 bytes each."""

    element_oid, array_oid, width = 2950, 2951, 16


class Timestamps(_Wide):
    """timestamptz[], each as the 8 bytes the server sent: the data plane never reads them."""

    element_oid, array_oid, width = 1184, 1185, 8


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
    for kind in (Smallints, Integers, Bigints, Floats, Uuids, Timestamps, Byteas, Texts):
        context.adapters.register_dumper(kind, _ArrayDumper)
