"""Try a subscription by HTTP: a test message, a look at the way to its endpoint, a preview, its filter."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, model_validator

from outbox.control.explain import Draft, try_filter, try_stored_filter
from outbox.control.filter_answers import FilterTest
from outbox.errors import RecordError
from relay.operations.endpoint_tests import preview as previews
from relay.operations.endpoint_tests.documents import CheckedEndpoint, SentTest
from relay.operations.endpoint_tests.test_and_check import check_endpoint, send_test
from relay.web.access import Reader, Writer
from relay.web.admission import awaiting_network
from relay.web.api.fields import EventMetadata
from relay.web.bodies import Body, ExactRoute, WrittenData
from relay.web.database import Reading, database_of
from relay.web.models import id_pattern, model_of

__all__ = ["router"]

router = APIRouter(tags=["trials"], route_class=ExactRoute)


class SendTest(Body):
    type: str = Field(default="outbox.test", max_length=128)
    data: Any = Field(default=None, description='Any JSON; without it {"test":true}.')


class AboutEvent(Body):
    """A recorded event, or a draft of one: type, data, key and metadata."""

    event_id: str | None = Field(default=None, pattern=id_pattern("evt"))
    type: str | None = Field(default=None, max_length=128)
    key: str | None = Field(default=None, max_length=1024)
    metadata: EventMetadata | None = None
    data: Any = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "AboutEvent":
        if (self.event_id is None) == ("data" not in self.model_fields_set):
            raise ValueError("give either event_id or data")
        if self.event_id is not None and self.model_fields_set & {"type", "key", "metadata"}:
            raise ValueError("type, key and metadata are a draft's: give them with data")
        return self


class PreviewEvent(AboutEvent):
    transformation: str | None = Field(
        default=None, max_length=4096, description="Tried in place of its own; '' for none."
    )


class TryFilter(AboutEvent):
    filter: dict[str, Any] = Field(description="A filter as subscriptions have it.")


@router.post("/subscriptions/{subscription_id}/test", response_model=model_of(SentTest))
async def send_test_message(
    writer: Writer, subscription_id: str, request: Request, written: WrittenData, body: SendTest | None = None
) -> Any:
    """Send one test message and tell request, answer and what to do, also to a paused one. At most 30 a minute."""
    kind = body.type if body else "outbox.test"
    meanwhile = partial(awaiting_network, request, writer.tenant)
    return await send_test(
        database_of(request), writer.tenant, subscription_id, type=kind, data=written, meanwhile=meanwhile
    )


@router.post("/subscriptions/{subscription_id}/check", response_model=model_of(CheckedEndpoint))
async def check_subscription(writer: Writer, subscription_id: str, request: Request) -> Any:
    """Look at the way to the endpoint and send nothing: secrets, DNS, policy, TCP, TLS."""
    meanwhile = partial(awaiting_network, request, writer.tenant)
    return await check_endpoint(database_of(request), writer.tenant, subscription_id, meanwhile=meanwhile)


@router.post("/subscriptions/{subscription_id}/preview", response_model=model_of(previews.PreviewedRequest))
async def preview_request(
    reader: Reader, subscription_id: str, request: Request, body: PreviewEvent, written: WrittenData
) -> Any:
    """Show the request that an event would be sent as, signed with an example secret, and send nothing."""
    event: str | previews.Draft
    if body.event_id is not None:
        event = body.event_id
    else:
        event = previews.Draft(
            data=_text(written), type=body.type or previews.DEFAULT_TYPE, key=body.key, metadata=body.metadata
        )
    return await previews.preview(
        database_of(request), reader.tenant, subscription_id, event, transformation=body.transformation
    )


@router.post("/subscriptions/{subscription_id}/filter-test", response_model=model_of(FilterTest))
def ask_stored_filter(call: Reading, subscription_id: str, body: AboutEvent, written: WrittenData) -> Any:
    """Ask its filter about an event or a draft."""
    return try_stored_filter(call.connection, call.tenant, subscription_id, _event_of(body, written))


@router.post("/filter-test", response_model=model_of(FilterTest))
def ask_filter(call: Reading, body: TryFilter, written: WrittenData) -> Any:
    """Ask a filter that nobody has about an event or a draft."""
    return try_filter(call.connection, call.tenant, body.filter, _event_of(body, written))


def _event_of(body: AboutEvent, written: str | None) -> str | Draft:
    if body.event_id is not None:
        return body.event_id
    return Draft(type=body.type or "test", data=_text(written), key=body.key, metadata=body.metadata)


def _text(written: str | None) -> str:
    if written is None:
        raise RecordError("data: is missing; give the draft's data")
    return written
