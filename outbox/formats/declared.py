"""The formats, one row each: what a body is called on the wire, and what a subscription may set of it.

A setting's check gets its path for error texts and the value, and returns what to store or raises SubscriptionError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from outbox._text import brief, did_you_mean
from outbox.errors import SubscriptionError
from outbox.formats import cloudevents
from outbox.formats.template import check_template

__all__ = ["FORMATS", "Format", "Setting", "check_settings", "named", "warnings_of"]


class Setting(NamedTuple):
    """What a subscription may set of a format."""

    check: Callable[[str, object], Any]
    meaning: str


class Format(NamedTuple):
    """One format.

    content_type: of a request. It may be replaced by a setting `datacontenttype`.
    summary: one line for people.
    settings: by name. secret: what its one secret is, '' where it has none; secret_pattern: what it looks like.
    batch: the content type of several events in one body; '' where a receiver takes one event at a time.
    headers: what it adds to a request's headers, in lower case; `ce-` stands for all that begin so.
    user_agent: which takes the relay's place, if the subscription has none of its own.
    hides_url: whether the URL itself is a credential, so that it is never shown whole.
    """

    name: str
    content_type: str
    summary: str
    settings: Mapping[str, Setting] = MappingProxyType({})
    secret: str = ""
    secret_pattern: str = ""
    batch: str = ""
    headers: tuple[str, ...] = ()
    user_agent: str | None = None
    hides_url: bool = False


def _one_of(*words: str) -> Callable[[str, object], str]:
    def check(path: str, value: object) -> str:
        if value not in words:
            raise SubscriptionError(f"{path}: {brief(value)} is not one of {', '.join(words)}")
        return str(value)

    return check


def _key_as(path: str, value: object) -> str:
    return str(value) if value in ("subject", "") else cloudevents.attribute_name(path, value)


def _tenant_as(path: str, value: object) -> str:
    return "" if value == "" else cloudevents.attribute_name(path, value)


def _username(path: str, value: object) -> str:
    name = cloudevents.string(path, value)
    if len(name) > 80 or any(word in name.lower() for word in ("clyde", "discord")):
        raise SubscriptionError(
            f"{path}: {brief(name)} is no name that Discord takes: at most 80 characters, no discord"
        )
    return name


_CLOUDEVENTS = MappingProxyType({
    "source": Setting(cloudevents.uri_reference, "who sends: a URI-reference, /outbox by default"),
    "subject": Setting(cloudevents.string, "the attribute subject, the same for every event"),
    "datacontenttype": Setting(cloudevents.media_type, "the data's media type; if it is not JSON, the data is text"),
    "dataschema": Setting(cloudevents.absolute_uri, "an absolute URI"),
    "data_encoding": Setting(_one_of("base64"), "base64: the data is text in base64, to be sent as bytes"),
    "key_as": Setting(_key_as, "the attribute for the event's key: partitionkey by default, subject, '' for none"),
    "tenant_as": Setting(_tenant_as, "the attribute that takes the event's tenant, none by default"),
    "extensions": Setting(cloudevents.extensions, "further attributes: extensions.NAME=VALUE"),
})  # fmt: skip
_CHAT = {"text": Setting(check_template, "what to say, such as 'Order {data.order}'; type and data by default")}
_PAGERDUTY = MappingProxyType({
    "action": Setting(_one_of("trigger", "acknowledge", "resolve"), "trigger by default; others need an event's key"),
    "severity": Setting(_one_of("critical", "error", "warning", "info"), "error by default"),
    "source": Setting(cloudevents.string, "what is affected, outbox by default"),
    "summary": Setting(check_template, "the alert's line, such as 'Job {data.job} failed'; the type by default"),
})  # fmt: skip
_JSON, _CE = "application/json", "application/cloudevents+json"
_ROWS = (
    Format("standard", _JSON, "type, timestamp and data, as Standard Webhooks has it", batch=_JSON),
    Format("raw", _JSON, "the data alone, in its exact text", batch=_JSON),
    Format("thin", _JSON, "id and type only; the receiver fetches the rest", batch=_JSON),
    Format("cloudevents", _CE, "CloudEvents 1.0, structured: everything is in the body, so it is signed", _CLOUDEVENTS,
           batch="application/cloudevents-batch+json"),
    Format("cloudevents-binary", _JSON, "CloudEvents 1.0, binary: attributes are headers, which no signature covers",
           _CLOUDEVENTS, headers=("ce-",)),
    Format("notely", _JSON, "event_type and data"),
    Format("fulfil", _JSON, "event, timestamp and data, with X-Webhook-Event", headers=("x-webhook-event",),
           user_agent="FulFil-Webhook/1.0"),
    Format("soundhash", _JSON, "type, timestamp and data, the time without fractions where it has none"),
    Format("leads", _JSON, "event, timestamp and data, for n8n as `leads` has it"),
    Format("slack", _JSON, "a message for a Slack incoming webhook", _CHAT, hides_url=True),
    Format("discord", _JSON, "a message for a Discord webhook, which pings nobody",
           MappingProxyType(_CHAT | {"username": Setting(_username, "who it is from, at most 80 characters")}),
           hides_url=True),
    Format("teams", _JSON, "an adaptive card for a Microsoft Teams workflow", _CHAT, hides_url=True),
    Format("pagerduty", _JSON, "an alert for PagerDuty's Events API v2", _PAGERDUTY, secret="PagerDuty routing key",  # noqa: S106 - what it is called
           secret_pattern="[0-9A-Za-z]{32}"),  # noqa: S106
    Format("n8n", _JSON, "id, type, timestamp and data for n8n's Webhook node", hides_url=True),
    Format("zapier", _JSON, "one flat object for Webhooks by Zapier", hides_url=True),
)  # fmt: skip

FORMATS = MappingProxyType({row.name: row for row in _ROWS})
"""Every format, by name."""


def named(name: object) -> Format:
    """Return the format of this name. Raises SubscriptionError."""
    found = FORMATS.get(name) if isinstance(name, str) else None
    if found is None:
        mend = did_you_mean(name if isinstance(name, str) else "", FORMATS, f"choose one of {', '.join(FORMATS)}")
        raise SubscriptionError(f"format: {brief(name)} is not known{mend}")
    return found


def check_settings(form: Format, given: Mapping[str, object]) -> dict[str, Any]:
    """Return a format's settings as they are stored. Raises SubscriptionError that names the first one refused."""
    for name in given:
        if name not in form.settings:
            there = (
                f"there are {', '.join(form.settings)}" if form.settings else "it has none; give format_settings=None"
            )
            mend = did_you_mean(name, form.settings, there)
            raise SubscriptionError(f"format_settings: {brief(name)} is no setting of {form.name}{mend}")
    checked = {name: form.settings[name].check(f"format_settings.{name}", value) for name, value in given.items()}
    return _check_attributes(checked) if form.settings is _CLOUDEVENTS else checked


def _check_attributes(settings: dict[str, Any]) -> dict[str, Any]:
    """Refuse two settings that write one attribute, and base64 of what is JSON."""
    own = settings.get("extensions", {})
    key, tenant = settings.get("key_as", "partitionkey"), settings.get("tenant_as", "")
    if key == "subject" and "subject" in settings:
        raise SubscriptionError("format_settings.subject: key_as sends the key there; remove one of the two")
    if key and key == tenant:
        raise SubscriptionError(f"format_settings.tenant_as: {tenant} takes the key already; choose another name")
    for name, attribute in (("key_as", key), ("tenant_as", tenant)):
        if attribute in own:
            raise SubscriptionError(f"format_settings.extensions.{attribute}: {name} writes it; remove one of the two")
    if "data_encoding" in settings and cloudevents.is_json(settings.get("datacontenttype", _JSON)):
        raise SubscriptionError(
            "format_settings.data_encoding: base64 is for data that is not JSON; give its datacontenttype too"
        )
    return settings


def warnings_of(form: str, url: str) -> list[str]:
    """Return what a person should know about this format at this URL; mostly nothing."""
    path, _, query = url.partition("://")[2].partition("?")
    found = []
    if form == "n8n" and "/webhook-test/" in path:
        found.append("/webhook-test/ answers only while the editor listens; use the production URL, /webhook/…")
    if form == "discord" and "wait=true" not in query.split("&"):
        found.append(
            "without ?wait=true Discord reports no error for a message that it does not save; add it to the URL"
        )
    if form == "cloudevents-binary":
        found.append("no signature covers the ce- headers; the format cloudevents has them in the signed body")
    return found
