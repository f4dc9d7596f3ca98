"""`relay replay`: deliver again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from outbox.control.filters import Filters
from outbox.control.replay import replay as operations
from relay.cli.options import confirm, filters, json_option, yes_option
from relay.cli.output import print_json
from relay.cli.source import Source, ids_of, query_of, with_source_to_change
from relay.client import calls
from relay.client.results import Replayed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from outbox.ids import DeliveryId

__all__ = ["replay"]


@click.command()
@click.argument("names", metavar="[DELIVERY|EVENT]...", nargs=-1)
@click.option("--to", metavar="SUB", help="To this subscription instead (sub_…).")
@click.option("--to-all", is_flag=True, help="By id: to every subscription that the event matches now.")
@filters("since", "until", "type", "tenant", "key", "subscription")
@click.option(
    "--state", type=click.Choice(["dead", "delivered", "cancelled"]), default="dead", show_default=True,
    help="With filters: the dead letters, or what was delivered or cancelled by hand.",
)  # fmt: skip
@filters("limit")
@click.option("--dry-run", is_flag=True, help="Say what would be replayed, change nothing.")
@yes_option
@json_option
@with_source_to_change
def replay(
    source: Source, names: tuple[str, ...], to: str | None, type_: str | None, state: Any, *, to_all: bool,
    dry_run: bool, yes: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Deliver again: a dead letter, a delivery or an event by id, or all that pass a filter.

    Each replay is a new delivery, due now, with a schedule of its own; the webhook-id stays the event's.
    An EVENT goes to every subscription whose delivery of it has ended. A dead letter is gone once it is
    replayed. By id each replay is one delivery more; by filter what is on its way again is left out.
    At once, --limit at most; relay bulk does any number, at a rate.

    \b
    Examples:
      relay replay dlv_…
      relay replay evt_… --to sub_…
      relay replay evt_… --to-all
      relay replay --subscription sub_… --since 1d --dry-run
      relay replay --state delivered --subscription sub_… --since 2h --limit 1000 --yes
    """
    wanted = Filters(type=type_, **given)
    if bool(names) != wanted.empty:
        raise click.UsageError("give ids, or at least one filter (--since, --subscription, …), not both")
    if to_all and (to is not None or not names):
        raise click.UsageError("--to-all goes with ids, and without --to")
    chosen = (ids_of(names), None) if names else (None, query_of(wanted))
    how: dict[str, Any] = {"to": to, "to_all": to_all, "state": state}
    found: list[operations.Candidate] = []

    def look(connection: Connection) -> Replayed:
        found[:] = _candidates(connection, names, wanted, **how)
        matching = None if names else operations.count_by_filter(connection, None, wanted, state=state)
        return _told(found, None, matching)

    looked = source.ask(look, lambda: calls.replay_deliveries(*chosen, **how, dry_run=True))
    rest = _Rest(looked.matching, wanted, state)
    if dry_run:
        _report("would replay", looked, rest, as_json=as_json)
        return
    if not names:
        confirm(f"Replay {looked.count}{rest.of} {'dead letters' if state == 'dead' else 'deliveries'}?", yes=yes)
    asked = operations.Asked(names, wanted, None if names else state, "all" if to_all else to)
    made = source.ask(
        lambda connection: _told(found, operations.replay(connection, None, found, asked), looked.matching),
        lambda: calls.replay_deliveries(*chosen, **how),
    )
    _report("replayed", made, rest, as_json=as_json)


def _candidates(
    connection: Connection, names: tuple[str, ...], wanted: Filters, *, to: str | None, to_all: bool, state: Any
) -> list[operations.Candidate]:
    if not names:
        return operations.candidates_by_filter(connection, None, wanted, state=state, to=to)
    return [item for name in names for item in operations.candidates_by_id(connection, None, name, to, to_all=to_all)]


@dataclass(frozen=True)
class _Rest:
    """What else passes a filter than was taken; nothing where ids were given."""

    matching: operations.Matching | None
    filters: Filters
    state: str

    @property
    def of(self) -> str:
        """Of how many, in words, where there are more than the limit."""
        if self.matching is None or self.matching.count <= self.filters.limit:
            return ""
        return f" of {self.matching.count:,}{'' if self.matching.exact else ' or more'}"

    @property
    def command(self) -> str:
        """The command that puts back all of them."""
        given = ("since", "until", "type", "tenant", "subscription")
        if self.state != "dead":
            return "relay bulk replay SUB --since TIME"
        flags = [f"--{name} …" for name in given if getattr(self.filters, name) is not None]
        return " ".join(["relay bulk redrive", *flags])


def _told(
    found: list[operations.Candidate], made: list[DeliveryId] | None, matching: operations.Matching | None
) -> Replayed:
    """Return what the API answers: the candidates, and the deliveries made of them; `made` is None in a dry run."""
    to_resolve = sum(item.subscription_id is None for item in found)
    direct = len(found) - to_resolve if made is None else len(made)
    return Replayed(
        count=direct + to_resolve,
        matching=matching,
        deliveries=tuple(made or ()),
        subscriptions=tuple(sorted({item.subscription_id for item in found if item.subscription_id})),
        resolve_again=to_resolve,
    )


def _report(verb: str, told: Replayed, rest: _Rest, *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    direct = told.count - told.resolve_again
    click.echo(f"{verb} {direct}{rest.of} deliveries to {len(told.subscriptions)} subscriptions")
    if told.resolve_again:
        click.echo(f"{verb} {told.resolve_again} events that could not be resolved: back to pending")
    for name in told.deliveries[:20]:
        click.echo(name)
    if rest.of:
        click.echo(f"for all of them: {rest.command}; or go on: repeat it, or raise --limit", err=True)
