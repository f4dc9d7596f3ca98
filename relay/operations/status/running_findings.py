"""What a person should know of the relays that run, and of what is in their way. Pure: nothing is asked."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from outbox.control.findings import Finding
from outbox.control.times import duration
from relay.store.relays import ALIVE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from relay.operations.status.running import (
        HeldTurn,
        LateRound,
        NeededKey,
        OpenTransaction,
        RelayProcess,
        Running,
    )

__all__ = ["findings_of_running", "place_of"]

_UPDATE_SECONDS = 600


def findings_of_running(running: Running, waiting: str) -> Iterator[Finding]:
    """Yield what is found; `waiting` says in words what waits for a relay, empty where nothing does."""
    if not running.alive:
        yield _of_none(running.relays, waiting)
    else:
        yield from _of_silent(running)
        yield from _of_fewer(running)
        yield from _of_versions(running.alive)
        yield from _of_keys(running.needed_keys, running.alive)
    yield from map(_of_turn, running.turns)
    yield from map(_of_transaction, running.transactions)
    yield from map(_of_round, running.late_rounds)


def place_of(relay: RelayProcess) -> str:
    """Return host and process id, as people write them."""
    return f"{relay.host} pid {relay.pid}"


def _of_none(relays: Iterable[RelayProcess], waiting: str) -> Finding:
    last = min(relays, key=lambda relay: relay.seen_seconds, default=None)
    seen = "no relay runs" + (f", and {waiting}" if waiting else "; nothing waits for one")
    if last is not None:
        seen += f" (the last sign of life was {duration(last.seen_seconds)} ago, from {place_of(last)})"
    mend = "start `relay run`"
    return Finding(
        code="relays.none", subject="relays", seen=seen, mend=mend, severity="problem" if waiting else "note"
    )


def _of_silent(running: Running) -> Iterator[Finding]:
    """A silent one is replaced where a process started after its last sign; then nobody has to look for it."""
    newest = max(relay.started_at for relay in running.alive)
    for relay in running.relays:
        if relay.alive:
            continue
        replaced = newest > relay.seen_at
        seen = f"the relay at {place_of(relay)} ended without signing out, or stands still: no sign of life for"
        yield Finding(
            code="relays.silent",
            subject=place_of(relay),
            seen=f"{seen} {duration(relay.seen_seconds)}" + ("; another one started since" if replaced else ""),
            mend="" if replaced else "look at its log, and start it again",
            severity="note" if replaced else "problem",
        )


def _of_fewer(running: Running) -> Iterator[Finding]:
    """A run that began a moment ago, or whose missing process is named as silent, is left out."""
    for _, run in groupby(sorted(running.relays, key=lambda relay: relay.run_id), lambda relay: relay.run_id):
        signed = list(run)
        alive = [relay for relay in signed if relay.alive]
        if not alive or max(relay.running_seconds for relay in alive) < ALIVE_SECONDS:
            continue
        asked = max(relay.processes for relay in alive)
        if len(signed) < asked:
            seen = f"{len(alive)} of {asked} processes of the relay at {alive[0].host} run"
            mend = "its log says why the others ended; they are started again when the cause is mended"
            yield Finding(code="relays.fewer", subject=alive[0].host, seen=seen, mend=mend)


def _of_versions(alive: tuple[RelayProcess, ...]) -> Iterator[Finding]:
    """During an update, different versions are right."""
    hosts: dict[str, list[str]] = {}
    for relay in alive:
        hosts.setdefault(relay.version, []).append(relay.host)
    if len(hosts) < 2:
        return
    listed = "; ".join(f"{version} at {', '.join(sorted(set(hosts[version]))[:5])}" for version in sorted(hosts))
    updating = min(relay.running_seconds for relay in alive) < _UPDATE_SECONDS
    yield Finding(
        code="relays.versions",
        subject="relays",
        seen=f"relays of different versions run: {listed}",
        mend="finish the update",
        severity="note" if updating else "problem",
    )


def _of_keys(needed: Iterable[NeededKey], alive: tuple[RelayProcess, ...]) -> Iterator[Finding]:
    for key in needed:
        lacking = [relay for relay in alive if key.key_id not in relay.key_ids]
        if not lacking:
            continue
        secrets = f"{key.secrets:,} secrets are sealed to key {key.key_id}"
        who = "no relay that runs holds it" if len(lacking) == len(alive) else f"{_places(lacking)} lacks it"
        mend = "give its private half to each relay (secret_key) and restart them"
        yield Finding(code="secrets.key_missing", subject=key.key_id, seen=f"{secrets}, and {who}", mend=mend)


def _places(relays: list[RelayProcess]) -> str:
    return place_of(relays[0]) + (f" and {len(relays) - 1} more" if len(relays) > 1 else "")


def _of_turn(held: HeldTurn) -> Finding:
    where = f" at {held.address}" if held.address else ""
    return Finding(
        code="turns.held",
        subject=held.turn,
        seen=f"the turn {held.turn} is held for {duration(held.seconds)} by server process {held.pid}"
        f" ({held.application_name or 'no application_name'}{where}); nobody else can do that work",
        mend=f"see what it does in pg_stat_activity, or end it: select pg_terminate_backend({held.pid})",
    )


def _of_transaction(found: OpenTransaction) -> Finding:
    effect = "dead rows are not cleaned away meanwhile, and what it recorded is sent after its commit only"
    if found.gid is not None:
        gid = found.gid.replace("'", "''")
        return Finding(
            code="transactions.open",
            subject=found.gid,
            seen=f"prepared transaction {found.gid} of {found.role} is open for {duration(found.seconds)}; {effect}",
            mend=f"commit prepared '{gid}', or rollback prepared '{gid}'",
        )
    who = f"{found.role}, {found.application_name or 'no application_name'}"
    return Finding(
        code="transactions.open",
        subject=f"pid {found.pid}",
        seen=f"server process {found.pid} ({who}) has a transaction open for {duration(found.seconds)}"
        f" ({found.state}); {effect}",
        mend=f"let it end, or end it: select pg_terminate_backend({found.pid})",
    )


def _of_round(found: LateRound) -> Finding:
    since = "never" if found.seconds is None else f"not for {duration(found.seconds)}"
    every = "" if found.every_seconds is None else f", which is due every {duration(found.every_seconds)}"
    return Finding(
        code="rounds.late",
        subject=found.name,
        seen=f"housekeeping: '{found.name}'{every}, has {since} succeeded"
        + (f"; its last error: {found.error}" if found.error else ", and no error is noted"),
        mend="see the relay's log",
    )
