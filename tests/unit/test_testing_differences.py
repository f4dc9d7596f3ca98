"""What a test wants of an event's data, compared with what it is."""

from __future__ import annotations

from unittest.mock import ANY

import pytest

from outbox.testing.differences import differences, shown

DATA = {"id": 7, "paid": True, "customer": {"name": "Ada", "country": "CH"}, "lines": [{"sku": "a"}], "note": None}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"id": 7},
        {"id": 7.0},
        {"id": ANY},
        {"id": lambda number: number > 5},
        {"customer": {"country": "CH"}},
        {"lines": [{"sku": "a"}], "note": None, "paid": True},
        DATA,
    ],
)
def test_these_match(wanted):
    assert differences(wanted, DATA) == []


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"id": 8}, "id: wanted 8, is 7"),
        ({"id": True}, "id: wanted True, is 7"),
        ({"paid": 1}, "paid: wanted 1, is True"),
        ({"total": 1}, "total: is missing"),
        ({"customer": {"country": "DE"}}, "customer.country: wanted 'DE', is 'CH'"),
        ({"customer": {"age": None}}, "customer.age: is missing"),
        ({"lines": []}, "lines: wanted [], is [{'sku': 'a'}]"),
        ({"note": {"a": 1}}, "note: wanted {'a': 1}, is None"),
        ({"id": lambda number: number > 7}, "id: 7 is refused by the function"),
    ],
)
def test_each_difference_is_told_with_its_path(wanted, told):
    assert differences(wanted, DATA) == [told]


def test_all_differences_are_told():
    assert len(differences({"id": 1, "paid": False, "more": 1}, DATA)) == 3


def test_long_values_are_cut():
    assert len(shown("x" * 10_000)) < 400
