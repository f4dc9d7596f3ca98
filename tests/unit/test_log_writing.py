"""Log lines are written by a thread: all of them, in order, and never at the cost of whoever logs."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outbox.ids import Id, TokenId, new_uuid7
from relay.config.options import Config
from relay.telemetry.logs import set_up_logging
from relay.telemetry.writing import CLOSE_SECONDS, BackgroundHandler
from tests.support.waiting import wait_until


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    os.close(ends[0])  # a writer that waits gets an error, and ends


Make = Callable[..., BackgroundHandler]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes handlers whose threads end with the test."""
    made: list[BackgroundHandler] = []

    def make(descriptor: int, **options: int) -> BackgroundHandler:
        made.append(BackgroundHandler(descriptor, "{} dropped".format, **options))
        return made[-1]

    yield make
    for handler in made:
        handler.close()


def logger_of(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("relay.test")  # noqa: LOG001 - known to nobody else
    logger.addHandler(handler)
    return logger


def fill(descriptor: int) -> None:
    """Write until nothing more fits."""
    os.set_blocking(descriptor, False)
    for size in (65_536, 1):
        try:
            while True:
                os.write(descriptor, b"-" * size)
        except BlockingIOError:
            continue
    os.set_blocking(descriptor, True)


def read_until(descriptor: int, words: str) -> str:
    text = ""

    def read() -> bool:
        nonlocal text
        text += os.read(descriptor, 65_536).decode()
        return words in text

    wait_until(read)
    return text.lstrip("-")


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int], make: Make) -> None:
    handler = make(pipe[1])
    for number in range(100):
        logger_of(handler).warning("line %d ü", number)
    handler.flush()
    assert os.read(pipe[0], 65_536).decode().splitlines() == [f"line {number} ü" for number in range(100)]


@pytest.mark.field("F111")
def test_while_nobody_reads_lines_are_dropped_and_counted(pipe: tuple[int, int], make: Make) -> None:
    fill(pipe[1])
    handler = make(pipe[1], lines_max=10)
    logger = logger_of(handler)
    logger.warning("first")
    wait_until(lambda: not handler.queued)  # the thread has it, and waits
    for number in range(25):
        logger.warning("line %d", number)
    text = read_until(pipe[0], "dropped")
    assert text.splitlines() == ["first", *(f"line {number}" for number in range(10)), "15 dropped"]
    logger.warning("again")
    assert read_until(pipe[0], "again") == "again\n"


@pytest.mark.field("F111")
def test_a_flush_gives_up_on_a_reader_that_stands_still(pipe: tuple[int, int], make: Make) -> None:
    fill(pipe[1])
    handler = make(pipe[1])
    logger_of(handler).warning("stuck")
    began = time.monotonic()
    handler.flush()
    assert time.monotonic() - began >= CLOSE_SECONDS * 0.9
    assert read_until(pipe[0], "stuck") == "stuck\n"
    handler.flush()


def test_a_reader_that_is_gone_costs_nothing(pipe: tuple[int, int], make: Make) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = make(writing)
    logger_of(handler).warning("nobody reads this")
    handler.flush()
    assert not handler.queued
    os.close(writing)


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, int], make: Make) -> None:
    fill(pipe[1])
    os.set_blocking(pipe[1], False)
    handler = make(pipe[1])
    logger_of(handler).warning("in time")
    assert read_until(pipe[0], "in time") == "in time\n"


def test_a_closed_handler_writes_what_is_queued_and_ends_its_thread(pipe: tuple[int, int], make: Make) -> None:
    before = set(threading.enumerate())
    fill(pipe[1])
    handler = make(pipe[1])
    (writing,) = set(threading.enumerate()) - before
    for word in ("one", "two", "three"):
        logger_of(handler).warning(word)
    handler.close()
    assert read_until(pipe[0], "three") == "one\ntwo\nthree\n"
    writing.join(10)
    assert not writing.is_alive()


ALWAYS = {"at", "level", "logger", "process", "message"}
Lines = list[dict[str, Any]]


def logged_as_json(capfd: pytest.CaptureFixture[str], *lines: tuple[Any, ...], **extra: Any) -> Lines:
    """Log these, each a message and its arguments; return what was written."""
    set_up_logging(Config(log_format="json"))
    handlers = logging.getLogger().handlers[:]
    for line in lines:
        logging.getLogger("relay.engine").warning(*line, extra=extra)
    for handler in handlers:
        handler.flush()
        logging.getLogger().removeHandler(handler)
        handler.close()
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_json_line_has_the_ids_that_its_message_names(capfd: pytest.CaptureFixture[str]) -> None:
    subscription, delivery = f"sub_0{'a' * 25}", f"dlv_1{'b' * 25}"
    first, second = logged_as_json(
        capfd,
        ("%s of %s is a dead letter: whsec_c2VjcmV0", delivery, subscription),
        ("subscriber_%s and sub_short are no ids", "a" * 26),
    )
    assert (first["delivery_id"], first["subscription_id"]) == (delivery, subscription)
    assert first["message"].endswith("whsec_***")
    assert set(second) == ALWAYS


def test_every_kind_of_id_has_a_field_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    ids = [kind.of(new_uuid7()) for kind in Id.__subclasses__()]
    lines = logged_as_json(capfd, *(("%s: failed", one) for one in ids))
    named = [{name: value for name, value in line.items() if name not in ALWAYS} for line in lines]
    assert [list(fields.values()) for fields in named] == [[str(one)] for one in ids]
    names = {name for fields in named for name in fields}
    assert len(names) == len(ids)
    assert {"bulk_operation_id", "token_id", "erasure_id", "portal_link_id"} <= names


def test_a_line_about_a_request_has_its_id(capfd: pytest.CaptureFixture[str]) -> None:
    token = str(TokenId.of(new_uuid7()))
    (line,) = logged_as_json(capfd, ("request mine: … by %s", token), request_id="mine")
    assert (line["request_id"], line["token_id"]) == ("mine", token)
    (line,) = logged_as_json(capfd, ("about no request",), request_id="")
    assert set(line) == ALWAYS
