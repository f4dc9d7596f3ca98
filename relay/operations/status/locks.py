"""Who holds a lock that our sessions, or others on our tables, wait for: the server's process, and how to end it.

Its query is never shown, since that may hold secrets. Of a session of another role, a role without pg_read_all_stats
sees the process, the role and the application only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.findings import Finding
from outbox.control.tenancy import operator_only
from outbox.control.times import duration
from relay.store.turns import RELAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

__all__ = ["HeldLock", "findings_of_locks", "read_locks"]

WAITED_FOR_SECONDS = 10.0
"""How long the transaction of a holder is open before it is named: one of a moment is how it should be."""
UNSEEN_SECONDS = 1.0
"""How long somebody waits for a holder whose transaction may not be seen."""
UNASKED_SECONDS = 30.0
"""How long one for whom nobody waits at this moment has its transaction open: relays wait for a moment only."""
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLock:
    """A session that holds a lock, and how many wait for it now; `waiting` 0: what it locked is passed over.

    `pid` is 0 for a prepared transaction. `seconds` is how long its transaction is open, `waited_seconds` how long the
    first waits. What this role may not see is None. `tables`: which are waited for, or locked.
    """

    pid: int
    role: str | None
    application_name: str | None
    state: str | None
    address: str | None
    seconds: float | None
    waiting: int
    waited_seconds: float | None
    waiters: tuple[str, ...]
    tables: tuple[str, ...]


# A session that waits for a row has the row's lock of the kind `tuple` meanwhile, which tells the table. Whoever is
# waited for and waits itself is not the one to end: so go on to the end of the row, five steps at most.
_WAITED_FOR = text("""
with recursive locks as materialized (
    select pid, locktype, relation, mode, granted, waitstart from pg_catalog.pg_locks
    where (database = (select oid from pg_catalog.pg_database where datname = current_database()) or database is null)),
ours as materialized (
    select oid, relname from pg_catalog.pg_class where relnamespace = to_regnamespace('outbox')),
waiting as materialized (
    select w.pid, o.relname, a.application_name,
           extract(epoch from clock_timestamp() - w.waitstart)::double precision as seconds
    from locks w join pg_catalog.pg_stat_activity a on a.pid = w.pid and a.datname = current_database()
    left join locks t on w.locktype = 'transactionid' and t.pid = w.pid and t.locktype = 'tuple' and t.granted
    left join ours o on o.oid = coalesce(w.relation, t.relation)
    where not w.granted and (o.oid is not null or a.application_name = any(:relays))
    order by w.waitstart limit 50),
held_up(waiter, holder, step) as (
    select pid, unnest(pg_blocking_pids(pid)), 1 from waiting
    union
    select waiter, unnest(pg_blocking_pids(holder)), step + 1 from held_up where step < 5),
waited_for as (
    select h.holder, count(distinct w.pid) as waiting, max(w.seconds) as waited_seconds,
           array_agg(distinct w.application_name) as waiters,
           array_remove(array_agg(distinct w.relname), null) as tables
    from held_up h join waiting w on w.pid = h.waiter
    where cardinality(pg_blocking_pids(h.holder)) = 0
    group by h.holder),
unasked as (
    select l.pid as holder, 0::bigint as waiting, null::double precision as waited_seconds,
           array[]::name[] as waiters, array_agg(distinct o.relname) as tables
    from locks l join ours o on o.oid = l.relation
    join pg_catalog.pg_stat_activity a on a.pid = l.pid
    where l.granted and l.pid <> pg_backend_pid() and l.locktype = 'relation'
      and a.xact_start < clock_timestamp() - make_interval(secs => :unasked)
      and (a.state <> 'active' or a.application_name <> all(:relays))
      and (l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
           or l.mode in ('RowShareLock', 'RowExclusiveLock') and o.relname in ('deliveries', 'dead_letters', 'turns'))
      and not exists (select from waited_for w where w.holder = l.pid)
    group by l.pid)
select f.holder as pid, a.usename as role, a.application_name, a.state, host(a.client_addr) as address,
       extract(epoch from clock_timestamp() - a.xact_start)::double precision as seconds,
       f.waiting, f.waited_seconds, f.waiters, f.tables
from (select * from waited_for union all select * from unasked) f
left join pg_catalog.pg_stat_activity a on a.pid = f.holder
where f.waiting = 0 or coalesce(clock_timestamp() - a.xact_start >= make_interval(secs => :waited_for),
                                f.waited_seconds >= :unseen)
order by f.waiting desc, seconds desc nulls last limit :named
""")


def read_locks(connection: Connection, tenant: str | None) -> tuple[HeldLock, ...]:
    """Return who holds locks that others wait for, and who holds some for long, the most waited for first.

    For the operator only.
    """
    operator_only(tenant, "status")
    bounds = {"waited_for": WAITED_FOR_SECONDS, "unseen": UNSEEN_SECONDS, "unasked": UNASKED_SECONDS}
    rows = connection.execute(_WAITED_FOR, {"relays": list(RELAYS), "named": _NAMED} | bounds).mappings()
    return tuple(
        HeldLock(**dict(row) | {name: tuple(map(str, row[name])) for name in ("waiters", "tables")}) for row in rows
    )


def findings_of_locks(held: Iterable[HeldLock]) -> Iterator[Finding]:
    """Yield a finding for each holder: who it is, what waits for it, and how it is ended."""
    for one in held:
        mend = f"let it end, or end it: select pg_terminate_backend({one.pid})"
        if one.pid == 0:
            mend = "commit prepared or rollback prepared: select gid, owner, prepared from pg_prepared_xacts"
        yield Finding(
            code="locks.held",
            subject=f"pid {one.pid}" if one.pid else "prepared transaction",
            seen=f"{_who(one)} holds {_what(one)}{_waiting(one)}",
            mend=mend,
        )


def _who(one: HeldLock) -> str:
    if one.pid == 0:
        return "a prepared transaction"
    known = [one.application_name or "no application_name", f"role {one.role}" if one.role else "", one.state or ""]
    at = f" at {one.address}" if one.address else ""
    since = "" if one.seconds is None else f"; its transaction is open for {duration(one.seconds)}"
    return f"server process {one.pid} ({', '.join(filter(None, known))}{at}{since})"


def _what(one: HeldLock) -> str:
    tables = ", ".join(f"outbox.{name}" for name in one.tables[:3]) + (" and others" if len(one.tables) > 3 else "")
    return f"a lock on {tables}" if tables else "a lock"


def _waiting(one: HeldLock) -> str:
    if not one.waiting:
        return ", and relays pass over what it locked"
    who = ", ".join(name or "no application_name" for name in one.waiters[:3])
    waits = "1 session waits" if one.waiting == 1 else f"{one.waiting} sessions wait"
    since = "" if one.waited_seconds is None else f", the first for {duration(one.waited_seconds)}"
    return f" that {waits} for ({who}){since}"
