"""Two applications that sent webhooks by themselves move here: their users and receivers notice nothing."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from outbox.testing import drain
from relay.local.embedded import free_port
from tests.moves.receiver import Receiver, receiving
from tests.support import databases
from tests.support.processes import ROOT, Process, RelayProcess
from tests.support.waiting import wait_until

MOVES = ROOT / "tests" / "moves"
SECRET = "s3cret"  # shorter than the library would let anybody choose
BEGINS_ANEW = {"id", "success_count", "failure_count", "last_error"}  # an id becomes text of another kind
MAY_BE_NONE = {"log.event"}  # of a test
REFUSED = 4913  # an order of so much does not commit
REFUSE = f"""
    create function refuse() returns trigger language plpgsql as
        'begin if new.cents = {REFUSED} then raise check_violation; end if; return new; end';
    create constraint trigger refuse after insert on %s
        deferrable initially deferred for each row execute function refuse()"""


@dataclass
class Place:
    """A database, and a folder for what processes print."""

    url: str
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        parts = make_url(self.url)
        return {
            "DATABASE_URL": parts.set(drivername="postgresql+psycopg").render_as_string(hide_password=False),
            "PGDATABASE": parts.database or "",
            "PGHOST": str(parts.host or parts.query.get("host", "")),
            "PGPORT": str(parts.port or parts.query.get("port", "")),
            "PGUSER": parts.username or "",
            "PGPASSWORD": parts.password or "",
            "BROKER_URL": "memory://",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *program: str) -> Process:
        return Process(program, self.directory / "output", self.environment)

    def run(self, *program: str) -> None:
        with self.start(*program) as process:
            assert process.wait() == 0, process.text

    def scalar(self, statement: str) -> Any:
        with databases.engine_on(self.url) as engine, engine.connect() as connection:
            return connection.execute(sa.text(statement)).scalar_one()

    def allow_no_order_of(self, table: str) -> None:
        with databases.engine_on(self.url) as engine, engine.begin() as connection:
            connection.execute(sa.text(REFUSE % table))


class Application(ABC):
    """One application, before or after its move, in the words of its API."""

    kind: str
    table: str
    test_after: str | None  # the event of a test in the history after the move: it is of no event

    def __init__(self, place: Place, when: str, receiver: Receiver) -> None:
        self.place, self.when, self.receiver = place, when, receiver
        self.folder = str(MOVES / f"{self.kind}_{when}")
        self.answers: dict[str, Any] = {}

    @abstractmethod
    def add(self, name: str) -> str:
        """Make an endpoint; return its id."""

    @abstractmethod
    def read(self, one: str) -> dict[str, Any]: ...

    @abstractmethod
    def ids(self) -> list[str]: ...

    @abstractmethod
    def activate(self, one: str, active: bool) -> None: ...

    @abstractmethod
    def remove(self, one: str) -> None: ...

    @abstractmethod
    def test(self, one: str) -> tuple[bool, int]: ...

    @abstractmethod
    def history(self, one: str) -> list[tuple[str, int]]:
        """Event and status of each attempt, the newest first."""

    @abstractmethod
    def taken(self, body: dict[str, Any]) -> tuple[str, int]:
        """Event and cents of a body, as this application forms it."""

    @abstractmethod
    def prepare(self) -> None:
        """Do what its deployment does before it serves."""

    @abstractmethod
    def move(self) -> None:
        """Do what is done once, after that."""

    @contextmanager
    def serving(self, how: str = "serve") -> Iterator[Process]:
        port = free_port()
        with (
            self.place.start("-m", "tests.moves.start", self.folder, how, str(port)) as process,
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"X-Account": "acme", "Connection": "close"},
                timeout=40,
            ) as self.client,
        ):
            wait_until(lambda: not process.alive or self.serves())
            assert process.alive, process.text
            yield process

    def serves(self) -> bool:
        try:
            return self.client.get("/nowhere").status_code == 404
        except httpx.TransportError:
            return False

    def ask(self, what: str, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """Ask, and keep what was answered under a word for it."""
        answer = self.client.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        self.answers[what] = answer.json() if answer.content else None
        return self.answers[what]

    def order(self, cents: int, *, status: int = 201) -> None:
        answer = self.client.post("/orders", json={"customer": "ann", "cents": cents})
        assert answer.status_code == status, answer.text

    def cancel(self, number: int) -> None:
        assert self.client.post(f"/orders/{number}/cancel").status_code == 200

    def told(self, count: int) -> list[tuple[str, int]]:
        """Wait for so many requests, after the move for the last one; return what they told of."""
        if self.when == "after":
            drain(self.place.url)
        wait_until(lambda: len(self.receiver.bodies) >= count, message=f"told of {self.receiver.bodies}")
        bodies, self.receiver.bodies = self.receiver.bodies, []
        return [self.taken(body) for body in bodies]

    @contextmanager
    def relay(self) -> Iterator[None]:
        """What sends beside the application: after the move a relay."""
        if self.when == "before":
            yield
            return
        output = self.place.directory / "relay"
        with RelayProcess(self.place.directory / "incidents", output, self.place.url) as relay:
            relay.wait_running()
            yield

    def module(self, *arguments: str) -> None:
        self.place.run("-m", "tests.moves.start", self.folder, *arguments)


class OnCelery(Application):
    kind, table, test_after, path = "celery", "orders", None, "/api/v1/webhooks"

    def prepare(self) -> None:
        if self.when == "after":
            self.place.run("-m", "relay", "migrate")

    def move(self) -> None:
        self.module("move.py")

    def add(self, name: str) -> str:
        self.receiver.secrets[name] = SECRET
        wanted = {
            "url": f"{self.receiver.url}/{name}", "events": ["order.placed", "order.cancelled"], "secret": SECRET,
            "description": name, "headers": {"X-Shop": "7"}, "retry_count": 3, "timeout_seconds": 30,
        }  # fmt: skip
        return str(self.ask("made", "POST", self.path, wanted, status=201)["id"])

    def read(self, one: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("read", "GET", f"{self.path}/{one}")
        return answer

    def ids(self) -> list[str]:
        return [one["id"] for one in self.ask("list", "GET", f"{self.path}?limit=10")["items"]]

    def activate(self, one: str, active: bool) -> None:
        assert self.ask("changed", "PUT", f"{self.path}/{one}", {"is_active": active})["is_active"] is active

    def remove(self, one: str) -> None:
        self.ask("removed", "DELETE", f"{self.path}/{one}", status=204)

    def test(self, one: str) -> tuple[bool, int]:
        answer = self.ask("test", "POST", f"{self.path}/{one}/test", {"event": "order.placed", "payload": {"cents": 1}})
        return answer["success"], answer["status_code"]

    def history(self, one: str) -> list[tuple[str, int]]:
        return [(one["event"], one["status_code"]) for one in self.ask("log", "GET", f"{self.path}/{one}/logs")]

    def taken(self, body: dict[str, Any]) -> tuple[str, int]:
        assert [*body] == ["event", "timestamp", "data"]
        return body["event"], body["data"]["cents"]


class OnDjango(Application):
    kind, table, test_after = "django", "shop_order", "test"

    def prepare(self) -> None:
        self.module("manage.py", "migrate", "--verbosity", "0")

    def move(self) -> None:
        """Its migrations have done it."""

    def add(self, name: str) -> str:
        wanted = {"url": f"{self.receiver.url}/{name}", "events": ["order.placed", "order.cancelled"]}
        made = self.ask("made", "POST", "/endpoints", wanted, status=201)
        self.receiver.secrets[name] = made["secret"]
        return str(made["id"])

    def read(self, one: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("read", "GET", f"/endpoints/{one}")
        return answer

    def ids(self) -> list[str]:
        return [str(one["id"]) for one in self.ask("list", "GET", "/endpoints")["endpoints"]]

    def activate(self, one: str, active: bool) -> None:
        assert self.ask("changed", "PATCH", f"/endpoints/{one}", {"active": active})["active"] is active

    def remove(self, one: str) -> None:
        self.ask("removed", "DELETE", f"/endpoints/{one}", status=204)

    def test(self, one: str) -> tuple[bool, int]:
        answer = self.ask("test", "POST", f"/endpoints/{one}/test", {})
        return answer["ok"], answer["status"]

    def history(self, one: str) -> list[tuple[str, int]]:
        return [(one["event"], one["status"]) for one in self.ask("log", "GET", f"/endpoints/{one}/log")["sent"]]

    def taken(self, body: dict[str, Any]) -> tuple[str, int]:
        assert (body.keys(), body["account"]) == ({"event", "account", "order"}, "acme")
        return body["event"], body["order"]["cents"]


KINDS = pytest.mark.parametrize("kind", [OnCelery, OnDjango])


@pytest.fixture
def place(empty_database_url: str, tmp_path: Path) -> Place:
    return Place(empty_database_url, tmp_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.mark.slow
@KINDS
def test_users_and_receivers_notice_nothing_of_the_move(
    kind: type[Application], place: Place, receiver: Receiver
) -> None:
    before, after = kind(place, "before", receiver), kind(place, "after", receiver)
    before.prepare()
    with before.serving():
        place.allow_no_order_of(kind.table)
        idle, hook = before.add("idle"), before.add("hook")
        before.activate(idle, False)
        use(before, hook)
        former = before.read(hook)
    after.prepare()
    after.move()
    with after.serving():
        assert len(after.ids()) == 2
        moved = after.read(hook)
        assert {name: moved[name] for name in former.keys() - BEGINS_ANEW} == {
            name: former[name] for name in former.keys() - BEGINS_ANEW
        }
        use(after, hook)
        after.remove(hook)
        use(after, after.add("new"))
        assert receiver.refused == []
        for what, answer in before.answers.items():
            assert_has(after.answers[what], answer, what)


def use(app: Application, one: str) -> None:
    """What users do; `one` is the id of the only endpoint that is active."""
    app.receiver.answers[:] = [500, 503]
    app.order(4200)
    assert app.told(3) == [("order.placed", 4200)] * 3
    app.order(REFUSED, status=500)
    app.cancel(app.place.scalar(f"select max(id) from {app.table}"))
    assert app.told(1) == [("order.cancelled", 4200)]
    app.activate(one, False)
    app.order(1)
    assert app.told(0) == []
    app.activate(one, True)
    app.order(2)
    assert app.told(1) == [("order.placed", 2)]
    with app.relay():
        assert app.test(one) == (True, 200)
    assert app.told(1) == [("order.placed", 1)]
    placed, cancelled = "order.placed", "order.cancelled"
    tested = placed if app.when == "before" else app.test_after
    wait_until(lambda: len(app.history(one)) == 6)
    assert app.history(one) == [
        (tested, 200), (placed, 200), (cancelled, 200), (placed, 200), (placed, 503), (placed, 500),
    ]  # fmt: skip


def assert_has(now: Any, once: Any, where: str) -> None:
    """Whatever name an answer had it still has, with a value of the same type; an id may have become text."""
    if isinstance(once, dict):
        assert now.keys() >= once.keys(), where
        for name, value in once.items():
            assert_has(now[name], value, f"{where}.{name}")
    elif isinstance(once, list):
        assert bool(now) == bool(once), where
        for value in once[:1]:
            assert_has(now[0], value, where)
    elif once is not None and not where.endswith(".id"):
        assert isinstance(now, type(once)) or (now is None and where in MAY_BE_NONE), where


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@KINDS
def test_a_process_that_dies_right_after_the_commit_loses_the_event_before_the_move_and_not_after(
    kind: type[Application], when: str, place: Place, receiver: Receiver
) -> None:
    app = kind(place, when, receiver)
    app.prepare()
    with app.serving():
        app.add("hook")
    with app.serving("serve-until-a-commit") as process:
        with pytest.raises(httpx.TransportError):
            app.order(1)
        assert process.wait() == -9
    assert place.scalar(f"select count(*) from {app.table}") == 1  # whatever the event, the order is there
    with app.serving():
        app.order(2)
        told = app.told(1)
    assert sorted(told) == [("order.placed", cents) for cents in ([2] if when == "before" else [1, 2])]


@KINDS
def test_the_move_is_under_sixty_lines(kind: type[Application]) -> None:
    written, deleted = changed_lines(MOVES / f"{kind.kind}_before", MOVES / f"{kind.kind}_after")
    assert 0 < written < 60
    assert deleted > written


def changed_lines(before: Path, after: Path) -> tuple[int, int]:
    """Lines that are new or changed, and those that are gone or were changed; in all files, but for empty lines."""
    files = {path.relative_to(root) for root in (before, after) for path in root.rglob("*") if path.is_file()}
    written = deleted = 0
    for file in files:
        if "__pycache__" not in file.parts:
            old, new = lines(before / file), lines(after / file)
            same = sum(block.size for block in difflib.SequenceMatcher(None, old, new, False).get_matching_blocks())
            written += len(new) - same
            deleted += len(old) - same
    return written, deleted


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if line.strip()] if path.exists() else []
