"""What a person should know of the relays that run, and of what is in their way. Pure: nothing is asked."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Literal

from outbox.control.findings import Action, Finding
from outbox.control.times import duration
from outbox.ids import text_id
from relay.operations.status.disk import findings_of_disk, is_full, is_of_disk
from relay.operations.status.locks import findings_of_locks
from relay.store.relays import ALIVE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from relay.operations.status.running import (
        FailingRound,
        HeldTurn,
        LateRound,
        NeededKey,
        OpenTransaction,
        RelayProcess,
        Running,
    )

__all__ = ["findings_of_running", "place_of"]

_UPDATE_SECONDS = 600
_FEWER_SECONDS = 600
_ENDING_SECONDS = 600
_ENDING_IN_A_ROW = 3


def findings_of_running(running: Running, waiting: str) -> Iterator[Finding]:
    """Yield what is found; `waiting` says in words what waits for a relay, empty where nothing does."""
    yield from findings_of_disk(running.full_disk, running.failing_rounds)
    if not running.alive and running.relays and is_full(running.full_disk, running.failing_rounds):
        yield _of_unwritten(running.relays)
    elif not running.alive:
        yield _of_none(running.relays, waiting)
    else:
        yield from _of_silent(running)
        yield from _of_fewer(running)
        yield from _of_versions(running.alive)
        yield from _of_keys(running.needed_keys, running.alive)
        yield from _of_unsent(running.alive)
    yield from map(_of_turn, running.turns)
    turns = {held.pid for held in running.turns}
    locks = [one for one in running.locks if one.pid not in turns]
    yield from findings_of_locks(locks)
    told = {one.pid for one in locks if one.pid}
    yield from (_of_transaction(one) for one in running.transactions if one.pid not in told)
    named = {one.name for one in running.failing_rounds}
    yield from (_of_round(one) for one in running.late_rounds if one.name not in named)
    yield from _of_failing_rounds(one for one in running.failing_rounds if not is_of_disk(one))


def place_of(relay: RelayProcess) -> str:
    """Return host and process id, as people write them."""
    return f"{relay.host} pid {relay.pid}"


def _of_none(relays: Iterable[RelayProcess], waiting: str) -> Finding:
    last = min(relays, key=lambda relay: relay.seen_seconds, default=None)
    seen = "no relay runs" + (f", and {waiting}" if waiting else "; nothing waits for one")
    if last is not None:
        seen += f" (the last sign of life was {duration(last.seen_seconds)} ago, from {place_of(last)})"
    mend = "start `relay run`"
    if last is not None:
        mend += "; where one runs, its log says why it cannot write here, such as a full disk or a lock"
    return Finding(
        code="relays.none", subject="relays", seen=seen, mend=mend, severity="problem" if waiting else "note"
    )


def _of_unwritten(relays: Iterable[RelayProcess]) -> Finding:
    """While the disk is full no relay can write that it lives: one may run, and nobody has to start it."""
    last = min(relays, key=lambda relay: relay.seen_seconds)
    seen = f"no relay could write a sign of life for {duration(last.seen_seconds)}, since the disk is full"
    return Finding(
        code="relays.none",
        subject="relays",
        seen=f"{seen} (the last was from {place_of(last)}); one that runs goes on by itself when there is room",
        severity="note",
    )


def _of_silent(running: Running) -> Iterator[Finding]:
    """Sum up those whose place no other process took: a problem where none started since, else a note for a while."""
    silent = [relay for relay in running.relays if not relay.alive]
    newest = max(relay.started_at for relay in running.alive)
    ended = [relay for relay in silent if newest > relay.seen_at and relay.seen_seconds < _ENDING_SECONDS]
    if _in_a_row(ended) >= _ENDING_IN_A_ROW:
        yield _of_ending(ended)
        silent = [relay for relay in silent if relay not in ended]
    missing = _not_replaced(silent, running.relays)
    if gone := [relay for relay in missing if relay.seen_at >= newest]:
        yield _of_gone(gone, "problem", "look at its log, and start it again" if len(gone) == 1 else "look at their"
                       " logs, and start them again")  # fmt: skip
    if fewer := [relay for relay in missing if relay.seen_at < newest and relay.seen_seconds < _FEWER_SECONDS]:
        until = f"fewer run than before; this is said for {duration(_FEWER_SECONDS)}"
        yield _of_gone(fewer, "note", f"start as many as before, if you want so many: {until}")


def _not_replaced(silent: Iterable[RelayProcess], all_: Iterable[RelayProcess]) -> list[RelayProcess]:
    """Return those that no process took the place of: each that started later takes one place."""
    free = sorted(relay.started_at for relay in all_)
    missing = []
    for relay in sorted(silent, key=lambda relay: relay.seen_at):
        later = next((started for started in free if started > relay.seen_at), None)
        if later is None:
            missing.append(relay)
        else:
            free.remove(later)
    return missing


def _of_gone(gone: list[RelayProcess], severity: Literal["problem", "note"], mend: str) -> Finding:
    last = min(gone, key=lambda relay: relay.seen_seconds)
    who, verbs, the_last = f"the relay at {place_of(last)}", "ended without signing out, or stands still", ""
    if len(gone) > 1:
        who, verbs = f"{len(gone)} relay processes", "ended without signing out, or stand still"
        the_last = f" from the last, {place_of(last)},"
    return Finding(
        code="relays.silent",
        subject=place_of(last) if len(gone) == 1 else "relays",
        seen=f"{who} {verbs}: no sign of life{the_last} for {duration(last.seen_seconds)}",
        mend=mend,
        severity=severity,
    )


def _in_a_row(ended: Iterable[RelayProcess]) -> int:
    """Return how often a process ended that had started after another one did: many that ended at once count once."""
    times, until = 0, None
    for relay in sorted(ended, key=lambda relay: relay.seen_at):
        if until is None or relay.started_at > until:
            times, until = times + 1, relay.seen_at
    return times


def _of_ending(ended: list[RelayProcess]) -> Finding:
    last = min(ended, key=lambda relay: relay.seen_seconds)
    return Finding(
        code="relays.ending",
        subject="relays",
        seen=f"relays end again and again: {len(ended)} processes within {duration(_ENDING_SECONDS)} without signing"
        f" out, the last one at {place_of(last)}",
        mend="their log or their host says why, such as too little memory; a delivery that ends its process is sent"
        " alone, and given up after three times",
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


def _of_unsent(alive: tuple[RelayProcess, ...]) -> Iterator[Finding]:
    for relay in alive:
        if relay.cannot_send_to is None:
            continue
        name = text_id("sub", relay.cannot_send_to)
        more = f" and {relay.cannot_send - 1:,} more" if relay.cannot_send > 1 else ""
        yield Finding(
            code="relays.cannot_send",
            subject=place_of(relay),
            seen=f"the relay at {place_of(relay)} could send nothing to {name}{more} for a minute or longer;"
            " no attempt is charged for that",
            mend=f"its log says why; try from that host: relay subscriptions check {name}",
            action=Action("test", name),
        )


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


def _of_failing_rounds(rounds: Iterable[FailingRound]) -> Iterator[Finding]:
    """Name what a person has to mend, once for all rounds that fail by it: it is not waited until they are late."""
    by_mend = sorted(rounds, key=lambda one: one.mend)
    for mend, group in groupby(by_mend, key=lambda one: one.mend):
        failing = list(group)
        more = f" and {len(failing) - 1} more" if len(failing) > 1 else ""
        yield Finding(
            code="rounds.failing",
            subject=failing[0].name,
            seen=f"housekeeping: '{failing[0].name}'{more} cannot be done: {failing[0].error}",
            mend=mend,
            severity="problem",
        )
