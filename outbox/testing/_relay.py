"""The relay inside `drain()`: an engine that runs until it is drained, and again when time has passed."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.secret import Secret
from outbox.subscriptions.addresses import AddressPolicy, literal_address
from outbox.subscriptions.url import Url
from relay.engine.engine import Engine, EngineOptions
from relay.engine.meter import Unmetered
from relay.engine.room import Room
from relay.http.configured import USER_AGENT
from relay.http.dial import DirectDialler
from relay.http.sender import HttpSender
from relay.model.settlement import Settlement
from relay.secrets.keyring import Keyring
from relay.store.database import Database
from relay.store.virtual_time import find_next_time, pass_time

__all__ = ["drain"]

IN_FLIGHT = 64
VAIN_ROUNDS_MAX = 3
"""After so many rounds in which nothing could be sent, such as of sealed secrets, nothing will be."""


class OnlyNamed(AddressPolicy):
    """Allows the networks that were named and nothing else: a test calls nobody's real endpoint."""

    def refusal(self, address: object) -> str | None:
        """Return why this address may not be dialled."""
        return None if self.adds(str(address)) else f"drain() calls only allow_networks, and {address} is in none"

    def refusal_of_url(self, url: Url) -> str | None:
        """Return why nothing is sent to this URL; a name is not even looked up, but for localhost."""
        if literal_address(url.host) is None and url.host != "localhost":
            return f"drain() looks no name up, and {url.host} is one; subscribe an address such as 127.0.0.1"
        return super().refusal_of_url(url)


async def drain(conninfo: str, within_seconds: float, networks: Sequence[str], keys: Sequence[Secret]) -> None:
    """Send until nothing is left that is due, or comes due within so many seconds."""
    sender = HttpSender(
        DirectDialler(OnlyNamed(networks, allow_http=True)),
        user_agent=USER_AGENT,
        connections_per_endpoint=IN_FLIGHT,
    )
    database, keyring = Database(conninfo), Keyring(keys)
    try:
        vain = 0
        while vain < VAIN_ROUNDS_MAX:
            vain = 0 if await _send_what_is_due(conninfo, sender, keyring) else vain + 1
            wait = await find_next_time(database)
            if wait is None or wait > within_seconds:
                return
            await pass_time(database, wait)
            within_seconds -= wait
    finally:
        await database.close()
        await sender.close()


async def _send_what_is_due(conninfo: str, sender: HttpSender, keyring: Keyring) -> int:
    """Run an engine until it is drained, a new one, which remembers no time. Return how many attempts were settled."""
    settled = _Settled()
    options = EngineOptions(until_drained=True, idle_poll_seconds=0.01, meter=settled)
    await Engine(conninfo, sender, Room(IN_FLIGHT), keyring, options, random_number=lambda: 0.0).run()
    return settled.count


class _Settled(Unmetered):
    """Counts results that were stored."""

    count = 0

    def settled(self, batch: Sequence[Settlement], buried: int, now: float) -> None:  # noqa: ARG002
        """Take results that were stored."""
        self.count += len(batch)
