"""Reads CloudEvents 1.0 from a request, strictly: the judge of what we send. Written from the specification."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

__all__ = ["NoEventError", "read"]

REQUIRED = ("specversion", "id", "source", "type")


class NoEventError(ValueError):
    """The request holds no CloudEvent."""


def read(headers: Mapping[str, str], body: bytes) -> Any:
    """Return the event as attributes and data, or the list of a batch. Raises NoEventError."""
    own = {name.lower(): value for name, value in headers.items()}
    media_type = own.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/cloudevents-batch+json":
        return [_checked(one) for one in json.loads(body)]
    if media_type == "application/cloudevents+json":
        return _checked(json.loads(body))
    attributes: dict[str, Any] = {name[3:]: _decoded(value) for name, value in own.items() if name.startswith("ce-")}
    if "content-type" in own:
        attributes["datacontenttype"] = own["content-type"]
    return _checked(attributes) | {"data": body}


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    if not all(event.get(name) for name in REQUIRED) or event["specversion"] != "1.0":
        raise NoEventError(f"a required attribute is missing: {sorted(event)}")
    if "data" in event and "data_base64" in event:
        raise NoEventError("data and data_base64 exclude each other")
    for name in event:
        if name != "data_base64" and not re.fullmatch("[a-z0-9]+", name):
            raise NoEventError(f"{name!r} is no name")
    return event


def _decoded(value: str) -> str:
    """Take away quotes and backslashes, as older senders write them, then decode once."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise NoEventError("overlong or broken UTF-8") from error
