"""Write subscriptions as a file that declares them: applied to the same database, it changes nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.tenancy import own
from outbox.errors import SubscriptionError
from outbox.formats import shown_url
from outbox.subscriptions.checks import check_name
from outbox.subscriptions.fields import COLUMNS, SECRETS
from outbox.subscriptions.managed import StoredSubscription, read_named
from relay.operations.subscription_file.document import TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

__all__ = ["export_subscriptions"]

_UNNAMED = text(
    f"select count(*) from outbox.subscriptions where name is null and removed_at is null and {own('tenant')}"  # noqa: S608
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_KEEP = {"keep": True}


def export_subscriptions(connection: Connection, tenant: str | None, *, manager: str | None) -> tuple[str, int]:
    """Return a file of the named subscriptions, and how many have no name and are left out.

    What is secret is not in it: `{ keep = true }` says that it stays as it is stored.

    Args:
        connection: to the database.
        tenant: whose; None is every tenant's.
        manager: the file's, which has what it made and what nobody manages; None where there is only one.

    Raises:
        SubscriptionError: there are several managers, or the name is none.
    """
    stored = read_named(connection, tenant)
    whose = check_name("manager", manager) if manager is not None else _only_manager(stored)
    unnamed = connection.execute(_UNNAMED, {"asking": tenant}).scalar_one()
    tables = [_table(one) for one in stored if one.managed_by in (None, whose)]
    return "\n".join([f"manager = {_value(whose)}\n", *tables]), unnamed


def _only_manager(stored: Sequence[StoredSubscription]) -> str:
    managers = sorted({one.managed_by for one in stored if one.managed_by is not None})
    if len(managers) > 1:
        raise SubscriptionError(f"manager: there are several; choose one of {', '.join(managers)}")
    return managers[0] if managers else "export"


def _table(one: StoredSubscription) -> str:
    fields: dict[str, Any] = {"name": one.name}
    if one.tenant:
        fields |= {"every_tenant": True} if one.tenant == "*" else {"tenant": one.tenant}
    if one.scheme != "standard":
        fields["scheme"] = one.scheme
    fields |= {each.name: one.columns[each.name] for each in COLUMNS if one.columns[each.name] != each.default}
    url = one.columns["url"]
    fields["url"] = _KEEP if shown_url(url, one.columns["format"]) != url else url
    fields |= {each.name: _KEEP for each in SECRETS if each.name in one.secrets}
    return "".join([f"[[{TABLE}]]\n", *(f"{name} = {_value(value)}\n" for name, value in fields.items())])


def _value(value: Any) -> str:
    """Return a value as TOML has it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return _inline_table(value)
    return str(value)


def _inline_table(table: Mapping[str, Any]) -> str:
    pairs = [f"{name if _BARE.fullmatch(name) else _string(name)} = {_value(one)}" for name, one in table.items()]
    return f"{{ {', '.join(pairs)} }}" if pairs else "{}"


def _string(text: str) -> str:
    """Return a basic string of TOML: its escapes are those of JSON, and U+007F is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
