"""The admin's pages of the outbox: look, and the few things that are done by hand, each with a right of its own.

However large the tables are, a page costs the same. A list is of the newest `NEWEST` rows, and filters and the count
are within those; the search finds any row by an id, which has an index. Actions go through the functions of `outbox`,
so the audit notes who did it, by the name of Django's user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import Func, QuerySet, TextField
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from outbox._actor import act_as
from outbox._text import brief
from outbox.deliveries import retry
from outbox.django.bridge import connection as outbox_connection
from outbox.django.models import Attempt, DeadLetter, Delivery, Event, Subscription
from outbox.errors import NotFoundError, OutboxError
from outbox.ids import DeliveryId, EventId, Id, SubscriptionId
from outbox.replays import replay
from outbox.subscriptions import pause, resume
from outbox.subscriptions.checks import EVERY_TENANT

__all__ = ["NEWEST", "DeadLetterAdmin", "DeliveryAdmin", "EventAdmin", "SubscriptionAdmin"]

NEWEST = 10_000
"""How many rows a list is of, the newest."""
_ATTEMPTS_SHOWN = 50


class _Reading(admin.ModelAdmin):
    """A page that changes nothing; `finds` has the kind of id and the column for each prefix that the search takes."""

    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 0
    search_help_text = "An id, such as evt_…, dlv_… or sub_…"
    search_fields = ("pk",)  # so that there is a search box; get_search_results() is what it does
    finds: dict[str, tuple[type[Id], Callable[[UUID], dict[str, Any]]]]
    large: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return every row for a page about one, else the newest, without large columns."""
        every = self.every(request)
        if request.resolver_match is not None and "object_id" in request.resolver_match.kwargs:
            return every
        newest = every.order_by(*self.model._meta.ordering).values("pk")[:NEWEST]  # noqa: SLF001 - Django's public name
        return every.filter(pk__in=newest).defer(*self.large)

    def every(self, request: HttpRequest) -> QuerySet[Any]:
        """Return every row."""
        return super().get_queryset(request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows with this id, however old; none for what is no id of this page."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            kind, condition = self.finds[term.partition("_")[0]]
            wanted = condition(UUID(int=kind.of(term, "id").int))
        except (KeyError, NotFoundError):
            self.message_user(request, f"{brief(term)} is no id that is looked for here.", messages.WARNING)
            return queryset.none(), False
        every = self.every(request)
        return every.filter(pk__in=every.filter(**wanted).values("pk")[:NEWEST]).defer(*self.large), False

    def has_add_permission(self, request: HttpRequest, *_args: Any) -> bool:
        """Refuse: rows are made by recording and delivering."""
        return False

    def has_change_permission(self, request: HttpRequest, *_args: Any) -> bool:
        """Refuse: rows are changed by the functions of outbox."""
        return False

    def has_delete_permission(self, request: HttpRequest, *_args: Any) -> bool:
        """Refuse: rows go by delivery and retention."""
        return False

    def _may(self, request: HttpRequest, what: str) -> bool:
        return bool(request.user.has_perm(f"{self.opts.app_label}.{what}"))

    def _do(self, request: HttpRequest, queryset: QuerySet[Any], act: Callable[[Any, list[UUID]], object]) -> None:
        """Do something to the chosen rows in the user's name, all or none, and say what came of it."""
        chosen = list(queryset.order_by().values_list("pk", flat=True))
        try:
            with outbox_connection(queryset.db) as connection:
                act_as(connection, request.user.get_username())
                act(connection, chosen)
        except OutboxError as error:
            self.message_user(request, f"Nothing was changed. {error}", messages.ERROR)
        else:
            self.message_user(request, f"Done: {len(chosen)}.", messages.SUCCESS)


def _attempts(found: QuerySet[Any]) -> str:
    """Return the newest attempts as a table."""
    rows: Iterable[tuple[Any, ...]] = (
        (f"{one.at:%Y-%m-%d %H:%M:%S}Z", one.number, one.outcome, one.status or "", one.milliseconds, one.error or "")
        for one in found.order_by("-at")[:_ATTEMPTS_SHOWN]
    )
    row = "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} ms</td><td>{}</td></tr>"
    shown: str = format_html("<table>{}</table>", format_html_join("", row, rows))
    return shown


@admin.register(Event)
class EventAdmin(_Reading):
    """Events, newest first."""

    list_display = ("text_id", "type", "tenant", "key", "recorded_at")
    list_filter = ("recorded_at", "type")
    fields = (
        "text_id",
        "type",
        "tenant",
        "key",
        "priority",
        "recorded_at",
        "available_at",
        "metadata",
        "payload",
        "made",
    )
    readonly_fields = ("text_id", "made")
    finds = {"evt": (EventId, lambda uuid: {"uuid": uuid})}
    large = ("payload",)

    @admin.display(description="attempts")
    def made(self, event: Event) -> str:
        """Return its attempts, to every subscription."""
        return _attempts(Attempt.objects.using(event._state.db).filter(event_seq=event.seq))  # noqa: SLF001


@admin.register(Subscription)
class SubscriptionAdmin(_Reading):
    """Subscriptions; they are paused and resumed here."""

    list_display = ("text_id", "name", "tenant", "shown_url", "types", "paused_at", "disabled_at")
    list_filter = (("paused_at", admin.EmptyFieldListFilter), ("disabled_at", admin.EmptyFieldListFilter))
    finds = {"sub": (SubscriptionId, lambda uuid: {"pk": uuid})}
    actions = ("pause", "resume")

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may pause and resume."""
        return self._may(request, "pause_subscription")

    @admin.action(description="Pause: deliveries gather and wait", permissions=["pause"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Pause the chosen subscriptions."""
        self._do(request, queryset, lambda on, ids: [pause(on, str(one), tenant=EVERY_TENANT) for one in ids])

    @admin.action(description="Resume: send again, what gathered first", permissions=["pause"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Resume the chosen subscriptions."""
        self._do(request, queryset, lambda on, ids: [resume(on, str(one), tenant=EVERY_TENANT) for one in ids])


@admin.register(Delivery)
class DeliveryAdmin(_Reading):
    """Deliveries that are outstanding; those that wait for a retry can be made due now."""

    list_display = ("text_id", "state", "subscription", "due_at", "attempts")
    list_select_related = ("subscription",)
    fields = ("text_id", "state", "event", "subscription", "due_at", "attempts", "made")
    readonly_fields = ("text_id", "state", "made")
    finds = {
        "dlv": (DeliveryId, lambda uuid: {"pk": uuid}),
        "sub": (SubscriptionId, lambda uuid: {"subscription": uuid}),
    }
    actions = ("retry",)

    def every(self, request: HttpRequest) -> QuerySet[Any]:
        """Return every row, each with its state."""
        state = Func("due_at", "lease", function="outbox.state_of", output_field=TextField())
        return super().every(request).annotate(state=state)

    @admin.display(description="state")
    def state(self, delivery: Any) -> str:
        """Return due, waiting, parked, leased or lease ended."""
        return str(delivery.state)

    @admin.display(description="attempts made")
    def made(self, delivery: Delivery) -> str:
        """Return its attempts."""
        return _attempts(Attempt.objects.using(delivery._state.db).filter(delivery=delivery.pk))  # noqa: SLF001

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may retry."""
        return self._may(request, "retry_delivery")

    @admin.action(description="Retry now", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Make the chosen deliveries due now."""
        self._do(request, queryset, lambda on, ids: retry(on, ids, tenant=EVERY_TENANT))


@admin.register(DeadLetter)
class DeadLetterAdmin(_Reading):
    """Dead letters, newest first; they are replayed here."""

    list_display = ("text_id", "died_at", "type", "tenant", "subscription", "reason", "error", "attempts")
    list_select_related = ("subscription",)
    list_filter = ("died_at", "reason", "type")
    fields = (
        *("text_id", "event_text_id", "type", "tenant", "key", "subscription", "recorded_at", "died_at"),
        *("reason", "error", "attempts", "payload", "made"),
    )
    readonly_fields = ("text_id", "event_text_id", "made")
    finds = {
        "dlv": (DeliveryId, lambda uuid: {"pk": uuid}),
        "evt": (EventId, lambda uuid: {"event_seq__in": Event.objects.filter(uuid=uuid).values("pk")}),
        "sub": (SubscriptionId, lambda uuid: {"subscription": uuid}),
    }
    actions = ("replay",)
    large = ("payload",)

    @admin.display(description="attempts made")
    def made(self, letter: DeadLetter) -> str:
        """Return its attempts."""
        return _attempts(Attempt.objects.using(letter._state.db).filter(delivery=letter.pk))  # noqa: SLF001

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may replay."""
        return self._may(request, "replay_deadletter")

    @admin.action(description="Replay: deliver again", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Put the chosen dead letters back."""
        self._do(request, queryset, lambda on, ids: replay(on, ids, tenant=EVERY_TENANT))
