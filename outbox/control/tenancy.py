"""Whose rows an operation sees: a tenant its own only, None, the operator, every tenant's.

Every operation takes the tenant who asks right after the connection. What is another tenant's is not found, in the same
words as what never existed. A delivery belongs to the tenant of its subscription: no tenant sees the deliveries of the
operator's subscriptions to every tenant's events (tenant `*`).
"""

from __future__ import annotations

from outbox.errors import NotFoundError

__all__ = ["OWN_DEAD_LETTER", "operator_only", "own"]


def own(column: str) -> str:
    """Return the SQL condition that a row is of the tenant who asks, `:asking`; null is the operator."""
    return f"(cast(:asking as text) is null or {column} = :asking)"


# A dead letter stays when its subscription is gone; then it is known by its own tenant alone.
OWN_DEAD_LETTER = f"{own('l.tenant')} and (cast(:asking as text) is null or s.tenant is distinct from '*')"
"""The condition that a row of dead_letters `l`, joined with its subscription `s`, is of the tenant who asks."""


def operator_only(tenant: str | None, what: str) -> None:
    """Raise NotFoundError where a tenant asks for what concerns all of them."""
    if tenant is not None:
        raise NotFoundError(f"{what}: there is none of a tenant; it is for the operator only")
