"""Calls about the whole of it: status, findings, the switch of all sending, the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.control.audit import AuditEntry
from outbox.control.findings import Finding
from relay.client.calls.making import get_one, get_page, not_none, send
from relay.operations.sending_switch import Resumed, Sending

if TYPE_CHECKING:
    from outbox.control.pages import Page
    from relay.client.call import Call
    from relay.operations.status.documents import Status

__all__ = ["get_audit", "get_findings", "get_sending", "get_status", "pause_sending", "resume_sending"]


def get_status() -> Call[Status]:
    """Tell what is stuck, why, and whether anything was lost."""
    from relay.operations.status.documents import Status

    return get_one(Status, "/status")


def get_findings() -> Call[tuple[Finding, ...]]:
    """List what a person should look at."""
    return get_one(tuple[Finding, ...], "/findings")


def get_sending() -> Call[Sending]:
    """Show the switch of all sending."""
    return get_one(Sending, "/sending")


def pause_sending(reason: str | None = None) -> Call[Sending]:
    """Stop all sending."""
    return send(Sending, "POST", "/sending/pause", body=not_none(reason=reason))


def resume_sending() -> Call[Resumed]:
    """Let all relays send again."""
    return send(Resumed, "POST", "/sending/resume")


def get_audit(**filters: Any) -> Call[Page[AuditEntry]]:
    """List who changed what; filters: since, until, tenant, subject, actor, action, after, limit."""
    return get_page(AuditEntry, "/audit", **filters)
