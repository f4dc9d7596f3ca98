"""What requests hold: filters of lists, choices of rows, and the settings of a subscription made from their fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator
from sqlalchemy import Connection

from outbox.control.filters import FAILED, OUTCOMES, Filters
from outbox.control.times import moment_of
from outbox.ids import DeliveryId
from outbox.subscriptions.authentication import TLS, BasicAuth, BearerToken, OAuth2ClientCredentials
from outbox.subscriptions.declaration import REQUIRED
from outbox.subscriptions.declaration import Field as Declared
from outbox.subscriptions.fields import Changes, Settings
from relay.web.access import Principal
from relay.web.bodies import Body
from relay.web.database import Call
from relay.web.models import id_pattern
from relay.web.problems import Problem

__all__ = [
    "AttemptFilter", "ChangedSettings", "Chosen", "DeliveryFilter", "EventFilter", "EventMetadata", "GivenSettings",
    "PageQuery", "Query_", "SubscriptionName", "TenantName", "When", "Window", "given_in", "tenant_of",
]  # fmt: skip

MAX_PAGE = 1000
MAX_CHOSEN = 10_000


def _checked_moment(text: str) -> str:
    moment_of(text)
    return text


_MOMENT = r"^([0-9]{1,6}[smhdw]|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].{5,30})?)$"
Time = Annotated[
    str,
    Field(pattern=_MOMENT, description="RFC 3339 with its offset, a day (UTC), or how long ago: 90s, 15m, 2h, 3d, 1w."),
    AfterValidator(_checked_moment),
]
TenantName = Annotated[str, Field(max_length=256, description="Whose; '' where there are no tenants.")]
EventMetadata = Annotated[
    dict[str, str],
    Field(description="Text by name. Filters and transformations see it, receivers do not; at most 8 kB."),
]
SubscriptionName = Annotated[str, Field(pattern=id_pattern("sub"))]
_TypePattern = Annotated[str, Field(max_length=128, description="An event type, or a prefix and .*")]
_Key = Annotated[str, Field(max_length=1024)]
_ById = Callable[[Connection, str | None, Sequence[UUID | str]], list[DeliveryId]]
_ByFilter = Callable[[Connection, str | None, Filters], list[DeliveryId]]


class Query_(BaseModel):  # noqa: N801 - FastAPI has a Query
    """A query: a parameter that is not known is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class PageQuery(Query_):
    """A page of a list."""

    after: str | None = Field(default=None, max_length=2000, description="The cursor in the link to the next page.")
    limit: int = Field(default=50, ge=1, le=MAX_PAGE)


class When(BaseModel):
    """Between two times."""

    since: Time | None = None
    until: Time | None = None

    @property
    def window(self) -> dict[str, Any]:
        """The times that are given, as filters take them."""
        return {name: moment_of(text) for name in ("since", "until") if (text := getattr(self, name)) is not None}


_NAMES = ("type", "tenant", "key", "subscription", "event", "outcome", "status", "text", "limit")


class Window(PageQuery, When):
    """A page of what was between two times, of a tenant."""

    tenant: TenantName | None = None

    def filters(self) -> Filters:
        """Return the filters that operations take."""
        given = {name: getattr(self, name) for name in _NAMES if hasattr(self, name)}
        return Filters(**self.window, **given)


class EventFilter(Window):
    """A page of events."""

    type: _TypePattern | None = None
    key: _Key | None = None
    text: str | None = Field(default=None, min_length=1, max_length=200, description="Looked for as it is written.")


class DeliveryFilter(EventFilter):
    """A page of what belongs to events and subscriptions."""

    subscription: SubscriptionName | None = None
    event: Annotated[str, Field(pattern=id_pattern("evt"))] | None = None


class AttemptFilter(DeliveryFilter):
    """A page of attempts, or of what is narrowed by them."""

    outcome: Literal[FAILED, *OUTCOMES] | None = Field(default=None, description="failed is all but delivered.")  # type: ignore[valid-type]
    status: (
        Annotated[str, Field(pattern="^([1-9][0-9]{2}|[1-9][xX]{2})$", description="503, or a class: 5xx.")] | None
    ) = None


class MatchingFilter(Body, When):
    """At least one filter."""

    type: _TypePattern | None = None
    tenant: TenantName | None = None
    key: _Key | None = None
    subscription: SubscriptionName | None = None
    limit: int = Field(default=1000, ge=1, le=MAX_CHOSEN)

    @model_validator(mode="after")
    def _at_least_one(self) -> "MatchingFilter":
        if self.filters().empty:
            raise ValueError("filter: give at least one of since, until, type, tenant, key, subscription")
        return self

    def filters(self) -> Filters:
        """Return the filters that operations take."""
        names = ("type", "tenant", "key", "subscription", "limit")
        return Filters(**self.window, **{name: getattr(self, name) for name in names})


class Chosen(Body):
    """Which rows: by `ids` or by `filter`, not both. With `dry_run` nothing is changed."""

    ids: list[Annotated[str, Field(pattern=id_pattern("dlv", "evt"))]] | None = Field(
        None, min_length=1, max_length=1000
    )
    filter: MatchingFilter | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> "Chosen":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or filter")
        return self

    def find(self, call: Call, by_id: _ById, by_filter: _ByFilter) -> tuple[list[DeliveryId], Filters | None]:
        """Return what is chosen, as one of these two operations finds it, and the filters that found it."""
        filters = self.filter.filters() if self.filter else None
        if filters is None:
            return by_id(call.connection, call.tenant, self.ids or ()), None
        return by_filter(call.connection, call.tenant, filters), filters


def tenant_of(principal: Principal, given: str | None) -> str:
    """Return whose something is that is made: the token's tenant, or for the operator the one that is named."""
    if principal.tenant is None:
        return given or ""
    if given not in (None, principal.tenant):
        raise Problem(422, "invalid", "tenant: this token is of another tenant", mend="leave tenant out")
    return principal.tenant


def given_in(body: BaseModel, *left_out: str) -> dict[str, Any]:
    """Return the members that a body has, also those that are null, as the verbs of subscriptions take them."""
    return {
        name: value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        for name in body.model_fields_set
        if name not in left_out
        for value in [getattr(body, name)]
    }


def _credential(document: Any, **more: Any) -> Any:
    """Return the body of a credential, from its fields."""
    hints = get_type_hints(document)
    given = {one.name: (hints[one.name], ... if one.default is MISSING else one.default) for one in fields(document)}
    return create_model(f"{document.__name__}Given", __base__=Body, __doc__=document.__doc__, **(more | given))


_AUTHENTICATIONS = {"basic": BasicAuth, "bearer": BearerToken, "oauth2": OAuth2ClientCredentials}
_Authentication: Any = Annotated[
    Union[tuple(_credential(kind, type=(Literal[name], ...)) for name, kind in _AUTHENTICATIONS.items())],  # noqa: UP007
    Field(discriminator="type"),
]
_GIVEN: dict[str, Any] = {
    "authentication": _Authentication | None,
    "tls": _credential(TLS) | None,
    "format_secret": str | None,
}


def _settings(name: str, declaring: type, base: type[BaseModel]) -> type[BaseModel]:
    """Return a body with the fields that a TypedDict declares; each may be left out."""
    hints = get_type_hints(declaring, include_extras=True)
    found = {one: _field(one, hint) for one, hint in hints.items()}
    return create_model(name, __base__=base, **found)


def _field(name: str, hint: Any) -> Any:
    declared: Declared = hint.__metadata__[0]
    taken = _GIVEN.get(name, _json_type(hint.__origin__))
    words = declared.documentation + ("" if declared.default is REQUIRED else " Null is the default.")
    return (taken, Field(default=None, description=words))


def _json_type(hint: Any) -> Any:
    """Return a type as JSON has it: list for Sequence, dict for Mapping."""
    origin, inner = get_origin(hint), get_args(hint)
    if not inner:
        return hint
    shown = tuple(_json_type(one) for one in inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[shown[0], shown[1]]  # type: ignore[valid-type]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return list[shown[0]]  # type: ignore[valid-type]
    return Union[shown]  # noqa: UP007


GivenSettings = _settings("Settings", Settings, Body)
"""The settings of a subscription that is made."""

ChangedSettings = _settings("Changes", Changes, Body)
"""What is changed of a subscription; null puts a setting back to its default."""
