"""Idle relays share the looking: few transactions in all, and another takes over when the one that looks dies."""

from __future__ import annotations

import time

import pytest

from tests.support.application import Application
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F76")

RELAYS = 4
SECONDS = 4.0
HOLDER = "select holder from outbox.poller where until > clock_timestamp()"


def commits(app: Application) -> int:
    """Transactions of the database so far; each backend reports its own within a second."""
    ((count,),) = app.rows(
        "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
    )
    return int(count)


@pytest.mark.slow
def test_four_idle_relays_make_few_transactions_in_all(app: Application) -> None:
    for _ in range(RELAYS):
        app.stage.running_relay()
    wait_until(lambda: len(app.rows(HOLDER)) == 1)
    time.sleep(2 * SECONDS)  # the first housekeeping of each, and its report to the statistics
    began, before = time.monotonic(), commits(app)
    time.sleep(SECONDS)
    rate = (commits(app) - before) / (time.monotonic() - began)
    assert rate <= 60


def test_when_the_relay_that_looks_dies_another_does(app: Application) -> None:
    first = app.stage.running_relay()
    wait_until(lambda: len(app.rows(HOLDER)) == 1)
    ((held,),) = app.rows(HOLDER)
    app.stage.running_relay()
    app.subscribe()
    first.note("killed")
    first.kill()
    wait_until(lambda: app.rows(HOLDER) not in ([], [(held,)]))
    app.record(1)
    app.wait_settled()
    app.assert_each_once()
