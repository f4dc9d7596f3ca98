"""What the engine's tests stand on: the database seen from outside, a scripted far end, a relay in pieces."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from outbox.signing.verify import new_secret
from outbox.subscriptions.filters import parse
from relay.engine.engine import Engine, EngineOptions
from relay.engine.room import LEASED_MAX, Room
from relay.http.sender import Endpoint
from relay.model.delivery import Delivery
from relay.model.event import EventParts
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.settlement import Settlement
from relay.model.verdict import EndpointChange, Verdict, VerdictKind
from relay.secrets.keyring import Keyring
from relay.store.fan_out import new_ids
from relay.store.lease import new_lease
from relay.store.rows import Birth, Leased
from relay.store.store import Store
from tests.support.databases import as_relay
from tests.support.waiting import await_until

DELIVERED = Outcome(kind="delivered", status=200, milliseconds=1)
ERROR_500 = Outcome(kind="http_5xx", status=500, milliseconds=1)

Answer = Callable[[], Awaitable[Outcome]]


class World:
    """The database, seen and changed from outside the relay."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def allow_payloads_of(self, max_bytes: int) -> None:
        """Let events have larger payloads than by default, until the next `empty`."""
        self.rows("update outbox.settings set value = %s where name = 'max_payload_bytes'", max_bytes)

    def empty(self) -> None:
        """Take every row away; whoever a failed test left connected goes first."""
        self.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        self.rows(
            "truncate outbox.events, outbox.pending, outbox.subscriptions, outbox.secrets, outbox.subscription_types,"
            " outbox.deliveries, outbox.resolutions, outbox.attempts, outbox.dead_letters, outbox.health,"
            " outbox.limits, outbox.in_flight, outbox.tenant_limits, outbox.bulk_operations, outbox.uncounted,"
            " outbox.rollups restart identity"
        )
        self.allow_payloads_of(262_144)
        self.break_at(70)

    def break_at(self, percent: int) -> None:
        """Let breakers open at this share of failures, 0 for never, until the next `empty`."""
        self.rows("update outbox.settings set value = %s where name = 'breaker_failure_percent'", percent)

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object) -> Any:
        return self.rows(statement, *parameters)[0][0]

    def count(self, table: str, where: str = "true", *parameters: object) -> int:
        return int(self.value(f"select count(*) from outbox.{table} where {where}", *parameters))

    def subscribe(
        self,
        *types: str,
        path: str = "/",
        tenant: str = "",
        timeout: int = 15,
        schedule: Sequence[int] = (3600,),
        filter: Mapping[str, Any] | str | None = None,  # noqa: A002
        ordered: bool = False,
        order_policy: str = "block",
        connection: psycopg.Connection[Any] | None = None,
    ) -> bytes:
        """Insert a subscription with a secret; return its id. A filter that is a text is stored as it is."""
        text = filter if isinstance(filter, str) or filter is None else parse(filter).text
        cursor = (connection or self._connection).execute(
            "insert into outbox.subscriptions"
            " (tenant, url, types, timeout_seconds, schedule_seconds, filter, ordered, order_policy)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s) returning id",
            (
                *(tenant, f"http://127.0.0.1{path}", list(types or ("*",)), timeout, list(schedule), text),
                *(ordered, order_policy),
            ),
        )
        (identity,) = cursor.fetchone() or ()
        (connection or self._connection).execute(
            "insert into outbox.secrets (subscription_id, secret) values (%s, %s)", (identity, new_secret())
        )
        return bytes(identity.bytes)

    def record(
        self,
        event_type: str = "a.b",
        count: int = 1,
        *,
        tenant: str = "",
        available_at: datetime | str | None = None,
        payload: str = "{}",
        key: str | None = None,
        priority: int = 0,
        connection: psycopg.Connection[Any] | None = None,
    ) -> list[int]:
        """Insert events as a plain INSERT does; return their sequence numbers."""
        cursor = (connection or self._connection).execute(
            "insert into outbox.events (type, tenant, available_at, payload, key, priority)"
            " select %s, %s, %s, %s, %s, %s from generate_series(1, %s) returning seq",
            (event_type, tenant, available_at, payload, key, priority, count),
        )
        return [row[0] for row in cursor.fetchall()]

    def deliveries(self, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
        return self.rows(f"select {columns} from outbox.deliveries where {where} order by event_seq, subscription_id")

    def matches(self) -> dict[int, int]:
        """How many subscriptions each resolved event matched, from the resolutions."""
        return dict(self.rows("select u.* from outbox.resolutions, unnest(seqs, matches) u"))

    def expire(self, where: str = "true") -> None:
        """Let leases end, as if their time had passed without a word."""
        self.rows(f"update outbox.deliveries set due_at = now() - interval '1 s' where lease is not null and {where}")

    def locks(self, where: str) -> int:
        """How many locks of this database's other connections are so; autovacuum's are not counted."""
        return int(
            self.value(
                "select count(*) from pg_locks join pg_stat_activity using (pid) where pid <> pg_backend_pid()"
                " and backend_type = 'client backend'"
                f" and database = (select oid from pg_database where datname = current_database()) and {where}"
            )
        )

    def open(self, **options: Any) -> psycopg.Connection[Any]:
        """Another connection, with transactions of its own."""
        return psycopg.connect(self.url, **options)


class FarEnd:
    """A Sender whose receivers do as told, by the URL's path; what is not told answers 200."""

    def __init__(self) -> None:
        self.script: dict[str, Outcome | Answer] = {}
        self.requests: list[tuple[str, str, bytes]] = []  # path, webhook-id, body
        self.in_flight = 0
        self.most_in_flight: dict[str, int] = defaultdict(int)
        self._now: dict[str, int] = defaultdict(int)

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        path = endpoint.url.target
        fields = dict(line.split(": ", 1) for line in headers.decode().splitlines())
        self.requests.append((path, fields["webhook-id"], body))
        self._now[path] += 1
        self.most_in_flight[path] = max(self.most_in_flight[path], self._now[path])
        self.in_flight += 1
        try:
            said = self.script.get(path, DELIVERED)
            return said if isinstance(said, Outcome) else await said()
        finally:
            self.in_flight -= 1
            self._now[path] -= 1

    async def close(self) -> None:
        pass

    def hold(self, path: str, outcome: Outcome = DELIVERED) -> asyncio.Event:
        """Let requests to `path` hang until the event returned is set."""
        freed = asyncio.Event()

        async def answer() -> Outcome:
            await freed.wait()
            return outcome

        self.script[path] = answer
        return freed

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]


class Relay:
    """One relay process's engine: a test runs it whole, or takes one step at a time."""

    def __init__(
        self,
        url: str | Callable[[], str],
        far_end: FarEnd,
        *,
        max_in_flight: int = 256,
        per_endpoint: int = 64,
        leased_max: int = LEASED_MAX,
        keep_all_responses: bool = False,
        until_drained: bool = False,
        keyring: Keyring | None = None,
    ) -> None:
        self.far_end = far_end
        self.room = Room(max_in_flight, leased_max=leased_max)
        options = EngineOptions(
            max_in_flight_per_endpoint=per_endpoint,
            keep_all_responses=keep_all_responses,
            until_drained=until_drained,
        )
        where = as_relay(url) if isinstance(url, str) else lambda: as_relay(url())
        self.engine = Engine(where, far_end, self.room, keyring or Keyring(), options, random_number=lambda: 0.0)
        self.endpoints, self.sending = self.engine.endpoints, self.engine.sending
        self.settler, self.feeder, self.outage = self.engine.settler, self.engine.feeder, self.engine.outage
        self.feeding: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None

    def start_settling(self) -> None:
        self._settling = asyncio.create_task(self.settler.run())

    def start(self) -> None:
        """Run the loops as the daemon does; `feeding` is the one that looks for work."""
        self.start_settling()
        self.feeding = asyncio.create_task(self.feeder.run())

    async def look(self) -> bool:
        """Take one step of looking, every part of it."""
        return await self.feeder.step()

    async def settled(self) -> None:
        """Wait until everything that is on the way has an end in the database."""
        await await_until(lambda: self.sending.idle and not self.settler.unsettled)

    async def crash(self) -> None:
        """End at once: nothing is settled, nothing released."""
        tasks = [task for task in (self._settling, self.feeding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.sending.abort()  # the results stay in memory: nobody settles any more
        await self.engine.close()

    async def stop(self) -> None:
        """Drain as the daemon does."""
        self.feeder.stop()
        if self.feeding is not None:
            await asyncio.wait([self.feeding], timeout=5)
        self.sending.release_unbegun()
        await self.sending.abort()
        self.settler.close()
        tasks = [task for task in (self._settling, self.feeding) if task is not None]
        _, hanging = await asyncio.wait(tasks, timeout=5)
        await self.crash()
        assert not hanging, "the loops did not end"
        for task in tasks:
            task.result()


@asynccontextmanager
async def running(url: str | Callable[[], str], far_end: FarEnd, **options: Any) -> AsyncIterator[Relay]:
    """A relay that looks, sends and settles by itself."""
    relay = Relay(url, far_end, **options)
    relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


@asynccontextmanager
async def stepping(url: str, far_end: FarEnd, **options: Any) -> AsyncIterator[Relay]:
    """A relay that looks only when told to (`look`); it sends and settles by itself."""
    relay = Relay(url, far_end, **options)
    relay.start_settling()
    try:
        yield relay
    finally:
        await relay.stop()


async def fan_out(store: Store, *, leased: bool = False, limit: int = 500, after_seq: int = -1) -> list[Birth]:
    """Resolve what is pending with the store alone; every delivery due now, or born leased for a minute."""
    births: list[Birth] = []
    async with store.fan_out(after_seq, limit, 1_000_000) as batch:
        if not batch.taken:
            return []
        for taken in batch.taken:
            for match in batch.matches.get((taken.tenant, taken.type), ()):
                lease, seconds = (new_lease(), 60.0) if leased else (None, None)
                births.append(Birth(new_ids(1)[0], taken.seq, match[0], taken.available_at, lease, seconds, taken.size))
        await batch.resolve(births)
    return births


def held(birth: Birth, *, attempts: int = 1, lease: int | None = None, suspect: bool = False) -> Delivery:
    """The delivery that whoever was given this birth (or a later lease of it) holds."""
    lease = birth.lease if lease is None else lease
    assert lease is not None
    event = EventParts(b"evt_x", b"a.b", "", None, 0, b"{}")
    return Delivery(birth.id, birth.event_seq, birth.subscription_id, attempts, lease, event, 1e18, suspect)


def claimed(row: Leased, lease: int, *, suspect: bool = False) -> Delivery:
    """The delivery that a claim returned."""
    return Delivery(row.id, row.event_seq, row.subscription_id, row.attempts, lease, row.event, 1e18, suspect)


def result(
    delivery: Delivery,
    kind: VerdictKind,
    wait_seconds: float = 3600.0,
    endpoint: EndpointChange | None = None,
    url: str = "http://127.0.0.1/",
) -> Settlement:
    """What became of an attempt; nothing of its answer is kept."""
    outcome, status = (OutcomeKind.DELIVERED, 200) if kind is VerdictKind.DELIVERED else (OutcomeKind.HTTP_5XX, 500)
    return Settlement(delivery, Verdict(kind, wait_seconds, endpoint), url, outcome, status, 12)


def uuid_of(raw: bytes) -> UUID:
    return UUID(bytes=raw)


class PlanWatch:
    """The plans of every statement a store runs, as the server's auto_explain tells them."""

    def __init__(self, url: str) -> None:
        options = (
            "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0"
            " -c auto_explain.log_analyze=on"
            " -c auto_explain.log_buffers=on -c auto_explain.log_timing=off -c auto_explain.log_format=json"
            " -c auto_explain.log_nested_statements=on -c client_min_messages=log"
        )
        self.store = Store(psycopg.conninfo.make_conninfo(url, options=options))
        self.plans: list[dict[str, Any]] = []
        self._listening: psycopg.AsyncConnection[Any] | None = None

    async def begin(self) -> None:
        """Forget what was seen, and listen."""
        connection = await self.store.connect()
        if self._listening is not connection:
            connection.add_notice_handler(self._note)
            self._listening = connection
        self.plans.clear()

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            self.plans.append(json.loads(text.partition("plan:")[2]))

    @property
    def buffers(self) -> int:
        """Pages touched (found in memory, read, dirtied or written) by everything since `begin`."""
        return sum(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] for plan in self.plans)

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        waiting = [plan["Plan"] for plan in self.plans]
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting.extend(node.get("Plans", []))
        return found

    def rows_given(self) -> dict[str, float]:
        """The most rows that any scan gave, by table or index, and any sort; not what it dropped by a filter."""
        rows: dict[str, float] = {}
        for node in self.nodes():
            what = node.get("Relation Name") or node.get("Index Name") or node["Node Type"]
            rows[what] = max(rows.get(what, 0), node["Actual Rows"] * node["Actual Loops"])
        return rows

    def seq_scans(self) -> list[str]:
        """The tables read from one end to the other."""
        return [
            node["Relation Name"]
            for node in self.nodes()
            if node["Node Type"] == "Seq Scan" and node.get("Actual Loops")
        ]
