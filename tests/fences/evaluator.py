"""What keeps the process for large transformations, filters and formats, and the relay, from harming each other."""

from __future__ import annotations

from tests.fences.fence import Fence

__all__ = ["EVALUATOR"]

_EVALUATOR = "tests/integration/engine/test_evaluator.py"
_WAITING = "tests/integration/engine/test_evaluator_waiting.py"
_FILTERS = "tests/integration/engine/test_evaluator_filters.py"
_FORMATS = "tests/integration/engine/test_evaluator_formats.py"
_PROCESS = "tests/acceptance/test_evaluator.py"

EVALUATOR = (
    Fence(
        "what is made too late is not sent", "relay/engine/attempts.py",
        "delivery.start_by:\n            return None",
        "delivery.start_by + 1e12:\n            return None",
        (f"{_WAITING}::test_what_is_made_too_late_is_given_back_uncharged",),
    ),
    Fence(
        "what is too late already is not made", "relay/message/evaluator_process/large_bodies.py",
        "if time.monotonic() > start_by:", "if time.monotonic() > start_by + 1e12:",
        (f"{_EVALUATOR}::test_what_is_too_late_already_is_not_made",),
    ),
    Fence(
        "what was cut before it was sent is not charged", "relay/engine/attempts.py",
        "except (asyncio.CancelledError, TooLateError):", "except TooLateError:",
        (f"{_WAITING}::test_what_is_cut_while_it_waits_for_the_process_is_given_back_uncharged",),
    ),
    Fence(
        "a process that was killed is no fault of the event", "relay/message/evaluator_process/large_bodies.py",
        "    except EvaluatorError as error:\n        first = error",
        "    except OSError as error:\n        first = error",
        (f"{_EVALUATOR}::test_a_process_that_is_killed_in_the_middle_is_followed_by_another",),
    ),
    Fence(
        "a large body is not made in the loop", "relay/message/evaluator_process/large_bodies.py",
        "LARGE_BYTES <= len(event.payload) <= up_to and", "0 > len(event.payload) + up_to and",
        (f"{_FORMATS}::test_others_are_sent_while_a_large_body_is_made",),
    ),
    Fence(
        "the process is told no secret of a format", "relay/message/evaluator_process/requests.py",
        "dict(formatter.settings), formatter.placeholder,", "dict(formatter.settings), formatter._secret,",
        (f"{_FORMATS}::test_the_process_makes_the_same_body_and_is_told_no_secret",),
    ),
    Fence(
        "an endpoint is not blamed for the process", "relay/engine/window.py",
        "{OutcomeKind.INTERNAL, OutcomeKind.STOOD_STILL}", "{OutcomeKind.STOOD_STILL}",
        (f"{_EVALUATOR}::test_what_no_process_survives_is_retried_by_the_schedule_and_then_dead",),
    ),
    Fence(
        "fan_out has the next turn at the process", "relay/engine/asking.py",
        "self._evaluator.turn(None)", "self._evaluator.turn(parts.tenant)",
        (f"{_FILTERS}::test_fan_out_waits_for_one_transformation_however_many_its_tenant_has",),
    ),
    Fence(
        "what waits for the process lends its place", "relay/engine/room.py",
        "            self.begin_attempts()\n            yield", "            yield",
        (f"{_WAITING}::test_others_are_sent_while_one_waits_although_there_is_one_place",),
    ),
    Fence(
        "there are never more requests on the wire than places", "relay/engine/lending.py",
        "if self._places.has_one(unproven=lender.unproven):", "if self._places:",
        (f"{_WAITING}::test_one_that_comes_back_waits_until_a_place_is_free_and_has_it_first",
         "tests/unit/test_lending.py::test_who_comes_back_waits_for_a_place_until_its_time_has_passed"),
    ),
    Fence(
        "a proven endpoint lends its place to proven ones", "relay/engine/fairness.py",
        "        if unproven:\n            self._one_each_from", "        if places:\n            self._one_each_from",
        ("tests/unit/test_lending.py::test_the_place_of_one_that_answers_is_not_for_those_that_do_not",),
    ),
    Fence(
        "the process is killed when it is late", "relay/message/evaluator_process/evaluator.py",
        "call_later(seconds, child.kill)", "call_later(seconds + 1e6, child.kill)",
        (f"{_EVALUATOR}::test_what_no_process_survives_is_retried_by_the_schedule_and_then_dead",),
    ),
    Fence(
        "no event is blamed for a death before it", "relay/message/evaluator_process/evaluator.py",
        "not self._child.is_alive:", "self._child.pid < 0:",
        (f"{_EVALUATOR}::test_one_that_died_while_nobody_asked_is_started_again",),
    ),
    Fence(
        "the process gets none of the environment", "relay/message/evaluator_process/child.py",
        "env=_environment(),", "env=os.environ | _environment(),",
        (f"{_EVALUATOR}::test_it_is_given_neither_the_environment_nor_a_file_of_the_relay",),
    ),
    Fence(
        "a stuck process ends without its relay", "relay/message/evaluator_process/__main__.py",
        "signal.ITIMER_REAL, 2 * DEADLINE_SECONDS)", "signal.ITIMER_REAL, 0 * DEADLINE_SECONDS)",
        (f"{_PROCESS}::test_one_that_is_stuck_ends_by_itself_where_nobody_is_left_to_kill_it",),
    ),
    Fence(
        "the memory of the process is bounded", "relay/message/evaluator_process/__main__.py",
        "resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))",
        "resource.getrlimit(resource.RLIMIT_AS)",
        (f"{_PROCESS}::test_it_gets_no_more_memory_than_it_may_have",),
    ),
    Fence(
        "a signal to the whole service leaves the process to the drain", "relay/message/evaluator_process/__main__.py",
        "signal.signal(ignored, signal.SIG_IGN)", "signal.getsignal(ignored)",
        (f"{_PROCESS}::test_a_large_transformation_arrives_and_its_process_ends_when_the_relay_is_killed",),
    ),
    Fence(
        "no match is lost with the process", "relay/engine/asking.py",
        "            except NotStartedError:\n                pass",
        "            except NotStartedError:\n                return []",
        (f"{_FILTERS}::test_no_match_is_lost_with_the_process",),
    ),
)  # fmt: skip
