"""Alerts for PagerDuty's Events API v2. The routing key is a secret: it stands in the body and is shown nowhere."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from relay.message.formats.json_text import shown
from relay.message.formats.maker import FormatError
from relay.message.formats.wording import cut, data_lines, fill, when
from relay.model.event import Body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.message.formats.maker import Family, Make
    from relay.model.event import EventParts

__all__ = ["FORMATS"]

_SUMMARY, _DEDUP_KEY, _BODY_BYTES = 1024, 255, 524_288


def _pagerduty(settings: Mapping[str, Any], secret: str) -> Make:
    action = settings.get("action", "trigger")
    before = {"routing_key": secret, "event_action": action}

    def make(event: EventParts) -> Body:
        message: dict[str, Any] = before | {"dedup_key": _dedup_key(action, event)}
        if action != "trigger":
            return Body(_json(message))
        summary = fill(settings["summary"], event, str, _SUMMARY) if "summary" in settings else _summary(event)
        alert = {
            "summary": cut(summary, _SUMMARY), "source": settings.get("source", "outbox"),
            "severity": settings.get("severity", "error"), "timestamp": when(event), "class": event.type.decode(),
        }  # fmt: skip
        details = b'{"id":"%b","type":"%b","data":%b}' % (event.id, event.type, event.payload)
        body = _body(message, alert, details)
        if len(body) > _BODY_BYTES:
            body = _body(message, alert, _json({"id": event.id.decode(), "data": data_lines(event)}))
        return Body(body)

    return make


def _body(message: Mapping[str, Any], alert: Mapping[str, Any], details: bytes) -> bytes:
    """Return the whole, with the details put in unparsed."""
    return b'%b,"payload":%b,"custom_details":%b}}' % (_json(message)[:-1], _json(alert)[:-1], details)


def _dedup_key(action: str, event: EventParts) -> str:
    """Return what is concerned: the event's key, or its id for an alert that nothing will resolve."""
    if not event.key:
        if action != "trigger":
            raise FormatError(f"key: is empty, so nothing tells which alert to {action}; record the event with a key")
        return event.id.decode()
    key = f"{event.tenant}:{event.key}" if event.tenant else event.key
    return key if len(key) <= _DEDUP_KEY else hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _summary(event: EventParts) -> str:
    return f"{event.type.decode()}: {shown(event.key)}" if event.key else event.type.decode()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


FORMATS: Mapping[str, Family] = {"pagerduty": _pagerduty}
