"""The fences that mend what the field reported, each by the id of its report."""

from __future__ import annotations

from tests.fences.fence import Fence

__all__ = ["MENDS"]

_ENGINE, _SENDER = "tests/integration/engine", "tests/integration/sender/contract/test_kept_connections.py"

MENDS = (
    Fence(
        "a connection is one subscription's", "relay/http/sender.py",
        "url.port, digest, owner)", 'url.port, digest, b"")',
        (f"{_SENDER}::test_two_subscriptions_never_share_a_connection",
         f"{_SENDER}::test_a_second_answer_that_comes_late_never_settles_a_strangers_request"),
        "F90",
    ),
    Fence(
        "a retry takes no connection from before its failure", "relay/http/pool.py",
        "if each.for_retry and each.dialled_at > pool.failed_at", "if each.for_retry",
        (f"{_SENDER}::test_a_retry_takes_none_that_rested_beside_a_failure_or_that_a_first_attempt_dialled",), "F03",
    ),
    Fence(
        "a first attempt's connection is none for a retry", "relay/http/pool.py",
        "if each.for_retry and each.dialled_at > pool.failed_at", "if each.dialled_at > pool.failed_at",
        (f"{_SENDER}::test_a_retry_takes_none_that_rested_beside_a_failure_or_that_a_first_attempt_dialled",), "F03",
    ),
    Fence(
        "the turn needs a right", "relay/store/turns.py",
        "from outbox.turns where name = '{turn}' for update\"\n", "from outbox.turns where name = '{turn}'\"\n",
        (f"{_ENGINE}/test_turns.py::test_the_turn_needs_a_right",
         f"{_ENGINE}/test_turns.py::test_who_has_the_turn_is_known_and_logged"), "F91",
    ),
    Fence(
        "who stopped in a transaction is ended", "relay/store/turns.py",
        "select * from stopped where pg_terminate_backend(pid)", "select * from stopped where pid > 0",
        (f"{_ENGINE}/test_turns.py::test_a_relay_stopped_in_a_transaction_is_ended_by_another",), "F66",
    ),
    Fence(
        "who has only just stopped is left alone", "relay/store/turns.py",
        "select * from waiting where seconds > %s", "select * from waiting where %s > 0",
        (f"{_ENGINE}/test_turns.py::test_a_relay_stopped_in_a_transaction_is_ended_by_another",), "F66",
    ),
    Fence(
        "an idle transaction has an end", "relay/store/turns.py",
        "set_config('idle_in_transaction_session_timeout', '{seconds}s', true)", "set_config('outbox.none', '', true)",
        (f"{_ENGINE}/test_isolation.py::test_a_relay_that_stops_keeps_its_transaction_for_twenty_seconds_at_most",),
        "F92",
    ),
    Fence(
        "another server is noticed", "relay/engine/feeder.py",
        "if self._store.origin != self._origin:", "if not self._origin:",
        (f"{_ENGINE}/test_moved.py::test_a_url_that_the_standby_never_heard_of_is_forgotten",), "F60",
    ),
    Fence(
        "what another server said is not trusted", "relay/engine/feeder.py",
        "self._endpoints.distrust()", "self._endpoints.get(b'')",
        (f"{_ENGINE}/test_moved.py::test_a_url_that_the_standby_never_heard_of_is_forgotten",), "F60",
    ),
    Fence(
        "a subscription's bytes are its share", "relay/store/claims.py",
        "where own < bytes or own + cost = 0", "where own + cost >= 0",
        (f"{_ENGINE}/test_claim.py::test_each_subscription_has_a_share_of_the_bytes_and_small_rows_cost_nothing",
         f"{_ENGINE}/test_turns.py::test_large_bodies_of_one_subscription_leave_the_others_their_share"), "F01",
    ),
    Fence(
        "one huge row at a time", "relay/store/claims.py",
        "when lone then huge_ones = 1", "when lone then huge_ones > 0",
        (f"{_ENGINE}/test_claim.py::test_one_huge_row_at_a_time_is_claimed_and_only_where_it_may",), "F01",
    ),
    Fence(
        "no partition is chosen while others change rows", "relay/store/database.py",
        "set_config('enable_partition_pruning', 'off', true)", "set_config('enable_partition_pruning', 'on', true)",
        (f"{_ENGINE}/test_isolation.py::test_only_fan_out_chooses_partitions_while_it_runs",), "F64",
    ),
)  # fmt: skip
