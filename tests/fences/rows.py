"""The fences, as data. `python -m tests.fences` tries them; a test of the suite checks that each row names what is."""

from __future__ import annotations

from tests.fences.evaluator import EVALUATOR
from tests.fences.fence import Fence
from tests.fences.mends import MENDS

__all__ = ["FENCES"]

_ENGINE = "tests/integration/engine"
_SETTLE, _SUSPECTS, _LANES = f"{_ENGINE}/test_settle.py", f"{_ENGINE}/test_suspects.py", f"{_ENGINE}/test_lanes.py"
_BREAKER, _CONDUCT, _LIMITS = (
    f"{_ENGINE}/test_breaker_states.py",
    f"{_ENGINE}/test_conduct.py",
    f"{_ENGINE}/test_limits.py",
)
_BATCHES_TEST = f"{_ENGINE}/test_batch_fences.py"
_CLAIM, _BULK, _TURNS = f"{_ENGINE}/test_claim.py", f"{_ENGINE}/test_bulk.py", f"{_ENGINE}/test_turns.py"

_SETTLEMENT = (
    Fence(
        "a retry is its lease's holder's", "relay/store/settlement.py",
        "d.id = r.id and d.lease = r.lease and r.verdict = 1", "d.id = r.id and r.verdict = 1",
        (f"{_SETTLE}::test_a_failure_is_fenced_by_the_lease",),
    ),
    Fence(
        "a burial is its lease's holder's", "relay/store/settlement.py",
        "d.id = r.id and d.lease = r.lease and r.verdict = 2", "d.id = r.id and r.verdict = 2",
        (f"{_SETTLE}::test_a_failure_is_fenced_by_the_lease",),
    ),
    Fence(
        "a lease is given back by its holder", "relay/store/lease.py",
        "where d.id = r.id and d.lease = r.lease", "where d.id = r.id",
        (f"{_SETTLE}::test_release_gives_the_attempt_back",),
    ),
    Fence(
        "a late success raises its dead letter", "relay/store/consequences.py",
        "where delivery_id = any(%b) returning", "where delivery_id = any(%b) and false returning",
        (
            f"{_SETTLE}::test_a_late_success_raises_a_dead_letter",
            f"{_SETTLE}::test_a_success_whose_snapshot_is_older_than_a_burial_still_raises_the_dead_letter",
        ),
    ),
    Fence(
        "a hold is for the URL that was asked", "relay/store/consequences.py",
        "where id = asked.id and url = asked.url\n", "where id = asked.id\n",
        (f"{_CONDUCT}::test_a_hold_is_written_only_when_it_ends_later_by_a_second",),
    ),
    Fence(
        "a hold of all alike is for the URL that was asked", "relay/store/consequences.py",
        "where id = asked.id and url = asked.url limit 1) a\n", "where id = asked.id limit 1) a\n",
        (f"{_CONDUCT}::test_a_hold_of_all_alike_is_written_to_those_of_the_same_format_and_receiver",),
    ),
    Fence(
        "a hold of all alike waits for nobody", "relay/store/consequences.py",
        "limit {HOLD_ALIKE_MAX} for no key update skip locked) s", "limit {HOLD_ALIKE_MAX} for no key update) s",
        (f"{_CONDUCT}::test_a_hold_of_all_alike_waits_for_nobody",),
    ),
    Fence(
        "a hold is of one receiver", "relay/store/consequences.py",
        "and lower(split_part(url, '/', 3)) = any(string_to_array(receivers.hosts, ' '))", "and receivers.hosts <> ''",
        (f"{_CONDUCT}::test_a_hold_of_all_alike_is_written_to_those_of_the_same_format_and_receiver",),
    ),
    Fence(
        "a hold of all alike is of few rows in all", "relay/store/consequences.py",
        "skip locked) s\n    limit {HOLD_ALIKE_MAX})", "skip locked) s)",
        (f"{_CONDUCT}::test_many_answers_hold_no_more_than_one_and_scan_once",),
    ),
    Fence(
        "answers of one receiver are one scan", "relay/store/consequences.py",
        "group by a.format, asked.hosts),", "group by a.format, asked.hosts, asked.id),",
        (f"{_CONDUCT}::test_many_answers_hold_no_more_than_one_and_scan_once",),
    ),
    Fence(
        "an answer at a host of many holds nobody else", "relay/model/alike.py",
        "if host in names), ())", "if host in names), (host,))",
        (f"{_CONDUCT}::test_an_answer_at_a_host_of_many_holds_only_who_gave_it",),
    ),
    Fence(
        "a resume ends what is held with others", "relay/engine/endpoint_registry.py",
        "if self._held and subscription.id not in self._resumed else None", "if self._held else None",
        (f"{_ENGINE}/test_formats.py::test_a_resume_ends_what_is_held_with_others_for_that_one",),
    ),
    Fence(
        "a hold is written where it ends later", "relay/store/consequences.py",
        "held_until < clock_timestamp() + make_interval(secs => asked.seconds - 1), true)\n        limit 1 for",
        "null, true)\n        limit 1 for",
        (f"{_CONDUCT}::test_a_hold_is_written_only_when_it_ends_later_by_a_second",),
    ),
    Fence(
        "a URL that is gone is the one that was asked", "relay/store/consequences.py",
        "where id = asked.id and url = asked.url and disabled_at is null",
        "where id = asked.id and disabled_at is null",
        (f"{_CONDUCT}::test_410_of_an_older_url_disables_nothing_and_the_delivery_goes_to_the_newer",),
    ),
    Fence(
        "who is disabled keeps the reason", "relay/store/consequences.py",
        "url = asked.url and disabled_at is null\n", "url = asked.url\n",
        (f"{_CONDUCT}::test_what_is_disabled_already_keeps_its_reason",),
    ),
)  # fmt: skip

_CLAIMS = (
    Fence(
        "a claim takes what nobody has", "relay/store/claims.py",
        "due_at <= now() and coalesce(lease, -1) < 0\n        order by due_at, id limit a.slots",
        "due_at <= now()\n        order by due_at, id limit a.slots",
        (f"{_SUSPECTS}::test_an_expired_lease_is_a_suspect_and_not_merely_due",),
    ),
    Fence(
        "a claim takes what is due", "relay/store/claims.py",
        "            and due_at <= now() and coalesce(lease, -1) < 0", "            and coalesce(lease, -1) < 0",
        (f"{_CLAIM}::test_rows_that_wait_or_are_leased_are_not_claimed",),
    ),
    Fence(
        "a claim waits for nobody", "relay/store/claims.py",
        "limit a.slots for no key update skip locked", "limit a.slots for no key update",
        (f"{_CLAIM}::test_a_row_that_another_holds_locked_is_skipped_and_not_waited_for",),
    ),
    Fence(
        "a lease that lasts is nobody's suspect", "relay/store/suspects.py",
        "where subscription_id = a.id and due_at <= now()", "where subscription_id = a.id",
        (f"{_SUSPECTS}::test_a_live_lease_is_nobodys_suspect",),
    ),
    Fence(
        "a suspect at the limit is not sent", "relay/store/suspects.py",
        "select id from chosen where crashes < {MAX_CRASHES}", "select id from chosen",
        (f"{_SUSPECTS}::test_at_the_limit_it_is_buried_instead_of_sent",),
    ),
    Fence(
        "only the holder's former suspect is cleared", "relay/store/suspects.py",
        "where id = %b and lease = %b and crashes > 0", "where id = %b and coalesce(%b, 0) is not null and crashes > 0",
        (f"{_SUSPECTS}::test_the_former_suspects_charge_is_taken_back_only_under_its_own_lease",),
    ),
    Fence(
        "a former suspect is cleared by another one", "relay/store/suspects.py",
        "exists (select from chosen where chosen.id <> deliveries.id and chosen.crashes < {MAX_CRASHES})", "true",
        (f"{_SUSPECTS}::test_a_look_that_finds_no_other_suspect_takes_no_charge_back",),
    ),
    Fence(
        "locked suspects are passed over before they are counted", "relay/store/suspects.py",
        "limit {SUSPECTS_AMONG} for no key update skip locked) oldest", "limit {SUSPECTS_AMONG}) oldest",
        (f"{_TURNS}::test_twenty_locked_suspects_hold_back_no_other",), "F92",
    ),
    Fence(
        "one relay has the probe", "relay/store/probes.py",
        "and coalesce(probe_at <= clock_timestamp(), true)", "",
        (f"{_BREAKER}::test_a_probe_is_not_due_before_its_time",
         f"{_BREAKER}::test_of_two_relays_one_has_the_probe_with_one_delivery"),
    ),
    Fence(
        "only an open breaker is probed", "relay/store/probes.py",
        "where subscription_id = a.id and opened_at is not null and", "where subscription_id = a.id and",
        (f"{_BREAKER}::test_a_closed_breaker_is_not_probed",),
    ),
    Fence(
        "what is closed otherwise is not probed", "relay/store/probes.py",
        "and paused_at is null and removed_at is null and sorting_since is null and {NOT_HELD}\n", "\n",
        (f"{_BREAKER}::test_what_else_closes_a_subscription_stops_its_probes",),
    ),
    Fence(
        "what crashed too often is no probe", "relay/store/probes.py",
        "%b and crashes < {MAX_CRASHES} end", "%b end",
        (f"{_BREAKER}::test_a_suspect_that_crashed_too_often_is_no_probe",),
    ),
    Fence(
        "one suspect of all probes", "relay/store/probes.py",
        "where not suspect or nth = 1", "",
        (f"{_BREAKER}::test_one_suspect_at_most_of_all_probes",),
    ),
    Fence(
        "of two settlements each sees what the other counted", "relay/store/breaker.py",
        "where subscription_id = t.id limit 1 for update) h", "where subscription_id = t.id limit 1) h",
        (f"{_BREAKER}::test_two_relays_that_settle_at_once_lose_no_result",),
    ),
    Fence(
        "health is that of the URL that was asked", "relay/store/breaker.py",
        "where id = a.id and url = a.url and removed_at", "where id = a.id and removed_at",
        (f"{_BREAKER}::test_results_of_another_url_say_nothing_of_this_one",),
    ),
    Fence(
        "failures disable only what is enabled", "relay/store/breaker.py",
        "case when c.disabled_at is null then disabled_at is null and c.failed",
        "case when c.disabled_at is null then c.failed",
        (f"{_BREAKER}::test_who_disabled_it_before_keeps_time_and_reason",),
    ),
    Fence(
        "a success enables only what is disabled", "relay/store/breaker.py",
        "else disabled_at is not null and c.good_probe end", "else c.good_probe end",
        (f"{_BREAKER}::test_a_late_success_does_not_disable_what_a_person_has_enabled",),
    ),
    Fence(
        "a success enables only what failures disabled", "relay/store/breaker.py",
        "case when c.disabled_at is null then disabled_at is null and c.failed and c.since + c.worn_after <= c.now",
        "case when false then false",
        (f"{_BREAKER}::test_a_late_success_does_not_enable_what_a_person_disabled",),
    ),
    Fence(
        "what is paused or removed is not claimed", "outbox/control/store/sendable.py",
        'SENDABLE = f"', 'SENDABLE = f"true or ',
        (f"{_CLAIM}::test_paused_and_removed_subscriptions_are_not_asked",),
    ),
)  # fmt: skip

_IN_LANES = (
    Fence(
        "a pass parks what has not changed since", "relay/store/sorting.py",
        "where d.id = r.id and d.due_at = r.due_at", "where d.id = r.id",
        (f"{_LANES}::test_a_pass_leaves_what_is_leased_or_changes_meanwhile_to_the_next_one",),
    ),
    Fence(
        "a pass leaves what is leased", "relay/store/sorting.py",
        "row[1] in lane_of and not row[3]", "row[1] in lane_of",
        (f"{_LANES}::test_a_pass_leaves_what_is_leased_or_changes_meanwhile_to_the_next_one",),
    ),
    Fence(
        "sorting ends for the switch that it began with", "relay/store/sorting.py",
        "s.id = %b and s.sorting_since = (%b)[1]", "s.id = %b and (%b)[1] is not null",
        (f"{_LANES}::test_sorting_ends_only_without_a_head_and_for_the_switch_it_began_with",),
    ),
    Fence(
        "sorting ends without a head", "relay/store/sorting.py",
        "and isfinite(d.due_at) limit 1) is null", "and isfinite(d.due_at) limit 1) is null or true",
        (f"{_LANES}::test_sorting_ends_only_without_a_head_and_for_the_switch_it_began_with",),
    ),
    Fence(
        "sorting begins after the claims before it", "relay/store/sorting.py",
        "- interval '{GRACE_SECONDS} s'", "",
        (f"{_LANES}::test_sorting_begins_a_second_after_the_switch_and_waits_for_fan_out",),
    ),
    Fence(
        "sorting waits for fan_out", "relay/store/sorting.py",
        "await database.transaction((TAKE_TURN, ()), settings=FAN_OUT_SETTINGS)", "await database.connect()",
        (f"{_LANES}::test_sorting_begins_a_second_after_the_switch_and_waits_for_fan_out",),
    ),
    Fence(
        "what is parked is let go where order is off", "relay/store/lanes.py",
        "where id = %b and not ordered limit 1", "where id = %b limit 1",
        (f"{_LANES}::test_parked_rows_are_let_go_only_where_order_is_off",),
    ),
    Fence(
        "what is parked is not let go under a change", "relay/store/lanes.py",
        "limit 1 for share skip locked", "limit 1",
        (f"{_LANES}::test_what_is_parked_is_not_let_go_while_somebody_changes_the_subscription",),
    ),
    Fence(
        "a lane that has a row gets no second head", "relay/store/lanes.py",
        "coalesce({RUNNABLE}, {PARKED}, {SORTING}, false)", "coalesce({RUNNABLE}, false)",
        (f"{_LANES}::test_a_row_is_a_head_only_where_its_lane_has_no_row_at_all",),
    ),
)  # fmt: skip

_BATCHES = (
    Fence(
        "a batch that is leased again is not parted", "relay/store/halving.py",
        "and d.lease is null and d.attempts = r.number", "and d.attempts = r.number",
        (f"{_BATCHES_TEST}::test_a_late_refusal_parts_no_batch_that_is_another_by_now",),
    ),
    Fence(
        "a batch that was tried again is not parted", "relay/store/halving.py",
        "d.lease is null and d.attempts = r.number", "d.lease is null and r.number is not null",
        (f"{_BATCHES_TEST}::test_a_late_refusal_parts_no_batch_that_is_another_by_now",),
    ),
    Fence(
        "a member of another batch is not parted", "relay/store/halving.py",
        "d.id = r.id and d.batch_id = r.former", "d.id = r.id and r.former is not null",
        (f"{_BATCHES_TEST}::test_a_late_refusal_parts_no_batch_that_is_another_by_now",),
    ),
    Fence(
        "only the holder's former batch is cleared", "relay/store/batches.py",
        "where id = %b and lease = %b and crashes > 0", "where id = %b and coalesce(%b, 0) is not null and crashes > 0",
        (f"{_BATCHES_TEST}::test_the_crash_of_a_former_suspect_is_taken_back_only_under_its_own_lease",),
    ),
    Fence(
        "what waits is not hastened by its batch", "relay/store/halving.py",
        "where d.id = r.id and d.due_at <= clock_timestamp()", "where d.id = r.id",
        (f"{_BATCHES_TEST}::test_a_member_that_waits_is_not_hastened_where_its_batch_is_parted",),
    ),
)  # fmt: skip

_LOOKS = (
    Fence(
        "a look locks only what is parked still", "outbox/control/store/lanes.py",
        "where id = any(array(select id from first)) and not isfinite(due_at)\n",
        "where id = any(array(select id from first))\n",
        (f"{_LANES}::test_a_look_leaves_a_row_alone_that_another_made_the_head_and_leased_after_it_was_chosen",),
    ),
    Fence(
        "a look passes over what is locked", "outbox/control/store/lanes.py",
        "order by id for no key update skip locked)\n", "order by id for no key update)\n",
        (f"{_LANES}::test_a_look_passes_over_a_row_that_another_has_locked",),
    ),
    Fence(
        "a lane with a head gets no other", "outbox/control/store/lanes.py",
        "then coalesce({RUNNABLE}, {SORTING}) end is null", "then {SORTING} end is null",
        (f"{_LANES}::test_a_look_takes_the_first_event_and_leaves_a_lane_with_a_head_alone",),
    ),
    Fence(
        "a lane that is being sorted gets no head", "outbox/control/store/lanes.py",
        "then coalesce({RUNNABLE}, {SORTING}) end is null", "then {RUNNABLE} end is null",
        (f"{_LANES}::test_a_lane_of_a_backlog_that_is_being_sorted_gets_no_head",),
    ),
    Fence(
        "a look that lost looks again", "relay/store/lanes.py",
        "if not left or not (is_lane_race(error) or isinstance(error, psycopg.errors.DeadlockDetected)):",
        "if left or not (is_lane_race(error) or isinstance(error, psycopg.errors.DeadlockDetected)):",
        (f"{_LANES}::test_a_look_that_lost_against_another_head_looks_again",
         f"{_LANES}::test_a_look_that_a_deadlock_ended_looks_again"),
    ),
    Fence(
        "a person's look may lose", "outbox/control/store/lanes.py",
        "        if HEADS not in str(error.orig):", "        if HEADS in str(error.orig):",
        (f"{_LANES}::test_a_head_that_a_relay_made_in_the_same_moment_does_not_stop_who_cancels",),
    ),
    Fence(
        "a person's look that lost undoes itself alone", "outbox/control/store/lanes.py",
        "        with connection.begin_nested():\n", "        if not connection.closed:\n",
        (f"{_LANES}::test_a_head_that_a_relay_made_in_the_same_moment_does_not_stop_who_cancels",),
    ),
)  # fmt: skip

_SHARED = (
    Fence(
        "who takes of a limit waits for the other", "relay/store/limits.py",
        "where id = any(%b) order by id for update\"\n", "where id = any(%b) order by id\"\n",
        (f"{_LIMITS}::test_a_relay_that_waited_for_a_cell_sees_what_the_other_took",
         f"{_LIMITS}::test_a_relay_that_waited_for_a_cap_sees_what_the_other_took"),
    ),
    Fence(
        "a share ends with its time", "relay/store/in_flight.py",
        "holder <> %b and ends_at > clock_timestamp()", "holder <> %b",
        (f"{_LIMITS}::test_a_share_ends_with_its_time_and_no_sooner",),
    ),
    Fence(
        "a batch of an operation is its holder's", "relay/store/bulk.py",
        "id = %(operation)s and holder = %(holder)s and state = 'running'",
        "id = %(operation)s and %(holder)s::uuid is not null and state = 'running'",
        (f"{_BULK}::test_a_batch_is_put_back_once_whoever_believes_to_hold_it",),
    ),
    Fence(
        "an operation that was paused is nobody's", "outbox/schema/migrations/0022_bulk.sql",
        "new.holder := null;", "",
        (f"{_BULK}::test_an_operation_that_is_paused_after_a_page_was_read_puts_none_of_it_back",),
    ),
    Fence(
        "an operation goes on from where it was", "relay/store/bulk.py",
        "phase = %(from_phase)s and after_seq = %(from_seq)s\n    and after_id is not distinct from %(from_id)s::uuid",
        "%(from_phase)s::text is not null",
        (f"{_BULK}::test_a_batch_whose_answer_was_lost_is_not_put_back_again_though_it_was_delivered",),
    ),
)  # fmt: skip

FENCES = (*_SETTLEMENT, *_CLAIMS, *_IN_LANES, *_BATCHES, *_LOOKS, *_SHARED, *EVALUATOR, *MENDS)
