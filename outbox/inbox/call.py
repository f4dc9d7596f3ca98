"""One call of the inbox, checked before anything is written: the request, the secrets, and the rules of its source."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from outbox._text import MAX_TENANT_BYTES, brief, complaint
from outbox.errors import ArgumentError
from outbox.inbox import rows
from outbox.inbox.binding import Binding, bind
from outbox.inbox.request import Request
from outbox.secret import hides_secrets
from outbox.signing.verify import Secrets

__all__ = ["Call", "Rules", "checked_call"]

KEPT_BYTES = 65_536
_MOST_KEPT_BYTES = 1_048_576
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Rules(TypedDict, total=False):
    """How a source is received.

    scheme: as for `outbox.verify`, standard by default. tolerance_seconds: likewise. id: where the message's id is: the
    name of a header, or a function of the Request; by default what the signature covers, else the SHA-256 of the body.
    tenant: whose, '' by default. keep_bytes: so much of the body is kept with the row, 65536 by default; 0 keeps none.
    now: seconds since 1970 UTC, for tests.
    """

    scheme: str
    tolerance_seconds: float | None
    id: str | Callable[[Request], str] | None
    tenant: str
    keep_bytes: int
    now: float | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call, checked: everything but what the request says. It shows no secret, so it may stand in any frame."""

    request: Request
    secrets: Secrets = field(repr=False)
    source: str
    scheme: str
    tolerance_seconds: float | None
    id: str | Callable[[Request], str] | None
    tenant: str
    keep_bytes: int
    now: float | None
    began: float = field(default_factory=time.monotonic)
    target: Binding | None = None

    def on(self, session: Any) -> Call:
        """Return the call on this session. Raises ArgumentError."""
        return replace(self, target=bind(session))

    @property
    def binding(self) -> Binding:
        """What carries the receiver's transaction."""
        assert self.target is not None
        return self.target

    @property
    def kept(self) -> bytes | None:
        """The part of the body that is kept."""
        return self.request.body[: self.keep_bytes] if self.keep_bytes and not self.request.too_large else None

    def columns(self, **more: Any) -> dict[str, Any]:
        """Return the columns of this request's row."""
        named = self.id if isinstance(self.id, str) else None
        described = rows.described(self.request, named)
        return {"tenant": self.tenant, "source": self.source, "scheme": self.scheme} | described | more


@hides_secrets
def checked_call(request: Any, secrets: Secrets, source: str, rules: Rules) -> Call:
    """Return the call; raises ArgumentError for a wrong one, before anything is written."""
    if unknown := set(rules) - set(Rules.__annotations__):
        raise ArgumentError(f"{min(unknown)}: there is no such argument")
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        raise ArgumentError("source: must be one word of letters, digits, . _ -, such as n8n; at most 64")
    tenant, keep, found = rules.get("tenant", ""), rules.get("keep_bytes", KEPT_BYTES), rules.get("id")
    if wrong := complaint("tenant", tenant, MAX_TENANT_BYTES):
        raise ArgumentError(wrong)
    if type(keep) is not int or not 0 <= keep <= _MOST_KEPT_BYTES:
        raise ArgumentError(f"keep_bytes: must be a whole number from 0 to {_MOST_KEPT_BYTES}, not {brief(keep)}")
    if found is not None and not callable(found) and not (isinstance(found, str) and found):
        raise ArgumentError(f"id: must be the name of a header or a function of the Request, not {brief(found)}")
    return Call(
        Request.of(request), secrets, source, rules.get("scheme", "standard"), rules.get("tolerance_seconds"), found,
        tenant, keep, rules.get("now"),
    )  # fmt: skip
