"""Turns: what one process does at a time, and how long one that stopped may keep it, or anything else, from the others.

A turn is a row of outbox.turns, held by FOR UPDATE to the end of a transaction: that needs a right, which an advisory
lock does not. A process may stop in any transaction: frozen, or cut off by its network. Then the server waits for it,
and keeps what the transaction has locked. So the server ends a transaction that waits for its client for longer than
STOPPED_SECONDS:

- idle_in_transaction_session_timeout, where it waits for the next statement (LIMITS, in each transaction);
- TCP keepalives and tcp_user_timeout on the server's side, where it writes an answer that nobody takes, or the network
  is cut (SESSION, for each connection; a Unix socket has nothing like that);
- END_STOPPED, by any other relay, for what is left: inside a pipeline the first does not run.

statement_timeout would be none of these: it does not interrupt the server while it writes. A transaction that the
server works on is left alone, however slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay.store.database import Database

__all__ = [
    "COMMAND",
    "END_STOPPED",
    "HOLDER",
    "LIMITS",
    "SESSION",
    "STOPPED_SECONDS",
    "TAKE",
    "TRY",
    "Holder",
    "end_stopped",
    "find_holder",
    "limits",
    "session",
]

STOPPED_SECONDS = 20
COMMAND = "relay command"
RELAYS = ("outbox-relay", "outbox-relay housekeeping", COMMAND)
"""The application_name of the connections that END_STOPPED may end: COMMAND's are of commands, pages and gauges."""


def limits(seconds: int) -> str:
    """Return the call that bounds a transaction which waits for the next statement, to be selected in it."""
    return f"set_config('idle_in_transaction_session_timeout', '{seconds}s', true)"


def session(seconds: int) -> str:
    """Return the statement that bounds how long a connection waits for a client which takes no answer.

    It also switches off idle_session_timeout, which a server may have against forgotten sessions: a relay's connections
    rest between looks, and would be ended again and again.
    """
    return f"""
select set_config('idle_session_timeout', '0', false),
       set_config('tcp_keepalives_idle', '{seconds // 2}', false),
       set_config('tcp_keepalives_interval', '{seconds // 4}', false),
       set_config('tcp_keepalives_count', '2', false),
       set_config('tcp_user_timeout', '{seconds * 1000}', false)"""


LIMITS = limits(STOPPED_SECONDS)
SESSION = session(STOPPED_SECONDS)
"""For the whole connection, and therefore maybe for other clients of a pooler's: dead ones end sooner, and a connection
that a pooler keeps for later is the pooler's to end."""

TAKE = "select from outbox.turns where name = '{turn}' for update"
"""Wait for a turn and take it; lock_timeout bounds the wait."""
TRY = f"select {LIMITS} from outbox.turns where name = '{{turn}}' for update skip locked"
"""Take a turn unless somebody has it: one row, or none."""


class Holder(NamedTuple):
    """Who has a turn: the server's process, its application_name, its address, and for how long its transaction runs.

    address is None for a Unix socket, and where its session is of a role that we may not look at.
    """

    pid: int
    application_name: str
    address: str | None
    seconds: float

    def __str__(self) -> str:
        where = f" at {self.address}" if self.address else ""
        return f"pid {self.pid} ({self.application_name or 'no application_name'}{where}), for {self.seconds:.0f} s"


# Whoever locked the row last is in its xmax, and has it as long as that transaction is open.
HOLDER = """
select a.pid, a.application_name, host(a.client_addr),
       coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::double precision
from outbox.turns t join pg_stat_activity a on a.backend_xid = t.xmax where t.name = %s"""


async def find_holder(database: Database, turn: str) -> Holder | None:
    """Return who has this turn now, or None."""
    rows = await database.fetch(HOLDER, turn)
    return Holder(*rows[0]) if rows else None


# Only where the server waits for the client, in a transaction: also one whose locks nobody waits for yet. The time
# counts from the last statement. Ending it needs the same role; others are left out.
END_STOPPED = """
with waiting as materialized (
    select pid, application_name, host(client_addr) as address,
           extract(epoch from clock_timestamp() - greatest(query_start, state_change))::double precision as seconds
    from pg_stat_activity
    where datname = current_database() and application_name = any(%s) and wait_event_type = 'Client'
      and xact_start is not null and pid <> pg_backend_pid() and pg_has_role(usesysid, 'usage')),
stopped as materialized (select * from waiting where seconds > %s)
select * from stopped where pg_terminate_backend(pid)"""
# Materialized: the planner may order conditions as it likes, and would end those that wait for a moment only.


async def end_stopped(database: Database, seconds: float = STOPPED_SECONDS) -> list[Holder]:
    """End the connections of relays whose transaction has waited for its client for so long; return them."""
    return [Holder(*row) for row in await database.fetch(END_STOPPED, list(RELAYS), seconds)]
