"""Which endpoints a receiver counts together. Discord has six host names; one limit counts for all."""

from __future__ import annotations

__all__ = ["Receiver", "hosts_alike", "receiver_of"]

Receiver = tuple[str, tuple[str, ...]]
"""A format, and hosts: what a hold is about that an answer of Scope.RECEIVER asks for."""

_DISCORD = tuple(f"{client}{name}.com" for name in ("discord", "discordapp") for client in ("", "canary.", "ptb."))
_SAME = (tuple(f"{host}{port}" for host in _DISCORD for port in ("", ":443")),)


def hosts_alike(url: str) -> tuple[str, ...]:
    """Return all names of the receiver of this URL, in lower case, as they may stand between its // and its path.

    Nothing where it is not known to be one receiver: the paths of a host may be of many who do not know each other, and
    what answers at one must not hold back another's.
    """
    host = (url.split("/", 3) + [""] * 3)[2].lower()  # as split_part does; the URL may have been written by hand
    return next((names for names in _SAME if host in names), ())


def receiver_of(form: str, url: str) -> Receiver | None:
    """Return which endpoints this one is held back with; None where it is alone."""
    hosts = hosts_alike(url)
    return (form, hosts) if hosts else None
