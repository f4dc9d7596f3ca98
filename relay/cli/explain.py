"""`relay explain` and `relay subscriptions filter-test`: what became of an event, and why who gets it or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox.control.times import utc
from outbox.recording.payload import RawJSON
from outbox.subscriptions.declaration import json_object, pair
from relay.cli.findings import in_words
from relay.cli.options import after_option, filters, json_option
from relay.cli.output import (
    counted,
    escape,
    fields_of,
    metadata_lines,
    print_fields,
    print_json,
    print_more,
    print_table,
)
from relay.cli.source import Source, with_source
from relay.cli.subscription_options import FILE, own_tenant_option, read_file, sent_filter, text_type
from relay.client import calls
from relay.client.calls.making import not_none

if TYPE_CHECKING:
    from typing import TextIO

    from outbox.control.attempts import Attempt
    from outbox.control.explain import Draft, ExplainedEvent
    from outbox.control.filter_answers import FilterTest
    from outbox.control.track import EventTrack

__all__ = ["explain", "filter_test"]

_data_option = click.option("--data", type=FILE, help="The payload of a draft: a file of JSON, - is stdin.")
_type_option = click.option("--type", "type_", metavar="TYPE", help="The event type of the draft.")
_key_option = click.option("--key", metavar="KEY", help="The key of the draft.")
_metadata_option = click.option(
    "--metadata",
    metavar="NAME=VALUE",
    type=text_type(pair),
    multiple=True,
    help="The metadata of the draft; repeatable.",
)


@click.command()
@click.argument("event_id", metavar="[EVENT]", required=False)
@_type_option
@_data_option
@_key_option
@_metadata_option
@click.option("--tenant", metavar="NAME", help="Whose draft it is; whose the EVENT must be.")
@filters("subscription", "limit")
@after_option
@json_option
@with_source
def explain(
    source: Source, event_id: str | None, type_: str | None, data: TextIO | None, key: str | None,
    metadata: tuple[tuple[str, str], ...], tenant: str | None, *, as_json: bool, **page: Any,
) -> None:  # fmt: skip
    """Tell the track of one EVENT (evt_…): recorded, resolved, each attempt, what is next and why it waits.

    For each subscription, as it is now, it says whether it gets the event, and why: a filter that does
    not match is told with the condition that failed. Of a draft, which was not recorded, that is all.

    \b
    Examples:
      relay explain evt_…
      relay explain evt_… --subscription sub_…
      relay explain --type order.created --data order.json --tenant acme
    """
    draft = _one_of(event_id, _draft(type_, data, key, metadata, tenant or ""), "EVENT, or --type and --data")
    found = _track(source, draft, tenant, page) if isinstance(draft, str) else _explain(source, draft, page)
    if as_json:
        print_json(found)
    else:
        _print(found)
    print_more(found.subscriptions)


def _track(source: Source, event_id: str, tenant: str | None, page: dict[str, Any]) -> EventTrack:
    from outbox.control.track import track_event

    return source.ask(
        lambda connection: track_event(connection, tenant, event_id, **page),
        lambda: calls.get_event_track(event_id, tenant=tenant, **page),
    )


def _explain(source: Source, draft: Draft, page: dict[str, Any]) -> ExplainedEvent:
    from outbox.control.explain import explain_draft

    if page["after"] is not None:
        source.refuse_by_api("--after", "of a draft the API explains the first --limit subscriptions")
    given = {name: page[name] for name in ("subscription", "limit")}
    found = source.ask(
        lambda connection: explain_draft(connection, None, draft, **page),
        lambda: calls.explain_unrecorded(
            draft.type,
            RawJSON(draft.data),
            key=draft.key,
            metadata=draft.metadata,
            tenant=draft.tenant or None,
            **given,
        ),
    )
    if source.is_remote and len(found.subscriptions.items) == given["limit"]:
        click.echo("there may be more: raise --limit", err=True)
    return found


def _draft(
    type_: str | None,
    data: TextIO | None,
    key: str | None,
    metadata: tuple[tuple[str, str], ...],
    tenant: str = "",
) -> Draft | None:
    """Return the draft that the options make; None where none of them is given."""
    from outbox.control.explain import Draft

    if type_ is None and data is None:
        if key is not None or metadata:
            raise click.UsageError("--key and --metadata are of a draft: give --type and --data too")
        return None
    if type_ is None or data is None:
        raise click.UsageError("a draft needs both --type and --data")
    return Draft(
        type=type_, data=read_file("data", data).strip(), key=key, metadata=dict(metadata) or None, tenant=tenant
    )


def _one_of(event_id: str | None, draft: Draft | None, words: str) -> str | Draft:
    if event_id is not None and draft is None:
        return event_id
    if draft is None or event_id is not None:
        raise click.UsageError(f"give either {words}")
    return draft


def _print(found: EventTrack | ExplainedEvent) -> None:
    from outbox.control.track import EventTrack

    if isinstance(found, EventTrack):
        _print_track(found)
    else:
        print_fields(fields_of(found, "subscriptions"))
    click.echo("\nSubscriptions, as they are now")
    rows = [
        (item.id, "yes" if item.matches else "no", item.reason, _detail(item.detail, item), item.url)
        for item in found.subscriptions
    ]
    print_table(["SUBSCRIPTION", "GETS IT", "REASON", "WHY", "URL"], rows, flexible=["WHY", "URL"])


def _print_track(found: EventTrack) -> None:
    matched = f"{found.resolution.matched} subscriptions" if found.resolution else None
    resolved = found.resolution.at if found.resolution else None if found.pending is None else found.pending.detail
    nested = ("pending", "resolution", "counts", "deliveries", "more_deliveries", "subscriptions", "trace", "metadata")
    told = {"resolved": resolved, "matched": matched, "subscriptions": counted(found.counts)}
    told |= metadata_lines(found.metadata) | (found.trace or {})
    print_fields(fields_of(found, *nested) | told)
    for one in found.deliveries:
        why = f" ({one.reason})" if one.reason else ""
        to = f"{one.subscription_id or '-'}  {escape(one.url or '')}"
        click.echo(f"\n{one.id}  {click.style(one.state + why, bold=True)}  to {to}".rstrip())
        for attempt in one.attempts:
            _print_attempt(attempt)
        if one.advice is not None:
            click.echo(f"  advice {escape(in_words(one.advice))}")
        for wait in one.waits:
            until = f", until {utc(wait.until)}" if wait.until else ""
            click.echo(f"  waits  {wait.reason}: {escape(wait.detail)}{until}")
    if found.more_deliveries:
        click.echo(f"\nThere are more: relay deliveries attempts --event {found.id}", err=True)


def _print_attempt(attempt: Attempt) -> None:
    error = f": {escape(attempt.error)}" if attempt.error else ""
    answer = attempt.status or attempt.outcome
    click.echo(
        f"  {attempt.number:>5}  {utc(attempt.at)}  {answer}  {attempt.milliseconds} ms  {attempt.verdict}{error}"
    )


def _detail(detail: str, item: Any) -> str:
    notes = [" (its filter came to no result when the event was resolved)"] if item.gave_up else []
    notes += [" (it was changed after the event was resolved)"] if item.changed_since else []
    return detail + "".join(notes)


@click.command("filter-test")
@click.argument("subscription_id", metavar="[SUBSCRIPTION]", required=False)
@own_tenant_option
@click.option("--filter", "filter_", type=text_type(json_object), metavar="JSON", help="A filter: JSON, or @FILE.")
@click.option("--event", "event_id", metavar="EVENT", help="A recorded event (evt_…).")
@_data_option
@click.option("--type", "type_", default="test", metavar="TYPE", show_default=True, help="The event type of the draft.")
@_key_option
@_metadata_option
@json_option
@with_source
def filter_test(
    source: Source, subscription_id: str | None, tenant: str | None, filter_: Any, event_id: str | None,
    data: TextIO | None, type_: str, key: str | None, metadata: tuple[tuple[str, str], ...],
    *, as_json: bool,
) -> int:  # fmt: skip
    """Ask the filter of a SUBSCRIPTION, or one that is given, about an event or a draft. Exit code 1: no match.

    \b
    Examples:
      relay subscriptions filter-test sub_… --event evt_…
      relay subscriptions filter-test --filter '{"payload": {"total": {"$gte": 100}}}' --data order.json
    """
    if (subscription_id is None) == (filter_ is None):
        raise click.UsageError("give either a SUBSCRIPTION or --filter")
    about = _one_of(event_id, _draft(type_, data, key, metadata) if data is not None else None, "--event or --data")
    if subscription_id is None:
        found = _ask_given(source, tenant, filter_, about)
    else:
        found = _ask_stored(source, tenant, subscription_id, about)
    if as_json:
        print_json(found)
    else:
        print_fields(fields_of(found))
    return 0 if found.matches else 1


def _ask_given(source: Source, tenant: str | None, filter_: dict[str, Any], about: str | Draft) -> FilterTest:
    from outbox.control.explain import try_filter

    if tenant is not None:
        source.refuse_by_api("--tenant", "of a filter that nobody has, the API asks as the tenant of the token")
    return source.ask(
        lambda connection: try_filter(connection, tenant, filter_, about),
        lambda: calls.ask_filter(sent_filter(filter_), **_sent(about)),
    )


def _ask_stored(source: Source, tenant: str | None, subscription_id: str, about: str | Draft) -> FilterTest:
    from outbox.control.explain import try_stored_filter

    source.require_tenant(subscription_id, tenant)
    return source.ask(
        lambda connection: try_stored_filter(connection, tenant, subscription_id, about),
        lambda: calls.ask_stored_filter(subscription_id, **_sent(about)),
    )


def _sent(about: str | Draft) -> dict[str, Any]:
    """Return an event or a draft as the API's body names it."""
    if isinstance(about, str):
        return {"event_id": about}
    return not_none(type=about.type, data=RawJSON(about.data), key=about.key, metadata=about.metadata)
