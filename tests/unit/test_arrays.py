"""Arrays packed a column at a time are what psycopg itself reads back."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import adapters
from psycopg.adapt import Transformer
from psycopg.pq import Format

from relay.store import arrays
from relay.store.arrays import Bigints, Byteas, Floats, Integers, Smallints, Texts, Timestamps, Uuids


def read_back(array: Any) -> list[Any]:
    """Load the value as psycopg loads this array type when the server sends it."""
    loader = Transformer().get_loader(array.array_oid, Format.BINARY)
    loaded: list[Any] = loader.load(bytes(array))
    return loaded


def column(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | elements, max_size=12)


@given(column(st.integers(-(2**15), 2**15 - 1)))
def test_smallints(values: list[int | None]) -> None:
    assert read_back(Smallints(values)) == values


@given(column(st.integers(-(2**31), 2**31 - 1)))
def test_integers(values: list[int | None]) -> None:
    assert read_back(Integers(values)) == values


@given(column(st.integers(-(2**63), 2**63 - 1)))
def test_bigints(values: list[int | None]) -> None:
    assert read_back(Bigints(values)) == values


@given(column(st.floats(allow_nan=False)))
def test_floats(values: list[float | None]) -> None:
    assert read_back(Floats(values)) == values


@given(column(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))))
def test_texts(values: list[str | None]) -> None:
    assert read_back(Texts([None if value is None else value.encode() for value in values])) == values


@given(column(st.binary(max_size=40)))
def test_byteas(values: list[bytes | None]) -> None:
    assert read_back(Byteas(values)) == values


@given(column(st.uuids()))
def test_uuids(values: list[UUID | None]) -> None:
    assert read_back(Uuids([None if value is None else value.bytes for value in values])) == values


def test_timestamps() -> None:
    moment = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
    microseconds = int((moment - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
    assert read_back(Timestamps([struct.pack(">q", microseconds), None])) == [moment, None]


@pytest.mark.parametrize("kind", [Smallints, Integers, Bigints, Floats, Uuids, Timestamps, Byteas, Texts])
def test_an_empty_column_is_an_empty_array(kind: Any) -> None:
    assert read_back(kind([])) == []


@pytest.mark.parametrize("kind", [Smallints, Integers, Bigints, Floats, Uuids, Timestamps, Byteas, Texts])
def test_the_array_type_is_the_one_the_server_has_for_its_elements(kind: Any) -> None:
    element = adapters.types.get(kind.element_oid)
    assert element is not None
    assert element.array_oid == kind.array_oid


def test_a_number_out_of_range_is_refused_before_it_is_sent() -> None:
    with pytest.raises(struct.error):
        Smallints([40_000])


@pytest.mark.parametrize(("kind", "value"), [(Uuids, bytes(15)), (Timestamps, bytes(9))])
def test_an_id_or_a_time_of_another_length_is_refused_before_it_is_sent(kind: Any, value: bytes) -> None:
    for values in ([value], [value, bytes(kind.width)], [None, value]):
        with pytest.raises(ValueError, match="each element must have"):
            kind(values)


def test_registering_teaches_the_connection_to_send_them_as_binary() -> None:
    transformer = Transformer()
    arrays.register(transformer)
    dumper = transformer.get_dumper(Bigints([1]), "b")  # type: ignore[arg-type]
    assert (dumper.oid, dumper.format) == (1016, Format.BINARY)
