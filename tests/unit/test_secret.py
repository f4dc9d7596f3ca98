"""A Secret shows itself only to who asks for it by name."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from dataclasses import asdict, dataclass

import pytest

from outbox import Secret

TEXT = "whsec_s3cret"


@pytest.mark.parametrize(
    "show",
    [repr, str, "{}".format, "{:>20}".format, "{!r}".format, "%s".__mod__, lambda s: f"{[s]} {(s,)} { {'a': s} }", dir],
)
def test_no_way_of_showing_it_shows_it(show) -> None:
    assert TEXT not in str(show(Secret(TEXT)))


def test_only_reveal_returns_the_text() -> None:
    assert Secret(TEXT).reveal() == TEXT
    assert not isinstance(Secret(TEXT), str)
    with pytest.raises(TypeError):
        "".join([Secret(TEXT)])
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"secret": Secret(TEXT)})


def test_it_is_not_in_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("x").error("%s %r", Secret(TEXT), Secret(TEXT))
    assert TEXT not in caplog.text


def test_equal_texts_are_equal_secrets() -> None:
    assert Secret(TEXT) == Secret(TEXT)
    assert hash(Secret(TEXT)) == hash(Secret(TEXT))
    assert Secret(TEXT) != Secret(TEXT + "x")
    assert Secret(TEXT) != TEXT
    assert Secret("é") == Secret("é")
    assert not Secret("")
    assert Secret(TEXT)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_never_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled") as refused:
        pickle.dumps(Secret(TEXT), protocol)
    assert TEXT not in str(refused.value)


def test_it_survives_a_copy_within_the_process_unseen() -> None:
    @dataclass
    class Holder:
        secret: Secret

    held = Holder(Secret(TEXT))
    assert copy.deepcopy(held) == copy.copy(held) == held
    assert TEXT not in repr(asdict(held))
    assert not hasattr(held.secret, "__dict__")
