"""One attempt's result, as the database takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.model.outcome import UNCHARGED, OutcomeKind

if TYPE_CHECKING:
    from relay.model.delivery import Delivery
    from relay.model.outcome import Outcome
    from relay.model.verdict import Verdict

__all__ = ["Kept", "Settlement"]

MILLISECONDS_MAX = 2**31 - 1  # of an integer column
STATUS_MAX = 999  # what a smallint with a check takes; a receiver may answer 9999


class Kept(NamedTuple):
    """What the attempt's row keeps of the request and its answer."""

    error: str | None = None
    address: str | None = None
    headers: str | None = None
    excerpt: bytes | None = None
    url: str | None = None  # as it may be shown

    def __repr__(self) -> str:
        return f"Kept(error={self.error!r})"  # the answer may repeat a secret


class Settlement(NamedTuple):
    """The outcome and verdict of an attempt, and what is kept of its answer.

    url: where the request went. The verdict's change of the endpoint is about this URL, whatever is kept.
    kept: None when nothing of the answer is kept.
    noted: whether it says something of the endpoint's health that has to be written.
    """

    delivery: Delivery
    verdict: Verdict
    url: str
    outcome: OutcomeKind
    status: int | None
    milliseconds: int
    kept: Kept | None = None
    noted: bool = False

    @classmethod
    def of(
        cls, delivery: Delivery, verdict: Verdict, outcome: Outcome, url: str, shown: str | None, *, noted: bool = False
    ) -> Settlement:
        """Make a settlement within the database's limits.

        `shown`: the URL as it may be shown, kept with the details of the answer; None: keep none of them.
        """
        kept = Kept(outcome.error, outcome.address, outcome.headers, outcome.excerpt, shown) if shown else None
        status, milliseconds = outcome.status, outcome.milliseconds
        if status is not None and status > STATUS_MAX:
            status = None
        if milliseconds > MILLISECONDS_MAX:
            milliseconds = MILLISECONDS_MAX
        kind = outcome.kind if verdict.charged or outcome.kind in UNCHARGED else OutcomeKind.SLOWED
        return cls(delivery, verdict, url, kind, status, milliseconds, kept, noted)

    def of_members(self) -> list[Settlement]:
        """Return the settlements of a batch's members.

        The request counts once for the health of the endpoint, and the first member keeps all of the answer.
        """
        brief = self.kept and self.kept._replace(headers=None, excerpt=None)
        first, *others = self.delivery.members
        rest = (self._replace(delivery=one, kept=brief, noted=False) for one in others)
        return [self._replace(delivery=first), *rest]
