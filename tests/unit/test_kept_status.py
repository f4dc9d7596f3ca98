"""One reading of a dear status serves every page for a while, and is renewed beside; a cheap one is read each time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from relay.operations.status.documents import Status
from relay.web.pages.kept_status import (
    CHEAP_SECONDS,
    KEPT_TIMES,
    LONGEST_SECONDS,
    LOOK_SECONDS,
    RENEW_AGAIN_SECONDS,
    SHOWN_SECONDS,
    KeptStatus,
)

CONNECTION = cast(Connection, None)  # what is read here needs none


def _unchanged(*_: object) -> bool:
    """Look at no disk."""
    return False


@dataclass
class Readings:
    """A status that takes a given time, on a clock of its own."""

    takes: float
    now: float = 1000.0
    number: int = field(default=0)
    changed: bool = False
    beside: list[Callable[[], None]] = field(default_factory=list)

    def read(self, _connection: Connection) -> Status:
        self.now += self.takes
        self.number += 1
        return cast(Any, self.number)

    def kept(self) -> KeptStatus:
        return KeptStatus(
            lambda: nullcontext(CONNECTION), self.read, changed=lambda *_: self.changed, clock=lambda: self.now,
            start=self.beside.append,
        )  # fmt: skip

    def work(self) -> None:
        """Do what was to be done beside the pages, which is one thing at most."""
        (work,) = self.beside
        self.beside.clear()
        work()


def test_a_cheap_status_is_read_for_every_page() -> None:
    readings = Readings(takes=CHEAP_SECONDS / 2)
    kept = readings.kept()
    assert [kept.read(CONNECTION) for _ in range(3)] == [1, 2, 3]


def test_a_kept_one_is_read_anew_as_soon_as_the_disk_is_full_or_is_not_any_more() -> None:
    readings = Readings(takes=1.5)
    kept = readings.kept()
    assert kept.read(CONNECTION) == 1
    readings.changed = True
    assert kept.read(CONNECTION) == 1, "it is not looked for every page"
    readings.now += LOOK_SECONDS
    assert kept.read(CONNECTION) == 2
    readings.changed = False
    readings.now += LOOK_SECONDS
    assert kept.read(CONNECTION) == 2


@pytest.mark.parametrize(
    ("takes", "kept_seconds"), [(0.5, 0.5 * KEPT_TIMES), (CHEAP_SECONDS + 0.01, 4.2), (9.0, LONGEST_SECONDS)]
)
def test_a_dear_one_is_kept_for_twenty_times_as_long_and_half_a_minute_at_most(
    takes: float, kept_seconds: float
) -> None:
    readings = Readings(takes=takes)
    kept = readings.kept()
    assert kept.read(CONNECTION) == 1
    readings.now += kept_seconds - 0.01
    assert kept.read(CONNECTION) == 1
    readings.now += 0.02
    assert [kept.read(CONNECTION) for _ in range(3)] == [1, 1, 1]
    readings.work()
    assert kept.read(CONNECTION) == 2


def test_one_that_is_too_old_to_be_shown_is_waited_for() -> None:
    readings = Readings(takes=9)
    kept = readings.kept()
    assert kept.read(CONNECTION) == 1
    readings.now += LONGEST_SECONDS + SHOWN_SECONDS + 0.01
    assert kept.read(CONNECTION) == 2
    assert readings.beside == []


def test_a_reading_beside_that_began_before_a_change_is_not_kept() -> None:
    readings = Readings(takes=1)

    def change_during_the_second(connection: Connection) -> Status:
        found = readings.read(connection)
        if readings.number == 2:
            kept.forget()
        return found

    kept = KeptStatus(lambda: nullcontext(CONNECTION), change_during_the_second, changed=_unchanged,
                      clock=lambda: readings.now, start=readings.beside.append)  # fmt: skip
    assert kept.read(CONNECTION) == 1
    readings.now += 25
    assert kept.read(CONNECTION) == 1
    readings.work()
    assert kept.read(CONNECTION) == 3


def test_a_reading_beside_that_fails_is_tried_again_and_told(caplog: pytest.LogCaptureFixture) -> None:
    readings = Readings(takes=1)

    def fail_the_second(connection: Connection) -> Status:
        found = readings.read(connection)
        if readings.number == 2:
            raise TimeoutError("host=db password=s3cret")
        return found

    kept = KeptStatus(lambda: nullcontext(CONNECTION), fail_the_second, changed=_unchanged,
                      clock=lambda: readings.now, start=readings.beside.append)  # fmt: skip
    assert kept.read(CONNECTION) == 1
    readings.now += 25
    assert kept.read(CONNECTION) == 1
    readings.work()
    assert "could not be read anew: TimeoutError" in caplog.text
    assert "s3cret" not in caplog.text
    assert kept.read(CONNECTION) == 1
    assert readings.beside == [], "not for the next page already"
    readings.now += RENEW_AGAIN_SECONDS
    assert kept.read(CONNECTION) == 1
    readings.work()
    assert kept.read(CONNECTION) == 3


def test_what_somebody_changed_is_seen_at_once() -> None:
    readings = Readings(takes=1)
    kept = readings.kept()
    assert kept.read(CONNECTION) == 1
    kept.forget()
    assert kept.read(CONNECTION) == 2


def test_a_reading_that_fails_is_not_kept() -> None:
    readings = Readings(takes=1)

    def fail_first(connection: Connection) -> Status:
        found = readings.read(connection)
        if readings.number == 1:
            raise TimeoutError
        return found

    kept = KeptStatus(lambda: nullcontext(CONNECTION), fail_first, changed=_unchanged, clock=lambda: readings.now)
    with pytest.raises(TimeoutError):
        kept.read(CONNECTION)
    assert kept.read(CONNECTION) == 2
