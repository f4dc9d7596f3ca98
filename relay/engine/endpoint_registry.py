"""The registry of endpoints: the subscriptions that this process knows, each at one version of its row.

Versions are compared for equality only: a standby that is promoted, or a backup, takes them back. Where the data come
from another server or timeline (relay.store.database has the origin), not even an equal version says anything, and
`distrust` forgets all.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from relay.engine.endpoint import Endpoint
from relay.engine.forgotten_endpoints import Answered
from relay.engine.freed_memory import give_back
from relay.engine.gate import HAND_BACK_SECONDS, Gate
from relay.engine.slots import Slots
from relay.engine.tenants import Tenants
from relay.model.alike import receiver_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from relay.engine.endpoint import Owner
    from relay.model.alike import Receiver
    from relay.model.subscription import SubscriptionVersion
    from relay.secrets.keyring import Keyring

__all__ = ["Endpoints"]

SHRINK_FROM = 1024
KNOWN_MAX = 10_000  # some 3.5 kB each; more subscriptions than this are read again as they come round
LOOK_AT = 2048 + 1  # as many may have something leased


class Endpoints:
    """Endpoints by the id of their subscription; each may have at most `window_max` requests on the wire."""

    def __init__(self, window_max: int, keyring: Keyring, tenants: Tenants | None = None) -> None:
        self._window_max = window_max
        self._keyring = keyring
        self._tenants = tenants or Tenants()
        self._known: dict[bytes, Endpoint] = {}
        self._not_sendable: set[bytes] = set()
        self._distrusted: set[bytes] = set()
        self.unproven: set[bytes] = set()  # those of the known that do not answer
        self._tenant_slots: WeakValueDictionary[bytes, Slots] = WeakValueDictionary()
        self.gated: dict[bytes, Endpoint] = {}  # those with limits
        self.batching: set[bytes] = set()  # those that have batches
        self.thirsty: dict[Endpoint, None] = {}  # those with something leased that waits for a limit
        self.resting: dict[bytes, float] = {}  # those that a limit lets nothing to, and until when (limiter.py)
        self._answered = Answered()
        self._held: dict[Receiver, float] = {}  # until when, by the monotonic clock
        self._written: set[bytes] = set()  # of which the database knows; resumed: those that a person resumed since
        self._resumed: set[bytes] = set()
        self._most = 0  # endpoints known at once since the tables were made

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._known.values())

    def get(self, subscription_id: bytes) -> Endpoint | None:
        """Return the endpoint of this subscription, or None when it is not known here."""
        return self._known.get(subscription_id)

    def answers(self, subscription_id: bytes) -> bool:
        """Tell whether this subscription's endpoint answered when it was last asked, even if it was forgotten since."""
        endpoint = self._known.get(subscription_id)
        return subscription_id in self._answered if endpoint is None else endpoint.answers

    def note_answers(self, endpoint: Endpoint) -> None:
        """Note whether an endpoint answers; call it whenever that changed."""
        change = self.unproven.discard if endpoint.answers else self.unproven.add
        change(endpoint.subscription.id)

    def tenant_of(self, subscription_id: bytes) -> str | None:
        """Return whose the subscription is; None when it is not known here."""
        endpoint = self._known.get(subscription_id)
        return None if endpoint is None else endpoint.subscription.tenant

    def version_of(self, subscription_id: bytes) -> int:
        """Return the version at which the subscription is known here; 0 when it is not, or distrusted."""
        endpoint = self._known.get(subscription_id)
        return 0 if endpoint is None or subscription_id in self._distrusted else endpoint.subscription.version

    def stale(self, versions: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Return the ids of those (id, version) that are not known here at this very version.

        Who asks is going to use all of them: none of those that are known becomes the one to forget next.
        """
        asked = list(versions)
        if len(self._known) >= KNOWN_MAX // 2:
            for subscription_id, _ in asked:
                if (endpoint := self._known.pop(subscription_id, None)) is not None:
                    self._known[subscription_id] = endpoint
        return [i for i, version in asked if self.version_of(i) != version]

    def outdated(self, versions: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Return the ids of those (id, version) that are known here at another version."""
        return [i for i, version in versions if i in self._known and self.version_of(i) != version]

    def with_unbegun(self) -> list[tuple[bytes, int]]:
        """Return the subscriptions (id, version) that have deliveries here that have not begun."""
        return [(i, self.version_of(i)) for i, one in self._known.items() if one.unbegun]

    def update(self, subscription: SubscriptionVersion, owner: Owner) -> Endpoint:
        """Store a subscription that was read from the database; return its endpoint, a new one with this owner."""
        endpoint = self._known.get(subscription.id)
        self._distrusted.discard(subscription.id)
        if endpoint is None:
            tenant = self._tenants.use_of(subscription.tenant)
            endpoint = Endpoint(subscription, self._window_max, self._keyring, owner, tenant, self)
            endpoint.window.answers = subscription.id in self._answered
            self._known[subscription.id] = endpoint
            self.note_answers(endpoint)
            self._most = max(self._most, len(self._known))
            if len(self._known) > KNOWN_MAX:
                self._forget_oldest()
        else:
            endpoint.update(subscription)
        if subscription.sendable_in_seconds <= 0 and subscription.id in self._written:
            self._written.remove(subscription.id)
            self._resumed.add(subscription.id)
        endpoint.send_nothing_for(self._held_until(subscription) - time.monotonic())
        if subscription.batch_events:
            self.batching.add(subscription.id)
        else:
            self.batching.discard(subscription.id)
        try:
            self._update_gate(endpoint)
        except Exception as error:  # noqa: BLE001 - it is logged, and one subscription must not end the process
            endpoint.refuse(error)
        return endpoint

    def _update_gate(self, endpoint: Endpoint) -> None:
        """Give an endpoint a gate if it has limits, and take it away when they are gone."""
        told = endpoint.subscription
        limited = told.rate_limit or told.max_in_flight or told.tenant_limit or told.slowed_to
        if endpoint.gate is None and not limited:
            return
        endpoint.gate = endpoint.gate or Gate(endpoint, self.thirsty)
        endpoint.gate.update(self._slots_of_tenant)
        if self.resting.pop(told.id, None) is not None:
            self.note_not_sendable(endpoint)  # the next sweep finds it sendable, and puts it back into the due map
        self._keep_gate(endpoint, endpoint.gate)

    def _slots_of_tenant(self, cell_id: bytes) -> Slots:
        slots = self._tenant_slots.get(cell_id)
        if slots is None:
            slots = self._tenant_slots[cell_id] = Slots(cell_id)
        return slots

    def _keep_gate(self, endpoint: Endpoint, gate: Gate) -> None:
        if gate.is_needed:
            self.gated[endpoint.subscription.id] = endpoint
        else:
            gate.close()
            endpoint.gate = None
            self.gated.pop(endpoint.subscription.id, None)

    def slow(self, endpoint: Endpoint, delivery_id: bytes) -> int:
        """Note that an endpoint that takes others refused this delivery; return how often it did so far."""
        endpoint.gate = endpoint.gate or Gate(endpoint, self.thirsty)
        self.gated[endpoint.subscription.id] = endpoint
        return endpoint.gate.note_refusal(delivery_id, endpoint.window)

    def end_slowing(self, subscription_id: bytes) -> None:
        """Note that this endpoint takes whatever it is sent again."""
        endpoint = self.gated.get(subscription_id)
        if endpoint is not None and endpoint.gate is not None:
            endpoint.gate.end_slowing()
            self._keep_gate(endpoint, endpoint.gate)

    def note_not_sendable(self, endpoint: Endpoint) -> None:
        """Remember that an endpoint is not sendable, until `take_sendable_again` names it."""
        self._not_sendable.add(endpoint.subscription.id)

    def hold_alike(self, receiver: Receiver, seconds: float) -> None:
        """Begin no attempt for so many seconds for any endpoint of this receiver, also one that is not known yet.

        Give back what waits for them. Another version of a subscription does not end it, unless a person resumed it:
        the receiver counts the address, and would be asked again too early. Another answer holds back those, too. Other
        processes learn of it from what is settled.
        """
        now = time.monotonic()
        self._resumed.clear()
        until = max(self._held.get(receiver, 0.0), now + seconds)
        self._held = {one: end for one, end in self._held.items() if end > now} | {receiver: until}
        for endpoint in [one for one in self if _receiver_of(one.subscription) == receiver]:
            endpoint.send_nothing_for(seconds)
            self.note_not_sendable(endpoint)
            endpoint.owner.give_back_unbegun(endpoint)

    def note_written(self, subscription_ids: Iterable[bytes]) -> None:
        """Note that the database knows of these holds.

        Who is read without one later was resumed by a person, got another URL, or the hold is over there.
        """
        if self._held:
            self._written.update(subscription_ids)
        else:
            self._written.clear()

    def _held_until(self, subscription: SubscriptionVersion) -> float:
        """Return until when those of its receiver are held back, by the monotonic clock; 0 where they are not."""
        receiver = _receiver_of(subscription) if self._held and subscription.id not in self._resumed else None
        return self._held.get(receiver, 0.0) if receiver else 0.0

    def may_be_probed(self, subscription_id: bytes) -> bool:
        """Tell whether a probe of this subscription could begin soon, for all that its format and limits say here.

        Where a limit lets nothing through for longer, the probe is not leased: its lease would end before its slot.
        """
        endpoint, now = self.get(subscription_id), time.monotonic()
        if endpoint is None:
            return True
        if self._held_until(endpoint.subscription) > now:
            return False
        return endpoint.gate is None or endpoint.gate.leases_nothing_until(now) <= now + HAND_BACK_SECONDS

    def may_be_asked(self, subscription_id: bytes) -> bool:
        """Tell whether nothing known here speaks against sending to this subscription."""
        if subscription_id in self.resting:
            return False
        return subscription_id not in self._not_sendable or self._known[subscription_id].is_sendable

    def take_sendable_again(self) -> list[bytes]:
        """Return the subscriptions that were not sendable and are again; name each once."""
        sendable = [i for i in self._not_sendable if self._known[i].is_sendable]
        self._not_sendable.difference_update(sendable)
        return sendable

    def forget(self, subscription_id: bytes) -> None:
        """Drop an endpoint that has nothing leased here; it is read again when it is needed."""
        endpoint = self._known.pop(subscription_id)
        if endpoint.gate is not None:
            endpoint.gate.close()
            self.gated.pop(subscription_id, None)
        self.resting.pop(subscription_id, None)
        self.batching.discard(subscription_id)
        self.unproven.discard(subscription_id)
        self._not_sendable.discard(subscription_id)
        self._distrusted.discard(subscription_id)
        if self._most >= SHRINK_FROM and len(self._known) * 4 <= self._most:
            self._shrink()

    def _forget_oldest(self) -> None:
        """Drop the endpoint that nobody asked for the longest and has nothing leased; it is read again when needed.

        One that is held back stays: the database may not know yet that it answered 410 or Retry-After. Whether it
        answers is kept: else, with more endpoints than are known at once, a healthy one would come back as unproven
        each time, and share what little those that hang may have.
        """
        for subscription_id in islice(self._known, LOOK_AT):
            endpoint = self._known[subscription_id]
            if not endpoint.leased and endpoint.is_sendable:
                self._answered.note(subscription_id, answers=endpoint.answers)
                self.forget(subscription_id)
                return

    def distrust(self) -> None:
        """Forget every endpoint; one that has something leased is read again before it takes anything more."""
        for subscription_id in [i for i, one in self._known.items() if not one.leased]:
            self.forget(subscription_id)
        self._distrusted = set(self._known)
        self._answered.clear()
        self._not_sendable.clear()
        self.resting.clear()

    def _shrink(self) -> None:
        """Make the tables anew, since those of Python never shrink, and give back what the endpoints held."""
        self._known, self._not_sendable = dict(self._known), set(self._not_sendable)
        self._distrusted, self.unproven = set(self._distrusted), set(self.unproven)
        self._most = len(self._known)
        give_back()


def _receiver_of(subscription: SubscriptionVersion) -> Receiver | None:
    return receiver_of(subscription.format, subscription.url)
