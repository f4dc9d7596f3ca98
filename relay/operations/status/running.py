"""Who runs, by what the relays themselves wrote; and what keeps them, or cleaning, from going on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from relay.operations.status.disk import full_disk
from relay.operations.status.locks import HeldLock, read_locks
from relay.store.postgres_errors import mend_of_line
from relay.store.relays import ALIVE_SECONDS
from relay.store.turns import HOLDER

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = [
    "ALIVE_SECONDS",
    "FailingRound", "HeldTurn", "LateRound", "NeededKey", "OpenTransaction", "RelayProcess", "Running", "any_alive",
    "read_running",
]  # fmt: skip

LONG_TRANSACTION_SECONDS = 600
YOUNGER_TRANSACTION_SECONDS = 60
LONG_TURN_SECONDS = 60.0
_NAMED = 5
_MAX_RELAYS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayProcess:
    """A relay process as it signed in; `processes` were asked of its run, `leased` is what it held at its last sign.

    cannot_send: to how many subscriptions its machine could send nothing for a minute; cannot_send_to: to which for the
    longest.
    """

    run_id: UUID
    host: str
    pid: int
    version: str
    processes: int
    key_ids: tuple[str, ...]
    leased: int
    cannot_send: int
    cannot_send_to: UUID | None
    started_at: datetime
    seen_at: datetime
    running_seconds: float
    seen_seconds: float
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededKey:
    """A key that secrets of subscriptions are sealed to, and how many of them."""

    key_id: str
    secrets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """A transaction that is open for long. A prepared one has a `gid` and no `pid`."""

    pid: int | None
    gid: str | None
    role: str | None
    application_name: str | None
    state: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTurn:
    """A turn that somebody has for long, by the server's process."""

    turn: str
    pid: int
    application_name: str
    address: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRound:
    """A round of housekeeping without a success for long; `seconds` is None where it never had one."""

    name: str
    every_seconds: float | None
    seconds: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingRound:
    """A round of housekeeping that failed just now by what a person has to mend: a full disk, a right."""

    name: str
    error: str
    mend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Relay processes, those that live first, and what is in their way.

    `hidden_sessions`: sessions of other roles in a transaction whose age this role may not see. `full_disk` is what the
    server says where its disk is full. `younger_transactions` are open for a minute or longer, and not for long yet.
    """

    relays: tuple[RelayProcess, ...]
    needed_keys: tuple[NeededKey, ...]
    transactions: tuple[OpenTransaction, ...]
    hidden_sessions: int
    turns: tuple[HeldTurn, ...]
    late_rounds: tuple[LateRound, ...]
    failing_rounds: tuple[FailingRound, ...] = ()
    younger_transactions: tuple[OpenTransaction, ...] = ()
    locks: tuple[HeldLock, ...] = ()
    full_disk: str | None = None

    @property
    def alive(self) -> tuple[RelayProcess, ...]:
        """Return the processes that gave a sign of life a moment ago."""
        return tuple(relay for relay in self.relays if relay.alive)


_RELAYS = text("""
select run_id, host, pid, version, processes, key_ids, leased, cannot_send, cannot_send_to, started_at, seen_at,
       extract(epoch from clock_timestamp() - started_at)::double precision as running_seconds,
       extract(epoch from clock_timestamp() - seen_at)::double precision as seen_seconds,
       seen_at >= clock_timestamp() - make_interval(secs => :alive) as alive
from outbox.relays order by alive desc, host, started_at, pid limit :most
""")

_NEEDED_KEYS = text("""
select x.sealed_to as key_id, count(*) as secrets
from outbox.secrets x join outbox.subscriptions s on s.id = x.subscription_id
where x.sealed_to is not null and (x.expires_at is null or x.expires_at > clock_timestamp()) and s.removed_at is null
group by x.sealed_to order by x.sealed_to limit 100
""")

# A vacuum holds back nothing of itself. Whose times we may not see has no xact_start.
_TRANSACTIONS = text("""
select pid, null as gid, usename as role, application_name, state,
       extract(epoch from clock_timestamp() - xact_start)::double precision as seconds
from pg_catalog.pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
  and xact_start < clock_timestamp() - make_interval(secs => :long) and query !~* '^[[:space:]]*vacuum'
union all
select null, gid, owner, null, 'prepared', extract(epoch from clock_timestamp() - prepared)::double precision
from pg_catalog.pg_prepared_xacts
where database = current_database() and prepared < clock_timestamp() - make_interval(secs => :long)
order by seconds desc limit :named
""")

_HIDDEN = text("""
select count(*) from pg_catalog.pg_stat_activity
where datname = current_database() and xact_start is null and (backend_xid is not null or backend_xmin is not null)
  and query = '<insufficient privilege>'
""")

# A round with no error since its success is late only for a week: then it is one that no version does any more. Where
# none was done yet, the time counts from the first sign of the relay that has lived longest. Sealing
# rests where no relay has the newest key, which another finding says.
_LATE_ROUNDS = text("""
with living as (
    select min(started_at) as since from outbox.relays
    where seen_at >= clock_timestamp() - make_interval(secs => :alive)),
measured as (
    select name, every_seconds, succeeded_at, since,
           case when failed_at > coalesce(succeeded_at, '-infinity') then error end as error,
           make_interval(secs => 3 * coalesce(every_seconds, 3600) + 600) as patience
    from outbox.rounds, living where since is not null)
select name, every_seconds, extract(epoch from clock_timestamp() - succeeded_at)::double precision as seconds, error
from measured
where clock_timestamp() - patience > greatest(since, coalesce(succeeded_at, since))
  and (error is not null or (name <> 'secrets in clear' and succeeded_at > clock_timestamp() - interval '7 days'))
order by succeeded_at nulls first, name limit 20
""")

_FAILED_ROUNDS = text("""
select name, error from outbox.rounds
where failed_at > greatest(coalesce(succeeded_at, '-infinity'),
                           clock_timestamp() - make_interval(secs => 2 * coalesce(every_seconds, 3600) + 60))
order by failed_at desc, name limit 100
""")


_ANY_ALIVE = text("""
select exists(select from outbox.relays where seen_at >= clock_timestamp() - make_interval(secs => :alive))
""")


def any_alive(connection: Connection, tenant: str | None) -> bool:
    """Tell whether any relay gave a sign of life a moment ago. For the operator only."""
    operator_only(tenant, "status")
    return bool(connection.execute(_ANY_ALIVE, {"alive": ALIVE_SECONDS}).scalar_one())


def read_running(connection: Connection, tenant: str | None) -> Running:
    """Return who runs and what is in the way. For the operator only."""
    operator_only(tenant, "status")
    opened = [OpenTransaction(**row) for row in _transactions(connection)]
    return Running(
        relays=tuple(
            map(_relay, connection.execute(_RELAYS, {"alive": ALIVE_SECONDS, "most": _MAX_RELAYS}).mappings())
        ),
        needed_keys=tuple(NeededKey(**row) for row in connection.execute(_NEEDED_KEYS).mappings()),
        transactions=tuple(one for one in opened if one.seconds >= LONG_TRANSACTION_SECONDS),
        younger_transactions=tuple(one for one in opened if one.seconds < LONG_TRANSACTION_SECONDS),
        hidden_sessions=connection.execute(_HIDDEN).scalar_one(),
        turns=tuple(held for turn in ("fan_out", "housekeeping") for held in _held(connection, turn)),
        late_rounds=tuple(
            LateRound(**row) for row in connection.execute(_LATE_ROUNDS, {"alive": ALIVE_SECONDS}).mappings()
        ),
        failing_rounds=tuple(
            FailingRound(name=row.name, error=row.error, mend=mend)
            for row in connection.execute(_FAILED_ROUNDS)
            if (mend := mend_of_line(row.error or ""))
        ),
        locks=read_locks(connection, tenant),
        full_disk=full_disk(connection, tenant),
    )


def _relay(row: Any) -> RelayProcess:
    return RelayProcess(**dict(row) | {"key_ids": tuple(row["key_ids"])})


def _transactions(connection: Connection) -> Any:
    return connection.execute(
        _TRANSACTIONS, {"long": min(YOUNGER_TRANSACTION_SECONDS, LONG_TRANSACTION_SECONDS), "named": _NAMED}
    ).mappings()


def _held(connection: Connection, turn: str) -> list[HeldTurn]:
    rows = connection.exec_driver_sql(HOLDER, (turn,)).all()
    held = (HeldTurn(turn=turn, pid=r[0], application_name=r[1], address=r[2], seconds=r[3]) for r in rows)
    return [one for one in held if one.seconds > LONG_TURN_SECONDS]
