"""The clock that attempts are signed with is the database's, and a relay says when that one jumped."""

from __future__ import annotations

import logging
import time

import pytest

from relay.engine.clock import DatabaseClock


@pytest.mark.parametrize(("jump", "words"), [(-3600, "3600 s behind"), (3600, "3600 s ahead of")])
def test_a_jump_of_the_databases_clock_is_said_once_and_when_it_ends(
    jump: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = DatabaseClock()
    with caplog.at_level(logging.INFO, "relay.engine"):
        for difference in (0, 2, jump, jump + 3, jump, 0, -3):
            clock.set(time.time() + difference)
            assert abs(clock.now() - time.time() - difference) < 1
    assert len(caplog.messages) == 2
    assert words in caplog.messages[0]
    assert caplog.messages[1].endswith("agree again")


def test_a_clock_that_goes_on_differing_more_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = DatabaseClock()
    for difference in (50, 100, 150, 200):
        clock.set(time.time() + difference)
    assert len(caplog.messages) == 2
