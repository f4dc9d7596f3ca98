"""The judge is judged: what the reconciliation of the logs accepts, and what it does not."""

from __future__ import annotations

from typing import Any

from tests.support.reconcile import Incidents, Reconciliation, Stop, committed_events, reconcile

PAIR = ("/hook", "evt_1")
Log = list[dict[str, Any]]


def _request(
    number: int, at: float, *, answer: int | None = 200, after: float = 0.1, connection: int = 1, **facts: Any
) -> Log:
    came = {"what": "received", "at": at, "request": number, "connection": connection, "port": 1000 + connection}
    log: Log = [came | {"path": "/hook", "id": "evt_1", "body": "b", "type": "a"} | facts]
    if answer is not None:
        log.append({"what": "answered", "at": at + after, "request": number, "status": answer})
    return log


def _closed(connection: int, at: float) -> Log:
    return [{"what": "closed", "at": at, "connection": connection}]


def _judge(log: Log, incidents: Incidents | None = None, **options: Any) -> Reconciliation:
    return reconcile({PAIR}, log, incidents or Incidents(), **options)


def test_one_accepted_request_is_clean() -> None:
    assert _judge(_request(1, 10.0)).clean


def test_an_event_that_never_came_or_was_never_accepted_is_lost() -> None:
    assert _judge([]).lost == [PAIR]
    assert _judge(_request(1, 10.0, answer=500)).lost == [PAIR]
    assert _judge(_request(1, 10.0, answer=None)).lost == [PAIR]


def test_a_dead_letter_is_not_lost() -> None:
    verdict = _judge(_request(1, 10.0, answer=500), dead=frozenset({PAIR}))
    assert verdict.clean
    assert verdict.dead == 1


def test_a_request_that_nobody_committed_is_unexpected() -> None:
    assert _judge(_request(1, 10.0) + _request(2, 11.0, id="evt_2")).unexpected == [("/hook", "evt_2")]


def test_a_forged_request_and_other_bytes_are_seen() -> None:
    assert not _judge([*_request(1, 10.0), {"what": "refused", "at": 10.0, "request": 2}]).clean
    assert not _judge(_request(1, 10.0, answer=500) + _request(2, 11.0, body="c")).clean


def test_a_repeat_after_a_failure_or_no_answer_in_time_is_explained() -> None:
    for earlier in (_request(1, 10.0, answer=500), _request(1, 10.0, answer=None), _request(1, 10.0, after=20)):
        assert _judge(earlier + _request(2, 40.0)).clean


def test_a_repeat_of_an_accepted_request_needs_the_kill_of_the_relay_that_sent_it() -> None:
    twice = _request(1, 10.0, connection=1) + _request(2, 20.0, connection=2)
    kill = Incidents(kills=[10.2])
    assert not _judge(twice).clean
    assert not _judge(twice, kill).clean
    assert not _judge(twice + _closed(1, 19.0), kill).clean
    assert _judge(twice + _closed(1, 10.21), kill).clean


def test_a_kill_long_after_the_answer_explains_nothing_unless_the_database_was_away() -> None:
    twice = _request(1, 10.0) + _closed(1, 15.0) + _request(2, 20.0, connection=2)
    assert not _judge(twice, Incidents(kills=[15.0])).clean
    assert _judge(twice, Incidents(kills=[15.0], outages=[(10.0, 14.9)])).clean
    assert not _judge(twice, Incidents(kills=[15.0], outages=[(12.0, 14.9)])).clean


def test_a_repeat_of_an_accepted_request_needs_the_stop_of_the_relay_that_sent_it_before_it_settled() -> None:
    twice = _request(1, 10.0, after=0.1, connection=1) + _request(2, 20.0, connection=2)

    def explained(at: float, *ports: int) -> bool:
        return _judge(twice, Incidents(stops=[Stop(at, frozenset(ports))])).clean

    assert explained(10.2, 1001)  # answered, not settled
    assert explained(10.05, 1001)  # in flight
    assert not explained(10.2, 1002)  # another relay
    assert not explained(10.2)
    assert not explained(9.0, 1001)  # sent after it
    assert not explained(11.0, 1001)  # long settled


def test_where_commit_was_cut_off_the_business_row_tells() -> None:
    log = [
        {"what": "committed", "events": [("evt_1", "a")]},
        {"what": "rolled back", "events": [("evt_2", "a")]},
        {"what": "unknown", "events": [("evt_3", "a"), ("evt_4", "a")]},
    ]
    assert committed_events(log, {"evt_1", "evt_3"}) == {"evt_1", "evt_3"}


def test_it_says_how_long_before_its_kill_an_answer_was_still_unsettled() -> None:
    log = _request(1, 10.0, after=0.1) + _closed(1, 10.2) + _request(2, 20.0, connection=2)
    assert round(_judge(log, Incidents(kills=[10.2])).longest_unsettled_seconds, 3) == 0.1
