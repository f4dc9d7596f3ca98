"""How long the slowest page of dashboard and portal takes, over the history there is, with a million due beside it.

The portal is opened for the tenant of the busiest subscription. The application answers in this process, without a
socket; the database is asked as `relay serve` asks it. Of each page the fastest of three counts: what else the machine
does is no part of it.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from benchmarks.bench import Bench, BenchmarkError, Result
from benchmarks.server import engine
from outbox import portal_url
from outbox.secret import Secret
from relay.config.options import Config
from relay.operations import tokens
from relay.operations.bulk.operations import add_bulk
from relay.operations.bulk.request import BulkRequest
from relay.web.app import create_app

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy

__all__ = ["measure"]

BAR_MS = 200
ROUNDS = 3

_COUNTED = """
insert into outbox.uncounted_leaves (leaf, first_page, last_page, before)
select leaf, page, page + 999, clock_timestamp()
from (select l.leaf::text from outbox.leaves_of('outbox.attempts') l) leaves,
     generate_series(0, pg_relation_size(leaf::regclass) / current_setting('block_size')::bigint, 1000) page
where pg_relation_size(leaf::regclass) > 0
"""
_BEGIN = """
update outbox.rollup_state set hour_until = date_bin('1 hour', clock_timestamp() - interval '31 days', '2000-01-01Z'),
                               day_until = date_bin('1 day', clock_timestamp() - interval '31 days', '2000-01-01Z')
"""
_OUTSTANDING = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)
select gen_random_uuid(), n, ids[1 + n %% cardinality(ids)], now() - make_interval(secs => n / 100.0), n %% 3
from generate_series(1, %s) n, (select array_agg(id) as ids from outbox.subscriptions) s
"""
_FIRST = """
select (select id from outbox.subscriptions order by id limit 1) as subscription,
       (select id from outbox.events order by seq desc limit 1) as event,
       (select delivery_id from outbox.attempts order by at desc limit 1) as delivery,
       (select id from outbox.deliveries order by id limit 1) as outstanding,
       (select delivery_id from outbox.dead_letters order by died_at desc limit 1) as dead,
       (select tenant from outbox.subscriptions order by id limit 1) as tenant,
       (select a.delivery_id from outbox.attempts a
        where a.subscription_id = (select id from outbox.subscriptions order by id limit 1)
        order by a.at desc limit 1) as own
"""
_ORIGIN = "http://127.0.0.1"
_CSRF = re.compile(r'name="csrf" value="(\w+)"')


def measure(bench: Bench, url: str, anchors: str) -> Result:
    """Roll the history up, add what is due, open each page as the operator, and tell of the slowest."""
    with bench.connection(url) as connection:
        bench.say("pages: rolling up, and a backlog")
        _prepare(connection, bench.sizes.backlog)
        row = dict(zip(("subscription", "event", "delivery", "outstanding", "dead", "tenant", "own"),
                       connection.execute(_FIRST).fetchone() or (), strict=True))  # fmt: skip
    made = engine(url)
    with made.begin() as asking:
        row |= _entrances(asking, row["tenant"])
    made.dispose()
    found = anyio.run(_pages, bench, url, row)
    slowest = max(found, key=lambda path: found[path])
    named = re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|bulk_\w+", "…", slowest)
    return Result("slowest page of dashboard and portal", f"{found[slowest]:.0f} ms", f"≤ {BAR_MS} ms",
                  found[slowest] <= BAR_MS,
                  f"{named}; {len(found)} pages; {bench.sizes.backlog:,} due; {anchors}")  # fmt: skip


def _entrances(asking: sqlalchemy.Connection, tenant: str) -> dict[str, str]:
    """Make a token, a link into the portal, and a bulk operation to look at."""
    return {
        "token": tokens.create(asking, None, name="pages", rights=("read", "admin"), whose=None).text,
        "link": portal_url(asking, tenant, f"{_ORIGIN}/portal", rights="manage"),
        "bulk": str(add_bulk(asking, None, BulkRequest(kind="redrive", type="order.rare")).id),
    }


def _prepare(connection: psycopg.Connection[Any], outstanding: int) -> None:
    connection.execute(_BEGIN)
    connection.execute(_COUNTED)
    while connection.execute("select outbox.note_old_attempts()").fetchone() == (True,):
        pass
    while connection.execute("select outbox.roll_up()").fetchone() not in ((0,), (None,)):
        pass
    for _ in range(32 * 24):
        connection.execute("select outbox.roll_up()")
    connection.execute("set session_replication_role = replica")
    connection.execute(_OUTSTANDING, (outstanding,))
    connection.execute("reset session_replication_role")
    for table in ("rollups", "deliveries"):
        connection.execute(f"vacuum analyze outbox.{table}")


def _paths(row: dict[str, Any]) -> list[str]:
    one = row["subscription"]
    return [
        "/", "/?window=1h", "/?window=7d", "/?window=30d", "/findings", "/subscriptions", f"/subscriptions/{one}",
        f"/subscriptions/{one}?window=30d", "/events", f"/events/{row['event']}", "/events?key=key-77",
        "/deliveries", f"/deliveries?subscription={one}", "/deliveries?type=order.t7", "/deliveries?state=delivered",
        "/deliveries?state=due", f"/deliveries/{row['delivery']}", f"/deliveries/{row['outstanding']}",
        f"/deliveries/{row['dead']}", "/dead-letters", "/dead-letters?type=order.rare", "/attempts",
        "/attempts?outcome=failed", "/attempts?outcome=tls", "/attempts?status=503", "/attempts?type=order.rare",
        "/attempts?tenant=tenant-7", "/attempts?text=no+such+text", "/bulk", f"/bulk/{row['bulk']}", "/audit", "/types",
        "/types/order.t7", "/tokens",
    ]  # fmt: skip


def _paths_of_portal(row: dict[str, Any]) -> list[str]:
    return [
        "/portal/", f"/portal/endpoints/{row['subscription']}", "/portal/deliveries",
        f"/portal/deliveries/{row['own']}", "/portal/types",
    ]  # fmt: skip


async def _pages(bench: Bench, url: str, row: dict[str, Any]) -> dict[str, float]:
    """Return the milliseconds of each page, as the operator and as the tenant's customer."""
    app = create_app(Config(database_url=Secret(url)))
    found: dict[str, float] = {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=_ORIGIN, timeout=600) as client:
        csrf = _CSRF.search((await client.get("/sign-in")).text)
        assert csrf is not None
        await client.post("/sign-in", data={"csrf": csrf[1], "token": row["token"]})
        await client.get(row["link"])
        for path in _paths(row) + _paths_of_portal(row):
            found[path] = await _fastest(client, path)
            bench.say(f"pages: {path}: {found[path]:.0f} ms")
    app.state.database.close()
    return found


async def _fastest(client: httpx.AsyncClient, path: str) -> float:
    """Return the milliseconds of the fastest of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        answer = await client.get(path)
        taken.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise BenchmarkError(f"{path}: answered {answer.status_code}: {answer.text[:200]}")
    return min(taken)
