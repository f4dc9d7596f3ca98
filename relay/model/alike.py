"""Which endpoints a receiver counts together: those of one format at its host, whatever that is called."""

from __future__ import annotations

__all__ = ["Kind", "hosts_alike", "kind_of"]

Kind = tuple[str, tuple[str, ...]]
"""A format, and hosts: what a hold is about that an answer of Scope.FORMAT asks for."""

_SAME = (
    tuple(f"{client}{name}.com" for name in ("discord", "discordapp") for client in ("", "canary.", "ptb.")),
)  # fmt: skip


def hosts_alike(url: str) -> tuple[str, ...]:
    """Return the host of this URL (with its port, if the URL has one) and the other names of the same receiver."""
    host = (url.split("/", 3) + [""] * 3)[2]  # as split_part does; the URL may have been written by hand
    return next((names for names in _SAME if host in names), (host,))


def kind_of(form: str, url: str) -> Kind:
    """Return which endpoints this one is held back with.

    By the host, too: whoever makes a subscription of this format to a host of their own holds back nobody else.
    """
    return form, hosts_alike(url)
